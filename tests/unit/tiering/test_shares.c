/* SPDX-License-Identifier: Apache-2.0 */
#include "tiering/internal.h"
#include "unit/tiering/ladder.h"

/* Tables that all uids share: what one may have of them, and that another is not hurt by it. The shares are made small
 * here. */

#define OTHER_UID (LADDER_UID + 1)

static struct fake_module *load_for(struct fake *fake, uid_t uid)
{
	struct fake_module *fm = fake_load_virtual(fake, uid, "shares", LADDER_METHODS, LADDER_METHODS, LADDER_SLOTS);

	fm->calls[LADDER_CALLER] = 1u << LADDER_METHOD;
	return fm;
}

static uint32_t n_recorded(const struct fake *fake) { return core_counters(fake->core)->n_slots_recorded; }

/* -- Slots --- */
/* A slot that there is no room for leads to the method's own address: calls through it run what is current, without a
 * visit. */
static void assert_slot_is_right(struct fake_module *fm, uint32_t slot)
{
	const uint32_t method = fake_slot_method(fm, slot);
	struct fake_run run;

	fake_run_slot(fm, slot);
	assert_true(fake_slot(fm, slot) == fake_pointer(fm, method));
	run = fake_run_slot(fm, slot);
	assert_int_equal(run.level, TIER_LEVEL_TIER1);
	assert_int_equal(run.n_visits[TIER_VISIT_SLOT] + run.n_visits[TIER_VISIT_SLOT_AGAIN] +
		                 run.n_visits[TIER_VISIT_POINTER],
		         0);
	assert_int_equal(core_rejit(fm->module, method, 1), 0);
	assert_int_equal(fake_run_slot(fm, slot).body, 1);
	assert_int_equal(core_revert(fm->module, method), 0);
	assert_int_equal(fake_run_slot(fm, slot).body, 0);
}

static void a_method_has_so_many_slots(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = load_for(fake, LADDER_UID);

	fake->core->n_method_slots_max = 2;
	ladder_to_final(fm, LADDER_METHOD);
	for (uint32_t i = 0; i < LADDER_SLOTS; i++)
		fake_run_slot(fm, i);
	assert_int_equal(n_recorded(fake), 2);
	assert_slot_is_right(fm, LADDER_SLOTS - 1);
	ladder_to_final(fm, LADDER_OTHER);
	fake_run_slot(fm, fake_slot_first(fm, LADDER_OTHER));
	assert_int_equal(n_recorded(fake), 3);
}

static void slots_of_one_uid_leave_room_for_those_of_others(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = load_for(fake, LADDER_UID), *other = load_for(fake, OTHER_UID);

	fake->core->share[ROWS_SLOTS] = LADDER_SLOTS + 1;
	ladder_to_final(fm, LADDER_METHOD);
	ladder_to_final(fm, LADDER_OTHER);
	for (uint32_t i = 0; i < fm->n_slots; i++)
		if (fake_slot_method(fm, i) == LADDER_METHOD || fake_slot_method(fm, i) == LADDER_OTHER)
			fake_run_slot(fm, i);
	assert_int_equal(n_recorded(fake), LADDER_SLOTS + 1);
	assert_slot_is_right(fm, fake_slot_first(fm, LADDER_OTHER) + 1);
	fake_check(fake);
	ladder_to_final(other, LADDER_METHOD);
	for (uint32_t i = 0; i < LADDER_SLOTS; i++)
		fake_run_slot(other, i);
	assert_int_equal(n_recorded(fake), 2 * LADDER_SLOTS + 1);
	ladder_assert_words(other, LADDER_METHOD, "p 1 1 111");
	fake_restart(fake); /* counted anew */
	fake->core->share[ROWS_SLOTS] = LADDER_SLOTS + 1;
	fake_run_slot(fm, fake_slot_first(fm, LADDER_OTHER) + 2);
	assert_int_equal(n_recorded(fake), 0);
	fake_remove(fake, fm);
	fm = load_for(fake, LADDER_UID); /* what it had is its own again */
	ladder_to_final(fm, LADDER_METHOD);
	for (uint32_t i = 0; i < LADDER_SLOTS; i++)
		fake_run_slot(fm, i);
	assert_int_equal(n_recorded(fake), LADDER_SLOTS);
}

static void call_sites_without_a_row_run_what_is_current(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = load_for(fake, LADDER_UID);
	const struct core_call_site *site;

	fake->core->share[ROWS_SLOTS] = 0;
	ladder_to_final(fm, LADDER_METHOD);
	ladder_to_final(fm, LADDER_CALLER);
	site = &fake_code_at(fm, fm->records[LADDER_CALLER].code)->sites[0];
	assert_int_equal(fake_run_site(fm, site).level, TIER_LEVEL_TIER1);
	assert_int_equal(core_rejit(fm->module, LADDER_METHOD, 1), 0);
	assert_int_equal(fake_run_site(fm, site).body, 1);
	assert_int_equal(n_recorded(fake), 0);
}

/* -- Versions --- */
/* Rejits and calls until there is no room; returns how many there were. */
static uint32_t rejit_until_refused(struct fake_module *fm, uint32_t method)
{
	uint32_t body = 0;
	int r;

	while (!(r = core_rejit(fm->module, method, body + 1))) {
		body++;
		fake_call(fm, method);
		assert_true(body < 1000);
	}
	assert_int_equal(r, CORE_E_QUOTA);
	assert_int_equal(core_method_body(fm->module, method), body);
	fake_assert_runs(fm, method, body, TIER_LEVEL_TIER0);
	return body;
}

static void versions_of_one_uid_leave_room_for_those_of_others(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = load_for(fake, LADDER_UID), *other = load_for(fake, OTHER_UID), *none;
	uint32_t n;

	fake->core->share[ROWS_VERSIONS] = 100;
	n = rejit_until_refused(fm, LADDER_METHOD);
	assert_true(n > 50 && n < 100);
	assert_int_equal(fake_add_module(fake, LADDER_UID, "more", 4, 64, 0, 0, &none), CORE_E_QUOTA);
	fake_restart(fake);
	fake->core->share[ROWS_VERSIONS] = 100;
	assert_int_equal(core_rejit(fm->module, LADDER_METHOD, n + 1), CORE_E_QUOTA);
	ladder_climb(fm, LADDER_OTHER, FAKE_WAY_PRECODE); /* was promised */
	assert_int_equal(core_rejit(other->module, LADDER_METHOD, 1), 0);
	assert_int_equal(fake_add_module(fake, OTHER_UID, "more", 4, 64, 0, 0, &none), 0);
	ladder_climb(other, LADDER_METHOD, FAKE_WAY_PRECODE);
	fake_check(fake);
}

static void a_module_that_asks_for_more_than_a_share_is_refused(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm;

	fake->core->share[ROWS_VERSIONS] = 4 * LEDGER_LADDER;
	assert_int_equal(fake_try_load(fake, LADDER_UID, "large", 5, 10, &fm), CORE_E_QUOTA);
	assert_int_equal(fake_try_load(fake, LADDER_UID, "small", 4, 8, &fm), 0);
	fake_check(fake);
}

/* -- Edges --- */
/* An inlining that is not written down could not be withdrawn. */
static void inlinings_of_one_uid_leave_room_for_those_of_others(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = load_for(fake, LADDER_UID), *other = load_for(fake, OTHER_UID);

	fake->core->share[ROWS_EDGES] = 1;
	fm->inlines[LADDER_CALLER] = fm->inlines[LADDER_OTHER] = other->inlines[LADDER_CALLER] = 1u << LADDER_METHOD;
	ladder_to_final(fm, LADDER_CALLER);
	assert_int_equal(fake_answer(fm, LADDER_CALLER).tier, TIER_LEVEL_TIER1);
	ladder_to_final(fm, LADDER_OTHER);
	assert_int_equal(fake_answer(fm, LADDER_OTHER).reason, TIER_REASON_RESULT_REFUSED);
	fake_assert_runs(fm, LADDER_OTHER, 0, TIER_LEVEL_TIER0);
	ladder_to_final(other, LADDER_CALLER);
	assert_int_equal(fake_answer(other, LADDER_CALLER).tier, TIER_LEVEL_TIER1);
	assert_int_equal(core_rejit(fm->module, LADDER_METHOD, 1), 0);
	fake_assert_runs(fm, LADDER_CALLER, 0, TIER_LEVEL_TIER0);
	fake_check(fake);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		FAKE_TEST(a_method_has_so_many_slots),
		FAKE_TEST(slots_of_one_uid_leave_room_for_those_of_others),
		FAKE_TEST(call_sites_without_a_row_run_what_is_current),
		FAKE_TEST(versions_of_one_uid_leave_room_for_those_of_others),
		FAKE_TEST(a_module_that_asks_for_more_than_a_share_is_refused),
		FAKE_TEST(inlinings_of_one_uid_leave_room_for_those_of_others),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
