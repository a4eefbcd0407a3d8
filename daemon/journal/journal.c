/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include "journal/journal.h"
#include "journal/record.h"
#include "util/base.h"
#include "util/error.h"
#include "util/log.h"

/* A ring: number s lies at s % n_max, so a reader's number needs no translation and an append forgets the oldest by
 * writing over it. */
struct journal {
	uint32_t n_max;
	uint32_t n;			/* kept now */
	uint64_t newest;		/* 0: empty */
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
	free(journal);
	return NULL;
}

void journal_append(struct journal *journal, const struct tier_event *event)
{
	struct tier_event *slot = &journal->events[event->sequence % journal->n_max];

	assert(event->sequence && (!journal->newest || event->sequence == journal->newest + 1));
	if (journal->n == journal->n_max && slot->sequence == 1)
		log_event(LOG_JOURNAL, LOG_INFO100, "the first event is forgotten: %u are kept", journal->n_max);
	log_event(LOG_JOURNAL, LOG_INFO1000, "event %llu: %s, module %llu, method %u, version %llu",
		  (unsigned long long)event->sequence, tier_event_name(event->kind), (unsigned long long)event->module,
		  event->method, (unsigned long long)event->version);
	*slot = *event;
	slot->crc = record_crc(slot);
	journal->newest = event->sequence;
	journal->n = MIN(journal->n + 1, journal->n_max);
}

uint64_t journal_newest(const struct journal *journal)
{
	return journal->newest;
}

uint64_t journal_oldest(const struct journal *journal)
{
	return journal->newest + 1 - journal->n;
}

int journal_read(const struct journal *journal, uint64_t from, struct tier_event *events, uint32_t n_max, uint32_t *ret_n)
{
	uint32_t n = 0;

	if (from < journal_oldest(journal))
		return JOURNAL_E_GAP;
	while (n < n_max && from <= journal->newest)
		events[n++] = journal->events[from++ % journal->n_max];
	*ret_n = n;
	return 0;
}
