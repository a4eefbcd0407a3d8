/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>
#include "cache/agree.h"

/* When code made with one profile is good enough for another */

#define N 4
struct counts { struct profile_count at[N]; };

/* Entry, a branch, a call, a callx */
static struct counts counts(uint32_t entries, uint32_t branches, uint32_t taken, uint32_t calls, uint32_t callx, uint32_t votes,
			    uint32_t target)
{
	return (struct counts){ {
		{ .kind = PROFILE_ENTRY, .n = entries, .method = PROFILE_NO_METHOD },
		{ .pc = 2, .kind = PROFILE_BRANCH, .n = branches, .m = taken, .method = PROFILE_NO_METHOD },
		{ .pc = 3, .kind = PROFILE_CALL, .n = calls, .method = PROFILE_NO_METHOD },
		{ .pc = 5, .kind = PROFILE_CALLX, .n = callx, .m = votes, .method = target },
	} };
}

static bool says_the_same(struct counts own, struct counts old)
{
	assert_true(agree_sites(own.at, old.at, N));
	return agree(own.at, old.at, N);
}

static void ratios_within_a_quarter_are_the_same(void **state)
{
	const struct counts old = counts(1000, 10000, 5000, 2000, 1000, 900, 3);

	assert_true(says_the_same(counts(30, 300, 150, 60, 30, 30, 3), old));
	assert_true(says_the_same(counts(30, 300, 225, 60, 30, 30, 3), old));
	assert_false(says_the_same(counts(30, 300, 226, 60, 30, 30, 3), old));	/* more taken */
	assert_true(says_the_same(counts(30, 300, 75, 60, 30, 30, 3), old));
	assert_false(says_the_same(counts(30, 300, 74, 60, 30, 30, 3), old));	/* less taken */
	assert_true(says_the_same(counts(30, 300, 150, 80, 30, 30, 3), old));
	assert_false(says_the_same(counts(30, 300, 150, 81, 30, 30, 3), old));	/* called more often per entry */
	assert_false(says_the_same(counts(30, 300, 150, 44, 30, 30, 3), old));
}

static void another_target_is_another_profile(void **state)
{
	const struct counts old = counts(1000, 0, 0, 0, 1000, 900, 3);

	assert_true(says_the_same(counts(30, 0, 0, 0, 30, 30, 3), old));
	assert_false(says_the_same(counts(30, 0, 0, 0, 30, 30, 4), old));
	assert_false(says_the_same(counts(30, 0, 0, 0, 30, 0, 3), old));	/* nobody has a majority any more */
	assert_false(says_the_same(counts(30, 0, 0, 0, 30, 30, 3), counts(1000, 0, 0, 0, 1000, 0, 3)));
	assert_true(says_the_same(counts(30, 0, 0, 0, 30, 0, 1), counts(1000, 0, 0, 0, 1000, 0, 3)));
	assert_true(says_the_same(counts(30, 0, 0, 0, 30, 30, PROFILE_NO_METHOD), counts(1000, 0, 0, 0, 1000, 900, PROFILE_NO_METHOD)));
}

static void what_was_hardly_seen_does_not_count(void **state)
{
	const struct counts old = counts(1000, 10000, 0, 0, 0, 0, PROFILE_NO_METHOD);

	assert_true(says_the_same(counts(15, 15, 15, 15, 15, 15, 2), old));
	assert_false(says_the_same(counts(16, 16, 16, 0, 0, 0, 2), old));
	assert_false(says_the_same(counts(16, 0, 0, 16, 0, 0, 2), old));	/* never called when that code was made */
}

static void numbers_at_their_limits_are_compared_all_the_same(void **state)
{
	const uint32_t max = UINT32_MAX;
	const struct counts old = counts(max, max, max, max, max, max, 1);

	assert_true(says_the_same(old, old));
	assert_false(says_the_same(counts(max, max, 0, max, max, max, 1), old));
	assert_false(says_the_same(counts(max, max, max, max, max, max, 1), counts(0, max, max, max, max, max, 1)));
	assert_true(says_the_same(counts(0, 0, 0, 0, 0, 0, 0), old));
}

static void other_sites_are_noticed(void **state)
{
	const struct counts own = counts(30, 30, 3, 30, 30, 30, 1);
	struct counts old = own;

	old.at[1].pc++;
	assert_false(agree_sites(own.at, old.at, N));
	old = own;
	old.at[2].kind = PROFILE_BRANCH;
	assert_false(agree_sites(own.at, old.at, N));
	old = own;
	old.at[1].m = 31;
	assert_false(agree_sites(own.at, old.at, N));
	old = own;
	old.at[0].reserved = 1;
	assert_false(agree_sites(own.at, old.at, N));
	old = own;
	old.at[3].method = 77;	/* a target may be any */
	assert_true(agree_sites(own.at, old.at, N));
}

static void sums_saturate_and_keep_their_promises(void **state)
{
	const uint32_t max = UINT32_MAX;
	struct counts own = counts(30, 100, 90, 7, 30, 20, 3);
	struct counts old = counts(max, max, max, 3, 40, 30, 4);

	agree_add(own.at, old.at, N);
	assert_int_equal(own.at[0].n, max);
	assert_int_equal(own.at[1].n, max);
	assert_int_equal(own.at[1].m, max);
	assert_int_equal(own.at[2].n, 10);
	assert_int_equal(own.at[3].n, 70);
	assert_int_equal(own.at[3].method, 4);	/* 30 votes against 20 */
	assert_int_equal(own.at[3].m, 10);
	old = counts(0, 0, 0, 0, 10, 8, 4);
	agree_add(own.at, old.at, N);
	assert_int_equal(own.at[3].m, 18);
	for (int i = 0; i < N; i++)
		assert_true(own.at[i].m <= own.at[i].n);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ratios_within_a_quarter_are_the_same),
		cmocka_unit_test(another_target_is_another_profile),
		cmocka_unit_test(what_was_hardly_seen_does_not_count),
		cmocka_unit_test(numbers_at_their_limits_are_compared_all_the_same),
		cmocka_unit_test(other_sites_are_noticed),
		cmocka_unit_test(sums_saturate_and_keep_their_promises),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
