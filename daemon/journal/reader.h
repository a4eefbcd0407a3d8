/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The reader: a thread that fetches segments into a small cache, from which the loop serves whoever reads old events
 *
 * However many read and however slowly, the cache has READER_SLOTS segments. One fetch at a time. */

#include "journal/folder.h"
#include "util/task.h"

#define READER_SLOTS 8u

struct reader_slot {
	struct segment segment;		/* first is 0: empty */
	struct tier_event *events;	/* number 0: cannot be had */
	uint64_t used;			/* when it served last: the least goes first */
};

struct reader {
	struct task task;
	const struct folder *folder;
	struct reader_slot slots[READER_SLOTS];
	uint64_t clock;			/* counts uses */
	/* the fetch */
	struct reader_slot fetched;
	uint64_t n_bad;
	int r;				/* 0, or -errno: then all of it cannot be had */
};

void reader_deinit(struct reader *reader);

/* The cached events of @segment from @sequence (which it has) on, and how many; NULL: to be fetched. */
const struct tier_event *reader_find(struct reader *reader, const struct segment *segment, uint64_t sequence, uint64_t *ret_n);

/* Before, in and after the thread: */
void reader_prepare(struct reader *reader, const struct segment *segment);
void reader_run(struct reader *reader);
void reader_settle(struct reader *reader);
