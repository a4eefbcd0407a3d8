/* SPDX-License-Identifier: Apache-2.0 */
#include "unit/server/world.h"

/* Slots in clients' own memory: who is told of what, what is remembered of it, and when a change has settled. REVERT stands
 * for everything that must settle; test_rejit.c has the rest of it. */

#define TOLD_MAX 32u		/* changes that a lane may leave unanswered */

/* A client with a lane for slots, that holds the module */
struct watcher {
	struct client api, slots;
};

static void watcher_init(struct watcher *watcher, struct world *world, uid_t uid, const struct fake_module *fm, pid_t pid)
{
	client_hello(&watcher->api, world, uid);
	client_join_as(&watcher->slots, &watcher->api, WIRE_LANE_SLOTS);
	watcher->slots.lane.pid = pid;
	client_attach(&watcher->api, fm->id);
}

static void watcher_leave(struct watcher *watcher)
{
	client_leave(&watcher->slots);
	client_leave(&watcher->api);
}

static struct wire_method_ref ref_of(const struct fake_module *fm, uint32_t method)
{
	return (struct wire_method_ref){ .module = fm->id, .method = method };
}

static void watch(struct watcher *watcher, const struct fake_module *fm, uint32_t method)
{
	struct wire_method_ref ref = ref_of(fm, method);

	client_ask(&watcher->slots, WIRE_SLOT_WATCH, &ref, WIRE_DONE);
}

/* The first @n methods get their final code. */
static void finish(struct world *world, struct fake_module *fm, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		world_finish(world, fm, i);
}

/* Calls of the method leave its final code, or come back to it. */
static void flip(struct fake_module *fm, uint32_t method)
{
	static uint32_t body;

	if (core_method_body(fm->module, method))
		assert_int_equal(core_revert(fm->module, method), 0);
	else
		assert_int_equal(core_rejit(fm->module, method, ++body), 0);
}

static void change(struct world *world, struct fake_module *fm, uint32_t method)
{
	flip(fm, method);
	world_settle(world);
}

/* The watcher is told of this method, and of nothing else before it; returns the ticket. */
static uint64_t is_told(struct watcher *watcher, const struct fake_module *fm, uint32_t method)
{
	const struct message *message = client_read(&watcher->slots);

	assert_int_equal(message->header.type, WIRE_SLOT_CHANGED);
	assert_int_equal(message->header.serial, 0);
	assert_int_equal(message->change.module, fm->id);
	assert_int_equal(message->change.method, method);
	return message->change.ticket;
}

static int answer(struct watcher *watcher, uint64_t ticket)
{
	struct wire_slot_change body = { .ticket = ticket };

	return client_send(&watcher->slots, WIRE_SLOT_DONE, &body);
}

/* Takes another body away, if there is one, and begins to settle that. */
static void settle(struct client *client, const struct fake_module *fm, uint32_t method)
{
	struct wire_method_ref ref = ref_of(fm, method);

	assert_int_equal(client_send(client, WIRE_REVERT, &ref), 0);
}

static void has_settled(struct client *client)
{
	assert_int_equal(client_read(client)->header.type, WIRE_DONE);
	assert_int_equal(client->message.header.serial, client->serial);
}

/* -- Telling --- */
static void a_watched_method_is_told_of_and_no_other(void **state)
{
	struct world *world = *state;
	struct fake_module *fm = world_module(world, 1000, "m", false, 4);
	struct watcher a;

	finish(world, fm, 4);
	watcher_init(&a, world, 1000, fm, 10);
	watch(&a, fm, 2);
	change(world, fm, 1);
	assert_false(client_has_reply(&a.slots));
	change(world, fm, 2);
	assert_int_equal(is_told(&a, fm, 2), 1);
	assert_int_equal(answer(&a, 1), 0);
	assert_false(client_has_reply(&a.slots));
	watcher_leave(&a);
}

static void who_watches_hears_of_entry_points_and_not_of_stages(void **state)
{
	struct world *world = *state;
	struct fake_module *fm = world_module(world, 1000, "m", false, 4);
	struct watcher a;

	watcher_init(&a, world, 1000, fm, 10);
	watch(&a, fm, 0);
	fake_call(fm, 0);
	fake_pass(world->fake, 300);
	fake_calls(fm, 0, FAKE_N);
	world_settle(world);
	assert_false(client_has_reply(&a.slots));
	assert_true(fake_end(world->fake, fm, 0, TIER_REASON_NONE));
	world_settle(world);
	answer(&a, is_told(&a, fm, 0));
	server_method_changed(world->server, fm->module, 0);
	world_settle(world);
	assert_false(client_has_reply(&a.slots));
	watcher_leave(&a);
}

static void changes_of_one_method_are_told_one_after_the_other(void **state)
{
	struct world *world = *state;
	struct fake_module *fm = world_module(world, 1000, "m", false, 4);
	struct watcher a;

	finish(world, fm, 1);
	watcher_init(&a, world, 1000, fm, 10);
	watch(&a, fm, 0);
	watch(&a, fm, 0);			/* once is enough */
	for (int i = 0; i < 5; i++)
		flip(fm, 0);
	world_settle(world);
	assert_int_equal(is_told(&a, fm, 0), 1);
	for (int i = 0; i < 5; i++)
		change(world, fm, 0);
	assert_false(client_has_reply(&a.slots));
	answer(&a, 1);
	assert_int_equal(is_told(&a, fm, 0), 2);
	answer(&a, 2);
	answer(&a, 2);
	answer(&a, 0);
	assert_false(client_has_reply(&a.slots));
	watcher_leave(&a);
}

static void a_lane_that_does_not_answer_is_told_no_more_and_forgets_nothing(void **state)
{
	struct world *world = *state;
	struct fake_module *fm = world_module(world, 1000, "m", false, 40);
	struct watcher a;
	uint64_t ticket = 0;

	finish(world, fm, 40);
	watcher_init(&a, world, 1000, fm, 10);
	for (uint32_t i = 0; i < 40; i++)
		watch(&a, fm, i);
	for (uint32_t i = 0; i < 40; i++)
		change(world, fm, i);
	for (uint32_t i = 0; i < TOLD_MAX; i++)
		ticket = is_told(&a, fm, i);
	assert_false(client_has_reply(&a.slots));
	answer(&a, ticket - TOLD_MAX + 3);
	for (uint32_t i = 0; i < 3; i++)
		ticket = is_told(&a, fm, TOLD_MAX + i);
	assert_false(client_has_reply(&a.slots));
	answer(&a, ticket);
	for (uint32_t i = TOLD_MAX + 3; i < 40; i++)
		is_told(&a, fm, i);
	watcher_leave(&a);
}

static void a_ticket_of_the_future_ends_the_connection(void **state)
{
	struct world *world = *state;
	struct fake_module *fm = world_module(world, 1000, "m", false, 4);
	struct watcher a;

	finish(world, fm, 1);
	watcher_init(&a, world, 1000, fm, 10);
	watch(&a, fm, 0);
	change(world, fm, 0);
	is_told(&a, fm, 0);
	assert_int_equal(answer(&a, 2), LANE_E_END);
	assert_int_equal(client_read(&a.slots)->error.error, TIER_ERROR_PROTOCOL);
	assert_int_equal(client_send(&a.api, WIRE_SLOT_DONE, &(struct wire_slot_change){ .ticket = 1 }), LANE_E_END);
	watcher_leave(&a);
}

/* -- Who may watch --- */
static void a_session_watches_on_one_lane_only(void **state)
{
	struct world *world = *state;
	struct fake_module *fm = world_module(world, 1000, "m", false, 4);
	struct wire_hello hello = { .lane = WIRE_LANE_SLOTS };
	struct wire_method_ref ref = ref_of(fm, 0);
	struct client third;
	struct watcher a;

	watcher_init(&a, world, 1000, fm, 10);
	memcpy(hello.session, a.api.welcome.session, sizeof(hello.session));
	client_init(&third, world, 1000);
	client_ask_error(&third, WIRE_HELLO, &hello, TIER_ERROR_QUOTA);
	client_ask_error(&a.api, WIRE_SLOT_WATCH, &ref, TIER_ERROR_ARGUMENT);
	client_leave(&a.slots);
	client_ask(&third, WIRE_HELLO, &hello, WIRE_WELCOME);	/* the place is free again */
	client_ask(&third, WIRE_SLOT_WATCH, &ref, WIRE_DONE);
	client_leave(&third);
	client_leave(&a.api);
}

static void only_methods_of_held_modules_are_watched(void **state)
{
	struct world *world = *state;
	struct fake_module *fm = world_module(world, 1000, "m", false, 4), *other = world_module(world, 1000, "n", false, 4);
	struct fake_module *foreign = world_module(world, 1001, "m", false, 4);
	struct wire_method_ref refs[] = { ref_of(fm, 4), ref_of(other, 0), ref_of(foreign, 0), { .module = 99 } };
	static const enum tier_error errors[] = { TIER_ERROR_NO_METHOD, TIER_ERROR_NO_MODULE, TIER_ERROR_NO_MODULE,
						  TIER_ERROR_NO_MODULE };
	struct watcher a;

	watcher_init(&a, world, 1000, fm, 10);
	for (size_t i = 0; i < ARRAY_SIZE(refs); i++)
		client_ask_error(&a.slots, WIRE_SLOT_WATCH, &refs[i], errors[i]);
	watcher_leave(&a);
}

static void watches_have_a_quota_and_end_with_the_hold(void **state)
{
	struct world *world = *state;
	struct fake_module *fm = world_module(world, 1000, "m", false, 100);
	struct wire_module_ref module = { .module = fm->id };
	struct wire_method_ref ref = ref_of(fm, 64);
	struct watcher a;

	finish(world, fm, 4);
	watcher_init(&a, world, 1000, fm, 10);
	for (uint32_t i = 0; i < 64; i++)
		watch(&a, fm, i);
	client_ask_error(&a.slots, WIRE_SLOT_WATCH, &ref, TIER_ERROR_QUOTA);
	change(world, fm, 3);
	is_told(&a, fm, 3);
	client_ask(&a.api, WIRE_DETACH, &module, WIRE_DONE);
	change(world, fm, 3);
	assert_int_equal(answer(&a, 1), 0);
	assert_false(client_has_reply(&a.slots));
	client_attach(&a.api, fm->id);
	watch(&a, fm, 64);
	watcher_leave(&a);
}

/* They end in one turn of the loop: its length is for people to read. */
static void a_process_watches_so_many_methods(void **state)
{
	struct server_config config = SERVER_CONFIG_DEFAULT;
	struct wire_method_ref ref = { .method = config.watches_per_session };
	struct world *world = world_new(&config, -1);
	struct fake_module *fm = world_module(world, 1000, "m", true, 2 * ref.method);
	struct watcher a, b;
	uint64_t begin;

	ref.module = fm->id;
	for (int detach = 0; detach < 2; detach++) {
		watcher_init(&a, world, 1001, fm, 10);
		watcher_init(&b, world, 1001, fm, 11);
		for (uint32_t i = 0; i < ref.method; i++)
			watch(&a, fm, i);
		client_ask_error(&a.slots, WIRE_SLOT_WATCH, &ref, TIER_ERROR_QUOTA);
		watch(&a, fm, 0);	/* it is there */
		watch(&b, fm, ref.method);
		begin = clock_now_ns();
		if (detach)
			client_ask(&a.api, WIRE_DETACH, &(struct wire_module_ref){ .module = fm->id }, WIRE_DONE);
		else
			lane_deinit(&a.slots.lane);
		print_message("the end of %u watches: %.3f ms\n", ref.method, (clock_now_ns() - begin) / 1e6);
		watcher_leave(&b);
		watcher_leave(&a);
	}
	world_free(world);
}

/* -- Settling --- */
static void without_slots_it_has_settled_at_once(void **state)
{
	struct world *world = *state;
	struct fake_module *fm = world_module(world, 1000, "m", false, 4);
	struct watcher a;

	finish(world, fm, 1);
	watcher_init(&a, world, 1000, fm, 10);
	change(world, fm, 0);
	settle(&a.api, fm, 0);
	has_settled(&a.api);
	watch(&a, fm, 0);
	settle(&a.api, fm, 0);
	has_settled(&a.api);
	watcher_leave(&a);
}

static void it_has_settled_when_all_have_answered(void **state)
{
	struct world *world = *state;
	struct fake_module *fm = world_module(world, 1000, "m", true, 4);
	struct watcher a, b;
	struct client owner;

	finish(world, fm, 1);
	client_hello(&owner, world, 1000);
	watcher_init(&a, world, 1000, fm, 10);
	watcher_init(&b, world, 1001, fm, 11);
	watch(&a, fm, 0);
	watch(&b, fm, 0);
	change(world, fm, 0);
	settle(&owner, fm, 0);
	answer(&a, is_told(&a, fm, 0));
	assert_false(client_has_reply(&owner));
	answer(&b, is_told(&b, fm, 0));
	has_settled(&owner);
	is_told(&a, fm, 0);		/* its own body is back: that is for speed, and nobody waits */
	client_leave(&owner);
	watcher_leave(&a);
	watcher_leave(&b);
}

static void changes_of_other_methods_do_not_hold_it_up(void **state)
{
	struct world *world = *state;
	struct fake_module *fm = world_module(world, 1000, "m", true, 4);
	struct client owner;
	struct watcher a;

	finish(world, fm, 2);
	client_hello(&owner, world, 1000);
	watcher_init(&a, world, 1001, fm, 10);
	watch(&a, fm, 0);
	watch(&a, fm, 1);
	change(world, fm, 1);
	settle(&owner, fm, 0);
	has_settled(&owner);
	change(world, fm, 0);
	settle(&owner, fm, 0);
	answer(&a, is_told(&a, fm, 1));
	assert_false(client_has_reply(&owner));
	answer(&a, is_told(&a, fm, 0));
	has_settled(&owner);
	client_leave(&owner);
	watcher_leave(&a);
}

/* On the way up slots hold the method's address, which leads to whatever body there is. */
static void who_has_not_heard_of_faster_code_does_not_hold_it_up(void **state)
{
	struct world *world = *state;
	struct fake_module *fm = world_module(world, 1000, "m", true, 4);
	struct client owner;
	struct watcher a;

	client_hello(&owner, world, 1000);
	watcher_init(&a, world, 1001, fm, 10);
	watch(&a, fm, 0);
	assert_int_equal(core_rejit(fm->module, 0, 1), 0);
	settle(&owner, fm, 0);
	has_settled(&owner);
	finish(world, fm, 1);
	world_settle(world);
	is_told(&a, fm, 0);
	settle(&owner, fm, 0);
	has_settled(&owner);
	change(world, fm, 0);
	settle(&owner, fm, 0);
	assert_false(client_has_reply(&owner));
	client_leave(&owner);
	watcher_leave(&a);
}

static void who_had_inlined_it_must_be_left_too(void **state)
{
	struct world *world = *state;
	struct fake_module *fm = world_module(world, 1000, "m", true, 4);
	struct client owner, other;
	struct watcher a;

	fm->inlines[1] = 1u << 0 | 1u << 2;
	finish(world, fm, 4);
	client_hello(&owner, world, 1000);
	client_hello(&other, world, 1000);
	watcher_init(&a, world, 1001, fm, 10);
	watch(&a, fm, 1);
	change(world, fm, 2);		/* withdraws 1, whose code has 0 in it as well */
	change(world, fm, 0);
	settle(&owner, fm, 0);
	assert_false(client_has_reply(&owner));
	settle(&other, fm, 3);
	has_settled(&other);
	settle(&other, fm, 2);
	assert_false(client_has_reply(&other));
	answer(&a, is_told(&a, fm, 1));
	has_settled(&owner);
	has_settled(&other);
	client_leave(&other);
	client_leave(&owner);
	watcher_leave(&a);
}

/* Two changes in one: the second body of 1 has nothing inlined, the first had. */
static void code_left_one_after_the_other_must_all_be_left(void **state)
{
	struct world *world = *state;
	struct fake_module *fm = world_module(world, 1000, "m", true, 4);
	struct client owner;
	struct watcher a;

	fm->inlines[1] = 1u << 0;
	finish(world, fm, 2);
	client_hello(&owner, world, 1000);
	watcher_init(&a, world, 1001, fm, 10);
	watch(&a, fm, 1);
	flip(fm, 1);
	fm->inlines[1] = 0;
	world_finish(world, fm, 1);
	assert_int_equal(core_rejit(fm->module, 1, 100), 0);
	change(world, fm, 0);
	settle(&owner, fm, 0);
	assert_false(client_has_reply(&owner));
	answer(&a, is_told(&a, fm, 1));
	has_settled(&owner);
	client_leave(&owner);
	watcher_leave(&a);
}

static void what_changes_later_does_not_hold_it_up(void **state)
{
	struct world *world = *state;
	struct fake_module *fm = world_module(world, 1000, "m", true, 4);
	struct client first, second;
	struct watcher a;

	finish(world, fm, 1);
	client_hello(&first, world, 1000);
	client_hello(&second, world, 1000);
	watcher_init(&a, world, 1001, fm, 10);
	watch(&a, fm, 0);
	change(world, fm, 0);
	settle(&first, fm, 0);
	change(world, fm, 0);		/* again, while the answer is on its way */
	settle(&second, fm, 0);
	answer(&a, is_told(&a, fm, 0));
	has_settled(&first);
	assert_false(client_has_reply(&second));
	answer(&a, is_told(&a, fm, 0));
	has_settled(&second);
	client_leave(&first);
	client_leave(&second);
	watcher_leave(&a);
}

static void who_dies_need_not_answer(void **state)
{
	struct world *world = *state;
	struct fake_module *fm = world_module(world, 1000, "m", true, 4);
	struct watcher a, b;
	struct client owner;

	finish(world, fm, 1);
	client_hello(&owner, world, 1000);
	watcher_init(&a, world, 1001, fm, 10);
	watcher_init(&b, world, 1001, fm, 11);
	watch(&a, fm, 0);
	watch(&b, fm, 0);
	for (int i = 0; i < 3; i++)
		change(world, fm, 0);
	settle(&owner, fm, 0);
	is_told(&a, fm, 0);
	answer(&a, 1);
	is_told(&a, fm, 0);
	watcher_leave(&a);		/* told and not answered */
	assert_false(client_has_reply(&owner));
	client_leave(&b.slots);		/* told, and changed again */
	has_settled(&owner);
	client_leave(&b.api);
	client_leave(&owner);
}

static void times_out(struct client *owner)
{
	assert_false(client_has_reply(owner));
	while (!client_has_reply(owner))
		assert_int_equal(dispatch_turn(&owner->world->dispatch, 1000), 0);
	assert_int_equal(client_read(owner)->error.error, TIER_ERROR_TIMEOUT);
	assert_int_equal(owner->message.header.serial, owner->serial);
}

static void who_never_answers_is_named_and_thrown_out(void **state)
{
	struct world *world = *state;
	struct fake_module *fm = world_module(world, 1000, "m", true, 4);
	struct watcher a, b, c;
	struct client owner;

	finish(world, fm, 4);
	client_hello(&owner, world, 1000);
	watcher_init(&a, world, 1001, fm, 4711);
	watcher_init(&b, world, 1001, fm, 4712);
	watcher_init(&c, world, 1001, fm, 4713);
	for (uint32_t i = 0; i < 4; i++) {
		watch(&a, fm, i);
		watch(&b, fm, i);
	}
	watch(&c, fm, 1);
	for (uint32_t i = 0; i < 4; i++)
		change(world, fm, i);
	for (uint32_t i = 0; i < 4; i++)
		answer(&b, is_told(&b, fm, i));
	settle(&owner, fm, 0);
	times_out(&owner);
	assert_non_null(strstr(owner.message.error.text, "pid 4711"));
	assert_null(strstr(owner.message.error.text, "4712"));
	assert_null(strstr(owner.message.error.text, "4713"));
	assert_true(a.slots.is_shut);
	assert_false(a.api.is_shut || b.slots.is_shut || c.slots.is_shut);
	client_leave(&a.slots);
	answer(&b, is_told(&b, fm, 0));	/* its own body is back */
	change(world, fm, 0);
	answer(&b, is_told(&b, fm, 0));
	settle(&owner, fm, 0);
	has_settled(&owner);
	client_leave(&a.api);
	watcher_leave(&b);
	watcher_leave(&c);
	client_leave(&owner);
}

static void whoever_waits_may_leave_but_not_cancel(void **state)
{
	struct world *world = *state;
	struct fake_module *fm = world_module(world, 1000, "m", true, 4);
	struct wire_cancel cancel;
	struct client owner;
	struct watcher a;

	finish(world, fm, 1);
	client_hello(&owner, world, 1000);
	watcher_init(&a, world, 1001, fm, 10);
	watch(&a, fm, 0);
	change(world, fm, 0);
	settle(&owner, fm, 0);
	cancel.serial = owner.serial;
	client_ask(&owner, WIRE_CANCEL, &cancel, WIRE_DONE);
	client_leave(&owner);
	answer(&a, is_told(&a, fm, 0));
	watcher_leave(&a);
}

/* -- Notes about vtable slots --- */
static uint64_t n_slots(struct world *world) { return core_counters(world->fake->core)->n_slots_recorded; }

static void a_note_about_a_slot_patches_it(void **state)
{
	struct world *world = *state;
	struct fake_module *fm = world_module_virtual(world, 1000, "m", false, 4, 2);
	struct wire_slot note = { .module = fm->id, .cell = fake_call_cell(fm, 3), .method = 1 };
	struct client a;

	client_hello(&a, world, 1000);
	fake_call(fm, 1);
	assert_int_equal(client_send(&a, WIRE_SLOT_USED, &note), 0);	/* not final yet */
	assert_int_equal(n_slots(world), 0);
	fake_pass(world->fake, 300);
	fake_calls(fm, 1, FAKE_N);
	assert_true(fake_end(world->fake, fm, 1, TIER_REASON_NONE));
	for (int i = 0; i < 3; i++)
		assert_int_equal(client_send(&a, WIRE_SLOT_USED, &note), 0);
	assert_false(client_has_reply(&a));
	assert_int_equal(n_slots(world), 1);
	assert_int_equal(fake_slot(fm, 3), fm->records[1].entry);
	client_leave(&a);
}

static void a_note_that_is_not_true_does_nothing(void **state)
{
	struct world *world = *state;
	struct fake_module *fm = world_module_virtual(world, 1000, "m", false, 4, 2);
	struct fake_module *foreign = world_module_virtual(world, 1001, "m", false, 4, 2);
	const uint64_t cell = fake_call_cell(fm, 2);
	struct wire_slot notes[] = {
		{ .module = fm->id, .cell = cell, .method = 0 },
		{ .module = fm->id, .cell = cell + 1, .method = 1 },
		{ .module = fm->id, .cell = cell + 8, .method = 1 },	/* a constant between the slots */
		{ .module = fm->id, .cell = UINT64_MAX, .method = UINT32_MAX },
		{ .module = fm->id, .cell = 0, .method = UINT32_MAX },
		{ .module = foreign->id, .cell = fake_call_cell(foreign, 2), .method = 1 },
		{ .module = foreign->id, .cell = cell, .method = 1 },
		{ .module = 99, .cell = cell, .method = 1 },
	};
	struct client a;

	world_finish(world, fm, 1);
	world_finish(world, foreign, 1);
	client_hello(&a, world, 1000);
	for (size_t i = 0; i < ARRAY_SIZE(notes); i++)
		assert_int_equal(client_send(&a, WIRE_SLOT_USED, &notes[i]), 0);
	assert_false(client_has_reply(&a));
	assert_int_equal(n_slots(world), 0);
	client_leave(&a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		WORLD_TEST(a_watched_method_is_told_of_and_no_other),
		WORLD_TEST(who_watches_hears_of_entry_points_and_not_of_stages),
		WORLD_TEST(changes_of_one_method_are_told_one_after_the_other),
		WORLD_TEST(a_lane_that_does_not_answer_is_told_no_more_and_forgets_nothing),
		WORLD_TEST(a_ticket_of_the_future_ends_the_connection),
		WORLD_TEST(a_session_watches_on_one_lane_only),
		WORLD_TEST(only_methods_of_held_modules_are_watched),
		WORLD_TEST(watches_have_a_quota_and_end_with_the_hold),
		cmocka_unit_test(a_process_watches_so_many_methods),
		WORLD_TEST(without_slots_it_has_settled_at_once),
		WORLD_TEST(it_has_settled_when_all_have_answered),
		WORLD_TEST(changes_of_other_methods_do_not_hold_it_up),
		WORLD_TEST(who_has_not_heard_of_faster_code_does_not_hold_it_up),
		WORLD_TEST(who_had_inlined_it_must_be_left_too),
		WORLD_TEST(code_left_one_after_the_other_must_all_be_left),
		WORLD_TEST(what_changes_later_does_not_hold_it_up),
		WORLD_TEST(who_dies_need_not_answer),
		WORLD_TEST(who_never_answers_is_named_and_thrown_out),
		WORLD_TEST(whoever_waits_may_leave_but_not_cancel),
		WORLD_TEST(a_note_about_a_slot_patches_it),
		WORLD_TEST(a_note_that_is_not_true_does_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
