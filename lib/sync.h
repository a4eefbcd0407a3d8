/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Deadlines, signal masks, and a lock that a fork can be given afresh */

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include "sys.h"

/* -- Deadlines: nanoseconds of CLOCK_MONOTONIC, UINT64_MAX is never --- */
uint64_t time_now(void);
uint64_t deadline_after(uint64_t timeout_ns);
/* What remains until @deadline_ns, for system calls that want it: NULL when it is never. */
struct timespec *deadline_left(uint64_t deadline_ns, struct timespec *to);

/* -- Trying again until a deadline. An attempt blocks signals, so the first is short; each may take twice as long as the one
 * before, and so may the pause after it. --- */
struct retry {
	uint64_t deadline_ns, attempt_ns, pause_ns;
};
struct retry retry_until(uint64_t deadline_ns);
uint64_t retry_attempt(struct retry *retry);	/* the deadline of the attempt that follows */
uint64_t retry_pause(struct retry *retry);	/* when the next one is due; 0: the deadline is over */
/* Sleeps so long. False: the deadline is over. */
bool retry_sleep(struct retry *retry);

/* -- Signals --- */
/* Blocks all of them, the C library's own too (cancellation is one), and returns the mask to restore. */
static inline uint64_t signals_block(void)
{
	const uint64_t all = UINT64_MAX;
	uint64_t old = 0;

	sys_sigmask(SIG_SETMASK, &all, &old);
	return old;
}
static inline void signals_restore(uint64_t mask) { sys_sigmask(SIG_SETMASK, &mask, NULL); }

/* -- Futexes --- */
/* Sleeps while *@word is @value. 0 when woken or changed; -EINTR, -ETIMEDOUT. */
int futex_wait(const uint32_t *word, uint32_t value, uint64_t deadline_ns, bool is_shared);
void futex_wake(const uint32_t *word, int n);

/* -- Locks: a word; zero is free, so that memory which a fork finds wiped holds free locks --- */
int lock_take(uint32_t *lock, uint64_t deadline_ns);	/* 0 or -ETIMEDOUT */
bool lock_try(uint32_t *lock);
void lock_give(uint32_t *lock);
