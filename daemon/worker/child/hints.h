/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What a profile says about a place of a body
 *
 * Profiles come from memory that any client may write, so they say only what is worth while: any answer here may make the code
 * slower, none may make it wrong. */

#include <stdbool.h>
#include <stdint.h>
#include "worker/job.h"

#define HINTS_HOT 4u		/* a call that is executed at least so many times in one activation is hot */
#define HINTS_VOTES 4u		/* a callx is guarded when at least one of so many executions is a vote for its target */

enum hints_heat {
	HINTS_NEVER,		/* not once in all activations that were counted */
	HINTS_UNKNOWN,		/* or nothing to speak of */
	HINTS_HOT_SITE,
};

/* Calls of the body that were counted; 0: nothing is known of it, or its level uses no profile. */
uint32_t hints_entries(const struct job_compile *job, uint32_t body);
/* What was counted at @pc, where something of @kind stands; NULL: nothing is known. */
const struct profile_count *hints_at(const struct job_compile *job, uint32_t body, enum profile_kind kind, uint32_t pc);
/* Of the call of any kind at @pc */
enum hints_heat hints_heat(const struct job_compile *job, uint32_t body, uint32_t pc);
/* The count of the callx at @pc if it is worth while to ask first whether it calls count->method, which exists; else NULL. */
const struct profile_count *hints_target(const struct job_compile *job, uint32_t body, uint32_t pc);
