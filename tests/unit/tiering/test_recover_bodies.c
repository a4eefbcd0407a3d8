/* SPDX-License-Identifier: Apache-2.0 */
#include "unit/tiering/crash.h"
#include "unit/tiering/ladder.h"

/* Takeovers in the middle of rejits, reverts, withdrawals and slots, under every policy: between any two requests, and
 * at any instruction of one */

enum { LEAF, MID, CALLER, LATE, METHODS };

static struct fake_module *module_of(struct fake *fake)
{
	struct module *module = core_module_by_name(fake->core, LADDER_UID, "m");

	assert_non_null(module);
	return core_module_context(module);
}

static uint32_t n_backpatchable; /* of the module that the story loads */
static uint64_t late_stub;

static void load(struct fake *fake)
{
	struct fake_module *fm = fake_load_virtual(fake, LADDER_UID, "m", METHODS, n_backpatchable, 2);

	fm->inlines[MID] = 1u << LEAF;
	fm->calls[CALLER] = 1u << LEAF;
}

static void call_ways(struct fake *fake, uint32_t method)
{
	struct fake_module *fm = module_of(fake);

	for (int way = 0; way < _FAKE_WAY_N; way++)
		fake_run(fm, method, way, &(struct fake_run){0});
}

static void call_leaf(struct fake *fake) { call_ways(fake, LEAF); }
static void call_mid(struct fake *fake) { call_ways(fake, MID); }
static void call_caller(struct fake *fake) { call_ways(fake, CALLER); }
static void call_late(struct fake *fake) { fake_call(module_of(fake), LATE); }
static void pass(struct fake *fake) { fake_pass(fake, 100); }

static void end_jobs(struct fake *fake)
{
	for (uint32_t i = 0; i < fake->n_jobs; i++)
		if (fake->jobs[i].is_active)
			fake_end_job(fake, &fake->jobs[i], TIER_REASON_NONE);
}

static void rejit(struct fake *fake, uint32_t method)
{
	struct fake_module *fm = module_of(fake);

	assert_int_equal(core_rejit(fm->module, method, fake->n_events), 0); /* an id that it never had */
}

static void rejit_leaf(struct fake *fake) { rejit(fake, LEAF); }
static void rejit_mid(struct fake *fake) { rejit(fake, MID); }
static void rejit_late(struct fake *fake) { rejit(fake, LATE); }
static void revert_leaf(struct fake *fake) { assert_int_equal(core_revert(module_of(fake)->module, LEAF), 0); }
static void revert_mid(struct fake *fake) { assert_int_equal(core_revert(module_of(fake)->module, MID), 0); }
static void revert_late(struct fake *fake) { assert_int_equal(core_revert(module_of(fake)->module, LATE), 0); }
static void take_late_stub(struct fake *fake) { late_stub = module_of(fake)->records[LATE].precode; }

static void cross_late(struct fake *fake)
{
	struct fake_module *fm = module_of(fake);
	struct fake_run run = {0};

	if (fake->config.counting_in_prestub || (fake->config.backpatch == TIER_BACKPATCH_FORWARDER && n_backpatchable))
		return; /* there is no stub in P */
	while (!run.is_crossed)
		run = fake_go(fm, LATE, late_stub, 0);
	fake_ring(fm, LATE, run.counted);
}

static void (*const story[])(struct fake *fake) = {
	load,
	/* cold, and called for the first time with another body */
	rejit_leaf,
	call_leaf,
	revert_leaf,
	call_leaf,
	rejit_leaf,
	revert_leaf,
	call_mid,
	call_caller,
	call_late,
	pass,
	pass,
	call_leaf,
	call_mid,
	call_caller,
	take_late_stub,
	call_late,
	/* counting, then in flight */
	rejit_leaf,
	revert_leaf,
	call_leaf,
	call_mid,
	rejit_mid,
	call_mid,
	end_jobs,
	revert_mid,
	end_jobs,
	call_caller,
	call_leaf,
	end_jobs,
	pass,
	end_jobs,
	pass,
	end_jobs,
	call_mid,
	call_caller,
	end_jobs,
	call_leaf,
	call_mid,
	/* final, inlined, called through sites and slots */
	rejit_leaf,
	call_mid,
	call_leaf,
	end_jobs,
	pass,
	pass,
	end_jobs,
	call_leaf,
	call_leaf,
	call_leaf,
	end_jobs,
	call_leaf,
	rejit_leaf,
	end_jobs,
	revert_leaf,
	end_jobs,
	call_mid,
	rejit_mid,
	rejit_leaf,
	rejit_leaf,
	revert_mid,
	end_jobs,
	revert_leaf,
	call_leaf,
	/* a late threshold */
	rejit_late,
	call_late,
	cross_late,
	pass,
	revert_late,
	end_jobs,
	rejit_late,
	call_late,
	end_jobs,
	pass,
	pass,
};

static void run(struct fake *fake, bool is_disturbed)
{
	for (unsigned int i = 0; i < ARRAY_SIZE(story); i++) {
		story[i](fake);
		if (!ledger_crash_point)
			ladder_check_all(fake);
		if (is_disturbed)
			fake_restart(fake);
	}
}

static struct fake *world(uint32_t i)
{
	n_backpatchable = i & 2 ? METHODS : 0;
	return ladder_fake(i / 4, i & 1);
}
#define N_WORLDS (4 * _TIER_BACKPATCH_N)

/* -- Between requests --- */
/* But for the places of code: what a compile wasted is used again by a successor. */
static void assert_same(struct fake_module *one, struct fake_module *two)
{
	for (uint32_t i = 0; i < METHODS; i++) {
		char words[2][16];

		ladder_words(one, i, words[0]);
		ladder_words(two, i, words[1]);
		assert_string_equal(words[0], words[1]);
		assert_true(one->records[i].state == two->records[i].state);
		assert_int_equal(fake_answer(one, i).remaining, fake_answer(two, i).remaining);
		assert_int_equal(one->records[i].version, two->records[i].version);
	}
	assert_memory_equal(one->cells, two->cells, one->layout.n_cells * sizeof(*one->cells));
}

static void losing_the_heap_after_every_step_changes_nothing(void **state)
{
	for (uint32_t i = 0; i < N_WORLDS; i++) {
		struct fake *calm = world(i), *disturbed = world(i);

		run(calm, false);
		run(disturbed, true);
		assert_int_equal(disturbed->n_events, calm->n_events);
		assert_memory_equal(disturbed->events, calm->events, calm->n_events * sizeof(*calm->events));
		assert_same(module_of(calm), module_of(disturbed));
		fake_free(calm);
		fake_free(disturbed);
	}
}

static void the_story_has_it_all(void **state)
{
	struct fake *fake = world(2);

	run(fake, false);
	assert_true(fake_n_events(fake, TIER_EVENT_REJITTED) >= 8);
	assert_true(fake_n_events(fake, TIER_EVENT_REVERTED) >= 6);
	assert_true(fake_n_events(fake, TIER_EVENT_WITHDRAWN) >= 3);
	assert_true(core_counters(fake->core)->n_slots_recorded >= 4);
	assert_true(fake_n_paths(fake, TIER_PATH_DIFF_VERSION_NON_FINAL) == 1);
	fake_free(fake);
}

/* -- At any instruction --- */
/* Who is told last that a body was replaced or came back is right. */
static void assert_bodies(struct fake *fake)
{
	uint8_t last[METHODS] = {0};
	struct fake_module *fm = module_of(fake);

	for (uint32_t i = 0; i < fake->n_events; i++) {
		const struct tier_event *event = &fake->events[i];

		if (event->kind == TIER_EVENT_REJITTED || event->kind == TIER_EVENT_REVERTED)
			last[event->method] = event->kind;
	}
	for (uint32_t i = 0; i < METHODS; i++)
		assert_int_equal(core_method_body(fm->module, i) != 0, last[i] == TIER_EVENT_REJITTED);
}

static void check_successor(struct fake *fake)
{
	ladder_check_all(fake);
	if (!core_module_by_name(fake->core, LADDER_UID, "m"))
		return;
	assert_bodies(fake);
	for (uint32_t i = 0; i < METHODS; i++)
		call_ways(fake, i);
	ladder_check_all(fake);
}

static void run_calmly(struct fake *fake) { run(fake, false); }

static void a_successor_goes_on(uint32_t world_kind)
{
	struct fake *fake = world(world_kind);
	uint32_t n_crashes = crash_run(fake, run_calmly, check_successor);

	print_message("died at %u points\n", n_crashes);
	assert_true(n_crashes > 1000);
	fake_free(fake);
}

static void a_successor_goes_on_under_lazy(void **state) { a_successor_goes_on(4 * TIER_BACKPATCH_LAZY + 2); }
static void a_successor_goes_on_under_eager(void **state) { a_successor_goes_on(4 * TIER_BACKPATCH_EAGER + 2); }
static void a_successor_goes_on_under_forwarder(void **state) { a_successor_goes_on(4 * TIER_BACKPATCH_FORWARDER + 2); }
static void a_successor_goes_on_without_slots(void **state) { a_successor_goes_on(4 * TIER_BACKPATCH_LAZY); }
static void a_successor_goes_on_counting_in_the_prestub(void **state)
{
	a_successor_goes_on(4 * TIER_BACKPATCH_EAGER + 3);
}

/* -- At each point of a ladder --- */
static void takeover_beside(struct fake *fake, bool is_backpatchable, enum ladder_at at)
{
	struct fake_module *fm = ladder_load(fake, is_backpatchable);

	ladder_to(fm, LADDER_METHOD, at);
	assert_int_equal(core_rejit(fm->module, LADDER_METHOD, 1), 0);
	fake_restart(fake);
	assert_int_equal(core_method_body(fm->module, LADDER_METHOD), 1);
	assert_int_equal(fake_answer(fm, LADDER_METHOD).status, TIER_STATUS_COLD);
	fake_assert_runs(fm, LADDER_METHOD, 1, TIER_LEVEL_TIER0);
	ladder_check_all(fake);
	fake_restart(fake);
	assert_int_equal(core_revert(fm->module, LADDER_METHOD), 0);
	fake_restart(fake);
	if (at == AT_COUNTING)
		assert_int_equal(fake_answer(fm, LADDER_METHOD).remaining, 1);
	if (at == AT_FINAL)
		fake_assert_runs(fm, LADDER_METHOD, 0, TIER_LEVEL_TIER1);
	ladder_climb(fm, LADDER_METHOD, FAKE_WAY_POINTER);
	fake_assert_runs(fm, LADDER_METHOD, 0, at == AT_FAILED ? TIER_LEVEL_TIER0 : TIER_LEVEL_TIER1);
	ladder_check_all(fake);
}

static void what_is_away_outlives_the_daemon(void **state)
{
	for (uint32_t i = 0; i < N_WORLDS; i++)
		for (int at = AT_COLD; at < _AT_N; at++) {
			struct fake *fake = ladder_fake(i / 4, i & 1);

			takeover_beside(fake, i & 2, at);
			fake_free(fake);
		}
}

/* -- A body that is no more --- */
/* Its job was outside when a third body came, and when the daemon died: nobody has what it was to be made of. */
static void a_job_of_a_body_that_never_returns_has_ended_for_a_successor(void **state)
{
	struct fake *fake = ladder_fake(TIER_BACKPATCH_LAZY, false);
	struct fake_module *fm = ladder_load(fake, false);
	uint64_t version;

	assert_int_equal(core_rejit(fm->module, LADDER_METHOD, 1), 0);
	ladder_to(fm, LADDER_METHOD, AT_COMPILING);
	version = fake_job(fake, fm, LADDER_METHOD)->version;
	assert_int_equal(core_rejit(fm->module, LADDER_METHOD, 2), 0);
	fake_restart(fake);
	assert_false(fake_job(fake, fm, LADDER_METHOD));
	assert_int_equal(fake_newest(fake)->kind, TIER_EVENT_COMPILE_ENDED);
	assert_int_equal(fake_newest(fake)->reason, TIER_REASON_REJIT);
	assert_true(fake_newest(fake)->version == version);
	assert_int_equal(core_pending(fake->core, CORE_SCOPE_ALL, NULL, 0), 0);
	assert_int_equal(core_n_compiling(fm->module), 0);
	ladder_climb(fm, LADDER_METHOD, FAKE_WAY_POINTER);
	fake_assert_runs(fm, LADDER_METHOD, 2, TIER_LEVEL_TIER1);
	ladder_check_all(fake);
	fake_free(fake);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(losing_the_heap_after_every_step_changes_nothing),
		cmocka_unit_test(the_story_has_it_all),
		cmocka_unit_test(a_successor_goes_on_under_lazy),
		cmocka_unit_test(a_successor_goes_on_under_eager),
		cmocka_unit_test(a_successor_goes_on_under_forwarder),
		cmocka_unit_test(a_successor_goes_on_without_slots),
		cmocka_unit_test(a_successor_goes_on_counting_in_the_prestub),
		cmocka_unit_test(what_is_away_outlives_the_daemon),
		cmocka_unit_test(a_job_of_a_body_that_never_returns_has_ended_for_a_successor),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
