/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "system/bodies.h"
#include "system/harness.h"
#include "util/base.h"

/* ReJIT and revert: whatever the method is doing and however it is reached, calls that begin after the acknowledgement run
 * the new body, in this process and in others; the new body climbs the whole ladder; its own body comes back as it was. */

struct world {
	struct bodies program;
	tier_fn slot;		/* registered for victim */
};

static void world_start(struct world *world, const char *const *args)
{
	bodies_start(&world->program, args);
	assert_done(tier_slot_register(world->program.victim, &world->slot));
}

static uint64_t call(const struct tier_method *method, uint64_t x, uint64_t more)
{
	return tier_entry(method)(x, more, 0, 0, 0);
}

static void rejit_to(struct world *world, unsigned int number)
{
	assert_done(tier_rejit(world->program.victim, body_compile(world->program.daemon.folder, "fresh", number), "fresh", 0));
}

/* Through every way, and through the host's own slot */
static void expect_body(struct world *world, unsigned int number)
{
	for (size_t i = 0; i < WAYS; i++)
		if (call(world->program.methods[i], 40 + i, ways[i].more) != BODY_RESULT(number, 40 + i))
			fail_msg("%s runs something else than body %u", ways[i].method, number);
	assert_int_equal(world->slot(9, 0, 0, 0, 0), BODY_RESULT(number, 9));
}

static void climb_all(struct world *world)
{
	for (size_t i = 0; i < WAYS; i++) {
		const uint64_t args[5] = { 1, ways[i].more };

		climb(world->program.methods[i], args);
	}
}

/* -- Stages --- */
#define DELAYED "--call-counting-delay=1h"
#define AT_ONCE "--call-counting-delay=0"

static void reach_cold(struct world *world) { }

static void reach_uncounted(struct world *world)
{
	call(world->program.victim, 1, 0);
	assert_int_equal(tier_status(world->program.victim).stage, TIER_STAGE_UNCOUNTED);
}

static void reach_counting(struct world *world)
{
	for (int i = 0; i < 11; i++)
		call(world->program.victim, 1, 0);
	assert_int_equal(tier_status(world->program.victim).stage, TIER_STAGE_COUNTING);
	assert_int_equal(tier_remaining(world->program.victim), 20);
}

/* The workers stand still: the first job is started at once, a second method's waits behind it. */
static void reach_compiling(struct world *world)
{
	struct tier_answer answer;

	workers_stop(&world->program.daemon);
	for (int i = 0; i < 31; i++)
		call(world->program.victim, 1, 0);
	wait_until("the victim is compiling", (assert_int_equal(tier_status_ask(world->program.victim, &answer), 0), answer.stage == TIER_STAGE_COMPILING));
}

static void reach_queued(struct world *world)
{
	struct tier_method *other;
	struct tier_answer answer;

	assert_done(tier_find(world->program.module, "other", &other));
	workers_stop(&world->program.daemon);
	for (int i = 0; i < 31; i++)
		call(other, 1, 0);
	wait_until("another method is compiling", (assert_int_equal(tier_status_ask(other, &answer), 0), answer.stage == TIER_STAGE_COMPILING));
	for (int i = 0; i < 31; i++)
		call(world->program.victim, 1, 0);
	wait_until("the victim is queued", (assert_int_equal(tier_status_ask(world->program.victim, &answer), 0), answer.stage == TIER_STAGE_QUEUED));
}

static void reach_final(struct world *world)
{
	climb_all(world);
	expect_body(world, 0);
}

static const struct stage {
	const char *name, *delay;
	void (*reach)(struct world *world);
	enum tier_stage stage;
	bool workers_stand;
} stages[] = {
	{ "cold", AT_ONCE, reach_cold, TIER_STAGE_COLD, false },
	{ "uncounted", DELAYED, reach_uncounted, TIER_STAGE_UNCOUNTED, false },
	{ "counting", AT_ONCE, reach_counting, TIER_STAGE_COUNTING, false },
	{ "queued", AT_ONCE, reach_queued, TIER_STAGE_QUEUED, true },
	{ "compiling", AT_ONCE, reach_compiling, TIER_STAGE_COMPILING, true },
	{ "final", AT_ONCE, reach_final, TIER_STAGE_FINAL, false },
};

/* A load needs a worker too, so those that stand are the compiler's last moment: the object is read before. */
static void rejit_while_workers_stand(struct world *world, unsigned int number)
{
	workers_continue(&world->program.daemon);
	rejit_to(world, number);
}

static void a_rejit_at_any_stage_takes_effect_at_once(void **state)
{
	const struct stage *stage = *state;
	static struct world world;

	world_start(&world, ARGS(stage->delay, "--background-workers=1"));
	stage->reach(&world);
	if (stage->workers_stand)
		rejit_while_workers_stand(&world, 1);
	else
		rejit_to(&world, 1);
	assert_int_equal(tier_status(world.program.victim).stage, TIER_STAGE_COLD);
	expect_body(&world, 1);
	rejit_to(&world, 2);
	expect_body(&world, 2);
	assert_done(tier_revert(world.program.victim));
	expect_body(&world, 0);
	bodies_end(&world.program);
}

static void its_own_body_comes_back_as_it_was(void **state)
{
	const struct stage *stage = *state;
	struct tier_answer before, after;
	static struct world world;

	world_start(&world, ARGS(stage->delay, "--background-workers=1"));
	stage->reach(&world);
	before = tier_status(world.program.victim);
	if (stage->workers_stand)
		rejit_while_workers_stand(&world, 1);
	else
		rejit_to(&world, 1);
	assert_int_equal(call(world.program.victim, 3, 0), BODY_RESULT(1, 3));
	assert_done(tier_revert(world.program.victim));
	after = tier_status(world.program.victim);
	assert_true(after.generation > before.generation);
	if (!stage->workers_stand) {
		assert_int_equal(after.stage, stage->stage);
		assert_int_equal(after.tier, before.tier);
		assert_int_equal(after.remaining, before.remaining);
	} else {	/* it may have been promoted meanwhile, but it never counts again */
		assert_true(after.stage >= TIER_STAGE_QUEUED);
		assert_done(tier_wait(world.program.victim, TEST_DEADLINE_NS, NULL, &after));
		assert_int_equal(after.reason, TIER_REASON_PROMOTED);
	}
	expect_body(&world, 0);
	bodies_end(&world.program);
}

/* -- Tiers --- */
static void the_new_body_climbs_the_whole_ladder(void **state)
{
	static const uint64_t args[5] = { 4 };
	static struct world world;

	world_start(&world, ARGS(AT_ONCE));
	assert_int_equal(climb(world.program.victim, args), 31);
	rejit_to(&world, 5);
	assert_int_equal(tier_remaining(world.program.victim), 1);
	assert_int_equal(climb(world.program.victim, args), 31);
	assert_int_equal(tier_status(world.program.victim).tier, TIER_LEVEL_TIER1);
	expect_body(&world, 5);
	bodies_end(&world.program);
}

static void a_revert_neither_compiles_nor_counts(void **state)
{
	unsigned int compiled, begun;
	struct tier_answer answer;
	static struct world world;

	world_start(&world, ARGS(AT_ONCE));
	climb(world.program.victim, NULL);
	rejit_to(&world, 1);
	climb(world.program.victim, NULL);
	compiled = events_count(world.program.conn, world.program.module, world.program.victim, TIER_EVENT_COMPILE_STARTED);
	begun = events_count(world.program.conn, world.program.module, world.program.victim, TIER_EVENT_COUNTING_BEGUN);
	assert_done(tier_revert(world.program.victim));
	answer = tier_status(world.program.victim);
	assert_int_equal(answer.status, TIER_STATUS_FINAL);
	assert_int_equal(answer.tier, TIER_LEVEL_TIER1);
	assert_int_equal(call(world.program.victim, 8, 0), BODY_RESULT(0, 8));
	assert_int_equal(events_count(world.program.conn, world.program.module, world.program.victim, TIER_EVENT_COMPILE_STARTED), compiled);
	assert_int_equal(events_count(world.program.conn, world.program.module, world.program.victim, TIER_EVENT_COUNTING_BEGUN), begun);
	assert_int_equal(events_count(world.program.conn, world.program.module, world.program.victim, TIER_EVENT_REVERTED), 1);
	bodies_end(&world.program);
}

static void who_had_inlined_it_is_compiled_again(void **state)
{
	struct tier_method *between;
	struct tier_answer answer;
	static struct world world;

	world_start(&world, ARGS(AT_ONCE));
	assert_done(tier_find(world.program.module, "between", &between));
	climb_all(&world);
	rejit_to(&world, 3);
	assert_int_equal(call(world.program.methods[3], 6, 0), BODY_RESULT(3, 6));	/* by_call */
	assert_int_equal(call(world.program.methods[4], 6, 0), BODY_RESULT(3, 6));	/* by_nested_call, transitively */
	assert_int_equal(events_count(world.program.conn, world.program.module, world.program.methods[3], TIER_EVENT_WITHDRAWN), 1);
	assert_int_equal(events_count(world.program.conn, world.program.module, world.program.methods[4], TIER_EVENT_WITHDRAWN), 1);
	assert_done(tier_wait(world.program.methods[3], TEST_DEADLINE_NS, NULL, &answer));
	assert_int_equal(answer.status, TIER_STATUS_FINAL);
	assert_done(tier_wait(world.program.methods[4], TEST_DEADLINE_NS, NULL, &answer));
	assert_int_equal(answer.status, TIER_STATUS_FINAL);
	expect_body(&world, 3);
	bodies_end(&world.program);
}

static unsigned int victim_events(const struct world *world, enum tier_event_kind kind)
{
	return events_count(world->program.conn, world->program.module, world->program.victim, kind);
}

/* A revert needs no worker, so it comes while the job is held outside. */
static void a_promotion_of_the_replaced_body_is_not_published(void **state)
{
	static struct world world;

	world_start(&world, ARGS(AT_ONCE, "--background-workers=1"));
	rejit_to(&world, 1);
	reach_compiling(&world);
	assert_done(tier_revert(world.program.victim));
	assert_int_equal(victim_events(&world, TIER_EVENT_COMPILE_ENDED), 0);
	workers_continue(&world.program.daemon);
	wait_until("the replaced body's compilation ends", victim_events(&world, TIER_EVENT_COMPILE_ENDED) == 1);
	assert_int_equal(victim_events(&world, TIER_EVENT_PUBLISHED), 1);	/* its first code */
	assert_int_equal(tier_status(world.program.victim).status, TIER_STATUS_COLD);
	expect_body(&world, 0);
	bodies_end(&world.program);
}

/* -- Other processes --- */
struct elsewhere {
	const struct daemon *daemon;
	int go[2], done[2];	/* bytes: the body to expect, then an answer */
};

static void elsewhere_run(void *context)
{
	struct elsewhere *elsewhere = context;
	struct tier_conn *conn = daemon_connect(elsewhere->daemon);
	struct tier_method *methods[WAYS];
	struct tier_module *module;
	uint8_t number;
	tier_fn slot;

	close(elsewhere->go[1]);
	child_assert(!tier_open(conn, "program", &module));
	for (size_t i = 0; i < WAYS; i++)
		child_assert(!tier_find(module, ways[i].method, &methods[i]));
	child_assert(!tier_slot_register(methods[0], &slot));
	while (read(elsewhere->go[0], &number, 1) == 1) {
		for (size_t i = 0; i < WAYS; i++)
			child_assert(call(methods[i], i, ways[i].more) == BODY_RESULT(number, i));
		child_assert(slot(7, 0, 0, 0, 0) == BODY_RESULT(number, 7));
		child_assert(write(elsewhere->done[1], "", 1) == 1);
	}
	tier_disconnect(conn);
}

static void elsewhere_expect(struct elsewhere *elsewhere, uint8_t number)
{
	char byte;

	assert_int_equal(write(elsewhere->go[1], &number, 1), 1);
	assert_int_equal(read(elsewhere->done[0], &byte, 1), 1);
}

static void other_processes_run_the_new_body_too(void **state)
{
	struct elsewhere elsewhere;
	static struct world world;
	pid_t child;

	world_start(&world, ARGS(AT_ONCE));
	elsewhere.daemon = &world.program.daemon;
	pipe_open(elsewhere.go);
	pipe_open(elsewhere.done);
	child = child_start(elsewhere_run, &elsewhere);
	close(elsewhere.done[1]);
	for (unsigned int number = 0; number < 6; number++) {
		if (number % 3)
			rejit_to(&world, number);
		else if (number)
			assert_done(tier_revert(world.program.victim));
		if (number % 2)
			climb_all(&world);
		elsewhere_expect(&elsewhere, number % 3 ? number : 0);
		expect_body(&world, number % 3 ? number : 0);
	}
	close(elsewhere.go[1]);
	child_end(child);
	close(elsewhere.go[0]);
	close(elsewhere.done[0]);
	bodies_end(&world.program);
}

/* -- Binding --- */
static void a_body_binds_to_the_module_by_name(void **state)
{
	const char *object;
	static struct world world;

	world_start(&world, ARGS(AT_ONCE));
	object = bpf_compile(world.program.daemon.folder, "bound", BODIES_TYPES
			     "static const u64 own[4] = { 100, 200, 300, 400 };\n"
			     "extern u64 other(u64); extern u64 counted; u64 victim(u64 x);\n"
			     "u64 victim(u64 x)\n"
			     "{\n"
			     "	counted++;\n"
			     "	return x > 3 ? victim(x - 4) : other(x) + own[x & 3] + counted * 1000;\n"
			     "}\n", "-g");
	assert_done(tier_rejit(world.program.victim, object, NULL, 0));
	assert_int_equal(call(world.program.victim, 6, 0), (2 ^ 1) + 300 + 2000);	/* itself once, then other and its own table */
	assert_int_equal(call(world.program.victim, 1, 0), (1 ^ 1) + 200 + 3000);
	bodies_end(&world.program);
}

struct refused {
	const char *source, *flags;
	int error;
	const char *says;
	bool force_helps;
};
static const struct refused refused[] = {
	{ BODIES_TYPES "u64 fresh(u64 x, u64 y) { return x + y; }\n", "-g", -EPROTOTYPE, "signature", true },
	{ BODIES_TYPES "u64 fresh(u64 x) { return x; }\n", "-g0", -EPROTOTYPE, "signature", true },
	{ BODIES_TYPES "extern u64 absent(u64); u64 fresh(u64 x) { return absent(x); }\n", "-g", -ENOLINK, "absent", false },
	{ BODIES_TYPES "extern u64 nothing; u64 fresh(u64 x) { return nothing; }\n", "-g", -ENOLINK, "nothing", false },
	{ BODIES_TYPES "u64 mine = 1; u64 fresh(u64 x) { return mine += x; }\n", "-g", -ENOLINK, "mine", false },
	{ BODIES_TYPES "noinline static u64 helper(u64 x) { asm volatile(\"\"); return x + 1; } u64 fresh(u64 x) { return helper(x); }\n", "-g", -ENOLINK,
	  "helper", false },
	{ BODIES_TYPES "u64 stale(u64 x) { return x; }\n", "-g", -ENOENT, "fresh", false },
};

static void what_does_not_fit_is_refused_and_changes_nothing(void **state)
{
	uint64_t generation;
	static struct world world;

	world_start(&world, ARGS(AT_ONCE));
	climb(world.program.victim, NULL);
	generation = tier_status(world.program.victim).generation;
	for (size_t i = 0; i < ARRAY_SIZE(refused); i++) {
		const char *object = bpf_compile(world.program.daemon.folder, "refused", refused[i].source, refused[i].flags);
		int r = tier_rejit(world.program.victim, object, "fresh", 0);

		if (r != refused[i].error || !strstr(tier_error_text(), refused[i].says))
			fail_msg("%zu: %d, '%s'; expected %d and '%s'", i, r, tier_error_text(), refused[i].error, refused[i].says);
		assert_int_equal(tier_status(world.program.victim).generation, generation);
		assert_int_equal(call(world.program.victim, 2, 0), BODY_RESULT(0, 2));
		if (refused[i].force_helps) {
			assert_done(tier_rejit(world.program.victim, object, "fresh", TIER_REJIT_FORCE));
			assert_done(tier_revert(world.program.victim));
			generation = tier_status(world.program.victim).generation;
		}
	}
	bodies_end(&world.program);
}

static void tierctl_replaces_and_reverts(void **state)
{
	char object[512], out[RUN_TEXT_MAX], err[RUN_TEXT_MAX];
	static struct world world;

	world_start(&world, ARGS(AT_ONCE));
	snprintf(object, sizeof(object), "%s:fresh", body_compile(world.program.daemon.folder, "fresh", 4));
	assert_int_equal(tierctl(&world.program.daemon, out, err, "rejit", "program:victim", object, NULL), 0);
	expect_body(&world, 4);
	assert_int_equal(tierctl(&world.program.daemon, out, err, "show", "program:victim", NULL), 0);
	assert_non_null(strstr(out, "replaced"));
	assert_int_equal(tierctl(&world.program.daemon, out, err, "revert", "program:victim", NULL), 0);
	expect_body(&world, 0);
	assert_int_equal(tierctl(&world.program.daemon, out, err, "rejit", "program:by_slot", object, NULL), 2);
	assert_non_null(strstr(err, "signature"));
	assert_int_equal(tierctl(&world.program.daemon, out, err, "stats", "--json", NULL), 0);
	assert_non_null(strstr(out, "rejits"));
	bodies_end(&world.program);
}

/* -- Main --- */
#define STAGES(test)                                                                                                   \
	for (size_t i = 0; i < ARRAY_SIZE(stages); i++) {                                                              \
		static char names[ARRAY_SIZE(stages)][96];                                                             \
		snprintf(names[i], sizeof(names[i]), #test ": %s", stages[i].name);                                    \
		tests[n++] = (struct CMUnitTest){ .name = names[i], .test_func = test, .initial_state = (void *)&stages[i] }; \
	}

int main(void)
{
	struct CMUnitTest tests[8 + 2 * ARRAY_SIZE(stages)] = {
		cmocka_unit_test(the_new_body_climbs_the_whole_ladder),
		cmocka_unit_test(a_revert_neither_compiles_nor_counts),
		cmocka_unit_test(who_had_inlined_it_is_compiled_again),
		cmocka_unit_test(a_promotion_of_the_replaced_body_is_not_published),
		cmocka_unit_test(other_processes_run_the_new_body_too),
		cmocka_unit_test(a_body_binds_to_the_module_by_name),
		cmocka_unit_test(what_does_not_fit_is_refused_and_changes_nothing),
		cmocka_unit_test(tierctl_replaces_and_reverts),
	};
	size_t n = 8;

	STAGES(a_rejit_at_any_stage_takes_effect_at_once)
	STAGES(its_own_body_comes_back_as_it_was)
	return cmocka_run_group_tests(tests, NULL, NULL);
}
