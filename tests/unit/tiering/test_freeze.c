/* SPDX-License-Identifier: Apache-2.0 */
#include "tiering/internal.h"
#include "unit/tiering/crash.h"
#include "unit/tiering/ladder.h"

/* Freezing: what a frozen module's methods do and say, what goes on all the same, and when it ends. */

#define UID LADDER_UID

static uint32_t pending(struct fake *fake) { return core_pending(fake->core, CORE_SCOPE_ALL, NULL, 0); }

/* All but the blocker are counted, and have as many calls left. */
static struct fake_module *load(struct fake *fake, const char *name)
{
	struct fake_module *fm = fake_load_virtual(fake, UID, name, LADDER_METHODS, 1, 1);

	for (uint32_t i = 0; i < LADDER_METHODS; i++)
		fake_call(fm, i);
	fake_pass(fake, 300);
	return fm;
}

static void assert_says(struct fake_module *fm, uint32_t method, enum tier_stage stage, bool is_frozen)
{
	const struct tier_answer answer = fake_answer(fm, method);

	assert_string_equal(tier_stage_name(answer.stage), tier_stage_name(stage));
	assert_int_equal(answer.is_frozen, is_frozen);
}

/* -- What is held --- */
static void a_frozen_module_starts_no_promotion(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = load(fake, "module");
	const uint32_t from = fake->n_events;
	struct tier_answer answer;

	core_freeze(fm->module);
	assert_true(core_is_frozen(fm->module) && fm->header->is_frozen && !core_n_compiling(fm->module));
	fake_calls(fm, LADDER_METHOD, FAKE_N);
	assert_null(fake_job(fake, fm, LADDER_METHOD));
	answer = fake_answer(fm, LADDER_METHOD);
	assert_true(answer.is_frozen && tier_answer_is_quiet(&answer) && answer.stage == TIER_STAGE_QUEUED);
	assert_true(answer.status == TIER_STATUS_OPTIMIZING && answer.remaining == 0);
	assert_int_equal(pending(fake), 1);
	fake_pass(fake, 1000);
	fake_check(fake);
	core_thaw(fm->module);
	assert_false(fm->header->is_frozen);
	assert_says(fm, LADDER_METHOD, TIER_STAGE_COMPILING, false);
	assert_true(fake_end(fake, fm, LADDER_METHOD, TIER_REASON_NONE));
	assert_says(fm, LADDER_METHOD, TIER_STAGE_FINAL, false);
	fake_assert_kinds(fake, from, TIER_EVENT_FROZEN, TIER_EVENT_THRESHOLD, TIER_EVENT_QUEUED, TIER_EVENT_THAWED,
	                  TIER_EVENT_COMPILE_STARTED, TIER_EVENT_COMPILE_ENDED, TIER_EVENT_PUBLISHED, TIER_EVENT_FINAL,
	                  0);
	assert_int_equal(fake->n_quiet, 0);
}

static void a_job_that_has_begun_goes_on_to_its_end_and_then_all_is_quiet(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = load(fake, "module");

	fake_calls(fm, LADDER_METHOD, FAKE_N);
	fake_calls(fm, LADDER_OTHER, FAKE_N);
	core_freeze(fm->module);
	assert_int_equal(core_n_compiling(fm->module), 1);
	assert_says(fm, LADDER_METHOD, TIER_STAGE_COMPILING, true);
	assert_says(fm, LADDER_OTHER, TIER_STAGE_QUEUED, true);
	assert_int_equal(fake->n_quiet, 0);
	assert_true(fake_end(fake, fm, LADDER_METHOD, TIER_REASON_NONE));
	assert_int_equal(fake->n_quiet, 1);
	assert_says(fm, LADDER_METHOD, TIER_STAGE_FINAL, false);
	assert_null(fake_job(fake, fm, LADDER_OTHER));
}

static void a_job_that_fails_or_cannot_be_used_ends_quietly_too(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = load(fake, "module");

	fm->inlines[LADDER_CALLER] = 1u << LADDER_OTHER;
	fake_calls(fm, LADDER_METHOD, FAKE_N);
	core_freeze(fm->module);
	assert_true(fake_end(fake, fm, LADDER_METHOD, TIER_REASON_WORKER_DIED));
	assert_int_equal(fake->n_quiet, 1);
	core_thaw(fm->module);
	fake_calls(fm, LADDER_CALLER, FAKE_N);
	core_freeze(fm->module);
	assert_int_equal(core_rejit(fm->module, LADDER_OTHER, 1), 0);
	assert_true(fake_end(fake, fm, LADDER_CALLER, TIER_REASON_NONE));
	assert_int_equal(fake->n_quiet, 2);
	assert_says(fm, LADDER_CALLER, TIER_STAGE_QUEUED, true); /* once more, with the body of now, when it may */
}

static void freezes_are_counted(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = load(fake, "module");
	const uint32_t from = fake->n_events;
	const struct tier_event *event;

	core_freeze(fm->module);
	core_freeze(fm->module);
	core_thaw(fm->module);
	assert_true(core_is_frozen(fm->module));
	fake_assert_kinds(fake, from, TIER_EVENT_FROZEN, 0);
	core_thaw(fm->module);
	assert_false(core_is_frozen(fm->module));
	fake_assert_kinds(fake, from, TIER_EVENT_FROZEN, TIER_EVENT_THAWED, 0);
	for (uint32_t i = 0; i < 2; i++) {
		event = &fake->events[from + i];
		assert_true(event->module == fm->id && event->uid == UID && event->reason == TIER_REASON_CLIENT);
		assert_true(event->method == UINT32_MAX && event->from == TIER_LEVEL_NONE &&
		            event->to == TIER_LEVEL_NONE);
	}
}

/* -- What goes on --- */
static void a_users_other_modules_are_not_held_up(void **state)
{
	struct fake *fake = *state;
	struct fake_module *frozen = load(fake, "frozen"), *other = load(fake, "other"), *third = load(fake, "third");

	core_freeze(frozen->module);
	fake_calls(frozen, LADDER_METHOD, FAKE_N);
	fake_calls(other, LADDER_METHOD, FAKE_N);
	fake_calls(frozen, LADDER_OTHER, FAKE_N);
	fake_calls(third, LADDER_METHOD, FAKE_N);
	fake_calls(other, LADDER_OTHER, FAKE_N);
	assert_true(fake_end(fake, other, LADDER_METHOD, TIER_REASON_NONE));
	assert_true(fake_end(fake, third, LADDER_METHOD, TIER_REASON_NONE));
	assert_non_null(fake_job(fake, other, LADDER_OTHER));
	fake_check(fake);
	core_thaw(frozen->module); /* what waited longest comes next */
	fake_calls(third, LADDER_OTHER, FAKE_N);
	assert_true(fake_end(fake, other, LADDER_OTHER, TIER_REASON_NONE));
	assert_true(fake_end(fake, frozen, LADDER_METHOD, TIER_REASON_NONE));
	assert_true(fake_end(fake, frozen, LADDER_OTHER, TIER_REASON_NONE));
	assert_true(fake_end(fake, third, LADDER_OTHER, TIER_REASON_NONE));
	assert_int_equal(pending(fake), 0);
}

static void first_calls_and_counting_go_on(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = fake_load(fake, UID, "module", 2);

	core_freeze(fm->module);
	assert_int_equal(fake_call(fm, 0), FAKE_PRESTUB);
	assert_says(fm, 0, TIER_STAGE_UNCOUNTED, false);
	fake_pass(fake, 300);
	assert_says(fm, 0, TIER_STAGE_COUNTING, false);
	assert_says(fm, 1, TIER_STAGE_COLD, false);
	core_thaw(fm->module);
}

/* Its caller waits. */
static void the_optimizer_is_asked_for_first_calls_all_the_same(void **state)
{
	struct core_config config = fake_config;
	struct fake *fake;
	struct fake_module *fm;

	config.no_tiers = true;
	fake = fake_new(&config);
	fm = fake_load(fake, UID, "module", 1);
	core_freeze(fm->module);
	assert_int_equal(core_prepare(fm->module, 0), CORE_E_LATER);
	assert_int_equal(core_n_compiling(fm->module), 1);
	assert_says(fm, 0, TIER_STAGE_COLD, false);
	assert_true(fake_end(fake, fm, 0, TIER_REASON_NONE));
	assert_says(fm, 0, TIER_STAGE_FINAL, false);
	assert_int_equal(fake->n_quiet, 1);
	fake_check(fake);
	fake_free(fake);
}

/* -- Bodies --- */
static void what_is_replaced_or_withdrawn_says_what_is_right(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = load(fake, "module");

	fm->inlines[LADDER_CALLER] = 1u << LADDER_METHOD;
	fake_calls(fm, LADDER_CALLER, FAKE_N);
	assert_true(fake_end(fake, fm, LADDER_CALLER, TIER_REASON_NONE));
	core_freeze(fm->module);
	fake_calls(fm, LADDER_METHOD, FAKE_N);
	assert_int_equal(core_rejit(fm->module, LADDER_METHOD, 1), 0);
	assert_says(fm, LADDER_METHOD, TIER_STAGE_COLD, false);
	assert_says(fm, LADDER_CALLER, TIER_STAGE_QUEUED, true); /* it had inlined that */
	fake_call(fm, LADDER_METHOD);
	assert_int_equal(core_revert(fm->module, LADDER_METHOD), 0);
	assert_says(fm, LADDER_METHOD, TIER_STAGE_QUEUED, true);
	fake_check(fake);
	core_thaw(fm->module);
	fake_pass(fake, 300);
	assert_true(fake_end(fake, fm, LADDER_CALLER, TIER_REASON_NONE));
	assert_true(fake_end(fake, fm, LADDER_METHOD, TIER_REASON_NONE));
	fake_assert_runs(fm, LADDER_METHOD, 0, TIER_LEVEL_TIER1);
}

/* -- Thousands --- */
#define MANY 3000u

static struct fake_module *load_many(struct fake *fake)
{
	struct fake_module *fm = fake_load(fake, UID, "many", MANY);

	for (uint32_t i = 0; i < MANY; i++) {
		fake_call(fm, i);
		fm->cells[fm->records[i].cell] = 0;
	}
	core_sweep(fake->core, NULL);
	while (fake_is_due(fake))
		fake_fire(fake);
	assert_int_equal(pending(fake), MANY);
	return fm;
}

static uint32_t count_frozen(const struct fake_module *fm)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < MANY; i++)
		n += !!(fm->records[i].state & TIER_STATE_FROZEN);
	return n;
}

static void finish(struct fake *fake)
{
	for (uint32_t n = 0; fake_is_due(fake); n++) {
		fake_fire(fake);
		fake_check(fake);
		assert_true(n < 2 * MANY * SLICE_TRANSITION / SLICE_BUDGET);
	}
}

static struct fake *fake_without_delay(void)
{
	struct core_config config = fake_config;

	config.delay_ns = 0;
	return fake_new(&config);
}

static void thousands_that_wait_say_it_in_slices(void **state)
{
	struct fake *fake = fake_without_delay();
	struct fake_module *fm = load_many(fake);
	const uint32_t n_changed = fake->n_changed;
	uint32_t n_job;

	core_freeze(fm->module);
	assert_true(count_frozen(fm) < MANY && fake_is_due(fake));
	for (uint32_t i = 0; i < 100; i++) /* those under the cursor, and behind it, go */
		assert_int_equal(core_rejit(fm->module, MANY / 2 - 50 + i, 1), 0);
	finish(fake);
	assert_int_equal(count_frozen(fm), MANY - 100);
	assert_true(fake->n_changed >= n_changed + MANY - 100);
	core_thaw(fm->module);
	core_freeze(fm->module);
	core_thaw(fm->module);
	for (n_job = 0; n_job < 50; n_job++)
		assert_true(fake_end(fake, fm, n_job, TIER_REASON_NONE));
	assert_true(count_frozen(fm) > 0);
	finish(fake);
	assert_int_equal(count_frozen(fm), 0);
	fake_free(fake);
}

static void a_module_goes_while_its_methods_still_say_it(void **state)
{
	struct fake *fake = fake_without_delay();
	struct fake_module *fm = load_many(fake);

	core_freeze(fm->module);
	assert_true(fake_is_due(fake));
	fake_remove(fake, fm);
	finish(fake);
	assert_int_equal(pending(fake), 0);
	fake_free(fake);
}

/* -- The end of a module, or of its daemon --- */
static void a_frozen_module_is_unloaded_and_goes(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = load(fake, "module"), *other = load(fake, "other");

	fake_calls(fm, LADDER_OTHER, FAKE_N);
	core_freeze(fm->module);
	fake_calls(fm, LADDER_METHOD, FAKE_N);
	core_module_unname(fm->module);
	assert_true(core_is_frozen(fm->module));
	fake_check(fake);
	fake_remove(fake, fm);
	assert_int_equal(pending(fake), 0);
	fake_calls(other, LADDER_METHOD, FAKE_N);
	assert_true(fake_end(fake, other, LADDER_METHOD, TIER_REASON_NONE));
	fm = load(fake, "module");
	assert_false(core_is_frozen(fm->module));
}

static void nothing_is_frozen_after_a_takeover(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = load(fake, "module");
	uint32_t from;

	fake_calls(fm, LADDER_METHOD, FAKE_N);
	core_freeze(fm->module);
	fake_calls(fm, LADDER_OTHER, FAKE_N);
	from = fake->n_events;
	fake_restart(fake);
	fake_assert_kinds(fake, from, TIER_EVENT_THAWED, 0);
	assert_false(core_is_frozen(fm->module) || fm->header->is_frozen);
	assert_says(fm, LADDER_METHOD, TIER_STAGE_COMPILING, false);
	assert_says(fm, LADDER_OTHER, TIER_STAGE_QUEUED, false);
	fake_restart(fake);
	assert_int_equal(fake->n_events, from + 1);
	assert_true(fake_end(fake, fm, LADDER_METHOD, TIER_REASON_NONE));
	assert_true(fake_end(fake, fm, LADDER_OTHER, TIER_REASON_NONE));
}

static void a_predecessors_job_has_begun(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = load(fake, "module");

	fake_calls(fm, LADDER_METHOD, FAKE_N);
	fake->compile_result = -ENOMEM; /* so it cannot be taken up again at once */
	fake_restart(fake);
	core_freeze(fm->module);
	assert_int_equal(core_n_compiling(fm->module), 1);
	assert_says(fm, LADDER_METHOD, TIER_STAGE_COMPILING, true);
	fake->compile_result = 0;
	fake_pass(fake, 200);
	assert_true(fake_end(fake, fm, LADDER_METHOD, TIER_REASON_NONE));
	assert_int_equal(fake->n_quiet, 1);
}

/* In its history, which may end with a daemon, each FROZEN has its THAWED. */
static void check_heir(struct fake *successor)
{
	const struct fake_module *fm = &successor->modules[0];
	int n = 0;

	fake_check(successor);
	assert_false(fm->header->is_frozen || core_is_frozen(fm->module));
	for (uint32_t i = 0; i < fm->layout.n_methods; i++)
		assert_false(fm->records[i].state & TIER_STATE_FROZEN);
	for (uint32_t i = 0; i < successor->n_events; i++) {
		n += successor->events[i].kind == TIER_EVENT_FROZEN;
		n -= successor->events[i].kind == TIER_EVENT_THAWED;
		assert_in_range(n, 0, 1);
	}
	assert_int_equal(n, 0);
}

static void story(struct fake *fake)
{
	struct fake_module *fm = &fake->modules[0];

	fake_calls(fm, LADDER_BLOCKER, FAKE_N);
	fake_calls(fm, LADDER_METHOD, FAKE_N);
	core_freeze(fm->module);
	fake_calls(fm, LADDER_OTHER, FAKE_N);
	fake_end(fake, fm, LADDER_BLOCKER, TIER_REASON_NONE);
	core_rejit(fm->module, LADDER_METHOD, 1);
	core_thaw(fm->module);
	fake_end(fake, fm, LADDER_OTHER, TIER_REASON_NONE);
}

static void a_daemon_that_dies_anywhere_leaves_nothing_frozen(void **state)
{
	struct fake *fake = *state;

	load(fake, "module");
	print_message("%u crashes\n", crash_run(fake, story, check_heir));
}

/* -- Bells --- */
static void on_changed(struct fake *fake, struct module *module, uint32_t method)
{
	for (uint32_t i = 0; i < LADDER_METHODS; i++)
		core_answer(module, i);
}

/* Whoever is woken looks at others, whose thresholds nobody has told. */
static void a_waiter_that_finds_a_threshold_disturbs_nothing(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = load(fake, "module");

	fake->on_changed = on_changed;
	fake_calls(fm, LADDER_BLOCKER, FAKE_N);
	fake_calls(fm, LADDER_METHOD, FAKE_N);
	for (uint32_t i = 0; i < FAKE_N; i++)
		fake_call(fm, LADDER_OTHER);
	core_freeze(fm->module);
	assert_says(fm, LADDER_OTHER, TIER_STAGE_QUEUED, true);
	fake_check(fake);
	for (uint32_t i = 0; i < FAKE_N; i++)
		fake_call(fm, LADDER_CALLER);
	core_thaw(fm->module);
	assert_says(fm, LADDER_CALLER, TIER_STAGE_QUEUED, false);
	fake->on_changed = NULL;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        FAKE_TEST(a_frozen_module_starts_no_promotion),
	        FAKE_TEST(a_job_that_has_begun_goes_on_to_its_end_and_then_all_is_quiet),
	        FAKE_TEST(a_job_that_fails_or_cannot_be_used_ends_quietly_too),
	        FAKE_TEST(freezes_are_counted),
	        FAKE_TEST(a_users_other_modules_are_not_held_up),
	        FAKE_TEST(first_calls_and_counting_go_on),
	        cmocka_unit_test(the_optimizer_is_asked_for_first_calls_all_the_same),
	        FAKE_TEST(what_is_replaced_or_withdrawn_says_what_is_right),
	        cmocka_unit_test(thousands_that_wait_say_it_in_slices),
	        cmocka_unit_test(a_module_goes_while_its_methods_still_say_it),
	        FAKE_TEST(a_frozen_module_is_unloaded_and_goes),
	        FAKE_TEST(nothing_is_frozen_after_a_takeover),
	        FAKE_TEST(a_predecessors_job_has_begun),
	        FAKE_TEST(a_daemon_that_dies_anywhere_leaves_nothing_frozen),
	        FAKE_TEST(a_waiter_that_finds_a_threshold_disturbs_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
