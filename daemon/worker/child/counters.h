/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What optimized code counts at TIER1_INSTRUMENTED: the words of bytecode/profile.h, as tier 0 counts them */

#include <llvm-c/Core.h>
#include "bytecode/profile.h"

struct counters {
	LLVMBuilderRef builder;
	LLVMValueRef words;		/* address of word 0, a ptr */
};

/* Each adds what is counted at @site, at the builder's place: the entry's or a call's execution, a branch's, a callx that calls
 * @value (an i64). A branch is to go to the block that is returned wherever it would go to @target. */
void counters_execution(const struct counters *counters, const struct profile_site *site);
LLVMBasicBlockRef counters_branch(const struct counters *counters, const struct profile_site *site, LLVMBasicBlockRef target);
void counters_callx(const struct counters *counters, const struct profile_site *site, LLVMValueRef value);
/* Once @function is complete: LLVM may take it that no method reads or writes counters itself. Calls may. */
void counters_separate(LLVMValueRef function);
