/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What tests of the journal on disk share: a folder of their own, events by number, faults by order */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "journal/folder.h"
#include "journal/record.h"
#include "journal/writer.h"
#include "util/base.h"

struct place {
	char path[64];
	struct folder folder;
	struct segment_index index;
};

#define PLACE_TIME_NS UINT64_C(1700000000000000000)

static inline struct tier_event place_event(uint64_t sequence)
{
	struct tier_event event = {
		.sequence = sequence, .time_ns = PLACE_TIME_NS + sequence * 1000, .module = sequence % 7 + 1, .version = sequence / 3,
		.method = sequence % 13, .kind = TIER_EVENT_PUBLISHED, .from = TIER_LEVEL_TIER0, .to = TIER_LEVEL_TIER1,
	};

	event.crc = record_crc(&event);
	return event;
}

static inline void place_setup(struct place *place)
{
	*place = (struct place){ .folder = FOLDER_NULL };
	snprintf(place->path, sizeof(place->path), "%.32s/tierd-journal-XXXXXX", getenv("TMPDIR") ?: "/tmp");
	assert_non_null(mkdtemp(place->path));
}

static inline void place_close(struct place *place)
{
	folder_close(&place->folder);
	index_deinit(&place->index);
}

static inline int place_open(struct place *place)
{
	int r;

	place_close(place);
	r = folder_open(&place->folder, place->path);
	return r ? r : folder_recover(&place->folder, &place->index, 0);
}

static inline void place_teardown(struct place *place)
{
	char command[128];

	place_close(place);
	snprintf(command, sizeof(command), "rm -rf '%s'", place->path);
	assert_int_equal(system(command), 0);
}

/* The path of a file in the folder; static buffer */
static inline const char *place_file(const struct place *place, uint64_t first, const char *suffix)
{
	static char path[128];
	char name[TIER_SEGMENT_NAME_MAX];

	tier_segment_name(name, first, suffix);
	snprintf(path, sizeof(path), "%s/%s", place->path, name);
	return path;
}

static inline bool place_has(const struct place *place, uint64_t first, const char *suffix)
{
	return !access(place_file(place, first, suffix), F_OK);
}

/* A raw segment of the events first … last, as the writer makes it */
static inline void place_write(const struct place *place, uint64_t gap_first, uint64_t first, uint64_t last)
{
	struct segment segment = { .first = first, .last = first - 1, .time_ns = place_event(first).time_ns, .gap_first = gap_first };
	const struct tier_segment_header header = segment_header(&segment);
	int fd = open(place_file(place, first, TIER_SEGMENT_RAW_SUFFIX), O_WRONLY | O_CREAT | O_TRUNC, 0644);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, &header, sizeof(header)), sizeof(header));
	for (uint64_t s = first; s <= last; s++) {
		struct tier_event event = place_event(s);

		assert_int_equal(write(fd, &event, sizeof(event)), sizeof(event));
	}
	close(fd);
}

/* All events of a segment of the index are what they should be. */
static inline void place_check(const struct place *place, const struct segment *segment, uint64_t first, uint64_t last)
{
	struct tier_event *events = calloc(segment_n(segment) + 1, sizeof(*events));
	int fd = segment_open(place->folder.fd, segment->first, segment->is_deflated);
	uint64_t n_bad;

	assert_int_equal(segment->first, first);
	assert_int_equal(segment->last, last);
	assert_true(fd >= 0);
	assert_int_equal(segment_read(fd, segment, events, &n_bad), 0);
	assert_int_equal(n_bad, 0);
	for (uint64_t s = first; s <= last; s++) {
		struct tier_event event = place_event(s);

		assert_memory_equal(&events[s - first], &event, sizeof(event));
	}
	assert_int_equal(segment->time_ns, place_event(first).time_ns);
	assert_int_equal(segment->last_ns, place_event(last).time_ns);
	close(fd);
	free(events);
}

/* -- Faults --- */
static _Atomic unsigned int fault_countdown;	/* the call at which it happens, from 1 on; 0: never */
static _Atomic bool fault_stays;		/* it happens at every call */
static _Atomic bool fault_kills;		/* the process ends there, else the call fails with fault_errno */
static _Atomic int fault_errno;
static _Atomic size_t fault_write_max;		/* a write takes at most so many bytes; 0: all */
static struct segment_io fault_real;

static inline bool fault_comes(void)
{
	if (!fault_stays && (!fault_countdown || --fault_countdown))
		return false;
	if (fault_kills)
		_exit(77);
	errno = fault_errno;
	return true;
}

static inline int fault_open(int dir, const char *name, int flags)
{
	return (flags & O_ACCMODE) != O_RDONLY && fault_comes() ? -1 : fault_real.open(dir, name, flags);
}
static inline ssize_t fault_write(int fd, const void *p, size_t n, off_t at)
{
	if (fault_comes())
		return -1;
	return fault_real.write(fd, p, fault_write_max && n > fault_write_max ? fault_write_max : n, at);
}
static inline int fault_truncate(int fd, off_t n) { return fault_comes() ? -1 : fault_real.truncate(fd, n); }
static inline int fault_sync(int fd) { return fault_comes() ? -1 : fault_real.sync(fd); }
static inline int fault_rename(int dir, const char *from, const char *to)
{
	return fault_comes() ? -1 : fault_real.rename(dir, from, to);
}
static inline int fault_unlink(int dir, const char *name) { return fault_comes() ? -1 : fault_real.unlink(dir, name); }

static inline void faults_begin(void)
{
	fault_real = segment_io;
	segment_io = (struct segment_io){ fault_open, fault_write, fault_truncate, fault_sync, fault_rename, fault_unlink };
}
static inline void faults_end(void)
{
	segment_io = fault_real;
	fault_countdown = 0;
	fault_write_max = 0;
	fault_kills = fault_stays = false;
}
