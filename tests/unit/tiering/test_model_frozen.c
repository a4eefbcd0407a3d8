/* SPDX-License-Identifier: Apache-2.0 */
#include <time.h>
#include "unit/tiering/ladder.h"

/* Random histories of freezing and on-stack replacement, among calls, promotions, rejits, removals and takeovers. After
 * each step the core's own invariants hold, and from outside:
 *
 *   frozen      nothing begins to be compiled while its module is frozen; who waits there says so, and nobody else does
 *   OSR code    what a patchpoint leads to, and all that it inlined, is the body that calls run; what failed is not
 * made again the mark    the number grows by two for each event that tells of a publication, reset, or compilation;
 * never otherwise
 *
 * TIER_TEST_SEED repeats a run. */

#define N_METHODS 4u
#define N_MODULES 3u
#define N_USERS   2u
#define VOIDS_MAX 64u
#define JOBS_MAX  8u /* of a module at a time: no more than its user may have */

struct watched {
	uint64_t id; /* of the module; 0: none */
	uint32_t n_freezes;
	uint64_t changes; /* as they should be */
	uint32_t n_osr;   /* codes that patchpoints lead to */
	bool has_failed[N_METHODS * FAKE_PATCHPOINTS];
};

struct model {
	struct fake *fake;
	struct watched watched[FAKE_MODULES_MAX];
	uint64_t random;
	uint32_t n_seen;           /* events */
	uint64_t voids[VOIDS_MAX]; /* versions whose jobs were running when a body was replaced */
	uint32_t n_void;
	uint32_t n_ready, n_frozen, n_thawed, n_restarts, n_taken_away;
};

static uint32_t draw(struct model *model, uint32_t n)
{
	model->random = model->random * 6364136223846793005u + 1442695040888963407u;
	return (model->random >> 33) % n;
}

static struct fake_module *some_module(struct model *model)
{
	struct fake_module *fm = &model->fake->modules[draw(model, N_MODULES)];

	return fm->module ? fm : NULL;
}

static struct watched *watched_of(struct model *model, uint64_t id)
{
	for (uint32_t i = 0; i < FAKE_MODULES_MAX; i++)
		if (model->watched[i].id == id)
			return &model->watched[i];
	return NULL;
}

static uint32_t count_osr(const struct fake_module *fm)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < fm->layout.n_patchpoints; i++)
		n += fake_patchpoint(fm, i)->code != 0;
	return n;
}

/* -- What events mean --- */
static void see_event(struct model *model, struct watched *watched, const struct tier_event *event)
{
	switch ((enum tier_event_kind)event->kind) {
	case TIER_EVENT_COMPILE_STARTED:
		if (watched->n_freezes && event->to != TIER_LEVEL_OPTIMIZED) /* whose caller waits */
			fail_msg("a compilation began in a frozen module");
		watched->changes += 2;
		break;
	case TIER_EVENT_PUBLISHED:
	case TIER_EVENT_COMPILE_ENDED:
	case TIER_EVENT_REJITTED:
	case TIER_EVENT_REVERTED:
	case TIER_EVENT_WITHDRAWN:
		watched->changes += 2;
		break;
	case TIER_EVENT_OSR_READY:
		watched->changes += 2;
		watched->n_osr++;
		model->n_ready++;
		break;
	default:
		break;
	}
}

static void see_events(struct model *model)
{
	for (; model->n_seen < model->fake->n_events; model->n_seen++) {
		const struct tier_event *event = &model->fake->events[model->n_seen];
		struct watched *watched = event->module ? watched_of(model, event->module) : NULL;

		if (watched)
			see_event(model, watched, event);
	}
}

/* -- What holds --- */
static void check_method(const struct watched *watched, const struct fake_module *fm, uint32_t i)
{
	const uint64_t word = fm->records[i].state;
	const unsigned int stage = tier_state_stage(word);
	const bool is_held = watched->n_freezes && (stage == TIER_STAGE_QUEUED || stage == TIER_STAGE_COMPILING);

	assert_int_equal(!!(word & TIER_STATE_FROZEN), is_held);
}

static void check_module(struct model *model, struct fake_module *fm)
{
	struct watched *watched = watched_of(model, fm->id);
	const uint32_t n_osr = count_osr(fm);

	assert_non_null(watched);
	assert_true(n_osr <= watched->n_osr);
	watched->changes += 2 * (watched->n_osr - n_osr); /* taken away, one by one */
	model->n_taken_away += watched->n_osr - n_osr;
	watched->n_osr = n_osr;
	assert_int_equal(fm->header->changes, watched->changes);
	assert_int_equal(fm->header->is_frozen, watched->n_freezes > 0);
	assert_int_equal(fm->header->n_compiling, core_n_compiling(fm->module));
	for (uint32_t i = 0; i < N_METHODS; i++)
		check_method(watched, fm, i);
	for (uint32_t i = 0; i < fm->layout.n_patchpoints; i++)
		if (fake_patchpoint(fm, i)->code)
			fake_assert_current(fm, i / FAKE_PATCHPOINTS, fake_code_at(fm, fake_patchpoint(fm, i)->code));
}

static void check(struct model *model)
{
	see_events(model);
	for (uint32_t i = 0; i < N_MODULES; i++)
		if (model->fake->modules[i].module)
			check_module(model, &model->fake->modules[i]);
	ladder_check_all(model->fake);
}

/* -- Steps --- */
static void step_load(struct model *model)
{
	static const uint32_t traits[] = {CORE_TRAIT_NO_OPTIMIZATION, CORE_TRAIT_AGGRESSIVE_OPTIMIZATION,
	                                  CORE_TRAIT_PRECOMPILED, CORE_TRAIT_LOOPS};
	struct fake *fake = model->fake;
	uint32_t i = 0;
	struct fake_module *fm;
	char name[16];

	while (i < N_MODULES && fake->modules[i].id)
		i++;
	if (i == N_MODULES)
		return;
	snprintf(name, sizeof(name), "m%u", i);
	fm = fake_load_virtual(fake, LADDER_UID + i % N_USERS, name, N_METHODS, draw(model, N_METHODS), 2);
	for (uint32_t k = 0; k < N_METHODS; k++) {
		fm->inlines[k] = draw(model, 1 << N_METHODS);
		fm->calls[k] = draw(model, 1 << N_METHODS);
		fm->n_profile[k] = 2 * draw(model, 3);
		fm->traits[k] = draw(model, 3) ? 0 : traits[draw(model, ARRAY_SIZE(traits))];
	}
	model->watched[i] = (struct watched){.id = fm->id};
}

static void step_remove(struct model *model)
{
	struct fake_module *fm = some_module(model);

	if (!fm || draw(model, 10))
		return;
	see_events(model);
	*watched_of(model, fm->id) = (struct watched){0};
	fake_remove(model->fake, fm);
}

static void step_call(struct model *model)
{
	struct fake_module *fm = some_module(model);

	if (fm)
		fake_calls(fm, draw(model, N_METHODS), 1 + draw(model, FAKE_N));
}

static void step_ask(struct model *model)
{
	struct fake_module *fm = some_module(model);
	uint32_t i = draw(model, N_METHODS * FAKE_PATCHPOINTS + 1);
	const uint32_t n_events = model->fake->n_events;

	if (!fm)
		return;
	core_osr_request(model->fake->core, fm->id, i);
	if (i < fm->layout.n_patchpoints && !watched_of(model, fm->id)->has_failed[i])
		return;
	assert_int_equal(model->fake->n_events, n_events);
}

static bool is_void(const struct model *model, uint64_t version)
{
	for (uint32_t i = 0; i < MIN(model->n_void, VOIDS_MAX); i++)
		if (model->voids[i] == version)
			return true;
	return false;
}

static void step_end(struct model *model)
{
	struct fake *fake = model->fake;
	struct fake_job *job = NULL;

	for (uint32_t i = 0; i < fake->n_jobs; i++)
		if (fake->jobs[i].is_active && (!job || draw(model, 2)))
			job = &fake->jobs[i];
	if (!job)
		return;
	if (draw(model, 4)) {
		fake_end_job(fake, job, TIER_REASON_NONE);
		return;
	}
	if (job->level == TIER_LEVEL_OSR && !is_void(model, job->version))
		watched_of(model, job->module)->has_failed[job->patchpoint] = true;
	fake_end_job(fake, job, TIER_REASON_COMPILE_FAILED);
}

/* What is being made then says nothing about its patchpoint any more. */
static void step_replace(struct model *model)
{
	static uint32_t n_bodies;
	struct fake_module *fm = some_module(model);
	const uint32_t i = draw(model, N_METHODS);
	uint64_t voids[JOBS_MAX];
	uint32_t before, n_void = 0;

	if (!fm)
		return;
	before = core_method_body(fm->module, i);
	for (uint32_t k = 0; k < model->fake->n_jobs; k++)
		if (model->fake->jobs[k].is_active && model->fake->jobs[k].module == fm->id)
			voids[n_void++] = model->fake->jobs[k].version;
	if (draw(model, 2))
		assert_int_equal(core_rejit(fm->module, i, ++n_bodies), 0);
	else
		assert_int_equal(core_revert(fm->module, i), 0);
	if (core_method_body(fm->module, i) == before)
		return;
	assert_int_equal(count_osr(fm), 0);
	while (n_void--)
		model->voids[model->n_void++ % VOIDS_MAX] = voids[n_void];
}

static void step_freeze(struct model *model)
{
	struct fake_module *fm = some_module(model);
	struct watched *watched = fm ? watched_of(model, fm->id) : NULL;

	if (!fm)
		return;
	see_events(model);
	if (watched->n_freezes && draw(model, 3)) {
		watched->n_freezes--;
		model->n_thawed++;
		core_thaw(fm->module);
	} else if (watched->n_freezes < 3 && !draw(model, 3)) {
		core_freeze(fm->module);
		see_events(model);
		watched->n_freezes++;
		model->n_frozen++;
	}
}

static void step_restart(struct model *model)
{
	struct fake *fake = model->fake;

	if (draw(model, 20))
		return;
	see_events(model);
	for (uint32_t i = 0; i < N_MODULES; i++)
		model->watched[i].n_freezes = 0;
	fake_restart(fake);
	model->n_restarts++;
}

static void step_time(struct model *model)
{
	fake_pass(model->fake, draw(model, 150));
	fake_deliver_all(model->fake);
	core_sweep(model->fake->core, NULL);
}

static void step(struct model *model)
{
	static void (*const steps[])(struct model * model) = {
	        step_load, step_remove, step_call, step_call,    step_call,   step_ask,     step_ask,  step_end,
	        step_end,  step_end,    step_end,  step_replace, step_freeze, step_restart, step_time,
	};
	const uint32_t i = draw(model, ARRAY_SIZE(steps));

	if (steps[i] == step_replace && draw(model, 4))
		return;
	steps[i](model);
}

static void run(enum tier_backpatch policy)
{
	const char *given = getenv("TIER_TEST_SEED");
	const uint32_t n_steps = getenv("TIER_TEST_LONG") ? 200000 : 10000;
	struct core_config config = fake_config;
	struct model model = {0};

	model.random = given ? strtoull(given, NULL, 0) : (uint64_t)time(NULL) * 2654435761u + policy;
	print_message("TIER_TEST_SEED=%llu\n", (unsigned long long)model.random);
	config.backpatch = policy;
	config.pgo = draw(&model, 2);
	config.instrument_all = !draw(&model, 4);
	config.no_quick_jit_loops = !draw(&model, 4);
	model.fake = fake_new(&config);
	for (uint32_t i = 0; i < n_steps; i++) {
		step(&model);
		check(&model);
	}
	print_message("%u steps, %u OSR codes, %u taken away, %u freezes, %u thaws, %u takeovers\n", n_steps,
	              model.n_ready, model.n_taken_away, model.n_frozen, model.n_thawed, model.n_restarts);
	assert_true(model.n_ready > n_steps / 1000 && model.n_frozen > n_steps / 1000);
	fake_free(model.fake);
}

static void lazy_keeps_what_was_promised(void **state) { run(TIER_BACKPATCH_LAZY); }
static void so_does_eager(void **state) { run(TIER_BACKPATCH_EAGER); }
static void so_does_forwarder(void **state) { run(TIER_BACKPATCH_FORWARDER); }

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(lazy_keeps_what_was_promised),
	        cmocka_unit_test(so_does_eager),
	        cmocka_unit_test(so_does_forwarder),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
