/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The world around the core, as far as its unit tests need one: a clock that moves when told, modules (fake_module.h),
 * callers that do what precodes, stubs and libtier do (fake_calls.h), jobs that end when told, recorded events.
 *
 * It outlives the core: fake_restart() is a daemon that dies between two requests and its successor; fake_copy() takes
 * the memory as it is at any instruction (ledger_crash_point). */

#include <errno.h>
#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <cmocka.h>
#include "order.h"
#include "tiering/core.h"
#include "tiering/ledger.h"
#include "unit/tiering/fake_module.h"
#include "util/base.h"

#define FAKE_MODULES_MAX 16
#define FAKE_JOBS_MAX    4096
#define FAKE_NOTES_MAX   64u
#define FAKE_MS          1000000u
#define FAKE_N           3u /* the threshold in fake_config */

struct fake_job {
	uint64_t module, version;
	uint32_t method, body, patchpoint;
	uint32_t n_inlined;
	struct fake_body inlined[FAKE_INLINED_MAX]; /* as they were when it started */
	enum tier_level level;
	uint32_t profile;
	bool is_active, is_urgent;
};

/* A note of libtier's prestub: a call came through that cell */
struct fake_note {
	uint64_t module, cell;
	uint32_t method;
};
enum fake_notes { FAKE_NOTES_AT_ONCE, FAKE_NOTES_LATE, FAKE_NOTES_LOST };

struct fake {
	struct core *core;
	struct core_config config;
	uint8_t *memory;
	uint64_t now_ns, armed_ns;
	struct fake_module modules[FAKE_MODULES_MAX];
	struct fake_job jobs[FAKE_JOBS_MAX]; /* in order of their starts */
	uint32_t n_jobs;
	struct fake_note notes[FAKE_NOTES_MAX]; /* on their way */
	uint32_t n_notes;
	enum fake_notes how_notes;
	struct tier_event *events; /* all that were told */
	uint32_t n_events, n_events_max;
	uint32_t n_changed, n_quiet;
	int first_result, stub_result, forwarder_result, compile_result; /* what the next ones return */
	uint32_t first_fails; /* mask of the levels that first() has no room for */
	void (*on_event)(struct fake *fake, const struct tier_event *event);
	void (*on_changed)(struct fake *fake, struct module *module, uint32_t method);
	void (*on_quiet)(struct fake *fake, struct module *module);
	void *test;
};

/* -- What the core is given --- */
static inline uint64_t fake_now(void *context) { return ((struct fake *)context)->now_ns; }
static inline uint64_t fake_wall(void *context)
{
	return ((struct fake *)context)->now_ns + 1000000000000 * (uint64_t)FAKE_MS;
}
static inline void fake_arm(void *context, uint64_t deadline_ns) { ((struct fake *)context)->armed_ns = deadline_ns; }

static inline void fake_crash_point(void)
{
	if (ledger_crash_point)
		ledger_crash_point();
}

static inline uint32_t fake_traits(void *context, void *module_context, uint32_t method, uint32_t body)
{
	const uint32_t precompiled = CORE_TRAIT_PRECOMPILED | CORE_TRAIT_PINNED;
	const struct fake_module *fm = module_context;

	return fm->traits[method % 64] & ~(body ? precompiled : 0);
}

static inline uint32_t fake_n_profile(void *context, void *module_context, uint32_t method, uint32_t body)
{
	const struct fake_module *fm = module_context;

	return fm->n_profile[method % 64];
}

/* A profile is the version's own, in cells that nobody had before. */
static inline void fake_check_profile(const struct fake_module *fm, const struct core_compile *compile)
{
	const uint32_t n = fm->n_profile[compile->method % 64];

	if (compile->level != TIER_LEVEL_TIER0_INSTRUMENTED && compile->level != TIER_LEVEL_TIER1_INSTRUMENTED)
		return;
	assert_true(n && compile->profile % 2 == 0 && compile->profile + n <= fm->layout.n_cells);
	for (uint32_t i = 0; i < n; i++)
		assert_int_equal(fm->cells[compile->profile + i], 0);
}

/* What the job's compiler sees: the bodies as they are now, but of itself the one that it makes. Precompiled code saw the
 * own ones. */
static inline uint32_t fake_see_bodies(const struct fake_module *fm, const struct core_compile *compile,
				       struct fake_body ret[FAKE_INLINED_MAX])
{
	const bool is_own = compile->level == TIER_LEVEL_READY_TO_RUN;
	uint32_t n = 0;

	for (uint32_t i = 0; i < MIN(fm->layout.n_methods, 64u); i++)
		if (fm->inlines[compile->method % 64] >> i & 1)
			ret[n++] = (struct fake_body){
				.method = i,
				.body = is_own			? 0
					: i == compile->method ? compile->body
							       : core_method_body(fm->module, i),
			};
	return n;
}

/* The places that call others directly, in optimized code */
static inline void fake_add_sites(struct fake_module *fm, struct fake_code *code, struct core_result *ret)
{
	for (uint32_t i = 0; i < MIN(fm->layout.n_methods, 64u); i++)
		if (fm->calls[code->method % 64] >> i & 1)
			fake_add_site(fm, code, ret->code.address, i);
	ret->sites = code->sites;
	ret->n_sites = code->n_sites;
}

static inline void fake_name_inlined(const struct fake_code *code, uint32_t inlined[FAKE_INLINED_MAX],
				     struct core_result *ret)
{
	for (uint32_t i = 0; i < code->n_inlined; i++)
		inlined[i] = code->inlined[i].method;
	ret->inlined = inlined;
	ret->n_inlined = code->n_inlined;
}

static inline int fake_first(void *context, void *module_context, const struct core_compile *compile, struct core_result *ret)
{
	static uint32_t inlined[FAKE_INLINED_MAX];
	struct fake *fake = context;
	struct fake_code *code;

	if (fake->first_result)
		return fake->first_result;
	if (fake->first_fails >> compile->level & 1)
		return CORE_E_FULL;
	fake_check_profile(module_context, compile);
	code = fake_take_code(module_context, &ret->code);
	code->kind = FAKE_BODY;
	code->level = compile->level;
	code->method = compile->method;
	code->body = compile->body;
	if (compile->level == TIER_LEVEL_READY_TO_RUN) {
		code->n_inlined = fake_see_bodies(module_context, compile, code->inlined);
		fake_name_inlined(code, inlined, ret);
		fake_add_sites(module_context, code, ret);
	}
	fake_crash_point();
	return 0;
}

static inline int fake_stub(void *context, void *module_context, uint32_t method, uint32_t cell, uint64_t version,
			    uint64_t address, struct core_code *ret)
{
	struct fake *fake = context;
	struct fake_module *fm = module_context;
	struct fake_code *code;

	if (fake->stub_result)
		return fake->stub_result;
	assert_true(cell < fm->layout.n_cells);
	code = fake_take_code(fm, ret);
	code->kind = FAKE_STUB;
	code->method = method;
	code->cell = cell;
	code->version = version;
	code->leads_to = address;
	fake_crash_point();
	return 0;
}

static inline int fake_forwarder(void *context, void *module_context, uint32_t method, uint64_t target,
				 struct core_code *ret)
{
	struct fake *fake = context;
	struct fake_module *fm = module_context;
	struct fake_code *code;

	if (fake->forwarder_result)
		return fake->forwarder_result;
	code = fake_take_code(fm, ret);
	code->kind = FAKE_FORWARDER;
	code->method = method;
	*(uint64_t *)fake_memory_at(fm, ret->address + FORWARDER_TARGET) = target;
	fake_crash_point();
	return 0;
}

static inline void *fake_alias(void *context, void *module_context, uint64_t address)
{
	const struct fake_module *fm = module_context;
	uint64_t code = tier_layout_segment(&fm->layout, TIER_SEGMENT_CODE);
	uint64_t records = tier_layout_segment(&fm->layout, TIER_SEGMENT_RECORDS);

	fake_crash_point();
	if (address - code >= FAKE_SEGMENT && address - records >= FAKE_SEGMENT)
		return NULL;
	return fake_memory_at(fm, address);
}

static inline int fake_compile(void *context, void *module_context, const struct core_compile *compile)
{
	struct fake *fake = context;
	struct fake_module *fm = module_context;

	struct fake_job *job;

	/* a host keeps the newest body of a method beside its own */
	assert_true(!compile->body || compile->body == core_method_body(fm->module, compile->method));
	if (fake->compile_result)
		return fake->compile_result;
	fake_check_profile(fm, compile);
	if (fake->n_jobs == FAKE_JOBS_MAX) { /* keep those that are outside */
		uint32_t n = 0;

		for (uint32_t i = 0; i < fake->n_jobs; i++)
			if (fake->jobs[i].is_active)
				fake->jobs[n++] = fake->jobs[i];
		fake->n_jobs = n;
	}
	job = &fake->jobs[fake->n_jobs++];
	*job = (struct fake_job){
		.module = fm->id,
		.version = compile->version,
		.method = compile->method,
		.body = compile->body,
		.level = compile->level,
		.patchpoint = compile->patchpoint,
		.profile = compile->profile,
		.is_active = true,
		.is_urgent = compile->is_urgent,
	};
	if (job->level != TIER_LEVEL_TIER0_INSTRUMENTED && job->level != TIER_LEVEL_TIER1_INSTRUMENTED)
		job->n_inlined = fake_see_bodies(fm, compile, job->inlined);
	fake_crash_point();
	return 0;
}

static inline void fake_quiet(void *context, struct module *module)
{
	struct fake *fake = context;

	assert_true(core_is_frozen(module) && !core_n_compiling(module));
	fake->n_quiet++;
	if (fake->on_quiet)
		fake->on_quiet(fake, module);
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
	.traits = fake_traits,
	.n_profile = fake_n_profile,
	.first = fake_first,
	.stub = fake_stub,
	.forwarder = fake_forwarder,
	.alias = fake_alias,
	.compile = fake_compile,
	.quiet = fake_quiet,
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
	void *memory =
		mmap(NULL, ledger_size(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	assert_true(memory != MAP_FAILED);
	return memory;
}

static inline struct fake *fake_new(const struct core_config *config)
{
	struct fake *fake = calloc(1, sizeof(*fake));

	assert_non_null(fake);
	mallopt(M_MMAP_THRESHOLD, 1 << 20); /* a core's large tables are mostly never touched: fresh pages, each time */
	fake->config = *config;
	fake->memory = fake_memory();
	fake->now_ns = 1000 * (uint64_t)FAKE_MS;
	assert_int_equal(core_new(&fake->core, config, &fake_ops, fake, fake->memory, ledger_size()), 0);
	return fake;
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
		assert_int_equal(core_module_attach(module, fm->header, fm->records, fm->cells, fm), 0);
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
static inline int fake_add_module(struct fake *fake, uid_t uid, const char *name, uint32_t n_methods, uint32_t n_cells,
				  uint32_t n_backpatchable, uint32_t n_each, struct fake_module **ret)
{
	struct fake_module *fm = fake_module_by_id(fake, 0);
	int r;

	assert_non_null(fm);
	fake_module_make_virtual(fm, core_take_module_id(fake->core), uid, n_methods, n_cells, n_backpatchable, n_each);
	fm->fake = fake;
	r = core_module_add(&fm->module, fake->core, fm->id, uid, name, false, &fm->layout, fm->code_used, fm->header,
			    fm->records, fm->cells, fm);
	if (r)
		fake_module_drop(fm);
	*ret = r ? NULL : fm;
	return r;
}

static inline int fake_try_load(struct fake *fake, uid_t uid, const char *name, uint32_t n_methods, uint32_t n_cells,
				struct fake_module **ret)
{
	return fake_add_module(fake, uid, name, n_methods, n_cells, 0, 0, ret);
}

static inline struct fake_module *fake_load(struct fake *fake, uid_t uid, const char *name, uint32_t n_methods)
{
	struct fake_module *fm;

	assert_int_equal(fake_try_load(fake, uid, name, n_methods, 2 * n_methods, &fm), 0);
	return fm;
}

/* One whose first methods are backpatchable, each in as many slots; cells for a few bodies of each */
static inline struct fake_module *fake_load_virtual(struct fake *fake, uid_t uid, const char *name, uint32_t n_methods,
						    uint32_t n_backpatchable, uint32_t n_each)
{
	struct fake_module *fm;

	assert_int_equal(fake_add_module(fake, uid, name, n_methods, 16 * n_methods, n_backpatchable, n_each, &fm), 0);
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

static inline struct fake_job *fake_osr_job(struct fake *fake, struct fake_module *fm, uint32_t patchpoint)
{
	for (uint32_t i = 0; i < fake->n_jobs; i++)
		if (fake->jobs[i].is_active && fake->jobs[i].module == fm->id &&
		    fake->jobs[i].level == TIER_LEVEL_OSR && fake->jobs[i].patchpoint == patchpoint)
			return &fake->jobs[i];
	return NULL;
}

/* The code that the job made, as a worker's result */
static inline void fake_finish_code(struct fake_module *fm, const struct fake_job *job, uint32_t *inlined,
				    struct core_result *ret)
{
	struct fake_code *code = fake_take_code(fm, &ret->code);

	code->kind = FAKE_BODY;
	code->level = job->level;
	code->method = job->method;
	code->body = job->body;
	code->version = job->version;
	code->n_inlined = job->n_inlined;
	memcpy(code->inlined, job->inlined, sizeof(code->inlined));
	fake_name_inlined(code, inlined, ret);
	if (job->level != TIER_LEVEL_TIER0_INSTRUMENTED)
		fake_add_sites(fm, code, ret);
}

static inline void fake_end_job(struct fake *fake, struct fake_job *job, enum tier_reason reason)
{
	struct fake_module *fm = fake_module_by_id(fake, job->module);
	uint32_t inlined[FAKE_INLINED_MAX];
	struct core_result result = {0};

	assert_true(job->is_active);
	job->is_active = false;
	if (reason == TIER_REASON_NONE)
		fake_finish_code(fm, job, inlined, &result);
	core_compile_done(fake->core, job->module, job->method, job->version, reason, &result);
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
	assert_int_equal(answer.is_frozen, shared.is_frozen);
	return answer;
}

static inline uint32_t fake_n_events(const struct fake *fake, enum tier_event_kind kind)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < fake->n_events; i++)
		n += fake->events[i].kind == kind;
	return n;
}

/* All that was told came in an order that is legal. */
static inline void fake_check_order(const struct fake *fake)
{
	struct order *order = order_new(fake->n_events ? fake->events[0].sequence : 1);
	const char *broken = NULL;

	for (uint32_t i = 0; !broken && i < fake->n_events; i++)
		broken = order_hear(order, &fake->events[i]);
	if (broken)
		fail_msg("%s", broken);
	order_free(order);
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

static inline uint64_t fake_n_paths(const struct fake *fake, enum tier_path path)
{
	return core_counters(fake->core)->n_paths[path];
}

#include "unit/tiering/fake_calls.h"

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
	fake_check_order(fake);
	fake_free(fake);
	return 0;
}
#define FAKE_TEST(f) cmocka_unit_test_setup_teardown(f, fake_setup, fake_teardown)
