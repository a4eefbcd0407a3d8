/* SPDX-License-Identifier: Apache-2.0 */
#include "unit/tiering/fake.h"

/* The call-counting delay: one per uid, ticking, extended by first calls only */

#define UID 1000

static enum tier_stage stage(struct fake_module *fm, uint32_t method)
{
	return fake_answer(fm, method).stage;
}

static void a_single_first_call_waits_one_period(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = fake_load(fake, UID, "m", 1);

	fake_call(fm, 0);
	fake_pass(fake, 99);
	assert_int_equal(stage(fm, 0), TIER_STAGE_UNCOUNTED);
	fake_pass(fake, 1);
	assert_int_equal(stage(fm, 0), TIER_STAGE_COUNTING);
	assert_int_equal(fake_n_events(fake, TIER_EVENT_DELAY_PAUSED), 1);
	assert_int_equal(fake_n_events(fake, TIER_EVENT_DELAY_RESUMED), 1);
}

static void a_first_call_makes_the_next_tick_fail(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = fake_load(fake, UID, "m", 6);

	for (uint32_t i = 0; i < 5; i++) {
		fake_call(fm, i);
		fake_pass(fake, 60);
	}
	assert_int_equal(stage(fm, 0), TIER_STAGE_UNCOUNTED);
	/* now 300, the last first call at 240: ticks at 300 (failed) and 400 */
	fake_pass(fake, 99);
	assert_int_equal(stage(fm, 4), TIER_STAGE_UNCOUNTED);
	fake_pass(fake, 1);
	for (uint32_t i = 0; i < 5; i++)
		assert_int_equal(stage(fm, i), TIER_STAGE_COUNTING);
	assert_int_equal(fake_n_events(fake, TIER_EVENT_DELAY_PAUSED), 1);
}

static void later_calls_and_repeated_questions_do_not_extend_it(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = fake_load(fake, UID, "m", 1);

	fake_call(fm, 0);
	for (int i = 0; i < 9; i++) {
		fake_pass(fake, 10);
		fake_call(fm, 0);
		core_prepare(fm->module, 0);
		fake_answer(fm, 0);
		core_tick(fake->core);
	}
	fake_pass(fake, 10);
	assert_int_equal(stage(fm, 0), TIER_STAGE_COUNTING);
}

static void a_late_tick_still_leaves_a_whole_period(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = fake_load(fake, UID, "m", 2);

	fake_call(fm, 0);
	fake_call(fm, 1);
	fake->now_ns += 170 * (uint64_t)FAKE_MS;
	core_tick(fake->core);
	fake_pass(fake, 99);
	assert_int_equal(stage(fm, 0), TIER_STAGE_UNCOUNTED);
	fake_pass(fake, 1);
	assert_int_equal(stage(fm, 0), TIER_STAGE_COUNTING);
}

static void each_uid_has_its_own(void **state)
{
	struct fake *fake = *state;
	struct fake_module *one = fake_load(fake, 1, "m", 8), *two = fake_load(fake, 2, "m", 1);

	fake_call(two, 0);
	for (uint32_t i = 0; i < 8; i++) {
		fake_call(one, i);
		fake_pass(fake, 20);
	}
	assert_int_equal(stage(two, 0), TIER_STAGE_COUNTING);
	assert_int_equal(stage(one, 0), TIER_STAGE_UNCOUNTED);
}

static void counting_begins_in_the_order_of_first_calls(void **state)
{
	struct fake *fake = *state;
	struct fake_module *one = fake_load(fake, UID, "one", 5), *two = fake_load(fake, UID, "two", 5);
	uint32_t from;

	for (uint32_t i = 5; i--; ) {
		fake_call(two, i);
		fake_call(one, i);
	}
	from = fake->n_events;
	fake_pass(fake, 200);
	assert_int_equal(fake->events[from++].kind, TIER_EVENT_DELAY_RESUMED);
	for (uint32_t i = 5; i--; ) {
		assert_int_equal(fake->events[from].reason, TIER_REASON_DELAY_ENDED);
		assert_true(fake->events[from].module == two->id && fake->events[from++].method == i);
		assert_true(fake->events[from].module == one->id && fake->events[from++].method == i);
	}
	assert_int_equal(from, fake->n_events);
}

static void counting_goes_on_when_a_new_delay_begins(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = fake_load(fake, UID, "m", 2);

	fake_call(fm, 0);
	fake_pass(fake, 100);
	fake_call(fm, 1);
	fake_calls(fm, 0, FAKE_N);
	/* but its promotion waits */
	assert_int_equal(stage(fm, 0), TIER_STAGE_QUEUED);
	fake_pass(fake, 100);
	assert_int_equal(stage(fm, 0), TIER_STAGE_COMPILING);
	assert_int_equal(fake_n_events(fake, TIER_EVENT_DELAY_PAUSED), 2);
}

static void a_running_job_is_not_stopped_by_a_new_delay(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = fake_load(fake, UID, "m", 2);

	fake_call(fm, 0);
	fake_pass(fake, 100);
	fake_calls(fm, 0, FAKE_N);
	fake_call(fm, 1);
	assert_true(fake_end(fake, fm, 0, TIER_REASON_NONE));
	assert_int_equal(stage(fm, 0), TIER_STAGE_FINAL);
}

/* Thousands of methods at once, a new delay in the midst of them: no turn does them all, and the order stays. */
static void a_large_batch_goes_on_in_slices_beside_a_new_delay(void **state)
{
	enum { N = 2000 };
	struct fake *fake = *state;
	struct fake_module *fm = fake_load(fake, UID, "m", N + 1), *other = fake_load(fake, 2, "o", 3);
	uint32_t n_turns = 0, next = 0;

	for (uint32_t i = 0; i < N; i++)
		fake_call(fm, i);
	for (uint32_t i = 0; i < 3; i++)
		fake_call(other, i);
	fake->now_ns += 100 * (uint64_t)FAKE_MS;
	fake_fire(fake);		/* fails: there were first calls */
	fake->now_ns += 100 * (uint64_t)FAKE_MS;
	fake_fire(fake);
	assert_int_equal(stage(other, 2), TIER_STAGE_COUNTING);	/* not behind the thousands */
	assert_int_equal(stage(fm, N - 1), TIER_STAGE_UNCOUNTED);
	fake_call(fm, N);
	for (; fake_is_due(fake); n_turns++) {
		fake_fire(fake);
		fake_check(fake);
	}
	assert_true(n_turns >= 10);
	assert_int_equal(stage(fm, N - 1), TIER_STAGE_COUNTING);
	assert_int_equal(stage(fm, N), TIER_STAGE_UNCOUNTED);
	for (uint32_t i = 0; i < fake->n_events; i++)
		if (fake->events[i].kind == TIER_EVENT_COUNTING_BEGUN && fake->events[i].module == fm->id)
			assert_int_equal(fake->events[i].method, next++);
	assert_int_equal(next, N);
	fake_pass(fake, 100);
	assert_int_equal(stage(fm, N), TIER_STAGE_COUNTING);
}

static void removing_the_last_module_ends_the_delay(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = fake_load(fake, UID, "m", 2);

	fake_call(fm, 0);
	fake_remove(fake, fm);
	fake_assert_kinds(fake, 1, TIER_EVENT_PUBLISHED, TIER_EVENT_DELAY_PAUSED, TIER_EVENT_MODULE_UNLOADED,
			  TIER_EVENT_DELAY_RESUMED, 0);
	assert_int_equal(fake->armed_ns, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		FAKE_TEST(a_single_first_call_waits_one_period),
		FAKE_TEST(a_first_call_makes_the_next_tick_fail),
		FAKE_TEST(later_calls_and_repeated_questions_do_not_extend_it),
		FAKE_TEST(a_late_tick_still_leaves_a_whole_period),
		FAKE_TEST(each_uid_has_its_own),
		FAKE_TEST(counting_begins_in_the_order_of_first_calls),
		FAKE_TEST(counting_goes_on_when_a_new_delay_begins),
		FAKE_TEST(a_running_job_is_not_stopped_by_a_new_delay),
		FAKE_TEST(a_large_batch_goes_on_in_slices_beside_a_new_delay),
		FAKE_TEST(removing_the_last_module_ends_the_delay),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
