/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The journal's folder as the loop sees it
 *
 *   journal.c   the newest events in memory
 *      │ disk_appended(), take()                 ▲ disk_read()
 *   disk.c      index, what is to be done next   │
 *      │ batches          │ one segment          │ one segment
 *   writer.c  append   keeper.c  sync, deflate,  reader.c  fetch       a thread each, through util/task
 *      │                  │       remove         │
 *   segment.c, segment_z.c, folder.c             files
 *
 * The loop decides, the threads do; between submission and completion what a thread works on is its own. */

#include "journal/journal.h"

struct disk;

/* Copies up to @n_max of the events that memory has, from number @from on or, when that is gone, from the oldest one on; *ret_first
 * is the first one's number. How many. */
typedef uint32_t (*disk_take_fn)(void *context, uint64_t from, struct tier_event *to, uint32_t n_max, uint64_t *ret_first);

/* Memory as it is at the start */
struct disk_source {
	disk_take_fn take;
	void *context;
	uint64_t newest;	/* number of its newest event; 0: it has none */
	uint64_t told;		/* numbers up to this one, and no others, may have been told; 0: it does not know */
};

/* 0, or -errno after the sentence went to the log. */
int disk_open(struct disk **ret, struct dispatch *dispatch, const struct journal_config *config, const struct disk_source *source);
/* Writes what is not written yet, waits for the threads, and closes the folder. */
struct disk *disk_free(struct disk *disk);

uint64_t disk_used(const struct disk *disk);	/* numbers up to this one may have been told by a predecessor */
uint64_t disk_newest(const struct disk *disk);	/* number of the newest event on the disk; 0: none */
uint64_t disk_oldest(const struct disk *disk);	/* likewise; UINT64_MAX: none */
/* Anybody may be told of events up to this one. */
uint64_t disk_readable(const struct disk *disk);

void disk_appended(struct disk *disk, uint64_t newest);

/* 0: *ret_n events, at least one. JOURNAL_E_GAP: none up to *ret_gap_last, which is UINT64_MAX when the disk has nothing behind.
 * JOURNAL_E_LATER: config->readable will be called. */
int disk_read(struct disk *disk, uint64_t from, struct tier_event *events, uint32_t n_max, uint32_t *ret_n, uint64_t *ret_gap_last);
/* The first number at or after that time: 0 and *ret; JOURNAL_E_LATER; JOURNAL_E_GAP: all that the disk has is earlier. */
int disk_seek(struct disk *disk, uint64_t time_ns, uint64_t *ret);
