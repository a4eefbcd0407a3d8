/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "climb.h"

/* Climbing: calls a method exactly as its schedule says and prints each step; with --callees on until all that it calls is
 * settled. */

bool climber_init(struct climber *c, struct ctl *ctl)
{
	*c = (struct climber){ .ctl = ctl };
	if (!call_args_parse(&c->args, ctl->args + 1, ctl->n_args - 1) || !target_open_callable(ctl, ctl->args[0], &c->target))
		return false;
	c->climb = TIER_CLIMB(c->target.method);
	c->start_ns = now_ns();
	c->deadline_ns = ctl->timeout_ns == TIER_FOREVER ? TIER_FOREVER : c->start_ns + ctl->timeout_ns;
	return true;
}

uint64_t climber_time_left(const struct climber *c)
{
	uint64_t now = now_ns();

	if (c->deadline_ns == TIER_FOREVER)
		return TIER_FOREVER;
	return c->deadline_ns > now ? c->deadline_ns - now : 0;
}

uint64_t climber_call(struct climber *c, uint64_t n)
{
	uint64_t begin = now_ns();

	for (uint64_t i = 0; i < n; i++)
		call_method(&c->target, &c->args);
	c->n_calls += n;
	return now_ns() - begin;
}

/* Whether a method that is final for this reason got as far as it was meant to */
static bool reason_is_good(enum tier_reason reason)
{
	switch (reason) {
	case TIER_REASON_PROMOTED: case TIER_REASON_NO_OPTIMIZATION: case TIER_REASON_AGGRESSIVE_OPTIMIZATION:
	case TIER_REASON_PINNED: case TIER_REASON_TIERING_OFF: case TIER_REASON_QUICK_JIT_OFF:
		return true;
	default:
		return false;
	}
}

int climber_end(const struct climber *c, int r)
{
	const struct tier_answer *answer = &c->climb.answer;

	if (r == -ETIMEDOUT) {
		fail("%s: not final within --timeout; it is %s", c->ctl->args[0],
		     tier_stage_name(tier_status(c->target.method).stage));
		return CTL_UNMET;
	}
	if (r < 0) {
		fail_tier(c->ctl->args[0]);
		return r == -EBUSY ? CTL_UNMET : CTL_FAILED;
	}
	if (reason_is_good(answer->reason))
		return CTL_DONE;
	fail("%s: final at %s: %s", c->ctl->args[0], tier_level_name(answer->tier), tier_reason_name(answer->reason));
	return CTL_UNMET;
}

/* -- drive --- */
struct drive {
	struct climber climber;
	uint32_t n_steps;
	uint64_t delay_ns, compile_ns;	/* what the step was waited for */
	/* of the batch of calls that is being made for the callees' sake */
	uint32_t calls, n_unsettled;
	uint64_t begin_ns;
};

/* @n_unsettled: negative for a step of the schedule, after which nobody was asked */
static void drive_row(struct drive *d, uint32_t calls, double ns_per_call, double n_unsettled)
{
	struct climber *c = &d->climber;

	table_row(c->table);
	table_number(c->table, ++d->n_steps);
	answer_cells(c->table, &c->climb.answer);
	table_number(c->table, calls);
	table_float(c->table, ns_per_call, 1);
	table_float(c->table, d->delay_ns / 1e6, 3);
	table_float(c->table, d->compile_ns / 1e6, 3);
	table_float(c->table, (now_ns() - c->start_ns) / 1e6, 3);
	if (c->ctl->callees)
		table_float(c->table, n_unsettled, 0);
	d->delay_ns = d->compile_ns = 0;
}

/* The next step of the schedule. What is waited for follows from where the method stands: its calls are not counted yet, or a
 * promotion is under way (which a delay may follow). */
static int drive_next(struct drive *d, uint32_t *calls)
{
	struct climber *c = &d->climber;
	const enum tier_stage stage = tier_status(c->target.method).stage;
	const uint64_t begin = now_ns();
	int r;

	r = tier_climb_next(&c->climb, climber_time_left(c), NULL, calls);
	if (stage == TIER_STAGE_UNCOUNTED)
		d->delay_ns = now_ns() - begin;
	else if (stage != TIER_STAGE_COLD)
		d->compile_ns = now_ns() - begin;
	return r;
}

static int drive_climb(struct drive *d)
{
	struct climber *c = &d->climber;
	uint32_t calls;
	int r;

	while ((r = drive_next(d, &calls)) > 0)
		drive_row(d, calls, (double)climber_call(c, calls) / calls, NAN);
	return r;
}

static void drive_call(const struct tier_method *method, void *context)
{
	struct drive *d = context;

	call_method(&d->climber.target, &d->climber.args);
}

static void drive_batch_end(struct drive *d)
{
	if (d->calls)
		drive_row(d, d->calls, (double)(now_ns() - d->begin_ns) / d->calls, d->n_unsettled);
	d->calls = 0;
}

static void drive_batch(const struct tier_settlement *settlement, uint32_t calls, void *context)
{
	struct drive *d = context;

	drive_batch_end(d);
	d->calls = calls;
	d->n_unsettled = settlement->n_unsettled;
	d->begin_ns = now_ns();
}

/* 1: what stays unsettled was told. */
static int drive_settle(struct drive *d)
{
	struct climber *c = &d->climber;
	struct tier_drive_opts opts = { .size = sizeof(opts), .call = drive_call, .step = drive_batch, .context = d };
	struct tier_settlement settlement;
	int r;

	opts.timeout_ns = climber_time_left(c);
	if (!opts.timeout_ns)
		opts.timeout_ns = 1;	/* 0 would be any */
	r = tier_drive(c->target.method, &opts, &settlement);
	drive_batch_end(d);
	if (r != 1)
		return r;
	drive_row(d, 0, NAN, settlement.n_unsettled);
	fail("%s: %u method%s that it can call %s not settled, and these calls do not bring %s on: %s", c->ctl->args[0],
	     settlement.n_unsettled, settlement.n_unsettled == 1 ? "" : "s", settlement.n_unsettled == 1 ? "is" : "are",
	     settlement.n_unsettled == 1 ? "it" : "them", unsettled_names(c->target.module, &settlement));
	return 1;
}

int cmd_drive(struct ctl *ctl)
{
	static const struct column columns[] = {
		{ "step", COLUMN_NUMBER }, ANSWER_COLUMNS, { "calls", COLUMN_NUMBER }, { "ns_per_call", COLUMN_FLOAT },
		{ "delay_ms", COLUMN_FLOAT }, { "compile_ms", COLUMN_FLOAT }, { "ms", COLUMN_FLOAT }, { "unsettled", COLUMN_NUMBER },
	};
	struct drive d = { 0 };
	int r;

	if (!climber_init(&d.climber, ctl))
		return CTL_FAILED;
	d.climber.table = table_new("steps", columns, sizeof(columns) / sizeof(columns[0]) - !ctl->callees, ctl->json, false);
	r = drive_climb(&d);
	if (!r && ctl->callees)
		r = drive_settle(&d);
	if (!r)
		drive_row(&d, 0, NAN, 0);
	table_end(d.climber.table);
	return r > 0 ? CTL_UNMET : climber_end(&d.climber, r);
}
