/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/child/call.h"

#define CALLS_IN_BLOCK 128u

static LLVMValueRef callee_of(struct body *body, const struct insn *insn, uint32_t pc)
{
	int64_t inlined = plan_callee(body->lower->plan, body->lower->job, body->index, pc);
	LLVMValueRef target;

	if (inlined >= 0)
		return body->lower->functions[inlined];
	if (insn_is_callx(insn))
		target = body_integer(body, insn->dst);
	else if (insn->src == INSN_CALL_METHOD)
		target = body_load_cell(body, CODE_TARGET_ENTRY, insn->imm);
	else
		target = body_load_cell(body, CODE_TARGET_IMPORT, insn->imm);
	return LLVMBuildIntToPtr(body->builder, target, body->lower->ptr, "");
}

static LLVMValueRef call_slot(struct body *body, const struct insn *insn, LLVMValueRef arguments[BODY_ARGUMENTS])
{
	const struct job_compile *job = body->lower->job;

	return slot_call_lower(&(struct slot_call){
		.job = job,
		.builder = body->builder,
		.rodata = body_address_of(body, CODE_TARGET_RODATA, 0, job->n_rodata),
		.base = body->slot,
		.offset = body->slot_offset,
		.range = body->slot_range,
		.value = body_integer(body, insn->dst),
		.arguments = arguments,
		.n_arguments = BODY_ARGUMENTS,
	});
}

/* For the code generator, calls in a row take time that grows with the square of those in one block. So a block ends after some,
 * by a branch that is never taken: LLVM does not know that the number is not 0, and takes no two of them for one. */
static void end_block(struct body *body)
{
	LLVMContextRef context = body->lower->context;
	LLVMBasicBlockRef next = LLVMAppendBasicBlockInContext(context, body->function, "");
	LLVMBasicBlockRef never = LLVMAppendBasicBlockInContext(context, body->function, "");
	LLVMValueRef number = LLVMConstIntToPtr(body_constant(body, body->n_calls), body->lower->ptr);

	LLVMBuildCondBr(body->builder, LLVMBuildIsNull(body->builder, slot_opaque(body->builder, number), ""), never, next);
	LLVMPositionBuilderAtEnd(body->builder, never);
	LLVMBuildRet(body->builder, body_constant(body, 0));
	LLVMPositionBuilderAtEnd(body->builder, next);
}

void call_lower(struct body *body, const struct insn *insn, uint32_t pc)
{
	LLVMValueRef arguments[BODY_ARGUMENTS], result;

	if (++body->n_calls % CALLS_IN_BLOCK == 0)
		end_block(body);

	for (unsigned int i = 0; i < BODY_ARGUMENTS; i++)
		arguments[i] = body_integer(body, INSN_R1 + i);
	if (body->flow->marks[pc] & FLOW_SLOT_CALL && body->lower->job->n_slots)
		result = call_slot(body, insn, arguments);
	else
		result = LLVMBuildCall2(body->builder, body->lower->function_type, callee_of(body, insn, pc), arguments, BODY_ARGUMENTS, "");
	body_set(body, INSN_R0, result);
	for (unsigned int i = 0; i < BODY_ARGUMENTS; i++)
		body_set(body, INSN_R1 + i, body_constant(body, 0));
}
