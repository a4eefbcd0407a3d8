/* SPDX-License-Identifier: Apache-2.0 */
#include "unit/server/world.h"

/* FREEZE, THAW and MARK: who may, when it is answered, and what ends it */

static struct wire_module_ref ref_of(const struct fake_module *fm)
{
	return (struct wire_module_ref){ .module = fm->id };
}

/* The method is called up to its threshold: it is queued, or being compiled. */
static void reach(struct world *world, struct fake_module *fm, uint32_t method)
{
	fake_call(fm, method);
	fake_pass(world->fake, 300);
	fake_calls(fm, method, FAKE_N);
}

static void a_quiet_module_is_frozen_at_once(void **state)
{
	struct world *world = *state;
	struct fake_module *fm = world_module(world, 1000, "m", false, 2);
	const struct wire_module_ref ref = ref_of(fm), named = { .name = "m" };
	struct wire_method_ref method = { .module = fm->id };
	struct client a;

	client_hello(&a, world, 1000);
	client_ask(&a, WIRE_FREEZE, &named, WIRE_DONE);
	assert_true(core_is_frozen(fm->module));
	client_ask(&a, WIRE_FREEZE, &ref, WIRE_DONE);		/* once per session */
	reach(world, fm, 0);
	assert_null(fake_job(world->fake, fm, 0));
	assert_true(client_ask(&a, WIRE_STATUS, &method, WIRE_ANSWER)->answer.is_frozen);
	assert_int_equal(a.message.answer.stage, TIER_STAGE_QUEUED);
	client_ask(&a, WIRE_THAW, &ref, WIRE_DONE);
	assert_false(core_is_frozen(fm->module));
	assert_non_null(fake_job(world->fake, fm, 0));
	client_ask_error(&a, WIRE_THAW, &ref, TIER_ERROR_ARGUMENT);
	assert_false(client_ask(&a, WIRE_STATUS, &method, WIRE_ANSWER)->answer.is_frozen);
	client_leave(&a);
}

static void a_freeze_waits_for_what_is_being_compiled(void **state)
{
	struct world *world = *state;
	struct fake_module *fm = world_module(world, 1000, "m", false, 2);
	const struct wire_module_ref ref = ref_of(fm);
	struct client a;

	client_hello(&a, world, 1000);
	reach(world, fm, 0);
	assert_int_equal(core_n_compiling(fm->module), 1);
	assert_int_equal(client_send(&a, WIRE_FREEZE, &ref), 0);
	world_settle(world);
	assert_false(client_has_reply(&a));
	fake_end(world->fake, fm, 0, TIER_REASON_NONE);
	assert_false(client_has_reply(&a));			/* never from inside the core */
	world_settle(world);
	assert_int_equal(client_read(&a)->header.type, WIRE_DONE);
	assert_int_equal(a.message.header.serial, a.serial);
	client_leave(&a);
}

static void a_thaw_cancels_the_freeze_that_waits(void **state)
{
	struct world *world = *state;
	struct fake_module *fm = world_module(world, 1000, "m", false, 2);
	const struct wire_module_ref ref = ref_of(fm);
	struct wire_cancel cancel = {};
	struct client a;

	client_hello(&a, world, 1000);
	reach(world, fm, 0);
	assert_int_equal(client_send(&a, WIRE_FREEZE, &ref), 0);
	cancel.serial = a.serial;
	client_ask(&a, WIRE_CANCEL, &cancel, WIRE_DONE);	/* that is what THAW is for */
	assert_int_equal(client_send(&a, WIRE_THAW, &ref), 0);
	assert_int_equal(client_read(&a)->header.serial, cancel.serial);
	assert_int_equal(a.message.error.error, TIER_ERROR_CANCELED);
	assert_int_equal(client_read(&a)->header.type, WIRE_DONE);
	assert_false(core_is_frozen(fm->module));
	fake_end(world->fake, fm, 0, TIER_REASON_NONE);
	world_settle(world);
	assert_false(client_has_reply(&a));
	client_leave(&a);
}

static void a_module_that_goes_ends_the_freeze_that_waits(void **state)
{
	struct world *world = *state;
	struct fake_module *fm = world_module(world, 1000, "m", false, 2);
	const struct wire_module_ref ref = ref_of(fm);
	struct client a;

	client_hello(&a, world, 1000);
	reach(world, fm, 0);
	assert_int_equal(client_send(&a, WIRE_FREEZE, &ref), 0);
	client_ask(&a, WIRE_UNLOAD, &ref, WIRE_DONE);
	assert_int_equal(world->n_released, 0);			/* the freeze holds it */
	assert_int_equal(client_send(&a, WIRE_THAW, &ref), 0);
	assert_int_equal(client_read(&a)->error.error, TIER_ERROR_CANCELED);
	assert_int_equal(client_read(&a)->header.type, WIRE_DONE);
	assert_int_equal(world->n_released, 1);
	client_ask_error(&a, WIRE_FREEZE, &ref, TIER_ERROR_NO_MODULE);
	client_leave(&a);
}

static void several_freeze_and_the_last_thaws(void **state)
{
	struct world *world = *state;
	struct fake_module *fm = world_module(world, 1000, "m", false, 2);
	const struct wire_module_ref ref = ref_of(fm);
	struct client a, root;

	client_hello(&a, world, 1000);
	client_hello(&root, world, 0);
	client_ask(&a, WIRE_FREEZE, &ref, WIRE_DONE);
	client_ask(&root, WIRE_FREEZE, &ref, WIRE_DONE);
	client_ask(&a, WIRE_THAW, &ref, WIRE_DONE);
	assert_true(core_is_frozen(fm->module));
	client_leave(&root);					/* its session ends */
	assert_false(core_is_frozen(fm->module));
	client_leave(&a);
}

static void the_last_detach_thaws(void **state)
{
	struct world *world = *state;
	struct fake_module *fm = world_module(world, 1000, "m", false, 2);
	const struct wire_module_ref ref = ref_of(fm);
	struct client a;

	client_hello(&a, world, 1000);
	client_ask(&a, WIRE_FREEZE, &ref, WIRE_DONE);
	client_ask_error(&a, WIRE_DETACH, &ref, TIER_ERROR_NO_MODULE);	/* the freeze's hold is its own */
	client_attach(&a, fm->id);
	client_attach(&a, fm->id);
	client_ask(&a, WIRE_DETACH, &ref, WIRE_DONE);
	assert_true(core_is_frozen(fm->module));
	client_ask(&a, WIRE_DETACH, &ref, WIRE_DONE);
	assert_false(core_is_frozen(fm->module));
	client_attach(&a, fm->id);
	client_ask(&a, WIRE_FREEZE, &ref, WIRE_DONE);
	client_ask(&a, WIRE_THAW, &ref, WIRE_DONE);
	client_ask(&a, WIRE_DETACH, &ref, WIRE_DONE);		/* a THAW leaves the others */
	client_leave(&a);
}

static void only_the_owner_and_root_freeze(void **state)
{
	struct world *world = *state;
	struct fake_module *fm = world_module(world, 1000, "m", true, 2), *own = world_module(world, 1000, "own", false, 2);
	const struct wire_module_ref ref = ref_of(fm), hidden = ref_of(own), nothing = {};
	struct client stranger;

	client_hello(&stranger, world, 1001);
	client_ask_error(&stranger, WIRE_FREEZE, &ref, TIER_ERROR_DENIED);
	assert_non_null(strstr(stranger.message.error.text, "'m' belongs to user 1000"));
	client_ask_error(&stranger, WIRE_THAW, &ref, TIER_ERROR_DENIED);
	client_ask_error(&stranger, WIRE_FREEZE, &hidden, TIER_ERROR_NO_MODULE);
	client_ask_error(&stranger, WIRE_FREEZE, &nothing, TIER_ERROR_ARGUMENT);
	client_ask_error(&stranger, WIRE_MARK, &hidden, TIER_ERROR_NO_MODULE);
	client_ask(&stranger, WIRE_MARK, &ref, WIRE_MARKED);
	assert_false(core_is_frozen(fm->module) || core_is_frozen(own->module));
	client_leave(&stranger);
}

static void a_freeze_too_many_waits_leaves_nothing(void **state)
{
	struct world *world = *state;
	struct fake_module *fm = world_module(world, 1000, "m", false, 2);
	const struct wire_module_ref ref = ref_of(fm);
	struct client a;

	client_hello(&a, world, 1000);
	reach(world, fm, 0);
	world->server->config.waits_per_session = 0;
	client_ask_error(&a, WIRE_FREEZE, &ref, TIER_ERROR_QUOTA);
	assert_false(core_is_frozen(fm->module));
	assert_int_equal(a.lane.session->n_holds, 0);
	client_leave(&a);
}

/* A first call may be compiled in a freeze; then a second FREEZE waits. */
static void a_refused_second_freeze_leaves_the_first(void **state)
{
	struct world *world = *state;
	struct fake_module *fm = world_module(world, 1000, "m", false, 2);
	const struct wire_module_ref ref = ref_of(fm);
	struct client a;

	client_hello(&a, world, 1000);
	reach(world, fm, 0);
	assert_int_equal(client_send(&a, WIRE_FREEZE, &ref), 0);
	world->server->config.waits_per_session = 1;
	client_ask_error(&a, WIRE_FREEZE, &ref, TIER_ERROR_QUOTA);
	assert_true(core_is_frozen(fm->module));
	assert_int_equal(a.lane.session->n_holds, 1);
	fake_end(world->fake, fm, 0, TIER_REASON_NONE);
	world_settle(world);
	assert_int_equal(client_read(&a)->header.type, WIRE_DONE);
	client_ask(&a, WIRE_THAW, &ref, WIRE_DONE);
	client_leave(&a);
}

static void a_mark_moves_with_each_change(void **state)
{
	struct world *world = *state;
	struct fake_module *fm = world_module(world, 1000, "m", false, 2);
	const struct wire_module_ref ref = ref_of(fm);
	struct wire_mark before;
	struct client a;

	client_hello(&a, world, 1000);
	before = client_ask(&a, WIRE_MARK, &ref, WIRE_MARKED)->mark;
	assert_int_equal(before.changes % 2, 0);
	assert_true(client_ask(&a, WIRE_MARK, &ref, WIRE_MARKED)->mark.changes == before.changes);
	fake_call(fm, 0);
	assert_true(client_ask(&a, WIRE_MARK, &ref, WIRE_MARKED)->mark.changes > before.changes);
	fake_pass(world->fake, 300);
	fake_calls(fm, 0, FAKE_N);
	assert_int_equal(client_ask(&a, WIRE_MARK, &ref, WIRE_MARKED)->mark.n_compiling, 1);
	fake_end(world->fake, fm, 0, TIER_REASON_NONE);
	client_ask(&a, WIRE_FREEZE, &ref, WIRE_DONE);
	assert_int_equal(client_ask(&a, WIRE_MARK, &ref, WIRE_MARKED)->mark.is_frozen, 1);
	assert_int_equal(a.message.mark.n_compiling, 0);
	client_leave(&a);
}

static void knobs_come_in_pages(void **state)
{
	struct wire_cursor cursor = {};
	struct client a;

	client_hello(&a, *state, 1000);
	client_ask(&a, WIRE_KNOBS, &cursor, WIRE_SETTINGS);
	assert_int_equal(a.message.knobs.n, WIRE_KNOBS_MAX);
	assert_int_equal(a.message.knobs.more, 1);
	cursor.cursor = WIRE_KNOBS_MAX;
	client_ask(&a, WIRE_KNOBS, &cursor, WIRE_SETTINGS);
	assert_string_equal(a.message.knobs.rows[0].name, "knob-24");
	assert_int_equal(a.message.knobs.more, 0);
	client_leave(&a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		WORLD_TEST(a_quiet_module_is_frozen_at_once),
		WORLD_TEST(a_freeze_waits_for_what_is_being_compiled),
		WORLD_TEST(a_thaw_cancels_the_freeze_that_waits),
		WORLD_TEST(a_module_that_goes_ends_the_freeze_that_waits),
		WORLD_TEST(several_freeze_and_the_last_thaws),
		WORLD_TEST(the_last_detach_thaws),
		WORLD_TEST(only_the_owner_and_root_freeze),
		WORLD_TEST(a_freeze_too_many_waits_leaves_nothing),
		WORLD_TEST(a_refused_second_freeze_leaves_the_first),
		WORLD_TEST(a_mark_moves_with_each_change),
		WORLD_TEST(knobs_come_in_pages),
	};

	log_set_level(LOG_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
