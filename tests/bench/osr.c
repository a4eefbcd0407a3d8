/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "bench/inputs.h"
#include "bench/ladder.h"
#include "bench/measure.h"
#include "bench/report.h"
#include "system/harness.h"
#include "util/base.h"

/* One call that takes seconds
 *
 * Nothing counts calls of a method that is called once: without on-stack replacement it stays at tier 0 for all its life, with it
 * the running frame goes on in optimized code. Two daemons, with --osr=on and --osr=off, get a fresh copy of the module in each
 * round, in turn, and call it once; what the method calls is promoted by both. */

#define ROUNDS 5
#define EVENTS_MAX 256
#define N_ITERATIONS 20000000u		/* of interp's program */
#define N_FNV1A ((size_t)400 << 20)	/* bytes */
#define N_XXHASH64 ((size_t)2 << 30)

enum { SIDE_ON, SIDE_OFF, _SIDE_N };

struct side {
	struct daemon daemon;
	struct tier_conn *conn;
};

struct figures {
	struct series seconds[_SIDE_N], native;
	struct series requested_ms, ready_ms;	/* since the first code was published */
};

static _Noreturn void give_up(const char *what)
{
	fprintf(stderr, "bench: %s: %s\n", what, tier_error_text());
	exit(1);
}

/* -- Long inputs ------------------------------------------------------------------------------------------------------ */
/* The usual program, run longer */
static struct workload_input *long_interp(void)
{
	struct workload_input *input = input_make("interp");

	input->args[2] = N_ITERATIONS;
	input->args[3] = UINT64_MAX;
	return input;
}

/* Zeros: pages that are only read take no memory */
static struct workload_input *long_text(const char *name, size_t n)
{
	struct workload_input *input = input_make(name);

	free(input->buffer);
	input->buffer = calloc(1, n);
	input->n_buffer = n;
	input->args[0] = (uintptr_t)input->buffer;
	input->args[1] = n;
	return input;
}

static struct workload_input *long_fnv1a(void)
{
	return long_text("fnv1a", N_FNV1A);
}

static struct workload_input *long_xxhash64(void)
{
	return long_text("xxhash64", N_XXHASH64);
}

static const struct contestant {
	const char *workload;
	struct workload_input *(*make)(void);
} contestants[] = { { "fnv1a", long_fnv1a }, { "xxhash64", long_xxhash64 }, { "interp", long_interp } };

/* -- Measuring -------------------------------------------------------------------------------------------------------- */
static double call_once(const struct workload_input *input, workload_function *fn, uint64_t *ret_result)
{
	uint64_t begin = measure_cpu_ns();

	*ret_result = input_call(input, fn);
	return (measure_cpu_ns() - begin) / 1e9;
}

/* When a frame's way out was asked for and was there: the entry's own, or of what it called */
static void take_times(struct side *side, struct tier_module *module, struct figures *f)
{
	uint64_t times[_TIER_EVENT_N] = { 0 };
	struct tier_event events[EVENTS_MAX];
	size_t n = events_read(side->conn, tier_module_id(module), UINT32_MAX, events, ARRAY_SIZE(events));

	for (size_t i = 0; i < n && i < ARRAY_SIZE(events); i++)
		if (!times[events[i].kind])
			times[events[i].kind] = events[i].time_ns;
	if (!times[TIER_EVENT_OSR_READY])
		return;
	series_add(&f->requested_ms, (times[TIER_EVENT_OSR_REQUESTED] - times[TIER_EVENT_PUBLISHED]) / 1e6);
	series_add(&f->ready_ms, (times[TIER_EVENT_OSR_READY] - times[TIER_EVENT_PUBLISHED]) / 1e6);
}

static void run_side(struct side *sides, unsigned int which, const struct contestant *contestant,
		     const struct workload_input *input, uint64_t expected, struct figures *f)
{
	struct side *side = &sides[which];
	struct tier_module *module;
	struct tier_method *method = workload_load(side->conn, contestant->workload, &module);
	uint64_t result;

	series_add(&f->seconds[which], call_once(input, tier_entry(method), &result));
	if (result != expected) {
		fprintf(stderr, "bench: %s: another result than native\n", contestant->workload);
		exit(1);
	}
	if (which == SIDE_ON)
		take_times(side, module, f);
	tier_close(module);
	if (tier_unload(side->conn, contestant->workload))
		give_up("unload");
}

static void measure(struct side *sides, const struct contestant *contestant, struct figures *f)
{
	struct workload_input *input = contestant->make();
	workload_function *native = workload_find(contestant->workload)->native;
	uint64_t expected;

	for (unsigned int round = 0; round < ROUNDS; round++) {
		series_add(&f->native, call_once(input, native, &expected));
		for (unsigned int i = 0; i < _SIDE_N; i++)
			run_side(sides, i, contestant, input, expected, f);
	}
	input_free(input);
}

/* -- Printing --------------------------------------------------------------------------------------------------------- */
static void print_figures(const struct contestant *contestant, const struct figures *f)
{
	const struct series *off = &f->seconds[SIDE_OFF], *on = &f->seconds[SIDE_ON];

	printf("  %-10s %10.3f %10.3f %10.3f %9.2f %9.2f %10.1f %10.1f\n", contestant->workload, series_median(off),
	       series_median(on), series_median(&f->native), series_ratio(off, on), series_ratio(on, &f->native),
	       series_median(&f->requested_ms), series_median(&f->ready_ms));
	fflush(stdout);
}

static void report_figures(FILE *file, const struct contestant *contestant, const struct figures *f, bool last)
{
	const struct { const char *key; double value; } figures[] = {
		{ "osr_off_s", series_median(&f->seconds[SIDE_OFF]) },
		{ "osr_on_s", series_median(&f->seconds[SIDE_ON]) },
		{ "native_s", series_median(&f->native) },
		{ "speed_up", series_ratio(&f->seconds[SIDE_OFF], &f->seconds[SIDE_ON]) },
		{ "to_native", series_ratio(&f->seconds[SIDE_ON], &f->native) },
		{ "requested_ms", series_median(&f->requested_ms) },
		{ "ready_ms", series_median(&f->ready_ms) },
	};

	fprintf(file, "  \"%s\": {", contestant->workload);
	for (size_t i = 0; i < ARRAY_SIZE(figures); i++) {
		fprintf(file, " \"%s\": ", figures[i].key);
		report_number(file, figures[i].value);
		fputs(i + 1 < ARRAY_SIZE(figures) ? "," : " }", file);
	}
	fputs(last ? "\n" : ",\n", file);
}

void ladder_osr(void)
{
	static const char *const options[_SIDE_N] = { [SIDE_ON] = "--osr=on", [SIDE_OFF] = "--osr=off" };
	struct side sides[_SIDE_N];
	FILE *file = report_open("osr");

	for (unsigned int i = 0; i < _SIDE_N; i++) {
		daemon_start(&sides[i].daemon, ARGS("--tiered-pgo=on", options[i]));
		sides[i].conn = daemon_connect(&sides[i].daemon);
	}
	printf("\none call that loops for seconds, medians of %d interleaved rounds: processor time with --osr=off (tier 0\n"
	       "alone), with --osr=on, and native; OSR asked for, and ready, in ms after the first code (with the delay)\n"
	       "  %-10s %10s %10s %10s %9s %9s %10s %10s\n",
	       ROUNDS, "workload", "tier 0", "OSR", "native", "speed-up", "/native", "asked", "ready");
	fprintf(file, "{\n");
	for (size_t i = 0; i < ARRAY_SIZE(contestants); i++) {
		struct figures figures = { .native.n = 0 };

		measure(sides, &contestants[i], &figures);
		print_figures(&contestants[i], &figures);
		report_figures(file, &contestants[i], &figures, i + 1 == ARRAY_SIZE(contestants));
	}
	fprintf(file, "}\n");
	report_close(file, "osr");
	for (unsigned int i = 0; i < _SIDE_N; i++) {
		tier_disconnect(sides[i].conn);
		daemon_stop(&sides[i].daemon);
	}
}
