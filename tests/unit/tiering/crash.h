/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Dying at any instruction
 *
 * At each crash point of a run, a copy of all that outlives the daemon goes to a successor. It must find a sound
 * ledger, tell the rest of the last transition's events, lead every method that has code to its final tier, and leave a
 * history in which each thing happened once. */

#include "unit/tiering/fake.h"

struct heritage {
	struct fake *successor;
	void (*check)(struct fake *successor); /* once it has begun, and again when all is at its end */
	uint32_t n_crashes;
};

static struct fake *dying; /* whose crash point it is; ledger_crash_point takes no argument */

static void merge_event(struct fake *fake, const struct tier_event *event)
{
	if (event->sequence <= fake->n_events) {
		assert_memory_equal(event, &fake->events[event->sequence - 1], sizeof(*event));
		return;
	}
	assert_int_equal(event->sequence, fake->n_events + 1);
	fake_record_event(fake, event);
}

/* The extents that a small ledger uses; slots beyond were never touched. */
static void copy_ledger(uint8_t *to, const uint8_t *from)
{
	enum { SLOTS = 64 };
	size_t head = LEDGER_PAGE + LEDGER_REDO_SIZE, at = head + LEDGER_EVENTS * sizeof(struct tier_event);

	memcpy(to, from, head + 512 * sizeof(struct tier_event));
#define COPY_TABLE(NAME, record, n)                                                                                    \
	memcpy(to + at, from + at, SLOTS * sizeof(struct ledger_##record));                                            \
	at += align_up((uint64_t)(n) * sizeof(struct ledger_##record), LEDGER_PAGE);
	LEDGER_TABLE_LIST(COPY_TABLE)
	assert_int_equal(at, ledger_size());
}

static void inherit(struct fake *to, const struct fake *from)
{
	copy_ledger(to->memory, from->memory);
	for (int i = 0; i < FAKE_MODULES_MAX; i++) {
		fake_module_drop(&to->modules[i]);
		fake_module_copy(&to->modules[i], &from->modules[i], to);
	}
	to->now_ns = from->now_ns;
	to->n_jobs = 0;
	to->n_events = 0;
	for (uint32_t i = 0; i < from->n_events; i++)
		fake_record_event(to, &from->events[i]);
}

static bool drive_module(struct fake *fake, struct fake_module *fm)
{
	bool is_quiet = true;

	for (uint32_t i = 0; i < fake->n_jobs; i++)
		if (fake->jobs[i].is_active && fake->jobs[i].module == fm->id && fake->jobs[i].level == TIER_LEVEL_OSR)
			fake_end_job(fake, &fake->jobs[i], TIER_REASON_NONE); /* of whichever stage its method is */
	for (uint32_t i = 0; fm->module && i < fm->layout.n_methods; i++) {
		unsigned int stage = tier_state_stage(fm->records[i].state);

		if (stage == TIER_STAGE_FINAL || (stage == TIER_STAGE_COLD && !fake_job(fake, fm, i)))
			continue; /* a cold one may have a job: its first code is the optimizer's */
		is_quiet = false;
		if (stage == TIER_STAGE_COUNTING)
			fake_call(fm, i); /* nobody rings */
		fake_end(fake, fm, i, TIER_REASON_NONE);
	}
	return is_quiet;
}

static void drive_to_the_end(struct fake *fake)
{
	bool is_quiet;
	int n_rounds = 0;

	do {
		is_quiet = !core_pending(fake->core, CORE_SCOPE_ALL, NULL, 0);
		for (int i = 0; i < FAKE_MODULES_MAX; i++)
			is_quiet &= drive_module(fake, &fake->modules[i]);
		core_sweep(fake->core, NULL);
		fake_pass(fake, 40);
		assert_true(n_rounds++ < 100);
	} while (!is_quiet);
	fake_check(fake);
}

static void crash(void)
{
	struct heritage *heritage = dying->test;
	struct fake *successor = heritage->successor;

	heritage->n_crashes++;
	ledger_crash_point = NULL;
	inherit(successor, dying);
	fake_succeed(successor);
	heritage->check(successor);
	drive_to_the_end(successor);
	heritage->check(successor);
	fake_check_order(successor);
	successor->core = core_free(successor->core);
	for (int i = 0; i < FAKE_MODULES_MAX; i++)
		fake_module_drop(&successor->modules[i]);
	ledger_crash_point = crash;
}

/* Runs the story in @fake, whose daemon may die at any point of it; returns at how many it did. */
static inline uint32_t crash_run(struct fake *fake, void (*story)(struct fake *fake),
				 void (*check)(struct fake *successor))
{
	struct heritage heritage = {.successor = fake_new(&fake->config), .check = check};

	dying = fake;
	dying->test = &heritage;
	heritage.successor->core = core_free(heritage.successor->core);
	heritage.successor->on_event = merge_event;
	ledger_crash_point = crash;
	story(fake);
	ledger_crash_point = NULL;
	fake_free(heritage.successor);
	return heritage.n_crashes;
}
