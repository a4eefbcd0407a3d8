/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* One file of the journal (tier/journal.h): writing, reading, checking and deflating it
 *
 * Stateless: a descriptor of the folder, a first number. So the loop, the writer and the keeper share nothing but names.
 * The only place with zlib. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include "tier/journal.h"

enum {
	_SEGMENT_E_SUCCESS,
	SEGMENT_E_DAMAGED,	/* the header cannot be trusted */
};

/* What the daemon knows of a segment without opening it */
struct segment {
	uint64_t first, last;	/* last is first - 1 when it has no record */
	uint64_t time_ns, last_ns;
	uint64_t gap_first;
	uint64_t n_bytes;	/* of the file */
	bool is_deflated;
};
static inline uint64_t segment_n(const struct segment *segment) { return segment->last + 1 - segment->first; }

/* Where a scan stopped: the record at @offset is not sound; the file has room for records up to number @last. */
struct segment_damage {
	uint64_t offset, sequence, last;
	const char *why;	/* NULL: no damage */
};

struct tier_segment_header segment_header(const struct segment *segment);	/* with its crc */

/* The segment's file for reading: a descriptor or -errno. */
int segment_open(int dir, uint64_t first, bool is_deflated);
/* Reads the header; of a raw segment also all records, up to the first one that is not sound or not the next (@damage tells). 0;
 * SEGMENT_E_DAMAGED: the header is of no use, *ret has what the records of a raw segment say; or -errno. */
int segment_inspect(int fd, uint64_t first, bool is_deflated, struct segment *ret, struct segment_damage *damage);
/* All its records into @events, which has room for segment_n(). Those that cannot be had get the number 0; *ret_n_bad counts
 * them. 0 or -errno. */
int segment_read(int fd, const struct segment *segment, struct tier_event *events, uint64_t *ret_n_bad);

/* Writes @n bytes at @at; *ret_n says how many there are, also when it fails. */
int segment_write(int fd, const void *p, size_t n, uint64_t at, size_t *ret_n);
/* Puts the gap into the header of a segment that is there already. */
int segment_mark_gap(int dir, struct segment *segment, uint64_t gap_first);

/* Deflates a raw segment: a new file beside it, synced, renamed, and the raw one removed. Dying anywhere leaves the raw one, or
 * the deflated one, or both and both whole. 0 and @segment is updated; -errno: the raw one is as it was. */
int segment_deflate(int dir, struct segment *segment);
int segment_remove(int dir, const struct segment *segment);
int segment_sync(int dir, const struct segment *segment);	/* its file and its name */

/* The system's, for unit tests to make fail; to be changed before there are threads */
struct segment_io {
	int (*open)(int dir, const char *name, int flags);
	ssize_t (*write)(int fd, const void *p, size_t n, off_t at);
	int (*truncate)(int fd, off_t n);
	int (*sync)(int fd);
	int (*rename)(int dir, const char *from, const char *to);
	int (*unlink)(int dir, const char *name);
};
extern struct segment_io segment_io;
