/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>
#include "server/freeze.h"
#include "server/hold.h"
#include "server/session.h"
#include "server/slots.h"
#include "server/state.h"
#include "server/wait.h"
#include "util/base.h"

/* A module that goes takes tens of microseconds, and a session may hold a thousand */
#define HOLD_TURN_NS 500000u

/* -- Residents --- */
static struct list *resident_bucket(const struct server *server, uint64_t id)
{
	return (struct list *)&server->residents[id % SERVER_RESIDENT_BUCKETS];
}

struct resident *resident_find(const struct server *server, uint64_t id)
{
	struct list *head = resident_bucket(server, id), *pos;

	list_for_each(pos, head) {
		struct resident *resident = list_entry(pos, struct resident, link);

		if (resident->id == id)
			return resident;
	}
	return NULL;
}

struct resident *resident_get(struct server *server, uint64_t id)
{
	struct resident *resident = resident_find(server, id);

	if (resident)
		return resident;
	resident = calloc(1, sizeof(*resident));
	if (!resident)
		return NULL;
	resident->id = id;
	list_init(&resident->waits);
	list_init(&resident->changes);
	list_append(resident_bucket(server, id), &resident->link);
	return resident;
}

void resident_put(struct resident *resident)
{
	if (resident->n_holders || !list_is_empty(&resident->waits))
		return;
	list_remove(&resident->link);
	free(resident);
}

/* The module goes when it has neither a name nor a holder; and with the last instantiation perhaps the one it was made of. */
static void resident_settle(struct server *server, uint64_t id)
{
	struct module *module = core_module_by_id(server->core, id);
	struct resident *resident = resident_find(server, id);
	struct core_module_info info;
	uint64_t base;

	if (!module || (resident && resident->n_holders) || server->is_closing || id <= server->grace)
		return;
	core_module_info(module, &info);
	if (info.named || server->ops->has_instances(core_module_context(module)))
		return;
	base = server->ops->base(core_module_context(module));
	server->ops->release(server->context, module);
	if (resident)
		wait_module_gone(server, resident);
	if (base)
		resident_settle(server, base);
}

void resident_leave(struct server *server, struct resident *resident)
{
	const uint64_t id = resident->id;

	resident->n_holders--;
	resident_put(resident);
	resident_settle(server, id);
}

/* -- Holds --- */
struct hold *hold_find(const struct session *session, uint64_t id)
{
	struct list *pos;

	list_for_each(pos, &session->holds) {
		struct hold *hold = list_entry(pos, struct hold, link);

		if (hold->resident->id == id)
			return hold;
	}
	return NULL;
}

/* In nobody's list yet */
static struct hold *hold_make(struct server *server, uint64_t id)
{
	struct resident *resident = resident_get(server, id);
	struct hold *hold;

	if (!resident)
		return NULL;
	hold = calloc(1, sizeof(*hold));
	if (!hold) {
		resident_put(resident);
		return NULL;
	}
	hold->resident = resident;
	resident->n_holders++;
	list_init(&hold->link);
	return hold;
}

static struct hold *hold_new(struct session *session, uint64_t id)
{
	struct hold *hold = hold_make(session->server, id);

	if (!hold)
		return NULL;
	list_append(&session->holds, &hold->link);
	session->n_holds++;
	return hold;
}

static void hold_free(struct server *server, struct hold *hold)
{
	struct resident *resident = hold->resident;

	freeze_end_hold(server, hold);
	list_remove(&hold->link);
	free(hold);
	resident_leave(server, resident);
}

struct hold *hold_get(struct session *session, uint64_t id)
{
	struct hold *hold = hold_find(session, id);

	return hold ? hold : hold_new(session, id);
}

void hold_put(struct session *session, struct hold *hold)
{
	if (hold->n || hold->is_freezing)
		return;
	session->n_holds--;
	slots_end_hold(session, hold);
	hold_free(session->server, hold);
}

/* -- Ends of sessions --- */
static void orphan_release(struct server *server, struct hold *hold)
{
	struct module *module = core_module_by_id(server->core, hold->resident->id);

	/* The client may have died between a decrement and its bell. */
	if (module && !server->is_closing)
		core_sweep(server->core, module);
	hold_free(server, hold);
}

void hold_release_orphans(struct server *server)
{
	uint64_t begin = clock_now_ns();
	struct list *first;

	while ((first = list_first(&server->orphans))) {
		orphan_release(server, list_entry(first, struct hold, link));
		if (clock_now_ns() - begin >= HOLD_TURN_NS && !server->is_closing)
			break;
	}
	if (list_is_empty(&server->orphans))
		dispatch_timer_disarm(&server->orphan_timer);
	else
		dispatch_timer_arm(&server->orphan_timer, clock_now_ns());
}

int hold_orphan_timer(struct dispatch_timer *timer, uint64_t now_ns)
{
	hold_release_orphans(container_of(timer, struct server, orphan_timer));
	return 0;
}

void hold_release_all(struct session *session)
{
	struct server *server = session->server;
	struct list *first;

	while ((first = list_first(&session->holds))) {
		list_remove(first);
		list_append(&server->orphans, first);
	}
	session->n_holds = 0;
	if (!server->is_closing)	/* what rang is no threshold that somebody has to find */
		server->ops->drain(server->context);
	hold_release_orphans(server);
}

/* -- After a takeover --- */
void hold_grant_grace(struct server *server, uint64_t ns)
{
	struct module *module = NULL;
	struct core_module_info info;

	while ((module = core_module_next(server->core, module))) {
		core_module_info(module, &info);
		server->grace = info.id;
	}
	if (server->grace)
		dispatch_timer_arm(&server->grace_timer, clock_now_ns() + ns);
}

/* Whoever has not come back by now does not come any more. */
static void grace_end(struct server *server)
{
	const uint64_t begin = clock_now_ns();
	struct module *module = core_module_next(server->core, NULL), *next;
	struct core_module_info info;

	for (; module; module = next) {
		next = core_module_next(server->core, module);	/* what it was made of has a lower id */
		core_module_info(module, &info);
		if (info.id <= server->n_settled)
			continue;
		server->n_settled = info.id;
		resident_settle(server, info.id);
		if (next && clock_now_ns() - begin >= HOLD_TURN_NS) {
			dispatch_timer_arm(&server->grace_timer, clock_now_ns());
			return;
		}
	}
}

int hold_grace_timer(struct dispatch_timer *timer, uint64_t now_ns)
{
	struct server *server = container_of(timer, struct server, grace_timer);

	server->grace = 0;
	grace_end(server);
	return 0;
}

/* -- Requests --- */
static int attach_reply(struct lane *lane, uint64_t serial, struct module *module, const struct core_module_info *info,
			bool with_fds)
{
	const struct server *server = lane->server;
	struct wire_module body = { .module = info->id, .uid = info->uid, .layout = info->layout };
	int fds[_TIER_SEGMENT_N];

	body.base = server->ops->base(core_module_context(module));
	body.flags = (info->shared ? WIRE_MODULE_SHARED : 0) | (info->named ? 0 : WIRE_MODULE_UNNAMED);
	strncpy(body.name, info->name, sizeof(body.name) - 1);
	for (unsigned int i = 0; with_fds && i < _TIER_SEGMENT_N; i++)
		fds[i] = server->ops->segment_fd(core_module_context(module), (enum tier_segment)i);
	lane_reply_fds(lane, serial, WIRE_MODULE, &body, fds, with_fds ? _TIER_SEGMENT_N : 0);
	return 0;
}

int hold_attach(struct lane *lane, const struct request *request)
{
	const struct wire_attach *attach = request->body;
	struct core_module_info info;
	struct module *module = session_resolve(lane, request->serial, &attach->ref, &info);
	struct hold *hold;

	if (!module)
		return 0;
	hold = hold_get(lane->session, info.id);
	if (!hold)
		return lane_error(lane, request->serial, TIER_ERROR_NO_MEMORY, NULL);
	hold->n++;
	return attach_reply(lane, request->serial, module, &info, !(attach->flags & WIRE_ATTACH_HOLD_ONLY));
}

int hold_detach(struct lane *lane, const struct request *request)
{
	struct core_module_info info;
	struct module *module = session_resolve(lane, request->serial, request->body, &info);
	struct hold *hold;

	if (!module)
		return 0;
	hold = hold_find(lane->session, info.id);
	if (!hold || !hold->n)
		return lane_error(lane, request->serial, TIER_ERROR_NO_MODULE, "this session does not hold module '%s'", info.name);
	if (--hold->n == 0)
		freeze_end(lane->session, hold);
	hold_put(lane->session, hold);
	lane_done(lane, request->serial);
	return 0;
}

/* It may have a thousand: they go as if a session had held them, in the turns that follow. */
static void unload_instances(struct server *server, struct module *base, uint64_t id)
{
	struct module *module = base, *next = core_module_next(server->core, module);
	struct core_module_info info;

	if (!server->ops->has_instances(core_module_context(base)))
		return;
	while ((module = next)) {	/* their ids are above its own */
		struct hold *hold;

		next = core_module_next(server->core, module);
		if (server->ops->base(core_module_context(module)) != id)
			continue;
		core_module_info(module, &info);
		if (!info.named)
			continue;
		core_module_unname(module);
		hold = hold_make(server, info.id);
		if (hold)
			list_append(&server->orphans, &hold->link);
		else
			resident_settle(server, info.id);
	}
	dispatch_timer_arm(&server->orphan_timer, clock_now_ns());
}

int hold_unload(struct lane *lane, const struct request *request)
{
	struct core_module_info info;
	struct module *module = session_resolve(lane, request->serial, request->body, &info);
	uint64_t id;

	if (!module)
		return 0;
	if (info.uid != lane->session->uid && lane->session->uid != 0)
		return lane_error(lane, request->serial, TIER_ERROR_DENIED, "module '%s' belongs to user %u", info.name, info.uid);
	if (!info.named)
		return lane_error(lane, request->serial, TIER_ERROR_NO_MODULE, "module '%s' was unloaded already", info.name);
	id = info.id;
	core_module_unname(module);
	unload_instances(lane->server, module, id);
	resident_settle(lane->server, id);
	lane_done(lane, request->serial);
	return 0;
}
