/* SPDX-License-Identifier: Apache-2.0 */
#include "unit/server/world.h"

/* SETTLED: the method, and all that it has called */

static struct wire_settlement *settled(struct client *client, const struct fake_module *fm, uint32_t method)
{
	const struct wire_method_ref ref = { .module = fm->id, .method = method };

	return &client_ask(client, WIRE_SETTLED, &ref, WIRE_SETTLEMENT)->settlement;
}

static void a_cold_method_alone_is_settled(void **state)
{
	struct world *world = *state;
	struct fake_module *fm = world_module(world, 1000, "m", false, 4);
	struct client a;

	client_hello(&a, world, 1000);
	world->calls_next = 3;
	assert_int_equal(settled(&a, fm, 0)->is_settled, 1);
	assert_int_equal(a.message.settlement.n_methods, 1);	/* what it would call was never called */
	assert_int_equal(a.message.settlement.n, 0);
	client_leave(&a);
}

static void callees_that_were_called_count(void **state)
{
	struct world *world = *state;
	struct fake_module *fm = world_module(world, 1000, "m", false, 6);
	struct client a;

	client_hello(&a, world, 1000);
	world->calls_next = 1;
	for (uint32_t i = 0; i < 3; i++)
		world_finish(world, fm, i);
	assert_int_equal(settled(&a, fm, 0)->is_settled, 1);
	assert_int_equal(a.message.settlement.n_methods, 3);
	fake_call(fm, 4);					/* behind a cold one: nobody got there */
	assert_int_equal(settled(&a, fm, 0)->is_settled, 1);
	fake_call(fm, 3);
	assert_int_equal(settled(&a, fm, 0)->is_settled, 0);
	assert_int_equal(a.message.settlement.n_methods, 5);
	assert_int_equal(a.message.settlement.n_unsettled, 2);
	assert_int_equal(a.message.settlement.n_pending, 0);
	assert_int_equal(a.message.settlement.calls, 0);	/* the delay: nothing is counted */
	assert_int_equal(a.message.settlement.unsettled[0], 3);
	assert_int_equal(a.message.settlement.unsettled[1], 4);
	fake_pass(world->fake, 300);
	fake_calls(fm, 3, 1);
	assert_int_equal(settled(&a, fm, 0)->calls, FAKE_N);
	fake_calls(fm, 3, FAKE_N - 1);
	assert_int_equal(settled(&a, fm, 0)->n_pending, 1);
	client_leave(&a);
}

/* A frame of a method that is settled otherwise still waits for its loop's code. */
static void osr_code_on_its_way_is_something_pending(void **state)
{
	struct world *world = *state;
	struct fake_module *fm = world_module(world, 1000, "m", false, 3);
	uint64_t progress;
	struct client a;

	client_hello(&a, world, 1000);
	world_finish(world, fm, 0);
	progress = settled(&a, fm, 0)->progress;
	assert_int_equal(a.message.settlement.is_settled, 1);
	core_osr_request(world->fake->core, fm->id, 0);
	assert_int_equal(settled(&a, fm, 0)->is_settled, 0);
	assert_int_equal(a.message.settlement.n_unsettled, 1);
	assert_int_equal(a.message.settlement.n_pending, 1);
	assert_int_not_equal(a.message.settlement.progress, progress);
	fake_end_job(world->fake, fake_osr_job(world->fake, fm, 0), TIER_REASON_NONE);
	assert_int_equal(settled(&a, fm, 0)->is_settled, 1);
	client_leave(&a);
}

static void progress_is_another_number_when_something_moved(void **state)
{
	struct world *world = *state;
	struct fake_module *fm = world_module(world, 1000, "m", false, 3);
	struct client a;
	uint64_t before;

	client_hello(&a, world, 1000);
	world->calls_next = 1;
	fake_call(fm, 0);
	fake_call(fm, 1);
	fake_pass(world->fake, 300);
	before = settled(&a, fm, 0)->progress;
	assert_int_equal(settled(&a, fm, 0)->progress, before);
	fake_calls(fm, 1, 1);
	assert_int_not_equal(settled(&a, fm, 0)->progress, before);
	client_leave(&a);
}

/* Whom it inlined runs without being called: that one need not come to an end, but what it calls counts. */
static void what_was_inlined_is_looked_through(void **state)
{
	struct world *world = *state;
	struct fake_module *fm = world_module(world, 1000, "m", false, 4);
	struct fake_job *job;
	struct client a;

	client_hello(&a, world, 1000);
	world->calls_next = 1;
	fake_call(fm, 2);
	fake_call(fm, 0);
	fake_pass(world->fake, 300);
	fake_calls(fm, 0, FAKE_N);
	job = fake_job(world->fake, fm, 0);
	assert_non_null(job);
	assert_int_equal(settled(&a, fm, 0)->n_methods, 1);	/* method 1 is cold: method 2 is somebody else's */
	job->inlined[0] = (struct fake_body){ .method = 1 };
	job->n_inlined = 1;
	fake_end_job(world->fake, job, TIER_REASON_NONE);
	assert_int_equal(settled(&a, fm, 0)->n_methods, 2);
	assert_int_equal(a.message.settlement.n_unsettled, 1);
	assert_int_equal(a.message.settlement.unsettled[0], 2);
	fake_call(fm, 1);						/* by somebody else */
	assert_int_equal(settled(&a, fm, 0)->n_methods, 2);
	assert_int_equal(settled(&a, fm, 1)->n_methods, 2);
	assert_int_equal(a.message.settlement.n_unsettled, 2);
	client_leave(&a);
}

/* A method that was replaced a thousand times and then got its own body back: its active version is the oldest. */
static void a_method_of_many_versions_is_looked_at_as_quickly(void **state)
{
	struct world *world = *state;
	struct fake_module *fm = world_module(world, 1000, "m", false, 4);
	uint64_t begin;
	struct client a;

	client_hello(&a, world, 1000);
	world->calls_next = 1;
	fake_call(fm, 1);
	fake_call(fm, 0);
	for (uint32_t body = 1; body <= 3000; body++) {
		assert_int_equal(core_rejit(fm->module, 0, body), 0);
		fake_call(fm, 0);
	}
	assert_int_equal(core_revert(fm->module, 0), 0);
	begin = clock_now_ns();
	assert_int_equal(settled(&a, fm, 0)->n_methods, 2);
	assert_true(clock_now_ns() - begin < 20000000);		/* one after the other would take a hundred and more */
	client_leave(&a);
}

static void a_long_look_goes_in_slices_one_at_a_time(void **state)
{
	struct world *world = *state;
	struct fake_module *fm = world_module(world, 1000, "m", false, 40);
	const struct wire_method_ref ref = { .module = fm->id };
	struct client a, b;
	uint64_t serial;

	client_hello(&a, world, 1000);
	client_join(&b, &a);
	world->calls_next = 1;
	world->n_call_parts = 200000;
	for (uint32_t i = 0; i < 40; i++)
		fake_call(fm, i);
	assert_int_equal(client_send(&a, WIRE_SETTLED, &ref), 0);
	serial = a.serial;
	assert_false(client_has_reply(&a));
	client_ask_error(&a, WIRE_SETTLED, &ref, TIER_ERROR_QUOTA);
	while (!client_has_reply(&a))
		assert_int_equal(dispatch_turn(&world->dispatch, -1), 0);
	assert_int_equal(client_read(&a)->header.serial, serial);
	assert_int_equal(a.message.settlement.n_methods, 40);
	assert_int_equal(a.message.settlement.n_unsettled, 40);
	assert_int_equal(client_send(&b, WIRE_SETTLED, &ref), 0);	/* and it ends with its lane */
	client_leave(&b);
	assert_int_equal(a.lane.session->n_waits, 0);
	assert_int_equal(a.lane.session->n_settlings, 0);
	client_leave(&a);
}

static void a_module_that_goes_ends_a_long_look(void **state)
{
	struct world *world = *state;
	struct fake_module *fm = world_module(world, 1000, "m", false, 4);
	const struct wire_method_ref ref = { .module = fm->id };
	const struct wire_module_ref module = { .module = fm->id };
	struct client a;

	client_hello(&a, world, 1000);
	world->n_call_parts = UINT32_MAX;
	assert_int_equal(client_send(&a, WIRE_SETTLED, &ref), 0);
	assert_int_equal(client_send(&a, WIRE_UNLOAD, &module), 0);
	assert_int_equal(client_read(&a)->header.type, WIRE_DONE);
	world_settle(world);
	assert_int_equal(client_read(&a)->error.error, TIER_ERROR_NO_MODULE);
	client_leave(&a);
}

static void no_more_than_its_size_is_listed(void **state)
{
	struct world *world = *state;
	struct fake_module *fm = world_module(world, 1000, "m", false, 70);
	struct client a;

	client_hello(&a, world, 1000);
	world->calls_next = 64;
	for (uint32_t i = 0; i < 70; i++)
		fake_call(fm, i);
	assert_int_equal(settled(&a, fm, 5)->n_unsettled, 70);
	assert_int_equal(a.message.settlement.n, WIRE_UNSETTLED_MAX);
	client_leave(&a);
}

static void what_is_not_there_is_refused(void **state)
{
	struct world *world = *state;
	struct fake_module *fm = world_module(world, 1000, "m", false, 2);
	struct wire_method_ref ref = { .module = fm->id, .method = 2 };
	struct client a, stranger;

	client_hello(&a, world, 1000);
	client_hello(&stranger, world, 1001);
	client_ask_error(&a, WIRE_SETTLED, &ref, TIER_ERROR_NO_METHOD);
	ref.method = 0;
	client_ask_error(&stranger, WIRE_SETTLED, &ref, TIER_ERROR_NO_MODULE);
	client_leave(&a);
	client_leave(&stranger);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		WORLD_TEST(a_cold_method_alone_is_settled),
		WORLD_TEST(callees_that_were_called_count),
		WORLD_TEST(osr_code_on_its_way_is_something_pending),
		WORLD_TEST(progress_is_another_number_when_something_moved),
		WORLD_TEST(what_was_inlined_is_looked_through),
		WORLD_TEST(a_method_of_many_versions_is_looked_at_as_quickly),
		WORLD_TEST(a_long_look_goes_in_slices_one_at_a_time),
		WORLD_TEST(a_module_that_goes_ends_a_long_look),
		WORLD_TEST(no_more_than_its_size_is_listed),
		WORLD_TEST(what_is_not_there_is_refused),
	};

	log_set_level(LOG_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
