/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include "journal/disk.h"
#include "journal/journal.h"
#include "journal/ring.h"
#include "util/base.h"
#include "util/error.h"
#include "util/log.h"

struct journal {
	struct ring ring;
	uint64_t adopted;		/* numbers up to this one were appended by a predecessor */
	struct disk *disk;		/* NULL: in memory only */
};

DEFINE_CLEANUP(struct journal *, journal_free)

/* -- Life --- */
static struct journal *journal_alloc(void)
{
	struct journal *journal = malloc(sizeof(*journal));

	if (journal)
		*journal = (struct journal){ .ring = RING_NULL };
	return journal;
}

int journal_new(struct journal **ret, uint32_t n_max)
{
	_cleanup_(journal_freep) struct journal *journal = journal_alloc();
	int r;

	if (!journal)
		return error_origin(-ENOMEM);
	r = ring_init(&journal->ring, n_max);
	if (r)
		return error_fold(r);
	*ret = TAKE_PTR(journal);
	return 0;
}

/* Into memory of another size, as much as there is room for; the predecessor's stays whole. */
static int journal_move(struct journal *journal, uint32_t n_max)
{
	struct ring from = journal->ring;
	int r;

	r = ring_init(&journal->ring, n_max);
	if (r)
		return error_fold(r);
	ring_begin(&journal->ring, ring_newest(&from) - MIN(ring_n(&from), n_max));
	for (uint64_t s = ring_newest(&journal->ring) + 1; s <= ring_newest(&from); s++)
		ring_append(&journal->ring, ring_at(&from, s));
	from.fd = -1;	/* the caller's */
	ring_deinit(&from);
	return 0;
}

int journal_adopt(struct journal **ret, uint32_t n_max, int fd)
{
	_cleanup_(journal_freep) struct journal *journal = journal_alloc();
	const char *why;
	uint64_t damage;
	int r;

	if (!journal)
		return error_origin(-ENOMEM);
	r = ring_adopt(&journal->ring, fd, &damage, &why);
	if (why)
		log_line(LOG_ERROR, "journal: a predecessor's memory is not used: %s; what no folder has of its events is lost", why);
	if (r)
		return why ? r : error_fold(r);
	if (damage)
		log_line(LOG_ERROR, "journal: a predecessor's memory is damaged at event %" PRIu64 "; what comes behind it is kept",
			 damage);
	journal->adopted = ring_newest(&journal->ring);
	if (ring_n_max(&journal->ring) != n_max) {
		r = journal_move(journal, n_max);
		if (r) {
			journal->ring.fd = -1;
			return error_fold(r);
		}
	}
	*ret = TAKE_PTR(journal);
	return 0;
}

struct journal *journal_free(struct journal *journal)
{
	if (!journal)
		return NULL;
	disk_free(journal->disk);
	ring_deinit(&journal->ring);
	free(journal);
	return NULL;
}

int journal_fd(const struct journal *journal)
{
	return journal->ring.fd;
}

static uint32_t ring_take(void *context, uint64_t from, struct tier_event *to, uint32_t n_max, uint64_t *ret_first)
{
	const struct ring *ring = &((const struct journal *)context)->ring;
	uint32_t n = 0;

	from = MAX(from, ring_first(ring));
	*ret_first = from;
	while (n < n_max && from <= ring_newest(ring))
		to[n++] = *ring_at(ring, from++);
	return n;
}

int journal_open(struct journal *journal, struct dispatch *dispatch, const struct journal_config *config)
{
	struct ring *ring = &journal->ring;
	const struct disk_source source = {
		.take = ring_take, .context = journal, .newest = ring_n(ring) ? ring_newest(ring) : 0, .told = ring_newest(ring)};
	int r;

	assert(!journal->disk);
	r = disk_open(&journal->disk, dispatch, config, &source);
	if (r)
		return error_fold(r);
	journal->adopted = MAX(journal->adopted, disk_newest(journal->disk));
	if (disk_used(journal->disk) > ring_newest(ring))	/* so it has none */
		ring_begin(ring, disk_used(journal->disk));
	return 0;
}

/* -- Appending --- */
int journal_go_on(struct journal *journal, uint64_t newest)
{
	const uint64_t known = MAX(journal_newest_on_disk(journal), ring_n(&journal->ring) ? ring_newest(&journal->ring) : 0);

	if (known > newest) {
		log_line(LOG_ERROR, "journal: it has events up to %" PRIu64 ", but the newest that was committed is %" PRIu64
			 ": they are of another history; choose another --journal", known, newest);
		return -EBADMSG;
	}
	if (ring_newest(&journal->ring) != newest)
		ring_begin(&journal->ring, newest);
	journal->adopted = 0;
	return 0;
}

void journal_append(struct journal *journal, const struct tier_event *event)
{
	struct ring *ring = &journal->ring;

	if (event->sequence <= journal->adopted)
		return;
	assert(event->sequence > journal_newest_on_disk(journal));
	if (event->sequence != ring_newest(ring) + 1) {
		/* where history begins, and when a predecessor could not store its memory: a gap */
		assert(!ring_n(ring) || journal->adopted);
		ring_begin(ring, event->sequence - 1);
	}
	ring_append(ring, event);
	if (journal->disk)
		disk_appended(journal->disk, event->sequence);
}

uint64_t journal_newest(const struct journal *journal)
{
	return ring_newest(&journal->ring);
}

uint64_t journal_newest_on_disk(const struct journal *journal)
{
	return journal->disk ? disk_newest(journal->disk) : 0;
}

/* -- Reading --- */
uint64_t journal_oldest(const struct journal *journal)
{
	const uint64_t first = ring_first(&journal->ring);

	return journal->disk ? MIN(disk_oldest(journal->disk), first) : first;
}

static int gap_up_to_memory(const struct journal *journal, uint64_t *gap_last)
{
	*gap_last = MIN(*gap_last, ring_first(&journal->ring) - 1);
	return JOURNAL_E_GAP;
}

int journal_read(struct journal *journal, uint64_t from, struct tier_event *events, uint32_t n_max, uint32_t *ret_n,
		 uint64_t *ret_gap_last)
{
	const struct ring *ring = &journal->ring;
	const uint64_t last = journal->disk ? MIN(disk_readable(journal->disk), ring_newest(ring)) : ring_newest(ring);
	int r;

	*ret_n = 0;
	*ret_gap_last = UINT64_MAX;
	if (from > ring_newest(ring))
		return 0;
	if (from < ring_first(ring)) {
		r = journal->disk ? disk_read(journal->disk, from, events, n_max, ret_n, ret_gap_last) : JOURNAL_E_GAP;
		return r == JOURNAL_E_GAP ? gap_up_to_memory(journal, ret_gap_last) : r;
	}
	if (from > last)
		return JOURNAL_E_LATER;
	while (*ret_n < n_max && from <= last)
		events[(*ret_n)++] = *ring_at(ring, from++);
	return 0;
}

/* -- By time --- */
static uint64_t ring_seek(const struct ring *ring, uint64_t time_ns)
{
	uint64_t low = ring_first(ring), high = ring_newest(ring) + 1;

	while (low < high) {
		const uint64_t middle = low + (high - low) / 2;

		if (ring_at(ring, middle)->time_ns < time_ns)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

int journal_seek(struct journal *journal, uint64_t time_ns, uint64_t *ret)
{
	const uint64_t oldest = ring_first(&journal->ring);
	int r;

	*ret = ring_seek(&journal->ring, time_ns);
	if (!journal->disk || *ret > oldest)
		return 0;
	r = disk_seek(journal->disk, time_ns, ret);
	if (r == JOURNAL_E_GAP || (!r && *ret > oldest))
		*ret = oldest;	/* what the disk has of those it has in memory, too */
	return r == JOURNAL_E_LATER ? r : 0;
}
