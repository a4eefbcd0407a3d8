/* SPDX-License-Identifier: Apache-2.0 */
#include "tiering/internal.h"
#include "unit/tiering/crash.h"

/* Takeovers on every ladder: at each step of each, and at any instruction of it. The successor goes on where the ladder stood;
 * each thing is told once, and no version is made that the ladder has no rung for. */

#define UID 1000
#define CELLS 6u

/* -- A ladder and its story --- */
static const struct row {
	uint32_t traits;
	uint8_t levels[4];	/* that come out, ended by NONE */
	bool instrument_all, no_tiers, no_delay, fails;	/* fails: every promotion, of the second method */
} rows[] = {
	{ .levels = { TIER_LEVEL_TIER0, TIER_LEVEL_TIER0_INSTRUMENTED, TIER_LEVEL_TIER1, TIER_LEVEL_NONE } },
	{ .levels = { TIER_LEVEL_TIER0, TIER_LEVEL_TIER0_INSTRUMENTED, TIER_LEVEL_TIER1, TIER_LEVEL_NONE }, .no_delay = true },
	{ .traits = CORE_TRAIT_PRECOMPILED,
	  .levels = { TIER_LEVEL_READY_TO_RUN, TIER_LEVEL_TIER1_INSTRUMENTED, TIER_LEVEL_TIER1, TIER_LEVEL_NONE } },
	{ .levels = { TIER_LEVEL_TIER0_INSTRUMENTED, TIER_LEVEL_TIER1, TIER_LEVEL_NONE }, .instrument_all = true },
	{ .levels = { TIER_LEVEL_TIER0_INSTRUMENTED, TIER_LEVEL_TIER1, TIER_LEVEL_NONE }, .instrument_all = true, .no_delay = true },
	{ .levels = { TIER_LEVEL_OPTIMIZED, TIER_LEVEL_NONE }, .no_tiers = true },
	{ .levels = { TIER_LEVEL_MIN_OPT_JITTED, TIER_LEVEL_NONE }, .no_tiers = true, .fails = true },
	{ .traits = CORE_TRAIT_AGGRESSIVE_OPTIMIZATION, .levels = { TIER_LEVEL_OPTIMIZED, TIER_LEVEL_NONE } },
	{ .traits = CORE_TRAIT_NO_OPTIMIZATION, .levels = { TIER_LEVEL_MIN_OPT_JITTED, TIER_LEVEL_NONE } },
	{ .traits = CORE_TRAIT_PRECOMPILED | CORE_TRAIT_PINNED, .levels = { TIER_LEVEL_READY_TO_RUN, TIER_LEVEL_NONE } },
	{ .levels = { TIER_LEVEL_TIER0, TIER_LEVEL_NONE }, .fails = true },
};
static const struct row *current;

static struct fake *world(void)
{
	struct core_config config = fake_config;

	config.pgo = true;
	config.instrument_all = current->instrument_all;
	config.no_tiers = current->no_tiers;
	config.delay_ns = current->no_delay ? 0 : config.delay_ns;
	return fake_new(&config);
}

static struct fake_module *module_of(struct fake *fake)
{
	struct module *module = core_module_by_name(fake->core, UID, "m");

	assert_non_null(module);
	return core_module_context(module);
}

static void step_load(struct fake *fake)
{
	struct fake_module *fm;

	assert_int_equal(fake_try_load(fake, UID, "m", 3, 60, &fm), 0);
	for (uint32_t i = 0; i < 3; i++) {
		fm->traits[i] = current->traits;
		fm->n_profile[i] = CELLS;
		fm->inlines[i] = 1u << (i + 1) % 3;
	}
}

static void step_calls(struct fake *fake)
{
	for (uint32_t i = 0; i < 2; i++)
		fake_call_and_ring(module_of(fake), i);
}

static void step_end(struct fake *fake)
{
	for (uint32_t i = 0; i < 2; i++)
		fake_end(fake, module_of(fake), i, i && current->fails ? TIER_REASON_WORKER_DIED : TIER_REASON_NONE);
}

static void step_pass(struct fake *fake) { fake_pass(fake, 110); }
static void step_late_call(struct fake *fake) { fake_call_and_ring(module_of(fake), 2); }

static void climb(struct fake *fake, bool is_disturbed)
{
	static void (*const steps[])(struct fake *fake) = {
		step_calls, step_end, step_end, step_pass, step_calls, step_calls, step_late_call, step_calls, step_end, step_end,
	};

	step_load(fake);
	for (uint32_t round = 0; round < 5; round++)
		for (unsigned int i = 0; i < ARRAY_SIZE(steps); i++) {
			steps[i](fake);
			fake_check(fake);
			if (is_disturbed)
				fake_restart(fake);
		}
}

/* -- What the history may say --- */
/* Of each method the published levels are a beginning of the ladder's, each step was queued, begun and ended once. */
static void assert_history(struct fake *fake)
{
	uint32_t n_levels[3] = { 0 };
	uint8_t last[3] = { 0 };

	for (uint32_t i = 0; i < fake->n_events; i++) {
		const struct tier_event *event = &fake->events[i];
		uint8_t *before = &last[event->method % 3];

		assert_int_equal(event->sequence, i + 1);
		if (event->method == UINT32_MAX)
			continue;
		if (event->kind == TIER_EVENT_PUBLISHED && !current->fails)
			assert_int_equal(event->to, current->levels[n_levels[event->method]++]);
		assert_true(event->kind != *before);
		if (event->kind == TIER_EVENT_COMPILE_STARTED)
			assert_int_equal(*before, TIER_EVENT_QUEUED);
		if (event->kind == TIER_EVENT_COMPILE_ENDED)
			assert_int_equal(*before, TIER_EVENT_COMPILE_STARTED);
		if (event->kind == TIER_EVENT_COUNTING_BEGUN)
			assert_int_equal(*before, TIER_EVENT_PUBLISHED);
		assert_true(*before != TIER_EVENT_FINAL);
		*before = event->kind;
	}
}

static void run_calmly(struct fake *fake) { climb(fake, false); }

static void losing_the_heap_after_every_step_of_a_ladder_changes_nothing(void **state)
{
	for (current = rows; current < rows + ARRAY_SIZE(rows); current++) {
		struct fake *calm = world(), *disturbed = world();

		climb(calm, false);
		climb(disturbed, true);
		assert_int_equal(disturbed->n_events, calm->n_events);
		for (uint32_t i = 0; i < calm->n_events; i++)
			assert_memory_equal(&disturbed->events[i], &calm->events[i], sizeof(calm->events[i]));
		assert_memory_equal(module_of(disturbed)->records, module_of(calm)->records, 3 * sizeof(struct tier_record));
		assert_int_equal(fake_answer(module_of(calm), 0).status, TIER_STATUS_FINAL);
		assert_history(calm);
		fake_free(disturbed);
		fake_free(calm);
	}
}

static void a_successor_goes_on_wherever_on_a_ladder_the_daemon_dies(void **state)
{
	uint32_t n_crashes = 0;

	for (current = rows; current < rows + ARRAY_SIZE(rows); current++) {
		struct fake *fake = world();

		n_crashes += crash_run(fake, run_calmly, assert_history);
		assert_history(fake);
		fake_free(fake);
	}
	assert_true(n_crashes > 1000);
	print_message("died at %u points\n", n_crashes);
}

/* Another daemon, with other options: what was begun goes on, what comes next follows its own. */
static void a_successor_with_other_options_finds_the_room_that_was_promised(void **state)
{
	for (current = rows; current < rows + ARRAY_SIZE(rows); current++)
		for (uint32_t options = 0; options < 32; options++) {
			struct fake *fake = world();
			struct fake_module *fm;

			step_load(fake);
			fm = module_of(fake);
			for (uint32_t i = 0; i < 1 + options % 7; i++) {
				step_calls(fake);
				step_pass(fake);
			}
			fake->config.pgo = options & 1;
			fake->config.instrument_all = options & 2;
			fake->config.no_tiers = options & 4;
			fake->config.call_counting = options & 8;
			fake->config.delay_ns = options & 16 ? 0 : fake_config.delay_ns;
			fake_restart(fake);
			fake->core->share[ROWS_VERSIONS] = fake->core->rows[ROWS_VERSIONS] + fake->core->rows[ROWS_PROMISED];
			for (uint32_t i = 0; i < 3; i++)
				fake_call(fm, i);
			drive_to_the_end(fake);
			assert_true(fake->core->rows[ROWS_VERSIONS] <= fake->core->share[ROWS_VERSIONS]);
			for (uint32_t i = 0; i < 3; i++)
				assert_int_equal(fake_answer(fm, i).status, TIER_STATUS_FINAL);
			fake_free(fake);
		}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(losing_the_heap_after_every_step_of_a_ladder_changes_nothing),
		cmocka_unit_test(a_successor_goes_on_wherever_on_a_ladder_the_daemon_dies),
		cmocka_unit_test(a_successor_with_other_options_finds_the_room_that_was_promised),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
