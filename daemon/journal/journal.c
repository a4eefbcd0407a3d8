/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include "journal/disk.h"
#include "journal/journal.h"
#include "journal/record.h"
#include "util/base.h"
#include "util/error.h"

/* A ring: number s lies at s % n_max, so a reader's number needs no translation and an append forgets the oldest by
 * writing over it. */
struct journal {
	uint32_t n_max;
	uint32_t n;			/* kept now */
	uint64_t newest;		/* 0: empty */
	struct disk *disk;		/* NULL: in memory only */
	struct tier_event events[];
};

int journal_new(struct journal **ret, uint32_t n_max)
{
	struct journal *journal;

	assert(n_max > 0);
	journal = calloc(1, sizeof(*journal) + (size_t)n_max * sizeof(journal->events[0]));
	if (!journal)
		return error_origin(-ENOMEM);
	journal->n_max = n_max;
	*ret = journal;
	return 0;
}

struct journal *journal_free(struct journal *journal)
{
	if (journal)
		disk_free(journal->disk);
	free(journal);
	return NULL;
}

static uint64_t ring_oldest(const struct journal *journal)
{
	return journal->newest + 1 - journal->n;
}

static uint32_t ring_take(void *context, uint64_t from, struct tier_event *to, uint32_t n_max, uint64_t *ret_first)
{
	const struct journal *journal = context;
	uint32_t n = 0;

	from = MAX(from, ring_oldest(journal));
	*ret_first = from;
	while (n < n_max && from <= journal->newest)
		to[n++] = journal->events[from++ % journal->n_max];
	return n;
}

int journal_open(struct journal *journal, struct dispatch *dispatch, const struct journal_config *config)
{
	int r;

	assert(!journal->newest && !journal->disk);
	r = disk_open(&journal->disk, dispatch, config, ring_take, journal);
	if (r)
		return error_fold(r);
	journal->newest = disk_used(journal->disk);
	return 0;
}

void journal_append(struct journal *journal, const struct tier_event *event)
{
	struct tier_event *slot = &journal->events[event->sequence % journal->n_max];

	assert(journal->n ? event->sequence == journal->newest + 1 : event->sequence > journal_newest_on_disk(journal));
	*slot = *event;
	slot->crc = record_crc(slot);
	journal->newest = event->sequence;
	journal->n = MIN(journal->n + 1, journal->n_max);
	if (journal->disk)
		disk_appended(journal->disk, journal->newest);
}

uint64_t journal_newest(const struct journal *journal)
{
	return journal->newest;
}

uint64_t journal_newest_on_disk(const struct journal *journal)
{
	return journal->disk ? disk_newest(journal->disk) : 0;
}

uint64_t journal_oldest(const struct journal *journal)
{
	return journal->disk ? MIN(disk_oldest(journal->disk), ring_oldest(journal)) : ring_oldest(journal);
}

static int gap_up_to_memory(const struct journal *journal, uint64_t *gap_last)
{
	*gap_last = MIN(*gap_last, ring_oldest(journal) - 1);
	return JOURNAL_E_GAP;
}

int journal_read(struct journal *journal, uint64_t from, struct tier_event *events, uint32_t n_max, uint32_t *ret_n,
		 uint64_t *ret_gap_last)
{
	const uint64_t last = journal->disk ? MIN(disk_readable(journal->disk), journal->newest) : journal->newest;
	int r;

	*ret_n = 0;
	*ret_gap_last = UINT64_MAX;
	if (from > journal->newest)
		return 0;
	if (from < ring_oldest(journal)) {
		r = journal->disk ? disk_read(journal->disk, from, events, n_max, ret_n, ret_gap_last) : JOURNAL_E_GAP;
		return r == JOURNAL_E_GAP ? gap_up_to_memory(journal, ret_gap_last) : r;
	}
	if (from > last)
		return JOURNAL_E_LATER;
	while (*ret_n < n_max && from <= last)
		events[(*ret_n)++] = journal->events[from++ % journal->n_max];
	return 0;
}

/* -- By time --- */
static uint64_t ring_seek(const struct journal *journal, uint64_t time_ns)
{
	uint64_t low = ring_oldest(journal), high = journal->newest + 1;

	while (low < high) {
		const uint64_t middle = low + (high - low) / 2;

		if (journal->events[middle % journal->n_max].time_ns < time_ns)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

int journal_seek(struct journal *journal, uint64_t time_ns, uint64_t *ret)
{
	const uint64_t oldest = ring_oldest(journal);
	int r;

	*ret = ring_seek(journal, time_ns);
	if (!journal->disk || *ret > oldest)
		return 0;
	r = disk_seek(journal->disk, time_ns, ret);
	if (r == JOURNAL_E_GAP || (!r && *ret > oldest))
		*ret = oldest;	/* what the disk has of those it has in memory, too */
	return r == JOURNAL_E_LATER ? r : 0;
}
