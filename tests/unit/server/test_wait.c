/* SPDX-License-Identifier: Apache-2.0 */
#include "unit/server/world.h"

/* WAIT and CANCEL: quiet states, deadlines, and what a wait leaves behind: nothing */

static int wait_for(struct client *client, const struct fake_module *fm, uint32_t method, uint64_t timeout_ns)
{
	struct wire_wait wait = { .module = fm->id, .method = method, .timeout_ns = timeout_ns };

	return client_send(client, WIRE_WAIT, &wait);
}

static void assert_ends_with(struct client *client, uint64_t serial, enum tier_error error)
{
	client_read(client);
	assert_int_equal(client->message.header.type, WIRE_ERROR);
	assert_int_equal(client->message.header.serial, serial);
	assert_string_equal(tier_error_name(client->message.error.error), tier_error_name(error));
}

static void assert_nothing_left(struct world *world)
{
	assert_int_equal(world->server->deadlines.n, 0);
	assert_true(list_is_empty(&world->server->news) && list_is_empty(&world->server->feeds));
	for (uint32_t i = 0; i < SERVER_WAIT_BUCKETS; i++)
		assert_true(list_is_empty(&world->server->waits[i]));
	for (uint32_t i = 0; i < SERVER_RESIDENT_BUCKETS; i++)
		assert_true(list_is_empty(&world->server->residents[i]));
}

static void a_quiet_method_answers_at_once(void **state)
{
	struct world *world = *state;
	struct fake_module *fm = world_module(world, 1000, "m", false, 2);
	struct client a;

	client_hello(&a, world, 1000);
	assert_int_equal(wait_for(&a, fm, 0, UINT64_MAX), 0);
	assert_int_equal(client_read(&a)->answer.status, TIER_STATUS_COLD);
	world_finish(world, fm, 0);
	assert_int_equal(wait_for(&a, fm, 0, 0), 0);
	assert_int_equal(client_read(&a)->answer.status, TIER_STATUS_FINAL);
	fake_call(fm, 1);
	fake_pass(world->fake, 300);
	assert_int_equal(wait_for(&a, fm, 1, 0), 0);
	assert_int_equal(client_read(&a)->answer.remaining, FAKE_N);
	assert_nothing_left(world);
	client_leave(&a);
}

static void a_wait_of_no_time_just_asks(void **state)
{
	struct world *world = *state;
	struct fake_module *fm = world_module(world, 1000, "m", false, 1);
	struct client a;

	client_hello(&a, world, 1000);
	fake_call(fm, 0);
	assert_int_equal(wait_for(&a, fm, 0, 0), 0);
	assert_ends_with(&a, a.serial, TIER_ERROR_TIMEOUT);
	assert_nothing_left(world);
	client_leave(&a);
}

/* Through the delay, the queue and the compiler: a wait ends at each quiet state, for every waiter. */
static void waits_end_when_the_method_becomes_quiet(void **state)
{
	struct world *world = *state;
	struct fake_module *fm = world_module(world, 1000, "m", false, 2);
	struct client a, b;

	client_hello(&a, world, 1000);
	client_hello(&b, world, 0);
	fake_call(fm, 0);
	assert_int_equal(wait_for(&a, fm, 0, UINT64_MAX), 0);
	assert_int_equal(wait_for(&b, fm, 0, 1000000000000), 0);
	world_settle(world);
	assert_false(client_has_reply(&a) || client_has_reply(&b));
	fake_pass(world->fake, 300);
	assert_false(client_has_reply(&a));			/* never from inside the core */
	world_settle(world);
	assert_int_equal(client_read(&a)->answer.stage, TIER_STAGE_COUNTING);
	assert_int_equal(client_read(&b)->answer.stage, TIER_STAGE_COUNTING);

	fake_calls(fm, 0, FAKE_N);
	assert_int_equal(wait_for(&a, fm, 0, UINT64_MAX), 0);
	fake_call(fm, 1);					/* another method's news are not ours */
	world_settle(world);
	assert_false(client_has_reply(&a));
	fake_end(world->fake, fm, 0, TIER_REASON_COMPILE_FAILED);
	world_settle(world);
	assert_int_equal(client_read(&a)->answer.status, TIER_STATUS_FINAL);
	assert_int_equal(a.message.answer.reason, TIER_REASON_COMPILE_FAILED);
	assert_nothing_left(world);
	client_leave(&a);
	client_leave(&b);
}

static void a_deadline_ends_its_own_wait_only(void **state)
{
	struct world *world = *state;
	struct fake_module *fm = world_module(world, 1000, "m", false, 1);
	struct client a;
	uint64_t begin;

	client_hello(&a, world, 1000);
	fake_call(fm, 0);
	assert_int_equal(wait_for(&a, fm, 0, UINT64_MAX - 5), 0);	/* beyond the end of time: none */
	assert_int_equal(wait_for(&a, fm, 0, 5000000), 0);
	begin = clock_now_ns();
	assert_int_equal(wait_for(&a, fm, 0, 2000000), 0);
	while (!client_has_reply(&a))
		assert_int_equal(dispatch_turn(&world->dispatch, -1), 0);
	assert_true(clock_now_ns() - begin >= 2000000);
	assert_ends_with(&a, 4, TIER_ERROR_TIMEOUT);
	while (!client_has_reply(&a))
		assert_int_equal(dispatch_turn(&world->dispatch, -1), 0);
	assert_ends_with(&a, 3, TIER_ERROR_TIMEOUT);
	fake_pass(world->fake, 300);
	world_settle(world);
	assert_int_equal(client_read(&a)->header.serial, 2);
	assert_int_equal(a.message.header.type, WIRE_ANSWER);
	assert_nothing_left(world);
	client_leave(&a);
}

static void cancel_ends_the_wait_of_that_serial(void **state)
{
	struct world *world = *state;
	struct fake_module *fm = world_module(world, 1000, "m", false, 1);
	struct wire_cancel cancel = { .serial = 2 };
	struct client a, lane, other;

	client_hello(&a, world, 1000);
	client_join(&lane, &a);
	client_hello(&other, world, 1000);
	fake_call(fm, 0);
	assert_int_equal(wait_for(&a, fm, 0, UINT64_MAX), 0);
	client_ask(&other, WIRE_CANCEL, &cancel, WIRE_DONE);	/* another session: none of its business */
	assert_false(client_has_reply(&a));
	client_ask(&lane, WIRE_CANCEL, &cancel, WIRE_DONE);	/* nor another lane's of the same one */
	assert_false(client_has_reply(&a));
	assert_int_equal(client_send(&a, WIRE_CANCEL, &cancel), 0);
	assert_ends_with(&a, 2, TIER_ERROR_CANCELED);
	assert_int_equal(client_read(&a)->header.type, WIRE_DONE);
	client_ask(&a, WIRE_CANCEL, &cancel, WIRE_DONE);	/* nothing to cancel any more */
	assert_nothing_left(world);

	assert_int_equal(wait_for(&lane, fm, 0, UINT64_MAX), 0);
	a.serial = lane.serial - 1;
	assert_int_equal(wait_for(&a, fm, 0, UINT64_MAX), 0);
	cancel.serial = a.serial;
	assert_int_equal(client_send(&a, WIRE_CANCEL, &cancel), 0);
	assert_ends_with(&a, cancel.serial, TIER_ERROR_CANCELED);	/* its own lane's only */
	assert_int_equal(client_read(&a)->header.type, WIRE_DONE);
	assert_false(client_has_reply(&lane));
	client_leave(&a);
	client_leave(&lane);
	client_leave(&other);
}

static void waits_end_silently_with_their_client(void **state)
{
	struct world *world = *state;
	struct fake_module *fm = world_module(world, 1000, "m", false, 1);
	struct client a, lane;

	client_hello(&a, world, 1000);
	client_join(&lane, &a);
	fake_call(fm, 0);
	assert_int_equal(wait_for(&a, fm, 0, 1000000), 0);
	assert_int_equal(wait_for(&lane, fm, 0, UINT64_MAX), 0);
	client_leave(&lane);
	assert_int_equal(a.lane.session->n_waits, 1);
	fake_pass(world->fake, 300);		/* in the news when its client goes */
	client_leave(&a);
	world_settle(world);
	assert_nothing_left(world);
}

static void waits_have_a_quota(void **state)
{
	struct server_config config = SERVER_CONFIG_DEFAULT;
	struct world *world;
	struct fake_module *fm;
	struct client a;

	config.waits_per_session = 2;
	world = world_new(&config, -1);
	fm = world_module(world, 1000, "m", false, 1);
	client_hello(&a, world, 1000);
	fake_call(fm, 0);
	assert_int_equal(wait_for(&a, fm, 0, UINT64_MAX), 0);
	assert_int_equal(wait_for(&a, fm, 0, UINT64_MAX), 0);
	assert_int_equal(wait_for(&a, fm, 0, UINT64_MAX), 0);
	assert_ends_with(&a, a.serial, TIER_ERROR_QUOTA);
	client_leave(&a);
	world_free(world);
}

/* Many waits, all due at once: every one is answered, and no turn takes long. */
static void thousands_of_waits_are_answered_in_slices(void **state)
{
	struct server_config config = SERVER_CONFIG_DEFAULT;
	uint32_t n = getenv("TIER_TEST_LONG") ? 100000 : 10000;
	struct world *world;
	struct fake_module *fm;
	struct client a;

	config.waits_per_session = n;
	world = world_new(&config, -1);
	fm = world_module(world, 1000, "m", false, 100);
	client_hello(&a, world, 1000);
	for (uint32_t i = 0; i < 100; i++)
		fake_call(fm, i);
	for (uint32_t i = 0; i < n; i++)
		assert_int_equal(wait_for(&a, fm, i % 100, i % 3 ? UINT64_MAX : 1000000000000u - i), 0);
	fake_pass(world->fake, 300);
	assert_int_equal(dispatch_turn(&world->dispatch, 0), 0);
	for (uint32_t i = 0; i < n; i++) {
		while (!client_has_reply(&a))
			assert_int_equal(dispatch_turn(&world->dispatch, 0), 0);
		assert_int_equal(client_read(&a)->header.type, WIRE_ANSWER);
	}
	assert_nothing_left(world);
	client_leave(&a);
	world_free(world);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		WORLD_TEST(a_quiet_method_answers_at_once),
		WORLD_TEST(a_wait_of_no_time_just_asks),
		WORLD_TEST(waits_end_when_the_method_becomes_quiet),
		WORLD_TEST(a_deadline_ends_its_own_wait_only),
		WORLD_TEST(cancel_ends_the_wait_of_that_serial),
		WORLD_TEST(waits_end_silently_with_their_client),
		cmocka_unit_test(waits_have_a_quota),
		cmocka_unit_test(thousands_of_waits_are_answered_in_slices),
	};

	log_set_level(LOG_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
