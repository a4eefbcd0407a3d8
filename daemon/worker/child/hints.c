/* SPDX-License-Identifier: Apache-2.0 */
#include "bytecode/decode.h"
#include "util/base.h"
#include "worker/child/hints.h"

/* Counts lie in ascending order of pc behind that of the entry, so a place's is found by halving; one of another kind than what
 * stands there is not believed. */

uint32_t hints_entries(const struct job_compile *job, uint32_t body)
{
	const struct job_body *source = &job->bodies[body];

	if (!source->n_profile || job->level == TIER_LEVEL_READY_TO_RUN || job->level == TIER_LEVEL_TIER1_INSTRUMENTED)
		return 0;
	return source->profile[0].n;
}

const struct profile_count *hints_at(const struct job_compile *job, uint32_t body, enum profile_kind kind, uint32_t pc)
{
	const struct profile_count *counts = job->bodies[body].profile;
	uint32_t low = 1, high = job->bodies[body].n_profile;

	if (!hints_entries(job, body))
		return NULL;
	while (low < high) {
		const uint32_t middle = low + (high - low) / 2;

		if (counts[middle].pc < pc)
			low = middle + 1;
		else
			high = middle;
	}
	return low < job->bodies[body].n_profile && counts[low].pc == pc && counts[low].kind == kind ? &counts[low] : NULL;
}

enum hints_heat hints_heat(const struct job_compile *job, uint32_t body, uint32_t pc)
{
	const bool is_callx = insn_is_callx(&job->bodies[body].insns[pc]);
	const struct profile_count *count = hints_at(job, body, is_callx ? PROFILE_CALLX : PROFILE_CALL, pc);

	if (!count)
		return HINTS_UNKNOWN;
	if (!count->n)
		return HINTS_NEVER;
	return count->n / HINTS_HOT >= hints_entries(job, body) ? HINTS_HOT_SITE : HINTS_UNKNOWN;
}

const struct profile_count *hints_target(const struct job_compile *job, uint32_t body, uint32_t pc)
{
	const struct profile_count *count = hints_at(job, body, PROFILE_CALLX, pc);

	if (!count || !count->n || count->method == PROFILE_NO_METHOD || count->method >= job->n_methods)
		return NULL;
	return count->m >= count->n / HINTS_VOTES ? count : NULL;
}
