/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include "system/storm.h"

/* The lossless storm (storm.h), while all that can lose an event is against it
 *
 *   the ring buffer has one page, and the daemon is stopped while all clients cross their thresholds;
 *   and one subscriber is killed again and again. */

#define SEED_VARIABLE "TIER_TEST_SEED"	/* to see a storm again, as far as processes that run side by side allow it */
#define STORM_OPTIONS "--tiered-pgo=on", "--ring-bytes=4096", "--journal-events=1000000"

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
	storm_end(storm);
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
	storm_finish(&storm);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_is_lost_while_the_daemon_stands_still),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
