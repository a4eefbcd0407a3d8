/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* An indirect call that asks first whether it calls the method that it usually calls
 *
 *	     value == target?
 *	      │ yes, usually  │ no
 *	  the target's way   the call as it was
 *	      └───────┬───────┘
 *	            r0 */

#include <llvm-c/Core.h>
#include "bytecode/profile.h"

struct guard {
	LLVMBuilderRef builder;
	LLVMBasicBlockRef other, after, ends[2];
	LLVMValueRef results[2];
};

/* Asks, and goes to where the target's way begins. @value, @target: i64; @count is that of the callx. */
void guard_begin(struct guard *guard, LLVMBuilderRef builder, LLVMValueRef value, LLVMValueRef target,
		 const struct profile_count *count);
/* The target's way ends here with @result; goes to where the other begins. */
void guard_else(struct guard *guard, LLVMValueRef result);
/* The other ends here; goes on behind both, and returns the result of either. */
LLVMValueRef guard_end(struct guard *guard, LLVMValueRef result);
