/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A journal with its loop and its threads in a folder of its own. The log goes to a file, so that a test sees what was said and how
 * often. */

#include "unit/journal/place.h"
#include <sys/mount.h>
#include "journal/journal.h"
#include "util/dispatch.h"
#include "util/log.h"

#define SEGMENT 64u

struct world {
	struct place place;
	struct dispatch dispatch;
	struct journal *journal;
	struct journal_config config;
	int n_readable;
	char log[96];
};

static inline void world_readable(void *context)
{
	struct world *world = context;

	world->n_readable++;
}

static inline int setup(void **state)
{
	struct world *world = calloc(1, sizeof(*world));

	place_setup(&world->place);
	snprintf(world->log, sizeof(world->log), "%s.log", world->place.path);
	log_set_fd(open(world->log, O_RDWR | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600));
	assert_int_equal(dispatch_init(&world->dispatch), 0);
	world->config = (struct journal_config){ .folder = world->place.path, .sync = JOURNAL_SYNC_INTERVAL,
						 .sync_interval_ns = 1000000, .segment_events = SEGMENT, .retry_ns = 20000000,
						 .readable = world_readable, .context = world };
	*state = world;
	return 0;
}

static inline int teardown(void **state)
{
	struct world *world = *state;

	fault_countdown = 0;
	fault_stays = false;
	journal_free(world->journal);
	faults_end();
	umount2(world->place.path, MNT_DETACH);
	dispatch_deinit(&world->dispatch);
	close(log_set_fd(STDERR_FILENO));
	unlink(world->log);
	place_teardown(&world->place);
	free(world);
	return 0;
}

static inline int setup_faults(void **state)
{
	faults_begin();
	return setup(state);
}

static inline int setup_without(void **state)
{
	fault_real = segment_io;
	return setup(state);
}

static inline unsigned int said(const struct world *world, const char *what)
{
	char *text = calloc(1, 1 << 16);
	int fd = open(world->log, O_RDONLY);
	unsigned int n = 0;

	assert_true(read(fd, text, (1 << 16) - 1) >= 0);
	for (const char *p = text; (p = strstr(p, what)); p++)
		n++;
	close(fd);
	free(text);
	return n;
}

static inline int start(struct world *world, uint32_t n_memory)
{
	assert_int_equal(journal_new(&world->journal, n_memory), 0);
	return journal_open(world->journal, &world->dispatch, &world->config);
}

static inline void stop(struct world *world)
{
	world->journal = journal_free(world->journal);
}

static inline void turn(struct world *world)
{
	assert_int_equal(dispatch_turn(&world->dispatch, 20000), 0);
}

static inline bool all_is_written(struct world *world)
{
	return journal_newest_on_disk(world->journal) == journal_newest(world->journal);
}

static inline void append(struct world *world, uint64_t first, uint64_t last)
{
	for (uint64_t s = first; s <= last; s++) {
		struct tier_event event = place_event(s);

		journal_append(world->journal, &event);
	}
}

/* No faster than the disk: memory is small in most tests, so that the disk is what is read. */
static inline void append_slowly(struct world *world, uint64_t first, uint64_t last)
{
	for (uint64_t s = first; s <= last; s++) {
		append(world, s, s);
		while (s % 4 == 0 && !all_is_written(world))
			turn(world);
	}
	while (!all_is_written(world))
		turn(world);
}

/* Reads from a number on until it is at hand: how many events came; *ret_last is the end of a gap, if that is what there is. */
static inline uint32_t read_at(struct world *world, uint64_t from, struct tier_event *events, uint32_t n_max, uint64_t *ret_last)
{
	uint32_t n;
	int r;

	while ((r = journal_read(world->journal, from, events, n_max, &n, ret_last)) == JOURNAL_E_LATER)
		turn(world);
	if (!r)
		*ret_last = 0;
	return r ? 0 : n;
}

/* first … last are there, every one as it was. */
static inline void reads(struct world *world, uint64_t first, uint64_t last)
{
	struct tier_event events[100], expected;
	uint64_t gap_last;

	while (first <= last) {
		uint32_t n = read_at(world, first, events, 100, &gap_last);

		if (!n)
			fail_msg("event %lu is not there: a gap up to %lu", (unsigned long)first, (unsigned long)gap_last);
		for (uint32_t i = 0; i < n; i++, first++) {
			expected = place_event(first);
			assert_memory_equal(&events[i], &expected, sizeof(expected));
		}
	}
}

static inline void gap(struct world *world, uint64_t first, uint64_t last)
{
	struct tier_event event;
	uint64_t gap_last;

	assert_int_equal(read_at(world, first, &event, 1, &gap_last), 0);
	assert_int_equal(gap_last, last);
}
