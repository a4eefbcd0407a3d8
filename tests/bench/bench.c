/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>
#include "bench/events.h"
#include "bench/journal.h"
#include "bench/ladder.h"
#include "bench/latency.h"
#include "bench/sizes.h"
#include "bench/takeover.h"
#include "system/harness.h"
#include "util/base.h"

/* make bench: how fast, and how long until fast
 *
 * Latencies of the service on a daemon without a call-counting delay (so that climbs do not wait for it), the way of events, then
 * the speed of each tier against the same source built natively by clang -O2: interleaved rounds, medians, ratios of one run. An
 * argument is the part that is wanted: latency, sizes, events, takeover, journal, ladder or osr. */

static void bench_latency(void)
{
	struct daemon daemon;

	daemon_start(&daemon, ARGS("--call-counting-delay=0"));
	printf("latencies, medians\n");
	latency_of_loads(&daemon);
	latency_of_cold_calls(&daemon);
	latency_of_climbs(&daemon);
	latency_of_futex();
	latency_of_questions(&daemon);
	daemon_stop(&daemon);
}

static void bench_sizes(void)
{
	struct daemon daemon;

	daemon_start(&daemon, ARGS("--call-counting-delay=0"));
	sizes_of_loads(&daemon);
	sizes_of_methods(&daemon);
	daemon_stop(&daemon);
}

static void bench_events(void)
{
	printf("\nevents\n");
	for (int i = 0; i < 2; i++) {
		events_rate(i ? "socket" : "kernel");
		events_of_thresholds(i ? "socket" : "kernel");
	}
}

static const struct part {
	const char *name;
	void (*run)(void);
} parts[] = {
	{ "latency", bench_latency }, { "sizes", bench_sizes },   { "events", bench_events },
	{ "takeover", takeover_time }, { "journal", journal_bytes }, { "ladder", ladder_speed },
	{ "osr", ladder_osr },
};

int main(int argc, char **argv)
{
	bool found = false;

	for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
		if (argc > 1 && strcmp(argv[1], parts[i].name) != 0)
			continue;
		parts[i].run();
		found = true;
	}
	if (!found)
		fprintf(stderr, "bench: there is no part '%s'\n", argv[1]);
	return found ? 0 : 2;
}
