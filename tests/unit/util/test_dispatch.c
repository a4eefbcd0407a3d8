/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include "util/base.h"
#include "util/dispatch.h"
#include "util/error.h"

struct pipe_end {
	struct dispatch_file file;
	int fds[2];
	int n_calls;
	struct pipe_end *victim;	/* deinited by the callback */
};

struct alarm {
	struct dispatch_timer timer;
	int n_calls, stop_after;
	int order;
	struct alarm *victim;
};
static int n_alarms;

static int setup(void **state)
{
	struct dispatch *dispatch = calloc(1, sizeof(*dispatch));

	n_alarms = 0;
	assert_int_equal(dispatch_init(dispatch), 0);
	*state = dispatch;
	return 0;
}

static int teardown(void **state)
{
	dispatch_deinit(*state);
	free(*state);
	return 0;
}

static int pipe_end_called(struct dispatch_file *file, uint32_t events)
{
	struct pipe_end *end = container_of(file, struct pipe_end, file);

	end->n_calls++;
	if (end->victim)
		dispatch_file_deinit(&end->victim->file);
	return 0;
}

static void pipe_end_init(struct pipe_end *end, struct dispatch *dispatch)
{
	*end = (struct pipe_end){};
	assert_int_equal(pipe2(end->fds, O_CLOEXEC | O_NONBLOCK), 0);
	assert_int_equal(dispatch_file_init(&end->file, dispatch, pipe_end_called, "pipe", end->fds[0], EPOLLIN), 0);
}

static void pipe_end_deinit(struct pipe_end *end)
{
	dispatch_file_deinit(&end->file);
	close(end->fds[0]);
	close(end->fds[1]);
}

static int alarm_called(struct dispatch_timer *timer, uint64_t now)
{
	struct alarm *a = container_of(timer, struct alarm, timer);

	assert_false(list_is_linked(&timer->link));
	a->n_calls++;
	a->order = ++n_alarms;
	if (a->victim)
		dispatch_timer_disarm(&a->victim->timer);
	if (a->stop_after)
		return a->n_calls == a->stop_after ? DISPATCH_E_EXIT : (dispatch_timer_arm(timer, 0), 0);
	return 0;
}

static void a_readable_file_is_called_until_it_is_read(void **state)
{
	struct pipe_end end;
	char c;

	pipe_end_init(&end, *state);
	assert_int_equal(dispatch_turn(*state, 0), 0);
	assert_int_equal(end.n_calls, 0);
	assert_int_equal(write(end.fds[1], "x", 1), 1);
	assert_int_equal(dispatch_turn(*state, 0), 0);
	assert_int_equal(dispatch_turn(*state, 0), 0);
	assert_int_equal(end.n_calls, 2);
	assert_int_equal(read(end.fds[0], &c, 1), 1);
	assert_int_equal(dispatch_turn(*state, 0), 0);
	assert_int_equal(end.n_calls, 2);
	pipe_end_deinit(&end);
}

static void a_file_can_change_what_it_wants(void **state)
{
	struct pipe_end end;

	pipe_end_init(&end, *state);
	assert_int_equal(write(end.fds[1], "x", 1), 1);
	assert_int_equal(dispatch_file_select(&end.file, 0), 0);
	assert_int_equal(dispatch_turn(*state, 0), 0);
	assert_int_equal(end.n_calls, 0);
	assert_int_equal(dispatch_file_select(&end.file, EPOLLIN), 0);
	assert_int_equal(dispatch_turn(*state, 0), 0);
	assert_int_equal(end.n_calls, 1);
	pipe_end_deinit(&end);
}

static void a_callback_may_deinit_another_ready_file(void **state)
{
	struct pipe_end a, b;

	pipe_end_init(&a, *state);
	pipe_end_init(&b, *state);
	a.victim = &b;
	b.victim = &a;
	assert_int_equal(write(a.fds[1], "x", 1), 1);
	assert_int_equal(write(b.fds[1], "x", 1), 1);
	assert_int_equal(dispatch_turn(*state, 0), 0);
	assert_int_equal(a.n_calls + b.n_calls, 1);
	pipe_end_deinit(&a);
	pipe_end_deinit(&b);
}

static void a_callback_may_deinit_itself_twice(void **state)
{
	struct pipe_end end;

	pipe_end_init(&end, *state);
	end.victim = &end;
	assert_int_equal(write(end.fds[1], "x", 1), 1);
	assert_int_equal(dispatch_turn(*state, 0), 0);
	assert_null(end.file.dispatch);
	assert_int_equal(dispatch_turn(*state, 0), 0);
	assert_int_equal(end.n_calls, 1);
	pipe_end_deinit(&end);
}

static void timers_run_in_order_of_deadline(void **state)
{
	struct alarm alarms[3] = {};

	for (int i = 0; i < 3; i++)
		dispatch_timer_init(&alarms[i].timer, *state, alarm_called, "alarm");
	dispatch_timer_arm(&alarms[0].timer, 30);
	dispatch_timer_arm(&alarms[1].timer, 10);
	dispatch_timer_arm(&alarms[2].timer, 40);
	dispatch_timer_arm(&alarms[2].timer, 20);
	assert_int_equal(dispatch_turn(*state, -1), 0);
	assert_int_equal(alarms[1].order, 1);
	assert_int_equal(alarms[2].order, 2);
	assert_int_equal(alarms[0].order, 3);
	assert_int_equal(alarms[2].n_calls, 1);
}

static void a_timer_that_is_not_due_waits(void **state)
{
	struct alarm a = {};
	uint64_t begin = clock_now_ns();

	dispatch_timer_init(&a.timer, *state, alarm_called, "alarm");
	dispatch_timer_arm(&a.timer, begin + 3000000);
	assert_int_equal(dispatch_turn(*state, 0), 0);
	assert_int_equal(a.n_calls, 0);
	while (!a.n_calls)
		assert_int_equal(dispatch_turn(*state, -1), 0);
	assert_true(clock_now_ns() - begin >= 3000000);
}

static void a_timer_may_disarm_another_due_one(void **state)
{
	struct alarm a = {}, b = {};

	dispatch_timer_init(&a.timer, *state, alarm_called, "alarm");
	dispatch_timer_init(&b.timer, *state, alarm_called, "alarm");
	a.victim = &b;
	dispatch_timer_arm(&a.timer, 1);
	dispatch_timer_arm(&b.timer, 2);
	assert_int_equal(dispatch_turn(*state, 0), 0);
	assert_int_equal(a.n_calls, 1);
	assert_int_equal(b.n_calls, 0);
}

static void a_timer_armed_for_now_lets_files_have_their_say(void **state)
{
	struct alarm a = { .stop_after = 3 };
	struct pipe_end end;

	pipe_end_init(&end, *state);
	assert_int_equal(write(end.fds[1], "x", 1), 1);
	dispatch_timer_init(&a.timer, *state, alarm_called, "alarm");
	dispatch_timer_arm(&a.timer, 0);
	assert_int_equal(dispatch_run(*state), DISPATCH_E_EXIT);
	assert_int_equal(a.n_calls, 3);
	assert_int_equal(end.n_calls, 2);
	pipe_end_deinit(&end);
}

static void the_loop_measures_its_longest_turn(void **state)
{
	struct dispatch *dispatch = *state;
	struct alarm a = {};

	dispatch_timer_init(&a.timer, dispatch, alarm_called, "alarm");
	dispatch_timer_arm(&a.timer, 0);
	assert_int_equal(dispatch_turn(dispatch, 0), 0);
	assert_int_equal(dispatch->n_turns, 1);
	assert_true(dispatch->longest_turn_ns > 0);
	assert_string_equal(dispatch->longest_turn_name, "alarm");
}

static long n_preempted(void)
{
	struct rusage usage;

	getrusage(RUSAGE_THREAD, &usage);
	return usage.ru_nivcsw;
}

/* Somebody else has the processor that this thread wants. */
static pid_t compete(void)
{
	cpu_set_t one;
	pid_t pid;

	CPU_ZERO(&one);
	CPU_SET(sched_getcpu(), &one);
	pid = fork();
	assert_true(pid >= 0);
	assert_int_equal(sched_setaffinity(0, sizeof(one), &one), 0);
	while (!pid)
		;
	return pid;
}

static bool turn_sleeps;
static uint64_t turn_ns;

static int turn_is_preempted(struct dispatch_timer *timer, uint64_t now)
{
	uint64_t begin = clock_now_ns();
	long before = n_preempted();

	if (turn_sleeps)
		nanosleep(&(struct timespec){ .tv_nsec = 20000000 }, NULL);
	while (n_preempted() < before + 3)
		;
	turn_ns = clock_now_ns() - begin;
	return 0;
}

static void a_turn_counts_what_others_took_only_if_it_blocked_as_well(void **state)
{
	struct dispatch *dispatch = *state;
	struct dispatch_timer timer;
	cpu_set_t before;
	pid_t pid;

	assert_int_equal(sched_getaffinity(0, sizeof(before), &before), 0);
	pid = compete();
	dispatch_timer_init(&timer, dispatch, turn_is_preempted, "turn");
	for (int i = 0; i < 2; i++) {
		turn_sleeps = i;
		dispatch->longest_turn_ns = 0;
		dispatch_timer_arm(&timer, 0);
		assert_int_equal(dispatch_turn(dispatch, 0), 0);
		if (turn_sleeps)
			assert_true(dispatch->longest_turn_ns >= turn_ns);
		else
			assert_true(dispatch->longest_turn_ns < turn_ns);
	}
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	sched_setaffinity(0, sizeof(before), &before);
}

static int n_evaluated;
static int evaluated(int r)
{
	n_evaluated++;
	return r;
}

static void an_error_is_evaluated_once_and_keeps_its_number(void **state)
{
	assert_int_equal(error_fold(evaluated(-EIO)), -EIO);
	assert_int_equal(error_origin(evaluated(0)), 0);
	assert_int_equal(n_evaluated, 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_readable_file_is_called_until_it_is_read, setup, teardown),
		cmocka_unit_test_setup_teardown(a_file_can_change_what_it_wants, setup, teardown),
		cmocka_unit_test_setup_teardown(a_callback_may_deinit_another_ready_file, setup, teardown),
		cmocka_unit_test_setup_teardown(a_callback_may_deinit_itself_twice, setup, teardown),
		cmocka_unit_test_setup_teardown(timers_run_in_order_of_deadline, setup, teardown),
		cmocka_unit_test_setup_teardown(a_timer_that_is_not_due_waits, setup, teardown),
		cmocka_unit_test_setup_teardown(a_timer_may_disarm_another_due_one, setup, teardown),
		cmocka_unit_test_setup_teardown(a_timer_armed_for_now_lets_files_have_their_say, setup, teardown),
		cmocka_unit_test_setup_teardown(the_loop_measures_its_longest_turn, setup, teardown),
		cmocka_unit_test_setup_teardown(a_turn_counts_what_others_took_only_if_it_blocked_as_well, setup, teardown),
		cmocka_unit_test(an_error_is_evaluated_once_and_keeps_its_number),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
