/* SPDX-License-Identifier: Apache-2.0 */
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include "tiering/internal.h"
#include "unit/tiering/ladder.h"

/* Entry points: the rows of the transition tables (reference §6.2 to §6.4) under each policy, each of the ten labelled
 * paths driven by itself (§6.6), and the hazards of §6.10 */

/* -- The rows of the tables ---
 * A story of twelve moments; what P, E, F and three slots hold after each. The first slot is called through twice at
 * each moment (so each finding of the prestub shows), the second only when the method is final, the third never. */
enum moment {
	LOADED,
	FIRST_CALL,
	COUNTING,
	REACHED,   /* and nobody has noticed */
	COMPLETED, /* queued or compiling */
	FINAL,
	REJITTED,
	REJIT_FIRST_CALL,
	REJIT_COUNTING,
	REJIT_COMPLETED,
	REJIT_FINAL,
	REVERTED,
	_MOMENTS,
};

static void call_slot(struct fake_module *fm, uint32_t slot)
{
	struct fake_run run;

	if (!fake_is_backpatchable(fm, LADDER_METHOD))
		return;
	memset(fm->posted, 0, fm->n_slots); /* by another process each time */
	run = fake_run_slot(fm, slot);
	assert_true(run.code);
	ladder_check_all(fm->fake);
}

static void climb_to(struct fake_module *fm, enum moment moment)
{
	struct fake *fake = fm->fake;

	switch (moment) {
	case LOADED:
		break;
	case FIRST_CALL:
	case REJIT_FIRST_CALL:
		fake_call(fm, LADDER_METHOD);
		break;
	case COUNTING:
	case REJIT_COUNTING:
		fake_pass(fake, 200);
		break;
	case REACHED:
		while (fm->cells[fm->records[LADDER_METHOD].cell])
			fake_call(fm, LADDER_METHOD);
		break;
	case COMPLETED:
		core_look(fm->module, LADDER_METHOD);
		break;
	case REJIT_COMPLETED:
		while (ladder_stage(fm, LADDER_METHOD) == TIER_STAGE_COUNTING)
			fake_call_and_ring(fm, LADDER_METHOD);
		break;
	case FINAL:
	case REJIT_FINAL:
		fake_end(fake, fm, LADDER_METHOD, TIER_REASON_NONE);
		break;
	case REJITTED:
		assert_int_equal(core_rejit(fm->module, LADDER_METHOD, 1), 0);
		break;
	case REVERTED:
		assert_int_equal(core_revert(fm->module, LADDER_METHOD), 0);
		break;
	default:
		break;
	}
}

/* Words as the transition leaves them, and after calls through slots (NULL: the same) */
struct row {
	const char *written, *called;
};

static void assert_table(enum tier_backpatch policy, bool in_prestub, bool is_backpatchable, const struct row *rows)
{
	struct fake *fake = ladder_fake(policy, in_prestub);
	struct fake_module *fm = ladder_load(fake, is_backpatchable);

	for (enum moment moment = LOADED; moment < _MOMENTS; moment++) {
		climb_to(fm, moment);
		ladder_check_all(fake);
		ladder_assert_words(fm, LADDER_METHOD, rows[moment].written);
		if (!rows[moment].called)
			continue;
		call_slot(fm, 0);
		call_slot(fm, 0);
		if (moment == FINAL)
			call_slot(fm, 1);
		ladder_assert_words(fm, LADDER_METHOD, rows[moment].called);
		fake_restart(fake);
		ladder_assert_words(fm, LADDER_METHOD, rows[moment].called);
	}
	fake_free(fake);
}

static void lazy_moves_the_precode_only_until_the_final_tier(void **state)
{
	static const struct row rows[_MOMENTS] = {
		[LOADED] = {"p t t ttt", NULL},
		[FIRST_CALL] = {"0 t t ttt", "0 t t ttt"},
		[COUNTING] = {"s t t ttt", "s t t ttt"},
		[REACHED] = {"s t t ttt", NULL},
		[COMPLETED] = {"0 t t ttt", "0 t t ttt"},
		[FINAL] = {"p 1 1 ttt", "p 1 1 11t"},
		[REJITTED] = {"p t t ttt", NULL},
		[REJIT_FIRST_CALL] = {"0 t t ttt", "0 t t ttt"},
		[REJIT_COUNTING] = {"s t t ttt", "s t t ttt"},
		[REJIT_COMPLETED] = {"0 t t ttt", "0 t t ttt"},
		[REJIT_FINAL] = {"p 1 1 11t", "p 1 1 11t"},
		[REVERTED] = {"p 1 1 11t", "p 1 1 11t"},
	};

	assert_table(TIER_BACKPATCH_LAZY, false, true, rows);
}

static void eager_resets_and_patches_slots_around_counting(void **state)
{
	static const struct row rows[_MOMENTS] = {
		[LOADED] = {"p t t ttt", NULL},
		[FIRST_CALL] = {"p 0 0 ttt", "p 0 0 0tt"},
		[COUNTING] = {"s 0 t ttt", "s 0 t ttt"},
		[REACHED] = {"s 0 t ttt", NULL},
		[COMPLETED] = {"p 0 t ttt", "p 0 t 0tt"},
		[FINAL] = {"p 1 1 1tt", "p 1 1 11t"},
		[REJITTED] = {"p t t ttt", NULL},
		[REJIT_FIRST_CALL] = {"p 0 0 00t", "p 0 0 00t"},
		[REJIT_COUNTING] = {"s 0 t ttt", "s 0 t ttt"},
		[REJIT_COMPLETED] = {"p 0 t ttt", "p 0 t 0tt"},
		[REJIT_FINAL] = {"p 1 1 11t", "p 1 1 11t"},
		[REVERTED] = {"p 1 1 11t", "p 1 1 11t"},
	};

	assert_table(TIER_BACKPATCH_EAGER, false, true, rows);
}

static void forwarder_patches_slots_at_each_publication(void **state)
{
	static const struct row rows[_MOMENTS] = {
		[LOADED] = {"p t t ttt", NULL},
		[FIRST_CALL] = {"p 0 0 ttt", "p 0 0 0tt"},
		[COUNTING] = {"p f f ftt", "p f f ftt"},
		[REACHED] = {"p f f ftt", NULL},
		[COMPLETED] = {"p 0 0 0tt", "p 0 0 0tt"},
		[FINAL] = {"p 1 1 1tt", "p 1 1 11t"},
		[REJITTED] = {"p t t ttt", NULL},
		[REJIT_FIRST_CALL] = {"p 0 0 00t", "p 0 0 00t"},
		[REJIT_COUNTING] = {"p f f fft", "p f f fft"},
		[REJIT_COMPLETED] = {"p 0 0 00t", "p 0 0 00t"},
		[REJIT_FINAL] = {"p 1 1 11t", "p 1 1 11t"},
		[REVERTED] = {"p 1 1 11t", "p 1 1 11t"},
	};

	assert_table(TIER_BACKPATCH_FORWARDER, false, true, rows);
}

static void methods_in_no_slot_are_the_same_under_every_policy(void **state)
{
	static const struct row rows[_MOMENTS] = {
		[LOADED] = {"p t", NULL},          [FIRST_CALL] = {"0 t", "0 t"},
		[COUNTING] = {"s t", "s t"},       [REACHED] = {"s t", NULL},
		[COMPLETED] = {"0 t", "0 t"},      [FINAL] = {"1 1", "1 1"},
		[REJITTED] = {"p t", NULL},        [REJIT_FIRST_CALL] = {"0 t", "0 t"},
		[REJIT_COUNTING] = {"s t", "s t"}, [REJIT_COMPLETED] = {"0 t", "0 t"},
		[REJIT_FINAL] = {"1 1", "1 1"},    [REVERTED] = {"1 1", "1 1"},
	};

	for (int policy = 0; policy < _TIER_BACKPATCH_N; policy++)
		assert_table(policy, false, false, rows);
}

/* Without stubs everything leads to the prestub while it counts, whatever the policy. */
static void the_prestub_counts_for_whoever_asks_it_to(void **state)
{
	static const struct row plain[_MOMENTS] = {
		[LOADED] = {"p t", NULL},          [FIRST_CALL] = {"0 t", "0 t"},
		[COUNTING] = {"p t", "p t"},       [REACHED] = {"p t", NULL},
		[COMPLETED] = {"0 t", "0 t"},      [FINAL] = {"1 1", "1 1"},
		[REJITTED] = {"p t", NULL},        [REJIT_FIRST_CALL] = {"0 t", "0 t"},
		[REJIT_COUNTING] = {"p t", "p t"}, [REJIT_COMPLETED] = {"0 t", "0 t"},
		[REJIT_FINAL] = {"1 1", "1 1"},    [REVERTED] = {"1 1", "1 1"},
	};
	static const struct row lazy[_MOMENTS] = {
		[LOADED] = {"p t t ttt", NULL},
		[FIRST_CALL] = {"0 t t ttt", "0 t t ttt"},
		[COUNTING] = {"p t t ttt", NULL},
		[REACHED] = {"p t t ttt", NULL},
		[COMPLETED] = {"0 t t ttt", "0 t t ttt"},
		[FINAL] = {"p 1 1 ttt", "p 1 1 11t"},
		[REJITTED] = {"p t t ttt", NULL},
		[REJIT_FIRST_CALL] = {"0 t t ttt", "0 t t ttt"},
		[REJIT_COUNTING] = {"p t t ttt", NULL},
		[REJIT_COMPLETED] = {"0 t t ttt", "0 t t ttt"},
		[REJIT_FINAL] = {"p 1 1 11t", "p 1 1 11t"},
		[REVERTED] = {"p 1 1 11t", "p 1 1 11t"},
	};

	for (int policy = 0; policy < _TIER_BACKPATCH_N; policy++)
		assert_table(policy, true, false, plain);
	assert_table(TIER_BACKPATCH_LAZY, true, true, lazy);
}

/* -- The ten labelled paths --- */
static struct core_counters before;

static void mark(struct fake *fake) { before = *core_counters(fake->core); }

/* Since the mark entry points were set that often and by this path alone; so many stores of each kind. */
static void assert_path(struct fake *fake, enum tier_path path, uint64_t n_precode, uint64_t n_entry,
			uint64_t n_funcptr)
{
	const struct core_counters *now = core_counters(fake->core);

	for (int i = 0; i < _TIER_PATH_N; i++)
		assert_int_equal(now->n_paths[i] - before.n_paths[i], i == (int)path);
	assert_int_equal(now->n_precode_stores - before.n_precode_stores, n_precode);
	assert_int_equal(now->n_entry_transitions - before.n_entry_transitions, n_entry);
	assert_int_equal(now->n_funcptr_writes - before.n_funcptr_writes, n_funcptr);
	if (!n_entry)
		assert_int_equal(now->n_backpatch_calls, before.n_backpatch_calls);
	assert_int_equal(now->n_slot_writes, before.n_slot_writes);
	ladder_check_all(fake);
}

static struct fake_module *lazy_module(void **state)
{
	*state = ladder_fake(TIER_BACKPATCH_LAZY, false);
	return ladder_load(*state, true);
}

static int end_state(void **state)
{
	fake_free(*state);
	return 0;
}

static void path_1_is_the_first_publish_while_calls_are_not_counted(void **state)
{
	struct fake_module *fm = lazy_module(state);

	mark(*state);
	fake_call(fm, LADDER_METHOD);
	assert_path(*state, TIER_PATH_INITIAL_PUBLISH_NON_FINAL, 1, 0, 0);
	ladder_assert_words(fm, LADDER_METHOD, "0 t t ttt");
}

static void path_2_installs_a_counting_stub(void **state)
{
	struct fake_module *fm = lazy_module(state);

	fake_call(fm, LADDER_METHOD);
	mark(*state);
	fake_pass(*state, 200);
	assert_path(*state, TIER_PATH_CALL_COUNTING_STUB, 1, 0, 0);
	ladder_assert_words(fm, LADDER_METHOD, "s t t ttt");
}

static void path_2_is_also_the_first_publish_without_a_delay(void **state)
{
	struct core_config config = fake_config;
	struct fake_module *fm;

	config.delay_ns = 0;
	*state = fake_new(&config);
	fm = ladder_load(*state, true);
	mark(*state);
	fake_call(fm, LADDER_METHOD);
	assert_path(*state, TIER_PATH_CALL_COUNTING_STUB, 1, 0, 0);
	ladder_assert_words(fm, LADDER_METHOD, "s t t ttt");
}

static void path_3_ends_what_the_prestub_counted(void **state)
{
	struct fake_module *fm;

	*state = ladder_fake(TIER_BACKPATCH_LAZY, true);
	fm = ladder_load(*state, true);
	ladder_to_counting(fm, LADDER_METHOD);
	fake_calls(fm, LADDER_METHOD, FAKE_N - 1);
	mark(*state);
	assert_int_equal(fake_call_and_ring(fm, LADDER_METHOD), FAKE_CROSSED);
	assert_path(*state, TIER_PATH_THRESHOLD_REACHED, 1, 0, 0);
	ladder_assert_words(fm, LADDER_METHOD, "0 t t ttt");
}

static void path_4_brings_back_a_version_that_waits_for_its_successor(void **state)
{
	struct fake_module *fm = lazy_module(state);

	ladder_to(fm, LADDER_METHOD, AT_QUEUED);
	assert_int_equal(core_rejit(fm->module, LADDER_METHOD, 1), 0);
	mark(*state);
	assert_int_equal(core_revert(fm->module, LADDER_METHOD), 0);
	assert_path(*state, TIER_PATH_NON_FINAL, 1, 0, 0);
	ladder_assert_words(fm, LADDER_METHOD, "0 t t ttt");
}

static void path_5_is_a_first_version_that_is_final(void **state)
{
	struct fake_module *fm;

	*state = ladder_fake(TIER_BACKPATCH_LAZY, false);
	assert_int_equal(fake_add_module(*state, LADDER_UID, "m", 1, 0, 1, LADDER_SLOTS, &fm), 0);
	fake_call(fm, 0);
	mark(*state);
	fake_pass(*state, 200); /* there is no counter for it */
	assert_int_equal(fake_answer(fm, 0).reason, TIER_REASON_COUNTERS_FULL);
	assert_path(*state, TIER_PATH_FINAL_TIER, 1, 1, 1);
	ladder_assert_words(fm, 0, "p 0 0 ttt");
}

static void path_5_is_also_a_promotion_that_failed(void **state)
{
	struct fake_module *fm = lazy_module(state);

	ladder_to_compiling(fm, LADDER_METHOD);
	mark(*state);
	fake_end(*state, fm, LADDER_METHOD, TIER_REASON_COMPILE_FAILED);
	assert_path(*state, TIER_PATH_FINAL_TIER, 1, 1, 1);
	ladder_assert_words(fm, LADDER_METHOD, "p 0 0 ttt");
}

static void path_6_is_the_end_of_a_promotion(void **state)
{
	struct fake_module *fm = lazy_module(state);

	ladder_to_compiling(fm, LADDER_METHOD);
	mark(*state);
	fake_end(*state, fm, LADDER_METHOD, TIER_REASON_NONE);
	assert_path(*state, TIER_PATH_FINAL_TIER_NON_DEFAULT, 1, 1, 1);
	ladder_assert_words(fm, LADDER_METHOD, "p 1 1 ttt");
}

static void path_6_is_also_a_first_version_when_nothing_is_counted(void **state)
{
	struct core_config config = fake_config;
	struct fake_module *fm;

	config.call_counting = false;
	*state = fake_new(&config);
	fm = ladder_load(*state, true);
	mark(*state);
	fake_call(fm, LADDER_METHOD);
	assert_path(*state, TIER_PATH_FINAL_TIER_NON_DEFAULT, 0, 1, 1);
	ladder_assert_words(fm, LADDER_METHOD, "p 0 0 ttt");
}

static void path_7_completes_counting(void **state)
{
	struct fake_module *fm = lazy_module(state);

	ladder_to_counting(fm, LADDER_METHOD);
	fake_calls(fm, LADDER_METHOD, FAKE_N - 1);
	mark(*state);
	fake_calls(fm, LADDER_METHOD, 1);
	assert_path(*state, TIER_PATH_SAME_VERSION_NON_FINAL, 1, 0, 0);
	ladder_assert_words(fm, LADDER_METHOD, "0 t t ttt");
}

/* A call on its way through the own body's stub when that is replaced: one call short of its threshold */
static uint64_t late_stub(struct fake_module *fm)
{
	ladder_to(fm, LADDER_METHOD, AT_COUNTING);
	return fm->records[LADDER_METHOD].precode;
}

static void cross_late(struct fake_module *fm, uint64_t stub)
{
	struct fake_run run = fake_go(fm, LADDER_METHOD, stub, 0);

	assert_true(run.is_crossed && run.body == 0);
	assert_true(fake_ring(fm, LADDER_METHOD, run.counted));
	assert_false(fake_ring(fm, LADDER_METHOD, run.counted));
}

static void path_8_is_a_late_threshold_beside_a_final_body(void **state)
{
	struct fake_module *fm = lazy_module(state);
	uint64_t stub = late_stub(fm);
	uint32_t n = fake_n_events(*state, TIER_EVENT_THRESHOLD);

	assert_int_equal(core_rejit(fm->module, LADDER_METHOD, 1), 0);
	ladder_climb(fm, LADDER_METHOD, FAKE_WAY_PRECODE);
	mark(*state);
	cross_late(fm, stub);
	assert_path(*state, TIER_PATH_DIFF_VERSION_FINAL_TIER, 0, 0, 0);
	ladder_assert_words(fm, LADDER_METHOD, "p 1 1 ttt");
	assert_int_equal(fake_n_events(*state, TIER_EVENT_THRESHOLD), n + 2); /* the new body's and the late one */
	assert_int_equal(core_revert(fm->module, LADDER_METHOD), 0);
	assert_true(ladder_stage(fm, LADDER_METHOD) >= TIER_STAGE_QUEUED);
	assert_true(fake_end(*state, fm, LADDER_METHOD, TIER_REASON_NONE));
	fake_assert_runs(fm, LADDER_METHOD, 0, TIER_LEVEL_TIER1);
}

static void path_9_is_a_late_threshold_beside_a_body_on_its_way(void **state)
{
	struct fake_module *fm = lazy_module(state);
	uint64_t stub = late_stub(fm);

	assert_int_equal(core_rejit(fm->module, LADDER_METHOD, 1), 0);
	fake_call(fm, LADDER_METHOD);
	mark(*state);
	cross_late(fm, stub);
	assert_path(*state, TIER_PATH_DIFF_VERSION_NON_FINAL, 0, 0, 0);
	ladder_assert_words(fm, LADDER_METHOD, "0 t t ttt");
}

static void a_late_threshold_beside_a_cold_body_resets(void **state)
{
	struct fake_module *fm = lazy_module(state);
	uint64_t stub = late_stub(fm);

	assert_int_equal(core_rejit(fm->module, LADDER_METHOD, 1), 0);
	mark(*state);
	cross_late(fm, stub);
	assert_path(*state, TIER_PATH_RESET, 0, 0, 0);
	ladder_assert_words(fm, LADDER_METHOD, "p t t ttt");
}

static void path_10_is_the_first_publish_of_another_body(void **state)
{
	struct fake_module *fm = lazy_module(state);

	assert_int_equal(core_rejit(fm->module, LADDER_METHOD, 1), 0);
	mark(*state);
	fake_call(fm, LADDER_METHOD);
	assert_path(*state, TIER_PATH_DELAY_ACTIVATION_NON_FINAL, 1, 0, 0);
	ladder_assert_words(fm, LADDER_METHOD, "0 t t ttt");
}

static void path_10_brings_back_an_uncounted_version_while_the_delay_is_active(void **state)
{
	struct fake_module *fm = lazy_module(state);

	fake_call(fm, LADDER_METHOD);
	assert_int_equal(core_rejit(fm->module, LADDER_METHOD, 1), 0);
	mark(*state);
	assert_int_equal(core_revert(fm->module, LADDER_METHOD), 0);
	assert_path(*state, TIER_PATH_DELAY_ACTIVATION_NON_FINAL, 1, 0, 0);
	ladder_assert_words(fm, LADDER_METHOD, "0 t t ttt");
	fake_pass(*state, 200);
	ladder_assert_words(fm, LADDER_METHOD, "s t t ttt");
}

static void an_uncounted_version_that_comes_back_after_the_delay_is_counted_at_once(void **state)
{
	struct fake_module *fm = lazy_module(state);

	fake_call(fm, LADDER_METHOD);
	assert_int_equal(core_rejit(fm->module, LADDER_METHOD, 1), 0);
	fake_pass(*state, 200);
	mark(*state);
	assert_int_equal(core_revert(fm->module, LADDER_METHOD), 0);
	assert_path(*state, TIER_PATH_CALL_COUNTING_STUB, 1, 0, 0);
	ladder_assert_words(fm, LADDER_METHOD, "s t t ttt");
	assert_int_equal(fake_answer(fm, LADDER_METHOD).remaining, FAKE_N);
}

/* -- Programming errors --- */
static void setting_a_final_entry_point_only_from_the_prestub_aborts(void **state)
{
	for (int policy = 0; policy < _TIER_BACKPATCH_N; policy++) {
		struct fake *fake = ladder_fake(policy, false);
		struct fake_module *fm = ladder_load(fake, true);
		int status;
		pid_t pid;

		ladder_to_final(fm, LADDER_METHOD);
		pid = fork();
		assert_true(pid >= 0);
		if (!pid) {
			setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
			signal(SIGABRT, SIG_DFL);
			close(2);
			entry_point_set(&fm->module->methods[LADDER_METHOD], fm->records[LADDER_METHOD].code, true,
					true);
			_exit(0);
		}
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
		fake_free(fake);
	}
}

/* -- Hazards (§6.10) --- */
/* 1: a first publish that sets E and the slots would never be counted. */
static void calls_of_another_body_are_counted_through_slots(void **state)
{
	struct fake_module *fm = lazy_module(state);

	ladder_to_final(fm, LADDER_METHOD);
	fake_run_slot(fm, 0);
	assert_int_equal(core_rejit(fm->module, LADDER_METHOD, 1), 0);
	fake_run_slot(fm, 0);
	ladder_assert_words(fm, LADDER_METHOD, "0 t t ttt");
	fake_pass(*state, 200);
	for (uint32_t i = 0; i < FAKE_N; i++)
		assert_true(fake_run_slot(fm, i % LADDER_SLOTS).is_counted);
	assert_int_equal(core_look(fm->module, LADDER_METHOD), 1);
}

/* 2 */
static void a_late_visit_of_the_prestub_neither_records_nor_counts(void **state)
{
	struct fake_module *fm = lazy_module(state);
	struct tier_answer answer;
	uint32_t n_events;

	ladder_to(fm, LADDER_METHOD, AT_COUNTING);
	answer = fake_answer(fm, LADDER_METHOD);
	n_events = fm->fake->n_events;
	mark(*state);
	assert_int_equal(core_prepare(fm->module, LADDER_METHOD), 0);
	assert_int_equal(fake_answer(fm, LADDER_METHOD).remaining, answer.remaining);
	assert_int_equal(fake_answer(fm, LADDER_METHOD).stage, TIER_STAGE_COUNTING);
	assert_int_equal(fm->fake->n_events, n_events);
	assert_memory_equal(core_counters(fm->fake->core), &before, sizeof(before));
}

/* 3: whoever asked before the rejit and is served after it */
static void an_old_question_is_answered_with_the_new_body(void **state)
{
	struct fake_module *fm = lazy_module(state);

	assert_int_equal(core_rejit(fm->module, LADDER_METHOD, 1), 0);
	assert_int_equal(core_rejit(fm->module, LADDER_METHOD, 2), 0);
	assert_int_equal(core_prepare(fm->module, LADDER_METHOD), 0);
	assert_int_equal(core_prepare(fm->module, LADDER_METHOD), 0);
	fake_assert_runs(fm, LADDER_METHOD, 2, TIER_LEVEL_TIER0);
}

/* 5 */
static void a_version_that_comes_back_during_a_delay_leads_to_no_other_stub(void **state)
{
	struct fake_module *fm = lazy_module(state);

	fake_call(fm, LADDER_METHOD);
	assert_int_equal(core_rejit(fm->module, LADDER_METHOD, 1), 0);
	ladder_to_counting(fm, LADDER_METHOD);
	fake_call(fm, LADDER_OTHER); /* a delay */
	assert_int_equal(core_revert(fm->module, LADDER_METHOD), 0);
	ladder_assert_words(fm, LADDER_METHOD, "0 t t ttt");
	assert_int_equal(core_counters(fm->fake->core)->n_unsafe_inactive, 0);
}

/* 6: nothing can patch a register. */
static void a_held_precode_pays_the_prestub_at_the_final_tier(void **state)
{
	struct fake_module *fm = lazy_module(state);
	struct fake_run run;

	ladder_to_final(fm, LADDER_METHOD);
	for (uint32_t i = 0; i < 3; i++) {
		assert_true(fake_run(fm, LADDER_METHOD, FAKE_WAY_PRECODE, &run));
		assert_int_equal(run.n_visits[TIER_VISIT_POINTER], 1);
		assert_int_equal(run.level, TIER_LEVEL_TIER1);
	}
	assert_true(fake_run(fm, LADDER_METHOD, FAKE_WAY_POINTER, &run));
	assert_int_equal(run.n_visits[TIER_VISIT_POINTER], 0); /* programs hold this one */
}

#define PATH_TEST(f) cmocka_unit_test_teardown(f, end_state)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lazy_moves_the_precode_only_until_the_final_tier),
		cmocka_unit_test(eager_resets_and_patches_slots_around_counting),
		cmocka_unit_test(forwarder_patches_slots_at_each_publication),
		cmocka_unit_test(methods_in_no_slot_are_the_same_under_every_policy),
		cmocka_unit_test(the_prestub_counts_for_whoever_asks_it_to),
		PATH_TEST(path_1_is_the_first_publish_while_calls_are_not_counted),
		PATH_TEST(path_2_installs_a_counting_stub),
		PATH_TEST(path_2_is_also_the_first_publish_without_a_delay),
		PATH_TEST(path_3_ends_what_the_prestub_counted),
		PATH_TEST(path_4_brings_back_a_version_that_waits_for_its_successor),
		PATH_TEST(path_5_is_a_first_version_that_is_final),
		PATH_TEST(path_5_is_also_a_promotion_that_failed),
		PATH_TEST(path_6_is_the_end_of_a_promotion),
		PATH_TEST(path_6_is_also_a_first_version_when_nothing_is_counted),
		PATH_TEST(path_7_completes_counting),
		PATH_TEST(path_8_is_a_late_threshold_beside_a_final_body),
		PATH_TEST(path_9_is_a_late_threshold_beside_a_body_on_its_way),
		PATH_TEST(a_late_threshold_beside_a_cold_body_resets),
		PATH_TEST(path_10_is_the_first_publish_of_another_body),
		PATH_TEST(path_10_brings_back_an_uncounted_version_while_the_delay_is_active),
		PATH_TEST(an_uncounted_version_that_comes_back_after_the_delay_is_counted_at_once),
		cmocka_unit_test(setting_a_final_entry_point_only_from_the_prestub_aborts),
		PATH_TEST(calls_of_another_body_are_counted_through_slots),
		PATH_TEST(a_late_visit_of_the_prestub_neither_records_nor_counts),
		PATH_TEST(an_old_question_is_answered_with_the_new_body),
		PATH_TEST(a_version_that_comes_back_during_a_delay_leads_to_no_other_stub),
		PATH_TEST(a_held_precode_pays_the_prestub_at_the_final_tier),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
