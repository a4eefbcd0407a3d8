/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include "system/follower.h"

#define LOOK_NS 50000000u /* so often it looks whether it is wanted for more */
#define REST_NS 10000000u

static size_t list_size(size_t n_max) { return sizeof(struct follower_list) + n_max * sizeof(struct tier_event); }

static bool has_all(const struct follower_list *list)
{
	const uint64_t n_wanted = __atomic_load_n(&list->n_wanted, __ATOMIC_ACQUIRE);

	return n_wanted && list->n >= n_wanted;
}

static void take(struct follower *follower, const struct tier_event *event)
{
	struct follower_list *list = follower->list;

	child_assert(event->sequence == list->n + 1 && list->n < follower->n_max);
	list->events[list->n] = *event;
	__atomic_store_n(&list->n, list->n + 1, __ATOMIC_RELEASE);
	if (follower->rest_after && list->n % follower->rest_after == 0 &&
	    !__atomic_load_n(&list->n_wanted, __ATOMIC_ACQUIRE))
		nanosleep(&(struct timespec){ .tv_nsec = REST_NS }, NULL);
}

static void follower_run(void *context)
{
	struct follower *follower = context;
	struct tier_conn *conn = daemon_connect(follower->daemon);
	struct tier_events *events;
	struct tier_event event;
	int r;

	child_assert(!tier_events_open(conn, follower->list->n + 1, &events));
	while (!has_all(follower->list)) {
		r = tier_events_next(events, LOOK_NS, &event, NULL, NULL);
		child_assert(!r || r == -ETIMEDOUT);
		if (!r)
			take(follower, &event);
	}
	child_assert(tier_events_next(events, 0, &event, NULL, NULL) == -ETIMEDOUT);
	tier_events_close(events);
	tier_disconnect(conn);
}

void follower_start(struct follower *follower, const struct daemon *daemon, size_t n_max, uint32_t rest_after)
{
	*follower = (struct follower){ .daemon = daemon, .n_max = n_max, .rest_after = rest_after };
	follower->list =
	        mmap(NULL, list_size(n_max), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	assert_true(follower->list != MAP_FAILED);
	follower->pid = child_start(follower_run, follower);
}

void follower_kill(struct follower *follower)
{
	int status;

	assert_int_equal(kill(follower->pid, SIGKILL), 0);
	status = child_reap(follower->pid);
	if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
		fail_msg("the follower had ended before it was killed, with status %#x", status);
	follower->n_kills++;
	follower->pid = child_start(follower_run, follower);
}

void follower_end(struct follower *follower, const struct tier_event *events, size_t n)
{
	__atomic_store_n(&follower->list->n_wanted, n, __ATOMIC_RELEASE);
	child_end(follower->pid);
	assert_int_equal(follower->list->n, n);
	for (size_t i = 0; i < n; i++)
		if (memcmp(&follower->list->events[i], &events[i], sizeof(events[i])) != 0)
			fail_msg("event %zu is another one for a follower than in the journal", i + 1);
	munmap(follower->list, list_size(follower->n_max));
}
