/* SPDX-License-Identifier: Apache-2.0 */
#include "unit/tiering/fake.h"

/* Thresholds: exactly once, however they are learnt of and whoever lies about them */

#define UID 1000

static struct fake_module *counting(struct fake *fake, uint32_t n_methods)
{
	struct fake_module *fm = fake_load(fake, UID, "m", n_methods);

	for (uint32_t i = 0; i < n_methods; i++)
		fake_call(fm, i);
	fake_pass(fake, 200);
	for (uint32_t i = 0; i < n_methods; i++)
		assert_int_equal(fake_answer(fm, i).stage, TIER_STAGE_COUNTING);
	return fm;
}

static struct core_stats stats_of(struct fake *fake)
{
	struct core_stats stats;

	core_stats(fake->core, &stats);
	return stats;
}

static void the_nth_counted_call_crosses_once(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = counting(fake, 1);

	fake_calls(fm, 0, FAKE_N - 1);
	assert_int_equal(fake_n_events(fake, TIER_EVENT_THRESHOLD), 0);
	fake_calls(fm, 0, 5);
	assert_int_equal(fake_n_events(fake, TIER_EVENT_THRESHOLD), 1);
	assert_int_equal(stats_of(fake).n_thresholds[TIER_SOURCE_KERNEL], 1);
}

static void a_second_bell_is_late(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = counting(fake, 1);
	uint64_t version = fm->records[0].version;

	fake_calls(fm, 0, FAKE_N);
	assert_false(fake_ring(fm, 0, version));
	fake_end(fake, fm, 0, TIER_REASON_NONE);
	assert_false(fake_ring(fm, 0, version));
	assert_false(fake_ring(fm, 0, fm->records[0].version));
	assert_int_equal(fake_n_events(fake, TIER_EVENT_THRESHOLD), 1);
	assert_int_equal(stats_of(fake).n_unconfirmed, 3);
}

static void a_bell_that_the_counter_does_not_confirm_is_nothing(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = counting(fake, 2);
	uint64_t version = fm->records[0].version;
	uint32_t n_events = fake->n_events;

	fake_calls(fm, 0, FAKE_N - 1);
	assert_false(fake_ring(fm, 0, version));
	fm->cells[fm->records[0].cell] = 0;
	assert_false(core_threshold(fake->core, 0, 0, version, 1, 1, 0, TIER_SOURCE_SOCKET));
	assert_false(core_threshold(fake->core, UINT64_MAX, 0, version, 1, 1, 0, TIER_SOURCE_SOCKET));
	assert_false(core_threshold(fake->core, fm->id, 2, version, 1, 1, 0, TIER_SOURCE_SOCKET));
	assert_false(core_threshold(fake->core, fm->id, UINT32_MAX, version, 1, 1, 0, TIER_SOURCE_SOCKET));
	assert_false(core_threshold(fake->core, fm->id, 0, version + 1, 1, 1, 0, TIER_SOURCE_SOCKET));
	assert_false(core_threshold(fake->core, fm->id, 0, version, 1, 1, 0, (enum tier_source)99));
	assert_int_equal(fake->n_events, n_events);
	assert_true(core_threshold(fake->core, fm->id, 0, version, 1, 1, 0, TIER_SOURCE_SOCKET));
	assert_int_equal(stats_of(fake).n_unconfirmed, 7);
}

static void a_counter_that_somebody_overwrote_counts_as_reached(void **state)
{
	static const uint32_t values[] = { 0, FAKE_N + 1, 0x80000000u, UINT32_MAX };
	struct fake *fake = *state;
	struct fake_module *fm = counting(fake, ARRAY_SIZE(values));

	for (uint32_t i = 0; i < ARRAY_SIZE(values); i++) {
		fm->cells[fm->records[i].cell] = values[i];
		assert_int_equal(core_look(fm->module, i), 1);
		assert_int_equal(core_look(fm->module, i), 0);
	}
	assert_int_equal(stats_of(fake).n_thresholds[TIER_SOURCE_SWEEP], ARRAY_SIZE(values));
}

static void an_answer_looks_at_the_counter_first(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = counting(fake, 1);

	for (uint32_t i = 0; i < FAKE_N; i++)
		fake_call(fm, 0);
	assert_int_equal(fake_answer(fm, 0).stage, TIER_STAGE_COMPILING);
	assert_int_equal(fake_n_events(fake, TIER_EVENT_THRESHOLD), 1);
}

static void a_lost_bell_is_recovered_by_the_periodic_sweep(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = counting(fake, 2);
	uint64_t version = fm->records[1].version;
	uint32_t n;

	for (uint32_t i = 0; i < FAKE_N; i++)
		fake_call(fm, 1);
	fake_pass(fake, 1000);
	n = fake->n_events;
	assert_int_equal(fake->events[n - 3].kind, TIER_EVENT_THRESHOLD);
	assert_int_equal(fake->events[n - 3].source, TIER_SOURCE_SWEEP);
	assert_int_equal(fake->events[n - 3].pid, 0);
	assert_false(fake_ring(fm, 1, version));
	assert_int_equal(fake->n_events, n);
}

static void the_sweep_rests_while_nothing_is_armed(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = counting(fake, 2);

	assert_true(fake->armed_ns > fake->now_ns);
	for (uint32_t i = 0; i < 2; i++) {
		fake_calls(fm, i, FAKE_N);
		fake_end(fake, fm, i, TIER_REASON_NONE);
	}
	assert_int_equal(fake->armed_ns, 0);
}

static void a_threshold_has_the_time_of_its_call_if_that_is_plausible(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = counting(fake, 3);
	uint64_t times[] = { fake->now_ns - 5 * FAKE_MS, fake->now_ns + 1, 0 }, wall = fake_wall(fake);
	uint64_t expected[] = { wall - 5 * FAKE_MS, wall, wall };

	for (uint32_t i = 0; i < 3; i++) {
		uint32_t at = fake->n_events;

		fm->cells[fm->records[i].cell] = 0;
		assert_true(core_threshold(fake->core, fm->id, i, fm->records[i].version, 1, 1, times[i], TIER_SOURCE_KERNEL));
		assert_int_equal(fake->events[at].kind, TIER_EVENT_THRESHOLD);
		assert_int_equal(fake->events[at].time_ns, expected[i]);
	}
}

static void a_sweep_can_be_of_one_module_only(void **state)
{
	struct fake *fake = *state;
	struct fake_module *one = counting(fake, 2), *two = fake_load(fake, UID, "two", 1);

	fake_call(two, 0);
	fake_pass(fake, 100);
	one->cells[one->records[0].cell] = 0;
	two->cells[two->records[0].cell] = 0;
	assert_int_equal(core_sweep(fake->core, two->module), 1);
	assert_int_equal(core_sweep(fake->core, two->module), 0);
	assert_int_equal(core_sweep(fake->core, NULL), 1);
}

/* Thousands of counters: nothing is lost and no call takes them all, whatever happens between the slices. */
static void a_large_sweep_goes_on_in_slices(void **state)
{
	enum { N = 3000 };
	struct fake *fake = *state;
	struct fake_module *fm = counting(fake, N);
	uint32_t n_turns = 0, n_found;

	for (uint32_t i = 0; i < N; i++)
		fm->cells[fm->records[i].cell] = 0;
	n_found = core_sweep(fake->core, fm->module);
	assert_true(n_found && n_found < 200);
	while (fake_is_due(fake)) {
		core_look(fm->module, (n_turns++ * 37) % N);	/* questions come in between */
		if (n_turns % 4 == 0)
			core_sweep(fake->core, n_turns % 8 ? fm->module : NULL);
		fake_fire(fake);
	}
	fake_check(fake);
	assert_true(n_turns > 5);
	assert_int_equal(fake_n_events(fake, TIER_EVENT_THRESHOLD), N);
	assert_int_equal(core_pending(fake->core, CORE_SCOPE_UID, NULL, UID), N);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		FAKE_TEST(the_nth_counted_call_crosses_once),
		FAKE_TEST(a_second_bell_is_late),
		FAKE_TEST(a_bell_that_the_counter_does_not_confirm_is_nothing),
		FAKE_TEST(a_counter_that_somebody_overwrote_counts_as_reached),
		FAKE_TEST(an_answer_looks_at_the_counter_first),
		FAKE_TEST(a_lost_bell_is_recovered_by_the_periodic_sweep),
		FAKE_TEST(the_sweep_rests_while_nothing_is_armed),
		FAKE_TEST(a_threshold_has_the_time_of_its_call_if_that_is_plausible),
		FAKE_TEST(a_sweep_can_be_of_one_module_only),
		FAKE_TEST(a_large_sweep_goes_on_in_slices),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
