/* SPDX-License-Identifier: Apache-2.0 */
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include "asleep.h"
#include "client.h"

/* Waits end in every quiet state, and in time */

struct waiter {
	struct tier_method *method;
	struct tier_cancel *cancel;
	uint64_t timeout_ns;
	struct tier_answer answer;
	pthread_t thread;
	pid_t tid;		/* 0: not begun */
	int r;
	char text[256];
};

static struct tier_conn *conn;
static struct tier_module *module;

static int wait_setup(void **state)
{
	fake_setup(state);
	conn = client_connect(fake_of(state));
	module = client_open(conn, "demo");
	return 0;
}

static int wait_teardown(void **state)
{
	tier_close(module);
	tier_disconnect(conn);
	return fake_teardown(state);
}

static void *waiter_main(void *context)
{
	struct waiter *waiter = context;

	__atomic_store_n(&waiter->tid, gettid(), __ATOMIC_RELEASE);
	waiter->r = tier_wait(waiter->method, waiter->timeout_ns, waiter->cancel, &waiter->answer);
	snprintf(waiter->text, sizeof(waiter->text), "%s", tier_error_text());
	return NULL;
}

static void waiter_start(struct waiter *waiter)
{
	waiter->method = client_method(module, 0);
	if (!waiter->timeout_ns)
		waiter->timeout_ns = 20 * FAKE_SECOND;
	assert_int_equal(pthread_create(&waiter->thread, NULL, waiter_main, waiter), 0);
}

/* Whether it sleeps within ten seconds */
static bool waiter_sleeps(const struct waiter *waiter)
{
	for (int i = 0; i < 100000; i++) {
		if (is_asleep(&waiter->tid))
			return true;
		usleep(100);
	}
	return false;
}

static uint64_t elapsed_ns(const struct timespec *begin)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (now.tv_sec - begin->tv_sec) * FAKE_SECOND + now.tv_nsec - begin->tv_nsec;
}

/* -- Quiet states --- */
static void quiet_states_end_a_wait_at_once(void **state)
{
	struct fake *fake = fake_of(state);
	struct tier_method *method = client_method(module, 0);
	struct tier_answer answer;

	assert_int_equal(tier_wait(method, 0, NULL, &answer), 0);
	assert_int_equal(answer.status, TIER_STATUS_COLD);
	assert_int_equal(answer.remaining, 1);
	client_call(method, 3);
	assert_int_equal(tier_wait(method, TIER_FOREVER, NULL, &answer), 0);
	assert_int_equal(answer.stage, TIER_STAGE_COUNTING);
	assert_int_equal(answer.remaining, FAKE_THRESHOLD - 2);
	fake_set_stage(fake, 0, TIER_STAGE_FINAL);
	assert_int_equal(tier_wait(method, TIER_FOREVER, NULL, NULL), 0);
	answer = tier_status(method);
	assert_int_equal(answer.status, TIER_STATUS_FINAL);
	assert_int_equal(answer.reason, TIER_REASON_PROMOTED);
	assert_int_equal(answer.tier, TIER_LEVEL_TIER1);
	assert_int_equal(answer.generation, 2);
}

static void other_states_time_out(void **state)
{
	static const unsigned int stages[] = { TIER_STAGE_UNCOUNTED, TIER_STAGE_QUEUED, TIER_STAGE_COMPILING };
	struct tier_method *method = client_method(module, 0);
	struct timespec begin;

	fake_set_stage(fake_of(state), 0, TIER_STAGE_COUNTING);
	for (int i = 0; i < 3; i++) {
		fake_set_stage(fake_of(state), 0, stages[i]);
		assert_int_equal(tier_wait(method, 0, NULL, NULL), -ETIMEDOUT);
		clock_gettime(CLOCK_MONOTONIC, &begin);
		assert_int_equal(tier_wait(method, FAKE_SECOND / 20, NULL, NULL), -ETIMEDOUT);
		assert_true(elapsed_ns(&begin) >= FAKE_SECOND / 20);
		assert_non_null(strstr(tier_error_text(), tier_stage_name(stages[i])));
		assert_non_null(strstr(tier_error_text(), "demo:method0"));
	}
}

static void a_publication_wakes_all_waiters(void **state)
{
	struct waiter waiters[8] = { { .r = 1 } };
	struct tier_cancel *cancel;

	assert_int_equal(tier_cancel_new(&cancel), 0);
	fake_set_stage(fake_of(state), 0, TIER_STAGE_COMPILING);
	for (int i = 0; i < 8; i++) {
		waiters[i].cancel = i % 2 ? cancel : NULL;
		waiter_start(&waiters[i]);
	}
	for (int i = 0; i < 8; i += 2)	/* others may not have begun */
		assert_true(waiter_sleeps(&waiters[i]));
	fake_set_stage(fake_of(state), 0, TIER_STAGE_FINAL);
	for (int i = 0; i < 8; i++) {
		pthread_join(waiters[i].thread, NULL);
		assert_int_equal(waiters[i].r, 0);
		assert_int_equal(waiters[i].answer.status, TIER_STATUS_FINAL);
	}
	tier_cancel_free(cancel);
}

static void a_wait_passes_through_stages_that_are_not_quiet(void **state)
{
	struct waiter waiter = { .r = 1 };

	fake_set_stage(fake_of(state), 0, TIER_STAGE_UNCOUNTED);
	waiter_start(&waiter);
	fake_set_stage(fake_of(state), 0, TIER_STAGE_QUEUED);
	fake_set_stage(fake_of(state), 0, TIER_STAGE_COMPILING);
	fake_set_stage(fake_of(state), 0, TIER_STAGE_COUNTING);
	pthread_join(waiter.thread, NULL);
	assert_int_equal(waiter.r, 0);
	assert_int_equal(waiter.answer.remaining, FAKE_THRESHOLD);
}

/* -- Cancellation --- */
static void cancelling_ends_waits_now_and_later(void **state)
{
	struct waiter waiters[4] = { { .r = 1 } };
	struct tier_cancel *cancel;

	assert_int_equal(tier_cancel_new(&cancel), 0);
	fake_set_stage(fake_of(state), 0, TIER_STAGE_COMPILING);
	for (int i = 0; i < 4; i++) {
		waiters[i].cancel = cancel;
		waiter_start(&waiters[i]);
	}
	for (int i = 0; i < 4; i++)
		assert_true(waiter_sleeps(&waiters[i]));
	tier_cancel(cancel);
	for (int i = 0; i < 4; i++) {
		pthread_join(waiters[i].thread, NULL);
		assert_int_equal(waiters[i].r, -ECANCELED);
		assert_non_null(strstr(waiters[i].text, "canceled"));
	}
	fake_set_stage(fake_of(state), 0, TIER_STAGE_FINAL);
	assert_int_equal(tier_wait(client_method(module, 0), TIER_FOREVER, cancel, NULL), -ECANCELED);
	tier_cancel_free(cancel);
}

static struct tier_cancel *handler_cancel;
static void handler_cancels(int number) { tier_cancel(handler_cancel); }

static void a_signal_handler_may_cancel_its_own_threads_wait(void **state)
{
	struct sigaction action = { .sa_handler = handler_cancels }, old;
	struct waiter waiter = { .r = 1 };

	assert_int_equal(tier_cancel_new(&handler_cancel), 0);
	sigaction(SIGUSR1, &action, &old);
	fake_set_stage(fake_of(state), 0, TIER_STAGE_COMPILING);
	waiter.cancel = handler_cancel;
	waiter_start(&waiter);
	pthread_kill(waiter.thread, SIGUSR1);
	pthread_join(waiter.thread, NULL);
	assert_int_equal(waiter.r, -ECANCELED);
	sigaction(SIGUSR1, &old, NULL);
	tier_cancel_free(handler_cancel);
}

/* A kernel before 5.16: futex_waitv() does not exist. */
static int child_without_waitv(void *context)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 449, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { 4, filter };
	struct waiter canceled = { .r = 1 }, woken = { .r = 1 };
	struct tier_cancel *cancel, *other;

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
		return 1;
	if (tier_cancel_new(&cancel) != 0 || tier_cancel_new(&other) != 0)
		return 2;
	canceled.cancel = cancel;
	woken.cancel = other;
	waiter_start(&canceled);
	waiter_start(&woken);
	if (!waiter_sleeps(&canceled) || !waiter_sleeps(&woken))
		return 5;
	tier_cancel(cancel);
	pthread_join(canceled.thread, NULL);
	if (canceled.r != -ECANCELED)
		return 3;
	fake_set_state(&((struct fake *)context)->modules[0], 0, TIER_STAGE_FINAL, TIER_LEVEL_TIER1, 0);
	pthread_join(woken.thread, NULL);
	return woken.r == 0 ? 0 : 4;
}

static void old_kernels_without_waitv_cancel_all_the_same(void **state)
{
	fake_set_stage(fake_of(state), 0, TIER_STAGE_COMPILING);
	assert_int_equal(child_run(BY_FORK, child_without_waitv, fake_of(state)), 0);
}

/* -- The daemon --- */
static void a_crossing_that_nobody_told_of_is_found(void **state)
{
	struct fake *fake = fake_of(state);
	struct waiter waiter = { .r = 1 };

	fake_set_stage(fake, 0, TIER_STAGE_COUNTING);
	*fake_cell(&fake->modules[0], 0) = 0;	/* as if the crossing thread had been killed */
	waiter_start(&waiter);
	fake_expect(&fake->n_requests[WIRE_STATUS], 1);
	while (tier_status(client_method(module, 0)).stage != TIER_STAGE_QUEUED)
		usleep(100);
	fake_set_stage(fake, 0, TIER_STAGE_FINAL);
	pthread_join(waiter.thread, NULL);
	assert_int_equal(waiter.r, 0);
	assert_int_equal(waiter.answer.status, TIER_STATUS_FINAL);
}

/* It waits for another one as long as a request of the connection may take. */
static void a_wait_does_not_outlive_the_daemon_for_long(void **state)
{
	struct fake *fake = fake_of(state);
	struct waiter waiter = { .r = 1 };

	tier_close(module);
	tier_disconnect(conn);
	conn = client_connect_for(fake, FAKE_SECOND / 5);
	module = client_open(conn, "demo");
	fake_set_stage(fake, 0, TIER_STAGE_COMPILING);
	waiter_start(&waiter);
	assert_true(waiter_sleeps(&waiter));
	fake_stop(fake);
	pthread_join(waiter.thread, NULL);
	assert_int_equal(waiter.r, -ECONNRESET);
	assert_non_null(strstr(waiter.text, fake->address.sun_path));
	/* what shared memory answers goes on */
	assert_int_equal(tier_status(client_method(module, 0)).stage, TIER_STAGE_COMPILING);
	assert_int_equal(tier_wait(client_method(module, 2), TIER_FOREVER, NULL, NULL), 0);
}

static void a_wait_goes_on_with_the_next_daemon(void **state)
{
	struct fake *fake = fake_of(state);
	struct waiter waiter = { .r = 1 };

	fake_set_stage(fake, 0, TIER_STAGE_COMPILING);
	waiter_start(&waiter);
	assert_true(waiter_sleeps(&waiter));
	fake_stop(fake);
	usleep(1000);
	fake_start(fake);
	fake_expect(&fake->n_sessions, 2);	/* it looks for it by itself */
	fake_set_stage(fake, 0, TIER_STAGE_FINAL);
	pthread_join(waiter.thread, NULL);
	assert_int_equal(waiter.r, 0);
	assert_int_equal(waiter.answer.stage, TIER_STAGE_FINAL);
	assert_int_equal(fake->sessions[1].n_held[0], 1);
}

/* Neither while nobody listens nor while nobody answers. */
static void without_a_daemon_deadlines_and_cancellations_hold(void **state)
{
	struct fake *fake = fake_of(state);
	struct waiter waiter = { .r = 1 };
	struct timespec begin;

	fake_set_stage(fake, 0, TIER_STAGE_COMPILING);
	for (int is_silent = 0; is_silent < 2; is_silent++) {
		fake_stop(fake);
		if (is_silent) {
			fake_set_twist(fake, WIRE_HELLO, TWIST_SILENT);
			fake_start(fake);
		}
		clock_gettime(CLOCK_MONOTONIC, &begin);
		assert_int_equal(tier_wait(client_method(module, 0), FAKE_SECOND / 10, NULL, NULL), -ETIMEDOUT);
		assert_true(elapsed_ns(&begin) < 5 * FAKE_SECOND);
		assert_int_equal(tier_cancel_new(&waiter.cancel), 0);
		waiter_start(&waiter);
		assert_true(waiter_sleeps(&waiter));
		usleep(100000);
		clock_gettime(CLOCK_MONOTONIC, &begin);
		tier_cancel(waiter.cancel);
		pthread_join(waiter.thread, NULL);
		assert_int_equal(waiter.r, -ECANCELED);
		assert_true(elapsed_ns(&begin) < 5 * FAKE_SECOND);
		tier_cancel_free(waiter.cancel);
	}
}

static void a_wait_for_what_the_next_daemon_does_not_know_ends(void **state)
{
	struct fake *fake = fake_of(state);
	struct waiter waiter = { .r = 1 };

	fake_set_stage(fake, 0, TIER_STAGE_COMPILING);
	waiter_start(&waiter);
	assert_true(waiter_sleeps(&waiter));
	fake_stop(fake);
	fake->is_gone[0] = true;
	fake_start(fake);
	pthread_join(waiter.thread, NULL);
	assert_int_equal(waiter.r, -ESTALE);
	assert_string_equal(waiter.text, "the daemon that knew module 'demo' is gone, and its successor does not know it");
}

static void a_daemon_that_is_stopped_delays_no_deadline(void **state)
{
	struct fake *fake = fake_of(state);
	struct tier_cancel *cancel;
	struct timespec begin;

	assert_int_equal(tier_cancel_new(&cancel), 0);
	fake_set_stage(fake, 0, TIER_STAGE_COUNTING);
	*fake_cell(&fake->modules[0], 0) = 0;
	pthread_mutex_lock(&fake->lock);	/* its thread stands still */
	clock_gettime(CLOCK_MONOTONIC, &begin);
	assert_int_equal(tier_wait(client_method(module, 0), FAKE_SECOND / 5, cancel, NULL), -ETIMEDOUT);
	assert_true(elapsed_ns(&begin) < 5 * FAKE_SECOND);
	pthread_mutex_unlock(&fake->lock);
	tier_cancel_free(cancel);
}

static void late_replies_to_a_waits_questions_are_skipped(void **state)
{
	struct fake *fake = fake_of(state);
	uint32_t pending;

	fake->pending = 3;
	fake_set_stage(fake, 0, TIER_STAGE_COUNTING);
	*fake_cell(&fake->modules[0], 0) = 0;
	fake_set_twist(fake, WIRE_STATUS, TWIST_HOLD);
	assert_int_equal(tier_wait(client_method(module, 0), FAKE_SECOND / 10, NULL, NULL), -ETIMEDOUT);
	fake_expect(&fake->n_held, 1);
	fake_set_twist(fake, WIRE_STATUS, TWIST_NONE);
	for (int i = 0; i < 20; i++) {
		assert_int_equal(tier_pending_module(module, &pending), 0);
		assert_int_equal(pending, 3);
	}
}

static int child_waits(void *context)
{
	struct tier_answer answer;

	if (tier_wait(client_method(module, 0), 20 * FAKE_SECOND, NULL, &answer) != 0)
		return 1;
	return answer.stage == TIER_STAGE_FINAL ? 0 : 2;
}

static void a_fork_waits_too(void **state)
{
	struct fake *fake = fake_of(state);
	pid_t pid;

	fake_set_stage(fake, 0, TIER_STAGE_COMPILING);
	pid = child_start(BY_FORK, child_waits, NULL);
	fake_expect(&fake->n_sessions, 2);	/* it looks after its connection while it waits */
	fake_set_stage(fake, 0, TIER_STAGE_FINAL);
	assert_int_equal(child_end(pid), 0);
}

/* -- The schedule --- */
static void a_climb_yields_one_then_n_then_ends(void **state)
{
	struct fake *fake = fake_of(state);
	struct tier_method *method = client_method(module, 0);
	struct tier_climb climb = TIER_CLIMB(method);
	uint32_t calls = 0;

	assert_int_equal(tier_climb_next(&climb, TIER_FOREVER, NULL, &calls), 1);
	assert_int_equal(calls, 1);
	client_call(method, calls);
	assert_int_equal(tier_climb_next(&climb, TIER_FOREVER, NULL, &calls), 1);
	assert_int_equal(calls, FAKE_THRESHOLD);
	client_call(method, calls);
	assert_int_equal(tier_climb_next(&climb, 0, NULL, &calls), -ETIMEDOUT);
	fake_set_stage(fake, 0, TIER_STAGE_FINAL);
	assert_int_equal(tier_climb_next(&climb, TIER_FOREVER, NULL, &calls), 0);
	assert_int_equal(climb.n_steps, 2);
	assert_int_equal(climb.answer.status, TIER_STATUS_FINAL);
}

static void a_climber_who_calls_too_little_is_not_stuck(void **state)
{
	struct tier_method *method = client_method(module, 0);
	struct tier_climb climb = TIER_CLIMB(method);
	uint32_t calls = 0;

	client_call(method, 1);
	for (uint32_t left = FAKE_THRESHOLD; left > 1; left--) {
		assert_int_equal(tier_climb_next(&climb, TIER_FOREVER, NULL, &calls), 1);
		assert_int_equal(calls, left);
		client_call(method, 1);
	}
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, wait_setup, wait_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(quiet_states_end_a_wait_at_once),
		CASE(other_states_time_out),
		CASE(a_publication_wakes_all_waiters),
		CASE(a_wait_passes_through_stages_that_are_not_quiet),
		CASE(cancelling_ends_waits_now_and_later),
		CASE(a_signal_handler_may_cancel_its_own_threads_wait),
		CASE(old_kernels_without_waitv_cancel_all_the_same),
		CASE(a_crossing_that_nobody_told_of_is_found),
		CASE(a_wait_does_not_outlive_the_daemon_for_long),
		CASE(a_wait_goes_on_with_the_next_daemon),
		CASE(without_a_daemon_deadlines_and_cancellations_hold),
		CASE(a_wait_for_what_the_next_daemon_does_not_know_ends),
		CASE(a_daemon_that_is_stopped_delays_no_deadline),
		CASE(late_replies_to_a_waits_questions_are_skipped),
		CASE(a_fork_waits_too),
		CASE(a_climb_yields_one_then_n_then_ends),
		CASE(a_climber_who_calls_too_little_is_not_stuck),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
