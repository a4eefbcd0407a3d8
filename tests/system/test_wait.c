/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>
#include "asleep.h"
#include "system/harness.h"
#include "system/lane.h"
#include "util/base.h"

/* Waiting: it returns in every state that can last, ends in time or when it is cancelled where it has to wait, and leaves
 * nothing behind. A delay of an hour holds methods where calls are not counted; workers that stand still hold them in
 * the queue. */

#define MS 1000000ull
#define HELD "--call-counting-delay=1h"

static const uint64_t ten[5] = { 10 };

struct world {
	struct daemon daemon;
	struct tier_conn *conn;
	struct tier_module *module;
	struct tier_method *method;
};

static void world_start(struct world *world, const char *const *args)
{
	daemon_start(&world->daemon, args);
	world->conn = daemon_connect(&world->daemon);
	world->method = workload_load(world->conn, "fib", &world->module);
}

static void world_end(struct world *world)
{
	tier_disconnect(world->conn);
	daemon_stop(&world->daemon);
}

static void call(const struct tier_method *method, uint32_t n)
{
	while (n--)
		tier_entry(method)(ten[0], 0, 0, 0, 0);
}

/* A wait without time ends like any other. */
static void expect_quiet(const struct tier_method *method, enum tier_stage stage, uint32_t remaining)
{
	struct tier_answer answer;

	assert_done(tier_wait(method, 0, NULL, &answer));
	assert_int_equal(answer.stage, stage);
	assert_int_equal(answer.remaining, remaining);
	assert_done(tier_wait(method, TIER_FOREVER, NULL, NULL));
}

/* -- States --- */
static void it_returns_where_it_is_cold_counting_and_final(void **state)
{
	struct world world;

	world_start(&world, ARGS("--call-counting-delay=0"));
	expect_quiet(world.method, TIER_STAGE_COLD, 1);
	call(world.method, 1);
	for (uint32_t left = 30; left; left--) {	/* whoever calls too little is never stuck */
		expect_quiet(world.method, TIER_STAGE_COUNTING, left);
		call(world.method, 1);
	}
	assert_done(tier_wait(world.method, TEST_DEADLINE_NS, NULL, NULL));
	expect_quiet(world.method, TIER_STAGE_FINAL, 0);
	world_end(&world);
}

static void it_waits_for_the_end_of_the_delay(void **state)
{
	struct tier_answer answer;
	struct world world;
	uint64_t begin;

	/* long, so that the call and the look at it fit into it on a busy machine too */
	world_start(&world, ARGS("--call-counting-delay=2s"));
	begin = test_now_ns();
	call(world.method, 1);
	assert_int_equal(tier_status(world.method).stage, TIER_STAGE_UNCOUNTED);
	assert_done(tier_wait(world.method, TEST_DEADLINE_NS, NULL, &answer));
	assert_true(test_now_ns() - begin >= 2000 * MS);
	assert_int_equal(answer.stage, TIER_STAGE_COUNTING);
	assert_int_equal(answer.remaining, 30);
	world_end(&world);
}

/* -- The daemon's wake --- */
/* What memory of this process holds the low half of a method's state word: its records are mapped beside its code. */
static const uint32_t *state_word(const struct world *world)
{
	const uintptr_t entry = (uintptr_t)tier_entry(world->method);
	const uint32_t index = method_index(world->module, world->method);
	const struct tier_records_header *header;
	unsigned long begin, end;
	char line[512];
	FILE *maps = fopen("/proc/self/maps", "re");

	assert_non_null(maps);
	while (fgets(line, sizeof(line), maps)) {
		if (sscanf(line, "%lx-%lx r--s", &begin, &end) != 2 || !strstr(line, "r--s") || !strstr(line, "memfd:"))
			continue;
		header = (const void *)begin;
		if (header->magic == TIER_RECORDS_MAGIC && entry - header->layout.base < header->layout.size)
			break;
		begin = 0;
	}
	fclose(maps);
	assert_true(begin);
	return (const uint32_t *)&((const struct tier_record *)(begin + TIER_RECORDS_OFFSET))[index].state;
}

struct sleeper {
	pthread_t thread;
	const uint32_t *word;
	uint32_t seen;
	pid_t tid;		/* 0: not begun */
	int error;
};

/* One bare sleep, which nothing but a wake ends in time: tier_wait() would also look again by itself. */
static void *sleep_on_word(void *argument)
{
	const struct timespec limit = { .tv_sec = TEST_DEADLINE_NS / 1000000000u };
	struct sleeper *sleeper = argument;

	__atomic_store_n(&sleeper->tid, gettid(), __ATOMIC_RELEASE);
	sleeper->error = syscall(SYS_futex, sleeper->word, FUTEX_WAIT, sleeper->seen, &limit, NULL, 0) < 0 ? errno : 0;
	return NULL;
}

static void the_daemon_wakes_who_sleeps_on_the_state(void **state)
{
	struct sleeper sleeper;
	struct world world;

	world_start(&world, ARGS("--call-counting-delay=0"));
	workers_stop(&world.daemon);
	call(world.method, 31);
	/* behind fib_of, which fib calls: so nothing changes it until workers go on */
	wait_until("the job to be queued", tier_status(world.method).stage == TIER_STAGE_QUEUED);
	sleeper = (struct sleeper){ .word = state_word(&world) };
	sleeper.seen = __atomic_load_n(sleeper.word, __ATOMIC_ACQUIRE);
	assert_int_equal(pthread_create(&sleeper.thread, NULL, sleep_on_word, &sleeper), 0);
	wait_until("the thread to sleep", is_asleep(&sleeper.tid));
	workers_continue(&world.daemon);
	pthread_join(sleeper.thread, NULL);
	assert_int_equal(sleeper.error, 0);
	assert_int_not_equal(__atomic_load_n(sleeper.word, __ATOMIC_ACQUIRE), sleeper.seen);
	world_end(&world);
}

/* -- On the way --- */
static void expect_stage_asked(const struct tier_method *method, enum tier_stage stage)
{
	struct tier_answer answer;

	wait_until("the method's stage", (tier_status_ask(method, &answer), answer.stage >= stage));
	assert_int_equal(answer.stage, stage);
	assert_int_equal(answer.status, TIER_STATUS_OPTIMIZING);
	assert_int_equal(answer.remaining, 0);
	assert_int_equal(tier_wait(method, 0, NULL, NULL), -ETIMEDOUT);
	assert_int_equal(tier_wait(method, 20 * MS, NULL, NULL), -ETIMEDOUT);
}

static void expect_pending(const struct world *world, uint32_t n)
{
	uint32_t module, mine, all;

	assert_done(tier_pending_module(world->module, &module));
	assert_done(tier_pending_mine(world->conn, &mine));
	assert_done(tier_pending_all(world->conn, &all));
	assert_int_equal(module, n);
	assert_int_equal(mine, n);
	assert_int_equal(all, n);
}

static void it_waits_while_the_next_tier_is_queued_and_compiled(void **state)
{
	struct tier_method *second;
	struct tier_answer answer;
	struct world world;

	/* one call of fib is one of fib_of too, so fib_of would be promoted on the way */
	world_start(&world, ARGS("--call-counting-delay=0"));
	assert_done(tier_find(world.module, "fib_of", &second));
	expect_pending(&world, 0);
	workers_stop(&world.daemon);
	tier_entry(second)(1, 0, 0, 0, 0);
	for (int i = 0; i < 30; i++)
		tier_entry(second)(1, 0, 0, 0, 0);
	expect_stage_asked(second, TIER_STAGE_COMPILING);
	expect_pending(&world, 1);
	call(world.method, 31);
	expect_stage_asked(world.method, TIER_STAGE_QUEUED);	/* one at a time for one user */
	expect_pending(&world, 2);
	workers_continue(&world.daemon);
	assert_done(tier_wait(second, TEST_DEADLINE_NS, NULL, &answer));
	assert_int_equal(answer.reason, TIER_REASON_PROMOTED);
	assert_done(tier_wait(world.method, TEST_DEADLINE_NS, NULL, &answer));
	assert_int_equal(answer.reason, TIER_REASON_PROMOTED);
	expect_pending(&world, 0);
	world_end(&world);
}

/* The daemon stands still, so nobody has heard the bell: shared memory says "reached" all the same. */
static void it_waits_while_the_bell_was_not_heard(void **state)
{
	struct tier_cancel *cancel;
	struct tier_answer answer;
	struct world world;

	world_start(&world, ARGS("--call-counting-delay=0"));
	assert_done(tier_cancel_new(&cancel));
	call(world.method, 30);
	kill(world.daemon.pid, SIGSTOP);
	expect_quiet(world.method, TIER_STAGE_COUNTING, 1);
	call(world.method, 1);
	answer = tier_status(world.method);
	assert_int_equal(answer.stage, TIER_STAGE_REACHED);
	assert_int_equal(answer.status, TIER_STATUS_OPTIMIZING);
	assert_int_equal(answer.remaining, 0);
	assert_int_equal(tier_wait(world.method, 0, NULL, NULL), -ETIMEDOUT);
	assert_int_equal(tier_wait(world.method, 100 * MS, cancel, NULL), -ETIMEDOUT);
	tier_cancel(cancel);
	assert_int_equal(tier_wait(world.method, TIER_FOREVER, cancel, NULL), -ECANCELED);
	kill(world.daemon.pid, SIGCONT);
	assert_done(tier_wait(world.method, TEST_DEADLINE_NS, NULL, &answer));
	assert_int_equal(answer.reason, TIER_REASON_PROMOTED);
	assert_int_equal(events_count(world.conn, world.module, world.method, TIER_EVENT_THRESHOLD), 1);
	tier_cancel_free(cancel);
	world_end(&world);
}

/* -- Ends --- */
static void a_deadline_ends_it_and_not_too_early(void **state)
{
	static const uint64_t timeouts[] = { 0, 1, 1000, 1 * MS, 30 * MS, 100 * MS };
	struct world world;

	world_start(&world, ARGS(HELD));
	call(world.method, 1);
	for (size_t i = 0; i < ARRAY_SIZE(timeouts); i++) {
		uint64_t begin = test_now_ns();

		assert_int_equal(tier_wait(world.method, timeouts[i], NULL, NULL), -ETIMEDOUT);
		assert_in_range(test_now_ns() - begin, timeouts[i], timeouts[i] + TEST_DEADLINE_NS / 4);
		assert_non_null(strstr(tier_error_text(), "fib:fib"));
	}
	expect_pending(&world, 0);
	world_end(&world);
}

static void a_token_that_was_cancelled_before_ends_it_at_once(void **state)
{
	struct tier_cancel *cancel;
	struct world world;
	uint32_t calls;

	world_start(&world, ARGS(HELD));
	call(world.method, 1);
	assert_done(tier_cancel_new(&cancel));
	assert_int_equal(tier_wait(world.method, MS, cancel, NULL), -ETIMEDOUT);
	tier_cancel(cancel);
	for (int i = 0; i < 3; i++) {
		struct tier_climb steps = TIER_CLIMB(world.method);

		assert_int_equal(tier_wait(world.method, TIER_FOREVER, cancel, NULL), -ECANCELED);
		assert_int_equal(tier_climb_next(&steps, TIER_FOREVER, cancel, &calls), -ECANCELED);
	}
	tier_cancel_free(cancel);
	world_end(&world);
}

struct waiter {
	pthread_t thread;
	const struct tier_method *method;
	struct tier_cancel *cancel;
	pid_t tid;		/* 0: not begun */
	int result;
};

static void *wait_for_ever(void *argument)
{
	struct waiter *waiter = argument;

	__atomic_store_n(&waiter->tid, gettid(), __ATOMIC_RELEASE);
	waiter->result = tier_wait(waiter->method, TIER_FOREVER, waiter->cancel, NULL);
	return NULL;
}

static void another_thread_ends_all_waits_with_a_token(void **state)
{
	struct waiter waiters[16];
	struct tier_cancel *cancel;
	struct world world;

	world_start(&world, ARGS(HELD));
	call(world.method, 1);
	for (int round = 0; round < 5; round++) {
		assert_done(tier_cancel_new(&cancel));
		for (size_t i = 0; i < ARRAY_SIZE(waiters); i++) {
			waiters[i] = (struct waiter){ .method = world.method, .cancel = cancel };
			assert_int_equal(pthread_create(&waiters[i].thread, NULL, wait_for_ever, &waiters[i]), 0);
		}
		for (size_t i = 0; round % 2 && i < ARRAY_SIZE(waiters); i++)	/* in the other rounds most have not begun */
			wait_until("the thread to sleep", is_asleep(&waiters[i].tid));
		tier_cancel(cancel);
		for (size_t i = 0; i < ARRAY_SIZE(waiters); i++) {
			pthread_join(waiters[i].thread, NULL);
			assert_int_equal(waiters[i].result, -ECANCELED);
		}
		tier_cancel_free(cancel);
	}
	world_end(&world);
}

static struct tier_cancel *handler_cancel;
static volatile sig_atomic_t n_alarms;

static void cancel_at_the_third_alarm(int number)
{
	if (++n_alarms == 3)
		tier_cancel(handler_cancel);
}

static void a_signal_handler_of_the_waiting_thread_ends_it(void **state)
{
	const struct sigaction action = { .sa_handler = cancel_at_the_third_alarm }, none = { .sa_handler = SIG_DFL };
	const struct itimerval often = { { 0, 10000 }, { 0, 10000 } }, never = { 0 };
	struct world world;

	world_start(&world, ARGS(HELD));
	call(world.method, 1);
	assert_done(tier_cancel_new(&handler_cancel));
	n_alarms = 0;
	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &often, NULL);
	assert_int_equal(tier_wait(world.method, TIER_FOREVER, handler_cancel, NULL), -ECANCELED);
	setitimer(ITIMER_REAL, &never, NULL);
	sigaction(SIGALRM, &none, NULL);
	assert_true(n_alarms >= 3);	/* the first two only interrupted it */
	tier_cancel_free(handler_cancel);
	world_end(&world);
}

/* It waits for a successor as long as a request of its connection may take. */
static void the_end_of_the_daemon_ends_it(void **state)
{
	struct tier_conn_opts opts = { .size = sizeof(opts), .timeout_ns = 300 * MS };
	struct tier_module *module;
	struct tier_method *method;
	struct tier_conn *hasty;
	struct waiter waiter;
	struct world world;

	world_start(&world, ARGS(HELD));
	call(world.method, 1);
	opts.socket = world.daemon.socket;
	assert_done(tier_connect(&hasty, &opts));
	assert_done(tier_open(hasty, "fib", &module));
	assert_done(tier_find(module, tier_method_name(world.method), &method));
	waiter = (struct waiter){ .method = method };
	assert_int_equal(pthread_create(&waiter.thread, NULL, wait_for_ever, &waiter), 0);
	wait_until("the thread to sleep", is_asleep(&waiter.tid));
	daemon_kill(&world.daemon);
	pthread_join(waiter.thread, NULL);
	assert_int_equal(waiter.result, -ECONNRESET);
	tier_close(module);
	tier_disconnect(hasty);
	world_end(&world);
}

/* -- What the daemon keeps of waits: here over the bare protocol --- */
struct session_search {
	uint64_t number;
	struct wire_session_row row;
};

static int session_is_it(const struct wire_session_row *row, void *context)
{
	struct session_search *search = context;

	if (row->number != search->number)
		return 0;
	search->row = *row;
	return 1;
}

static bool session_find(struct tier_conn *conn, uint64_t number, struct wire_session_row *ret)
{
	struct session_search search = { .number = number };
	int r = tier_clients(conn, session_is_it, &search);

	assert_in_range(r, 0, 1);
	if (r && ret)
		*ret = search.row;
	return r;
}

static uint32_t session_waits(const struct world *world, const struct lane *lane)
{
	struct wire_session_row row;

	assert_true(session_find(world->conn, lane->welcome.number, &row));
	assert_string_equal(row.program, "raw");
	return row.n_waits;
}

static int sum_waits(const struct wire_session_row *row, void *context)
{
	*(uint32_t *)context += row->n_waits;
	return 0;
}

static void expect_no_waits(const struct world *world)
{
	uint32_t n = 0;

	assert_done(tier_clients(world->conn, sum_waits, &n));
	assert_int_equal(n, 0);
}

static struct wire_wait wait_body(const struct world *world, uint64_t timeout_ns)
{
	return (struct wire_wait){ .module = tier_module_id(world->module), .method = method_index(world->module, world->method),
				   .timeout_ns = timeout_ns };
}

#define N_WAITS 1000
#define BATCH 50

static void cancelled_waits_leave_nothing_behind(void **state)
{
	uint64_t serials[N_WAITS];
	union lane_body reply;
	struct wire_header header;
	struct wire_wait body;
	struct world world;
	struct lane lane;

	world_start(&world, ARGS(HELD));
	call(world.method, 1);
	lane_open(&lane, &world.daemon);
	body = wait_body(&world, UINT64_MAX);
	for (int i = 0; i < N_WAITS; i++)
		serials[i] = lane_send(&lane, WIRE_WAIT, &body);
	wait_until("the waits", session_waits(&world, &lane) == N_WAITS);
	for (int i = N_WAITS - 1; i >= 0; i--) {
		struct wire_cancel cancel = { serials[i] };
		uint64_t serial = lane_send(&lane, WIRE_CANCEL, &cancel);
		bool is_done = false, is_canceled = false;

		while (!is_done || !is_canceled) {
			header = lane_receive(&lane, &reply);
			if (header.serial == serial) {
				assert_int_equal(header.type, WIRE_DONE);
				is_done = true;
			} else {
				assert_int_equal(header.serial, serials[i]);
				assert_int_equal(header.type, WIRE_ERROR);
				assert_int_equal(reply.as_ERROR.error, TIER_ERROR_CANCELED);
				is_canceled = true;
			}
		}
	}
	assert_int_equal(session_waits(&world, &lane), 0);
	lane_close(&lane);
	world_end(&world);
}

static void timed_out_waits_leave_nothing_behind(void **state)
{
	union lane_body reply;
	struct wire_header header;
	struct wire_wait body;
	struct world world;
	struct lane lane;

	world_start(&world, ARGS(HELD));
	call(world.method, 1);
	lane_open(&lane, &world.daemon);
	body = wait_body(&world, 0);
	for (int sent = 0; sent < N_WAITS; sent += BATCH) {	/* who does not read is not read from either */
		for (uint64_t i = 0; i < BATCH; i++) {
			body.timeout_ns = i % 5 * MS;
			lane_send(&lane, WIRE_WAIT, &body);
		}
		for (int i = 0; i < BATCH; i++) {
			header = lane_receive(&lane, &reply);
			assert_int_equal(header.type, WIRE_ERROR);
			assert_int_equal(reply.as_ERROR.error, TIER_ERROR_TIMEOUT);
		}
	}
	assert_int_equal(session_waits(&world, &lane), 0);
	for (int i = 0; i < 10; i++)	/* libtier's own */
		assert_int_equal(tier_wait(world.method, MS, NULL, NULL), -ETIMEDOUT);
	expect_no_waits(&world);
	lane_close(&lane);
	world_end(&world);
}

static void waits_are_answered_when_the_state_is_quiet(void **state)
{
	union lane_body reply;
	struct wire_header header;
	struct wire_wait body;
	struct world world;
	struct lane lane;

	world_start(&world, ARGS("--call-counting-delay=100ms"));
	lane_open(&lane, &world.daemon);
	body = wait_body(&world, UINT64_MAX);
	reply = lane_ask(&lane, WIRE_WAIT, &body, WIRE_ANSWER);
	assert_int_equal(reply.as_ANSWER.status, TIER_STATUS_COLD);
	call(world.method, 1);
	for (int i = 0; i < 100; i++)
		lane_send(&lane, WIRE_WAIT, &body);
	for (int i = 0; i < 100; i++) {
		header = lane_receive(&lane, &reply);
		assert_int_equal(header.type, WIRE_ANSWER);
		assert_int_equal(reply.as_ANSWER.stage, TIER_STAGE_COUNTING);
		assert_int_equal(reply.as_ANSWER.remaining, 30);
	}
	call(world.method, 30);
	reply = lane_ask(&lane, WIRE_WAIT, &body, WIRE_ANSWER);
	assert_int_equal(reply.as_ANSWER.status, TIER_STATUS_FINAL);
	assert_int_equal(reply.as_ANSWER.reason, TIER_REASON_PROMOTED);
	expect_no_waits(&world);
	lane_close(&lane);
	world_end(&world);
}

static void more_waits_than_a_session_may_have_are_refused(void **state)
{
	union lane_body reply;
	struct wire_header header;
	struct wire_wait body;
	struct world world;
	struct lane lane;
	uint64_t first;

	world_start(&world, ARGS(HELD));
	call(world.method, 1);
	lane_open(&lane, &world.daemon);
	body = wait_body(&world, UINT64_MAX);
	first = lane_send(&lane, WIRE_WAIT, &body);
	for (int i = 1; i < 1025; i++)
		lane_send(&lane, WIRE_WAIT, &body);
	header = lane_receive(&lane, &reply);
	assert_int_equal(header.serial, first + 1024);
	assert_int_equal(reply.as_ERROR.error, TIER_ERROR_QUOTA);
	assert_int_equal(session_waits(&world, &lane), 1024);
	lane_close(&lane);
	wait_until("the session to end", !session_find(world.conn, lane.welcome.number, NULL));
	expect_no_waits(&world);
	world_end(&world);
}

static void waits_for_a_module_that_goes_are_told_so(void **state)
{
	union lane_body reply;
	struct wire_wait body;
	struct world world;
	struct lane lane;

	world_start(&world, ARGS(HELD));
	call(world.method, 1);
	lane_open(&lane, &world.daemon);
	body = wait_body(&world, UINT64_MAX);
	lane_send(&lane, WIRE_WAIT, &body);
	assert_done(tier_unload(world.conn, "fib"));
	tier_close(world.module);
	assert_int_equal(lane_receive(&lane, &reply).type, WIRE_ERROR);
	assert_int_equal(reply.as_ERROR.error, TIER_ERROR_NO_MODULE);
	assert_int_equal(session_waits(&world, &lane), 0);
	lane_close(&lane);
	world_end(&world);
}

static void hold_the_connection(void *context)
{
	pause();
}

static void the_waits_of_a_killed_client_go_with_it(void **state)
{
	struct wire_wait body;
	struct world world;
	struct lane lane;
	pid_t pid;

	world_start(&world, ARGS(HELD));
	call(world.method, 1);
	lane_open(&lane, &world.daemon);
	body = wait_body(&world, UINT64_MAX);
	for (int i = 0; i < N_WAITS; i++)
		lane_send(&lane, WIRE_WAIT, &body);
	wait_until("the waits", session_waits(&world, &lane) == N_WAITS);
	pid = child_start(hold_the_connection, NULL);
	lane_close(&lane);		/* the child has the only end now */
	assert_true(session_find(world.conn, lane.welcome.number, NULL));
	kill(pid, SIGKILL);
	assert_int_equal(child_reap(pid), SIGKILL);
	wait_until("the killed client's session to end", !session_find(world.conn, lane.welcome.number, NULL));
	expect_no_waits(&world);
	world_end(&world);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(it_returns_where_it_is_cold_counting_and_final),
		cmocka_unit_test(it_waits_for_the_end_of_the_delay),
		cmocka_unit_test(the_daemon_wakes_who_sleeps_on_the_state),
		cmocka_unit_test(it_waits_while_the_next_tier_is_queued_and_compiled),
		cmocka_unit_test(it_waits_while_the_bell_was_not_heard),
		cmocka_unit_test(a_deadline_ends_it_and_not_too_early),
		cmocka_unit_test(a_token_that_was_cancelled_before_ends_it_at_once),
		cmocka_unit_test(another_thread_ends_all_waits_with_a_token),
		cmocka_unit_test(a_signal_handler_of_the_waiting_thread_ends_it),
		cmocka_unit_test(the_end_of_the_daemon_ends_it),
		cmocka_unit_test(cancelled_waits_leave_nothing_behind),
		cmocka_unit_test(timed_out_waits_leave_nothing_behind),
		cmocka_unit_test(waits_are_answered_when_the_state_is_quiet),
		cmocka_unit_test(more_waits_than_a_session_may_have_are_refused),
		cmocka_unit_test(waits_for_a_module_that_goes_are_told_so),
		cmocka_unit_test(the_waits_of_a_killed_client_go_with_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
