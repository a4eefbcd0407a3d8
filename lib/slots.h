/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Slots of the program's: pointers in its own memory through which it calls methods (tier_slot_register()) */

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include "lane.h"

struct tier_conn;
struct tier_module;

/* A connection's part: a lane on which the daemon tells what has changed, and the thread that listens there. */
struct slots {
	struct lane lane;
	pthread_t thread;		/* runs while page->has_thread says so */
	struct tier_conn *next;		/* the next connection that ever had one */
	bool is_linked;
	uint32_t round;			/* how often the thread has watched its methods anew */
	uint32_t is_ending;		/* futex: the thread is to end */
	/* what the lane's only asker waits for */
	uint32_t n_answers;		/* futex: grows with each answer, and when the lane is lost */
	uint32_t is_lost;		/* nobody tells of changes: until the thread has all methods watched again */
	uint64_t serial;		/* of the last question */
	uint64_t answered;		/* of the last answer: written before n_answers grows, like the rest */
	int result;
	char text[WIRE_TEXT_MAX];
};

/* The module, or the connection, is about to be closed: its slots lead to their methods again, and are forgotten. */
void slots_forget_module(const struct tier_module *module);
/* Ends the thread, too. */
void slots_end(struct tier_conn *conn);
