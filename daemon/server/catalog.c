/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>
#include "server/catalog.h"
#include "server/session.h"
#include "server/state.h"
#include "tiering/census.h"

/* A batch of the list stops early when it has looked at so many method records: about a millisecond. */
#define CATALOG_RECORDS_PER_BATCH 20000u

/* -- Modules --- */
static void row_fill(struct wire_module_row *row, const struct module *module, const struct core_module_info *info)
{
	*row = (struct wire_module_row){ .module = info->id, .uid = info->uid, .n_methods = info->layout.n_methods };
	row->flags = (info->shared ? WIRE_MODULE_SHARED : 0) | (info->named ? 0 : WIRE_MODULE_UNNAMED)
		   | (core_is_frozen(module) ? WIRE_MODULE_FROZEN : 0);
	core_module_census(module, row->n_status, &row->n_pending);
	strncpy(row->name, info->name, sizeof(row->name) - 1);
}

/* The module to go on behind: @id's own, or when it is gone the last one below it. */
static struct module *catalog_seek(struct core *core, uint64_t id)
{
	struct module *module = core_module_by_id(core, id), *next = NULL;
	struct core_module_info info;

	if (module || !id)
		return module;
	while ((next = core_module_next(core, next))) {
		core_module_info(next, &info);
		if (info.id > id)
			break;
		module = next;
	}
	return module;
}

int catalog_list(struct lane *lane, const struct request *request)
{
	struct core *core = lane->server->core;
	const struct wire_cursor *cursor = request->body;
	struct module *module = catalog_seek(core, cursor->cursor);
	struct wire_modules body = {};
	uint64_t n_records = 0;

	while ((module = core_module_next(core, module))) {
		struct core_module_info info;

		core_module_info(module, &info);
		if (!session_sees(lane->session, &info))
			continue;
		n_records += info.layout.n_methods;
		if (body.n == WIRE_MODULES_MAX || (body.n && n_records > CATALOG_RECORDS_PER_BATCH)) {
			body.more = 1;
			break;
		}
		row_fill(&body.rows[body.n++], module, &info);
	}
	lane_reply(lane, request->serial, WIRE_MODULES, &body);
	return 0;
}

/* -- Names in a module --- */
typedef bool (*catalog_name_fn)(void *module_context, uint32_t index, const char **name, uint32_t *flags);

static int catalog_names(struct lane *lane, const struct request *request, catalog_name_fn name_of)
{
	const struct wire_cursor *cursor = request->body;
	struct module *module = session_module(lane, cursor->module, NULL);
	struct wire_names body = {};
	const char *name;
	uint32_t flags;

	if (!module)
		return lane_error(lane, request->serial, TIER_ERROR_NO_MODULE, "no module %llu", (unsigned long long)cursor->module);
	for (uint64_t i = cursor->cursor; i < UINT32_MAX && name_of(core_module_context(module), i, &name, &flags); i++) {
		struct wire_name_row *row = &body.rows[body.n];

		if (body.n == WIRE_NAMES_MAX) {
			body.more = 1;
			break;
		}
		row->index = i;
		row->flags = flags;
		strncpy(row->name, name, sizeof(row->name) - 1);
		body.n++;
	}
	lane_reply(lane, request->serial, WIRE_NAMES, &body);
	return 0;
}

int catalog_methods(struct lane *lane, const struct request *request)
{
	return catalog_names(lane, request, lane->server->ops->method_name);
}

int catalog_imports(struct lane *lane, const struct request *request)
{
	return catalog_names(lane, request, lane->server->ops->import_name);
}

int catalog_find(struct lane *lane, const struct request *request)
{
	const struct wire_find *find = request->body;
	struct wire_method_ref body = { .module = find->module };
	struct core_module_info info;
	struct module *module = session_module(lane, find->module, &info);
	int64_t index;

	if (!module)
		return lane_error(lane, request->serial, TIER_ERROR_NO_MODULE, "no module %llu", (unsigned long long)find->module);
	index = lane->server->ops->find(core_module_context(module), find->method);
	if (index < 0)
		return lane_error(lane, request->serial, TIER_ERROR_NO_METHOD, "module '%s' has no method '%s'", info.name,
				  find->method);
	body.method = index;
	lane_reply(lane, request->serial, WIRE_FOUND, &body);
	return 0;
}
