/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "system/harness.h"
#include "system/json.h"
#include "util/base.h"

/* The climb: the iterator says 1, then N, then ends; every transition on the way is journalled in its order, and the
 * final code is there for processes that come later. */

#define STEPS_MAX 8

/* -- The schedule --- */
static unsigned int climb_steps(struct tier_method *method, uint32_t *steps)
{
	struct tier_climb climb_ = TIER_CLIMB(method);
	unsigned int n = 0;
	uint32_t calls;
	int r;

	while ((r = tier_climb_next(&climb_, TEST_DEADLINE_NS, NULL, &calls)) > 0) {
		assert_true(calls > 0 && n < STEPS_MAX);
		steps[n++] = calls;
		assert_int_equal(climb_.n_steps, n);
		while (calls--)
			assert_int_equal(tier_entry(method)(10, 0, 0, 0, 0), 55);
	}
	assert_done(r);
	assert_int_equal(climb_.answer.status, TIER_STATUS_FINAL);
	assert_int_equal(climb_.answer.tier, TIER_LEVEL_TIER1);
	assert_int_equal(climb_.answer.reason, TIER_REASON_PROMOTED);
	assert_int_equal(tier_climb_next(&climb_, TEST_DEADLINE_NS, NULL, &calls), 0);	/* and stays so */
	return n;
}

static void the_schedule_is(uint32_t n, const char *const *args)
{
	uint32_t steps[STEPS_MAX];
	struct daemon daemon;
	struct tier_conn *conn;

	daemon_start(&daemon, args);
	conn = daemon_connect(&daemon);
	assert_int_equal(climb_steps(workload_load(conn, "fib", NULL), steps), 2);
	assert_int_equal(steps[0], 1);
	assert_int_equal(steps[1], n);
	tier_disconnect(conn);
	daemon_stop(&daemon);
}

static void a_cold_method_needs_1_then_30_calls(void **state)
{
	the_schedule_is(30, NULL);
}

static void so_it_does_without_a_delay(void **state)
{
	the_schedule_is(30, ARGS("--call-counting-delay=0"));
}

static void other_thresholds_are_yielded_as_they_are(void **state)
{
	the_schedule_is(1, ARGS("--call-count-threshold=1"));
	the_schedule_is(77, ARGS("--call-count-threshold=77", "--call-counting-delay=1ms"));
	the_schedule_is(65535, ARGS("--call-count-threshold=65535", "--call-counting-delay=0"));
}

static void with_call_counting_off_one_call_is_all(void **state)
{
	struct tier_climb steps;
	struct tier_method *method;
	struct daemon daemon;
	struct tier_conn *conn;
	uint32_t calls;

	daemon_start(&daemon, ARGS("--call-counting=off"));
	conn = daemon_connect(&daemon);
	method = workload_load(conn, "fib", NULL);
	steps = TIER_CLIMB(method);
	assert_int_equal(tier_climb_next(&steps, TEST_DEADLINE_NS, NULL, &calls), 1);
	assert_int_equal(calls, 1);
	assert_int_equal(tier_entry(method)(10, 0, 0, 0, 0), 55);
	assert_int_equal(tier_climb_next(&steps, TEST_DEADLINE_NS, NULL, &calls), 0);
	assert_int_equal(steps.answer.tier, TIER_LEVEL_TIER0);
	assert_int_equal(steps.answer.reason, TIER_REASON_COUNTING_OFF);
	tier_disconnect(conn);
	daemon_stop(&daemon);
}

/* Whoever makes fewer calls than it was told is told how many are left, and is never kept waiting. */
static void a_caller_who_calls_too_little_is_told_the_rest(void **state)
{
	struct tier_method *method;
	struct tier_climb steps;
	struct daemon daemon;
	struct tier_conn *conn;
	uint32_t calls;

	daemon_start(&daemon, NULL);
	conn = daemon_connect(&daemon);
	method = workload_load(conn, "fib", NULL);
	steps = TIER_CLIMB(method);
	for (int i = 0; i < 3; i++) {	/* no call at all */
		assert_int_equal(tier_climb_next(&steps, TEST_DEADLINE_NS, NULL, &calls), 1);
		assert_int_equal(calls, 1);
	}
	tier_entry(method)(10, 0, 0, 0, 0);
	for (uint32_t left = 30; left; left--) {
		assert_int_equal(tier_climb_next(&steps, TEST_DEADLINE_NS, NULL, &calls), 1);
		assert_int_equal(calls, left);
		tier_entry(method)(10, 0, 0, 0, 0);
	}
	assert_int_equal(tier_climb_next(&steps, TEST_DEADLINE_NS, NULL, &calls), 0);
	tier_disconnect(conn);
	daemon_stop(&daemon);
}

static void tierctl_drive_prints_the_schedule(void **state)
{
	static char out[RUN_TEXT_MAX], err[RUN_TEXT_MAX];
	static const char *const stages[] = { "cold", "counting", "final" };
	static const unsigned int calls[] = { 1, 30, 0 };
	struct daemon daemon;
	char path[64];

	daemon_start(&daemon, NULL);
	assert_int_equal(tierctl(&daemon, out, err, "load", workload_object("fib"), NULL), 0);
	assert_int_equal(tierctl(&daemon, out, err, "drive", "fib:fib", "10", "--json", NULL), 0);
	assert_string_equal(err, "");
	assert_int_equal(json_length(out, "steps"), 3);
	for (unsigned int i = 0; i < 3; i++) {
		snprintf(path, sizeof(path), "steps.%u.stage", i);
		json_expect(out, path, stages[i]);
		snprintf(path, sizeof(path), "steps.%u.calls", i);
		assert_int_equal(json_number(out, path), calls[i]);
	}
	json_expect(out, "steps.2.tier", "Tier1");
	tierctl(&daemon, out, err, "drive", "fib:fib", "10", "--json", NULL);	/* final: nothing to do */
	assert_int_equal(json_length(out, "steps"), 1);
	assert_int_equal(json_number(out, "steps.0.calls"), 0);
	daemon_stop(&daemon);
}

/* -- The history --- */
struct expected {
	enum tier_event_kind kind;
	enum tier_level from, to;
	enum tier_reason reason;
};

static void expect_event(const struct tier_event *event, const struct expected *expected)
{
	if (event->kind != expected->kind)
		fail_msg("%s instead of %s", tier_event_name(event->kind), tier_event_name(expected->kind));
	if (event->from != expected->from || event->to != expected->to)
		fail_msg("%s: from %s to %s instead of from %s to %s", tier_event_name(event->kind), tier_level_name(event->from),
			 tier_level_name(event->to), tier_level_name(expected->from), tier_level_name(expected->to));
	if (event->reason != expected->reason)
		fail_msg("%s: reason %s instead of %s", tier_event_name(event->kind), tier_reason_name(event->reason),
			 tier_reason_name(expected->reason));
}

static void check_versions(const struct tier_event *events, size_t n)
{
	uint64_t tier0 = events[0].version, tier1 = 0;

	assert_true(tier0 > 0);
	for (size_t i = 0; i < n; i++) {
		bool is_next = events[i].kind == TIER_EVENT_QUEUED || events[i].kind == TIER_EVENT_COMPILE_STARTED
			    || events[i].kind == TIER_EVENT_COMPILE_ENDED || (events[i].kind == TIER_EVENT_PUBLISHED && i);

		if (is_next && !tier1)
			tier1 = events[i].version;
		if (events[i].kind != TIER_EVENT_FINAL)
			assert_int_equal(events[i].version, is_next ? tier1 : tier0);
	}
	assert_true(tier1 > tier0);
}

static void the_history_of_a_climb(const struct expected *expected, size_t n_expected, const char *const *args)
{
	struct tier_event events[16];
	struct tier_method *method;
	struct tier_module *module;
	struct daemon daemon;
	struct tier_conn *conn;
	size_t n;

	daemon_start(&daemon, args);
	conn = daemon_connect(&daemon);
	method = workload_load(conn, "fnv1a", &module);
	climb(method, NULL);
	n = events_read(conn, tier_module_id(module), method_index(module, method), events, ARRAY_SIZE(events));
	for (size_t i = 0; i < n && i < n_expected; i++)
		expect_event(&events[i], &expected[i]);
	assert_int_equal(n, n_expected);
	check_versions(events, n);
	for (size_t i = 0; i < n; i++) {
		bool is_crossing = events[i].kind == TIER_EVENT_THRESHOLD;

		assert_int_equal(events[i].source, is_crossing ? events_source() : TIER_SOURCE_DAEMON);
		assert_int_equal(events[i].pid, is_crossing ? getpid() : 0);
		assert_int_equal(events[i].tid, is_crossing ? gettid() : 0);
		assert_int_equal(events[i].uid, geteuid());
		assert_true(events[i].time_ns > 0);
	}
	assert_int_equal(events_read(conn, tier_module_id(module), UINT32_MAX, events, 1), n_expected + 1);
	assert_int_equal(events[0].kind, TIER_EVENT_MODULE_LOADED);
	tier_disconnect(conn);
	daemon_stop(&daemon);
}

#define TIERS(from, to) TIER_LEVEL_##from, TIER_LEVEL_##to
#define FROM_THRESHOLD_ON                                                                                              \
	{ TIER_EVENT_THRESHOLD, TIERS(TIER0, TIER0), TIER_REASON_CALLS },                                              \
	{ TIER_EVENT_QUEUED, TIERS(TIER0, TIER1), TIER_REASON_CALLS },                                                 \
	{ TIER_EVENT_COMPILE_STARTED, TIERS(TIER0, TIER1), TIER_REASON_NONE },                                         \
	{ TIER_EVENT_COMPILE_ENDED, TIERS(TIER0, TIER1), TIER_REASON_NONE },                                           \
	{ TIER_EVENT_PUBLISHED, TIERS(TIER0, TIER1), TIER_REASON_PROMOTED },                                             \
	{ TIER_EVENT_FINAL, TIERS(TIER1, TIER1), TIER_REASON_PROMOTED }

/* The sweep is off the table here: in a test that stands still between a decrement and its bell it would be right to
 * report the crossing as recovered. */
static void every_transition_is_journalled_in_its_order(void **state)
{
	static const struct expected expected[] = {
		{ TIER_EVENT_PUBLISHED, TIERS(NONE, TIER0), TIER_REASON_FIRST_CALL },
		{ TIER_EVENT_COUNTING_BEGUN, TIERS(TIER0, TIER0), TIER_REASON_DELAY_ENDED },
		FROM_THRESHOLD_ON,
	};

	the_history_of_a_climb(expected, ARRAY_SIZE(expected), ARGS("--sweep=1h"));
}

static void without_a_delay_counting_begins_with_the_first_call(void **state)
{
	static const struct expected expected[] = {
		{ TIER_EVENT_PUBLISHED, TIERS(NONE, TIER0), TIER_REASON_FIRST_CALL },
		{ TIER_EVENT_COUNTING_BEGUN, TIERS(TIER0, TIER0), TIER_REASON_FIRST_CALL },
		FROM_THRESHOLD_ON,
	};

	the_history_of_a_climb(expected, ARRAY_SIZE(expected), ARGS("--sweep=1h", "--call-counting-delay=0"));
}

static void a_subscriber_sees_each_event_once_as_it_comes(void **state)
{
	struct tier_events *events;
	struct tier_event event;
	struct tier_method *method;
	struct tier_module *module;
	struct daemon daemon;
	struct tier_conn *conn;
	uint64_t first, last, expected = 0;

	daemon_start(&daemon, ARGS("--call-counting-delay=0"));
	conn = daemon_connect(&daemon);
	assert_done(tier_events_open(conn, 0, &events));
	assert_int_equal(tier_events_next(events, 1000000, &event, &first, &last), -ETIMEDOUT);
	method = workload_load(conn, "fnv1a", &module);
	climb(method, NULL);
	do {
		assert_done(tier_events_next(events, TEST_DEADLINE_NS, &event, &first, &last));
		assert_true(!expected || event.sequence == expected);
		expected = event.sequence + 1;
	} while (event.kind != TIER_EVENT_FINAL);
	assert_int_equal(tier_events_next(events, 0, &event, &first, &last), -ETIMEDOUT);
	tier_events_close(events);
	tier_disconnect(conn);
	daemon_stop(&daemon);
}

/* -- Another process --- */
struct latecomer {
	const struct daemon *daemon;
	int begin;	/* reads as ended when the method is final */
};

static void call_final_code(void *context)
{
	const struct latecomer *latecomer = context;
	struct tier_conn_opts opts = { .size = sizeof(opts), .socket = latecomer->daemon->socket };
	struct tier_answer before, after;
	struct tier_module *module;
	struct tier_method *method;
	struct tier_conn *conn;
	char byte;

	child_assert(read(latecomer->begin, &byte, 1) == 0);
	child_assert(!tier_connect(&conn, &opts));
	child_assert(!tier_open(conn, "fib", &module));
	child_assert(!tier_find(module, "fib", &method));
	before = tier_status(method);
	child_assert(before.status == TIER_STATUS_FINAL && before.tier == TIER_LEVEL_TIER1);
	child_assert(tier_entry(method)(20, 0, 0, 0, 0) == 6765);
	after = tier_status(method);
	child_assert(after.status == TIER_STATUS_FINAL && after.generation == before.generation);
	tier_close(module);
	tier_disconnect(conn);
}

static void another_process_runs_final_code_from_its_first_call(void **state)
{
	struct latecomer latecomer;
	struct tier_method *method;
	struct tier_module *module;
	struct daemon daemon;
	struct tier_conn *conn;
	size_t n_events;
	int ends[2];
	pid_t pid;

	daemon_start(&daemon, ARGS("--call-counting-delay=0"));
	pipe_open(ends);
	latecomer = (struct latecomer){ &daemon, ends[0] };
	pid = fork();
	if (!pid) {
		close(ends[1]);
		call_final_code(&latecomer);
		_exit(0);
	}
	conn = daemon_connect(&daemon);
	method = workload_load(conn, "fib", &module);
	climb(method, (const uint64_t[5]){ 20 });
	assert_done(tier_find(module, "fib_of", &method));
	climb(method, (const uint64_t[5]){ 20 });	/* so that nothing is left to happen */
	n_events = events_read(conn, 0, UINT32_MAX, NULL, 0);
	close(ends[1]);
	child_end(pid);
	assert_int_equal(events_read(conn, 0, UINT32_MAX, NULL, 0), n_events);
	close(ends[0]);
	tier_disconnect(conn);
	daemon_stop(&daemon);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_cold_method_needs_1_then_30_calls),
		cmocka_unit_test(so_it_does_without_a_delay),
		cmocka_unit_test(other_thresholds_are_yielded_as_they_are),
		cmocka_unit_test(with_call_counting_off_one_call_is_all),
		cmocka_unit_test(a_caller_who_calls_too_little_is_told_the_rest),
		cmocka_unit_test(tierctl_drive_prints_the_schedule),
		cmocka_unit_test(every_transition_is_journalled_in_its_order),
		cmocka_unit_test(without_a_delay_counting_begins_with_the_first_call),
		cmocka_unit_test(a_subscriber_sees_each_event_once_as_it_comes),
		cmocka_unit_test(another_process_runs_final_code_from_its_first_call),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
