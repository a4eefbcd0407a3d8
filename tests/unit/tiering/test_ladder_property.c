/* SPDX-License-Identifier: Apache-2.0 */
#include <sys/random.h>
#include "unit/tiering/fake.h"

/* What everybody is told agrees, whatever happens
 *
 * Random ladders: options, traits, profiles, room, failures, delays, freezes, bodies that go, daemons that are replaced. After each
 * step, of each method: status, remaining calls, whether a wait is over, what the iterator does next, and the events that were
 * told so far say the same. Whoever does as the iterator says reaches the next tier by exactly those calls; and in the end
 * every method that is called is final, by a ladder that its options and traits allow. TIER_TEST_SEED repeats a run. */

#define UID 1000
#define N_METHODS 4u
#define REPLACED 3u	/* the method whose body goes and comes back */
#define LIFE_MAX 8u

/* What the events say of a method */
struct told {
	enum tier_stage stage;		/* COLD also while the optimizer makes the first code */
	enum tier_level level;
	enum tier_reason reason;
	uint64_t generation, version;
	uint32_t n_counted;		/* calls since counting began */
	uint8_t life[LIFE_MAX];		/* levels that were published since it was cold */
	uint32_t n_life;
	bool is_restored;		/* its own body came back: where it stands is what it answers */
};

struct run {
	struct fake *fake;
	struct fake_module *fm;
	struct told told[N_METHODS];
	uint64_t random, seed;
	bool is_frozen;
	uint32_t n_bodies;
	uint64_t n_steps, n_final, n_obeyed, n_failed, n_withdrawn, n_lives[_TIER_LEVEL_N];
};

static uint32_t draw(struct run *run, uint32_t n)
{
	run->random ^= run->random << 13;
	run->random ^= run->random >> 7;
	run->random ^= run->random << 17;
	return (run->random >> 16) % n;
}

/* -- Events --- */
static void hear_published(struct run *run, struct told *told, const struct tier_event *event)
{
	assert_true(told->is_restored || event->from == told->level);
	assert_true(told->is_restored || event->version > told->version);
	assert_true(told->n_life < LIFE_MAX);
	told->life[told->n_life++] = event->to;
	told->stage = TIER_STAGE_UNCOUNTED;
	told->level = event->to;
	told->version = event->version;
	told->generation++;
	run->n_lives[event->to]++;
}

static void hear_gone(struct told *told, const struct tier_event *event)
{
	const bool is_cold = event->to == TIER_LEVEL_NONE;

	told->generation++;
	told->level = event->to;
	told->stage = is_cold ? TIER_STAGE_COLD : TIER_STAGE_REACHED;
	told->n_life = 0;
	if (!is_cold)
		told->life[told->n_life++] = event->to;
}

static void hear_method(struct run *run, struct told *told, const struct tier_event *event)
{
	const bool is_cold = told->stage == TIER_STAGE_COLD;

	switch (event->kind) {
	case TIER_EVENT_PUBLISHED:
		hear_published(run, told, event);
		break;
	case TIER_EVENT_COUNTING_BEGUN:
		told->n_counted = event->reason == TIER_REASON_REVERT ? told->n_counted : 0;
		told->stage = TIER_STAGE_COUNTING;
		break;
	case TIER_EVENT_THRESHOLD:
		assert_true(told->is_restored || told->n_counted >= FAKE_N);
		told->stage = is_cold ? TIER_STAGE_COLD : TIER_STAGE_REACHED;
		break;
	case TIER_EVENT_QUEUED:
		told->stage = is_cold ? TIER_STAGE_COLD : TIER_STAGE_QUEUED;
		break;
	case TIER_EVENT_COMPILE_STARTED:
		assert_false(run->is_frozen && !is_cold && !told->is_restored);
		told->stage = is_cold ? TIER_STAGE_COLD : TIER_STAGE_COMPILING;
		break;
	case TIER_EVENT_COMPILE_ENDED:
		break;
	case TIER_EVENT_FINAL:
		told->stage = TIER_STAGE_FINAL;
		told->reason = event->reason;
		run->n_final++;
		break;
	case TIER_EVENT_WITHDRAWN:
		run->n_withdrawn++;
		hear_gone(told, event);
		break;
	case TIER_EVENT_REJITTED:
		hear_gone(told, event);
		break;
	case TIER_EVENT_REVERTED:
		told->generation++;
		told->is_restored = true;
		break;
	default:
		fail_msg("an event of kind %u about a method", event->kind);
	}
}

static void hear(struct fake *fake, const struct tier_event *event)
{
	struct run *run = fake->test;

	if (getenv("TIER_TEST_TRACE"))
		print_message("%5llu: %u %s version %llu %s\n", (unsigned long long)run->n_steps, event->method,
			      tier_event_name(event->kind), (unsigned long long)event->version, tier_reason_name(event->reason));
	if (event->kind == TIER_EVENT_FROZEN || event->kind == TIER_EVENT_THAWED)
		run->is_frozen = event->kind == TIER_EVENT_FROZEN;
	if (event->method != UINT32_MAX)
		hear_method(run, &run->told[event->method], event);
}

/* -- Agreement --- */
static struct tier_answer answer_of(const struct run *run, uint32_t method)
{
	return tier_record_answer(&run->fm->records[method], run->fm->cells, run->fm->layout.n_cells);
}

/* Where its own body stood is not retold in full. */
static void restore(struct told *told, const struct tier_answer *answer, const struct tier_record *record)
{
	told->is_restored = false;
	told->stage = answer->stage == TIER_STAGE_REACHED ? TIER_STAGE_COUNTING : answer->stage;
	told->level = answer->tier;
	told->reason = answer->reason;
	told->version = record->version;
	told->n_life = 0;
	told->n_counted = FAKE_N - MIN(answer->remaining, FAKE_N);
	if (answer->stage == TIER_STAGE_UNCOUNTED)
		told->n_counted = 0;
}

/* What the events make of the questions, by the words of DESIGN §5 */
static void expect(const struct run *run, const struct told *told, struct tier_answer *ret, bool *ret_quiet)
{
	const bool is_pending = told->stage == TIER_STAGE_QUEUED || told->stage == TIER_STAGE_COMPILING;
	const uint32_t left = FAKE_N - MIN(told->n_counted, FAKE_N);

	*ret = (struct tier_answer){ .stage = told->stage, .tier = told->level, .generation = told->generation };
	ret->status = told->stage == TIER_STAGE_COLD	? TIER_STATUS_COLD
		      : told->stage == TIER_STAGE_FINAL ? TIER_STATUS_FINAL
							: TIER_STATUS_OPTIMIZING;
	ret->is_frozen = run->is_frozen && is_pending;
	if (told->stage == TIER_STAGE_FINAL)
		ret->reason = told->reason;
	if (told->stage == TIER_STAGE_COLD)
		ret->remaining = 1;
	else if (told->stage == TIER_STAGE_UNCOUNTED)
		ret->remaining = FAKE_N;
	else if (told->stage == TIER_STAGE_COUNTING)
		ret->remaining = left;
	if (told->stage == TIER_STAGE_COUNTING && !left)
		ret->stage = TIER_STAGE_REACHED;
	*ret_quiet = told->stage == TIER_STAGE_COLD || told->stage == TIER_STAGE_FINAL || ret->is_frozen
		  || (told->stage == TIER_STAGE_COUNTING && left);
}

static void check_method(struct run *run, uint32_t method)
{
	const struct tier_answer answer = answer_of(run, method);
	struct told *told = &run->told[method];
	struct tier_answer expected;
	bool is_quiet;

	if (told->is_restored)
		restore(told, &answer, &run->fm->records[method]);
	expect(run, told, &expected, &is_quiet);
	assert_string_equal(tier_status_name(answer.status), tier_status_name(expected.status));
	assert_string_equal(tier_stage_name(answer.stage), tier_stage_name(expected.stage));
	assert_string_equal(tier_level_name(answer.tier), tier_level_name(expected.tier));
	assert_string_equal(tier_reason_name(answer.reason), tier_reason_name(expected.reason));
	assert_int_equal(answer.remaining, expected.remaining);
	assert_int_equal(answer.generation, expected.generation);
	assert_int_equal(answer.is_frozen, expected.is_frozen);
	assert_int_equal(tier_answer_is_quiet(&answer), is_quiet);
	/* the iterator: a wait that is over leads to calls, or to the end */
	if (is_quiet)
		assert_int_equal(!answer.remaining, answer.status == TIER_STATUS_FINAL || answer.is_frozen);
	else	/* and one that is not will be */
		assert_true(run->fake->armed_ns || core_pending(run->fake->core, CORE_SCOPE_ALL, NULL, 0));
}

static void check(struct run *run)
{
	const struct fake *fake = run->fake;
	uint32_t n_least = 0;

	fake_check(run->fake);
	for (uint32_t i = 0; i < N_METHODS; i++)
		check_method(run, i);
	for (uint32_t i = 0; i < N_METHODS; i++)
		n_least += run->told[i].stage == TIER_STAGE_QUEUED;
	for (uint32_t i = 0; i < fake->n_jobs; i++)
		n_least += fake->jobs[i].is_active;
	/* those whose first code waits for a place are pending too, and cold */
	assert_true(core_pending(fake->core, CORE_SCOPE_ALL, NULL, 0) >= n_least);
}

/* -- Steps --- */
static void call(struct run *run, uint32_t method, bool rings)
{
	struct told *told = &run->told[method];
	const uint64_t version = run->fm->records[method].version;
	const enum fake_path path = fake_call(run->fm, method);

	if (path != FAKE_COUNTED && path != FAKE_CROSSED)
		return;
	told->n_counted++;
	assert_int_equal(path == FAKE_CROSSED, told->n_counted == FAKE_N);
	if (path == FAKE_CROSSED && rings)
		fake_ring(run->fm, method, version);
}

static void step_call(struct run *run) { call(run, draw(run, N_METHODS), draw(run, 4)); }

/* Does what the iterator says. */
static void step_obey(struct run *run)
{
	const uint32_t method = draw(run, N_METHODS);
	const struct tier_answer before = fake_answer(run->fm, method);
	struct tier_answer after;

	if (!tier_answer_is_quiet(&before) || before.status == TIER_STATUS_FINAL || before.is_frozen)
		return;
	for (uint32_t left = before.remaining; left > 1; left--) {
		call(run, method, true);
		assert_int_equal(answer_of(run, method).remaining, left - 1);
	}
	call(run, method, true);
	after = answer_of(run, method);
	if (before.status != TIER_STATUS_COLD)
		assert_true(after.stage > TIER_STAGE_COUNTING && !after.remaining);
	run->n_obeyed++;
}

static void step_time(struct run *run) { fake_pass(run->fake, draw(run, 150)); }

static void step_end(struct run *run)
{
	static const enum tier_reason reasons[] = { TIER_REASON_COMPILE_FAILED, TIER_REASON_WORKER_DIED, TIER_REASON_ARENA_FULL };
	struct fake *fake = run->fake;
	const bool fails = !draw(run, 8);

	for (uint32_t i = 0; i < fake->n_jobs; i++) {
		if (!fake->jobs[i].is_active)
			continue;
		run->n_failed += fails;
		fake_end_job(fake, &fake->jobs[i], fails ? reasons[draw(run, 3)] : TIER_REASON_NONE);
		return;
	}
}

static void step_look(struct run *run)
{
	if (draw(run, 2))
		core_sweep(run->fake->core, NULL);
	else
		fake_answer(run->fm, draw(run, N_METHODS));
}

static void step_freeze(struct run *run)
{
	if (run->is_frozen)
		core_thaw(run->fm->module);
	else
		core_freeze(run->fm->module);
}

static void step_body(struct run *run)
{
	if (draw(run, 2))
		assert_int_equal(core_rejit(run->fm->module, REPLACED, ++run->n_bodies), 0);
	else
		assert_int_equal(core_revert(run->fm->module, REPLACED), 0);
}

static void step_restart(struct run *run) { fake_restart(run->fake); }

static void step_trouble(struct run *run)
{
	struct fake *fake = run->fake;

	fake->stub_result = draw(run, 8) ? 0 : CORE_E_FULL;
	fake->compile_result = draw(run, 4) ? 0 : draw(run, 2) ? -EMFILE : CORE_E_TOO_LARGE;
	fake->first_fails = draw(run, 4) ? 0 : 1u << TIER_LEVEL_READY_TO_RUN | 1u << TIER_LEVEL_TIER0_INSTRUMENTED;
}

static void step(struct run *run)
{
	static const struct {
		uint32_t weight;
		void (*fn)(struct run *run);
	} steps[] = {
		{ 60, step_call }, { 20, step_obey }, { 20, step_time }, { 25, step_end }, { 6, step_look },
		{ 3, step_freeze }, { 2, step_body }, { 2, step_restart }, { 1, step_trouble },
	};
	uint32_t drawn = draw(run, 139);

	for (unsigned int i = 0; i < ARRAY_SIZE(steps); i++) {
		if (drawn < steps[i].weight) {
			steps[i].fn(run);
			break;
		}
		drawn -= steps[i].weight;
	}
	check(run);
	run->n_steps++;
}

/* -- Ladders --- */
/* The way from one level to the next, by the rows of reference §7 */
static bool may_follow(const struct core_config *config, uint8_t from, uint8_t to)
{
	const bool is_instrumented = config->pgo && !config->instrument_all;

	switch (to) {
	case TIER_LEVEL_TIER0_INSTRUMENTED:
		return is_instrumented && from == TIER_LEVEL_TIER0;
	case TIER_LEVEL_TIER1_INSTRUMENTED:
		return is_instrumented && from == TIER_LEVEL_READY_TO_RUN;
	default:
		return to == TIER_LEVEL_TIER1 && from != TIER_LEVEL_OPTIMIZED && from != TIER_LEVEL_MIN_OPT_JITTED;
	}
}

static void assert_life(const struct run *run, uint32_t method)
{
	const struct told *told = &run->told[method];

	assert_int_equal(told->stage, TIER_STAGE_FINAL);
	for (uint32_t i = 1; i < told->n_life; i++)
		assert_true(may_follow(&run->fake->config, told->life[i - 1], told->life[i]));
	if (run->fake->config.no_tiers && told->n_life)
		assert_true(told->life[0] == TIER_LEVEL_OPTIMIZED || told->life[0] == TIER_LEVEL_MIN_OPT_JITTED);
}

/* All obstacles are gone, and everybody obeys. */
static void climb(struct run *run)
{
	struct fake *fake = run->fake;

	fake->stub_result = fake->compile_result = fake->first_fails = 0;
	if (run->is_frozen)
		core_thaw(run->fm->module);
	for (uint32_t round = 0; round < 60; round++) {
		for (uint32_t method = 0; method < N_METHODS; method++) {
			const struct tier_answer answer = fake_answer(run->fm, method);

			for (uint32_t left = answer.remaining; tier_answer_is_quiet(&answer) && left; left--)
				call(run, method, true);
		}
		step_end(run);
		fake_pass(fake, 60);
		check(run);
	}
	for (uint32_t method = 0; method < N_METHODS; method++)
		assert_life(run, method);
}

/* -- Runs --- */
static struct core_config some_config(struct run *run)
{
	struct core_config config = fake_config;

	config.pgo = draw(run, 4);
	config.instrument_all = !draw(run, 4);
	config.no_tiers = !draw(run, 10);
	config.no_quick_jit = !draw(run, 10);
	config.no_quick_jit_loops = !draw(run, 5);
	config.call_counting = draw(run, 12);
	config.delay_ns = draw(run, 4) ? config.delay_ns : 0;
	config.counting_in_prestub = !draw(run, 6);
	config.jobs_per_uid = config.jobs_total = 1 + draw(run, 3);
	return config;
}

static uint32_t some_traits(struct run *run)
{
	static const uint32_t traits[] = {
		0, 0, 0, CORE_TRAIT_PRECOMPILED, CORE_TRAIT_PRECOMPILED, CORE_TRAIT_PRECOMPILED | CORE_TRAIT_PINNED,
		CORE_TRAIT_NO_OPTIMIZATION, CORE_TRAIT_AGGRESSIVE_OPTIMIZATION,
	};

	return traits[draw(run, ARRAY_SIZE(traits))] | (draw(run, 2) ? CORE_TRAIT_LOOPS : 0);
}

static void walk(struct run *run)
{
	const struct core_config config = some_config(run);

	run->fake = fake_new(&config);
	run->fake->on_event = hear;
	run->fake->test = run;
	run->is_frozen = false;
	run->n_bodies = 0;
	memset(run->told, 0, sizeof(run->told));
	assert_int_equal(fake_try_load(run->fake, UID, "m", N_METHODS, draw(run, 4) ? 4000 : 30, &run->fm), 0);
	for (uint32_t i = 0; i < N_METHODS; i++) {
		run->told[i].level = TIER_LEVEL_NONE;
		run->fm->traits[i] = some_traits(run);
		run->fm->n_profile[i] = 2 * draw(run, 6);
		run->fm->inlines[i] = draw(run, 2) ? 1u << REPLACED : 0;
	}
	for (uint32_t i = 0; i < 100; i++)
		step(run);
	climb(run);
	fake_free(run->fake);
}

static void all_that_is_told_agrees_at_every_step_of_every_ladder(void **state)
{
	const char *given = getenv("TIER_TEST_SEED");
	const uint64_t n_walks = getenv("TIER_TEST_LONG") ? 40000 : 1500;
	struct run *run = calloc(1, sizeof(*run));

	assert_non_null(run);
	if (given)
		run->random = strtoull(given, NULL, 0);
	else
		assert_int_equal(getrandom(&run->random, sizeof(run->random), 0), sizeof(run->random));
	run->random |= 1;
	print_message("TIER_TEST_SEED=%llu\n", (unsigned long long)run->random);
	for (uint64_t i = 0; i < n_walks; i++)
		walk(run);
	print_message("%llu steps, %llu final, %llu obeyed, %llu failed, %llu withdrawn\n", (unsigned long long)run->n_steps,
		      (unsigned long long)run->n_final, (unsigned long long)run->n_obeyed, (unsigned long long)run->n_failed,
		      (unsigned long long)run->n_withdrawn);
	for (unsigned int level = 0; level < TIER_LEVEL_NONE; level++)
		assert_true(level == TIER_LEVEL_OSR || run->n_lives[level] > n_walks / 10);
	assert_true(run->n_obeyed > n_walks && run->n_failed > n_walks / 4 && run->n_withdrawn > n_walks / 20);
	free(run);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_that_is_told_agrees_at_every_step_of_every_ladder),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
