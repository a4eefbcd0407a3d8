/* SPDX-License-Identifier: Apache-2.0 */
#include "tiering/internal.h"
#include "unit/tiering/crash.h"
#include "unit/tiering/ladder.h"

/* Takeovers by a daemon with other options: every policy of entry points after every other, at every stage of the
 * ladder; and what versions keep of their maker's options */

#define N_POLICIES (2 * _TIER_BACKPATCH_N)

static void set_policy(struct fake *fake, uint32_t policy)
{
	fake->config.backpatch = policy / 2;
	fake->config.counting_in_prestub = policy % 2;
}

/* Slots are discovered, libtier has told of them */
static void call_each_way(struct fake_module *fm, uint32_t method)
{
	struct fake_run run;

	for (int way = 0; way < _FAKE_WAY_N; way++)
		fake_run(fm, method, way, &run);
}

/* A call by each way runs the method's code of now, and is counted if the method's calls are; but eager's E passes the
 * stub by. */
static void assert_each_way(struct fake_module *fm, uint32_t method, uint32_t body)
{
	for (int way = 0; way < _FAKE_WAY_N; way++) {
		const struct tier_answer before = fake_answer(fm, method);
		const struct tier_record record = fm->records[method];
		struct fake_run run;
		uint64_t address, r10;

		if (before.stage == TIER_STAGE_COUNTING && before.remaining < 2)
			return;
		if (!fake_way_address(fm, method, way, &address, &r10))
			continue;
		run = fake_begin(fm, method, address, r10);
		assert_int_equal(run.body, body);
		if (before.stage == TIER_STAGE_COLD)
			continue;
		assert_int_equal(run.level, before.tier);
		if (before.stage == TIER_STAGE_COUNTING)
			assert_true(run.is_counted ||
			            (fm->fake->config.backpatch == TIER_BACKPATCH_EAGER && address == record.code));
		assert_int_equal(fake_answer(fm, method).remaining, before.remaining - run.is_counted);
		fake_check(fm->fake);
	}
}

/* Now, with the predecessor's policy and with the successor's, and after a rejit and back */
static void go_on(struct fake *fake, struct fake_module *fm, enum ladder_at at)
{
	assert_each_way(fm, LADDER_METHOD, 0);
	ladder_climb(fm, LADDER_METHOD, FAKE_WAY_PRECODE);
	fake_assert_runs(fm, LADDER_METHOD, 0, at == AT_FAILED ? TIER_LEVEL_TIER0 : TIER_LEVEL_TIER1);
	fake_check(fake);
	assert_int_equal(core_rejit(fm->module, LADDER_METHOD, 1), 0);
	call_each_way(fm, LADDER_METHOD);
	assert_each_way(fm, LADDER_METHOD, 1);
	assert_int_equal(core_revert(fm->module, LADDER_METHOD), 0);
	fake_assert_runs(fm, LADDER_METHOD, 0, at == AT_FAILED ? TIER_LEVEL_TIER0 : TIER_LEVEL_TIER1);
	fake_check(fake);
}

static void take_over_with(uint32_t from, uint32_t to, bool is_backpatchable, enum ladder_at at)
{
	struct fake *fake = ladder_fake(from / 2, from % 2);
	struct fake_module *fm = ladder_load(fake, is_backpatchable);
	struct core_policy now, before;
	struct tier_answer answer;

	ladder_to_final(fm, LADDER_CALLER); /* has a call site */
	ladder_to(fm, LADDER_METHOD, at);
	if (at == AT_UNCOUNTED || at >= AT_QUEUED)
		call_each_way(fm, LADDER_METHOD);
	answer = tier_record_answer(&fm->records[LADDER_METHOD], fm->cells, fm->layout.n_cells);
	set_policy(fake, to);
	fake_restart(fake);
	assert_int_equal(core_policy(fake->core, &now, &before), from != to);
	assert_true(before.backpatch == from / 2 && before.counting_in_prestub == from % 2);
	assert_true(now.backpatch == to / 2 && now.counting_in_prestub == to % 2);
	if (at != AT_REACHED) /* found by the takeover's sweep */
		assert_int_equal(fake_answer(fm, LADDER_METHOD).remaining, answer.remaining);
	assert_int_equal(fake_answer(fm, LADDER_METHOD).tier, answer.tier);
	go_on(fake, fm, at);
	set_policy(fake, from);
	fake_restart(fake);
	fake_assert_runs(fm, LADDER_METHOD, 0, at == AT_FAILED ? TIER_LEVEL_TIER0 : TIER_LEVEL_TIER1);
	fake_free(fake);
}

static void every_policy_takes_over_from_every_other_at_every_stage(void **state)
{
	for (uint32_t i = 0; i < 2 * N_POLICIES * N_POLICIES; i++)
		for (int at = AT_COLD; at < _AT_N; at++)
			take_over_with(i / 2 / N_POLICIES, i / 2 % N_POLICIES, i % 2, at);
}

/* Who has k calls left has k calls left, whoever counts them: and the k-th crosses. */
static void a_count_that_was_begun_is_exact_under_every_policy(void **state)
{
	for (uint32_t i = 0; i < 2 * N_POLICIES * N_POLICIES; i++)
		for (uint32_t n_left = 1; n_left <= FAKE_N; n_left++) {
			struct fake *fake = ladder_fake(i / 2 / N_POLICIES / 2, i / 2 / N_POLICIES % 2);
			struct fake_module *fm = ladder_load(fake, i % 2);

			ladder_to_counting(fm, LADDER_METHOD);
			for (uint32_t k = n_left; k < FAKE_N; k++)
				assert_int_equal(fake_call(fm, LADDER_METHOD), FAKE_COUNTED);
			set_policy(fake, i / 2 % N_POLICIES);
			fake_restart(fake);
			for (uint32_t k = n_left; k; k--) {
				assert_int_equal(fake_answer(fm, LADDER_METHOD).remaining, k);
				assert_int_equal(fake_call_and_ring(fm, LADDER_METHOD),
				                 k > 1 ? FAKE_COUNTED : FAKE_CROSSED);
			}
			assert_int_equal(fake_answer(fm, LADDER_METHOD).stage, TIER_STAGE_COMPILING);
			fake_free(fake);
		}
}

/* -- Dying in the attachment with another policy --- */
static uint32_t to_policy;

static void story(struct fake *fake)
{
	struct fake_module *fm = &fake->modules[0];

	ladder_to_final(fm, LADDER_CALLER);
	ladder_to_counting(fm, LADDER_METHOD);
	call_each_way(fm, LADDER_METHOD);
	fake->core = core_free(fake->core);
	set_policy(fake, to_policy);
	fake_succeed(fake);
	ladder_climb(fm, LADDER_METHOD, FAKE_WAY_POINTER);
	assert_int_equal(core_rejit(fm->module, LADDER_METHOD, 1), 0);
	call_each_way(fm, LADDER_METHOD);
}

static void check_heir(struct fake *successor)
{
	struct fake_module *fm = &successor->modules[0];

	fake_check(successor);
	for (uint32_t i = 0; fm->module && i < LADDER_METHODS; i++)
		call_each_way(fm, i);
	fake_check(successor);
}

static void a_successor_may_die_while_it_changes_the_policy(void **state)
{
	uint32_t n_crashes = 0;

	for (uint32_t i = 0; i < N_POLICIES; i++) {
		struct fake *fake = ladder_fake(i / 2, i % 2);

		ladder_load(fake, true);
		to_policy = (i + 2) % N_POLICIES;
		n_crashes += crash_run(fake, story, check_heir);
		fake_free(fake);
	}
	print_message("died at %u points\n", n_crashes);
}

/* -- Other options --- */
static void a_version_keeps_the_threshold_that_it_was_made_with(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = fake_load(fake, LADDER_UID, "m", 3);

	fake_call(fm, 0);
	fake_pass(fake, 200);
	fake_call(fm, 0);
	fake_call(fm, 1); /* its delay has not ended */
	fake->config.threshold = 10;
	fake_restart(fake);
	assert_int_equal(fake_answer(fm, 0).remaining, FAKE_N - 1);
	assert_int_equal(fake_answer(fm, 1).remaining, FAKE_N);
	fake_call(fm, 2);
	assert_int_equal(fake_answer(fm, 2).remaining, 10);
	fake_pass(fake, 200);
	for (uint32_t i = 0; i < FAKE_N - 1; i++)
		fake_call_and_ring(fm, 0);
	assert_int_equal(fake_answer(fm, 0).stage, TIER_STAGE_COMPILING);
	fake_calls(fm, 1, FAKE_N);
	assert_int_equal(fake_answer(fm, 1).stage, TIER_STAGE_QUEUED);
	fake_calls(fm, 2, 9);
	assert_int_equal(fake_answer(fm, 2).remaining, 1);
}

/* What was promised by somebody with more patience holds nobody up. */
static void a_delay_ends_at_the_latest_when_the_successor_s_would(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = fake_load(fake, LADDER_UID, "m", 2);

	fake->config.delay_ns = 3600 * 1000 * (uint64_t)FAKE_MS;
	fake_restart(fake);
	fake_call(fm, 0);
	fake->config.delay_ns = 50 * FAKE_MS;
	fake_restart(fake);
	assert_int_equal(fake_answer(fm, 0).stage, TIER_STAGE_UNCOUNTED);
	fake_pass(fake, 100);
	assert_int_equal(fake_answer(fm, 0).stage, TIER_STAGE_COUNTING);
	assert_int_equal(fake_n_events(fake, TIER_EVENT_DELAY_PAUSED), 1);
	assert_int_equal(fake_n_events(fake, TIER_EVENT_DELAY_RESUMED), 1);
	/* and without any: who has sat out nothing yet is counted at once */
	fake->config.delay_ns = 100 * FAKE_MS;
	fake_restart(fake);
	fake_call(fm, 1);
	fake->config.delay_ns = 0;
	fake_restart(fake);
	fake_pass(fake, 1);
	assert_int_equal(fake_answer(fm, 1).stage, TIER_STAGE_COUNTING);
}

static void counting_that_was_begun_goes_on_when_it_is_off(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = fake_load(fake, LADDER_UID, "m", 2);

	fake_call(fm, 0);
	fake_pass(fake, 200);
	fake_call(fm, 1);
	fake->config.call_counting = false;
	fake_restart(fake);
	assert_int_equal(fake_answer(fm, 0).remaining, FAKE_N);
	fake_calls(fm, 0, FAKE_N);
	fake_pass(fake, 200);
	assert_int_equal(fake_answer(fm, 1).reason, TIER_REASON_COUNTING_OFF);
	assert_true(fake_end(fake, fm, 0, TIER_REASON_NONE));
	assert_int_equal(fake_answer(fm, 0).reason, TIER_REASON_PROMOTED);
}

/* -- What the ledger tells of them --- */
static void takeovers_are_counted(void **state)
{
	struct fake *fake = *state;
	struct core_stats stats;

	for (uint32_t i = 0; i < 3; i++) {
		core_stats(fake->core, &stats);
		assert_int_equal(stats.n_takeovers, i);
		fake_restart(fake);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(every_policy_takes_over_from_every_other_at_every_stage),
	        cmocka_unit_test(a_count_that_was_begun_is_exact_under_every_policy),
	        cmocka_unit_test(a_successor_may_die_while_it_changes_the_policy),
	        FAKE_TEST(a_version_keeps_the_threshold_that_it_was_made_with),
	        FAKE_TEST(a_delay_ends_at_the_latest_when_the_successor_s_would),
	        FAKE_TEST(counting_that_was_begun_goes_on_when_it_is_off),
	        FAKE_TEST(takeovers_are_counted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
