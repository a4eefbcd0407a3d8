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
#include <time.h>
#include <unistd.h>
#include "cache/store.h"
#include "util/base.h"
#include "util/error.h"

#define NAME_MAX_ 64

/* What is known of a file: enough to find who must go */
struct row {
	struct entry_name name;
	uint64_t size, used_ns;
	uint32_t uid;
};

struct cache {
	int fd;
	uint64_t n_bytes_max;
	struct row *rows;	/* in no order */
	uint32_t n_rows, n_max;
	struct cache_figures figures;	/* written by the one thread, read by any */
};

DEFINE_CLEANUP(struct cache *, cache_close)

static void figures_set(struct cache *cache, uint64_t n_bytes)
{
	__atomic_store_n(&cache->figures.n_bytes, n_bytes, __ATOMIC_RELAXED);
	__atomic_store_n(&cache->figures.n_entries, cache->n_rows, __ATOMIC_RELAXED);
}

void cache_figures(const struct cache *cache, struct cache_figures *ret)
{
	ret->n_entries = __atomic_load_n(&cache->figures.n_entries, __ATOMIC_RELAXED);
	ret->n_bytes = __atomic_load_n(&cache->figures.n_bytes, __ATOMIC_RELAXED);
	ret->n_dropped = __atomic_load_n(&cache->figures.n_dropped, __ATOMIC_RELAXED);
}

/* -- Names --- */
static const char *name_text(char *text, const char *prefix, uint32_t uid, const struct entry_name *name)
{
	snprintf(text, NAME_MAX_, "%s%" PRIu32 "-%016" PRIx64 "%016" PRIx64, prefix, uid, name->hash[0], name->hash[1]);
	return text;
}

/* Only what name_text() writes */
static bool name_parse(const char *text, struct row *ret)
{
	char again[NAME_MAX_];
	int end = 0;

	if (sscanf(text, "%" SCNu32 "-%16" SCNx64 "%16" SCNx64 "%n", &ret->uid, &ret->name.hash[0], &ret->name.hash[1], &end) != 3)
		return false;
	return !text[end] && !strcmp(name_text(again, "", ret->uid, &ret->name), text);
}

/* -- Rows --- */
static int64_t row_find(const struct cache *cache, uint32_t uid, const struct entry_name *name)
{
	for (uint32_t i = 0; i < cache->n_rows; i++)
		if (cache->rows[i].uid == uid && !memcmp(&cache->rows[i].name, name, sizeof(*name)))
			return i;
	return -1;
}

static int row_add(struct cache *cache, const struct row *row)
{
	if (cache->n_rows == cache->n_max) {
		uint32_t n_max = MAX(2 * cache->n_max, 64u);
		struct row *rows = reallocarray(cache->rows, n_max, sizeof(*rows));

		if (!rows)
			return error_origin(-ENOMEM);
		cache->rows = rows;
		cache->n_max = n_max;
	}
	cache->rows[cache->n_rows++] = *row;
	figures_set(cache, cache->figures.n_bytes + row->size);
	return 0;
}

static void row_remove(struct cache *cache, uint32_t index)
{
	const uint64_t size = cache->rows[index].size;

	cache->rows[index] = cache->rows[--cache->n_rows];
	figures_set(cache, cache->figures.n_bytes - size);
}

/* -- Room --- */
static void entry_remove(struct cache *cache, uint32_t index)
{
	char text[NAME_MAX_];

	unlinkat(cache->fd, name_text(text, "", cache->rows[index].uid, &cache->rows[index].name), 0);
	row_remove(cache, index);
}

/* One user's rows, the oldest first */
struct share {
	uint32_t next, end;
	uint64_t n_bytes;
};

static int compare_rows(const void *a, const void *b)
{
	const struct row *x = a, *y = b;

	if (x->uid != y->uid)
		return x->uid < y->uid ? -1 : 1;
	return (x->used_ns > y->used_ns) - (x->used_ns < y->used_ns);
}

/* Of sorted rows */
static uint32_t shares_of(const struct cache *cache, struct share *shares)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < cache->n_rows; i++) {
		if (!i || cache->rows[i].uid != cache->rows[i - 1].uid)
			shares[n++] = (struct share){ .next = i };
		shares[n - 1].end = i + 1;
		shares[n - 1].n_bytes += cache->rows[i].size;
	}
	return n;
}

static struct share *largest_of(struct share *shares, uint32_t n)
{
	struct share *largest = shares;

	for (uint32_t i = 1; i < n; i++)
		if (shares[i].n_bytes > largest->n_bytes)
			largest = &shares[i];
	return largest;
}

/* What every share has given up, in one pass: rows before its next one */
static void forget_before(struct cache *cache, const struct share *shares, uint32_t n)
{
	uint32_t n_left = 0;
	uint64_t n_bytes = 0;

	for (uint32_t i = 0; i < n; i++)
		for (uint32_t k = shares[i].next; k < shares[i].end; k++) {
			n_bytes += cache->rows[k].size;
			cache->rows[n_left++] = cache->rows[k];
		}
	cache->n_rows = n_left;
	figures_set(cache, n_bytes);
}

/* Until @n more bytes have room, of at most n_bytes_max. Sorted once: a daemon that starts with a smaller cache than its
 * predecessor had may have to give up a hundred thousand. 0 or -ENOMEM */
static int make_room(struct cache *cache, uint64_t n)
{
	_cleanup_(freep) struct share *shares = NULL;
	uint64_t n_bytes = cache->figures.n_bytes;
	char text[NAME_MAX_];
	uint32_t n_shares;

	if (n_bytes + n <= cache->n_bytes_max)
		return 0;
	shares = calloc(cache->n_rows, sizeof(*shares));
	if (!shares)
		return error_origin(-ENOMEM);
	qsort(cache->rows, cache->n_rows, sizeof(*cache->rows), compare_rows);
	n_shares = shares_of(cache, shares);
	while (n_bytes + n > cache->n_bytes_max) {
		struct share *share = largest_of(shares, n_shares);
		const struct row *row = &cache->rows[share->next++];

		unlinkat(cache->fd, name_text(text, "", row->uid, &row->name), 0);
		share->n_bytes -= row->size;
		n_bytes -= row->size;
	}
	forget_before(cache, shares, n_shares);
	return 0;
}

/* -- The folder --- */
/* "a/b/c": a and a/b, as far as they are missing */
static void make_parents(const char *path)
{
	char parent[PATH_MAX];

	if (snprintf(parent, sizeof(parent), "%s", path) >= (int)sizeof(parent))
		return;
	for (char *slash = strchr(parent + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		mkdir(parent, 0700);
		*slash = '/';
	}
}

static int open_folder(const char *path)
{
	_cleanup_(closep) int fd = -1;
	struct stat status;

	if (mkdir(path, 0700) && errno == ENOENT) {
		make_parents(path);
		mkdir(path, 0700);
	}
	fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &status))
		return -errno;
	if (status.st_uid != geteuid() || status.st_mode & (S_IWGRP | S_IWOTH))
		return -EPERM;
	if (flock(fd, LOCK_EX | LOCK_NB))
		return errno == EWOULDBLOCK ? -EBUSY : -errno;
	return TAKE_FD(fd);
}

static bool is_ours(const struct stat *status)
{
	return S_ISREG(status->st_mode) && status->st_uid == geteuid();
}

/* One file of the folder: ours gets its row, what a predecessor left half written goes. */
static int scan_file(struct cache *cache, const char *name)
{
	static const char half[] = "new-";
	const bool is_half = !strncmp(name, half, sizeof(half) - 1);
	struct row row;
	struct stat status;

	if (!name_parse(is_half ? name + sizeof(half) - 1 : name, &row) || fstatat(cache->fd, name, &status, AT_SYMLINK_NOFOLLOW)
	    || !is_ours(&status))
		return 0;
	if (is_half) {
		unlinkat(cache->fd, name, 0);
		return 0;
	}
	row.size = status.st_size;
	row.used_ns = (uint64_t)status.st_mtim.tv_sec * 1000000000u + status.st_mtim.tv_nsec;
	return row_add(cache, &row);
}

static int scan(struct cache *cache)
{
	int fd = openat(cache->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *file;
	int r = 0;

	if (!dir) {
		r = -errno;
		close_fd(fd);
		return r;
	}
	while (!r && (file = readdir(dir)))
		r = scan_file(cache, file->d_name);
	closedir(dir);
	return r;
}

int cache_open(struct cache **ret, const char *path, uint64_t n_bytes_max)
{
	_cleanup_(cache_closep) struct cache *cache = calloc(1, sizeof(*cache));
	int r;

	if (!cache)
		return error_origin(-ENOMEM);
	cache->n_bytes_max = n_bytes_max;
	cache->fd = open_folder(path);
	if (cache->fd < 0)
		return cache->fd;
	r = scan(cache);
	if (!r)
		r = make_room(cache, 0);
	if (r)
		return r;
	*ret = TAKE_PTR(cache);
	return 0;
}

struct cache *cache_close(struct cache *cache)
{
	if (!cache)
		return NULL;
	close_fd(cache->fd);
	free(cache->rows);
	free(cache);
	return NULL;
}

/* -- Finding --- */
static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + ts.tv_nsec;
}

/* NULL: it is not there, or not as a file of ours is */
static void *read_file(struct cache *cache, const char *name, size_t *ret_n)
{
	_cleanup_(closep) int fd = openat(cache->fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	_cleanup_(freep) uint8_t *bytes = NULL;
	struct stat status;

	if (fd < 0 || fstat(fd, &status) || !is_ours(&status) || status.st_size <= 0 || status.st_size > ENTRY_MAX)
		return NULL;
	bytes = malloc(status.st_size);
	if (!bytes)
		return NULL;
	for (off_t done = 0; done < status.st_size;) {
		ssize_t got = pread(fd, bytes + done, status.st_size - done, done);

		if (got <= 0)
			return NULL;
		done += got;
	}
	futimens(fd, NULL);
	*ret_n = status.st_size;
	return TAKE_PTR(bytes);
}

bool cache_find(struct cache *cache, uint32_t uid, const struct entry_part *key, struct entry *ret, void **ret_block)
{
	const struct entry_name name = entry_name(key->bytes, key->n);
	int64_t index = row_find(cache, uid, &name);
	_cleanup_(freep) void *bytes = NULL;
	enum entry_state state = ENTRY_DAMAGED;
	char text[NAME_MAX_];
	size_t n = 0;

	if (index < 0)
		return false;
	bytes = read_file(cache, name_text(text, "", uid, &name), &n);
	if (bytes)
		state = entry_get(ret, bytes, n, key);
	if (state == ENTRY_DAMAGED) {
		__atomic_fetch_add(&cache->figures.n_dropped, 1, __ATOMIC_RELAXED);
		entry_remove(cache, index);
	}
	if (state != ENTRY_FOUND)
		return false;
	cache->rows[index].used_ns = now_ns();
	*ret_block = TAKE_PTR(bytes);
	return true;
}

void cache_drop(struct cache *cache, uint32_t uid, const struct entry_part *key)
{
	const struct entry_name name = entry_name(key->bytes, key->n);
	int64_t index = row_find(cache, uid, &name);

	if (index < 0)
		return;
	__atomic_fetch_add(&cache->figures.n_dropped, 1, __ATOMIC_RELAXED);
	entry_remove(cache, index);
}

/* -- Keeping --- */
static int write_file(int folder, const char *name, const uint8_t *bytes, size_t n)
{
	_cleanup_(closep) int fd = openat(folder, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);

	if (fd < 0)
		return -errno;
	for (size_t done = 0; done < n;) {
		ssize_t put = write(fd, bytes + done, n - done);

		if (put < 0 && errno != EINTR)
			return -errno;
		done += MAX(put, (ssize_t)0);
	}
	return 0;
}

static int replace_file(struct cache *cache, const struct row *row, const void *bytes, size_t n)
{
	char half[NAME_MAX_], whole[NAME_MAX_];
	int r;

	name_text(half, "new-", row->uid, &row->name);
	unlinkat(cache->fd, half, 0);
	r = write_file(cache->fd, half, bytes, n);
	if (!r && renameat(cache->fd, half, cache->fd, name_text(whole, "", row->uid, &row->name)))
		r = -errno;
	if (r)
		unlinkat(cache->fd, half, 0);
	return r;
}

int cache_keep(struct cache *cache, uint32_t uid, const struct entry *entry)
{
	struct row row = { .name = entry_name(entry->key.bytes, entry->key.n), .uid = uid, .used_ns = now_ns() };
	_cleanup_(freep) void *bytes = NULL;
	int64_t index = row_find(cache, uid, &row.name);
	size_t n;
	int r;

	r = entry_put(entry, &bytes, &n);
	if (r)
		return r;
	if (n > cache->n_bytes_max)
		return -EFBIG;
	if (index >= 0)
		entry_remove(cache, index);
	r = make_room(cache, n);
	if (r)
		return r;
	row.size = n;
	r = replace_file(cache, &row, bytes, n);
	return r ? r : row_add(cache, &row);
}
