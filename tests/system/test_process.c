/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>
#include "system/harness.h"
#include "util/base.h"

/* Processes, threads and signals: a first call, and a call that crosses a threshold, wherever a program may make one.
 * Every result is right, and every crossing is reported exactly once. */

#define N_METHODS 64
#define N_CALLS 30		/* the default threshold */

/* Method i of the module: x * (i + 2) + i */
struct world {
	struct daemon daemon;
	struct tier_conn *conn;
	struct tier_module *module;
	struct tier_method *methods[N_METHODS];
	unsigned int n_loaded;
	struct tier_events *cursor;
	struct tier_event *events;	/* the journal as far as it was read */
	size_t n_events, n_events_max;
};
static struct world world;
static unsigned char *object;
static size_t n_object;

/* -- The module --- */
static void object_make(void)
{
	char *source = NULL;
	size_t n;
	FILE *text = open_memstream(&source, &n);
	int fd;

	for (int i = 0; i < N_METHODS; i++)
		fprintf(text, "unsigned long long m%d(unsigned long long x) { return x * %d + %d; }\n", i, i + 2, i);
	fclose(text);
	fd = open(bpf_compile(world.daemon.folder, "many", source, ""), O_RDONLY | O_CLOEXEC);
	n_object = lseek(fd, 0, SEEK_END);
	object = malloc(n_object);
	assert_int_equal(pread(fd, object, n_object, 0), n_object);
	close(fd);
	free(source);
}

/* Loads it once more, with all methods cold. */
static void world_load(void)
{
	char name[16];

	snprintf(name, sizeof(name), "many%u", world.n_loaded++);
	assert_done(tier_load_bytes(world.conn, object, n_object, name, 0, &world.module));
	for (int i = 0; i < N_METHODS; i++) {
		snprintf(name, sizeof(name), "m%d", i);
		assert_done(tier_find(world.module, name, &world.methods[i]));
	}
}

static int world_start(void **state)
{
	memset(&world, 0, sizeof(world));
	daemon_start(&world.daemon, ARGS("--call-counting-delay=0", "--sweep=1h"));
	world.conn = daemon_connect(&world.daemon);
	if (!object)
		object_make();
	world_load();
	assert_done(tier_events_open(world.conn, 1, &world.cursor));
	return 0;
}

static void alarm_every(int us, void (*handler)(int))
{
	const struct sigaction action = { .sa_handler = handler ? handler : SIG_IGN, .sa_flags = SA_RESTART };
	const struct itimerval often = { { 0, us }, { 0, us } };

	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &often, NULL);
}

static int world_end(void **state)
{
	alarm_every(0, NULL);	/* of a test that failed */
	tier_events_close(world.cursor);
	free(world.events);
	tier_disconnect(world.conn);
	daemon_stop(&world.daemon);
	return 0;
}

static bool call(int i, uint64_t n)
{
	tier_fn fn = tier_entry(world.methods[i]);

	for (uint64_t x = 1; x <= n; x++)
		if (fn(x, 0, 0, 0, 0) != x * (i + 2) + i)
			return false;
	return true;
}

/* -- What the journal must say --- */
static void journal_read_on(void)
{
	int r;

	for (;; world.n_events++) {
		if (world.n_events == world.n_events_max) {
			world.n_events_max = world.n_events_max * 2 + 1024;
			world.events = reallocarray(world.events, world.n_events_max, sizeof(*world.events));
			assert_non_null(world.events);
		}
		r = tier_events_next(world.cursor, 0, &world.events[world.n_events], NULL, NULL);
		if (r)
			break;
		assert_int_equal(world.events[world.n_events].sequence, world.n_events + 1);
	}
	assert_int_equal(r, -ETIMEDOUT);
}

/* How many events of a kind there are of a method; the last of them. */
static unsigned int find_events(int i, enum tier_event_kind kind, struct tier_event *ret_last)
{
	uint64_t module = tier_module_id(world.module);
	uint32_t index = method_index(world.module, world.methods[i]);
	unsigned int n = 0;

	journal_read_on();
	for (size_t k = 0; k < world.n_events; k++) {
		const struct tier_event *event = &world.events[k];

		if (event->module != module || event->method != index || event->kind != kind)
			continue;
		*ret_last = *event;
		n++;
	}
	return n;
}

static unsigned int n_events(int i, enum tier_event_kind kind)
{
	struct tier_event last;

	return find_events(i, kind, &last);
}

static struct tier_event crossing(int i)
{
	struct tier_event found = { 0 };

	assert_int_equal(find_events(i, TIER_EVENT_THRESHOLD, &found), 1);
	return found;
}

/* Compiled once for tier 0, crossed once, promoted once. */
static void expect_climbed_once(int i)
{
	struct tier_answer answer;

	assert_done(tier_wait(world.methods[i], TEST_DEADLINE_NS, NULL, &answer));
	assert_int_equal(answer.reason, TIER_REASON_PROMOTED);
	crossing(i);
	assert_int_equal(n_events(i, TIER_EVENT_PUBLISHED), 2);
	assert_true(call(i, 10));
}

static void expect_counting(int i, uint32_t left)
{
	struct tier_answer answer;

	assert_done(tier_status_ask(world.methods[i], &answer));
	assert_int_equal(answer.stage, TIER_STAGE_COUNTING);
	assert_int_equal(answer.remaining, left);
	assert_int_equal(n_events(i, TIER_EVENT_THRESHOLD), 0);
	assert_int_equal(n_events(i, TIER_EVENT_PUBLISHED), 1);
}

/* -- Forks --- */
static pid_t fork_by_libc(void)
{
	return fork();
}

static pid_t fork_by_clone(void)
{
	return syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
}

/* What every fork does here: method 0 and 1 the parent has not called, 2 it has called, 3 lacks one call. */
static void fork_calls(void)
{
	struct tier_answer answer;

	errno = EXDEV;
	child_assert(call(0, 1));			/* a cold call */
	child_assert(errno == EXDEV);
	child_assert(call(1, 1 + N_CALLS));		/* a whole climb */
	child_assert(call(2, N_CALLS));
	child_assert(call(3, 1));
	child_assert(errno == EXDEV);
	for (int i = 1; i <= 3; i++) {
		child_assert(!tier_wait(world.methods[i], TEST_DEADLINE_NS, NULL, &answer));
		child_assert(answer.reason == TIER_REASON_PROMOTED);
		child_assert(!tier_status_ask(world.methods[i], &answer) && answer.status == TIER_STATUS_FINAL);
	}
	_exit(0);
}

static void expect_fork_calls_were_seen(pid_t pid)
{
	struct tier_event event;

	expect_counting(0, N_CALLS);
	for (int i = 1; i <= 3; i++) {
		expect_climbed_once(i);
		event = crossing(i);
		assert_int_equal(event.source, events_source());
		assert_int_equal(event.pid, pid);
	}
}

static void fork_and_call(pid_t (*fork_it)(void))
{
	pid_t pid;

	assert_true(call(2, 1) && call(3, N_CALLS));
	pid = fork_it();
	if (!pid)
		fork_calls();
	child_end(pid);
	expect_fork_calls_were_seen(pid);
	assert_true(call(0, N_CALLS));			/* and the parent is as it was */
	expect_climbed_once(0);
}

static void a_fork_before_its_parents_first_bell_climbs(void **state)
{
	fork_and_call(fork_by_libc);
}

static void a_fork_after_its_parents_bells_climbs(void **state)
{
	assert_true(call(9, 1 + N_CALLS));
	expect_climbed_once(9);
	fork_and_call(fork_by_libc);
}

static void a_raw_clone_before_its_parents_first_bell_climbs(void **state)
{
	fork_and_call(fork_by_clone);
}

static void a_raw_clone_after_its_parents_bells_climbs(void **state)
{
	assert_true(call(9, 1 + N_CALLS));
	expect_climbed_once(9);
	fork_and_call(fork_by_clone);
}

static void a_grandchild_climbs_too(void **state)
{
	int ends[2];
	pid_t pid;

	pipe_open(ends);
	assert_true(call(2, 1) && call(3, N_CALLS));
	pid = fork();
	if (!pid) {
		child_assert(call(4, 1 + N_CALLS));	/* has a session and a probe page of its own by now */
		pid = fork_by_clone();
		if (!pid)
			fork_calls();
		child_assert(write(ends[1], &pid, sizeof(pid)) == sizeof(pid));
		int status;
		child_assert(waitpid(pid, &status, 0) == pid && !status);
		child_assert(call(5, 1 + N_CALLS));
		_exit(0);
	}
	child_end(pid);
	assert_int_equal(crossing(4).pid, pid);
	assert_int_equal(crossing(5).pid, pid);
	assert_int_equal(read(ends[0], &pid, sizeof(pid)), sizeof(pid));
	expect_fork_calls_were_seen(pid);
	close(ends[0]);
	close(ends[1]);
}

/* -- Forks beside a thread in the prestub --- */
struct cold_caller {
	pthread_t thread;
	int method;
	pid_t tid;			/* once it is about to call */
	bool is_right, has_returned;
};

static void *call_cold(void *argument)
{
	struct cold_caller *caller = argument;

	__atomic_store_n(&caller->tid, gettid(), __ATOMIC_RELEASE);
	caller->is_right = call(caller->method, 1);
	__atomic_store_n(&caller->has_returned, true, __ATOMIC_RELEASE);
	pthread_testcancel();
	return NULL;
}

static bool thread_sleeps(const struct cold_caller *caller)
{
	pid_t tid = __atomic_load_n(&caller->tid, __ATOMIC_ACQUIRE);
	char path[64], text[256] = "";
	int fd;

	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", (int)tid);
	fd = tid ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	if (fd < 0)
		return false;
	if (read(fd, text, sizeof(text) - 1) < 0)
		text[0] = '\0';
	close(fd);
	return strstr(text, ") S ") != NULL;
}

/* A thread that has asked for code, with the daemon unable to answer */
static void cold_caller_start(struct cold_caller *caller, int method)
{
	*caller = (struct cold_caller){ .method = method };
	kill(world.daemon.pid, SIGSTOP);
	assert_int_equal(pthread_create(&caller->thread, NULL, call_cold, caller), 0);
	wait_until("a thread to sleep in the prestub", thread_sleeps(caller));
	assert_false(caller->has_returned);
}

static void fork_beside_a_cold_caller(pid_t (*fork_it)(void))
{
	struct cold_caller caller;
	pid_t pid;

	assert_true(call(2, 1) && call(3, N_CALLS));
	cold_caller_start(&caller, 0);
	pid = fork_it();
	if (!pid)
		fork_calls();
	kill(world.daemon.pid, SIGCONT);
	child_end(pid);
	pthread_join(caller.thread, NULL);
	assert_true(caller.is_right);
	for (int i = 1; i <= 3; i++)
		expect_climbed_once(i);
	assert_int_equal(n_events(0, TIER_EVENT_PUBLISHED), 1);
}

static void a_fork_beside_a_thread_in_the_prestub_climbs(void **state)
{
	fork_beside_a_cold_caller(fork_by_libc);
}

static void a_raw_clone_beside_a_thread_in_the_prestub_climbs(void **state)
{
	fork_beside_a_cold_caller(fork_by_clone);
}

static bool storm_is_over;

static void *call_cold_methods(void *argument)
{
	bool is_right = true;

	for (int i = 4; i < N_METHODS; i++)
		is_right &= call(i, 1 + N_CALLS);
	while (!__atomic_load_n(&storm_is_over, __ATOMIC_ACQUIRE))
		is_right &= call(4, 1);
	return (void *)(uintptr_t)is_right;
}

static void forks_in_a_storm_of_cold_calls_climb(void **state)
{
	pid_t pids[8];
	pthread_t threads[2];
	void *is_right;

	for (int round = 0; round < (test_is_long() ? 50 : 4); round++) {
		if (round)
			world_load();
		assert_true(call(2, 1) && call(3, N_CALLS));
		storm_is_over = false;
		for (int i = 0; i < 2; i++)
			assert_int_equal(pthread_create(&threads[i], NULL, call_cold_methods, NULL), 0);
		for (size_t i = 0; i < ARRAY_SIZE(pids); i++) {
			pids[i] = i % 2 ? fork_by_clone() : fork_by_libc();
			if (!pids[i])
				fork_calls();
		}
		for (size_t i = 0; i < ARRAY_SIZE(pids); i++)
			child_end(pids[i]);
		__atomic_store_n(&storm_is_over, true, __ATOMIC_RELEASE);
		for (int i = 0; i < 2; i++) {
			pthread_join(threads[i], &is_right);
			assert_non_null(is_right);
		}
		for (int i = 1; i < N_METHODS; i++)
			expect_climbed_once(i);
		tier_close(world.module);
	}
}

/* -- Signal handlers --- */
static volatile sig_atomic_t handler_next, handler_failed;
static pid_t handler_pid;

static void call_the_next_cold_method(int number)
{
	if (handler_next >= N_METHODS)
		return;
	errno = EXDEV;
	if (!call(handler_next, 1 + N_CALLS) || errno != EXDEV)
		handler_failed = 1;
	handler_next++;
}

static void fork_and_call_a_cold_method(int number)
{
	int i = handler_next;

	if (i >= N_METHODS || handler_pid)
		return;
	handler_pid = fork_by_clone();
	if (!handler_pid) {
		child_assert(call(i, 1 + N_CALLS));
		_exit(0);
	}
	handler_next++;
}

/* Every kind of request, and cold calls of its own */
static void use_the_api(int method)
{
	struct tier_module *module;
	struct tier_answer answer;
	uint32_t pending;

	assert_done(tier_status_ask(world.methods[0], &answer));
	assert_done(tier_pending_mine(world.conn, &pending));
	assert_int_equal(tier_wait(world.methods[method], TEST_DEADLINE_NS, NULL, NULL), 0);
	assert_done(tier_open(world.conn, tier_module_name(world.module), &module));
	tier_close(module);
}

static void a_handler_that_interrupts_api_calls_climbs(void **state)
{
	struct tier_module *other = world.module;
	struct tier_method *cold;
	char name[16];

	handler_next = handler_failed = 0;
	world_load();
	alarm_every(1000, call_the_next_cold_method);
	for (int i = 0; handler_next < N_METHODS; i++) {
		use_the_api(i % N_METHODS);
		snprintf(name, sizeof(name), "m%d", i % N_METHODS);
		assert_done(tier_find(other, name, &cold));
		assert_int_equal(tier_entry(cold)(1, 0, 0, 0, 0), i % N_METHODS * 2 + 2);
	}
	alarm_every(0, NULL);
	assert_false(handler_failed);
	for (int i = 0; i < N_METHODS; i++)
		expect_climbed_once(i);
}

static void a_handler_that_interrupts_api_calls_may_fork(void **state)
{
	struct tier_answer answer;
	int n = 0;

	handler_next = handler_pid = 0;
	alarm_every(2000, fork_and_call_a_cold_method);
	while (n < 16) {
		assert_done(tier_status_ask(world.methods[0], &answer));
		if (handler_pid) {
			child_end(handler_pid);
			n++;
			handler_pid = 0;
		}
	}
	alarm_every(0, NULL);
	if (handler_pid) {
		child_end(handler_pid);
		n++;
	}
	for (int i = 0; i < n; i++)
		expect_climbed_once(i);
}

/* -- Many threads at once --- */
struct starter {
	pthread_barrier_t *barrier;
	pthread_t thread;
	int method;
	uint64_t n_calls;
	bool is_right;
};

static void *call_at_once(void *argument)
{
	struct starter *starter = argument;

	pthread_barrier_wait(starter->barrier);
	starter->is_right = call(starter->method, starter->n_calls);
	return NULL;
}

static void start_64_threads(bool is_one_method, uint64_t n_calls)
{
	struct starter starters[64];
	pthread_barrier_t barrier;

	pthread_barrier_init(&barrier, NULL, ARRAY_SIZE(starters));
	for (size_t i = 0; i < ARRAY_SIZE(starters); i++) {
		starters[i] = (struct starter){ .barrier = &barrier, .method = is_one_method ? 0 : i, .n_calls = n_calls };
		assert_int_equal(pthread_create(&starters[i].thread, NULL, call_at_once, &starters[i]), 0);
	}
	for (size_t i = 0; i < ARRAY_SIZE(starters); i++) {
		pthread_join(starters[i].thread, NULL);
		assert_true(starters[i].is_right);
	}
	pthread_barrier_destroy(&barrier);
}

static void threads_whose_first_action_is_one_cold_method(void **state)
{
	struct tier_answer answer;

	for (int round = 0; round < 10; round++) {
		if (round)
			world_load();
		start_64_threads(true, 1);
		assert_done(tier_status_ask(world.methods[0], &answer));
		/* those that found code already were counted, so the threshold may be behind them */
		if (answer.stage == TIER_STAGE_COUNTING)
			assert_true(call(0, answer.remaining));
		expect_climbed_once(0);
		tier_close(world.module);
	}
}

static void threads_whose_first_action_is_a_cold_method_each(void **state)
{
	for (int round = 0; round < 4; round++) {
		if (round)
			world_load();
		start_64_threads(false, 1);
		for (int i = 0; i < N_METHODS; i++)
			expect_counting(i, N_CALLS);
		start_64_threads(false, N_CALLS - 1);
		for (int i = 0; i < N_METHODS; i++)
			expect_counting(i, 1);
		start_64_threads(false, 1);		/* all thresholds at once */
		for (int i = 0; i < N_METHODS; i++)
			expect_climbed_once(i);
		tier_close(world.module);
	}
}

/* -- Cancelled threads --- */
static void a_thread_that_is_cancelled_in_a_cold_call_finishes_the_call(void **state)
{
	struct cold_caller caller;
	void *result;

	cold_caller_start(&caller, 0);
	pthread_cancel(caller.thread);
	kill(world.daemon.pid, SIGCONT);
	pthread_join(caller.thread, &result);
	assert_ptr_equal(result, PTHREAD_CANCELED);	/* where it asked for it, behind the call */
	assert_true(caller.has_returned && caller.is_right);
	assert_true(call(0, N_CALLS) && call(1, 1 + N_CALLS));
	expect_climbed_once(0);
	expect_climbed_once(1);
}

static void *call_cold_asynchronously(void *argument)
{
	pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL);
	return call_cold(argument);
}

static void a_thread_that_is_cancelled_at_any_instruction_leaves_no_harm(void **state)
{
	struct cold_caller caller = { .method = 0 };
	void *result;

	kill(world.daemon.pid, SIGSTOP);
	assert_int_equal(pthread_create(&caller.thread, NULL, call_cold_asynchronously, &caller), 0);
	wait_until("a thread to sleep in the prestub", thread_sleeps(&caller));
	pthread_cancel(caller.thread);
	kill(world.daemon.pid, SIGCONT);
	pthread_join(caller.thread, &result);
	assert_ptr_equal(result, PTHREAD_CANCELED);
	assert_int_equal(n_events(0, TIER_EVENT_PUBLISHED), 1);	/* its question was answered */
	assert_true(call(0, N_CALLS) && call(1, 1 + N_CALLS));
	expect_climbed_once(0);
	expect_climbed_once(1);
}

static void *call_for_ever(void *argument)
{
	uint32_t *n_begun = argument;

	pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL);
	for (int i = 0;; i = (i + 1) % N_METHODS) {
		__atomic_fetch_add(n_begun, 1, __ATOMIC_RELAXED);
		if (!call(i, 1))
			abort();
	}
}

/* Wherever it is hit, in cold calls, between a decrement and its bell, in the bell: what crossed is told once. */
static void threads_that_are_cancelled_anywhere_lose_no_crossing(void **state)
{
	struct tier_answer answer;
	pthread_t thread;

	for (int round = 0; round < (test_is_long() ? 400 : 12); round++) {
		uint32_t n_begun = 0;

		world_load();
		assert_int_equal(pthread_create(&thread, NULL, call_for_ever, &n_begun), 0);
		wait_until("the thread to be on its way",
			   __atomic_load_n(&n_begun, __ATOMIC_RELAXED) >= (uint32_t)round * 13 % 40 * N_METHODS);
		pthread_cancel(thread);
		pthread_join(thread, NULL);
		for (int i = 0; i < N_METHODS; i += 7) {
			assert_done(tier_status_ask(world.methods[i], &answer));
			if (answer.status == TIER_STATUS_COLD)
				assert_true(call(i, 1));
			if (answer.status != TIER_STATUS_FINAL)
				assert_true(call(i, tier_remaining(world.methods[i])));
			expect_climbed_once(i);
		}
		tier_close(world.module);
	}
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, world_start, world_end)
int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_fork_before_its_parents_first_bell_climbs),
		TEST(a_fork_after_its_parents_bells_climbs),
		TEST(a_raw_clone_before_its_parents_first_bell_climbs),
		TEST(a_raw_clone_after_its_parents_bells_climbs),
		TEST(a_grandchild_climbs_too),
		TEST(a_fork_beside_a_thread_in_the_prestub_climbs),
		TEST(a_raw_clone_beside_a_thread_in_the_prestub_climbs),
		TEST(forks_in_a_storm_of_cold_calls_climb),
		TEST(a_handler_that_interrupts_api_calls_climbs),
		TEST(a_handler_that_interrupts_api_calls_may_fork),
		TEST(threads_whose_first_action_is_one_cold_method),
		TEST(threads_whose_first_action_is_a_cold_method_each),
		TEST(a_thread_that_is_cancelled_in_a_cold_call_finishes_the_call),
		TEST(a_thread_that_is_cancelled_at_any_instruction_leaves_no_harm),
		TEST(threads_that_are_cancelled_anywhere_lose_no_crossing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
