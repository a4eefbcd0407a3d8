/* SPDX-License-Identifier: Apache-2.0 */
#include "unit/server/world.h"

/* EVENTS: a cursor in the history, and what of it a client may see */

static int events_from(struct client *client, uint64_t from, uint64_t timeout_ns)
{
	struct wire_events_from body = { .from = from, .timeout_ns = timeout_ns };

	return client_send(client, WIRE_EVENTS, &body);
}

static const struct wire_batch *batch(struct client *client)
{
	client_read(client);
	assert_int_equal(client->message.header.type, WIRE_BATCH);
	return &client->message.batch;
}

static void the_history_is_read_from_any_number_on(void **state)
{
	struct world *world = *state;
	struct fake_module *fm = world_module(world, 1000, "m", false, 1);
	struct client a;
	uint64_t newest;

	world_finish(world, fm, 0);
	newest = journal_newest(world->journal);
	client_hello(&a, world, 1000);
	assert_int_equal(events_from(&a, 1, 0), 0);
	assert_int_equal(batch(&a)->n, newest);
	assert_int_equal(a.message.batch.next, newest + 1);
	assert_int_equal(a.message.batch.events[0].kind, TIER_EVENT_MODULE_LOADED);
	for (uint64_t i = 0; i < newest; i++)
		assert_int_equal(a.message.batch.events[i].sequence, i + 1);
	assert_int_equal(events_from(&a, 3, 0), 0);
	assert_int_equal(batch(&a)->events[0].sequence, 3);
	client_leave(&a);
}

static void zero_means_only_new_ones(void **state)
{
	struct world *world = *state;
	struct client a;

	world_module(world, 1000, "m", false, 1);
	client_hello(&a, world, 1000);
	assert_int_equal(events_from(&a, 0, 0), 0);
	assert_int_equal(batch(&a)->n, 0);
	assert_int_equal(a.message.batch.next, 2);
	assert_int_equal(events_from(&a, 2, UINT64_MAX), 0);
	world_settle(world);
	assert_false(client_has_reply(&a));
	world_module(world, 1000, "n", false, 1);
	assert_false(client_has_reply(&a));
	world_settle(world);
	assert_int_equal(batch(&a)->n, 1);
	assert_int_equal(a.message.batch.events[0].sequence, 2);
	assert_int_equal(a.message.batch.next, 3);
	client_leave(&a);
}

static void what_is_not_at_hand_is_answered_when_it_is(void **state)
{
	struct world *world = *state;
	struct client a, b;

	world_module(world, 1000, "m", false, 1);
	client_hello(&a, world, 1000);
	client_hello(&b, world, 1000);
	world->events_later = true;
	assert_int_equal(events_from(&a, 1, 0), 0);	/* would not wait for news, but what there is it gets */
	assert_int_equal(events_from(&b, WIRE_EVENTS_SINCE | 1, UINT64_MAX), 0);
	world_settle(world);
	assert_false(client_has_reply(&a));
	server_event_added(world->server);
	world_settle(world);
	assert_false(client_has_reply(&a));
	world->events_later = false;
	server_event_added(world->server);
	world_settle(world);
	assert_int_equal(batch(&a)->n, 1);
	assert_int_equal(batch(&b)->n, 1);
	assert_int_equal(b.message.batch.next, 2);
	world->events_later = true;
	assert_int_equal(events_from(&a, 2, 0), 0);
	world->events_later = false;
	server_event_added(world->server);
	world_settle(world);
	assert_int_equal(batch(&a)->n, 0);
	client_leave(&a);
	client_leave(&b);
}

static void a_time_is_where_to_begin(void **state)
{
	struct world *world = *state;
	struct client a;

	for (uint64_t s = 1; s <= 10; s++) {
		struct tier_event event = { .sequence = s, .time_ns = 1000 * s, .uid = 1000, .kind = TIER_EVENT_QUEUED };

		journal_append(world->journal, &event);
	}
	client_hello(&a, world, 1000);
	assert_int_equal(events_from(&a, WIRE_EVENTS_SINCE | 6001, 0), 0);
	assert_int_equal(batch(&a)->n, 4);
	assert_int_equal(a.message.batch.events[0].sequence, 7);
	assert_int_equal(events_from(&a, WIRE_EVENTS_SINCE | 99999, 0), 0);
	assert_int_equal(batch(&a)->n, 0);
	assert_int_equal(a.message.batch.next, 11);
	client_leave(&a);
}

static void a_batch_is_bounded(void **state)
{
	struct world *world = *state;
	struct client a;

	for (uint32_t i = 0; i < 300; i++) {
		struct tier_event event = { .sequence = i + 1, .uid = 1000, .kind = TIER_EVENT_QUEUED };

		journal_append(world->journal, &event);
	}
	client_hello(&a, world, 1000);
	assert_int_equal(events_from(&a, 1, 0), 0);
	assert_int_equal(batch(&a)->n, WIRE_BATCH_MAX);
	assert_int_equal(events_from(&a, a.message.batch.next, 0), 0);
	assert_int_equal(batch(&a)->next, 257);
	assert_int_equal(events_from(&a, 257, 0), 0);
	assert_int_equal(batch(&a)->n, 44);
	client_leave(&a);
}

static void what_is_no_longer_kept_is_a_gap(void **state)
{
	struct world *world = *state;
	struct client a;

	for (uint32_t i = 0; i < WORLD_JOURNAL + 50; i++) {
		struct tier_event event = { .sequence = i + 1, .uid = 1000, .kind = TIER_EVENT_QUEUED };

		journal_append(world->journal, &event);
	}
	client_hello(&a, world, 1000);
	assert_int_equal(events_from(&a, 7, UINT64_MAX), 0);
	client_read(&a);
	assert_int_equal(a.message.error.error, TIER_ERROR_GAP);
	assert_int_equal(a.message.error.first, 7);
	assert_int_equal(a.message.error.last, 50);
	assert_int_equal(events_from(&a, 51, 0), 0);
	assert_int_equal(batch(&a)->events[0].sequence, 51);
	client_leave(&a);
}

static void others_private_modules_do_not_leak(void **state)
{
	struct world *world = *state;
	struct fake_module *shared, *private = world_module(world, 1001, "private", false, 1);
	struct client a, owner, root;

	shared = world_module(world, 1001, "shared", true, 1);
	world_module(world, 1000, "mine", false, 1);
	client_hello(&a, world, 1000);
	client_hello(&owner, world, 1001);
	client_hello(&root, world, 0);
	assert_int_equal(events_from(&a, 1, 0), 0);
	assert_int_equal(batch(&a)->n, 2);
	assert_int_equal(a.message.batch.events[0].sequence, 2);
	assert_int_equal(a.message.batch.events[1].sequence, 3);
	assert_int_equal(a.message.batch.events[2].sequence, 0);	/* nothing lies behind them */
	assert_int_equal(a.message.batch.next, 4);
	assert_int_equal(events_from(&owner, 1, 0), 0);
	assert_int_equal(batch(&owner)->n, 2);
	assert_int_equal(events_from(&root, 1, 0), 0);
	assert_int_equal(batch(&root)->n, 3);

	core_module_unname(shared->module);
	world_release(world, shared->module);		/* gone: its history is its owner's and root's */
	assert_int_equal(events_from(&a, 1, 0), 0);
	assert_int_equal(batch(&a)->n, 1);
	assert_int_equal(events_from(&a, 0, UINT64_MAX), 0);
	fake_call(private, 0);
	world_settle(world);
	assert_false(client_has_reply(&a));
	world_module(world, 1000, "mine2", false, 1);
	world_settle(world);
	assert_int_equal(batch(&a)->n, 1);
	client_leave(&a);
	client_leave(&owner);
	client_leave(&root);
}

/* More of others' events than one look may read: the cursor goes on by itself. */
static void what_is_invisible_is_skipped_in_slices(void **state)
{
	struct server_config config = SERVER_CONFIG_DEFAULT;
	struct world *world = world_new(&config, -1);
	uint32_t n = 5000;
	struct client a;

	journal_free(world->journal);
	assert_int_equal(journal_new(&world->journal, n + 1), 0);
	client_hello(&a, world, 1000);
	for (uint32_t i = 0; i <= n; i++) {
		struct tier_event event = { .sequence = i + 1, .uid = i == n ? 1000 : 1001 };

		journal_append(world->journal, &event);
	}
	assert_int_equal(events_from(&a, 1, 0), 0);
	assert_int_equal(batch(&a)->n, 0);			/* at once: as far as it got */
	assert_true(a.message.batch.next > 1 && a.message.batch.next < n);
	assert_int_equal(events_from(&a, 1, UINT64_MAX), 0);
	assert_false(client_has_reply(&a));
	for (int i = 0; i < 20; i++)
		world_settle(world);
	assert_int_equal(batch(&a)->n, 1);
	assert_int_equal(a.message.batch.events[0].sequence, n + 1);
	client_leave(&a);
	world_free(world);
}

static void a_deadline_tells_where_to_go_on(void **state)
{
	struct world *world = *state;
	struct wire_cancel cancel;
	struct client a;

	world_module(world, 1000, "m", false, 1);
	client_hello(&a, world, 1000);
	assert_int_equal(events_from(&a, 0, 1000000), 0);
	while (!client_has_reply(&a))
		assert_int_equal(dispatch_turn(&world->dispatch, -1), 0);
	assert_int_equal(client_read(&a)->error.error, TIER_ERROR_TIMEOUT);
	assert_int_equal(a.message.error.first, 2);
	assert_int_equal(events_from(&a, 2, UINT64_MAX), 0);
	cancel.serial = a.serial;
	assert_int_equal(client_send(&a, WIRE_CANCEL, &cancel), 0);
	assert_int_equal(client_read(&a)->error.error, TIER_ERROR_CANCELED);
	assert_int_equal(a.message.error.first, 2);
	assert_int_equal(client_read(&a)->header.type, WIRE_DONE);
	assert_int_equal(events_from(&a, UINT64_MAX, UINT64_MAX), 0);	/* the far future: waits with its client */
	client_leave(&a);
	assert_int_equal(world->server->deadlines.n, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		WORLD_TEST(the_history_is_read_from_any_number_on),
		WORLD_TEST(zero_means_only_new_ones),
		WORLD_TEST(what_is_not_at_hand_is_answered_when_it_is),
		WORLD_TEST(a_time_is_where_to_begin),
		WORLD_TEST(a_batch_is_bounded),
		WORLD_TEST(what_is_no_longer_kept_is_a_gap),
		WORLD_TEST(others_private_modules_do_not_leak),
		cmocka_unit_test(what_is_invisible_is_skipped_in_slices),
		WORLD_TEST(a_deadline_tells_where_to_go_on),
	};

	log_set_level(LOG_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
