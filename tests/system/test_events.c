/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "system/harness.h"
#include "system/json.h"
#include "system/perfetto.h"

/* Whoever reads events: what retention took from them is told by its numbers in every format, and one who reads slowly or not at all
 * costs the daemon nothing. */

#define KEPT 16u

struct world {
	struct daemon daemon;
	char out[RUN_TEXT_MAX], err[RUN_TEXT_MAX];
};

static int setup(void **state)
{
	*state = calloc(1, sizeof(struct world));
	return 0;
}

static int teardown(void **state)
{
	free(*state);
	return 0;
}

static uint64_t newest(struct tier_conn *conn)
{
	struct tier_events *events;
	struct tier_event event;
	uint64_t last = 0;
	int r;

	assert_done(tier_events_open(conn, 1, &events));
	while (!(r = tier_events_next(events, 0, &event, NULL, NULL)) || r == -ENODATA)
		last = r ? last : event.sequence;
	tier_events_close(events);
	return last;
}

/* Two events each: the cheapest there are */
static void freeze_and_thaw(struct tier_module *module, unsigned int n)
{
	while (n--) {
		assert_done(tier_freeze(module));
		assert_done(tier_thaw(module));
	}
}

/* -- Gaps --- */
static const char *line(const char *text, unsigned int i)
{
	static char copy[1024];
	size_t n;

	while (i--)
		text = strchr(text, '\n') + 1;
	n = strcspn(text, "\n");
	assert_true(n < sizeof(copy));
	memcpy(copy, text, n);
	copy[n] = '\0';
	return copy;
}

static void gap_in_json(struct world *world, const char *wanted, uint64_t last)
{
	assert_int_equal(tierctl(&world->daemon, world->out, world->err, "events", "--from=1", "--json", NULL), 0);
	assert_non_null(strstr(world->err, wanted));
	assert_int_equal(json_number(line(world->out, 0), "gap_first"), 1);
	assert_int_equal(json_number(line(world->out, 0), "gap_last"), last - KEPT);
	for (unsigned int i = 1; i <= KEPT; i++)
		assert_int_equal(json_number(line(world->out, i), "sequence"), last - KEPT + i);
}

static void gap_in_text(struct world *world, const char *wanted, uint64_t last)
{
	static const char *const formats[] = { "--format=table", "--format=csv" };

	for (unsigned int i = 0; i < 2; i++) {
		assert_int_equal(tierctl(&world->daemon, world->out, world->err, "events", "--from=1", formats[i], NULL), 0);
		assert_non_null(strstr(world->err, wanted));
		assert_int_equal(strtoull(line(world->out, i), NULL, 10), last - KEPT + 1);	/* csv has headings */
	}
}

static void gap_in_a_trace(struct world *world, uint64_t last)
{
	struct perfetto trace;
	char path[128], name[64];
	bool is_there = false;

	snprintf(path, sizeof(path), "%s/trace", world->daemon.folder);
	assert_int_equal(tierctl(&world->daemon, world->out, world->err, "events", "--from=1", "--format=perfetto", "-o", path, NULL), 0);
	perfetto_read(&trace, path);
	perfetto_check(&trace);
	assert_int_equal(trace.n_instants, KEPT + 1);
	snprintf(name, sizeof(name), "1 to %lu", (unsigned long)(last - KEPT));
	for (int i = 0; i < trace.n_tracks; i++)
		is_there |= !strcmp(trace.tracks[i].name, "events that are no longer kept");
	assert_true(is_there);
	assert_non_null(memmem(trace.bytes, trace.n, name, strlen(name)));
	perfetto_free(&trace);
}

static void what_is_no_longer_kept_is_told_by_its_numbers(void **state)
{
	struct world *world = *state;
	struct tier_module *module;
	struct tier_conn *conn;
	char wanted[96];
	uint64_t last;

	daemon_start(&world->daemon, ARGS("--journal=memory", "--journal-events=16", "--call-counting-delay=0"));
	conn = daemon_connect(&world->daemon);
	assert_done(tier_load(conn, workload_object("fib"), NULL, 0, &module));
	freeze_and_thaw(module, 50);
	last = newest(conn);
	snprintf(wanted, sizeof(wanted), "events 1 to %lu are no longer kept", (unsigned long)(last - KEPT));
	gap_in_json(world, wanted, last);
	gap_in_text(world, wanted, last);
	gap_in_a_trace(world, last);
	tier_disconnect(conn);
	daemon_stop(&world->daemon);
}

static void several_kinds_can_be_wanted(void **state)
{
	struct world *world = *state;
	struct tier_module *module;
	struct tier_conn *conn;
	unsigned int n = 0;

	daemon_start(&world->daemon, ARGS("--call-counting-delay=0"));
	conn = daemon_connect(&world->daemon);
	assert_done(tier_load(conn, workload_object("fib"), NULL, 0, &module));
	freeze_and_thaw(module, 3);
	assert_int_equal(tierctl(&world->daemon, world->out, world->err, "events", "--kind=thawed,module-loaded", NULL), 0);
	for (const char *p = world->out; (p = strchr(p, '\n')); p++)
		n++;
	assert_int_equal(n, 4);
	assert_null(strstr(world->out, "frozen"));
	assert_int_equal(tierctl(&world->daemon, world->out, world->err, "events", "--kind=frozen,", NULL), 2);
	assert_non_null(strstr(world->err, "--kind: '' is none of module-loaded, "));
	assert_int_equal(tierctl(&world->daemon, world->out, world->err, "events", "--kind=frozen,thaw", NULL), 2);
	assert_non_null(strstr(world->err, "--kind: 'thaw' is none of module-loaded, "));
	tier_disconnect(conn);
	daemon_stop(&world->daemon);
}

/* -- Slow ones --- */
static uint64_t resident_kib(const struct daemon *daemon)
{
	char path[64], row[128];
	uint64_t n = 0;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/status", daemon->pid);
	file = fopen(path, "r");
	assert_non_null(file);
	while (fgets(row, sizeof(row), file))
		if (!strncmp(row, "VmRSS:", 6))
			n = strtoull(row + 6, NULL, 10);
	fclose(file);
	assert_true(n > 0);
	return n;
}

struct subscriber {
	const struct daemon *daemon;
	uint64_t kept;
	int ends[2];	/* it says which number it was told last, before it stops */
};

/* Reads a little, stops, and later goes on: behind the gap that it is told, up to the end. */
static void subscribe_and_stop(void *context)
{
	struct subscriber *subscriber = context;
	struct tier_conn *conn = daemon_connect(subscriber->daemon);
	uint64_t next = 1, first, last, end;
	struct tier_events *events;
	struct tier_event event;
	int r;

	child_assert(!tier_events_open(conn, 1, &events));
	for (; next <= 10; next++)
		child_assert(!tier_events_next(events, TIER_FOREVER, &event, NULL, NULL) && event.sequence == next);
	child_assert(write(subscriber->ends[1], &next, sizeof(next)) == sizeof(next));
	raise(SIGSTOP);
	child_assert(read(subscriber->ends[0], &end, sizeof(end)) == sizeof(end));
	while (next <= end) {
		r = tier_events_next(events, TIER_FOREVER, &event, &first, &last);
		if (r == -ENODATA) {
			child_assert(first == next && last >= first);
			next = last + 1;
			continue;
		}
		child_assert(!r && event.sequence == next);
		next++;
	}
	tier_events_close(events);
	tier_disconnect(conn);
}

#define SUBSCRIBERS 8

static void a_subscriber_that_stands_costs_no_memory(void **state)
{
	const unsigned int n_pairs = test_is_long() ? 100000 : 15000;
	struct world *world = *state;
	struct subscriber subscribers[SUBSCRIBERS];
	pid_t pids[SUBSCRIBERS];
	struct tier_module *module;
	struct tier_conn *conn;
	uint64_t before, after, told, end;
	int status;

	daemon_start(&world->daemon, ARGS("--journal=memory", "--journal-events=4096", "--call-counting-delay=0"));
	conn = daemon_connect(&world->daemon);
	assert_done(tier_load(conn, workload_object("fib"), NULL, 0, &module));
	for (int i = 0; i < SUBSCRIBERS; i++) {
		subscribers[i] = (struct subscriber){ .daemon = &world->daemon };
		pipe_open(subscribers[i].ends);
		pids[i] = child_start(subscribe_and_stop, &subscribers[i]);
		freeze_and_thaw(module, 10);
		assert_int_equal(read(subscribers[i].ends[0], &told, sizeof(told)), sizeof(told));
		assert_int_equal(waitpid(pids[i], &status, WUNTRACED), pids[i]);
		assert_true(WIFSTOPPED(status));
	}
	freeze_and_thaw(module, 3000);	/* memory is full of events now, and what grows once has grown */
	before = resident_kib(&world->daemon);
	freeze_and_thaw(module, n_pairs);
	after = resident_kib(&world->daemon);
	print_message("%u events, %d subscribers that stand: resident %lu KiB before, %lu after\n", 2 * n_pairs, SUBSCRIBERS,
		      (unsigned long)before, (unsigned long)after);
	assert_true(after <= before + 512);
	end = newest(conn);
	assert_true(end >= 2u * n_pairs);
	for (int i = 0; i < SUBSCRIBERS; i++) {
		assert_int_equal(write(subscribers[i].ends[1], &end, sizeof(end)), sizeof(end));
		kill(pids[i], SIGCONT);
		child_end(pids[i]);
		close(subscribers[i].ends[0]);
		close(subscribers[i].ends[1]);
	}
	tier_disconnect(conn);
	daemon_stop(&world->daemon);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(what_is_no_longer_kept_is_told_by_its_numbers),
		TEST(several_kinds_can_be_wanted),
		TEST(a_subscriber_that_stands_costs_no_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
