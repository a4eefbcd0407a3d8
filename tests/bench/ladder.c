/* SPDX-License-Identifier: Apache-2.0 */
#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "bench/inputs.h"
#include "bench/ladder.h"
#include "bench/measure.h"
#include "bench/report.h"
#include "system/harness.h"
#include "util/base.h"

/* The whole ladder, side by side
 *
 * A daemon for each way to stand still at a tier; this process is a client of all of them, and calls a function of each in turn:
 *
 *   Tier0, Tier0Instrumented   calls are not counted, so the first code stays; the latter with --instrument-only-hot-code=off
 *   Tier1Instrumented          the object is precompiled, which has this tier behind it; the module is frozen on it
 *   Tier1                      driven until the method and all that it has called are settled, with and without profiles
 *
 * A callee that precompiled code has inlined is called for the first time by the Tier1Instrumented caller, which inlines nothing:
 * it stands at ReadyToRun. A line below the table says how many do.
 *
 * OSR is off: a frame that leaves Tier0 would not be Tier0's. */

#define ROUNDS 15
#define ROUND_NS 2000000u

enum {
	RUNG_TIER0,
	RUNG_TIER0_INSTRUMENTED,
	RUNG_TIER1_INSTRUMENTED,
	RUNG_TIER1,
	RUNG_TIER1_PROFILE,
	_RUNG_TIERS_N,
	RUNG_NATIVE = _RUNG_TIERS_N,
	RUNG_NATIVE_PROFILE,
	_RUNG_N,
};

enum hold { HOLD_FIRST, HOLD_FROZEN, HOLD_SETTLED };

static const struct rung {
	const char *heading, *key;
	const char *options[3];		/* of its daemon */
	enum hold hold;
	enum tier_level level;
} rungs[_RUNG_N] = {
	[RUNG_TIER0] = { "Tier0", "tier0", { "--tiered-pgo=off", "--call-counting=off" }, HOLD_FIRST, TIER_LEVEL_TIER0 },
	[RUNG_TIER0_INSTRUMENTED] = { "Tier0Instr", "tier0_instrumented",
				      { "--tiered-pgo=on", "--call-counting=off", "--instrument-only-hot-code=off" }, HOLD_FIRST,
				      TIER_LEVEL_TIER0_INSTRUMENTED },
	[RUNG_TIER1_INSTRUMENTED] = { "Tier1Instr", "tier1_instrumented", { "--tiered-pgo=on" }, HOLD_FROZEN,
				      TIER_LEVEL_TIER1_INSTRUMENTED },
	[RUNG_TIER1] = { "Tier1", "tier1", { "--tiered-pgo=off" }, HOLD_SETTLED, TIER_LEVEL_TIER1 },
	[RUNG_TIER1_PROFILE] = { "Tier1+prof", "tier1_profile", { "--tiered-pgo=on" }, HOLD_SETTLED, TIER_LEVEL_TIER1 },
	[RUNG_NATIVE] = { .heading = "native -O2", .key = "native" },
	[RUNG_NATIVE_PROFILE] = { .heading = "native+prof", .key = "native_profile" },
};

struct place {
	struct daemon daemon;
	struct tier_conn *conn;
	struct tier_module *module;	/* of the workload that is measured now */
};

struct row {
	struct series series[_RUNG_N];
	unsigned int n_called, n_instrumented;	/* methods at RUNG_TIER1_INSTRUMENTED, and how many of them stand there */
};

static _Noreturn void give_up(const char *what)
{
	fprintf(stderr, "bench: %s: %s\n", what, tier_error_text());
	exit(1);
}

/* -- Standing still at a tier ----------------------------------------------------------------------------------------- */
static void call_input(const struct tier_method *method, void *context)
{
	input_call(context, tier_entry(method));
}

static void drive(struct tier_method *method, struct workload_input *input)
{
	struct tier_drive_opts opts = { .size = sizeof(opts), .call = call_input, .context = input };
	struct tier_settlement settlement;

	if (tier_drive(method, &opts, &settlement) < 0)
		give_up(tier_method_name(method));
}

/* All calls that the methods of the module may still count: a call that changes nothing calls none that counts. */
static uint64_t calls_left(struct tier_module *module)
{
	struct tier_method *method;
	uint64_t sum = 0;

	for (uint32_t i = 0; !tier_method_at(module, i, &method); i++)
		sum += tier_remaining(method);
	return sum;
}

static void freeze_and_count(struct tier_method *method, struct tier_module *module, const struct workload_input *input)
{
	uint64_t left;

	if (tier_freeze(module))
		give_up("freeze");
	do {
		left = calls_left(module);
		input_call(input, tier_entry(method));
	} while (calls_left(module) != left);
}

static uint32_t n_pending(const struct tier_method *method)
{
	struct tier_settlement settlement;

	if (tier_settled(method, &settlement))
		give_up("settled");
	return settlement.n_pending;
}

/* From precompiled code one promotion on, and there until all that is called has reached its threshold: then nothing counts. */
static void climb_once(struct tier_method *method, struct tier_module *module, const struct workload_input *input)
{
	freeze_and_count(method, module, input);
	if (tier_thaw(module))
		give_up("thaw");
	wait_until("one promotion", tier_status(method).tier != TIER_LEVEL_READY_TO_RUN && !n_pending(method));
	freeze_and_count(method, module, input);
}

static void load(struct place *place, const struct rung *rung, const struct workload *workload)
{
	const char *path = workload_object(workload->file);
	char code[32];
	int fd;

	if (rung->hold != HOLD_FROZEN) {
		if (tier_load(place->conn, path, NULL, 0, &place->module))
			give_up(workload->name);
		return;
	}
	fd = tier_precompile(place->conn, path, TEST_DEADLINE_NS);
	snprintf(code, sizeof(code), "/proc/self/fd/%d", fd);
	if (fd < 0 || tier_load(place->conn, code, workload->name, 0, &place->module))
		give_up(workload->name);
	close(fd);
}

static workload_function *stand(struct place *place, const struct rung *rung, const struct workload *workload,
				struct workload_input *input)
{
	struct tier_method *method;

	load(place, rung, workload);
	if (tier_find(place->module, workload->entry, &method))
		give_up(workload->entry);
	switch (rung->hold) {
	case HOLD_FIRST:
		break;
	case HOLD_FROZEN:
		input_call(input, tier_entry(method));
		climb_once(method, place->module, input);
		break;
	case HOLD_SETTLED:
		drive(method, input);
		break;
	}
	if (input_call(input, tier_entry(method)) != input_call(input, workload->native)) {
		fprintf(stderr, "bench: %s: another result at %s than native\n", workload->name, rung->heading);
		exit(1);
	}
	if (tier_status(method).tier != rung->level) {
		fprintf(stderr, "bench: %s stands at %s instead of %s\n", workload->name,
			tier_level_name(tier_status(method).tier), tier_level_name(rung->level));
		exit(1);
	}
	return tier_entry(method);
}

/* -- Measuring -------------------------------------------------------------------------------------------------------- */
static void count_instrumented(struct tier_module *module, struct row *row)
{
	struct tier_method *method;

	for (uint32_t i = 0; !tier_method_at(module, i, &method); i++) {
		struct tier_answer answer = tier_status(method);

		row->n_called += answer.status != TIER_STATUS_COLD;
		row->n_instrumented += answer.tier == TIER_LEVEL_TIER1_INSTRUMENTED;
	}
}

static workload_function *guided_entry(void *guided, const struct workload *workload)
{
	char name[80];

	snprintf(name, sizeof(name), "native_%s", workload->entry);
	return guided ? (workload_function *)dlsym(guided, name) : NULL;
}

static void measure(struct place *places, void *guided, const struct workload *workload, struct row *ret)
{
	struct workload_input *input = workload->make();
	workload_function *fns[_RUNG_N];

	for (unsigned int i = 0; i < _RUNG_TIERS_N; i++)
		fns[i] = stand(&places[i], &rungs[i], workload, input);
	count_instrumented(places[RUNG_TIER1_INSTRUMENTED].module, ret);
	fns[RUNG_NATIVE] = workload->native;
	fns[RUNG_NATIVE_PROFILE] = guided_entry(guided, workload);
	measure_in_turn(input, fns, _RUNG_N, ROUNDS, ROUND_NS, ret->series);
	for (unsigned int i = 0; i < _RUNG_TIERS_N; i++)
		tier_close(places[i].module);
	input_free(input);
}

/* -- Printing --------------------------------------------------------------------------------------------------------- */
static const struct quotient {
	const char *heading, *key;
	unsigned int a, b;
} quotients[] = {
	{ "0/native", "tier0_to_native", RUNG_TIER0, RUNG_NATIVE },
	{ "1/native", "tier1_to_native", RUNG_TIER1_PROFILE, RUNG_NATIVE },
	{ "gain", "gain", RUNG_TIER1, RUNG_TIER1_PROFILE },
	{ "clang's", "native_gain", RUNG_NATIVE, RUNG_NATIVE_PROFILE },
};

static void print_headings(void)
{
	printf("\nns of processor time per call, medians of %d interleaved rounds of %u ms; 1/native with the profile;\n"
	       "gain: how much faster the profile makes Tier1, and clang's: native code\n  %-10s",
	       ROUNDS, ROUND_NS / 1000000, "workload");
	for (unsigned int i = 0; i < _RUNG_N; i++)
		printf(" %11s", rungs[i].heading);
	for (unsigned int i = 0; i < ARRAY_SIZE(quotients); i++)
		printf(" %8s", quotients[i].heading);
	putchar('\n');
}

static void print_cell(double value, int width, int digits)
{
	if (isnan(value))
		printf(" %*s", width, "none");
	else
		printf(" %*.*f", width, digits, value);
}

static double quotient_of(const struct row *row, const struct quotient *quotient)
{
	return series_ratio(&row->series[quotient->a], &row->series[quotient->b]);
}

static void print_row(const struct workload *workload, const struct row *row)
{
	printf("  %-10s", workload->name);
	for (unsigned int i = 0; i < _RUNG_N; i++)
		print_cell(series_median(&row->series[i]), 11, 1);
	for (unsigned int i = 0; i < ARRAY_SIZE(quotients); i++)
		print_cell(quotient_of(row, &quotients[i]), 8, 2);
	putchar('\n');
	fflush(stdout);
}

static double mean_of(const struct row *rows, const struct quotient *quotient)
{
	double *values = calloc(n_workloads, sizeof(*values)), mean;

	for (size_t i = 0; i < n_workloads; i++)
		values[i] = quotient_of(&rows[i], quotient);
	mean = geometric_mean(values, n_workloads);
	free(values);
	return mean;
}

static void print_sums(const struct row *rows, bool guided)
{
	unsigned int n_called = 0, n_instrumented = 0;

	for (size_t i = 0; i < n_workloads; i++) {
		n_called += rows[i].n_called;
		n_instrumented += rows[i].n_instrumented;
	}
	printf("  %-*s", 10 + 12 * _RUNG_N, "geometric mean");
	for (unsigned int i = 0; i < ARRAY_SIZE(quotients); i++)
		print_cell(mean_of(rows, &quotients[i]), 8, 2);
	printf("\n  at Tier1Instrumented: %u of the %u methods that are called; the others were inlined before,\n"
	       "  and stand at ReadyToRun\n",
	       n_instrumented, n_called);
	if (!guided)
		printf("  native+prof: none, for want of llvm-profdata or of clang's profiling runtime\n");
}

static void report(const struct row *rows)
{
	FILE *file = report_open("ladder");

	fprintf(file, "{\n");
	for (size_t i = 0; i < n_workloads; i++) {
		fprintf(file, "  \"%s\": {", workloads[i].name);
		for (unsigned int k = 0; k < _RUNG_N; k++) {
			fprintf(file, " \"%s_ns\": ", rungs[k].key);
			report_number(file, series_median(&rows[i].series[k]));
			fputc(',', file);
		}
		for (unsigned int k = 0; k < ARRAY_SIZE(quotients); k++) {
			fprintf(file, " \"%s\": ", quotients[k].key);
			report_number(file, quotient_of(&rows[i], &quotients[k]));
			fputs(k + 1 < ARRAY_SIZE(quotients) ? "," : " }", file);
		}
		fputs(i + 1 < n_workloads ? ",\n" : "\n", file);
	}
	fprintf(file, "}\n");
	report_close(file, "ladder");
}

/* The library of workloads that clang built with a profile; NULL when there is none. */
static void *guided_open(void)
{
	const char *build = getenv("TIER_BUILD");
	char path[512];

	snprintf(path, sizeof(path), "%s/workloads/guided.so", build ? build : "build");
	return dlopen(path, RTLD_NOW | RTLD_LOCAL);
}

void ladder_speed(void)
{
	struct place *places = calloc(_RUNG_TIERS_N, sizeof(*places));
	struct row *rows = calloc(n_workloads, sizeof(*rows));
	void *guided = guided_open();

	for (unsigned int i = 0; i < _RUNG_TIERS_N; i++) {
		const char *const *options = rungs[i].options;

		daemon_start(&places[i].daemon, ARGS("--call-counting-delay=0", "--osr=off", options[0], options[1], options[2]));
		places[i].conn = daemon_connect(&places[i].daemon);
	}
	print_headings();
	for (size_t i = 0; i < n_workloads; i++) {
		measure(places, guided, &workloads[i], &rows[i]);
		print_row(&workloads[i], &rows[i]);
	}
	print_sums(rows, guided);
	report(rows);
	for (unsigned int i = 0; i < _RUNG_TIERS_N; i++) {
		tier_disconnect(places[i].conn);
		daemon_stop(&places[i].daemon);
	}
	if (guided)
		dlclose(guided);
	free(rows);
	free(places);
}
