/* SPDX-License-Identifier: Apache-2.0 */
#include "unit/server/world.h"
#include "server/hold.h"

/* ATTACH, DETACH, UNLOAD: who sees a module, who keeps it, when it goes */

static struct wire_module_ref by_id(uint64_t id) { return (struct wire_module_ref){ .module = id }; }
static struct wire_module_ref by_name(const char *name)
{
	struct wire_module_ref ref = {};

	strcpy(ref.name, name);
	return ref;
}

static void detach(struct client *client, uint64_t id)
{
	struct wire_module_ref ref = by_id(id);

	client_ask(client, WIRE_DETACH, &ref, WIRE_DONE);
}

static void unload(struct client *client, uint64_t id)
{
	struct wire_module_ref ref = by_id(id);

	client_ask(client, WIRE_UNLOAD, &ref, WIRE_DONE);
}

static uint32_t holders(struct world *world, uint64_t id)
{
	const struct resident *resident = resident_find(world->server, id);

	return resident ? resident->n_holders : 0;
}

static void attach_hands_out_the_segments_in_order(void **state)
{
	struct world *world = *state;
	struct fake_module *fm = world_module(world, 1000, "m", false, 5);
	struct wire_attach attach = { .ref = by_name("m") };
	struct client a;

	client_hello(&a, world, 1000);
	client_ask(&a, WIRE_ATTACH, &attach, WIRE_MODULE);
	assert_int_equal(a.message.header.n_fds, _TIER_SEGMENT_N);
	assert_memory_equal(a.message.fds, world->fds, sizeof(world->fds));
	assert_int_equal(a.message.module.module, fm->id);
	assert_int_equal(a.message.module.uid, 1000);
	assert_int_equal(a.message.module.flags, 0);
	assert_string_equal(a.message.module.name, "m");
	assert_memory_equal(&a.message.module.layout, &fm->layout, sizeof(fm->layout));
	attach.flags = WIRE_ATTACH_HOLD_ONLY;
	client_ask(&a, WIRE_ATTACH, &attach, WIRE_MODULE);
	assert_int_equal(a.message.header.n_fds, 0);
	assert_int_equal(holders(world, fm->id), 1);
	client_leave(&a);
	assert_int_equal(holders(world, fm->id), 0);
}

static void others_see_shared_modules_only_and_root_all(void **state)
{
	struct world *world = *state;
	struct fake_module *mine = world_module(world, 1000, "m", false, 1);
	struct fake_module *shared = world_module(world, 1000, "s", true, 1);
	struct wire_attach attach = { .ref = by_id(mine->id) };
	struct client other, root;

	client_hello(&other, world, 1001);
	client_hello(&root, world, 0);
	client_ask_error(&other, WIRE_ATTACH, &attach, TIER_ERROR_NO_MODULE);
	attach.ref = by_name("m");
	client_ask_error(&other, WIRE_ATTACH, &attach, TIER_ERROR_NO_MODULE);
	attach.ref = by_name("1000/m");
	client_ask(&root, WIRE_ATTACH, &attach, WIRE_MODULE);
	attach.ref = by_name("1000/s");
	client_ask(&other, WIRE_ATTACH, &attach, WIRE_MODULE);
	assert_int_equal(other.message.module.module, shared->id);
	assert_int_equal(other.message.module.flags, WIRE_MODULE_SHARED);
	client_leave(&other);
	client_leave(&root);
}

static void a_bare_name_is_never_another_users(void **state)
{
	static const char *const no_names[] = { "/m", "1002/", "1002", "1002/m/", "+1002/m", "4294967295/m", "99999999999/m" };
	struct world *world = *state;
	struct fake_module *private = world_module(world, 1002, "m", false, 1);
	struct fake_module *shared = world_module(world, 1000, "m", true, 1);
	struct fake_module *own = world_module(world, 1001, "m", false, 1);
	struct wire_attach attach = { .ref = by_name("m") };
	struct fake_module *roots;
	struct client a, b, root;

	client_hello(&a, world, 1001);
	client_hello(&b, world, 1003);
	client_hello(&root, world, 0);
	assert_int_equal(client_ask(&a, WIRE_ATTACH, &attach, WIRE_MODULE)->module.module, own->id);
	client_ask_error(&b, WIRE_ATTACH, &attach, TIER_ERROR_NO_MODULE);
	client_ask_error(&root, WIRE_ATTACH, &attach, TIER_ERROR_NO_MODULE);
	roots = world_module(world, 0, "m", true, 1);
	assert_int_equal(client_ask(&a, WIRE_ATTACH, &attach, WIRE_MODULE)->module.module, own->id);
	assert_int_equal(client_ask(&b, WIRE_ATTACH, &attach, WIRE_MODULE)->module.module, roots->id);
	attach.ref = by_name("1000/m");
	assert_int_equal(client_ask(&a, WIRE_ATTACH, &attach, WIRE_MODULE)->module.module, shared->id);
	attach.ref = by_name("1002/m");
	client_ask_error(&a, WIRE_ATTACH, &attach, TIER_ERROR_NO_MODULE);
	assert_int_equal(client_ask(&root, WIRE_ATTACH, &attach, WIRE_MODULE)->module.module, private->id);
	for (size_t i = 0; i < ARRAY_SIZE(no_names); i++) {
		attach.ref = by_name(no_names[i]);
		client_ask_error(&root, WIRE_ATTACH, &attach, TIER_ERROR_NO_MODULE);
	}
	attach.ref = (struct wire_module_ref){};
	client_ask_error(&a, WIRE_ATTACH, &attach, TIER_ERROR_ARGUMENT);
	client_leave(&a);
	client_leave(&b);
	client_leave(&root);
}

static void only_the_owner_and_root_unload(void **state)
{
	struct world *world = *state;
	struct fake_module *a = world_module(world, 1000, "a", true, 1), *b = world_module(world, 1000, "b", true, 1);
	struct wire_module_ref ref = by_id(a->id);
	struct client owner, other, root;

	client_hello(&owner, world, 1000);
	client_hello(&other, world, 1001);
	client_hello(&root, world, 0);
	client_ask_error(&other, WIRE_UNLOAD, &ref, TIER_ERROR_DENIED);
	unload(&owner, a->id);
	unload(&root, b->id);
	assert_int_equal(world->n_released, 2);
	client_ask_error(&owner, WIRE_UNLOAD, &ref, TIER_ERROR_NO_MODULE);
	client_leave(&owner);
	client_leave(&other);
	client_leave(&root);
}

static void an_unloaded_module_lives_until_its_last_holder_ends(void **state)
{
	struct world *world = *state;
	struct fake_module *fm = world_module(world, 1000, "m", false, 1);
	struct wire_module_ref ref = by_name("m");
	uint64_t id = fm->id;
	struct client a, b;

	client_hello(&a, world, 1000);
	client_hello(&b, world, 1000);
	client_attach(&a, id);
	client_attach(&b, id);
	assert_int_equal(holders(world, fm->id), 2);
	unload(&a, id);
	client_ask_error(&a, WIRE_ATTACH, &(struct wire_attach){ .ref = ref }, TIER_ERROR_NO_MODULE);
	ref = by_id(id);
	client_ask_error(&a, WIRE_UNLOAD, &ref, TIER_ERROR_NO_MODULE);
	assert_int_equal(client_attach(&b, id)->module.flags, WIRE_MODULE_UNNAMED);	/* by id, as a fork does */
	client_leave(&a);
	assert_int_equal(world->n_released, 0);
	detach(&b, id);
	assert_int_equal(world->n_released, 0);			/* it was attached twice */
	detach(&b, id);
	assert_int_equal(world->n_released, 1);
	assert_null(core_module_by_id(world->fake->core, id));
	client_leave(&b);
}

static void a_detached_module_with_a_name_stays(void **state)
{
	struct world *world = *state;
	struct fake_module *fm = world_module(world, 1000, "m", false, 1);
	struct wire_module_ref ref = by_id(fm->id);
	struct client a;

	client_hello(&a, world, 1000);
	client_ask_error(&a, WIRE_DETACH, &ref, TIER_ERROR_NO_MODULE);
	client_attach(&a, fm->id);
	detach(&a, fm->id);
	client_ask_error(&a, WIRE_DETACH, &ref, TIER_ERROR_NO_MODULE);
	client_leave(&a);
	assert_int_equal(world->n_released, 0);
	assert_non_null(core_module_by_id(world->fake->core, ref.module));
}

/* The client was killed between the decrement and its bell. */
static void a_session_that_ends_has_its_counters_looked_at(void **state)
{
	struct world *world = *state;
	struct fake_module *fm = world_module(world, 1000, "m", false, 1);
	struct client a;

	client_hello(&a, world, 1000);
	client_attach(&a, fm->id);
	fake_call(fm, 0);
	fake_pass(world->fake, 300);
	while (fake_call(fm, 0) != FAKE_CROSSED)
		;
	assert_null(fake_job(world->fake, fm, 0));
	client_leave(&a);
	assert_non_null(fake_job(world->fake, fm, 0));
}

/* Whoever rings and ends at once is not taken for somebody who died on the way to the bell. */
static void what_rang_before_a_session_ended_is_heard_first(void **state)
{
	struct world *world = *state;
	struct fake_module *fm = world_module(world, 1000, "m", false, 1);
	struct core_stats stats;
	struct client a;

	client_hello(&a, world, 1000);
	client_attach(&a, fm->id);
	fake_call(fm, 0);
	fake_pass(world->fake, 300);
	while (fake_call(fm, 0) != FAKE_CROSSED)
		;
	world->bell = fm;
	client_leave(&a);
	core_stats(world->fake->core, &stats);
	assert_int_equal(stats.n_thresholds[TIER_SOURCE_KERNEL], 1);
	assert_int_equal(stats.n_thresholds[TIER_SOURCE_SWEEP], 0);
}

static void who_waits_for_a_module_that_goes_is_told(void **state)
{
	struct world *world = *state;
	struct fake_module *fm = world_module(world, 1000, "m", false, 2);
	struct wire_wait wait = { .module = fm->id, .timeout_ns = UINT64_MAX };
	struct client a, b;

	fake_call(fm, 0);
	fake_call(fm, 1);
	client_hello(&a, world, 1000);
	client_hello(&b, world, 1000);
	assert_int_equal(client_send(&a, WIRE_WAIT, &wait), 0);
	wait.method = 1;
	assert_int_equal(client_send(&a, WIRE_WAIT, &wait), 0);
	unload(&b, fm->id);
	world_settle(world);
	assert_int_equal(client_read(&a)->error.error, TIER_ERROR_NO_MODULE);
	assert_int_equal(client_read(&a)->error.error, TIER_ERROR_NO_MODULE);
	assert_false(client_has_reply(&a));
	client_leave(&a);
	client_leave(&b);
}

/* -- After a takeover --- */
static void a_predecessors_module_outlives_its_last_holder_for_the_grace(void **state)
{
	struct world *world = *state;
	const uint64_t id = world_module(world, 1000, "m", false, 2)->id, deadline = clock_now_ns() + 10000000000u;
	uint64_t later;
	struct client a;

	server_grant_grace(world->server, 100000000);
	later = world_module(world, 1000, "later", false, 2)->id;
	client_hello(&a, world, 1000);
	client_attach(&a, id);
	client_attach(&a, later);
	unload(&a, id);
	unload(&a, later);
	client_leave(&a);
	world_settle(world);
	assert_null(core_module_by_id(world->fake->core, later));	/* nobody else can have held it */
	assert_non_null(core_module_by_id(world->fake->core, id));
	client_hello(&a, world, 1000);		/* somebody else who held it */
	client_attach(&a, id);
	while (world->server->grace) {
		assert_true(clock_now_ns() < deadline);
		assert_int_equal(dispatch_turn(&world->dispatch, 100), 0);
	}
	assert_non_null(core_module_by_id(world->fake->core, id));
	client_leave(&a);
	world_settle(world);
	assert_null(core_module_by_id(world->fake->core, id));
}

static void what_nobody_has_come_back_for_goes_when_the_grace_ends(void **state)
{
	struct world *world = *state;
	const uint64_t unnamed = world_module(world, 1000, "m", false, 2)->id, named = world_module(world, 1000, "n", false, 2)->id;
	const uint64_t deadline = clock_now_ns() + 10000000000u;

	core_module_unname(core_module_by_id(world->fake->core, unnamed));
	server_grant_grace(world->server, 1000000);
	while (core_module_by_id(world->fake->core, unnamed)) {
		assert_true(clock_now_ns() < deadline);
		assert_int_equal(dispatch_turn(&world->dispatch, 100), 0);
	}
	assert_non_null(core_module_by_id(world->fake->core, named));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		WORLD_TEST(attach_hands_out_the_segments_in_order),
		WORLD_TEST(others_see_shared_modules_only_and_root_all),
		WORLD_TEST(a_bare_name_is_never_another_users),
		WORLD_TEST(only_the_owner_and_root_unload),
		WORLD_TEST(an_unloaded_module_lives_until_its_last_holder_ends),
		WORLD_TEST(a_predecessors_module_outlives_its_last_holder_for_the_grace),
		WORLD_TEST(what_nobody_has_come_back_for_goes_when_the_grace_ends),
		WORLD_TEST(a_detached_module_with_a_name_stays),
		WORLD_TEST(a_session_that_ends_has_its_counters_looked_at),
		WORLD_TEST(what_rang_before_a_session_ended_is_heard_first),
		WORLD_TEST(who_waits_for_a_module_that_goes_is_told),
	};

	log_set_level(LOG_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
