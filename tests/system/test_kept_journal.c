/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>
#include "system/harness.h"
#include "system/json.h"

/* The journal of a daemon that is killed again and again and has successors: in memory and in a folder, with a follower in between
 * and somebody who makes events all the time. Every number once, and what was told stays as it was told. */

#define EVENTS_MAX 65536u

struct world {
	struct daemon daemon;
	char folder[64], option[96];
	struct tier_event told[EVENTS_MAX], kept[EVENTS_MAX];
	char out[RUN_TEXT_MAX], err[RUN_TEXT_MAX];
};

static int setup(void **state)
{
	struct world *world = calloc(1, sizeof(*world));

	snprintf(world->folder, sizeof(world->folder), "%.32s/tierd-kept-XXXXXX", temporary_folder());
	assert_non_null(mkdtemp(world->folder));
	*state = world;
	return 0;
}

static int teardown(void **state)
{
	struct world *world = *state;
	char command[128];

	umount2(world->folder, MNT_DETACH);
	snprintf(command, sizeof(command), "rm -rf '%s'", world->folder);
	assert_int_equal(system(command), 0);
	free(world);
	return 0;
}

static void start(struct world *world, bool has_folder)
{
	snprintf(world->option, sizeof(world->option), "--journal=%s", has_folder ? world->folder : "memory");
	daemon_start_kept(&world->daemon, ARGS(world->option, "--call-counting-delay=0"));
}

static unsigned int said(const struct daemon *daemon, const char *what)
{
	char *text = calloc(1, 1 << 20);
	int fd = open(daemon->log, O_RDONLY);
	unsigned int n = 0;

	assert_true(read(fd, text, (1 << 20) - 1) >= 0);
	close(fd);
	for (const char *p = text; (p = strstr(p, what)); p++)
		n++;
	free(text);
	return n;
}

static unsigned int said_of_loss(const struct daemon *daemon)
{
	return said(daemon, "memory is not used") + said(daemon, "damaged") + said(daemon, "are missing")
	       + said(daemon, "may have been told and are lost");
}

/* -- Somebody who makes events --- */
/* Modules come and go, climb, are frozen; whatever fails because the daemon is away is done again. */
static void make_events(void *context)
{
	const struct daemon *daemon = context;
	const struct tier_conn_opts opts = { .size = sizeof(opts), .socket = daemon->socket, .timeout_ns = TEST_DEADLINE_NS };

	for (;;) {
		struct tier_conn *conn = NULL;
		struct tier_module *module;

		if (tier_connect(&conn, &opts)) {
			usleep(1000);
			continue;
		}
		tier_unload(conn, "fib");	/* it may be there from before a death */
		for (int i = 0; i < 50 && !tier_load(conn, workload_object("fib"), NULL, 0, &module); i++) {
			if (!tier_freeze(module))
				tier_thaw(module);
			tier_close(module);
			if (tier_unload(conn, "fib"))
				break;
		}
		tier_disconnect(conn);
	}
}

static void end(pid_t pid)
{
	kill(pid, SIGKILL);
	assert_true(child_reap(pid) != 0);
}

/* -- A follower --- */
/* Follows until @n_wanted more are known or the connection breaks; goes on behind @n. Returns how many are known. */
static size_t follow(struct world *world, size_t n, size_t n_wanted)
{
	struct tier_conn *conn = daemon_connect(&world->daemon);
	struct tier_events *events;
	size_t wanted = n + n_wanted;

	assert_true(wanted < EVENTS_MAX);
	assert_done(tier_events_open(conn, n + 1, &events));
	while (n < wanted && !tier_events_next(events, TEST_DEADLINE_NS, &world->told[n], NULL, NULL)) {
		assert_int_equal(world->told[n].sequence, n + 1);
		n++;
	}
	tier_events_close(events);
	tier_disconnect(conn);
	assert_int_equal(n, wanted);
	return n;
}

/* All there is, without a gap: what was told is in it. */
static size_t check_kept(struct world *world, size_t n_told)
{
	struct tier_conn *conn = daemon_connect(&world->daemon);
	size_t n = events_read(conn, 0, UINT32_MAX, world->kept, EVENTS_MAX);

	tier_disconnect(conn);
	assert_true(n >= n_told && n <= EVENTS_MAX);
	for (size_t i = 0; i < n; i++)
		assert_int_equal(world->kept[i].sequence, i + 1);
	assert_memory_equal(world->told, world->kept, n_told * sizeof(world->told[0]));
	return n;
}

static size_t follow_over_kills(struct world *world, int n_rounds)
{
	pid_t maker = child_start(make_events, &world->daemon);
	size_t n = 0;

	for (int round = 0; round < n_rounds; round++) {
		n = follow(world, n, 5 + round * 13 % 40);
		daemon_kill_main(&world->daemon);
		check_kept(world, n);
	}
	n = follow(world, n, 20);
	end(maker);
	return n;
}

static void in_memory_no_kill_takes_anything_back(void **state)
{
	struct world *world = *state;
	size_t n;

	start(world, false);
	n = follow_over_kills(world, test_is_long() ? 50 : 4);
	check_kept(world, n);
	assert_int_equal(said_of_loss(&world->daemon), 0);
	daemon_stop(&world->daemon);
}

static void in_a_folder_neither(void **state)
{
	struct world *world = *state;
	size_t n;

	start(world, true);
	n = check_kept(world, follow_over_kills(world, test_is_long() ? 50 : 4));
	assert_int_equal(said_of_loss(&world->daemon), 0);
	assert_int_equal(tierctl(&world->daemon, world->out, world->err, "journal", "verify", world->folder, "--json", NULL), 0);
	assert_int_equal(json_length(world->out, "segments"), 1);
	assert_int_equal(json_number(world->out, "segments.0.first"), 1);
	assert_true(json_number(world->out, "segments.0.last") >= n);
	daemon_stop(&world->daemon);
}

/* -- Subscriptions that live longer than daemons --- */
/* One cursor, while daemons come and go: every number once, in order, as the journal has them. */
static void a_subscription_outlives(struct world *world, bool has_folder)
{
	const int n_rounds = test_is_long() ? 30 : 4;
	struct tier_events *events;
	struct tier_conn *conn;
	pid_t maker;
	size_t n = 0;

	start(world, has_folder);
	conn = daemon_connect(&world->daemon);
	assert_done(tier_events_open(conn, 1, &events));
	maker = child_start(make_events, &world->daemon);
	for (int round = 0; round < n_rounds; round++) {
		for (size_t end = n + 7 + round * 11 % 30; n < end; n++) {
			assert_done(tier_events_next(events, TEST_DEADLINE_NS, &world->told[n], NULL, NULL));
			assert_int_equal(world->told[n].sequence, n + 1);
		}
		daemon_kill_main(&world->daemon);
	}
	end(maker);
	/* what the maker set going may still bring events */
	for (size_t kept = check_kept(world, n); n < kept; n++) {
		assert_done(tier_events_next(events, TEST_DEADLINE_NS, &world->told[n], NULL, NULL));
		assert_int_equal(world->told[n].sequence, n + 1);
	}
	check_kept(world, n);
	tier_events_close(events);
	tier_disconnect(conn);
	daemon_stop(&world->daemon);
}

static void a_subscription_outlives_daemons_with_memory(void **state)
{
	a_subscription_outlives(*state, false);
}

static void a_subscription_outlives_daemons_with_a_folder(void **state)
{
	a_subscription_outlives(*state, true);
}

static void tierctl_follows_over_a_death(void **state)
{
	struct world *world = *state;
	uint64_t next = 1;
	char row[1024];
	pid_t pid, maker;
	FILE *rows;
	int fd;

	start(world, false);
	pid = tierctl_start(&world->daemon, &fd, "events", "--follow", "--from=1", "--json", NULL);
	rows = fdopen(fd, "r");
	maker = child_start(make_events, &world->daemon);
	for (int round = 0; round < 3; round++) {
		for (uint64_t end = next + 30; next < end; next++) {
			assert_non_null(fgets(row, sizeof(row), rows));
			assert_int_equal(json_number(row, "sequence"), next);
		}
		daemon_kill_main(&world->daemon);
	}
	assert_non_null(fgets(row, sizeof(row), rows));
	assert_int_equal(json_number(row, "sequence"), next);
	end(maker);
	end(pid);
	fclose(rows);
	daemon_stop(&world->daemon);
}

/* -- The disk is full, and then the daemon is killed --- */
static void what_a_full_disk_refused_the_successor_writes(void **state)
{
	struct world *world = *state;
	struct tier_conn *conn;
	pid_t maker;
	size_t n;

	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL)
	    || mount("tmpfs", world->folder, "tmpfs", 0, "size=16k,mode=0700"))
		skip();
	start(world, true);
	maker = child_start(make_events, &world->daemon);
	wait_until("the disk is full", said(&world->daemon, "events are kept in memory"));
	conn = daemon_connect(&world->daemon);
	n = events_read(conn, 0, UINT32_MAX, world->told, EVENTS_MAX);
	tier_disconnect(conn);
	daemon_kill_main(&world->daemon);
	check_kept(world, n);
	daemon_kill_main(&world->daemon);
	end(maker);
	n = check_kept(world, n);
	assert_int_equal(mount(NULL, world->folder, NULL, MS_REMOUNT, "size=4m"), 0);
	wait_until("the disk takes events again", said(&world->daemon, "can write events"));
	assert_int_equal(tierctl(&world->daemon, world->out, world->err, "journal", "verify", world->folder, NULL), 0);
	assert_non_null(strstr(world->out, "0 missing in marked gaps, 0 problems"));
	assert_int_equal(said_of_loss(&world->daemon), 0);
	daemon_stop(&world->daemon);
}

/* -- Another --journal-events --- */
static void write_script(const char *path, const char *program, const char *option)
{
	FILE *script = fopen(path, "w");

	assert_non_null(script);
	fprintf(script, "#!/bin/sh\nexec '%s' \"$@\" %s\n", program, option);
	assert_int_equal(fclose(script), 0);
	assert_int_equal(chmod(path, 0700), 0);
}

static void a_successor_may_have_room_for_fewer_or_more(void **state)
{
	static const char *const options[] = { "--journal-events=10", "--journal-events=1000", "--journal-events=1000" };
	struct world *world = *state;
	const char *build = getenv("TIER_BUILD");
	char script[128], program[256];
	struct tier_events *events;
	struct tier_event event;
	struct tier_conn *conn;
	uint64_t first, last;
	pid_t maker;
	size_t n;

	start(world, false);
	assert_non_null(realpath(build ? build : "build", world->out));
	snprintf(program, sizeof(program), "%.200s/tierd", world->out);
	maker = child_start(make_events, &world->daemon);
	n = follow(world, 0, 50);
	end(maker);
	for (int i = 0; i < 3; i++) {
		snprintf(script, sizeof(script), "%s/tierd-%d", world->folder, i);
		write_script(script, program, options[i]);
		daemon_replace_program(&world->daemon, script);
		daemon_kill_main(&world->daemon);
		conn = daemon_connect(&world->daemon);
		assert_done(tier_events_open(conn, 1, &events));
		assert_int_equal(tier_events_next(events, TEST_DEADLINE_NS, &event, &first, &last), -ENODATA);
		assert_int_equal(first, 1);
		for (uint64_t s = last + 1; s <= n; s++) {
			assert_done(tier_events_next(events, TEST_DEADLINE_NS, &event, NULL, NULL));
			assert_memory_equal(&event, &world->told[s - 1], sizeof(event));
		}
		tier_events_close(events);
		tier_disconnect(conn);
		assert_true(last >= n - 10);
	}
	daemon_stop(&world->daemon);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(in_memory_no_kill_takes_anything_back),
		TEST(in_a_folder_neither),
		TEST(a_subscription_outlives_daemons_with_memory),
		TEST(a_subscription_outlives_daemons_with_a_folder),
		TEST(tierctl_follows_over_a_death),
		TEST(a_successor_may_have_room_for_fewer_or_more),
		TEST(what_a_full_disk_refused_the_successor_writes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
