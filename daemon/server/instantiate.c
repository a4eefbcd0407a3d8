/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>
#include "server/hold.h"
#include "server/instantiate.h"
#include "server/load.h"
#include "server/session.h"
#include "server/state.h"
#include "util/base.h"

static int instantiate_reply(struct lane *lane, uint64_t serial, struct module *module)
{
	struct wire_module_ref body = {};
	struct core_module_info info;

	core_module_info(module, &info);
	body.module = info.id;
	strncpy(body.name, info.name, sizeof(body.name) - 1);
	lane_reply(lane, serial, WIRE_LOADED, &body);
	return 0;
}

static int instantiate_begin(struct lane *lane, const struct request *request, struct module *base, uint64_t id,
			     const char *name)
{
	struct server *server = lane->server;
	struct server_load *load;

	if (!load_has_room(lane))
		return lane_error(lane, request->serial, TIER_ERROR_QUOTA, "this user has %u modules already",
				  server->config.modules_per_uid);
	load = load_new(lane, request, name, 0);
	if (!load)
		return 0;
	load->base = resident_get(server, id);
	if (!load->base)
		return load_begun(load, TIER_ERROR_NO_MEMORY);
	load->base->n_holders++;
	return load_begun(load, server->ops->instantiate(server->context, base, lane->uid, request->body, load));
}

int instantiate_request(struct lane *lane, const struct request *request)
{
	const struct server *server = lane->server;
	const struct wire_instantiate *body = request->body;
	struct core_module_info info;
	struct module *base = session_module(lane, body->module, &info), *module = NULL;
	char name[WIRE_NAME_MAX] = "", text[WIRE_TEXT_MAX] = "";
	enum tier_error error;

	if (!base)
		return lane_error(lane, request->serial, TIER_ERROR_NO_MODULE, "no module %llu",
				  (unsigned long long)body->module);
	if (!info.named)
		return lane_error(lane, request->serial, TIER_ERROR_NO_MODULE, "module '%s' was unloaded", info.name);
	if (server->ops->base(core_module_context(base)))
		return lane_error(lane, request->serial, TIER_ERROR_ARGUMENT,
				  "module '%s' is an instantiation; give the values to the module that it was made of",
				  info.name);
	error = server->ops->find_instance(server->context, base, lane->uid, body, &module, name, text);
	if (error)
		return lane_error(lane, request->serial, error, "module '%s': %s", info.name, text);
	if (module)
		return instantiate_reply(lane, request->serial, module);
	if (body->flags & WIRE_INSTANTIATE_FIND)
		return lane_error(lane, request->serial, TIER_ERROR_NO_MODULE, "there is no module '%s'", name);
	return instantiate_begin(lane, request, base, info.id, name);
}
