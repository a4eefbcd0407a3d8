/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The event loop: one epoll, files that mirror their readiness, timers, and a measured turn
 *
 * A dispatch_file is embedded in its object (container_of in the callback). Level-triggered epoll; a callback returns 0, a
 * negative errno (fatal: the loop ends with it) or DISPATCH_E_EXIT. Callbacks may deinit any file or timer, their own
 * too, and free what embeds it. A timer that a callback arms runs in the next turn at the earliest, so work that goes on
 * in slices (arm for now) lets the files have their say in between. One thread. */

#include <stdbool.h>
#include <stdint.h>
#include "util/list.h"

enum {
	_DISPATCH_E_SUCCESS,
	DISPATCH_E_EXIT,	/* leave the loop; from a callback, and returned by dispatch_run() */
};

struct dispatch {
	int epoll_fd;
	struct list timers;		/* by deadline */
	struct list due;		/* timers whose turn has come in this round */
	struct list ready;		/* files likewise */
	uint64_t longest_turn_ns;	/* longest single callback so far, without time when others took the processor */
	const char *longest_turn_name;
	uint64_t n_turns;
};
#define DISPATCH_NULL(x)                                                                                               \
	{ .epoll_fd = -1, .timers = LIST_INIT((x).timers), .due = LIST_INIT((x).due), .ready = LIST_INIT((x).ready) }

struct dispatch_file;
typedef int (*dispatch_fn)(struct dispatch_file *file, uint32_t events);

struct dispatch_file {
	struct dispatch *dispatch;	/* NULL when not registered */
	int fd;				/* borrowed */
	uint32_t mask, events;
	dispatch_fn fn;
	const char *name;		/* a literal: who took the longest turn */
	struct list link;
};
#define DISPATCH_FILE_NULL(x) { .fd = -1, .link = LIST_INIT((x).link) }

struct dispatch_timer;
typedef int (*dispatch_timer_fn)(struct dispatch_timer *timer, uint64_t now_ns);

struct dispatch_timer {
	struct dispatch *dispatch;
	uint64_t deadline_ns;		/* CLOCK_MONOTONIC */
	dispatch_timer_fn fn;
	const char *name;
	struct list link;		/* linked while armed or due */
};

int dispatch_init(struct dispatch *dispatch);
void dispatch_deinit(struct dispatch *dispatch);
int dispatch_run(struct dispatch *dispatch);			/* until a callback ends it */
int dispatch_turn(struct dispatch *dispatch, int timeout_ms);	/* one epoll_wait and what it brings */

/* @mask: EPOLLIN, EPOLLOUT... The file must be deinited before its fd is closed. Returns 0 or -errno. */
int dispatch_file_init(struct dispatch_file *file, struct dispatch *dispatch, dispatch_fn fn, const char *name, int fd,
		       uint32_t mask);
int dispatch_file_select(struct dispatch_file *file, uint32_t mask);
void dispatch_file_deinit(struct dispatch_file *file);		/* also on a zeroed or NULL-initialised one */

void dispatch_timer_init(struct dispatch_timer *timer, struct dispatch *dispatch, dispatch_timer_fn fn, const char *name);
void dispatch_timer_arm(struct dispatch_timer *timer, uint64_t deadline_ns);	/* re-arms too */
void dispatch_timer_disarm(struct dispatch_timer *timer);	/* idempotent; callbacks find their timer disarmed */

uint64_t clock_now_ns(void);	/* CLOCK_MONOTONIC */
