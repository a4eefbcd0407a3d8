/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <tier/wire.h>
#include <time.h>
#include <unistd.h>
#include "bench/inputs.h"
#include "system/harness.h"
#include "system/solo.h"

/* Clients that are killed or stopped
 *
 * At random moments of a climb; and at the one moment that matters, between the decrement that crosses the threshold and
 * the probe that tells of it: a tracer steps the client until its counter reads 0. The counter is the truth, so the
 * threshold is found all the same, once, by whoever looks first: the end of the session, a question, the sweep. A bell
 * that comes after that changes nothing. */

#define STEPS_MAX 100000u	/* from the stop in raise() to the decrement it is a few hundred instructions */

static const char *const names[] = { "fnv1a", "crc32", "siphash", "base64", "bsearch", "insertsort" };
#define N_NAMES (sizeof(names) / sizeof(names[0]))

/* -- Children --- */
static struct tier_conn *child_connect(const struct daemon *daemon)
{
	struct tier_conn_opts opts = { .size = sizeof(opts), .socket = daemon->socket, .timeout_ns = TEST_DEADLINE_NS };
	struct tier_conn *conn;

	child_assert(!tier_connect(&conn, &opts));
	return conn;
}

static uint64_t call(const struct tier_method *method, const struct workload_input *input)
{
	return input_call(input, tier_entry(method));
}

/* Climbs to the final tier; every call's result is the native build's. */
static void child_climb(const struct tier_method *method, const char *name)
{
	struct workload_input *input = input_make(name);
	struct tier_climb steps = TIER_CLIMB(method);
	uint64_t expected;
	uint32_t n;
	int r;

	child_assert(input);
	expected = input_call(input, workload_find(name)->native);
	while ((r = tier_climb_next(&steps, TEST_DEADLINE_NS, NULL, &n)) > 0)
		for (; n; n--)
			child_assert(call(method, input) == expected);
	child_assert(!r && steps.answer.reason == TIER_REASON_PROMOTED);
	child_assert(call(method, input) == expected);
	input_free(input);
}

/* The module @name under that name, loaded by this process or by another one that was faster. A name is taken from the
 * beginning of a load on, and can be opened from its end on. */
static struct tier_module *child_open(struct tier_conn *conn, const char *name)
{
	uint64_t deadline = test_now_ns() + TEST_DEADLINE_NS;
	struct tier_module *module;
	int r;

	do {
		r = tier_load(conn, workload_object(name), name, 0, &module);
		if (r == -EEXIST)
			r = tier_open(conn, name, &module);
	} while (r == -ENOENT && test_now_ns() < deadline);
	child_assert(!r);
	return module;
}

static void child_climb_module(const struct daemon *daemon, const char *name)
{
	struct tier_conn *conn = child_connect(daemon);
	struct tier_module *module = child_open(conn, name);
	struct tier_method *method;

	child_assert(!tier_find(module, name, &method));
	child_climb(method, name);
	tier_close(module);
	tier_disconnect(conn);
}

/* -- Random moments --- */
struct crowd {
	struct daemon daemon;
	volatile uint32_t is_over;	/* the survivor may end */
	volatile uint32_t n_climbs;	/* that the survivor has finished */
};

static struct crowd *crowd_new(void)
{
	struct crowd *crowd = mmap(NULL, sizeof(*crowd), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	assert_true(crowd != MAP_FAILED);
	daemon_start(&crowd->daemon, ARGS("--call-counting-delay=1ms"));
	return crowd;
}

static void crowd_free(struct crowd *crowd)
{
	daemon_stop(&crowd->daemon);
	munmap(crowd, sizeof(*crowd));
}

/* Loads, climbs and unloads a module of its own, over and over. */
static void survivor(void *context)
{
	struct crowd *crowd = context;
	struct tier_conn *conn = child_connect(&crowd->daemon);

	while (!crowd->is_over || !crowd->n_climbs) {
		const char *name = names[crowd->n_climbs % N_NAMES];
		struct tier_module *module;
		struct tier_method *method;

		child_assert(!tier_load(conn, workload_object(name), "survivor", 0, &module));
		child_assert(!tier_find(module, name, &method));
		child_climb(method, name);
		tier_close(module);
		child_assert(!tier_unload(conn, "survivor"));
		crowd->n_climbs++;
	}
	tier_disconnect(conn);
}

/* Climbs one workload after the other, each under its own name, which others climb too. */
static void victim(void *context)
{
	struct crowd *crowd = context;

	for (size_t i = 0; i < N_NAMES; i++)
		child_climb_module(&crowd->daemon, names[i]);
}

static void pause_at_random(unsigned int *seed, long ns_max)
{
	nanosleep(&(struct timespec){ .tv_nsec = rand_r(seed) % ns_max }, NULL);
}

static uint64_t count_sessions(struct tier_conn *conn)
{
	struct wire_stats stats;

	assert_done(tier_stats(conn, &stats));
	return stats.n_sessions;
}

static uint32_t count_pending(struct tier_conn *conn)
{
	uint32_t n;

	assert_done(tier_pending_all(conn, &n));
	return n;
}

/* Everybody else is gone, nothing is left over, and what the victims left half climbed can be climbed. */
static void crowd_check_calm(struct crowd *crowd)
{
	struct tier_conn *conn = daemon_connect(&crowd->daemon);

	wait_until("the end of the victims' sessions", count_sessions(conn) == 1);
	child_end(child_start(victim, crowd));
	wait_until("the end of all compilations", !count_pending(conn));
	tier_disconnect(conn);
}

static void clients_killed_at_random_moments_disturb_nobody(void **state)
{
	unsigned int seed = (unsigned int)test_now_ns(), n_rounds = test_is_long() ? 300 : 40;
	struct crowd *crowd = crowd_new();
	pid_t watched = child_start(survivor, crowd);
	int status;

	print_message("seed %u\n", seed);
	for (unsigned int round = 0; round < n_rounds; round++) {
		pid_t victims[2] = { child_start(victim, crowd), child_start(victim, crowd) };

		for (int i = 0; i < 2; i++) {
			pause_at_random(&seed, 40000000);
			kill(victims[i], SIGKILL);
			status = child_reap(victims[i]);
			assert_true(!status || WIFSIGNALED(status));	/* not for a reason of its own */
		}
	}
	crowd->is_over = true;
	child_end(watched);
	assert_true(crowd->n_climbs > 0);
	crowd_check_calm(crowd);
	crowd_free(crowd);
}

static void a_client_stopped_at_random_moments_disturbs_nobody_and_goes_on(void **state)
{
	unsigned int seed = (unsigned int)test_now_ns(), n_rounds = test_is_long() ? 60 : 6;
	struct crowd *crowd = crowd_new();
	int status;

	print_message("seed %u\n", seed);
	for (unsigned int round = 0; round < n_rounds; round++) {
		pid_t stopped = child_start(victim, crowd), others = child_start(survivor, crowd);

		crowd->is_over = false;
		crowd->n_climbs = 0;
		for (int i = 0; i < 8 && !waitpid(stopped, &status, WNOHANG | WNOWAIT); i++) {
			pause_at_random(&seed, 10000000);
			kill(stopped, SIGSTOP);
			assert_int_equal(tierctl(&crowd->daemon, NULL, NULL, "stats", NULL), 0);
			if (!i)		/* a whole climb of another client while this one stands */
				wait_until("a climb beside a stopped client", crowd->n_climbs > 0);
			kill(stopped, SIGCONT);
		}
		child_end(stopped);
		crowd->is_over = true;
		child_end(others);
		for (size_t i = 0; i < N_NAMES; i++)
			assert_int_equal(tierctl(&crowd->daemon, NULL, NULL, "unload", names[i], NULL), 0);
	}
	crowd_check_calm(crowd);
	crowd_free(crowd);
}

/* -- Between decrement and probe --- */
struct gap {
	struct daemon daemon;
	pid_t pid;			/* stands in the gap */
	struct tier_conn *conn;
	struct tier_module *module;
	struct tier_method *method;
	struct wire_stats before;
};

/* Opens the module, calls it up to the last call before its threshold, stops, and makes that call. */
static void gap_child(void *context)
{
	struct gap *gap = context;
	struct tier_conn *conn = child_connect(&gap->daemon);
	struct tier_module *module;
	struct tier_method *method;

	child_assert(!tier_open(conn, "solo", &module) && !tier_find(module, "solo", &method));
	do
		child_assert(tier_entry(method)(SOLO_N, 0, 0, 0, 0) == solo(SOLO_N));
	while (tier_remaining(method) > 1);
	child_assert(tier_status(method).stage == TIER_STAGE_COUNTING);
	child_assert(!ptrace(PTRACE_TRACEME, 0, NULL, NULL));
	raise(SIGSTOP);
	for (int i = 0; i < 2; i++)
		child_assert(tier_entry(method)(SOLO_N, 0, 0, 0, 0) == solo(SOLO_N));
	tier_close(module);
	tier_disconnect(conn);
}

static void gap_await_stop(const struct gap *gap, int signal)
{
	int status;

	assert_int_equal(waitpid(gap->pid, &status, 0), gap->pid);
	if (!WIFSTOPPED(status) || WSTOPSIG(status) != signal)
		fail_msg("the client ends with status %#x instead of stopping with signal %d", status, signal);
}

static unsigned int gap_n_thresholds(struct gap *gap)
{
	return events_count(gap->conn, gap->module, gap->method, TIER_EVENT_THRESHOLD);
}

/* Starts a daemon and a client of it that stands between decrement and probe, traced. */
static void gap_open(struct gap *gap, const char *sweep)
{
	const char *object;

	daemon_start(&gap->daemon, ARGS("--call-counting-delay=0", sweep));
	object = bpf_compile(gap->daemon.folder, "solo", SOLO_SOURCE, "");
	assert_int_equal(tierctl(&gap->daemon, NULL, NULL, "load", object, NULL), 0);
	gap->pid = child_start(gap_child, gap);
	gap_await_stop(gap, SIGSTOP);
	gap->conn = daemon_connect(&gap->daemon);
	assert_done(tier_open(gap->conn, "solo", &gap->module));
	assert_done(tier_find(gap->module, "solo", &gap->method));
	assert_int_equal(tier_remaining(gap->method), 1);
	for (unsigned int n = 0; tier_remaining(gap->method); n++) {
		assert_true(n < STEPS_MAX);
		assert_int_equal(ptrace(PTRACE_SINGLESTEP, gap->pid, NULL, NULL), 0);
		gap_await_stop(gap, SIGTRAP);
	}
	assert_done(tier_stats(gap->conn, &gap->before));
}

static void gap_close(struct gap *gap)
{
	tier_close(gap->module);
	tier_disconnect(gap->conn);
	daemon_stop(&gap->daemon);
}

/* From tracing to an ordinary stop: what a debugger or a job-control shell leaves behind. */
static void gap_leave_stopped(struct gap *gap)
{
	assert_int_equal(ptrace(PTRACE_DETACH, gap->pid, NULL, (void *)(long)SIGSTOP), 0);
}

/* The threshold was found without its bell, and the climb went on. Reads shared memory only: asks nothing. */
static void gap_check_recovered(struct gap *gap)
{
	static struct tier_event events[64];
	unsigned int n_thresholds = 0;
	size_t n;

	wait_until("the promotion", tier_status(gap->method).stage == TIER_STAGE_FINAL);
	assert_int_equal(tier_status(gap->method).reason, TIER_REASON_PROMOTED);
	n = events_read(gap->conn, tier_module_id(gap->module), method_index(gap->module, gap->method), events, 64);
	assert_true(n <= 64);
	for (size_t i = 0; i < n; i++) {
		if (events[i].kind != TIER_EVENT_THRESHOLD)
			continue;
		assert_int_equal(events[i].source, TIER_SOURCE_SWEEP);
		assert_int_equal(events[i].pid, 0);
		n_thresholds++;
	}
	assert_int_equal(n_thresholds, 1);
	assert_int_equal(events_count(gap->conn, gap->module, gap->method, TIER_EVENT_PUBLISHED), 2);
}

/* The client goes on and rings: late, and nobody is woken by it. */
static void gap_check_late_bell(struct gap *gap)
{
	uint64_t generation = tier_status(gap->method).generation;
	struct wire_stats after;

	assert_int_equal(kill(gap->pid, SIGCONT), 0);
	child_end(gap->pid);
	wait_until("the late bell", !tier_stats(gap->conn, &after) && after.n_unconfirmed > gap->before.n_unconfirmed);
	assert_int_equal(after.n_unconfirmed, gap->before.n_unconfirmed + 1);
	assert_int_equal(gap_n_thresholds(gap), 1);
	assert_int_equal(tier_status(gap->method).generation, generation);
	assert_int_equal(after.n_published, 2);
}

static void a_threshold_of_a_client_killed_before_its_probe_is_found_at_the_end_of_its_session(void **state)
{
	struct gap gap;

	gap_open(&gap, "--sweep=1h");
	assert_int_equal(gap_n_thresholds(&gap), 0);
	assert_int_equal(tier_status(gap.method).stage, TIER_STAGE_REACHED);
	kill(gap.pid, SIGKILL);
	child_reap(gap.pid);
	gap_check_recovered(&gap);
	gap_close(&gap);
}

static void a_threshold_of_a_client_stopped_before_its_probe_is_found_by_a_question(void **state)
{
	struct tier_answer answer;
	struct gap gap;

	gap_open(&gap, "--sweep=1h");
	gap_leave_stopped(&gap);
	assert_int_equal(gap_n_thresholds(&gap), 0);
	assert_done(tier_status_ask(gap.method, &answer));
	assert_true(answer.stage >= TIER_STAGE_QUEUED);
	assert_int_equal(answer.remaining, 0);
	gap_check_recovered(&gap);
	gap_check_late_bell(&gap);
	gap_close(&gap);
}

static void a_threshold_of_a_client_stopped_before_its_probe_is_found_by_a_wait(void **state)
{
	struct tier_answer answer;
	struct gap gap;

	gap_open(&gap, "--sweep=1h");
	gap_leave_stopped(&gap);
	assert_done(tier_wait(gap.method, TEST_DEADLINE_NS, NULL, &answer));
	assert_int_equal(answer.stage, TIER_STAGE_FINAL);
	gap_check_recovered(&gap);
	gap_check_late_bell(&gap);
	gap_close(&gap);
}

static void a_threshold_of_a_client_stopped_before_its_probe_is_found_by_the_sweep(void **state)
{
	struct gap gap;

	gap_open(&gap, "--sweep=50ms");
	gap_leave_stopped(&gap);
	gap_check_recovered(&gap);
	gap_check_late_bell(&gap);
	gap_close(&gap);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(clients_killed_at_random_moments_disturb_nobody),
		cmocka_unit_test(a_client_stopped_at_random_moments_disturbs_nobody_and_goes_on),
		cmocka_unit_test(a_threshold_of_a_client_killed_before_its_probe_is_found_at_the_end_of_its_session),
		cmocka_unit_test(a_threshold_of_a_client_stopped_before_its_probe_is_found_by_a_question),
		cmocka_unit_test(a_threshold_of_a_client_stopped_before_its_probe_is_found_by_a_wait),
		cmocka_unit_test(a_threshold_of_a_client_stopped_before_its_probe_is_found_by_the_sweep),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
