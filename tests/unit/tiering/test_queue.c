/* SPDX-License-Identifier: Apache-2.0 */
#include "unit/tiering/fake.h"

/* The background queue: order, limits, results of every kind, and who pays for whose jobs */

#define UID 1000

static struct fake_module *counting(struct fake *fake, uid_t uid, const char *name, uint32_t n_methods)
{
	struct fake_module *fm = fake_load(fake, uid, name, n_methods);

	for (uint32_t i = 0; i < n_methods; i++)
		fake_call(fm, i);
	return fm;
}

static uint32_t pending(struct fake *fake, uid_t uid)
{
	return core_pending(fake->core, CORE_SCOPE_UID, NULL, uid);
}

static void a_uids_jobs_run_in_the_order_of_their_thresholds(void **state)
{
	static const uint32_t order[] = { 2, 0, 3, 1 };
	struct fake *fake = *state;
	struct fake_module *fm = counting(fake, UID, "m", 4);

	fake_pass(fake, 200);
	for (uint32_t i = 0; i < 4; i++)
		fake_calls(fm, order[i], FAKE_N);
	assert_int_equal(pending(fake, UID), 4);
	for (uint32_t i = 0; i < 4; i++) {
		for (uint32_t k = 0; k < 4; k++)
			assert_int_equal(!!fake_job(fake, fm, k), k == order[i]);
		fake_end(fake, fm, order[i], TIER_REASON_NONE);
	}
	assert_int_equal(pending(fake, UID), 0);
}

static void uids_take_turns(void **state)
{
	struct core_config config = fake_config;
	struct fake_module *modules[3];
	struct fake *fake;

	config.jobs_total = 1;
	fake = fake_new(&config);
	for (uint32_t i = 0; i < 3; i++)
		modules[i] = counting(fake, UID + i, "m", 4);
	fake_pass(fake, 200);
	for (uint32_t i = 0; i < 4; i++)	/* the first uid's come first, all of them */
		fake_calls(modules[0], i, FAKE_N);
	for (uint32_t i = 0; i < 4; i++)
		for (uint32_t k = 1; k < 3; k++)
			fake_calls(modules[k], i, FAKE_N);
	for (uint32_t i = 0; i < 12; i++) {
		assert_int_equal(fake->n_jobs, i + 1);
		assert_int_equal(fake->jobs[i].module, modules[i % 3]->id);
		assert_int_equal(fake->jobs[i].method, i / 3);
		fake_end_job(fake, &fake->jobs[i], TIER_REASON_NONE);
	}
	fake_check(fake);
	fake_free(fake);
}

static void limits_hold_per_uid_and_in_total(void **state)
{
	struct fake *fake = *state;	/* 1 per uid, 2 in total */
	struct fake_module *modules[3];

	for (uint32_t i = 0; i < 3; i++)
		modules[i] = counting(fake, UID + i, "m", 2);
	fake_pass(fake, 200);
	fake_calls(modules[0], 0, FAKE_N);
	fake_calls(modules[0], 1, FAKE_N);
	assert_int_equal(fake->n_jobs, 1);
	fake_calls(modules[1], 0, FAKE_N);
	fake_calls(modules[2], 0, FAKE_N);
	assert_int_equal(fake->n_jobs, 2);
	fake_end(fake, modules[0], 0, TIER_REASON_NONE);
	assert_int_equal(fake->n_jobs, 3);
	assert_true(fake_job(fake, modules[2], 0));
}

/* In the midst of a job's start: its event is told, its worker not yet asked */
static void ask_the_others(struct fake *fake, struct module *module, uint32_t method)
{
	const struct fake_module *fm = core_module_context(module);
	struct module *other = NULL;

	if (tier_state_stage(fm->records[method].state) != TIER_STAGE_COMPILING)
		return;
	while ((other = core_module_next(fake->core, other)))
		core_answer(other, 0);
}

static void jobs_start_as_the_history_has_it_even_if_bells_find_more_work(void **state)
{
	struct fake *fake = *state;
	struct fake_module *modules[2];
	uint32_t n = 0;

	for (uint32_t i = 0; i < 2; i++)
		modules[i] = counting(fake, UID + i, "m", 1);
	fake_pass(fake, 200);
	for (uint32_t i = 0; i < 2; i++)
		modules[i]->cells[modules[i]->records[0].cell] = 0;
	fake->on_changed = ask_the_others;
	core_look(modules[0]->module, 0);
	assert_int_equal(fake->n_jobs, 2);
	for (uint32_t i = 0; i < fake->n_events; i++)
		if (fake->events[i].kind == TIER_EVENT_COMPILE_STARTED)
			assert_int_equal(fake->events[i].version, fake->jobs[n++].version);
	assert_int_equal(n, 2);
}

static void every_kind_of_failure_is_final_with_its_reason(void **state)
{
	static const enum tier_reason reasons[] = { TIER_REASON_COMPILE_FAILED, TIER_REASON_WORKER_DIED,
						    TIER_REASON_WORKER_TIMEOUT, TIER_REASON_WORKER_MEMORY,
						    TIER_REASON_RESULT_REFUSED, TIER_REASON_ARENA_FULL };
	struct fake *fake = *state;
	struct fake_module *fm = counting(fake, UID, "m", ARRAY_SIZE(reasons));

	fake_pass(fake, 200);
	for (uint32_t i = 0; i < ARRAY_SIZE(reasons); i++) {
		uint64_t code = fm->records[i].code;

		fake_calls(fm, i, FAKE_N);
		assert_true(fake_end(fake, fm, i, reasons[i]));
		assert_int_equal(fake_answer(fm, i).reason, reasons[i]);
		assert_int_equal(fake_answer(fm, i).tier, TIER_LEVEL_TIER0);
		assert_int_equal(fake_answer(fm, i).generation, 1);
		assert_true(fm->records[i].precode == code && fm->records[i].entry == code);
		assert_int_equal(fake_newest(fake)->kind, TIER_EVENT_FINAL);
		assert_int_equal(fake_newest(fake)->reason, reasons[i]);
		assert_int_equal(fake->events[fake->n_events - 2].kind, TIER_EVENT_COMPILE_ENDED);
		assert_int_equal(fake->events[fake->n_events - 2].reason, reasons[i]);
	}
	assert_int_equal(pending(fake, UID), 0);
}

static void without_a_worker_all_methods_become_final_in_slices(void **state)
{
	enum { N = 300 };
	struct fake *fake = *state;
	struct fake_module *fm = counting(fake, UID, "m", N);
	uint32_t n_turns = 0;

	fake_pass(fake, 200);
	fake->compile_result = -EAGAIN;
	for (uint32_t i = 0; i < N; i++)
		fm->cells[fm->records[i].cell] = 0;
	core_sweep(fake->core, NULL);
	for (; fake_is_due(fake); n_turns++)
		fake_fire(fake);
	assert_true(n_turns > 2);
	for (uint32_t i = 0; i < N; i++)
		assert_int_equal(fake_answer(fm, i).reason, TIER_REASON_NO_WORKER);
}

static void a_method_that_is_too_large_is_final_and_says_so(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = counting(fake, UID, "m", 2);

	fake_pass(fake, 200);
	fake->compile_result = CORE_E_TOO_LARGE;
	fake_calls(fm, 0, FAKE_N);
	assert_int_equal(fake_answer(fm, 0).reason, TIER_REASON_TOO_LARGE);
	assert_int_equal(fake_answer(fm, 0).tier, TIER_LEVEL_TIER0);
	fake->compile_result = 0;
	fake_calls(fm, 1, FAKE_N);
	assert_true(fake_end(fake, fm, 1, TIER_REASON_NONE));
}

static void a_shortage_puts_jobs_off_and_fails_none(void **state)
{
	static const int shortages[] = { -EMFILE, -ENFILE, -ENOMEM };
	struct fake *fake = *state;
	struct fake_module *fm = counting(fake, UID, "m", 2);
	uint32_t n;

	fake_pass(fake, 200);
	fake->compile_result = -EMFILE;
	fake_calls(fm, 0, FAKE_N);
	n = fake->n_events;
	for (uint32_t i = 0; i < ARRAY_SIZE(shortages); i++) {
		fake->compile_result = shortages[i];
		fake_pass(fake, 1000);
		assert_int_equal(fake->n_events, n);
		assert_int_equal(fake_answer(fm, 0).stage, TIER_STAGE_QUEUED);
		assert_int_equal(fake_answer(fm, 0).tier, TIER_LEVEL_TIER0);
		assert_int_equal(pending(fake, UID), 1);
		fake_check(fake);
	}
	fake_calls(fm, 1, FAKE_N);
	fake->compile_result = 0;
	assert_int_equal(fake->n_jobs, 0);
	fake_pass(fake, 200);
	for (uint32_t i = 0; i < 2; i++)	/* in their order */
		assert_true(fake_end(fake, fm, i, TIER_REASON_NONE));
	assert_int_equal(pending(fake, UID), 0);
}

static void what_a_sweep_has_still_to_find_is_pending(void **state)
{
	enum { N = 600 };
	struct fake *fake = *state;
	struct fake_module *fm = counting(fake, UID, "m", N);

	fake_pass(fake, 200);
	for (uint32_t i = 0; i < N; i++)
		fm->cells[fm->records[i].cell] = 0;
	core_sweep(fake->core, NULL);
	assert_true(fake_answer(fm, 0).stage != TIER_STAGE_COUNTING);
	assert_int_equal(pending(fake, UID), N);
	assert_int_equal(core_pending(fake->core, CORE_SCOPE_MODULE, fm->module, 0), N);
	assert_int_equal(core_pending(fake->core, CORE_SCOPE_ALL, NULL, 0), N);
	assert_int_equal(pending(fake, UID + 1), 0);
}

static void a_result_that_nobody_waits_for_is_ignored(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = counting(fake, UID, "m", 2);
	struct core_code code = { 4096, 64, 4096 };
	uint64_t id = fm->id, version;
	uint32_t n;

	fake_pass(fake, 200);
	fake_calls(fm, 0, FAKE_N);
	fake_calls(fm, 1, FAKE_N);
	version = fake_job(fake, fm, 0)->version;
	n = fake->n_events;
	core_compile_done(fake->core, id, 0, version + 100, TIER_REASON_NONE, &(struct core_result){ .code = code });
	core_compile_done(fake->core, id, 1, version + 1, TIER_REASON_NONE, &(struct core_result){ .code = code });	/* not started */
	core_compile_done(fake->core, id, UINT32_MAX, version, TIER_REASON_NONE, &(struct core_result){ .code = code });
	core_compile_done(fake->core, id + 1, 0, version, TIER_REASON_NONE, &(struct core_result){ .code = code });
	assert_int_equal(fake->n_events, n);
	fake_end(fake, fm, 0, TIER_REASON_NONE);
	n = fake->n_events;
	core_compile_done(fake->core, id, 0, version, TIER_REASON_NONE, &(struct core_result){ .code = code });
	assert_int_equal(fake->n_events, n);
	fake_remove(fake, fm);
	n = fake->n_events;
	core_compile_done(fake->core, id, 1, version + 1, TIER_REASON_NONE, &(struct core_result){ .code = code });
	assert_int_equal(fake->n_events, n);
}

static void a_removed_module_frees_the_place_of_its_job(void **state)
{
	struct fake *fake = *state;
	struct fake_module *one = counting(fake, UID, "one", 2), *two = counting(fake, UID, "two", 1);

	fake_pass(fake, 200);
	fake_calls(one, 0, FAKE_N);
	fake_calls(one, 1, FAKE_N);
	fake_calls(two, 0, FAKE_N);
	assert_int_equal(core_pending(fake->core, CORE_SCOPE_MODULE, one->module, 0), 2);
	assert_int_equal(core_pending(fake->core, CORE_SCOPE_MODULE, two->module, 0), 1);
	fake_remove(fake, one);
	assert_true(fake_job(fake, two, 0));
	assert_int_equal(pending(fake, UID), 1);
}

static uint32_t n_edges(const struct fake *fake)
{
	struct ledger ledger;
	uint32_t n = 0;

	assert_int_equal(ledger_open(&ledger, fake->memory, ledger_size()), 0);
	for (uint32_t i = 0; i < ledger_used(&ledger, LEDGER_EDGES); i++)
		n += ledger_edge(&ledger, i)->module ? ledger_edge(&ledger, i)->n_methods : 0;
	return n;
}

static void whom_a_version_inlined_is_written_down(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = counting(fake, UID, "m", 40);
	uint32_t inlined[33];
	struct core_code code;

	fake_pass(fake, 200);
	for (uint32_t i = 0; i < ARRAY_SIZE(inlined); i++)
		inlined[i] = i + 1;
	fake_calls(fm, 0, FAKE_N);
	fake_take_code(fm, &code);
	core_compile_done(fake->core, fm->id, 0, fake_job(fake, fm, 0)->version, TIER_REASON_NONE,
			  &(struct core_result){ .code = code, .inlined = inlined, .n_inlined = ARRAY_SIZE(inlined) });
	assert_int_equal(fake_answer(fm, 0).tier, TIER_LEVEL_TIER1);
	assert_int_equal(n_edges(fake), ARRAY_SIZE(inlined));
	fake_restart(fake);
	assert_int_equal(n_edges(fake), ARRAY_SIZE(inlined));
	fake_remove(fake, fm);
	assert_int_equal(n_edges(fake), 0);
}

static void a_result_that_inlined_a_method_out_of_range_is_refused(void **state)
{
	struct fake *fake = *state;
	struct fake_module *fm = counting(fake, UID, "m", 12);
	uint32_t inlined[12] = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12 };
	struct core_code code = { .address = 4096, .size = 64 };

	fake_pass(fake, 200);
	for (uint32_t n = ARRAY_SIZE(inlined); n; n -= 11) {
		uint32_t method = n % 2;

		inlined[n - 1] = 12;	/* last of a long list, then alone */
		fake_calls(fm, method, FAKE_N);
		core_compile_done(fake->core, fm->id, method, fake_job(fake, fm, method)->version, TIER_REASON_NONE,
				  &(struct core_result){ .code = code, .inlined = inlined, .n_inlined = n });
		assert_int_equal(fake_answer(fm, method).reason, TIER_REASON_RESULT_REFUSED);
		assert_int_equal(n_edges(fake), 0);
		if (n == 1)
			break;
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		FAKE_TEST(a_uids_jobs_run_in_the_order_of_their_thresholds),
		cmocka_unit_test(uids_take_turns),
		FAKE_TEST(limits_hold_per_uid_and_in_total),
		FAKE_TEST(jobs_start_as_the_history_has_it_even_if_bells_find_more_work),
		FAKE_TEST(every_kind_of_failure_is_final_with_its_reason),
		FAKE_TEST(without_a_worker_all_methods_become_final_in_slices),
		FAKE_TEST(a_method_that_is_too_large_is_final_and_says_so),
		FAKE_TEST(a_shortage_puts_jobs_off_and_fails_none),
		FAKE_TEST(what_a_sweep_has_still_to_find_is_pending),
		FAKE_TEST(a_result_that_nobody_waits_for_is_ignored),
		FAKE_TEST(a_removed_module_frees_the_place_of_its_job),
		FAKE_TEST(whom_a_version_inlined_is_written_down),
		FAKE_TEST(a_result_that_inlined_a_method_out_of_range_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
