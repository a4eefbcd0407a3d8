/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "system/bodies.h"
#include "system/harness.h"
#include "util/base.h"

/* Rejits until the module's code segment is full: what was acknowledged can be called, what is refused changes nothing, and
 * methods that were never called before still can be. Nobody who calls dies. */

#define REJITS_MAX 3000		/* far more than the segment has room for */
#define BODIES 2

struct world {
	struct bodies program;
	char bodies[BODIES][128];	/* objects */
	unsigned int last;		/* the number of the body that the victim has */
};

static void world_start(struct world *world, const char *const *args)
{
	bodies_start(&world->program, args);
	for (unsigned int i = 0; i < BODIES; i++)
		snprintf(world->bodies[i], sizeof(world->bodies[i]), "%s", body_compile(world->program.daemon.folder, "fresh", i + 1));
}

static uint64_t call(const struct tier_method *method, uint64_t x, uint64_t more)
{
	return tier_entry(method)(x, more, 0, 0, 0);
}

/* @call_each: calls of each body */
static void rejit_until_refused(struct world *world, unsigned int call_each)
{
	int r;

	for (unsigned int i = 0; i < REJITS_MAX; i++) {
		r = tier_rejit(world->program.victim, world->bodies[i % BODIES], "fresh", 0);
		if (r) {
			assert_true(i > 0);
			assert_int_equal(r, -ENOSPC);
			assert_non_null(strstr(tier_error_text(), "no room for a body"));
			return;
		}
		world->last = i % BODIES + 1;
		for (unsigned int k = 0; k < call_each; k++)
			assert_int_equal(call(world->program.victim, k, 0), BODY_RESULT(world->last, k));
	}
	fail_msg("the segment never fills");
}

/* Through every way, most of which nobody has called yet */
static void expect_body(struct world *world, unsigned int number)
{
	for (size_t i = 0; i < WAYS; i++)
		for (int k = 0; k < 40; k++)
			assert_int_equal(call(world->program.methods[i], 40 + i, ways[i].more), BODY_RESULT(number, 40 + i));
}

static void the_last_body_that_had_room_goes_on(void **state)
{
	static struct world world;

	world_start(&world, ARGS("--code-size=65536"));
	rejit_until_refused(&world, 1);
	assert_int_equal(call(world.program.victim, 4, 0), BODY_RESULT(world.last, 4));
	assert_int_equal(tier_rejit(world.program.victim, world.bodies[0], "fresh", 0), -ENOSPC);
	expect_body(&world, world.last);
	assert_done(tier_revert(world.program.victim));		/* to a body that nobody ever called */
	expect_body(&world, 0);
	bodies_end(&world.program);
}

static void bodies_that_are_never_called_need_their_room_too(void **state)
{
	static struct world world;

	world_start(&world, ARGS("--code-size=65536"));
	rejit_until_refused(&world, 0);
	expect_body(&world, world.last);
	bodies_end(&world.program);
}

static void promotions_leave_room_for_first_calls(void **state)
{
	static struct world world;

	world_start(&world, ARGS("--code-size=65536", "--call-counting-delay=0"));
	rejit_until_refused(&world, 40);
	expect_body(&world, world.last);
	assert_done(tier_revert(world.program.victim));
	expect_body(&world, 0);
	bodies_end(&world.program);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_last_body_that_had_room_goes_on),
		cmocka_unit_test(bodies_that_are_never_called_need_their_room_too),
		cmocka_unit_test(promotions_leave_room_for_first_calls),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
