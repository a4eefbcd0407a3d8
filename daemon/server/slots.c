/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include "server/hold.h"
#include "server/session.h"
#include "server/slots.h"
#include "server/state.h"
#include "server/wait.h"
#include "util/base.h"

#define SLOTS_TOLD_MAX 32u		/* changes that a lane has not answered yet */
#define SLOTS_TURN_NS 500000u
#define SLOTS_PIDS_MAX 8u		/* that a sentence names */
#define SLOTS_LATE_MAX 4096u		/* unanswered changes that are looked through for them */

#define CHANGE_SEVERAL UINT64_MAX

/* A change that is not answered yet. Slots that hold the method's address are right: only who may still hold code that calls
 * are to leave is waited for, and only such changes are listed. */
struct change {
	struct list link;		/* resident->changes */
	struct list waits;		/* that settle when this has ended, or wait for the next one then */
	uint64_t number;
	uint64_t version;		/* whose code that is; CHANGE_SEVERAL */
	struct watch *watch;
};

/* A lane's interest in a method */
struct watch {
	struct list link;		/* a bucket of server->watches */
	struct list lane_link;		/* lane->watches */
	struct list state_link;		/* lane->told or, when it is marked only, lane->marked; none: clean */
	struct lane *lane;
	struct resident *resident;
	uint32_t method;
	uint64_t ticket;		/* of the change that it was told of last */
	struct core_entry entry;	/* since the newest change */
	struct change changes[2], *told, *marked;
	bool is_told, is_marked;
	struct charge charge;
};

static struct list *watch_bucket(struct server *server, uint64_t module, uint32_t method)
{
	uint64_t h = (module * 0x9e3779b97f4a7c15u ^ method) + server->seed;

	h = (h ^ h >> 31) * 0xbf58476d1ce4e5b9u;
	return &server->watches[(h ^ h >> 29) % SERVER_WATCH_BUCKETS];
}

/* -- Settling --- */
/* Whether slots that have not followed yet may run what the method's replacement took away: its own code, or code of another
 * method that had inlined it. */
static bool change_concerns(const struct change *change, const struct wait *wait)
{
	const struct watch *watch = change->watch;
	const struct module *module;

	if (watch->method == wait->method || change->version == CHANGE_SEVERAL)
		return true;
	module = core_module_by_id(watch->lane->server->core, watch->resident->id);
	return module && core_version_has_inlined(module, watch->method, change->version, wait->method);
}

/* The first one from @pos on that came before the wait and concerns it; NULL */
static struct change *change_find(struct resident *resident, struct list *pos, const struct wait *wait)
{
	for (; pos != &resident->changes; pos = pos->next) {
		struct change *change = list_entry(pos, struct change, link);

		if (change->number > wait->next)
			break;
		if (change_concerns(change, wait))
			return change;
	}
	return NULL;
}

static struct change *change_next(const struct change *change, const struct wait *wait)
{
	return change_find(change->watch->resident, change->link.next, wait);
}

/* Waits for @change; NULL: it has settled. */
static void wait_proceed(struct wait *wait, struct change *change)
{
	wait->change = change;
	if (change) {
		list_append(&change->waits, &wait->link);
	} else {
		lane_done(wait->lane, wait->serial);
		wait_free(wait);
	}
}

static void change_end(struct change *change)
{
	struct list *first;

	while ((first = list_first(&change->waits))) {
		struct wait *wait = list_entry(first, struct wait, link);

		list_remove(first);
		wait_proceed(wait, change_next(change, wait));
	}
	list_remove(&change->link);
}

static bool pid_is_among(const pid_t *pids, unsigned int n, pid_t pid)
{
	while (n)
		if (pids[--n] == pid)
			return true;
	return false;
}

/* Who has not answered in time, as far as there is room: "12, 34" */
static void late_pids(const struct wait *wait, char *text, size_t n_text)
{
	const struct change *change = wait->change;
	pid_t pids[SLOTS_PIDS_MAX];
	unsigned int n = 0;
	size_t at = 0;

	text[0] = '\0';
	for (unsigned int i = 0; change && i < SLOTS_LATE_MAX && n < SLOTS_PIDS_MAX; i++, change = change_next(change, wait)) {
		pid_t pid = change->watch->lane->pid;

		if (pid_is_among(pids, n, pid))
			continue;
		at += snprintf(text + at, n_text - at, "%s%d", n ? ", " : "", pid);
		pids[n++] = pid;
	}
}

static void late_answer(struct wait *wait)
{
	char pids[SLOTS_PIDS_MAX * 16];

	late_pids(wait, pids, sizeof(pids));
	lane_error(wait->lane, wait->serial, TIER_ERROR_TIMEOUT,
		   "the body is replaced, but processes with slots of their own have not answered in time: pid %s", pids);
	wait_free(wait);
}

/* Who is thrown off delays nobody again: his slots lead to the methods' addresses as soon as he runs (libtier's lib/slots.c). */
void slots_late(struct wait *wait)
{
	const struct change *change = wait->change;

	for (unsigned int i = 0; change && i < SLOTS_LATE_MAX; i++, change = change_next(change, wait))
		lane_shut(change->watch->lane, "has not set its slots in time");
	late_answer(wait);
}

void slots_settle(struct wait *wait, uint64_t module)
{
	struct server *server = wait->lane->server;
	struct resident *resident = resident_find(server, module);

	wait->next = server->n_changes;
	wait->change = resident ? change_find(resident, resident->changes.next, wait) : NULL;
	if (wait->change && wait_set_deadline(server, wait, server->config.settle_ns))
		late_answer(wait);
	else
		wait_proceed(wait, wait->change);
}

/* -- Telling --- */
static void watch_tell(struct watch *watch)
{
	struct lane *lane = watch->lane;
	struct wire_slot_change body = { .module = watch->resident->id, .method = watch->method };
	struct change *clean = watch->told;

	watch->told = watch->marked;
	watch->marked = clean;
	watch->is_told = true;
	watch->is_marked = false;
	list_remove(&watch->state_link);
	list_append(&lane->told, &watch->state_link);
	lane->n_told++;
	body.ticket = watch->ticket = ++lane->ticket;
	lane_reply(lane, 0, WIRE_SLOT_CHANGED, &body);
}

static void lane_tell(struct lane *lane)
{
	struct list *first;

	while (lane->n_told < SLOTS_TOLD_MAX && (first = list_first(&lane->marked)))
		watch_tell(list_entry(first, struct watch, state_link));
}

static void slots_ring(struct server *server)
{
	if (!list_is_empty(&server->slot_news) && !list_is_linked(&server->slot_timer.link))
		dispatch_timer_arm(&server->slot_timer, clock_now_ns());
}

int slots_timer(struct dispatch_timer *timer, uint64_t now_ns)
{
	struct server *server = container_of(timer, struct server, slot_timer);
	uint64_t begin = clock_now_ns();
	struct list *first;

	while ((first = list_first(&server->slot_news)) && clock_now_ns() - begin < SLOTS_TURN_NS) {
		list_remove(first);
		lane_tell(list_entry(first, struct lane, slot_link));
	}
	slots_ring(server);
	return 0;
}

/* Slots may hold @version's code, and are to leave it. */
static void change_leave(struct change *change, uint64_t version)
{
	struct watch *watch = change->watch;

	if (list_is_linked(&change->link)) {
		change->version = change->version == version ? version : CHANGE_SEVERAL;
		return;
	}
	change->version = version;
	change->number = ++watch->lane->server->n_changes;
	list_append(&watch->resident->changes, &change->link);
}

static void watch_mark(struct watch *watch, struct core_entry entry)
{
	struct lane *lane = watch->lane;

	if (watch->entry.version)
		change_leave(watch->marked, watch->entry.version);
	watch->entry = entry;
	if (watch->is_marked)
		return;
	watch->is_marked = true;
	if (watch->is_told)
		return;
	list_append(&lane->marked, &watch->state_link);
	if (!list_is_linked(&lane->slot_link))
		list_append(&lane->server->slot_news, &lane->slot_link);
}

/* From inside the core: nothing is told here. What changes in a method is mostly its stage and not where calls go. */
void slots_method_changed(struct server *server, const struct module *module, uint64_t id, uint32_t method)
{
	const struct core_entry entry = core_method_entry(module, method);
	struct list *head = watch_bucket(server, id, method), *pos;

	list_for_each(pos, head) {
		struct watch *watch = list_entry(pos, struct watch, link);

		if (watch->method == method && watch->resident->id == id && watch->entry.address != entry.address)
			watch_mark(watch, entry);
	}
	slots_ring(server);
}

/* -- Watches --- */
static void watch_free(struct watch *watch)
{
	watch->lane->n_told -= watch->is_told;
	watch->lane->session->n_watches--;
	list_remove(&watch->link);
	list_remove(&watch->lane_link);
	list_remove(&watch->state_link);
	change_end(watch->told);
	change_end(watch->marked);
	charge_deinit(&watch->charge);
	free(watch);
}

static struct watch *watch_find(struct lane *lane, uint64_t module, uint32_t method)
{
	struct list *head = watch_bucket(lane->server, module, method), *pos;

	list_for_each(pos, head) {
		struct watch *watch = list_entry(pos, struct watch, link);

		if (watch->lane == lane && watch->method == method && watch->resident->id == module)
			return watch;
	}
	return NULL;
}

static struct change *change_init(struct change *change, struct watch *watch)
{
	list_init(&change->link);
	list_init(&change->waits);
	change->watch = watch;
	return change;
}

enum {
	_WATCH_E_SUCCESS,
	WATCH_E_UID,		/* its uid has as many as may be */
	WATCH_E_SESSION,	/* its process has */
};

/* 0, WATCH_E_*, -ENOMEM */
static int watch_new(struct lane *lane, const struct module *module, struct resident *resident, uint32_t method)
{
	struct server *server = lane->server;
	struct watch *watch;
	int r;

	if (lane->session->n_watches >= server->config.watches_per_session)
		return WATCH_E_SESSION;
	watch = calloc(1, sizeof(*watch));
	if (!watch)
		return -ENOMEM;
	r = charge_take(&server->charges, &watch->charge, lane->uid, SERVER_SLOT_WATCHES, 1);
	if (r) {
		free(watch);
		return r == CHARGE_E_QUOTA ? WATCH_E_UID : r;
	}
	watch->lane = lane;
	watch->resident = resident;
	watch->method = method;
	watch->entry = core_method_entry(module, method);
	watch->told = change_init(&watch->changes[0], watch);
	watch->marked = change_init(&watch->changes[1], watch);
	list_init(&watch->state_link);
	list_append(&lane->watches, &watch->lane_link);
	lane->session->n_watches++;
	list_append(watch_bucket(server, resident->id, method), &watch->link);
	return 0;
}

void slots_end_lane(struct lane *lane)
{
	struct list *first;

	while ((first = list_first(&lane->watches)))
		watch_free(list_entry(first, struct watch, lane_link));
	list_remove(&lane->slot_link);
}

void slots_end_hold(struct session *session, const struct hold *hold)
{
	struct list *lane, *pos, *after;

	list_for_each(lane, &session->lanes) {
		struct list *watches = &list_entry(lane, struct lane, link)->watches;

		list_for_each_safe(pos, after, watches) {
			struct watch *watch = list_entry(pos, struct watch, lane_link);

			if (watch->resident == hold->resident)
				watch_free(watch);
		}
	}
}

/* -- Requests --- */
int slots_watch(struct lane *lane, const struct request *request)
{
	const struct wire_method_ref *ref = request->body;
	struct module *module = session_method(lane, request->serial, ref->module, ref->method);
	struct hold *hold;
	int r;

	if (!module)
		return 0;
	if (lane->kind != WIRE_LANE_SLOTS)
		return lane_error(lane, request->serial, TIER_ERROR_ARGUMENT,
				  "SLOT_WATCH belongs on a connection that HELLO said is for slots");
	hold = hold_find(lane->session, ref->module);
	if (!hold)
		return lane_error(lane, request->serial, TIER_ERROR_NO_MODULE, "this session does not hold module %llu",
				  (unsigned long long)ref->module);
	r = watch_find(lane, ref->module, ref->method) ? 0 : watch_new(lane, module, hold->resident, ref->method);
	if (r == WATCH_E_SESSION)
		return lane_error(lane, request->serial, TIER_ERROR_QUOTA, "this process has slots of its own for %u methods already",
				  lane->server->config.watches_per_session);
	if (r == WATCH_E_UID)
		return lane_error(lane, request->serial, TIER_ERROR_QUOTA, "this user's processes have slots of their own for %u methods already",
				  lane->server->config.watches_per_uid);
	if (r)
		return lane_error(lane, request->serial, TIER_ERROR_NO_MEMORY, NULL);
	lane_done(lane, request->serial);
	return 0;
}

/* A lane that was never told of anything has nothing to answer. */
int slots_done(struct lane *lane, const struct request *request)
{
	const struct wire_slot_change *change = request->body;
	struct list *first;

	if (change->ticket > lane->ticket)
		return lane_break(lane, request->serial, "SLOT_DONE answers a change that was not told yet");
	while ((first = list_first(&lane->told))) {
		struct watch *watch = list_entry(first, struct watch, state_link);

		if (watch->ticket > change->ticket)
			break;
		list_remove(&watch->state_link);
		lane->n_told--;
		watch->is_told = false;
		if (watch->is_marked)
			list_append(&lane->marked, &watch->state_link);
		change_end(watch->told);
	}
	lane_tell(lane);
	return 0;
}

/* One-way, so nothing is answered. */
int slots_used(struct lane *lane, const struct request *request)
{
	const struct server_ops *ops = lane->server->ops;
	const struct wire_slot *slot = request->body;
	struct module *module = session_module(lane, slot->module, NULL);

	if (module && ops->slot_method(core_module_context(module), slot->cell) == slot->method)
		core_slot_used(module, slot->method, slot->cell);
	return 0;
}
