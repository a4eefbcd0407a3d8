/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <tier/wire.h>
#include <unistd.h>
#include "bench/inputs.h"
#include "system/harness.h"
#include "system/results.h"
#include "util/base.h"

/* The code cache: a daemon that comes later finds the code of those before it, if it is whole and theirs, and no worker is
 * asked. */

struct fixture {
	char folder[64], cache[96], option[128], size[64];
	const char *pgo;
	struct daemon daemon;
	struct tier_conn *conn;
};

static void fixture_new(struct fixture *f)
{
	*f = (struct fixture){ .size = "--code-cache-size=256M", .pgo = "--tiered-pgo=off" };
	snprintf(f->folder, sizeof(f->folder), "%s/test_cache.XXXXXX", temporary_folder());
	assert_non_null(mkdtemp(f->folder));
	snprintf(f->cache, sizeof(f->cache), "%s/cache", f->folder);
	snprintf(f->option, sizeof(f->option), "--code-cache=%s", f->cache);
}

static void fixture_free(struct fixture *f)
{
	char command[96];

	snprintf(command, sizeof(command), "rm -r %s", f->folder);
	assert_int_equal(system(command), 0);
}

static void begin(struct fixture *f)
{
	daemon_start(&f->daemon, ARGS("--call-counting-delay=0", f->option, f->size, f->pgo));
	f->conn = daemon_connect(&f->daemon);
}

static void end(struct fixture *f)
{
	tier_disconnect(f->conn);
	daemon_stop(&f->daemon);
}

static struct wire_stats stats_of(struct fixture *f)
{
	struct wire_stats stats;

	assert_done(tier_stats(f->conn, &stats));
	return stats;
}

/* Loads a workload, drives it to its final tier, and checks what it returns there. */
static void drive(struct fixture *f, const char *name)
{
	struct tier_module *module;
	struct tier_method *method = workload_load(f->conn, name, &module);
	const uint64_t args[5] = { 10 };
	struct tier_answer answer;

	climb(method, args);
	answer = tier_status(method);
	assert_int_equal(answer.tier, TIER_LEVEL_TIER1);
	assert_int_equal(answer.reason, TIER_REASON_PROMOTED);
	tier_close(module);
	assert_done(tier_unload(f->conn, name));
}

/* What a lookup finds a daemon has to have written: that happens behind the method's last step. */
static void wait_for_entries(struct fixture *f, uint64_t n)
{
	wait_until("entries in the cache", stats_of(f).n_cache_entries >= n);
}

/* Calls @fn with the path of each file in the cache; returns how many there are. */
static unsigned int each_file(const struct fixture *f, void (*fn)(const char *file))
{
	DIR *dir = opendir(f->cache);
	struct dirent *found;
	unsigned int n = 0;
	char file[512];

	assert_non_null(dir);
	while ((found = readdir(dir))) {
		if (*found->d_name == '.')
			continue;
		snprintf(file, sizeof(file), "%s/%s", f->cache, found->d_name);
		if (fn)
			fn(file);
		n++;
	}
	closedir(dir);
	return n;
}

/* Loads and drives in a new daemon; returns how many compilations were asked of workers. */
static uint64_t n_compiled_by_the_next(struct fixture *f, const char *name)
{
	struct wire_stats stats;

	begin(f);
	drive(f, name);
	stats = stats_of(f);
	end(f);
	return stats.n_jobs - 1;	/* the load is one */
}

static void a_daemon_finds_the_code_of_its_predecessor(void **state)
{
	struct wire_stats stats;
	struct fixture f;

	fixture_new(&f);
	begin(&f);
	drive(&f, "fib");
	wait_for_entries(&f, 1);
	stats = stats_of(&f);
	assert_int_equal(stats.n_cache_hits, 0);
	assert_true(stats.n_cache_misses >= 1);
	assert_true(stats.n_cache_bytes > 0);
	drive(&f, "fib");		/* unloaded, and loaded again */
	assert_true(stats_of(&f).n_cache_hits >= 1);
	end(&f);
	assert_int_equal(n_compiled_by_the_next(&f, "fib"), 0);
	fixture_free(&f);
}

static void what_is_found_gives_the_same_results(void **state)
{
	struct fixture f;

	fixture_new(&f);
	for (int round = 0; round < 2; round++) {
		begin(&f);
		for (size_t i = 0; i < n_workloads; i++) {
			struct tier_module *module;
			struct tier_method *method;

			assert_done(tier_load(f.conn, workload_object(workloads[i].file), NULL, 0, &module));
			assert_done(tier_find(module, workloads[i].entry, &method));
			for (int call = 0; call < 35; call++)
				results_check_vectors(&workloads[i], method);
			wait_until("the final tier", tier_status(method).status == TIER_STATUS_FINAL);
			results_check_native(&workloads[i], method);
		}
		if (round)
			assert_true(stats_of(&f).n_cache_hits >= n_workloads);
		end(&f);
	}
	fixture_free(&f);
}

/* The bytecode decides, not the name. */
static void other_bytecode_of_the_same_name_is_compiled(void **state)
{
	static const char one[] = "unsigned long long f(unsigned long long x) { return x * 3; }\n";
	static const char two[] = "unsigned long long f(unsigned long long x) { return x * 5; }\n";
	struct fixture f;

	fixture_new(&f);
	for (int round = 0; round < 2; round++) {
		struct tier_module *module;
		struct tier_method *method;

		begin(&f);
		assert_done(tier_load(f.conn, bpf_compile(f.daemon.folder, "f", round ? two : one, ""), NULL, 0, &module));
		assert_done(tier_find(module, "f", &method));
		climb(method, NULL);
		assert_int_equal(tier_entry(method)(7, 0, 0, 0, 0), round ? 35 : 21);
		assert_int_equal(stats_of(&f).n_cache_hits, 0);
		end(&f);
	}
	assert_int_equal(each_file(&f, NULL), 2);
	fixture_free(&f);
}

/* Which way its argument sends it */
static const char forked_source[] =
	"typedef unsigned long long u64;\n"
	"u64 forked(u64 x) { u64 s = 1;\n"
	"	if (x & 1) for (u64 i = 0; i < x; i++) s = s * 3 + i;\n"
	"	else for (u64 i = 0; i < x; i++) s = (s ^ i) * 5;\n"
	"	return s; }\n";

/* Climbs in a daemon of its own, checks the ladder, and returns whether the code was found. */
static bool finds_forked(struct fixture *f, uint64_t x)
{
	static const enum tier_level ladder[] = { TIER_LEVEL_TIER0, TIER_LEVEL_TIER0_INSTRUMENTED, TIER_LEVEL_TIER1 };
	const uint64_t args[5] = { x };
	struct tier_event events[64];
	struct tier_module *module;
	struct tier_method *method;
	struct wire_stats stats;
	unsigned int n = 0;
	size_t n_events;

	begin(f);
	assert_done(tier_load(f->conn, bpf_compile(f->daemon.folder, "forked", forked_source, ""), NULL, 0, &module));
	assert_done(tier_find(module, "forked", &method));
	climb(method, args);
	stats = stats_of(f);
	n_events = events_read(f->conn, tier_module_id(module), method_index(module, method), events, ARRAY_SIZE(events));
	for (size_t i = 0; i < n_events; i++)
		if (events[i].kind == TIER_EVENT_PUBLISHED)
			assert_int_equal(events[i].to, ladder[n++]);
	assert_int_equal(n, ARRAY_SIZE(ladder));
	assert_int_equal(stats.n_cache_hits + stats.n_cache_misses, 1);
	assert_int_equal(stats.n_jobs, 1 + stats.n_cache_misses);	/* the load is one */
	end(f);
	return stats.n_cache_hits;
}

/* The ladder is the same with and without; a profile that says the same finds the code, another one is added. */
static void profiles_outlive_the_daemon(void **state)
{
	unsigned int n_misses = 0;
	struct fixture f;

	fixture_new(&f);
	f.pgo = "--tiered-pgo=on";
	assert_false(finds_forked(&f, 9));
	assert_true(finds_forked(&f, 9));
	assert_true(finds_forked(&f, 11));
	while (!finds_forked(&f, 8))	/* half of the calls went the other way, then a third, then a quarter */
		assert_true(++n_misses < 6);
	assert_true(n_misses >= 3);
	fixture_free(&f);
}

static void spoil(const char *file)
{
	struct stat status;
	int fd = open(file, O_RDWR);

	assert_int_equal(fstat(fd, &status), 0);
	assert_int_equal(pwrite(fd, "damage", 6, status.st_size / 2), 6);
	close(fd);
}

static void tear(const char *file)
{
	assert_int_equal(truncate(file, 100), 0);
}

static void empty(const char *file)
{
	assert_int_equal(truncate(file, 0), 0);
}

static void damaged_entries_are_compiled_again(void **state)
{
	void (*const damages[])(const char *file) = { spoil, tear, empty };
	struct fixture f;

	fixture_new(&f);
	assert_true(n_compiled_by_the_next(&f, "fib") > 0);
	for (size_t i = 0; i < ARRAY_SIZE(damages); i++) {
		each_file(&f, damages[i]);
		assert_true(n_compiled_by_the_next(&f, "fib") > 0);
		assert_int_equal(n_compiled_by_the_next(&f, "fib"), 0);
	}
	fixture_free(&f);
}

/* The sum of an entry is no security: code that is not sound is refused like a worker's, and compiled afresh. */
static void forge(const char *file)
{
	enum { SUM_AT = 8, SIZES_AT = 16, CODE_ALIGN_AT = 12 };
	static uint8_t bytes[1 << 20];
	uint64_t sizes[3], hash;
	int fd = open(file, O_RDWR);
	ssize_t n = read(fd, bytes, sizeof(bytes));

	assert_true(n > 40);
	memcpy(sizes, bytes + SIZES_AT, sizeof(sizes));
	bytes[40 + align_up(sizes[0], 8) + align_up(sizes[1], 8) + CODE_ALIGN_AT] = 3;	/* no power of two */
	hash = (n - 16) * 0x9e3779b97f4a7c15ull;
	for (ssize_t i = SIZES_AT; i < n; i += 8) {
		uint64_t word;

		memcpy(&word, bytes + i, 8);
		hash = (hash << 23 | hash >> 41) + word;
		hash = (hash ^ hash >> 33) * 0xff51afd7ed558ccdull;
		hash = (hash ^ hash >> 33) * 0xc4ceb9fe1a85ec53ull;
		hash ^= hash >> 33;
	}
	memcpy(bytes + SUM_AT, &hash, 8);
	assert_int_equal(pwrite(fd, bytes, n, 0), n);
	close(fd);
}

static void unsound_code_is_refused_and_compiled_afresh(void **state)
{
	struct fixture f;

	fixture_new(&f);
	assert_true(n_compiled_by_the_next(&f, "fib") > 0);
	each_file(&f, forge);
	assert_true(n_compiled_by_the_next(&f, "fib") > 0);
	assert_int_equal(n_compiled_by_the_next(&f, "fib"), 0);
	fixture_free(&f);
}

static void the_folder_stays_below_its_size_and_foreign_files_stay(void **state)
{
	char notes[128], source[128];
	struct fixture f;
	FILE *file;

	fixture_new(&f);
	strcpy(f.size, "--code-cache-size=1M");
	begin(&f);
	snprintf(notes, sizeof(notes), "%s/notes", f.cache);
	file = fopen(notes, "we");
	assert_non_null(file);
	fputs("somebody's", file);
	fclose(file);
	for (int i = 0; i < (test_is_long() ? 400 : 20); i++) {
		struct tier_module *module;
		struct tier_method *method;

		snprintf(source, sizeof(source), "unsigned long long f(unsigned long long x) { return x * %d; }\n", 3 + 2 * i);
		assert_done(tier_load(f.conn, bpf_compile(f.daemon.folder, "f", source, ""), NULL, 0, &module));
		assert_done(tier_find(module, "f", &method));
		climb(method, NULL);
		tier_close(module);
		assert_done(tier_unload(f.conn, "f"));
		assert_true(stats_of(&f).n_cache_bytes <= 1 << 20);
	}
	end(&f);
	assert_int_equal(access(notes, F_OK), 0);
	fixture_free(&f);
}

static void a_daemon_killed_at_any_moment_leaves_a_sound_cache(void **state)
{
	struct fixture f;

	fixture_new(&f);
	for (int round = 0; round < (test_is_long() ? 20 : 4); round++) {
		struct tier_module *module;
		struct tier_method *method;

		begin(&f);
		method = workload_load(f.conn, round & 1 ? "crc32" : "fib", &module);
		for (int i = 0; i < 31; i++)
			tier_entry(method)(0, 0, 0, 0, 0);
		usleep(500 * round);
		daemon_kill(&f.daemon);
		end(&f);
	}
	begin(&f);
	drive(&f, "fib");
	assert_int_equal(stats_of(&f).n_cache_dropped, 0);
	end(&f);
	assert_int_equal(n_compiled_by_the_next(&f, "fib"), 0);
	fixture_free(&f);
}

static void refuses_to_start(const char *const *args)
{
	struct daemon daemon;

	assert_int_equal(daemon_try(&daemon, args), 2);
	daemon_stop(&daemon);
}

static void a_folder_that_cannot_be_used_is_said_at_the_start(void **state)
{
	struct fixture f;
	char text[128];

	fixture_new(&f);
	begin(&f);
	refuses_to_start(ARGS(f.option));	/* in use */
	end(&f);
	snprintf(text, sizeof(text), "%s/link", f.folder);
	assert_int_equal(symlink(f.cache, text), 0);
	snprintf(text, sizeof(text), "--code-cache=%s/link", f.folder);
	refuses_to_start(ARGS(text));
	refuses_to_start(ARGS("--code-cache=on"));
	refuses_to_start(ARGS("--code-cache-size=1K"));
	fixture_free(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_daemon_finds_the_code_of_its_predecessor),
		cmocka_unit_test(what_is_found_gives_the_same_results),
		cmocka_unit_test(other_bytecode_of_the_same_name_is_compiled),
		cmocka_unit_test(profiles_outlive_the_daemon),
		cmocka_unit_test(damaged_entries_are_compiled_again),
		cmocka_unit_test(unsound_code_is_refused_and_compiled_afresh),
		cmocka_unit_test(the_folder_stays_below_its_size_and_foreign_files_stay),
		cmocka_unit_test(a_daemon_killed_at_any_moment_leaves_a_sound_cache),
		cmocka_unit_test(a_folder_that_cannot_be_used_is_said_at_the_start),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
