/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include "journal/folder.h"
#include "journal/record.h"
#include "util/base.h"
#include "util/error.h"
#include "util/log.h"

/* What a start finds: names in any order. They are sorted by number; of a number there may be the raw segment, the deflated one,
 * and the deflated one's beginnings. */
struct find {
	uint64_t first;
	bool has_raw, has_deflated, has_new;
};
struct finds {
	struct find *finds;
	size_t n, n_max;
};

/* -- Opening --- */
/* A folder that is made is one after a loss of power, too. */
static int make_synced(const char *path, mode_t mode)
{
	_cleanup_(closep) int fd = -1;
	char above[PATH_MAX + 4];

	if (mkdir(path, mode) < 0)
		return -1;
	snprintf(above, sizeof(above), "%s/..", path);
	fd = open(above, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd >= 0)
		segment_io.sync(fd);	/* as far as we may: it is not ours */
	return 0;
}

static int make_folder(const char *path)
{
	char parent[PATH_MAX];
	char *slash;

	if (!make_synced(path, 0700) || errno == EEXIST)
		return 0;
	if (errno != ENOENT || (size_t)snprintf(parent, sizeof(parent), "%s", path) >= sizeof(parent))
		return -errno;
	slash = strrchr(parent, '/');
	if (!slash || slash == parent)
		return -ENOENT;
	*slash = '\0';
	if (make_synced(parent, 0755) && errno != EEXIST)
		return -errno;
	return make_synced(path, 0700) ? -errno : 0;
}

/* Another boot means that what was not synced may be lost. Where the kernel does not say, every start is another boot. */
static void read_boot(unsigned char boot[static 16])
{
	_cleanup_(closep) int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	char text[40] = "";
	unsigned int n = 0;

	memset(boot, 0, 16);
	if (fd < 0 || read(fd, text, sizeof(text) - 1) < 0)
		return;
	for (const char *p = text; *p && n < 16; p++)
		if (*p != '-' && p[1] && sscanf(p++, "%2hhx", &boot[n]) == 1)
			n++;
}

int folder_open(struct folder *folder, const char *path)
{
	int r;

	*folder = (struct folder){ .path = path, .fd = -1 };
	r = make_folder(path);
	if (r)
		return r;
	folder->fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (folder->fd < 0)
		return -errno;
	if (faccessat(folder->fd, ".", W_OK, AT_EACCESS) < 0 || flock(folder->fd, LOCK_EX | LOCK_NB) < 0) {
		r = errno == EWOULDBLOCK ? -EBUSY : -errno;
		folder_close(folder);
		return r;
	}
	read_boot(folder->boot);
	return 0;
}

void folder_close(struct folder *folder)
{
	folder->fd = close_fd(folder->fd);
}

static bool is_removed(const struct folder *folder)
{
	struct stat held, named;

	return fstat(folder->fd, &held) < 0 || !held.st_nlink || stat(folder->path, &named) < 0 || named.st_dev != held.st_dev
	       || named.st_ino != held.st_ino;
}

int folder_remake(const struct folder *folder)
{
	struct folder again;
	int r;

	if (!is_removed(folder))
		return 0;
	r = folder_open(&again, folder->path);
	if (r)
		return r;
	if (dup3(again.fd, folder->fd, O_CLOEXEC) < 0)	/* the other threads' next call finds the new one */
		r = -errno;
	folder_close(&again);
	return r;
}

/* -- Names --- */
static int finds_add(struct finds *finds, const char *name)
{
	const char *suffix;
	const uint64_t first = tier_segment_parse(name, &suffix);
	struct find *more;

	if (!first)
		return 0;
	if (finds->n == finds->n_max) {
		finds->n_max = MAX(2 * finds->n_max, 64u);
		more = reallocarray(finds->finds, finds->n_max, sizeof(*more));
		if (!more)
			return -ENOMEM;
		finds->finds = more;
	}
	finds->finds[finds->n++] = (struct find){
		.first = first,
		.has_raw = !strcmp(suffix, TIER_SEGMENT_RAW_SUFFIX),
		.has_deflated = !strcmp(suffix, TIER_SEGMENT_DEFLATED_SUFFIX),
		.has_new = !strcmp(suffix, TIER_SEGMENT_NEW_SUFFIX),
	};
	return 0;
}

static int by_number(const void *a, const void *b)
{
	const uint64_t left = ((const struct find *)a)->first, right = ((const struct find *)b)->first;

	return left < right ? -1 : left > right;
}

/* Sorted, a find for each number */
static void finds_merge(struct finds *finds)
{
	size_t n = 0;

	if (!finds->n)
		return;
	qsort(finds->finds, finds->n, sizeof(finds->finds[0]), by_number);
	for (size_t i = 0; i < finds->n; i++) {
		struct find *find = &finds->finds[i], *last = n ? &finds->finds[n - 1] : NULL;

		if (!last || last->first != find->first) {
			finds->finds[n++] = *find;
			continue;
		}
		last->has_raw |= find->has_raw;
		last->has_deflated |= find->has_deflated;
		last->has_new |= find->has_new;
	}
	finds->n = n;
}

static int finds_read(struct finds *finds, int dir)
{
	_cleanup_(closep) int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *stream = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;
	int r = 0;

	if (!stream)
		return error_origin(-errno);
	fd = -1;	/* the stream's */
	while (!r && (errno = 0, entry = readdir(stream)))
		r = finds_add(finds, entry->d_name);
	if (!r && errno)
		r = -errno;
	closedir(stream);
	finds_merge(finds);
	return r ? error_origin(r) : 0;
}

/* -- Recovery --- */
static void say(const struct folder *folder, uint64_t first, const char *suffix, const struct segment_damage *damage, const char *what)
{
	log_line(LOG_WARNING, "journal: %s/%020" PRIu64 "%s is damaged at offset %" PRIu64 ", event %" PRIu64 ": %s; %s", folder->path, first,
		 suffix, damage->offset, damage->sequence, damage->why, what);
}

/* True: every record of it can be had. */
static bool deflated_is_whole(const struct folder *folder, uint64_t first)
{
	_cleanup_(closep) int fd = segment_open(folder->fd, first, true);
	_cleanup_(freep) struct tier_event *events = NULL;
	struct segment_damage damage;
	struct segment segment;
	uint64_t n_bad;

	if (fd < 0 || segment_inspect(fd, first, true, &segment, &damage))
		return false;
	events = malloc(segment_n(&segment) * sizeof(*events));
	return events && !segment_read(fd, &segment, events, &n_bad) && !n_bad;
}

/* A deflation that did not come to its end leaves its beginnings, or both files: then one is enough. */
static void settle(const struct folder *folder, struct find *find)
{
	char name[TIER_SEGMENT_NAME_MAX];

	if (find->has_new) {
		tier_segment_name(name, find->first, TIER_SEGMENT_NEW_SUFFIX);
		segment_io.unlink(folder->fd, name);
	}
	if (!find->has_raw || !find->has_deflated)
		return;
	find->has_raw = !deflated_is_whole(folder, find->first);
	find->has_deflated = !find->has_raw;
	tier_segment_name(name, find->first, find->has_raw ? TIER_SEGMENT_DEFLATED_SUFFIX : TIER_SEGMENT_RAW_SUFFIX);
	segment_io.unlink(folder->fd, name);
}

static int truncate_raw(const struct folder *folder, struct segment *segment)
{
	char name[TIER_SEGMENT_NAME_MAX];
	_cleanup_(closep) int fd = -1;

	tier_segment_name(name, segment->first, TIER_SEGMENT_RAW_SUFFIX);
	segment->n_bytes = (segment_n(segment) + 1) * sizeof(struct tier_event);
	fd = segment_io.open(folder->fd, name, O_WRONLY);
	if (fd < 0 || segment_io.truncate(fd, segment->n_bytes) < 0 || segment_io.sync(fd) < 0)
		return error_origin(-errno);
	return 0;
}

static int recover_raw(struct folder *folder, uint64_t first, struct segment *segment, bool *ret_is_kept)
{
	_cleanup_(closep) int fd = segment_open(folder->fd, first, false);
	struct segment_damage damage;
	int r;

	if (fd < 0)
		return error_origin(fd);
	r = segment_inspect(fd, first, false, segment, &damage);
	if (r < 0)
		return error_fold(r);
	if (!segment->n_bytes)	/* its maker died before the first write: nothing was told */
		return error_fold(segment_remove(folder->fd, segment));
	folder->used = MAX(folder->used, damage.last);
	*ret_is_kept = segment_n(segment) > 0;
	if (!damage.why && *ret_is_kept)
		return 0;
	folder->is_damaged |= damage.why != NULL;
	if (damage.why)
		say(folder, first, TIER_SEGMENT_RAW_SUFFIX, &damage, *ret_is_kept ? "what is sound before that is kept" : "removed");
	if (!*ret_is_kept)
		return error_fold(segment_remove(folder->fd, segment));
	if (r == SEGMENT_E_DAMAGED) {	/* the records say all that the header said, but for a gap, which join() finds */
		r = segment_mark_gap(folder->fd, segment, first);
		if (r)
			return error_fold(r);
	}
	return error_fold(truncate_raw(folder, segment));
}

/* A deflated one whose header is no good stays where it is, for somebody to look at: nothing that it has can be placed. */
static int recover_deflated(struct folder *folder, uint64_t first, struct segment *segment, bool *ret_is_kept)
{
	_cleanup_(closep) int fd = segment_open(folder->fd, first, true);
	struct segment_damage damage;
	int r;

	if (fd < 0)
		return error_origin(fd);
	r = segment_inspect(fd, first, true, segment, &damage);
	*ret_is_kept = !r;
	if (r > 0) {
		folder->unread = first;
		say(folder, first, TIER_SEGMENT_DEFLATED_SUFFIX, &damage, "not read");
	}
	return r < 0 ? error_fold(r) : 0;
}

/* What lies between two segments is a gap that the header of the later one names. */
static int join(const struct folder *folder, struct segment_index *index, struct segment *segment)
{
	const struct segment *before = index_newest(index);

	if (before && segment->first <= before->last) {
		log_line(LOG_WARNING, "journal: %s: the segment of event %" PRIu64 " overlaps the one before; not read", folder->path,
			 segment->first);
		return 0;
	}
	if (before && segment->gap_first != before->last + 1) {
		int r = segment_mark_gap(folder->fd, segment, before->last + 1);

		if (r)
			return error_fold(r);
	}
	if (index_reserve(index))
		return error_origin(-ENOMEM);
	index_append(index, segment);
	return 0;
}

static int recover_find(struct folder *folder, struct find *find, struct segment_index *index)
{
	bool is_kept = false;
	struct segment segment;
	int r = 0;

	settle(folder, find);
	if (find->has_deflated)
		r = recover_deflated(folder, find->first, &segment, &is_kept);
	else if (find->has_raw)
		r = recover_raw(folder, find->first, &segment, &is_kept);
	return r ? error_fold(r) : is_kept ? error_fold(join(folder, index, &segment)) : 0;
}

/* -- Numbers --- */
static bool is_this_boot(const struct folder *folder, const unsigned char boot[static 16])
{
	static const unsigned char unknown[16];

	return memcmp(boot, unknown, sizeof(unknown)) && !memcmp(boot, folder->boot, sizeof(folder->boot));
}

static void read_numbers(struct folder *folder)
{
	_cleanup_(closep) int fd = openat(folder->fd, TIER_NUMBERS_NAME, O_RDONLY | O_CLOEXEC);
	struct tier_numbers numbers;

	if (fd < 0 || pread(fd, &numbers, sizeof(numbers), 0) != sizeof(numbers) || numbers.magic != TIER_NUMBERS_MAGIC
	    || numbers.crc != record_crc(&numbers) || !numbers.bound)
		return;
	if (numbers.is_exact && !folder->is_damaged && is_this_boot(folder, numbers.boot))
		return;
	if (numbers.bound - 1 > folder->used) {
		log_line(LOG_WARNING, "journal: %s ends with event %" PRIu64 "; up to %" PRIu64 " may have been told and are lost",
			 folder->path, folder->used, numbers.bound - 1);
		folder->used = numbers.bound - 1;
	}
}

int folder_promise(const struct folder *folder, uint64_t bound, bool is_exact)
{
	_cleanup_(closep) int fd = segment_io.open(folder->fd, TIER_NUMBERS_NAME, O_WRONLY | O_CREAT);
	struct tier_numbers numbers = { .magic = TIER_NUMBERS_MAGIC, .bound = bound, .is_exact = is_exact };
	size_t n;
	int r;

	if (fd < 0)
		return -errno;
	memcpy(numbers.boot, folder->boot, sizeof(numbers.boot));
	numbers.crc = record_crc(&numbers);
	r = segment_write(fd, &numbers, sizeof(numbers), 0, &n);
	return r ? r : segment_io.sync(fd) < 0 ? -errno : 0;
}

/* Should this daemon die before it writes anything, its successor finds no torn record that says which numbers were used. */
static int keep_used(const struct folder *folder, const struct segment_index *index)
{
	const uint64_t last = index->n ? index_newest(index)->last : 0;

	return folder->used > last ? error_origin(folder_promise(folder, folder->used + 1, false)) : 0;
}

int folder_recover(struct folder *folder, struct segment_index *index, uint64_t told)
{
	struct finds finds = {};
	int r;

	r = finds_read(&finds, folder->fd);
	for (size_t i = 0; !r && i < finds.n; i++)
		r = recover_find(folder, &finds.finds[i], index);
	free(finds.finds);
	if (r)
		return error_fold(r);
	if (index->n)
		folder->used = MAX(folder->used, index_newest(index)->last);
	folder->is_damaged |= folder->unread > folder->used;	/* it was the end; behind others it is a gap like any */
	if (told && index->n && index_newest(index)->last > told)
		return FOLDER_E_STRANGE;
	if (told)
		folder->used = told;
	else
		read_numbers(folder);
	return error_fold(keep_used(folder, index));
}
