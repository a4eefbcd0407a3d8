/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Forks: memory that says "this is one", and getting a forked process a session of its own */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct lane;
struct tier_conn;

/* A page that a fork finds zeroed, however it was made: the kernel does it (MADV_WIPEONFORK), so no handler needs to run.
 * All locks live in such pages: whoever held them exists in the parent only. */
struct conn_page {
	uint32_t mine;		/* 1: the connection's lanes and probe page are this process's own; 0: a fork's copies */
	uint32_t recovery;	/* lock: one thread at a time connects; innermost but for process_page's, all signals blocked */
	uint32_t api, prestub;	/* locks of the lanes */
	uint32_t watch;		/* lock: one thread at a time registers a slot */
	uint32_t has_thread;	/* 1: the slots thread runs in this process */
};
struct process_page {
	uint32_t mine;		/* 1: nothing was left half done by a thread that exists in the parent only */
	uint32_t registry;	/* lock: opening and closing modules; held during requests, signals open */
	uint32_t links;		/* lock: changing or reading lists; held for moments, all signals blocked */
	uint32_t slots;		/* lock: the program's slots; held for moments, all signals blocked */
	uint32_t has_slots;	/* 1: they were registered by this process */
};
union wiped_page {
	struct conn_page conn;
	struct process_page process;
};

/* @n bytes of such memory. NULL with a sentence: no memory, or the kernel is too old. */
void *wiped_memory_new(size_t n);
union wiped_page *wiped_page_new(void);	/* the same */
void wiped_page_free(union wiped_page *page);

/* The process's page; made by the first connection. */
int process_init(void);
struct process_page *process_page(void);

/* Makes sure that the connection is this process's own: one load when it is. A fork lets go of its parent's session; its lanes
 * are broken then, and get a new one when they are needed. All signals are blocked. 0, or a negative errno with a sentence. */
int fork_recover(struct tier_conn *conn, uint64_t deadline_ns);
/* In a fork: lets go of what it inherited of the parent's session; of one lane of it. */
void fork_forget(struct tier_conn *conn);
void fork_forget_lane(struct lane *lane);
