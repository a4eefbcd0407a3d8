/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What lies outside the method, as LLVM names it: hidden external symbols, reached from rip, whose places the daemon fills in.
 * .data and .bss of another module lie where no such reference reaches; they are numbers. */

#include <llvm-c/Core.h>
#include "worker/job.h"

/* The address of what (@target, @index) names in the module of @job: a constant, a ptr */
LLVMValueRef outside_address(LLVMModuleRef module, const struct job_compile *job, enum code_target target, uint32_t index);
/* The value of an 8-byte cell, an i64. That of an entry cell is loaded behind all that came before. */
LLVMValueRef outside_load_cell(LLVMBuilderRef builder, LLVMModuleRef module, const struct job_compile *job,
			       enum code_target target, uint32_t index);
/* Whether @value is the symbol of @target; its index */
bool outside_is(LLVMValueRef value, enum code_target target, uint32_t *ret_index);
