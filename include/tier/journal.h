/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The journal on disk: what the daemon writes and anybody can check
 *
 * A folder of segments. Each begins with a header of 64 bytes that vouches for itself, then come records, which are struct
 * tier_event with consecutive numbers, so record s lies at (s - first + 1) * 64. A full segment is deflated: the same header
 * with what is known by then, then one zlib stream of all records.
 *
 *	00000000000000000001.events.z	full: 1 … 16384
 *	00000000000000016385.events	the newest: records are appended
 *	numbers				up to which number anybody may have been told anything (struct tier_numbers)
 *
 * Names are the first number in 20 digits, so that they sort by number. Numbers that could not be kept are a gap, and the
 * header of the segment behind it says so: gap_first … first - 1 are missing. Without a gap gap_first is first, and the
 * segment before ends with first - 1. Everything is little endian; checksums are zlib's CRC-32. */

#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include "tier/events.h"

#define TIER_SEGMENT_MAGIC UINT64_C(0x0a47455352454954)	/* "TIERSEG\n" */
#define TIER_SEGMENT_VERSION 1u
#define TIER_SEGMENT_RAW_SUFFIX ".events"
#define TIER_SEGMENT_DEFLATED_SUFFIX ".events.z"
#define TIER_SEGMENT_NEW_SUFFIX ".events.z.new"	/* a deflated one on its way; nobody's when the daemon is gone */
#define TIER_SEGMENT_EVENTS_MAX (1u << 20)	/* whoever reads one needs no more memory than that */

enum tier_segment_coding { TIER_SEGMENT_RAW, TIER_SEGMENT_DEFLATED, _TIER_SEGMENT_CODING_N };

struct tier_segment_header {
	uint64_t magic;
	uint32_t version, coding;
	uint64_t first, time_ns;	/* of the first record */
	uint64_t gap_first;
	uint64_t last, last_ns;		/* DEFLATED: of the last record; RAW: 0 */
	uint32_t reserved;
	uint32_t crc;			/* of the bytes before it */
};
TIER_STATIC_ASSERT(sizeof(struct tier_segment_header) == 64 && sizeof(struct tier_event) == 64, "a header takes the place of a record");

/* The file "numbers". Clients may have been told of events whose bytes are lost: those of the last moments before a power
 * loss, those that a full disk had no room for. Their numbers must not be given to others. */
#define TIER_NUMBERS_MAGIC UINT64_C(0x0a4d554e52454954)	/* "TIERNUM\n" */
#define TIER_NUMBERS_NAME "numbers"
struct tier_numbers {
	uint64_t magic;
	uint64_t bound;			/* no number from here on was told to anybody */
	unsigned char boot[16];		/* id of the boot in which this was written */
	uint32_t is_exact;		/* in this boot: all that was told is in the segments */
	uint32_t reserved[6];
	uint32_t crc;
};
TIER_STATIC_ASSERT(sizeof(struct tier_numbers) == 64, "numbers format 1");

#define TIER_SEGMENT_DIGITS 20u
#define TIER_SEGMENT_NAME_MAX 40u

static inline void tier_segment_name(char *to, uint64_t first, const char *suffix)
{
	snprintf(to, TIER_SEGMENT_NAME_MAX, "%020llu%s", (unsigned long long)first, suffix);
}

/* The first number of a segment by its name, and which kind of name it is; 0: not a segment's. */
static inline uint64_t tier_segment_parse(const char *name, const char **ret_suffix)
{
	uint64_t first = 0;

	for (unsigned int i = 0; i < TIER_SEGMENT_DIGITS; i++)
		if (name[i] < '0' || name[i] > '9' || __builtin_mul_overflow(first, 10u, &first)
		    || __builtin_add_overflow(first, (uint64_t)(name[i] - '0'), &first))
			return 0;
	*ret_suffix = name + TIER_SEGMENT_DIGITS;
	return strcmp(*ret_suffix, TIER_SEGMENT_RAW_SUFFIX) && strcmp(*ret_suffix, TIER_SEGMENT_DEFLATED_SUFFIX)
			       && strcmp(*ret_suffix, TIER_SEGMENT_NEW_SUFFIX)
		       ? 0
		       : first;
}

/* What is wrong with a header of the file that is named after @first, apart from its crc; NULL: nothing. */
static inline const char *tier_segment_wrong(const struct tier_segment_header *segment, uint64_t first, enum tier_segment_coding coding)
{
	if (segment->magic != TIER_SEGMENT_MAGIC)
		return "not a segment of a journal";
	if (segment->version != TIER_SEGMENT_VERSION)
		return "of another version";
	if (segment->coding != coding)
		return "its coding is not what its name says";
	if (segment->first != first)
		return "its first number is not what its name says";
	if (!segment->gap_first || segment->gap_first > first)
		return "its gap ends before it begins";
	if (coding == TIER_SEGMENT_DEFLATED && (segment->last < first || segment->last - first >= TIER_SEGMENT_EVENTS_MAX))
		return "its last number is impossible";
	return NULL;
}
