/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "system/harness.h"
#include "system/json.h"
#include "util/base.h"

/* Freezes and marks: what is measured stands still, whatever others do meanwhile, and goes on afterwards */

#define SOMEBODY 12345u

static char out[RUN_TEXT_MAX], err[RUN_TEXT_MAX];

struct world {
	struct daemon daemon;
	struct tier_conn *conn;
	struct tier_module *module;
	struct tier_method *method;
};

static void world_start(struct world *w)
{
	daemon_start(&w->daemon, ARGS("--call-counting-delay=0"));
	w->conn = daemon_connect(&w->daemon);
	w->method = workload_load(w->conn, "fib", &w->module);
}

static void world_end(struct world *w)
{
	tier_disconnect(w->conn);
	daemon_stop(&w->daemon);
}

static void call(const struct tier_method *method, uint32_t n)
{
	while (n--)
		assert_int_equal(tier_entry(method)(10, 0, 0, 0, 0), 55);
}

static const char solo_source[] = "unsigned long solo(unsigned long x) { return x * 3; }\n";

/* -- Another process, with a connection of its own; one byte from it says that it has done its part, one to it that it may
 * go on --- */
struct other {
	struct world *w;
	pid_t pid;
	int ready[2], go[2];
	void (*fn)(struct tier_module *module, struct tier_method *method);
};

static void other_main(void *context)
{
	struct other *other = context;
	struct tier_conn *conn = daemon_connect(&other->w->daemon);
	struct tier_module *module;
	struct tier_method *method;
	char byte = 0;

	child_assert(!tier_open(conn, "fib", &module) && !tier_find(module, "fib", &method));
	other->fn(module, method);
	child_assert(write(other->ready[1], &byte, 1) == 1);
	child_assert(read(other->go[0], &byte, 1) == 1);
	tier_disconnect(conn);
}

static void other_start(struct other *other, struct world *w, void (*fn)(struct tier_module *, struct tier_method *))
{
	char byte;

	*other = (struct other){ .w = w, .fn = fn };
	pipe_open(other->ready);
	pipe_open(other->go);
	other->pid = child_start(other_main, other);
	assert_int_equal(read(other->ready[0], &byte, 1), 1);
}

static void other_close(struct other *other)
{
	for (int i = 0; i < 2; i++) {
		close(other->ready[i]);
		close(other->go[i]);
	}
}

static void other_end(struct other *other)
{
	assert_int_equal(write(other->go[1], "", 1), 1);
	child_end(other->pid);
	other_close(other);
}

static void other_calls(struct tier_module *module, struct tier_method *method)
{
	for (int i = 0; i < 100; i++)
		child_assert(tier_entry(method)(10, 0, 0, 0, 0) == 55);
}

static void other_freezes(struct tier_module *module, struct tier_method *method)
{
	child_assert(!tier_freeze(module));
}

/* One measures while the other calls: nothing changes, and thresholds are acted upon at the thaw. */
static void a_frozen_module_stands_still_while_others_call(void **state)
{
	struct tier_records_mark mark;
	struct tier_answer answer;
	struct other other;
	struct world w;

	world_start(&w);
	call(w.method, 1);
	assert_done(tier_freeze(w.module));
	mark = tier_mark(w.module);
	assert_true(mark.is_frozen);
	other_start(&other, &w, other_calls);
	assert_done(tier_wait(w.method, TEST_DEADLINE_NS, NULL, &answer));
	assert_true(answer.is_frozen);
	assert_int_equal(answer.status, TIER_STATUS_OPTIMIZING);
	assert_int_equal(answer.stage, TIER_STAGE_QUEUED);
	assert_false(tier_changed_since(w.module, &mark));
	assert_int_equal(events_count(w.conn, w.module, w.method, TIER_EVENT_THRESHOLD), 1);
	assert_int_equal(events_count(w.conn, w.module, w.method, TIER_EVENT_COMPILE_STARTED), 0);
	assert_done(tier_thaw(w.module));
	assert_done(tier_wait(w.method, TEST_DEADLINE_NS, NULL, &answer));
	assert_int_equal(answer.status, TIER_STATUS_FINAL);
	assert_int_equal(answer.tier, TIER_LEVEL_TIER1);
	assert_true(tier_changed_since(w.module, &mark));
	other_end(&other);
	world_end(&w);
}

static void a_method_first_called_in_a_freeze_gets_its_code(void **state)
{
	struct tier_records_mark mark;
	struct world w;

	world_start(&w);
	assert_done(tier_freeze(w.module));
	mark = tier_mark(w.module);
	call(w.method, 1);
	assert_int_equal(tier_status(w.method).stage, TIER_STAGE_COUNTING);
	assert_true(tier_changed_since(w.module, &mark));
	assert_done(tier_thaw(w.module));
	climb(w.method, (uint64_t[5]){ 10 });
	world_end(&w);
}

static void a_killed_freezer_thaws(void **state)
{
	struct tier_answer answer;
	struct other other;
	struct world w;

	world_start(&w);
	other_start(&other, &w, other_freezes);
	call(w.method, 31);
	assert_done(tier_wait(w.method, TEST_DEADLINE_NS, NULL, &answer));
	assert_true(answer.is_frozen);
	assert_int_equal(tier_thaw(w.module), -EINVAL);		/* it is not this session's */
	kill(other.pid, SIGKILL);
	assert_true(WIFSIGNALED(child_reap(other.pid)));
	wait_until("it is thawed", !tier_mark(w.module).is_frozen);
	assert_done(tier_wait(w.method, TEST_DEADLINE_NS, NULL, &answer));
	assert_int_equal(answer.status, TIER_STATUS_FINAL);
	other_close(&other);
	world_end(&w);
}

static void closing_the_module_thaws(void **state)
{
	struct tier_module *own;
	struct tier_conn *conn;
	struct world w;

	world_start(&w);
	conn = daemon_connect(&w.daemon);
	assert_done(tier_open(conn, "fib", &own));
	assert_done(tier_freeze(own));
	assert_done(tier_freeze(own));
	assert_done(tier_freeze(w.module));
	tier_close(own);
	assert_true(tier_mark(w.module).is_frozen);		/* by the other session */
	assert_done(tier_thaw(w.module));
	assert_false(tier_mark(w.module).is_frozen);
	tier_disconnect(conn);
	world_end(&w);
}

static void child_is_refused(void *context)
{
	struct world *w = context;
	struct tier_module *module;
	struct tier_conn *conn;

	child_assert(!seteuid(SOMEBODY));
	conn = daemon_connect(&w->daemon);
	child_assert(!seteuid(0));
	child_assert(!tier_open(conn, "shared", &module));
	child_assert(tier_freeze(module) == -EACCES);
	child_assert(strstr(tier_error_text(), "module 'shared' belongs to user 0"));
	child_assert(!tier_mark(module).is_frozen);
	tier_disconnect(conn);
}

static void other_users_may_not_freeze(void **state)
{
	struct world w;

	if (geteuid() != 0)
		skip();
	world_start(&w);
	assert_done(tier_load(w.conn, workload_object("fib"), "shared", TIER_LOAD_SHARED, NULL));
	child_end(child_start(child_is_refused, &w));
	world_end(&w);
}

/* -- Waits --- */
struct waiter {
	struct tier_method *method;
	pthread_t thread;
	struct tier_answer answer;
	int r;
};

static void *waiter_main(void *context)
{
	struct waiter *waiter = context;

	waiter->r = tier_wait(waiter->method, TEST_DEADLINE_NS, NULL, &waiter->answer);
	return NULL;
}

static void *freezer_main(void *context)
{
	struct world *w = context;
	struct tier_module *module;
	struct tier_conn *conn = daemon_connect(&w->daemon);
	static int r;

	r = tier_open(conn, "fib", &module);
	if (!r)
		r = tier_freeze(module);
	if (!r)
		r = tier_thaw(module);
	tier_disconnect(conn);
	return &r;
}

/* The workers stand still: one method is being compiled, the other is queued, both are waited for. */
static void waits_end_frozen_and_the_freeze_when_the_compiler_has(void **state)
{
	struct waiter waiter = { 0 };
	pthread_t freezer;
	struct world w;
	void *r;

	world_start(&w);
	workers_stop(&w.daemon);
	call(w.method, 31);
	waiter.method = w.method;
	wait_until("the threshold is seen", tier_status(w.method).stage >= TIER_STAGE_QUEUED);
	assert_int_equal(pthread_create(&waiter.thread, NULL, waiter_main, &waiter), 0);
	assert_int_equal(pthread_create(&freezer, NULL, freezer_main, &w), 0);
	pthread_join(waiter.thread, NULL);
	assert_int_equal(waiter.r, 0);
	assert_true(waiter.answer.is_frozen);
	assert_int_equal(pthread_tryjoin_np(freezer, &r), EBUSY);
	workers_continue(&w.daemon);
	pthread_join(freezer, &r);
	assert_int_equal(*(int *)r, 0);
	assert_done(tier_wait(w.method, TEST_DEADLINE_NS, NULL, &waiter.answer));
	assert_int_equal(waiter.answer.status, TIER_STATUS_FINAL);
	world_end(&w);
}

/* -- tierctl --- */
static void a_command_runs_while_tierctl_freezes(void **state)
{
	char tierctl_path[300], script[512];
	struct world w;

	world_start(&w);
	snprintf(tierctl_path, sizeof(tierctl_path), "%s/tierctl", getenv("TIER_BUILD") ? getenv("TIER_BUILD") : "build");
	snprintf(script, sizeof(script), "%s list --json; exit 7", tierctl_path);
	assert_int_equal(tierctl(&w.daemon, out, err, "freeze", "fib", "--", "sh", "-c", script, NULL), 7);
	assert_string_equal(err, "");
	assert_true(!strncmp(json_at(out, "modules.0.frozen").begin, "true", 4));
	assert_false(tier_mark(w.module).is_frozen);
	assert_int_equal(tierctl(&w.daemon, out, err, "freeze", "fib", "--", "sh", "-c", "kill -9 $$", NULL), 128 + SIGKILL);
	assert_int_equal(tierctl(&w.daemon, out, err, "freeze", "fib", "--", "/nowhere/command", NULL), 127);
	assert_non_null(strstr(err, "cannot run '/nowhere/command'"));
	assert_int_equal(tierctl(&w.daemon, out, err, "freeze", "nothing", NULL), 2);
	world_end(&w);
}

static void tierctl_freezes_until_it_is_interrupted(void **state)
{
	struct world w;
	char line[128];
	int from;
	pid_t pid;

	world_start(&w);
	pid = tierctl_start(&w.daemon, &from, "freeze", "fib", "--json", NULL);
	line[read(from, line, sizeof(line) - 1)] = '\0';
	assert_string_equal(line, "{\"module\": \"fib\", \"frozen\": true}\n");
	assert_true(tier_mark(w.module).is_frozen);
	call(w.method, 31);
	assert_int_equal(tierctl(&w.daemon, out, err, "wait", "fib:fib", "--json", NULL), 0);
	assert_true(!strncmp(json_at(out, "methods.0.frozen").begin, "true", 4));
	assert_int_equal(tierctl(&w.daemon, out, err, "show", "fib:fib", NULL), 0);
	assert_non_null(strstr(out, "optimizing: queued, frozen"));
	assert_int_equal(tierctl(&w.daemon, out, err, "drive", "fib:fib", "10", NULL), 1);
	assert_non_null(strstr(err, "its module is frozen"));
	kill(pid, SIGINT);
	child_end(pid);
	close(from);
	assert_false(tier_mark(w.module).is_frozen);
	assert_int_equal(tierctl(&w.daemon, out, err, "drive", "fib:fib", "10", NULL), 0);
	world_end(&w);
}

static void tierctl_marks_tell_whether_code_changed(void **state)
{
	char path[300], calls[400], fails[512];
	struct world w;

	world_start(&w);
	snprintf(path, sizeof(path), "%s/tierctl", getenv("TIER_BUILD") ? getenv("TIER_BUILD") : "build");
	snprintf(calls, sizeof(calls), "%s drive fib:fib 10", path);
	assert_int_equal(tierctl(&w.daemon, out, err, "mark", "fib", "--json", NULL), 0);
	assert_int_equal(json_number(out, "marks.0.changes"), tier_mark(w.module).changes);
	assert_true(!strncmp(json_at(out, "marks.0.frozen").begin, "false", 5));
	assert_int_equal(tierctl(&w.daemon, out, err, "mark", "fib", "--", "sh", "-c", calls, NULL), 1);
	assert_string_equal(err, "tierctl: fib: code of it was compiled, published or reset while the command ran\n");
	assert_int_equal(tierctl(&w.daemon, out, err, "mark", "fib", "--", "sh", "-c", calls, NULL), 0);	/* it is final */
	assert_string_equal(err, "");
	snprintf(fails, sizeof(fails), "%s; exit 3", calls);
	assert_int_equal(tierctl(&w.daemon, out, err, "mark", "fib", "--", "sh", "-c", fails, NULL), 3);
	assert_int_equal(tierctl(&w.daemon, out, err, "mark", "nothing", NULL), 2);
	world_end(&w);
}

/* `odd` calls another method at its tenth call only: inside the counted calls that bench times. */
static const char odd_source[] =
	"unsigned long n;\n"
	"__attribute__((noinline)) unsigned long rare(unsigned long x) { asm volatile(\"\" : \"+r\"(x)); return x + 1; }\n"
	"unsigned long odd(unsigned long x) { return ++n == 10 ? rare(x) : x; }\n";

static void bench_measures_frozen_and_says_what_changed(void **state)
{
	struct world w;
	bool has_queued = false, has_changed = false;
	char path[64];

	world_start(&w);
	assert_int_equal(tierctl(&w.daemon, out, err, "bench", "fib:fib", "10", "--rounds", "3", "--json", NULL), 0);
	assert_string_equal(err, "");
	for (unsigned int i = 0; i < json_length(out, "tiers"); i++) {
		snprintf(path, sizeof(path), "tiers.%u.stage", i);
		has_queued |= !strncmp(json_at(out, path).begin, "\"queued\"", 8);
		snprintf(path, sizeof(path), "tiers.%u.changed", i);
		assert_true(strncmp(json_at(out, path).begin, "true", 4) != 0);
	}
	assert_true(has_queued);
	assert_int_equal(tierctl(&w.daemon, out, err, "load", bpf_compile(w.daemon.folder, "odd", odd_source, ""), NULL), 0);
	assert_int_equal(tierctl(&w.daemon, out, err, "bench", "odd:odd", "1", "--rounds", "3", "--json", NULL), 1);
	assert_non_null(strstr(err, "WARNING: odd:odd: code of its module was compiled, published or reset inside 1 of these"));
	for (unsigned int i = 0; i < json_length(out, "tiers"); i++) {
		snprintf(path, sizeof(path), "tiers.%u.changed", i);
		has_changed |= !strncmp(json_at(out, path).begin, "true", 4);
	}
	assert_true(has_changed);
	assert_false(tier_mark(w.module).is_frozen);
	assert_done(tier_unload(w.conn, "odd"));
	assert_int_equal(tierctl(&w.daemon, out, err, "load", bpf_compile(w.daemon.folder, "odd", odd_source, ""), NULL), 0);
	assert_int_equal(tierctl(&w.daemon, out, err, "bench", "odd:odd", "1", "--rounds", "3", "--changing", NULL), 0);
	assert_non_null(strstr(err, "WARNING"));
	world_end(&w);
}

/* Each tier of the ladder is held and measured without its counting, and thawed to the next. */
static void bench_holds_every_tier_of_the_ladder(void **state)
{
	static const char *const rows[][2] = {
		{ "none", "cold" }, { "Tier0", "counting" }, { "Tier0", "queued" }, { "Tier0Instrumented", "counting" },
		{ "Tier0Instrumented", "queued" }, { "Tier1", "final" },
	};
	struct daemon daemon;
	char path[64];

	daemon_start(&daemon, ARGS("--call-counting-delay=0", "--tiered-pgo=on"));
	assert_int_equal(tierctl(&daemon, out, err, "load", bpf_compile(daemon.folder, "solo", solo_source, ""), NULL), 0);
	assert_int_equal(tierctl(&daemon, out, err, "bench", "solo:solo", "7", "--rounds", "3", "--json", NULL), 0);
	assert_string_equal(err, "");
	assert_int_equal(json_length(out, "tiers"), ARRAY_SIZE(rows));
	for (unsigned int i = 0; i < ARRAY_SIZE(rows); i++) {
		snprintf(path, sizeof(path), "tiers.%u.tier", i);
		json_expect(out, path, rows[i][0]);
		snprintf(path, sizeof(path), "tiers.%u.stage", i);
		json_expect(out, path, rows[i][1]);
	}
	daemon_stop(&daemon);
}

static void the_knobs_in_force_are_shown(void **state)
{
	struct daemon daemon;

	daemon_start(&daemon, ARGS("--call-count-threshold=77"));
	assert_int_equal(tierctl(&daemon, out, err, "stats", "--knobs", "--json", NULL), 0);
	assert_true(json_length(out, "knobs") > 24);		/* more than a page */
	json_expect(out, "knobs.0.knob", "call-count-threshold");
	json_expect(out, "knobs.0.value", "77");
	json_expect(out, "knobs.0.default", "30");
	json_expect(out, "knobs.0.range", "1 to 65535");
	json_expect(out, "knobs.0.mirrors", "TC_CallCountThreshold");
	daemon_stop(&daemon);
}

/* -- All at once --- */
struct storm {
	struct world *w;
	uint32_t seed;
};

static void storm_freezer(void *context)
{
	const struct storm *storm = context;
	const unsigned int n = test_is_long() ? 2000 : 100;
	struct tier_conn *conn = daemon_connect(&storm->w->daemon);
	unsigned int seed = storm->seed;
	struct tier_records_mark mark;
	struct tier_module *module;

	child_assert(!tier_open(conn, "fib", &module));
	for (unsigned int i = 0; i < n; i++) {
		child_assert(!tier_freeze(module));
		mark = tier_mark(module);
		child_assert(mark.is_frozen);
		if (rand_r(&seed) % 2)
			usleep(rand_r(&seed) % 500);
		/* its one method has code: nothing can begin, nothing can end */
		child_assert(!tier_changed_since(module, &mark));
		if (rand_r(&seed) % 4)
			child_assert(!tier_thaw(module));
	}
	if (storm->seed % 2)
		raise(SIGKILL);		/* as it is */
	tier_disconnect(conn);
}

static void storm_caller(void *context)
{
	const struct storm *storm = context;
	struct tier_conn *conn = daemon_connect(&storm->w->daemon);
	struct tier_module *module;
	struct tier_method *method;

	child_assert(!tier_open(conn, "fib", &module) && !tier_find(module, "solo", &method));
	while (tier_status(method).status != TIER_STATUS_FINAL)
		child_assert(tier_entry(method)(7, 0, 0, 0, 0) == 21);
	tier_disconnect(conn);
}

/* Freezers come and go, some are killed; whoever has frozen sees nothing change, and in the end the method is final. */
static void freezers_of_many_processes_exclude_every_change(void **state)
{
	struct storm storms[4];
	pid_t freezers[4], callers[2];
	struct tier_answer answer;
	struct tier_method *method;
	struct world w;

	daemon_start(&w.daemon, ARGS("--call-counting-delay=0", "--call-count-threshold=2000"));
	w.conn = daemon_connect(&w.daemon);
	assert_done(tier_load(w.conn, bpf_compile(w.daemon.folder, "solo", solo_source, ""), "fib", 0, &w.module));
	assert_done(tier_find(w.module, "solo", &method));
	assert_int_equal(tier_entry(method)(7, 0, 0, 0, 0), 21);
	for (unsigned int i = 0; i < 4; i++) {
		storms[i] = (struct storm){ &w, i };
		freezers[i] = child_start(storm_freezer, &storms[i]);
	}
	for (unsigned int i = 0; i < 2; i++)
		callers[i] = child_start(storm_caller, &storms[i]);
	for (unsigned int i = 0; i < 4; i++) {
		int status = child_reap(freezers[i]);

		assert_true(i % 2 ? WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL : status == 0);
	}
	for (unsigned int i = 0; i < 2; i++)
		child_end(callers[i]);
	wait_until("it is thawed", !tier_mark(w.module).is_frozen);
	assert_done(tier_wait(method, TEST_DEADLINE_NS, NULL, &answer));
	assert_int_equal(answer.status, TIER_STATUS_FINAL);
	assert_int_equal(events_count(w.conn, w.module, method, TIER_EVENT_PUBLISHED), 2);
	world_end(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_frozen_module_stands_still_while_others_call),
		cmocka_unit_test(a_method_first_called_in_a_freeze_gets_its_code),
		cmocka_unit_test(a_killed_freezer_thaws),
		cmocka_unit_test(closing_the_module_thaws),
		cmocka_unit_test(other_users_may_not_freeze),
		cmocka_unit_test(waits_end_frozen_and_the_freeze_when_the_compiler_has),
		cmocka_unit_test(a_command_runs_while_tierctl_freezes),
		cmocka_unit_test(tierctl_freezes_until_it_is_interrupted),
		cmocka_unit_test(tierctl_marks_tell_whether_code_changed),
		cmocka_unit_test(bench_measures_frozen_and_says_what_changed),
		cmocka_unit_test(freezers_of_many_processes_exclude_every_change),
		cmocka_unit_test(bench_holds_every_tier_of_the_ladder),
		cmocka_unit_test(the_knobs_in_force_are_shown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
