/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <limits.h>
#include "sync.h"

#define NS_PER_S 1000000000u

enum { LOCK_FREE, LOCK_TAKEN, LOCK_WANTED };	/* WANTED: taken, and somebody may sleep on it */

uint64_t time_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_S + ts.tv_nsec;
}

uint64_t deadline_after(uint64_t timeout_ns)
{
	uint64_t now = time_now();

	return timeout_ns > UINT64_MAX - now ? UINT64_MAX : now + timeout_ns;
}

static struct timespec *time_split(uint64_t ns, struct timespec *to)
{
	to->tv_sec = ns / NS_PER_S;
	to->tv_nsec = ns % NS_PER_S;
	return to;
}

struct timespec *deadline_left(uint64_t deadline_ns, struct timespec *to)
{
	uint64_t now;

	if (deadline_ns == UINT64_MAX)
		return NULL;
	now = time_now();
	return time_split(deadline_ns > now ? deadline_ns - now : 0, to);
}

/* -- Trying again --- */
#define RETRY_ATTEMPT_NS 1000000000u
#define RETRY_ATTEMPT_MAX_NS 8000000000u
#define RETRY_PAUSE_NS 2000000u
#define RETRY_PAUSE_MAX_NS 250000000u

static uint64_t smaller(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

struct retry retry_until(uint64_t deadline_ns)
{
	return (struct retry){ .deadline_ns = deadline_ns, .attempt_ns = RETRY_ATTEMPT_NS, .pause_ns = RETRY_PAUSE_NS };
}

uint64_t retry_attempt(struct retry *retry)
{
	const uint64_t deadline_ns = smaller(deadline_after(retry->attempt_ns), retry->deadline_ns);

	retry->attempt_ns = smaller(2 * retry->attempt_ns, RETRY_ATTEMPT_MAX_NS);
	return deadline_ns;
}

uint64_t retry_pause(struct retry *retry)
{
	const uint64_t now = time_now(), due_ns = smaller(now + retry->pause_ns, retry->deadline_ns);

	retry->pause_ns = smaller(2 * retry->pause_ns, RETRY_PAUSE_MAX_NS);
	return now < retry->deadline_ns ? due_ns : 0;
}

bool retry_sleep(struct retry *retry)
{
	const uint64_t due_ns = retry_pause(retry);
	struct timespec left;

	if (!due_ns)
		return false;
	sys_ppoll(NULL, 0, deadline_left(due_ns, &left), NULL);	/* a signal ends it early, which does no harm */
	return true;
}

/* -- Futexes --- */
int futex_wait(const uint32_t *word, uint32_t value, uint64_t deadline_ns, bool is_shared)
{
	const int op = FUTEX_WAIT_BITSET | (is_shared ? 0 : FUTEX_PRIVATE_FLAG);
	struct timespec ts;
	int r;

	r = sys_futex(word, op, value, deadline_ns == UINT64_MAX ? NULL : time_split(deadline_ns, &ts));
	return r == -ETIMEDOUT || r == -EINTR ? r : 0;
}

void futex_wake(const uint32_t *word, int n)
{
	sys_futex(word, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, n, NULL);
}

bool lock_try(uint32_t *lock)
{
	uint32_t expected = LOCK_FREE;

	return __atomic_compare_exchange_n(lock, &expected, LOCK_TAKEN, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
}

int lock_take(uint32_t *lock, uint64_t deadline_ns)
{
	if (lock_try(lock))
		return 0;
	while (__atomic_exchange_n(lock, LOCK_WANTED, __ATOMIC_ACQUIRE) != LOCK_FREE)
		if (futex_wait(lock, LOCK_WANTED, deadline_ns, false) == -ETIMEDOUT)
			return -ETIMEDOUT;
	return 0;
}

void lock_give(uint32_t *lock)
{
	if (__atomic_exchange_n(lock, LOCK_FREE, __ATOMIC_RELEASE) == LOCK_WANTED)
		futex_wake(lock, 1);
}
