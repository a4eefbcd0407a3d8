/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The writer: a thread that appends batches of events to segments
 *
 * A batch goes into one segment, whole or as far as it gets; what the loop gave belongs to the thread until done. The writer
 * makes the promise about numbers (tier/journal.h) before it writes what needs it. -ENOENT is how it says that somebody removed the
 * segment or the folder; then it is to look what there still is, segment by segment from the newest on. */

#include "journal/folder.h"
#include "util/task.h"

#define WRITER_BATCH_MAX 4096u

struct writer {
	struct task task;
	const struct folder *folder;
	bool syncs;			/* each batch is on the disk when it is done */
	int fd;				/* of the segment that is written to; -1 */
	uint64_t bound;			/* promised */
	bool is_exact;			/* promised */

	/* the batch, by the loop */
	struct segment segment;		/* as it is, and after the batch as it will have become */
	bool looks;			/* nothing is written: is that segment there? */
	bool begins;			/* the segment is new: its header is to be written */
	uint64_t told;			/* number of the newest event that anybody may be told before this batch is done */
	uint32_t n;
	/* what came of it */
	int r;				/* 0, or -errno of @failed */
	uint32_t n_written;
	const char *failed;		/* "write", "sync"... */
	bool is_there;

	struct tier_segment_header header;	/* room for it before the events: one write */
	struct tier_event events[WRITER_BATCH_MAX];
};

void writer_init(struct writer *writer, const struct folder *folder, bool syncs);
void writer_deinit(struct writer *writer);

/* The work, in the thread or, when there is none any more, in the loop. */
void writer_run(struct writer *writer);
