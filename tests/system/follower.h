/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Subscribers as processes, each with the list of what it was told in memory that outlives it
 *
 * One that is killed leaves the number of its last event; who is started in its place goes on behind it. */

#include <stdbool.h>
#include "system/harness.h"

struct follower_list {     /* shared memory */
	uint64_t n;        /* events, stored before it grows */
	uint64_t n_wanted; /* the journal's end, when it is known: who has so many and is told of no more ends with 0;
	                      else 0 */
	struct tier_event events[];
};

struct follower {
	const struct daemon *daemon;
	struct follower_list *list;
	size_t n_max;
	uint32_t rest_after; /* so many events it takes a rest of 10 ms; 0: none */
	pid_t pid;
	unsigned int n_kills;
};

void follower_start(struct follower *follower, const struct daemon *daemon, size_t n_max, uint32_t rest_after);
void follower_kill(struct follower *follower); /* SIGKILL; and another one in its place */
/* It has seen exactly events[0..n), and ends. */
void follower_end(struct follower *follower, const struct tier_event *events, size_t n);
