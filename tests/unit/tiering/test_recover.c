/* SPDX-License-Identifier: Apache-2.0 */
#include "unit/tiering/crash.h"

/* Takeovers: a daemon that dies between two requests, or at any instruction, and the successor that goes on from the
 * ledger as if nothing had happened */

#define UID 1000

/* -- The scenario: a story with a bit of everything, one step per line --- */
static struct fake_module *by_name(struct fake *fake, uid_t uid, const char *name)
{
	struct module *module = core_module_by_name(fake->core, uid, name);

	assert_non_null(module);
	return core_module_context(module);
}

static struct fake_module *a(struct fake *fake) { return by_name(fake, UID, "a"); }
static struct fake_module *b(struct fake *fake) { return by_name(fake, UID + 1, "b"); }
static struct fake_module *c(struct fake *fake) { return by_name(fake, UID, "c"); }

static void load_a(struct fake *fake) { fake_load(fake, UID, "a", 5); }
static void load_b(struct fake *fake) { fake_load(fake, UID + 1, "b", 3); }
static void load_c(struct fake *fake)
{
	assert_int_equal(fake_try_load(fake, UID, "c", 3, 1, &(struct fake_module *){0}), 0);
}
static void call_a0(struct fake *fake) { fake_call_and_ring(a(fake), 0); }
static void call_a1(struct fake *fake) { fake_call_and_ring(a(fake), 1); }
static void call_a2(struct fake *fake) { fake_call_and_ring(a(fake), 2); }
static void call_a3(struct fake *fake) { fake_call_and_ring(a(fake), 3); }
static void call_b0(struct fake *fake) { fake_call_and_ring(b(fake), 0); }
static void call_b1(struct fake *fake) { fake_call_and_ring(b(fake), 1); }
static void call_c0(struct fake *fake) { fake_call_and_ring(c(fake), 0); }
static void call_c1(struct fake *fake) { fake_call_and_ring(c(fake), 1); }
static void call_c2(struct fake *fake) { fake_call_and_ring(c(fake), 2); }
static void end_a0(struct fake *fake) { assert_true(fake_end(fake, a(fake), 0, TIER_REASON_NONE)); }
static void end_a1(struct fake *fake) { assert_true(fake_end(fake, a(fake), 1, TIER_REASON_COMPILE_FAILED)); }
static void end_a2(struct fake *fake) { assert_true(fake_end(fake, a(fake), 2, TIER_REASON_NONE)); }
static void end_b0(struct fake *fake) { assert_true(fake_end(fake, b(fake), 0, TIER_REASON_NONE)); }
static void end_c0(struct fake *fake) { assert_true(fake_end(fake, c(fake), 0, TIER_REASON_NONE)); }
static void stubs_fail(struct fake *fake) { fake->stub_result = CORE_E_FULL; }
static void stubs_work(struct fake *fake) { fake->stub_result = 0; }
static void pass_30(struct fake *fake) { fake_pass(fake, 30); }
static void pass_60(struct fake *fake) { fake_pass(fake, 60); }
static void pass_100(struct fake *fake) { fake_pass(fake, 100); }
static void unname_a(struct fake *fake) { core_module_unname(a(fake)->module); }
static void remove_b(struct fake *fake) { fake_remove(fake, b(fake)); }

static void (*const scenario[])(struct fake *fake) = {
	load_a,
	load_b,
	call_a0,
	pass_30,
	call_b0,
	call_a1,
	pass_60,
	call_b1,
	pass_30,
	call_a2,
	pass_100,
	pass_100,
	pass_100,
	/* both delays are over: two jobs of one uid, one of the other */
	call_a2,
	call_a0,
	call_a0,
	call_a0,
	call_a1,
	call_b0,
	call_a1,
	call_a1,
	call_b0,
	call_b0,
	end_b0,
	call_a3,
	/* a new delay: a1 waits */ end_a0,
	pass_60,
	call_a2,
	load_c,
	call_a2,
	stubs_fail,
	pass_100,
	stubs_work,
	end_a1,
	call_c0,
	end_a2,
	call_c1,
	pass_100,
	pass_100,
	call_c0,
	call_c0,
	call_c0,
	call_b1,
	remove_b,
	end_c0,
	call_c2,
	pass_100,
	unname_a,
	pass_100,
};

static void run(struct fake *fake, bool is_disturbed)
{
	for (unsigned int i = 0; i < ARRAY_SIZE(scenario); i++) {
		scenario[i](fake);
		fake_check(fake);
		if (is_disturbed)
			fake_restart(fake);
	}
}

static void assert_same_event(const struct tier_event *one, const struct tier_event *two)
{
	struct tier_event x = *one, y = *two;

	x.time_ns = y.time_ns = 0;
	assert_memory_equal(&x, &y, sizeof(x));
}

static void losing_the_heap_after_every_step_changes_nothing(void **state)
{
	struct fake *calm = *state, *disturbed = fake_new(&fake_config);

	run(calm, false);
	run(disturbed, true);
	assert_int_equal(disturbed->n_events, calm->n_events);
	for (uint32_t i = 0; i < calm->n_events; i++) {
		assert_same_event(&disturbed->events[i], &calm->events[i]);
		assert_true(disturbed->events[i].time_ns == calm->events[i].time_ns);
	}
	for (int i = 0; i < FAKE_MODULES_MAX; i++) {
		const struct fake_module *one = &calm->modules[i], *two = &disturbed->modules[i];

		assert_int_equal(one->id, two->id);
		if (one->id)
			assert_memory_equal(one->records, two->records, one->layout.n_methods * sizeof(*one->records));
	}
	fake_free(disturbed);
}

/* but for those of bodies, which have a story of their own (test_recover_bodies.c) */
static void the_scenario_shows_every_kind_of_event(void **state)
{
	struct fake *fake = *state;

	run(fake, false);
	for (unsigned int kind = TIER_EVENT_MODULE_LOADED; kind <= TIER_EVENT_DELAY_RESUMED; kind++)
		assert_true(fake_n_events(fake, kind));
}

/* -- Dying at any instruction --- */
/* Every method's events come in the order of its life, each once. */
static void assert_history(struct fake *fake)
{
	static const uint8_t next[_TIER_EVENT_N][4] = {
		[0] = {TIER_EVENT_PUBLISHED},
		[TIER_EVENT_PUBLISHED] = {TIER_EVENT_COUNTING_BEGUN, TIER_EVENT_FINAL},
		[TIER_EVENT_COUNTING_BEGUN] = {TIER_EVENT_THRESHOLD},
		[TIER_EVENT_THRESHOLD] = {TIER_EVENT_QUEUED},
		[TIER_EVENT_QUEUED] = {TIER_EVENT_COMPILE_STARTED},
		[TIER_EVENT_COMPILE_STARTED] = {TIER_EVENT_COMPILE_ENDED},
		[TIER_EVENT_COMPILE_ENDED] = {TIER_EVENT_PUBLISHED, TIER_EVENT_FINAL},
	};
	uint8_t last[8][8] = {0};

	for (uint32_t i = 0; i < fake->n_events; i++) {
		const struct tier_event *event = &fake->events[i];
		uint8_t *before;

		assert_int_equal(event->sequence, i + 1);
		if (event->method == UINT32_MAX)
			continue;
		assert_true(event->module < 8 && event->method < 8);
		before = &last[event->module][event->method];
		assert_non_null(memchr(next[*before], event->kind, 4));
		*before = event->kind;
	}
}

static void run_calmly(struct fake *fake) { run(fake, false); }

static void a_successor_goes_on_wherever_the_daemon_dies(void **state)
{
	uint32_t n_crashes = crash_run(*state, run_calmly, assert_history);

	assert_true(n_crashes > 500);
	print_message("died at %u points\n", n_crashes);
}

/* -- Single points --- */
static void waiters_of_the_last_transition_are_woken_again(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = fake_load(fake, UID, "m", 2);
	uint32_t n_changed, n_events;
	struct ledger ledger;

	fake_call(fm, 0);
	fake_pass(fake, 100);
	n_events = fake->n_events;
	n_changed = fake->n_changed;
	fake->core = core_free(fake->core);
	/* as if it had died after the commit, before the bells */
	assert_int_equal(ledger_open(&ledger, fake->memory, ledger_size()), 0);
	ledger_set_delivered(&ledger, n_events - 1);
	fake->on_event = merge_event;
	fake_succeed(fake);
	assert_int_equal(fake->n_events, n_events);
	assert_int_equal(fake->n_changed, n_changed + 1);
	assert_int_equal(ledger_delivered(&ledger), n_events);
}

static void the_window_is_remembered_beyond_its_modules(void **state)
{
	const uint64_t base = TIER_WINDOW_LOW + (1ull << 28);
	struct fake *fake = *state;
	struct fake_module *first, *second;
	uint64_t end;

	assert_true(!core_window(fake->core).base);
	core_window_choose(fake->core, base);
	assert_true(core_window(fake->core).next == base);
	first = fake_load(fake, UID, "first", 1);
	second = fake_load(fake, UID + 1, "second", 1);
	end = second->layout.base + second->layout.size;
	assert_true(end > first->layout.base + first->layout.size);
	fake_remove(fake, second); /* its addresses stay used */
	fake_restart(fake);
	assert_true(core_window(fake->core).base == base);
	assert_true(core_window(fake->core).next == end);
	fake_remove(fake, first);
	fake_restart(fake);
	assert_true(core_window(fake->core).next == end);
}

static void a_threshold_crossed_while_no_daemon_lived_is_found(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = fake_load(fake, UID, "m", 2);

	fake_call(fm, 0);
	fake_pass(fake, 100);
	fake->core = core_free(fake->core);
	for (uint32_t i = 0; i < FAKE_N + 2; i++)
		fake_call(fm, 0);
	fake->now_ns += 5000 * (uint64_t)FAKE_MS;
	fake_succeed(fake);
	assert_int_equal(fake_n_events(fake, TIER_EVENT_THRESHOLD), 1);
	for (uint32_t i = 0; i < fake->n_events; i++)
		if (fake->events[i].kind == TIER_EVENT_THRESHOLD) { /* recovered, when it was found */
			assert_int_equal(fake->events[i].source, TIER_SOURCE_SWEEP);
			assert_true(fake->events[i].time_ns == fake_wall(fake) && !fake->events[i].pid);
		}
	assert_true(fake_job(fake, fm, 0));
}

static void interrupted_jobs_come_before_those_that_waited(void **state)
{
	struct core_config config = fake_config;
	struct fake_module *one, *two;
	struct fake *fake;

	config.jobs_total = 1;
	fake = fake_new(&config);
	one = fake_load(fake, UID, "m", 2);
	two = fake_load(fake, UID + 1, "m", 1);
	for (uint32_t i = 0; i < 2; i++)
		fake_call(one, i);
	fake_call(two, 0);
	fake_pass(fake, 200);
	fake_calls(one, 0, FAKE_N);
	fake_calls(one, 1, FAKE_N);
	fake_calls(two, 0, FAKE_N);
	fake_restart(fake);
	assert_int_equal(fake->n_jobs, 2);
	assert_true(fake_job(fake, one, 0));
	assert_int_equal(fake_n_events(fake, TIER_EVENT_COMPILE_STARTED), 1);
	assert_int_equal(fake_answer(one, 0).stage, TIER_STAGE_COMPILING);
	fake_end(fake, one, 0, TIER_REASON_NONE);
	assert_true(fake_job(fake, two, 0));
	fake_check(fake);
	fake_free(fake);
}

static void a_module_that_cannot_be_attached_again_can_be_removed(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = fake_load(fake, UID, "m", 2), *other = fake_load(fake, UID, "other", 1);
	struct module *module;
	uint64_t id = fm->id;

	for (uint32_t i = 0; i < 2; i++)
		fake_call(fm, i);
	fake_call(other, 0);
	fake_pass(fake, 200);
	fake_calls(fm, 0, FAKE_N);
	fake_calls(other, 0, FAKE_N);
	core_free(fake->core);
	assert_int_equal(core_new(&fake->core, &fake->config, &fake_ops, fake, fake->memory, ledger_size()), 0);
	for (uint32_t i = 0; i < fake->n_jobs; i++)
		fake->jobs[i].is_active = false;
	other->module = core_module_by_id(fake->core, other->id);
	assert_int_equal(core_module_attach(other->module, other->header, other->records, other->cells, other), 0);
	fake_fire(fake);
	assert_false(fake_job(fake, other, 0)); /* the other module's job comes first */
	module = core_module_by_id(fake->core, id);
	core_module_remove(module);
	fake_module_drop(fm);
	assert_true(fake_job(fake, other, 0));
	assert_int_equal(fake_n_events(fake, TIER_EVENT_MODULE_UNLOADED), 1);
}

/* Whatever it was doing: each beginning in the history has its end. */
static void what_cannot_be_attached_again_is_thawed_and_unloaded_in_the_history(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = fake_load(fake, UID, "m", 4);
	const uint64_t id = fm->id;
	uint32_t n_events;

	for (uint32_t i = 0; i < 3; i++)
		fake_call(fm, i);
	fake_pass(fake, 200);
	for (uint32_t i = 0; i < 2; i++)
		fake_calls(fm, i, FAKE_N);	/* one compiles, one waits, one is counted */
	core_osr_request(fake->core, id, 2);
	fake_call(fm, 3);			/* and a delay has begun */
	core_freeze(fm->module);
	n_events = fake->n_events;
	core_free(fake->core);
	assert_int_equal(core_new(&fake->core, &fake->config, &fake_ops, fake, fake->memory, ledger_size()), 0);
	core_module_remove(core_module_by_id(fake->core, id));
	fake_module_drop(fm);
	fake_assert_kinds(fake, n_events, TIER_EVENT_THAWED, TIER_EVENT_MODULE_UNLOADED, TIER_EVENT_DELAY_RESUMED, 0);
	fake_check(fake);
	fake_restart(fake);
	assert_int_equal(fake->n_events, n_events + 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		FAKE_TEST(losing_the_heap_after_every_step_changes_nothing),
		FAKE_TEST(the_scenario_shows_every_kind_of_event),
		FAKE_TEST(a_successor_goes_on_wherever_the_daemon_dies),
		FAKE_TEST(waiters_of_the_last_transition_are_woken_again),
		FAKE_TEST(the_window_is_remembered_beyond_its_modules),
		FAKE_TEST(a_threshold_crossed_while_no_daemon_lived_is_found),
		FAKE_TEST(interrupted_jobs_come_before_those_that_waited),
		FAKE_TEST(a_module_that_cannot_be_attached_again_can_be_removed),
		FAKE_TEST(what_cannot_be_attached_again_is_thawed_and_unloaded_in_the_history),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
