/* SPDX-License-Identifier: Apache-2.0 */
#include "unit/server/world.h"

/* DESCRIBE, HISTORY, RELATED, BYTECODE, LINES */

static void a_method_is_described_to_who_sees_it(void **state)
{
	struct world *world = *state;
	struct fake_module *fm = world_module(world, 1000, "m", false, 4);
	struct wire_method_ref ref = { .module = fm->id, .method = 2 };
	struct client a, other;

	client_hello(&a, world, 1000);
	client_ask(&a, WIRE_DESCRIBE, &ref, WIRE_DESCRIPTION);
	assert_int_equal(a.message.description.module, fm->id);
	assert_int_equal(a.message.description.method, 2);
	assert_int_equal(a.message.description.n_insns, WORLD_INSNS);
	assert_int_equal(a.message.description.flags, WIRE_METHOD_PINNED);
	assert_string_equal(a.message.description.signature, "u64 method_2(u64 a, u64 b)");
	ref.method = 4;
	client_ask_error(&a, WIRE_DESCRIBE, &ref, TIER_ERROR_NO_METHOD);
	ref.method = 0;
	client_hello(&other, world, 1001);
	client_ask_error(&other, WIRE_DESCRIBE, &ref, TIER_ERROR_NO_MODULE);
	client_leave(&a);
	client_leave(&other);
}

static void nothing_is_told_about_modules_of_others(void **state)
{
	struct world *world = *state;
	struct fake_module *fm = world_module(world, 1000, "m", false, 1);
	struct wire_look look = { .module = fm->id };
	struct client other;

	client_hello(&other, world, 1001);
	for (unsigned int type = WIRE_HISTORY; type <= WIRE_LINES; type++)
		client_ask_error(&other, type, &look, TIER_ERROR_NO_MODULE);
	client_leave(&other);
}

static void history_has_every_version_newest_first(void **state)
{
	struct world *world = *state;
	struct fake_module *fm = world_module(world, 1000, "m", false, 2);
	struct wire_look look = { .module = fm->id, .method = 1 };
	const struct wire_version_row *rows;
	struct client a;

	client_hello(&a, world, 1000);
	assert_int_equal(client_ask(&a, WIRE_HISTORY, &look, WIRE_VERSIONS)->versions.n, 0);
	world_finish(world, fm, 1);
	client_ask(&a, WIRE_HISTORY, &look, WIRE_VERSIONS);
	assert_int_equal(a.message.versions.n, 2);
	assert_int_equal(a.message.versions.more, 0);
	rows = a.message.versions.rows;
	assert_int_equal(rows[0].tier, TIER_LEVEL_TIER1);
	assert_int_equal(rows[0].state, TIER_VERSION_LIVE);
	assert_int_equal(rows[0].flags, WIRE_VERSION_ACTIVE);
	assert_true(rows[0].code && rows[0].size && rows[0].published_ns);
	assert_true(rows[0].published_ns == fake_wall(world->fake) / 1000000 * 1000000);
	assert_int_equal(rows[1].tier, TIER_LEVEL_TIER0);
	assert_int_equal(rows[1].flags, 0);
	assert_true(rows[1].stub != 0 && rows[1].version < rows[0].version);
	assert_true(rows[1].published_ns <= rows[0].published_ns);
	look.cursor = rows[0].version;
	client_ask(&a, WIRE_HISTORY, &look, WIRE_VERSIONS);
	assert_int_equal(a.message.versions.n, 1);
	assert_int_equal(a.message.versions.rows[0].tier, TIER_LEVEL_TIER0);
	look.cursor = a.message.versions.rows[0].version;
	assert_int_equal(client_ask(&a, WIRE_HISTORY, &look, WIRE_VERSIONS)->versions.n, 0);
	client_leave(&a);
}

static void a_version_that_failed_has_no_code(void **state)
{
	struct world *world = *state;
	struct fake_module *fm = world_module(world, 1000, "m", false, 1);
	struct wire_look look = { .module = fm->id };
	struct client a;

	fake_call(fm, 0);
	fake_pass(world->fake, 300);
	fake_calls(fm, 0, FAKE_N);
	client_hello(&a, world, 1000);
	client_ask(&a, WIRE_HISTORY, &look, WIRE_VERSIONS);
	assert_int_equal(a.message.versions.rows[0].state, TIER_VERSION_MAKING);
	assert_true(fake_end(world->fake, fm, 0, TIER_REASON_COMPILE_FAILED));
	client_ask(&a, WIRE_HISTORY, &look, WIRE_VERSIONS);
	assert_int_equal(a.message.versions.n, 2);
	assert_int_equal(a.message.versions.rows[0].state, TIER_VERSION_FAILED);
	assert_true(!a.message.versions.rows[0].code && !a.message.versions.rows[0].published_ns);
	assert_int_equal(a.message.versions.rows[1].flags, WIRE_VERSION_ACTIVE);
	client_leave(&a);
}

static void who_was_inlined_comes_in_pages(void **state)
{
	struct world *world = *state;
	struct fake_module *fm = world_module(world, 1000, "m", false, 50);
	struct core_code code = { .address = 0x5000, .size = 64, .code_used = fm->code_used };
	uint32_t inlined[40], n = 0;
	bool seen[50] = { false };
	struct wire_look look = { .module = fm->id, .relation = WIRE_RELATION_INLINED };
	struct wire_look history = { .module = fm->id };
	struct client a;

	for (uint32_t i = 0; i < 40; i++)
		inlined[i] = i + 3;
	fake_call(fm, 0);
	fake_pass(world->fake, 300);
	fake_calls(fm, 0, FAKE_N);
	client_hello(&a, world, 1000);
	look.version = client_ask(&a, WIRE_HISTORY, &history, WIRE_VERSIONS)->versions.rows[0].version;
	core_compile_done(world->fake->core, fm->id, 0, look.version, TIER_REASON_NONE, &(struct core_result){ .code = code, .inlined = inlined, .n_inlined = 40 });
	assert_int_equal(client_ask(&a, WIRE_HISTORY, &history, WIRE_VERSIONS)->versions.rows[0].n_inlined, 40);
	do {
		client_ask(&a, WIRE_RELATED, &look, WIRE_NAMES);
		for (uint32_t i = 0; i < a.message.names.n; i++, n++)
			seen[a.message.names.rows[i].index] = true;
		look.cursor = n;
	} while (a.message.names.more);
	assert_int_equal(n, 40);
	for (uint32_t i = 0; i < 50; i++)
		assert_int_equal(seen[i], i >= 3 && i < 43);
	look.cursor = 0;
	look.version++;
	assert_int_equal(client_ask(&a, WIRE_RELATED, &look, WIRE_NAMES)->names.n, 0);
	look.version = UINT64_MAX;
	assert_int_equal(client_ask(&a, WIRE_RELATED, &look, WIRE_NAMES)->names.n, 0);
	client_leave(&a);
}

static void what_the_image_tells_comes_in_pages(void **state)
{
	struct world *world = *state;
	struct fake_module *fm = world_module(world, 1000, "m", false, 1);
	struct wire_look look = { .module = fm->id, .relation = WIRE_RELATION_TAGS, .cursor = 1 };
	struct client a;

	client_hello(&a, world, 1000);
	client_ask(&a, WIRE_RELATED, &look, WIRE_NAMES);
	assert_int_equal(a.message.names.n, 2);
	assert_string_equal(a.message.names.rows[1].name, "tag 2");
	look = (struct wire_look){ .module = fm->id };
	client_ask(&a, WIRE_BYTECODE, &look, WIRE_INSNS);
	assert_int_equal(a.message.insns.n, WIRE_INSNS_MAX);
	assert_int_equal(a.message.insns.more, 1);
	look.cursor = WIRE_INSNS_MAX;
	client_ask(&a, WIRE_BYTECODE, &look, WIRE_INSNS);
	assert_int_equal(a.message.insns.n, WORLD_INSNS - WIRE_INSNS_MAX);
	assert_int_equal(a.message.insns.insns[0], WIRE_INSNS_MAX);
	assert_int_equal(a.message.insns.more, 0);
	look.cursor = 1;
	client_ask(&a, WIRE_LINES, &look, WIRE_SOURCE);
	assert_int_equal(a.message.source.n, WIRE_LINES_MAX);
	assert_int_equal(a.message.source.rows[0].insn, 2);
	client_leave(&a);
}

static void fields_that_a_request_does_not_use_are_zero(void **state)
{
	const struct { unsigned int type; struct wire_look look; } wrong[] = {
		{ WIRE_HISTORY, { .relation = 1 } },  { WIRE_HISTORY, { .version = 1 } },
		{ WIRE_BYTECODE, { .relation = 1 } }, { WIRE_BYTECODE, { .version = 1 } },
		{ WIRE_LINES, { .relation = 1 } },    { WIRE_LINES, { .version = 1 } },
		{ WIRE_RELATED, { .relation = _WIRE_RELATION_N } },
	};

	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		struct client a;

		client_hello(&a, *state, 1000);
		assert_int_equal(client_send(&a, wrong[i].type, &wrong[i].look), LANE_E_END);
		assert_int_equal(client_read(&a)->error.error, TIER_ERROR_PROTOCOL);
		client_leave(&a);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		WORLD_TEST(a_method_is_described_to_who_sees_it),
		WORLD_TEST(nothing_is_told_about_modules_of_others),
		WORLD_TEST(history_has_every_version_newest_first),
		WORLD_TEST(a_version_that_failed_has_no_code),
		WORLD_TEST(who_was_inlined_comes_in_pages),
		WORLD_TEST(what_the_image_tells_comes_in_pages),
		WORLD_TEST(fields_that_a_request_does_not_use_are_zero),
	};

	log_set_level(LOG_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
