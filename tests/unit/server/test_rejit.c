/* SPDX-License-Identifier: Apache-2.0 */
#include "unit/server/world.h"

/* REJIT and REVERT: who may, what may come along, who learns how it ended; and COUNTERS */

#define SEALS (F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW)

static int object(off_t size, int seals)
{
	int fd = memfd_create("object", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	assert_int_equal(ftruncate(fd, size), 0);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, seals), 0);
	return fd;
}

static struct wire_rejit rejit_of(const struct fake_module *fm, uint32_t method)
{
	return (struct wire_rejit){ .module = fm->id, .method = method, .symbol = "other" };
}

static void rejit_begins(struct client *client, const struct wire_rejit *rejit)
{
	client->world->load = NULL;
	client->fd_to_send = object(100, SEALS);
	assert_int_equal(client_send(client, WIRE_REJIT, rejit), 0);
	assert_false(client_has_reply(client));
	assert_non_null(client->world->load);
}

static void rejit_fails(struct client *client, const struct wire_rejit *rejit, int fd, enum tier_error error)
{
	client->fd_to_send = fd;
	client_ask_error(client, WIRE_REJIT, rejit, error);
}

static void a_rejit_ends_with_done(void **state)
{
	struct world *world = *state;
	struct fake_module *fm = world_module(world, 1000, "m", false, 4);
	struct wire_rejit rejit = rejit_of(fm, 3);
	struct client a;
	uint32_t n = count_fds();

	client_hello(&a, world, 1000);
	rejit.flags = WIRE_REJIT_FORCE;
	rejit_begins(&a, &rejit);
	assert_int_equal(world->rejit.method, 3);
	assert_true(world->rejit.force);
	assert_string_equal(world->rejit.symbol, "other");
	assert_int_equal(world->load_n, 100);
	assert_true(fcntl(world->load_fd, F_GETFD) >= 0);
	server_loaded(world->load, fm->module, TIER_ERROR_NONE, NULL);
	assert_int_equal(client_read(&a)->header.type, WIRE_DONE);
	assert_int_equal(a.message.header.serial, a.serial);
	assert_int_equal(count_fds(), n);
	client_leave(&a);
}

static void a_rejit_that_fails_says_why(void **state)
{
	struct world *world = *state;
	struct fake_module *fm = world_module(world, 1000, "m", false, 4);
	struct wire_rejit rejit = rejit_of(fm, 0);
	struct client a;

	client_hello(&a, world, 1000);
	rejit_begins(&a, &rejit);
	server_loaded(world->load, NULL, TIER_ERROR_SIGNATURE, "u64 other(u64) is not u64 method_0(u64, u64)");
	assert_int_equal(client_read(&a)->error.error, TIER_ERROR_SIGNATURE);
	assert_non_null(strstr(a.message.error.text, "is not"));
	rejit_begins(&a, &rejit);
	server_loaded(world->load, NULL, TIER_ERROR_UNBOUND, NULL);
	assert_int_equal(client_read(&a)->error.error, TIER_ERROR_UNBOUND);
	world->load_result = TIER_ERROR_WORKER;
	rejit_fails(&a, &rejit, object(100, SEALS), TIER_ERROR_WORKER);
	client_leave(&a);
}

static void the_owner_and_root_may_and_nobody_else(void **state)
{
	struct world *world = *state;
	struct fake_module *fm = world_module(world, 1000, "m", true, 4);
	struct wire_rejit rejit = rejit_of(fm, 0);
	struct wire_method_ref ref = { .module = fm->id };
	struct client stranger, root;

	client_hello(&stranger, world, 1001);
	client_hello(&root, world, 0);
	rejit_fails(&stranger, &rejit, object(100, SEALS), TIER_ERROR_DENIED);
	client_ask_error(&stranger, WIRE_REVERT, &ref, TIER_ERROR_DENIED);
	rejit_begins(&root, &rejit);
	server_loaded(world->load, fm->module, TIER_ERROR_NONE, NULL);
	assert_int_equal(client_read(&root)->header.type, WIRE_DONE);
	client_ask(&root, WIRE_REVERT, &ref, WIRE_DONE);
	client_leave(&stranger);
	client_leave(&root);
}

static void what_is_asked_for_must_make_sense(void **state)
{
	struct world *world = *state;
	struct fake_module *fm = world_module(world, 1000, "m", false, 4);
	struct wire_rejit rejit = rejit_of(fm, 4);
	struct wire_method_ref ref = { .module = fm->id, .method = 4 };
	struct client a;

	client_hello(&a, world, 1000);
	rejit_fails(&a, &rejit, object(100, SEALS), TIER_ERROR_NO_METHOD);
	client_ask_error(&a, WIRE_REVERT, &ref, TIER_ERROR_NO_METHOD);
	rejit.method = 0;
	rejit_fails(&a, &rejit, object(100, F_SEAL_SHRINK), TIER_ERROR_ARGUMENT);
	rejit_fails(&a, &rejit, object(0, SEALS), TIER_ERROR_BAD_MODULE);
	rejit_fails(&a, &rejit, object(4097, SEALS), TIER_ERROR_QUOTA);
	rejit.module = 99;
	rejit_fails(&a, &rejit, object(100, SEALS), TIER_ERROR_NO_MODULE);
	rejit = rejit_of(fm, 0);
	rejit.flags = 2;
	a.fd_to_send = object(100, SEALS);
	assert_int_equal(client_send(&a, WIRE_REJIT, &rejit), LANE_E_END);
	client_leave(&a);
}

static void rejits_count_as_loads_under_way(void **state)
{
	struct world *world = *state;
	struct fake_module *fm = world_module(world, 1000, "m", false, 4);
	struct wire_rejit rejit = rejit_of(fm, 0);
	struct server_load *first;
	struct client a;

	client_hello(&a, world, 1000);
	rejit_begins(&a, &rejit);
	first = world->load;
	rejit_begins(&a, &rejit);
	rejit_fails(&a, &rejit, object(100, SEALS), TIER_ERROR_QUOTA);
	server_loaded(first, fm->module, TIER_ERROR_NONE, NULL);
	assert_int_equal(client_read(&a)->header.serial, a.serial - 2);
	server_loaded(world->load, fm->module, TIER_ERROR_NONE, NULL);
	assert_int_equal(client_read(&a)->header.serial, a.serial - 1);
	client_leave(&a);
}

static void a_rejit_ends_with_its_client(void **state)
{
	struct world *world = *state;
	struct fake_module *fm = world_module(world, 1000, "m", false, 4);
	struct wire_rejit rejit = rejit_of(fm, 0);
	struct client a;

	client_hello(&a, world, 1000);
	rejit_begins(&a, &rejit);
	client_leave(&a);
	assert_int_equal(world->n_canceled, 1);
	server_loaded(world->load, NULL, TIER_ERROR_CANCELED, NULL);	/* nobody is told */
	client_hello(&a, world, 1000);
	rejit_begins(&a, &rejit);
	client_leave(&a);
	server_loaded(world->load, fm->module, TIER_ERROR_NONE, NULL);	/* it came too late to be stopped */
}

/* The answer waits for slots as REVERT's does. */
static void a_rejit_waits_for_slots(void **state)
{
	struct world *world = *state;
	struct fake_module *fm = world_module(world, 1000, "m", false, 4);
	struct wire_rejit rejit = rejit_of(fm, 0);
	struct wire_method_ref ref = { .module = fm->id };
	struct client a, slots;

	client_hello(&a, world, 1000);
	client_join_as(&slots, &a, WIRE_LANE_SLOTS);
	client_attach(&a, fm->id);
	world_finish(world, fm, 0);
	client_ask(&slots, WIRE_SLOT_WATCH, &ref, WIRE_DONE);
	rejit_begins(&a, &rejit);
	assert_int_equal(core_rejit(fm->module, 0, 1), 0);
	server_loaded(world->load, fm->module, TIER_ERROR_NONE, NULL);
	world_settle(world);
	assert_false(client_has_reply(&a));
	assert_int_equal(client_read(&slots)->header.type, WIRE_SLOT_CHANGED);
	client_send(&slots, WIRE_SLOT_DONE, &slots.message.change);
	assert_int_equal(client_read(&a)->header.type, WIRE_DONE);
	client_leave(&slots);
	client_leave(&a);
}

/* So many that the core takes several turns to withdraw them */
#define INLINERS 200u

static struct fake_module *replaced_module(struct world *world)
{
	struct fake_module *fm = world_module(world, 1000, "m", false, INLINERS + 1);

	for (uint32_t i = 1; i < ARRAY_SIZE(fm->inlines); i++)
		fm->inlines[i] = 1;
	assert_int_equal(core_rejit(fm->module, 0, 1), 0);
	for (uint32_t i = 1; i <= INLINERS; i++)
		world_finish(world, fm, i);
	return fm;
}

static void a_revert_that_takes_several_turns_ends_with_done(void **state)
{
	struct world *world = *state;
	struct fake_module *fm = replaced_module(world);
	struct wire_method_ref ref = { .module = fm->id };
	struct client a;

	client_hello(&a, world, 1000);
	client_send(&a, WIRE_REVERT, &ref);
	assert_false(client_has_reply(&a));
	assert_int_equal(core_method_body(fm->module, 0), 1);
	client_send(&a, WIRE_CANCEL, &(struct wire_cancel){ .serial = a.serial });
	assert_int_equal(client_read(&a)->header.type, WIRE_DONE);	/* of the CANCEL, which does not concern it */
	while (!client_has_reply(&a))
		dispatch_turn(&world->dispatch, 0);
	assert_int_equal(client_read(&a)->header.type, WIRE_DONE);
	assert_int_equal(core_method_body(fm->module, 0), 0);
	client_leave(&a);
}

static void a_revert_ends_with_its_module_or_its_client(void **state)
{
	struct world *world = *state;
	struct fake_module *fm = replaced_module(world);
	struct wire_method_ref ref = { .module = fm->id };
	struct wire_module_ref module = { .module = fm->id };
	struct client a, b;

	client_hello(&a, world, 1000);
	client_hello(&b, world, 1000);
	client_send(&b, WIRE_REVERT, &ref);
	client_leave(&b);
	client_send(&a, WIRE_REVERT, &ref);
	assert_false(client_has_reply(&a));
	client_hello(&b, world, 1000);
	client_ask(&b, WIRE_UNLOAD, &module, WIRE_DONE);
	while (!client_has_reply(&a))
		dispatch_turn(&world->dispatch, 0);
	assert_int_equal(client_read(&a)->header.type, WIRE_ERROR);
	assert_int_equal(a.message.error.error, TIER_ERROR_NO_MODULE);
	client_leave(&b);
	client_leave(&a);
}

static void counters_are_the_cores_and_the_clients(void **state)
{
	struct world *world = *state;
	const struct core_counters *core = core_counters(world->fake->core);
	struct wire_empty nothing = {};
	struct fake_module *fm;
	struct client a;

	fm = world_module(world, 1000, "m", false, 4);
	world_finish(world, fm, 1);
	client_hello(&a, world, 1000);
	client_ask(&a, WIRE_COUNTERS, &nothing, WIRE_COUNTED);
	assert_int_equal(a.message.counters.policy, TIER_BACKPATCH_LAZY);
	assert_int_equal(a.message.counters.n_visits[TIER_VISIT_COLD], 77);
	assert_int_equal(a.message.counters.n_precode_stores, core->n_precode_stores);
	assert_int_equal(a.message.counters.n_rejits, core->n_rejits);
	assert_memory_equal(a.message.counters.n_paths, core->n_paths, sizeof(core->n_paths));
	client_leave(&a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		WORLD_TEST(a_rejit_ends_with_done),
		WORLD_TEST(a_revert_that_takes_several_turns_ends_with_done),
		WORLD_TEST(a_revert_ends_with_its_module_or_its_client),
		WORLD_TEST(a_rejit_that_fails_says_why),
		WORLD_TEST(the_owner_and_root_may_and_nobody_else),
		WORLD_TEST(what_is_asked_for_must_make_sense),
		WORLD_TEST(rejits_count_as_loads_under_way),
		WORLD_TEST(a_rejit_ends_with_its_client),
		WORLD_TEST(a_rejit_waits_for_slots),
		WORLD_TEST(counters_are_the_cores_and_the_clients),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
