/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <tier/journal.h>
#include "bench/journal.h"
#include "bench/measure.h"
#include "bench/sizes.h"

/* Two and a half thousand short methods that climb make more events than a segment has. */
#define N_METHODS 2500u
#define N_INSNS 16u
#define N_CALLS 31u
#define ROUNDS 200

static void require(bool is_good, const char *what)
{
	if (is_good)
		return;
	fprintf(stderr, "%s: %s\n", what, tier_error_text());
	exit(1);
}

static bool is_idle(struct tier_conn *conn)
{
	uint32_t n = 0;

	require(!tier_pending_mine(conn, &n), "pending");
	return !n;
}

static void climb_all(struct daemon *daemon, struct tier_conn *conn)
{
	struct tier_module *module;
	struct tier_method *method;

	require(!tier_load(conn, sizes_object(daemon, "many", N_METHODS, N_INSNS), "many", 0, &module), "many");
	for (uint32_t i = 0; i < N_METHODS; i++) {
		require(!tier_method_at(module, i, &method), "many");
		for (unsigned int k = 0; k < N_CALLS; k++)
			tier_entry(method)(k, 0, 0, 0, 0);
	}
	wait_until("all methods are compiled", is_idle(conn));
	tier_close(module);
}

/* Of the deflated segments of the folder; false: there is none yet. */
static bool deflated_bytes(const char *path, double *ret_per_event)
{
	struct tier_segment_header header;
	DIR *folder = opendir(path);
	uint64_t n_bytes = 0, n = 0;
	struct dirent *entry;

	while (folder && (entry = readdir(folder))) {
		char name[4096];
		const char *suffix;
		struct stat status;
		FILE *file;

		if (!tier_segment_parse(entry->d_name, &suffix) || strcmp(suffix, TIER_SEGMENT_DEFLATED_SUFFIX))
			continue;
		snprintf(name, sizeof(name), "%s/%s", path, entry->d_name);
		file = fopen(name, "r");
		if (file && fread(&header, sizeof(header), 1, file) == 1 && !fstat(fileno(file), &status)) {
			n_bytes += status.st_size;
			n += header.last + 1 - header.first;
		}
		if (file)
			fclose(file);
	}
	if (folder)
		closedir(folder);
	*ret_per_event = n ? (double)n_bytes / n : 0;
	return n;
}

/* From a load's answer, which comes after its event, to the event: what waiting for the disk costs whoever follows. */
static double follower_delay(struct tier_conn *conn)
{
	struct series series = { .n = 0 };
	struct tier_events *events;
	struct tier_event event;

	require(!tier_events_open(conn, 0, &events), "events");
	for (int i = 0; i < ROUNDS; i++) {
		struct tier_module *module;
		uint64_t begin;

		require(!tier_load(conn, workload_object("fib"), NULL, 0, &module), "fib");
		begin = measure_now_ns();
		require(!tier_events_next(events, TEST_DEADLINE_NS, &event, NULL, NULL), "events");
		if (i % (ROUNDS / MEASURE_ROUNDS_MAX + 1) == 0)
			series_add(&series, measure_now_ns() - begin);
		tier_close(module);
		require(!tier_unload(conn, "fib") && !tier_events_next(events, TEST_DEADLINE_NS, &event, NULL, NULL), "fib");
	}
	tier_events_close(events);
	return series_median(&series);
}

static void print_delay(const char *word, const char *const *args)
{
	struct daemon daemon;
	struct tier_conn *conn;

	daemon_start(&daemon, args);
	conn = daemon_connect(&daemon);
	printf("  %-34s %10.1f us from an answer to the follower's event\n", word, follower_delay(conn) / 1e3);
	tier_disconnect(conn);
	daemon_stop(&daemon);
}

void journal_bytes(void)
{
	char option[128], path[96], interval[160], record[160];
	struct daemon daemon, place;
	struct tier_conn *conn;
	double per_event;

	printf("\nthe journal on disk\n");
	daemon_start(&place, NULL);	/* for its folder */
	snprintf(path, sizeof(path), "%s/journal", place.folder);
	snprintf(option, sizeof(option), "--journal=%s", path);
	daemon_start(&daemon, ARGS(option, "--call-counting-delay=0", "--sweep=10ms"));
	conn = daemon_connect(&daemon);
	climb_all(&daemon, conn);
	wait_until("a segment is deflated", deflated_bytes(path, &per_event));
	printf("  %-34s %10.1f bytes a transition, %.1f deflated\n", "climbs of many methods", (double)sizeof(struct tier_event), per_event);
	tier_disconnect(conn);
	daemon_stop(&daemon);
	snprintf(interval, sizeof(interval), "--journal=%s/interval", place.folder);
	snprintf(record, sizeof(record), "--journal=%s/record", place.folder);
	print_delay("--journal=memory", ARGS("--journal=memory"));
	print_delay("--journal-sync=interval", ARGS(interval));
	print_delay("--journal-sync=record", ARGS(record, "--journal-sync=record"));
	daemon_stop(&place);
}
