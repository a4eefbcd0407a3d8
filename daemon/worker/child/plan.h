/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Who is inlined into whom: decided on bytecode, before LLVM sees anything
 *
 * A direct call is inlined when its callee came with the job, is not being expanded already (no recursion), is small
 * *after its own calls were expanded*, and its caller stays below a total. With a profile, a call that is hot may inline more,
 * one that was never executed inlines nothing, and a callx counts as a call of the method that it usually calls. What is
 * planned is what happens: LLVM is told to inline exactly those, and every other call goes through the callee's entry cell, so
 * that it is counted and follows the callee's next versions. Instrumented code inlines nothing: each method counts its own. */

#include <stdbool.h>
#include <stdint.h>
#include "worker/job.h"

#define PLAN_CALLEE_MAX 80u	/* instruction slots of a callee, with all that is inlined into it */
#define PLAN_ONCE_MAX JOB_CANDIDATE_INSNS_MAX	/* the same of a callee that its caller calls in one place only */
#define PLAN_HOT_MAX 640u	/* and where a profile says that the call is hot (hints.h) */
#define PLAN_TOTAL_MAX 4000u	/* and of whoever it is inlined into */
#define PLAN_DEPTH_MAX 8u

struct plan {
	uint32_t *bodies;	/* per method of the module: its index in job->bodies + 1, or 0 */
	uint8_t **inlines;	/* per body: a byte per slot, 1: the call there is inlined */
	uint8_t *used;		/* per body: 1: it is the method itself, or inlined somewhere below it */
	uint32_t n_bodies;
	uint32_t size, n_loops;	/* instruction slots and backward jumps of the method, with all that is inlined */
};

/* Returns 0 or -ENOMEM. */
int plan_new(struct plan **ret, const struct job_compile *job);
struct plan *plan_free(struct plan *plan);

/* The body that the call at @pc of @body inlines, or -1: call through the entry cell. For a callx it is that of the method that
 * hints_target() names. */
int64_t plan_callee(const struct plan *plan, const struct job_compile *job, uint32_t body, uint32_t pc);
