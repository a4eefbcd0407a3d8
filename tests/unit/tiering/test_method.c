/* SPDX-License-Identifier: Apache-2.0 */
#include "unit/tiering/fake.h"

/* A method's whole climb, what is said about it at each step, and every way to end early */

#define UID 1000

static void a_cold_method_answers_one_call_and_has_no_generation(void **state)
{
	struct fake_module *fm = fake_load(*state, UID, "m", 2);
	struct tier_answer answer = fake_answer(fm, 1);

	assert_int_equal(answer.status, TIER_STATUS_COLD);
	assert_int_equal(answer.tier, TIER_LEVEL_NONE);
	assert_int_equal(answer.remaining, 1);
	assert_int_equal(answer.generation, 0);
}

static void a_method_climbs_from_its_first_call_to_its_final_tier(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = fake_load(fake, UID, "m", 2);
	uint64_t own = tier_layout_precode(&fm->layout, 0), tier0;

	assert_int_equal(fake_call(fm, 0), FAKE_PRESTUB);
	tier0 = fm->records[0].code;
	assert_true(fm->records[0].precode == tier0 && fm->records[0].entry == own);
	assert_int_equal(fake_answer(fm, 0).stage, TIER_STAGE_UNCOUNTED);
	assert_int_equal(fake_answer(fm, 0).remaining, FAKE_N);
	assert_int_equal(fake_answer(fm, 0).generation, 1);
	assert_int_equal(fake_call(fm, 0), FAKE_CODE);

	fake_pass(fake, 100);
	assert_int_equal(fake_answer(fm, 0).stage, TIER_STAGE_COUNTING);
	assert_true(fm->records[0].precode != tier0 && fm->records[0].entry == own);
	for (uint32_t left = FAKE_N; left; left--) {
		assert_int_equal(fake_answer(fm, 0).remaining, left);
		assert_int_equal(fake_call_and_ring(fm, 0), left > 1 ? FAKE_COUNTED : FAKE_CROSSED);
	}
	assert_int_equal(fake_answer(fm, 0).stage, TIER_STAGE_COMPILING);
	assert_int_equal(fake_answer(fm, 0).status, TIER_STATUS_OPTIMIZING);
	assert_int_equal(fake_answer(fm, 0).remaining, 0);
	assert_true(fm->records[0].precode == tier0 && fm->records[0].entry == own);
	assert_int_equal(core_pending(fake->core, CORE_SCOPE_ALL, NULL, 0), 1);

	assert_true(fake_end(fake, fm, 0, TIER_REASON_NONE));
	assert_int_equal(fake_answer(fm, 0).status, TIER_STATUS_FINAL);
	assert_int_equal(fake_answer(fm, 0).tier, TIER_LEVEL_TIER1);
	assert_int_equal(fake_answer(fm, 0).reason, TIER_REASON_PROMOTED);
	assert_int_equal(fake_answer(fm, 0).generation, 2);
	assert_true(fm->records[0].code != tier0);
	assert_true(fm->records[0].precode == fm->records[0].code && fm->records[0].entry == fm->records[0].code);
	assert_int_equal(core_pending(fake->core, CORE_SCOPE_ALL, NULL, 0), 0);
	fake_assert_kinds(fake, 0, TIER_EVENT_MODULE_LOADED, TIER_EVENT_PUBLISHED, TIER_EVENT_DELAY_PAUSED,
			  TIER_EVENT_DELAY_RESUMED, TIER_EVENT_COUNTING_BEGUN, TIER_EVENT_THRESHOLD, TIER_EVENT_QUEUED,
			  TIER_EVENT_COMPILE_STARTED, TIER_EVENT_COMPILE_ENDED, TIER_EVENT_PUBLISHED, TIER_EVENT_FINAL, 0);
}

static void events_carry_numbers_without_holes_and_name_what_happened(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = fake_load(fake, UID, "m", 1);
	const struct tier_event *event;

	fake_call(fm, 0);
	fake_pass(fake, 100);
	fake_calls(fm, 0, FAKE_N);
	fake_end(fake, fm, 0, TIER_REASON_NONE);
	for (uint32_t i = 0; i < fake->n_events; i++) {
		assert_int_equal(fake->events[i].sequence, i + 1);
		assert_int_equal(fake->events[i].uid, UID);
	}
	event = &fake->events[1];
	assert_int_equal(event->kind, TIER_EVENT_PUBLISHED);
	assert_true(event->from == TIER_LEVEL_NONE && event->to == TIER_LEVEL_TIER0);
	assert_int_equal(event->reason, TIER_REASON_FIRST_CALL);
	assert_int_equal(fake->events[2].method, UINT32_MAX);
	event = &fake->events[5];
	assert_int_equal(event->kind, TIER_EVENT_THRESHOLD);
	assert_true(event->pid == 77 && event->tid == 78 && event->source == TIER_SOURCE_KERNEL);
	assert_int_equal(event->version, fake->events[1].version);
	event = &fake->events[9];
	assert_int_equal(event->kind, TIER_EVENT_PUBLISHED);
	assert_true(event->from == TIER_LEVEL_TIER0 && event->to == TIER_LEVEL_TIER1);
	assert_int_equal(event->version, fake->events[6].version);
	assert_int_equal(event->version, fm->records[0].version);
}

static void preparing_twice_compiles_once(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = fake_load(fake, UID, "m", 1);
	uint64_t code;

	assert_int_equal(core_prepare(fm->module, 0), 0);
	code = fm->records[0].code;
	assert_int_equal(core_prepare(fm->module, 0), 0);
	assert_true(fm->records[0].code == code);
	assert_int_equal(fake_n_events(fake, TIER_EVENT_PUBLISHED), 1);
}

static void a_method_that_is_not_there_cannot_be_prepared(void **state)
{
	struct fake_module *fm = fake_load(*state, UID, "m", 1);

	assert_int_equal(core_prepare(fm->module, 1), -EINVAL);
	assert_int_equal(core_prepare(fm->module, UINT32_MAX), -EINVAL);
}

static void a_refused_tier0_leaves_the_method_cold(void **state)
{
	static const int results[] = { CORE_E_FULL, -ENOMEM };
	struct fake *fake = *state;
	struct fake_module *fm = fake_load(fake, UID, "m", 1);
	uint32_t n_events = fake->n_events;

	for (unsigned int i = 0; i < ARRAY_SIZE(results); i++) {
		fake->first_result = results[i];
		assert_int_equal(core_prepare(fm->module, 0), results[i]);
		assert_int_equal(fake_answer(fm, 0).status, TIER_STATUS_COLD);
	}
	assert_int_equal(fake->n_events, n_events);
	fake->first_result = 0;
	assert_int_equal(core_prepare(fm->module, 0), 0);
}

static void without_call_counting_tier0_is_final(void **state)
{
	struct core_config config = fake_config;
	struct fake *fake;
	struct fake_module *fm;

	config.call_counting = false;
	fake = fake_new(&config);
	fm = fake_load(fake, UID, "m", 1);
	fake_call(fm, 0);
	assert_int_equal(fake_answer(fm, 0).reason, TIER_REASON_COUNTING_OFF);
	assert_int_equal(fake_answer(fm, 0).tier, TIER_LEVEL_TIER0);
	assert_true(fm->records[0].entry == fm->records[0].code);
	assert_int_equal(fake->armed_ns, 0);
	fake_assert_kinds(fake, 1, TIER_EVENT_PUBLISHED, TIER_EVENT_FINAL, 0);
	fake_check(fake);
	fake_free(fake);
}

static void without_a_delay_the_second_call_counts(void **state)
{
	struct core_config config = fake_config;
	struct fake *fake;
	struct fake_module *fm;

	config.delay_ns = 0;
	fake = fake_new(&config);
	fm = fake_load(fake, UID, "m", 1);
	assert_int_equal(fake_call(fm, 0), FAKE_PRESTUB);
	assert_int_equal(fake_answer(fm, 0).remaining, FAKE_N);
	assert_int_equal(fake_call(fm, 0), FAKE_COUNTED);
	assert_int_equal(fake_answer(fm, 0).remaining, FAKE_N - 1);
	fake_assert_kinds(fake, 1, TIER_EVENT_PUBLISHED, TIER_EVENT_COUNTING_BEGUN, 0);
	fake_check(fake);
	fake_free(fake);
}

static void a_module_without_counters_left_makes_the_method_final(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm;

	assert_int_equal(fake_try_load(fake, UID, "m", 2, 1, &fm), 0);
	fake_call(fm, 0);
	fake_call(fm, 1);
	fake_pass(fake, 200);
	assert_int_equal(fake_answer(fm, 0).stage, TIER_STAGE_COUNTING);
	assert_int_equal(fake_answer(fm, 1).reason, TIER_REASON_COUNTERS_FULL);
	assert_true(fm->records[1].entry == fm->records[1].code);
}

static void a_stub_without_room_makes_the_method_final_on_its_code(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = fake_load(fake, UID, "m", 2);
	uint64_t code;

	fake_call(fm, 0);
	code = fm->records[0].code;
	fake->stub_result = CORE_E_FULL;
	fake_pass(fake, 100);
	assert_int_equal(fake_answer(fm, 0).reason, TIER_REASON_ARENA_FULL);
	assert_true(fm->records[0].precode == code && fm->records[0].entry == code);
	assert_int_equal(fake_answer(fm, 0).generation, 1);
	fake_assert_kinds(fake, 3, TIER_EVENT_DELAY_RESUMED, TIER_EVENT_FINAL, 0);
	assert_int_equal(fake->armed_ns, 0);
}

/* What a server does with a wake-up */
static void ask_back(struct fake *fake, struct module *module, uint32_t method)
{
	core_answer(module, method);
	core_pending(fake->core, CORE_SCOPE_MODULE, module, 0);
}

static void who_is_told_of_a_change_may_ask_back(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = fake_load(fake, UID, "m", 3);

	fake->on_changed = ask_back;
	for (uint32_t i = 0; i < 3; i++)
		fake_call(fm, i);
	fake_pass(fake, 200);
	for (uint32_t i = 0; i < 3; i++)
		for (uint32_t k = 0; k < FAKE_N; k++)
			fake_call(fm, i);	/* nobody rings */
	core_look(fm->module, 1);
	fake_check(fake);
	assert_int_equal(core_sweep(fake->core, NULL), 2);
	while ( core_pending(fake->core, CORE_SCOPE_ALL, NULL, 0))
		for (uint32_t i = 0; i < 3; i++)
			fake_end(fake, fm, i, TIER_REASON_NONE);
	for (uint32_t i = 0; i < 3; i++)
		assert_int_equal(fake_answer(fm, i).tier, TIER_LEVEL_TIER1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		FAKE_TEST(a_cold_method_answers_one_call_and_has_no_generation),
		FAKE_TEST(a_method_climbs_from_its_first_call_to_its_final_tier),
		FAKE_TEST(events_carry_numbers_without_holes_and_name_what_happened),
		FAKE_TEST(preparing_twice_compiles_once),
		FAKE_TEST(a_method_that_is_not_there_cannot_be_prepared),
		FAKE_TEST(a_refused_tier0_leaves_the_method_cold),
		cmocka_unit_test(without_call_counting_tier0_is_final),
		cmocka_unit_test(without_a_delay_the_second_call_counts),
		FAKE_TEST(a_module_without_counters_left_makes_the_method_final),
		FAKE_TEST(a_stub_without_room_makes_the_method_final_on_its_code),
		FAKE_TEST(who_is_told_of_a_change_may_ask_back),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
