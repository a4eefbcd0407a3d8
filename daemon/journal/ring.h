/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The newest events, in memory that outlives the daemon
 *
 * Number s lies at s % n_max, so a reader's number needs no translation and an append forgets the oldest by writing
 * over it. The memory is a memfd: whoever gets its descriptor after a death, at whatever instruction, finds consecutive
 * sound events up to the newest one that was appended whole.
 *
 *   header  magic | version, n_max | first | newest | …
 *   events  n_max of them
 *
 * What is there is first … newest; none when newest < first. The commit rule: first moves before its event is written
 * over, the event's bytes come next, and newest last. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "tier/events.h"

struct ring_memory;

struct ring {
	int fd;
	size_t size;
	struct ring_memory *memory;
};
#define RING_NULL { .fd = -1 }

int ring_init(struct ring *ring, uint32_t n_max);	/* memory of its own, empty: 0 or -errno */
/* A predecessor's: takes @fd on success. Events up to one that is not sound are forgotten, *ret_damage is its number,
 * else 0. -EBADMSG: it is nothing that a ring left, *ret_why says in what way, and it stays untouched. 0 or -errno. */
int ring_adopt(struct ring *ring, int fd, uint64_t *ret_damage, const char **ret_why);
void ring_deinit(struct ring *ring);

/* Numbers up to @newest are others'; there is nothing of them, nor of what was appended before. Not below
 * ring_newest() while there are events. */
void ring_begin(struct ring *ring, uint64_t newest);
/* @event->sequence follows ring_newest(). Fills the crc. */
void ring_append(struct ring *ring, const struct tier_event *event);

uint32_t ring_n_max(const struct ring *ring);
uint64_t ring_first(const struct ring *ring);
uint64_t ring_newest(const struct ring *ring);	/* of all that were ever appended, or others'; 0: none */
static inline uint32_t ring_n(const struct ring *ring)
{
	return ring_newest(ring) < ring_first(ring) ? 0 : ring_newest(ring) + 1 - ring_first(ring);
}
const struct tier_event *ring_at(const struct ring *ring, uint64_t sequence);	/* of one that is there */

/* Unit tests: called at every point between two stores where dying makes a difference; normally NULL. */
extern void (*ring_crash_point)(void);
