/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cmocka.h>
#include "cache/store.h"
#include "caching.h"
#include "util/base.h"
#include "worker/job.h"

/* A compile job's way through the cache: what finds what, and what becomes of profiles. A job is a method with a branch and one
 * that it may inline; its code is any bytes here. */

struct world {
	struct dispatch dispatch;
	struct caching caching;
	char folder[64], path[80];
	struct lookup *told;	/* the last that was */
};

static const struct compiler compiler = { .version = "1", .llvm = "2", .cpu = "abacus" };

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));

	strcpy(w->folder, "/tmp/test_caching.XXXXXX");
	assert_non_null(mkdtemp(w->folder));
	snprintf(w->path, sizeof(w->path), "%s/cache", w->folder);
	assert_int_equal(dispatch_init(&w->dispatch), 0);
	assert_int_equal(caching_open(&w->caching, &w->dispatch, w->path, 1 << 20), 0);
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;
	char command[96];

	caching_stop(&w->caching);
	caching_close(&w->caching);
	dispatch_deinit(&w->dispatch);
	snprintf(command, sizeof(command), "rm -r %s", w->folder);
	free(w);
	return system(command);
}

/* -- Jobs --- */
static const struct insn method[] = {
	{ .code = BPF_JMP | BPF_JEQ | BPF_K, .dst = 1, .off = 1, .imm = 7 },
	{ .code = BPF_JMP | BPF_CALL, .src = INSN_CALL_METHOD, .imm = 1 },
	{ .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst = 0, .imm = 3 },
	{ .code = BPF_JMP | BPF_EXIT },
};
#define N_COUNTS 3

struct counts { struct profile_count at[N_COUNTS]; };

static struct counts counts(uint32_t entries, uint32_t taken)
{
	return (struct counts){ {
		{ .kind = PROFILE_ENTRY, .n = entries, .method = PROFILE_NO_METHOD },
		{ .pc = 0, .kind = PROFILE_BRANCH, .n = entries, .m = taken, .method = PROFILE_NO_METHOD },
		{ .pc = 1, .kind = PROFILE_CALL, .n = entries - taken, .method = PROFILE_NO_METHOD },
	} };
}

/* @profile: of the method; NULL: none */
static int job_of(enum tier_level level, const struct counts *profile, size_t *ret_n)
{
	struct job_body bodies[] = {
		{ .method = 0, .n_insns = ARRAY_SIZE(method), .insns = method, .name = "m",
		  .profile = profile ? profile->at : NULL, .n_profile = profile ? N_COUNTS : 0 },
		{ .method = 1, .n_insns = 2, .insns = method + 2, .name = "callee" },
	};
	struct job_compile job = { .level = level, .n_methods = 2, .bodies = bodies, .n_bodies = 2 };
	int fd = memfd_create("job", MFD_CLOEXEC);
	void *bytes;

	assert_int_equal(job_put_compile(&job, &bytes, ret_n), 0);
	assert_int_equal(pwrite(fd, bytes, *ret_n, 0), *ret_n);
	free(bytes);
	return fd;
}

static void on_looked(void *context, struct lookup *lookup)
{
	((struct world *)context)->told = lookup;
}

static struct lookup *begin_look(struct world *w, uid_t uid, enum tier_level level, const struct counts *profile)
{
	struct lookup *lookup;
	size_t n;
	int fd = job_of(level, profile, &n);

	w->told = NULL;
	assert_int_equal(caching_look(&w->caching, uid, &compiler, fd, n, on_looked, w, &lookup), 0);
	assert_null(w->told);
	close(fd);
	return lookup;
}

static struct lookup *look_for(struct world *w, uid_t uid, enum tier_level level, const struct counts *profile)
{
	struct lookup *lookup = begin_look(w, uid, level, profile);
	uint64_t deadline = clock_now_ns() + 10000000000u;

	while (!w->told) {
		assert_true(clock_now_ns() < deadline);
		assert_int_equal(dispatch_turn(&w->dispatch, 100), 0);
	}
	assert_ptr_equal(w->told, lookup);
	return lookup;
}

static struct lookup *look(struct world *w, const struct counts *profile)
{
	return look_for(w, 1000, TIER_LEVEL_TIER1, profile);
}

/* "": nothing was found */
static void assert_found(struct lookup *lookup, const char *code)
{
	size_t n;
	_cleanup_(freep) char *found = lookup_take_code(lookup, &n);

	assert_int_equal(found != NULL, *code != '\0');
	if (!found)
		return;
	assert_int_equal(n, strlen(code));
	assert_memory_equal(found, code, n);
}

static void keep(struct lookup *lookup, const char *code)
{
	caching_keep(lookup, strdup(code), strlen(code));
}

/* The profile of the method in the job as it would be compiled */
static void assert_profile(const struct lookup *lookup, const struct counts *expected)
{
	_cleanup_(freep) void *bytes = NULL;
	struct job_compile job;
	struct refusal refusal;
	size_t n;
	int fd = lookup_job(lookup, &n);

	bytes = malloc(n);
	assert_int_equal(pread(fd, bytes, n, 0), n);
	assert_true(job_get_compile(&job, bytes, n, &refusal));
	assert_int_equal(job.bodies[0].n_profile, expected ? N_COUNTS : 0);
	if (expected)
		assert_memory_equal(job.bodies[0].profile, expected, sizeof(*expected));
	assert_int_equal(job.bodies[1].n_profile, 0);
	free(job.bodies);
}

static void kept_with(struct world *w, const struct counts *profile, const char *code)
{
	struct lookup *lookup = look(w, profile);

	assert_found(lookup, "");
	keep(lookup, code);
}

/* -- What finds what --- */
static void what_was_kept_is_found_for_the_same_job(void **state)
{
	struct world *w = *state;
	struct caching_figures figures;
	struct lookup *lookup;

	kept_with(w, NULL, "code");
	lookup = look(w, NULL);
	assert_found(lookup, "code");
	assert_found(lookup, "");		/* taken */
	caching_forget(lookup);
	caching_figures(&w->caching, &figures);
	assert_int_equal(figures.n_hits, 1);
	assert_int_equal(figures.n_misses, 1);
	assert_int_equal(figures.cache.n_entries, 1);
}

static void another_uid_or_level_finds_nothing(void **state)
{
	struct world *w = *state;
	struct lookup *lookup;

	kept_with(w, NULL, "code");
	lookup = look_for(w, 1001, TIER_LEVEL_TIER1, NULL);
	assert_found(lookup, "");
	caching_forget(lookup);
	lookup = look_for(w, 1000, TIER_LEVEL_OPTIMIZED, NULL);
	assert_found(lookup, "");
	caching_forget(lookup);
}

/* -- Profiles --- */
static void code_is_found_when_the_profile_says_the_same(void **state)
{
	const struct counts many = counts(1000, 900), few = counts(30, 26);
	struct world *w = *state;
	struct lookup *lookup;

	kept_with(w, &many, "code");
	lookup = look(w, &few);
	assert_found(lookup, "code");
	caching_forget(lookup);
}

static void another_profile_is_added_and_the_result_replaces_the_entry(void **state)
{
	const struct counts old = counts(100, 90), own = counts(30, 0), sum = counts(130, 90);
	struct world *w = *state;
	struct lookup *lookup;

	kept_with(w, &old, "old");
	lookup = look(w, &own);
	assert_found(lookup, "");
	assert_profile(lookup, &sum);
	keep(lookup, "new");
	lookup = look(w, &sum);
	assert_found(lookup, "new");
	caching_forget(lookup);
	lookup = look(w, &old);			/* 90 of 100 is more than 90 of 130, but not by a quarter */
	assert_found(lookup, "new");
	caching_forget(lookup);
}

static void who_was_not_counted_gets_the_profile_that_was_known(void **state)
{
	const struct counts old = counts(100, 90);
	struct world *w = *state;
	struct lookup *lookup;

	kept_with(w, &old, "code");
	lookup = look(w, NULL);
	assert_found(lookup, "code");
	assert_profile(lookup, NULL);
	caching_forget(lookup);
}

static void code_that_was_made_without_a_profile_gives_way(void **state)
{
	const struct counts own = counts(30, 3), hardly = counts(15, 3);
	struct world *w = *state;
	struct lookup *lookup;

	kept_with(w, NULL, "plain");
	lookup = look(w, &hardly);
	assert_found(lookup, "plain");
	caching_forget(lookup);
	lookup = look(w, &own);
	assert_found(lookup, "");
	assert_profile(lookup, &own);
	keep(lookup, "profiled");
	lookup = look(w, &own);
	assert_found(lookup, "profiled");
	caching_forget(lookup);
}

/* Profiles of the entry that the job has as anybody could write them */
static void kept_with_bytes(struct world *w, const void *profiles, size_t n)
{
	struct { char word[8]; uint32_t uid, reserved; struct compiler compiler; } head = { "TIERKEY", 1000, 0, compiler };
	uint8_t key[4096];
	size_t n_job;
	int fd = job_of(TIER_LEVEL_TIER1, NULL, &n_job);
	const struct entry entry = {
		.key = { key, sizeof(head) + n_job }, .profiles = { profiles, n }, .code = { "code", 4 },
	};

	memcpy(key, &head, sizeof(head));
	assert_int_equal(pread(fd, key + sizeof(head), n_job, 0), n_job);
	close(fd);
	assert_int_equal(cache_keep(w->caching.cache, 1000, &entry), 0);	/* the thread has nothing to do */
}

static void hostile_profiles_are_as_good_as_none(void **state)
{
	const struct counts own = counts(30, 3), same = counts(30, 27);
	struct { uint64_t n; struct counts counts; uint64_t n_callee; } profiles = { N_COUNTS, counts(100, 90), 0 };
	struct world *w = *state;
	struct lookup *lookup;

	kept_with_bytes(w, &profiles, sizeof(profiles));	/* sound: the format is as this test thinks */
	lookup = look(w, &same);
	assert_found(lookup, "code");
	caching_forget(lookup);
	for (int i = 0; i < 7; i++) {
		profiles.n = i == 0 ? UINT64_MAX : i == 1 ? 2 : N_COUNTS;
		profiles.counts = counts(100, 90);
		profiles.counts.at[1].m = i == 2 ? UINT32_MAX : 90;
		profiles.counts.at[1].kind = i == 3 ? 77 : PROFILE_BRANCH;
		profiles.counts.at[2].pc = i == 4 ? UINT32_MAX : 1;
		profiles.n_callee = i == 5 ? 1 : 0;
		kept_with_bytes(w, &profiles, i == 6 ? 3 : sizeof(profiles));
		lookup = look(w, &own);
		assert_found(lookup, "");
		if (i != 5)
			assert_profile(lookup, &own);
		caching_forget(lookup);
	}
}

/* -- Ends --- */
static void who_is_forgotten_is_not_told(void **state)
{
	struct world *w = *state;
	struct lookup *lookup = begin_look(w, 1000, TIER_LEVEL_TIER1, NULL);

	caching_forget(lookup);
	caching_forget(NULL);
	lookup = look(w, NULL);			/* one after the other: the first is over */
	assert_found(lookup, "");
	caching_forget(lookup);
}

static void refused_code_goes(void **state)
{
	struct world *w = *state;
	struct lookup *lookup;

	kept_with(w, NULL, "unsound");
	lookup = look(w, NULL);
	assert_found(lookup, "unsound");
	caching_refuse(lookup);
	caching_forget(lookup);
	lookup = look(w, NULL);
	assert_found(lookup, "");
	keep(lookup, "sound");
	lookup = look(w, NULL);
	assert_found(lookup, "sound");
	caching_forget(lookup);
}

static void what_is_to_be_kept_at_the_end_is_kept(void **state)
{
	struct world *w = *state;
	struct lookup *lookup;

	kept_with(w, NULL, "code");
	caching_stop(&w->caching);
	caching_close(&w->caching);
	assert_int_equal(caching_open(&w->caching, &w->dispatch, w->path, 1 << 20), 0);
	lookup = look(w, NULL);
	assert_found(lookup, "code");
	caching_forget(lookup);
}

#define CACHING_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
int main(void)
{
	const struct CMUnitTest tests[] = {
		CACHING_TEST(what_was_kept_is_found_for_the_same_job),
		CACHING_TEST(another_uid_or_level_finds_nothing),
		CACHING_TEST(code_is_found_when_the_profile_says_the_same),
		CACHING_TEST(another_profile_is_added_and_the_result_replaces_the_entry),
		CACHING_TEST(who_was_not_counted_gets_the_profile_that_was_known),
		CACHING_TEST(code_that_was_made_without_a_profile_gives_way),
		CACHING_TEST(hostile_profiles_are_as_good_as_none),
		CACHING_TEST(who_is_forgotten_is_not_told),
		CACHING_TEST(refused_code_goes),
		CACHING_TEST(what_is_to_be_kept_at_the_end_is_kept),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
