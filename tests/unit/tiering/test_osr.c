/* SPDX-License-Identifier: Apache-2.0 */
#include "tiering/internal.h"
#include "unit/tiering/crash.h"
#include "unit/tiering/ladder.h"

/* On-stack replacement: who may ask for code, when it is made, where it goes, and what takes it away again. */

#define UID        1000
#define FIRST      0u /* of LADDER_METHOD's patchpoints */
#define AT(method) (FAKE_PATCHPOINTS * (method))

static void ask(struct fake_module *fm, uint32_t patchpoint) { core_osr_request(fm->fake->core, fm->id, patchpoint); }

static uint32_t pending(struct fake *fake) { return core_pending(fake->core, CORE_SCOPE_ALL, NULL, 0); }

static bool end(struct fake_module *fm, uint32_t patchpoint, enum tier_reason reason)
{
	struct fake_job *job = fake_osr_job(fm->fake, fm, patchpoint);

	if (job)
		fake_end_job(fm->fake, job, reason);
	return job;
}

/* The methods have code, and calls are counted. */
static struct fake_module *load(struct fake *fake, const char *name)
{
	struct fake_module *fm = fake_load_virtual(fake, UID, name, LADDER_METHODS, 1, 1);

	for (uint32_t i = 0; i < LADDER_METHODS; i++)
		fake_call(fm, i);
	fake_pass(fake, 300);
	return fm;
}

static struct core_version_info newest(const struct fake_module *fm, uint32_t method)
{
	struct core_version_info info;

	assert_true(core_version_below(fm->module, method, 0, &info));
	return info;
}

static void assert_leads_to_code(const struct fake_module *fm, uint32_t patchpoint)
{
	const struct fake_code *code = fake_code_at(fm, fake_patchpoint(fm, patchpoint)->code);

	assert_true(code->kind == FAKE_BODY && code->level == TIER_LEVEL_OSR &&
	            code->method == patchpoint / FAKE_PATCHPOINTS);
}

static void make(struct fake_module *fm, uint32_t patchpoint)
{
	ask(fm, patchpoint);
	assert_true(end(fm, patchpoint, TIER_REASON_NONE));
	assert_leads_to_code(fm, patchpoint);
}

/* -- What tier 0 and libtier do (reference §8) --- */
#define OSR_COUNTER 1000 /* J: what a frame's counter begins with */
#define OSR_BUMP    1000 /* B: what it gets at a hit */
#define OSR_LIMIT   10

/* A frame at the head of its loop, @n times; returns the iteration in which it goes on in OSR code, or 0. */
static uint32_t run_frame(struct fake_module *fm, uint32_t patchpoint, uint32_t n, uint32_t *hits, uint32_t *asked_at)
{
	int32_t counter = OSR_COUNTER;

	for (uint32_t i = 1; i <= n; i++) {
		if (--counter > 0)
			continue;
		counter = OSR_BUMP;
		if (fake_patchpoint(fm, patchpoint)->code)
			return i;
		if (++*hits == OSR_LIMIT) {
			*asked_at = i;
			ask(fm, patchpoint);
		}
	}
	return 0;
}

/* Reference §14, item 9 */
static void osr_code_is_made_at_iteration_10000_and_beside_the_ladder(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = load(fake, "module");
	const struct tier_record before = fm->records[LADDER_METHOD];
	uint32_t hits = 0, asked_at = 0;

	assert_int_equal(run_frame(fm, FIRST, 9999, &hits, &asked_at), 0);
	assert_null(fake_osr_job(fake, fm, FIRST));
	hits = 0;
	assert_int_equal(run_frame(fm, FIRST, 20000, &hits, &asked_at), 0); /* made meanwhile */
	assert_int_equal(asked_at, 10000);
	assert_true(end(fm, FIRST, TIER_REASON_NONE));
	assert_int_equal(run_frame(fm, FIRST, 20000, &hits, &asked_at), OSR_COUNTER); /* a later frame */
	assert_memory_equal(&fm->records[LADDER_METHOD], &before, sizeof(before));
	fake_assert_runs(fm, LADDER_METHOD, 0, TIER_LEVEL_TIER0);
	ladder_climb(fm, LADDER_METHOD, FAKE_WAY_PRECODE);
	fake_assert_runs(fm, LADDER_METHOD, 0, TIER_LEVEL_TIER1);
	assert_leads_to_code(fm, FIRST); /* frames of tier 0 may still be there */
}

/* -- Asking --- */
static void it_is_a_version_and_no_rung_of_the_ladder(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = load(fake, "module");
	const struct tier_record before = fm->records[LADDER_METHOD];
	const uint32_t from = fake->n_events;
	struct core_version_info info;

	ask(fm, FIRST + 1);
	assert_int_equal(pending(fake), 1);
	info = newest(fm, LADDER_METHOD);
	assert_true(info.level == TIER_LEVEL_OSR && info.state == TIER_VERSION_MAKING && !info.is_active && !info.code);
	assert_true(end(fm, FIRST + 1, TIER_REASON_NONE));
	assert_int_equal(pending(fake), 0);
	info = newest(fm, LADDER_METHOD);
	assert_true(info.level == TIER_LEVEL_OSR && info.state == TIER_VERSION_LIVE && !info.is_active && !info.stub);
	assert_int_equal(info.code, fake_patchpoint(fm, FIRST + 1)->code);
	assert_int_equal(fake_patchpoint(fm, FIRST)->code, 0);
	fake_assert_kinds(fake, from, TIER_EVENT_OSR_REQUESTED, TIER_EVENT_COMPILE_STARTED, TIER_EVENT_COMPILE_ENDED,
	                  TIER_EVENT_OSR_READY, 0);
	for (uint32_t i = from; i < fake->n_events; i++) {
		assert_int_equal(fake->events[i].version, info.id);
		assert_true(fake->events[i].from == TIER_LEVEL_TIER0 && fake->events[i].to == TIER_LEVEL_OSR);
		assert_true(fake->events[i].module == fm->id && fake->events[i].method == LADDER_METHOD);
	}
	assert_int_equal(fake->events[from].reason, TIER_REASON_LOOP);
	assert_memory_equal(&fm->records[LADDER_METHOD], &before, sizeof(before));
}

static void it_is_asked_for_once(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = load(fake, "module");
	uint32_t n_events;

	ask(fm, FIRST);
	n_events = fake->n_events;
	ask(fm, FIRST);
	assert_int_equal(fake->n_events, n_events);
	assert_true(end(fm, FIRST, TIER_REASON_NONE));
	n_events = fake->n_events;
	ask(fm, FIRST);
	assert_int_equal(fake->n_events, n_events);
	assert_int_equal(pending(fake), 0);
}

static void who_asks_for_nonsense_gets_nothing(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = load(fake, "module"), *cold = fake_load(fake, UID, "cold", 1);
	uint32_t n_events;

	fm->traits[LADDER_OTHER] = CORE_TRAIT_NO_OPTIMIZATION;
	assert_int_equal(core_rejit(fm->module, LADDER_METHOD, 1), 0);
	fake_call(fm, LADDER_METHOD);
	n_events = fake->n_events;
	ask(fm, FIRST); /* another body is there */
	ask(cold, 0);
	ask(fm, AT(LADDER_OTHER));
	ask(fm, fm->layout.n_patchpoints);
	ask(fm, UINT32_MAX);
	core_osr_request(fake->core, 12345, 0);
	core_osr_request(fake->core, 0, UINT32_MAX);
	assert_int_equal(fake->n_events, n_events);
	assert_int_equal(pending(fake), 0);
}

/* A sixteenth is for bodies. */
static void without_room_for_a_version_nothing_is_made(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = load(fake, "module");
	const uint32_t *rows = fm->module->user->rows, n = rows[ROWS_VERSIONS] + rows[ROWS_PROMISED];
	const uint32_t n_events = fake->n_events, share = fake->core->share[ROWS_VERSIONS];
	const uint32_t shares[] = {n, n + n / 15};
	struct core_stats before, after;

	core_stats(fake->core, &before);
	for (uint32_t i = 0; i < ARRAY_SIZE(shares); i++) {
		fake->core->share[ROWS_VERSIONS] = shares[i];
		ask(fm, FIRST);
		core_stats(fake->core, &after);
		assert_true(after.n_versions == before.n_versions && fake->n_events == n_events);
	}
	fake->core->share[ROWS_VERSIONS] = share;
	make(fm, FIRST);
}

/* -- Failures --- */
static void a_failure_is_remembered(void **state)
{
	static const enum tier_reason reasons[] = {TIER_REASON_COMPILE_FAILED, TIER_REASON_WORKER_DIED,
	                                           TIER_REASON_WORKER_TIMEOUT, TIER_REASON_WORKER_MEMORY,
	                                           TIER_REASON_RESULT_REFUSED, TIER_REASON_ARENA_FULL};
	struct fake *fake = *state;
	struct fake_module *fm = load(fake, "module");
	const uint64_t word = fm->records[LADDER_METHOD].state;

	for (uint32_t i = 0; i < ARRAY_SIZE(reasons); i++) {
		ask(fm, i);
		assert_true(end(fm, i, reasons[i]));
		assert_true(fake_newest(fake)->kind == TIER_EVENT_COMPILE_ENDED &&
		            fake_newest(fake)->reason == reasons[i]);
		assert_int_equal(newest(fm, i / FAKE_PATCHPOINTS).state, TIER_VERSION_FAILED);
		assert_int_equal(fake_patchpoint(fm, i)->code, 0);
	}
	for (int round = 0; round < 2; round++) {
		const uint32_t n_events = fake->n_events;

		for (uint32_t i = 0; i < ARRAY_SIZE(reasons); i++)
			ask(fm, i);
		assert_int_equal(fake->n_events, n_events);
		fake_restart(fake);
	}
	assert_int_equal(fm->records[LADDER_METHOD].state, word);
	make(fm, AT(LADDER_OTHER));
}

static void a_job_that_cannot_start_has_failed_unless_memory_is_short(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = load(fake, "module");

	fake->compile_result = CORE_E_TOO_LARGE;
	ask(fm, FIRST);
	assert_true(fake_newest(fake)->kind == TIER_EVENT_COMPILE_ENDED &&
	            fake_newest(fake)->reason == TIER_REASON_TOO_LARGE);
	fake->compile_result = -EIO;
	ask(fm, FIRST + 1);
	assert_int_equal(fake_newest(fake)->reason, TIER_REASON_NO_WORKER);
	assert_int_equal(pending(fake), 0);
	fake->compile_result = -EMFILE;
	ask(fm, AT(LADDER_OTHER));
	assert_int_equal(fake_newest(fake)->kind, TIER_EVENT_OSR_REQUESTED);
	assert_int_equal(pending(fake), 1);
	fake->compile_result = 0;
	fake_pass(fake, 200);
	assert_true(end(fm, AT(LADDER_OTHER), TIER_REASON_NONE));
}

static void a_result_that_names_a_method_out_of_range_is_refused(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = load(fake, "module");
	const uint32_t inlined[] = {LADDER_METHODS};
	struct core_result result = {.inlined = inlined, .n_inlined = 1};
	const struct fake_job *job;

	ask(fm, FIRST);
	job = fake_osr_job(fake, fm, FIRST);
	fake_take_code(fm, &result.code);
	core_compile_done(fake->core, fm->id, LADDER_METHOD, job->version, TIER_REASON_NONE, &result);
	assert_int_equal(fake_newest(fake)->reason, TIER_REASON_RESULT_REFUSED);
	assert_int_equal(fake_patchpoint(fm, FIRST)->code, 0);
}

static void its_call_sites_and_whom_it_inlined_are_recorded(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = load(fake, "module");
	const struct fake_code *code;
	struct core_version_info info;

	fm->calls[LADDER_CALLER] = 1u << LADDER_METHOD;
	fm->inlines[LADDER_CALLER] = 1u << LADDER_OTHER;
	make(fm, AT(LADDER_CALLER));
	info = newest(fm, LADDER_CALLER);
	assert_int_equal(info.n_inlined, 1);
	assert_true(core_version_has_inlined(fm->module, LADDER_CALLER, info.id, LADDER_OTHER));
	code = fake_code_at(fm, info.code);
	ladder_climb(fm, LADDER_METHOD, FAKE_WAY_PRECODE);
	assert_int_equal(fake_site_target(fm, &code->sites[0]), fm->records[LADDER_METHOD].code);
}

/* -- Its turn --- */
static void it_waits_its_turn_among_promotions(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = load(fake, "module"), *other = load(fake, "other");

	fake_calls(fm, LADDER_BLOCKER, FAKE_N);
	fake_calls(other, LADDER_METHOD, FAKE_N);
	ask(fm, FIRST);
	fake_calls(fm, LADDER_CALLER, FAKE_N);
	ask(other, FIRST);
	assert_int_equal(pending(fake), 5);
	fake_check(fake);
	assert_true(fake_end(fake, fm, LADDER_BLOCKER, TIER_REASON_NONE));
	assert_true(fake_end(fake, other, LADDER_METHOD, TIER_REASON_NONE));
	assert_null(fake_job(fake, fm, LADDER_CALLER));
	assert_true(end(fm, FIRST, TIER_REASON_NONE));
	assert_null(fake_osr_job(fake, other, FIRST));
	assert_true(fake_end(fake, fm, LADDER_CALLER, TIER_REASON_NONE));
	assert_true(end(other, FIRST, TIER_REASON_NONE));
	assert_int_equal(pending(fake), 0);
}

static void the_delay_and_a_freeze_hold_it(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = load(fake, "module"), *cold = fake_load(fake, UID, "cold", 1);

	fake_call(cold, 0);
	ask(fm, FIRST);
	assert_null(fake_osr_job(fake, fm, FIRST));
	assert_int_equal(pending(fake), 1);
	fake_pass(fake, 300);
	assert_true(end(fm, FIRST, TIER_REASON_NONE));
	core_freeze(fm->module);
	ask(fm, FIRST + 1);
	assert_null(fake_osr_job(fake, fm, FIRST + 1));
	fake_check(fake);
	core_thaw(fm->module);
	assert_true(end(fm, FIRST + 1, TIER_REASON_NONE));
}

/* -- A body is replaced --- */
/* Of each kind one: live, being made, waiting, and one that waits of the method that will be replaced */
static void prepare_each(struct fake_module *fm)
{
	make(fm, AT(LADDER_CALLER));
	ask(fm, AT(LADDER_BLOCKER));
	ask(fm, AT(LADDER_OTHER));
	ask(fm, FIRST);
	assert_int_equal(pending(fm->fake), 3);
}

static void assert_was_taken_away(struct fake_module *fm)
{
	struct fake *fake = fm->fake;

	assert_int_equal(fake_patchpoint(fm, AT(LADDER_CALLER))->code, 0);
	assert_true(end(fm, AT(LADDER_BLOCKER), TIER_REASON_NONE)); /* for nothing */
	assert_int_equal(fake_patchpoint(fm, AT(LADDER_BLOCKER))->code, 0);
	assert_int_equal(newest(fm, LADDER_BLOCKER).state, TIER_VERSION_FAILED);
	for (uint32_t i = fake->n_events; fake->events[--i].kind != TIER_EVENT_COMPILE_ENDED; assert_true(i))
		assert_int_equal(fake->events[i].kind, TIER_EVENT_COMPILE_STARTED);
	assert_true(end(fm, AT(LADDER_OTHER), TIER_REASON_NONE)); /* waited, and was made of what is there now */
	assert_leads_to_code(fm, AT(LADDER_OTHER));
	make(fm, AT(LADDER_CALLER));
	make(fm, AT(LADDER_BLOCKER));
}

static void a_rejit_takes_all_osr_code_of_the_module_away(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = load(fake, "module"), *other = load(fake, "other");

	make(other, FIRST);
	prepare_each(fm);
	assert_int_equal(core_rejit(fm->module, LADDER_METHOD, 1), 0);
	assert_was_taken_away(fm);
	assert_int_equal(newest(fm, LADDER_METHOD).state, TIER_VERSION_FAILED); /* given up when its turn came */
	assert_int_equal(pending(fake), 0);
	assert_leads_to_code(other, FIRST);
	assert_int_equal(core_revert(fm->module, LADDER_METHOD), 0);
	make(fm, FIRST);
}

static void a_revert_does_too(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = load(fake, "module");

	assert_int_equal(core_rejit(fm->module, LADDER_METHOD, 1), 0);
	make(fm, AT(LADDER_CALLER));
	ask(fm, AT(LADDER_BLOCKER));
	ask(fm, AT(LADDER_OTHER));
	assert_int_equal(core_revert(fm->module, LADDER_METHOD), 0);
	assert_was_taken_away(fm);
	make(fm, FIRST);
	assert_int_equal(core_revert(fm->module, LADDER_METHOD), 0); /* it is there: nothing is replaced */
	assert_leads_to_code(fm, FIRST);
}

static void what_ends_unused_may_be_asked_for_again_while_it_runs(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = load(fake, "module");
	struct fake_job *old;

	ask(fm, FIRST);
	old = fake_osr_job(fake, fm, FIRST);
	assert_int_equal(core_rejit(fm->module, LADDER_OTHER, 1), 0);
	ask(fm, FIRST);
	assert_int_equal(pending(fake), 2);
	fake_end_job(fake, old, TIER_REASON_COMPILE_FAILED); /* says nothing about the one that waits */
	assert_true(end(fm, FIRST, TIER_REASON_NONE));
	assert_leads_to_code(fm, FIRST);
}

#define MANY 3000u

static void thousands_of_them_are_taken_away_in_slices(void **state)
{
	struct core_config config = fake_config;
	struct fake_module *fm;
	struct fake *fake;
	uint32_t n = 1;

	config.delay_ns = 0;
	fake = fake_new(&config);
	fm = fake_load(fake, UID, "many", MANY);
	for (uint32_t i = 0; i < MANY; i++) {
		fake_call(fm, i);
		make(fm, AT(i));
	}
	while (core_rejit(fm->module, 0, 1) == CORE_E_AGAIN) {
		assert_int_equal(core_method_body(fm->module, 0), 0);
		ask(fm, AT(n++)); /* this one is gone by then, and holds nothing up */
		fake_check(fake);
	}
	assert_true(n > MANY * SLICE_ROW / SLICE_BUDGET);
	for (uint32_t i = 0; i < fm->layout.n_patchpoints; i++)
		assert_int_equal(fake_patchpoint(fm, i)->code, 0);
	fake_check(fake);
	fake_free(fake);
}

/* -- Its module goes, or its daemon --- */
static void a_module_goes_with_all_its_osr_code(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = load(fake, "module"), *other = load(fake, "other");
	struct core_stats stats;

	prepare_each(fm);
	ask(other, FIRST);
	fake_remove(fake, fm);
	assert_int_equal(pending(fake), 1);
	assert_true(end(other, FIRST, TIER_REASON_NONE));
	fake_pass(fake, 10);
	core_stats(fake->core, &stats);
	assert_int_equal(stats.n_versions, LADDER_METHODS + 1);
}

static void thousands_of_them_go_with_their_module_in_slices(void **state)
{
	struct core_config config = fake_config;
	struct fake_module *fm;
	struct fake *fake;
	int budget = SLICE_BUDGET;
	uint32_t n = 1;

	config.delay_ns = 0;
	fake = fake_new(&config);
	fm = fake_load(fake, UID, "many", MANY);
	for (uint32_t i = 0; i < MANY; i++) {
		fake_call(fm, i);
		make(fm, AT(i));
	}
	for (; !osr_forget_live(fm->module, &budget); n++) {
		assert_true(budget > -(int)SLICE_ROW);
		budget = SLICE_BUDGET;
	}
	assert_int_equal(n, (MANY * SLICE_ROW + SLICE_BUDGET - 1) / SLICE_BUDGET);
	fake_remove(fake, fm);
	while (fake_is_due(fake))
		fake_fire(fake);
	fake_check(fake);
	fake_free(fake);
}

static uint32_t n_events_of(const struct fake *fake, enum tier_event_kind kind, uint32_t method)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < fake->n_events; i++)
		n += fake->events[i].kind == kind && fake->events[i].method == method && fake->events[i].to == TIER_LEVEL_OSR;
	return n;
}

static void a_successor_goes_on_with_what_was_asked_for_in_order(void **state)
{
	static const uint32_t methods[] = {LADDER_CALLER, LADDER_BLOCKER, LADDER_OTHER, LADDER_METHOD};
	struct fake *fake = *state;
	struct fake_module *fm = load(fake, "module");

	prepare_each(fm);
	fake_restart(fake);
	assert_leads_to_code(fm, AT(LADDER_CALLER));
	assert_int_equal(pending(fake), 3);
	ask(fm, AT(LADDER_BLOCKER)); /* it is known */
	assert_false(fake_osr_job(fake, fm, AT(LADDER_OTHER)));
	assert_true(end(fm, AT(LADDER_BLOCKER), TIER_REASON_NONE));
	fake_restart(fake);
	assert_false(fake_osr_job(fake, fm, FIRST));
	assert_true(end(fm, AT(LADDER_OTHER), TIER_REASON_NONE));
	assert_true(end(fm, FIRST, TIER_REASON_NONE));
	for (uint32_t i = 0; i < ARRAY_SIZE(methods); i++) {
		assert_leads_to_code(fm, AT(methods[i]));
		assert_int_equal(n_events_of(fake, TIER_EVENT_OSR_REQUESTED, methods[i]), 1);
		assert_int_equal(n_events_of(fake, TIER_EVENT_COMPILE_STARTED, methods[i]), 1);
		assert_int_equal(n_events_of(fake, TIER_EVENT_COMPILE_ENDED, methods[i]), 1);
		assert_int_equal(n_events_of(fake, TIER_EVENT_OSR_READY, methods[i]), 1);
	}
	fake_restart(fake);
	assert_int_equal(core_rejit(fm->module, LADDER_METHOD, 1), 0);
	for (uint32_t i = 0; i < fm->layout.n_patchpoints; i++)
		assert_int_equal(fake_patchpoint(fm, i)->code, 0);
	fake_restart(fake);
	assert_int_equal(fake_patchpoint(fm, AT(LADDER_CALLER))->code, 0);
	make(fm, AT(LADDER_CALLER));
}

/* The ledger's chains tell of them in the worst order: the newest first. How many steps that takes is test_list.c's. */
static void thousands_that_wait_are_in_order_for_a_successor(void **state)
{
	struct core_config config = fake_config;
	struct fake_module *fm;
	struct fake *fake;
	uint64_t last = 0;
	struct list *pos;
	uint32_t n;

	config.delay_ns = 0;
	fake = fake_new(&config);
	fm = fake_load(fake, UID, "many", MANY);
	for (uint32_t i = 0; i < MANY; i++)
		fake_call(fm, i);
	core_freeze(fm->module);
	for (uint32_t i = MANY * FAKE_PATCHPOINTS; i-- > 0;)
		ask(fm, i);
	fake_restart(fake);
	n = fake->core->n_running; /* the freeze has ended with its daemon */
	list_for_each(pos, &fm->module->osr_queue) {
		const struct osr *osr = list_entry(pos, struct osr, link);

		assert_true(osr->ticket > last);
		assert_int_equal(osr->patchpoint, MANY * FAKE_PATCHPOINTS - ++n);
		last = osr->ticket;
	}
	assert_int_equal(n, MANY * FAKE_PATCHPOINTS);
	fake_free(fake);
}

/* Its end is told, once, though nobody makes it any more; it may be asked for again at once. */
static void what_was_replaced_while_it_was_made_has_ended_for_a_successor(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = load(fake, "module");

	ask(fm, FIRST);
	assert_int_equal(core_rejit(fm->module, LADDER_OTHER, 1), 0);
	ask(fm, FIRST);
	fake_restart(fake);
	assert_int_equal(n_events_of(fake, TIER_EVENT_COMPILE_ENDED, LADDER_METHOD), 1);
	assert_int_equal(pending(fake), 1);
	assert_true(end(fm, FIRST, TIER_REASON_NONE));
	assert_leads_to_code(fm, FIRST);
	fake_restart(fake);
	assert_leads_to_code(fm, FIRST);
	assert_int_equal(n_events_of(fake, TIER_EVENT_COMPILE_ENDED, LADDER_METHOD), 2);
}

/* A body is replaced before a predecessor's job is started again. */
static void what_a_successor_has_not_started_again_is_taken_away_too(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = load(fake, "module");

	ask(fm, FIRST);
	fake->compile_result = -ENOMEM; /* it cannot start again yet */
	fake_restart(fake);
	assert_int_equal(core_rejit(fm->module, LADDER_OTHER, 1), 0);
	fake->compile_result = 0;
	fake_pass(fake, 200);
	assert_int_equal(n_events_of(fake, TIER_EVENT_COMPILE_ENDED, LADDER_METHOD), 1);
	assert_int_equal(newest(fm, LADDER_METHOD).state, TIER_VERSION_FAILED);
	assert_int_equal(pending(fake), 0);
	make(fm, FIRST);
}

static void a_failure_is_remembered_by_a_successor(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = load(fake, "module");

	ask(fm, FIRST);
	end(fm, FIRST, TIER_REASON_COMPILE_FAILED);
	fake_restart(fake);
	ask(fm, FIRST);
	assert_int_equal(pending(fake), 0);
}

/* -- Dying at any instruction --- */
/* Code that a frame may enter is of the bodies that calls run. */
static void check_heir(struct fake *successor)
{
	struct fake_module *fm = &successor->modules[0];

	fake_check(successor);
	for (uint32_t i = 0; fm->module && i < fm->layout.n_patchpoints; i++)
		if (fake_patchpoint(fm, i)->code)
			fake_assert_current(fm, i / FAKE_PATCHPOINTS, fake_code_at(fm, fake_patchpoint(fm, i)->code));
	if (fm->module && !core_method_body(fm->module, LADDER_METHOD) && !fake_patchpoint(fm, FIRST)->code) {
		ask(fm, FIRST); /* may have failed */
		end(fm, FIRST, TIER_REASON_NONE);
	}
}

static void story(struct fake *fake)
{
	struct fake_module *fm = &fake->modules[0];

	fm->inlines[LADDER_METHOD] = 1u << LADDER_OTHER;
	make(fm, FIRST);
	ask(fm, FIRST + 1);
	end(fm, FIRST + 1, TIER_REASON_COMPILE_FAILED);
	ask(fm, AT(LADDER_CALLER));
	ask(fm, AT(LADDER_BLOCKER));
	core_rejit(fm->module, LADDER_OTHER, 1);
	fake_call(fm, LADDER_OTHER);
	ask(fm, FIRST);
	end(fm, AT(LADDER_CALLER), TIER_REASON_NONE);
	end(fm, AT(LADDER_BLOCKER), TIER_REASON_NONE);
	end(fm, FIRST, TIER_REASON_NONE);
	core_revert(fm->module, LADDER_OTHER);
}

static void a_daemon_that_dies_anywhere_leaves_no_old_osr_code(void **state)
{
	struct fake *fake = *state;

	load(fake, "module");
	print_message("%u crashes\n", crash_run(fake, story, check_heir));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        FAKE_TEST(osr_code_is_made_at_iteration_10000_and_beside_the_ladder),
	        FAKE_TEST(it_is_a_version_and_no_rung_of_the_ladder),
	        FAKE_TEST(it_is_asked_for_once),
	        FAKE_TEST(who_asks_for_nonsense_gets_nothing),
	        FAKE_TEST(without_room_for_a_version_nothing_is_made),
	        FAKE_TEST(a_failure_is_remembered),
	        FAKE_TEST(a_job_that_cannot_start_has_failed_unless_memory_is_short),
	        FAKE_TEST(a_result_that_names_a_method_out_of_range_is_refused),
	        FAKE_TEST(its_call_sites_and_whom_it_inlined_are_recorded),
	        FAKE_TEST(it_waits_its_turn_among_promotions),
	        FAKE_TEST(the_delay_and_a_freeze_hold_it),
	        FAKE_TEST(a_rejit_takes_all_osr_code_of_the_module_away),
	        FAKE_TEST(a_revert_does_too),
	        FAKE_TEST(what_ends_unused_may_be_asked_for_again_while_it_runs),
	        cmocka_unit_test(thousands_of_them_are_taken_away_in_slices),
	        cmocka_unit_test(thousands_of_them_go_with_their_module_in_slices),
	        FAKE_TEST(a_module_goes_with_all_its_osr_code),
	        FAKE_TEST(a_successor_goes_on_with_what_was_asked_for_in_order),
	        cmocka_unit_test(thousands_that_wait_are_in_order_for_a_successor),
	        FAKE_TEST(what_was_replaced_while_it_was_made_has_ended_for_a_successor),
	        FAKE_TEST(what_a_successor_has_not_started_again_is_taken_away_too),
	        FAKE_TEST(a_failure_is_remembered_by_a_successor),
	        FAKE_TEST(a_daemon_that_dies_anywhere_leaves_no_old_osr_code),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
