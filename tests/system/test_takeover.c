/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <tier/wire.h>
#include "order.h"
#include "system/bodies.h"
#include "system/harness.h"
#include "util/base.h"

/* A daemon is killed, and another takes over what there was: at every stage of a method no tier and no count is lost, whoever calls
 * goes on at speed and gets what it should, and the journal tells each transition once. */

#define AT_ONCE	     "--call-counting-delay=0"
#define EVENTS_MAX   65536

struct world {
	struct bodies program;
	struct tier_module *others[2];	/* more that must survive */
	unsigned int n_others;
};

/* -- A client that calls all the time --- */
struct caller {
	pid_t pid;
	volatile uint64_t *shared;	/* [0]: calls so far; [1]: it is to end */
	const struct bodies *program;
};

static void call_on(void *context)
{
	const struct caller *caller = context;
	const uint64_t numbers[] = { 0, 1, 2 };

	while (!caller->shared[1]) {
		for (size_t i = 1; i < WAYS; i++) {	/* those beside the victim, whose count is the story's */
			const uint64_t r = tier_entry(caller->program->methods[i])(40 + i, ways[i].more, 0, 0, 0);
			bool is_right = false;

			for (size_t k = 0; k < ARRAY_SIZE(numbers); k++)
				is_right |= r == BODY_RESULT(numbers[k], 40 + i);
			child_assert(is_right);
		}
		caller->shared[0]++;
	}
}

/* It has made its first calls, and libtier's questions, while a daemon lived. */
static void caller_start(struct caller *caller, const struct bodies *program)
{
	caller->program = program;
	caller->shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(caller->shared, MAP_FAILED);
	caller->pid = child_start(call_on, caller);
	wait_until("the caller calls", caller->shared[0] > 100);
}

static void caller_end(struct caller *caller)
{
	const uint64_t n = caller->shared[0];

	wait_until("the caller still calls", caller->shared[0] > n + 100);
	caller->shared[1] = 1;
	child_end(caller->pid);
	munmap((void *)caller->shared, 4096);
}

/* -- The world --- */
static void world_find(struct world *world)
{
	for (size_t i = 0; i < WAYS; i++)
		assert_done(tier_find(world->program.module, ways[i].method, &world->program.methods[i]));
	world->program.victim = world->program.methods[0];
}

static void world_start(struct world *world, const char *const *args)
{
	struct bodies *program = &world->program;

	*world = (struct world){ .n_others = 0 };
	daemon_start_kept(&program->daemon, args);
	program->conn = daemon_connect(&program->daemon);
	assert_done(tier_load(program->conn, bpf_compile(program->daemon.folder, "program", BODIES_PROGRAM, "-g"), NULL, 0,
			      &program->module));
	world_find(world);
}

/* The journal from the first event to the last: no gap, no hole, nothing twice, each method's in order */
static void expect_sound_journal(struct world *world)
{
	struct tier_event *events = calloc(EVENTS_MAX, sizeof(*events));
	struct order *order = order_new(1);
	const size_t n = events_read(world->program.conn, 0, UINT32_MAX, events, EVENTS_MAX);

	assert_in_range(n, 1, EVENTS_MAX);
	for (size_t i = 0; i < n; i++) {
		const char *broken = order_hear(order, &events[i]);

		if (broken)
			fail_msg("%s", broken);
	}
	order_free(order);
	free(events);
}

static void world_end(struct world *world)
{
	expect_sound_journal(world);
	bodies_end(&world->program);
}

/* Another daemon, and a connection to it */
static void world_succeed(struct world *world)
{
	struct bodies *program = &world->program;
	struct wire_stats stats;

	tier_disconnect(program->conn);
	daemon_kill_main(&program->daemon);
	program->conn = daemon_connect(&program->daemon);
	assert_done(tier_open(program->conn, "program", &program->module));
	world_find(world);
	assert_done(tier_stats(program->conn, &stats));
	assert_true(stats.n_takeovers > 0);
	assert_true(stats.takeover_ns > 0);
}

static uint64_t call(const struct tier_method *method, uint64_t x, uint64_t more)
{
	return tier_entry(method)(x, more, 0, 0, 0);
}

static void expect_body(struct world *world, unsigned int number)
{
	for (size_t i = 0; i < WAYS; i++)
		if (call(world->program.methods[i], 40 + i, ways[i].more) != BODY_RESULT(number, 40 + i))
			fail_msg("%s runs something else than body %u", ways[i].method, number);
}

/* -- Stages --- */
static void await_stage(struct world *world, enum tier_stage stage)
{
	struct tier_answer answer;

	wait_until("the victim gets there", (assert_int_equal(tier_status_ask(world->program.victim, &answer), 0),
					     answer.stage == stage));
}

static void reach_cold(struct world *world) { }

static void reach_uncounted(struct world *world)
{
	call(world->program.victim, 1, 0);
}

static void reach_counting(struct world *world)
{
	for (int i = 0; i < 11; i++)
		call(world->program.victim, 1, 0);
	assert_int_equal(tier_remaining(world->program.victim), 20);
}

static void reach_compiling(struct world *world)
{
	workers_stop(&world->program.daemon);
	for (int i = 0; i < 31; i++)
		call(world->program.victim, 1, 0);
	await_stage(world, TIER_STAGE_COMPILING);
}

static void reach_queued(struct world *world)
{
	struct tier_method *other;

	assert_done(tier_find(world->program.module, "other", &other));
	workers_stop(&world->program.daemon);
	for (int i = 0; i < 31; i++)
		call(other, 1, 0);
	for (int i = 0; i < 31; i++)
		call(world->program.victim, 1, 0);
	await_stage(world, TIER_STAGE_QUEUED);
}

static void reach_final(struct world *world)
{
	const uint64_t args[5] = { 1 };

	climb(world->program.victim, args);
}

static const struct stage {
	const char *name, *delay;
	void (*reach)(struct world *world);
	enum tier_stage stage;
	bool goes_on;		/* a successor starts the job again, at once */
} stages[] = {
	{ "cold", AT_ONCE, reach_cold, TIER_STAGE_COLD, false },
	{ "uncounted", "--call-counting-delay=1h", reach_uncounted, TIER_STAGE_UNCOUNTED, false },
	{ "counting", AT_ONCE, reach_counting, TIER_STAGE_COUNTING, false },
	{ "queued", AT_ONCE, reach_queued, TIER_STAGE_QUEUED, true },
	{ "compiling", AT_ONCE, reach_compiling, TIER_STAGE_COMPILING, true },
	{ "final", AT_ONCE, reach_final, TIER_STAGE_FINAL, false },
};

static void expect_same(const struct tier_answer *before, const struct tier_answer *after)
{
	assert_int_equal(after->stage, before->stage);
	assert_int_equal(after->tier, before->tier);
	assert_int_equal(after->reason, before->reason);
	assert_int_equal(after->generation, before->generation);
	assert_int_equal(after->remaining, before->remaining);
}

static void a_method_at_any_stage_goes_on(void **state)
{
	const struct stage *stage = *state;
	struct tier_answer before, after, asked;
	static struct world world;

	world_start(&world, ARGS(stage->delay, "--background-workers=1"));
	stage->reach(&world);
	before = tier_status(world.program.victim);
	assert_int_equal(before.stage, stage->stage);
	world_succeed(&world);
	after = tier_status(world.program.victim);
	if (stage->goes_on) {
		assert_done(tier_wait(world.program.victim, TEST_DEADLINE_NS, NULL, &after));
		assert_int_equal(after.reason, TIER_REASON_PROMOTED);
	} else {
		expect_same(&before, &after);
		assert_done(tier_status_ask(world.program.victim, &asked));
		expect_same(&before, &asked);
	}
	expect_body(&world, 0);
	if (strcmp(stage->delay, AT_ONCE)) {
		assert_int_equal(tier_status(world.program.victim).stage, TIER_STAGE_UNCOUNTED);
	} else {
		climb(world.program.victim, (const uint64_t[5]){ 1 });
		assert_int_equal(events_count(world.program.conn, world.program.module, world.program.victim, TIER_EVENT_THRESHOLD), 1);
		assert_int_equal(events_count(world.program.conn, world.program.module, world.program.victim, TIER_EVENT_FINAL), 1);
	}
	world_end(&world);
}

/* -- While no daemon lives --- */
static void exactly_the_calls_that_were_left_are_counted(void **state)
{
	static struct world world;

	world_start(&world, ARGS(AT_ONCE));
	reach_counting(&world);
	for (int i = 0; i < 4; i++) {
		world_succeed(&world);
		assert_int_equal(tier_remaining(world.program.victim), 20 - i);
		call(world.program.victim, 1, 0);
	}
	for (int i = 0; i < 15; i++)
		call(world.program.victim, 1, 0);
	assert_int_equal(tier_remaining(world.program.victim), 1);
	assert_int_equal(tier_status(world.program.victim).stage, TIER_STAGE_COUNTING);
	climb(world.program.victim, (const uint64_t[5]){ 1 });
	assert_int_equal(events_count(world.program.conn, world.program.module, world.program.victim, TIER_EVENT_THRESHOLD), 1);
	world_end(&world);
}

/* The daemon stands still when the threshold is reached, and is killed before it could hear of it. */
static void a_threshold_that_nobody_heard_of_is_found(void **state)
{
	struct tier_answer answer;
	static struct world world;

	world_start(&world, ARGS(AT_ONCE));
	reach_counting(&world);
	kill(daemon_main_pid(&world.program.daemon), SIGSTOP);
	for (int i = 0; i < 25; i++)
		call(world.program.victim, 1, 0);
	world_succeed(&world);
	assert_done(tier_wait(world.program.victim, TEST_DEADLINE_NS, NULL, &answer));
	assert_int_equal(answer.stage, TIER_STAGE_FINAL);
	assert_int_equal(events_count(world.program.conn, world.program.module, world.program.victim, TIER_EVENT_THRESHOLD), 1);
	expect_body(&world, 0);
	world_end(&world);
}

static void who_calls_meanwhile_notices_nothing(void **state)
{
	const int n = test_is_long() ? 30 : 4;
	static struct world world;
	struct caller caller;

	world_start(&world, ARGS(AT_ONCE, "--tiered-pgo=on"));
	expect_body(&world, 0);
	caller_start(&caller, &world.program);
	for (int i = 0; i < n; i++) {
		const uint64_t calls = caller.shared[0];

		world_succeed(&world);
		wait_until("the caller still calls", caller.shared[0] > calls + 100);
	}
	for (size_t i = 1; i < WAYS; i++)
		climb(world.program.methods[i], (const uint64_t[5]){ 40 + i, ways[i].more });
	caller_end(&caller);
	expect_body(&world, 0);
	world_end(&world);
}

/* -- Bodies --- */
static void rejit_to(struct world *world, unsigned int number)
{
	assert_done(tier_rejit(world->program.victim, body_compile(world->program.daemon.folder, "fresh", number), "fresh", 0));
}

static void replaced_bodies_come_along(void **state)
{
	static struct world world;

	world_start(&world, ARGS(AT_ONCE));
	reach_counting(&world);
	rejit_to(&world, 1);
	world_succeed(&world);		/* never called */
	expect_body(&world, 1);
	world_succeed(&world);		/* counting */
	expect_body(&world, 1);
	climb(world.program.victim, (const uint64_t[5]){ 1 });
	world_succeed(&world);		/* final */
	expect_body(&world, 1);
	rejit_to(&world, 2);
	expect_body(&world, 2);
	world_succeed(&world);
	expect_body(&world, 2);
	assert_done(tier_revert(world.program.victim));
	assert_int_equal(tier_remaining(world.program.victim), 20);
	world_succeed(&world);
	assert_int_equal(tier_remaining(world.program.victim), 20);
	expect_body(&world, 0);
	world_end(&world);
}

/* Whoever inlined the victim falls back when it is replaced, also when the inlining was a predecessor's. */
static void inliners_are_known_to_a_successor(void **state)
{
	static struct world world;

	world_start(&world, ARGS(AT_ONCE));
	expect_body(&world, 0);
	for (size_t i = 0; i < WAYS; i++)
		climb(world.program.methods[i], (const uint64_t[5]){ 40 + i, ways[i].more });
	world_succeed(&world);
	rejit_to(&world, 3);
	expect_body(&world, 3);
	world_succeed(&world);
	assert_done(tier_revert(world.program.victim));
	expect_body(&world, 0);
	world_end(&world);
}

/* -- Other modules --- */
static const char knobs_source[] =
	BODIES_TYPES
	"const volatile u64 knob = 5; u64 sum;\n"
	"noinline u64 leaf(u64 x) { return x * knob; }\n"
	"struct ops { u64 (*f)(u64); }; const struct ops ops[2] = { { leaf }, { leaf } };\n"
	"u64 by_slot(u64 x) { return ops[x & 1].f(x); }\n"
	"u64 loop(u64 n) { u64 s = 0; for (u64 i = 0; i < n; i++) s += leaf(i); return s; }\n";

static struct tier_method *find(struct tier_module *module, const char *name)
{
	struct tier_method *method;

	assert_done(tier_find(module, name, &method));
	return method;
}

static void instantiations_come_along_and_are_found_again(void **state)
{
	const struct tier_value value = { .name = "knob", .value = 7 };
	struct tier_module *base, *instance;
	static struct world world;
	char name[64];
	uint64_t id;

	world_start(&world, ARGS(AT_ONCE));
	assert_done(tier_load(world.program.conn, bpf_compile(world.program.daemon.folder, "knobs", knobs_source, "-g"), NULL, 0, &base));
	assert_done(tier_module_instantiate(base, &value, 1, &instance));
	assert_int_equal(call(find(instance, "by_slot"), 6, 0), 42);
	climb(find(instance, "loop"), (const uint64_t[5]){ 10 });
	for (int i = 0; i < 9; i++)
		call(find(base, "by_slot"), 6, 0);
	id = tier_module_id(instance);
	snprintf(name, sizeof(name), "%s", tier_module_name(instance));
	world_succeed(&world);
	assert_done(tier_open(world.program.conn, "knobs", &base));
	assert_done(tier_open(world.program.conn, name, &instance));
	assert_int_equal(tier_module_id(instance), id);
	assert_int_equal(tier_status(find(instance, "loop")).stage, TIER_STAGE_FINAL);
	assert_int_equal(tier_remaining(find(base, "by_slot")), 22);
	assert_int_equal(call(find(instance, "by_slot"), 6, 0), 42);
	assert_int_equal(call(find(base, "by_slot"), 6, 0), 30);
	tier_close(instance);
	assert_done(tier_module_instantiate(base, &value, 1, &instance));
	assert_int_equal(tier_module_id(instance), id);
	climb(find(instance, "by_slot"), (const uint64_t[5]){ 3 });
	world_end(&world);
}

static void precompiled_code_keeps_its_ladder(void **state)
{
	struct tier_module *module;
	static struct world world;
	char path[64];
	int fd;

	world_start(&world, ARGS(AT_ONCE));
	fd = tier_precompile(world.program.conn, bpf_compile(world.program.daemon.folder, "ready", knobs_source, "-g"), TEST_DEADLINE_NS);
	if (fd < 0)
		fail_msg("%s", tier_error_text());
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	assert_done(tier_load(world.program.conn, path, "ready", 0, &module));
	close(fd);
	assert_int_equal(call(find(module, "leaf"), 6, 0), 30);
	assert_int_equal(tier_status(find(module, "leaf")).tier, TIER_LEVEL_READY_TO_RUN);
	world_succeed(&world);
	assert_done(tier_open(world.program.conn, "ready", &module));
	assert_int_equal(tier_status(find(module, "leaf")).tier, TIER_LEVEL_READY_TO_RUN);
	assert_int_equal(call(find(module, "loop"), 4, 0), 30);
	assert_int_equal(tier_status(find(module, "loop")).tier, TIER_LEVEL_READY_TO_RUN);	/* its first call came only now */
	climb(find(module, "loop"), (const uint64_t[5]){ 4 });
	world_end(&world);
}

static void code_of_loops_stays_and_can_be_asked_for(void **state)
{
	const uint64_t n = 4000000, sum = 5 * (n * (n - 1) / 2);
	struct tier_module *module;
	static struct world world;

	world_start(&world, ARGS("--call-counting=off", "--osr-hit-limit=1", "--osr-initial-counter=10"));
	assert_done(tier_load(world.program.conn, bpf_compile(world.program.daemon.folder, "knobs", knobs_source, "-g"), NULL, 0, &module));
	assert_int_equal(call(find(module, "loop"), n, 0), sum);
	wait_until("OSR code", events_count(world.program.conn, module, find(module, "loop"), TIER_EVENT_OSR_READY));
	world_succeed(&world);
	assert_done(tier_open(world.program.conn, "knobs", &module));
	assert_int_equal(call(find(module, "loop"), n, 0), sum);
	assert_int_equal(events_count(world.program.conn, module, find(module, "loop"), TIER_EVENT_OSR_READY), 1);
	assert_int_equal(tier_status(find(module, "loop")).tier, TIER_LEVEL_TIER0);
	world_end(&world);
}

/* -- Modules that go --- */
static bool has_module(struct world *world, const char *name)
{
	char out[RUN_TEXT_MAX];

	assert_int_equal(tierctl(&world->program.daemon, out, NULL, "list", NULL), 0);
	return strstr(out, name) != NULL;
}

static void what_was_unloaded_before_does_not_come_back(void **state)
{
	struct tier_module *module;
	static struct world world;

	world_start(&world, ARGS(AT_ONCE, "--grace=1ms"));
	assert_done(tier_load(world.program.conn, bpf_compile(world.program.daemon.folder, "knobs", knobs_source, "-g"), NULL, 0, &module));
	assert_done(tier_unload(world.program.conn, "knobs"));
	tier_close(module);
	wait_until("it is gone", !has_module(&world, "knobs"));
	world_succeed(&world);
	assert_false(has_module(&world, "knobs"));
	assert_done(tier_load(world.program.conn, bpf_compile(world.program.daemon.folder, "knobs", knobs_source, "-g"), NULL, 0, &module));
	assert_int_equal(call(find(module, "leaf"), 2, 0), 10);
	assert_done(tier_unload(world.program.conn, "knobs"));	/* its holder dies with the daemon, and does not come back */
	world_succeed(&world);
	wait_until("its grace is over", !has_module(&world, "knobs"));
	world_end(&world);
}

static void a_freeze_ends_with_its_daemon(void **state)
{
	struct tier_answer answer;
	static struct world world;
	char out[RUN_TEXT_MAX];

	world_start(&world, ARGS(AT_ONCE));
	reach_counting(&world);
	assert_done(tier_freeze(world.program.module));
	for (int i = 0; i < 25; i++)
		call(world.program.victim, 1, 0);
	wait_until("the victim waits for the thaw", tier_status(world.program.victim).is_frozen);
	world_succeed(&world);
	assert_done(tier_wait(world.program.victim, TEST_DEADLINE_NS, NULL, &answer));
	assert_int_equal(answer.stage, TIER_STAGE_FINAL);
	assert_int_equal(tierctl(&world.program.daemon, out, NULL, "events", "--kind=thawed", NULL), 0);
	assert_non_null(strstr(out, "thawed"));
	world_end(&world);
}

/* -- Ten thousand methods --- */
#define MANY 10000

static const char *many_source(const char *folder)
{
	static char path[128];
	FILE *file;

	snprintf(path, sizeof(path), "%s/many.c", folder);
	file = fopen(path, "w");
	assert_non_null(file);
	fprintf(file, "typedef unsigned long long u64;\n");
	for (int i = 0; i < MANY; i++)
		fprintf(file, "__attribute__((noinline)) u64 m%d(u64 x) { return (x + %d) * 3; }\n", i, i);
	fclose(file);
	return path;
}

static void ten_thousand_methods_are_taken_over_in_milliseconds(void **state)
{
	char object[160], command[400];
	struct tier_module *module;
	struct wire_stats stats;
	static struct world world;

	world_start(&world, ARGS(AT_ONCE, "--call-counting=off"));
	snprintf(object, sizeof(object), "%s/many.o", world.program.daemon.folder);
	snprintf(command, sizeof(command), "clang -target bpf -O1 -c %s -o %s", many_source(world.program.daemon.folder), object);
	assert_int_equal(system(command), 0);
	assert_done(tier_load(world.program.conn, object, "many", 0, &module));
	for (uint32_t i = 0; i < MANY; i++) {
		struct tier_method *method;

		assert_done(tier_method_at(module, i, &method));
		call(method, 1, 0);
	}
	for (int i = 0; i < 3; i++) {
		world_succeed(&world);
		assert_done(tier_stats(world.program.conn, &stats));
		print_message("%d methods: the successor served %.1f ms after its start\n", MANY, stats.takeover_ns / 1e6);
	}
	assert_done(tier_open(world.program.conn, "many", &module));
	assert_int_equal(call(find(module, "m77"), 1, 0), 78 * 3);
	assert_int_equal(tier_status(find(module, "m9999")).tier, TIER_LEVEL_TIER0);
	bodies_end(&world.program);
}

int main(void)
{
	struct CMUnitTest tests[] = {
		{ "a cold method goes on", a_method_at_any_stage_goes_on, NULL, NULL, (void *)&stages[0] },
		{ "an uncounted method goes on", a_method_at_any_stage_goes_on, NULL, NULL, (void *)&stages[1] },
		{ "a counting method goes on", a_method_at_any_stage_goes_on, NULL, NULL, (void *)&stages[2] },
		{ "a queued method goes on", a_method_at_any_stage_goes_on, NULL, NULL, (void *)&stages[3] },
		{ "a compiling method goes on", a_method_at_any_stage_goes_on, NULL, NULL, (void *)&stages[4] },
		{ "a final method goes on", a_method_at_any_stage_goes_on, NULL, NULL, (void *)&stages[5] },
		cmocka_unit_test(exactly_the_calls_that_were_left_are_counted),
		cmocka_unit_test(a_threshold_that_nobody_heard_of_is_found),
		cmocka_unit_test(who_calls_meanwhile_notices_nothing),
		cmocka_unit_test(replaced_bodies_come_along),
		cmocka_unit_test(inliners_are_known_to_a_successor),
		cmocka_unit_test(instantiations_come_along_and_are_found_again),
		cmocka_unit_test(precompiled_code_keeps_its_ladder),
		cmocka_unit_test(code_of_loops_stays_and_can_be_asked_for),
		cmocka_unit_test(what_was_unloaded_before_does_not_come_back),
		cmocka_unit_test(a_freeze_ends_with_its_daemon),
		cmocka_unit_test(ten_thousand_methods_are_taken_over_in_milliseconds),
	};

	return cmocka_run_group_tests_name("takeover", tests, NULL, NULL);
}
