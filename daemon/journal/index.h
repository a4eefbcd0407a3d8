/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The segments of a folder in the order of their numbers, which is that of their times as far as the clock goes forward:
 * either is found by bisecting. Inside a segment the number is the place. */

#include "journal/segment.h"

struct segment_index {
	struct segment *segments;
	uint32_t n, n_max;
	uint64_t n_bytes;	/* of all files */
};

int index_reserve(struct segment_index *index);	/* room for one more: 0 or -ENOMEM */
/* Behind all others; the room is reserved. */
void index_append(struct segment_index *index, const struct segment *segment);
void index_update(struct segment_index *index, struct segment *segment, const struct segment *now);
void index_remove_oldest(struct segment_index *index);
void index_remove_newest(struct segment_index *index);
void index_deinit(struct segment_index *index);

/* The last segment whose first record's number, or time, is not after that; NULL: all are. */
struct segment *index_find(const struct segment_index *index, uint64_t sequence);
struct segment *index_find_time(const struct segment_index *index, uint64_t time_ns);

static inline struct segment *index_oldest(const struct segment_index *index) { return index->n ? index->segments : NULL; }
static inline struct segment *index_newest(const struct segment_index *index)
{
	return index->n ? &index->segments[index->n - 1] : NULL;
}
/* The one behind it; NULL: there is none. */
static inline struct segment *index_next(const struct segment_index *index, const struct segment *segment)
{
	return segment + 1 < index->segments + index->n ? (struct segment *)segment + 1 : NULL;
}

/* The first of @n events, in the order of their numbers, at or after that time while the one before it is earlier; @n: none. */
uint32_t events_find_time(const struct tier_event *events, uint32_t n, uint64_t time_ns);
