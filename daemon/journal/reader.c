/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include "journal/reader.h"
#include "util/base.h"

static void slot_clear(struct reader_slot *slot)
{
	free(slot->events);
	*slot = (struct reader_slot){};
}

void reader_deinit(struct reader *reader)
{
	for (unsigned int i = 0; i < READER_SLOTS; i++)
		slot_clear(&reader->slots[i]);
	slot_clear(&reader->fetched);
}

const struct tier_event *reader_find(struct reader *reader, const struct segment *segment, uint64_t sequence, uint64_t *ret_n)
{
	for (unsigned int i = 0; i < READER_SLOTS; i++) {
		struct reader_slot *slot = &reader->slots[i];

		if (slot->segment.first != segment->first || sequence > slot->segment.last)
			continue;
		slot->used = ++reader->clock;
		*ret_n = slot->segment.last + 1 - sequence;
		return &slot->events[sequence - segment->first];
	}
	return NULL;
}

void reader_prepare(struct reader *reader, const struct segment *segment)
{
	reader->fetched = (struct reader_slot){ .segment = *segment };
}

static int fetch(struct reader *reader)
{
	struct reader_slot *slot = &reader->fetched;
	_cleanup_(closep) int fd = -1;

	reader->n_bad = segment_n(&slot->segment);
	slot->events = calloc(reader->n_bad, sizeof(slot->events[0]));
	if (!slot->events)
		return -ENOMEM;
	fd = segment_open(reader->folder->fd, slot->segment.first, slot->segment.is_deflated);
	if (fd == -ENOENT && !slot->segment.is_deflated) {	/* deflated meanwhile */
		slot->segment.is_deflated = true;
		fd = segment_open(reader->folder->fd, slot->segment.first, true);
	}
	return fd < 0 ? fd : segment_read(fd, &slot->segment, slot->events, &reader->n_bad);
}

void reader_run(struct reader *reader)
{
	reader->r = fetch(reader);
}

/* An older copy of the same segment, an empty slot, or the one that served longest ago */
static struct reader_slot *slot_to_fill(struct reader *reader)
{
	struct reader_slot *best = &reader->slots[0];

	for (unsigned int i = 0; i < READER_SLOTS; i++) {
		if (reader->slots[i].segment.first == reader->fetched.segment.first)
			return &reader->slots[i];
		if (reader->slots[i].used < best->used)
			best = &reader->slots[i];
	}
	return best;
}

void reader_settle(struct reader *reader)
{
	struct reader_slot *slot = slot_to_fill(reader);

	slot_clear(slot);
	if (reader->fetched.events)
		*slot = reader->fetched;
	reader->fetched = (struct reader_slot){};
	slot->used = reader->r ? 0 : ++reader->clock;	/* what failed is tried again soon */
}
