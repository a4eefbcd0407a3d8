/* SPDX-License-Identifier: Apache-2.0 */
#include "tiering/internal.h"

/* The ladder: which level a body begins at, and which comes next (reference §2, §7)
 *
 *   no_optimization                                   MinOptJitted
 *   aggressive_optimization, no_tiers                 Optimized
 *   precompiled, pinned                               ReadyToRun
 *   precompiled                                       ReadyToRun ─► Tier1Instrumented ─► Tier1
 *   no_quick_jit, or no_quick_jit_loops and a loop    Optimized
 *   all others                                        Tier0 ─► Tier0Instrumented ─► Tier1
 *
 * The first line that applies counts. Each arrow is N counted calls and a turn in the queue. With instrument_all the others begin
 * at Tier0Instrumented, and precompiled code is not instrumented. Without pgo nobody is, and neither is who has nothing to count, or
 * whose module has no cells left for that: the ladder goes on without that step. Whoever had optimized code already, and lost
 * it because it inlined a body that is no more, gets Tier1 at once.
 *
 * Precompiled code is instrumented in its optimized form, for unoptimized code would be slower than what runs. What is compiled
 * here gets the unoptimized form, which is cheap to make. */

#define BIT(level) (1u << TIER_LEVEL_##level)
#define LADDER_FINAL (BIT(TIER1) | BIT(OPTIMIZED) | BIT(MIN_OPT_JITTED))
#define LADDER_INSTRUMENTED (BIT(TIER0_INSTRUMENTED) | BIT(TIER1_INSTRUMENTED))

bool ladder_is_final(enum tier_level level)
{
	return LADDER_FINAL >> level & 1;
}

bool ladder_is_instrumented(enum tier_level level)
{
	return LADDER_INSTRUMENTED >> level & 1;
}

/* -- Profiles --- */
/* Takes the step at an instrumented level if the body has something to count, and the module has cells for that, for the version's
 * own calls, and for those of all versions that other methods may still need: a method that is replaced again and again
 * must not take from the others what they are counted with. */
static bool ladder_instrument(const struct method *method, uint32_t body, enum tier_level level, struct ladder_step *step)
{
	const struct module *module = method->module;
	const struct core *core = module->core;
	const uint64_t first = align_up(module->durable->n_cells_used, 2);
	const uint64_t n_calls = 1 + (uint64_t)module->rows[ROWS_PROMISED] - method->promised;
	uint32_t n;

	if (!core->ops->n_profile)
		return false;
	n = core->ops->n_profile(core->context, module->context, method_index(method), body);
	if (!n || first + n + n_calls > module->durable->layout.n_cells)
		return false;
	/* a predecessor may have set it for a counter, and not lived to begin that; all behind it are as they were made: zero */
	__atomic_store_n(&module->cells[module->durable->n_cells_used], 0, __ATOMIC_RELAXED);
	step->level = level;
	step->profile = first;
	step->n_cells_used = first + n;
	return true;
}

bool core_profile(const struct module *module, uint32_t index, uint32_t *ret_cell)
{
	const struct method *method = &module->methods[index];
	const struct ledger *ledger = &module->core->ledger;
	uint32_t row = method->durable ? method->durable->chain : LEDGER_NONE;

	for (; row != LEDGER_NONE; row = ledger_version(ledger, row)->older) {
		const struct ledger_version *version = ledger_version(ledger, row);

		if (version->body != method->durable->body || version->state != LEDGER_LIVE || version->profile == LEDGER_NONE)
			continue;
		*ret_cell = version->profile;
		return true;
	}
	return false;
}

/* -- First --- */
/* Whether it has had live code of one of these levels */
static bool ladder_had(const struct method *method, uint32_t body, uint32_t levels)
{
	const struct ledger *ledger = &method_core(method)->ledger;
	uint32_t row = method->durable ? method->durable->chain : LEDGER_NONE;

	for (; row != LEDGER_NONE; row = ledger_version(ledger, row)->older) {
		const struct ledger_version *version = ledger_version(ledger, row);

		if (version->body == body && version->state == LEDGER_LIVE && levels >> version->level & 1)
			return true;
	}
	return false;
}

uint32_t ladder_traits(const struct method *method)
{
	const struct core *core = method_core(method);

	if (!core->ops->traits)
		return 0;
	return core->ops->traits(core->context, method->module->context, method_index(method), method_body(method));
}

static struct ladder_step ladder_quick(const struct method *method, uint32_t without)
{
	const struct core_config *config = &method_core(method)->config;
	struct ladder_step step = {
		.level = TIER_LEVEL_TIER0, .profile = LEDGER_NONE, .n_cells_used = method->module->durable->n_cells_used,
	};

	if (config->pgo && config->instrument_all && !(without & LADDER_PROFILE))
		ladder_instrument(method, method_body(method), TIER_LEVEL_TIER0_INSTRUMENTED, &step);
	return step;
}

static struct ladder_step ladder_at(const struct method *method, enum tier_level level, enum tier_reason reason)
{
	return (struct ladder_step){
		.level = level, .reason = reason, .profile = LEDGER_NONE,
		.n_cells_used = method->module->durable->n_cells_used,
	};
}

struct ladder_step ladder_first(const struct method *method, uint32_t without)
{
	const struct core_config *config = &method_core(method)->config;
	const uint32_t traits = ladder_traits(method);
	/* what was withdrawn cannot be used again: somebody whom it inlined was replaced */
	const bool is_precompiled = traits & CORE_TRAIT_PRECOMPILED && !(without & LADDER_PRECOMPILED)
				 && !ladder_had(method, method_body(method), BIT(READY_TO_RUN));

	if (traits & CORE_TRAIT_NO_OPTIMIZATION)
		return ladder_at(method, TIER_LEVEL_MIN_OPT_JITTED, TIER_REASON_NO_OPTIMIZATION);
	if (traits & CORE_TRAIT_AGGRESSIVE_OPTIMIZATION)
		return ladder_at(method, TIER_LEVEL_OPTIMIZED, TIER_REASON_AGGRESSIVE_OPTIMIZATION);
	if (config->no_tiers)
		return ladder_at(method, TIER_LEVEL_OPTIMIZED, TIER_REASON_TIERING_OFF);
	if (is_precompiled)
		return ladder_at(method, TIER_LEVEL_READY_TO_RUN,
				 traits & CORE_TRAIT_PINNED ? TIER_REASON_PINNED : TIER_REASON_NONE);
	if (config->no_quick_jit || (config->no_quick_jit_loops && traits & CORE_TRAIT_LOOPS))
		return ladder_at(method, TIER_LEVEL_OPTIMIZED, TIER_REASON_QUICK_JIT_OFF);
	return ladder_quick(method, without);
}

struct ladder_step ladder_unoptimized(const struct method *method, enum tier_reason reason)
{
	return ladder_at(method, TIER_LEVEL_MIN_OPT_JITTED, reason);
}

/* -- Next --- */
struct ladder_step ladder_next(const struct method *method, const struct ledger_version *active)
{
	const struct core_config *config = &method_core(method)->config;
	struct ladder_step step = ladder_at(method, TIER_LEVEL_TIER1, TIER_REASON_PROMOTED);

	if (!config->pgo || config->instrument_all || ladder_had(method, active->body, LADDER_FINAL))
		return step;
	if (active->level == TIER_LEVEL_TIER0)
		ladder_instrument(method, active->body, TIER_LEVEL_TIER0_INSTRUMENTED, &step);
	else if (active->level == TIER_LEVEL_READY_TO_RUN)
		ladder_instrument(method, active->body, TIER_LEVEL_TIER1_INSTRUMENTED, &step);
	if (ladder_is_instrumented(step.level))
		step.reason = TIER_REASON_NONE;
	return step;
}

/* -- Rows --- */
/* The levels alone say it, so that a successor with other options finds the room that its predecessor promised. */
uint32_t ladder_promise(const struct core *core, const struct ladder_place *place)
{
	switch (place->stage) {
	case TIER_STAGE_COLD:
		/* the optimizer makes its first code, or could not: if all else fails there is unoptimized code */
		return place->next != LEDGER_NONE || place->reason ? 1 : LEDGER_LADDER;
	case TIER_STAGE_QUEUED:
	case TIER_STAGE_COMPILING:
		return ladder_is_instrumented(ledger_version(&core->ledger, place->next)->level);
	case TIER_STAGE_FINAL:
		return 0;
	default:
		return ladder_is_instrumented(ledger_version(&core->ledger, place->active)->level) ? 1 : LEDGER_LADDER - 1;
	}
}
