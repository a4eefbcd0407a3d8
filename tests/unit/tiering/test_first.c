/* SPDX-License-Identifier: Apache-2.0 */
#include "unit/tiering/drive.h"

/* First code: what the optimizer makes while a caller waits, what came with the module, and what becomes of it when a body is
 * replaced that it inlined, or that it is */

/* -- First calls that wait for the optimizer --- */
static void a_first_call_without_room_for_any_code_says_so_once_the_optimizer_failed(void **state)
{
	struct core_config config = fake_config;
	struct drive drive;
	uint32_t n_changed;

	config.no_tiers = true;
	drive = world(&config, 0);
	assert_int_equal(core_prepare(drive.fm->module, 0), CORE_E_LATER);
	drive.fake->first_result = CORE_E_FULL;
	n_changed = drive.fake->n_changed;
	fake_end(drive.fake, drive.fm, 0, TIER_REASON_WORKER_DIED);
	assert_true(drive.fake->n_changed > n_changed);
	assert_int_equal(ask(&drive).status, TIER_STATUS_COLD);
	assert_int_equal(core_pending(drive.fake->core, CORE_SCOPE_ALL, NULL, 0), 0);
	for (int i = 0; i < 3; i++)
		assert_int_equal(core_prepare(drive.fm->module, 0), CORE_E_FULL);	/* the optimizer is not asked again */
	fake_restart(drive.fake);
	assert_int_equal(core_prepare(drive.fm->module, 0), CORE_E_FULL);
	drive.fake->first_result = 0;
	assert_int_equal(core_prepare(drive.fm->module, 0), 0);
	assert_final(&drive, TIER_LEVEL_MIN_OPT_JITTED, TIER_REASON_WORKER_DIED);
	assert_int_equal(fake_n_events(drive.fake, TIER_EVENT_COMPILE_STARTED), 1);
	world_end(&drive);
}

static void a_job_that_cannot_start_is_answered_in_the_same_call(void **state)
{
	struct core_config config = fake_config;
	struct drive drive;

	config.no_tiers = true;
	drive = world(&config, 0);
	drive.fake->compile_result = -ENOENT;
	assert_int_equal(core_prepare(drive.fm->module, 0), 0);
	assert_final(&drive, TIER_LEVEL_MIN_OPT_JITTED, TIER_REASON_NO_WORKER);
	drive.fake->first_result = CORE_E_FULL;
	assert_int_equal(core_prepare(drive.fm->module, 1), CORE_E_FULL);
	drive.fake->first_result = 0;
	drive.fake->compile_result = CORE_E_TOO_LARGE;
	assert_int_equal(core_prepare(drive.fm->module, 2), 0);
	assert_int_equal(fake_answer(drive.fm, 2).reason, TIER_REASON_TOO_LARGE);
	drive.fake->compile_result = -EMFILE;
	assert_int_equal(core_prepare(drive.fm->module, 3), CORE_E_LATER);	/* it passes */
	assert_int_equal(core_pending(drive.fake->core, CORE_SCOPE_ALL, NULL, 0), 1);
	drive.fake->compile_result = 0;
	fake_pass(drive.fake, 200);
	fake_end(drive.fake, drive.fm, 3, TIER_REASON_NONE);
	assert_int_equal(fake_answer(drive.fm, 3).tier, TIER_LEVEL_OPTIMIZED);
	world_end(&drive);
}

static void first_calls_start_before_all_that_waits_and_during_a_delay(void **state)
{
	struct drive drive = world(&fake_config, 0);
	struct fake_module *fm = drive.fm;

	fm->traits[3] = CORE_TRAIT_AGGRESSIVE_OPTIMIZATION;
	for (uint32_t i = 0; i < 3; i++)
		fake_call(fm, i);
	fake_pass(drive.fake, 200);
	for (uint32_t i = 0; i < 2; i++)
		fake_calls(fm, i, N);
	assert_true(fake_job(drive.fake, fm, 0) && !fake_job(drive.fake, fm, 1));
	assert_int_equal(fake_call(fm, 3), FAKE_LATE);
	assert_int_equal(core_pending(drive.fake->core, CORE_SCOPE_MODULE, fm->module, 0), 3);
	assert_true(!fake_job(drive.fake, fm, 3));	/* a uid has one job at a time */
	fake_end(drive.fake, fm, 0, TIER_REASON_NONE);
	assert_true(fake_job(drive.fake, fm, 3) && !fake_job(drive.fake, fm, 1));
	fake_end(drive.fake, fm, 3, TIER_REASON_NONE);
	assert_true(fake_job(drive.fake, fm, 1));
	fake_end(drive.fake, fm, 1, TIER_REASON_NONE);
	assert_int_equal(core_rejit(fm->module, 0, 1), 0);
	fake_call(fm, 0);		/* a new delay */
	fake_calls(fm, 2, N);
	assert_false(fake_job(drive.fake, fm, 2));
	assert_int_equal(core_rejit(fm->module, 3, 2), 0);
	assert_int_equal(fake_call(fm, 3), FAKE_LATE);
	assert_true(fake_job(drive.fake, fm, 3));
	world_end(&drive);
}

/* Two uids and one place: whoever always calls something new has every second job, and no more. */
static void a_uids_first_calls_take_turns_with_the_promotions_of_others(void **state)
{
	struct core_config config = fake_config;
	struct fake_module *eager, *other;
	struct fake *fake;

	config.jobs_total = 1;
	fake = fake_new(&config);
	other = fake_load(fake, DRIVE_UID, "m", 2);
	for (uint32_t i = 0; i < 2; i++)
		fake_call(other, i);
	fake_pass(fake, 200);
	eager = fake_load(fake, DRIVE_UID + 1, "m", 4);
	for (uint32_t i = 0; i < 4; i++) {
		eager->traits[i] = CORE_TRAIT_AGGRESSIVE_OPTIMIZATION;
		assert_int_equal(fake_call(eager, i), FAKE_LATE);
	}
	for (uint32_t i = 0; i < 2; i++)
		fake_calls(other, i, N);
	for (uint32_t i = 0; i < 6; i++) {
		assert_int_equal(fake->n_jobs, i + 1);
		assert_int_equal(fake->jobs[i].module, i < 4 && i % 2 ? other->id : eager->id);
		fake_end_job(fake, &fake->jobs[i], TIER_REASON_NONE);
	}
	assert_int_equal(core_pending(fake->core, CORE_SCOPE_ALL, NULL, 0), 0);
	fake_check(fake);
	fake_free(fake);
}

static void first_calls_start_in_a_frozen_module(void **state)
{
	struct drive drive = world(&fake_config, CORE_TRAIT_AGGRESSIVE_OPTIMIZATION);

	core_freeze(drive.fm->module);
	drive_all(&drive);
	assert_schedule(&drive, 1);
	assert_int_equal(ask(&drive).tier, TIER_LEVEL_OPTIMIZED);
	core_thaw(drive.fm->module);
	world_end(&drive);
}

static void a_replaced_body_begins_its_own_ladder(void **state)
{
	const struct core_config config = pgo_config();
	struct drive drive = world(&config, CORE_TRAIT_PRECOMPILED | CORE_TRAIT_PINNED);

	drive_all(&drive);
	assert_schedule(&drive, 1);
	assert_int_equal(core_rejit(drive.fm->module, 0, 1), 0);
	drive.n_schedule = drive.n_levels = 0;
	drive_all(&drive);
	assert_schedule(&drive, 1, N, N);
	assert_levels(&drive, TIER_LEVEL_READY_TO_RUN, TIER_LEVEL_TIER0, TIER_LEVEL_TIER0_INSTRUMENTED, TIER_LEVEL_TIER1);
	assert_int_equal(core_revert(drive.fm->module, 0), 0);
	assert_final(&drive, TIER_LEVEL_READY_TO_RUN, TIER_REASON_PINNED);
	world_end(&drive);
}

/* At each point of a first compilation: the new body is what runs, and the own one comes back where it was. */
static void a_body_that_the_optimizer_was_to_make_is_replaced_and_comes_back(void **state)
{
	static const enum tier_reason ends[] = { TIER_REASON_NONE, TIER_REASON_COMPILE_FAILED };

	for (int point = 0; point < 4; point++) {	/* waiting, running, ended well, ended badly */
		struct drive drive = world(&fake_config, CORE_TRAIT_AGGRESSIVE_OPTIMIZATION);
		struct fake_module *fm = drive.fm;

		if (!point)
			assert_int_equal(fake_call(fm, 1), FAKE_LATE);	/* keeps the place */
		assert_int_equal(fake_call(fm, 0), FAKE_LATE);
		assert_int_equal(core_rejit(fm->module, 0, 1), 0);
		assert_int_equal(core_pending(drive.fake->core, CORE_SCOPE_ALL, NULL, 0), 1);
		if (point > 1)
			fake_end(drive.fake, fm, 0, ends[point - 2]);
		fake_check(drive.fake);
		assert_int_equal(ask(&drive).status, TIER_STATUS_COLD);
		assert_int_equal(core_revert(fm->module, 0), 0);
		if (!point)
			fake_end(drive.fake, fm, 1, TIER_REASON_NONE);
		if (point < 2)
			fake_end(drive.fake, fm, 0, TIER_REASON_NONE);
		fake_call(fm, 0);
		assert_final(&drive, point == 3 ? TIER_LEVEL_MIN_OPT_JITTED : TIER_LEVEL_OPTIMIZED,
			     point == 3 ? TIER_REASON_COMPILE_FAILED : TIER_REASON_AGGRESSIVE_OPTIMIZATION);
		world_end(&drive);
	}
}

static void an_instrumented_promotion_of_a_replaced_body_is_there_when_it_comes_back(void **state)
{
	const struct core_config config = pgo_config();
	struct drive drive = world(&config, 0);

	fake_call(drive.fm, 0);
	fake_pass(drive.fake, 200);
	fake_calls(drive.fm, 0, N);
	assert_int_equal(core_rejit(drive.fm->module, 0, 1), 0);
	fake_end(drive.fake, drive.fm, 0, TIER_REASON_NONE);
	assert_int_equal(ask(&drive).status, TIER_STATUS_COLD);
	fake_restart(drive.fake);
	assert_int_equal(core_revert(drive.fm->module, 0), 0);
	assert_int_equal(ask(&drive).tier, TIER_LEVEL_TIER0_INSTRUMENTED);
	assert_int_equal(ask(&drive).stage, TIER_STAGE_COUNTING);
	drive_all(&drive);
	assert_schedule(&drive, N);
	assert_final(&drive, TIER_LEVEL_TIER1, TIER_REASON_PROMOTED);
	world_end(&drive);
}

/* -- Withdrawal --- */
static void a_withdrawn_method_gets_tier1_at_once(void **state)
{
	const struct core_config config = pgo_config();
	struct drive drive = world(&config, 0);

	drive.fm->inlines[0] = 1u << 1;
	drive_all(&drive);
	fake_call(drive.fm, 1);
	assert_int_equal(core_rejit(drive.fm->module, 1, 1), 0);
	assert_int_equal(ask(&drive).tier, TIER_LEVEL_TIER0);
	assert_int_equal(ask(&drive).remaining, 0);
	fake_pass(drive.fake, 300);
	assert_int_equal(fake_job(drive.fake, drive.fm, 0)->level, TIER_LEVEL_TIER1);	/* without another profile */
	fake_end(drive.fake, drive.fm, 0, TIER_REASON_NONE);
	assert_final(&drive, TIER_LEVEL_TIER1, TIER_REASON_PROMOTED);
	world_end(&drive);
}

static void what_has_no_code_without_the_inlined_body_is_cold_again(void **state)
{
	static const uint32_t traits[] = { CORE_TRAIT_AGGRESSIVE_OPTIMIZATION, CORE_TRAIT_PRECOMPILED | CORE_TRAIT_PINNED };

	for (unsigned int i = 0; i < ARRAY_SIZE(traits); i++) {
		struct drive drive = world(&fake_config, 0);
		uint64_t generation;
		uint32_t n;

		drive.fm->traits[0] = traits[i];
		drive.fm->inlines[0] = 1u << 1;
		drive_all(&drive);
		generation = ask(&drive).generation;
		n = drive.fake->n_events;
		assert_int_equal(core_rejit(drive.fm->module, 1, 1), 0);
		fake_assert_kinds(drive.fake, n, TIER_EVENT_WITHDRAWN, TIER_EVENT_REJITTED, 0);
		assert_int_equal(drive.fake->events[n].to, TIER_LEVEL_NONE);
		assert_int_equal(ask(&drive).status, TIER_STATUS_COLD);
		assert_true(ask(&drive).generation > generation);
		fake_restart(drive.fake);
		drive.n_schedule = drive.n_levels = 0;
		drive_all(&drive);
		if (i)	/* what was withdrawn is not used again */
			assert_schedule(&drive, 1, N);
		else
			assert_schedule(&drive, 1);
		assert_int_equal(ask(&drive).tier, i ? TIER_LEVEL_TIER1 : TIER_LEVEL_OPTIMIZED);
		world_end(&drive);
	}
}

static void precompiled_code_is_withdrawn_at_every_point_of_its_ladder(void **state)
{
	const struct core_config config = pgo_config();

	for (int point = 0; point < 6; point++)
		for (int is_saved = 0; is_saved < 2; is_saved++) {
			struct drive drive = world(&config, 0);
			struct fake_module *fm = drive.fm;

			fm->traits[0] = CORE_TRAIT_PRECOMPILED;
			fm->inlines[0] = 1u << 1;
			if (point == 2) {	/* keeps the queue busy */
				fake_call(fm, 2);
				fake_pass(drive.fake, 200);
				fake_calls(fm, 2, N);
			}
			fake_call(fm, 0);
			if (point > 0)	/* counting */
				fake_pass(drive.fake, 200);
			if (point > 1)	/* queued, or compiling */
				fake_calls(fm, 0, N);
			if (point > 3)	/* instrumented */
				fake_end(drive.fake, fm, 0, TIER_REASON_NONE);
			if (point > 4) {	/* final */
				fake_calls(fm, 0, N);
				fake_end(drive.fake, fm, 0, TIER_REASON_NONE);
			}
			if (is_saved)
				assert_int_equal(core_rejit(fm->module, 0, 1), 0);
			assert_int_equal(core_rejit(fm->module, 1, 2), 0);
			fake_check(drive.fake);
			if (is_saved)
				assert_int_equal(core_revert(fm->module, 0), 0);
			fake_check(drive.fake);
			fake_restart(drive.fake);
			/* instrumented code inlines nobody: it stays, and final code falls back to it */
			assert_int_equal(ask(&drive).status == TIER_STATUS_COLD, point < 4);
			fake_end(drive.fake, fm, 2, TIER_REASON_NONE);
			drive_all(&drive);
			assert_final(&drive, TIER_LEVEL_TIER1, TIER_REASON_PROMOTED);
			world_end(&drive);
		}
}

static void precompiled_code_that_inlined_a_replaced_body_is_not_used(void **state)
{
	struct drive drive = world(&fake_config, 0);

	drive.fm->traits[0] = CORE_TRAIT_PRECOMPILED;
	drive.fm->inlines[0] = 1u << 1;
	assert_int_equal(core_rejit(drive.fm->module, 1, 1), 0);
	drive_all(&drive);
	assert_levels(&drive, TIER_LEVEL_TIER0, TIER_LEVEL_TIER1);
	world_end(&drive);
}

static void a_first_compilation_that_inlined_too_early_is_made_again(void **state)
{
	struct drive drive = world(&fake_config, 0);
	struct fake_module *fm = drive.fm;

	fm->traits[0] = CORE_TRAIT_AGGRESSIVE_OPTIMIZATION;
	fm->inlines[0] = 1u << 1;
	assert_int_equal(fake_call(fm, 0), FAKE_LATE);
	assert_int_equal(core_rejit(fm->module, 1, 1), 0);
	fake_end(drive.fake, fm, 0, TIER_REASON_NONE);
	assert_int_equal(ask(&drive).status, TIER_STATUS_COLD);
	assert_true(fake_job(drive.fake, fm, 0));
	fake_restart(drive.fake);
	fake_end(drive.fake, fm, 0, TIER_REASON_NONE);
	assert_int_equal(fake_call(fm, 0), FAKE_CODE);
	assert_final(&drive, TIER_LEVEL_OPTIMIZED, TIER_REASON_AGGRESSIVE_OPTIMIZATION);
	world_end(&drive);
}

static void a_revert_without_room_for_cold_inliners_is_refused(void **state)
{
	struct drive drive = world(&fake_config, 0);
	struct fake_module *fm = drive.fm;
	struct core *core = drive.fake->core;

	fm->traits[0] = CORE_TRAIT_AGGRESSIVE_OPTIMIZATION;
	fm->inlines[0] = 1u << 1;
	assert_int_equal(core_rejit(fm->module, 1, 1), 0);
	fake_call(fm, 1);
	drive_all(&drive);
	core->share[ROWS_VERSIONS] = core->rows[ROWS_VERSIONS] + core->rows[ROWS_PROMISED] + LEDGER_LADDER - 1;
	assert_int_equal(core_revert(fm->module, 1), CORE_E_QUOTA);
	assert_int_equal(core_method_body(fm->module, 1), 1);
	assert_int_equal(ask(&drive).tier, TIER_LEVEL_OPTIMIZED);
	core->share[ROWS_VERSIONS]++;
	assert_int_equal(core_revert(fm->module, 1), 0);
	assert_int_equal(ask(&drive).status, TIER_STATUS_COLD);
	world_end(&drive);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_first_call_without_room_for_any_code_says_so_once_the_optimizer_failed),
		cmocka_unit_test(a_job_that_cannot_start_is_answered_in_the_same_call),
		cmocka_unit_test(first_calls_start_before_all_that_waits_and_during_a_delay),
		cmocka_unit_test(a_uids_first_calls_take_turns_with_the_promotions_of_others),
		cmocka_unit_test(first_calls_start_in_a_frozen_module),
		cmocka_unit_test(a_replaced_body_begins_its_own_ladder),
		cmocka_unit_test(a_body_that_the_optimizer_was_to_make_is_replaced_and_comes_back),
		cmocka_unit_test(an_instrumented_promotion_of_a_replaced_body_is_there_when_it_comes_back),
		cmocka_unit_test(a_withdrawn_method_gets_tier1_at_once),
		cmocka_unit_test(what_has_no_code_without_the_inlined_body_is_cold_again),
		cmocka_unit_test(precompiled_code_is_withdrawn_at_every_point_of_its_ladder),
		cmocka_unit_test(precompiled_code_that_inlined_a_replaced_body_is_not_used),
		cmocka_unit_test(a_first_compilation_that_inlined_too_early_is_made_again),
		cmocka_unit_test(a_revert_without_room_for_cold_inliners_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
