/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>
#include <tier/wire.h>
#include "system/harness.h"
#include "system/json.h"
#include "util/base.h"

/* Exactness: the N-th counted call crosses the threshold, once, whoever makes it; and until then everybody who asks is told
 * exactly how many calls are left. */

#define N_THREADS 8

struct world {
	struct daemon daemon;
	struct tier_conn *conn;
	struct tier_module *module;
	struct tier_method *method;
	uint32_t n;		/* the threshold */
};

static void world_start(struct world *world, uint32_t n)
{
	char threshold[64];

	*world = (struct world){ .n = n };
	snprintf(threshold, sizeof(threshold), "--call-count-threshold=%u", n);
	daemon_start(&world->daemon, ARGS("--call-counting-delay=0", "--sweep=1h", threshold));
	world->conn = daemon_connect(&world->daemon);
	world->method = workload_load(world->conn, "fnv1a", &world->module);
}

static void world_end(struct world *world)
{
	tier_disconnect(world->conn);
	daemon_stop(&world->daemon);
}

static void call(const struct tier_method *method, uint64_t n_times)
{
	tier_fn fn = tier_entry(method);

	while (n_times--)
		fn(0, 0, 0, 0, 0);
}

/* Nothing has crossed although only @left calls are left; as shared memory and the daemon say. */
static void expect_left(const struct world *world, uint32_t left)
{
	struct tier_answer mapped = tier_status(world->method), asked;

	assert_done(tier_status_ask(world->method, &asked));
	assert_int_equal(mapped.remaining, left);
	assert_int_equal(tier_remaining(world->method), left);
	assert_int_equal(asked.remaining, left);
	assert_int_equal(mapped.status, asked.status);
	assert_int_equal(mapped.stage, asked.stage);
	assert_int_equal(mapped.tier, asked.tier);
	assert_int_equal(mapped.reason, asked.reason);
	assert_int_equal(mapped.generation, asked.generation);
}

static void expect_counting(const struct world *world, uint32_t left)
{
	expect_left(world, left);
	assert_int_equal(tier_status(world->method).stage, TIER_STAGE_COUNTING);
}

static void tierctl_says(const struct world *world, uint32_t left)
{
	static char out[RUN_TEXT_MAX];

	assert_int_equal(tierctl(&world->daemon, out, NULL, "remaining", "fnv1a:fnv1a", "--json", NULL), 0);
	assert_int_equal(json_number(out, "remaining"), left);
}

static unsigned int n_crossings(const struct world *world)
{
	return events_count(world->conn, world->module, world->method, TIER_EVENT_THRESHOLD);
}

/* The threshold was crossed once, by @pid; the promotion it brought is the last. */
static void expect_one_crossing(const struct world *world, pid_t pid)
{
	struct tier_event events[64];
	struct tier_answer answer;
	struct wire_stats stats;
	size_t n;

	assert_done(tier_wait(world->method, TEST_DEADLINE_NS, NULL, &answer));
	assert_int_equal(answer.status, TIER_STATUS_FINAL);
	assert_int_equal(answer.reason, TIER_REASON_PROMOTED);
	assert_int_equal(n_crossings(world), 1);
	n = events_read(world->conn, tier_module_id(world->module), method_index(world->module, world->method), events, 64);
	for (size_t i = 0; i < n; i++)
		if (events[i].kind == TIER_EVENT_THRESHOLD && pid)
			assert_int_equal(events[i].pid, pid);
	assert_done(tier_stats(world->conn, &stats));
	assert_int_equal(stats.n_thresholds[TIER_SOURCE_KERNEL] + stats.n_thresholds[TIER_SOURCE_SOCKET]
			 + stats.n_thresholds[TIER_SOURCE_SWEEP], 1);
	expect_left(world, 0);
	call(world->method, world->n + 1ul);	/* final code is not counted */
	assert_int_equal(n_crossings(world), 1);
}

/* -- One thread --- */
/* All steps of a short way; of a long one both ends and some between, unless there is time. */
static bool step_is_looked_at(uint32_t step, uint32_t n)
{
	return test_is_long() || step < 64 || n - step < 64 || step % 251 == 0;
}

static void every_step_of(uint32_t n)
{
	struct world world;

	world_start(&world, n);
	expect_left(&world, 1);		/* cold */
	tierctl_says(&world, 1);
	call(world.method, 1);		/* brings code, is not counted */
	for (uint32_t left = n; left; left--) {
		if (step_is_looked_at(n - left, n))
			expect_counting(&world, left);
		if (n <= 4)
			tierctl_says(&world, left);
		call(world.method, 1);
	}
	assert_int_equal(tier_remaining(world.method), 0);
	expect_one_crossing(&world, getpid());
	tierctl_says(&world, 0);
	world_end(&world);
}

static uint32_t random_threshold(void)
{
	uint16_t n = 0;

	assert_int_equal(getrandom(&n, sizeof(n), 0), sizeof(n));
	return n ? n : 1;
}

static void remaining_is_exact_at_every_step(void **state)
{
	static const uint32_t thresholds[] = { 1, 2, 3, 30, 65535 };
	uint32_t n;

	for (size_t i = 0; i < ARRAY_SIZE(thresholds); i++)
		every_step_of(thresholds[i]);
	for (int i = 0; i < (test_is_long() ? 20 : 2); i++) {
		n = random_threshold();
		print_message("N = %u\n", n);
		every_step_of(n);
	}
}

static void during_the_delay_n_calls_are_left_and_none_is_counted(void **state)
{
	struct daemon daemon;
	struct tier_conn *conn;
	struct tier_method *method;
	struct tier_answer answer;

	daemon_start(&daemon, ARGS("--call-counting-delay=1h", "--call-count-threshold=40"));
	conn = daemon_connect(&daemon);
	method = workload_load(conn, "fnv1a", NULL);
	for (int i = 0; i < 100; i++) {
		call(method, 1);
		assert_done(tier_status_ask(method, &answer));
		assert_int_equal(answer.stage, TIER_STAGE_UNCOUNTED);
		assert_int_equal(answer.remaining, 40);
		assert_int_equal(tier_remaining(method), 40);
	}
	tier_disconnect(conn);
	daemon_stop(&daemon);
}

/* -- Eight threads --- */
struct caller {
	pthread_barrier_t *barrier;
	const struct tier_method *method;
	uint64_t n_calls;
};

static void *call_together(void *argument)
{
	const struct caller *caller = argument;

	pthread_barrier_wait(caller->barrier);
	call(caller->method, caller->n_calls);
	return NULL;
}

static void call_from_threads(const struct tier_method *method, uint64_t calls_each)
{
	pthread_t threads[N_THREADS];
	pthread_barrier_t barrier;
	struct caller caller = { &barrier, method, calls_each };

	pthread_barrier_init(&barrier, NULL, N_THREADS);
	for (int i = 0; i < N_THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, call_together, &caller), 0);
	for (int i = 0; i < N_THREADS; i++)
		pthread_join(threads[i], NULL);
	pthread_barrier_destroy(&barrier);
}

static void threads_that_make_one_call_too_few_leave_exactly_one(void **state)
{
	struct world world;

	for (uint32_t each = 1; each <= (test_is_long() ? 8191 : 4096); each *= 8) {
		world_start(&world, N_THREADS * each + 1);
		call(world.method, 1);
		expect_counting(&world, N_THREADS * each + 1);
		call_from_threads(world.method, each);
		expect_counting(&world, 1);
		assert_int_equal(n_crossings(&world), 0);
		call(world.method, 1);
		expect_one_crossing(&world, getpid());
		world_end(&world);
	}
}

static void threads_that_race_across_the_threshold_cross_once(void **state)
{
	struct world world;

	for (int i = 0; i < (test_is_long() ? 50 : 4); i++) {
		uint32_t n = 1 + random_threshold() % 2000;

		world_start(&world, n);
		call(world.method, 1);
		call_from_threads(world.method, n / N_THREADS + 1 + i * 100);
		expect_one_crossing(&world, getpid());
		world_end(&world);
	}
}

/* The first calls race too: with the prestub, and with the store that makes the stub the target. All but those that were
 * on their way before are counted, so no more than all of them may be missing. */
static void threads_that_begin_cold_cross_once(void **state)
{
	struct world world;
	uint32_t left;

	world_start(&world, 1000);
	call_from_threads(world.method, 100);
	left = tier_remaining(world.method);
	assert_in_range(left, 1000 - N_THREADS * 100, 1000 - N_THREADS * 100 + N_THREADS);
	expect_counting(&world, left);
	assert_int_equal(n_crossings(&world), 0);
	call(world.method, left - 1);
	expect_counting(&world, 1);
	call_from_threads(world.method, 1);
	expect_one_crossing(&world, getpid());
	world_end(&world);
}

/* -- Two processes --- */
/* The child comes from before the parent knew of the daemon: it is a process like any other. It reads the socket's path,
 * then numbers of calls to make, and writes a byte when it has made them. */
struct pair {
	struct world world;
	pid_t pid;
	int begin, done;
};

static void call_in_another_process(int begin, int done)
{
	struct tier_conn_opts opts = { .size = sizeof(opts) };
	struct tier_module *module;
	struct tier_method *method;
	struct tier_conn *conn;
	struct daemon daemon;
	uint64_t n_calls;

	child_assert(read(begin, &daemon, sizeof(daemon)) == sizeof(daemon));
	opts.socket = daemon.socket;
	child_assert(!tier_connect(&conn, &opts));
	child_assert(!tier_open(conn, "fnv1a", &module));
	child_assert(!tier_find(module, "fnv1a", &method));
	while (read(begin, &n_calls, sizeof(n_calls)) == sizeof(n_calls)) {
		call(method, n_calls);
		child_assert(write(done, "", 1) == 1);
	}
}

static void pair_start(struct pair *pair, uint32_t n)
{
	int begin[2], done[2];

	pipe_open(begin);
	pipe_open(done);
	pair->pid = fork();
	if (!pair->pid) {
		close(begin[1]);
		call_in_another_process(begin[0], done[1]);
		_exit(0);
	}
	close(begin[0]);
	close(done[1]);
	pair->begin = begin[1];
	pair->done = done[0];
	world_start(&pair->world, n);
	assert_int_equal(write(pair->begin, &pair->world.daemon, sizeof(struct daemon)), sizeof(struct daemon));
}

static void pair_ask(struct pair *pair, uint64_t n_calls)
{
	assert_int_equal(write(pair->begin, &n_calls, sizeof(n_calls)), sizeof(n_calls));
}

static void pair_await(struct pair *pair)
{
	char byte;

	assert_int_equal(read(pair->done, &byte, 1), 1);
}

static void pair_end(struct pair *pair)
{
	close(pair->begin);
	child_end(pair->pid);
	close(pair->done);
	world_end(&pair->world);
}

static void two_processes_count_on_the_same_counter(void **state)
{
	struct pair pair;

	pair_start(&pair, 10001);
	call(pair.world.method, 1);
	for (int i = 0; i < 5; i++) {
		pair_ask(&pair, 1000);
		call(pair.world.method, 1000);
		pair_await(&pair);
		expect_counting(&pair.world, 10001 - (i + 1) * 2000);
	}
	assert_int_equal(n_crossings(&pair.world), 0);
	pair_ask(&pair, 1);		/* the other one crosses */
	pair_await(&pair);
	expect_one_crossing(&pair.world, pair.pid);
	pair_end(&pair);
}

static void two_processes_that_race_across_the_threshold_cross_once(void **state)
{
	struct pair pair;

	for (int i = 0; i < (test_is_long() ? 50 : 4); i++) {
		pair_start(&pair, 1 + random_threshold() % 20000);
		call(pair.world.method, 1);
		pair_ask(&pair, pair.world.n);
		call(pair.world.method, pair.world.n);
		pair_await(&pair);
		expect_one_crossing(&pair.world, 0);
		pair_end(&pair);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(remaining_is_exact_at_every_step),
		cmocka_unit_test(during_the_delay_n_calls_are_left_and_none_is_counted),
		cmocka_unit_test(threads_that_make_one_call_too_few_leave_exactly_one),
		cmocka_unit_test(threads_that_race_across_the_threshold_cross_once),
		cmocka_unit_test(threads_that_begin_cold_cross_once),
		cmocka_unit_test(two_processes_count_on_the_same_counter),
		cmocka_unit_test(two_processes_that_race_across_the_threshold_cross_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
