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
#define PLAN_GUARDS_MAX 256u	/* with more callx than this none asks for its usual target: LLVM's time grows faster than they */

struct plan {
	uint32_t *bodies;	/* per method of the module: its index in job->bodies + 1, or 0 */
	uint8_t **inlines;	/* per body: a byte per slot, 1: the call there is inlined */
	uint8_t *used;		/* per body: 1: it is the method itself, or inlined somewhere below it */
	uint32_t n_bodies;
	bool guards;		/* a callx asks first for whom it usually calls; not where there are too many */
	uint32_t size, n_loops, n_callx;	/* slots, backward jumps and callx of the method, with all that is inlined */
};

/* Returns 0 or -ENOMEM. */
int plan_new(struct plan **ret, const struct job_compile *job);
struct plan *plan_free(struct plan *plan);

/* What the profile says of the callx at @pc of @body if it is to ask first for count->method; else NULL. */
const struct profile_count *plan_target(const struct plan *plan, const struct job_compile *job, uint32_t body, uint32_t pc);
/* The body that the call at @pc of @body inlines, or -1: call through the entry cell. For a callx it is that of the method that
 * plan_target() names. */
int64_t plan_callee(const struct plan *plan, const struct job_compile *job, uint32_t body, uint32_t pc);
