/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include "answer.h"
#include "ctl.h"

/* Climbing: drive calls a method exactly as its schedule says and prints each step; bench measures on the way.
 *
 * Where may bench call freely? During the call-counting delay calls are not counted, so tier-0 code can be timed for as long as
 * the stage stays "uncounted"; at the final tier for ever. In between there are only the counted calls of the
 * schedule, which are timed as one batch. */

#define ROUND_NS 1000000u	/* a round is as many calls as take about this long */

struct climber {
	struct ctl *ctl;
	struct target target;
	struct call_args args;
	struct tier_climb climb;
	struct table *table;
	uint64_t start_ns, deadline_ns;
	uint64_t n_calls;
};

static bool climber_init(struct climber *c, struct ctl *ctl)
{
	*c = (struct climber){ .ctl = ctl };
	if (!call_args_parse(&c->args, ctl->args + 1, ctl->n_args - 1) || !target_open_callable(ctl, ctl->args[0], &c->target))
		return false;
	c->climb = TIER_CLIMB(c->target.method);
	c->start_ns = now_ns();
	c->deadline_ns = ctl->timeout_ns == TIER_FOREVER ? TIER_FOREVER : c->start_ns + ctl->timeout_ns;
	return true;
}

static uint64_t climber_time_left(const struct climber *c)
{
	uint64_t now = now_ns();

	if (c->deadline_ns == TIER_FOREVER)
		return TIER_FOREVER;
	return c->deadline_ns > now ? c->deadline_ns - now : 0;
}

static uint64_t climber_call(struct climber *c, uint64_t n)
{
	uint64_t begin = now_ns();

	for (uint64_t i = 0; i < n; i++)
		call_method(&c->target, &c->args);
	c->n_calls += n;
	return now_ns() - begin;
}

/* The end of a climb as an exit status: 0 only when the method is on the tier that it was climbing to. */
static int climber_end(const struct climber *c, int r)
{
	const struct tier_answer *answer = &c->climb.answer;

	if (r == -ETIMEDOUT) {
		fail("%s: not final within --timeout; it is %s", c->ctl->args[0],
		     tier_stage_name(tier_status(c->target.method).stage));
		return CTL_UNMET;
	}
	if (r < 0)
		return fail_tier(c->ctl->args[0]);
	if (answer->reason == TIER_REASON_PROMOTED)
		return CTL_DONE;
	fail("%s: final at %s: %s", c->ctl->args[0], tier_level_name(answer->tier), tier_reason_name(answer->reason));
	return CTL_UNMET;
}

/* -- drive --- */
static void drive_row(struct climber *c, uint32_t calls, double ns_per_call)
{
	table_row(c->table);
	table_number(c->table, c->climb.n_steps + !calls);	/* the end, without calls, is a step too */
	answer_cells(c->table, &c->climb.answer);
	table_number(c->table, calls);
	table_float(c->table, ns_per_call, 1);
	table_float(c->table, (now_ns() - c->start_ns) / 1e6, 3);
}

int cmd_drive(struct ctl *ctl)
{
	static const struct column columns[] = {
		{ "step", COLUMN_NUMBER }, ANSWER_COLUMNS, { "calls", COLUMN_NUMBER }, { "ns_per_call", COLUMN_FLOAT },
		{ "ms", COLUMN_FLOAT },
	};
	struct climber c;
	uint32_t calls;
	int r;

	if (!climber_init(&c, ctl))
		return CTL_FAILED;
	c.table = table_new("steps", columns, sizeof(columns) / sizeof(columns[0]), ctl->json, false);
	while ((r = tier_climb_next(&c.climb, climber_time_left(&c), NULL, &calls)) > 0)
		drive_row(&c, calls, (double)climber_call(&c, calls) / calls);
	if (!r)
		drive_row(&c, 0, NAN);
	table_end(c.table);
	return climber_end(&c, r);
}

/* -- bench --- */
static int compare_doubles(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(double *values, uint64_t n)
{
	if (!n)
		return NAN;
	qsort(values, n, sizeof(*values), compare_doubles);
	return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

static void bench_row(struct climber *c, const struct tier_answer *answer, double *rounds, uint64_t n_rounds, uint64_t n_calls)
{
	double middle;

	if (!n_rounds)
		return;
	middle = median(rounds, n_rounds);
	table_row(c->table);
	table_text(c->table, tier_level_name(answer->tier));
	table_text(c->table, tier_stage_name(answer->stage));
	table_number(c->table, n_rounds);
	table_number(c->table, n_calls);
	table_float(c->table, middle, 1);
	table_float(c->table, rounds[0], 1);
	table_float(c->table, rounds[n_rounds - 1], 1);
}

/* Rounds of free calls while the stage stays what it is; a round during which it changed does not count. */
static void bench_free(struct climber *c, double *rounds)
{
	struct tier_answer begin = tier_status(c->target.method);
	uint64_t n_rounds = 0, n_calls = 0, batch = 1;

	while (n_rounds < c->ctl->rounds) {
		uint64_t ns = climber_call(c, batch);
		struct tier_answer now = tier_status(c->target.method);

		if (now.stage != begin.stage || now.generation != begin.generation)
			break;
		if (ns < ROUND_NS / 2 && batch < UINT32_MAX) {
			batch *= 2;
			continue;
		}
		rounds[n_rounds++] = (double)ns / batch;
		n_calls += batch;
	}
	bench_row(c, &begin, rounds, n_rounds, n_calls);
}

static int bench_climb(struct climber *c, double *rounds)
{
	uint32_t calls;
	int r;

	while ((r = tier_climb_next(&c->climb, climber_time_left(c), NULL, &calls)) > 0) {
		struct tier_answer before = c->climb.answer;
		uint64_t ns = climber_call(c, calls);

		rounds[0] = (double)ns / calls;
		bench_row(c, &before, rounds, 1, calls);
		if (tier_status(c->target.method).stage == TIER_STAGE_UNCOUNTED)
			bench_free(c, rounds);
	}
	if (!r)
		bench_free(c, rounds);
	return r;
}

int cmd_bench(struct ctl *ctl)
{
	static const struct column columns[] = {
		{ "tier", COLUMN_TEXT }, { "stage", COLUMN_TEXT }, { "rounds", COLUMN_NUMBER }, { "calls", COLUMN_NUMBER },
		{ "median_ns", COLUMN_FLOAT }, { "min_ns", COLUMN_FLOAT }, { "max_ns", COLUMN_FLOAT },
	};
	struct climber c;
	double *rounds;
	int r;

	if (!ctl->rounds || ctl->rounds > 100000)
		return fail("--rounds: 1 to 100000");
	rounds = calloc(ctl->rounds, sizeof(*rounds));
	if (!rounds)
		return fail("out of memory");
	if (!climber_init(&c, ctl))
		return CTL_FAILED;
	c.table = table_new("tiers", columns, sizeof(columns) / sizeof(columns[0]), ctl->json, false);
	r = bench_climb(&c, rounds);
	table_end(c.table);
	free(rounds);
	return climber_end(&c, r);
}
