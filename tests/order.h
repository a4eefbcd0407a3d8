/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Order: what a stream of events may say, one after the other
 *
 * An acceptor that knows nothing but the events: numbers without holes; of each method a ladder, and that of its own
 * body while another is in its place; who was queued before it was compiled, and compiled before it was published; a
 * threshold before what it causes; transactions whole, their events next to each other; nothing told twice. Modules
 * that are frozen and uids that are delayed start no jobs but those of first calls. Takeovers leave no trace in it.
 *
 *   struct order *order = order_new(1);
 *   while (…next event…)
 *           if ((broken = order_hear(order, event)))
 *                   fail_msg("%s", broken);
 *
 * One thing happens without an event: a body that is away loses code that had inlined somebody who was replaced. It is
 * seen when the body comes back. */

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tier/events.h"

/* Of code: a version that has some, or a job that is outside */
struct order_version {
	uint64_t id, body;
	enum tier_level level;
};

struct order_versions {
	struct order_version *all;
	uint32_t n, n_max;
};

struct order_ladder {
	enum tier_stage stage;
	enum tier_level level, next_level;
	enum tier_reason reason; /* why final; COLD: why the optimizer failed */
	uint64_t active, next;	 /* versions; 0: none */
	bool is_guessed;	 /* active is one of its tier, perhaps not this one */
	struct order_versions live;
};

struct order_method {
	uint64_t module;
	uint32_t index;
	struct order_ladder now, own; /* own: while another body is there */
	uint64_t body;		      /* 0: its own; else the number of the event that brought it */
	struct order_versions jobs;   /* outside */
	struct order_versions osr;    /* asked for */
	uint32_t n_events;
	struct order_method *next;
};

struct order_module {
	uint64_t id;
	bool is_unloaded, is_frozen;
};

struct order_user {
	uint32_t uid;
	bool is_delayed;
};

struct order {
	uint64_t sequence; /* of the newest event */
	struct {
		uint32_t kinds; /* mask; 0: whatever comes */
		uint64_t module, version;
		uint32_t method;
	} expected; /* what belongs to the transaction of the event before */
	struct order_method **methods;
	uint32_t n_methods, n_buckets;
	struct order_module *modules;
	uint32_t n_modules;
	struct order_user *users;
	uint32_t n_users;
	uint64_t n_kinds[_TIER_EVENT_N], n_sources[_TIER_SOURCE_N]; /* sources: of thresholds */
	char broken[256];
};

#define ORDER_KIND(NAME) (1u << TIER_EVENT_##NAME)

/* -- Memory --- */
static inline void *order_memory(void *memory)
{
	if (!memory)
		abort();
	return memory;
}

static inline struct order *order_new(uint64_t first_sequence)
{
	struct order *order = order_memory(calloc(1, sizeof(*order)));

	order->sequence = first_sequence - 1;
	order->n_buckets = 64;
	order->methods = order_memory(calloc(order->n_buckets, sizeof(*order->methods)));
	return order;
}

static inline void order_free(struct order *order)
{
	for (uint32_t i = 0; i < order->n_buckets; i++)
		for (struct order_method *method = order->methods[i], *next; method; method = next) {
			next = method->next;
			free(method->now.live.all);
			free(method->own.live.all);
			free(method->jobs.all);
			free(method->osr.all);
			free(method);
		}
	free(order->methods);
	free(order->modules);
	free(order->users);
	free(order);
}

static inline void versions_add(struct order_versions *versions, uint64_t id, uint64_t body, enum tier_level level)
{
	if (versions->n == versions->n_max) {
		versions->n_max = 2 * versions->n_max + 4;
		versions->all = order_memory(realloc(versions->all, versions->n_max * sizeof(*versions->all)));
	}
	versions->all[versions->n++] = (struct order_version){ .id = id, .body = body, .level = level };
}

static inline struct order_version *versions_find(const struct order_versions *versions, uint64_t id)
{
	for (uint32_t i = versions->n; i--;)
		if (versions->all[i].id == id)
			return &versions->all[i];
	return NULL;
}

static inline bool versions_remove(struct order_versions *versions, uint64_t id, struct order_version *ret)
{
	struct order_version *found = versions_find(versions, id);

	if (!found)
		return false;
	*ret = *found;
	*found = versions->all[--versions->n];
	return true;
}

/* The oldest of a level; NULL */
static inline const struct order_version *versions_oldest(const struct order_versions *versions, enum tier_level level)
{
	const struct order_version *oldest = NULL;

	for (uint32_t i = 0; i < versions->n; i++)
		if (versions->all[i].level == level && (!oldest || versions->all[i].id < oldest->id))
			oldest = &versions->all[i];
	return oldest;
}

/* -- Who is who --- */
static inline uint32_t order_bucket(const struct order *order, uint64_t module, uint32_t index)
{
	return (module * 0x9e3779b97f4a7c15 + index * 2654435761u) % order->n_buckets;
}

static inline void order_grow(struct order *order)
{
	struct order_method **before = order->methods;
	const uint32_t n = order->n_buckets;

	order->n_buckets *= 4;
	order->methods = order_memory(calloc(order->n_buckets, sizeof(*order->methods)));
	for (uint32_t i = 0; i < n; i++)
		for (struct order_method *method = before[i], *next; method; method = next) {
			struct order_method **bucket = &order->methods[order_bucket(order, method->module, method->index)];

			next = method->next;
			method->next = *bucket;
			*bucket = method;
		}
	free(before);
}

/* NULL: nothing was told of it: it is cold. */
static inline struct order_method *order_find(const struct order *order, uint64_t module, uint32_t index)
{
	struct order_method *method = order->methods[order_bucket(order, module, index)];

	while (method && (method->module != module || method->index != index))
		method = method->next;
	return method;
}

static inline struct order_method *order_method(struct order *order, uint64_t module, uint32_t index)
{
	struct order_method *method = order_find(order, module, index), **bucket;

	if (method)
		return method;
	if (order->n_methods++ == order->n_buckets)
		order_grow(order);
	method = order_memory(calloc(1, sizeof(*method)));
	bucket = &order->methods[order_bucket(order, module, index)];
	*method = (struct order_method){ .module = module, .index = index, .next = *bucket };
	method->now.level = method->own.level = TIER_LEVEL_NONE;
	*bucket = method;
	return method;
}

static inline struct order_module *order_module(const struct order *order, uint64_t id)
{
	for (uint32_t i = order->n_modules; i--;)
		if (order->modules[i].id == id)
			return &order->modules[i];
	return NULL;
}

static inline struct order_user *order_user(struct order *order, uint32_t uid)
{
	for (uint32_t i = 0; i < order->n_users; i++)
		if (order->users[i].uid == uid)
			return &order->users[i];
	order->users = order_memory(realloc(order->users, (order->n_users + 1) * sizeof(*order->users)));
	order->users[order->n_users] = (struct order_user){ .uid = uid };
	return &order->users[order->n_users++];
}

/* -- What is wrong, and what must come next --- */
static inline const char *order_break(struct order *order, const struct tier_event *event, const char *what)
{
	snprintf(order->broken, sizeof(order->broken), "event %llu, %s of module %llu method %u version %llu (%s to %s, %s): %s",
		 (unsigned long long)event->sequence, tier_event_name(event->kind), (unsigned long long)event->module,
		 event->method, (unsigned long long)event->version, tier_level_name(event->from), tier_level_name(event->to),
		 tier_reason_name(event->reason), what);
	return order->broken;
}

/* @version 0: any */
static inline void order_expect(struct order *order, const struct order_method *method, uint32_t kinds, uint64_t version)
{
	order->expected.kinds = kinds;
	order->expected.module = method->module;
	order->expected.method = method->index;
	order->expected.version = version;
}

static inline bool order_is_expected(const struct order *order, const struct tier_event *event)
{
	return order->expected.kinds >> event->kind & 1 && order->expected.module == event->module
	       && order->expected.method == event->method
	       && (!order->expected.version || order->expected.version == event->version);
}

static inline bool order_is_final(enum tier_level level)
{
	return level == TIER_LEVEL_TIER1 || level == TIER_LEVEL_OPTIMIZED || level == TIER_LEVEL_MIN_OPT_JITTED;
}

static inline bool order_may_follow(enum tier_level from, enum tier_level to)
{
	switch (from) {
	case TIER_LEVEL_NONE:
		return to == TIER_LEVEL_OPTIMIZED;
	case TIER_LEVEL_TIER0:
		return to == TIER_LEVEL_TIER0_INSTRUMENTED || to == TIER_LEVEL_TIER1;
	case TIER_LEVEL_READY_TO_RUN:
		return to == TIER_LEVEL_TIER1_INSTRUMENTED || to == TIER_LEVEL_TIER1;
	default:
		return to == TIER_LEVEL_TIER1;
	}
}

/* Whether that is the version that calls reach */
static inline bool order_is_active(struct order_ladder *ladder, uint64_t version)
{
	const struct order_version *found = versions_find(&ladder->live, version);

	if (ladder->active == version)
		return true;
	if (!ladder->is_guessed || !found || found->level != ladder->level)
		return false;
	ladder->active = version;
	ladder->is_guessed = false;
	return true;
}

static inline uint64_t order_active(const struct order_ladder *ladder) { return ladder->is_guessed ? 0 : ladder->active; }

/* -- A method's events: NULL, or what is wrong with it --- */
static inline const char *order_published(struct order *order, struct order_method *method, const struct tier_event *event,
					  bool is_expected)
{
	struct order_ladder *now = &method->now;

	if (event->from != now->level)
		return "it is published over another tier than the method has";
	if (!is_expected) {
		if (now->stage != TIER_STAGE_COLD || now->next)
			return "it is published without having been compiled";
		if (event->to != TIER_LEVEL_TIER0 && event->to != TIER_LEVEL_TIER0_INSTRUMENTED
		    && event->to != TIER_LEVEL_MIN_OPT_JITTED && event->to != TIER_LEVEL_READY_TO_RUN)
			return "no first code is of that tier";
		if (now->reason && event->to != TIER_LEVEL_MIN_OPT_JITTED)
			return "the optimizer failed, so its first code is not optimized";
	} else if (event->to != now->next_level) {
		return "it was queued for another tier";
	}
	if (versions_find(&now->live, event->version))
		return "that version was published before";
	versions_add(&now->live, event->version, method->body, event->to);
	now->active = event->version;
	now->is_guessed = false;
	now->next = 0;
	now->level = event->to;
	now->stage = TIER_STAGE_UNCOUNTED;
	if (order_is_final(event->to))
		order_expect(order, method, ORDER_KIND(FINAL), event->version);
	return NULL;
}

static inline const char *order_counting(struct order_method *method, const struct tier_event *event, bool is_expected)
{
	struct order_ladder *now = &method->now;

	if (!order_is_active(now, event->version))
		return "another version is active";
	if (!is_expected && now->stage != TIER_STAGE_UNCOUNTED)
		return "counting begins with code that was not counted";
	now->stage = TIER_STAGE_COUNTING;
	return NULL;
}

static inline const char *order_threshold(struct order *order, struct order_method *method, const struct tier_event *event)
{
	struct order_ladder *now = &method->now, *own = method->body ? &method->own : NULL;

	order->n_sources[event->source % _TIER_SOURCE_N]++;
	if (now->stage == TIER_STAGE_COUNTING && now->active == event->version) {
		now->stage = TIER_STAGE_REACHED;
		order_expect(order, method, ORDER_KIND(QUEUED), 0);
		return NULL;
	}
	if (!own || own->stage != TIER_STAGE_COUNTING || own->active != event->version)
		return "a threshold is reached once, by a version that is counted";
	own->stage = TIER_STAGE_REACHED; /* by who was still on his way */
	return NULL;
}

static inline const char *order_queued(struct order_method *method, const struct tier_event *event, bool is_expected)
{
	struct order_ladder *now = &method->now;

	if (event->from != now->level)
		return "it is queued from another tier than the method has";
	if (now->next && now->next != event->version)
		return "another version is on its way";
	if (!is_expected && (now->stage != TIER_STAGE_COLD || now->next))
		return "nothing asked for it";
	if (now->next ? event->to != now->next_level : !order_may_follow(now->level, event->to))
		return "that tier does not come next";
	if (now->stage != TIER_STAGE_COLD)
		now->stage = TIER_STAGE_QUEUED;
	now->next = event->version;
	now->next_level = event->to;
	return NULL;
}

static inline const char *order_started(struct order *order, struct order_method *method, const struct tier_event *event)
{
	struct order_ladder *now = &method->now;
	const struct order_module *module = order_module(order, event->module);
	const bool is_osr = event->to == TIER_LEVEL_OSR;
	const bool is_first = !is_osr && now->stage == TIER_STAGE_COLD;

	if (is_osr ? !versions_find(&method->osr, event->version) : now->next != event->version || now->next_level != event->to)
		return "it was not queued";
	if (!is_osr && !is_first && now->stage != TIER_STAGE_QUEUED)
		return "it does not wait";
	if (versions_find(&method->jobs, event->version))
		return "it has begun before";
	if (!is_first && module->is_frozen)
		return "nothing begins in a frozen module";
	if (!is_first && order_user(order, event->uid)->is_delayed)
		return "nothing begins during the delay";
	versions_add(&method->jobs, event->version, method->body, event->to);
	if (!is_osr && !is_first)
		now->stage = TIER_STAGE_COMPILING;
	return NULL;
}

/* What the end means for the body that is there, which waits for it */
static inline void order_ended_now(struct order *order, struct order_method *method, const struct tier_event *event)
{
	struct order_ladder *now = &method->now;

	if (event->reason == TIER_REASON_NONE) {
		order_expect(order, method, ORDER_KIND(PUBLISHED), event->version);
	} else if (event->reason == TIER_REASON_INLINEE_REPLACED) {
		order_expect(order, method, ORDER_KIND(QUEUED), event->version);
	} else if (now->stage == TIER_STAGE_COLD) {
		now->next = 0;
		now->reason = event->reason;
	} else {
		now->next = 0;
		order_expect(order, method, ORDER_KIND(FINAL), order_active(now));
	}
}

/* The same for the own body while another is there: nothing is told but the end. */
static inline void order_ended_own(struct order_ladder *own, const struct tier_event *event)
{
	const bool is_first = own->stage == TIER_STAGE_COLD;

	if (event->reason == TIER_REASON_INLINEE_REPLACED) {
		own->stage = is_first ? TIER_STAGE_COLD : TIER_STAGE_QUEUED;
		return;
	}
	own->next = 0;
	if (event->reason) {
		own->stage = is_first ? TIER_STAGE_COLD : TIER_STAGE_FINAL;
		own->reason = event->reason;
		return;
	}
	own->active = event->version;
	own->is_guessed = false;
	own->level = event->to;
	own->stage = order_is_final(event->to) ? TIER_STAGE_FINAL : TIER_STAGE_UNCOUNTED;
	versions_add(&own->live, event->version, 0, event->to);
}

static inline const char *order_ended(struct order *order, struct order_method *method, const struct tier_event *event)
{
	struct order_version job, osr;

	if (!versions_remove(&method->jobs, event->version, &job))
		return "it had not begun, or has ended before";
	if (event->to != job.level)
		return "it began for another tier";
	if (versions_remove(&method->osr, event->version, &osr)) {
		if (event->reason == TIER_REASON_NONE)
			order_expect(order, method, ORDER_KIND(OSR_READY), event->version);
	} else if (method->now.next == event->version) {
		order_ended_now(order, method, event);
	} else if (method->body && method->own.next == event->version) {
		order_ended_own(&method->own, event);
	} else if (event->reason == TIER_REASON_NONE && job.body == method->body) {
		versions_add(&method->now.live, event->version, job.body, event->to); /* nobody waits for it any more */
	} else if (event->reason == TIER_REASON_NONE && !job.body) {
		versions_add(&method->own.live, event->version, 0, event->to);
	}
	return NULL;
}

static inline const char *order_final(struct order_method *method, const struct tier_event *event, bool is_expected)
{
	struct order_ladder *now = &method->now;

	if (!order_is_active(now, event->version) || event->from != now->level || event->to != now->level)
		return "it is final at what the method has";
	if (!is_expected && now->stage != TIER_STAGE_UNCOUNTED)
		return "nothing made it final";
	now->stage = TIER_STAGE_FINAL;
	now->reason = event->reason;
	now->next = 0;
	return NULL;
}

static inline const char *order_rejitted(struct order_method *method, const struct tier_event *event)
{
	struct order_ladder *now = &method->now;

	if (!order_is_active(now, event->version) || event->from != now->level || event->to != TIER_LEVEL_NONE)
		return "what is replaced is what the method has";
	if (method->body)
		free(now->live.all);
	else
		method->own = *now;
	method->body = event->sequence;
	*now = (struct order_ladder){ .stage = TIER_STAGE_COLD, .level = TIER_LEVEL_NONE };
	return NULL;
}

/* What a revert goes on to say of the stage at which it finds its method */
static inline void order_expect_stage(struct order *order, const struct order_method *method)
{
	const struct order_ladder *now = &method->now;

	switch (now->stage) {
	case TIER_STAGE_COLD:
		if (now->next && !versions_find(&method->jobs, now->next))
			order_expect(order, method, ORDER_KIND(QUEUED), now->next);
		break;
	case TIER_STAGE_COUNTING:
		order_expect(order, method, ORDER_KIND(COUNTING_BEGUN), now->active);
		break;
	case TIER_STAGE_REACHED:
		order_expect(order, method, ORDER_KIND(QUEUED), 0);
		break;
	case TIER_STAGE_QUEUED:
		order_expect(order, method, ORDER_KIND(QUEUED), now->next);
		break;
	case TIER_STAGE_FINAL:
		order_expect(order, method, ORDER_KIND(FINAL), now->active);
		break;
	default:
		break;
	}
}

static inline const char *order_reverted(struct order *order, struct order_method *method, const struct tier_event *event)
{
	struct order_ladder *now = &method->now;

	if (!method->body)
		return "its own body is there";
	if (event->from != now->level)
		return "the body that goes had another tier";
	free(now->live.all);
	*now = method->own;
	method->own = (struct order_ladder){ .level = TIER_LEVEL_NONE };
	method->body = 0;
	if (order_is_active(now, event->version) && event->to == now->level) {
		order_expect_stage(order, method);
		return NULL;
	}
	/* what it had inlined was replaced while it was away */
	if (!now->active)
		return "it had no code to lose";
	now->next = 0;
	now->reason = TIER_REASON_NONE;
	now->active = event->version;
	now->is_guessed = false;
	now->level = event->to;
	now->stage = event->version ? TIER_STAGE_REACHED : TIER_STAGE_COLD;
	if (!event->version)
		return event->to == TIER_LEVEL_NONE ? NULL : "what has no code has no tier";
	if (!versions_find(&now->live, event->version) || versions_find(&now->live, event->version)->level != event->to)
		return "it never had that code";
	order_expect(order, method, ORDER_KIND(QUEUED) | ORDER_KIND(FINAL), 0);
	return NULL;
}

static inline const char *order_withdrawn(struct order *order, struct order_method *method, const struct tier_event *event)
{
	struct order_ladder *now = &method->now;
	const struct order_version *kept;

	if (!order_is_active(now, event->version) || event->from != now->level)
		return "what is withdrawn is what the method has";
	now->reason = TIER_REASON_NONE;
	if (event->to == TIER_LEVEL_NONE) {
		now->stage = TIER_STAGE_COLD;
		now->level = TIER_LEVEL_NONE;
		now->active = now->next = 0;
		return NULL;
	}
	kept = versions_oldest(&now->live, event->to);
	if (now->stage != TIER_STAGE_FINAL || !kept || kept->id == event->version)
		return "it has no code to fall back to";
	now->stage = TIER_STAGE_REACHED;
	now->active = kept->id;
	now->is_guessed = true;
	now->level = event->to;
	order_expect(order, method, ORDER_KIND(QUEUED) | ORDER_KIND(FINAL), 0);
	return NULL;
}

static inline const char *order_osr_requested(struct order_method *method, const struct tier_event *event)
{
	if (method->now.stage == TIER_STAGE_COLD || method->body)
		return "nobody runs its own body's code";
	if (versions_find(&method->osr, event->version))
		return "it was asked for before";
	versions_add(&method->osr, event->version, 0, TIER_LEVEL_OSR);
	return NULL;
}

static inline const char *order_of_method(struct order *order, const struct tier_event *event, bool is_expected)
{
	struct order_method *method = order_method(order, event->module, event->method);

	method->n_events++;
	switch ((enum tier_event_kind)event->kind) {
	case TIER_EVENT_PUBLISHED:
		return order_published(order, method, event, is_expected);
	case TIER_EVENT_COUNTING_BEGUN:
		return order_counting(method, event, is_expected);
	case TIER_EVENT_THRESHOLD:
		return order_threshold(order, method, event);
	case TIER_EVENT_QUEUED:
		return order_queued(method, event, is_expected);
	case TIER_EVENT_COMPILE_STARTED:
		return order_started(order, method, event);
	case TIER_EVENT_COMPILE_ENDED:
		return order_ended(order, method, event);
	case TIER_EVENT_FINAL:
		return order_final(method, event, is_expected);
	case TIER_EVENT_REJITTED:
		return order_rejitted(method, event);
	case TIER_EVENT_REVERTED:
		return order_reverted(order, method, event);
	case TIER_EVENT_WITHDRAWN:
		return order_withdrawn(order, method, event);
	case TIER_EVENT_OSR_REQUESTED:
		return order_osr_requested(method, event);
	case TIER_EVENT_OSR_READY:
		return is_expected ? NULL : "it was not compiled";
	default:
		return "no such event is a method's";
	}
}

/* -- Modules and uids --- */
static inline const char *order_loaded(struct order *order, const struct tier_event *event)
{
	if (!event->module || order_module(order, event->module))
		return "an id is given once";
	if ((order->n_modules & (order->n_modules - 1)) == 0)
		order->modules = order_memory(realloc(order->modules, (2 * order->n_modules + 1) * sizeof(*order->modules)));
	order->modules[order->n_modules++] = (struct order_module){ .id = event->module };
	return NULL;
}

static inline const char *order_of_module(struct order *order, struct order_module *module, const struct tier_event *event)
{
	switch ((enum tier_event_kind)event->kind) {
	case TIER_EVENT_MODULE_UNLOADED:
		if (module->is_unloaded)
			return "it is unloaded already";
		module->is_unloaded = true;
		return NULL;
	case TIER_EVENT_FROZEN:
	case TIER_EVENT_THAWED:
		if (module->is_frozen == (event->kind == TIER_EVENT_FROZEN))
			return "a thaw follows a freeze, and a freeze a thaw";
		module->is_frozen = !module->is_frozen;
		return NULL;
	default:
		return "no such event is a module's";
	}
}

static inline const char *order_of_user(struct order *order, const struct tier_event *event)
{
	struct order_user *user = order_user(order, event->uid);

	if (user->is_delayed == (event->kind == TIER_EVENT_DELAY_PAUSED))
		return "a delay ends that began, and begins when there is none";
	user->is_delayed = !user->is_delayed;
	return NULL;
}

static inline const char *order_of_event(struct order *order, const struct tier_event *event, bool is_expected)
{
	struct order_module *module;

	if (event->kind == TIER_EVENT_DELAY_PAUSED || event->kind == TIER_EVENT_DELAY_RESUMED)
		return order_of_user(order, event);
	if (event->kind == TIER_EVENT_MODULE_LOADED)
		return order_loaded(order, event);
	module = order_module(order, event->module);
	if (!module)
		return "no such module was loaded";
	return event->method == UINT32_MAX ? order_of_module(order, module, event) : order_of_method(order, event, is_expected);
}

/* NULL, or what is wrong with it, valid until the next call */
static inline const char *order_hear(struct order *order, const struct tier_event *event)
{
	const bool is_awaiting = order->expected.kinds, is_expected = is_awaiting && order_is_expected(order, event);
	const char *broken;

	if (event->sequence != order->sequence + 1)
		return order_break(order, event,
				   event->sequence <= order->sequence ? "that number was told before" : "numbers are missing");
	if (!event->kind || event->kind >= _TIER_EVENT_N)
		return order_break(order, event, "there is no such kind");
	if (is_awaiting && !is_expected)
		return order_break(order, event, "the transaction before it is not whole");
	order->sequence++;
	order->n_kinds[event->kind]++;
	order->expected.kinds = 0;
	broken = order_of_event(order, event, is_expected);
	return broken ? order_break(order, event, broken) : NULL;
}

/* -- Questions, at an end --- */
/* Nothing is queued or being compiled, OSR code aside that was given up; no transaction is half told. */
static inline bool order_is_quiet(const struct order *order)
{
	for (uint32_t i = 0; i < order->n_buckets; i++)
		for (const struct order_method *method = order->methods[i]; method; method = method->next)
			if (!order_module(order, method->module)->is_unloaded && (method->jobs.n || method->now.next))
				return false;
	return !order->expected.kinds;
}
