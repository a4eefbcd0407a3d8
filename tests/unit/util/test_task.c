/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include "util/base.h"
#include "util/task.h"

struct world {
	struct dispatch dispatch;
	struct task_thread *thread;
	int n_ran, n_done;
	sem_t gate, entered;
};

struct errand {
	struct task task;
	struct world *world;
	int ran_as, done_as;
	pthread_t ran_in, done_in;
	bool ran, blocked_signals;
	int again;			/* submit so many times more */
};

static int setup(void **state)
{
	struct world *world = calloc(1, sizeof(*world));

	assert_int_equal(dispatch_init(&world->dispatch), 0);
	assert_int_equal(task_thread_new(&world->thread, &world->dispatch, "errands"), 0);
	sem_init(&world->gate, 0, 0);
	sem_init(&world->entered, 0, 0);
	*state = world;
	return 0;
}

static int teardown(void **state)
{
	struct world *world = *state;

	task_thread_free(world->thread);
	dispatch_deinit(&world->dispatch);
	sem_destroy(&world->gate);
	sem_destroy(&world->entered);
	free(world);
	return 0;
}

static void errand_run(struct task *task)
{
	struct errand *errand = container_of(task, struct errand, task);
	sigset_t mask;

	pthread_sigmask(SIG_SETMASK, NULL, &mask);
	errand->blocked_signals = sigismember(&mask, SIGTERM) && sigismember(&mask, SIGCHLD);
	errand->ran_in = pthread_self();
	errand->ran_as = ++errand->world->n_ran;
}

static void errand_wait_run(struct task *task)
{
	struct errand *errand = container_of(task, struct errand, task);

	sem_post(&errand->world->entered);
	sem_wait(&errand->world->gate);
	errand_run(task);
}

static void errand_done(struct task *task)
{
	struct errand *errand = container_of(task, struct errand, task);

	assert_false(task->under_way);
	errand->ran = task->ran;
	errand->done_in = pthread_self();
	errand->done_as = ++errand->world->n_done;
	if (errand->again-- > 0)
		task_submit(errand->world->thread, task, errand_run, errand_done);
}

static void tasks_run_in_order_and_complete_in_the_loop(void **state)
{
	struct world *world = *state;
	struct errand errands[20];

	for (int i = 0; i < 20; i++) {
		errands[i] = (struct errand){ .world = world };
		task_submit(world->thread, &errands[i].task, errand_run, errand_done);
		assert_true(errands[i].task.under_way);
	}
	while (world->n_done < 20)
		assert_int_equal(dispatch_turn(&world->dispatch, -1), 0);
	for (int i = 0; i < 20; i++) {
		assert_int_equal(errands[i].ran_as, i + 1);
		assert_int_equal(errands[i].done_as, i + 1);
		assert_true(errands[i].ran && errands[i].blocked_signals);
		assert_false(pthread_equal(errands[i].ran_in, pthread_self()));
		assert_true(pthread_equal(errands[i].done_in, pthread_self()));
	}
}

static void a_turn_completes_one_task(void **state)
{
	struct world *world = *state;
	struct errand errands[2] = { { .world = world }, { .world = world } };

	task_submit(world->thread, &errands[0].task, errand_run, errand_done);
	task_submit(world->thread, &errands[1].task, errand_run, errand_done);
	assert_int_equal(dispatch_turn(&world->dispatch, -1), 0);
	assert_int_equal(world->n_done, 1);
	assert_int_equal(dispatch_turn(&world->dispatch, -1), 0);
	assert_int_equal(world->n_done, 2);
	assert_int_equal(dispatch_turn(&world->dispatch, 0), 0);
	assert_int_equal(world->n_done, 2);
}

static void done_may_submit_the_task_again(void **state)
{
	struct world *world = *state;
	struct errand errand = { .world = world, .again = 5 };

	task_submit(world->thread, &errand.task, errand_run, errand_done);
	while (world->n_done < 6)
		assert_int_equal(dispatch_turn(&world->dispatch, -1), 0);
	assert_int_equal(errand.ran_as, 6);
}

/* How many run before the thread sees the end is its own business; each says truly whether it did. */
static void freeing_the_thread_ends_every_task_once(void **state)
{
	struct world *world = *state;
	struct errand errands[3] = { { .world = world }, { .world = world }, { .world = world } };

	task_submit(world->thread, &errands[0].task, errand_wait_run, errand_done);
	task_submit(world->thread, &errands[1].task, errand_wait_run, errand_done);
	task_submit(world->thread, &errands[2].task, errand_wait_run, errand_done);
	sem_wait(&world->entered);
	sem_post(&world->gate);
	sem_post(&world->gate);
	sem_post(&world->gate);
	world->thread = task_thread_free(world->thread);
	assert_null(world->thread);
	assert_int_equal(world->n_done, 3);
	assert_true(errands[0].ran);
	for (int i = 0; i < 3; i++)
		assert_int_equal(errands[i].ran, errands[i].ran_as != 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(tasks_run_in_order_and_complete_in_the_loop, setup, teardown),
		cmocka_unit_test_setup_teardown(a_turn_completes_one_task, setup, teardown),
		cmocka_unit_test_setup_teardown(done_may_submit_the_task_again, setup, teardown),
		cmocka_unit_test_setup_teardown(freeing_the_thread_ends_every_task_once, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
