/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "util/base.h"
#include "util/charge.h"

enum { APPLES, PEARS };

static int setup(void **state)
{
	static struct charge_table table;

	charge_table_init(&table);
	table.limits[APPLES] = 3;
	table.limits[PEARS] = 1;
	*state = &table;
	return 0;
}

static int teardown(void **state)
{
	charge_table_deinit(*state);
	return 0;
}

static void a_charge_stops_at_the_limit(void **state)
{
	struct charge a = CHARGE_NULL, b = CHARGE_NULL;

	assert_int_equal(charge_take(*state, &a, 1000, APPLES, 2), 0);
	assert_int_equal(charge_take(*state, &b, 1000, APPLES, 2), CHARGE_E_QUOTA);
	assert_int_equal(charge_take(*state, &b, 1000, APPLES, 1), 0);
	assert_int_equal(charge_used(*state, 1000, APPLES), 3);
	charge_deinit(&a);
	charge_deinit(&b);
}

static void a_charge_gives_itself_back_once(void **state)
{
	struct charge a = CHARGE_NULL, b = CHARGE_NULL;

	assert_int_equal(charge_take(*state, &a, 1000, APPLES, 1), 0);
	assert_int_equal(charge_take(*state, &b, 1000, APPLES, 1), 0);
	charge_deinit(&a);
	charge_deinit(&a);
	assert_int_equal(charge_used(*state, 1000, APPLES), 1);
	charge_deinit(&b);
	assert_int_equal(charge_used(*state, 1000, APPLES), 0);
}

static void users_and_slots_do_not_share_a_limit(void **state)
{
	struct charge charges[4] = { CHARGE_NULL, CHARGE_NULL, CHARGE_NULL, CHARGE_NULL };

	assert_int_equal(charge_take(*state, &charges[0], 1000, APPLES, 3), 0);
	assert_int_equal(charge_take(*state, &charges[1], 1000, PEARS, 1), 0);
	/* the same bucket as 1000 */
	assert_int_equal(charge_take(*state, &charges[2], 1000 + CHARGE_BUCKETS, APPLES, 3), 0);
	assert_int_equal(charge_take(*state, &charges[3], 1000 + CHARGE_BUCKETS, PEARS, 2), CHARGE_E_QUOTA);
	assert_int_equal(charge_used(*state, 1000, APPLES), 3);
	for (size_t i = 0; i < ARRAY_SIZE(charges); i++)
		charge_deinit(&charges[i]);
}

static void an_overflowing_charge_is_over_the_limit(void **state)
{
	struct charge a = CHARGE_NULL, b = CHARGE_NULL;

	assert_int_equal(charge_take(*state, &a, 1000, APPLES, 1), 0);
	assert_int_equal(charge_take(*state, &b, 1000, APPLES, UINT64_MAX), CHARGE_E_QUOTA);
	charge_deinit(&a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_charge_stops_at_the_limit, setup, teardown),
		cmocka_unit_test_setup_teardown(a_charge_gives_itself_back_once, setup, teardown),
		cmocka_unit_test_setup_teardown(users_and_slots_do_not_share_a_limit, setup, teardown),
		cmocka_unit_test_setup_teardown(an_overflowing_charge_is_over_the_limit, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
