/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>
#include <tier/wire.h>
#include "bench/sizes.h"
#include "system/harness.h"

/* Large methods and large modules: they compile, they load, and nobody else waits for it */

#define TURN_MAX_NS 5000000u

/* The daemon's own figure */
static void check_turns(struct tier_conn *conn, const char *when)
{
	struct wire_stats stats;

	assert_done(tier_stats(conn, &stats));
	print_message("%s: longest turn so far %lu µs, in %s\n", when, (unsigned long)(stats.longest_turn_ns / 1000),
		      stats.longest_turn_name);
	if (stats.longest_turn_ns >= TURN_MAX_NS)
		fail_msg("a turn of %lu µs in %s", (unsigned long)(stats.longest_turn_ns / 1000), stats.longest_turn_name);
}

static void check_long_method(struct daemon *daemon, struct tier_conn *conn, const char *path, uint64_t result)
{
	struct tier_module *module;
	struct tier_method *method;
	uint64_t begin = test_now_ns(), called;

	assert_done(tier_load(conn, path, "long", 0, &module));
	assert_done(tier_find(module, "m0", &method));
	assert_true(tier_entry(method)(7, 0, 0, 0, 0) == result);
	called = test_now_ns();
	climb(method, NULL);
	assert_true(tier_entry(method)(7, 0, 0, 0, 0) == result);
	print_message("%s: loaded and called after %.1f ms, at its final tier %.0f ms later\n", strrchr(path, '/') + 1,
		      (called - begin) / 1e6, (test_now_ns() - called) / 1e6);
	tier_close(module);
	assert_done(tier_unload(conn, "long"));
}

/* x * 31 + x ^ 77, over and over */
static uint64_t straight_result(uint64_t x)
{
	uint64_t value = x;

	for (unsigned int i = 0; i < 3332; i++)
		value = (value * 31 + x) ^ 77;
	return value;
}

static void methods_of_ten_thousand_instructions_compile_at_both_tiers(void **state)
{
	static const char straight[] =
		"\t.globl m0\n\t.type m0,@function\nm0:\n\tr0 = r1\n"
		"\t.rept 3332\n\tr0 *= 31\n\tr0 += r1\n\tr0 ^= 77\n\t.endr\n\texit\n.Lend:\n\t.size m0, .Lend-m0\n";
	struct daemon daemon;
	struct tier_conn *conn;

	daemon_start(&daemon, ARGS("--call-counting-delay=0", "--call-count-threshold=2"));
	conn = daemon_connect(&daemon);
	check_long_method(&daemon, conn, sizes_object(&daemon, "branches", 1, 10000), sizes_result(10000, 7));
	check_long_method(&daemon, conn, bpf_compile(daemon.folder, "straight", straight, "-x assembler"), straight_result(7));
	check_turns(conn, "both compiled");
	tier_disconnect(conn);
	daemon_stop(&daemon);
}

static void check_million(unsigned int n_methods, unsigned int n_insns)
{
	struct tier_module *module;
	struct tier_method *method;
	struct daemon daemon;
	struct tier_conn *conn;
	const char *path;
	uint64_t begin;
	char name[16];

	if (!events_by_kernel())
		skip();		/* how events travel makes no difference */
	daemon_start(&daemon, ARGS("--call-counting-delay=0", "--call-count-threshold=2"));
	conn = daemon_connect(&daemon);
	path = sizes_object(&daemon, "million", n_methods, n_insns);
	begin = test_now_ns();
	assert_done(tier_load(conn, path, "million", 0, &module));
	print_message("%u methods of %u instructions: loaded in %.0f ms\n", n_methods, n_insns, (test_now_ns() - begin) / 1e6);
	assert_int_equal(tier_module_n_methods(module), n_methods);
	check_turns(conn, "loaded");
	snprintf(name, sizeof(name), "m%u", n_methods - 1);
	assert_done(tier_find(module, name, &method));
	climb(method, NULL);
	assert_true(tier_entry(method)(7, 0, 0, 0, 0) == sizes_result(n_insns, 7));
	assert_done(tier_find(module, "m0", &method));
	assert_true(tier_entry(method)(8, 0, 0, 0, 0) == sizes_result(n_insns, 8));
	assert_done(tier_unload(conn, "million"));
	tier_close(module);
	check_turns(conn, "called and unloaded");
	tier_disconnect(conn);
	daemon_stop(&daemon);
}

static void a_module_of_a_million_instructions_is_loaded_and_runs(void **state)
{
	check_million(10000, 100);
}

static void a_million_instructions_may_be_a_hundred_long_methods(void **state)
{
	check_million(100, 10000);
}

static void a_million_instructions_may_be_many_tiny_methods(void **state)
{
	check_million(31250, 32);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(methods_of_ten_thousand_instructions_compile_at_both_tiers),
		cmocka_unit_test(a_module_of_a_million_instructions_is_loaded_and_runs),
		cmocka_unit_test(a_million_instructions_may_be_a_hundred_long_methods),
		cmocka_unit_test(a_million_instructions_may_be_many_tiny_methods),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
