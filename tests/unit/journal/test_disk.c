/* SPDX-License-Identifier: Apache-2.0 */
#include "unit/journal/world.h"
#include <dirent.h>
#include <sched.h>
#include <time.h>

/* What is read comes back whole, over restarts, while files are deflated and removed, and while the disk refuses. */

/* -- Keeping --- */
static void nobody_is_told_before_it_is_written(void **state)
{
	struct world *world = *state;
	struct tier_event event;
	uint64_t gap_last;
	uint32_t n;

	assert_int_equal(start(world, 1000), 0);
	assert_int_equal(journal_newest(world->journal), 0);
	append(world, 1, 1);
	assert_int_equal(journal_read(world->journal, 1, &event, 1, &n, &gap_last), JOURNAL_E_LATER);
	while (!world->n_readable)
		turn(world);
	assert_int_equal(journal_newest_on_disk(world->journal), 1);
	assert_int_equal(journal_read(world->journal, 1, &event, 1, &n, &gap_last), 0);
	assert_int_equal(n, 1);
	assert_int_equal(journal_read(world->journal, 2, &event, 1, &n, &gap_last), 0);
	assert_int_equal(n, 0);
}

static void history_goes_on_over_restarts(void **state)
{
	struct world *world = *state;
	uint64_t next = 1;

	for (int round = 0; round < 5; round++) {
		assert_int_equal(start(world, 16), 0);
		assert_int_equal(journal_newest(world->journal), next - 1);
		assert_int_equal(journal_oldest(world->journal), 1);
		append_slowly(world, next, next + 99);
		next += 100;
		reads(world, 1, next - 1);
		stop(world);
	}
	assert_int_equal(said(world, "damaged") + said(world, "missing") + said(world, "lost"), 0);
	assert_int_equal(place_open(&world->place), 0);
	for (uint32_t i = 0; i < world->place.index.n; i++) {
		const struct segment *segment = &world->place.index.segments[i];

		assert_int_equal(segment->gap_first, segment->first);
		place_check(&world->place, segment, i ? segment[-1].last + 1 : 1, segment->last);
	}
	assert_int_equal(index_newest(&world->place.index)->last, 500);
	assert_true(segment_n(&world->place.index.segments[0]) == SEGMENT);
}

static void a_daemon_that_is_killed_takes_back_nothing(void **state)
{
	struct world *world = *state;
	uint64_t told = 0;
	int ends[2], status;

	for (int round = 0; round < 10; round++) {
		pid_t pid;

		assert_int_equal(pipe(ends), 0);
		pid = fork();
		if (!pid) {
			struct tier_event events[8];
			uint64_t next, gap_last;
			uint32_t n;

			dispatch_deinit(&world->dispatch);
			if (dispatch_init(&world->dispatch) || start(world, 1000))
				_exit(1);
			for (next = journal_newest(world->journal) + 1;; next += n) {
				append(world, journal_newest(world->journal) + 1, journal_newest(world->journal) + 7);
				n = read_at(world, next, events, 8, &gap_last);
				if (n && write(ends[1], &events[n - 1].sequence, sizeof(uint64_t)) != sizeof(uint64_t))
					_exit(1);
			}
		}
		close(ends[1]);
		for (int i = 0; i < 50 + 37 * round; i++)
			assert_int_equal(read(ends[0], &told, sizeof(told)), sizeof(told));
		kill(pid, SIGKILL);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFSIGNALED(status));
		while (read(ends[0], &told, sizeof(told)) == sizeof(told))
			;
		close(ends[0]);
		assert_int_equal(start(world, 1000), 0);
		assert_true(journal_newest(world->journal) >= told);
		assert_int_equal(journal_newest(world->journal), journal_newest_on_disk(world->journal));
		reads(world, 1, journal_newest(world->journal));
		stop(world);
	}
	assert_int_equal(said(world, "damaged") + said(world, "missing"), 0);
}

static void full_segments_are_deflated_and_still_read(void **state)
{
	struct world *world = *state;

	assert_int_equal(start(world, 10), 0);
	append_slowly(world, 1, 10 * SEGMENT + 5);
	while (place_has(&world->place, 9 * SEGMENT + 1, TIER_SEGMENT_RAW_SUFFIX))
		turn(world);
	for (unsigned int i = 0; i < 10; i++)
		assert_true(place_has(&world->place, i * SEGMENT + 1, TIER_SEGMENT_DEFLATED_SUFFIX));
	assert_true(place_has(&world->place, 10 * SEGMENT + 1, TIER_SEGMENT_RAW_SUFFIX));
	reads(world, 1, 10 * SEGMENT + 5);
	reads(world, 3 * SEGMENT, 3 * SEGMENT + 1);	/* from one to the next */
	append_slowly(world, 10 * SEGMENT + 6, 10 * SEGMENT + 30);
	reads(world, 1, 10 * SEGMENT + 30);
}

static void the_first_number_need_not_follow(void **state)
{
	struct world *world = *state;

	assert_int_equal(start(world, 100), 0);
	append(world, 1000, 1009);
	reads(world, 1000, 1009);
	gap(world, 5, 999);
	stop(world);
	assert_int_equal(start(world, 100), 0);
	append(world, 1020, 1029);
	reads(world, 1020, 1029);
	reads(world, 1000, 1009);
	gap(world, 1010, 1019);
	gap(world, 1, 999);
	stop(world);
	assert_int_equal(place_open(&world->place), 0);
	assert_int_equal(world->place.index.n, 2);
	assert_int_equal(world->place.index.segments[0].gap_first, 1);
	assert_int_equal(world->place.index.segments[1].gap_first, 1010);
}

static void a_torn_end_is_a_marked_gap(void **state)
{
	struct world *world = *state;

	assert_int_equal(start(world, 100), 0);
	append(world, 1, 20);
	stop(world);
	assert_int_equal(truncate(place_file(&world->place, 1, TIER_SEGMENT_RAW_SUFFIX), 64 + 64 * 18 + 3), 0);
	assert_int_equal(start(world, 100), 0);
	assert_int_equal(said(world, "damaged at offset 1216, event 19"), 1);
	assert_int_equal(journal_newest(world->journal), 20);	/* by the numbers that were promised */
	assert_int_equal(journal_newest_on_disk(world->journal), 18);
	gap(world, 19, 20);
	append(world, 21, 25);
	reads(world, 1, 18);
	gap(world, 19, 20);
	reads(world, 21, 25);
	assert_int_equal(said(world, "events 19 to 20 are missing"), 1);
	stop(world);
	assert_int_equal(place_open(&world->place), 0);
	assert_int_equal(index_newest(&world->place.index)->gap_first, 19);
}

static void a_segment_that_was_damaged_meanwhile_is_a_gap(void **state)
{
	struct world *world = *state;
	struct tier_event event = {};
	int fd;

	assert_int_equal(start(world, 4), 0);
	append_slowly(world, 1, 40);
	fd = open(place_file(&world->place, 1, TIER_SEGMENT_RAW_SUFFIX), O_WRONLY);
	for (uint64_t s = 11; s <= 13; s++)
		assert_int_equal(pwrite(fd, &event, sizeof(event), s * 64), 64);
	close(fd);
	reads(world, 1, 10);
	gap(world, 11, 13);
	gap(world, 12, 13);
	reads(world, 14, 40);
	assert_int_equal(said(world, "cannot read a segment"), 1);
}

/* -- Time --- */
static uint64_t seek(struct world *world, uint64_t time_ns)
{
	uint64_t sequence;

	while (journal_seek(world->journal, time_ns, &sequence) == JOURNAL_E_LATER)
		turn(world);
	return sequence;
}

static void any_time_is_found(void **state)
{
	struct world *world = *state;
	const uint64_t last = 5 * SEGMENT + 20;

	assert_int_equal(start(world, 30), 0);
	assert_int_equal(seek(world, 1), 1);
	append_slowly(world, 1, last);
	for (uint64_t s = 1; s <= last; s++) {
		assert_int_equal(seek(world, place_event(s).time_ns), s);
		assert_int_equal(seek(world, place_event(s).time_ns + 1), s + 1);
	}
	assert_int_equal(seek(world, 1), 1);
	assert_int_equal(seek(world, UINT64_MAX / 2), last + 1);
	stop(world);
	assert_int_equal(start(world, 30), 0);	/* nothing in memory */
	for (uint64_t s = 1; s <= last; s += 7)
		assert_int_equal(seek(world, place_event(s).time_ns), s);
	assert_int_equal(seek(world, UINT64_MAX / 2), last + 1);
}

/* -- Retention --- */
static uint64_t folder_bytes(const struct world *world)
{
	DIR *folder = opendir(world->place.path);
	struct dirent *entry;
	struct stat status;
	uint64_t n = 0;

	while ((entry = readdir(folder)))
		if (!fstatat(dirfd(folder), entry->d_name, &status, 0) && S_ISREG(status.st_mode))
			n += status.st_size;
	closedir(folder);
	return n;
}

static void the_oldest_go_when_the_folder_is_too_large(void **state)
{
	struct world *world = *state;
	uint64_t oldest;

	world->config.size_max = 8192;
	assert_int_equal(start(world, 10), 0);
	append_slowly(world, 1, 100 * SEGMENT);
	while (folder_bytes(world) > 8192 + sizeof(struct tier_numbers) || journal_oldest(world->journal) < 60 * SEGMENT)
		turn(world);
	oldest = journal_oldest(world->journal);
	assert_int_equal(oldest % SEGMENT, 1);
	gap(world, 1, oldest - 1);
	reads(world, oldest, 100 * SEGMENT);
	stop(world);
	assert_int_equal(start(world, 10), 0);
	assert_true(journal_oldest(world->journal) >= oldest);
	gap(world, 1, journal_oldest(world->journal) - 1);
}

static void the_oldest_go_when_they_are_too_old(void **state)
{
	struct world *world = *state;
	struct timespec ts;
	uint64_t now;

	clock_gettime(CLOCK_REALTIME, &ts);
	now = (uint64_t)ts.tv_sec * 1000000000u + ts.tv_nsec;
	world->config.age_max_ns = now - place_event(2 * SEGMENT).time_ns;	/* the first two segments are too old, the third soon */
	assert_int_equal(start(world, 10), 0);
	append_slowly(world, 1, 6 * SEGMENT + 1);
	while (journal_oldest(world->journal) < 2 * SEGMENT + 1)
		turn(world);
	gap(world, 1, journal_oldest(world->journal) - 1);
	reads(world, 6 * SEGMENT + 1, 6 * SEGMENT + 1);	/* the newest stays at any age */
}

/* -- Trouble --- */
static void a_full_disk_is_said_once_and_events_go_on(void **state)
{
	struct world *world = *state;

	fault_errno = ENOSPC;
	world->config.sync = JOURNAL_SYNC_NEVER;
	assert_int_equal(start(world, 1000), 0);
	append(world, 1, 10);
	while (!all_is_written(world))
		turn(world);
	for (int i = 0; i < 3; i++) {
		fault_countdown = 1;
		append(world, 11 + 5 * i, 15 + 5 * i);
		reads(world, 1, 15 + 5 * i);	/* from memory, though the disk has not taken them */
		if (!i)
			assert_int_equal(journal_newest_on_disk(world->journal), 10);
		while (fault_countdown)
			turn(world);
	}
	assert_int_equal(said(world, "No space left on device"), 1);
	while (!all_is_written(world))
		turn(world);
	assert_int_equal(said(world, "No space left on device"), 1);
	assert_int_equal(said(world, "can write events"), 1);
	assert_int_equal(said(world, "missing"), 0);
	stop(world);
	assert_int_equal(start(world, 10), 0);
	assert_int_equal(journal_newest(world->journal), 25);
	reads(world, 1, 25);
}

static void what_memory_could_not_hold_is_a_marked_gap(void **state)
{
	struct world *world = *state;

	fault_errno = EIO;
	assert_int_equal(start(world, 20), 0);
	append(world, 1, 10);
	while (!all_is_written(world))
		turn(world);
	fault_countdown = 1;
	append(world, 11, 12);
	reads(world, 11, 12);
	append(world, 13, 60);		/* the disk is tried again later; memory has 41 … 60 by then */
	reads(world, 41, 60);
	gap(world, 11, 40);
	while (!all_is_written(world))
		turn(world);
	assert_int_equal(said(world, "events 11 to 40 are missing"), 1);
	append_slowly(world, 61, 100);
	reads(world, 1, 10);
	gap(world, 11, 40);
	reads(world, 41, 100);
	stop(world);
	assert_int_equal(place_open(&world->place), 0);
	assert_int_equal(world->place.index.segments[1].gap_first, 11);
	assert_int_equal(world->place.index.segments[1].first, 41);
}

/* Killed while the disk refuses: what was told from memory is lost, and its numbers are not given to others. */
static void numbers_told_from_memory_are_not_given_again(void **state)
{
	struct world *world = *state;
	uint64_t kept;
	int status;
	pid_t pid = fork();

	if (!pid) {
		dispatch_deinit(&world->dispatch);
		if (dispatch_init(&world->dispatch) || start(world, 1000))
			_exit(1);
		append(world, 1, 10);
		while (!all_is_written(world))
			turn(world);
		fault_errno = ENOSPC;
		fault_countdown = 1;
		append(world, 11, 30);
		reads(world, 11, 30);
		_exit(99);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(WEXITSTATUS(status), 99);
	assert_int_equal(start(world, 1000), 0);
	kept = journal_newest_on_disk(world->journal);
	assert_in_range(kept, 10, 30);	/* more than 10 where the machine is so slow that the disk was tried again before */
	assert_true(journal_newest(world->journal) >= 30);
	if (kept < journal_newest(world->journal))
		gap(world, kept + 1, journal_newest(world->journal));
	reads(world, 1, kept);
}

/* Every call that writes fails once, in turn; nothing is lost but what memory could not hold, and the folder is sound. */
static void a_failure_at_any_call_loses_nothing(void **state)
{
	struct world *world = *state;
	unsigned int n_failed = 0;

	world->config.sync = JOURNAL_SYNC_RECORD;
	for (unsigned int step = 1; step <= 12; step++) {
		char command[128];

		fault_errno = step % 2 ? ENOSPC : EIO;
		fault_countdown = step;
		fault_write_max = step % 3 ? 0 : 100;
		assert_int_equal(start(world, 1000), 0);
		for (uint64_t s = 1; s <= 100; s += 20) {
			append(world, s, s + 19);
			reads(world, 1, s + 19);
		}
		while (!all_is_written(world))
			turn(world);
		n_failed += !fault_countdown;
		stop(world);
		fault_countdown = 0;
		assert_int_equal(start(world, 10), 0);
		assert_int_equal(journal_newest(world->journal), 100);
		reads(world, 1, 100);
		stop(world);
		snprintf(command, sizeof(command), "rm -f '%s'/*", world->place.path);
		assert_int_equal(system(command), 0);
	}
	assert_true(n_failed >= 10);
}

static void a_folder_that_cannot_be_is_said(void **state)
{
	struct world *world = *state;
	struct journal *other;

	assert_int_equal(start(world, 10), 0);
	assert_int_equal(journal_new(&other, 10), 0);
	assert_int_equal(journal_open(other, &world->dispatch, &world->config), -EBUSY);
	assert_int_equal(said(world, "another tierd keeps its journal in"), 1);
	world->config.folder = "/proc/journal";
	assert_true(journal_open(other, &world->dispatch, &world->config) < 0);
	assert_int_equal(said(world, "cannot keep a journal in /proc/journal: "), 1);
	append(world, 1, 1);
	other = journal_free(other);
}

/* The real thing: a file system of 64 KiB in a mount namespace of our own */
static void a_file_system_that_is_full(void **state)
{
	struct world *world = *state;
	uint64_t next;

	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL)
	    || mount("tmpfs", world->place.path, "tmpfs", 0, "size=64k,mode=0700"))
		skip();
	assert_int_equal(start(world, 4096), 0);
	for (next = 1; !said(world, "events are kept in memory"); next++) {
		append(world, next, next);
		reads(world, next, next);
		assert_true(next < 100000);
	}
	append(world, next, next + 99);
	reads(world, next, next + 99);
	assert_true(journal_newest_on_disk(world->journal) < next);
	assert_int_equal(mount(NULL, world->place.path, NULL, MS_REMOUNT, "size=4m"), 0);
	while (!all_is_written(world))
		turn(world);
	assert_int_equal(said(world, "No space left on device; events"), 1);
	assert_int_equal(said(world, "missing"), 0);
	reads(world, 1, next + 99);
	stop(world);
	assert_int_equal(start(world, 4096), 0);
	assert_int_equal(journal_newest(world->journal), next + 99);
	reads(world, 1, next + 99);
	stop(world);
	assert_int_equal(umount2(world->place.path, MNT_DETACH), 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup_without, teardown)
#define TEST_WITH_FAULTS(f) cmocka_unit_test_setup_teardown(f, setup_faults, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(nobody_is_told_before_it_is_written),
		TEST(history_goes_on_over_restarts),
		TEST(a_daemon_that_is_killed_takes_back_nothing),
		TEST(full_segments_are_deflated_and_still_read),
		TEST(the_first_number_need_not_follow),
		TEST(a_torn_end_is_a_marked_gap),
		TEST(a_segment_that_was_damaged_meanwhile_is_a_gap),
		TEST(any_time_is_found),
		TEST(the_oldest_go_when_the_folder_is_too_large),
		TEST(the_oldest_go_when_they_are_too_old),
		TEST_WITH_FAULTS(a_full_disk_is_said_once_and_events_go_on),
		TEST_WITH_FAULTS(what_memory_could_not_hold_is_a_marked_gap),
		TEST_WITH_FAULTS(numbers_told_from_memory_are_not_given_again),
		TEST_WITH_FAULTS(a_failure_at_any_call_loses_nothing),
		TEST(a_folder_that_cannot_be_is_said),
		TEST(a_file_system_that_is_full),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
