/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>
#include "bytecode/decode.h"
#include "util/base.h"
#include "util/error.h"
#include "worker/child/hints.h"
#include "worker/child/plan.h"

/* A depth-first walk over the calls from the method itself. A body that is on the walk's path is never inlined (that
 * would be recursion), so the planned edges have no cycle; a body is finished, and its expanded size known, before its
 * caller decides. Hot calls are decided first, so that none is turned away for want of room. */

enum visit { VISIT_NEW, VISIT_OPEN, VISIT_DONE };

struct walk {
	const struct job_compile *job;
	struct plan *plan;
	uint8_t *visits;	/* enum visit per body */
	uint32_t *sizes;	/* slots per body, with what is inlined so far */
	uint32_t *loops, *callxs;	/* backward jumps and callx, likewise */
};

const struct profile_count *plan_target(const struct plan *plan, const struct job_compile *job, uint32_t body, uint32_t pc)
{
	return plan->guards && insn_is_callx(&job->bodies[body].insns[pc]) ? hints_target(job, body, pc) : NULL;
}

/* The method that the instruction at @pc calls, as far as is known: a callx the one that it usually calls */
static int64_t method_called(const struct plan *plan, const struct job_compile *job, uint32_t index, uint32_t pc)
{
	const struct insn *insn = &job->bodies[index].insns[pc];
	const struct profile_count *target = plan_target(plan, job, index, pc);

	if (target)
		return target->method;
	return insn->code == (BPF_JMP | BPF_CALL) && insn->src == INSN_CALL_METHOD ? insn->imm : -1;
}

static int64_t body_of_call(const struct plan *plan, const struct job_compile *job, uint32_t index, uint32_t pc)
{
	int64_t method = method_called(plan, job, index, pc);

	return method < 0 ? -1 : (int64_t)plan->bodies[method] - 1;
}

static bool is_called_once(const struct walk *walk, uint32_t index, int64_t callee)
{
	const struct job_body *body = &walk->job->bodies[index];
	uint32_t n = 0;

	for (uint32_t pc = 0; pc < body->n_insns; pc += insn_slots(&body->insns[pc]))
		n += body_of_call(walk->plan, walk->job, index, pc) == callee;
	return n == 1;
}

static bool is_worth_it(const struct walk *walk, uint32_t index, uint32_t pc, int64_t callee)
{
	const enum hints_heat heat = hints_heat(walk->job, index, pc);
	uint32_t n = walk->sizes[callee];

	if (heat == HINTS_NEVER || walk->sizes[index] + n > PLAN_TOTAL_MAX)
		return false;
	if (n <= PLAN_CALLEE_MAX || (heat == HINTS_HOT_SITE && n <= PLAN_HOT_MAX))
		return true;
	return n <= PLAN_ONCE_MAX && is_called_once(walk, index, callee);
}

static void walk_body(struct walk *walk, uint32_t index, uint32_t depth);

/* Decides about the calls of an open body that are hot, or about all others: what is inlined adds to its size and loops. */
static void walk_calls(struct walk *walk, uint32_t index, uint32_t depth, bool hot)
{
	const struct job_body *body = &walk->job->bodies[index];

	for (uint32_t pc = 0; pc < body->n_insns; pc += insn_slots(&body->insns[pc])) {
		int64_t callee = body_of_call(walk->plan, walk->job, index, pc);

		if (callee < 0 || walk->visits[callee] == VISIT_OPEN || (hints_heat(walk->job, index, pc) == HINTS_HOT_SITE) != hot)
			continue;
		if (walk->visits[callee] == VISIT_NEW)
			walk_body(walk, callee, depth + 1);
		if (!is_worth_it(walk, index, pc, callee))
			continue;
		walk->plan->inlines[index][pc] = 1;
		walk->sizes[index] += walk->sizes[callee];
		walk->loops[index] += walk->loops[callee];
		walk->callxs[index] += walk->callxs[callee];
	}
}

static uint32_t count_callx(const struct job_body *body)
{
	uint32_t n = 0;

	for (uint32_t pc = 0; pc < body->n_insns; pc += insn_slots(&body->insns[pc]))
		n += insn_is_callx(&body->insns[pc]);
	return n;
}

static void walk_body(struct walk *walk, uint32_t index, uint32_t depth)
{
	const struct job_body *body = &walk->job->bodies[index];

	walk->visits[index] = VISIT_OPEN;
	walk->sizes[index] = body->n_insns;
	walk->callxs[index] = count_callx(body);
	for (uint32_t pc = 0; pc < body->n_insns; pc += insn_slots(&body->insns[pc]))
		walk->loops[index] += insn_is_jump(&body->insns[pc]) && flow_jump_target(body->insns, pc) <= pc;
	if (depth < PLAN_DEPTH_MAX && walk->job->level != TIER_LEVEL_TIER1_INSTRUMENTED) {
		walk_calls(walk, index, depth, true);
		walk_calls(walk, index, depth, false);
	}
	walk->visits[index] = VISIT_DONE;
}

static void mark_used(struct plan *plan, const struct job_compile *job, uint32_t index)
{
	if (plan->used[index])
		return;
	plan->used[index] = 1;
	for (uint32_t pc = 0; pc < job->bodies[index].n_insns; pc++)
		if (plan->inlines[index][pc])
			mark_used(plan, job, plan_callee(plan, job, index, pc));
}

static int plan_allocate(struct plan *plan, const struct job_compile *job)
{
	plan->bodies = calloc(job->n_methods, sizeof(*plan->bodies));
	plan->inlines = calloc(job->n_bodies, sizeof(*plan->inlines));
	plan->used = calloc(job->n_bodies, sizeof(*plan->used));
	if (!plan->bodies || !plan->inlines || !plan->used)
		return error_origin(-ENOMEM);
	plan->n_bodies = job->n_bodies;
	for (uint32_t i = 0; i < job->n_bodies; i++) {
		plan->bodies[job->bodies[i].method] = i + 1;
		plan->inlines[i] = calloc(job->bodies[i].n_insns, 1);
		if (!plan->inlines[i])
			return error_origin(-ENOMEM);
	}
	return 0;
}

DEFINE_CLEANUP(struct plan *, plan_free)

/* One walk from the method itself over bodies that nobody has looked at yet */
static int plan_walk(struct plan *plan, const struct job_compile *job)
{
	_cleanup_(freep) uint8_t *visits = calloc(job->n_bodies, sizeof(*visits));
	_cleanup_(freep) uint32_t *sizes = calloc(job->n_bodies, sizeof(*sizes));
	_cleanup_(freep) uint32_t *loops = calloc(job->n_bodies, sizeof(*loops));
	_cleanup_(freep) uint32_t *callxs = calloc(job->n_bodies, sizeof(*callxs));
	struct walk walk = { .job = job, .plan = plan, .visits = visits, .sizes = sizes, .loops = loops, .callxs = callxs };

	if (!visits || !sizes || !loops || !callxs)
		return error_origin(-ENOMEM);
	for (uint32_t i = 0; i < job->n_bodies; i++)
		memset(plan->inlines[i], 0, job->bodies[i].n_insns);
	walk_body(&walk, 0, 0);
	plan->size = sizes[0];
	plan->n_loops = loops[0];
	plan->n_callx = callxs[0];
	return 0;
}

int plan_new(struct plan **ret, const struct job_compile *job)
{
	_cleanup_(plan_freep) struct plan *plan = NULL;
	int r;

	plan = calloc(1, sizeof(*plan));
	if (!plan)
		return error_origin(-ENOMEM);
	r = plan_allocate(plan, job);
	if (r)
		return error_fold(r);
	plan->guards = count_callx(&job->bodies[0]) <= PLAN_GUARDS_MAX;
	r = plan_walk(plan, job);
	if (!r && plan->guards && plan->n_callx > PLAN_GUARDS_MAX) {
		plan->guards = false;
		r = plan_walk(plan, job);
	}
	if (r)
		return error_fold(r);
	mark_used(plan, job, 0);
	*ret = TAKE_PTR(plan);
	return 0;
}

struct plan *plan_free(struct plan *plan)
{
	if (!plan)
		return NULL;
	for (uint32_t i = 0; i < plan->n_bodies; i++)
		free(plan->inlines[i]);
	free(plan->inlines);
	free(plan->bodies);
	free(plan->used);
	free(plan);
	return NULL;
}

int64_t plan_callee(const struct plan *plan, const struct job_compile *job, uint32_t body, uint32_t pc)
{
	return plan->inlines[body][pc] ? body_of_call(plan, job, body, pc) : -1;
}
