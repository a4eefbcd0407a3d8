/* SPDX-License-Identifier: Apache-2.0 */
#include "server/freeze.h"
#include "server/hold.h"
#include "server/session.h"
#include "server/state.h"
#include "server/wait.h"

/* -- Ends --- */
void freeze_end_hold(struct server *server, struct hold *hold)
{
	struct module *module = core_module_by_id(server->core, hold->resident->id);

	if (module && hold->is_freezing && !server->is_closing)
		core_thaw(module);
	hold->is_freezing = false;
}

static void freeze_cancel_waits(struct lane *lane, const struct resident *resident)
{
	struct list *pos, *after;

	list_for_each_safe(pos, after, &lane->waits) {
		struct wait *wait = list_entry(pos, struct wait, lane_link);

		if (wait->kind == WAIT_FREEZE && wait->resident == resident)
			wait_end(wait, TIER_ERROR_CANCELED);
	}
}

void freeze_end(struct session *session, struct hold *hold)
{
	struct list *pos;

	if (!hold->is_freezing)
		return;
	list_for_each(pos, &session->lanes)
		freeze_cancel_waits(list_entry(pos, struct lane, link), hold->resident);
	freeze_end_hold(session->server, hold);
}

/* -- Requests --- */
/* NULL: an error was sent. */
static struct module *freeze_target(struct lane *lane, const struct request *request, struct core_module_info *info)
{
	struct module *module = session_resolve(lane, request->serial, request->body, info);

	if (!module || info->uid == lane->session->uid || lane->session->uid == 0)
		return module;
	lane_error(lane, request->serial, TIER_ERROR_DENIED,
		   "module '%s' belongs to user %u: only that user and root may freeze it", info->name, info->uid);
	return NULL;
}

bool freeze_look(struct wait *wait, struct module *module)
{
	if (core_n_compiling(module))
		return false;
	lane_done(wait->lane, wait->serial);
	return true;
}

/* False: it is refused. */
static bool freeze_wait(struct lane *lane, const struct request *request, const struct hold *hold)
{
	struct wait *wait = wait_new(lane, request->serial, WAIT_FREEZE, UINT64_MAX);

	return wait && wait_for_module(wait, hold->resident->id, WAIT_NO_METHOD);
}

int freeze_request(struct lane *lane, const struct request *request)
{
	struct core_module_info info;
	struct module *module = freeze_target(lane, request, &info);
	struct hold *hold;
	bool was_freezing;

	if (!module)
		return 0;
	hold = hold_get(lane->session, info.id);
	if (!hold)
		return lane_error(lane, request->serial, TIER_ERROR_NO_MEMORY, NULL);
	was_freezing = hold->is_freezing;
	if (!was_freezing)
		core_freeze(module);
	hold->is_freezing = true;
	if (!core_n_compiling(module)) {
		lane_done(lane, request->serial);
	} else if (!freeze_wait(lane, request, hold) && !was_freezing) {
		freeze_end(lane->session, hold);	/* who is refused has frozen nothing */
		hold_put(lane->session, hold);
	}
	return 0;
}

int freeze_thaw(struct lane *lane, const struct request *request)
{
	struct core_module_info info;
	struct module *module = freeze_target(lane, request, &info);
	struct hold *hold = module ? hold_find(lane->session, info.id) : NULL;

	if (!module)
		return 0;
	if (!hold || !hold->is_freezing)
		return lane_error(lane, request->serial, TIER_ERROR_ARGUMENT, "this session has not frozen module '%s'", info.name);
	freeze_end(lane->session, hold);
	hold_put(lane->session, hold);
	lane_done(lane, request->serial);
	return 0;
}

int freeze_mark(struct lane *lane, const struct request *request)
{
	struct server *server = lane->server;
	struct module *module = session_resolve(lane, request->serial, request->body, NULL);
	struct tier_records_mark mark;
	struct wire_mark body;

	if (!module)
		return 0;
	server->ops->drain(server->context);
	core_sweep(server->core, module);	/* a threshold whose bell was lost is about to change something */
	mark = core_mark(module);
	body = (struct wire_mark){ .changes = mark.changes, .n_compiling = mark.n_compiling, .is_frozen = mark.is_frozen };
	lane_reply(lane, request->serial, WIRE_MARKED, &body);
	return 0;
}
