/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/child/call.h"
#include "worker/child/guard.h"

#define CALLS_IN_BLOCK 128u

static LLVMValueRef call_address(struct body *body, LLVMValueRef target, LLVMValueRef arguments[BODY_ARGUMENTS])
{
	target = LLVMBuildIntToPtr(body->builder, target, body->lower->ptr, "");
	return LLVMBuildCall2(body->builder, body->lower->function_type, target, arguments, BODY_ARGUMENTS, "");
}

/* What the plan put here, or the method through its entry cell */
static LLVMValueRef call_method(struct body *body, uint32_t method, uint32_t pc, LLVMValueRef arguments[BODY_ARGUMENTS])
{
	const struct lower *lower = body->lower;
	int64_t inlined = plan_callee(lower->plan, lower->job, body->index, pc);

	if (inlined < 0)
		return call_address(body, body_load_cell(body, CODE_TARGET_ENTRY, method), arguments);
	return LLVMBuildCall2(body->builder, lower->function_type, lower->functions[inlined], arguments, BODY_ARGUMENTS, "");
}

static LLVMValueRef call_slot(struct body *body, const struct insn *insn, LLVMValueRef arguments[BODY_ARGUMENTS])
{
	const struct job_compile *job = body->lower->job;

	return slot_call_lower(&(struct slot_call){
		.job = job,
		.builder = body->builder,
		.rodata = body_address_of(body, CODE_TARGET_RODATA, 0),
		.base = body->slot,
		.offset = body->slot_offset,
		.range = body->slot_range,
		.value = body_integer(body, insn->dst),
		.arguments = arguments,
		.n_arguments = BODY_ARGUMENTS,
	});
}

static LLVMValueRef call_indirect(struct body *body, const struct insn *insn, uint32_t pc, LLVMValueRef arguments[BODY_ARGUMENTS])
{
	if (body->flow->marks[pc] & FLOW_SLOT_CALL && body->lower->job->n_slots)
		return call_slot(body, insn, arguments);
	return call_address(body, body_integer(body, insn->dst), arguments);
}

/* A callx: with a profile that knows whom it usually calls, that one is called directly, or is here. */
static LLVMValueRef call_register(struct body *body, const struct insn *insn, uint32_t pc, LLVMValueRef arguments[BODY_ARGUMENTS])
{
	const struct profile_count *count = plan_target(body->lower->plan, body->lower->job, body->index, pc);
	struct guard guard;
	LLVMValueRef target;

	if (!count)
		return call_indirect(body, insn, pc, arguments);
	target = body_address_of(body, CODE_TARGET_METHOD, count->method);
	target = LLVMBuildPtrToInt(body->builder, target, body->lower->i64, "");
	guard_begin(&guard, body->builder, body_integer(body, insn->dst), target, count);
	guard_else(&guard, call_method(body, count->method, pc, arguments));
	return guard_end(&guard, call_indirect(body, insn, pc, arguments));
}

static void count_call(struct body *body, const struct insn *insn, uint32_t pc)
{
	const struct profile_site *site = body_site(body, pc);

	if (site && site->kind == PROFILE_CALLX)
		counters_callx(&body->counters, site, body_integer(body, insn->dst));
	else if (site)
		counters_execution(&body->counters, site);
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
	count_call(body, insn, pc);
	for (unsigned int i = 0; i < BODY_ARGUMENTS; i++)
		arguments[i] = body_integer(body, INSN_R1 + i);
	if (insn_is_callx(insn))
		result = call_register(body, insn, pc, arguments);
	else if (insn->src == INSN_CALL_METHOD)
		result = call_method(body, insn->imm, pc, arguments);
	else
		result = call_address(body, body_load_cell(body, CODE_TARGET_IMPORT, insn->imm), arguments);
	body_set(body, INSN_R0, result);
	for (unsigned int i = 0; i < BODY_ARGUMENTS; i++)
		body_set(body, INSN_R1 + i, body_constant(body, 0));
}
