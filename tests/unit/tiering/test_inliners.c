/* SPDX-License-Identifier: Apache-2.0 */
#include "unit/tiering/ladder.h"

/* Inlined bodies that are replaced: whoever has them in its code falls back to its first code and is compiled again, on
 * its way or away, and no call that begins after a rejit runs an old body anywhere (issue 4, point 6)
 *
 *   TOP inlines MID and what that inlines, LEAF. CALLER calls LEAF and inlines nothing. */

enum { LEAF, MID, TOP, CALLER, BLOCKER, METHODS };

static struct fake_module *module_of(struct fake *fake, bool is_backpatchable)
{
	struct fake_module *fm =
		fake_load_virtual(fake, LADDER_UID, "inliners", METHODS, is_backpatchable ? METHODS : 0, LADDER_SLOTS);

	fm->inlines[MID] = 1u << LEAF;
	fm->inlines[TOP] = 1u << LEAF | 1u << MID;
	fm->calls[CALLER] = 1u << LEAF;
	return fm;
}

static struct fake_module *final_module(struct fake *fake, bool is_backpatchable)
{
	struct fake_module *fm = module_of(fake, is_backpatchable);

	for (uint32_t i = 0; i < METHODS; i++)
		ladder_to_final(fm, i);
	return fm;
}

static enum tier_stage stage_of(struct fake_module *fm, uint32_t method) { return fake_answer(fm, method).stage; }

static void assert_withdrawn(struct fake_module *fm, uint32_t method)
{
	enum tier_stage stage = stage_of(fm, method);
	const struct fake_code *code = fake_code_at(fm, fm->records[method].code);

	assert_true(stage == TIER_STAGE_QUEUED || stage == TIER_STAGE_COMPILING);
	assert_int_equal(code->level, TIER_LEVEL_TIER0);
	assert_int_equal(code->body, core_method_body(fm->module, method));
	assert_int_equal(fake_answer(fm, method).status, TIER_STATUS_OPTIMIZING);
	assert_int_equal(fake_answer(fm, method).remaining, 0);
}

static void end_all(struct fake *fake)
{
	bool is_any;

	do {
		is_any = false;
		fake_pass(fake, 200);
		for (uint32_t i = 0; i < fake->n_jobs; i++)
			if (fake->jobs[i].is_active) {
				fake_end_job(fake, &fake->jobs[i], TIER_REASON_NONE);
				is_any = true;
			}
	} while (is_any);
	ladder_check_all(fake);
}

/* -- Withdrawals --- */
static void inliners_fall_back(struct fake *fake, struct fake_module *unused)
{
	struct fake_module *fm = final_module(fake, fake_is_backpatchable(unused, 0));
	uint32_t n_events = fake->n_events;
	uint64_t generation = tier_state_generation(fm->records[TOP].state);

	assert_int_equal(core_rejit(fm->module, LEAF, 1), 0);
	ladder_check_all(fake);
	assert_int_equal(fake_n_events(fake, TIER_EVENT_REJITTED), 1);
	assert_int_equal(fake_n_events(fake, TIER_EVENT_WITHDRAWN), 2);
	for (uint32_t i = n_events; i < fake->n_events; i++)
		if (fake->events[i].kind == TIER_EVENT_WITHDRAWN) {
			assert_int_equal(fake->events[i].reason, TIER_REASON_INLINEE_REPLACED);
			assert_true(fake->events[i].method == MID || fake->events[i].method == TOP);
		}
	assert_withdrawn(fm, MID);
	assert_withdrawn(fm, TOP);
	assert_true(tier_state_generation(fm->records[TOP].state) > generation);
	assert_int_equal(stage_of(fm, CALLER), TIER_STAGE_FINAL);
	assert_int_equal(stage_of(fm, BLOCKER), TIER_STAGE_FINAL);
	assert_int_equal(core_counters(fake->core)->n_withdrawn, 2);
	assert_int_equal(fake_n_paths(fake, TIER_PATH_WITHDRAWN), 2);
	for (uint32_t i = 0; i < METHODS; i++)
		fake_assert_runs(fm, i, i == LEAF,
				 i == LEAF || i == MID || i == TOP ? TIER_LEVEL_TIER0 : TIER_LEVEL_TIER1);
	end_all(fake);
	for (uint32_t i = MID; i < METHODS; i++)
		fake_assert_runs(fm, i, 0, TIER_LEVEL_TIER1);
}

static void inliners_fall_back_transitively_and_climb_again(void **state) { ladder_each(inliners_fall_back); }

static void inliners_fall_back_again(struct fake *fake, struct fake_module *unused)
{
	struct fake_module *fm = final_module(fake, fake_is_backpatchable(unused, 0));

	for (uint32_t body = 1; body < 4; body++) {
		assert_int_equal(core_rejit(fm->module, LEAF, body), 0);
		assert_withdrawn(fm, TOP);
		end_all(fake);
		assert_int_equal(stage_of(fm, TOP), TIER_STAGE_FINAL);
	}
	assert_int_equal(core_revert(fm->module, LEAF), 0);
	ladder_check_all(fake);
	assert_withdrawn(fm, MID);
	assert_withdrawn(fm, TOP);
	fake_assert_runs(fm, LEAF, 0, TIER_LEVEL_TIER1);
	for (uint32_t i = 0; i < METHODS; i++)
		fake_assert_runs(fm, i, 0, i == MID || i == TOP ? TIER_LEVEL_TIER0 : TIER_LEVEL_TIER1);
	end_all(fake);
	fake_assert_runs(fm, TOP, 0, TIER_LEVEL_TIER1);
}

static void a_revert_withdraws_inliners_of_the_replaced_body(void **state) { ladder_each(inliners_fall_back_again); }

static void a_middle_body_withdraws_only_what_has_it(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = final_module(fake, true);

	fm->inlines[MID] = 0; /* the new body calls nobody, so TOP will have no LEAF any more */
	fm->inlines[TOP] = 1u << MID;
	assert_int_equal(core_rejit(fm->module, MID, 1), 0);
	assert_withdrawn(fm, TOP);
	assert_int_equal(stage_of(fm, LEAF), TIER_STAGE_FINAL);
	assert_int_equal(stage_of(fm, MID), TIER_STAGE_COLD);
	end_all(fake);
	assert_int_equal(core_rejit(fm->module, LEAF, 1), 0);
	assert_int_equal(stage_of(fm, TOP), TIER_STAGE_FINAL);
	assert_int_equal(core_counters(fake->core)->n_withdrawn, 1);
}

static void a_withdrawn_inliner_whose_new_compile_fails_stays_at_its_first_code(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = module_of(fake, true);

	ladder_to_final(fm, LEAF);
	ladder_to_final(fm, MID);
	assert_int_equal(core_rejit(fm->module, LEAF, 1), 0);
	assert_true(fake_end(fake, fm, MID, TIER_REASON_COMPILE_FAILED));
	assert_int_equal(fake_answer(fm, MID).reason, TIER_REASON_COMPILE_FAILED);
	fake_assert_runs(fm, MID, 0, TIER_LEVEL_TIER0);
	assert_int_equal(core_rejit(fm->module, LEAF, 2), 0);
	assert_int_equal(stage_of(fm, MID), TIER_STAGE_FINAL); /* nothing of it is in there */
	ladder_check_all(fake);
}

static void withdrawn_inliners_wait_in_the_order_of_their_turn(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = module_of(fake, true);

	ladder_to_final(fm, MID);
	ladder_to_final(fm, TOP);
	ladder_to_compiling(fm, BLOCKER);
	assert_int_equal(core_rejit(fm->module, LEAF, 1), 0);
	assert_int_equal(stage_of(fm, MID), TIER_STAGE_QUEUED);
	assert_int_equal(stage_of(fm, TOP), TIER_STAGE_QUEUED);
	assert_int_equal(core_pending(fake->core, CORE_SCOPE_MODULE, fm->module, 0), 3);
	assert_int_equal(core_rejit(fm->module, LEAF, 2), 0); /* they wait already */
	assert_int_equal(core_pending(fake->core, CORE_SCOPE_MODULE, fm->module, 0), 3);
	assert_int_equal(core_counters(fake->core)->n_withdrawn, 2);
	end_all(fake);
	fake_assert_runs(fm, TOP, 0, TIER_LEVEL_TIER1);
}

static void every_inliner_is_withdrawn_before_a_rejit_returns(void **state)
{
	enum { MANY = 64 };
	struct core_config config = fake_config;
	struct fake_module *fm;
	struct fake *fake;

	config.delay_ns = 0;
	config.jobs_per_uid = config.jobs_total = MANY;
	fake = fake_new(&config);
	fm = fake_load_virtual(fake, LADDER_UID, "many", MANY, MANY, 2);
	for (uint32_t i = 1; i < MANY; i++) {
		fm->inlines[i] = 1;
		fake_call(fm, i);
		fake_calls(fm, i, FAKE_N);
		assert_true(fake_end(fake, fm, i, TIER_REASON_NONE));
		fake_run_slot(fm, fake_slot_first(fm, i));
	}
	for (uint32_t body = 1; body < 10; body++) {
		assert_int_equal(core_rejit(fm->module, 0, body), 0);
		assert_int_equal(core_counters(fake->core)->n_withdrawn, body * (MANY - 1));
		for (uint32_t i = 1; i < MANY; i++)
			fake_assert_runs(fm, i, 0, TIER_LEVEL_TIER0);
		end_all(fake);
	}
	fake_free(fake);
}

/* -- In flight --- */
static void a_job_with_an_old_body(struct fake *fake, struct fake_module *unused)
{
	struct fake_module *fm = module_of(fake, fake_is_backpatchable(unused, 0));
	uint32_t n_published;

	ladder_to_compiling(fm, TOP);
	assert_int_equal(core_rejit(fm->module, LEAF, 1), 0);
	assert_int_equal(stage_of(fm, TOP), TIER_STAGE_COMPILING);
	n_published = fake_n_events(fake, TIER_EVENT_PUBLISHED);
	assert_true(fake_end(fake, fm, TOP, TIER_REASON_NONE));
	assert_int_equal(fake_n_events(fake, TIER_EVENT_PUBLISHED), n_published);
	assert_withdrawn(fm, TOP);
	fake_assert_runs(fm, TOP, 0, TIER_LEVEL_TIER0);
	assert_true(fake_job(fake, fm, TOP));
	assert_true(fake_end(fake, fm, TOP, TIER_REASON_NONE));
	assert_false(fake_job(fake, fm, TOP));
	assert_int_equal(fake_answer(fm, TOP).reason, TIER_REASON_PROMOTED);
	fake_assert_runs(fm, TOP, 0, TIER_LEVEL_TIER1);
}

static void a_job_that_inlined_a_replaced_body_is_done_again(void **state) { ladder_each(a_job_with_an_old_body); }

static void so_is_one_whose_inlinee_came_and_went(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = module_of(fake, true);

	assert_int_equal(core_rejit(fm->module, LEAF, 1), 0);
	ladder_to_compiling(fm, TOP); /* with body 1 */
	assert_int_equal(core_revert(fm->module, LEAF), 0);
	assert_true(fake_end(fake, fm, TOP, TIER_REASON_NONE));
	assert_withdrawn(fm, TOP);
	assert_int_equal(core_rejit(fm->module, LEAF, 2), 0);
	assert_true(fake_end(fake, fm, TOP, TIER_REASON_NONE));
	assert_true(fake_end(fake, fm, TOP, TIER_REASON_NONE));
	assert_int_equal(stage_of(fm, TOP), TIER_STAGE_FINAL);
	fake_assert_runs(fm, TOP, 0, TIER_LEVEL_TIER1);
}

static void a_job_that_inlined_nothing_replaced_is_published(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = module_of(fake, true);

	ladder_to_compiling(fm, CALLER);
	assert_int_equal(core_rejit(fm->module, LEAF, 1), 0);
	assert_int_equal(core_rejit(fm->module, BLOCKER, 1), 0);
	assert_true(fake_end(fake, fm, CALLER, TIER_REASON_NONE));
	assert_int_equal(stage_of(fm, CALLER), TIER_STAGE_FINAL);
	fake_assert_runs(fm, LEAF, 1, TIER_LEVEL_TIER0);
}

static void a_job_that_failed_is_not_done_again(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = module_of(fake, true);

	ladder_to_compiling(fm, TOP);
	assert_int_equal(core_rejit(fm->module, LEAF, 1), 0);
	assert_true(fake_end(fake, fm, TOP, TIER_REASON_COMPILE_FAILED));
	assert_int_equal(fake_answer(fm, TOP).reason, TIER_REASON_COMPILE_FAILED);
	assert_false(fake_job(fake, fm, TOP));
}

static void a_job_that_a_successor_starts_again_sees_the_new_body(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = module_of(fake, true);

	ladder_to_compiling(fm, TOP);
	assert_int_equal(core_rejit(fm->module, LEAF, 1), 0);
	fake_restart(fake);
	assert_true(fake_end(fake, fm, TOP, TIER_REASON_NONE));
	assert_int_equal(stage_of(fm, TOP), TIER_STAGE_FINAL);
	fake_assert_runs(fm, TOP, 0, TIER_LEVEL_TIER1);
}

/* -- Away --- */
static void an_inliner_away(struct fake *fake, struct fake_module *unused)
{
	struct fake_module *fm = final_module(fake, fake_is_backpatchable(unused, 0));

	assert_int_equal(core_rejit(fm->module, TOP, 1), 0);
	assert_int_equal(core_rejit(fm->module, LEAF, 1), 0); /* TOP's own code has its old body */
	assert_int_equal(stage_of(fm, TOP), TIER_STAGE_COLD);
	assert_int_equal(core_revert(fm->module, TOP), 0);
	ladder_check_all(fake);
	assert_withdrawn(fm, TOP);
	fake_assert_runs(fm, TOP, 0, TIER_LEVEL_TIER0);
	end_all(fake);
	fake_assert_runs(fm, TOP, 0, TIER_LEVEL_TIER1);
}

static void an_inliner_that_was_away_comes_back_without_the_old_body(void **state) { ladder_each(an_inliner_away); }

static void an_inliner_that_was_away_while_its_inlinee_came_and_went_comes_back(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = final_module(fake, true);

	assert_int_equal(core_rejit(fm->module, TOP, 1), 0);
	assert_int_equal(core_rejit(fm->module, LEAF, 1), 0);
	assert_int_equal(core_revert(fm->module, LEAF), 0);
	assert_int_equal(core_revert(fm->module, TOP), 0);
	end_all(fake);
	fake_assert_runs(fm, TOP, 0, TIER_LEVEL_TIER1);
}

static void a_job_away(struct fake *fake, struct fake_module *unused)
{
	struct fake_module *fm = module_of(fake, fake_is_backpatchable(unused, 0));

	ladder_to_compiling(fm, TOP);
	assert_int_equal(core_rejit(fm->module, TOP, 1), 0);
	assert_int_equal(core_rejit(fm->module, LEAF, 1), 0);
	fake_call(fm, TOP);
	assert_true(fake_end(fake, fm, TOP, TIER_REASON_NONE));
	fake_assert_runs(fm, TOP, 1, TIER_LEVEL_TIER0);
	ladder_check_all(fake);
	assert_int_equal(core_revert(fm->module, TOP), 0);
	assert_withdrawn(fm, TOP);
	end_all(fake);
	fake_assert_runs(fm, TOP, 0, TIER_LEVEL_TIER1);
}

static void a_promotion_in_flight_of_a_body_that_is_away_is_looked_at_as_well(void **state) { ladder_each(a_job_away); }

static void another_body_falls_back_to_its_own_first_code(struct fake *fake, struct fake_module *unused)
{
	struct fake_module *fm = final_module(fake, fake_is_backpatchable(unused, 0));

	assert_int_equal(core_rejit(fm->module, TOP, 5), 0);
	ladder_climb(fm, TOP, FAKE_WAY_POINTER);
	assert_int_equal(core_rejit(fm->module, LEAF, 1), 0);
	assert_withdrawn(fm, TOP);
	fake_assert_runs(fm, TOP, 5, TIER_LEVEL_TIER0);
	fake_restart(fake);
	fake_assert_runs(fm, TOP, 5, TIER_LEVEL_TIER0);
	end_all(fake);
	fake_assert_runs(fm, TOP, 5, TIER_LEVEL_TIER1);
	assert_int_equal(core_revert(fm->module, TOP), 0);
	end_all(fake);
	fake_assert_runs(fm, TOP, 0, TIER_LEVEL_TIER1);
}

static void an_inliner_falls_back_to_the_body_that_it_has(void **state)
{
	ladder_each(another_body_falls_back_to_its_own_first_code);
}

static void a_job_of_a_body_that_never_returns_may_end(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = module_of(fake, true);

	assert_int_equal(core_rejit(fm->module, TOP, 1), 0);
	ladder_to_compiling(fm, TOP);
	assert_int_equal(core_rejit(fm->module, TOP, 2), 0);
	assert_int_equal(core_rejit(fm->module, LEAF, 1), 0);
	assert_true(fake_end(fake, fm, TOP, TIER_REASON_NONE));
	assert_false(fake_job(fake, fm, TOP));
	assert_int_equal(stage_of(fm, TOP), TIER_STAGE_COLD);
	ladder_check_all(fake);
}

/* -- Circles --- */
static void a_method_that_inlined_itself_is_replaced_like_any_other(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = module_of(fake, true);

	fm->inlines[BLOCKER] = 1u << BLOCKER;
	ladder_to_final(fm, BLOCKER);
	assert_int_equal(core_rejit(fm->module, BLOCKER, 1), 0);
	assert_int_equal(stage_of(fm, BLOCKER), TIER_STAGE_COLD);
	ladder_climb(fm, BLOCKER, FAKE_WAY_POINTER);
	fake_assert_runs(fm, BLOCKER, 1, TIER_LEVEL_TIER1);
	assert_int_equal(core_revert(fm->module, BLOCKER), 0);
	ladder_climb(fm, BLOCKER, FAKE_WAY_POINTER);
	fake_assert_runs(fm, BLOCKER, 0, TIER_LEVEL_TIER1);
	ladder_check_all(fake);
}

/* What it inlines of itself is the body that is made, not the one that is there when the job begins again. */
static void a_recursive_job_that_a_successor_starts_again_for_an_absent_body(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = module_of(fake, true);

	fm->inlines[BLOCKER] = 1u << BLOCKER;
	ladder_to_compiling(fm, BLOCKER);
	assert_int_equal(core_rejit(fm->module, BLOCKER, 1), 0);
	fake_restart(fake);
	fake_call(fm, BLOCKER);
	assert_true(fake_end(fake, fm, BLOCKER, TIER_REASON_NONE));
	assert_int_equal(core_revert(fm->module, BLOCKER), 0);
	fake_assert_runs(fm, BLOCKER, 0, fake_code_at(fm, fm->records[BLOCKER].code)->level);
	ladder_climb(fm, BLOCKER, FAKE_WAY_POINTER);
	fake_assert_runs(fm, BLOCKER, 0, TIER_LEVEL_TIER1);
	ladder_check_all(fake);
}

static void methods_that_inlined_each_other_are_replaced_one_by_one(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = module_of(fake, true);

	fm->inlines[CALLER] = 1u << BLOCKER;
	fm->inlines[BLOCKER] = 1u << CALLER;
	ladder_to_final(fm, CALLER);
	ladder_to_final(fm, BLOCKER);
	assert_int_equal(core_rejit(fm->module, CALLER, 1), 0);
	assert_withdrawn(fm, BLOCKER);
	ladder_climb(fm, CALLER, FAKE_WAY_POINTER);
	end_all(fake);
	assert_int_equal(core_rejit(fm->module, BLOCKER, 1), 0);
	assert_withdrawn(fm, CALLER);
	end_all(fake);
	assert_int_equal(core_revert(fm->module, CALLER), 0);
	assert_int_equal(core_revert(fm->module, BLOCKER), 0);
	ladder_climb(fm, CALLER, FAKE_WAY_POINTER);
	ladder_climb(fm, BLOCKER, FAKE_WAY_POINTER);
	fake_assert_runs(fm, CALLER, 0, TIER_LEVEL_TIER1);
	fake_assert_runs(fm, BLOCKER, 0, TIER_LEVEL_TIER1);
}

/* -- Slots --- */
static void slots_of_withdrawn_inliners_follow(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = final_module(fake, true);
	uint32_t slot = fake_slot_first(fm, MID);

	fake_run_slot(fm, slot);
	ladder_assert_words(fm, MID, "p 1 1 1tt");
	assert_int_equal(core_rejit(fm->module, LEAF, 1), 0);
	ladder_assert_words(fm, MID, "0 t t ttt");
	assert_int_equal(fake_run_slot(fm, slot).level, TIER_LEVEL_TIER0);
	end_all(fake);
	ladder_assert_words(fm, MID, "p 1 1 1tt");
}

static void an_inliner_keeps_its_first_code_whatever_happens(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = final_module(fake, true);

	for (uint32_t body = 1; body < 20; body++) { /* whatever happens to it, its first code stays where it is */
		assert_int_equal(core_rejit(fm->module, MID, body), 0);
		assert_int_equal(core_rejit(fm->module, LEAF, body), 0);
		if (body % 3 == 0)
			assert_int_equal(core_revert(fm->module, LEAF), 0);
		fake_call(fm, MID);
		if (body % 2)
			end_all(fake);
	}
	assert_int_equal(core_revert(fm->module, MID), 0);
	assert_true(stage_of(fm, MID) == TIER_STAGE_QUEUED || stage_of(fm, MID) == TIER_STAGE_COMPILING);
	end_all(fake);
	fake_assert_runs(fm, MID, 0, TIER_LEVEL_TIER1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(inliners_fall_back_transitively_and_climb_again),
		cmocka_unit_test(a_revert_withdraws_inliners_of_the_replaced_body),
		FAKE_TEST(a_middle_body_withdraws_only_what_has_it),
		FAKE_TEST(a_withdrawn_inliner_whose_new_compile_fails_stays_at_its_first_code),
		FAKE_TEST(withdrawn_inliners_wait_in_the_order_of_their_turn),
		cmocka_unit_test(every_inliner_is_withdrawn_before_a_rejit_returns),
		cmocka_unit_test(a_job_that_inlined_a_replaced_body_is_done_again),
		FAKE_TEST(so_is_one_whose_inlinee_came_and_went),
		FAKE_TEST(a_job_that_inlined_nothing_replaced_is_published),
		FAKE_TEST(a_job_that_failed_is_not_done_again),
		FAKE_TEST(a_job_that_a_successor_starts_again_sees_the_new_body),
		cmocka_unit_test(an_inliner_that_was_away_comes_back_without_the_old_body),
		FAKE_TEST(an_inliner_that_was_away_while_its_inlinee_came_and_went_comes_back),
		cmocka_unit_test(a_promotion_in_flight_of_a_body_that_is_away_is_looked_at_as_well),
		cmocka_unit_test(an_inliner_falls_back_to_the_body_that_it_has),
		FAKE_TEST(a_job_of_a_body_that_never_returns_may_end),
		FAKE_TEST(a_method_that_inlined_itself_is_replaced_like_any_other),
		FAKE_TEST(a_recursive_job_that_a_successor_starts_again_for_an_absent_body),
		FAKE_TEST(methods_that_inlined_each_other_are_replaced_one_by_one),
		FAKE_TEST(slots_of_withdrawn_inliners_follow),
		FAKE_TEST(an_inliner_keeps_its_first_code_whatever_happens),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
