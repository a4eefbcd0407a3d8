/* SPDX-License-Identifier: Apache-2.0 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <tier/wire.h>
#include "bench/measure.h"
#include "bench/sizes.h"
#include "bench/takeover.h"

#define N_MODULES 20u
#define N_METHODS 500u	/* of each */
#define N_INSNS 24u
#define N_CALLS 15u	/* all are counted, and none has crossed */
#define N_ROUNDS 15

static void require(int r, const char *what)
{
	if (!r)
		return;
	fprintf(stderr, "%s: %s\n", what, tier_error_text());
	exit(1);
}

static void load_and_call(const struct daemon *daemon, struct tier_conn *conn)
{
	const char *object = sizes_object(daemon, "many", N_METHODS, N_INSNS);
	struct tier_module *module;
	struct tier_method *method;
	char name[16];

	for (unsigned int i = 0; i < N_MODULES; i++) {
		snprintf(name, sizeof(name), "part%u", i);
		require(tier_load(conn, object, name, 0, &module), name);
		for (uint32_t k = 0; k < N_METHODS; k++) {
			require(tier_method_at(module, k, &method), name);
			for (uint32_t n = 0; n < N_CALLS; n++)
				tier_entry(method)(n, 0, 0, 0, 0);
		}
	}
}

/* Of a client that comes anew; false: its daemon died meanwhile. */
static bool ask(const struct daemon *daemon, struct wire_stats *ret)
{
	struct tier_conn_opts opts = { .size = sizeof(opts), .socket = daemon->socket, .timeout_ns = TEST_DEADLINE_NS };
	struct tier_conn *conn;
	bool is_answered;

	if (tier_connect(&conn, &opts))
		return false;
	is_answered = !tier_stats(conn, ret);
	tier_disconnect(conn);
	return is_answered;
}

/* From the kill to a successor's first answer */
static void kill_once(const struct daemon *daemon, struct series *ret_gap, struct series *ret_takeover)
{
	struct wire_stats before, stats;
	uint64_t begin;

	if (!ask(daemon, &before)) {
		fprintf(stderr, "stats: %s\n", tier_error_text());
		exit(1);
	}
	begin = measure_now_ns();
	kill(before.pid, SIGKILL);
	while (!ask(daemon, &stats) || stats.pid == before.pid)
		;
	series_add(ret_gap, measure_now_ns() - begin);
	series_add(ret_takeover, stats.takeover_ns);
}

static void measure(bool has_methods)
{
	struct series gap = { .n = 0 }, takeover = { .n = 0 };
	struct daemon daemon;
	struct tier_conn *conn;

	daemon_start_kept(&daemon, ARGS("--call-counting-delay=0"));
	conn = daemon_connect(&daemon);
	if (has_methods)
		load_and_call(&daemon, conn);
	for (int i = 0; i < N_ROUNDS; i++)
		kill_once(&daemon, &gap, &takeover);
	printf("  %6u methods in %2u modules: %8.1f ms from the kill to an answer (p90 %.1f), a successor's takeover %.1f (p90 %.1f)\n",
	       has_methods ? N_MODULES * N_METHODS : 0, has_methods ? N_MODULES : 0, series_median(&gap) / 1e6,
	       series_percentile(&gap, 0.9) / 1e6, series_median(&takeover) / 1e6, series_percentile(&takeover, 0.9) / 1e6);
	tier_disconnect(conn);
	daemon_stop(&daemon);
}

void takeover_time(void)
{
	printf("\na daemon is killed, and its successor takes over\n");
	measure(false);
	measure(true);
}
