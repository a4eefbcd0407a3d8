/* SPDX-License-Identifier: Apache-2.0 */
#include "util/base.h"
#include "worker/child/guard.h"
#include "worker/child/weights.h"

static LLVMBasicBlockRef add_block(const struct guard *guard, LLVMContextRef context)
{
	return LLVMAppendBasicBlockInContext(context, LLVMGetBasicBlockParent(LLVMGetInsertBlock(guard->builder)), "");
}

/* Of n calls m are left when each call of another took away one of the target's: it was called (n + m) / 2 times, if calls came
 * in any order. */
void guard_begin(struct guard *guard, LLVMBuilderRef builder, LLVMValueRef value, LLVMValueRef target,
		 const struct profile_count *count)
{
	LLVMContextRef context = LLVMGetTypeContext(LLVMTypeOf(value));
	const uint64_t n_target = ((uint64_t)count->n + count->m) / 2;
	LLVMBasicBlockRef usual;
	LLVMValueRef branch;

	*guard = (struct guard){ .builder = builder };
	usual = add_block(guard, context);
	guard->other = add_block(guard, context);
	guard->after = add_block(guard, context);
	branch = LLVMBuildCondBr(builder, LLVMBuildICmp(builder, LLVMIntEQ, value, target, ""), usual, guard->other);
	weights_branch(branch, n_target, count->n - n_target);
	LLVMPositionBuilderAtEnd(builder, usual);
}

static void guard_leave(struct guard *guard, unsigned int way, LLVMValueRef result)
{
	guard->ends[way] = LLVMGetInsertBlock(guard->builder);
	guard->results[way] = result;
	LLVMBuildBr(guard->builder, guard->after);
}

void guard_else(struct guard *guard, LLVMValueRef result)
{
	guard_leave(guard, 0, result);
	LLVMPositionBuilderAtEnd(guard->builder, guard->other);
}

LLVMValueRef guard_end(struct guard *guard, LLVMValueRef result)
{
	LLVMValueRef phi;

	guard_leave(guard, 1, result);
	LLVMPositionBuilderAtEnd(guard->builder, guard->after);
	phi = LLVMBuildPhi(guard->builder, LLVMTypeOf(result), "");
	LLVMAddIncoming(phi, guard->results, guard->ends, ARRAY_SIZE(guard->ends));
	return phi;
}
