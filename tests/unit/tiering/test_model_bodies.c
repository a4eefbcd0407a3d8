/* SPDX-License-Identifier: Apache-2.0 */
#include <sys/random.h>
#include "unit/tiering/model_bodies.h"

/* Bodies against a model: each method's ladders, that of the body it has and that of its own, which may be away
 *
 * Random steps under each policy: first calls and calls through every way, late calls that have loaded an address long
 * ago, bells and notes that come late, twice or never, time, jobs that end well and badly, rejits and reverts of
 * methods of all traits that inline each other and call each other through sites, freezes, modules that go, daemons that
 * are replaced. After
 * each step every method's stage, tier, version, body and remaining calls are what the model says, and so is what each
 * call runs and whether it was counted. TIER_TEST_SEED repeats a run. */

/* -- What must be so after each step --- */
static void check_method(struct model *model, struct fake_module *fm, uint32_t index)
{
	const struct model_method *method = &methods_of(model, fm)[index];
	const struct tier_record *record = &fm->records[index];
	const struct ladder *now = &method->now;
	struct tier_answer answer = tier_record_answer(record, fm->cells, fm->layout.n_cells);
	uint32_t remaining = 0;

	assert_string_equal(tier_stage_name(tier_state_stage(record->state)), tier_stage_name(now->stage));
	assert_int_equal(core_method_body(fm->module, index), method->body);
	assert_int_equal(answer.tier, now->level);
	assert_int_equal(record->version, now->active);
	if (now->stage == TIER_STAGE_FINAL)
		assert_int_equal(answer.reason, now->reason);
	if (now->stage == TIER_STAGE_COLD)
		remaining = 1;
	else if (now->stage == TIER_STAGE_UNCOUNTED)
		remaining = FAKE_N;
	else if (now->stage == TIER_STAGE_COUNTING)
		remaining = FAKE_N - MIN(now->n_counted, FAKE_N);
	assert_int_equal(answer.remaining, remaining);
	assert_int_equal(answer.is_frozen, model->is_frozen[fm - model->fake->modules] &&
						   (now->stage == TIER_STAGE_QUEUED || now->stage == TIER_STAGE_COMPILING));
}

static void check(struct model *model)
{
	struct fake *fake = model->fake;
	uint32_t n_active = 0, n_pending = 0;

	for (int i = 0; i < FAKE_MODULES_MAX; i++)
		for (uint32_t k = 0; fake->modules[i].module && k < fake->modules[i].layout.n_methods; k++) {
			const struct ladder *now = &model->methods[i][k].now;

			check_method(model, &fake->modules[i], k);
			n_pending += now->stage == TIER_STAGE_QUEUED ||
				     (now->stage == TIER_STAGE_COLD && now->next && !job_of(model, now->next));
		}
	for (uint32_t i = 0; i < fake->n_jobs; i++)
		if (fake->jobs[i].is_active) {
			assert_non_null(job_of(model, fake->jobs[i].version));
			n_active++;
		}
	assert_int_equal(n_active, model->n_jobs);
	assert_int_equal(core_pending(fake->core, CORE_SCOPE_ALL, NULL, 0), n_pending + n_active);
	ladder_check_all(fake);
}

/* -- Steps --- */
static struct fake_module *some_module(struct model *model)
{
	uint32_t start = draw(model, FAKE_MODULES_MAX);

	for (uint32_t i = 0; i < FAKE_MODULES_MAX; i++) {
		struct fake_module *fm = &model->fake->modules[(start + i) % FAKE_MODULES_MAX];

		if (fm->module)
			return fm;
	}
	return NULL;
}

static void step_load(struct model *model)
{
	static uint64_t n_names;
	struct fake *fake = model->fake;
	static const uint32_t traits[] = {0, 0, 0, 0, CORE_TRAIT_PRECOMPILED, CORE_TRAIT_PRECOMPILED | CORE_TRAIT_PINNED,
					  CORE_TRAIT_NO_OPTIMIZATION, CORE_TRAIT_AGGRESSIVE_OPTIMIZATION};
	uint32_t n_modules = 0, n_cells = draw(model, 4) ? 4000 : 3;
	struct fake_module *fm;
	char name[32];

	for (int i = 0; i < FAKE_MODULES_MAX; i++)
		n_modules += !!fake->modules[i].module;
	if (n_modules >= N_MODULES)
		return;
	memset(model->methods[fake_module_by_id(fake, 0) - fake->modules], 0, sizeof(model->methods[0]));
	model->is_frozen[fake_module_by_id(fake, 0) - fake->modules] = false;
	snprintf(name, sizeof(name), "m%llu", (unsigned long long)n_names++);
	assert_int_equal(
		fake_add_module(fake, LADDER_UID, name, N_METHODS, n_cells, draw(model, N_METHODS + 1), 2, &fm), 0);
	for (uint32_t i = 0; i < N_METHODS; i++) {
		methods_of(model, fm)[i].now.level = TIER_LEVEL_NONE;
		fm->inlines[i] = draw(model, 2) ? draw(model, 1 << N_METHODS) : 0;
		fm->calls[i] = draw(model, 1 << N_METHODS);
		fm->traits[i] = traits[draw(model, ARRAY_SIZE(traits))];
		fm->n_profile[i] = n_cells > 3 ? 2 * draw(model, 4) : 0;
	}
}

static void step_remove(struct model *model)
{
	struct fake_module *fm = some_module(model);
	uint32_t n = 0;

	if (!fm)
		return;
	for (uint32_t i = 0; i < model->fake->n_jobs; i++) {
		const struct fake_job *job = &model->fake->jobs[i];

		if (job->is_active && job->module == fm->id)
			job_of(model, job->version)->version = 0;
	}
	for (uint32_t i = 0; i < model->n_jobs; i++)
		if (model->jobs[i].version)
			model->jobs[n++] = model->jobs[i];
	model->n_jobs = n;
	fake_remove(model->fake, fm);
}

static struct ladder *ladder_of_version(struct model_method *method, uint64_t version)
{
	if (method->now.active == version)
		return &method->now;
	return method->is_away && method->own.active == version ? &method->own : NULL;
}

/* A call has ended: what it counted, and its bell. */
static void note_run(struct model *model, struct fake_module *fm, uint32_t index, const struct fake_run *run)
{
	struct model_method *method = &methods_of(model, fm)[index];
	struct ladder *ladder;

	if (!run->is_counted)
		return;
	ladder = ladder_of_version(method, run->counted);
	if (ladder)
		assert_int_equal(run->is_crossed, ++ladder->n_counted == FAKE_N);
	if (run->is_crossed && draw(model, 4) && model->n_bells < N_BELLS_MAX) /* else the caller was killed */
		model->bells[model->n_bells++] = (struct bell){fm->id, run->counted, index};
}

/* Whether a call that way is counted now; eager's E and what holds its value pass the stub by. */
static bool is_counted(const struct model *model, const struct fake_module *fm, uint32_t index, uint64_t address)
{
	const struct fake *fake = model->fake;
	const struct tier_record *record = &fm->records[index];

	return model->methods[fm - fake->modules][index].now.stage == TIER_STAGE_COUNTING &&
	       !(fake->config.backpatch == TIER_BACKPATCH_EAGER && address == record->code);
}

static void step_call(struct model *model)
{
	struct fake_module *fm = some_module(model);
	uint32_t index = draw(model, N_METHODS), slot;
	enum fake_way way = draw(model, _FAKE_WAY_N);
	uint64_t address, r10;
	struct model_method *method;
	struct fake_run run;
	bool is_cold, is_to_count;

	if (!fm || !fake_way_address(fm, index, way, &address, &r10))
		return;
	if (r10) {
		slot = fake_slot_first(fm, index) + draw(model, fm->n_each);
		r10 = fake_call_cell(fm, slot);
		address = fake_slot(fm, slot);
	}
	method = &methods_of(model, fm)[index];
	is_cold = method->now.stage == TIER_STAGE_COLD;
	is_to_count = is_counted(model, fm, index, address);
	model->fake->how_notes = draw(model, 3);
	run = fake_begin(fm, index, address, r10);
	if (run.is_late) {
		assert_true(is_cold && method->now.stage == TIER_STAGE_COLD && method->now.next);
		return;
	}
	assert_int_equal(run.body, method->body);
	assert_int_equal(run.level, method->now.level);
	assert_int_equal(run.n_visits[TIER_VISIT_COLD], is_cold);
	assert_int_equal(run.is_counted, is_to_count);
	note_run(model, fm, index, &run);
}

static void step_hold(struct model *model)
{
	struct fake_module *fm = some_module(model);
	struct held held = {.method = draw(model, N_METHODS)};

	if (!fm || model->n_held == N_HELD_MAX)
		return;
	held.module = fm->id;
	if (!fake_way_address(fm, held.method, draw(model, _FAKE_WAY_N), &held.address, &held.r10))
		return;
	if (draw(model, 2))
		held.address = fm->records[held.method].precode;
	model->held[model->n_held++] = held;
}

/* A call that was stopped after it loaded an address goes on. */
static void step_late(struct model *model)
{
	struct fake_module *fm;
	struct fake_run run;
	struct held held;
	uint32_t i;

	if (!model->n_held)
		return;
	i = draw(model, model->n_held);
	held = model->held[i];
	model->held[i] = model->held[--model->n_held];
	fm = fake_module_by_id(model->fake, held.module);
	if (!fm)
		return;
	run = fake_go(fm, held.method, held.address, held.r10);
	note_run(model, fm, held.method, &run);
}

static void step_bell(struct model *model)
{
	struct model_method *method = NULL;
	const struct fake_module *fm;
	struct bell *bell;
	bool is_awaited;

	if (!model->n_bells)
		return;
	bell = &model->bells[draw(model, model->n_bells)];
	fm = fake_module_by_id(model->fake, bell->module);
	if (fm)
		method = &methods_of(model, fm)[bell->method];
	is_awaited = method &&
		     (is_due(&method->now, bell->version) || (method->is_away && is_due(&method->own, bell->version)));
	assert_int_equal(core_threshold(model->fake->core, bell->module, bell->method, bell->version, 1, 2,
					model->fake->now_ns, TIER_SOURCE_KERNEL),
			 is_awaited);
	if (draw(model, 4)) /* else it rings again */
		*bell = model->bells[--model->n_bells];
}

static void step_note(struct model *model)
{
	if (model->fake->n_notes)
		fake_deliver(model->fake, draw(model, model->fake->n_notes));
}

static void step_process(struct model *model)
{
	struct fake_module *fm = some_module(model);

	if (fm)
		memset(fm->posted, 0, fm->n_slots);
}

static void step_rejit(struct model *model)
{
	static uint32_t n_bodies;
	struct fake_module *fm = some_module(model);

	if (!fm)
		return;
	model->replacing = fm;
	model->replaced = draw(model, N_METHODS);
	model->body = ++n_bodies;
	assert_int_equal(core_rejit(fm->module, model->replaced, model->body), 0);
	assert_int_equal(methods_of(model, fm)[model->replaced].body, model->body);
	model->replacing = NULL;
}

static void step_revert(struct model *model)
{
	struct fake_module *fm = some_module(model);

	if (!fm)
		return;
	model->replacing = fm;
	model->replaced = draw(model, N_METHODS);
	model->body = 0;
	assert_int_equal(core_revert(fm->module, model->replaced), 0);
	assert_false(methods_of(model, fm)[model->replaced].is_away);
	model->replacing = NULL;
	model->is_restoring = false;
}

static void step_time(struct model *model) { fake_pass(model->fake, draw(model, 250)); }

static void step_end_job(struct model *model)
{
	static const enum tier_reason reasons[] = {TIER_REASON_NONE, TIER_REASON_NONE, TIER_REASON_NONE,
						   TIER_REASON_NONE, TIER_REASON_COMPILE_FAILED};
	struct fake *fake = model->fake;
	uint32_t start = fake->n_jobs ? draw(model, fake->n_jobs) : 0;

	for (uint32_t i = 0; i < fake->n_jobs; i++) {
		struct fake_job *job = &fake->jobs[(start + i) % fake->n_jobs];

		if (!job->is_active)
			continue;
		model->ending = reasons[draw(model, ARRAY_SIZE(reasons))];
		fake_end_job(fake, job, model->ending);
		return;
	}
}

static void step_look(struct model *model)
{
	struct fake_module *fm = some_module(model);

	if (!fm)
		return;
	if (draw(model, 2))
		fake_answer(fm, draw(model, N_METHODS));
	else
		core_sweep(model->fake->core, draw(model, 2) ? fm->module : NULL);
}

static void step_restart(struct model *model)
{
	for (uint32_t i = 0; i < model->n_jobs; i++)
		model->jobs[i].is_stale = false; /* they begin again, with the bodies of now */
	fake_restart(model->fake);
	model->n_restarts++;
}

static void step_freeze(struct model *model)
{
	struct fake_module *fm = some_module(model);

	if (fm && model->is_frozen[fm - model->fake->modules])
		core_thaw(fm->module);
	else if (fm)
		core_freeze(fm->module);
}

static void step_trouble(struct model *model)
{
	model->fake->stub_result = draw(model, 3) ? 0 : CORE_E_FULL;
	model->fake->forwarder_result = draw(model, 3) ? 0 : CORE_E_FULL;
}

static void step(struct model *model)
{
	static const struct {
		uint32_t weight;
		void (*fn)(struct model *model);
	} steps[] = {
		{10, step_load}, {1, step_remove},   {500, step_call},   {40, step_hold},   {40, step_late},
		{60, step_bell}, {30, step_note},    {10, step_process}, {12, step_rejit},  {9, step_revert},
		{80, step_time}, {80, step_end_job}, {20, step_look},    {4, step_restart}, {2, step_trouble},
		{4, step_freeze},
	};
	uint32_t sum = 0, drawn;

	for (unsigned int i = 0; i < ARRAY_SIZE(steps); i++)
		sum += steps[i].weight;
	drawn = draw(model, sum);
	for (unsigned int i = 0; i < ARRAY_SIZE(steps); i++) {
		if (drawn < steps[i].weight) {
			steps[i].fn(model);
			break;
		}
		drawn -= steps[i].weight;
	}
	check(model);
	model->n_steps++;
}

/* -- Runs --- */
static uint64_t seed(void)
{
	const char *given = getenv("TIER_TEST_SEED");
	uint64_t random;

	if (given)
		return strtoull(given, NULL, 0) | 1;
	assert_int_equal(getrandom(&random, sizeof(random), 0), sizeof(random));
	return random | 1;
}

/* Returns how many were withdrawn. */
static uint64_t walk_with(enum tier_backpatch policy, bool in_prestub, struct core_config config)
{
	uint64_t n_steps = getenv("TIER_TEST_LONG") ? 100000 : 4000;
	struct model *model = calloc(1, sizeof(*model));
	uint64_t n_withdrawn;

	assert_non_null(model);
	config.backpatch = policy;
	config.counting_in_prestub = in_prestub;
	config.jobs_per_uid = config.jobs_total = N_JOBS;
	model->fake = fake_new(&config);
	model->order = order_new(1);
	model->fake->on_event = hear;
	model->fake->test = model;
	model->random = seed();
	print_message("TIER_TEST_SEED=%llu\n", (unsigned long long)model->random);
	while (model->n_steps < n_steps)
		step(model);
	print_message(
		"%llu steps, %llu rejits, %llu reverts, %llu withdrawn, %llu refused, %llu final, %llu takeovers\n",
		(unsigned long long)model->n_steps, (unsigned long long)model->n_rejits,
		(unsigned long long)model->n_reverts, (unsigned long long)model->n_withdrawn,
		(unsigned long long)model->n_refused, (unsigned long long)model->n_final,
		(unsigned long long)model->n_restarts);
	assert_true(model->n_rejits > n_steps / 400 && model->n_final > n_steps / 400);
	n_withdrawn = model->n_withdrawn;
	fake_free(model->fake);
	order_free(model->order);
	free(model);
	return n_withdrawn;
}

/* By the ladder without profiles, by the whole one, and by what its options make of that; and on, until withdrawals were seen: how
 * many there are in so many steps is chance. */
static void walk(enum tier_backpatch policy, bool in_prestub)
{
	struct core_config config = fake_config;
	uint64_t n_withdrawn = 0;

	for (uint32_t i = 0; i < 4 || n_withdrawn < 4; i++) {
		config.pgo = i % 4 > 0;
		config.instrument_all = i % 4 > 1;
		config.no_tiers = i % 4 > 2;
		n_withdrawn += walk_with(policy, in_prestub, config);
		assert_true(i < 40);
	}
}

static void lazy_never_leaves_the_model(void **state) { walk(TIER_BACKPATCH_LAZY, false); }
static void eager_never_leaves_the_model(void **state) { walk(TIER_BACKPATCH_EAGER, false); }
static void forwarder_never_leaves_the_model(void **state) { walk(TIER_BACKPATCH_FORWARDER, false); }
static void lazy_that_counts_in_the_prestub_never_does(void **state) { walk(TIER_BACKPATCH_LAZY, true); }
static void eager_that_counts_in_the_prestub_never_does(void **state) { walk(TIER_BACKPATCH_EAGER, true); }
static void forwarder_that_counts_in_the_prestub_never_does(void **state) { walk(TIER_BACKPATCH_FORWARDER, true); }

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lazy_never_leaves_the_model),
		cmocka_unit_test(eager_never_leaves_the_model),
		cmocka_unit_test(forwarder_never_leaves_the_model),
		cmocka_unit_test(lazy_that_counts_in_the_prestub_never_does),
		cmocka_unit_test(eager_that_counts_in_the_prestub_never_does),
		cmocka_unit_test(forwarder_that_counts_in_the_prestub_never_does),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
