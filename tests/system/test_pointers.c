/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "system/bodies.h"
#include "system/harness.h"
#include "util/base.h"

/* A method has one address for its life: pointers to it, wherever they were taken or copied to, are equal at every tier,
 * before and after a rejit, and every call through one runs the current body, with the daemon alive and with it killed. */

struct world {
	struct bodies program;
	struct tier_method *equal, *address, *watch;
};

/* Where a program may keep a pointer */
struct kept {
	struct { int before; tier_fn fn; } in_struct;
	tier_fn *on_heap, registered;
};

static void world_start(struct world *world, const char *const *args)
{
	bodies_start(&world->program, args);
	assert_done(tier_find(world->program.module, "pointers_are_equal", &world->equal));
	assert_done(tier_find(world->program.module, "address_of", &world->address));
	assert_done(tier_find(world->program.module, "watch", &world->watch));
}

static void keep(struct kept *kept, const struct world *world)
{
	kept->in_struct.fn = tier_entry(world->program.victim);
	kept->on_heap = malloc(sizeof(*kept->on_heap));
	assert_non_null(kept->on_heap);
	*kept->on_heap = (tier_fn)(uintptr_t)tier_entry(world->address)(0, 0, 0, 0, 0);
	assert_done(tier_slot_register(world->program.victim, &kept->registered));
}

static void expect(const struct world *world, const struct kept *kept, unsigned int body)
{
	const uint64_t address = (uintptr_t)tier_entry(world->program.victim);

	assert_true(kept->in_struct.fn == tier_entry(world->program.victim) && *kept->on_heap == kept->in_struct.fn);
	assert_int_equal(tier_entry(world->address)(0, 0, 0, 0, 0), address);
	assert_int_equal(tier_entry(world->address)(1, 0, 0, 0, 0), address);
	assert_int_equal(tier_entry(world->equal)(0, 0, 0, 0, 0), POINTERS_EQUAL);
	assert_int_equal(kept->in_struct.fn(3, 0, 0, 0, 0), BODY_RESULT(body, 3));
	assert_int_equal((*kept->on_heap)(4, 0, 0, 0, 0), BODY_RESULT(body, 4));
	assert_int_equal(kept->registered(5, 0, 0, 0, 0), BODY_RESULT(body, 5));
	for (size_t i = 0; i < WAYS; i++)
		assert_int_equal(tier_entry(world->program.methods[i])(i, ways[i].more, 0, 0, 0), BODY_RESULT(body, i));
}

static void climb_all(const struct world *world)
{
	climb(world->equal, NULL);
	climb(world->address, NULL);
	for (size_t i = 0; i < WAYS; i++)
		climb(world->program.methods[i], (const uint64_t[5]){ 1, ways[i].more });
}

static void pointers_are_equal_and_follow_at_every_tier(void **state)
{
	struct world world;
	struct kept kept;

	world_start(&world, ARGS("--call-counting-delay=0"));
	keep(&kept, &world);
	expect(&world, &kept, 0);	/* cold and Tier0 */
	climb_all(&world);
	expect(&world, &kept, 0);	/* Tier1 */
	for (unsigned int body = 1; body < 4; body++) {
		assert_done(tier_rejit(world.program.victim, body_compile(world.program.daemon.folder, "fresh", body), "fresh", 0));
		expect(&world, &kept, body);
		if (body & 1)
			climb_all(&world);
		expect(&world, &kept, body);
	}
	assert_done(tier_revert(world.program.victim));
	expect(&world, &kept, 0);
	assert_done(tier_slot_unregister(world.program.victim, &kept.registered));
	assert_true(kept.registered == tier_entry(world.program.victim));
	free(kept.on_heap);
	bodies_end(&world.program);
}

static void they_do_so_when_the_daemon_is_killed(void **state)
{
	for (unsigned int body = 0; body < 2; body++) {
		for (unsigned int climbs = 0; climbs < 2; climbs++) {
			struct world world;
			struct kept kept;

			world_start(&world, ARGS("--call-counting-delay=0"));
			keep(&kept, &world);
			expect(&world, &kept, 0);
			if (body)
				assert_done(tier_rejit(world.program.victim, body_compile(world.program.daemon.folder, "fresh", body), "fresh", 0));
			expect(&world, &kept, body);
			if (climbs)
				climb_all(&world);
			daemon_kill(&world.program.daemon);
			for (unsigned int i = 0; i < 100; i++)	/* over thresholds too: nobody is there to hear */
				expect(&world, &kept, body);
			free(kept.on_heap);
			bodies_end(&world.program);
		}
	}
}

/* A final method whose slots nobody came through while the daemon lived is still reached through them. */
static void slots_that_nobody_patched_lead_to_the_code_without_a_daemon(void **state)
{
	struct world world;

	world_start(&world, ARGS("--call-counting-delay=0"));
	for (size_t i = 0; i < WAYS; i++)
		tier_entry(world.program.methods[i])(i, ways[i].more, 0, 0, 0);
	climb(world.program.victim, NULL);
	daemon_kill(&world.program.daemon);
	for (unsigned int round = 0; round < 5; round++)
		for (size_t i = 0; i < WAYS; i++)
			assert_int_equal(tier_entry(world.program.methods[i])(i, ways[i].more, 0, 0, 0), BODY_RESULT(0, i));
	bodies_end(&world.program);
}

/* -- A pointer in a register --- */
struct watched {
	const struct world *world;
	volatile uint64_t memory[2];	/* stop, result */
};

static void *watch(void *context)
{
	struct watched *watched = context;

	return (void *)(uintptr_t)tier_entry(watched->world->watch)((uintptr_t)watched->memory, 0, 0, 0, 0);
}

static void a_pointer_held_in_a_register_follows(void **state)
{
	struct world world;
	struct watched watched = { .world = &world };
	pthread_t thread;
	void *result;

	world_start(&world, ARGS("--call-counting-delay=0"));
	assert_int_equal(pthread_create(&thread, NULL, watch, &watched), 0);
	wait_until("the loop runs", watched.memory[1] == BODY_RESULT(0, 1));
	for (unsigned int body = 1; body < 9; body++) {
		assert_done(tier_rejit(world.program.victim, body_compile(world.program.daemon.folder, "fresh", body), "fresh", 0));
		wait_until("the loop runs the new body", watched.memory[1] == BODY_RESULT(body, 1));
	}
	assert_done(tier_revert(world.program.victim));
	wait_until("the loop runs its own body", watched.memory[1] == BODY_RESULT(0, 1));
	watched.memory[0] = 1;
	assert_int_equal(pthread_join(thread, &result), 0);
	assert_int_equal((uintptr_t)result, BODY_RESULT(0, 1));
	bodies_end(&world.program);
}

/* -- Slots of the host --- */
static void a_registered_slot_gets_the_final_code_and_loses_it(void **state)
{
	struct world world;
	tier_fn slot = NULL, entry;

	world_start(&world, ARGS("--call-counting-delay=0"));
	entry = tier_entry(world.program.victim);
	assert_done(tier_slot_register(world.program.victim, &slot));
	assert_true(slot == entry);
	assert_int_equal(tier_slot_register(world.program.victim, &slot), -EINVAL);
	assert_int_equal(tier_slot_register(world.program.victim, (tier_fn *)((char *)&slot + 4)), -EINVAL);
	climb(world.program.victim, NULL);
	wait_until("the slot holds the code", __atomic_load_n(&slot, __ATOMIC_ACQUIRE) != entry);
	assert_int_equal(slot(2, 0, 0, 0, 0), BODY_RESULT(0, 2));
	assert_done(tier_rejit(world.program.victim, body_compile(world.program.daemon.folder, "fresh", 1), "fresh", 0));
	assert_true(slot == entry);	/* before the acknowledgement, not some time after */
	assert_int_equal(slot(2, 0, 0, 0, 0), BODY_RESULT(1, 2));
	assert_done(tier_revert(world.program.victim));
	wait_until("the slot holds its own code again", __atomic_load_n(&slot, __ATOMIC_ACQUIRE) != entry);
	assert_int_equal(slot(2, 0, 0, 0, 0), BODY_RESULT(0, 2));
	assert_done(tier_slot_unregister(world.program.victim, &slot));
	assert_true(slot == entry);
	assert_int_equal(tier_slot_unregister(world.program.victim, &slot), -ENOENT);
	bodies_end(&world.program);
}

static tier_fn inherited;

static void forked(void *context)
{
	const struct world *world = context;

	child_assert(inherited == tier_entry(world->program.victim));
	child_assert(inherited(6, 0, 0, 0, 0) == BODY_RESULT(0, 6));
}

static void a_fork_does_not_keep_its_parents_slots(void **state)
{
	struct world world;

	world_start(&world, ARGS("--call-counting-delay=0"));
	assert_done(tier_slot_register(world.program.victim, &inherited));
	climb(world.program.victim, NULL);
	wait_until("the slot holds the code", __atomic_load_n(&inherited, __ATOMIC_ACQUIRE) != tier_entry(world.program.victim));
	child_end(child_start(forked, &world));
	assert_true(inherited != tier_entry(world.program.victim));
	bodies_end(&world.program);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pointers_are_equal_and_follow_at_every_tier),
		cmocka_unit_test(they_do_so_when_the_daemon_is_killed),
		cmocka_unit_test(slots_that_nobody_patched_lead_to_the_code_without_a_daemon),
		cmocka_unit_test(a_pointer_held_in_a_register_follows),
		cmocka_unit_test(a_registered_slot_gets_the_final_code_and_loses_it),
		cmocka_unit_test(a_fork_does_not_keep_its_parents_slots),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
