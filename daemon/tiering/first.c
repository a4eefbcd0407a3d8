/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <errno.h>
#include "tiering/internal.h"
#include "util/error.h"

/* The first call: code where there was none
 *
 *   at once   unoptimized code, made in a linear pass, or code that came with the module
 *   later     the optimizer makes it, and the caller waits (aggressive_optimization, no_tiers, no_quick_jit)
 *
 * In the second case the method stays cold, which is what everybody sees of it, while its next version waits in
 * user->first and is made. It is QUEUED in the history at its first call. Jobs of that kind start before all others
 * of their uid, whatever the delay says. If the optimizer fails, the method gets unoptimized code after all, as MinOptJitted, and
 * is final with the optimizer's reason; the ledger keeps that while the method is cold, so that nothing is tried twice.
 *
 * Code that came with the module inlined the methods' own bodies. It is given up where one of them is not the current one, and
 * withdrawn (inline.c) when one goes. */

/* -- At once --- */
/* Whether what the code inlined is still so, and can be written down */
static bool first_can_inline(struct method *method, const struct core_result *result)
{
	struct module *module = method->module;

	for (uint32_t i = 0; i < result->n_inlined; i++)
		if (result->inlined[i] >= module->n_methods || method_body(&module->methods[result->inlined[i]]))
			return false;
	return version_has_edges(method, result->n_inlined) && inline_reserve(module, result->inlined, result->n_inlined);
}

static int first_compile(struct method *method, const struct ladder_step *step, struct core_result *ret)
{
	struct core *core = method_core(method);
	const struct core_compile compile = {
		.version = core->ledger.global->next_version,
		.method = method_index(method),
		.body = method_body(method),
		.level = step->level,
		.profile = step->profile,
		.is_urgent = true,
	};
	int r;

	*ret = (struct core_result){ .n_inlined = 0 };
	r = core->ops->first(core->context, method->module->context, &compile, ret);
	return r || first_can_inline(method, ret) ? r : CORE_E_FULL;
}

/* Before the transaction */
static struct count_plan first_plan(struct method *method, const struct ladder_step *step, const struct core_code *code)
{
	const struct core *core = method_core(method);

	if (step->reason)
		return (struct count_plan){ .stage = TIER_STAGE_FINAL, .reason = step->reason };
	if (delay_is_used(core))
		return (struct count_plan){ .stage = TIER_STAGE_UNCOUNTED };
	return count_plan(method, core->ledger.global->next_version, code->address, core->config.threshold, step->n_cells_used);
}

/* A path of its own only where nobody was before */
static enum tier_path first_path(const struct ledger_method *image, enum tier_path path)
{
	return path == TIER_PATH_DELAY_ACTIVATION_NON_FINAL && !image->body ? TIER_PATH_INITIAL_PUBLISH_NON_FINAL : path;
}

static void first_publish(struct method *method, const struct ladder_step *step, const struct core_result *result)
{
	const struct count_plan plan = first_plan(method, step, &result->code);
	struct core *core = method_core(method);
	struct ledger_method *image = method_begin(method);
	struct ledger_version *version = version_new(method, image, step);
	enum tier_path path;

	version_note_inlined(method, image->next, version->id, result->inlined, result->n_inlined, &version->edges);
	version_set_live(core, version, &result->code);
	module_note_code(method->module, &result->code);
	image->active = image->next;
	image->next = LEDGER_NONE;
	image->reason = TIER_REASON_NONE;
	image->generation++;
	method_event(method, TIER_EVENT_PUBLISHED, version->id, TIER_LEVEL_NONE, version->level, TIER_REASON_FIRST_CALL);
	if (plan.stage == TIER_STAGE_UNCOUNTED)
		delay_note_first_call(method->module->user);
	path = count_apply(method, image, version, &plan, TIER_REASON_FIRST_CALL);
	core->stats.n_published++;
	method_commit(method, first_path(image, path));
	delay_link(method->module->user);
	inline_note(method, method->durable->active);
	slot_take_sites(method->module, result);
}

/* -- Later --- */
static void first_queue(struct method *method, const struct ladder_step *step)
{
	struct ledger_method *image = method_begin(method);
	const struct ledger_version *version = version_new(method, image, step);

	image->reason = step->reason;	/* it will be final for that */
	image->ticket = ledger_ticket(&method_core(method)->ledger);
	method_event(method, TIER_EVENT_QUEUED, version->id, TIER_LEVEL_NONE, version->level, TIER_REASON_FIRST_CALL);
	method_commit(method, PATH_KEPT);
}

/* -- Either --- */
static bool first_is_being_made(const struct method *method)
{
	return method_stage(method) == TIER_STAGE_COLD && method->durable && method->durable->next != LEDGER_NONE;
}

/* What the method can do without where it could not be had; 0: it must have that */
static uint32_t first_lack(enum tier_level level)
{
	if (level == TIER_LEVEL_READY_TO_RUN)
		return LADDER_PRECOMPILED;
	return level == TIER_LEVEL_TIER0_INSTRUMENTED ? LADDER_PROFILE : 0;
}

static struct ladder_step first_step(const struct method *method, uint32_t without)
{
	const enum tier_reason failed = method->durable ? method->durable->reason : TIER_REASON_NONE;

	return failed ? ladder_unoptimized(method, failed) : ladder_first(method, without);
}

/* 0, CORE_E_LATER, CORE_E_FULL, -errno */
int first_make(struct method *method)
{
	uint32_t without = 0, lack;
	struct core_result result;
	struct ladder_step step;
	int r;

	do {
		step = first_step(method, without);
		if (step.level == TIER_LEVEL_OPTIMIZED) {
			first_queue(method, &step);
			return CORE_E_LATER;
		}
		r = first_compile(method, &step, &result);
		lack = first_lack(step.level);
		without |= lack;
	} while (r && lack);
	if (!r)
		first_publish(method, &step, &result);
	return r < 0 ? error_fold(r) : r;
}

int core_prepare(struct module *module, uint32_t index)
{
	struct method *method;
	int r;

	if (index >= module->n_methods)
		return error_origin(-EINVAL);
	method = &module->methods[index];
	if (method_stage(method) != TIER_STAGE_COLD)
		return 0;
	if (first_is_being_made(method))
		return CORE_E_LATER;
	assert(module->records);
	r = first_make(method);
	core_proceed(module->core);
	/* a job that could not even start has ended by now, and its bell has rung before anybody could wait for it */
	if (r == CORE_E_LATER && !first_is_being_made(method))
		r = method_stage(method) == TIER_STAGE_COLD ? first_make(method) : 0;
	return r;
}
