/* SPDX-License-Identifier: Apache-2.0 */
#include "tiering/internal.h"
#include "unit/tiering/fake.h"

/* Modules: names, ids, room, and what is left of one when it goes */

#define UID 1000

static void a_module_is_found_by_id_and_by_its_owners_name_for_it(void **state)
{
	struct fake *fake = *state;
	struct fake_module *mine = fake_load(fake, UID, "m", 1), *theirs = fake_load(fake, UID + 1, "m", 1);

	assert_ptr_equal(core_module_by_id(fake->core, mine->id), mine->module);
	assert_ptr_equal(core_module_by_name(fake->core, UID, "m"), mine->module);
	assert_ptr_equal(core_module_by_name(fake->core, UID + 1, "m"), theirs->module);
	assert_null(core_module_by_name(fake->core, UID + 2, "m"));
	assert_null(core_module_by_name(fake->core, UID, "n"));
	assert_null(core_module_by_id(fake->core, 0));
	assert_null(core_module_by_id(fake->core, 99));
}

static void a_name_is_taken_until_it_is_given_up(void **state)
{
	struct fake *fake = *state;
	struct fake_module *old = fake_load(fake, UID, "m", 1), *new;
	struct core_module_info info;

	assert_int_equal(fake_try_load(fake, UID, "m", 1, 1, &new), CORE_E_EXISTS);
	core_module_unname(old->module);
	core_module_unname(old->module);
	assert_int_equal(fake_n_events(fake, TIER_EVENT_MODULE_UNLOADED), 1);
	new = fake_load(fake, UID, "m", 1);
	assert_ptr_equal(core_module_by_name(fake->core, UID, "m"), new->module);
	core_module_info(old->module, &info);
	assert_string_equal(info.name, "m");
	assert_false(info.named);
	/* it still works for who holds it */
	assert_int_equal(core_prepare(old->module, 0), 0);
	fake_remove(fake, old);
	assert_int_equal(fake_n_events(fake, TIER_EVENT_MODULE_UNLOADED), 1);
}

static void a_name_has_1_to_63_bytes(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm;
	char name[65];

	memset(name, 'x', 64);
	name[64] = 0;
	assert_int_equal(fake_try_load(fake, UID, "", 1, 1, &fm), -EINVAL);
	assert_int_equal(fake_try_load(fake, UID, name, 1, 1, &fm), -EINVAL);
	name[63] = 0;
	assert_int_equal(fake_try_load(fake, UID, name, 1, 1, &fm), 0);
	assert_ptr_equal(core_module_by_name(fake->core, UID, name), fm->module);
}

static void modules_come_in_the_order_of_their_ids_however_long_they_took_to_load(void **state)
{
	struct fake *fake = *state;
	uint64_t ids[3];
	struct module *module = NULL;

	for (int i = 0; i < 3; i++)
		ids[i] = core_take_module_id(fake->core);
	for (int i = 2; i >= 0; i--) {
		struct fake_module *fm = &fake->modules[i];
		char name[2] = { 'a' + i, 0 };

		fake_module_make(fm, ids[i], UID, 1, 2);
		fm->fake = fake;
		assert_int_equal(core_module_add(&fm->module, fake->core, ids[i], UID, name, true, &fm->layout, 0, fm->header,
						 fm->records, fm->cells, fm), 0);
	}
	for (int i = 0; i < 3; i++) {
		module = core_module_next(fake->core, module);
		assert_ptr_equal(module, fake->modules[i].module);
		assert_ptr_equal(core_module_context(module), &fake->modules[i]);
	}
	assert_null(core_module_next(fake->core, module));
}

static void ids_are_never_used_again(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = fake_load(fake, UID, "m", 1);
	uint64_t id = fm->id, version;

	fake_call(fm, 0);
	version = fm->records[0].version;
	fake_remove(fake, fm);
	assert_null(core_module_by_id(fake->core, id));
	fake_restart(fake);
	fm = fake_load(fake, UID, "m", 1);
	fake_call(fm, 0);
	assert_true(fm->id > id && fm->records[0].version > version);
}

static void the_ledger_admits_only_what_it_has_room_for(void **state)
{
	struct fake *fake = *state;
	struct fake_module *big, *fm;

	fake->core->share[ROWS_VERSIONS] = LEDGER_VERSIONS_MAX;
	big = fake_load(fake, UID, "big", LEDGER_METHODS_MAX - 1);
	assert_int_equal(fake_try_load(fake, UID + 1, "m", 2, 2, &fm), CORE_E_QUOTA);
	assert_int_equal(fake_try_load(fake, UID + 1, "m", 1, 2, &fm), 0);
	fake_remove(fake, big);
	assert_int_equal(fake_try_load(fake, UID + 1, "n", 2, 2, &fm), 0);
}

/* Comes and goes thousands of times: slots are used again, so the ledger does not grow. */
static void a_gone_modules_slots_are_used_again(void **state)
{
	struct fake *fake = *state;
	struct core_stats stats;
	struct ledger ledger;

	for (int i = 0; i < 300; i++) {
		struct fake_module *fm = fake_load(fake, UID + i % 3, "m", 5);

		for (uint32_t k = 0; k < 4; k++)
			fake_call(fm, k);
		fake_pass(fake, 200);
		fake_calls(fm, 1, FAKE_N);
		if (i % 2)
			fake_end(fake, fm, 1, TIER_REASON_NONE);
		if (i % 7 == 0)
			fake_restart(fake);
		fake_remove(fake, fm);
		fake_check(fake);
	}
	core_stats(fake->core, &stats);
	assert_true(stats.n_modules == 0 && stats.n_methods == 0 && stats.n_versions == 0);
	assert_int_equal(ledger_open(&ledger, fake->memory, ledger_size()), 0);
	assert_int_equal(ledger_used(&ledger, LEDGER_MODULES), 1);
	assert_int_equal(ledger_used(&ledger, LEDGER_USERS), 1);
	assert_int_equal(ledger_used(&ledger, LEDGER_METHODS), 4);
	assert_int_equal(ledger_used(&ledger, LEDGER_VERSIONS), 5);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		FAKE_TEST(a_module_is_found_by_id_and_by_its_owners_name_for_it),
		FAKE_TEST(a_name_is_taken_until_it_is_given_up),
		FAKE_TEST(a_name_has_1_to_63_bytes),
		FAKE_TEST(modules_come_in_the_order_of_their_ids_however_long_they_took_to_load),
		FAKE_TEST(ids_are_never_used_again),
		FAKE_TEST(the_ledger_admits_only_what_it_has_room_for),
		FAKE_TEST(a_gone_modules_slots_are_used_again),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
