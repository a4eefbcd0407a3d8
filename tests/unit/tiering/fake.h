/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The world around the core, as far as its unit tests need one: a clock that moves when told, modules whose code is
 * addresses only, callers that do what precodes and counting stubs do, jobs that end when told, recorded events.
 *
 * It outlives the core: fake_restart() is a daemon that dies between two requests and its successor; fake_copy() takes
 * the memory as it is at any instruction (ledger_crash_point). */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <cmocka.h>
#include "tiering/core.h"
#include "tiering/ledger.h"
#include "util/base.h"

#define FAKE_MODULES_MAX 16
#define FAKE_JOBS_MAX 4096
#define FAKE_CODE_STEP 64u
#define FAKE_MS 1000000u
#define FAKE_N 3u		/* the threshold in fake_config */

struct fake_stub {
	uint64_t address, version;
	uint32_t cell;
};

struct fake_module {
	struct module *module;		/* NULL: none */
	uint64_t id;
	uid_t uid;
	struct tier_layout layout;
	struct tier_record *records;
	uint32_t *cells;
	struct fake_stub *stubs;
	uint32_t n_stubs;
	uint64_t code_used;
	struct fake *fake;
};

struct fake_job {
	uint64_t module, version;
	uint32_t method;
	enum tier_level level;
	bool is_active;
};

struct fake {
	struct core *core;
	struct core_config config;
	uint8_t *memory;
	uint64_t now_ns, armed_ns;
	struct fake_module modules[FAKE_MODULES_MAX];
	struct fake_job jobs[FAKE_JOBS_MAX];	/* in order of their starts */
	uint32_t n_jobs;
	struct tier_event *events;		/* all that were told */
	uint32_t n_events, n_events_max;
	uint32_t n_changed;
	int tier0_result, stub_result, compile_result;	/* what the next ones return */
	void (*on_event)(struct fake *fake, const struct tier_event *event);
	void (*on_changed)(struct fake *fake, struct module *module, uint32_t method);
	void *test;
};

/* -- What the core is given --- */
static inline uint64_t fake_now(void *context) { return ((struct fake *)context)->now_ns; }
static inline uint64_t fake_wall(void *context) { return ((struct fake *)context)->now_ns + 1000000000000 * (uint64_t)FAKE_MS; }
static inline void fake_arm(void *context, uint64_t deadline_ns) { ((struct fake *)context)->armed_ns = deadline_ns; }

static inline void fake_crash_point(void)
{
	if (ledger_crash_point)
		ledger_crash_point();
}

static inline void fake_take_code(struct fake_module *fm, struct core_code *ret)
{
	uint64_t segment = tier_layout_segment(&fm->layout, TIER_SEGMENT_CODE);

	*ret = (struct core_code){ .address = segment + fm->code_used, .size = FAKE_CODE_STEP };
	fm->code_used += FAKE_CODE_STEP;
	ret->code_used = fm->code_used;
}

static inline int fake_tier0(void *context, void *module_context, uint32_t method, uint32_t body, struct core_code *ret)
{
	struct fake *fake = context;

	if (fake->tier0_result)
		return fake->tier0_result;
	fake_take_code(module_context, ret);
	fake_crash_point();
	return 0;
}

static inline int fake_stub(void *context, void *module_context, uint32_t method, uint32_t cell, uint64_t version,
			    uint64_t code, struct core_code *ret)
{
	struct fake *fake = context;
	struct fake_module *fm = module_context;
	uint32_t i;

	if (fake->stub_result)
		return fake->stub_result;
	assert_true(cell < fm->layout.n_cells && fm->n_stubs < 2 * fm->layout.n_cells);
	fake_take_code(fm, ret);
	for (i = 0; i < fm->n_stubs; i++)	/* a stub that a predecessor made but did not live to use */
		if (fm->stubs[i].address == ret->address)
			break;
	fm->stubs[i] = (struct fake_stub){ .address = ret->address, .version = version, .cell = cell };
	fm->n_stubs = MAX(fm->n_stubs, i + 1);
	fake_crash_point();
	return 0;
}

static inline int fake_compile(void *context, void *module_context, uint32_t method, uint32_t body, uint64_t version,
			       enum tier_level level)
{
	struct fake *fake = context;
	struct fake_module *fm = module_context;

	if (fake->compile_result)
		return fake->compile_result;
	if (fake->n_jobs == FAKE_JOBS_MAX) {	/* keep those that are outside */
		uint32_t n = 0;

		for (uint32_t i = 0; i < fake->n_jobs; i++)
			if (fake->jobs[i].is_active)
				fake->jobs[n++] = fake->jobs[i];
		fake->n_jobs = n;
	}
	fake->jobs[fake->n_jobs++] = (struct fake_job){ fm->id, version, method, level, true };
	fake_crash_point();
	return 0;
}

static inline void fake_record_event(struct fake *fake, const struct tier_event *event)
{
	if (fake->n_events == fake->n_events_max) {
		fake->n_events_max = MAX(2 * fake->n_events_max, 64u);
		fake->events = realloc(fake->events, fake->n_events_max * sizeof(*event));
		assert_non_null(fake->events);
	}
	fake->events[fake->n_events++] = *event;
}

static inline void fake_event(void *context, const struct tier_event *event)
{
	struct fake *fake = context;

	fake_crash_point();
	if (fake->on_event)
		fake->on_event(fake, event);
	else
		fake_record_event(fake, event);
	fake_crash_point();
}

static inline void fake_changed(void *context, struct module *module, uint32_t method)
{
	struct fake *fake = context;

	fake->n_changed++;
	if (fake->on_changed)
		fake->on_changed(fake, module, method);
	fake_crash_point();
}

static const struct core_ops fake_ops = {
	.now = fake_now,
	.wall = fake_wall,
	.arm = fake_arm,
	.tier0 = fake_tier0,
	.stub = fake_stub,
	.compile = fake_compile,
	.event = fake_event,
	.changed = fake_changed,
};

static const struct core_config fake_config = {
	.threshold = FAKE_N,
	.delay_ns = 100 * (uint64_t)FAKE_MS,
	.call_counting = true,
	.jobs_per_uid = 1,
	.jobs_total = 2,
};

/* -- Its life --- */
static inline void fake_check(struct fake *fake)
{
	const char *broken = core_check(fake->core);

	if (broken)
		fail_msg("broken: %s", broken);
}

static inline void *fake_memory(void)
{
	void *memory = mmap(NULL, ledger_size(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	assert_true(memory != MAP_FAILED);
	return memory;
}

static inline struct fake *fake_new(const struct core_config *config)
{
	struct fake *fake = calloc(1, sizeof(*fake));

	assert_non_null(fake);
	fake->config = *config;
	fake->memory = fake_memory();
	fake->now_ns = 1000 * (uint64_t)FAKE_MS;
	assert_int_equal(core_new(&fake->core, config, &fake_ops, fake, fake->memory, ledger_size()), 0);
	return fake;
}

static inline void fake_module_drop(struct fake_module *fm)
{
	free(fm->records);
	free(fm->cells);
	free(fm->stubs);
	*fm = (struct fake_module){ 0 };
}

static inline struct fake *fake_free(struct fake *fake)
{
	core_free(fake->core);
	for (int i = 0; i < FAKE_MODULES_MAX; i++)
		fake_module_drop(&fake->modules[i]);
	munmap(fake->memory, ledger_size());
	free(fake->events);
	free(fake);
	return NULL;
}

static inline struct fake_module *fake_module_by_id(struct fake *fake, uint64_t id)
{
	for (int i = 0; i < FAKE_MODULES_MAX; i++)
		if (fake->modules[i].id == id)
			return &fake->modules[i];
	return NULL;
}

/* A successor: a new core on the same memory. Jobs that were outside are lost with the daemon. */
static inline void fake_succeed(struct fake *fake)
{
	struct module *module = NULL;

	for (uint32_t i = 0; i < fake->n_jobs; i++)
		fake->jobs[i].is_active = false;
	fake->armed_ns = 0;
	assert_int_equal(core_new(&fake->core, &fake->config, &fake_ops, fake, fake->memory, ledger_size()), 0);
	for (int i = 0; i < FAKE_MODULES_MAX; i++)
		fake->modules[i].module = NULL;
	while ((module = core_module_next(fake->core, module))) {
		struct core_module_info info;
		struct fake_module *fm;

		core_module_info(module, &info);
		fm = fake_module_by_id(fake, info.id);
		assert_non_null(fm);
		fm->module = module;
		fm->code_used = info.code_used;
		assert_int_equal(core_module_attach(module, fm->records, fm->cells, fm), 0);
	}
	for (int i = 0; i < FAKE_MODULES_MAX; i++)
		if (fake->modules[i].id && !fake->modules[i].module)
			fake_module_drop(&fake->modules[i]);
	core_tick(fake->core);
	fake_check(fake);
}

static inline void fake_restart(struct fake *fake)
{
	fake->core = core_free(fake->core);
	fake_succeed(fake);
}

/* -- Modules --- */
static inline void fake_module_make(struct fake_module *fm, uint64_t id, uid_t uid, uint32_t n_methods, uint32_t n_cells)
{
	uint64_t offset = 0;

	*fm = (struct fake_module){ .id = id, .uid = uid };
	fm->layout = (struct tier_layout){ .base = TIER_WINDOW_LOW + (id << 28), .n_methods = n_methods, .n_cells = n_cells };
	for (int i = 0; i < _TIER_SEGMENT_N; i++) {
		fm->layout.segment[i].offset = offset;
		fm->layout.segment[i].size = 16 << 20;
		offset += 17 << 20;
	}
	fm->layout.size = offset;
	fm->code_used = align_up(TIER_PRECODES_OFFSET + n_methods * TIER_PRECODE_SIZE, FAKE_CODE_STEP);
	fm->records = calloc(n_methods + 1, sizeof(*fm->records));
	fm->cells = calloc(n_cells + 1, sizeof(*fm->cells));
	fm->stubs = calloc(2 * n_cells + 1, sizeof(*fm->stubs));
	assert_true(fm->records && fm->cells && fm->stubs);
	for (uint32_t i = 0; i < n_methods; i++)
		fm->records[i] = (struct tier_record){
			.state = tier_state_make(0, TIER_REASON_NONE, TIER_LEVEL_NONE, TIER_STAGE_COLD),
			.precode = tier_layout_thunk(&fm->layout, TIER_THUNK_PRESTUB),
			.entry = tier_layout_precode(&fm->layout, i),
			.index = i,
		};
}

static inline int fake_try_load(struct fake *fake, uid_t uid, const char *name, uint32_t n_methods, uint32_t n_cells,
				struct fake_module **ret)
{
	struct fake_module *fm = fake_module_by_id(fake, 0);
	int r;

	assert_non_null(fm);
	fake_module_make(fm, core_take_module_id(fake->core), uid, n_methods, n_cells);
	fm->fake = fake;
	r = core_module_add(&fm->module, fake->core, fm->id, uid, name, false, &fm->layout, fm->code_used, fm->records, fm->cells,
			    fm);
	if (r)
		fake_module_drop(fm);
	*ret = r ? NULL : fm;
	return r;
}

static inline struct fake_module *fake_load(struct fake *fake, uid_t uid, const char *name, uint32_t n_methods)
{
	struct fake_module *fm;

	assert_int_equal(fake_try_load(fake, uid, name, n_methods, 2 * n_methods, &fm), 0);
	return fm;
}

static inline void fake_remove(struct fake *fake, struct fake_module *fm)
{
	for (uint32_t i = 0; i < fake->n_jobs; i++)
		if (fake->jobs[i].module == fm->id)
			fake->jobs[i].is_active = false;
	core_module_remove(fm->module);
	fake_module_drop(fm);
}

/* -- Callers --- */
enum fake_path { FAKE_PRESTUB, FAKE_CODE, FAKE_COUNTED, FAKE_CROSSED };

/* One call through the method's precode: what libtier, precode and stub do together, without the bell. */
static inline enum fake_path fake_call(struct fake_module *fm, uint32_t method)
{
	uint64_t target = fm->records[method].precode;

	if (target == tier_layout_thunk(&fm->layout, TIER_THUNK_PRESTUB)) {
		assert_int_equal(core_prepare(fm->module, method), 0);
		assert_true(fm->records[method].code);
		return FAKE_PRESTUB;
	}
	for (uint32_t i = 0; i < fm->n_stubs; i++)
		if (fm->stubs[i].address == target)
			return --fm->cells[fm->stubs[i].cell] ? FAKE_COUNTED : FAKE_CROSSED;
	assert_true(target == fm->records[method].code);
	return FAKE_CODE;
}

static inline bool fake_ring(struct fake_module *fm, uint32_t method, uint64_t version)
{
	return core_threshold(fm->fake->core, fm->id, method, version, 77, 78, fm->fake->now_ns, TIER_SOURCE_KERNEL);
}

/* A call, and the bell if it crosses */
static inline enum fake_path fake_call_and_ring(struct fake_module *fm, uint32_t method)
{
	uint64_t version = fm->records[method].version;
	enum fake_path path = fake_call(fm, method);

	if (path == FAKE_CROSSED)
		fake_ring(fm, method, version);
	return path;
}

static inline void fake_calls(struct fake_module *fm, uint32_t method, uint32_t n)
{
	while (n--)
		fake_call_and_ring(fm, method);
}

/* -- Time and jobs --- */
static inline bool fake_is_due(const struct fake *fake) { return fake->armed_ns && fake->armed_ns <= fake->now_ns; }

static inline void fake_fire(struct fake *fake)
{
	fake->armed_ns = 0;
	core_tick(fake->core);
}

static inline void fake_pass(struct fake *fake, uint64_t ms)
{
	uint64_t end = fake->now_ns + ms * FAKE_MS;

	while (fake->armed_ns && fake->armed_ns <= end) {
		fake->now_ns = MAX(fake->now_ns, fake->armed_ns);
		fake_fire(fake);
	}
	fake->now_ns = end;
}

static inline struct fake_job *fake_job(struct fake *fake, struct fake_module *fm, uint32_t method)
{
	for (uint32_t i = 0; i < fake->n_jobs; i++)
		if (fake->jobs[i].is_active && fake->jobs[i].module == fm->id && fake->jobs[i].method == method)
			return &fake->jobs[i];
	return NULL;
}

static inline void fake_end_job(struct fake *fake, struct fake_job *job, enum tier_reason reason)
{
	struct fake_module *fm = fake_module_by_id(fake, job->module);
	struct core_code code = { 0 };

	assert_true(job->is_active);
	job->is_active = false;
	if (reason == TIER_REASON_NONE)
		fake_take_code(fm, &code);
	core_compile_done(fake->core, job->module, job->method, job->version, reason, &(struct core_result){ .code = code });
}

static inline bool fake_end(struct fake *fake, struct fake_module *fm, uint32_t method, enum tier_reason reason)
{
	struct fake_job *job = fake_job(fake, fm, method);

	if (job)
		fake_end_job(fake, job, reason);
	return job;
}

/* -- Questions --- */
static inline struct tier_answer fake_answer(struct fake_module *fm, uint32_t method)
{
	struct tier_answer answer = core_answer(fm->module, method);
	struct tier_answer shared = tier_record_answer(&fm->records[method], fm->cells, fm->layout.n_cells);

	assert_true(answer.status == shared.status && answer.stage == shared.stage && answer.tier == shared.tier);
	assert_true(answer.reason == shared.reason && answer.generation == shared.generation);
	assert_int_equal(answer.remaining, shared.remaining);
	return answer;
}

static inline uint32_t fake_n_events(const struct fake *fake, enum tier_event_kind kind)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < fake->n_events; i++)
		n += fake->events[i].kind == kind;
	return n;
}

/* The events since the first @from are of these kinds, ended by 0. */
static inline void fake_assert_kinds(const struct fake *fake, uint32_t from, ...)
{
	va_list args;
	int kind;

	va_start(args, from);
	while ((kind = va_arg(args, int))) {
		assert_true(from < fake->n_events);
		assert_string_equal(tier_event_name(fake->events[from++].kind), tier_event_name(kind));
	}
	va_end(args);
	assert_int_equal(from, fake->n_events);
}

static inline const struct tier_event *fake_newest(const struct fake *fake)
{
	assert_true(fake->n_events);
	return &fake->events[fake->n_events - 1];
}

/* -- For test programs --- */
static inline int fake_setup(void **state)
{
	*state = fake_new(&fake_config);
	return 0;
}

static inline int fake_teardown(void **state)
{
	struct fake *fake = *state;

	fake_check(fake);
	fake_free(fake);
	return 0;
}
#define FAKE_TEST(f) cmocka_unit_test_setup_teardown(f, fake_setup, fake_teardown)
