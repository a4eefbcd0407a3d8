/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "unit/worker/run.h"

/* A method under construction: r6 = a, r7 = b, r8 = where results go */
struct script {
	struct insn insns[1024];
	uint32_t n;
	uint32_t n_results;
};

_unused_ static void script_add(struct script *script, struct insn insn)
{
	assert_true(script->n < ARRAY_SIZE(script->insns));
	script->insns[script->n++] = insn;
}
