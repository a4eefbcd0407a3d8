/* SPDX-License-Identifier: Apache-2.0 */
#include "unit/journal/place.h"
#include "journal/index.h"
#include "util/log.h"

/* Files of the journal by themselves: what recovery makes of every damage to the end of one, and of a deflation that was cut short
 * at every step */

static int setup(void **state)
{
	struct place *place = malloc(sizeof(*place));

	place_setup(place);
	*state = place;
	log_set_fd(open("/dev/null", O_WRONLY | O_CLOEXEC));
	return 0;
}

static int teardown(void **state)
{
	place_teardown(*state);
	free(*state);
	close(log_set_fd(STDERR_FILENO));
	return 0;
}

/* -- The format --- */
static void names_sort_by_number_and_are_read_back(void **state)
{
	static const char *const wrong[] = { "1.events", "0000000000000000001.events", "00000000000000000001.event", "numbers",
					     "00000000000000000000.events", "99999999999999999999.events", "0000000000000000000a.events",
					     "00000000000000000001.events.zz", "" };
	char low[TIER_SEGMENT_NAME_MAX], high[TIER_SEGMENT_NAME_MAX];
	const char *suffix;

	tier_segment_name(low, 999, TIER_SEGMENT_DEFLATED_SUFFIX);
	tier_segment_name(high, 16385, TIER_SEGMENT_RAW_SUFFIX);
	assert_true(strcmp(low, high) < 0);
	assert_int_equal(tier_segment_parse(low, &suffix), 999);
	assert_string_equal(suffix, TIER_SEGMENT_DEFLATED_SUFFIX);
	tier_segment_name(high, UINT64_MAX, TIER_SEGMENT_NEW_SUFFIX);
	assert_int_equal(tier_segment_parse(high, &suffix), UINT64_MAX);
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
		assert_int_equal(tier_segment_parse(wrong[i], &suffix), 0);
}

static void a_segment_is_read_as_it_was_written(void **state)
{
	struct place *place = *state;

	place_write(place, 1, 1, 3000);	/* more than one read's worth */
	place_write(place, 3001, 3001, 3001);
	assert_int_equal(place_open(place), 0);
	assert_int_equal(place->index.n, 2);
	assert_int_equal(place->folder.used, 3001);
	place_check(place, &place->index.segments[0], 1, 3000);
	place_check(place, &place->index.segments[1], 3001, 3001);
}

static void numbers_and_times_are_found(void **state)
{
	struct place *place = *state;
	struct tier_event events[100];

	for (uint64_t first = 11; first < 111; first += 10)
		place_write(place, first, first, first + 9);
	assert_int_equal(place_open(place), 0);
	assert_null(index_find(&place->index, 10));
	assert_null(index_find_time(&place->index, place_event(10).time_ns));
	for (uint64_t s = 11; s < 130; s++) {
		const uint64_t first = s > 110 ? 101 : s - (s - 1) % 10;

		assert_int_equal(index_find(&place->index, s)->first, first);
		assert_int_equal(index_find_time(&place->index, place_event(s).time_ns)->first, first);
		assert_int_equal(index_find_time(&place->index, place_event(s).time_ns + 999)->first, first);
	}
	for (unsigned int i = 0; i < 100; i++)
		events[i] = place_event(i + 1);
	for (uint32_t i = 0; i < 100; i++) {
		assert_int_equal(events_find_time(events, 100, events[i].time_ns), i);
		assert_int_equal(events_find_time(events, 100, events[i].time_ns + 1), i + 1);
	}
	assert_int_equal(events_find_time(events, 0, 1), 0);
}

/* -- Torn files --- */
static void recovers_up_to(struct place *place, uint64_t last)
{
	assert_int_equal(place_open(place), 0);
	if (!last) {
		assert_int_equal(place->index.n, 0);
		return;
	}
	assert_int_equal(place->index.n, 1);
	place_check(place, index_newest(&place->index), 1, last);
	/* and it is whole now: nothing is left to say */
	place_close(place);
	assert_int_equal(place_open(place), 0);
	place_check(place, index_newest(&place->index), 1, last);
}

static void place_forget(const struct place *place)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/" TIER_NUMBERS_NAME, place->path);
	unlink(path);
}

static void a_file_cut_anywhere_recovers_to_the_last_whole_record(void **state)
{
	struct place *place = *state;
	const uint64_t n = 5, size = (n + 1) * 64;

	for (uint64_t length = 0; length <= size; length++) {
		place_write(place, 1, 1, n);
		assert_int_equal(truncate(place_file(place, 1, TIER_SEGMENT_RAW_SUFFIX), length), 0);
		recovers_up_to(place, length < 128 ? 0 : length / 64 - 1);
		assert_int_equal(place->folder.used, length <= 64 ? 0 : (length - 1) / 64);
		place_close(place);
		place_forget(place);
	}
}

static void a_flip_anywhere_recovers_to_the_record_before(void **state)
{
	struct place *place = *state;
	const uint64_t n = 5, size = (n + 1) * 64;

	for (uint64_t at = 64; at < size; at++)
		for (unsigned int bit = 0; bit < 8; bit++) {
			int fd;
			unsigned char byte;

			place_write(place, 1, 1, n);
			fd = open(place_file(place, 1, TIER_SEGMENT_RAW_SUFFIX), O_RDWR);
			assert_int_equal(pread(fd, &byte, 1, at), 1);
			byte ^= 1u << bit;
			assert_int_equal(pwrite(fd, &byte, 1, at), 1);
			close(fd);
			recovers_up_to(place, at / 64 - 1);
			if (at / 64 > 1) {	/* else there is no file any more to tell */
				place_write(place, 1, 1, n);
				place_close(place);
			}
		}
}

/* A daemon that is killed between making a segment and writing to it has lost nothing. */
static void a_segment_that_was_only_made_is_no_damage(void **state)
{
	struct place *place = *state;

	place_write(place, 1, 1, 5);
	assert_int_equal(place_open(place), 0);
	assert_int_equal(folder_promise(&place->folder, 1000, true), 0);
	close(open(place_file(place, 6, TIER_SEGMENT_RAW_SUFFIX), O_WRONLY | O_CREAT, 0600));
	assert_int_equal(place_open(place), 0);
	assert_false(place->folder.is_damaged);
	assert_int_equal(place->folder.used, 5);
	assert_false(place_has(place, 6, TIER_SEGMENT_RAW_SUFFIX));
}

static void the_numbers_of_torn_records_are_not_given_again(void **state)
{
	struct place *place = *state;

	place_write(place, 1, 1, 5);
	assert_int_equal(truncate(place_file(place, 1, TIER_SEGMENT_RAW_SUFFIX), 64 + 3 * 64 + 1), 0);
	assert_int_equal(place_open(place), 0);
	assert_int_equal(index_newest(&place->index)->last, 3);
	assert_int_equal(place->folder.used, 4);
}

static void a_header_is_made_again_from_the_records(void **state)
{
	struct place *place = *state;

	for (unsigned int at = 0; at < 64; at++) {
		int fd;

		place_write(place, 1, 1, 4);
		place_write(place, 7, 7, 9);	/* 5 and 6 are missing, and nothing says so */
		fd = open(place_file(place, 7, TIER_SEGMENT_RAW_SUFFIX), O_WRONLY);
		assert_int_equal(pwrite(fd, "\xa5", 1, at), 1);
		close(fd);
		assert_int_equal(place_open(place), 0);
		assert_int_equal(place->index.n, 2);
		place_check(place, &place->index.segments[1], 7, 9);
		assert_int_equal(place->index.segments[1].gap_first, 5);
		assert_int_equal(place_open(place), 0);
		assert_int_equal(place->index.segments[1].gap_first, 5);
	}
}

static void what_is_torn_between_segments_becomes_a_marked_gap(void **state)
{
	struct place *place = *state;

	place_write(place, 1, 1, 10);
	place_write(place, 11, 11, 20);
	assert_int_equal(truncate(place_file(place, 1, TIER_SEGMENT_RAW_SUFFIX), 64 + 7 * 64 + 5), 0);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(place_open(place), 0);
		assert_int_equal(place->index.n, 2);
		place_check(place, &place->index.segments[0], 1, 7);
		place_check(place, &place->index.segments[1], 11, 20);
		assert_int_equal(place->index.segments[1].gap_first, 8);
	}
}

/* -- Deflation --- */
static void deflating_takes_nothing_away(void **state)
{
	struct place *place = *state;
	struct segment segment;

	place_write(place, 1, 1, 2000);
	assert_int_equal(place_open(place), 0);
	segment = *index_newest(&place->index);
	assert_int_equal(segment_deflate(place->folder.fd, &segment), 0);
	assert_true(segment.is_deflated && segment.n_bytes < 2000 * 64 / 3);
	assert_false(place_has(place, 1, TIER_SEGMENT_RAW_SUFFIX));
	assert_int_equal(place_open(place), 0);
	assert_true(index_newest(&place->index)->is_deflated);
	assert_int_equal(index_newest(&place->index)->n_bytes, segment.n_bytes);
	place_check(place, index_newest(&place->index), 1, 2000);
}

static void a_damaged_stream_gives_what_comes_before(void **state)
{
	struct place *place = *state;
	struct tier_event *events = calloc(2000, sizeof(*events));
	struct segment segment;
	uint64_t n_bad, n = 0;
	int fd;

	place_write(place, 1, 1, 2000);
	assert_int_equal(place_open(place), 0);
	segment = *index_newest(&place->index);
	assert_int_equal(segment_deflate(place->folder.fd, &segment), 0);
	assert_int_equal(truncate(place_file(place, 1, TIER_SEGMENT_DEFLATED_SUFFIX), segment.n_bytes / 2), 0);
	fd = segment_open(place->folder.fd, 1, true);
	assert_int_equal(segment_read(fd, &segment, events, &n_bad), 0);
	while (events[n].sequence == n + 1)
		n++;
	assert_true(n > 100 && n < 2000);
	assert_int_equal(n_bad, 2000 - n);
	for (; n < 2000; n++)
		assert_int_equal(events[n].sequence, 0);
	close(fd);
	free(events);
}

/* Dies, or fails, at the step that @step counts; true when it got there. */
static bool deflate_with_fault(struct place *place, unsigned int step, bool kills)
{
	struct segment segment;
	int status;
	pid_t pid;

	place_write(place, 1, 1, 500);
	unlink(place_file(place, 1, TIER_SEGMENT_DEFLATED_SUFFIX));
	assert_int_equal(place_open(place), 0);
	segment = *index_newest(&place->index);
	assert_false(segment.is_deflated);
	pid = fork();
	if (!pid) {
		faults_begin();
		fault_countdown = step;
		fault_kills = kills;
		fault_errno = ENOSPC;
		_exit(segment_deflate(place->folder.fd, &segment) == -ENOSPC || !fault_countdown ? 77 : 0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status) == 77;
}

static void dying_at_any_step_of_deflating_loses_nothing(void **state)
{
	struct place *place = *state;
	unsigned int step = 0;

	for (int kills = 0; kills < 2; kills++) {
		for (step = 1; deflate_with_fault(place, step, kills); step++) {
			assert_int_equal(place_open(place), 0);
			assert_int_equal(place->index.n, 1);
			place_check(place, index_newest(&place->index), 1, 500);
			assert_false(place_has(place, 1, TIER_SEGMENT_NEW_SUFFIX));
			assert_true(place_has(place, 1, TIER_SEGMENT_RAW_SUFFIX) != place_has(place, 1, TIER_SEGMENT_DEFLATED_SUFFIX));
		}
		assert_true(step > 6);	/* open, write, write, sync, rename, sync, unlink */
	}
}

static void of_two_files_the_whole_one_stays(void **state)
{
	struct place *place = *state;
	struct segment segment;

	place_write(place, 1, 1, 100);
	assert_int_equal(place_open(place), 0);
	segment = *index_newest(&place->index);
	assert_int_equal(segment_deflate(place->folder.fd, &segment), 0);
	place_write(place, 1, 1, 100);
	assert_int_equal(place_open(place), 0);
	assert_true(index_newest(&place->index)->is_deflated);
	assert_false(place_has(place, 1, TIER_SEGMENT_RAW_SUFFIX));

	place_write(place, 1, 1, 100);
	assert_int_equal(truncate(place_file(place, 1, TIER_SEGMENT_DEFLATED_SUFFIX), segment.n_bytes - 9), 0);
	assert_int_equal(place_open(place), 0);
	assert_false(index_newest(&place->index)->is_deflated);
	assert_false(place_has(place, 1, TIER_SEGMENT_DEFLATED_SUFFIX));
	place_check(place, index_newest(&place->index), 1, 100);
}

/* -- Writing --- */
static void short_writes_come_together(void **state)
{
	struct place *place = *state;
	char bytes[1000], back[1000];
	size_t n;
	int fd;

	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = i * 7;
	assert_int_equal(place_open(place), 0);
	faults_begin();
	for (fault_write_max = 1; fault_write_max < 20; fault_write_max += 6) {
		fd = open(place_file(place, 1, ".test"), O_RDWR | O_CREAT | O_TRUNC, 0644);
		assert_int_equal(segment_write(fd, bytes, sizeof(bytes), 64, &n), 0);
		assert_int_equal(n, sizeof(bytes));
		assert_int_equal(pread(fd, back, sizeof(back), 64), sizeof(back));
		assert_memory_equal(bytes, back, sizeof(bytes));
		fault_countdown = 3;
		fault_errno = ENOSPC;
		assert_int_equal(segment_write(fd, bytes, sizeof(bytes), 64, &n), -ENOSPC);
		assert_int_equal(n, 2 * fault_write_max);
		close(fd);
	}
	faults_end();
}

/* -- Folders --- */
static void a_folder_serves_one_daemon(void **state)
{
	struct place *place = *state;
	struct folder other;

	assert_int_equal(place_open(place), 0);
	assert_int_equal(folder_open(&other, place->path), -EBUSY);
	folder_close(&place->folder);
	assert_int_equal(folder_open(&other, place->path), 0);
	folder_close(&other);
}

static void a_folder_is_made_with_its_parent_only(void **state)
{
	struct place *place = *state;
	struct folder folder;
	char path[128];

	snprintf(path, sizeof(path), "%s/a/b", place->path);
	assert_int_equal(folder_open(&folder, path), 0);
	folder_close(&folder);
	snprintf(path, sizeof(path), "%s/c/d/e", place->path);
	assert_int_equal(folder_open(&folder, path), -ENOENT);
	snprintf(path, sizeof(path), "%s", place_file(place, 1, TIER_SEGMENT_RAW_SUFFIX));
	place_write(place, 1, 1, 1);
	assert_int_equal(folder_open(&folder, path), -ENOTDIR);
}

static void a_promise_of_this_boot_that_is_exact_takes_no_numbers(void **state)
{
	struct place *place = *state;
	struct folder other_boot;

	place_write(place, 1, 1, 10);
	assert_int_equal(place_open(place), 0);
	assert_int_equal(folder_promise(&place->folder, 1000, true), 0);
	assert_int_equal(place_open(place), 0);
	assert_int_equal(place->folder.used, 10);

	assert_int_equal(folder_promise(&place->folder, 1000, false), 0);
	assert_int_equal(place_open(place), 0);
	assert_int_equal(place->folder.used, 999);

	other_boot = place->folder;
	other_boot.boot[3] ^= 1;
	assert_int_equal(folder_promise(&other_boot, 2000, true), 0);
	assert_int_equal(place_open(place), 0);
	assert_int_equal(place->folder.used, 1999);

	assert_int_equal(folder_promise(&place->folder, 5, false), 0);	/* more was written than was promised: that counts */
	assert_int_equal(place_open(place), 0);
	assert_int_equal(place->folder.used, 10);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(names_sort_by_number_and_are_read_back),
		TEST(a_segment_is_read_as_it_was_written),
		TEST(numbers_and_times_are_found),
		TEST(a_file_cut_anywhere_recovers_to_the_last_whole_record),
		TEST(a_flip_anywhere_recovers_to_the_record_before),
		TEST(a_segment_that_was_only_made_is_no_damage),
		TEST(the_numbers_of_torn_records_are_not_given_again),
		TEST(a_header_is_made_again_from_the_records),
		TEST(what_is_torn_between_segments_becomes_a_marked_gap),
		TEST(deflating_takes_nothing_away),
		TEST(a_damaged_stream_gives_what_comes_before),
		TEST(dying_at_any_step_of_deflating_loses_nothing),
		TEST(of_two_files_the_whole_one_stays),
		TEST(short_writes_come_together),
		TEST(a_folder_serves_one_daemon),
		TEST(a_folder_is_made_with_its_parent_only),
		TEST(a_promise_of_this_boot_that_is_exact_takes_no_numbers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
