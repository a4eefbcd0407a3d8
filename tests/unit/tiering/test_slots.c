/* SPDX-License-Identifier: Apache-2.0 */
#include "tiering/internal.h"
#include "unit/tiering/ladder.h"

/* Vtable slots, funcptr precodes and call sites: who finds them, what is written there, and how often (reference §6.7,
 * §6.8, §14 rows 5, 7 and 8) */

static const struct core_counters *counters(const struct fake_module *fm) { return core_counters(fm->fake->core); }

static int end_state(void **state)
{
	fake_free(*state);
	return 0;
}

static struct fake_module *module_of(void **state, enum tier_backpatch policy)
{
	*state = ladder_fake(policy, false);
	return ladder_load(*state, true);
}

static uint32_t n_visits(const struct fake_run *run)
{
	uint32_t n = 0;

	for (int i = 0; i < _TIER_VISIT_N; i++)
		n += run->n_visits[i];
	return n;
}

/* -- What lazy promises --- */
#define MANY       8u
#define MANY_SLOTS 4u

static void assert_no_slot_was_touched(const struct fake_module *fm)
{
	const struct core_counters *now = counters(fm);

	assert_int_equal(now->n_backpatch_calls, 0);
	assert_int_equal(now->n_slots_examined, 0);
	assert_int_equal(now->n_slot_writes, 0);
	assert_int_equal(now->n_slots_recorded, 0);
	assert_int_equal(now->n_funcptr_writes, 0);
	assert_int_equal(now->n_entry_transitions, 0);
	assert_int_equal(now->n_oscillations, 0);
	assert_int_equal(now->backpatch_ns, 0);
}

/* Every method up to its job, by calls through every way that there is */
static void climb_all_to_compiling(struct fake_module *fm)
{
	struct fake *fake = fm->fake;

	for (uint32_t round = 0; round < 2 * FAKE_N; round++) {
		for (uint32_t i = 0; i < MANY; i++)
			for (int way = 0; way < _FAKE_WAY_N; way++)
				fake_run(fm, i, way, &(struct fake_run){0});
		for (uint32_t i = 0; i < fm->n_slots; i++)
			fake_run_slot(fm, i);
		core_sweep(fake->core, fm->module);
		fake_pass(fake, 200);
		assert_no_slot_was_touched(fm);
		ladder_check(fm);
	}
}

static void lazy_touches_no_slot_before_the_first_final_publication(void **state)
{
	struct core_config config = fake_config;
	uint64_t n_called = 0;
	struct fake_module *fm;

	config.jobs_per_uid = config.jobs_total = MANY;
	*state = fake_new(&config);
	fm = fake_load_virtual(*state, LADDER_UID, "m", MANY, MANY, MANY_SLOTS);
	climb_all_to_compiling(fm);
	for (uint32_t i = 0; i < MANY; i++)
		assert_true(fake_end(*state, fm, i, TIER_REASON_NONE));
	assert_int_equal(counters(fm)->n_slot_writes, 0); /* nobody has called through any since */
	assert_int_equal(counters(fm)->n_funcptr_writes, MANY);
	for (uint32_t round = 0; round < 3; round++)
		for (uint32_t i = 0; i < fm->n_slots; i += 3) {
			assert_int_equal(fake_run_slot(fm, i).n_visits[TIER_VISIT_SLOT], !round);
			n_called += !round;
			assert_int_equal(counters(fm)->n_slot_writes, n_called);
		}
	assert_int_equal(counters(fm)->n_slots_recorded, n_called);
	assert_int_equal(counters(fm)->n_entry_transitions, MANY);
	assert_int_equal(counters(fm)->n_oscillations, 0);
	for (uint32_t i = 0; i < fm->n_slots; i++)
		assert_int_equal(fake_slot(fm, i) == fm->records[fake_slot_method(fm, i)].code, i % 3 == 0);
}

static void other_bodies_touch_no_slot_either_until_one_is_final(void **state)
{
	struct fake_module *fm = module_of(state, TIER_BACKPATCH_LAZY);

	for (uint32_t body = 1; body < 5; body++) {
		fake_run_slot(fm, 0);
		fake_pass(*state, 200);
		fake_run_slot(fm, 1);
		assert_int_equal(core_rejit(fm->module, LADDER_METHOD, body), 0);
	}
	assert_int_equal(core_revert(fm->module, LADDER_METHOD), 0);
	assert_int_equal(counters(fm)->n_slot_writes + counters(fm)->n_funcptr_writes + counters(fm)->n_oscillations,
			 0);
	assert_int_equal(counters(fm)->n_entry_transitions, 0);
}

static void each_cell_is_patched_on_its_own_first_use(void **state)
{
	struct fake_module *fm = module_of(state, TIER_BACKPATCH_LAZY);

	ladder_to_final(fm, LADDER_METHOD);
	for (uint32_t i = 0; i < LADDER_SLOTS; i++) {
		struct fake_run first = fake_run_slot(fm, i), second = fake_run_slot(fm, i);

		assert_int_equal(first.n_visits[TIER_VISIT_SLOT], 1);
		assert_int_equal(n_visits(&second), 0);
		assert_int_equal(first.level, TIER_LEVEL_TIER1);
		for (uint32_t k = i + 1; k < LADDER_SLOTS; k++)
			assert_true(fake_slot(fm, k) == tier_layout_precode(&fm->layout, LADDER_METHOD));
	}
}

/* -- Notes --- */
static void a_note_that_got_lost_is_sent_by_the_next_process(void **state)
{
	struct fake_module *fm = module_of(state, TIER_BACKPATCH_LAZY);
	struct fake *fake = *state;
	struct fake_run run;

	ladder_to_final(fm, LADDER_METHOD);
	fake->how_notes = FAKE_NOTES_LOST;
	run = fake_run_slot(fm, 0);
	assert_int_equal(run.n_visits[TIER_VISIT_SLOT], 1);
	fake->how_notes = FAKE_NOTES_AT_ONCE;
	run = fake_run_slot(fm, 0);
	assert_int_equal(run.n_visits[TIER_VISIT_SLOT_AGAIN], 1);
	assert_int_equal(run.level, TIER_LEVEL_TIER1);
	memset(fm->posted, 0, fm->n_slots);
	run = fake_run_slot(fm, 0);
	assert_int_equal(run.n_visits[TIER_VISIT_SLOT], 1);
	run = fake_run_slot(fm, 0);
	assert_int_equal(n_visits(&run), 0);
}

static void the_same_note_many_times_is_one_slot(void **state)
{
	struct fake_module *fm = module_of(state, TIER_BACKPATCH_LAZY);

	ladder_to_final(fm, LADDER_METHOD);
	for (uint32_t i = 0; i < 5; i++)
		core_slot_used(fm->module, LADDER_METHOD, fake_call_cell(fm, 0));
	assert_int_equal(counters(fm)->n_slots_recorded, 1);
	assert_int_equal(counters(fm)->n_slot_writes, 1);
	fake_restart(*state);
	core_slot_used(fm->module, LADDER_METHOD, fake_call_cell(fm, 0));
	assert_int_equal(counters(fm)->n_slots_recorded + counters(fm)->n_slot_writes, 0);
	assert_int_equal(core_rejit(fm->module, LADDER_METHOD, 1), 0);
	assert_int_equal(counters(fm)->n_slot_writes, 1);
	ladder_assert_words(fm, LADDER_METHOD, "p t t ttt");
}

static void a_note_about_a_method_at_a_lower_tier_writes_nothing(void **state)
{
	struct fake_module *fm = module_of(state, TIER_BACKPATCH_LAZY);

	core_slot_used(fm->module, LADDER_METHOD, fake_call_cell(fm, 0));
	fake_call(fm, LADDER_METHOD);
	core_slot_used(fm->module, LADDER_METHOD, fake_call_cell(fm, 0));
	fake_pass(*state, 200);
	core_slot_used(fm->module, LADDER_METHOD, fake_call_cell(fm, 0));
	assert_int_equal(counters(fm)->n_slot_writes, 0);
	ladder_assert_words(fm, LADDER_METHOD, "s t t ttt");
}

/* The sender does not send it again: if the daemon forgot the slot, that process would come to the prestub for ever. */
static void a_note_that_a_rejit_overtook_is_not_forgotten(void **state)
{
	struct fake_module *fm = module_of(state, TIER_BACKPATCH_LAZY);
	struct fake *fake = *state;
	struct fake_run run;

	ladder_to_final(fm, LADDER_METHOD);
	fake->how_notes = FAKE_NOTES_LATE;
	fake_run_slot(fm, 0);
	assert_int_equal(core_rejit(fm->module, LADDER_METHOD, 1), 0);
	fake_deliver_all(fake);
	ladder_assert_words(fm, LADDER_METHOD, "p t t ttt");
	ladder_climb(fm, LADDER_METHOD, FAKE_WAY_PRECODE);
	fake_deliver_all(fake);
	fake_run_slot(fm, 0);
	fake_deliver_all(fake);
	run = fake_run_slot(fm, 0);
	assert_int_equal(n_visits(&run), 0);
	ladder_assert_words(fm, LADDER_METHOD, "p 1 1 1tt");
}

/* Under the older policies slots are patched before the final tier, so that a note may be read after they went back to T. */
static void a_note_that_counting_overtook_is_not_forgotten(void **state)
{
	for (int policy = 0; policy < _TIER_BACKPATCH_N; policy++) {
		struct fake_module *fm = module_of(state, policy);
		struct fake *fake = *state;
		struct fake_run run;

		fake->how_notes = FAKE_NOTES_LATE;
		fake->forwarder_result = CORE_E_FULL;
		fake_call(fm, LADDER_METHOD);
		fake_run_slot(fm, 0);
		fake_pass(fake, 200);
		fake_deliver_all(fake);
		fake->how_notes = FAKE_NOTES_AT_ONCE;
		ladder_climb(fm, LADDER_METHOD, FAKE_WAY_PRECODE);
		run = fake_run_slot(fm, 0);
		assert_int_equal(run.n_visits[TIER_VISIT_SLOT_AGAIN], 0);
		run = fake_run_slot(fm, 0);
		assert_int_equal(n_visits(&run), 0);
		ladder_check_all(fake);
		fake_free(fake);
	}
	*state = fake_new(&fake_config);
}

static void notes_about_modules_that_are_gone_are_nothing(void **state)
{
	struct fake *fake;
	struct fake_module *fm = module_of(state, TIER_BACKPATCH_LAZY);

	fake = *state;
	ladder_to_final(fm, LADDER_METHOD);
	fake->how_notes = FAKE_NOTES_LATE;
	fake_run_slot(fm, 0);
	fake_remove(fake, fm);
	fake_deliver_all(fake);
	fake_check(fake);
}

static void recorded_slots_outlive_the_daemon(void **state)
{
	for (int policy = 0; policy < _TIER_BACKPATCH_N; policy++) {
		struct fake_module *fm = module_of(state, policy);

		ladder_to_final(fm, LADDER_METHOD);
		for (uint32_t i = 0; i < LADDER_SLOTS; i++)
			fake_run_slot(fm, i);
		fake_restart(*state);
		ladder_assert_words(fm, LADDER_METHOD, "p 1 1 111");
		assert_int_equal(core_rejit(fm->module, LADDER_METHOD, 1), 0);
		ladder_assert_words(fm, LADDER_METHOD, "p t t ttt");
		fake_restart(*state);
		assert_int_equal(core_revert(fm->module, LADDER_METHOD), 0);
		ladder_assert_words(fm, LADDER_METHOD, "p 1 1 111");
		fake_free(*state);
	}
	*state = fake_new(&fake_config);
}

static void slots_of_modules_that_are_gone_are_used_again(void **state)
{
	struct fake_module *fm = module_of(state, TIER_BACKPATCH_LAZY);
	struct fake *fake = *state;
	uint32_t n_used;

	for (uint32_t round = 0; round < 20; round++) {
		ladder_to_final(fm, LADDER_METHOD);
		for (uint32_t i = 0; i < LADDER_SLOTS; i++)
			fake_run_slot(fm, i);
		if (!round)
			n_used = ledger_used(&fake->core->ledger, LEDGER_SLOTS);
		fake_remove(fake, fm);
		if (round % 5 == 4)
			fake_restart(fake);
		fm = ladder_load(fake, true);
	}
	assert_int_equal(ledger_used(&fake->core->ledger, LEDGER_SLOTS), n_used);
}

/* -- Pointers --- */
/* A pointer that a program took at any moment: it is the same at each, and calls through it run what is current. */
static void a_pointer_is_good_for_life(struct fake *fake, struct fake_module *fm)
{
	const uint64_t pointer = fake_pointer(fm, LADDER_METHOD);

	for (enum ladder_at at = AT_COLD; at < _AT_N; at++) {
		struct fake_module *other =
			ladder_load(fake_new(&fake->config), fake_is_backpatchable(fm, LADDER_METHOD));
		uint64_t copied;

		ladder_to(other, LADDER_METHOD, at);
		copied = fake_pointer(other, LADDER_METHOD);
		for (uint32_t body = 1; body < 3; body++) {
			assert_int_equal(core_rejit(other->module, LADDER_METHOD, body), 0);
			assert_int_equal(fake_begin(other, LADDER_METHOD, copied, 0).body, body);
			ladder_climb(other, LADDER_METHOD, FAKE_WAY_POINTER);
			assert_int_equal(fake_begin(other, LADDER_METHOD, copied, 0).level, TIER_LEVEL_TIER1);
		}
		assert_int_equal(core_revert(other->module, LADDER_METHOD), 0);
		fake_begin(other, LADDER_METHOD, copied, 0);
		ladder_climb(other, LADDER_METHOD, FAKE_WAY_POINTER);
		assert_int_equal(fake_begin(other, LADDER_METHOD, copied, 0).body, 0);
		assert_true(fake_pointer(other, LADDER_METHOD) == copied);
		fake_free(other->fake);
	}
	assert_true(fake_pointer(fm, LADDER_METHOD) == pointer);
}

static void pointers_taken_at_any_moment_run_what_is_current(void **state) { ladder_each(a_pointer_is_good_for_life); }

static void a_final_method_is_one_jump_behind_its_pointer(void **state)
{
	for (int policy = 0; policy < _TIER_BACKPATCH_N; policy++) {
		struct fake_module *fm = module_of(state, policy);

		ladder_to_final(fm, LADDER_METHOD);
		assert_true(fm->records[LADDER_METHOD].funcptr == fm->records[LADDER_METHOD].code);
		fake_free(*state);
	}
	*state = fake_new(&fake_config);
}

/* -- Call sites --- */
static const struct core_call_site *site_of(const struct fake_module *fm)
{
	return &fake_code_at(fm, fm->records[LADDER_CALLER].code)->sites[0];
}

static void a_site_follows(struct fake *fake, struct fake_module *fm)
{
	struct tier_record *callee = &fm->records[LADDER_METHOD];
	const struct core_call_site *site;
	struct fake_run run;

	ladder_to_final(fm, LADDER_CALLER);
	site = site_of(fm);
	assert_true(fake_site_target(fm, site) == callee->entry);
	ladder_climb(fm, LADDER_METHOD, FAKE_WAY_PRECODE);
	assert_true(fake_site_target(fm, site) == callee->code);
	run = fake_run_site(fm, site);
	assert_int_equal(n_visits(&run), 0);
	assert_int_equal(core_rejit(fm->module, LADDER_METHOD, 1), 0);
	assert_true(fake_site_target(fm, site) == tier_layout_precode(&fm->layout, LADDER_METHOD));
	run = fake_run_site(fm, site);
	assert_int_equal(run.n_visits[TIER_VISIT_COLD], 1);
	ladder_climb(fm, LADDER_METHOD, FAKE_WAY_SITE);
	assert_true(fake_site_target(fm, site) == callee->code);
	assert_int_equal(core_revert(fm->module, LADDER_METHOD), 0);
	assert_true(fake_site_target(fm, site) == callee->code);
	assert_int_equal(fake_run_site(fm, site).body, 0);
}

static void call_sites_follow_every_transition_of_their_callee(void **state) { ladder_each(a_site_follows); }

static void a_site_of_new_code_leads_to_a_final_callee_at_once(struct fake *fake, struct fake_module *fm)
{
	struct fake_run run;

	ladder_to_final(fm, LADDER_METHOD);
	ladder_to_final(fm, LADDER_CALLER);
	run = fake_run_site(fm, site_of(fm));
	assert_int_equal(n_visits(&run), 0);
	assert_int_equal(run.level, TIER_LEVEL_TIER1);
	assert_int_equal(counters(fm)->n_slots_recorded, 1);
	assert_int_equal(counters(fm)->n_slot_writes, 0); /* a registration is none */
}

static void call_sites_are_registered_with_their_code(void **state)
{
	ladder_each(a_site_of_new_code_leads_to_a_final_callee_at_once);
}

/* Activations that still run in replaced code call through its sites. */
static void a_site_of_replaced_code(struct fake *fake, struct fake_module *fm)
{
	struct core_call_site site;

	ladder_to_final(fm, LADDER_METHOD);
	ladder_to_final(fm, LADDER_CALLER);
	site = *site_of(fm);
	assert_int_equal(core_rejit(fm->module, LADDER_CALLER, 1), 0);
	assert_int_equal(core_rejit(fm->module, LADDER_METHOD, 2), 0);
	assert_int_equal(fake_run_site(fm, &site).body, 2);
	ladder_climb(fm, LADDER_METHOD, FAKE_WAY_PRECODE);
	assert_int_equal(fake_run_site(fm, &site).level, TIER_LEVEL_TIER1);
	fake_restart(fake);
	assert_int_equal(core_revert(fm->module, LADDER_METHOD), 0);
	assert_int_equal(fake_run_site(fm, &site).body, 0);
}

static void call_sites_of_replaced_code_are_kept(void **state) { ladder_each(a_site_of_replaced_code); }

/* -- The older policies --- */
static void eager_lets_direct_calls_pass_uncounted(void **state)
{
	struct fake_module *fm = module_of(state, TIER_BACKPATCH_EAGER);
	struct fake_run run;

	fake_call(fm, LADDER_METHOD);
	assert_int_equal(counters(fm)->n_uncounted_entries, 0);
	fake_pass(*state, 200);
	assert_int_equal(counters(fm)->n_uncounted_entries, 1);
	for (uint32_t i = 0; i < 3 * FAKE_N; i++) {
		assert_true(fake_run(fm, LADDER_METHOD, FAKE_WAY_DIRECT, &run));
		assert_false(run.is_counted);
	}
	assert_int_equal(fake_answer(fm, LADDER_METHOD).remaining, FAKE_N);
	assert_true(fake_run(fm, LADDER_METHOD, FAKE_WAY_SLOT, &run));
	assert_true(run.is_counted);
}

static void eager_leaves_slots_at_the_prestub_when_counting_is_complete(void **state)
{
	struct fake_module *fm = module_of(state, TIER_BACKPATCH_EAGER);
	struct fake_run run;

	fake_call(fm, LADDER_METHOD);
	fake_run_slot(fm, 0);
	ladder_assert_words(fm, LADDER_METHOD, "p 0 0 0tt");
	fake_pass(*state, 200);
	assert_int_equal(counters(fm)->n_stale_completions, 0);
	fake_calls(fm, LADDER_METHOD, FAKE_N);
	assert_int_equal(counters(fm)->n_stale_completions, 1);
	for (uint32_t i = 0; i < 3; i++) { /* each call pays, until the final tier */
		run = fake_run_slot(fm, 0);
		assert_int_equal(run.n_visits[TIER_VISIT_SLOT_AGAIN], 1);
		assert_true(fake_run(fm, LADDER_METHOD, FAKE_WAY_POINTER, &run));
		assert_int_equal(run.n_visits[TIER_VISIT_POINTER], 1);
	}
	fake_end(*state, fm, LADDER_METHOD, TIER_REASON_NONE);
	run = fake_run_slot(fm, 0);
	assert_int_equal(n_visits(&run), 0);
}

static void eager_walks_slots_before_anything_is_final_and_writes_back_and_forth(void **state)
{
	struct fake_module *fm = module_of(state, TIER_BACKPATCH_EAGER);
	uint64_t n;

	fake_call(fm, LADDER_METHOD);
	fake_run_slot(fm, 0);
	n = counters(fm)->n_backpatch_calls;
	assert_true(n >= 1 && counters(fm)->n_oscillations == 0);
	fake_pass(*state, 200);
	assert_true(counters(fm)->n_backpatch_calls > n);
	assert_true(counters(fm)->n_slots_examined >= 1);
	assert_true(counters(fm)->n_oscillations >= 2); /* the slot is T again; so was E, which is c0 again */
	assert_int_equal(counters(fm)->n_slot_writes, 2);
}

static void forwarder_writes_each_slot_at_each_transition(void **state)
{
	struct fake_module *fm = module_of(state, TIER_BACKPATCH_FORWARDER);

	fake_call(fm, LADDER_METHOD);
	fake_run_slot(fm, 0);
	assert_int_equal(counters(fm)->n_slot_writes, 1);
	fake_pass(*state, 200);
	assert_int_equal(counters(fm)->n_slot_writes, 2);
	fake_calls(fm, LADDER_METHOD, FAKE_N);
	assert_int_equal(counters(fm)->n_slot_writes, 3);
	assert_true(counters(fm)->n_oscillations >= 2); /* E and the slot are at tier 0 again */
	fake_end(*state, fm, LADDER_METHOD, TIER_REASON_NONE);
	assert_int_equal(counters(fm)->n_slot_writes, 4);
	assert_int_equal(counters(fm)->n_funcptr_writes, 4);
	assert_int_equal(counters(fm)->n_entry_transitions, 4);
	assert_int_equal(counters(fm)->n_precode_stores, 0);
}

static void a_forwarder_that_does_not_fit_ends_the_ladder(void **state)
{
	struct fake_module *fm = module_of(state, TIER_BACKPATCH_FORWARDER);
	struct fake *fake = *state;

	fake_call(fm, LADDER_METHOD);
	fake->forwarder_result = CORE_E_FULL;
	fake_pass(fake, 200);
	assert_int_equal(fake_answer(fm, LADDER_METHOD).reason, TIER_REASON_ARENA_FULL);
	ladder_check(fm);
	fake_assert_runs(fm, LADDER_METHOD, 0, TIER_LEVEL_TIER0);
}

#define SLOTS_TEST(f) cmocka_unit_test_teardown(f, end_state)

int main(void)
{
	const struct CMUnitTest tests[] = {
		SLOTS_TEST(lazy_touches_no_slot_before_the_first_final_publication),
		SLOTS_TEST(other_bodies_touch_no_slot_either_until_one_is_final),
		SLOTS_TEST(each_cell_is_patched_on_its_own_first_use),
		SLOTS_TEST(a_note_that_got_lost_is_sent_by_the_next_process),
		SLOTS_TEST(the_same_note_many_times_is_one_slot),
		SLOTS_TEST(a_note_about_a_method_at_a_lower_tier_writes_nothing),
		SLOTS_TEST(a_note_that_a_rejit_overtook_is_not_forgotten),
		SLOTS_TEST(a_note_that_counting_overtook_is_not_forgotten),
		SLOTS_TEST(notes_about_modules_that_are_gone_are_nothing),
		SLOTS_TEST(recorded_slots_outlive_the_daemon),
		SLOTS_TEST(slots_of_modules_that_are_gone_are_used_again),
		cmocka_unit_test(pointers_taken_at_any_moment_run_what_is_current),
		SLOTS_TEST(a_final_method_is_one_jump_behind_its_pointer),
		cmocka_unit_test(call_sites_follow_every_transition_of_their_callee),
		cmocka_unit_test(call_sites_are_registered_with_their_code),
		cmocka_unit_test(call_sites_of_replaced_code_are_kept),
		SLOTS_TEST(eager_lets_direct_calls_pass_uncounted),
		SLOTS_TEST(eager_leaves_slots_at_the_prestub_when_counting_is_complete),
		SLOTS_TEST(eager_walks_slots_before_anything_is_final_and_writes_back_and_forth),
		SLOTS_TEST(forwarder_writes_each_slot_at_each_transition),
		SLOTS_TEST(a_forwarder_that_does_not_fit_ends_the_ladder),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
