/* SPDX-License-Identifier: Apache-2.0 */
#include "bytecode/decode.h"
#include "util/base.h"
#include "util/error.h"
#include "worker/child/plan.h"

/* A depth-first walk over the calls from the method itself. A body that is on the walk's path is never inlined (that
 * would be recursion), so the planned edges have no cycle; a body is finished, and its expanded size known, before its
 * caller decides. */

enum visit { VISIT_NEW, VISIT_OPEN, VISIT_DONE };

struct walk {
	const struct job_compile *job;
	struct plan *plan;
	uint8_t *visits;	/* enum visit per body */
	uint32_t *sizes;	/* expanded slots per body that is done */
	uint32_t *loops;	/* backward jumps, likewise */
};

static bool insn_is_direct_call(const struct insn *insn)
{
	return insn->code == (BPF_JMP | BPF_CALL) && insn->src == INSN_CALL_METHOD;
}

static int64_t body_of_call(const struct plan *plan, const struct insn *insn)
{
	return insn_is_direct_call(insn) ? (int64_t)plan->bodies[insn->imm] - 1 : -1;
}

static bool is_called_once(const struct walk *walk, const struct job_body *body, int64_t callee)
{
	uint32_t n = 0;

	for (uint32_t pc = 0; pc < body->n_insns; pc += insn_slots(&body->insns[pc]))
		n += body_of_call(walk->plan, &body->insns[pc]) == callee;
	return n == 1;
}

/* @size: the caller's so far, expanded */
static bool is_worth_it(const struct walk *walk, const struct job_body *body, uint32_t size, int64_t callee)
{
	uint32_t n = walk->sizes[callee];

	if (n > PLAN_ONCE_MAX || size + n > PLAN_TOTAL_MAX)
		return false;
	return n <= PLAN_CALLEE_MAX || is_called_once(walk, body, callee);
}

static void walk_body(struct walk *walk, uint32_t index, uint32_t depth)
{
	const struct job_body *body = &walk->job->bodies[index];
	uint32_t size = body->n_insns, loops = 0;

	walk->visits[index] = VISIT_OPEN;
	for (uint32_t pc = 0; pc < body->n_insns; pc += insn_slots(&body->insns[pc])) {
		int64_t callee = body_of_call(walk->plan, &body->insns[pc]);

		loops += insn_is_jump(&body->insns[pc]) && flow_jump_target(body->insns, pc) <= pc;
		if (callee < 0 || walk->visits[callee] == VISIT_OPEN || depth == PLAN_DEPTH_MAX)
			continue;
		if (walk->visits[callee] == VISIT_NEW)
			walk_body(walk, callee, depth + 1);
		if (!is_worth_it(walk, body, size, callee))
			continue;
		walk->plan->inlines[index][pc] = 1;
		size += walk->sizes[callee];
		loops += walk->loops[callee];
	}
	walk->sizes[index] = size;
	walk->loops[index] = loops;
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

int plan_new(struct plan **ret, const struct job_compile *job)
{
	_cleanup_(plan_freep) struct plan *plan = NULL;
	_cleanup_(freep) uint8_t *visits = NULL;
	_cleanup_(freep) uint32_t *sizes = NULL;
	_cleanup_(freep) uint32_t *loops = NULL;
	int r;

	plan = calloc(1, sizeof(*plan));
	visits = calloc(job->n_bodies, sizeof(*visits));
	sizes = calloc(job->n_bodies, sizeof(*sizes));
	loops = calloc(job->n_bodies, sizeof(*loops));
	if (!plan || !visits || !sizes || !loops)
		return error_origin(-ENOMEM);
	r = plan_allocate(plan, job);
	if (r)
		return error_fold(r);
	walk_body(&(struct walk){ .job = job, .plan = plan, .visits = visits, .sizes = sizes, .loops = loops }, 0, 0);
	plan->size = sizes[0];
	plan->n_loops = loops[0];
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
	return plan->inlines[body][pc] ? body_of_call(plan, &job->bodies[body].insns[pc]) : -1;
}
