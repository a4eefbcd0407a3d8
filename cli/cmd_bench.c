/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include "climb.h"

/* Nanoseconds per call at each tier on the way to the final one
 *
 * What is measured must stand still. So the module is frozen while calls are made, between two marks that tell whether anything
 * of it was compiled, published or reset all the same; and thawed in between, so that the climb goes on:
 *
 *   cold        the first call, which compiles
 *   counting    the counted calls but the last, as one round
 *   queued      the last one crossed the threshold, and the freeze holds the promotion: this tier's code without counting
 *   final       for good
 *
 * Before calls are counted (the delay) there are rounds, too. Who may not freeze the module measures without: then there is no
 * "queued". */

#define ROUND_NS 1000000u	/* a round is as many calls as take about this long */

struct bench {
	struct climber climber;
	double *rounds;
	bool cannot_freeze;
	uint32_t n_changed;	/* measurements during which something changed */
};

struct measurement {
	struct tier_answer answer;
	struct tier_records_mark mark;
	uint64_t n_rounds, n_calls;
	bool has_mark, has_changed;
};

static struct measurement measurement_begin(const struct bench *b)
{
	return (struct measurement){ .answer = tier_status(b->climber.target.method), .mark = tier_mark(b->climber.target.module),
				     .has_mark = true };
}

static bool measurement_is_off(const struct bench *b, const struct measurement *m)
{
	return tier_changed_since(b->climber.target.module, &m->mark);
}

/* -- Freezing --- */
static int bench_freeze(struct bench *b)
{
	int r;

	if (b->cannot_freeze)
		return 0;
	r = tier_freeze(b->climber.target.module);
	if (r != -EACCES)
		return r;
	b->cannot_freeze = true;
	fprintf(stderr, "tierctl: measuring without a freeze: %s\n", tier_error_text());
	return 0;
}

static int bench_thaw(struct bench *b)
{
	return b->cannot_freeze ? 0 : tier_thaw(b->climber.target.module);
}

/* -- Rows --- */
static int compare_doubles(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(double *values, uint64_t n)
{
	qsort(values, n, sizeof(*values), compare_doubles);
	return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

static void bench_row(struct bench *b, const struct measurement *m)
{
	struct table *table = b->climber.table;
	double middle;

	if (!m->n_rounds)
		return;
	middle = median(b->rounds, m->n_rounds);
	table_row(table);
	table_text(table, m->answer.stage == TIER_STAGE_COLD ? "none" : tier_level_name(m->answer.tier));
	table_text(table, tier_stage_name(m->answer.stage));
	table_number(table, m->n_rounds);
	table_number(table, m->n_calls);
	table_float(table, middle, 1);
	table_float(table, b->rounds[0], 1);
	table_float(table, b->rounds[m->n_rounds - 1], 1);
	table_bool(table, m->has_mark && m->mark.is_frozen);
	table_text(table, !m->has_mark ? NULL : m->has_changed ? "yes" : "no");
	b->n_changed += m->has_changed;
}

/* -- Measuring --- */
static void bench_cold(struct bench *b)
{
	struct measurement m = { .answer = b->climber.climb.answer, .n_rounds = 1, .n_calls = 1 };

	b->rounds[0] = climber_call(&b->climber, 1);
	bench_row(b, &m);
}

/* Rounds of free calls while the stage stays what it is; a round during which it changed does not count. */
static void bench_free(struct bench *b)
{
	struct climber *c = &b->climber;
	struct measurement m = measurement_begin(b);
	uint64_t batch = 1;

	while (m.n_rounds < c->ctl->rounds) {
		const uint64_t ns = climber_call(c, batch);
		const bool has_changed = measurement_is_off(b, &m);	/* before the question, so that this is no other stage's */
		const struct tier_answer now = tier_status(c->target.method);

		if (now.stage != m.answer.stage || now.generation != m.answer.generation)
			break;
		if (ns < ROUND_NS / 2 && batch < UINT32_MAX) {
			batch *= 2;
			m.mark = tier_mark(c->target.module);
			continue;
		}
		m.has_changed |= has_changed;
		b->rounds[m.n_rounds++] = (double)ns / batch;
		m.n_calls += batch;
	}
	bench_row(b, &m);
}

static void bench_counted(struct bench *b, uint32_t calls)
{
	struct measurement m = measurement_begin(b);

	m.n_rounds = 1;
	m.n_calls = calls > 1 ? calls - 1 : 1;
	b->rounds[0] = (double)climber_call(&b->climber, m.n_calls) / m.n_calls;
	m.has_changed = measurement_is_off(b, &m);
	bench_row(b, &m);
	climber_call(&b->climber, calls - m.n_calls);
}

/* A step of the schedule, frozen */
static int bench_step(struct bench *b, uint32_t calls)
{
	const struct climber *c = &b->climber;
	struct tier_answer answer;
	int r;

	bench_counted(b, calls);
	if (b->cannot_freeze)
		return 0;
	r = tier_wait(c->target.method, climber_time_left(c), NULL, &answer);
	if (!r && answer.is_frozen)
		bench_free(b);
	return r;
}

static int bench_frozen(struct bench *b, uint32_t calls)
{
	int r;

	r = bench_freeze(b);
	if (r < 0)
		return r;
	if (calls)
		r = bench_step(b, calls);
	else
		bench_free(b);
	return r < 0 ? r : bench_thaw(b);
}

static int bench_climb(struct bench *b)
{
	struct climber *c = &b->climber;
	uint32_t calls;
	int r;

	while ((r = tier_climb_next(&c->climb, climber_time_left(c), NULL, &calls)) > 0) {
		if (c->climb.answer.stage != TIER_STAGE_COLD)
			r = bench_frozen(b, calls);
		else
			bench_cold(b);
		if (r >= 0 && tier_status(c->target.method).stage == TIER_STAGE_UNCOUNTED)
			r = bench_frozen(b, 0);
		if (r < 0)
			return r;
	}
	return r < 0 ? r : bench_frozen(b, 0);
}

/* A figure that was not measured on one and the same code is worse than none. */
static int bench_end(const struct bench *b, int r)
{
	const int status = climber_end(&b->climber, r);

	if (!b->n_changed)
		return status;
	fprintf(stderr, "tierctl: WARNING: %s: code of its module was compiled, published or reset inside %u of these measurements "
		"(CHANGED says which): their figures are of more than one code\n", b->climber.ctl->args[0], b->n_changed);
	return status == CTL_DONE && !b->climber.ctl->changing ? CTL_UNMET : status;
}

int cmd_bench(struct ctl *ctl)
{
	static const struct column columns[] = {
		{ "tier", COLUMN_TEXT }, { "stage", COLUMN_TEXT }, { "rounds", COLUMN_NUMBER }, { "calls", COLUMN_NUMBER },
		{ "median_ns", COLUMN_FLOAT }, { "min_ns", COLUMN_FLOAT }, { "max_ns", COLUMN_FLOAT }, { "frozen", COLUMN_BOOL },
		{ "changed", COLUMN_BOOL },
	};
	struct bench b = { 0 };
	int r;

	if (!ctl->rounds || ctl->rounds > 100000)
		return fail("--rounds: 1 to 100000");
	b.rounds = calloc(ctl->rounds, sizeof(*b.rounds));
	if (!b.rounds)
		return fail("out of memory");
	if (!climber_init(&b.climber, ctl))
		return CTL_FAILED;
	b.climber.table = table_new("tiers", columns, sizeof(columns) / sizeof(columns[0]), ctl->json, false);
	r = bench_climb(&b);
	table_end(b.climber.table);
	free(b.rounds);
	return bench_end(&b, r);
}
