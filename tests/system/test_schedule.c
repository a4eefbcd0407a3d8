/* SPDX-License-Identifier: Apache-2.0 */
#include "system/schedule_walk.h"

/* What a daemon asks of the system is refused, each time once; and the production build has nothing of that. Deaths are
 * test_schedule_exit.c's. */

static bool is_refusal(enum side side, enum fault_kind kind)
{
	return side != SIDE_SUCCESSOR && kind != FAULT_EXIT && kind != FAULT_AGAIN;
}

static void whatever_goes_wrong_is_told_or_not_to_be_seen(void **state) { walk_schedule(is_refusal); }

/* -- Production --- */
static unsigned int count_lines(const char *format, ...)
{
	char command[4096], line[256];
	unsigned int n = 0;
	va_list args;
	FILE *pipe;

	va_start(args, format);
	vsnprintf(command, sizeof(command), format, args);
	va_end(args);
	pipe = popen(command, "r");
	assert_non_null(pipe);
	while (fgets(line, sizeof(line), pipe))
		n++;
	assert_true(pclose(pipe) >= 0);
	return n;
}

static void production_has_neither_option_nor_code_of_faults(void **state)
{
	const char *build = getenv("TIER_BUILD") ? getenv("TIER_BUILD") : "build";

	assert_int_equal(count_lines("%s/faults/tierd --help | grep -e '^  --fault'", build), 2);
	assert_int_equal(count_lines("%s/tierd --help | grep -e '^  --fault'", build), 0);
	assert_int_equal(count_lines("%s/tierd --fault=count 2>&1 | grep 'unknown option'", build), 1);
	assert_true(count_lines("nm %s/faults/tierd | grep -E ' (fault_|__wrap_)'", build) > 20);
	assert_int_equal(
	        count_lines("nm %s/tierd %s/tierd-worker | grep -E ' (fault_due|fault_turn|fault_step|__wrap_)'", build,
	                    build),
	        0);
	assert_int_equal(count_lines("grep -c fault_reserve %s/faults/tierd | grep -v '^0'", build), 1);
	assert_int_equal(count_lines("grep -c fault_reserve %s/tierd | grep -v '^0'", build), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(production_has_neither_option_nor_code_of_faults),
	        cmocka_unit_test(whatever_goes_wrong_is_told_or_not_to_be_seen),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
