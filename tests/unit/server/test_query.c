/* SPDX-License-Identifier: Apache-2.0 */
#include "unit/server/world.h"

/* PREPARE, STATUS, REMAINING, PENDING, THRESHOLD, OSR */

static const struct wire_answer *status(struct client *client, uint64_t module, uint32_t method)
{
	struct wire_method_ref ref = { .module = module, .method = method };

	return &client_ask(client, WIRE_STATUS, &ref, WIRE_ANSWER)->answer;
}

static uint64_t pending(struct client *client, enum wire_scope scope, uint64_t module)
{
	struct wire_pending body = { .module = module, .scope = scope };

	return client_ask(client, WIRE_PENDING, &body, WIRE_COUNT)->count.count;
}

static unsigned int n_osr_requested(struct world *world)
{
	static struct tier_event events[256];
	uint64_t gap_last;
	uint32_t n = 0, found = 0;

	journal_read(world->journal, 1, events, ARRAY_SIZE(events), &n, &gap_last);
	for (uint32_t i = 0; i < n; i++)
		found += events[i].kind == TIER_EVENT_OSR_REQUESTED;
	return found;
}

static void a_method_is_asked_on_its_way(void **state)
{
	struct world *world = *state;
	struct fake_module *fm = world_module(world, 1000, "m", false, 2);
	struct wire_method_ref ref = { .module = fm->id };
	struct client a;

	client_hello(&a, world, 1000);
	assert_int_equal(status(&a, fm->id, 0)->status, TIER_STATUS_COLD);
	assert_int_equal(a.message.answer.remaining, 1);
	client_ask(&a, WIRE_PREPARE, &ref, WIRE_DONE);
	client_ask(&a, WIRE_PREPARE, &ref, WIRE_DONE);		/* as often as one likes */
	assert_int_equal(status(&a, fm->id, 0)->stage, TIER_STAGE_UNCOUNTED);
	assert_int_equal(a.message.answer.remaining, FAKE_N);
	fake_pass(world->fake, 300);
	fake_call(fm, 0);
	client_ask(&a, WIRE_REMAINING, &ref, WIRE_ANSWER);
	assert_int_equal(a.message.answer.stage, TIER_STAGE_COUNTING);
	assert_int_equal(a.message.answer.remaining, FAKE_N - 1);
	fake_calls(fm, 0, FAKE_N - 1);
	assert_int_equal(pending(&a, WIRE_SCOPE_MODULE, fm->id), 1);
	assert_int_equal(pending(&a, WIRE_SCOPE_MINE, 0), 1);
	assert_int_equal(pending(&a, WIRE_SCOPE_ALL, 0), 1);
	assert_int_equal(status(&a, fm->id, 0)->remaining, 0);
	fake_end(world->fake, fm, 0, TIER_REASON_NONE);
	assert_int_equal(status(&a, fm->id, 0)->status, TIER_STATUS_FINAL);
	assert_int_equal(a.message.answer.tier, TIER_LEVEL_TIER1);
	assert_int_equal(a.message.answer.reason, TIER_REASON_PROMOTED);
	assert_int_equal(a.message.answer.generation, fake_answer(fm, 0).generation);
	assert_int_equal(pending(&a, WIRE_SCOPE_ALL, 0), 0);
	assert_true(world->n_drained >= 9);			/* each question looks at the ring buffer first */
	client_leave(&a);
}

static void a_status_looks_at_the_counter_itself(void **state)
{
	struct world *world = *state;
	struct fake_module *fm = world_module(world, 1000, "m", false, 1);
	struct client a;

	client_hello(&a, world, 1000);
	fake_call(fm, 0);
	fake_pass(world->fake, 300);
	while (fake_call(fm, 0) != FAKE_CROSSED)		/* and nobody rings */
		;
	assert_int_equal(status(&a, fm->id, 0)->remaining, 0);
	assert_non_null(fake_job(world->fake, fm, 0));
	client_leave(&a);
}

static void what_is_not_there_is_an_error(void **state)
{
	struct world *world = *state;
	struct fake_module *fm = world_module(world, 1000, "m", false, 2);
	struct wire_method_ref ref = { .module = fm->id, .method = 2 };
	struct wire_pending body = { .module = 99, .scope = WIRE_SCOPE_MODULE };
	struct client a, other;

	client_hello(&a, world, 1000);
	client_ask_error(&a, WIRE_STATUS, &ref, TIER_ERROR_NO_METHOD);
	client_ask_error(&a, WIRE_PREPARE, &ref, TIER_ERROR_NO_METHOD);
	client_ask_error(&a, WIRE_PENDING, &body, TIER_ERROR_NO_MODULE);
	client_hello(&other, world, 1001);
	ref.method = 0;
	client_ask_error(&other, WIRE_STATUS, &ref, TIER_ERROR_NO_MODULE);
	client_ask_error(&other, WIRE_PREPARE, &ref, TIER_ERROR_NO_MODULE);
	body.module = fm->id;
	client_ask_error(&other, WIRE_PENDING, &body, TIER_ERROR_NO_MODULE);
	client_leave(&a);
	client_leave(&other);
}

static void prepare_without_room_fails_clearly(void **state)
{
	struct world *world = *state;
	struct fake_module *fm = world_module(world, 1000, "m", false, 2);
	struct wire_method_ref ref = { .module = fm->id };
	struct client a;

	client_hello(&a, world, 1000);
	world->fake->first_result = CORE_E_FULL;
	client_ask_error(&a, WIRE_PREPARE, &ref, TIER_ERROR_CODE_FULL);
	world->fake->first_result = -ENOMEM;
	client_ask_error(&a, WIRE_PREPARE, &ref, TIER_ERROR_NO_MEMORY);
	client_leave(&a);
}

/* -- First code that the optimizer makes --- */
static int setup_without_tiers(void **state)
{
	struct server_config config = SERVER_CONFIG_DEFAULT;
	struct core_config core = fake_config;

	core.no_tiers = true;
	*state = world_new_for(&core, &config, -1);
	return 0;
}

static void a_first_call_waits_for_the_optimizer(void **state)
{
	struct world *world = *state;
	struct fake_module *fm = world_module(world, 1000, "m", false, 2);
	const struct wire_method_ref ref = { .module = fm->id }, other = { .module = fm->id, .method = 1 };
	struct client a, b;
	uint64_t serial;

	client_hello(&a, world, 1000);
	client_join(&b, &a);
	assert_int_equal(client_send(&a, WIRE_PREPARE, &ref), 0);
	serial = a.serial;
	assert_int_equal(client_send(&a, WIRE_PREPARE, &other), 0);
	assert_int_equal(client_send(&b, WIRE_PREPARE, &ref), 0);
	world_settle(world);
	assert_false(client_has_reply(&a) || client_has_reply(&b));
	assert_int_equal(status(&a, fm->id, 0)->status, TIER_STATUS_COLD);
	assert_true(fake_end(world->fake, fm, 0, TIER_REASON_NONE));
	world_settle(world);
	assert_int_equal(client_read(&a)->header.type, WIRE_DONE);
	assert_int_equal(a.message.header.serial, serial);
	assert_int_equal(client_read(&b)->header.type, WIRE_DONE);
	assert_int_equal(status(&a, fm->id, 0)->tier, TIER_LEVEL_OPTIMIZED);
	assert_true(fake_end(world->fake, fm, 1, TIER_REASON_COMPILE_FAILED));	/* then tier 0 serves */
	world_settle(world);
	assert_int_equal(client_read(&a)->header.type, WIRE_DONE);
	assert_int_equal(a.lane.session->n_waits, 0);
	client_leave(&a);
	client_leave(&b);
}

static void first_calls_that_wait_are_bounded_and_end_with_their_lane(void **state)
{
	struct world *world = *state;
	struct fake_module *fm = world_module(world, 1000, "m", false, 2);
	const struct wire_method_ref ref = { .module = fm->id };
	struct client a, b;

	client_hello(&a, world, 1000);
	client_join(&b, &a);
	world->server->config.waits_per_session = 2;
	assert_int_equal(client_send(&a, WIRE_PREPARE, &ref), 0);
	assert_int_equal(client_send(&b, WIRE_PREPARE, &ref), 0);
	client_ask_error(&b, WIRE_PREPARE, &ref, TIER_ERROR_QUOTA);
	client_leave(&b);
	assert_int_equal(a.lane.session->n_waits, 1);
	fake_end(world->fake, fm, 0, TIER_REASON_NONE);
	world_settle(world);
	assert_int_equal(client_read(&a)->header.type, WIRE_DONE);
	client_leave(&a);
}

static void an_osr_note_is_believed_as_far_as_there_is_a_patchpoint(void **state)
{
	struct world *world = *state;
	struct fake_module *fm = world_module(world, 1000, "m", false, 2);
	struct wire_osr osr = { .module = fm->id, .patchpoint = 1 };
	struct client a, other;

	client_hello(&a, world, 1000);
	client_hello(&other, world, 1001);
	fake_call(fm, 0);
	assert_int_equal(client_send(&other, WIRE_OSR, &osr), 0);	/* does not see the module */
	osr.patchpoint = UINT32_MAX;
	assert_int_equal(client_send(&a, WIRE_OSR, &osr), 0);
	assert_int_equal(n_osr_requested(world), 0);
	osr.patchpoint = 1;
	assert_int_equal(client_send(&a, WIRE_OSR, &osr), 0);
	assert_int_equal(client_send(&a, WIRE_OSR, &osr), 0);		/* it is under way */
	assert_int_equal(n_osr_requested(world), 1);
	assert_false(client_has_reply(&a) || client_has_reply(&other));
	client_leave(&a);
	client_leave(&other);
}

static void a_bell_is_believed_as_far_as_the_counter_says(void **state)
{
	struct world *world = *state;
	struct fake_module *fm = world_module(world, 1000, "m", false, 1);
	struct wire_bell bell = { .module = fm->id, .tid = 5 };
	struct client a, other;

	client_hello(&a, world, 1000);
	client_hello(&other, world, 1001);
	fake_call(fm, 0);
	fake_pass(world->fake, 300);
	bell.version = fm->records[0].version;
	assert_int_equal(client_send(&a, WIRE_THRESHOLD, &bell), 0);	/* a lie */
	assert_null(fake_job(world->fake, fm, 0));
	while (fake_call(fm, 0) != FAKE_CROSSED)
		;
	assert_int_equal(client_send(&other, WIRE_THRESHOLD, &bell), 0);	/* does not see the module */
	assert_null(fake_job(world->fake, fm, 0));
	assert_int_equal(client_send(&a, WIRE_THRESHOLD, &bell), 0);
	assert_non_null(fake_job(world->fake, fm, 0));
	bell = (struct wire_bell){ .module = fm->id, .version = UINT64_MAX, .method = UINT32_MAX };
	assert_int_equal(client_send(&a, WIRE_THRESHOLD, &bell), 0);
	assert_false(client_has_reply(&a) || client_has_reply(&other));
	client_leave(&a);
	client_leave(&other);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		WORLD_TEST(a_method_is_asked_on_its_way),
		WORLD_TEST(a_status_looks_at_the_counter_itself),
		WORLD_TEST(what_is_not_there_is_an_error),
		WORLD_TEST(prepare_without_room_fails_clearly),
		WORLD_TEST(a_bell_is_believed_as_far_as_the_counter_says),
		cmocka_unit_test_setup_teardown(a_first_call_waits_for_the_optimizer, setup_without_tiers, world_teardown),
		cmocka_unit_test_setup_teardown(first_calls_that_wait_are_bounded_and_end_with_their_lane, setup_without_tiers,
						world_teardown),
		WORLD_TEST(an_osr_note_is_believed_as_far_as_there_is_a_patchpoint),
	};

	log_set_level(LOG_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
