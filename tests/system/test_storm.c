/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include "order.h"
#include "system/bodies.h"
#include "system/harness.h"
#include "util/base.h"

/* Rejit during a storm: processes call the methods of a module through all kinds of slots while the bodies of the methods are
 * replaced and brought back. Every call must return what one body returns that was in place at some time during the call,
 * never a mixture, never an older one; when all is over, everything runs the last one.
 *
 * The history of each method is written down in memory that all processes share: before a replacement is asked for, and
 * after it was acknowledged. A caller notes how far the acknowledged part goes before its call and how far the asked part
 * goes after it: one of the bodies between the two must have run. */

#define METHODS 200u
#define DIRECT 20u		/* methods that others call directly, and that inline them */
#define WATCHED 10u		/* methods with a registered slot in each process */
#define PROCESSES 4
#define NUMBERS 8u		/* different new bodies */
#define HISTORY_MAX 1024u
#define EVENTS_MAX 262144u

struct story {
	uint32_t asked, acknowledged;	/* index of the newest entry in bodies */
	uint8_t bodies[HISTORY_MAX];
};
struct storm {
	uint32_t stop, is_calling, n_replaced;
	uint64_t n_calls[PROCESSES], n_around[PROCESSES];	/* calls; those with a replacement under way */
	struct story stories[METHODS];
};

struct world {
	struct daemon daemon;
	struct tier_conn *conn;
	struct storm *storm;
};

/* -- The program --- */
static void program_write(char *text, size_t n)
{
	size_t at = snprintf(text, n, BODIES_TYPES);

	for (unsigned int i = 0; i < METHODS; i++)
		at += snprintf(text + at, n - at, "noinline u64 m%u(u64 x) { return x & 0xffffffff; }\n", i);
	for (unsigned int i = 0; i < DIRECT; i++)
		at += snprintf(text + at, n - at, "u64 d%u(u64 x) { return m%u(x); }\n", i, i);
	for (unsigned int kind = 0; kind < 2; kind++) {
		at += snprintf(text + at, n - at, kind ? "u64 (*pointers[])(u64) = {" : "u64 (*const table[])(u64) = {");
		for (unsigned int i = 0; i < METHODS; i++)
			at += snprintf(text + at, n - at, "m%u,", i);
		at += snprintf(text + at, n - at, "};\n");
	}
	snprintf(text + at, n - at, "u64 by_slot(u64 i, u64 x) { return table[i](x); }\nu64 by_data(u64 i, u64 x) { return pointers[i](x); }\n");
}

/* -- A process of callers --- */
struct caller {
	struct storm *storm;
	unsigned int number;
	struct tier_module *module;
	tier_fn methods[METHODS], direct[DIRECT], slots[WATCHED], by_slot, by_data;
	uint64_t random;
};

enum route { BY_POINTER, BY_SLOT, BY_DATA, BY_CALL, BY_REGISTERED, _ROUTE_N };

static uint64_t random_next(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static uint64_t call_by(const struct caller *caller, enum route route, uint32_t i, uint64_t x)
{
	switch (route) {
	case BY_SLOT:
		return caller->by_slot(i, x, 0, 0, 0);
	case BY_DATA:
		return caller->by_data(i, x, 0, 0, 0);
	case BY_CALL:
		return i < DIRECT ? caller->direct[i](x, 0, 0, 0, 0) : caller->methods[i](x, 0, 0, 0, 0);
	case BY_REGISTERED:
		return i < WATCHED ? __atomic_load_n(&caller->slots[i], __ATOMIC_RELAXED)(x, 0, 0, 0, 0)
				   : caller->methods[i](x, 0, 0, 0, 0);
	default:
		return caller->methods[i](x, 0, 0, 0, 0);
	}
}

static bool is_one_of(const struct story *story, uint32_t from, uint32_t to, uint64_t x, uint64_t result)
{
	for (uint32_t k = from; k <= to; k++)
		if (result == BODY_RESULT(story->bodies[k], x))
			return true;
	return false;
}

static void call_and_check(struct caller *caller)
{
	const uint64_t random = random_next(&caller->random), x = random >> 40;
	const enum route route = random % _ROUTE_N;
	const uint32_t i = route == BY_CALL ? (random >> 8) % DIRECT : route == BY_REGISTERED ? (random >> 8) % WATCHED : (random >> 8) % METHODS;
	const struct story *story = &caller->storm->stories[i];
	const uint32_t from = __atomic_load_n(&story->acknowledged, __ATOMIC_SEQ_CST);
	const uint64_t result = call_by(caller, route, i, x);
	const uint32_t to = __atomic_load_n(&story->asked, __ATOMIC_SEQ_CST);

	if (!is_one_of(story, from, to, x, result)) {
		fprintf(stderr, "m%u(%lu) by route %u returned %#lx, no body from %u (number %u) to %u (number %u)\n", i,
			(unsigned long)x, route, (unsigned long)result, from, story->bodies[from], to, story->bodies[to]);
		child_assert(!"a body that was in place");
	}
	caller->storm->n_calls[caller->number]++;
	caller->storm->n_around[caller->number] += from != to;
}

static void caller_find(struct caller *caller, const char *name, tier_fn *ret, tier_fn *slot)
{
	struct tier_method *method;

	child_assert(!tier_find(caller->module, name, &method));
	*ret = tier_entry(method);
	if (slot)
		child_assert(!tier_slot_register(method, slot));
}

static void caller_open(struct caller *caller, const struct daemon *daemon)
{
	char name[16];

	child_assert(!tier_open(daemon_connect(daemon), "storm", &caller->module));
	for (unsigned int i = 0; i < METHODS; i++) {
		snprintf(name, sizeof(name), "m%u", i);
		caller_find(caller, name, &caller->methods[i], i < WATCHED ? &caller->slots[i] : NULL);
	}
	for (unsigned int i = 0; i < DIRECT; i++) {
		snprintf(name, sizeof(name), "d%u", i);
		caller_find(caller, name, &caller->direct[i], NULL);
	}
	caller_find(caller, "by_slot", &caller->by_slot, NULL);
	caller_find(caller, "by_data", &caller->by_data, NULL);
}

struct start {
	const struct world *world;
	unsigned int number;
};

static void caller_run(void *context)
{
	const struct start *start = context;
	static struct caller caller;

	caller = (struct caller){ .storm = start->world->storm, .number = start->number, .random = 88172645463325252ull + start->number };
	caller_open(&caller, &start->world->daemon);
	while (!__atomic_load_n(&caller.storm->stop, __ATOMIC_ACQUIRE))
		call_and_check(&caller);
	/* nothing is being replaced any more: from == to, each method, each route, over its thresholds */
	for (uint32_t round = 0; round < 40; round++)
		for (uint32_t i = 0; i < METHODS; i++)
			for (enum route route = 0; route < _ROUTE_N; route++) {
				const struct story *story = &caller.storm->stories[i];

				child_assert(call_by(&caller, route, i, round) == BODY_RESULT(story->bodies[story->acknowledged], round));
			}
}

/* -- The storm --- */
static void replace(struct world *world, struct tier_method *method, uint32_t i, unsigned int number, const char objects[][256])
{
	struct story *story = &world->storm->stories[i];
	int r;

	story->bodies[story->asked + 1] = number;
	__atomic_store_n(&story->asked, story->asked + 1, __ATOMIC_SEQ_CST);
	do	/* what the daemon did not live to answer may have been done; twice is no harm */
		r = number ? tier_rejit(method, objects[number], "fresh", 0) : tier_revert(method);
	while (r == -ECONNRESET);
	assert_done(r);
	__atomic_fetch_add(&world->storm->n_replaced, 1, __ATOMIC_RELEASE);
	__atomic_store_n(&story->acknowledged, story->asked, __ATOMIC_SEQ_CST);
}

static void rage(struct world *world, struct tier_module *module, unsigned int n, uint64_t *seed)
{
	char objects[NUMBERS + 1][256];
	uint64_t n_calls = 0, n_around = 0;

	for (unsigned int i = 1; i <= NUMBERS; i++)
		snprintf(objects[i], sizeof(objects[i]), "%s", body_compile(world->daemon.folder, "fresh", i));
	for (unsigned int k = 0; k < n; k++) {
		const uint64_t random = random_next(seed);
		const uint32_t i = random % 4 ? random / 4 % METHODS : random / 4 % DIRECT;
		struct tier_method *method;
		char name[16];

		if (world->storm->stories[i].asked + 1 == HISTORY_MAX)
			continue;
		snprintf(name, sizeof(name), "m%u", i);
		assert_done(tier_find(module, name, &method));
		replace(world, method, i, (random >> 32) % (NUMBERS + 1), objects);
	}
	for (unsigned int i = 0; i < PROCESSES; i++) {
		n_calls += __atomic_load_n(&world->storm->n_calls[i], __ATOMIC_RELAXED);
		n_around += __atomic_load_n(&world->storm->n_around[i], __ATOMIC_RELAXED);
	}
	print_message("%u replacements, %lu calls by %d processes, %lu of them around a replacement\n", n, (unsigned long)n_calls,
		      PROCESSES, (unsigned long)n_around);
}

static void storm_run(struct world *world, uint64_t seed, unsigned int n)
{
	static char source[65536];
	struct start starts[PROCESSES];
	pid_t processes[PROCESSES];
	struct tier_module *module;

	world->conn = daemon_connect(&world->daemon);
	program_write(source, sizeof(source));
	assert_done(tier_load(world->conn, bpf_compile(world->daemon.folder, "storm", source, "-g"), NULL, 0, &module));
	for (unsigned int i = 0; i < PROCESSES; i++) {
		starts[i] = (struct start){ world, i };
		processes[i] = child_start(caller_run, &starts[i]);
	}
	wait_until("all processes call", world->storm->n_calls[0] && world->storm->n_calls[1] && world->storm->n_calls[2] && world->storm->n_calls[3]);
	__atomic_store_n(&world->storm->is_calling, 1, __ATOMIC_RELEASE);
	rage(world, module, n, &seed);
	__atomic_store_n(&world->storm->stop, 1, __ATOMIC_RELEASE);
	for (unsigned int i = 0; i < PROCESSES; i++)
		child_end(processes[i]);
	tier_disconnect(world->conn);
}

static uint64_t world_init(struct world *world)
{
	const uint64_t seed = test_now_ns() | 1;

	print_message("seed %lu\n", (unsigned long)seed);
	world->storm = mmap(NULL, sizeof(*world->storm), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_true(world->storm != MAP_FAILED);
	return seed;
}

static void every_call_runs_a_body_that_is_in_place(void **state)
{
	struct world world;
	const uint64_t seed = world_init(&world);

	daemon_start(&world.daemon, ARGS("--call-counting-delay=0"));
	storm_run(&world, seed, test_is_long() ? 10000 : 300);
	munmap(world.storm, sizeof(*world.storm));
	daemon_stop(&world.daemon);
}

/* -- The same while the daemon dies again and again --- */
static void killer_run(void *context)
{
	struct world *world = context;
	uint64_t random = 2463534242u;
	unsigned int n = 0;

	wait_until("the storm", __atomic_load_n(&world->storm->is_calling, __ATOMIC_ACQUIRE));
	for (; !__atomic_load_n(&world->storm->stop, __ATOMIC_ACQUIRE); n++) {
		const uint32_t n_replaced = __atomic_load_n(&world->storm->n_replaced, __ATOMIC_ACQUIRE);

		/* one replacement survives, however slow the machine is, and the next may die at any point */
		nanosleep(&(struct timespec){ .tv_nsec = random_next(&random) % 100000000 }, NULL);
		daemon_kill_main(&world->daemon);
		wait_until("a replacement", __atomic_load_n(&world->storm->n_replaced, __ATOMIC_ACQUIRE) != n_replaced
							|| __atomic_load_n(&world->storm->stop, __ATOMIC_ACQUIRE));
	}
	print_message("the daemon was killed %u times\n", n);
}

/* What it says of the replacements, withdrawals and climbs obeys the rules, without a hole. */
static void check_order(const struct daemon *daemon)
{
	struct tier_event *events = malloc(EVENTS_MAX * sizeof(*events));
	struct tier_conn *conn = daemon_connect(daemon);
	struct order *order = order_new(1);
	const char *broken = NULL;
	size_t n;

	assert_non_null(events);
	n = events_read(conn, 0, UINT32_MAX, events, EVENTS_MAX);
	assert_true(n < EVENTS_MAX);
	for (size_t i = 0; i < n && !broken; i++)
		broken = order_hear(order, &events[i]);
	if (broken)
		fail_msg("%s", broken);
	print_message("%zu events, each where it may stand\n", n);
	order_free(order);
	tier_disconnect(conn);
	free(events);
}

static void deaths_of_the_daemon_bring_no_body_back(void **state)
{
	static const char *const policies[] = { "--backpatch=lazy", "--backpatch=eager", "--backpatch=forwarder" };
	struct world world;
	const uint64_t seed = world_init(&world);
	pid_t killer;

	daemon_start_kept(&world.daemon, ARGS("--call-counting-delay=0", policies[seed / 2 % ARRAY_SIZE(policies)]));
	killer = child_start(killer_run, &world);
	storm_run(&world, seed, test_is_long() ? 1000 : 30);
	child_end(killer);
	check_order(&world.daemon);
	munmap(world.storm, sizeof(*world.storm));
	daemon_stop(&world.daemon);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_call_runs_a_body_that_is_in_place),
		cmocka_unit_test(deaths_of_the_daemon_bring_no_body_back),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
