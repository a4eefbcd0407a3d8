/* SPDX-License-Identifier: Apache-2.0 */
#include "unit/tiering/fake.h"

/* Reference §14, item by item. Those of the core that fill a file have one of their own:
 *
 *   1  the delay                    here, and test_delay.c
 *   2  the threshold                here, and test_count.c
 *   3  the ladder of each row       test_ladder.c
 *   4  order, interruption, bells   here, and test_queue.c; the worker's idle end: tests/unit/worker/test_pool.c
 *   5  what lazy entry points cost  test_slots.c; that calls through slots are counted: test_bodies.c and test_entry.c
 *   6  rejit and revert             test_bodies.c
 *   7  copied pointers              test_slots.c
 *   8  a promotion that fails       here, test_ladder.c and test_queue.c
 *   9  on-stack replacement         test_osr.c
 *  10  stress                       test_model.c, test_model_bodies.c, test_ladder_property.c; with real threads:
 *                                   tests/system/test_storm.c */

#define UID 1000
#define DELAY_MS 100u

static uint32_t n_counting(struct fake_module *fm)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < fm->layout.n_methods; i++)
		n += tier_state_stage(fm->records[i].state) == TIER_STAGE_COUNTING;
	return n;
}

/* -- Item 1 --- */
static void first_calls_hold_counting_off_until_one_to_two_periods_after_the_last(void **state)
{
	static const uint32_t spacings[] = { 1, 10, 33, 50, 70, 99 };
	enum { K = 40 };

	for (unsigned int i = 0; i < ARRAY_SIZE(spacings); i++) {
		struct fake *fake = fake_new(&fake_config);
		struct fake_module *fm = fake_load(fake, UID, "m", K);
		uint32_t n_ms = 0;

		for (uint32_t k = 0; k < K; k++) {
			fake_call(fm, k);
			assert_int_equal(n_counting(fm), 0);
			if (k < K - 1)
				fake_pass(fake, spacings[i]);
		}
		for (; !n_counting(fm); n_ms++) {
			assert_true(n_ms <= 2 * DELAY_MS);
			fake_pass(fake, 1);
		}
		assert_true(n_ms >= DELAY_MS && n_ms <= 2 * DELAY_MS);
		assert_int_equal(n_counting(fm), K);	/* all at once */
		assert_int_equal(fake_n_events(fake, TIER_EVENT_DELAY_PAUSED), 1);
		assert_int_equal(fake_n_events(fake, TIER_EVENT_DELAY_RESUMED), 1);
		fake_check(fake);
		fake_free(fake);
	}
}

static void methods_that_are_recorded_again_do_not_extend_the_delay(void **state)
{
	struct core_config config = fake_config;
	struct fake_module *fm;
	struct fake *fake;

	config.pgo = true;
	fake = fake_new(&config);
	assert_int_equal(fake_try_load(fake, UID, "m", 3, 50, &fm), 0);
	fm->n_profile[0] = 4;
	fake_call(fm, 0);
	fake_pass(fake, 200);
	fake_calls(fm, 0, FAKE_N);
	fake_call(fm, 1);	/* a delay begins; its first tick comes after 100 ms */
	fake_pass(fake, 90);
	fake_end(fake, fm, 0, TIER_REASON_NONE);
	assert_int_equal(fake_answer(fm, 0).stage, TIER_STAGE_UNCOUNTED);
	fake_pass(fake, 10);
	assert_int_equal(n_counting(fm), 2);
	fake_check(fake);
	fake_free(fake);
}

/* -- Item 2 --- */
static void exactly_the_threshold_makes_one_entry_whatever_comes_before_its_completion(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = fake_load(fake, UID, "m", 1);
	struct fake_run run;
	uint64_t version;

	fake_call(fm, 0);
	fake_pass(fake, 100);
	version = fm->records[0].version;
	for (uint32_t i = 1; i < FAKE_N; i++) {
		assert_true(fake_run(fm, 0, FAKE_WAY_PRECODE, &run));
		assert_true(run.is_counted && !run.is_crossed);
	}
	run = fake_begin(fm, 0, tier_layout_precode(&fm->layout, 0), 0);	/* whose bell is late */
	assert_true(run.is_crossed);
	assert_int_equal(run.level, TIER_LEVEL_TIER0);
	for (uint32_t i = 0; i < 65536; i++)
		assert_int_equal(fake_call(fm, 0), FAKE_COUNTED);
	assert_int_equal(fake_n_events(fake, TIER_EVENT_QUEUED), 0);
	assert_true(fake_ring(fm, 0, version));
	assert_false(fake_ring(fm, 0, version));
	assert_int_equal(core_sweep(fake->core, NULL), 0);
	for (uint32_t i = 0; i < 100; i++)
		assert_int_equal(fake_call(fm, 0), FAKE_CODE);
	assert_int_equal(fake_n_events(fake, TIER_EVENT_THRESHOLD), 1);
	assert_int_equal(fake_n_events(fake, TIER_EVENT_QUEUED), 1);
	fake_end(fake, fm, 0, TIER_REASON_NONE);
	assert_false(fake_ring(fm, 0, version));
	assert_int_equal(fake_answer(fm, 0).status, TIER_STATUS_FINAL);
}

/* -- Item 4 --- */
static void the_queue_stops_between_two_methods_when_a_first_call_comes(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = fake_load(fake, UID, "m", 4);

	for (uint32_t i = 0; i < 3; i++)
		fake_call(fm, i);
	fake_pass(fake, 200);
	for (uint32_t i = 0; i < 3; i++)
		fake_calls(fm, i, FAKE_N);
	assert_true(fake_job(fake, fm, 0));
	fake_call(fm, 3);
	assert_true(fake_end(fake, fm, 0, TIER_REASON_NONE));	/* what runs goes on to its end */
	assert_false(fake_job(fake, fm, 1));
	fake_pass(fake, 99);
	assert_false(fake_job(fake, fm, 1));
	fake_pass(fake, 1);
	assert_true(fake_job(fake, fm, 1) && !fake_job(fake, fm, 2));	/* in order */
	assert_true(fake_end(fake, fm, 1, TIER_REASON_NONE));
	assert_true(fake_job(fake, fm, 2));
}

/* Queue.c's story: what comes together is completed before any of it starts. */
static void thresholds_that_are_found_together_are_completed_before_a_job_starts(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = fake_load(fake, UID, "m", 20);
	uint32_t n;

	for (uint32_t i = 0; i < 20; i++)
		fake_call(fm, i);
	fake_pass(fake, 200);
	for (uint32_t i = 0; i < 20; i++)
		for (uint32_t k = 0; k < FAKE_N; k++)
			fake_call(fm, i);
	n = fake->n_events;
	assert_int_equal(core_sweep(fake->core, NULL), 20);
	for (uint32_t i = 0; i < 40; i++)
		assert_int_equal(fake->events[n + i].kind, i % 2 ? TIER_EVENT_QUEUED : TIER_EVENT_THRESHOLD);
	assert_int_equal(fake->events[n + 40].kind, TIER_EVENT_COMPILE_STARTED);
	assert_int_equal(fake->n_events, n + 41);
}

/* -- Item 8 --- */
static void a_promotion_that_fails_keeps_the_old_tier_and_the_queue_goes_on(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = fake_load(fake, UID, "m", 2);
	uint32_t n;

	for (uint32_t i = 0; i < 2; i++)
		fake_call(fm, i);
	fake_pass(fake, 200);
	for (uint32_t i = 0; i < 2; i++)
		fake_calls(fm, i, FAKE_N);
	assert_true(fake_end(fake, fm, 0, TIER_REASON_COMPILE_FAILED));
	assert_int_equal(fake_answer(fm, 0).status, TIER_STATUS_FINAL);
	assert_int_equal(fake_answer(fm, 0).reason, TIER_REASON_COMPILE_FAILED);
	fake_assert_runs(fm, 0, 0, TIER_LEVEL_TIER0);
	assert_true(fake_end(fake, fm, 1, TIER_REASON_NONE));
	fake_assert_runs(fm, 1, 0, TIER_LEVEL_TIER1);
	n = fake->n_events;
	for (uint32_t i = 0; i < 1000; i++)
		fake_call(fm, 0);
	fake_pass(fake, 10000);
	assert_int_equal(fake->n_events, n);
	assert_int_equal(core_pending(fake->core, CORE_SCOPE_ALL, NULL, 0), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(first_calls_hold_counting_off_until_one_to_two_periods_after_the_last),
		cmocka_unit_test(methods_that_are_recorded_again_do_not_extend_the_delay),
		FAKE_TEST(exactly_the_threshold_makes_one_entry_whatever_comes_before_its_completion),
		FAKE_TEST(the_queue_stops_between_two_methods_when_a_first_call_comes),
		FAKE_TEST(thresholds_that_are_found_together_are_completed_before_a_job_starts),
		FAKE_TEST(a_promotion_that_fails_keeps_the_old_tier_and_the_queue_goes_on),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
