/* SPDX-License-Identifier: Apache-2.0 */
#include "unit/server/world.h"

/* LIST, METHODS, IMPORTS, FIND */

static void the_list_has_what_the_client_sees_with_a_census(void **state)
{
	struct world *world = *state;
	struct fake_module *fm = world_module(world, 1000, "mine", false, 4);
	struct wire_cursor cursor = {};
	const struct wire_module_row *row;
	struct client a, b;

	world_module(world, 1001, "theirs", false, 1);
	world_module(world, 1001, "shared", true, 2);
	world_finish(world, fm, 0);
	fake_call(fm, 1);
	client_hello(&a, world, 1000);
	client_hello(&b, world, 1002);
	client_ask(&a, WIRE_LIST, &cursor, WIRE_MODULES);
	assert_int_equal(a.message.modules.n, 2);
	assert_int_equal(a.message.modules.more, 0);
	row = a.message.modules.rows;
	assert_int_equal(row[0].module, fm->id);
	assert_string_equal(row[0].name, "mine");
	assert_int_equal(row[0].n_methods, 4);
	assert_int_equal(row[0].n_status[TIER_STATUS_COLD], 2);
	assert_int_equal(row[0].n_status[TIER_STATUS_OPTIMIZING], 1);
	assert_int_equal(row[0].n_status[TIER_STATUS_FINAL], 1);
	assert_int_equal(row[0].n_pending, 0);
	assert_string_equal(row[1].name, "shared");
	assert_int_equal(row[1].flags, WIRE_MODULE_SHARED);
	assert_int_equal(row[1].uid, 1001);
	assert_int_equal(client_ask(&b, WIRE_LIST, &cursor, WIRE_MODULES)->modules.n, 1);
	client_leave(&a);
	client_leave(&b);
}

static void the_list_goes_on_behind_its_cursor(void **state)
{
	struct world *world = *state;
	struct fake_module *fm[4];
	struct wire_cursor cursor = {};
	struct client root;

	for (int i = 0; i < 4; i++)
		fm[i] = world_module(world, 1000, (char[]){ 'a' + i, 0 }, false, i == 1 ? 19999 : 3);
	client_hello(&root, world, 0);
	client_ask(&root, WIRE_LIST, &cursor, WIRE_MODULES);	/* stops where counting would take too long */
	assert_int_equal(root.message.modules.n, 1);
	assert_int_equal(root.message.modules.more, 1);
	cursor.cursor = fm[0]->id;
	client_ask(&root, WIRE_LIST, &cursor, WIRE_MODULES);
	assert_int_equal(root.message.modules.n, 1);
	assert_int_equal(root.message.modules.rows[0].n_status[TIER_STATUS_COLD], 19999);
	cursor.cursor = fm[1]->id;
	world_release(world, fm[1]->module);			/* the cursor's module is gone meanwhile */
	client_ask(&root, WIRE_LIST, &cursor, WIRE_MODULES);
	assert_int_equal(root.message.modules.n, 2);
	assert_int_equal(root.message.modules.more, 0);
	assert_int_equal(root.message.modules.rows[0].module, fm[2]->id);
	cursor.cursor = UINT64_MAX;
	assert_int_equal(client_ask(&root, WIRE_LIST, &cursor, WIRE_MODULES)->modules.n, 0);
	client_leave(&root);
}

static void names_come_in_batches(void **state)
{
	struct world *world = *state;
	struct fake_module *fm = world_module(world, 1000, "m", false, 40);
	struct wire_cursor cursor = { .module = fm->id };
	struct client a, other;

	client_hello(&a, world, 1000);
	client_ask(&a, WIRE_METHODS, &cursor, WIRE_NAMES);
	assert_int_equal(a.message.names.n, 32);
	assert_int_equal(a.message.names.more, 1);
	assert_string_equal(a.message.names.rows[31].name, "method_31");
	assert_int_equal(a.message.names.rows[0].flags, 1);
	cursor.cursor = 32;
	client_ask(&a, WIRE_METHODS, &cursor, WIRE_NAMES);
	assert_int_equal(a.message.names.n, 8);
	assert_int_equal(a.message.names.more, 0);
	assert_int_equal(a.message.names.rows[0].index, 32);
	cursor.cursor = 8;
	assert_int_equal(client_ask(&a, WIRE_METHODS, &cursor, WIRE_NAMES)->names.more, 0);
	cursor.cursor = 1ull << 32;
	assert_int_equal(client_ask(&a, WIRE_METHODS, &cursor, WIRE_NAMES)->names.n, 0);
	cursor.cursor = 0;
	client_ask(&a, WIRE_IMPORTS, &cursor, WIRE_NAMES);
	assert_int_equal(a.message.names.n, 1);
	assert_string_equal(a.message.names.rows[0].name, "host");
	client_hello(&other, world, 1001);
	client_ask_error(&other, WIRE_METHODS, &cursor, TIER_ERROR_NO_MODULE);
	client_leave(&a);
	client_leave(&other);
}

static void a_method_is_found_by_name(void **state)
{
	struct world *world = *state;
	struct fake_module *fm = world_module(world, 1000, "m", false, 4);
	struct wire_find find = { .module = fm->id, .method = "method_3" };
	struct client a;

	client_hello(&a, world, 1000);
	client_ask(&a, WIRE_FIND, &find, WIRE_FOUND);
	assert_int_equal(a.message.method.method, 3);
	assert_int_equal(a.message.method.module, fm->id);
	strcpy(find.method, "method_4");
	client_ask_error(&a, WIRE_FIND, &find, TIER_ERROR_NO_METHOD);
	assert_string_equal(a.message.error.text, "module 'm' has no method 'method_4'");
	find.module = 99;
	client_ask_error(&a, WIRE_FIND, &find, TIER_ERROR_NO_MODULE);
	client_leave(&a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		WORLD_TEST(the_list_has_what_the_client_sees_with_a_census),
		WORLD_TEST(the_list_goes_on_behind_its_cursor),
		WORLD_TEST(names_come_in_batches),
		WORLD_TEST(a_method_is_found_by_name),
	};

	log_set_level(LOG_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
