/* SPDX-License-Identifier: Apache-2.0 */
#include "unit/journal/world.h"
#include <signal.h>

/* A journal whose predecessor was killed and left its memory: every number once, in memory and in the folder, whatever the disk did
 * meanwhile. The predecessor is a child that shares the memory. */

/* The journal of a predecessor that is dead now, from its memory alone */
static void succeed(struct world *world, uint32_t n_memory)
{
	int fd = dup(journal_fd(world->journal));

	stop(world);
	assert_int_equal(journal_adopt(&world->journal, n_memory, fd), 0);
	if (journal_fd(world->journal) != fd)
		close(fd);
}

static int keep(struct world *world)
{
	return journal_open(world->journal, &world->dispatch, &world->config);
}

static void write_all(struct world *world)
{
	while (!all_is_written(world))
		turn(world);
}

/* In the child: it has the folder, and a loop of its own. */
static void child_keep(struct world *world)
{
	dispatch_deinit(&world->dispatch);
	if (dispatch_init(&world->dispatch) || keep(world))
		_exit(1);
}

static void wait_for(pid_t pid)
{
	int status;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) || WEXITSTATUS(status) == 99);
}

static void memory_alone_goes_on(void **state)
{
	struct world *world = *state;

	assert_int_equal(journal_new(&world->journal, 100), 0);
	append(world, 1, 250);
	for (int round = 0; round < 3; round++) {
		succeed(world, 100);
		reads(world, 151, 250);
		gap(world, 1, 150);
		append(world, 245, 250);	/* told again: known */
		assert_int_equal(journal_newest(world->journal), 250);
		assert_int_equal(journal_go_on(world->journal, 250), 0);
	}
	append(world, 251, 260);
	reads(world, 161, 260);
}

static void memory_of_another_size_is_copied(void **state)
{
	struct world *world = *state;

	assert_int_equal(journal_new(&world->journal, 100), 0);
	append(world, 1, 250);
	succeed(world, 30);
	reads(world, 221, 250);
	gap(world, 1, 220);
	succeed(world, 1000);
	reads(world, 221, 250);
	append(world, 251, 1250);
	reads(world, 251, 1250);
	succeed(world, 1);
	reads(world, 1250, 1250);
}

static void memory_without_events_knows_the_number(void **state)
{
	struct world *world = *state;

	assert_int_equal(journal_new(&world->journal, 10), 0);
	assert_int_equal(journal_go_on(world->journal, 4000), 0);
	succeed(world, 20);
	assert_int_equal(journal_newest(world->journal), 4000);
	assert_int_equal(journal_oldest(world->journal), 4001);
	gap(world, 1, 4000);
	assert_int_equal(journal_go_on(world->journal, 4000), 0);
	append(world, 4001, 4002);
	reads(world, 4001, 4002);
}

static void what_only_memory_has_is_written(void **state)
{
	struct world *world = *state;

	assert_int_equal(journal_new(&world->journal, 1000), 0);
	append(world, 1, 10);
	assert_int_equal(keep(world), 0);
	write_all(world);
	append(world, 11, 300);
	reads(world, 1, 300);
	stop(world);
	assert_int_equal(place_open(&world->place), 0);
	assert_int_equal(index_newest(&world->place.index)->last, 300);
	assert_int_equal(world->place.index.segments[0].gap_first, 1);
}

/* Killed at once, with batches under way and without */
static void a_kill_takes_nothing_and_doubles_nothing(void **state)
{
	struct world *world = *state;
	uint64_t told = 0, newest;
	int ends[2];
	pid_t pid;

	assert_int_equal(journal_new(&world->journal, 5000), 0);
	for (int round = 0; round < 12; round++) {
		assert_int_equal(pipe(ends), 0);
		pid = fork();
		if (!pid) {
			struct tier_event events[8];
			uint64_t next = told + 1, gap_last;
			uint32_t n;

			child_keep(world);
			for (;; next += n) {
				append(world, journal_newest(world->journal) + 1, journal_newest(world->journal) + 1 + next % 9);
				n = read_at(world, next, events, 8, &gap_last);
				if (n && write(ends[1], &events[n - 1].sequence, sizeof(uint64_t)) != sizeof(uint64_t))
					_exit(1);
			}
		}
		close(ends[1]);
		for (int i = 0; i < 20 + 13 * round; i++)
			assert_int_equal(read(ends[0], &told, sizeof(told)), sizeof(told));
		kill(pid, SIGKILL);
		wait_for(pid);
		while (read(ends[0], &told, sizeof(told)) == sizeof(told))
			;
		close(ends[0]);
		succeed(world, 5000);
		newest = journal_newest(world->journal);
		assert_true(newest >= told);
		assert_int_equal(keep(world), 0);
		append(world, newest > 20 ? newest - 20 : 1, newest);	/* by the ledger, again */
		append(world, newest + 1, newest + 1);
		write_all(world);
		reads(world, 1, newest + 1);
		told = newest + 1;
		/* the next one has the memory only: the folder is closed, and its numbers say nothing wrong */
		succeed(world, 5000);
	}
	assert_int_equal(said(world, "damaged") + said(world, "missing") + said(world, "lost"), 0);
}

/* The disk refuses every write, and then the daemon is killed: all that was told is still there. */
static void what_the_disk_refused_survives_in_memory(void **state)
{
	struct world *world = *state;
	pid_t pid;

	assert_int_equal(journal_new(&world->journal, 1000), 0);
	pid = fork();
	if (!pid) {
		child_keep(world);
		append(world, 1, 10);
		write_all(world);
		fault_errno = EIO;
		fault_stays = true;
		append(world, 11, 400);
		reads(world, 1, 400);	/* told from memory */
		if (journal_newest_on_disk(world->journal) != 10)
			_exit(1);
		_exit(99);
	}
	wait_for(pid);
	succeed(world, 1000);
	assert_int_equal(journal_newest(world->journal), 400);
	assert_int_equal(keep(world), 0);
	assert_int_equal(journal_go_on(world->journal, 400), 0);
	append(world, 401, 401);
	write_all(world);
	reads(world, 1, 401);
	assert_int_equal(said(world, "may have been told and are lost"), 0);
	assert_int_equal(said(world, "are missing"), 0);
	stop(world);
	assert_int_equal(place_open(&world->place), 0);
	for (uint32_t i = 0; i < world->place.index.n; i++)
		assert_int_equal(world->place.index.segments[i].gap_first, world->place.index.segments[i].first);
	assert_int_equal(index_newest(&world->place.index)->last, 401);
}

static void what_memory_forgot_too_is_a_marked_gap(void **state)
{
	struct world *world = *state;

	assert_int_equal(start(world, 20), 0);
	append(world, 1, 10);
	write_all(world);
	stop(world);
	assert_int_equal(journal_new(&world->journal, 20), 0);
	append(world, 1, 100);	/* as if the disk had refused from 11 on */
	succeed(world, 20);
	assert_int_equal(keep(world), 0);
	write_all(world);
	reads(world, 1, 10);
	gap(world, 11, 80);
	reads(world, 81, 100);
	assert_int_equal(said(world, "events 11 to 80 are missing"), 1);
}

static void memory_that_is_strange_is_said(void **state)
{
	struct world *world = *state;
	struct journal *journal;
	int fd = open("/dev/zero", O_RDWR);

	assert_int_equal(journal_adopt(&journal, 100, fd), -EBADMSG);
	assert_int_equal(fcntl(fd, F_GETFD), 0);
	close(fd);
	assert_int_equal(said(world, "a predecessor's memory is not used: it is no memory that is sealed"), 1);

	/* then an empty one, from the ledger's number on */
	assert_int_equal(start(world, 100), 0);
	append(world, 1, 50);
	write_all(world);
	stop(world);
	assert_int_equal(start(world, 100), 0);
	append(world, 41, 50);			/* recognized by the folder */
	append(world, 91, 95);			/* of 51 … 90 nobody has anything */
	assert_int_equal(journal_go_on(world->journal, 95), 0);
	append(world, 96, 96);
	write_all(world);
	reads(world, 1, 50);
	gap(world, 51, 90);
	reads(world, 91, 96);
	assert_int_equal(said(world, "events 51 to 90 are missing"), 1);
}

static void damaged_memory_is_said_and_the_folder_has_the_rest(void **state)
{
	struct world *world = *state;
	struct tier_event nothing = {};

	assert_int_equal(journal_new(&world->journal, 100), 0);
	append(world, 1, 60);
	assert_int_equal(keep(world), 0);
	write_all(world);
	assert_int_equal(pwrite(journal_fd(world->journal), &nothing, sizeof(nothing), 64 + 40 * 64), 64);
	succeed(world, 100);
	assert_int_equal(said(world, "memory is damaged at event 40; what comes behind it is kept"), 1);
	gap(world, 1, 40);
	reads(world, 41, 60);
	assert_int_equal(keep(world), 0);
	reads(world, 1, 60);
}

/* A ledger counts for more than what a folder promised, and a folder of another history is none of ours. */
static void numbers_are_the_ledgers(void **state)
{
	struct world *world = *state;

	assert_int_equal(start(world, 100), 0);
	append(world, 1, 10);
	write_all(world);
	assert_int_equal(place_open(&world->place), -EBUSY);
	stop(world);
	assert_int_equal(place_open(&world->place), 0);
	assert_int_equal(folder_promise(&world->place.folder, 70000, false), 0);
	place_close(&world->place);

	assert_int_equal(start(world, 100), 0);
	assert_int_equal(journal_newest(world->journal), 69999);
	append(world, 8, 13);
	assert_int_equal(journal_go_on(world->journal, 13), 0);
	assert_int_equal(journal_newest(world->journal), 13);
	append(world, 14, 14);
	write_all(world);
	reads(world, 1, 14);
	stop(world);

	assert_int_equal(start(world, 100), 0);
	assert_int_equal(journal_go_on(world->journal, 5), -EBADMSG);
	assert_int_equal(said(world, "it has events up to 14, but the newest that was committed is 5"), 1);
	stop(world);

	assert_int_equal(journal_new(&world->journal, 100), 0);
	append(world, 1, 7);
	succeed(world, 100);
	assert_int_equal(keep(world), -EBADMSG);
	assert_int_equal(said(world, "has events up to 14, but the newest of this history is 7; choose another --journal"), 1);
	append(world, 8, 8);	/* in memory it goes on */
	reads(world, 1, 8);
}

/* The store kept an older memory, because a later one could not be put: what lies between is a gap, not a crash. */
static void an_old_memory_leaves_a_gap(void **state)
{
	struct world *world = *state;

	assert_int_equal(journal_new(&world->journal, 100), 0);
	append(world, 1, 10);
	succeed(world, 100);
	append(world, 31, 33);
	assert_int_equal(journal_go_on(world->journal, 33), 0);
	gap(world, 1, 30);
	reads(world, 31, 33);
	succeed(world, 100);
	assert_int_equal(journal_go_on(world->journal, 50), 0);
	append(world, 51, 51);
	gap(world, 31, 50);
	reads(world, 51, 51);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup_without, teardown)
#define TEST_WITH_FAULTS(f) cmocka_unit_test_setup_teardown(f, setup_faults, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(memory_alone_goes_on),
		TEST(memory_of_another_size_is_copied),
		TEST(memory_without_events_knows_the_number),
		TEST(what_only_memory_has_is_written),
		TEST(a_kill_takes_nothing_and_doubles_nothing),
		TEST_WITH_FAULTS(what_the_disk_refused_survives_in_memory),
		TEST(what_memory_forgot_too_is_a_marked_gap),
		TEST(memory_that_is_strange_is_said),
		TEST(damaged_memory_is_said_and_the_folder_has_the_rest),
		TEST(numbers_are_the_ledgers),
		TEST(an_old_memory_leaves_a_gap),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
