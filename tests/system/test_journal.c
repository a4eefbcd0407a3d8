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
#include <tier/journal.h>
#include "system/harness.h"
#include "system/json.h"
#include "system/perfetto.h"

/* The journal's folder under a daemon: what it keeps over a death, what a full disk does, and what tierctl makes of it */

#define EVENTS_MAX 8192u

struct world {
	char folder[64];
	char option[96];		/* --journal=FOLDER */
	struct tier_event events[EVENTS_MAX], again[EVENTS_MAX];
	char out[RUN_TEXT_MAX], err[RUN_TEXT_MAX];
};

static int setup(void **state)
{
	struct world *world = calloc(1, sizeof(*world));

	snprintf(world->folder, sizeof(world->folder), "%.32s/tierd-kept-XXXXXX", temporary_folder());
	assert_non_null(mkdtemp(world->folder));
	snprintf(world->option, sizeof(world->option), "--journal=%s", world->folder);
	*state = world;
	return 0;
}

static int teardown(void **state)
{
	struct world *world = *state;
	char command[96];

	umount2(world->folder, MNT_DETACH);
	snprintf(command, sizeof(command), "rm -rf '%s'", world->folder);
	assert_int_equal(system(command), 0);
	free(world);
	return 0;
}

static void start(struct world *world, struct daemon *daemon)
{
	daemon_start(daemon, ARGS(world->option, "--call-counting-delay=0"));
}

/* Two events: it comes and goes. */
static void come_and_go(struct tier_conn *conn)
{
	struct tier_module *module;

	assert_done(tier_load(conn, workload_object("fib"), NULL, 0, &module));
	tier_close(module);
	assert_done(tier_unload(conn, "fib"));
}

static bool is_idle(struct tier_conn *conn)
{
	uint32_t n;

	assert_done(tier_pending_mine(conn, &n));
	return !n;
}

/* Two climbs, and what their methods call climbs as well; then nothing more comes by itself. */
static void fill(struct daemon *daemon)
{
	struct tier_conn *conn = daemon_connect(daemon);

	climb(workload_load(conn, "fib", NULL), (const uint64_t[]){ 5, 0, 0, 0, 0 });
	climb(workload_load(conn, "crc32", NULL), NULL);
	wait_until("all is compiled", is_idle(conn));
	tier_disconnect(conn);
}

static size_t read_all(struct daemon *daemon, struct tier_event *events)
{
	struct tier_conn *conn = daemon_connect(daemon);
	size_t n = events_read(conn, 0, UINT32_MAX, events, EVENTS_MAX);

	tier_disconnect(conn);
	assert_true(n <= EVENTS_MAX);
	return n;
}

/* The same behind a gap */
static size_t read_all_behind(struct daemon *daemon, uint64_t last)
{
	struct tier_conn *conn = daemon_connect(daemon);
	struct tier_events *events;
	struct tier_event event;
	size_t n = 0;
	int r;

	assert_done(tier_events_open(conn, last + 1, &events));
	while (!(r = tier_events_next(events, 0, &event, NULL, NULL)) || r == -ENODATA)
		n += !r;
	tier_events_close(events);
	tier_disconnect(conn);
	return n;
}

static const char *segment_path(const struct world *world, uint64_t first)
{
	static char path[128];
	char name[TIER_SEGMENT_NAME_MAX];

	tier_segment_name(name, first, TIER_SEGMENT_RAW_SUFFIX);
	snprintf(path, sizeof(path), "%s/%s", world->folder, name);
	return path;
}

static unsigned int said(const struct daemon *daemon, const char *what)
{
	char text[16384] = "";
	int fd = open(daemon->log, O_RDONLY);
	unsigned int n = 0;

	assert_true(read(fd, text, sizeof(text) - 1) >= 0);
	close(fd);
	for (const char *p = text; (p = strstr(p, what)); p++)
		n++;
	return n;
}

/* -- Deaths --- */
static void old_events_are_there_after_a_kill_and_numbers_go_on(void **state)
{
	struct world *world = *state;
	struct daemon daemon;
	size_t n, m;

	start(world, &daemon);
	fill(&daemon);
	n = read_all(&daemon, world->events);
	assert_true(n >= 20);
	daemon_kill(&daemon);
	daemon_stop(&daemon);

	start(world, &daemon);
	assert_int_equal(read_all(&daemon, world->again), n);
	assert_memory_equal(world->events, world->again, n * sizeof(world->events[0]));
	fill(&daemon);
	m = read_all(&daemon, world->again);
	assert_true(m >= 2 * n - 10);
	for (size_t i = 0; i < m; i++)
		assert_int_equal(world->again[i].sequence, i + 1);
	/* ids are not given again either: the history stays unambiguous */
	for (size_t i = n; i < m; i++)
		for (size_t k = 0; k < n; k++)
			assert_false(world->again[i].module && world->again[i].module == world->events[k].module);
	assert_int_equal(said(&daemon, "damaged") + said(&daemon, "missing"), 0);
	daemon_stop(&daemon);
}

/* Takes what there is now; returns how many events are known then. */
static size_t follow(struct tier_events *events, struct tier_event *to, size_t n)
{
	while (n < EVENTS_MAX && !tier_events_next(events, 0, &to[n], NULL, NULL))
		n++;
	return n;
}

static void what_a_follower_was_told_no_kill_takes_back(void **state)
{
	struct world *world = *state;
	const int n_rounds = test_is_long() ? 50 : 6;
	struct tier_events *events;
	struct tier_conn *conn;
	struct daemon daemon;
	size_t n = 0;

	for (int round = 0; round < n_rounds; round++) {
		start(world, &daemon);
		conn = daemon_connect(&daemon);
		/* the dead one may have written more than it told */
		assert_true(read_all(&daemon, world->again) >= n);
		assert_memory_equal(world->events, world->again, n * sizeof(world->events[0]));
		assert_done(tier_events_open(conn, n + 1, &events));
		for (int i = 0; i < 3 + round * 5 % 7; i++) {
			come_and_go(conn);
			n = follow(events, world->events, n);
		}
		kill(daemon.pid, SIGKILL);
		n = follow(events, world->events, n);	/* what the socket still has */
		daemon_kill(&daemon);
		tier_events_close(events);
		tier_disconnect(conn);
		if (round + 1 < n_rounds)
			daemon_stop(&daemon);
	}
	assert_true(n >= 6u * n_rounds);
	assert_int_equal(tierctl(&daemon, world->out, world->err, "journal", "verify", world->folder, NULL), 0);
	daemon_stop(&daemon);
}

/* -- Refusals --- */
static void a_folder_serves_one_daemon_only(void **state)
{
	struct world *world = *state;
	struct daemon one, other;

	start(world, &one);
	assert_int_equal(daemon_try(&other, ARGS(world->option)), 2);
	assert_int_equal(said(&other, "another tierd keeps its journal in"), 1);
	daemon_stop(&other);
	daemon_stop(&one);
	assert_int_equal(daemon_try(&other, ARGS("--journal=memroy")), 2);
	assert_int_equal(said(&other, "'memroy' is neither memory, off nor a folder's path"), 1);
	daemon_stop(&other);
	assert_int_equal(daemon_try(&other, ARGS("--journal=/proc/no/such")), 2);
	assert_int_equal(said(&other, "cannot keep a journal in /proc/no/such"), 1);
	daemon_stop(&other);
}

static void without_a_folder_nothing_is_kept(void **state)
{
	static const char *const modes[] = { "--journal=memory", "--journal=off" };
	struct world *world = *state;
	struct daemon daemon;

	for (int i = 0; i < 2; i++) {
		daemon_start(&daemon, ARGS(modes[i], "--call-counting-delay=0"));
		fill(&daemon);
		assert_true(read_all(&daemon, world->events) >= 20);
		daemon_stop(&daemon);
	}
	assert_int_equal(rmdir(world->folder), 0);
}

/* -- A full disk --- */
static void a_full_disk_is_said_and_events_go_on(void **state)
{
	struct world *world = *state;
	struct tier_conn *conn;
	struct daemon daemon;
	size_t n, on_disk;

	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL)
	    || mount("tmpfs", world->folder, "tmpfs", 0, "size=16k,mode=0700"))
		skip();
	start(world, &daemon);
	conn = daemon_connect(&daemon);
	while (!said(&daemon, "events are kept in memory"))
		come_and_go(conn);
	come_and_go(conn);
	tier_disconnect(conn);
	n = read_all(&daemon, world->events);
	assert_int_equal(tierctl(&daemon, world->out, world->err, "journal", "verify", world->folder, "--json", NULL), 0);
	on_disk = json_number(world->out, "segments.0.last");
	assert_true(on_disk < n);

	assert_int_equal(mount(NULL, world->folder, NULL, MS_REMOUNT, "size=4m"), 0);
	wait_until("the disk takes events again", said(&daemon, "can write events"));
	assert_int_equal(said(&daemon, "events are kept in memory"), 1);
	daemon_stop(&daemon);
	start(world, &daemon);
	assert_int_equal(read_all(&daemon, world->again), n);
	assert_memory_equal(world->events, world->again, n * sizeof(world->events[0]));
	daemon_stop(&daemon);
}

/* -- tierctl journal verify --- */
static uint32_t crc(const unsigned char *p, size_t n)
{
	uint32_t crc = UINT32_MAX;

	while (n--) {
		crc ^= *p++;
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0xedb88320 : 0);
	}
	return ~crc;
}

/* Takes the mark of a gap out of a sound header. */
static void unmark(const char *path)
{
	struct tier_segment_header header;
	int fd = open(path, O_RDWR);

	assert_int_equal(pread(fd, &header, sizeof(header), 0), sizeof(header));
	assert_true(header.gap_first < header.first);
	header.gap_first = header.first;
	header.crc = crc((const unsigned char *)&header, offsetof(struct tier_segment_header, crc));
	assert_int_equal(pwrite(fd, &header, sizeof(header), 0), sizeof(header));
	close(fd);
}

static void verify_tells_good_from_damaged(void **state)
{
	struct world *world = *state;
	struct daemon daemon;
	uint64_t n;
	int fd;

	start(world, &daemon);
	fill(&daemon);
	n = read_all(&daemon, world->events);
	daemon_kill(&daemon);
	assert_int_equal(tierctl(&daemon, world->out, world->err, "journal", "verify", world->folder, "--json", NULL), 0);
	assert_int_equal(json_length(world->out, "segments"), 1);
	assert_int_equal(json_number(world->out, "segments.0.last"), n);
	assert_int_equal(json_number(world->out, "segments.0.file_bytes"), (n + 1) * 64);
	json_expect(world->out, "segments.0.coding", "raw");

	fd = open(segment_path(world, 1), O_RDWR);
	assert_int_equal(pwrite(fd, "\xff", 1, n * 64 + 17), 1);
	close(fd);
	assert_int_equal(tierctl(&daemon, world->out, world->err, "journal", "verify", world->folder, NULL), 1);
	assert_non_null(strstr(world->out, "the checksum is wrong"));
	daemon_stop(&daemon);

	/* a daemon that starts there cuts it off, says so, and marks what is missing */
	start(world, &daemon);
	assert_int_equal(said(&daemon, "is damaged at offset"), 1);
	fill(&daemon);
	assert_true(read_all_behind(&daemon, n) > 0);
	daemon_kill(&daemon);
	assert_int_equal(tierctl(&daemon, world->out, world->err, "journal", "verify", world->folder, "--json", NULL), 0);
	assert_int_equal(json_length(world->out, "segments"), 2);
	assert_int_equal(json_number(world->out, "segments.0.last"), n - 1);
	assert_true(json_number(world->out, "segments.1.first") > n);

	/* the same hole, unmarked */
	unmark(segment_path(world, json_number(world->out, "segments.1.first")));
	assert_int_equal(tierctl(&daemon, world->out, world->err, "journal", "verify", world->folder, NULL), 1);
	assert_non_null(strstr(world->out, "are missing and not marked"));

	assert_int_equal(tierctl(&daemon, world->out, world->err, "journal", "verify", "/no/such", NULL), 2);
	assert_int_equal(tierctl(&daemon, world->out, world->err, "journal", "praise", world->folder, NULL), 2);
	daemon_stop(&daemon);
}

/* -- tierctl events --- */
static void events_are_filtered(void **state)
{
	struct world *world = *state;
	struct daemon daemon;
	unsigned int n = 0;

	daemon_start(&daemon, ARGS("--call-counting-delay=0"));
	fill(&daemon);
	assert_int_equal(tierctl(&daemon, world->out, world->err, "events", "--method=fib:fib", "--kind=published", "--format=csv", NULL), 0);
	for (const char *p = world->out; (p = strstr(p, "\r\n")); p++)
		n++;
	assert_int_equal(n, 3);		/* heading, Tier0, Tier1 */
	assert_int_equal(strncmp(world->out, "sequence,time,kind,module_id,", 29), 0);
	assert_int_equal(tierctl(&daemon, world->out, world->err, "events", "--module=crc32", "--kind=module-loaded", "--json", NULL), 0);
	json_expect(world->out, "kind", "module-loaded");
	assert_int_equal(tierctl(&daemon, world->out, world->err, "events", "--since=1ns", NULL), 0);
	assert_string_equal(world->out, "");
	assert_int_equal(tierctl(&daemon, world->out, world->err, "events", "--since=1h", "--kind=module-loaded", NULL), 0);
	assert_non_null(strstr(world->out, "module-loaded"));
	assert_int_equal(tierctl(&daemon, world->out, world->err, "events", "--kind=nothing", NULL), 2);
	assert_int_equal(tierctl(&daemon, world->out, world->err, "events", "--module=nothing", NULL), 2);
	assert_int_equal(tierctl(&daemon, world->out, world->err, "events", "--format=xml", NULL), 2);
	assert_int_equal(tierctl(&daemon, world->out, world->err, "events", "-o", NULL), 2);
	assert_int_equal(tierctl(&daemon, world->out, world->err, "events", "-o", "/no/such/file", NULL), 2);
	daemon_stop(&daemon);
}

static void a_trace_shows_the_climb(void **state)
{
	struct world *world = *state;
	struct perfetto trace;
	struct daemon daemon;
	char path[128];
	size_t n;

	daemon_start(&daemon, ARGS("--call-counting-delay=0"));
	fill(&daemon);
	n = read_all(&daemon, world->events);
	snprintf(path, sizeof(path), "%s/trace", daemon.folder);
	assert_int_equal(tierctl(&daemon, world->out, world->err, "events", "--format=perfetto", "-o", path, NULL), 0);
	perfetto_read(&trace, path);
	perfetto_check(&trace);
	assert_int_equal(trace.n_instants, n);	/* one for every event: there was no delay */
	assert_true(trace.counter_most >= 1);
	assert_int_equal(trace.counter_last, 0);
	perfetto_expect_slices(&trace, "fib", "Tier0 Tier1 ");
	perfetto_expect_slices(&trace, "crc32", "Tier0 Tier1 ");
	assert_int_equal(trace.first_ns, world->events[0].time_ns);
	assert_int_equal(trace.last_ns, world->events[n - 1].time_ns);
	perfetto_free(&trace);
	daemon_stop(&daemon);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(old_events_are_there_after_a_kill_and_numbers_go_on),
		TEST(what_a_follower_was_told_no_kill_takes_back),
		TEST(a_folder_serves_one_daemon_only),
		TEST(verify_tells_good_from_damaged),
		TEST(events_are_filtered),
		TEST(a_trace_shows_the_climb),
		TEST(a_full_disk_is_said_and_events_go_on),
		TEST(without_a_folder_nothing_is_kept),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
