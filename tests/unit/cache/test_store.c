/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include "cache/store.h"
#include "util/base.h"

/* The cache's folder: what is kept is found, also by a successor; what is old, torn or not ours */

static char folder[64], path[128];

static int setup(void **state)
{
	strcpy(folder, "/tmp/test_store.XXXXXX");
	assert_non_null(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/state/tierd/cache", folder);
	return 0;
}

static int teardown(void **state)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -r %s", folder);
	return system(command);
}

static struct cache *open_store(uint64_t n_bytes_max)
{
	struct cache *cache;

	assert_int_equal(cache_open(&cache, path, n_bytes_max), 0);
	return cache;
}

static struct entry_part key_of(const char *text)
{
	return (struct entry_part){ text, strlen(text) };
}

/* Code of @n bytes */
static int keep_of(struct cache *cache, uint32_t uid, const char *key, size_t n)
{
	_cleanup_(freep) char *code = calloc(1, n + 1);
	const struct entry entry = { .key = key_of(key), .profiles = key_of("profiles"), .code = { code, n } };

	snprintf(code, n + 1, "%s", key);
	return cache_keep(cache, uid, &entry);
}

static bool finds(struct cache *cache, uint32_t uid, const char *key)
{
	const struct entry_part wanted = key_of(key);
	_cleanup_(freep) void *block = NULL;
	struct entry entry;

	if (!cache_find(cache, uid, &wanted, &entry, &block))
		return false;
	assert_memory_equal(entry.key.bytes, key, strlen(key));
	assert_memory_equal(entry.profiles.bytes, "profiles", 8);
	return true;
}

static struct cache_figures figures_of(const struct cache *cache)
{
	struct cache_figures figures;

	cache_figures(cache, &figures);
	return figures;
}

/* Calls @fn with the path of each file in the folder; returns how many there are. */
static unsigned int each_file(void (*fn)(const char *file))
{
	DIR *dir = opendir(path);
	struct dirent *found;
	unsigned int n = 0;
	char file[512];

	assert_non_null(dir);
	while ((found = readdir(dir))) {
		if (*found->d_name == '.')
			continue;
		snprintf(file, sizeof(file), "%s/%s", path, found->d_name);
		if (fn)
			fn(file);
		n++;
	}
	closedir(dir);
	return n;
}

static void what_is_kept_is_found_by_its_user_and_a_successor(void **state)
{
	struct cache *cache = open_store(1 << 20);
	struct stat status;

	assert_int_equal(stat(path, &status), 0);
	assert_int_equal(status.st_mode & 07777, 0700);
	assert_false(finds(cache, 1000, "a"));
	assert_int_equal(keep_of(cache, 1000, "a", 100), 0);
	assert_true(finds(cache, 1000, "a"));
	assert_false(finds(cache, 1001, "a"));
	assert_false(finds(cache, 1000, "b"));
	cache_close(cache);
	cache = open_store(1 << 20);
	assert_int_equal(figures_of(cache).n_entries, 1);
	assert_true(finds(cache, 1000, "a"));
	cache_close(cache);
}

static void the_newest_of_a_key_replaces_what_was_there(void **state)
{
	struct cache *cache = open_store(1 << 20);
	uint64_t n_bytes;

	assert_int_equal(keep_of(cache, 1, "a", 1000), 0);
	assert_int_equal(keep_of(cache, 1, "a", 16), 0);
	n_bytes = figures_of(cache).n_bytes;
	assert_int_equal(figures_of(cache).n_entries, 1);
	assert_true(n_bytes < 200);
	assert_int_equal(each_file(NULL), 1);
	cache_close(cache);
}

static void the_least_recently_used_go_when_it_is_full(void **state)
{
	struct cache *cache = open_store(10000);
	char key[8];

	for (int i = 0; i < 50; i++) {
		snprintf(key, sizeof(key), "%d", i);
		assert_int_equal(keep_of(cache, 1, key, 1000), 0);
		assert_true(figures_of(cache).n_bytes <= 10000);
		assert_true(finds(cache, 1, "0"));	/* used again and again */
	}
	assert_true(finds(cache, 1, "49"));
	assert_false(finds(cache, 1, "1"));
	assert_int_equal(each_file(NULL), figures_of(cache).n_entries);
	assert_int_equal(keep_of(cache, 1, "huge", 10000), -EFBIG);
	assert_true(finds(cache, 1, "49"));
	cache_close(cache);
	cache = open_store(3000);	/* by now less is allowed */
	assert_true(figures_of(cache).n_bytes <= 3000);
	cache_close(cache);
}

static void who_takes_most_gives_up_first(void **state)
{
	struct cache *cache = open_store(20000);
	char key[8];

	assert_int_equal(keep_of(cache, 7, "mine", 1000), 0);
	for (int i = 0; i < 100; i++) {
		snprintf(key, sizeof(key), "%d", i);
		assert_int_equal(keep_of(cache, 8, key, 1000), 0);
	}
	assert_true(finds(cache, 7, "mine"));
	cache_close(cache);
}

static double user_seconds(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return usage.ru_utime.tv_sec + usage.ru_utime.tv_usec / 1e6;
}

/* A start with much less room is no matter of minutes. */
static void thousands_go_at_once(void **state)
{
	struct cache *cache = open_store(1 << 30);
	char key[8];
	double begin;

	for (int i = 0; i < 6000; i++) {
		snprintf(key, sizeof(key), "%d", i);
		assert_int_equal(keep_of(cache, i % 3, key, 100 + i % 3), 0);
	}
	cache_close(cache);
	begin = user_seconds();
	cache = open_store(10000);
	assert_true(user_seconds() - begin < 1);
	assert_true(figures_of(cache).n_bytes <= 10000 && figures_of(cache).n_entries > 10);
	assert_int_equal(each_file(NULL), figures_of(cache).n_entries);
	for (uint32_t uid = 0; uid < 3; uid++) {
		snprintf(key, sizeof(key), "%d", 5997 + (int)uid);
		assert_true(finds(cache, uid, key));	/* everybody's newest */
	}
	cache_close(cache);
}

static void spoil(const char *file)
{
	int fd = open(file, O_RDWR);

	assert_int_equal(pwrite(fd, "?", 1, 60), 1);
	close(fd);
}

static void tear(const char *file)
{
	assert_int_equal(truncate(file, 50), 0);
}

static void empty(const char *file)
{
	assert_int_equal(truncate(file, 0), 0);
}

static void damaged_files_go(void **state)
{
	void (*const damages[])(const char *file) = { spoil, tear, empty };

	for (size_t i = 0; i < ARRAY_SIZE(damages); i++) {
		struct cache *cache = open_store(1 << 20);

		assert_int_equal(keep_of(cache, 1, "a", 100), 0);
		each_file(damages[i]);
		assert_false(finds(cache, 1, "a"));
		assert_int_equal(figures_of(cache).n_dropped, 1);
		assert_int_equal(each_file(NULL), 0);
		assert_int_equal(keep_of(cache, 1, "a", 100), 0);
		assert_true(finds(cache, 1, "a"));
		cache_drop(cache, 1, &(struct entry_part){ "a", 1 });
		assert_int_equal(figures_of(cache).n_entries, 0);
		cache_close(cache);
	}
}

static void write_file(const char *name, const char *text)
{
	char file[256];
	FILE *stream;

	snprintf(file, sizeof(file), "%s/%s", path, name);
	stream = fopen(file, "we");
	assert_non_null(stream);
	fputs(text, stream);
	fclose(stream);
}

#define NAME "1-00000000000000010000000000000002"

static void what_is_half_written_goes_and_foreign_files_stay(void **state)
{
	static const char *const foreign[] = { "notes", "1-1", NAME ".old", "01-00000000000000010000000000000002", "new-notes" };
	struct cache *cache = open_store(1 << 20);
	char link[256], target[256];

	cache_close(cache);
	write_file("new-" NAME, "half");
	for (size_t i = 0; i < ARRAY_SIZE(foreign); i++)
		write_file(foreign[i], "somebody's");
	snprintf(target, sizeof(target), "%s/notes", path);
	snprintf(link, sizeof(link), "%s/%s", path, NAME);
	assert_int_equal(symlink(target, link), 0);
	cache = open_store(1);
	assert_int_equal(figures_of(cache).n_entries, 0);
	assert_int_equal(each_file(NULL), ARRAY_SIZE(foreign) + 1);
	cache_close(cache);
}

static void link_elsewhere(const char *file)
{
	char victim[256];

	snprintf(victim, sizeof(victim), "%s/victim", folder);
	assert_int_equal(unlink(file), 0);
	assert_int_equal(symlink(victim, file), 0);
}

static void a_link_in_the_place_of_an_entry_is_not_followed(void **state)
{
	struct cache *cache = open_store(1 << 20);
	char victim[256];

	assert_int_equal(keep_of(cache, 1, "a", 100), 0);
	snprintf(victim, sizeof(victim), "%s/victim", folder);
	each_file(link_elsewhere);
	assert_false(finds(cache, 1, "a"));
	assert_int_equal(keep_of(cache, 1, "a", 100), 0);
	assert_int_equal(access(victim, F_OK), -1);
	assert_true(finds(cache, 1, "a"));
	cache_close(cache);
}

static void a_folder_that_is_not_the_daemons_alone_is_refused(void **state)
{
	struct cache *cache = open_store(1 << 20), *other = NULL;
	char real[256];

	assert_int_equal(cache_open(&other, path, 1 << 20), -EBUSY);
	cache_close(cache);
	assert_int_equal(chmod(path, 0777), 0);
	assert_int_equal(cache_open(&cache, path, 1 << 20), -EPERM);
	assert_int_equal(chmod(path, 0700), 0);
	snprintf(real, sizeof(real), "%s/real", folder);
	assert_int_equal(rename(path, real), 0);
	assert_int_equal(symlink(real, path), 0);
	assert_true(cache_open(&cache, path, 1 << 20) < 0);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(close(open(path, O_WRONLY | O_CREAT, 0600)), 0);
	assert_int_equal(cache_open(&cache, path, 1 << 20), -ENOTDIR);
	if (!geteuid()) {
		assert_int_equal(unlink(path), 0);
		assert_int_equal(rename(real, path), 0);
		assert_int_equal(chown(path, 12345, 12345), 0);
		assert_int_equal(cache_open(&cache, path, 1 << 20), -EPERM);
	}
}

/* A writer is killed again and again: its successor finds entries that are whole, or none. */
static void a_daemon_killed_at_any_moment_leaves_whole_entries(void **state)
{
	for (int round = 0; round < 20; round++) {
		struct cache *cache;
		pid_t pid = fork();
		char key[8];

		if (!pid) {
			for (unsigned int i = 0;; i++) {
				if (!i && cache_open(&cache, path, 100000))
					_exit(1);
				snprintf(key, sizeof(key), "%u", i % 50);
				keep_of(cache, 1, key, 100 + i % 3000);
			}
		}
		usleep(1000 + 700 * round);
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
		cache = open_store(100000);
		for (int i = 0; i < 50; i++) {
			snprintf(key, sizeof(key), "%d", i);
			finds(cache, 1, key);
		}
		assert_int_equal(figures_of(cache).n_dropped, 0);	/* the kernel lost nothing */
		assert_int_equal(each_file(NULL), figures_of(cache).n_entries);
		cache_close(cache);
	}
}

static void a_disk_without_room_keeps_nothing(void **state)
{
	const struct rlimit none = { .rlim_cur = 50, .rlim_max = RLIM_INFINITY };
	struct cache *cache = open_store(1 << 20);
	struct rlimit usual;

	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &usual), 0);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &none), 0);
	assert_int_equal(keep_of(cache, 1, "a", 100), -EFBIG);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &usual), 0);
	assert_false(finds(cache, 1, "a"));
	assert_int_equal(each_file(NULL), 0);
	assert_int_equal(keep_of(cache, 1, "a", 100), 0);
	assert_true(finds(cache, 1, "a"));
	cache_close(cache);
}

#define STORE_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
int main(void)
{
	const struct CMUnitTest tests[] = {
		STORE_TEST(what_is_kept_is_found_by_its_user_and_a_successor),
		STORE_TEST(the_newest_of_a_key_replaces_what_was_there),
		STORE_TEST(the_least_recently_used_go_when_it_is_full),
		STORE_TEST(who_takes_most_gives_up_first),
		STORE_TEST(thousands_go_at_once),
		STORE_TEST(damaged_files_go),
		STORE_TEST(what_is_half_written_goes_and_foreign_files_stay),
		STORE_TEST(a_link_in_the_place_of_an_entry_is_not_followed),
		STORE_TEST(a_folder_that_is_not_the_daemons_alone_is_refused),
		STORE_TEST(a_daemon_killed_at_any_moment_leaves_whole_entries),
		STORE_TEST(a_disk_without_room_keeps_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
