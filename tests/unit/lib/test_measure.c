/* SPDX-License-Identifier: Apache-2.0 */
#include "client.h"

/* Marks, freezes, settlements, and what a wait says of a frozen method */

struct world {
	struct fake *fake;
	struct tier_conn *conn;
	struct tier_module *module;
};

static void world_begin(struct world *w, void **state)
{
	w->fake = fake_of(state);
	w->conn = client_connect(w->fake);
	w->module = client_open(w->conn, "demo");
}

static void world_end(struct world *w)
{
	tier_close(w->module);
	tier_disconnect(w->conn);
}

/* -- Marks --- */
static void a_mark_tells_changes_from_shared_memory(void **state)
{
	struct tier_records_header *header;
	struct tier_records_mark mark;
	struct world w;

	world_begin(&w, state);
	header = fake_header(w.fake);
	header->changes = 10;
	fake_stop(w.fake);		/* nobody is asked */
	mark = tier_mark(w.module);
	assert_false(tier_changed_since(w.module, &mark));
	header->changes = 12;
	assert_true(tier_changed_since(w.module, &mark));
	mark = tier_mark(w.module);
	header->n_compiling = 1;
	assert_true(tier_changed_since(w.module, &mark));
	mark = tier_mark(w.module);
	header->n_compiling = 0;
	assert_true(tier_changed_since(w.module, &mark));	/* it was being compiled then */
	header->changes = 13;
	mark = tier_mark(w.module);
	assert_true(tier_changed_since(w.module, &mark));	/* in the middle of a change */
	world_end(&w);
}

/* -- Freezes --- */
static void freezing_and_thawing_are_the_sessions(void **state)
{
	struct world w;

	world_begin(&w, state);
	assert_int_equal(tier_freeze(w.module), 0);
	assert_int_equal(w.fake->n_freezes, 1);
	assert_true(tier_mark(w.module).is_frozen);
	assert_int_equal(tier_thaw(w.module), 0);
	assert_false(tier_mark(w.module).is_frozen);
	world_end(&w);
}

static void a_freeze_that_is_refused_says_why(void **state)
{
	struct world w;

	world_begin(&w, state);
	fake_set_twist(w.fake, WIRE_FREEZE, TWIST_REFUSE);
	assert_int_equal(tier_freeze(w.module), -ENOSPC);
	assert_string_equal(tier_error_text(), "no room for you");
	fake_set_twist(w.fake, WIRE_FREEZE, TWIST_NONE);
	world_end(&w);
	assert_int_equal(w.fake->n_requests[WIRE_THAW], 0);
}

/* What was asked for may come true later: it is taken back. */
static void a_freeze_that_takes_too_long_is_taken_back(void **state)
{
	struct fake *fake = fake_of(state);
	struct tier_conn *conn = client_connect_for(fake, FAKE_SECOND / 20);
	struct tier_module *module = client_open(conn, "demo");

	fake_set_twist(fake, WIRE_FREEZE, TWIST_SILENT);
	assert_int_equal(tier_freeze(module), -ETIMEDOUT);
	assert_non_null(strstr(tier_error_text(), "did not answer"));
	assert_int_equal(fake->n_requests[WIRE_THAW], 1);
	fake_set_twist(fake, WIRE_FREEZE, TWIST_NONE);
	tier_close(module);
	tier_disconnect(conn);
}

/* Queued in a frozen module */
static void set_frozen(struct fake *fake, uint32_t method)
{
	fake_set_state(&fake->modules[0], method, TIER_STAGE_QUEUED | TIER_STATE_FROZEN, TIER_LEVEL_TIER0, 0);
}

static void *freezer_main(void *context)
{
	struct fake *fake = context;

	pthread_mutex_lock(&fake->lock);
	set_frozen(fake, 0);
	pthread_mutex_unlock(&fake->lock);
	return NULL;
}

static void a_wait_ends_when_the_method_is_frozen(void **state)
{
	struct tier_answer answer;
	struct tier_climb climb;
	struct world w;
	pthread_t thread;
	uint32_t calls = 4711;

	world_begin(&w, state);
	climb = TIER_CLIMB(client_method(w.module, 0));
	fake_set_stage(w.fake, 0, TIER_STAGE_QUEUED);
	assert_int_equal(tier_wait(climb.method, 0, NULL, &answer), -ETIMEDOUT);
	assert_int_equal(pthread_create(&thread, NULL, freezer_main, w.fake), 0);
	assert_int_equal(tier_wait(climb.method, 10 * FAKE_SECOND, NULL, &answer), 0);
	pthread_join(thread, NULL);
	assert_true(answer.is_frozen);
	assert_int_equal(answer.status, TIER_STATUS_OPTIMIZING);
	assert_int_equal(answer.stage, TIER_STAGE_QUEUED);
	assert_int_equal(answer.remaining, 0);
	assert_int_equal(tier_status_ask(climb.method, &answer), 0);
	assert_true(answer.is_frozen);
	assert_int_equal(tier_climb_next(&climb, TIER_FOREVER, NULL, &calls), -EBUSY);
	assert_int_equal(calls, 4711);
	assert_int_equal(climb.n_steps, 0);
	assert_non_null(strstr(tier_error_text(), "demo:method0 will not go on: its module is frozen"));
	assert_int_equal(tier_drive(climb.method, NULL, NULL), -EBUSY);
	world_end(&w);
}

/* -- Settled --- */
static void a_settlement_is_passed_on(void **state)
{
	struct tier_settlement settlement;
	struct world w;

	world_begin(&w, state);
	w.fake->closure = 0x15;
	assert_int_equal(tier_settled(client_method(w.module, 0), &settlement), 0);
	assert_true(settlement.is_settled);
	assert_int_equal(settlement.n_methods, 0);
	fake_set_stage(w.fake, 2, TIER_STAGE_COUNTING);
	fake_set_stage(w.fake, 4, TIER_STAGE_QUEUED);
	assert_int_equal(tier_settled(client_method(w.module, 0), &settlement), 0);
	assert_false(settlement.is_settled);
	assert_int_equal(settlement.n_unsettled, 2);
	assert_int_equal(settlement.n_pending, 1);
	assert_int_equal(settlement.calls, FAKE_THRESHOLD);
	assert_int_equal(settlement.n, 2);
	assert_int_equal(settlement.unsettled[0], 2);
	assert_int_equal(settlement.unsettled[1], 4);
	world_end(&w);
}

static void an_impossible_settlement_is_refused(void **state)
{
	struct tier_settlement settlement = { .n = 99 };
	struct world w;

	world_begin(&w, state);
	w.fake->closure = 4;
	fake_set_stage(w.fake, 2, TIER_STAGE_COUNTING);
	fake_set_twist(w.fake, WIRE_SETTLED, TWIST_UNSETTLED);
	assert_int_equal(tier_settled(client_method(w.module, 0), &settlement), -EPROTO);
	assert_int_equal(settlement.n, 99);
	assert_non_null(strstr(tier_error_text(), "impossible settlement"));
	world_end(&w);
}

/* -- Drives --- */
struct tally {
	uint32_t n_calls, n_steps;
	struct tier_cancel *cancel;
};

static void tally_call(const struct tier_method *method, void *context)
{
	struct tally *tally = context;

	assert_int_equal(tier_entry(method)(1, 2, 3, 4, 5), fake_mix(1, 2, 3, 4, 5));
	if (++tally->n_calls == 3 && tally->cancel)
		tier_cancel(tally->cancel);
}

static void tally_step(const struct tier_settlement *settlement, uint32_t calls, void *context)
{
	struct tally *tally = context;

	tally->n_steps++;
	assert_false(settlement->is_settled);
	assert_true(calls > 0);
}

/* Method 5 calls method 0 each time: that one's first counted call is the caller's second. */
static void a_drive_goes_on_until_the_callee_is_settled(void **state)
{
	struct tally tally = { 0 };
	struct tier_drive_opts opts = { .size = sizeof(opts), .call = tally_call, .step = tally_step, .context = &tally };
	struct tier_settlement settlement;
	struct world w;

	world_begin(&w, state);
	w.fake->is_promoting = true;
	w.fake->closure = 0x21;
	fake_cell(&w.fake->modules[0], 0)[0] = 0;
	assert_int_equal(tier_drive(client_method(w.module, 5), &opts, &settlement), 0);
	assert_true(settlement.is_settled);
	assert_int_equal(settlement.n_methods, 2);
	assert_int_equal(tier_status(client_method(w.module, 0)).status, TIER_STATUS_FINAL);
	assert_int_equal(tally.n_calls, 1 + FAKE_THRESHOLD);
	assert_int_equal(tally.n_steps, 0);
	world_end(&w);
}

static void a_drive_makes_the_calls_that_a_callee_still_lacks(void **state)
{
	struct tally tally = { 0 };
	struct tier_drive_opts opts = { .size = sizeof(opts), .call = tally_call, .step = tally_step, .context = &tally };
	struct tier_settlement settlement;
	struct world w;

	world_begin(&w, state);
	w.fake->is_promoting = true;
	w.fake->closure = 0x21;
	fake_set_stage(w.fake, 5, TIER_STAGE_FINAL);
	fake_set_stage(w.fake, 0, TIER_STAGE_COUNTING);
	assert_int_equal(tier_drive(client_method(w.module, 5), &opts, &settlement), 0);
	assert_true(settlement.is_settled);
	assert_int_equal(tally.n_steps, 1);
	assert_int_equal(tally.n_calls, FAKE_THRESHOLD);
	world_end(&w);
}

static void a_drive_gives_up_on_what_its_calls_do_not_reach(void **state)
{
	struct tier_settlement settlement;
	struct tally tally = { 0 };
	struct tier_drive_opts opts = { .size = sizeof(opts), .call = tally_call, .step = tally_step, .context = &tally };
	struct world w;

	world_begin(&w, state);
	w.fake->is_promoting = true;
	w.fake->closure = 0x44;
	fake_set_stage(w.fake, 6, TIER_STAGE_COUNTING);		/* nobody calls it */
	assert_int_equal(tier_drive(client_method(w.module, 2), &opts, &settlement), 1);
	assert_int_equal(settlement.n, 1);
	assert_int_equal(settlement.unsettled[0], 6);
	assert_int_equal(tally.n_steps, 5);
	assert_int_equal(tally.n_calls, 1 + FAKE_THRESHOLD + 31 * FAKE_THRESHOLD);
	world_end(&w);
}

static void a_drive_ends_at_its_deadline_and_when_canceled(void **state)
{
	struct tally tally = { 0 };
	struct tier_drive_opts opts = { .size = sizeof(opts), .args = { 1 }, .timeout_ns = FAKE_SECOND / 50 };
	struct world w;

	world_begin(&w, state);
	w.fake->closure = 0x40;
	fake_set_stage(w.fake, 2, TIER_STAGE_FINAL);
	fake_set_stage(w.fake, 6, TIER_STAGE_QUEUED);		/* for ever */
	assert_int_equal(tier_drive(client_method(w.module, 2), &opts, NULL), -ETIMEDOUT);
	assert_int_equal(tier_cancel_new(&tally.cancel), 0);
	opts = (struct tier_drive_opts){ .size = sizeof(opts), .call = tally_call, .context = &tally, .cancel = tally.cancel };
	assert_int_equal(tier_drive(client_method(w.module, 0), &opts, NULL), -ECANCELED);
	assert_int_equal(tally.n_calls, 3);
	opts.size = 1;
	assert_int_equal(tier_drive(client_method(w.module, 0), &opts, NULL), -EINVAL);
	tier_cancel_free(tally.cancel);
	world_end(&w);
}

/* -- Knobs --- */
static int knob_row(const struct wire_knob_row *row, void *context)
{
	uint32_t *n = context;
	char name[40];

	snprintf(name, sizeof(name), "knob-%u", *n);
	assert_string_equal(row->name, name);
	assert_int_equal(strlen(row->value), sizeof(row->value) - 1);
	return ++*n == 5 ? 77 : 0;
}

static void knobs_come_in_pages(void **state)
{
	struct world w;
	uint32_t n = 0;

	world_begin(&w, state);
	assert_int_equal(tier_knobs(w.conn, knob_row, &n), 0);
	assert_int_equal(n, 3);
	world_end(&w);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, fake_setup, fake_teardown)
int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(a_mark_tells_changes_from_shared_memory),
		CASE(freezing_and_thawing_are_the_sessions),
		CASE(a_freeze_that_is_refused_says_why),
		CASE(a_freeze_that_takes_too_long_is_taken_back),
		CASE(a_wait_ends_when_the_method_is_frozen),
		CASE(a_settlement_is_passed_on),
		CASE(an_impossible_settlement_is_refused),
		CASE(a_drive_goes_on_until_the_callee_is_settled),
		CASE(a_drive_makes_the_calls_that_a_callee_still_lacks),
		CASE(a_drive_gives_up_on_what_its_calls_do_not_reach),
		CASE(a_drive_ends_at_its_deadline_and_when_canceled),
		CASE(knobs_come_in_pages),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
