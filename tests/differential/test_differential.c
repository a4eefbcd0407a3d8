/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>
#include "differential/check.h"
#include "differential/generate.h"

/* Random programs by every tier. The seed is printed: TIER_TEST_SEED=N repeats from there, and a difference names the seed of
 * its own module. TIER_TEST_PROGRAMS=N sets how many. A difference that was found becomes a file of tests/conformance. */

static void on_fault(int number)
{
	char text[96];
	const int n = snprintf(text, sizeof(text), "TIER_TEST_SEED=%" PRIu64 ": signal %d\n", check_seed, number);

	if (write(STDERR_FILENO, text, n) < 0)
		_exit(2);
	signal(number, SIG_DFL);
	raise(number);
}

static uint32_t count(uint32_t short_count, uint32_t long_count)
{
	const char *text = getenv("TIER_TEST_PROGRAMS");

	return text ? strtoul(text, NULL, 0) : getenv("TIER_TEST_LONG") ? long_count : short_count;
}

static void run_programs(const char *what, uint32_t n_programs, uint32_t n_batch, enum check_kind kind)
{
	const uint64_t seed = random_seed;
	const time_t begin = time(NULL);
	struct refusal why;

	check_skipped = 0;
	for (uint32_t i = 0; i < n_programs; i += n_batch)
		if (!check_module(n_batch, kind, &why))
			fail_msg("%s", why.text);
	print_message("%" PRIu32 " programs %s from TIER_TEST_SEED=%" PRIu64 " in %ld s, no difference; %" PRIu32
		      " runs were too long for the reference\n", n_programs, what, seed, (long)(time(NULL) - begin), check_skipped);
}

static void programs_inlined_into_one_method_agree(void **state)
{
	run_programs("in batches", count(1600, 100000), 16, CHECK_BATCH);
}

static void a_profile_of_rubbish_changes_no_result(void **state)
{
	run_programs("with profiles of rubbish", count(480, 30000), 16, CHECK_RUBBISH);
}

static void both_tiers_count_the_same(void **state)
{
	run_programs("that are counted", count(150, 5000), 1, CHECK_COUNTS);
}

static void programs_compiled_method_by_method_agree(void **state)
{
	run_programs("one by one", count(300, 10000), 1, CHECK_EACH);
}

static void any_loop_is_entered_with_equal_results(void **state)
{
	run_programs("entered in their loops", count(150, 6000), 1, CHECK_OSR);
	print_message("entered %" PRIu32 " times\n", check_entered);
	assert_int_not_equal(check_entered, 0);
}

static void frames_go_on_in_optimized_code_from_any_patchpoint(void **state)
{
	check_entered = 0;
	run_programs("left at their patchpoints", count(150, 5000), 1, CHECK_PATCHPOINTS);
	print_message("entered %" PRIu32 " times\n", check_entered);
	assert_int_not_equal(check_entered, 0);
}

static int setup(void **state)
{
	const char *seed = getenv("TIER_TEST_SEED");

	random_seed = seed ? strtoull(seed, NULL, 0) : (uint64_t)time(NULL);
	print_message("seed: TIER_TEST_SEED=%" PRIu64 "\n", random_seed);
	signal(SIGSEGV, on_fault);
	signal(SIGILL, on_fault);
	signal(SIGFPE, on_fault);
	return check_setup();
}

static int teardown(void **state)
{
	check_teardown();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(programs_inlined_into_one_method_agree),
		cmocka_unit_test(programs_compiled_method_by_method_agree),
		cmocka_unit_test(a_profile_of_rubbish_changes_no_result),
		cmocka_unit_test(both_tiers_count_the_same),
		cmocka_unit_test(any_loop_is_entered_with_equal_results),
		cmocka_unit_test(frames_go_on_in_optimized_code_from_any_patchpoint),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
