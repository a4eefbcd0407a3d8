/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include "bench/inputs.h"
#include "bench/journal.h"
#include "bench/latency.h"
#include "bench/measure.h"
#include "bench/settle.h"
#include "bench/sizes.h"
#include "system/harness.h"

/* make bench: how fast, and how long until fast
 *
 * Latencies of the service on a daemon without a call-counting delay (so that climbs do not wait for it), then the speed of
 * both tiers against the same source built natively by clang -O2: interleaved rounds, medians, ratios of one run. */

#define ROUNDS 15
#define ROUND_NS 2000000u

static struct tier_method *open_workload(struct tier_conn *conn, const struct workload *workload, struct tier_module **module)
{
	struct tier_method *method;

	if (tier_load(conn, workload_object(workload->file), NULL, 0, module) || tier_find(*module, workload->entry, &method)) {
		fprintf(stderr, "%s: %s\n", workload->name, tier_error_text());
		exit(1);
	}
	return method;
}

static void drive(struct tier_method *method, const struct workload_input *input)
{
	struct tier_climb steps = TIER_CLIMB(method);
	uint32_t calls;

	while (tier_climb_next(&steps, TEST_DEADLINE_NS, NULL, &calls) > 0)
		while (calls--)
			input_call(input, tier_entry(method));
}

/* ns per call relative to native; @climbs: at the final tier, else at whatever the daemon's knobs leave it at. */
static double ratio(struct tier_conn *conn, const struct workload *workload, bool climbs, struct series *ret_tier,
		    struct series *ret_native)
{
	struct workload_input *input = workload->make();
	struct tier_module *module;
	struct tier_method *method = open_workload(conn, workload, &module);

	if (climbs) {
		drive(method, input);
		settle(module, input, tier_entry(method));
	}
	measure_pair(input, tier_entry(method), workload->native, ROUNDS, ROUND_NS, ret_tier, ret_native);
	input_free(input);
	tier_close(module);
	return series_median(ret_tier) / series_median(ret_native);
}

/* Two daemons: one whose methods stay at tier 0 (--call-counting=off), one whose methods climb. */
static void print_speed(const struct daemon *daemon)
{
	double *ratios[2] = { calloc(n_workloads, sizeof(double)), calloc(n_workloads, sizeof(double)) };
	struct tier_conn *climbing = daemon_connect(daemon), *staying;
	struct daemon stays;

	daemon_start(&stays, (const char *const[]){ "--call-counting=off", NULL });
	staying = daemon_connect(&stays);
	printf("\nns per call, medians of %d interleaved rounds of %u ms\n  %-12s %10s %10s %10s %9s %9s\n", ROUNDS, ROUND_NS / 1000000,
	       "workload", "tier 0", "tier 1", "native", "0/native", "1/native");
	for (size_t i = 0; i < n_workloads; i++) {
		struct series tier0, tier1, native;

		ratios[0][i] = ratio(staying, &workloads[i], false, &tier0, &native);
		ratios[1][i] = ratio(climbing, &workloads[i], true, &tier1, &native);
		printf("  %-12s %10.1f %10.1f %10.1f %9.2f %9.2f\n", workloads[i].name, series_median(&tier0), series_median(&tier1),
		       series_median(&native), ratios[0][i], ratios[1][i]);
		fflush(stdout);
	}
	printf("  %-12s %42.2f %9.2f\n", "geometric mean", geometric_mean(ratios[0], n_workloads),
	       geometric_mean(ratios[1], n_workloads));
	tier_disconnect(staying);
	tier_disconnect(climbing);
	daemon_stop(&stays);
	free(ratios[0]);
	free(ratios[1]);
}

int main(void)
{
	struct daemon daemon;

	daemon_start(&daemon, (const char *const[]){ "--call-counting-delay=0", NULL });
	printf("latencies, medians\n");
	latency_of_loads(&daemon);
	latency_of_cold_calls(&daemon);
	latency_of_climbs(&daemon);
	latency_of_futex();
	sizes_of_loads(&daemon);
	sizes_of_methods(&daemon);
	journal_bytes();
	print_speed(&daemon);
	daemon_stop(&daemon);
	return 0;
}
