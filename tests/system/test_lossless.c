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
#include <time.h>
#include <unistd.h>
#include "system/storm.h"

/* The lossless storm (storm.h), while all that can lose an event is against it
 *
 *   the ring buffer has one page, and the daemon is stopped while all clients cross their thresholds; or
 *   the daemon is killed at random moments, of loads, first calls, crossings, and of its successors' own takeovers;
 *   and one subscriber is killed again and again. */

#define SEED_VARIABLE "TIER_TEST_SEED"	/* to see a storm again, as far as processes that run side by side allow it */
#define STORM_OPTIONS                                                                                                          \
	"--tiered-pgo=on", "--ring-bytes=4096", "--journal-events=1000000", "--load-limit=3min", "--compile-limit=3min"

static const struct storm_scale reduced = { 4, 10, 100, 4, 3, .has_loops = true };
static const struct storm_scale full = { 16, 40, 500, 20, 4, .has_loops = true };

static void storm_seed(struct storm *storm)
{
	const char *text = getenv(SEED_VARIABLE);

	*storm = (struct storm){ .seed = text ? strtoull(text, NULL, 10) : test_now_ns() | 1 };
	print_message("seed %lu (" SEED_VARIABLE ")\n", (unsigned long)storm->seed);
}

static void storm_finish(struct storm *storm)
{
	print_message("a subscriber was killed %u times\n", storm->followers[2].n_kills);
	daemon_stop(&storm->daemon);
}

/* -- The daemon stands still --- */
/* Meanwhile all thresholds are crossed that can be, and the subscriber that is there to be killed dies, too. */
static void storm_stop(struct storm *storm, unsigned int wave)
{
	const uint64_t end = test_now_ns() + (test_is_long() ? 5000000000u : 500000000u);

	assert_int_equal(kill(storm->daemon.pid, SIGSTOP), 0);
	storm_cross(storm, wave);
	follower_kill(&storm->followers[2]);
	storm_await("the end of the pause", test_now_ns() >= end);
	assert_int_equal(kill(storm->daemon.pid, SIGCONT), 0);
}

static void nothing_is_lost_while_the_daemon_stands_still(void **state)
{
	const struct storm_scale *scale = test_is_long() ? &full : &reduced;
	static struct storm storm;

	storm_seed(&storm);
	daemon_start(&storm.daemon, ARGS(STORM_OPTIONS, "--call-counting-delay=0"));
	storm_begin(&storm, scale);
	for (unsigned int wave = 0; wave < storm_n_waves(scale); wave++) {
		storm_load(&storm, wave);
		follower_kill(&storm.followers[2]);
		storm_await_begun(&storm, wave);
		storm_stop(&storm, wave);
		storm_await_done(&storm, wave);
		follower_kill(&storm.followers[2]);
	}
	storm_end(&storm);
	storm_finish(&storm);
}

/* -- The daemon dies --- */
struct killer {
	struct storm *storm;
	unsigned int n;
	uint64_t random;
};

static int by_value(const void *a, const void *b)
{
	const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

static void rest(struct killer *killer, uint64_t ns_max)
{
	nanosleep(&(struct timespec){ .tv_nsec = storm_random(&killer->random) % ns_max }, NULL);
}

/* A successor that has just been started is killed as well, every third time: perhaps before it has taken anything over. */
static unsigned int kill_daemon(struct killer *killer)
{
	struct daemon *daemon = &killer->storm->daemon;
	pid_t pid;

	if (storm_random(&killer->random) % 3) {
		daemon_kill_main(daemon);
		return 1;
	}
	if (storm_random(&killer->random) % 4 == 0)
		daemon_restart_main(daemon);	/* an upgrade, in between */
	pid = daemon_main_pid(daemon);
	child_assert(!kill(pid, SIGKILL));
	storm_await("another daemon", daemon_main_pid(daemon) != pid);
	rest(killer, 100000000);
	daemon_kill_main(daemon);
	return 2;
}

/* The moments are those of the storm's own progress. */
static void killer_run(void *context)
{
	struct killer *killer = context;
	const struct storm *storm = killer->storm;
	uint32_t *moments = malloc(killer->n * sizeof(*moments));
	unsigned int n = 0;

	child_assert(moments);
	for (unsigned int i = 0; i < killer->n; i++)
		moments[i] = storm_random(&killer->random) % storm_progress_max(storm->scale);
	qsort(moments, killer->n, sizeof(*moments), by_value);
	while (n < killer->n) {
		storm_await("the next moment", storm_read(&storm->shared->progress) >= moments[n]);
		rest(killer, 10000000);
		n += kill_daemon(killer);
	}
	print_message("the daemon was killed %u times\n", n);
	free(moments);
}

/* With the seed's help: a journal in memory or in a folder, and calls that count at once or after a delay */
static void storm_start_kept(struct storm *storm, struct storm_scale *scale, char *folder, size_t n)
{
	char option[128];

	*scale = test_is_long() ? full : reduced;
	scale->has_loops = false;	/* a frame asks again for code that nobody knows of any more */
	scale->has_delay = storm->seed >> 1 & 1;
	snprintf(folder, n, "%s", "memory");
	if (storm->seed >> 2 & 1) {
		snprintf(folder, n, "%.32s/tierd-lossless-XXXXXX", temporary_folder());
		assert_non_null(mkdtemp(folder));
	}
	snprintf(option, sizeof(option), "--journal=%s", folder);
	daemon_start_kept(&storm->daemon,
			  ARGS(STORM_OPTIONS, option, scale->has_delay ? "--call-counting-delay=10ms" : "--call-counting-delay=0"));
}

static void check_folder(const struct storm *storm, const char *folder)
{
	char out[RUN_TEXT_MAX], err[RUN_TEXT_MAX];

	if (tierctl(&storm->daemon, out, err, "journal", "verify", folder, NULL))
		fail_msg("%s%s", out, err);
}

/* When nobody is there any more who would make it again */
static void remove_folder(const char *folder)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -rf '%s'", folder);
	assert_int_equal(system(command), 0);
}

/* It died of nothing but the killer. */
static void check_log(const struct daemon *daemon)
{
	static const char *const bad[] = { "is lost", "ssertion", "Sanitizer", "runtime error" };
	FILE *file = fopen(daemon->log, "r");
	char line[1024];

	assert_non_null(file);
	while (fgets(line, sizeof(line), file)) {
		bool is_bad = strstr(line, "died of signal") && !strstr(line, "(Killed)");

		for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
			is_bad |= strstr(line, bad[i]) != NULL;
		if (is_bad)
			fail_msg("the daemon's log says: %s", line);
	}
	fclose(file);
}

static void survive(const char *store)
{
	static struct storm_scale scale;
	static struct storm storm;
	struct killer killer = { .storm = &storm, .n = test_is_long() ? 50 : 5 };
	char folder[80];
	pid_t pid;

	assert_int_equal(setenv("TIER_STORE", store, 1), 0);
	storm_seed(&storm);
	storm_start_kept(&storm, &scale, folder, sizeof(folder));
	killer.random = storm.seed;
	storm_begin(&storm, &scale);
	pid = child_start(killer_run, &killer);
	for (unsigned int wave = 0; wave < storm_n_waves(&scale); wave++) {
		storm_load(&storm, wave);
		follower_kill(&storm.followers[2]);
		storm_cross(&storm, wave);
		storm_await_done(&storm, wave);
	}
	child_end(pid);
	storm_end(&storm);
	check_log(&storm.daemon);
	if (strcmp(folder, "memory") != 0)
		check_folder(&storm, folder);
	storm_finish(&storm);
	if (strcmp(folder, "memory") != 0)
		remove_folder(folder);
}

static void nothing_is_lost_when_the_daemon_dies_in_a_keepers_care(void **state)
{
	survive("keeper");
}

static void nothing_is_lost_when_the_daemon_dies_in_a_managers_care(void **state)
{
	survive("manager");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_is_lost_while_the_daemon_stands_still),
		cmocka_unit_test(nothing_is_lost_when_the_daemon_dies_in_a_keepers_care),
		cmocka_unit_test(nothing_is_lost_when_the_daemon_dies_in_a_managers_care),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
