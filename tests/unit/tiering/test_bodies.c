/* SPDX-License-Identifier: Apache-2.0 */
#include "unit/tiering/ladder.h"

/* Rejit and revert at every point of a method's ladder, through every way of calling it, under every policy (reference
 * §9, §14 row 6) */

static struct core_version_info version_info(const struct fake_module *fm, uint64_t id)
{
	struct core_version_info info;

	assert_true(core_version_below(fm->module, LADDER_METHOD, id + 1, &info));
	assert_int_equal(info.id, id);
	return info;
}

static const struct tier_event *last_of(const struct fake *fake, enum tier_event_kind kind)
{
	for (uint32_t i = fake->n_events; i > 0; i--)
		if (fake->events[i - 1].kind == kind)
			return &fake->events[i - 1];
	return NULL;
}

/* -- Rejit: each policy, point, way --- */
/* Whether calls that way are counted: eager leaves E at the code while it counts. */
static bool is_counted_way(const struct fake_module *fm, enum fake_way way)
{
	return way != FAKE_WAY_DIRECT || fm->fake->config.backpatch != TIER_BACKPATCH_EAGER ||
	       fm->fake->config.counting_in_prestub || !fake_is_backpatchable(fm, LADDER_METHOD);
}

static void assert_cold(struct fake_module *fm, uint64_t generation)
{
	const struct tier_record *record = &fm->records[LADDER_METHOD];
	const struct tier_answer answer = fake_answer(fm, LADDER_METHOD);

	assert_int_equal(answer.status, TIER_STATUS_COLD);
	assert_int_equal(answer.remaining, 1);
	assert_true(answer.generation > generation);
	assert_true(!record->code && !record->version);
	ladder_assert_words(fm, LADDER_METHOD, fake_is_backpatchable(fm, LADDER_METHOD) ? "p t t ttt" : "p t");
}

/* The new body's whole ladder, call by call that way */
static void assert_climbs(struct fake_module *fm, enum fake_way way, uint32_t body)
{
	struct fake *fake = fm->fake;
	struct fake_run run;

	assert_true(fake_run(fm, LADDER_METHOD, way, &run));
	assert_int_equal(run.body, body);
	assert_int_equal(run.n_visits[TIER_VISIT_COLD], 1);
	assert_false(run.is_counted);
	assert_int_equal(fake_answer(fm, LADDER_METHOD).stage, TIER_STAGE_UNCOUNTED);
	assert_true(fake_run(fm, LADDER_METHOD, way, &run));
	assert_false(run.is_counted);
	fake_pass(fake, 200);
	for (uint32_t left = FAKE_N; left > 0; left--) {
		assert_int_equal(fake_answer(fm, LADDER_METHOD).remaining, left);
		assert_true(fake_run(fm, LADDER_METHOD, is_counted_way(fm, way) ? way : FAKE_WAY_PRECODE, &run));
		assert_true(run.is_counted);
		assert_int_equal(run.is_crossed, left == 1);
	}
	assert_true(fake_answer(fm, LADDER_METHOD).stage >= TIER_STAGE_QUEUED);
	ladder_climb(fm, LADDER_METHOD, way);
	assert_int_equal(fake_answer(fm, LADDER_METHOD).reason, TIER_REASON_PROMOTED);
	fake_assert_runs(fm, LADDER_METHOD, body, TIER_LEVEL_TIER1);
}

static void rejit_at(struct fake *fake, bool is_backpatchable, enum ladder_at at, enum fake_way way)
{
	struct fake_module *fm = ladder_load(fake, is_backpatchable);
	uint32_t n_events;
	uint64_t generation;

	if (way == FAKE_WAY_SITE)
		ladder_to_final(fm, LADDER_CALLER);
	ladder_to(fm, LADDER_METHOD, at);
	generation = tier_state_generation(fm->records[LADDER_METHOD].state);
	n_events = fake->n_events;
	assert_int_equal(core_rejit(fm->module, LADDER_METHOD, 7), 0);
	assert_int_equal(fake->events[n_events].kind, TIER_EVENT_REJITTED);
	assert_int_equal(fake->events[n_events].method, LADDER_METHOD);
	assert_int_equal(core_method_body(fm->module, LADDER_METHOD), 7);
	ladder_check_all(fake);
	assert_cold(fm, generation);
	assert_climbs(fm, way, 7);
	ladder_check_all(fake);
	assert_int_equal(core_counters(fake->core)->n_rejits, 1);
}

static void rejit_everywhere(enum tier_backpatch policy, bool in_prestub)
{
	for (int at = AT_COLD; at < _AT_N; at++)
		for (int way = 0; way < _FAKE_WAY_N; way++)
			for (int is_backpatchable = 0; is_backpatchable < 2; is_backpatchable++) {
				struct fake *fake = ladder_fake(policy, in_prestub);

				if (is_backpatchable || way != FAKE_WAY_SLOT)
					rejit_at(fake, is_backpatchable, at, way);
				fake_free(fake);
			}
}

static void lazy_runs_the_new_body_wherever_the_old_one_stood(void **state)
{
	rejit_everywhere(TIER_BACKPATCH_LAZY, false);
}
static void eager_runs_the_new_body_wherever_the_old_one_stood(void **state)
{
	rejit_everywhere(TIER_BACKPATCH_EAGER, false);
}
static void forwarder_runs_the_new_body_wherever_the_old_one_stood(void **state)
{
	rejit_everywhere(TIER_BACKPATCH_FORWARDER, false);
}
static void so_does_counting_in_the_prestub(void **state)
{
	for (int policy = 0; policy < _TIER_BACKPATCH_N; policy++)
		rejit_everywhere(policy, true);
}

/* -- Revert: each policy and point --- */
struct picture {
	struct tier_answer answer;
	struct tier_record record;
	char words[16];
	uint32_t body;
	uint64_t newest;
};

static struct picture picture_of(struct fake_module *fm)
{
	struct picture picture = {.record = fm->records[LADDER_METHOD],
				  .body = core_method_body(fm->module, LADDER_METHOD)};
	struct core_version_info info;

	picture.answer = tier_record_answer(&fm->records[LADDER_METHOD], fm->cells, fm->layout.n_cells);
	if (core_version_below(fm->module, LADDER_METHOD, 0, &info))
		picture.newest = info.id;
	ladder_words(fm, LADDER_METHOD, picture.words);
	return picture;
}

/* The blocker is out of the way, the delay over: what was queued may have started. */
static void assert_restored(struct fake_module *fm, const struct picture *was, enum ladder_at at)
{
	struct picture is = picture_of(fm);

	assert_int_equal(is.body, 0);
	assert_int_equal(is.answer.status, was->answer.status);
	assert_int_equal(is.answer.remaining, was->answer.remaining);
	assert_int_equal(is.answer.reason, was->answer.reason);
	assert_true(is.record.version == was->record.version && is.record.code == was->record.code);
	if (at != AT_COLD)
		assert_true(is.answer.generation > was->answer.generation);
	switch (at) {
	case AT_REACHED:
		assert_true(is.answer.stage >= TIER_STAGE_REACHED && is.answer.stage <= TIER_STAGE_COMPILING);
		break;
	case AT_QUEUED:
		assert_true(is.answer.stage == TIER_STAGE_QUEUED || is.answer.stage == TIER_STAGE_COMPILING);
		break;
	default:
		assert_int_equal(is.answer.stage, was->answer.stage);
		/* eager's completion had left F and the slots behind */
		if (fm->fake->config.backpatch == TIER_BACKPATCH_EAGER && is.answer.stage >= TIER_STAGE_REACHED)
			assert_memory_equal(is.words, was->words, 3);
		else
			assert_string_equal(is.words, was->words);
	}
}

static void revert_at(struct fake *fake, bool is_backpatchable, enum ladder_at at, enum ladder_at meanwhile)
{
	struct fake_module *fm = ladder_load(fake, is_backpatchable);
	uint32_t n_thresholds, n_begun, n_published;
	struct picture was;

	ladder_to(fm, LADDER_METHOD, at);
	was = picture_of(fm);
	assert_int_equal(core_rejit(fm->module, LADDER_METHOD, 3), 0);
	if (meanwhile != AT_COLD)
		fake_call(fm, LADDER_METHOD);
	if (meanwhile == AT_COUNTING || at != AT_UNCOUNTED)
		fake_pass(fake, 200);
	n_begun = fake_n_events(fake, TIER_EVENT_COUNTING_BEGUN);
	n_thresholds = fake_n_events(fake, TIER_EVENT_THRESHOLD);
	n_published = fake->n_events;
	assert_int_equal(core_revert(fm->module, LADDER_METHOD), 0);
	assert_int_equal(fake->events[n_published].kind, TIER_EVENT_REVERTED);
	ladder_check_all(fake);
	if (!(at == AT_UNCOUNTED && meanwhile == AT_COUNTING)) {
		assert_restored(fm, &was, at);
		assert_int_equal(fake_n_events(fake, TIER_EVENT_COUNTING_BEGUN),
				 n_begun + (at == AT_COUNTING || at == AT_REACHED));
	}
	assert_true(fake_n_events(fake, TIER_EVENT_THRESHOLD) <= n_thresholds + (at == AT_REACHED));
	assert_int_equal(core_revert(fm->module, LADDER_METHOD), 0); /* it is there */
	assert_int_equal(core_counters(fake->core)->n_reverts, 1);
	ladder_climb(fm, LADDER_METHOD, FAKE_WAY_PRECODE);
	assert_int_equal(fake_answer(fm, LADDER_METHOD).reason,
			 at == AT_FAILED ? TIER_REASON_COMPILE_FAILED : TIER_REASON_PROMOTED);
	fake_assert_runs(fm, LADDER_METHOD, 0, at == AT_FAILED ? TIER_LEVEL_TIER0 : TIER_LEVEL_TIER1);
	ladder_check_all(fake);
}

static void revert_everywhere(enum tier_backpatch policy, bool in_prestub)
{
	static const enum ladder_at meanwhile[] = {AT_COLD, AT_UNCOUNTED, AT_COUNTING};

	for (int at = AT_COLD; at < _AT_N; at++)
		for (uint32_t i = 0; i < ARRAY_SIZE(meanwhile); i++)
			for (int is_backpatchable = 0; is_backpatchable < 2; is_backpatchable++) {
				struct fake *fake = ladder_fake(policy, in_prestub);

				revert_at(fake, is_backpatchable, at, meanwhile[i]);
				fake_free(fake);
			}
}

static void lazy_restores_what_the_own_body_was_doing(void **state) { revert_everywhere(TIER_BACKPATCH_LAZY, false); }
static void eager_restores_what_the_own_body_was_doing(void **state) { revert_everywhere(TIER_BACKPATCH_EAGER, false); }
static void forwarder_restores_what_the_own_body_was_doing(void **state)
{
	revert_everywhere(TIER_BACKPATCH_FORWARDER, false);
}
static void so_does_the_prestub_that_counts(void **state)
{
	for (int policy = 0; policy < _TIER_BACKPATCH_N; policy++)
		revert_everywhere(policy, true);
}

static void revert_needs_neither_compiler_nor_calls(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = ladder_load(fake, true);
	uint32_t n_jobs;

	ladder_to_final(fm, LADDER_METHOD);
	assert_int_equal(core_rejit(fm->module, LADDER_METHOD, 1), 0);
	fake_run_slot(fm, 0);
	n_jobs = fake->n_jobs;
	fake->first_result = fake->stub_result = CORE_E_FULL;
	fake->compile_result = -ENOMEM;
	assert_int_equal(core_revert(fm->module, LADDER_METHOD), 0);
	assert_int_equal(fake_answer(fm, LADDER_METHOD).status, TIER_STATUS_FINAL);
	fake_assert_runs(fm, LADDER_METHOD, 0, TIER_LEVEL_TIER1);
	assert_int_equal(fake->n_jobs, n_jobs);
}

static void reverting_what_was_never_replaced_changes_nothing(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = ladder_load(fake, true);
	uint32_t n_events;

	assert_int_equal(core_revert(fm->module, LADDER_METHOD), 0);
	ladder_to(fm, LADDER_METHOD, AT_COUNTING);
	n_events = fake->n_events;
	assert_int_equal(core_revert(fm->module, LADDER_METHOD), 0);
	assert_int_equal(fake->n_events, n_events);
	assert_int_equal(fake_answer(fm, LADDER_METHOD).remaining, 1);
	assert_int_equal(core_counters(fake->core)->n_reverts, 0);
}

/* -- Several --- */
static void each_of_several_bodies_runs_in_its_turn(struct fake *fake, struct fake_module *fm)
{
	static const enum ladder_at points[] = {AT_FINAL,     AT_COUNTING, AT_COLD,    AT_UNCOUNTED,
						AT_COMPILING, AT_FINAL,    AT_COUNTING};
	uint32_t body = 0;

	ladder_to(fm, LADDER_METHOD, AT_FINAL);
	for (uint32_t i = 0; i < ARRAY_SIZE(points); i++) {
		uint64_t generation = tier_state_generation(fm->records[LADDER_METHOD].state);

		assert_int_equal(core_rejit(fm->module, LADDER_METHOD, ++body), 0);
		assert_cold(fm, generation);
		ladder_to(fm, LADDER_METHOD, points[i]);
		ladder_check_all(fake);
		if (points[i] != AT_COLD)
			fake_assert_runs(fm, LADDER_METHOD, body,
					 points[i] == AT_FINAL ? TIER_LEVEL_TIER1 : TIER_LEVEL_TIER0);
		while (fake_end(fake, fm, LADDER_METHOD, TIER_REASON_NONE))
			;
	}
	assert_int_equal(core_revert(fm->module, LADDER_METHOD), 0);
	fake_assert_runs(fm, LADDER_METHOD, 0, TIER_LEVEL_TIER1);
	assert_int_equal(core_rejit(fm->module, LADDER_METHOD, ++body), 0);
	assert_climbs(fm, FAKE_WAY_POINTER, body);
}

static void several_rejits_in_a_row_run_each_body_in_its_turn(void **state)
{
	ladder_each(each_of_several_bodies_runs_in_its_turn);
}

static void a_hundred_bodies_that_nobody_called_leave_nothing_behind(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = ladder_load(fake, true);
	struct core_stats before, after;

	ladder_to_final(fm, LADDER_METHOD);
	core_stats(fake->core, &before);
	for (uint32_t body = 1; body <= 100; body++)
		assert_int_equal(core_rejit(fm->module, LADDER_METHOD, body), 0);
	core_stats(fake->core, &after);
	assert_int_equal(after.n_versions, before.n_versions);
	assert_int_equal(core_revert(fm->module, LADDER_METHOD), 0);
	fake_assert_runs(fm, LADDER_METHOD, 0, TIER_LEVEL_TIER1);
	assert_int_equal(fake_n_events(fake, TIER_EVENT_REJITTED), 100);
}

static void versions_tell_whose_body_they_are_of(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = ladder_load(fake, true);
	struct core_version_info info = {0};
	uint32_t bodies[] = {9, 9, 0, 0};
	uint32_t n = 0;

	ladder_to_final(fm, LADDER_METHOD);
	assert_int_equal(core_rejit(fm->module, LADDER_METHOD, 9), 0);
	ladder_climb(fm, LADDER_METHOD, FAKE_WAY_POINTER);
	for (uint64_t before = 0; core_version_below(fm->module, LADDER_METHOD, before, &info); before = info.id) {
		assert_true(n < ARRAY_SIZE(bodies));
		assert_int_equal(info.body, bodies[n]);
		assert_int_equal(info.is_active, n == 0);
		assert_int_equal(info.state, TIER_VERSION_LIVE);
		n++;
	}
	assert_int_equal(n, ARRAY_SIZE(bodies));
}

/* -- Promotions in flight --- */
static void a_promotion_of_the_own_body_ends_without_being_published(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = ladder_load(fake, true);
	uint64_t version;
	uint32_t n_published, n_final;

	ladder_to(fm, LADDER_METHOD, AT_COMPILING);
	version = fake_job(fake, fm, LADDER_METHOD)->version;
	assert_int_equal(core_rejit(fm->module, LADDER_METHOD, 1), 0);
	assert_int_equal(core_pending(fake->core, CORE_SCOPE_MODULE, fm->module, 0), 1); /* it goes on */
	fake_call(fm, LADDER_METHOD);
	n_published = fake_n_events(fake, TIER_EVENT_PUBLISHED);
	n_final = fake_n_events(fake, TIER_EVENT_FINAL);
	assert_true(fake_end(fake, fm, LADDER_METHOD, TIER_REASON_NONE));
	assert_int_equal(last_of(fake, TIER_EVENT_COMPILE_ENDED)->version, version);
	assert_int_equal(fake_n_events(fake, TIER_EVENT_PUBLISHED), n_published);
	assert_int_equal(fake_n_events(fake, TIER_EVENT_FINAL), n_final);
	assert_int_equal(core_pending(fake->core, CORE_SCOPE_MODULE, fm->module, 0), 0);
	assert_int_equal(version_info(fm, version).state, TIER_VERSION_LIVE);
	assert_false(version_info(fm, version).is_active);
	fake_assert_runs(fm, LADDER_METHOD, 1, TIER_LEVEL_TIER0);
	ladder_check_all(fake);
	assert_int_equal(core_revert(fm->module, LADDER_METHOD), 0);
	assert_int_equal(fake_answer(fm, LADDER_METHOD).reason, TIER_REASON_PROMOTED);
	assert_int_equal(fm->records[LADDER_METHOD].version, version);
	fake_assert_runs(fm, LADDER_METHOD, 0, TIER_LEVEL_TIER1);
}

static void a_promotion_of_the_own_body_that_fails_meanwhile_is_final_when_it_is_back(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = ladder_load(fake, true);

	ladder_to(fm, LADDER_METHOD, AT_COMPILING);
	assert_int_equal(core_rejit(fm->module, LADDER_METHOD, 1), 0);
	assert_true(fake_end(fake, fm, LADDER_METHOD, TIER_REASON_WORKER_DIED));
	assert_int_equal(fake_answer(fm, LADDER_METHOD).status, TIER_STATUS_COLD);
	assert_int_equal(core_revert(fm->module, LADDER_METHOD), 0);
	assert_int_equal(fake_answer(fm, LADDER_METHOD).status, TIER_STATUS_FINAL);
	assert_int_equal(fake_answer(fm, LADDER_METHOD).reason, TIER_REASON_WORKER_DIED);
	fake_assert_runs(fm, LADDER_METHOD, 0, TIER_LEVEL_TIER0);
}

static void a_promotion_that_is_still_outside_is_published_when_its_body_is_back(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = ladder_load(fake, true);
	uint32_t n_started;

	ladder_to(fm, LADDER_METHOD, AT_COMPILING);
	n_started = fake_n_events(fake, TIER_EVENT_COMPILE_STARTED);
	assert_int_equal(core_rejit(fm->module, LADDER_METHOD, 1), 0);
	assert_int_equal(core_revert(fm->module, LADDER_METHOD), 0);
	assert_int_equal(fake_answer(fm, LADDER_METHOD).stage, TIER_STAGE_COMPILING);
	assert_int_equal(fake_n_events(fake, TIER_EVENT_COMPILE_STARTED), n_started);
	assert_true(fake_end(fake, fm, LADDER_METHOD, TIER_REASON_NONE));
	assert_false(fake_job(fake, fm, LADDER_METHOD));
	fake_assert_runs(fm, LADDER_METHOD, 0, TIER_LEVEL_TIER1);
}

static void a_promotion_of_another_body_is_kept_for_nobody(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = ladder_load(fake, true);
	uint64_t version;

	assert_int_equal(core_rejit(fm->module, LADDER_METHOD, 1), 0);
	ladder_to_compiling(fm, LADDER_METHOD);
	version = fake_job(fake, fm, LADDER_METHOD)->version;
	assert_int_equal(core_rejit(fm->module, LADDER_METHOD, 2), 0);
	fake_call(fm, LADDER_METHOD);
	assert_true(fake_end(fake, fm, LADDER_METHOD, TIER_REASON_NONE));
	assert_int_equal(last_of(fake, TIER_EVENT_COMPILE_ENDED)->version, version);
	assert_int_equal(version_info(fm, version).state, TIER_VERSION_LIVE);
	fake_assert_runs(fm, LADDER_METHOD, 2, TIER_LEVEL_TIER0);
	assert_int_equal(core_revert(fm->module, LADDER_METHOD), 0);
	assert_int_equal(fake_answer(fm, LADDER_METHOD).status, TIER_STATUS_COLD);
	fake_call(fm, LADDER_METHOD);
	fake_assert_runs(fm, LADDER_METHOD, 0, TIER_LEVEL_TIER0);
}

static void a_queued_version_of_another_body_is_dropped(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = ladder_load(fake, true);
	struct core_version_info info;

	ladder_to_compiling(fm, LADDER_BLOCKER);
	assert_int_equal(core_rejit(fm->module, LADDER_METHOD, 1), 0);
	fake_call(fm, LADDER_METHOD);
	fake_pass(fake, 200);
	fake_calls(fm, LADDER_METHOD, FAKE_N);
	assert_int_equal(fake_answer(fm, LADDER_METHOD).stage, TIER_STAGE_QUEUED);
	assert_int_equal(core_pending(fake->core, CORE_SCOPE_ALL, NULL, 0), 2);
	assert_int_equal(core_rejit(fm->module, LADDER_METHOD, 2), 0);
	assert_int_equal(core_pending(fake->core, CORE_SCOPE_ALL, NULL, 0), 1);
	assert_true(core_version_below(fm->module, LADDER_METHOD, 0, &info));
	assert_int_equal(info.state, TIER_VERSION_FAILED);
	fake_end(fake, fm, LADDER_BLOCKER, TIER_REASON_NONE);
	assert_false(fake_job(fake, fm, LADDER_METHOD));
}

static void jobs_of_replaced_bodies_count_as_jobs(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = ladder_load(fake, false);

	ladder_to(fm, LADDER_METHOD, AT_COMPILING);
	assert_int_equal(core_rejit(fm->module, LADDER_METHOD, 1), 0);
	ladder_to_counting(fm, LADDER_METHOD);
	ladder_to_counting(fm, LADDER_OTHER);
	fake_calls(fm, LADDER_OTHER, FAKE_N);
	fake_calls(fm, LADDER_METHOD, FAKE_N);
	assert_int_equal(fake_answer(fm, LADDER_OTHER).stage, TIER_STAGE_QUEUED); /* one job per uid */
	assert_int_equal(core_pending(fake->core, CORE_SCOPE_ALL, NULL, 0), 3);
	assert_true(fake_end(fake, fm, LADDER_METHOD, TIER_REASON_NONE));
	assert_true(fake_end(fake, fm, LADDER_OTHER, TIER_REASON_NONE));
	assert_true(fake_end(fake, fm, LADDER_METHOD, TIER_REASON_NONE));
	assert_int_equal(core_pending(fake->core, CORE_SCOPE_ALL, NULL, 0), 0);
	fake_assert_runs(fm, LADDER_METHOD, 1, TIER_LEVEL_TIER1);
}

/* -- Late calls --- */
static void calls_in_an_old_stub_count_for_their_own_version(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = ladder_load(fake, true);
	uint64_t stub, version;
	struct fake_run run;

	ladder_to_counting(fm, LADDER_METHOD);
	stub = fm->records[LADDER_METHOD].precode;
	version = fm->records[LADDER_METHOD].version;
	assert_int_equal(core_rejit(fm->module, LADDER_METHOD, 1), 0);
	ladder_to_counting(fm, LADDER_METHOD);
	run = fake_go(fm, LADDER_METHOD, stub, 0);
	assert_int_equal(run.body, 0); /* it began before the rejit */
	assert_int_equal(fake_answer(fm, LADDER_METHOD).remaining, FAKE_N);
	assert_false(fake_ring(fm, LADDER_METHOD, version));
	assert_int_equal(core_revert(fm->module, LADDER_METHOD), 0);
	assert_int_equal(fake_answer(fm, LADDER_METHOD).remaining, FAKE_N - 1);
}

static void a_late_threshold_of_a_body_that_never_returns_is_nothing(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = ladder_load(fake, true);
	uint64_t stub;
	uint32_t n_events;
	struct fake_run run = {0};

	assert_int_equal(core_rejit(fm->module, LADDER_METHOD, 1), 0);
	ladder_to_counting(fm, LADDER_METHOD);
	stub = fm->records[LADDER_METHOD].precode;
	assert_int_equal(core_rejit(fm->module, LADDER_METHOD, 2), 0);
	while (!run.is_crossed)
		run = fake_go(fm, LADDER_METHOD, stub, 0);
	n_events = fake->n_events;
	fake_ring(fm, LADDER_METHOD, run.counted);
	assert_int_equal(fake_n_events(fake, TIER_EVENT_QUEUED), 0);
	assert_int_equal(fake_answer(fm, LADDER_METHOD).status, TIER_STATUS_COLD);
	assert_true(fake->n_events <= n_events + 1);
	ladder_check_all(fake);
}

static void a_late_threshold_changes_nobody_s_turn(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = ladder_load(fake, true);
	struct fake_run run;
	uint64_t stub;

	ladder_to(fm, LADDER_METHOD, AT_COUNTING);
	stub = fm->records[LADDER_METHOD].precode;
	assert_int_equal(core_rejit(fm->module, LADDER_METHOD, 1), 0);
	fake_call(fm, LADDER_METHOD); /* waits for the end of the delay before the next */
	fake_call(fm, LADDER_OTHER);
	run = fake_go(fm, LADDER_METHOD, stub, 0);
	assert_true(run.is_crossed && fake_ring(fm, LADDER_METHOD, run.counted));
	fake_check(fake);
	fake_pass(fake, 200);
	fake_assert_kinds(fake, fake->n_events - 3, TIER_EVENT_DELAY_RESUMED, TIER_EVENT_COUNTING_BEGUN,
			  TIER_EVENT_COUNTING_BEGUN, 0);
	assert_int_equal(fake_newest(fake)->method, LADDER_OTHER);
}

/* -- Modules --- */
static void a_module_goes_with_all_its_bodies(void **state)
{
	struct fake *fake = *state;

	for (int at = AT_COLD; at < _AT_N; at++) {
		struct fake_module *fm = ladder_load(fake, true);

		ladder_to(fm, LADDER_METHOD, at);
		assert_int_equal(core_rejit(fm->module, LADDER_METHOD, 1), 0);
		fake_call(fm, LADDER_METHOD);
		fake_remove(fake, fm);
		fake_check(fake);
		assert_int_equal(core_pending(fake->core, CORE_SCOPE_ALL, NULL, 0), 0);
	}
}

static void a_rejitted_method_without_room_for_code_asks_again(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = ladder_load(fake, true);

	ladder_to_final(fm, LADDER_METHOD);
	assert_int_equal(core_rejit(fm->module, LADDER_METHOD, 1), 0);
	fake->first_result = CORE_E_FULL;
	assert_int_equal(core_prepare(fm->module, LADDER_METHOD), CORE_E_FULL);
	assert_int_equal(fake_answer(fm, LADDER_METHOD).status, TIER_STATUS_COLD);
	ladder_check_all(fake);
	fake->first_result = 0;
	fake_assert_runs(fm, LADDER_METHOD, 1, TIER_LEVEL_TIER0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lazy_runs_the_new_body_wherever_the_old_one_stood),
		cmocka_unit_test(eager_runs_the_new_body_wherever_the_old_one_stood),
		cmocka_unit_test(forwarder_runs_the_new_body_wherever_the_old_one_stood),
		cmocka_unit_test(so_does_counting_in_the_prestub),
		cmocka_unit_test(lazy_restores_what_the_own_body_was_doing),
		cmocka_unit_test(eager_restores_what_the_own_body_was_doing),
		cmocka_unit_test(forwarder_restores_what_the_own_body_was_doing),
		cmocka_unit_test(so_does_the_prestub_that_counts),
		FAKE_TEST(revert_needs_neither_compiler_nor_calls),
		FAKE_TEST(reverting_what_was_never_replaced_changes_nothing),
		cmocka_unit_test(several_rejits_in_a_row_run_each_body_in_its_turn),
		FAKE_TEST(a_hundred_bodies_that_nobody_called_leave_nothing_behind),
		FAKE_TEST(versions_tell_whose_body_they_are_of),
		FAKE_TEST(a_promotion_of_the_own_body_ends_without_being_published),
		FAKE_TEST(a_promotion_of_the_own_body_that_fails_meanwhile_is_final_when_it_is_back),
		FAKE_TEST(a_promotion_that_is_still_outside_is_published_when_its_body_is_back),
		FAKE_TEST(a_promotion_of_another_body_is_kept_for_nobody),
		FAKE_TEST(a_queued_version_of_another_body_is_dropped),
		FAKE_TEST(jobs_of_replaced_bodies_count_as_jobs),
		FAKE_TEST(calls_in_an_old_stub_count_for_their_own_version),
		FAKE_TEST(a_late_threshold_of_a_body_that_never_returns_is_nothing),
		FAKE_TEST(a_late_threshold_changes_nobody_s_turn),
		FAKE_TEST(a_module_goes_with_all_its_bodies),
		FAKE_TEST(a_rejitted_method_without_room_for_code_asks_again),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
