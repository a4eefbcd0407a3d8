/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "store/names.h"
#include "util/base.h"

static void assert_short(const char *name, const char *sent)
{
	char shortened[STORE_NAME_MAX], expanded[STORE_NAME_MAX];

	assert_true(name_is_valid(name));
	name_shorten(name, shortened);
	assert_string_equal(shortened, sent);
	name_expand(sent, expanded);
	assert_string_equal(expanded, name);
}

static void modules_names_are_short_and_come_back(void **state)
{
	assert_short("m0.code", "C0");
	assert_short("m61.records", "Rz");
	assert_short("m62.counters", "N10");
	assert_short("m4711.private", "P1Dz");
	assert_short("m18446744073709551615.host", "HLygHa16AHYF");
	assert_short("m4711.b12", "B1Dz.C");
	assert_short("m18446744073709551615.b18446744073709551615", "BLygHa16AHYF.LygHa16AHYF");
}

static void other_names_go_as_they_are(void **state)
{
	static const char *const names[] = { "ledger.3",
					     "socket",
					     "page",
					     "ring",
					     "link.threshold",
					     "m",
					     "m1",
					     "m1.",
					     "m.code",
					     "mx.code",
					     "m1.codes",
					     "m1.b",
					     "m1.bx",
					     "m1.b1.2",
					     "m1.b01",
					     "m01.code",
					     "m18446744073709551616.code",
					     "m1.b18446744073709551616" };

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		assert_short(names[i], names[i]);
}

static void what_nobody_can_have_sent_is_left_as_it_is(void **state)
{
	static const char *const sent[] = { "",	     "C",     "C01", "C-",	     "B1",
					    "B1.",   "B1.01", "B.1", "CLygHa16AHYG", "Czzzzzzzzzzzzzzz",
					    "Zebra", "?" };
	char expanded[STORE_NAME_MAX];

	for (size_t i = 0; i < ARRAY_SIZE(sent); i++) {
		name_expand(sent[i], expanded);
		assert_string_equal(expanded, sent[i]);
	}
}

static void every_module_and_body_has_a_name_of_its_own(void **state)
{
	char name[STORE_NAME_MAX], sent[STORE_NAME_MAX], back[STORE_NAME_MAX];

	for (uint64_t id = 1; id < 100000; id += 7) {
		snprintf(name, sizeof(name), "m%" PRIu64 ".b%" PRIu64, id, id * id);
		name_shorten(name, sent);
		assert_true(strlen(sent) < strlen(name));
		name_expand(sent, back);
		assert_string_equal(back, name);
	}
}

static void names_begin_in_lower_case_and_end_in_time(void **state)
{
	char name[STORE_NAME_MAX + 1];

	memset(name, 'a', sizeof(name));
	name[STORE_NAME_MAX] = '\0';
	assert_false(name_is_valid(name));
	name[STORE_NAME_MAX - 1] = '\0';
	assert_true(name_is_valid(name));
	assert_false(name_is_valid(""));
	assert_false(name_is_valid("C1"));
	assert_false(name_is_valid("1"));
	assert_false(name_is_valid("a:b"));
	assert_false(name_is_valid("a\nMAINPID=1"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(modules_names_are_short_and_come_back),
		cmocka_unit_test(other_names_go_as_they_are),
		cmocka_unit_test(what_nobody_can_have_sent_is_left_as_it_is),
		cmocka_unit_test(every_module_and_body_has_a_name_of_its_own),
		cmocka_unit_test(names_begin_in_lower_case_and_end_in_time),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
