/* SPDX-License-Identifier: Apache-2.0 */
#include "unit/journal/world.h"

/* A journal that starts on a torn folder: a file that is cut or has a flipped bit at any byte of its last two records, or at any byte
 * of a deflated segment. What is whole comes back, the log says what is not, no number is given twice, and the gap is marked. */

#define N 5u			/* records of the torn segment */
#define DEFLATED 40u		/* of the deflated one before it */

static void clean(struct world *world)
{
	char command[128];

	place_close(&world->place);
	snprintf(command, sizeof(command), "rm -f '%s'/*", world->place.path);
	assert_int_equal(system(command), 0);
	assert_int_equal(truncate(world->log, 0), 0);
}

static void flip(const char *path, uint64_t at)
{
	int fd = open(path, O_RDWR);
	unsigned char byte;

	assert_int_equal(pread(fd, &byte, 1, at), 1);
	byte ^= 1u << at % 8;
	assert_int_equal(pwrite(fd, &byte, 1, at), 1);
	close(fd);
}

/* The events first … whole are there, numbers up to @used were given, and the history goes on behind them. */
static void goes_on(struct world *world, uint64_t first, uint64_t whole, uint64_t used)
{
	assert_int_equal(start(world, 100), 0);
	assert_int_equal(journal_newest(world->journal), used);
	reads(world, first, whole);
	if (whole < used)
		gap(world, whole + 1, used);
	append(world, used + 1, used + 3);
	while (!all_is_written(world))
		turn(world);
	reads(world, used + 1, used + 3);
	assert_int_equal(said(world, " are missing in "), whole < used);
	stop(world);
	assert_int_equal(place_open(&world->place), 0);
	assert_false(world->place.folder.is_damaged);
	assert_int_equal(index_newest(&world->place.index)->last, used + 3);
	if (whole < used)
		assert_int_equal(index_newest(&world->place.index)->gap_first, whole + 1);
	clean(world);
}

static void says_where(struct world *world, uint64_t whole, unsigned int n)
{
	char text[64];

	snprintf(text, sizeof(text), "is damaged at offset %lu, event %lu", (unsigned long)(whole + 1) * 64, (unsigned long)whole + 1);
	assert_int_equal(said(world, text), n);
}

static void a_cut_at_any_byte_of_the_last_two_records(void **state)
{
	struct world *world = *state;

	world->config.sync = JOURNAL_SYNC_NEVER;
	for (uint64_t length = (N - 1) * 64; length <= (N + 1) * 64; length++) {
		const uint64_t whole = length / 64 - 1;

		place_write(&world->place, 1, 1, N);
		assert_int_equal(truncate(place_file(&world->place, 1, TIER_SEGMENT_RAW_SUFFIX), length), 0);
		assert_int_equal(start(world, 100), 0);
		says_where(world, whole, length % 64 != 0);
		stop(world);
		goes_on(world, 1, whole, (length - 1) / 64);
	}
}

static void a_flip_at_any_byte_of_the_last_two_records(void **state)
{
	struct world *world = *state;

	world->config.sync = JOURNAL_SYNC_NEVER;
	for (uint64_t at = (N - 1) * 64; at < (N + 1) * 64; at++) {
		place_write(&world->place, 1, 1, N);
		flip(place_file(&world->place, 1, TIER_SEGMENT_RAW_SUFFIX), at);
		assert_int_equal(start(world, 100), 0);
		says_where(world, at / 64 - 1, 1);
		stop(world);
		goes_on(world, 1, at / 64 - 1, N);
	}
}

/* -- Deflated --- */
/* 1 … DEFLATED in a deflated segment; with N more in a raw one behind it */
static uint64_t deflate(struct world *world, bool has_raw)
{
	struct place *place = &world->place;
	struct segment segment;

	place_write(place, 1, 1, DEFLATED);
	assert_int_equal(place_open(place), 0);
	segment = *index_newest(&place->index);
	assert_int_equal(segment_deflate(place->folder.fd, &segment), 0);
	assert_int_equal(folder_promise(&place->folder, 1000, true), 0);
	if (has_raw)
		place_write(place, DEFLATED + 1, DEFLATED + 1, DEFLATED + N);
	place_close(place);
	return segment.n_bytes;
}

/* Every event that is read is the right one, and those that are not are a gap; how many there are of 1 … DEFLATED. */
static uint64_t count_whole(struct world *world)
{
	struct tier_event events[DEFLATED], expected;
	uint64_t n = 0, gap_last;

	for (uint64_t next = 1; next <= DEFLATED;) {
		uint32_t got;
		int r;

		while ((r = journal_read(world->journal, next, events, DEFLATED, &got, &gap_last)) == JOURNAL_E_LATER)
			turn(world);
		if (r) {
			assert_true(gap_last >= next);
			next = gap_last + 1;
			continue;
		}
		for (uint32_t i = 0; i < got; i++, next++) {
			expected = place_event(next);
			assert_memory_equal(&events[i], &expected, sizeof(expected));
			n += next <= DEFLATED;
		}
		assert_true(got > 0);
	}
	return n;
}

static void deflated_goes_on(struct world *world, bool has_raw, bool is_torn)
{
	uint64_t newest, n;

	assert_int_equal(start(world, 2), 0);
	newest = journal_newest(world->journal);
	assert_true(has_raw ? newest == DEFLATED + N : newest >= DEFLATED);
	n = count_whole(world);
	assert_true(n == DEFLATED || is_torn);
	/* whatever is not there is said: at the start, or when it was read */
	if (n < DEFLATED)
		assert_int_equal(said(world, "is damaged at") + said(world, "cannot read a segment"), 1);
	if (has_raw)
		reads(world, DEFLATED + 1, DEFLATED + N);
	append_slowly(world, newest + 1, newest + 3);
	reads(world, newest + 1, newest + 3);
	stop(world);
	clean(world);
}

static void a_deflated_segment_that_is_torn_anywhere(void **state)
{
	struct world *world = *state;

	const uint64_t step = getenv("TIER_TEST_LONG") ? 1 : 11;

	world->config.sync = JOURNAL_SYNC_NEVER;
	for (int has_raw = 0; has_raw < 2; has_raw++) {
		const uint64_t size = deflate(world, has_raw);

		deflated_goes_on(world, has_raw, false);
		for (uint64_t at = 0; at < size; at += at < 64 ? 1 : step) {
			deflate(world, has_raw);
			flip(place_file(&world->place, 1, TIER_SEGMENT_DEFLATED_SUFFIX), at);
			deflated_goes_on(world, has_raw, true);
		}
		for (uint64_t length = 0; length < size; length += step) {
			deflate(world, has_raw);
			assert_int_equal(truncate(place_file(&world->place, 1, TIER_SEGMENT_DEFLATED_SUFFIX), length), 0);
			deflated_goes_on(world, has_raw, true);
		}
	}
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup_without, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_cut_at_any_byte_of_the_last_two_records),
		TEST(a_flip_at_any_byte_of_the_last_two_records),
		TEST(a_deflated_segment_that_is_torn_anywhere),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
