/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The journal: the history of transitions, numbered without holes
 *
 * The newest events are in memory; with a folder, all of them are on the disk as well (tier/journal.h), where they outlive the
 * daemon. Nothing here waits for the disk: threads write, deflate, sync and fetch. Nobody is told of an event before it is
 * written (with JOURNAL_SYNC_RECORD: before it is on the disk), so no death of the daemon takes back what somebody was told. While
 * the disk refuses, events are told from memory; what could not be kept is a gap with known numbers, like what retention removed.
 * Readers are cursors: the journal knows nothing of them. Everything here is the loop's. */

#include <stdbool.h>
#include <stdint.h>
#include "tier/events.h"
#include "util/dispatch.h"

struct journal;

enum {
	_JOURNAL_E_SUCCESS,
	JOURNAL_E_GAP,		/* the numbers asked for are no longer kept */
	JOURNAL_E_LATER,	/* there, but not at hand: it is being fetched or written */
};

enum journal_sync { JOURNAL_SYNC_RECORD, JOURNAL_SYNC_INTERVAL, JOURNAL_SYNC_NEVER };

struct journal_config {
	const char *folder;		/* borrowed; made if it is not there */
	enum journal_sync sync;
	uint64_t sync_interval_ns;
	uint64_t size_max;		/* bytes of all files; 0: any */
	uint64_t age_max_ns;		/* of a segment's last event; 0: any */
	uint32_t segment_events;	/* events of a full segment; 0: as is good */
	uint64_t retry_ns;		/* how soon what failed is tried again; 0: as is good */
	void (*readable)(void *context);	/* from the loop: events that were not at hand may be now */
	void *context;
};

/* Keeps at most @n_max events in memory (at least 1). 0 or -errno. */
int journal_new(struct journal **ret, uint32_t n_max);
/* The same with a predecessor's memory, by its journal_fd(): its events are this one's. Takes @fd when the memory is of that size,
 * else copies what there is room for: journal_fd() tells which. -EBADMSG after the sentence went to the log: the memory is not
 * what a journal left. 0 or -errno. */
int journal_adopt(struct journal **ret, uint32_t n_max, int fd);
int journal_fd(const struct journal *journal);	/* its memory, whole after every instruction; stays the journal's */
/* Keeps the journal in a folder as well, from now on: recovers what a predecessor left there, and writes what only memory has. 0;
 * -errno after the sentence went to the log: the journal is in memory only, as it was. */
int journal_open(struct journal *journal, struct dispatch *dispatch, const struct journal_config *config);
/* Writes and syncs what is left; waits for the disk. NULL is fine. */
struct journal *journal_free(struct journal *journal);

/* Nobody committed a number above @newest so far, whatever a folder promised: the next one follows it. For whoever has a ledger,
 * once, when all that a predecessor committed is appended. -EBADMSG after the sentence went to the log: what a predecessor left
 * here is not of that ledger. */
int journal_go_on(struct journal *journal, uint64_t newest);

/* @event->sequence must follow the newest number; the first one must be above journal_newest_on_disk(). Asserts it. One that a
 * predecessor appended already is recognized by its number. Fills the crc. Never fails: memory was taken at the start. */
void journal_append(struct journal *journal, const struct tier_event *event);

/* The newest number; before the first append the newest that a predecessor may have told. 0: none. Whoever has no ledger that
 * knows better goes on with the next one. */
uint64_t journal_newest(const struct journal *journal);
uint64_t journal_newest_on_disk(const struct journal *journal);	/* 0: none */
uint64_t journal_oldest(const struct journal *journal);	/* first number kept; newest + 1 when empty */

/* Copies up to @n_max events from number @from on; *ret_n may be 0 (nothing newer yet). JOURNAL_E_GAP: the numbers from @from to
 * *ret_gap_last are gone, nothing is copied. JOURNAL_E_LATER: config->readable() will be called. */
int journal_read(struct journal *journal, uint64_t from, struct tier_event *events, uint32_t n_max, uint32_t *ret_n,
		 uint64_t *ret_gap_last);
/* The number of the first event at or after that time (CLOCK_REALTIME); newest + 1 when all are earlier. Where the clock went
 * back, of one whose predecessor is earlier. 0 or JOURNAL_E_LATER. */
int journal_seek(struct journal *journal, uint64_t time_ns, uint64_t *ret);
