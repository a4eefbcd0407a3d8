/* SPDX-License-Identifier: Apache-2.0 */
#include <sys/random.h>
#include "unit/tiering/fake.h"

/* The core against a model of what the history may say
 *
 * Random steps: modules of several uids come and go, methods are called, bells ring, get lost, come twice or lie, time
 * passes, jobs end well and badly, the daemon is replaced. The model hears every event as it is told and knows which ones may
 * come: each N counted calls make exactly one threshold, each uid's queue and delay list are FIFO, uids take turns, a delay
 * ends after a tick without a first call. TIER_TEST_SEED repeats a run. */

#define N_UIDS 3u
#define N_METHODS_MAX 6u
#define N_MODULES_MAX 7
#define N_BELLS_MAX 64u
#define N_LINE_MAX 256u

struct model_method {
	enum tier_stage stage;
	uint64_t version, next;
	uint32_t n_counted;		/* calls through the stub */
	bool is_at_once;		/* it came out of the queue while no delay was active: it is counted at once */
};

/* Methods in order: who stands in it is id << 8 | method */
struct line {
	uint64_t who[N_LINE_MAX];
	uint32_t n;
};

struct model_uid {
	struct line uncounted, queue;
	bool is_delayed, is_extended, must_resume;
	uint64_t deadline_ns, turn;
	uint32_t n_running, n_modules;
};

struct bell {
	uint64_t module, version;
	uint32_t method;
};

struct model {
	struct fake *fake;
	uint64_t random;
	uint64_t sequence, turn;
	struct model_uid uids[N_UIDS];
	struct model_method methods[FAKE_MODULES_MAX][N_METHODS_MAX];	/* as fake->modules */
	struct bell bells[N_BELLS_MAX];
	uint32_t n_bells, n_running;
	uint64_t n_steps, n_crossed, n_thresholds, n_restarts;
};

static uint32_t draw(struct model *model, uint32_t n)
{
	model->random ^= model->random << 13;
	model->random ^= model->random >> 7;
	model->random ^= model->random << 17;
	return (model->random >> 16) % n;
}

/* -- Lines --- */
static uint64_t who(uint64_t module, uint32_t method) { return module << 8 | method; }

static void line_append(struct line *line, uint64_t one)
{
	assert_true(line->n < N_LINE_MAX);
	line->who[line->n++] = one;
}

static void line_take_first(struct line *line, uint64_t expected)
{
	assert_true(line->n);
	assert_int_equal(line->who[0], expected);
	memmove(line->who, line->who + 1, --line->n * sizeof(line->who[0]));
}

static void line_drop_module(struct line *line, uint64_t module)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < line->n; i++)
		if (line->who[i] >> 8 != module)
			line->who[n++] = line->who[i];
	line->n = n;
}

/* -- What an event may be --- */
static struct model_method *method_of(struct model *model, const struct tier_event *event)
{
	struct fake_module *fm = fake_module_by_id(model->fake, event->module);

	assert_non_null(fm);
	assert_true(event->method < fm->layout.n_methods);
	return &model->methods[fm - model->fake->modules][event->method];
}

static void hear_published(struct model *model, struct model_uid *uid, const struct tier_event *event)
{
	struct model_method *method = method_of(model, event);

	if (event->to == TIER_LEVEL_TIER0) {
		assert_int_equal(method->stage, TIER_STAGE_COLD);
		method->stage = TIER_STAGE_UNCOUNTED;
		uid->is_extended = uid->is_delayed;
		line_append(&uid->uncounted, who(event->module, event->method));
	} else {
		assert_true(method->stage == TIER_STAGE_COMPILING && event->version == method->next);
	}
	if (event->to == TIER_LEVEL_TIER0_INSTRUMENTED) {
		assert_int_equal(event->from, TIER_LEVEL_TIER0);
		method->stage = TIER_STAGE_UNCOUNTED;
		method->n_counted = 0;
		method->is_at_once = !uid->is_delayed;
		if (uid->is_delayed)	/* which it does not extend */
			line_append(&uid->uncounted, who(event->module, event->method));
	}
	assert_true(event->version > method->version);
	method->version = event->version;
}

static void hear_threshold(struct model *model, const struct tier_event *event)
{
	struct model_method *method = method_of(model, event);

	assert_int_equal(method->stage, TIER_STAGE_COUNTING);
	assert_int_equal(event->version, method->version);
	assert_true(method->n_counted >= FAKE_N);
	method->stage = TIER_STAGE_REACHED;
	model->n_thresholds++;
}

static bool may_start(const struct model *model, const struct model_uid *uid)
{
	return uid->queue.n && !uid->is_delayed && uid->n_running < model->fake->config.jobs_per_uid;
}

static void hear_started(struct model *model, struct model_uid *uid, const struct tier_event *event)
{
	struct model_method *method = method_of(model, event);

	assert_true(method->stage == TIER_STAGE_QUEUED && event->version == method->next);
	assert_true(may_start(model, uid) && model->n_running < model->fake->config.jobs_total);
	for (uint32_t i = 0; i < N_UIDS; i++)
		assert_false(may_start(model, &model->uids[i]) && model->uids[i].turn < uid->turn);
	line_take_first(&uid->queue, who(event->module, event->method));
	method->stage = TIER_STAGE_COMPILING;
	uid->turn = ++model->turn;
	uid->n_running++;
	model->n_running++;
}

static void leave_uncounted(struct model_uid *uid, struct model_method *method, const struct tier_event *event)
{
	if (!method->is_at_once)
		line_take_first(&uid->uncounted, who(event->module, event->method));
	method->is_at_once = false;
}

static void hear_final(struct model *model, struct model_uid *uid, const struct tier_event *event)
{
	struct model_method *method = method_of(model, event);

	if (method->stage == TIER_STAGE_UNCOUNTED) {
		assert_true(event->reason == TIER_REASON_ARENA_FULL || event->reason == TIER_REASON_COUNTERS_FULL);
		leave_uncounted(uid, method, event);
	} else {
		assert_int_equal(method->stage, TIER_STAGE_COMPILING);
	}
	method->stage = TIER_STAGE_FINAL;
}

static void hear_module(struct model *model, struct model_uid *uid, const struct tier_event *event)
{
	if (event->kind == TIER_EVENT_MODULE_LOADED && !uid->n_modules++)
		uid->turn = ++model->turn;
}

static void hear_delay(struct model *model, struct model_uid *uid, const struct tier_event *event)
{
	if (event->kind == TIER_EVENT_DELAY_PAUSED) {
		assert_false(uid->is_delayed);
		uid->is_delayed = true;
		uid->is_extended = false;
		uid->deadline_ns = model->fake->now_ns + model->fake->config.delay_ns;
	} else {
		assert_true(uid->is_delayed && (uid->must_resume || !uid->n_modules));
		uid->is_delayed = uid->must_resume = false;
	}
}

static void hear(struct fake *fake, const struct tier_event *event)
{
	struct model *model = fake->test;
	struct model_uid *uid = &model->uids[event->uid];
	struct model_method *method = event->method == UINT32_MAX ? NULL : method_of(model, event);

	assert_int_equal(event->sequence, ++model->sequence);
	switch (event->kind) {
	case TIER_EVENT_PUBLISHED:
		hear_published(model, uid, event);
		break;
	case TIER_EVENT_COUNTING_BEGUN:
		assert_int_equal(method->stage, TIER_STAGE_UNCOUNTED);
		leave_uncounted(uid, method, event);
		method->stage = TIER_STAGE_COUNTING;
		break;
	case TIER_EVENT_THRESHOLD:
		hear_threshold(model, event);
		break;
	case TIER_EVENT_QUEUED:
		assert_int_equal(method->stage, TIER_STAGE_REACHED);
		method->stage = TIER_STAGE_QUEUED;
		method->next = event->version;
		line_append(&uid->queue, who(event->module, event->method));
		break;
	case TIER_EVENT_COMPILE_STARTED:
		hear_started(model, uid, event);
		break;
	case TIER_EVENT_COMPILE_ENDED:
		assert_true(method->stage == TIER_STAGE_COMPILING && event->version == method->next);
		uid->n_running--;
		model->n_running--;
		break;
	case TIER_EVENT_FINAL:
		hear_final(model, uid, event);
		break;
	case TIER_EVENT_MODULE_LOADED:
	case TIER_EVENT_MODULE_UNLOADED:
		hear_module(model, uid, event);
		break;
	case TIER_EVENT_DELAY_PAUSED:
	case TIER_EVENT_DELAY_RESUMED:
		hear_delay(model, uid, event);
		break;
	default:
		fail_msg("an event of kind %u", event->kind);
	}
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
	struct fake_module *fm = fake_module_by_id(model->fake, 0);
	uint32_t n_methods = 1 + draw(model, N_METHODS_MAX), n_modules = 0;
	char name[32];

	for (int i = 0; i < FAKE_MODULES_MAX; i++)
		n_modules += !!model->fake->modules[i].module;
	if (n_modules >= N_MODULES_MAX)
		return;
	memset(model->methods[fm - model->fake->modules], 0, sizeof(model->methods[0]));
	snprintf(name, sizeof(name), "m%llu", (unsigned long long)n_names++);
	/* now and then with too few counters, or none for profiles */
	assert_int_equal(fake_try_load(model->fake, draw(model, N_UIDS), name, n_methods,
				       draw(model, 4) ? 8 * n_methods : n_methods / 2, &fm), 0);
	for (uint32_t i = 0; i < n_methods; i++)
		fm->n_profile[i] = 2 * draw(model, 3);
}

static void step_remove(struct model *model)
{
	struct fake_module *fm = some_module(model);
	struct model_uid *uid;
	struct model_method *methods;

	if (!fm)
		return;
	uid = &model->uids[fm->uid];
	methods = model->methods[fm - model->fake->modules];
	if (draw(model, 2)) {
		core_module_unname(fm->module);
		return;
	}
	for (uint32_t i = 0; i < fm->layout.n_methods; i++)
		if (methods[i].stage == TIER_STAGE_COMPILING) {
			uid->n_running--;
			model->n_running--;
		}
	line_drop_module(&uid->uncounted, fm->id);
	line_drop_module(&uid->queue, fm->id);
	uid->n_modules--;
	fake_remove(model->fake, fm);
}

static void step_call(struct model *model)
{
	struct fake_module *fm = some_module(model);
	uint32_t index = fm ? draw(model, fm->layout.n_methods) : 0;
	struct model_method *method;
	struct bell bell;
	enum fake_path path;

	if (!fm)
		return;
	method = &model->methods[fm - model->fake->modules][index];
	bell = (struct bell){ .module = fm->id, .version = fm->records[index].version, .method = index };
	path = fake_call(fm, index);
	if (path == FAKE_COUNTED || path == FAKE_CROSSED) {
		assert_int_equal(method->stage, TIER_STAGE_COUNTING);
		assert_int_equal(path == FAKE_CROSSED, ++method->n_counted == FAKE_N);
	}
	if (path != FAKE_CROSSED)
		return;
	model->n_crossed++;
	if (draw(model, 4) && model->n_bells < N_BELLS_MAX)	/* else the caller was killed before it rang */
		model->bells[model->n_bells++] = bell;
}

static void step_bell(struct model *model)
{
	struct bell *bell;
	bool is_confirmed, is_awaited = false;
	struct fake_module *fm;
	uint32_t i;

	if (!model->n_bells)
		return;
	i = draw(model, model->n_bells);
	bell = &model->bells[i];
	fm = fake_module_by_id(model->fake, bell->module);
	if (fm) {
		const struct model_method *method = &model->methods[fm - model->fake->modules][bell->method];

		is_awaited = method->stage == TIER_STAGE_COUNTING && method->version == bell->version;
	}
	is_confirmed = core_threshold(model->fake->core, bell->module, bell->method, bell->version, 1, 2, model->fake->now_ns,
				      draw(model, 2) ? TIER_SOURCE_KERNEL : TIER_SOURCE_SOCKET);
	assert_int_equal(is_confirmed, is_awaited);
	if (draw(model, 4))	/* else it rings again */
		*bell = model->bells[--model->n_bells];
}

static void step_lie(struct model *model)
{
	struct fake_module *fm = some_module(model);
	uint32_t index = draw(model, N_METHODS_MAX + 1);
	uint64_t n = model->n_thresholds, module = fm ? fm->id : 1;
	bool is_true = fm && index < fm->layout.n_methods && model->methods[fm - model->fake->modules][index].n_counted >= FAKE_N;

	core_threshold(model->fake->core, module, index, 1 + draw(model, 100), draw(model, 9), 0, draw(model, 2), draw(model, 6));
	if (!is_true)
		assert_int_equal(model->n_thresholds, n);
}

/* A tick as the model has it, then the core's: what must end has ended. */
static void tick(struct model *model)
{
	for (uint32_t i = 0; i < N_UIDS; i++) {
		struct model_uid *uid = &model->uids[i];

		if (!uid->is_delayed || uid->deadline_ns > model->fake->now_ns)
			continue;
		uid->must_resume = !uid->is_extended;
		uid->is_extended = false;
		uid->deadline_ns = model->fake->now_ns + model->fake->config.delay_ns;
	}
	fake_fire(model->fake);
	for (uint32_t i = 0; i < N_UIDS; i++)
		assert_false(model->uids[i].must_resume);
}

static void step_time(struct model *model)
{
	model->fake->now_ns += draw(model, 70 * FAKE_MS);
	while (fake_is_due(model->fake))
		tick(model);
	if (!draw(model, 8))
		tick(model);	/* a spurious one */
}

static void step_end_job(struct model *model)
{
	static const enum tier_reason reasons[] = { TIER_REASON_NONE, TIER_REASON_NONE, TIER_REASON_NONE,
						    TIER_REASON_COMPILE_FAILED, TIER_REASON_WORKER_DIED };
	struct fake *fake = model->fake;
	uint32_t start = fake->n_jobs ? draw(model, fake->n_jobs) : 0;

	for (uint32_t i = 0; i < fake->n_jobs; i++) {
		struct fake_job *job = &fake->jobs[(start + i) % fake->n_jobs];

		if (!job->is_active)
			continue;
		fake_end_job(fake, job, reasons[draw(model, ARRAY_SIZE(reasons))]);
		return;
	}
}

static void step_look(struct model *model)
{
	struct fake_module *fm = some_module(model);

	if (!fm || draw(model, 8)) {
		if (fm)
			core_look(fm->module, draw(model, fm->layout.n_methods));
		return;
	}
	core_sweep(model->fake->core, draw(model, 2) ? fm->module : NULL);
	for (uint32_t i = 0; i < fm->layout.n_methods; i++) {
		const struct model_method *method = &model->methods[fm - model->fake->modules][i];

		assert_false(method->stage == TIER_STAGE_COUNTING && method->n_counted >= FAKE_N);
	}
}

static void step_restart(struct model *model)
{
	struct fake *fake = model->fake;
	uint32_t n_active = 0;

	/* the successor's first tick comes at once: let this one's come before, so that the model sees both the same */
	while (fake_is_due(fake))
		tick(model);
	fake_restart(fake);
	for (uint32_t i = 0; i < fake->n_jobs; i++)
		n_active += fake->jobs[i].is_active;
	assert_int_equal(n_active, model->n_running);
	model->n_restarts++;
}

static void step_trouble(struct model *model)
{
	model->fake->stub_result = draw(model, 3) ? 0 : CORE_E_FULL;
}

/* What is asked agrees with what the model knows. */
static void ask(struct model *model)
{
	struct fake_module *fm = some_module(model);
	uint32_t index = fm ? draw(model, fm->layout.n_methods) : 0;
	const struct model_method *method;
	struct tier_answer answer;

	if (!fm)
		return;
	method = &model->methods[fm - model->fake->modules][index];
	answer = fake_answer(fm, index);
	assert_int_equal(answer.stage, method->stage);
	switch (method->stage) {
	case TIER_STAGE_COLD:
		assert_int_equal(answer.remaining, 1);
		break;
	case TIER_STAGE_UNCOUNTED:
		assert_int_equal(answer.remaining, FAKE_N);
		break;
	case TIER_STAGE_COUNTING:
		assert_int_equal(answer.remaining, FAKE_N - method->n_counted);
		break;
	default:
		assert_int_equal(answer.remaining, 0);
	}
}

static void step(struct model *model)
{
	static const struct {
		uint32_t weight;
		void (*fn)(struct model *model);
	} steps[] = {
		{ 12, step_load }, { 10, step_remove }, { 600, step_call }, { 80, step_bell }, { 10, step_lie },
		{ 90, step_time }, { 60, step_end_job }, { 20, step_look }, { 5, step_restart }, { 3, step_trouble },
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
	fake_check(model->fake);
	if (!draw(model, 4))
		ask(model);
	model->n_steps++;
}

/* Bytecode climbs with and without an instrumented tier; so many jobs at a time, and delays of other lengths. */
static struct fake *some_fake(struct model *model)
{
	struct core_config config = fake_config;

	config.pgo = draw(model, 4);
	config.delay_ns = (20 + draw(model, 150)) * (uint64_t)FAKE_MS;
	config.jobs_per_uid = 1 + draw(model, 2);
	config.jobs_total = config.jobs_per_uid + draw(model, 3);
	return fake_new(&config);
}

static void random_steps_never_leave_the_model(void **state)
{
	const char *seed = getenv("TIER_TEST_SEED");
	uint64_t n_steps = getenv("TIER_TEST_LONG") ? 2000000 : 200000;
	struct model *model = calloc(1, sizeof(*model));
	struct core_stats stats;

	assert_non_null(model);
	if (seed)
		model->random = strtoull(seed, NULL, 0);
	else
		assert_int_equal(getrandom(&model->random, sizeof(model->random), 0), sizeof(model->random));
	model->random |= 1;
	print_message("TIER_TEST_SEED=%llu\n", (unsigned long long)model->random);
	model->fake = some_fake(model);
	model->fake->on_event = hear;
	model->fake->test = model;
	while (model->n_steps < n_steps)
		step(model);
	core_stats(model->fake->core, &stats);
	assert_int_equal(stats.sequence, model->sequence);
	assert_true(model->n_thresholds <= model->n_crossed);
	print_message("%llu steps, %llu events, %llu thresholds, %llu takeovers\n", (unsigned long long)model->n_steps,
		      (unsigned long long)model->sequence, (unsigned long long)model->n_thresholds,
		      (unsigned long long)model->n_restarts);
	assert_true(model->n_thresholds > n_steps / 500 && model->n_restarts > n_steps / 1000);
	fake_check(model->fake);
	fake_free(model->fake);
	free(model);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_steps_never_leave_the_model),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
