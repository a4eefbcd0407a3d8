/* SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "bench/events.h"
#include "bench/measure.h"
#include "bench/sizes.h"
#include "system/follower.h"
#include "util/base.h"

/* Short ladders: a method's first threshold is followed by its instrumented tier, which the daemon makes by itself, so
 * that it is events that are measured and not the optimizer. */

#define N_CLIENTS    8u
#define N_METHODS    1000u /* of each client's module */
#define N_PER_METHOD 8u    /* published, counting, threshold, queued, started, ended, published, counting */
#define N_EVENTS     (N_CLIENTS * (N_METHODS * N_PER_METHOD + 1))
#define N_INSNS      24u
#define N_CALLS      31u /* the first is not counted, the last crosses */
#define N_ROUNDS     3
#define N_THRESHOLDS 2000u

static void require(int r, const char *what)
{
	if (!r)
		return;
	fprintf(stderr, "%s: %s\n", what, tier_error_text());
	exit(1);
}

static const char *mode_option(const char *mode)
{
	return strcmp(mode, "kernel") ? "--events=socket" : "--events=kernel";
}

/* -- Many clients --- */
struct crowd {
	struct daemon daemon;
	char object[256];
	uint32_t n_ready, is_begun; /* shared by all */
};

struct member {
	struct crowd *crowd;
	unsigned int number;
};

static void member_run(void *context)
{
	const struct member *member = context;
	struct crowd *crowd = member->crowd;
	struct tier_conn *conn = daemon_connect(&crowd->daemon);
	static struct tier_method *methods[N_METHODS];
	struct tier_module *module;
	char name[16];

	snprintf(name, sizeof(name), "part%u", member->number);
	require(tier_load(conn, crowd->object, name, 0, &module), name);
	for (uint32_t i = 0; i < N_METHODS; i++)
		require(tier_method_at(module, i, &methods[i]), name);
	__atomic_fetch_add(&crowd->n_ready, 1, __ATOMIC_RELEASE);
	wait_until("all are there", __atomic_load_n(&crowd->is_begun, __ATOMIC_ACQUIRE));
	for (uint32_t i = 0; i < N_METHODS; i++)
		for (uint32_t k = 0; k < N_CALLS; k++)
			tier_entry(methods[i])(k, 0, 0, 0, 0);
	tier_disconnect(conn);
}

/* Seconds from the first call to the follower's last event */
static double crowd_run(struct crowd *crowd, struct follower *follower)
{
	struct member members[N_CLIENTS];
	pid_t pids[N_CLIENTS];
	uint64_t begin, end;

	for (unsigned int i = 0; i < N_CLIENTS; i++) {
		members[i] = (struct member){ crowd, i };
		pids[i] = child_start(member_run, &members[i]);
	}
	wait_until("all have loaded", __atomic_load_n(&crowd->n_ready, __ATOMIC_ACQUIRE) == N_CLIENTS);
	begin = measure_now_ns();
	__atomic_store_n(&crowd->is_begun, 1, __ATOMIC_RELEASE);
	wait_until("all events", __atomic_load_n(&follower->list->n, __ATOMIC_ACQUIRE) >= N_EVENTS);
	end = measure_now_ns();
	for (unsigned int i = 0; i < N_CLIENTS; i++)
		child_end(pids[i]);
	return (end - begin) / 1e9;
}

static double rate_once(const char *mode)
{
	struct crowd *crowd = mmap(NULL, sizeof(*crowd), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	char folder[64], option[96], command[96];
	struct follower follower;
	double seconds;

	snprintf(folder, sizeof(folder), "%.32s/tierd-bench-XXXXXX", temporary_folder());
	if (crowd == MAP_FAILED || !mkdtemp(folder)) {
		perror("bench");
		exit(1);
	}
	snprintf(option, sizeof(option), "--journal=%s", folder);
	daemon_start(&crowd->daemon, ARGS(mode_option(mode), "--tiered-pgo=on", "--call-counting-delay=0", option));
	snprintf(crowd->object, sizeof(crowd->object), "%s", sizes_object(&crowd->daemon, "many", N_METHODS, N_INSNS));
	follower_start(&follower, &crowd->daemon, 2 * N_EVENTS, 0);
	seconds = crowd_run(crowd, &follower);
	follower_end(&follower, follower.list->events, N_EVENTS);
	daemon_stop(&crowd->daemon);
	munmap(crowd, sizeof(*crowd));
	snprintf(command, sizeof(command), "rm -rf '%s'", folder);
	if (system(command))
		fprintf(stderr, "failed: %s\n", command);
	return seconds;
}

void events_rate(const char *mode)
{
	struct series rate = { .n = 0 };

	for (int i = 0; i < N_ROUNDS; i++)
		series_add(&rate, N_EVENTS / rate_once(mode));
	printf("  %-6s  %u clients, a journal in a folder, a follower: %25.0f events/s, of which %.0f thresholds\n",
	       mode, N_CLIENTS, series_median(&rate), series_median(&rate) / N_PER_METHOD);
}

/* -- One threshold --- */
struct watch {
	struct tier_events *events;
	sem_t is_seen;
	uint64_t seen_ns;
};

static void *watch_run(void *argument)
{
	struct watch *watch = argument;
	struct tier_event event;

	for (uint32_t i = 0; i < N_THRESHOLDS; i++) {
		do
			require(tier_events_next(watch->events, TEST_DEADLINE_NS, &event, NULL, NULL), "events");
		while (event.kind != TIER_EVENT_THRESHOLD);
		watch->seen_ns = measure_now_ns();
		sem_post(&watch->is_seen);
	}
	return NULL;
}

static uint64_t call_ns(const struct tier_method *method)
{
	const uint64_t begin = measure_now_ns();

	tier_entry(method)(1, 0, 0, 0, 0);
	return measure_now_ns() - begin;
}

/* ns of each: */
struct figures {
	double counted[N_THRESHOLDS];  /* a call that is counted and does not cross */
	double crossing[N_THRESHOLDS]; /* the one that does */
	double seen[N_THRESHOLDS];     /* from its begin until the follower's thread has the event */
};

static void measure_thresholds(struct tier_module *module, struct watch *watch, struct figures *figures)
{
	for (uint32_t i = 0; i < N_THRESHOLDS; i++) {
		struct tier_method *method;
		uint64_t begin;

		require(tier_method_at(module, i, &method), "method");
		for (uint32_t k = 0; k < N_CALLS - 2; k++)
			tier_entry(method)(1, 0, 0, 0, 0);
		figures->counted[i] = call_ns(method);
		begin = measure_now_ns();
		figures->crossing[i] = call_ns(method);
		while (sem_wait(&watch->is_seen))
			;
		figures->seen[i] = watch->seen_ns - begin;
	}
}

static void print_figures(const char *mode, struct figures *figures)
{
	const double counted = values_percentile(figures->counted, N_THRESHOLDS, 0.5);
	const double crossing = values_percentile(figures->crossing, N_THRESHOLDS, 0.5);

	printf("  %-6s  a threshold in the calling thread, beside a counted call: %10.2f us  (p99 %.2f, n %u; a "
	       "counted call: %.3f)\n",
	       mode, (crossing - counted) / 1e3,
	       (values_percentile(figures->crossing, N_THRESHOLDS, 0.99) - counted) / 1e3, N_THRESHOLDS, counted / 1e3);
	printf("  %-6s  from the crossing call to the follower's thread: %19.2f us  (p99 %.2f, n %u)\n", mode,
	       values_percentile(figures->seen, N_THRESHOLDS, 0.5) / 1e3,
	       values_percentile(figures->seen, N_THRESHOLDS, 0.99) / 1e3, N_THRESHOLDS);
}

void events_of_thresholds(const char *mode)
{
	static struct figures figures;
	struct tier_module *module;
	struct tier_conn *conn;
	struct daemon daemon;
	struct watch watch;
	pthread_t thread;

	daemon_start(&daemon, ARGS(mode_option(mode), "--tiered-pgo=on", "--call-counting-delay=0"));
	conn = daemon_connect(&daemon);
	require(tier_load(conn, sizes_object(&daemon, "many", N_THRESHOLDS, N_INSNS), "many", 0, &module), "many");
	require(tier_events_open(conn, 0, &watch.events), "events");
	sem_init(&watch.is_seen, 0, 0);
	pthread_create(&thread, NULL, watch_run, &watch);
	measure_thresholds(module, &watch, &figures);
	pthread_join(thread, NULL);
	sem_destroy(&watch.is_seen);
	print_figures(mode, &figures);
	tier_events_close(watch.events);
	tier_close(module);
	tier_disconnect(conn);
	daemon_stop(&daemon);
}
