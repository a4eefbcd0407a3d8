/* SPDX-License-Identifier: Apache-2.0 */
#include "reconnect.h"
#include <sys/time.h>

/* When the daemon goes: threads, signal handlers and forks that are in the middle of something */

static struct world *handler_world;
static volatile sig_atomic_t handler_r;

static void handler_calls(int signo)
{
	(void)signo;
	handler_r = tier_entry(handler_world->cold)(1, 2, 3, 4, 5) == fake_mix(1, 2, 3, 4, 5) ? 1 : 2;
}

static void *lift_and_signal(void *context)
{
	const pthread_t *const asker = context;
	struct fake *const fake = handler_world->fake;

	fake_expect(&fake->n_held, 1);
	pthread_mutex_lock(&fake->lock);
	for (uint32_t i = 0; i < fake->n_conns; i++)	/* its session is over, but its API lane hangs on */
		if (fake->conns[i].fd >= 0 && fake->conns[i].lane == WIRE_LANE_PRESTUB)
			fake_hang_up(fake, &fake->conns[i]);
	fake->sessions[0].n_lanes = 0;
	fake->twist_session = 1;	/* only the lost question is held */
	pthread_mutex_unlock(&fake->lock);
	pthread_kill(*asker, SIGUSR1);
	return NULL;
}

/* With the API lane's lock under it: whoever makes the session must not want that. */
static void a_handler_makes_the_session_over_a_request_of_its_own_thread(void **state)
{
	struct sigaction action = { .sa_handler = handler_calls }, old;
	struct world w = world_new(state);
	pthread_t self = pthread_self(), thread;
	struct tier_answer answer;

	handler_world = &w;
	handler_r = 0;
	sigaction(SIGUSR1, &action, &old);
	fake_set_twist(w.fake, WIRE_STATUS, TWIST_HOLD);
	assert_int_equal(pthread_create(&thread, NULL, lift_and_signal, &self), 0);
	assert_int_equal(tier_status_ask(w.warm, &answer), 0);
	pthread_join(thread, NULL);
	assert_int_equal(handler_r, 1);
	assert_int_equal(w.fake->n_sessions, 2);
	assert_int_equal(w.fake->n_requests[WIRE_STATUS], 2);
	w.fake->n_live = 1;		/* the first one's count was taken from it */
	fake_set_twist(w.fake, WIRE_STATUS, TWIST_NONE);
	sigaction(SIGUSR1, &old, NULL);
	world_end(&w);
}

static volatile sig_atomic_t n_alarms;

static void handler_counts(int signo)
{
	(void)signo;
	n_alarms++;
}

static void signals_are_handled_while_a_question_waits_for_a_daemon(void **state)
{
	const struct itimerval often = { { 0, 10000 }, { 0, 10000 } }, never = { 0 };
	struct sigaction action = { .sa_handler = handler_counts }, old;
	struct world w = world_new_for(state, FAKE_SECOND / 2);
	struct tier_answer answer;

	n_alarms = 0;
	fake_stop(w.fake);
	sigaction(SIGALRM, &action, &old);
	setitimer(ITIMER_REAL, &often, NULL);
	assert_int_equal(tier_status_ask(w.warm, &answer), -ECONNRESET);
	setitimer(ITIMER_REAL, &never, NULL);
	sigaction(SIGALRM, &old, NULL);
	assert_true(n_alarms >= 3);
	world_end(&w);
}

static int child_in_the_gap(void *context)
{
	struct world *w = context;
	struct tier_answer answer;

	if (tier_entry(w->cold)(1, 2, 3, 4, 5) != fake_mix(1, 2, 3, 4, 5))
		return 1;
	if (tier_status_ask(w->warm, &answer) != 0)
		return 2;
	return 0;
}

static void a_fork_of_the_gap_finds_the_successor(void **state)
{
	static const long kinds[] = { BY_FORK, 0, CLONE_FILES };
	struct world w = world_new(state);
	struct tier_answer answer;

	for (int i = 0; i < 3; i++) {
		pid_t pid;

		fake_stop(w.fake);
		if (i)		/* its parent has found out, or has not */
			assert_int_equal(tier_wait(w.warm, 0, NULL, NULL), 0);
		pid = child_start(kinds[i], child_in_the_gap, &w);
		usleep(20000);
		fake_start(w.fake);
		assert_int_equal(child_end(pid), 0);
		assert_int_equal(tier_status_ask(w.warm, &answer), 0);
	}
	world_end(&w);
}

static bool storm_is_over;

struct storm {
	struct world *w;
	uint32_t n, n_failed;
};

static void *storm_asks(void *context)
{
	struct storm *storm = context;
	struct tier_answer answer;
	struct tier_module *module;
	uint32_t pending;

	while (!__atomic_load_n(&storm_is_over, __ATOMIC_ACQUIRE)) {
		storm->n_failed += tier_status_ask(storm->w->warm, &answer) != 0;
		storm->n_failed += tier_pending_all(storm->w->conn, &pending) != 0;
		if (tier_open(storm->w->conn, "other", &module))
			storm->n_failed++;
		else
			tier_close(module);
		storm->n++;
	}
	return NULL;
}

static void *storm_calls(void *context)
{
	struct storm *storm = context;

	for (uint32_t i = 0; !__atomic_load_n(&storm_is_over, __ATOMIC_ACQUIRE); i++) {
		struct tier_method *const method = client_method(storm->w->module, 2 * (i % 3));

		storm->n_failed += tier_entry(method)(1, 2, 3, 4, 5) != fake_mix(1, 2, 3, 4, 5);
		storm->n++;
	}
	return NULL;
}

static void *storm_forks(void *context)
{
	struct storm *storm = context;

	while (!__atomic_load_n(&storm_is_over, __ATOMIC_ACQUIRE)) {
		storm->n_failed += child_run(storm->n % 2 ? BY_FORK : 0, child_in_the_gap, storm->w) != 0;
		storm->n++;
	}
	return NULL;
}

static int n_descriptors(void)
{
	int n = 0;

	for (int i = 0; i < 1024; i++)
		n += fcntl(i, F_GETFD) >= 0;
	return n;
}

/* Threads that ask, call, open and fork, while the daemon dies again and again: all are served, and nothing is left. */
static void a_storm_of_deaths_is_noticed_by_nobody(void **state)
{
	void *(*const mains[])(void *) = { storm_asks, storm_asks, storm_asks, storm_calls, storm_calls, storm_calls, storm_forks };
	struct world w = world_new(state);
	struct storm storms[7];
	pthread_t threads[7];
	struct tier_answer answer;
	int n_before = n_descriptors(), lanes = 0;

	__atomic_store_n(&storm_is_over, false, __ATOMIC_RELEASE);
	for (int i = 0; i < 7; i++) {
		storms[i] = (struct storm){ &w, 0, 0 };
		assert_int_equal(pthread_create(&threads[i], NULL, mains[i], &storms[i]), 0);
	}
	for (int i = 0; i < 40; i++) {
		usleep(10000);
		pthread_mutex_lock(&w.fake->lock);
		fake_die(w.fake);
		for (uint32_t method = 0; method < 6; method += 2)		/* so that there are cold calls again */
			fake_reset(&w.fake->modules[0], method);
		pthread_mutex_unlock(&w.fake->lock);
		fake_wake(w.fake);
	}
	__atomic_store_n(&storm_is_over, true, __ATOMIC_RELEASE);
	for (int i = 0; i < 7; i++) {
		pthread_join(threads[i], NULL);
		assert_int_equal(storms[i].n_failed, 0);
		assert_true(storms[i].n > 0);
	}
	assert_int_equal(tier_status_ask(w.warm, &answer), 0);
	client_call(w.cold, 1);
	for (int i = 0; i < 10000 && fake_load(&w.fake->n_live) != 1; i++)
		usleep(100);
	pthread_mutex_lock(&w.fake->lock);
	for (uint32_t i = 0; i < w.fake->n_conns; i++)
		lanes += w.fake->conns[i].fd >= 0;
	pthread_mutex_unlock(&w.fake->lock);
	assert_in_range(lanes, 1, 2);
	assert_int_equal(n_descriptors(), n_before - 2 + lanes);
	world_end(&w);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, fake_setup, fake_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(a_handler_makes_the_session_over_a_request_of_its_own_thread),
		CASE(signals_are_handled_while_a_question_waits_for_a_daemon),
		CASE(a_fork_of_the_gap_finds_the_successor),
		CASE(a_storm_of_deaths_is_noticed_by_nobody),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
