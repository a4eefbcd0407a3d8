/* SPDX-License-Identifier: Apache-2.0 */
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>
#include "util/dispatch.h"
#include "util/error.h"
#include "util/fault.h"

/* One round: wait, queue what is ready, run each callback. The queue is a list of the files themselves, so that a
 * callback which destroys another file of the same round just unlinks it. */

#define DISPATCH_EVENTS_MAX 64

static uint64_t clock_ns(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + ts.tv_nsec;
}

uint64_t clock_now_ns(void)
{
	return clock_ns(CLOCK_MONOTONIC);
}

int dispatch_init(struct dispatch *dispatch)
{
	*dispatch = (struct dispatch)DISPATCH_NULL(*dispatch);
	dispatch->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	return dispatch->epoll_fd < 0 ? error_origin(-errno) : 0;
}

void dispatch_deinit(struct dispatch *dispatch)
{
	dispatch->epoll_fd = close_fd(dispatch->epoll_fd);
}

/* -- Turns: how long a callback keeps the loop to itself. By the clock, so that whatever blocks shows; but a turn that
 * never gave the processor away, but lost it to others, counts only the processor time that it used itself. So the figure
 * is about this program also where the machine is busy. */
struct turn {
	uint64_t clock_ns, processor_ns;
	long n_preempted, n_blocked;
};

static struct turn turn_now(void)
{
	struct rusage usage;

	getrusage(RUSAGE_THREAD, &usage);	/* its processor time lags by up to a tick */
	return (struct turn){
		.clock_ns = clock_now_ns(),
		.processor_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID),
		.n_preempted = usage.ru_nivcsw,
		.n_blocked = usage.ru_nvcsw,
	};
}

static void dispatch_account(struct dispatch *dispatch, const char *name, const struct turn *begin)
{
	uint64_t ns = clock_now_ns() - begin->clock_ns;

	dispatch->n_turns++;
	if (ns > dispatch->longest_turn_ns) {	/* rare: only now it matters whether it was interrupted */
		struct turn end = turn_now();

		if (end.n_preempted != begin->n_preempted && end.n_blocked == begin->n_blocked)
			ns = end.processor_ns - begin->processor_ns;
	}
	if (ns > dispatch->longest_turn_ns) {
		dispatch->longest_turn_ns = ns;
		dispatch->longest_turn_name = name;
	}
}

/* Milliseconds until the first timer, at most @timeout_ms (-1: no limit), rounded up so that it is due afterwards. */
static int dispatch_patience(const struct dispatch *dispatch, int timeout_ms)
{
	const struct dispatch_timer *first;
	uint64_t now, ms;

	if (!list_is_empty(&dispatch->due) || !list_is_empty(&dispatch->ready))
		return 0;
	if (list_is_empty(&dispatch->timers))
		return timeout_ms;
	first = list_entry(dispatch->timers.next, struct dispatch_timer, link);
	now = clock_now_ns();
	ms = first->deadline_ns <= now ? 0 : (first->deadline_ns - now + 999999) / 1000000;
	if (ms > INT32_MAX)
		ms = INT32_MAX;
	return timeout_ms < 0 || (int)ms < timeout_ms ? (int)ms : timeout_ms;
}

/* Timers that are due move to a list of their own first: one that its callback arms again waits for the next turn. What
 * an early end leaves there stays due. */
static void dispatch_collect_timers(struct dispatch *dispatch, uint64_t now)
{
	struct list *first;

	while ((first = list_first(&dispatch->timers))) {
		if (list_entry(first, struct dispatch_timer, link)->deadline_ns > now)
			break;
		list_remove(first);
		list_append(&dispatch->due, first);
	}
}

static int dispatch_run_timers(struct dispatch *dispatch)
{
	uint64_t now = clock_now_ns();
	struct list *first;
	int r;

	dispatch_collect_timers(dispatch, now);
	while ((first = list_first(&dispatch->due))) {
		struct dispatch_timer *timer = list_entry(first, struct dispatch_timer, link);
		struct turn begin = turn_now();
		const char *name = timer->name;

		list_remove(&timer->link);
		fault_turn();
		r = timer->fn(timer, now);
		dispatch_account(dispatch, name, &begin);
		if (r)
			return r;
	}
	return 0;
}

static int dispatch_run_files(struct dispatch *dispatch)
{
	struct list *first;
	int r;

	while ((first = list_first(&dispatch->ready))) {
		struct dispatch_file *file = list_entry(first, struct dispatch_file, link);
		struct turn begin = turn_now();
		const char *name = file->name;
		/* another callback of this round may have changed what the file wants to hear of */
		uint32_t events = file->events & (file->mask | EPOLLERR | EPOLLHUP);

		list_remove(&file->link);
		if (!events)
			continue;
		fault_turn();
		r = file->fn(file, events);
		dispatch_account(dispatch, name, &begin);
		if (r)
			return r;
	}
	return 0;
}

int dispatch_turn(struct dispatch *dispatch, int timeout_ms)
{
	struct epoll_event events[DISPATCH_EVENTS_MAX];
	int n, r;

	n = epoll_wait(dispatch->epoll_fd, events, DISPATCH_EVENTS_MAX, dispatch_patience(dispatch, timeout_ms));
	if (n < 0 && errno != EINTR)
		return error_origin(-errno);
	for (int i = 0; i < n; i++) {
		struct dispatch_file *file = events[i].data.ptr;

		file->events = events[i].events;
		if (!list_is_linked(&file->link))
			list_append(&dispatch->ready, &file->link);
	}
	r = dispatch_run_timers(dispatch);
	return r ? r : dispatch_run_files(dispatch);
}

int dispatch_run(struct dispatch *dispatch)
{
	int r;

	do {
		r = dispatch_turn(dispatch, -1);
	} while (!r);
	return r;
}

int dispatch_file_init(struct dispatch_file *file, struct dispatch *dispatch, dispatch_fn fn, const char *name, int fd,
		       uint32_t mask)
{
	struct epoll_event event = { .events = mask, .data.ptr = file };

	*file = (struct dispatch_file){ .fd = fd, .mask = mask, .fn = fn, .name = name };
	list_init(&file->link);
	if (epoll_ctl(dispatch->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
		return error_origin(-errno);
	file->dispatch = dispatch;
	return 0;
}

int dispatch_file_select(struct dispatch_file *file, uint32_t mask)
{
	struct epoll_event event = { .events = mask, .data.ptr = file };

	if (file->mask == mask)
		return 0;
	if (epoll_ctl(file->dispatch->epoll_fd, EPOLL_CTL_MOD, file->fd, &event) < 0)
		return error_origin(-errno);
	file->mask = mask;
	return 0;
}

void dispatch_file_deinit(struct dispatch_file *file)
{
	if (!file->dispatch)
		return;
	epoll_ctl(file->dispatch->epoll_fd, EPOLL_CTL_DEL, file->fd, NULL);
	list_remove(&file->link);
	*file = (struct dispatch_file)DISPATCH_FILE_NULL(*file);
}

void dispatch_timer_init(struct dispatch_timer *timer, struct dispatch *dispatch, dispatch_timer_fn fn, const char *name)
{
	*timer = (struct dispatch_timer){ .dispatch = dispatch, .fn = fn, .name = name };
	list_init(&timer->link);
}

/* Timers are few (one per delay, worker and sweep) and their deadlines mostly grow: an ordered list, searched from the end. */
void dispatch_timer_arm(struct dispatch_timer *timer, uint64_t deadline_ns)
{
	struct list *pos;

	list_remove(&timer->link);
	timer->deadline_ns = deadline_ns;
	for (pos = timer->dispatch->timers.previous; pos != &timer->dispatch->timers; pos = pos->previous)
		if (list_entry(pos, struct dispatch_timer, link)->deadline_ns <= deadline_ns)
			break;
	list_prepend(pos, &timer->link);
}

void dispatch_timer_disarm(struct dispatch_timer *timer)
{
	if (timer->dispatch)
		list_remove(&timer->link);
}
