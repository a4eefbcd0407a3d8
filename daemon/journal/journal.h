/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The journal: the history of transitions, numbered without holes
 *
 * Kept in memory: the newest events up to a bound. What retention removed is a gap with known numbers. Readers are
 * cursors: the journal knows nothing of them. One thread. */

#include <stdint.h>
#include "tier/events.h"

struct journal;

enum {
	_JOURNAL_E_SUCCESS,
	JOURNAL_E_GAP,		/* the numbers asked for are no longer kept */
};

/* Keeps at most @n_max events (at least 1). 0 or -ENOMEM. */
int journal_new(struct journal **ret, uint32_t n_max);
struct journal *journal_free(struct journal *journal);

/* @event->sequence must follow the newest number (the first one may be any); asserts it. Fills the crc. Never fails:
 * memory was taken at the start. */
void journal_append(struct journal *journal, const struct tier_event *event);

uint64_t journal_newest(const struct journal *journal);	/* 0: empty */
uint64_t journal_oldest(const struct journal *journal);	/* first number kept; newest + 1 when empty */

/* Copies up to @n_max events from number @from on; *ret_n may be 0 (nothing newer yet). JOURNAL_E_GAP when @from is below
 * the oldest: nothing is copied, the gap is @from..journal_oldest() - 1. */
int journal_read(const struct journal *journal, uint64_t from, struct tier_event *events, uint32_t n_max, uint32_t *ret_n);
