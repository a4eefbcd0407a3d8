/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <stddef.h>
#include <cmocka.h>
#include <tier/wire.h>
#include "bench/inputs.h"
#include "bench/measure.h"
#include "bench/settle.h"
#include "system/harness.h"

/* make demo: the main job on real methods
 *
 * A private daemon; every workload is loaded, driven to its final tier along its schedule, timed at each tier beside the
 * same source built by clang -O2, and its results are compared with that build at every tier. A difference fails the demo. */

#define ROUNDS 9
#define ROUND_NS 1000000u

struct climbed {
	const char *name;
	uint64_t n_calls;	/* until final */
	double first_us;	/* the first call, prestub and tier-0 compile included */
	double climb_ms;	/* first call → final */
	double tier0_ns, tier1_ns, native_ns;
	bool equal;
	struct tier_answer end;
};

/* One call from pristine memory on both sides: same result, same bytes. */
static bool same_as_native(const struct workload *workload, struct workload_input *input, workload_function *fn)
{
	uint8_t *expected = malloc(input->n_buffer + 1);
	uint64_t result;
	bool same;

	input_reset(input);
	result = input_call(input, workload->native);
	if (input->n_buffer)
		memcpy(expected, input->buffer, input->n_buffer);
	input_reset(input);
	same = input_call(input, fn) == result && (!input->n_buffer || !memcmp(expected, input->buffer, input->n_buffer));
	free(expected);
	return same;
}

/* Tier-0 code can be timed while calls are not counted: until the call-counting delay ends. */
static double time_tier0(const struct workload_input *input, const struct tier_method *method, workload_function *fn,
			 uint64_t *n_calls)
{
	struct series rounds = { .n = 0 };
	uint64_t batch = 1;

	while (rounds.n < ROUNDS && tier_status(method).stage == TIER_STAGE_UNCOUNTED) {
		double ns = measure_round(input, fn, batch);

		*n_calls += batch;
		if (tier_status(method).stage != TIER_STAGE_UNCOUNTED)
			break;
		if (ns * batch < ROUND_NS / 2)
			batch *= 2;
		else
			series_add(&rounds, ns);
	}
	return series_median(&rounds);
}

static bool climb_to_final(const struct workload *workload, struct workload_input *input, const struct tier_method *method,
			   struct climbed *c)
{
	workload_function *fn = tier_entry(method);
	struct tier_climb steps = TIER_CLIMB(method);
	uint64_t begin = measure_now_ns();
	uint32_t calls;
	int r;

	while ((r = tier_climb_next(&steps, TEST_DEADLINE_NS, NULL, &calls)) > 0) {
		bool first = steps.answer.status == TIER_STATUS_COLD;

		for (uint32_t i = 0; i < calls; i++)
			c->equal &= same_as_native(workload, input, fn);
		c->n_calls += calls;
		if (first) {
			c->first_us = (measure_now_ns() - begin) / 1e3;
			c->tier0_ns = time_tier0(input, method, fn, &c->n_calls);
		}
	}
	c->climb_ms = (measure_now_ns() - begin) / 1e6;
	c->end = steps.answer;
	if (r < 0)
		fprintf(stderr, "%s: %s\n", c->name, tier_error_text());
	return !r;
}

static bool demonstrate(struct tier_conn *conn, const struct workload *workload, struct climbed *c)
{
	struct workload_input *input = workload->make();
	struct series tier1, native;
	struct tier_module *module;
	struct tier_method *method;
	bool ok;

	*c = (struct climbed){ .name = workload->name, .equal = true };
	if (!input || tier_load(conn, workload_object(workload->file), NULL, 0, &module)
	    || tier_find(module, workload->entry, &method)) {
		fprintf(stderr, "%s: %s\n", workload->name, tier_error_text());
		return false;
	}
	ok = climb_to_final(workload, input, method, c) && settle(module, input, tier_entry(method)) >= 0;
	c->equal &= same_as_native(workload, input, tier_entry(method));
	measure_pair(input, tier_entry(method), workload->native, ROUNDS, ROUND_NS, &tier1, &native);
	c->tier1_ns = series_median(&tier1);
	c->native_ns = series_median(&native);
	input_free(input);
	tier_close(module);
	return ok;
}

static void print_row(const struct climbed *c)
{
	printf("%-11s %9lu %9.0f %9.1f %10.1f %10.1f %10.1f %7.2f %7.2f  %-9s %s\n", c->name, (unsigned long)c->n_calls, c->first_us,
	       c->climb_ms, c->tier0_ns, c->tier1_ns, c->native_ns, c->tier0_ns / c->native_ns, c->tier1_ns / c->native_ns,
	       tier_level_name(c->end.tier), c->equal ? "equal" : "DIFFERENT");
	fflush(stdout);
}

static void print_means(const struct climbed *rows, size_t n)
{
	double *tier0 = calloc(n, sizeof(*tier0)), *tier1 = calloc(n, sizeof(*tier1));
	size_t n0 = 0;

	for (size_t i = 0; i < n; i++) {
		if (!isnan(rows[i].tier0_ns))
			tier0[n0++] = rows[i].tier0_ns / rows[i].native_ns;
		tier1[i] = rows[i].tier1_ns / rows[i].native_ns;
	}
	printf("%-11s %63s %7.2f %7.2f\n\n", "geometric mean", "", geometric_mean(tier0, n0), geometric_mean(tier1, n));
	free(tier0);
	free(tier1);
}

static void print_daemon(struct tier_conn *conn)
{
	struct wire_stats stats;
	const char *why = "";
	bool kernel = tier_conn_uses_kernel(conn, &why);

	printf("events came by: %s (%s)\n", kernel ? "the kernel's probes" : "the socket", why);
	if (tier_stats(conn, &stats))
		return;
	printf("thresholds by kernel %lu, by socket %lu, recovered by a sweep %lu; the kernel saw %lu publications\n",
	       (unsigned long)stats.n_thresholds[TIER_SOURCE_KERNEL], (unsigned long)stats.n_thresholds[TIER_SOURCE_SOCKET],
	       (unsigned long)stats.n_thresholds[TIER_SOURCE_SWEEP], (unsigned long)stats.n_kernel_events[TIER_PROBE_PUBLISH]);
	printf("longest turn of the daemon's loop: %.2f ms (%s)\n", stats.longest_turn_ns / 1e6, stats.longest_turn_name);
}

static int run(void)
{
	struct climbed *rows = calloc(n_workloads, sizeof(*rows));
	struct daemon daemon;
	struct tier_conn *conn;
	size_t n_failed = 0;

	printf("A private tierd, %zu modules of clang-built BPF. Each method is called exactly as its schedule says: once cold, then\n"
	       "30 calls at each tier that counts them, until LLVM's code is published. Times are medians of %d rounds.\n\n",
	       n_workloads, ROUNDS);
	daemon_start(&daemon, (const char *const[]){ "--tiered-pgo=on", getenv("TIER_EVENTS") ? NULL : "--events=auto", NULL });
	conn = daemon_connect(&daemon);
	printf("%-11s %9s %9s %9s %10s %10s %10s %7s %7s  %-9s %s\n", "method", "calls", "first us", "climb ms", "tier 0 ns",
	       "tier 1 ns", "native ns", "0/nat", "1/nat", "final at", "results");
	for (size_t i = 0; i < n_workloads; i++) {
		bool ok = demonstrate(conn, &workloads[i], &rows[i]);

		print_row(&rows[i]);
		n_failed += !ok || !rows[i].equal || rows[i].end.reason != TIER_REASON_PROMOTED;
	}
	print_means(rows, n_workloads);
	print_daemon(conn);
	tier_disconnect(conn);
	daemon_stop(&daemon);
	free(rows);
	if (n_failed)
		printf("\n%zu of %zu methods failed: see above.\n", n_failed, n_workloads);
	else
		printf("\nEvery result of all %zu methods, at every tier, equals the native build's.\n", n_workloads);
	return n_failed ? 1 : 0;
}

int main(void)
{
	return run();
}
