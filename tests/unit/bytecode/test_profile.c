/* SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include "bytecode/profile.h"
#include "code.h"

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define N_METHODS     5u
#define BASE          0x200000000040ull

/* Everything that is counted, and what is not: word numbers are in the comments. */
static const struct insn all_kinds[] = {
	JMP_K(BPF_JEQ, 1, 0, 1),                /*  0: 1, 2 */
	LDDW(2, INSN_REF_NONE, -1, -1),         /*  1 */
	CALL(INSN_CALL_METHOD, 0),              /*  3: 3 */
	CALLX(2),                               /*  4: 4, 5; target 6, 7; 8 and 9 unused */
	CALL(INSN_CALL_IMPORT, 1),              /*  5: 10 */
	CALLX(2),                               /*  6: 11, 12; target 14, 15; 13 and 16 unused */
	INSN(BPF_JMP32 | BPF_JLT, 1, 0, -2, 3), /*  7: 17, 18 */
	GOTOL(0),                               /*  8 */
	JA(0),                                  /*  9 */
	EXIT,
};

static struct profile_map *map_of(const struct insn *insns, uint32_t n)
{
	struct profile_map *map;

	assert_int_equal(profile_map_new(&map, insns, n), 0);
	assert_int_equal(profile_n_words(insns, n), map->n_words);
	assert_int_equal(map->n_words % 2, 0);
	return map;
}

static uint32_t n_asked;

static uint32_t method_of(void *context, uint64_t address)
{
	n_asked++;
	assert_ptr_equal(context, &n_asked);
	return address >= BASE && address < BASE + N_METHODS && address != BASE ? (uint32_t)(address - BASE)
										: PROFILE_NO_METHOD;
}

static void set_target(uint32_t *words, const struct profile_site *site, uint64_t address)
{
	memcpy(&words[profile_target(site)], &address, sizeof(address));
}

/* -- The map --- */
static void a_body_without_branches_counts_its_calls_only(void **state)
{
	const struct insn insns[] = { MOV_K(0, 1), EXIT };
	struct profile_map *map = map_of(insns, ARRAY_SIZE(insns));

	assert_int_equal(map->n_sites, 1);
	assert_int_equal(map->n_words, 2);
	assert_int_equal(map->sites[0].kind, PROFILE_ENTRY);
	assert_int_equal(map->sites[0].word, 0);
	free(map);
}

static void every_site_has_its_words(void **state)
{
	static const struct profile_site expected[] = {
		{ 0, PROFILE_ENTRY, 0 }, { 0, PROFILE_BRANCH, 1 }, { 3, PROFILE_CALL, 3 }, { 4, PROFILE_CALLX, 4 },
		{ 5, PROFILE_CALL, 10 }, { 6, PROFILE_CALLX, 11 }, { 7, PROFILE_BRANCH, 17 },
	};
	struct profile_map *map = map_of(all_kinds, ARRAY_SIZE(all_kinds));

	assert_int_equal(map->n_sites, ARRAY_SIZE(expected));
	assert_memory_equal(map->sites, expected, sizeof(expected));
	assert_int_equal(map->n_words, 20);
	assert_int_equal(profile_target(&map->sites[3]), 6);
	assert_int_equal(profile_target(&map->sites[5]), 14);
	free(map);
}

/* Whatever stands in front: no word belongs to two sites, none lies behind the end, and targets are aligned. */
static void words_of_sites_never_overlap(void **state)
{
	struct insn insns[200];

	srand(1);
	for (int round = 0; round < 500; round++) {
		uint8_t used[2 + 6 * ARRAY_SIZE(insns)] = { 0 };
		struct profile_map *map;

		for (size_t i = 0; i < ARRAY_SIZE(insns); i++)
			insns[i] = (const struct insn[]){ CALLX(3), CALL(INSN_CALL_METHOD, 0), JMP_K(BPF_JNE, 1, 0, -1),
			                                 MOV_K(0, 0)}[rand() % 4];
		map = map_of(insns, ARRAY_SIZE(insns));
		for (uint32_t i = 0; i < map->n_sites; i++) {
			const struct profile_site *site = &map->sites[i];

			assert_false(used[site->word]++);
			if (site->kind == PROFILE_BRANCH || site->kind == PROFILE_CALLX)
				assert_false(used[site->word + 1]++);
			if (site->kind != PROFILE_CALLX)
				continue;
			assert_int_equal(profile_target(site) % 2, 0);
			assert_false(used[profile_target(site)]++);
			assert_false(used[profile_target(site) + 1]++);
			assert_true(profile_target(site) + 1 < site->word + 6);
		}
		for (size_t word = map->n_words; word < sizeof(used); word++)
			assert_int_equal(used[word], 0);
		free(map);
	}
}

/* -- Reading --- */
static void counts_are_read_as_they_were_written(void **state)
{
	struct profile_map *map = map_of(all_kinds, ARRAY_SIZE(all_kinds));
	uint32_t words[20] = {
		[0] = 7, [1] = 9, [2] = 4, [3] = 5, [4] = 6, [5] = 2, [10] = 1, [11] = 8, [12] = 8, [17] = 3 };
	const struct profile_count expected[] = {
		{ 0, PROFILE_ENTRY, 7, 0, PROFILE_NO_METHOD, 0 }, { 0, PROFILE_BRANCH, 9, 4, PROFILE_NO_METHOD, 0 },
		{ 3, PROFILE_CALL, 5, 0, PROFILE_NO_METHOD, 0 }, { 4, PROFILE_CALLX, 6, 2, 3, 0 },
		{ 5, PROFILE_CALL, 1, 0, PROFILE_NO_METHOD, 0 }, { 6, PROFILE_CALLX, 8, 8, 1, 0 },
		{ 7, PROFILE_BRANCH, 3, 0, PROFILE_NO_METHOD, 0 },
	};
	struct profile_count counts[ARRAY_SIZE(expected)];

	set_target(words, &map->sites[3], BASE + 3);
	set_target(words, &map->sites[5], BASE + 1);
	assert_true(profile_read(map, words, method_of, &n_asked, counts));
	assert_memory_equal(counts, expected, sizeof(expected));
	free(map);
}

static void nothing_counted_is_no_profile(void **state)
{
	struct profile_map *map = map_of(all_kinds, ARRAY_SIZE(all_kinds));
	struct profile_count counts[7];
	uint32_t words[20] = { 0 };

	assert_false(profile_read(map, words, method_of, &n_asked, counts));
	for (uint32_t i = 0; i < map->n_sites; i++)
		assert_int_equal(counts[i].pc, map->sites[i].pc);
	words[2] = words[5] = words[18] = 12; /* parts of nothing */
	assert_false(profile_read(map, words, method_of, &n_asked, counts));
	words[17] = 1;
	assert_true(profile_read(map, words, method_of, &n_asked, counts));
	free(map);
}

static void a_target_without_votes_is_not_asked_for(void **state)
{
	struct profile_map *map = map_of(all_kinds, ARRAY_SIZE(all_kinds));
	struct profile_count counts[7];
	uint32_t words[20] = { [4] = 6, [12] = 5 };

	set_target(words, &map->sites[3], BASE + 3);
	set_target(words, &map->sites[5], BASE + 3);
	n_asked = 0;
	assert_true(profile_read(map, words, method_of, &n_asked, counts));
	assert_int_equal(n_asked, 0);
	assert_int_equal(counts[3].method, PROFILE_NO_METHOD);
	assert_int_equal(counts[5].method, PROFILE_NO_METHOD);
	free(map);
}

static void check_promises(const struct profile_map *map, const struct profile_count *counts, bool any)
{
	bool counted = false;

	for (uint32_t i = 0; i < map->n_sites; i++) {
		const struct profile_count *count = &counts[i];

		assert_int_equal(count->pc, map->sites[i].pc);
		assert_int_equal(count->kind, map->sites[i].kind);
		assert_int_equal(count->reserved, 0);
		assert_true(count->m <= count->n);
		if (count->kind == PROFILE_ENTRY || count->kind == PROFILE_CALL)
			assert_int_equal(count->m, 0);
		if (count->kind != PROFILE_CALLX)
			assert_int_equal(count->method, PROFILE_NO_METHOD);
		assert_true(count->method < N_METHODS || count->method == PROFILE_NO_METHOD);
		counted |= count->n;
	}
	assert_int_equal(any, counted);
}

static void every_promise_holds_for_any_content(void **state)
{
	struct profile_map *map = map_of(all_kinds, ARRAY_SIZE(all_kinds));
	struct profile_count counts[7];
	uint32_t words[20];

	srand(1);
	for (int round = 0; round < 20000; round++) {
		for (size_t i = 0; i < ARRAY_SIZE(words); i++)
			words[i] = (const uint32_t[]){ 0, 1, 2, UINT32_MAX, 0x80000000, rand() }[rand() % 6];
		if (rand() % 2)
			set_target(words, &map->sites[3], BASE + rand() % 6);
		memset(counts, 0xaa, sizeof(counts));
		check_promises(map, counts, profile_read(map, words, method_of, &n_asked, counts));
	}
	free(map);
}

/* The words end at the end of the last page that is mapped: nothing behind them is looked at, whatever they hold. */
static void nothing_behind_the_words_is_read(void **state)
{
	struct profile_map *map = map_of(all_kinds, ARRAY_SIZE(all_kinds));
	uint8_t *pages = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint32_t *words = (uint32_t *)(pages + 4096) - map->n_words;
	struct profile_count counts[7];

	assert_ptr_not_equal(pages, MAP_FAILED);
	memset(words, 0xff, map->n_words * sizeof(*words));
	assert_int_equal(mprotect(pages + 4096, 4096, PROT_NONE), 0);
	check_promises(map, counts, profile_read(map, words, method_of, &n_asked, counts));
	munmap(pages, 8192);
	free(map);
}

struct writer {
	uint32_t words[20];
	bool ends;
};

/* n and m of a branch go up and down so that a second look at either would break "m is at most n". */
static void *write_words(void *userdata)
{
	struct writer *writer = userdata;

	for (uint32_t i = 0; !__atomic_load_n(&writer->ends, __ATOMIC_RELAXED); i++)
		for (size_t word = 0; word < ARRAY_SIZE(writer->words); word++)
			__atomic_store_n(&writer->words[word], i & 1 ? UINT32_MAX : word & 1 ? 5 : 0, __ATOMIC_RELAXED);
	return NULL;
}

static void every_promise_holds_while_somebody_writes(void **state)
{
	struct profile_map *map = map_of(all_kinds, ARRAY_SIZE(all_kinds));
	struct writer writer = { .ends = false };
	struct profile_count counts[7];
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, write_words, &writer), 0);
	for (int round = 0; round < 20000; round++)
		check_promises(map, counts, profile_read(map, writer.words, method_of, &n_asked, counts));
	__atomic_store_n(&writer.ends, true, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	free(map);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_body_without_branches_counts_its_calls_only),
		cmocka_unit_test(every_site_has_its_words),
		cmocka_unit_test(words_of_sites_never_overlap),
		cmocka_unit_test(counts_are_read_as_they_were_written),
		cmocka_unit_test(nothing_counted_is_no_profile),
		cmocka_unit_test(a_target_without_votes_is_not_asked_for),
		cmocka_unit_test(every_promise_holds_for_any_content),
		cmocka_unit_test(nothing_behind_the_words_is_read),
		cmocka_unit_test(every_promise_holds_while_somebody_writes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
