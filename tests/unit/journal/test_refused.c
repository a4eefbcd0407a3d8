/* SPDX-License-Identifier: Apache-2.0 */
#include "unit/journal/world.h"

/* A disk that refuses for good and comes back, and a folder from which somebody removes things: memory holds what it can, the log says
 * what is wrong once, and what could not be kept is a marked gap. */

#define MEMORY 100u

static void write_all(struct world *world)
{
	while (!all_is_written(world))
		turn(world);
}

/* Events first … last are on the disk, with the gap before them marked. */
static void on_disk(struct world *world, uint64_t gap_first, uint64_t first, uint64_t last)
{
	const struct segment *segment;

	stop(world);
	assert_int_equal(place_open(&world->place), 0);
	assert_false(world->place.folder.is_damaged);
	segment = index_find(&world->place.index, first);
	assert_non_null(segment);
	if (gap_first < first) {
		assert_int_equal(segment->first, first);
		assert_int_equal(segment->gap_first, gap_first);
	}
	assert_int_equal(index_newest(&world->place.index)->last, last);
	for (segment = index_next(&world->place.index, segment); segment; segment = index_next(&world->place.index, segment))
		assert_int_equal(segment->gap_first, segment->first);
}

/* -- Refusals --- */
static const struct {
	int code;
	const char *text;
} refusals[] = {
	{ ENOSPC, "No space left on device" },
	{ EDQUOT, "Disk quota exceeded" },
	{ EIO, "Input/output error" },
	{ EROFS, "Read-only file system" },
};

static void turns(struct world *world, unsigned int n)
{
	while (n--)
		turn(world);
}

static void refuse(struct world *world, int code, uint64_t first, uint64_t last)
{
	fault_errno = code;
	fault_stays = true;
	for (uint64_t s = first; s <= last; s++) {
		append(world, s, s);
		reads(world, s, s);		/* told, from memory */
		if (s % 16 == 0)
			turns(world, 3);	/* some retries, too */
	}
	assert_true(journal_newest_on_disk(world->journal) < last);
	fault_stays = false;
}

static void nothing_is_lost_while_memory_holds(void **state)
{
	struct world *world = *state;
	uint64_t next = 1;
	char text[64];

	world->config.sync = JOURNAL_SYNC_RECORD;
	world->config.retry_ns = 2000000;
	assert_int_equal(start(world, MEMORY), 0);
	for (size_t i = 0; i < ARRAY_SIZE(refusals); i++) {
		append(world, next, next + 9);
		write_all(world);
		refuse(world, refusals[i].code, next + 10, next + 10 + MEMORY - 11);
		snprintf(text, sizeof(text), "%s; events are kept in memory", refusals[i].text);
		assert_int_equal(said(world, text), 1);
		next += MEMORY;
		write_all(world);
		assert_int_equal(said(world, "can write events"), i + 1);
		reads(world, 1, next - 1);
	}
	assert_int_equal(said(world, "are missing"), 0);
	on_disk(world, 1, 1, next - 1);
}

static void what_it_cannot_hold_is_a_marked_gap(void **state)
{
	struct world *world = *state;
	struct tier_event event;
	uint64_t last;

	world->config.retry_ns = 2000000;
	for (size_t i = 0; i < ARRAY_SIZE(refusals); i++) {
		const uint64_t before = 1000 * i;

		assert_int_equal(start(world, MEMORY), 0);
		append(world, before + 1, before + 10);
		write_all(world);
		refuse(world, refusals[i].code, before + 11, before + 500);
		reads(world, before + 401, before + 500);
		write_all(world);
		assert_int_equal(read_at(world, before + 11, &event, 1, &last), 0);
		assert_in_range(last, before + 400 - 16, before + 400);	/* an attempt under way may have what memory has not */
		append_slowly(world, before + 501, before + 1000);
		gap(world, before + 11, last);
		assert_int_equal(said(world, "are missing"), i + 1);
		on_disk(world, before + 11, last + 1, before + 1000);
		place_close(&world->place);
	}
}

/* -- Removals --- */
static void order(const struct world *world, const char *format)
{
	char command[256];

	snprintf(command, sizeof(command), format, world->place.path);
	assert_int_equal(system(command), 0);
}

static void deflates(struct world *world, uint64_t first)
{
	while (place_has(&world->place, first, TIER_SEGMENT_RAW_SUFFIX))
		turn(world);
}

static void a_folder_that_is_removed_is_made_again(void **state)
{
	struct world *world = *state;

	assert_int_equal(start(world, MEMORY), 0);
	append_slowly(world, 1, 3 * SEGMENT + 10);
	deflates(world, 2 * SEGMENT + 1);
	order(world, "rm -r '%s'");
	append(world, 3 * SEGMENT + 11, 3 * SEGMENT + 20);
	reads(world, 3 * SEGMENT + 20 - MEMORY + 1, 3 * SEGMENT + 20);
	write_all(world);
	assert_int_equal(said(world, "events are kept in memory"), 1);
	assert_int_equal(said(world, "somebody removed events from 1 on from"), 1);
	append_slowly(world, 3 * SEGMENT + 21, 3 * SEGMENT + 90);
	gap(world, 1, 3 * SEGMENT + 20 - MEMORY);
	reads(world, 3 * SEGMENT + 20 - MEMORY + 1, 3 * SEGMENT + 90);
	assert_int_equal(said(world, "can write events"), 1);
	on_disk(world, 1, 3 * SEGMENT + 20 - MEMORY + 1, 3 * SEGMENT + 90);
}

static void a_folder_that_is_emptied_is_filled_again(void **state)
{
	struct world *world = *state;

	assert_int_equal(start(world, MEMORY), 0);
	append_slowly(world, 1, 2 * SEGMENT + 10);
	deflates(world, SEGMENT + 1);
	order(world, "rm '%s'/*");
	append(world, 2 * SEGMENT + 11, 2 * SEGMENT + 11);
	write_all(world);
	gap(world, 1, 2 * SEGMENT + 11 - MEMORY);
	on_disk(world, 1, 2 * SEGMENT + 12 - MEMORY, 2 * SEGMENT + 11);
}

static void a_segment_that_is_removed_is_written_again(void **state)
{
	struct world *world = *state;

	assert_int_equal(start(world, MEMORY), 0);
	append_slowly(world, 1, 2 * SEGMENT + 10);
	deflates(world, SEGMENT + 1);
	assert_int_equal(unlink(place_file(&world->place, 2 * SEGMENT + 1, TIER_SEGMENT_RAW_SUFFIX)), 0);
	append(world, 2 * SEGMENT + 11, 2 * SEGMENT + 12);
	write_all(world);
	reads(world, 1, 2 * SEGMENT + 12);
	assert_int_equal(said(world, "somebody removed events from 129 on from"), 1);
	on_disk(world, 1, 1, 2 * SEGMENT + 12);
}

/* Removed, and nobody can make it again for a while: the parent is gone as well. */
static void what_cannot_be_made_again_waits(void **state)
{
	struct world *world = *state;
	char inner[128];

	snprintf(inner, sizeof(inner), "%s/a/b", world->place.path);
	world->config.folder = inner;
	world->config.retry_ns = 2000000;
	assert_int_equal(start(world, MEMORY), 0);
	append_slowly(world, 1, 10);
	order(world, "rm -r '%s'");
	append(world, 11, 11);
	reads(world, 1, 11);
	while (!said(world, "events are kept in memory"))
		turn(world);
	turns(world, 20);
	append(world, 12, 20);
	reads(world, 1, 20);
	assert_int_equal(journal_newest_on_disk(world->journal), 10);
	assert_int_equal(mkdir(world->place.path, 0700), 0);
	write_all(world);
	reads(world, 1, 20);
	stop(world);
	world->config.folder = inner;
	assert_int_equal(start(world, MEMORY), 0);
	reads(world, 1, 20);
}

static void what_was_removed_is_there_at_a_clean_end(void **state)
{
	struct world *world = *state;

	assert_int_equal(start(world, MEMORY), 0);
	append_slowly(world, 1, 20);
	order(world, "rm '%s'/*");
	append(world, 21, 25);
	on_disk(world, 1, 1, 25);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup_without, teardown)
#define TEST_WITH_FAULTS(f) cmocka_unit_test_setup_teardown(f, setup_faults, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST_WITH_FAULTS(nothing_is_lost_while_memory_holds),
		TEST_WITH_FAULTS(what_it_cannot_hold_is_a_marked_gap),
		TEST(a_folder_that_is_removed_is_made_again),
		TEST(a_folder_that_is_emptied_is_filled_again),
		TEST(a_segment_that_is_removed_is_written_again),
		TEST(what_cannot_be_made_again_waits),
		TEST(what_was_removed_is_there_at_a_clean_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
