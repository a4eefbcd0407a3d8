/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "journal/record.h"
#include "journal/segment.h"
#include "journal/segment_z.h"
#include "util/base.h"
#include "util/error.h"

#define RECORD sizeof(struct tier_event)
#define SCAN_RECORDS 1024u	/* read at a time */

/* -- The system --- */
static int io_open(int dir, const char *name, int flags) { return openat(dir, name, flags | O_CLOEXEC, 0600); }
static int io_rename(int dir, const char *from, const char *to) { return renameat(dir, from, dir, to); }
static int io_unlink(int dir, const char *name) { return unlinkat(dir, name, 0); }

struct segment_io segment_io = {
	.open = io_open, .write = pwrite, .truncate = ftruncate, .sync = fsync, .rename = io_rename, .unlink = io_unlink,
};

int segment_write(int fd, const void *p, size_t n, uint64_t at, size_t *ret_n)
{
	ssize_t r;

	for (*ret_n = 0; *ret_n < n; *ret_n += r) {
		r = segment_io.write(fd, (const char *)p + *ret_n, n - *ret_n, at + *ret_n);
		if (r < 0 && errno == EINTR)
			r = 0;
		else if (r <= 0)
			return r ? -errno : -ENOSPC;
	}
	return 0;
}

/* How many bytes there were: less than @n at the end of the file only. Or -errno. */
static ssize_t read_at(int fd, void *p, size_t n, uint64_t at)
{
	size_t done = 0;

	while (done < n) {
		ssize_t r = pread(fd, (char *)p + done, n - done, at + done);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return -errno;
		if (!r)
			break;
		done += r;
	}
	return done;
}

/* -- Headers --- */
struct tier_segment_header segment_header(const struct segment *segment)
{
	struct tier_segment_header header = {
		.magic = TIER_SEGMENT_MAGIC, .version = TIER_SEGMENT_VERSION,
		.coding = segment->is_deflated ? TIER_SEGMENT_DEFLATED : TIER_SEGMENT_RAW,
		.first = segment->first, .time_ns = segment->time_ns, .gap_first = segment->gap_first,
		.last = segment->is_deflated ? segment->last : 0, .last_ns = segment->is_deflated ? segment->last_ns : 0,
	};

	header.crc = record_crc(&header);
	return header;
}

static struct segment segment_of(const struct tier_segment_header *header, uint64_t n_bytes)
{
	const bool is_deflated = header->coding == TIER_SEGMENT_DEFLATED;

	return (struct segment){ .first = header->first, .last = is_deflated ? header->last : header->first - 1, .time_ns = header->time_ns,
				 .last_ns = is_deflated ? header->last_ns : header->time_ns, .gap_first = header->gap_first,
				 .n_bytes = n_bytes, .is_deflated = is_deflated };
}

static const char *suffix_of(bool is_deflated)
{
	return is_deflated ? TIER_SEGMENT_DEFLATED_SUFFIX : TIER_SEGMENT_RAW_SUFFIX;
}

int segment_open(int dir, uint64_t first, bool is_deflated)
{
	char name[TIER_SEGMENT_NAME_MAX];
	int fd;

	tier_segment_name(name, first, suffix_of(is_deflated));
	fd = segment_io.open(dir, name, O_RDONLY);
	return fd < 0 ? -errno : fd;
}

static int header_read(int fd, uint64_t first, bool is_deflated, struct tier_segment_header *ret, const char **ret_why)
{
	ssize_t n = read_at(fd, ret, sizeof(*ret), 0);

	if (n < 0)
		return n;
	*ret_why = n < (ssize_t)sizeof(*ret) ? "too short for a header"
		   : ret->crc != record_crc(ret)
			   ? "the header's checksum is wrong"
			   : tier_segment_wrong(ret, first, is_deflated ? TIER_SEGMENT_DEFLATED : TIER_SEGMENT_RAW);
	return *ret_why ? SEGMENT_E_DAMAGED : 0;
}

/* -- Checking --- */
static const char *record_wrong(const struct tier_event *event, uint64_t sequence)
{
	return !record_is_sound(event) ? "the checksum is wrong" : event->sequence != sequence ? "the number is not the next" : NULL;
}

/* The sound prefix of a raw segment. */
static int scan(int fd, struct segment *segment, struct segment_damage *damage)
{
	_cleanup_(freep) struct tier_event *events = malloc(SCAN_RECORDS * RECORD);
	ssize_t n = SCAN_RECORDS * RECORD;

	if (!events)
		return -ENOMEM;
	for (uint64_t at = RECORD; n == SCAN_RECORDS * RECORD; at += n) {
		n = read_at(fd, events, SCAN_RECORDS * RECORD, at);
		if (n < 0)
			return n;
		for (ssize_t i = 0; i * (ssize_t)RECORD < n; i++) {
			const bool is_cut = (i + 1) * (ssize_t)RECORD > n;

			damage->why = is_cut ? "it is cut" : record_wrong(&events[i], segment->last + 1);
			damage->offset = at + i * RECORD;
			damage->sequence = segment->last + 1;
			if (damage->why)
				return 0;
			if (++segment->last == segment->first)
				segment->time_ns = events[i].time_ns;
			segment->last_ns = events[i].time_ns;
		}
	}
	return 0;
}

int segment_inspect(int fd, uint64_t first, bool is_deflated, struct segment *ret, struct segment_damage *damage)
{
	struct tier_segment_header header;
	struct stat status;
	const char *why = NULL;
	int r;

	if (fstat(fd, &status) < 0)
		return error_origin(-errno);
	*damage = (struct segment_damage){ .sequence = first, .last = first - 1 };
	if (status.st_size > (off_t)RECORD && !is_deflated)
		damage->last += MIN((status.st_size - 1) / RECORD, TIER_SEGMENT_EVENTS_MAX);
	*ret = (struct segment){ .first = first, .last = first - 1, .gap_first = first, .n_bytes = status.st_size,
				 .is_deflated = is_deflated };
	r = header_read(fd, first, is_deflated, &header, &why);
	if (r < 0 || (r && is_deflated)) {
		damage->why = why;
		return r;
	}
	if (!r)
		*ret = segment_of(&header, status.st_size);
	if (!is_deflated) {
		int s = scan(fd, ret, damage);

		if (s < 0)
			return s;
	}
	if (r && !damage->why)
		*damage = (struct segment_damage){ .sequence = first, .last = damage->last, .why = why };
	return r;
}

/* -- Reading --- */
int segment_read(int fd, const struct segment *segment, struct tier_event *events, uint64_t *ret_n_bad)
{
	const size_t size = segment_n(segment) * RECORD;
	ssize_t n;

	n = segment->is_deflated ? segment_inflate(fd, RECORD, events, size) : read_at(fd, events, size, RECORD);
	if (n < 0)
		return n;
	memset((char *)events + n, 0, size - n);
	*ret_n_bad = 0;
	for (uint64_t i = 0; i < segment_n(segment); i++)
		if (record_wrong(&events[i], segment->first + i)) {
			events[i].sequence = 0;
			++*ret_n_bad;
		}
	return 0;
}

/* -- Changing --- */
int segment_mark_gap(int dir, struct segment *segment, uint64_t gap_first)
{
	char name[TIER_SEGMENT_NAME_MAX];
	_cleanup_(closep) int fd = -1;
	struct tier_segment_header header;
	size_t n;
	int r;

	tier_segment_name(name, segment->first, suffix_of(segment->is_deflated));
	fd = segment_io.open(dir, name, O_WRONLY);
	if (fd < 0)
		return error_origin(-errno);
	segment->gap_first = gap_first;
	header = segment_header(segment);
	r = segment_write(fd, &header, sizeof(header), 0, &n);
	return r ? error_origin(r) : segment_io.sync(fd) < 0 ? error_origin(-errno) : 0;
}

int segment_remove(int dir, const struct segment *segment)
{
	char name[TIER_SEGMENT_NAME_MAX];

	tier_segment_name(name, segment->first, suffix_of(segment->is_deflated));
	return segment_io.unlink(dir, name) < 0 && errno != ENOENT ? error_origin(-errno) : 0;
}

int segment_sync(int dir, const struct segment *segment)
{
	char name[TIER_SEGMENT_NAME_MAX];
	_cleanup_(closep) int fd = -1;

	tier_segment_name(name, segment->first, suffix_of(segment->is_deflated));
	fd = segment_io.open(dir, name, O_WRONLY);
	if (fd < 0 || segment_io.sync(fd) < 0 || segment_io.sync(dir) < 0)
		return error_origin(-errno);
	return 0;
}

/* -- Deflating --- */
static int deflate_into(int fd, const struct segment *segment, const struct tier_event *events, uint64_t *ret_n_bytes)
{
	_cleanup_(freep) void *bytes = NULL;
	const struct tier_segment_header header = segment_header(segment);
	size_t n_bytes, n;
	int r;

	r = segment_deflate_bytes(events, segment_n(segment) * RECORD, &bytes, &n_bytes);
	if (!r)
		r = segment_write(fd, &header, sizeof(header), 0, &n);
	if (!r)
		r = segment_write(fd, bytes, n_bytes, sizeof(header), &n);
	if (!r && segment_io.sync(fd) < 0)
		r = -errno;
	*ret_n_bytes = sizeof(header) + n_bytes;
	return r;
}

/* The new file, complete under its preliminary name */
static int deflate_write(int dir, struct segment *segment, const struct tier_event *events, const char *name)
{
	_cleanup_(closep) int fd = segment_io.open(dir, name, O_WRONLY | O_CREAT | O_TRUNC);
	int r;

	if (fd < 0)
		return -errno;
	r = deflate_into(fd, segment, events, &segment->n_bytes);
	if (r)
		segment_io.unlink(dir, name);
	return r;
}

static int deflate_read(int dir, const struct segment *segment, struct tier_event *events)
{
	_cleanup_(closep) int fd = segment_open(dir, segment->first, false);
	uint64_t n_bad;

	if (fd < 0)
		return fd;
	return segment_read(fd, segment, events, &n_bad);	/* what is bad stays bad */
}

int segment_deflate(int dir, struct segment *segment)
{
	_cleanup_(freep) struct tier_event *events = malloc(segment_n(segment) * RECORD);
	char preliminary[TIER_SEGMENT_NAME_MAX], deflated[TIER_SEGMENT_NAME_MAX], raw[TIER_SEGMENT_NAME_MAX];
	struct segment becoming = *segment;
	int r;

	if (!events)
		return error_origin(-ENOMEM);
	becoming.is_deflated = true;
	tier_segment_name(preliminary, segment->first, TIER_SEGMENT_NEW_SUFFIX);
	tier_segment_name(deflated, segment->first, TIER_SEGMENT_DEFLATED_SUFFIX);
	tier_segment_name(raw, segment->first, TIER_SEGMENT_RAW_SUFFIX);
	r = deflate_read(dir, segment, events);
	if (!r)
		r = deflate_write(dir, &becoming, events, preliminary);
	if (r)
		return error_origin(r);
	if (segment_io.rename(dir, preliminary, deflated) < 0 || segment_io.sync(dir) < 0) {
		r = -errno;
		segment_io.unlink(dir, preliminary);
		return error_origin(r);
	}
	*segment = becoming;
	segment_io.unlink(dir, raw);	/* should it stay, the next start removes it */
	return 0;
}
