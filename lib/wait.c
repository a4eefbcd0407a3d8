/* SPDX-License-Identifier: Apache-2.0 */
#include <limits.h>
#include <stdlib.h>
#include "error.h"
#include "module.h"
#include "sync.h"
#include "sys.h"
#include "wait.h"

/* Waiting for a quiet state
 *
 * The state word in the records is a futex that the daemon wakes; the cancellation token is another one. A kernel that
 * can wait for both at once (5.16) does; with an older one the wait looks at the token every few milliseconds.
 *
 * Between sleeps, at growing intervals, the wait looks whether the daemon is still there, so that it never hangs. If not, it
 * looks for the next one, but never for longer than a cancellation or its own deadline may wait; when none has come for as
 * long as a request of the connection may take, it gives up. And a counter that stands at "reached" while the state word
 * still says "counting" may mean that the crossing thread died between the two: then the daemon is asked about the method,
 * for that makes it look at the counter. */

#define WAIT_TICK_FIRST_NS 20000000ull
#define WAIT_TICK_MAX_NS 320000000ull
#define WAIT_SLICE_NS 2000000ull	/* how late a cancellation may be noticed without futex_waitv() */
#define WAIT_RENEWAL_NS 100000000ull	/* how long one look for a daemon may take */

struct tier_cancel {
	uint32_t is_canceled;
};

int tier_cancel_new(struct tier_cancel **ret)
{
	struct tier_cancel *cancel = calloc(1, sizeof(*cancel));

	if (!cancel)
		return error_set(-ENOMEM, "out of memory");
	*ret = cancel;
	return 0;
}

void tier_cancel(struct tier_cancel *cancel)
{
	__atomic_store_n(&cancel->is_canceled, 1, __ATOMIC_SEQ_CST);
	futex_wake(&cancel->is_canceled, INT_MAX);
}

void tier_cancel_free(struct tier_cancel *cancel)
{
	free(cancel);
}

bool cancel_is_due(const struct tier_cancel *cancel)
{
	return cancel && __atomic_load_n(&cancel->is_canceled, __ATOMIC_ACQUIRE);
}

int wait_canceled(const struct tier_method *method)
{
	return error_set(-ECANCELED, "the wait for %s:%s was canceled", method->module->mapping->name, tier_method_name(method));
}

/* -- Sleeping --- */
struct wait_word {		/* the kernel's struct futex_waitv */
	uint64_t value, address;
	uint32_t flags, reserved;
};
#define WAIT_WORD_32 2u

static bool wait_both(const uint32_t *state, uint32_t seen, const struct tier_cancel *cancel, uint64_t deadline_ns)
{
	const struct wait_word words[2] = {
		{ .value = seen, .address = (uintptr_t)state, .flags = WAIT_WORD_32 },
		{ .value = 0, .address = (uintptr_t)&cancel->is_canceled, .flags = WAIT_WORD_32 | FUTEX_PRIVATE_FLAG },
	};
	const struct timespec ts = { .tv_sec = deadline_ns / 1000000000u, .tv_nsec = deadline_ns % 1000000000u };

	return sys_futex_waitv(words, 2, &ts) != -ENOSYS;
}

/* Until the state word is no longer @seen, the token is canceled, or @until_ns. May wake early. */
static void wait_sleep(const uint32_t *state, uint32_t seen, const struct tier_cancel *cancel, uint64_t until_ns)
{
	static bool has_no_waitv;
	uint64_t slice_ns;

	if (!cancel) {
		futex_wait(state, seen, until_ns, true);
		return;
	}
	if (!__atomic_load_n(&has_no_waitv, __ATOMIC_RELAXED)) {
		if (wait_both(state, seen, cancel, until_ns))
			return;
		__atomic_store_n(&has_no_waitv, true, __ATOMIC_RELAXED);
	}
	slice_ns = deadline_after(WAIT_SLICE_NS);
	futex_wait(state, seen, slice_ns < until_ns ? slice_ns : until_ns, true);
}

/* -- Looking at the connection --- */
struct wait {
	const struct tier_method *method;
	uint64_t deadline_ns;
	uint64_t tick_ns, next_ns;	/* interval; time of the next look */
	uint64_t lost_ns;		/* since when there is no daemon; 0: there is one */
};

/* 0: there may be a daemon soon. */
static int wait_without_daemon(struct wait *wait, int r)
{
	const uint64_t now = time_now();

	if (!wait->lost_ns)
		wait->lost_ns = now;
	return now - wait->lost_ns < wait->method->module->conn->timeout_ns ? 0 : r;
}

static int wait_look(struct wait *wait, const struct tier_answer *answer)
{
	const struct tier_module *const module = wait->method->module;
	const struct wire_method_ref ref = { .module = module->mapping->module, .method = wait->method->index };
	const uint64_t now = time_now(), patience = deadline_after(WAIT_RENEWAL_NS);
	int r;

	if (now < wait->next_ns)
		return 0;
	wait->next_ns = now + wait->tick_ns;
	wait->tick_ns = wait->tick_ns * 2 < WAIT_TICK_MAX_NS ? wait->tick_ns * 2 : WAIT_TICK_MAX_NS;
	r = conn_nudge(module, answer->stage == TIER_STAGE_REACHED ? &ref : NULL,
		       patience < wait->deadline_ns ? patience : wait->deadline_ns);
	if (r == -ECONNRESET || r == -ETIMEDOUT)
		return wait_without_daemon(wait, r);
	wait->lost_ns = 0;
	return r;
}

/* The low half of the state word, which changes with each stage and generation */
static const uint32_t *wait_word(const struct tier_method *method)
{
	_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the low half comes first");
	return (const uint32_t *)&method_record(method)->state;
}

int tier_wait(const struct tier_method *method, uint64_t timeout_ns, struct tier_cancel *cancel, struct tier_answer *ret)
{
	struct wait wait = { .method = method, .deadline_ns = deadline_after(timeout_ns), .tick_ns = WAIT_TICK_FIRST_NS,
			     .next_ns = deadline_after(WAIT_TICK_FIRST_NS) };
	const uint32_t *const word = wait_word(method);
	struct tier_answer answer;
	uint32_t seen;
	int r;

	for (;;) {
		/* before the answer: a change after it is noticed by the sleep */
		seen = __atomic_load_n(word, __ATOMIC_ACQUIRE);
		answer = tier_status(method);
		if (cancel_is_due(cancel))
			return wait_canceled(method);
		if (tier_answer_is_quiet(&answer))
			break;
		if (!timeout_ns || time_now() >= wait.deadline_ns)
			return error_set(-ETIMEDOUT, "%s:%s is still %s", method->module->mapping->name,
					 tier_method_name(method), tier_stage_name(answer.stage));
		r = wait_look(&wait, &answer);
		if (r < 0)
			return r;
		wait_sleep(word, seen, cancel, wait.next_ns < wait.deadline_ns ? wait.next_ns : wait.deadline_ns);
	}
	if (ret)
		*ret = answer;
	return 0;
}

int tier_climb_next(struct tier_climb *climb, uint64_t timeout_ns, struct tier_cancel *cancel, uint32_t *calls)
{
	int r;

	r = tier_wait(climb->method, timeout_ns, cancel, &climb->answer);
	if (r < 0)
		return r;
	if (climb->answer.status == TIER_STATUS_FINAL)
		return 0;
	if (climb->answer.stage != TIER_STAGE_COLD && climb->answer.stage != TIER_STAGE_COUNTING)
		return error_set(-EBUSY, "%s:%s will not go on: its module is frozen", climb->method->module->mapping->name,
				 tier_method_name(climb->method));
	climb->n_steps++;
	*calls = climb->answer.remaining;
	return 1;
}
