/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "bench/inputs.h"
#include "system/harness.h"
#include "system/json.h"
#include "util/base.h"

/* Settled: a method and all that it has called have come to their end, however it calls them */

static char out[RUN_TEXT_MAX], err[RUN_TEXT_MAX];

/* `entry` calls often() or, when it is told, rare() or never(), which its optimized code may inline; `dispatch` calls through a
 * table, `by_address` passes an address on. */
static const char source[] =
	"typedef unsigned long u64;\n"
	"#define noinline __attribute__((noinline))\n"
	"#define BODY(n) { asm volatile(\"\" : \"+r\"(x)); return x + n; }\n"
	"noinline u64 deep(u64 x) BODY(1)\n"
	"noinline u64 often(u64 x) { return deep(x) + deep(x + 1); }\n"
	"noinline u64 rare(u64 x) BODY(2)\n"
	"noinline u64 never(u64 x) BODY(3)\n"
	"noinline u64 first(u64 x) BODY(4)\n"
	"noinline u64 second(u64 x) BODY(5)\n"
	"u64 (*const handlers[2])(u64) = { first, second };\n"
	"u64 entry(u64 how) { return how == 1 ? rare(how) : how == 2 ? never(how) : often(how); }\n"
	"u64 dispatch(u64 how) { return handlers[how & 1](how); }\n"
	"noinline u64 taken(u64 x) BODY(6)\n"
	"noinline u64 apply(u64 (*f)(u64), u64 x) { return f(x); }\n"
	"u64 by_address(u64 x) { u64 (*f)(u64) = taken; asm volatile(\"\" : \"+r\"(f)); return apply(f, x); }\n";

struct world {
	struct daemon daemon;
	struct tier_conn *conn;
	struct tier_module *module;
};

static void world_start_with(struct world *w, const char *const *args)
{
	daemon_start(&w->daemon, args);
	w->conn = daemon_connect(&w->daemon);
	assert_done(tier_load(w->conn, bpf_compile(w->daemon.folder, "m", source, ""), "m", 0, &w->module));
}

static void world_start(struct world *w)
{
	world_start_with(w, ARGS("--call-counting-delay=0"));
}

static void world_end(struct world *w)
{
	tier_disconnect(w->conn);
	daemon_stop(&w->daemon);
}

static struct tier_method *find(struct world *w, const char *name)
{
	struct tier_method *method;

	assert_done(tier_find(w->module, name, &method));
	return method;
}

static void call(struct world *w, const char *name, uint64_t x, uint32_t n)
{
	struct tier_method *method = find(w, name);

	while (n--)
		tier_entry(method)(x, 0, 0, 0, 0);
}

static struct tier_settlement settled(struct world *w, const char *name)
{
	struct tier_settlement settlement;

	assert_done(tier_settled(find(w, name), &settlement));
	return settlement;
}

static bool is_unsettled(struct world *w, const struct tier_settlement *settlement, const char *name)
{
	uint32_t index = method_index(w->module, find(w, name));

	for (uint32_t i = 0; i < settlement->n; i++)
		if (settlement->unsettled[i] == index)
			return true;
	return false;
}

static enum tier_status status(struct world *w, const char *name)
{
	return tier_status(find(w, name)).status;
}

static void what_was_never_called_does_not_count(void **state)
{
	struct tier_settlement s;
	struct world w;

	world_start(&w);
	s = settled(&w, "entry");
	assert_true(s.is_settled);
	assert_int_equal(s.n_methods, 1);
	call(&w, "entry", 0, 1);
	s = settled(&w, "entry");
	assert_false(s.is_settled);
	assert_int_equal(s.n_methods, 3);
	assert_true(is_unsettled(&w, &s, "entry") && is_unsettled(&w, &s, "often") && is_unsettled(&w, &s, "deep"));
	assert_int_equal(s.calls, 30);
	call(&w, "first", 0, 1);			/* not entry's business */
	assert_int_equal(settled(&w, "entry").n_methods, 3);
	world_end(&w);
}

static void a_drive_settles_what_it_calls(void **state)
{
	struct tier_drive_opts opts = { .size = sizeof(opts), .timeout_ns = TEST_DEADLINE_NS };
	struct tier_settlement s;
	struct world w;

	world_start(&w);
	assert_int_equal(tier_drive(find(&w, "entry"), &opts, &s), 0);
	assert_true(s.is_settled);
	assert_int_equal(status(&w, "entry"), TIER_STATUS_FINAL);	/* the others may have been inlined before their last counted call */
	assert_int_equal(status(&w, "rare"), TIER_STATUS_COLD);
	assert_true(settled(&w, "entry").is_settled);
	world_end(&w);
}

static void callees_through_tables_and_addresses_count(void **state)
{
	struct tier_drive_opts opts = { .size = sizeof(opts), .timeout_ns = TEST_DEADLINE_NS };
	struct tier_settlement s;
	struct world w;

	world_start(&w);
	assert_int_equal(tier_drive(find(&w, "dispatch"), &opts, &s), 0);
	assert_int_equal(status(&w, "first"), TIER_STATUS_FINAL);
	assert_int_equal(status(&w, "second"), TIER_STATUS_COLD);
	call(&w, "dispatch", 1, 1);
	s = settled(&w, "dispatch");
	assert_false(s.is_settled);
	assert_true(is_unsettled(&w, &s, "second"));
	opts.args[0] = 1;
	assert_int_equal(tier_drive(find(&w, "dispatch"), &opts, &s), 0);
	assert_int_equal(status(&w, "second"), TIER_STATUS_FINAL);
	call(&w, "by_address", 0, 1);
	s = settled(&w, "by_address");
	assert_true(is_unsettled(&w, &s, "taken") && is_unsettled(&w, &s, "apply"));
	assert_int_equal(tier_drive(find(&w, "by_address"), &opts, &s), 0);
	assert_int_equal(status(&w, "taken"), TIER_STATUS_FINAL);
	world_end(&w);
}

/* Nobody knows at compile time whom dispatch() calls, so it cannot inline them. */
static void a_drive_names_what_its_workload_does_not_call(void **state)
{
	struct tier_drive_opts opts = { .size = sizeof(opts), .timeout_ns = TEST_DEADLINE_NS };
	struct tier_settlement s;
	struct world w;

	world_start(&w);
	call(&w, "dispatch", 1, 1);			/* second() has code now */
	assert_int_equal(tier_drive(find(&w, "dispatch"), &opts, &s), 1);
	assert_int_equal(s.n, 1);
	assert_true(is_unsettled(&w, &s, "second"));
	assert_int_equal(tierctl(&w.daemon, out, err, "settled", "m:dispatch", NULL), 1);
	assert_string_equal(out, "not settled: 1 of 3 methods, 0 of them pending: second\n");
	assert_int_equal(tierctl(&w.daemon, out, err, "settled", "m:dispatch", "--json", NULL), 1);
	json_expect(out, "unsettled.0", "second");
	assert_int_equal(json_number(out, "methods"), 3);
	assert_int_equal(json_number(out, "optimizing"), 1);
	assert_int_equal(tierctl(&w.daemon, out, err, "drive", "m:dispatch", "0", "--callees", "--json", NULL), 1);
	assert_non_null(strstr(err, "1 method that it can call is not settled, and these calls do not bring it on: second\n"));
	assert_int_equal(json_length(out, "steps"), 6);	/* five batches and the end */
	assert_int_equal(tierctl(&w.daemon, out, err, "drive", "m:dispatch", "1", "--callees", NULL), 0);
	assert_string_equal(err, "");
	assert_int_equal(tierctl(&w.daemon, out, err, "settled", "m:dispatch", NULL), 0);
	assert_string_equal(out, "settled: 3 methods\n");
	assert_int_equal(tierctl(&w.daemon, out, err, "settled", "m:nothing", NULL), 2);
	world_end(&w);
}

/* A replaced body calls others than its own did. */
static void a_replaced_body_is_looked_at(void **state)
{
	struct tier_drive_opts opts = { .size = sizeof(opts), .timeout_ns = TEST_DEADLINE_NS };
	struct tier_settlement s;
	struct world w;

	world_start(&w);
	assert_int_equal(tier_drive(find(&w, "entry"), &opts, &s), 0);
	assert_done(tier_rejit(find(&w, "entry"),
			       bpf_compile(w.daemon.folder, "other", "typedef unsigned long u64;\nu64 second(u64 x);\n"
								     "u64 entry(u64 x) { return second(x) + 1; }\n", ""),
			       "entry", TIER_REJIT_FORCE));
	call(&w, "entry", 0, 1);
	s = settled(&w, "entry");
	assert_int_equal(s.n_methods, 2);
	assert_true(is_unsettled(&w, &s, "entry") && is_unsettled(&w, &s, "second"));
	assert_int_equal(tier_drive(find(&w, "entry"), &opts, &s), 0);
	assert_int_equal(status(&w, "entry"), TIER_STATUS_FINAL);
	world_end(&w);
}

/* A pointer that comes from outside: only a profile can tell. */
static void a_callee_that_a_profile_saw_counts(void **state)
{
	struct tier_settlement s;
	struct tier_answer answer;
	struct world w;
	uint64_t taken;

	world_start_with(&w, ARGS("--call-counting-delay=0", "--tiered-pgo=on"));
	taken = (uintptr_t)tier_entry(find(&w, "taken"));
	call(&w, "apply", taken, 1);
	assert_int_equal(settled(&w, "apply").n_methods, 1);
	call(&w, "apply", taken, 30);
	assert_done(tier_wait(find(&w, "apply"), TEST_DEADLINE_NS, NULL, &answer));
	assert_int_equal(answer.tier, TIER_LEVEL_TIER0_INSTRUMENTED);
	call(&w, "apply", taken, 1);
	s = settled(&w, "apply");
	assert_int_equal(s.n_methods, 2);
	assert_true(is_unsettled(&w, &s, "taken"));
	world_end(&w);
}

/* With the daemon's defaults, delay and all: every workload settles. */
static void call_input(const struct tier_method *method, void *input)
{
	input_call(input, tier_entry(method));
}

static void every_workload_settles(void **state)
{
	static const char *const names[] = { "crc32", "dispatch", "fib", "interp", "json", "quicksort" };
	struct daemon daemon;
	struct tier_conn *conn;

	daemon_start(&daemon, NULL);
	conn = daemon_connect(&daemon);
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		struct workload_input *input = input_make(names[i]);
		struct tier_drive_opts opts = { .size = sizeof(opts), .call = call_input, .context = input, .timeout_ns = TEST_DEADLINE_NS };
		struct tier_method *method = workload_load(conn, names[i], NULL);
		struct tier_settlement s;

		if (tier_drive(method, &opts, &s) != 0)
			fail_msg("%s: %u of %u are not settled: %s", names[i], s.n_unsettled, s.n_methods, tier_error_text());
		assert_int_equal(tier_status(method).status, TIER_STATUS_FINAL);
		input_free(input);
	}
	tier_disconnect(conn);
	daemon_stop(&daemon);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_was_never_called_does_not_count),
		cmocka_unit_test(a_drive_settles_what_it_calls),
		cmocka_unit_test(callees_through_tables_and_addresses_count),
		cmocka_unit_test(a_drive_names_what_its_workload_does_not_call),
		cmocka_unit_test(a_replaced_body_is_looked_at),
		cmocka_unit_test(a_callee_that_a_profile_saw_counts),
		cmocka_unit_test(every_workload_settles),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
