/* SPDX-License-Identifier: Apache-2.0 */
#include "unit/tiering/drive.h"

/* Every row of reference §7 and every flag: which tiers a method passes, what it answers on the way, and the schedule that comes
 * of it; what happens between two rungs, and what does when the next one cannot be reached */

/* -- Reference §7, row by row (reference §14, item 3) --- */
static void bytecode_passes_tier0_and_tier0_instrumented(void **state)
{
	const struct core_config config = pgo_config();
	struct drive drive = world(&config, CORE_TRAIT_LOOPS);

	drive_all(&drive);
	assert_schedule(&drive, 1, N, N);
	assert_levels(&drive, TIER_LEVEL_TIER0, TIER_LEVEL_TIER0_INSTRUMENTED, TIER_LEVEL_TIER1);
	assert_final(&drive, TIER_LEVEL_TIER1, TIER_REASON_PROMOTED);
	world_end(&drive);
}

static void precompiled_code_passes_tier1_instrumented(void **state)
{
	const struct core_config config = pgo_config();
	struct drive drive = world(&config, CORE_TRAIT_PRECOMPILED);

	drive_all(&drive);
	assert_schedule(&drive, 1, N, N);
	assert_levels(&drive, TIER_LEVEL_READY_TO_RUN, TIER_LEVEL_TIER1_INSTRUMENTED, TIER_LEVEL_TIER1);
	assert_final(&drive, TIER_LEVEL_TIER1, TIER_REASON_PROMOTED);
	world_end(&drive);
}

static void with_instrument_all_bytecode_begins_instrumented(void **state)
{
	struct core_config config = pgo_config();
	struct drive drive;

	config.instrument_all = true;
	drive = world(&config, 0);
	drive_all(&drive);
	assert_schedule(&drive, 1, N);
	assert_levels(&drive, TIER_LEVEL_TIER0_INSTRUMENTED, TIER_LEVEL_TIER1);
	assert_final(&drive, TIER_LEVEL_TIER1, TIER_REASON_PROMOTED);
	world_end(&drive);
}

static void with_instrument_all_precompiled_code_is_not_instrumented(void **state)
{
	struct core_config config = pgo_config();
	struct drive drive;

	config.instrument_all = true;
	drive = world(&config, CORE_TRAIT_PRECOMPILED);
	drive_all(&drive);
	assert_schedule(&drive, 1, N);
	assert_levels(&drive, TIER_LEVEL_READY_TO_RUN, TIER_LEVEL_TIER1);
	assert_final(&drive, TIER_LEVEL_TIER1, TIER_REASON_PROMOTED);
	world_end(&drive);
}

static void without_pgo_tier1_comes_next(void **state)
{
	static const struct {
		uint32_t traits;
		enum tier_level first;
	} rows[] = { { 0, TIER_LEVEL_TIER0 }, { CORE_TRAIT_PRECOMPILED, TIER_LEVEL_READY_TO_RUN } };

	for (unsigned int i = 0; i < ARRAY_SIZE(rows); i++) {
		struct drive drive = world(&fake_config, rows[i].traits);

		drive_all(&drive);
		assert_schedule(&drive, 1, N);
		assert_levels(&drive, rows[i].first, TIER_LEVEL_TIER1);
		assert_final(&drive, TIER_LEVEL_TIER1, TIER_REASON_PROMOTED);
		world_end(&drive);
	}
}

/* The last row: not eligible, or diverted */
static void assert_one_call(const struct core_config *config, uint32_t traits, enum tier_level level, enum tier_reason reason)
{
	struct drive drive = world(config, traits);

	drive_all(&drive);
	assert_schedule(&drive, 1);
	assert_levels(&drive, level);
	assert_final(&drive, level, reason);
	assert_int_equal(fake_n_events(drive.fake, TIER_EVENT_DELAY_PAUSED), 0);
	assert_true(drive.fm->records[0].entry == drive.fm->records[0].code);
	world_end(&drive);
}

/* -- Flags: one cold call, then the end --- */
static void no_optimization_is_final_at_the_first_call(void **state)
{
	const struct core_config config = pgo_config();

	assert_one_call(&config, CORE_TRAIT_NO_OPTIMIZATION, TIER_LEVEL_MIN_OPT_JITTED, TIER_REASON_NO_OPTIMIZATION);
	assert_one_call(&config, CORE_TRAIT_NO_OPTIMIZATION | CORE_TRAIT_AGGRESSIVE_OPTIMIZATION | CORE_TRAIT_PRECOMPILED,
			TIER_LEVEL_MIN_OPT_JITTED, TIER_REASON_NO_OPTIMIZATION);
}

static void aggressive_optimization_is_final_at_the_first_call(void **state)
{
	const struct core_config config = pgo_config();

	assert_one_call(&config, CORE_TRAIT_AGGRESSIVE_OPTIMIZATION, TIER_LEVEL_OPTIMIZED, TIER_REASON_AGGRESSIVE_OPTIMIZATION);
	assert_one_call(&config, CORE_TRAIT_AGGRESSIVE_OPTIMIZATION | CORE_TRAIT_PRECOMPILED, TIER_LEVEL_OPTIMIZED,
			TIER_REASON_AGGRESSIVE_OPTIMIZATION);
}

static void without_tiers_everything_is_optimized_at_the_first_call(void **state)
{
	struct core_config config = pgo_config();

	config.no_tiers = true;
	assert_one_call(&config, 0, TIER_LEVEL_OPTIMIZED, TIER_REASON_TIERING_OFF);
	assert_one_call(&config, CORE_TRAIT_PRECOMPILED | CORE_TRAIT_PINNED, TIER_LEVEL_OPTIMIZED, TIER_REASON_TIERING_OFF);
	assert_one_call(&config, CORE_TRAIT_NO_OPTIMIZATION, TIER_LEVEL_MIN_OPT_JITTED, TIER_REASON_NO_OPTIMIZATION);
}

static void without_quick_jit_what_is_not_precompiled_is_optimized(void **state)
{
	struct core_config config = fake_config;
	struct drive drive;

	config.no_quick_jit = true;
	assert_one_call(&config, 0, TIER_LEVEL_OPTIMIZED, TIER_REASON_QUICK_JIT_OFF);
	drive = world(&config, CORE_TRAIT_PRECOMPILED);
	drive_all(&drive);
	assert_schedule(&drive, 1, N);
	assert_levels(&drive, TIER_LEVEL_READY_TO_RUN, TIER_LEVEL_TIER1);
	world_end(&drive);
}

static void without_quick_jit_for_loops_loops_are_optimized(void **state)
{
	static const uint32_t others[] = { 0, CORE_TRAIT_LOOPS | CORE_TRAIT_PRECOMPILED };
	struct core_config config = fake_config;

	config.no_quick_jit_loops = true;
	assert_one_call(&config, CORE_TRAIT_LOOPS, TIER_LEVEL_OPTIMIZED, TIER_REASON_QUICK_JIT_OFF);
	for (unsigned int i = 0; i < ARRAY_SIZE(others); i++) {
		struct drive drive = world(&config, others[i]);

		drive_all(&drive);
		assert_schedule(&drive, 1, N);
		world_end(&drive);
	}
}

static void pinned_methods_stay_at_their_precompiled_code(void **state)
{
	const struct core_config config = pgo_config();
	struct drive drive = world(&config, CORE_TRAIT_PINNED);

	assert_one_call(&config, CORE_TRAIT_PRECOMPILED | CORE_TRAIT_PINNED, TIER_LEVEL_READY_TO_RUN, TIER_REASON_PINNED);
	drive_all(&drive);	/* there is none */
	assert_schedule(&drive, 1, N, N);
	world_end(&drive);
}

static void without_call_counting_the_first_tier_is_final(void **state)
{
	struct core_config config = pgo_config();

	config.call_counting = false;
	assert_one_call(&config, 0, TIER_LEVEL_TIER0, TIER_REASON_COUNTING_OFF);
	assert_one_call(&config, CORE_TRAIT_PRECOMPILED, TIER_LEVEL_READY_TO_RUN, TIER_REASON_COUNTING_OFF);
	config.instrument_all = true;
	assert_one_call(&config, 0, TIER_LEVEL_TIER0_INSTRUMENTED, TIER_REASON_COUNTING_OFF);
	config.no_tiers = true;
	assert_one_call(&config, 0, TIER_LEVEL_OPTIMIZED, TIER_REASON_TIERING_OFF);
}

static void without_a_delay_each_tier_is_counted_at_once(void **state)
{
	struct core_config config = pgo_config();
	struct drive drive;

	config.delay_ns = 0;
	drive = world(&config, 0);
	drive_all(&drive);
	assert_schedule(&drive, 1, N, N);
	assert_int_equal(drive.fake->now_ns, 1000 * (uint64_t)FAKE_MS);
	assert_int_equal(fake_n_events(drive.fake, TIER_EVENT_COUNTING_BEGUN), 2);
	world_end(&drive);
}

static void counting_in_the_prestub_makes_the_same_ladder(void **state)
{
	struct core_config config = pgo_config();
	struct drive drive;

	config.counting_in_prestub = true;
	drive = world(&config, 0);
	drive_all(&drive);
	assert_schedule(&drive, 1, N, N);
	assert_levels(&drive, TIER_LEVEL_TIER0, TIER_LEVEL_TIER0_INSTRUMENTED, TIER_LEVEL_TIER1);
	world_end(&drive);
}

static void aggressive_tiering_is_a_threshold_of_one_and_no_delay(void **state)
{
	struct core_config config = pgo_config();
	struct drive drive;

	config.threshold = 1;
	config.delay_ns = 0;
	drive = world(&config, 0);
	drive_all(&drive);
	assert_schedule(&drive, 1, 1, 1);
	world_end(&drive);
}

/* -- Profiles --- */
static void who_has_nothing_to_count_is_not_instrumented(void **state)
{
	static const uint32_t traits[] = { 0, CORE_TRAIT_PRECOMPILED };

	for (int all = 0; all < 2; all++)
		for (unsigned int i = 0; i < ARRAY_SIZE(traits); i++) {
			struct core_config config = pgo_config();
			struct drive drive;

			config.instrument_all = all;
			drive = world(&config, traits[i]);
			drive.fm->n_profile[0] = 0;
			drive_all(&drive);
			assert_schedule(&drive, 1, N);
			assert_levels(&drive, i ? TIER_LEVEL_READY_TO_RUN : TIER_LEVEL_TIER0, TIER_LEVEL_TIER1);
			world_end(&drive);
		}
}

/* Its own counter would have no place, and the method would be final there. */
static void without_cells_for_a_profile_and_a_counter_the_ladder_goes_on_without_that_tier(void **state)
{
	const struct core_config config = pgo_config();

	for (uint32_t n_cells = 1; n_cells < CELLS + 5; n_cells++) {
		struct drive drive = { .fake = fake_new(&config), .fails = TIER_LEVEL_NONE };

		/* a counter, one that is not used, the profile, a counter */
		const bool is_room = n_cells >= 2 + CELLS + 1;

		assert_int_equal(fake_try_load(drive.fake, DRIVE_UID, "m", 1, n_cells, &drive.fm), 0);
		drive.fm->n_profile[0] = CELLS;
		drive_all(&drive);
		assert_int_equal(drive.n_schedule, is_room ? 3 : 2);
		assert_int_equal(ask(&drive).reason, TIER_REASON_PROMOTED);
		world_end(&drive);
	}
}

static void a_method_that_is_replaced_again_and_again_leaves_the_others_their_counters(void **state)
{
	const struct core_config config = pgo_config();
	struct drive drive = { .fake = fake_new(&config), .fails = TIER_LEVEL_NONE };
	uint32_t n_instrumented = 0;

	assert_int_equal(fake_try_load(drive.fake, DRIVE_UID, "m", 4, 128, &drive.fm), 0);
	for (uint32_t i = 0; i < 4; i++)
		drive.fm->n_profile[i] = CELLS;
	for (uint32_t body = 1; body <= 20; body++) {
		assert_int_equal(core_rejit(drive.fm->module, 0, body), 0);
		fake_call(drive.fm, 0);
		fake_pass(drive.fake, 200);
		fake_calls(drive.fm, 0, N);
		assert_non_null(fake_job(drive.fake, drive.fm, 0));
		n_instrumented += fake_job(drive.fake, drive.fm, 0)->level == TIER_LEVEL_TIER0_INSTRUMENTED;
		fake_end(drive.fake, drive.fm, 0, TIER_REASON_NONE);
	}
	assert_true(n_instrumented > 1 && n_instrumented < 20);
	for (drive.method = 1; drive.method < 4; drive.method++) {
		drive.n_schedule = 0;
		drive_all(&drive);
		assert_int_equal(ask(&drive).tier, TIER_LEVEL_TIER1);
		assert_int_equal(ask(&drive).reason, TIER_REASON_PROMOTED);
	}
	world_end(&drive);
}

static void a_profile_is_found_by_its_method_and_belongs_to_it_alone(void **state)
{
	const struct core_config config = pgo_config();
	struct drive drive = world(&config, 0);
	uint32_t cells[4], own;

	assert_false(core_profile(drive.fm->module, 0, &cells[0]));
	for (drive.method = 0; drive.method < 4; drive.method++) {
		drive_all(&drive);
		assert_true(core_profile(drive.fm->module, drive.method, &cells[drive.method]));
		assert_int_equal(cells[drive.method] % 2, 0);
		for (uint32_t i = 0; i < drive.method; i++)
			assert_true(cells[i] + CELLS <= cells[drive.method]);
		/* its counts */
		for (uint32_t i = 0; i < CELLS; i++)
			drive.fm->cells[cells[drive.method] + i] = 1 + drive.method;
		drive.n_schedule = drive.n_levels = 0;
	}
	fake_restart(drive.fake);
	for (uint32_t i = 0; i < 4; i++) {
		assert_true(core_profile(drive.fm->module, i, &own));
		assert_int_equal(own, cells[i]);
	}
	assert_int_equal(core_rejit(drive.fm->module, 1, 1), 0);
	assert_false(core_profile(drive.fm->module, 1, &own));	/* another body's */
	assert_int_equal(core_revert(drive.fm->module, 1), 0);
	assert_true(core_profile(drive.fm->module, 1, &own));
	world_end(&drive);
}

static void a_profile_that_is_being_made_is_no_profile_yet(void **state)
{
	const struct core_config config = pgo_config();
	struct drive drive = world(&config, 0);
	uint32_t cell;

	fake_call(drive.fm, 0);
	fake_pass(drive.fake, 200);
	fake_calls(drive.fm, 0, N);
	assert_int_equal(fake_job(drive.fake, drive.fm, 0)->level, TIER_LEVEL_TIER0_INSTRUMENTED);
	assert_false(core_profile(drive.fm->module, 0, &cell));
	fake_end(drive.fake, drive.fm, 0, TIER_REASON_NONE);
	assert_true(core_profile(drive.fm->module, 0, &cell));
	world_end(&drive);
}

/* -- Between two rungs --- */
static void an_instrumented_version_is_counted_from_its_publication_on(void **state)
{
	const struct core_config config = pgo_config();
	struct drive drive = world(&config, 0);
	uint32_t n_events;

	fake_call(drive.fm, 0);
	fake_pass(drive.fake, 200);
	fake_calls(drive.fm, 0, N);
	n_events = drive.fake->n_events;
	fake_end(drive.fake, drive.fm, 0, TIER_REASON_NONE);
	fake_assert_kinds(drive.fake, n_events, TIER_EVENT_COMPILE_ENDED, TIER_EVENT_PUBLISHED, TIER_EVENT_COUNTING_BEGUN, 0);
	assert_int_equal(ask(&drive).stage, TIER_STAGE_COUNTING);
	assert_int_equal(ask(&drive).tier, TIER_LEVEL_TIER0_INSTRUMENTED);
	assert_int_equal(ask(&drive).remaining, N);	/* a fresh threshold */
	assert_int_equal(ask(&drive).generation, 2);
	assert_int_equal(drive.fake->events[n_events + 1].reason, TIER_REASON_CALLS);
	world_end(&drive);
}

/* The tenth path of reference §6.6 */
static void while_a_delay_is_active_it_is_recorded_for_its_end(void **state)
{
	const struct core_config config = pgo_config();
	struct drive drive = world(&config, 0);
	uint64_t n;

	fake_call(drive.fm, 0);
	fake_pass(drive.fake, 200);
	fake_calls(drive.fm, 0, N);
	fake_call(drive.fm, 1);		/* a new delay, while the job is outside */
	n = fake_n_paths(drive.fake, TIER_PATH_DELAY_ACTIVATION_NON_FINAL);
	fake_end(drive.fake, drive.fm, 0, TIER_REASON_NONE);
	assert_int_equal(fake_n_paths(drive.fake, TIER_PATH_DELAY_ACTIVATION_NON_FINAL), n + 1);
	assert_int_equal(ask(&drive).stage, TIER_STAGE_UNCOUNTED);
	assert_int_equal(ask(&drive).remaining, N);
	assert_int_equal(fake_call(drive.fm, 0), FAKE_CODE);
	fake_restart(drive.fake);
	fake_pass(drive.fake, 100);	/* it did not extend the delay */
	assert_int_equal(ask(&drive).stage, TIER_STAGE_COUNTING);
	assert_int_equal(ask(&drive).remaining, N);
	fake_pass(drive.fake, 100);
	drive_all(&drive);
	assert_schedule(&drive, N);
	world_end(&drive);
}

/* Reference §14, item 3 */
static void tier1_is_added_once_even_if_both_counts_are_crossed_close_together(void **state)
{
	const struct core_config config = pgo_config();
	struct drive drive = world(&config, 0);
	uint64_t tier0, instrumented;

	fake_call(drive.fm, 0);
	fake_pass(drive.fake, 200);
	tier0 = drive.fm->records[0].version;
	fake_calls(drive.fm, 0, N);
	fake_end(drive.fake, drive.fm, 0, TIER_REASON_NONE);
	instrumented = drive.fm->records[0].version;
	for (uint32_t i = 0; i < N; i++)
		fake_call(drive.fm, 0);
	/* bells of both, late ones and early ones, in any order */
	assert_false(fake_ring(drive.fm, 0, tier0));
	assert_true(fake_ring(drive.fm, 0, instrumented));
	assert_false(fake_ring(drive.fm, 0, tier0));
	assert_false(fake_ring(drive.fm, 0, instrumented));
	assert_int_equal(core_look(drive.fm->module, 0), 0);
	assert_int_equal(core_pending(drive.fake->core, CORE_SCOPE_ALL, NULL, 0), 1);
	fake_end(drive.fake, drive.fm, 0, TIER_REASON_NONE);
	assert_int_equal(fake_n_events(drive.fake, TIER_EVENT_QUEUED), 2);
	assert_int_equal(fake_n_events(drive.fake, TIER_EVENT_THRESHOLD), 2);
	assert_final(&drive, TIER_LEVEL_TIER1, TIER_REASON_PROMOTED);
	world_end(&drive);
}

/* -- Failures, on each rung (reference §14, item 8) --- */
static void a_promotion_that_fails_is_final_on_every_rung(void **state)
{
	static const struct {
		uint32_t traits;
		enum tier_level fails, last;
		uint32_t n_schedule;
	} rows[] = {
		{ 0, TIER_LEVEL_TIER0_INSTRUMENTED, TIER_LEVEL_TIER0, 2 },
		{ 0, TIER_LEVEL_TIER1, TIER_LEVEL_TIER0_INSTRUMENTED, 3 },
		{ CORE_TRAIT_PRECOMPILED, TIER_LEVEL_TIER1_INSTRUMENTED, TIER_LEVEL_READY_TO_RUN, 2 },
		{ CORE_TRAIT_PRECOMPILED, TIER_LEVEL_TIER1, TIER_LEVEL_TIER1_INSTRUMENTED, 3 },
		{ CORE_TRAIT_AGGRESSIVE_OPTIMIZATION, TIER_LEVEL_OPTIMIZED, TIER_LEVEL_MIN_OPT_JITTED, 1 },
	};
	const struct core_config config = pgo_config();

	for (unsigned int i = 0; i < ARRAY_SIZE(rows); i++) {
		struct drive drive = world(&config, rows[i].traits);

		drive.fails = rows[i].fails;
		drive_all(&drive);
		assert_int_equal(drive.n_schedule, rows[i].n_schedule);
		assert_final(&drive, rows[i].last, TIER_REASON_COMPILE_FAILED);
		fake_restart(drive.fake);
		assert_final(&drive, rows[i].last, TIER_REASON_COMPILE_FAILED);
		/* the queue goes on */
		drive.method = 1;
		drive.fails = TIER_LEVEL_NONE;
		drive.n_schedule = drive.n_levels = 0;
		drive_all(&drive);
		assert_true(ask(&drive).reason != TIER_REASON_COMPILE_FAILED);
		world_end(&drive);
	}
}

static void a_counter_that_cannot_begin_is_final_on_the_instrumented_tier(void **state)
{
	const struct core_config config = pgo_config();
	struct drive drive = world(&config, 0);

	fake_call(drive.fm, 0);
	fake_pass(drive.fake, 200);
	fake_calls(drive.fm, 0, N);
	drive.fake->stub_result = CORE_E_FULL;
	fake_end(drive.fake, drive.fm, 0, TIER_REASON_NONE);
	assert_final(&drive, TIER_LEVEL_TIER0_INSTRUMENTED, TIER_REASON_ARENA_FULL);
	world_end(&drive);
}

static void precompiled_code_without_room_gives_way_to_tier0(void **state)
{
	const struct core_config config = pgo_config();
	struct drive drive = world(&config, CORE_TRAIT_PRECOMPILED | CORE_TRAIT_PINNED);

	drive.fake->first_fails = 1u << TIER_LEVEL_READY_TO_RUN;
	drive_all(&drive);
	assert_schedule(&drive, 1, N, N);
	assert_levels(&drive, TIER_LEVEL_TIER0, TIER_LEVEL_TIER0_INSTRUMENTED, TIER_LEVEL_TIER1);
	world_end(&drive);
}

static void instrumented_first_code_without_room_gives_way_to_tier0(void **state)
{
	struct core_config config = pgo_config();
	struct drive drive;

	config.instrument_all = true;
	drive = world(&config, 0);
	drive.fake->first_fails = 1u << TIER_LEVEL_TIER0_INSTRUMENTED;
	drive_all(&drive);
	assert_schedule(&drive, 1, N);
	assert_levels(&drive, TIER_LEVEL_TIER0, TIER_LEVEL_TIER1);
	world_end(&drive);
}

/* -- Rows --- */
static void the_longest_ladder_takes_what_it_was_promised(void **state)
{
	const struct core_config config = pgo_config();
	struct drive drive = world(&config, 0);
	struct core *core = drive.fake->core;

	/* not one more than was promised */
	core->share[ROWS_VERSIONS] = core->rows[ROWS_VERSIONS] + core->rows[ROWS_PROMISED];
	for (drive.method = 0; drive.method < 4; drive.method++) {
		drive_all(&drive);
		drive.n_schedule = drive.n_levels = 0;
		assert_true(core->rows[ROWS_VERSIONS] + core->rows[ROWS_PROMISED] <= core->share[ROWS_VERSIONS]);
	}
	assert_int_equal(core->rows[ROWS_VERSIONS], 4 * LEDGER_LADDER);
	assert_int_equal(core->rows[ROWS_PROMISED], 0);
	world_end(&drive);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bytecode_passes_tier0_and_tier0_instrumented),
		cmocka_unit_test(precompiled_code_passes_tier1_instrumented),
		cmocka_unit_test(with_instrument_all_bytecode_begins_instrumented),
		cmocka_unit_test(with_instrument_all_precompiled_code_is_not_instrumented),
		cmocka_unit_test(without_pgo_tier1_comes_next),
		cmocka_unit_test(no_optimization_is_final_at_the_first_call),
		cmocka_unit_test(aggressive_optimization_is_final_at_the_first_call),
		cmocka_unit_test(without_tiers_everything_is_optimized_at_the_first_call),
		cmocka_unit_test(without_quick_jit_what_is_not_precompiled_is_optimized),
		cmocka_unit_test(without_quick_jit_for_loops_loops_are_optimized),
		cmocka_unit_test(pinned_methods_stay_at_their_precompiled_code),
		cmocka_unit_test(without_call_counting_the_first_tier_is_final),
		cmocka_unit_test(without_a_delay_each_tier_is_counted_at_once),
		cmocka_unit_test(counting_in_the_prestub_makes_the_same_ladder),
		cmocka_unit_test(aggressive_tiering_is_a_threshold_of_one_and_no_delay),
		cmocka_unit_test(who_has_nothing_to_count_is_not_instrumented),
		cmocka_unit_test(without_cells_for_a_profile_and_a_counter_the_ladder_goes_on_without_that_tier),
		cmocka_unit_test(a_method_that_is_replaced_again_and_again_leaves_the_others_their_counters),
		cmocka_unit_test(a_profile_is_found_by_its_method_and_belongs_to_it_alone),
		cmocka_unit_test(a_profile_that_is_being_made_is_no_profile_yet),
		cmocka_unit_test(an_instrumented_version_is_counted_from_its_publication_on),
		cmocka_unit_test(while_a_delay_is_active_it_is_recorded_for_its_end),
		cmocka_unit_test(tier1_is_added_once_even_if_both_counts_are_crossed_close_together),
		cmocka_unit_test(a_promotion_that_fails_is_final_on_every_rung),
		cmocka_unit_test(a_counter_that_cannot_begin_is_final_on_the_instrumented_tier),
		cmocka_unit_test(precompiled_code_without_room_gives_way_to_tier0),
		cmocka_unit_test(instrumented_first_code_without_room_gives_way_to_tier0),
		cmocka_unit_test(the_longest_ladder_takes_what_it_was_promised),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
