/* SPDX-License-Identifier: Apache-2.0 */
#include <time.h>
#include "tiering/internal.h"
#include "unit/tiering/ladder.h"

/* Work that comes in thousands is done in slices: what goes on meanwhile, and how long the longest turn was, for people
 * to read (a busy machine would make an assertion of it fail). */

static uint64_t clock_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	return now.tv_sec * UINT64_C(1000000000) + now.tv_nsec;
}

/* Turns of the loop until nothing is left; returns how many. */
static uint32_t finish(struct fake *fake, uint64_t *longest_ns)
{
	uint32_t n = 0;

	*longest_ns = 0;
	while (fake_is_due(fake)) {
		uint64_t begin = clock_ns();

		fake_fire(fake);
		*longest_ns = MAX(*longest_ns, clock_ns() - begin);
		n++;
	}
	return n;
}

static void tell(const char *what, uint64_t first_ns, uint32_t n_turns, uint64_t longest_ns)
{
	print_message("%s: %.3f ms, then %u turns, the longest %.3f ms\n", what, first_ns / 1e6, n_turns,
		      longest_ns / 1e6);
}

/* -- Walks of slots --- */
static void a_method_with_as_many_slots_as_may_be(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = fake_load_virtual(fake, LADDER_UID, "slots", 1, 1, SHARE_METHOD_SLOTS + 2);
	uint64_t begin, rejit_ns;

	ladder_to_final(fm, 0);
	for (uint32_t i = 0; i < fm->n_slots; i++)
		core_slot_used(fm->module, 0, fake_call_cell(fm, i));
	assert_int_equal(core_counters(fake->core)->n_slots_recorded, SHARE_METHOD_SLOTS);
	begin = clock_ns();
	assert_int_equal(core_rejit(fm->module, 0, 1), 0);
	rejit_ns = clock_ns() - begin;
	begin = clock_ns();
	assert_int_equal(core_revert(fm->module, 0), 0);
	print_message("rejit of a method with %u slots: %.3f ms, revert: %.3f ms\n", SHARE_METHOD_SLOTS, rejit_ns / 1e6,
		      (clock_ns() - begin) / 1e6);
}

/* Each of them is walked when counting begins, under forwarder. */
static void methods_with_many_slots_that_are_counted_at_once(void **state)
{
	enum { METHODS = 64, EACH = 1024 };
	struct core_config config = fake_config;
	struct fake *fake = NULL;
	struct fake_module *fm;
	uint64_t longest_ns;
	uint32_t n_turns;

	config.backpatch = TIER_BACKPATCH_FORWARDER;
	fake = fake_new(&config);
	fm = fake_load_virtual(fake, LADDER_UID, "slots", METHODS, METHODS, EACH);
	for (uint32_t i = 0; i < METHODS; i++)
		fake_call(fm, i);
	for (uint32_t i = 0; i < fm->n_slots; i++)
		core_slot_used(fm->module, fake_slot_method(fm, i), fake_call_cell(fm, i));
	fake->now_ns = fake->armed_ns;
	fake_fire(fake); /* there were first calls: a period more */
	fake->now_ns = fake->armed_ns;
	n_turns = finish(fake, &longest_ns);
	assert_true(n_turns > METHODS * EACH / SLICE_SLOTS / SLICE_BUDGET);
	tell("counting begins for methods with 65536 slots", 0, n_turns, longest_ns);
	for (uint32_t i = 0; i < METHODS; i++)
		assert_int_equal(ladder_stage(fm, i), TIER_STAGE_COUNTING);
	fake_check(fake);
	fake_free(fake);
}

/* -- Inliners --- */
#define INLINERS 3000u

/* All but the first inlined the first. */
static struct fake_module *load_inliners(struct fake *fake)
{
	struct fake_module *fm = fake_load_virtual(fake, LADDER_UID, "inliners", INLINERS + 1, INLINERS + 1, 1);

	for (uint32_t i = 0; i < ARRAY_SIZE(fm->inlines); i++)
		fm->inlines[i] = 1;
	for (uint32_t i = 1; i <= INLINERS; i++) {
		fake_call(fm, i);
		fake_calls(fm, i, FAKE_N);
		assert_true(fake_end(fake, fm, i, TIER_REASON_NONE));
	}
	return fm;
}

/* What runs now ends well. */
static void end_jobs(struct fake *fake)
{
	const uint32_t n = fake->n_jobs;

	for (uint32_t i = 0; i < n; i++)
		if (fake->jobs[i].is_active)
			fake_end_job(fake, &fake->jobs[i], TIER_REASON_NONE);
}

/* As the daemon does it: the same call in each turn, while jobs end. @body 0: revert. Returns how many turns it took. */
static uint32_t replace(struct fake_module *fm, uint32_t body, uint64_t *longest_ns)
{
	const uint32_t before = core_method_body(fm->module, 0);
	uint32_t n = 0;
	int r;

	*longest_ns = 0;
	do {
		uint64_t begin = clock_ns();

		r = body ? core_rejit(fm->module, 0, body) : core_revert(fm->module, 0);
		*longest_ns = MAX(*longest_ns, clock_ns() - begin);
		assert_int_equal(core_method_body(fm->module, 0), r ? before : body);
		for (int i = 0; i < 4 && r; i++)
			end_jobs(fm->fake);
		if (n++ % 10 == 0)
			fake_check(fm->fake);
	} while (r == CORE_E_AGAIN);
	assert_int_equal(r, 0);
	return n;
}

static void a_method_that_thousands_inlined_is_replaced_in_slices(void **state)
{
	struct core_config config = fake_config;
	struct fake_module *fm;
	struct fake *fake;
	uint64_t longest_ns;
	uint32_t n;

	config.delay_ns = 0;
	fake = fake_new(&config);
	fm = load_inliners(fake);
	for (uint32_t body = 2; body--;) { /* and back */
		n = replace(fm, body, &longest_ns);
		assert_true(n > INLINERS * SLICE_TRANSITION / SLICE_BUDGET);
		print_message("replacing a body that %u inlined: %u turns, the longest %.3f ms\n", INLINERS, n,
			      longest_ns / 1e6);
		for (uint32_t i = 0; i <= INLINERS; i++)
			fake_call(fm, i); /* runs what is current */
		while (core_pending(fake->core, CORE_SCOPE_ALL, NULL, 0))
			end_jobs(fake);
		fake_check(fake);
	}
	assert_true(core_counters(fake->core)->n_withdrawn >= 2 * INLINERS);
	fake_free(fake);
}

/* Who asked for it may go in between: the old body stays, and whoever was withdrawn climbs again. */
static void a_replacement_that_nobody_goes_on_with_leaves_the_old_body(void **state)
{
	struct core_config config = fake_config;
	struct fake_module *fm;
	struct fake *fake;
	uint64_t longest_ns;

	config.delay_ns = 0;
	fake = fake_new(&config);
	fm = load_inliners(fake);
	assert_int_equal(core_rejit(fm->module, 0, 1), CORE_E_AGAIN);
	fake_restart(fake);
	fake_assert_runs(fm, INLINERS, 0, TIER_LEVEL_TIER1);
	fake_assert_runs(fm, 1, 0, TIER_LEVEL_TIER0);
	ladder_climb(fm, 1, FAKE_WAY_PRECODE);
	fake_assert_runs(fm, 1, 0, TIER_LEVEL_TIER1);
	replace(fm, 2, &longest_ns);
	fake_check(fake);
	fake_free(fake);
}

/* -- Removal --- */
#define MANY_METHODS (LEDGER_METHODS_MAX / 8)
#define MANY_BODIES  20000u

/* Every method was called, one was replaced many times and has as many slots as may be. */
static struct fake_module *load_many(struct fake *fake, uid_t uid)
{
	struct fake_module *fm = fake_load_virtual(fake, uid, "many", MANY_METHODS, 1, SHARE_METHOD_SLOTS);

	for (uint32_t i = 1; i < MANY_METHODS; i++)
		fake_call(fm, i);
	ladder_to_final(fm, 0);
	for (uint32_t i = 0; i < fm->n_slots; i++)
		core_slot_used(fm->module, 0, fake_call_cell(fm, i));
	for (uint32_t body = 1; body <= MANY_BODIES; body++) {
		assert_int_equal(core_rejit(fm->module, 0, body), 0);
		fake_call(fm, 0);
	}
	return fm;
}

static void a_large_module_goes_in_slices(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm, *other = fake_load(fake, LADDER_UID + 1, "other", 2);
	uint64_t begin, first_ns, longest_ns;
	struct core_stats stats;
	uint32_t n_turns;

	fake->core->share[ROWS_VERSIONS] = LEDGER_VERSIONS_MAX;
	fm = load_many(fake, LADDER_UID);
	begin = clock_ns();
	core_module_remove(fm->module);
	first_ns = clock_ns() - begin;
	fake_module_drop(fm);
	fake_check(fake);
	fm = fake_load(fake, LADDER_UID, "many", 2); /* name and share are free at once */
	fake_call(fm, 0);
	fake_fire(fake);
	fake_check(fake);
	n_turns = finish(fake, &longest_ns);
	assert_true(n_turns > (MANY_METHODS + MANY_BODIES) / SLICE_BUDGET);
	tell("removal of 32768 methods, 8192 slots and 52768 versions", first_ns, n_turns, longest_ns);
	core_stats(fake->core, &stats);
	assert_true(stats.n_modules == 2 && stats.n_methods == 4 && stats.n_versions == 1);
	assert_int_equal(fake_call(other, 0), FAKE_PRESTUB);
	fake_check(fake);
}

static void a_successor_finds_nothing_of_a_module_that_was_going(void **state)
{
	struct fake *fake = *state;
	struct core_stats stats;
	uint32_t n_used;

	fake->core->share[ROWS_VERSIONS] = LEDGER_VERSIONS_MAX;
	fake_remove(fake, load_many(fake, LADDER_UID));
	fake_fire(fake);
	n_used = ledger_used(&fake->core->ledger, LEDGER_VERSIONS);
	fake_restart(fake);
	core_stats(fake->core, &stats);
	assert_true(stats.n_modules == 0 && stats.n_methods == 0 && stats.n_versions == 0);
	fake->core->share[ROWS_VERSIONS] = LEDGER_VERSIONS_MAX;
	load_many(fake, LADDER_UID);
	assert_int_equal(ledger_used(&fake->core->ledger, LEDGER_VERSIONS), n_used);
}

/* -- Freezing --- */
static void a_large_module_is_frozen_in_slices(void **state)
{
	struct core_config config = fake_config;
	struct fake_module *fm;
	struct fake *fake;
	uint64_t begin, first_ns, longest_ns;
	uint32_t n_turns;

	config.delay_ns = 0;
	fake = fake_new(&config);
	assert_int_equal(fake_try_load(fake, LADDER_UID, "many", MANY_METHODS, MANY_METHODS, &fm), 0);
	for (uint32_t i = 0; i < MANY_METHODS; i++) {
		fake_call(fm, i);
		fm->cells[fm->records[i].cell] = 0;
	}
	core_sweep(fake->core, NULL);
	finish(fake, &longest_ns);
	for (int round = 0; round < 2; round++) {
		begin = clock_ns();
		if (round)
			core_thaw(fm->module);
		else
			core_freeze(fm->module);
		first_ns = clock_ns() - begin;
		n_turns = finish(fake, &longest_ns);
		assert_true(n_turns > MANY_METHODS / SLICE_BUDGET);
		tell(round ? "a module with 32768 methods that wait is thawed"
			   : "a module with 32768 methods that wait is frozen",
		     first_ns, n_turns, longest_ns);
	}
	fake_check(fake);
	fake_free(fake);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		FAKE_TEST(a_method_with_as_many_slots_as_may_be),
		cmocka_unit_test(methods_with_many_slots_that_are_counted_at_once),
		cmocka_unit_test(a_method_that_thousands_inlined_is_replaced_in_slices),
		cmocka_unit_test(a_replacement_that_nobody_goes_on_with_leaves_the_old_body),
		cmocka_unit_test(a_large_module_is_frozen_in_slices),
		FAKE_TEST(a_large_module_goes_in_slices),
		FAKE_TEST(a_successor_finds_nothing_of_a_module_that_was_going),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
