/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>
#include "server/look.h"
#include "server/session.h"
#include "server/state.h"

int look_describe(struct lane *lane, const struct request *request)
{
	const struct wire_method_ref *ref = request->body;
	struct module *module = session_method(lane, request->serial, ref->module, ref->method);
	struct wire_description body = { .module = ref->module, .method = ref->method };

	if (!module)
		return 0;
	lane->server->ops->describe(core_module_context(module), ref->method, &body);
	lane_reply(lane, request->serial, WIRE_DESCRIPTION, &body);
	return 0;
}

int look_history(struct lane *lane, const struct request *request)
{
	const struct wire_look *look = request->body;
	struct module *module = session_method(lane, request->serial, look->module, look->method);
	uint64_t before = look->cursor;
	struct core_version_info info;
	struct wire_versions body = {};

	if (!module)
		return 0;
	for (; core_version_below(module, look->method, before, &info); before = info.id) {
		if (body.n == WIRE_VERSIONS_MAX) {
			body.more = 1;
			break;
		}
		body.rows[body.n++] = (struct wire_version_row){
			.version = info.id,
			.code = info.code,
			.size = info.size,
			.stub = info.stub,
			.published_ns = info.published_ns,
			.tier = info.level,
			.state = info.state,
			.flags = info.is_active ? WIRE_VERSION_ACTIVE : 0,
			.n_inlined = info.n_inlined,
			.threshold = info.threshold,
			.body = info.body,
		};
	}
	lane_reply(lane, request->serial, WIRE_VERSIONS, &body);
	return 0;
}

/* Which methods a version inlined is the core's knowledge; what they are called is the image's. */
static void look_inlined(const struct server *server, const struct module *module, const struct wire_look *look,
			 struct wire_names *ret)
{
	void *context = core_module_context(module);
	uint32_t index;

	for (uint64_t i = look->cursor; i < UINT32_MAX && core_version_inlined(module, look->method, look->version, i, &index); i++) {
		struct wire_name_row *row = &ret->rows[ret->n];
		const char *name;

		if (ret->n == WIRE_NAMES_MAX) {
			ret->more = 1;
			return;
		}
		if (!server->ops->method_name(context, index, &name, &row->flags))
			return;
		row->index = index;
		strncpy(row->name, name, sizeof(row->name) - 1);
		ret->n++;
	}
}

int look_related(struct lane *lane, const struct request *request)
{
	const struct wire_look *look = request->body;
	const struct server *server = lane->server;
	struct module *module = session_method(lane, request->serial, look->module, look->method);
	struct wire_names body = {};

	if (!module)
		return 0;
	if (look->relation == WIRE_RELATION_INLINED)
		look_inlined(server, module, look, &body);
	else
		server->ops->related(core_module_context(module), look->method, look->relation, look->cursor, &body);
	lane_reply(lane, request->serial, WIRE_NAMES, &body);
	return 0;
}

int look_bytecode(struct lane *lane, const struct request *request)
{
	const struct wire_look *look = request->body;
	struct module *module = session_method(lane, request->serial, look->module, look->method);
	struct wire_insns body = {};

	if (!module)
		return 0;
	lane->server->ops->insns(core_module_context(module), look->method, look->cursor, &body);
	lane_reply(lane, request->serial, WIRE_INSNS, &body);
	return 0;
}

int look_lines(struct lane *lane, const struct request *request)
{
	const struct wire_look *look = request->body;
	struct module *module = session_method(lane, request->serial, look->module, look->method);
	struct wire_source body = {};

	if (!module)
		return 0;
	lane->server->ops->lines(core_module_context(module), look->method, look->cursor, &body);
	lane_reply(lane, request->serial, WIRE_SOURCE, &body);
	return 0;
}
