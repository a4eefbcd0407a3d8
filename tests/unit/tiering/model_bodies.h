/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The model of test_model_bodies.c: what each event may say, and what follows from it. It knows nothing of how the core
 * does it: a method has a ladder for the body that is there and one for its own while that is away; a job saw the
 * bodies of when it began. */

#include "unit/tiering/ladder.h"

#define N_METHODS   4u
#define N_MODULES   3
#define N_BELLS_MAX 32u
#define N_HELD_MAX  32u
#define N_JOBS      2u

#define N_LIVE_MAX 64u

/* A version with code */
struct live {
	uint64_t version, has; /* has: methods whose bodies are in it */
	enum tier_level level;
};

struct ladder {
	enum tier_stage stage; /* COUNTING whatever the counter says, until somebody notices; COLD while the first is made */
	enum tier_level level;
	enum tier_reason reason;
	uint64_t active, next; /* versions */
	enum tier_level next_level;
	uint32_t n_counted;
	uint64_t has; /* of the active code */
	struct live live[N_LIVE_MAX];
	uint32_t n_live;
};

struct model_method {
	struct ladder now, own; /* own: while another body is there */
	uint32_t body;
	bool is_away;
};

/* A job that is outside */
struct model_job {
	uint64_t version, sees;
	enum tier_level level;
	uint32_t body;
	bool is_stale; /* one of those that it sees was replaced since */
};

struct bell {
	uint64_t module, version;
	uint32_t method;
};

/* An address that a caller has loaded */
struct held {
	uint64_t module, address, r10;
	uint32_t method;
};

struct model {
	struct fake *fake;
	struct order *order; /* another model, which knows the events alone */
	uint64_t random;
	uint64_t sequence;
	struct model_method methods[FAKE_MODULES_MAX][N_METHODS]; /* as fake->modules */
	struct model_job jobs[N_JOBS], ended;                     /* outside; the one whose end is being told */
	enum tier_reason ending;                                  /* what its worker said */
	uint32_t n_jobs;
	struct bell bells[N_BELLS_MAX];
	struct held held[N_HELD_MAX];
	uint32_t n_bells, n_held;
	struct fake_module *replacing; /* a rejit or revert is under way: of which method, to which body */
	uint32_t replaced, body;
	bool is_delayed, is_restoring, is_frozen[FAKE_MODULES_MAX];
	uint64_t n_steps, n_restarts, n_rejits, n_reverts, n_withdrawn, n_refused, n_final;
};

static inline uint32_t draw(struct model *model, uint32_t n)
{
	model->random ^= model->random << 13;
	model->random ^= model->random >> 7;
	model->random ^= model->random << 17;
	return (model->random >> 16) % n;
}

static inline struct model_method *methods_of(struct model *model, const struct fake_module *fm)
{
	return model->methods[fm - model->fake->modules];
}

static inline struct model_job *job_of(struct model *model, uint64_t version)
{
	for (uint32_t i = 0; i < model->n_jobs; i++)
		if (model->jobs[i].version == version)
			return &model->jobs[i];
	return NULL;
}

/* -- What happens to ladders --- */
static inline bool level_is_final(enum tier_level level)
{
	return level == TIER_LEVEL_TIER1 || level == TIER_LEVEL_OPTIMIZED || level == TIER_LEVEL_MIN_OPT_JITTED;
}

static inline bool level_is_instrumented(enum tier_level level)
{
	return level == TIER_LEVEL_TIER0_INSTRUMENTED || level == TIER_LEVEL_TIER1_INSTRUMENTED;
}

static inline void ladder_add(struct ladder *ladder, uint64_t version, enum tier_level level, uint64_t has)
{
	assert_true(ladder->n_live < N_LIVE_MAX);
	ladder->live[ladder->n_live++] = (struct live){.version = version, .level = level, .has = has};
}

static inline bool ladder_has(const struct ladder *ladder, enum tier_level level)
{
	for (uint32_t i = 0; i < ladder->n_live; i++)
		if (ladder->live[i].level == level)
			return true;
	return false;
}

/* The oldest that inlined nobody */
static inline const struct live *ladder_kept(const struct ladder *ladder)
{
	const struct live *kept = NULL;

	for (uint32_t i = 0; i < ladder->n_live; i++)
		if (!ladder->live[i].has && (!kept || ladder->live[i].version < kept->version))
			kept = &ladder->live[i];
	return kept;
}

/* Its active code is no more: it falls back to what there is, or is cold. */
static inline void ladder_fall(struct ladder *ladder)
{
	const struct live *kept = ladder->stage == TIER_STAGE_FINAL ? ladder_kept(ladder) : NULL;

	ladder->stage = kept ? TIER_STAGE_REACHED : TIER_STAGE_COLD;
	ladder->level = kept ? kept->level : TIER_LEVEL_NONE;
	ladder->active = kept ? kept->version : 0;
	ladder->next = 0;
	ladder->has = 0;
	ladder->reason = TIER_REASON_NONE;
}

/* By the rows of reference §7; TIER0 may stand for what could not be had. */
static inline enum tier_level expected_first(const struct model *model, const struct fake_module *fm, uint32_t index,
					     const struct model_method *method)
{
	const struct core_config *config = &model->fake->config;
	const uint32_t traits = fm->traits[index];
	bool is_precompiled = traits & CORE_TRAIT_PRECOMPILED && !method->body &&
			      !ladder_has(&method->now, TIER_LEVEL_READY_TO_RUN);

	for (uint32_t i = 0; i < fm->layout.n_methods; i++)
		if (fm->inlines[index] >> i & 1 && model->methods[fm - model->fake->modules][i].body)
			is_precompiled = false;
	if (traits & CORE_TRAIT_NO_OPTIMIZATION || method->now.reason)
		return TIER_LEVEL_MIN_OPT_JITTED;
	if (traits & CORE_TRAIT_AGGRESSIVE_OPTIMIZATION || config->no_tiers)
		return TIER_LEVEL_OPTIMIZED;
	if (is_precompiled)
		return TIER_LEVEL_READY_TO_RUN;
	return config->pgo && config->instrument_all && fm->n_profile[index] ? TIER_LEVEL_TIER0_INSTRUMENTED
									       : TIER_LEVEL_TIER0;
}

static inline bool may_be_next(const struct model *model, const struct fake_module *fm, uint32_t index,
			       const struct ladder *ladder, enum tier_level level)
{
	const struct core_config *config = &model->fake->config;
	const bool was_optimized = ladder_has(ladder, TIER_LEVEL_TIER1) || ladder_has(ladder, TIER_LEVEL_OPTIMIZED);

	if (level == TIER_LEVEL_TIER1) /* always, for want of cells */
		return true;
	return config->pgo && !config->instrument_all && fm->n_profile[index] && !was_optimized &&
	       ((level == TIER_LEVEL_TIER0_INSTRUMENTED && ladder->level == TIER_LEVEL_TIER0) ||
		(level == TIER_LEVEL_TIER1_INSTRUMENTED && ladder->level == TIER_LEVEL_READY_TO_RUN));
}

/* Everybody who has the body that goes, and jobs that saw it */
static inline void replace_body(struct model *model, struct fake_module *fm, uint32_t index)
{
	struct model_method *methods = methods_of(model, fm);

	for (uint32_t i = 0; i < fm->layout.n_methods; i++) {
		struct model_method *method = &methods[i];
		const struct ladder *ladders[] = {&method->now, &method->own};

		if (i != index)
			assert_false(method->now.has >> index & 1); /* WITHDRAWN came before */
		if (i != index && method->is_away && method->own.has >> index & 1)
			ladder_fall(&method->own);
		for (uint32_t k = 0; k < ARRAY_SIZE(ladders); k++) {
			struct model_job *job = job_of(model, ladders[k]->next);

			if (job && job->sees >> index & 1)
				job->is_stale = true;
		}
	}
}

static inline void hear_rejitted(struct model *model, const struct tier_event *event)
{
	struct model_method *method = &methods_of(model, model->replacing)[model->replaced];

	assert_true(model->replacing->id == event->module && model->replaced == event->method && model->body);
	replace_body(model, model->replacing, model->replaced);
	if (!method->is_away)
		method->own = method->now;
	method->is_away = true;
	method->body = model->body;
	method->now = (struct ladder){.stage = TIER_STAGE_COLD, .level = TIER_LEVEL_NONE};
	model->n_rejits++;
}

static inline void hear_reverted(struct model *model, const struct tier_event *event)
{
	struct model_method *method = &methods_of(model, model->replacing)[model->replaced];

	assert_true(model->replacing->id == event->module && model->replaced == event->method && !model->body);
	assert_true(method->is_away);
	replace_body(model, model->replacing, model->replaced);
	method->now = method->own;
	model->is_restoring = true;
	method->is_away = false;
	method->body = 0;
	model->n_reverts++;
}

static inline void hear_withdrawn(struct model *model, struct model_method *method, const struct tier_event *event)
{
	assert_true(model->replacing && model->replacing->id == event->module && event->method != model->replaced);
	assert_true(method->now.has >> model->replaced & 1);
	assert_int_equal(event->reason, TIER_REASON_INLINEE_REPLACED);
	assert_int_equal(event->version, method->now.active);
	ladder_fall(&method->now);
	assert_int_equal(event->to, method->now.level);
	model->n_withdrawn++;
}

static inline void hear_published(struct model *model, struct fake_module *fm, struct model_method *method,
				  const struct tier_event *event)
{
	struct ladder *now = &method->now;

	if (now->stage == TIER_STAGE_COLD && !now->next) {
		assert_string_equal(tier_level_name(event->to),
				    tier_level_name(expected_first(model, fm, event->method, method)));
		now->has = event->to == TIER_LEVEL_READY_TO_RUN ? fm->inlines[event->method] : 0;
	} else {
		assert_true(now->stage == TIER_STAGE_COMPILING || now->stage == TIER_STAGE_COLD);
		assert_true(event->version == now->next && event->to == now->next_level);
		assert_true(event->version == model->ended.version && !model->ended.is_stale && !model->ending);
		now->has = model->ended.sees;
	}
	ladder_add(now, event->version, event->to, now->has);
	now->stage = level_is_final(event->to) ? TIER_STAGE_COMPILING : TIER_STAGE_UNCOUNTED;
	now->n_counted = 0;
	now->next = 0;
	now->level = event->to;
	now->active = event->version;
}

static inline bool is_due(const struct ladder *ladder, uint64_t version)
{
	return ladder->stage == TIER_STAGE_COUNTING && ladder->active == version && ladder->n_counted >= FAKE_N;
}

static inline void hear_threshold(struct model_method *method, const struct tier_event *event)
{
	if (is_due(&method->now, event->version)) {
		method->now.stage = TIER_STAGE_REACHED;
	} else {
		assert_true(method->is_away && is_due(&method->own, event->version));
		method->own.stage = TIER_STAGE_REACHED;
	}
}

static inline void hear_queued(struct model *model, struct fake_module *fm, struct model_method *method,
			       const struct tier_event *event)
{
	struct ladder *now = &method->now;

	if (now->next) { /* once more */
		assert_true(event->version == now->next && event->reason == TIER_REASON_INLINEE_REPLACED);
	} else if (now->stage == TIER_STAGE_COLD) {
		assert_int_equal(expected_first(model, fm, event->method, method), TIER_LEVEL_OPTIMIZED);
		assert_int_equal(event->to, TIER_LEVEL_OPTIMIZED);
		now->reason = fm->traits[event->method] & CORE_TRAIT_AGGRESSIVE_OPTIMIZATION
				      ? TIER_REASON_AGGRESSIVE_OPTIMIZATION
				      : TIER_REASON_TIERING_OFF;
	} else {
		assert_true(may_be_next(model, fm, event->method, now, event->to));
	}
	if (now->stage != TIER_STAGE_COLD) {
		assert_int_equal(now->stage, TIER_STAGE_REACHED);
		now->stage = TIER_STAGE_QUEUED;
	}
	now->next = event->version;
	now->next_level = event->to;
}

static inline void hear_started(struct model *model, struct fake_module *fm, struct model_method *method,
				const struct tier_event *event)
{
	const bool is_first = method->now.stage == TIER_STAGE_COLD;

	assert_true(event->version == method->now.next && event->to == method->now.next_level);
	assert_true(is_first || (method->now.stage == TIER_STAGE_QUEUED && !model->is_delayed));
	assert_false(!is_first && model->is_frozen[fm - model->fake->modules]);
	assert_true(model->n_jobs < N_JOBS && !job_of(model, event->version));
	if (!is_first)
		method->now.stage = TIER_STAGE_COMPILING;
	model->jobs[model->n_jobs++] = (struct model_job){
		.version = event->version,
		.level = event->to,
		.body = method->body,
		.sees = level_is_instrumented(event->to) ? 0 : fm->inlines[event->method],
	};
}

static inline void ladder_job_ended(struct model *model, struct ladder *ladder, bool is_current)
{
	const bool is_first = ladder->stage == TIER_STAGE_COLD;

	if (model->ending == TIER_REASON_NONE && model->ended.is_stale) {
		ladder->stage = is_first ? TIER_STAGE_COLD : is_current ? TIER_STAGE_REACHED : TIER_STAGE_QUEUED;
		model->n_refused++;
		return;
	}
	if (model->ending && is_first) {
		ladder->reason = model->ending;
		ladder->next = 0;
		return;
	}
	if (is_current)
		return; /* PUBLISHED or FINAL tell it */
	ladder->next = 0;
	ladder->stage = TIER_STAGE_FINAL;
	ladder->reason = model->ending ? model->ending : is_first ? ladder->reason : TIER_REASON_PROMOTED;
	if (model->ending)
		return;
	if (level_is_instrumented(model->ended.level)) {
		ladder->stage = TIER_STAGE_UNCOUNTED;
		ladder->reason = TIER_REASON_NONE;
		ladder->n_counted = 0;
	}
	ladder->level = model->ended.level;
	ladder->active = model->ended.version;
	ladder->has = model->ended.sees;
	ladder_add(ladder, ladder->active, ladder->level, ladder->has);
}

/* Nobody waited for it any more, but it is code of that body. */
static inline void ladder_take_orphan(const struct model *model, struct model_method *method)
{
	struct ladder *ladder = model->ended.body == method->body ? &method->now : NULL;

	if (!ladder && method->is_away && !model->ended.body)
		ladder = &method->own;
	if (ladder && !model->ending)
		ladder_add(ladder, model->ended.version, model->ended.level, model->ended.sees);
}

static inline void hear_ended(struct model *model, struct model_method *method, const struct tier_event *event)
{
	struct model_job *job = job_of(model, event->version);

	assert_non_null(job);
	model->ended = *job;
	*job = model->jobs[--model->n_jobs];
	if (method->now.next == event->version)
		ladder_job_ended(model, &method->now, true);
	else if (method->is_away && method->own.next == event->version)
		ladder_job_ended(model, &method->own, false);
	else
		ladder_take_orphan(model, method);
}

static inline void hear_final(struct model *model, struct model_method *method, const struct tier_event *event)
{
	struct ladder *now = &method->now;

	now->next = 0;
	if (now->stage == TIER_STAGE_UNCOUNTED)
		assert_true(event->reason == TIER_REASON_ARENA_FULL || event->reason == TIER_REASON_COUNTERS_FULL ||
			    (event->reason == TIER_REASON_PINNED && now->level == TIER_LEVEL_READY_TO_RUN));
	else
		assert_int_equal(now->stage, TIER_STAGE_COMPILING);
	assert_int_equal(event->version, now->active);
	now->stage = TIER_STAGE_FINAL;
	now->reason = event->reason;
	model->n_final++;
}

/* What a revert says of the point to which it brings its method back */
static inline bool is_restored(const struct model *model, const struct model_method *method,
			       const struct tier_event *event)
{
	const struct ladder *now = &method->now;

	if (!model->is_restoring || event->method != model->replaced)
		return false;
	return (event->kind == TIER_EVENT_COUNTING_BEGUN && now->stage == TIER_STAGE_COUNTING &&
		event->version == now->active) ||
	       (event->kind == TIER_EVENT_QUEUED &&
		(now->stage == TIER_STAGE_QUEUED || now->stage == TIER_STAGE_COLD) && event->version == now->next) ||
	       (event->kind == TIER_EVENT_FINAL && now->stage == TIER_STAGE_FINAL && event->version == now->active &&
		event->reason == now->reason);
}

static inline void hear_method(struct model *model, struct fake_module *fm, const struct tier_event *event)
{
	struct model_method *method = &methods_of(model, fm)[event->method];

	if (is_restored(model, method, event)) {
		model->is_restoring = false;
		return;
	}
	switch (event->kind) {
	case TIER_EVENT_PUBLISHED:
		hear_published(model, fm, method, event);
		break;
	case TIER_EVENT_COUNTING_BEGUN:
		assert_true(method->now.stage == TIER_STAGE_UNCOUNTED && event->version == method->now.active);
		method->now.stage = TIER_STAGE_COUNTING;
		break;
	case TIER_EVENT_THRESHOLD:
		hear_threshold(method, event);
		break;
	case TIER_EVENT_QUEUED:
		hear_queued(model, fm, method, event);
		break;
	case TIER_EVENT_COMPILE_STARTED:
		hear_started(model, fm, method, event);
		break;
	case TIER_EVENT_COMPILE_ENDED:
		hear_ended(model, method, event);
		break;
	case TIER_EVENT_FINAL:
		hear_final(model, method, event);
		break;
	case TIER_EVENT_REJITTED:
		hear_rejitted(model, event);
		break;
	case TIER_EVENT_REVERTED:
		hear_reverted(model, event);
		break;
	case TIER_EVENT_WITHDRAWN:
		hear_withdrawn(model, method, event);
		break;
	default:
		fail_msg("an event of kind %u about a method", event->kind);
	}
}

static inline void hear(struct fake *fake, const struct tier_event *event)
{
	struct model *model = fake->test;
	struct fake_module *fm = fake_module_by_id(fake, event->module);
	const char *broken = order_hear(model->order, event);

	if (broken)
		fail_msg("%s", broken);
	if (getenv("TIER_TEST_TRACE"))
		print_message("%5llu: %llu:%u %s version %llu %s\n", (unsigned long long)model->n_steps,
			      (unsigned long long)event->module, event->method, tier_event_name(event->kind),
			      (unsigned long long)event->version, tier_reason_name(event->reason));
	assert_int_equal(event->sequence, ++model->sequence);
	if (event->kind == TIER_EVENT_DELAY_PAUSED || event->kind == TIER_EVENT_DELAY_RESUMED) {
		assert_int_equal(model->is_delayed, event->kind == TIER_EVENT_DELAY_RESUMED);
		model->is_delayed = !model->is_delayed;
	}
	if (event->kind == TIER_EVENT_FROZEN || event->kind == TIER_EVENT_THAWED)
		model->is_frozen[fm - fake->modules] = event->kind == TIER_EVENT_FROZEN;
	if (event->method == UINT32_MAX)
		return;
	assert_true(fm && event->method < fm->layout.n_methods);
	hear_method(model, fm, event);
}
