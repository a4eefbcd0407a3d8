/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "system/harness.h"
#include "system/json.h"
#include "util/base.h"

/* The ladders, for real: which tiers a method passes, for each option and each attribute
 *
 * A ladder is its levels, lowest first. Everything else follows: the schedule is 1 and then N for each level that is counted, the
 * history has the same events in the same order at each rung, and status, remaining and iterator say the same at each step. */

#define LEVELS_MAX 3
#define EVENTS_MAX 32

static const char source[] =
	"typedef unsigned long long u64;\n"
	"#define TAG(text) __attribute__((btf_decl_tag(text)))\n"
	"u64 plain(u64 x) { return x & 1 ? x * 3 + 1 : x / 2; }\n"
	"u64 loop(u64 n) { u64 s = 0; for (u64 i = 0; i < n; i++) { s = s * 31 + i; asm volatile(\"\" : \"+r\"(s)); } return s; }\n"
	"TAG(\"tier:no_optimization\") u64 slow(u64 x) { return x + 1; }\n"
	"TAG(\"tier:aggressive_optimization\") u64 fast(u64 n) { u64 s = 0;\n"
	"	for (u64 i = 0; i < n; i++) s = s * 31 + i; return s; }\n";

/* Too large for the optimizer */
static const char huge_source[] =
	"typedef unsigned long long u64;\n"
	"#define A(x) x x x x x x x x x x\n"
	"__attribute__((btf_decl_tag(\"tier:aggressive_optimization\"))) u64 huge(u64 x) {\n"
	"	A(A(A(A(asm volatile(\"%0 += 1; %0 += 1; %0 += 1; %0 += 1\" : \"+r\"(x)););))) return x; }\n";

static uint64_t plain(uint64_t x) { return x & 1 ? x * 3 + 1 : x / 2; }
static uint64_t loop(uint64_t n)
{
	uint64_t s = 0;

	for (uint64_t i = 0; i < n; i++)
		s = s * 31 + i;
	return s;
}
static uint64_t slow(uint64_t x) { return x + 1; }
static uint64_t huge(uint64_t x) { return x + 40000; }

static const struct {
	const char *name;
	uint64_t (*native)(uint64_t x);
} methods[] = { { "plain", plain }, { "loop", loop }, { "slow", slow }, { "fast", loop }, { "huge", huge } };

/* -- A daemon with the module --- */
struct world {
	struct daemon daemon;
	struct tier_conn *conn;
	struct tier_module *module;
};

static char folder[96], object[256];

static void world_start(struct world *w, const char *const *args)
{
	daemon_start(&w->daemon, args);
	w->conn = daemon_connect(&w->daemon);
	assert_done(tier_load(w->conn, object, NULL, 0, &w->module));
}

static void world_end(struct world *w)
{
	tier_disconnect(w->conn);
	daemon_stop(&w->daemon);
}

static struct tier_method *world_method(struct world *w, const char *name)
{
	struct tier_method *method;

	assert_done(tier_find(w->module, name, &method));
	return method;
}

static void call(const struct tier_method *method, uint64_t x)
{
	for (size_t i = 0; i < ARRAY_SIZE(methods); i++)
		if (!strcmp(methods[i].name, tier_method_name(method)))
			assert_int_equal(tier_entry(method)(x, 0, 0, 0, 0), methods[i].native(x));
}

/* -- What a ladder's history is --- */
struct ladder {
	enum tier_level levels[LEVELS_MAX];
	unsigned int n_levels;
	enum tier_reason reason;	/* why final */
	uint32_t threshold;
	bool has_delay;
};
#define LADDER(why, ...)                                                                                               \
	{ .levels = { __VA_ARGS__ }, .n_levels = sizeof((enum tier_level[]){ __VA_ARGS__ }) / sizeof(enum tier_level),   \
	  .reason = TIER_REASON_##why, .threshold = 30 }

struct expected {
	enum tier_event_kind kind;
	enum tier_level from, to;
	enum tier_reason reason;
};

struct history {
	struct expected events[EVENTS_MAX];
	size_t n;
};

static void expect(struct history *h, enum tier_event_kind kind, enum tier_level from, enum tier_level to,
		   enum tier_reason reason)
{
	h->events[h->n++] = (struct expected){ kind, from, to, reason };
}

static void expect_compile(struct history *h, enum tier_level from, enum tier_level to, enum tier_reason reason)
{
	expect(h, TIER_EVENT_QUEUED, from, to, reason);
	expect(h, TIER_EVENT_COMPILE_STARTED, from, to, TIER_REASON_NONE);
	expect(h, TIER_EVENT_COMPILE_ENDED, from, to, TIER_REASON_NONE);
}

static struct history history_of(const struct ladder *ladder)
{
	const enum tier_level *levels = ladder->levels;
	const unsigned int last = ladder->n_levels - 1;
	struct history h = { .n = 0 };

	if (levels[0] == TIER_LEVEL_OPTIMIZED)
		expect_compile(&h, TIER_LEVEL_NONE, levels[0], TIER_REASON_FIRST_CALL);
	expect(&h, TIER_EVENT_PUBLISHED, TIER_LEVEL_NONE, levels[0], TIER_REASON_FIRST_CALL);
	for (unsigned int i = 0; i < last; i++) {
		const enum tier_reason begun = i ? TIER_REASON_CALLS : ladder->has_delay ? TIER_REASON_DELAY_ENDED : TIER_REASON_FIRST_CALL;

		expect(&h, TIER_EVENT_COUNTING_BEGUN, levels[i], levels[i], begun);
		expect(&h, TIER_EVENT_THRESHOLD, levels[i], levels[i], TIER_REASON_CALLS);
		expect_compile(&h, levels[i], levels[i + 1], TIER_REASON_CALLS);
		expect(&h, TIER_EVENT_PUBLISHED, levels[i], levels[i + 1], i + 1 == last ? TIER_REASON_PROMOTED : TIER_REASON_CALLS);
	}
	expect(&h, TIER_EVENT_FINAL, levels[last], levels[last], ladder->reason);
	return h;
}

static void check_history(struct world *w, const struct tier_method *method, const struct ladder *ladder)
{
	const struct history h = history_of(ladder);
	struct tier_event events[EVENTS_MAX];
	const size_t n = events_read(w->conn, tier_module_id(w->module), method_index(w->module, method), events, EVENTS_MAX);

	for (size_t i = 0; i < n && i < h.n; i++) {
		const struct expected *e = &h.events[i];

		if (events[i].kind != e->kind || events[i].from != e->from || events[i].to != e->to || events[i].reason != e->reason)
			fail_msg("%s, event %zu: %s %s to %s, %s; not %s %s to %s, %s", tier_method_name(method), i,
				 tier_event_name(events[i].kind), tier_level_name(events[i].from), tier_level_name(events[i].to),
				 tier_reason_name(events[i].reason), tier_event_name(e->kind), tier_level_name(e->from),
				 tier_level_name(e->to), tier_reason_name(e->reason));
	}
	assert_int_equal(n, h.n);
}

/* -- Climbing --- */
/* Both ways of asking agree, and say what is so. */
static void check_answer(const struct tier_method *method, enum tier_status status, enum tier_level tier, uint32_t remaining)
{
	const struct tier_answer own = tier_status(method);
	struct tier_answer asked;

	assert_done(tier_status_ask(method, &asked));
	assert_int_equal(own.status, status);
	assert_int_equal(own.tier, tier);
	assert_int_equal(own.remaining, remaining);
	assert_int_equal(tier_remaining(method), remaining);
	assert_int_equal(asked.status, status);
	assert_int_equal(asked.tier, tier);
	assert_int_equal(asked.remaining, remaining);
	assert_int_equal(asked.generation, own.generation);
	assert_int_equal(asked.reason, own.reason);
}

static void check_climb(struct world *w, const char *name, const struct ladder *ladder)
{
	struct tier_method *method = world_method(w, name);
	struct tier_climb steps = TIER_CLIMB(method);
	struct tier_answer waited;
	unsigned int n = 0;
	uint32_t calls;
	int r;

	while ((r = tier_climb_next(&steps, TEST_DEADLINE_NS, NULL, &calls)) > 0) {
		assert_true(n < ladder->n_levels);
		assert_int_equal(calls, n ? ladder->threshold : 1);
		check_answer(method, n ? TIER_STATUS_OPTIMIZING : TIER_STATUS_COLD, n ? ladder->levels[n - 1] : TIER_LEVEL_NONE, calls);
		for (uint32_t i = 0; i < calls; i++) {
			if (n)
				check_answer(method, TIER_STATUS_OPTIMIZING, ladder->levels[n - 1], calls - i);
			call(method, i);
		}
		n++;
	}
	assert_done(r);
	assert_int_equal(n, ladder->n_levels);
	check_answer(method, TIER_STATUS_FINAL, ladder->levels[n - 1], 0);
	assert_int_equal(tier_status(method).reason, ladder->reason);
	assert_done(tier_wait(method, 0, NULL, &waited));
	assert_int_equal(waited.status, TIER_STATUS_FINAL);
	call(method, 1000);
	check_history(w, method, ladder);
}

static const struct ladder tier0_tier1 = LADDER(PROMOTED, TIER_LEVEL_TIER0, TIER_LEVEL_TIER1);
static const struct ladder instrumented = LADDER(PROMOTED, TIER_LEVEL_TIER0, TIER_LEVEL_TIER0_INSTRUMENTED, TIER_LEVEL_TIER1);
static const struct ladder all_instrumented = LADDER(PROMOTED, TIER_LEVEL_TIER0_INSTRUMENTED, TIER_LEVEL_TIER1);
static const struct ladder no_optimization = LADDER(NO_OPTIMIZATION, TIER_LEVEL_MIN_OPT_JITTED);
static const struct ladder aggressive = LADDER(AGGRESSIVE_OPTIMIZATION, TIER_LEVEL_OPTIMIZED);

/* -- Options --- */
static void with_profiles_there_are_three_tiers(void **state)
{
	struct world w;

	world_start(&w, ARGS("--tiered-pgo=on", "--call-counting-delay=0", "--sweep=1h"));
	check_climb(&w, "plain", &instrumented);
	check_climb(&w, "loop", &instrumented);
	world_end(&w);
}

static void a_delay_holds_the_first_of_them_only(void **state)
{
	struct ladder ladder = instrumented;
	struct world w;

	ladder.has_delay = true;
	world_start(&w, ARGS("--tiered-pgo=on", "--sweep=1h"));
	check_climb(&w, "plain", &ladder);
	world_end(&w);
}

static void without_profiles_there_are_two(void **state)
{
	struct world w;

	world_start(&w, ARGS("--tiered-pgo=off", "--call-counting-delay=0", "--sweep=1h"));
	check_climb(&w, "plain", &tier0_tier1);
	check_climb(&w, "loop", &tier0_tier1);
	world_end(&w);
}

static void all_code_may_be_instrumented_from_the_start(void **state)
{
	struct world w;

	world_start(&w, ARGS("--tiered-pgo=on", "--instrument-only-hot-code=off", "--call-counting-delay=0", "--sweep=1h"));
	check_climb(&w, "plain", &all_instrumented);
	check_climb(&w, "loop", &all_instrumented);
	world_end(&w);
}

static void attributes_decide_at_the_first_call(void **state)
{
	static const char *const pgo[] = { "--tiered-pgo=on", "--tiered-pgo=off" };
	struct world w;

	for (size_t i = 0; i < ARRAY_SIZE(pgo); i++) {
		world_start(&w, ARGS(pgo[i], "--sweep=1h"));
		check_climb(&w, "slow", &no_optimization);
		check_climb(&w, "fast", &aggressive);
		world_end(&w);
	}
}

static void without_tiers_everything_is_optimized_at_its_first_call(void **state)
{
	static const struct ladder off = LADDER(TIERING_OFF, TIER_LEVEL_OPTIMIZED);
	struct world w;

	world_start(&w, ARGS("--tiered-compilation=off", "--tiered-pgo=on", "--osr=on", "--sweep=1h"));
	check_climb(&w, "plain", &off);
	check_climb(&w, "loop", &off);
	check_climb(&w, "slow", &no_optimization);
	check_climb(&w, "fast", &aggressive);
	world_end(&w);
}

static void without_quick_code_so_it_is(void **state)
{
	static const struct ladder off = LADDER(QUICK_JIT_OFF, TIER_LEVEL_OPTIMIZED);
	struct world w;

	world_start(&w, ARGS("--quick-jit=off", "--sweep=1h"));
	check_climb(&w, "plain", &off);
	check_climb(&w, "loop", &off);
	check_climb(&w, "slow", &no_optimization);
	world_end(&w);
	world_start(&w, ARGS("--tc-quick-jit-for-loops=off", "--tiered-pgo=on", "--call-counting-delay=0", "--sweep=1h"));
	check_climb(&w, "plain", &instrumented);
	check_climb(&w, "loop", &off);
	world_end(&w);
}

static void without_call_counting_one_call_is_all(void **state)
{
	static const struct ladder off = LADDER(COUNTING_OFF, TIER_LEVEL_TIER0);
	static const struct ladder counted = LADDER(COUNTING_OFF, TIER_LEVEL_TIER0_INSTRUMENTED);
	struct world w;

	world_start(&w, ARGS("--tc-call-counting=off", "--tiered-pgo=on", "--sweep=1h"));
	check_climb(&w, "plain", &off);
	check_climb(&w, "loop", &off);
	check_climb(&w, "slow", &no_optimization);
	world_end(&w);
	world_start(&w, ARGS("--call-counting=off", "--tiered-pgo=on", "--instrument-only-hot-code=off", "--sweep=1h"));
	check_climb(&w, "plain", &counted);
	world_end(&w);
}

static void aggressive_tiering_needs_one_call_per_tier(void **state)
{
	struct ladder ladder = instrumented;
	struct world w;

	ladder.threshold = 1;
	world_start(&w, ARGS("--aggressive-tiering=on", "--tiered-pgo=on", "--call-count-threshold=1000", "--sweep=1h"));
	check_climb(&w, "plain", &ladder);
	world_end(&w);
}

static void other_ways_of_counting_lead_to_the_same(void **state)
{
	static const char *const ways[] = { "--call-counting-stubs=off", "--backpatch=eager", "--backpatch=forwarder" };
	struct world w;

	for (size_t i = 0; i < ARRAY_SIZE(ways); i++) {
		world_start(&w, ARGS(ways[i], "--tiered-pgo=on", "--call-counting-delay=0", "--sweep=1h"));
		check_climb(&w, "plain", &instrumented);
		world_end(&w);
	}
}

/* The delay comes before the first counted call, the compilations before the next steps; with the calls that is all the time. */
static void check_times(const char *out, unsigned int n_steps)
{
	double sum = 0, total = 0, delay, compile;
	char path[64];

	for (unsigned int i = 0; i < n_steps; i++) {
		snprintf(path, sizeof(path), "steps.%u.delay_ms", i);
		delay = json_float(out, path);
		snprintf(path, sizeof(path), "steps.%u.compile_ms", i);
		compile = json_float(out, path);
		assert_true(i == 1 ? delay > 0 : delay == 0);
		assert_true(i > 1 || compile < 50);
		sum += delay + compile;
		snprintf(path, sizeof(path), "steps.%u.ms", i);
		total = json_float(out, path);
		snprintf(path, sizeof(path), "steps.%u.calls", i);
		if (json_number(out, path)) {
			const double calls = json_number(out, path) / 1e6;

			snprintf(path, sizeof(path), "steps.%u.ns_per_call", i);
			sum += calls * json_float(out, path);
		}
	}
	assert_true(sum <= total + 0.1);
	assert_true(sum >= total / 2);		/* the rest is a busy machine's */
}

static void tierctl_drive_prints_the_schedule(void **state)
{
	static char out[RUN_TEXT_MAX], err[RUN_TEXT_MAX];
	static const char *const tiers[] = { "none", "Tier0", "Tier0Instrumented", "Tier1" };
	static const unsigned int calls[] = { 1, 30, 30, 0 };
	static const char *const names[] = { "ladders:plain", "ladders:loop" };
	struct world w;
	char path[64];

	world_start(&w, ARGS("--tiered-pgo=on", "--osr=on"));
	for (size_t k = 0; k < ARRAY_SIZE(names); k++) {
		assert_int_equal(tierctl(&w.daemon, out, err, "drive", names[k], "100000", "--json", NULL), 0);
		assert_string_equal(err, "");
		assert_int_equal(json_length(out, "steps"), ARRAY_SIZE(calls));
		for (unsigned int i = 0; i < ARRAY_SIZE(calls); i++) {
			snprintf(path, sizeof(path), "steps.%u.tier", i);
			json_expect(out, path, tiers[i]);
			snprintf(path, sizeof(path), "steps.%u.calls", i);
			assert_int_equal(json_number(out, path), calls[i]);
		}
		check_times(out, ARRAY_SIZE(calls));
	}
	world_end(&w);
}

/* -- Failures --- */
static void kill_one(pid_t pid, void *context)
{
	kill(pid, SIGKILL);
}

static void a_worker_that_dies_leaves_a_method_on_its_instrumented_code(void **state)
{
	struct tier_method *method;
	struct tier_answer answer;
	struct world w;

	world_start(&w, ARGS("--tiered-pgo=on", "--call-counting-delay=0", "--sweep=1h"));
	method = world_method(&w, "plain");
	workers_stop(&w.daemon);
	for (int i = 0; i < 31; i++)
		call(method, i);
	assert_done(tier_wait(method, TEST_DEADLINE_NS, NULL, &answer));	/* which takes no worker */
	check_answer(method, TIER_STATUS_OPTIMIZING, TIER_LEVEL_TIER0_INSTRUMENTED, 30);
	for (int i = 0; i < 30; i++)
		call(method, i);
	wait_until("the promotion is outside", tier_status(method).stage == TIER_STAGE_COMPILING);
	each_descendant(w.daemon.pid, kill_one, NULL);
	assert_done(tier_wait(method, TEST_DEADLINE_NS, NULL, &answer));
	if (answer.status == TIER_STATUS_FINAL && answer.reason == TIER_REASON_PROMOTED)
		fail_msg("the job was not in a worker yet");
	check_answer(method, TIER_STATUS_FINAL, TIER_LEVEL_TIER0_INSTRUMENTED, 0);
	assert_int_equal(answer.reason, TIER_REASON_WORKER_DIED);
	call(method, 5);
	world_end(&w);
}

static void what_the_optimizer_cannot_take_at_the_first_call_is_not_optimized(void **state)
{
	struct tier_method *method;
	struct world w;

	world_start(&w, NULL);
	assert_done(tier_load(w.conn, bpf_compile(folder, "huge", huge_source, "-g"), NULL, 0, &w.module));
	method = world_method(&w, "huge");
	check_answer(method, TIER_STATUS_COLD, TIER_LEVEL_NONE, 1);
	call(method, 7);
	check_answer(method, TIER_STATUS_FINAL, TIER_LEVEL_MIN_OPT_JITTED, 0);
	assert_int_equal(tier_status(method).reason, TIER_REASON_TOO_LARGE);
	world_end(&w);
}

static void *call_fast(void *context)
{
	call(context, 1000);
	return NULL;
}

/* The optimizer stands, and then dies: the caller gets its result all the same. */
static void a_first_call_survives_its_worker(void **state)
{
	struct tier_method *method;
	pthread_t thread;
	struct world w;

	world_start(&w, ARGS("--sweep=1h"));
	method = world_method(&w, "fast");
	workers_stop(&w.daemon);
	assert_int_equal(pthread_create(&thread, NULL, call_fast, method), 0);
	wait_until("the optimizer is asked", events_count(w.conn, w.module, method, TIER_EVENT_COMPILE_STARTED));
	check_answer(method, TIER_STATUS_COLD, TIER_LEVEL_NONE, 1);
	each_descendant(w.daemon.pid, kill_one, NULL);
	pthread_join(thread, NULL);
	assert_int_equal(tier_status(method).status, TIER_STATUS_FINAL);
	if (tier_status(method).tier != TIER_LEVEL_OPTIMIZED) {	/* another worker may have done it */
		check_answer(method, TIER_STATUS_FINAL, TIER_LEVEL_MIN_OPT_JITTED, 0);
		assert_int_equal(tier_status(method).reason, TIER_REASON_WORKER_DIED);
	}
	world_end(&w);
}

/* -- On-stack replacement --- */
static void the_hits_that_ask_are_those_that_the_knobs_say(void **state)
{
	struct tier_method *method;
	struct tier_answer before, after;
	struct world w;

	world_start(&w, ARGS("--osr=on", "--osr-initial-counter=100", "--osr-counter-bump=50", "--osr-hit-limit=3",
			     "--call-counting=off"));
	method = world_method(&w, "loop");
	call(method, 199);	/* hits at 100 and 150 */
	before = tier_status(method);
	call(method, 99);	/* a frame of its own */
	assert_int_equal(events_count(w.conn, w.module, method, TIER_EVENT_OSR_REQUESTED), 0);
	call(method, 100);
	wait_until("the code is there", events_count(w.conn, w.module, method, TIER_EVENT_OSR_READY));
	assert_int_equal(events_count(w.conn, w.module, method, TIER_EVENT_OSR_REQUESTED), 1);
	for (uint64_t n = 90; n < 1000; n++)
		call(method, n);
	after = tier_status(method);
	assert_memory_equal(&after, &before, sizeof(after));	/* no tier, no count, no generation */
	assert_int_equal(events_count(w.conn, w.module, method, TIER_EVENT_OSR_REQUESTED), 1);
	world_end(&w);
}

static void one_call_that_loops_leaves_tier_0(void **state)
{
	static char out[RUN_TEXT_MAX], err[RUN_TEXT_MAX];
	struct tier_method *method;
	struct world w;

	world_start(&w, ARGS("--osr=on", "--tiered-pgo=on"));
	method = world_method(&w, "loop");
	call(method, 300000000);	/* most of a second */
	assert_int_equal(events_count(w.conn, w.module, method, TIER_EVENT_OSR_READY), 1);
	assert_int_equal(tier_status(method).tier, TIER_LEVEL_TIER0);
	assert_int_equal(tierctl(&w.daemon, out, err, "show", "ladders:loop", NULL), 0);
	assert_non_null(strstr(out, "OSR"));
	assert_int_equal(climb(method, NULL), 60);	/* the first call is done */
	world_end(&w);
}

static void without_it_there_are_no_hits(void **state)
{
	static const char *const ways[][2] = {
		{ "--osr=off", "--tiered-pgo=on" }, { "--osr=on", "--quick-jit=off" }, { "--osr=on", "--quick-jit-for-loops=off" },
	};
	struct tier_method *method;
	struct world w;

	for (size_t i = 0; i < ARRAY_SIZE(ways); i++) {
		world_start(&w, ARGS(ways[i][0], ways[i][1], "--osr-hit-limit=1", "--osr-initial-counter=1", "--osr-counter-bump=1"));
		method = world_method(&w, "loop");
		call(method, 100000);
		assert_int_equal(events_count(w.conn, w.module, method, TIER_EVENT_OSR_REQUESTED), 0);
		world_end(&w);
	}
}

static int setup(void **state)
{
	snprintf(folder, sizeof(folder), "%s/tierd-ladders-XXXXXX", temporary_folder());
	if (!mkdtemp(folder))
		return -1;
	snprintf(object, sizeof(object), "%s", bpf_compile(folder, "ladders", source, "-g"));
	return 0;
}

static int teardown(void **state)
{
	static const char *const names[] = { "ladders.c", "ladders.o", "huge.c", "huge.o", "other.c", "other.o" };
	char path[256];

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		snprintf(path, sizeof(path), "%s/%s", folder, names[i]);
		unlink(path);
	}
	return rmdir(folder);
}

/* -- Bodies --- */
static const char other_source[] =
	"typedef unsigned long long u64;\n"
	"u64 plain(u64 x) { return x * 7; }\n"
	"u64 loop(u64 n) { u64 s = 0; for (u64 i = 0; i < n; i++) { s += i * 5; asm volatile(\"\" : \"+r\"(s)); } return s; }\n";

/* The schedule, and what each call gives */
static void check_steps(struct tier_method *method, uint64_t x, uint64_t result, const uint32_t *expected,
			unsigned int n_expected)
{
	struct tier_climb steps = TIER_CLIMB(method);
	unsigned int n = 0;
	uint32_t calls;
	int r;

	while ((r = tier_climb_next(&steps, TEST_DEADLINE_NS, NULL, &calls)) > 0) {
		assert_true(n < n_expected);
		assert_int_equal(calls, expected[n++]);
		while (calls--)
			assert_int_equal(tier_entry(method)(x, 0, 0, 0, 0), result);
	}
	assert_done(r);
	assert_int_equal(n, n_expected);
	check_answer(method, TIER_STATUS_FINAL, TIER_LEVEL_TIER1, 0);
	assert_int_equal(tier_entry(method)(x, 0, 0, 0, 0), result);
}

static void another_body_climbs_a_ladder_of_its_own(void **state)
{
	static const uint32_t schedule[] = { 1, 30, 30 };
	struct tier_method *method;
	struct world w;
	char path[256];

	world_start(&w, ARGS("--tiered-pgo=on", "--call-counting-delay=0"));
	method = world_method(&w, "plain");
	snprintf(path, sizeof(path), "%s", bpf_compile(folder, "other", other_source, "-g"));
	check_steps(method, 5, plain(5), schedule, 3);
	assert_done(tier_rejit(method, path, NULL, 0));
	check_answer(method, TIER_STATUS_COLD, TIER_LEVEL_NONE, 1);
	check_steps(method, 5, 35, schedule, 3);
	assert_done(tier_revert(method));
	check_steps(method, 5, plain(5), NULL, 0);	/* as it was left */
	world_end(&w);
}

/* Optimized code for loops may have inlined whoever is replaced. */
static void another_body_ends_code_for_loops(void **state)
{
	static const uint64_t n = 2000;
	struct tier_method *method;
	struct world w;
	char path[256];

	world_start(&w, ARGS("--osr=on", "--osr-hit-limit=1", "--osr-initial-counter=10", "--call-counting=off"));
	method = world_method(&w, "loop");
	snprintf(path, sizeof(path), "%s", bpf_compile(folder, "other", other_source, "-g"));
	call(method, n);
	wait_until("the code is there", events_count(w.conn, w.module, method, TIER_EVENT_OSR_READY));
	call(method, n);
	assert_done(tier_rejit(method, path, NULL, 0));
	for (int i = 0; i < 100; i++)
		assert_int_equal(tier_entry(method)(n, 0, 0, 0, 0), 5 * n * (n - 1) / 2);	/* which has no patchpoints */
	assert_int_equal(events_count(w.conn, w.module, method, TIER_EVENT_OSR_REQUESTED), 1);
	assert_done(tier_revert(method));
	wait_until("it is asked for again", (call(method, 100 * n), events_count(w.conn, w.module, method, TIER_EVENT_OSR_READY) == 2));
	call(method, n);
	world_end(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(with_profiles_there_are_three_tiers),
		cmocka_unit_test(a_delay_holds_the_first_of_them_only),
		cmocka_unit_test(without_profiles_there_are_two),
		cmocka_unit_test(all_code_may_be_instrumented_from_the_start),
		cmocka_unit_test(attributes_decide_at_the_first_call),
		cmocka_unit_test(without_tiers_everything_is_optimized_at_its_first_call),
		cmocka_unit_test(without_quick_code_so_it_is),
		cmocka_unit_test(without_call_counting_one_call_is_all),
		cmocka_unit_test(aggressive_tiering_needs_one_call_per_tier),
		cmocka_unit_test(other_ways_of_counting_lead_to_the_same),
		cmocka_unit_test(tierctl_drive_prints_the_schedule),
		cmocka_unit_test(a_worker_that_dies_leaves_a_method_on_its_instrumented_code),
		cmocka_unit_test(what_the_optimizer_cannot_take_at_the_first_call_is_not_optimized),
		cmocka_unit_test(a_first_call_survives_its_worker),
		cmocka_unit_test(the_hits_that_ask_are_those_that_the_knobs_say),
		cmocka_unit_test(one_call_that_loops_leaves_tier_0),
		cmocka_unit_test(without_it_there_are_no_hits),
		cmocka_unit_test(another_body_climbs_a_ladder_of_its_own),
		cmocka_unit_test(another_body_ends_code_for_loops),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
