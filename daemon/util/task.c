/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include "util/base.h"
#include "util/error.h"
#include "util/task.h"

/* Two lists under one lock. The eventfd is readable exactly while `finished` is not empty: written when it gets its
 * first task, read when the last one is taken, both under the lock. */
struct task_thread {
	pthread_t id;
	bool started;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	struct list waiting, finished;
	bool stop;
	int event_fd;
	struct dispatch_file file;
};

static void thread_finish(struct task_thread *thread, struct task *task)
{
	uint64_t one = 1;

	if (list_is_empty(&thread->finished))
		(void)!write(thread->event_fd, &one, sizeof(one));	/* 0 → 1 cannot overflow */
	list_append(&thread->finished, &task->link);
}

static void *thread_main(void *p)
{
	struct task_thread *thread = p;
	struct list *first;

	pthread_mutex_lock(&thread->lock);
	while (!thread->stop) {
		struct task *task;

		first = list_first(&thread->waiting);
		if (!first) {
			pthread_cond_wait(&thread->wake, &thread->lock);
			continue;
		}
		list_remove(first);
		pthread_mutex_unlock(&thread->lock);

		task = list_entry(first, struct task, link);
		task->run(task);
		task->ran = true;

		pthread_mutex_lock(&thread->lock);
		thread_finish(thread, task);
	}
	pthread_mutex_unlock(&thread->lock);
	return NULL;
}

/* One task whose run() is over, or NULL. */
static struct task *thread_take(struct task_thread *thread)
{
	struct list *first;
	uint64_t n;

	pthread_mutex_lock(&thread->lock);
	first = list_first(&thread->finished);
	if (first)
		list_remove(first);
	if (list_is_empty(&thread->finished))
		(void)!read(thread->event_fd, &n, sizeof(n));
	pthread_mutex_unlock(&thread->lock);
	return first ? list_entry(first, struct task, link) : NULL;
}

static void task_end(struct task *task)
{
	task->under_way = false;
	task->done(task);
}

static int thread_dispatch(struct dispatch_file *file, uint32_t events)
{
	struct task *task = thread_take(container_of(file, struct task_thread, file));

	if (task)
		task_end(task);
	return 0;
}

/* Signals are the loop's: the thread is born with all of them blocked. */
static int thread_start(struct task_thread *thread, const char *name)
{
	sigset_t all, before;
	int r;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	r = pthread_create(&thread->id, NULL, thread_main, thread);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (r)
		return error_origin(-r);
	thread->started = true;
	pthread_setname_np(thread->id, name);
	return 0;
}

static void task_thread_freep(struct task_thread **thread) { task_thread_free(*thread); }

int task_thread_new(struct task_thread **ret, struct dispatch *dispatch, const char *name)
{
	_cleanup_(task_thread_freep) struct task_thread *thread = calloc(1, sizeof(*thread));
	int r;

	if (!thread)
		return error_origin(-ENOMEM);
	list_init(&thread->waiting);
	list_init(&thread->finished);
	pthread_mutex_init(&thread->lock, NULL);
	pthread_cond_init(&thread->wake, NULL);
	thread->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (thread->event_fd < 0)
		return error_origin(-errno);
	r = dispatch_file_init(&thread->file, dispatch, thread_dispatch, name, thread->event_fd, EPOLLIN);
	if (r)
		return error_fold(r);
	r = thread_start(thread, name);
	if (r)
		return error_fold(r);
	*ret = TAKE_PTR(thread);
	return 0;
}

struct task_thread *task_thread_free(struct task_thread *thread)
{
	struct list *first;
	struct task *task;

	if (!thread)
		return NULL;
	pthread_mutex_lock(&thread->lock);
	thread->stop = true;
	pthread_cond_signal(&thread->wake);
	pthread_mutex_unlock(&thread->lock);
	if (thread->started)
		pthread_join(thread->id, NULL);
	dispatch_file_deinit(&thread->file);
	while ((task = thread_take(thread)))
		task_end(task);
	while ((first = list_first(&thread->waiting))) {
		list_remove(first);
		task_end(list_entry(first, struct task, link));
	}
	close_fd(thread->event_fd);
	pthread_cond_destroy(&thread->wake);
	pthread_mutex_destroy(&thread->lock);
	free(thread);
	return NULL;
}

void task_thread_abandon(struct task_thread *thread)
{
	dispatch_file_deinit(&thread->file);
	pthread_detach(thread->id);
}

void task_submit(struct task_thread *thread, struct task *task, task_fn run, task_fn done)
{
	assert(!task->under_way);
	*task = (struct task){ .run = run, .done = done, .under_way = true };
	pthread_mutex_lock(&thread->lock);
	list_append(&thread->waiting, &task->link);
	pthread_cond_signal(&thread->wake);
	pthread_mutex_unlock(&thread->lock);
}
