/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>
#include "util/base.h"
#include "util/error.h"
#include "worker/child/access.h"
#include "worker/child/arith.h"
#include "worker/child/call.h"
#include "worker/child/entry.h"
#include "worker/child/hints.h"
#include "worker/child/lower.h"
#include "worker/child/object.h"
#include "worker/child/weights.h"

/* One body at a time, one instruction after the other
 *
 *   registers  r0..r9: an i64 alloca each, and a ptr alloca each that holds the same value as long as the register keeps its
 *              base. While it does, reads go to the pointer; the integer copy is for places where the paths disagree.
 *   frame      one 512-byte alloca per activation, inlined or not; r10 points to its end. What the method may read of it is
 *              cleared first: a byte that nobody wrote has one value, whichever, and a jump that asks for it goes somewhere.
 *   memory     alignment 1: the bytecode promises none, and the processor asks for none. Read-modify-write is natural.
 *   calls      through the callee's entry cell, read anew by every call, through the import's cell, or through the register's
 *              value. r1..r5 are 0 afterwards, as at tier 0.
 *   slots      a callx whose register was loaded just before goes through the slot's call cell (slots.c).
 *   profile    branches have weights, and a callx may ask first for whom it usually calls (guard.h); or all of it is counted.
 *   outside    cells, addresses and segments are hidden external symbols: pc-relative, filled in by the daemon (outside.c).
 *   OSR        the registers come from memory, the frame is the running activation's, and the entry leads to the loop (entry.c). */

/* -- Instructions -------------------------------------------------------------------------------------------------- */
static void lower_lddw(struct body *body, const struct insn *insn)
{
	uint32_t index = insn[1].imm;
	LLVMValueRef value;

	switch (insn->src) {
	case INSN_REF_METHOD:
		value = LLVMBuildPtrToInt(body->builder, body_address_of(body, CODE_TARGET_METHOD, index), body->lower->i64, "");
		body_set(body, insn->dst, LLVMBuildAdd(body->builder, value, body_constant(body, insn->imm), ""));
		return;
	case INSN_REF_IMPORT:
		value = body_load_cell(body, CODE_TARGET_IMPORT, index);
		body_set(body, insn->dst, LLVMBuildAdd(body->builder, value, body_constant(body, insn->imm), ""));
		return;
	case INSN_REF_RODATA:
		value = body_address_of(body, CODE_TARGET_RODATA, 0);
		break;
	case INSN_REF_DATA:
		value = body_address_of(body, CODE_TARGET_DATA, 0);
		break;
	case INSN_REF_BSS:
		value = body_address_of(body, CODE_TARGET_BSS, 0);
		break;
	default:
		body_set(body, insn->dst, body_constant(body, insn_imm64(insn)));
		return;
	}
	body_set_pointer(body, insn->dst, body_offset(body, value, body_constant(body, insn->imm)));
}


/* MOV, ADD or SUB whose result keeps a base: on pointers, the integer operand becomes an offset */
static LLVMValueRef pointer_result(struct body *body, const struct insn *insn)
{
	bool dst_is_base = body->known >> insn->dst & 1;
	LLVMValueRef offset;

	if (BPF_OP(insn->code) == BPF_MOV)
		return body_pointer(body, insn->src);
	if (!dst_is_base)
		return body_offset(body, body_pointer(body, insn->src), body_integer(body, insn->dst));
	offset = body_operand(body, insn);
	if (BPF_OP(insn->code) == BPF_SUB)
		offset = LLVMBuildNeg(body->builder, offset, "");
	return body_offset(body, body_pointer(body, insn->dst), offset);
}

static void lower_alu(struct body *body, const struct insn *insn)
{
	bool is_end = BPF_OP(insn->code) == BPF_END;
	unsigned int bits = BPF_CLASS(insn->code) == BPF_ALU64 || is_end ? 64 : 32;
	LLVMValueRef a, b, result;

	if (provenance_after(body->known, insn) >> insn->dst & 1) {
		body_set_pointer(body, insn->dst, pointer_result(body, insn));
		return;
	}
	a = body_narrow(body, body_integer(body, insn->dst), bits);
	b = is_end ? a : body_narrow(body, body_operand(body, insn), bits);
	result = arith_alu(body->builder, insn, a, b);
	body_set(body, insn->dst, body_widen(body, result));
}

static void branch(struct body *body, uint32_t pc, LLVMValueRef condition, LLVMBasicBlockRef target)
{
	const struct profile_count *count = hints_at(body->lower->job, body->index, PROFILE_BRANCH, pc);
	const struct profile_site *site = body_site(body, pc);
	LLVMValueRef insn;

	if (site)
		target = counters_branch(&body->counters, site, target);
	insn = LLVMBuildCondBr(body->builder, condition, target, body->blocks[pc + 1]);
	if (count && count->n)
		weights_branch(insn, count->m, count->n - count->m);
}

static void lower_jump(struct body *body, const struct insn *insn, uint32_t pc)
{
	LLVMBasicBlockRef target = body->blocks[flow_jump_target(body->insns, pc)];
	unsigned int bits = BPF_CLASS(insn->code) == BPF_JMP ? 64 : 32;
	LLVMValueRef a, b;

	if (!insn_is_conditional(insn)) {
		LLVMBuildBr(body->builder, target);
		return;
	}
	a = body_narrow(body, body_integer(body, insn->dst), bits);
	b = body_narrow(body, body_operand(body, insn), bits);
	branch(body, pc, arith_condition(body->builder, insn, a, b), target);
}

static void lower_insn(struct body *body, const struct insn *insn, uint32_t pc)
{
	switch (BPF_CLASS(insn->code)) {
	case BPF_LD:
		lower_lddw(body, insn);
		return;
	case BPF_LDX:
		access_load(body, insn, body->flow->marks[pc] & FLOW_SLOT_LOAD);
		return;
	case BPF_ST:
		access_store(body, insn);
		return;
	case BPF_STX:
		if (BPF_MODE(insn->code) == BPF_ATOMIC)
			access_atomic(body, insn);
		else
			access_store(body, insn);
		return;
	case BPF_ALU:
	case BPF_ALU64:
		lower_alu(body, insn);
		return;
	default:
		if (insn_is_jump(insn))
			lower_jump(body, insn, pc);
		else if (BPF_OP(insn->code) == BPF_EXIT)
			LLVMBuildRet(body->builder, body_integer(body, INSN_R0));
		else
			call_lower(body, insn, pc);
	}
}

/* -- Bodies -------------------------------------------------------------------------------------------------------- */

/* A block begins wherever a jump leads, and after every jump and exit. */
static void body_blocks(struct body *body)
{
	LLVMContextRef context = body->lower->context;

	for (uint32_t pc = 0; pc < body->n_insns; pc += insn_slots(&body->insns[pc])) {
		const struct insn *insn = &body->insns[pc];
		bool is_jump = insn_is_jump(insn);
		uint32_t target = is_jump ? flow_jump_target(body->insns, pc) : 0;

		if (is_jump && !body->blocks[target])
			body->blocks[target] = LLVMAppendBasicBlockInContext(context, body->function, "");
		if ((is_jump || insn->code == (BPF_JMP | BPF_EXIT)) && pc + 1 < body->n_insns && !body->blocks[pc + 1])
			body->blocks[pc + 1] = LLVMAppendBasicBlockInContext(context, body->function, "");
	}
}

/* There is one body when code counts, and its words are cells that exist (codegen.c). */
static void begin_counting(struct body *body)
{
	if (!body->map)
		return;
	body->counters = (struct counters){ .builder = body->builder, .words = body_words(body) };
	counters_execution(&body->counters, body_site(body, 0));
}

/* Only what the loop's head leads to is ever reached; the rest has no way in, and the optimizer drops it. */
static void enter_loop(struct body *body)
{
	if (!body->blocks[0])
		body->blocks[0] = LLVMAppendBasicBlockInContext(body->lower->context, body->function, "");
	LLVMBuildBr(body->builder, body->blocks[body->lower->job->osr_pc]);
}

static void body_lower(struct body *body)
{
	entry_lower(body);
	begin_counting(body);
	body_blocks(body);
	if (body->is_osr)
		enter_loop(body);
	for (uint32_t pc = 0; pc < body->n_insns; pc += insn_slots(&body->insns[pc])) {
		if (body->blocks[pc]) {
			if (!LLVMGetBasicBlockTerminator(LLVMGetInsertBlock(body->builder)))
				LLVMBuildBr(body->builder, body->blocks[pc]);
			LLVMMoveBasicBlockAfter(body->blocks[pc], LLVMGetInsertBlock(body->builder));
			LLVMPositionBuilderAtEnd(body->builder, body->blocks[pc]);
		}
		body->known = body->provenance->before[pc];
		lower_insn(body, &body->insns[pc], pc);
	}
}

static bool is_osr(const struct lower *lower, uint32_t index)
{
	return index == 0 && lower->job->level == TIER_LEVEL_OSR;
}

static bool is_loop_head(const struct flow *flow, uint32_t pc)
{
	return pc < flow->n_insns && flow->marks[pc] & FLOW_BACK_TARGET;
}

DEFINE_CLEANUP(struct flow *, flow_free)

static int lower_body(struct lower *lower, uint32_t index)
{
	_cleanup_(freep) struct profile_map *map = NULL;
	_cleanup_(freep) struct provenance *provenance = NULL;
	_cleanup_(flow_freep) struct flow *flow = NULL;
	_cleanup_(freep) LLVMBasicBlockRef *blocks = NULL;
	const struct job_body *source = &lower->job->bodies[index];
	struct body body = { .lower = lower, .builder = lower->builder, .index = index, .insns = source->insns,
			     .n_insns = source->n_insns, .function = lower->functions[index], .is_osr = is_osr(lower, index) };
	int r;

	r = provenance_new(&provenance, source->insns, source->n_insns);
	if (r)
		return error_fold(r);
	r = flow_new(&flow, source->insns, source->n_insns);
	if (r)
		return error_fold(r);
	if (body.is_osr && !is_loop_head(flow, lower->job->osr_pc))
		return LOWER_E_NO_LOOP;
	blocks = calloc(source->n_insns, sizeof(*blocks));
	if (!blocks)
		return error_origin(-ENOMEM);
	if (lower->job->level == TIER_LEVEL_TIER1_INSTRUMENTED) {
		r = profile_map_new(&map, source->insns, source->n_insns);
		if (r)
			return error_fold(r);
	}
	body.map = map;
	body.provenance = provenance;
	body.flow = flow;
	body.slot_range = slot_range_of(flow, source->insns);
	body.blocks = blocks;
	body_lower(&body);
	if (map)
		counters_separate(body.function);
	return 0;
}

static void add_flag(struct lower *lower, LLVMValueRef function, const char *name)
{
	unsigned int kind = LLVMGetEnumAttributeKindForName(name, strlen(name));

	LLVMAddAttributeAtIndex(function, LLVMAttributeFunctionIndex, LLVMCreateEnumAttribute(lower->context, kind, 0));
}

static void add_string(struct lower *lower, LLVMValueRef function, const char *name, const char *value)
{
	LLVMAddAttributeAtIndex(function, LLVMAttributeFunctionIndex,
				LLVMCreateStringAttribute(lower->context, name, strlen(name), value, strlen(value)));
}

/* No mustprogress: a method may loop forever. No builtins: there is no library to call, so a loop that clears memory
 * stays a loop. Address 0 is like any other: LLVM keeps what goes through it, so that it faults as at tier 0. */
static LLVMValueRef add_function(struct lower *lower, uint32_t index)
{
	char name[OBJECT_SYMBOL_MAX] = OBJECT_ENTRY;
	LLVMValueRef function;

	if (index)
		snprintf(name, sizeof(name), "inlined.%u", index);
	function = LLVMAddFunction(lower->module, name, is_osr(lower, index) ? lower->osr_type : lower->function_type);
	add_flag(lower, function, "nounwind");
	add_flag(lower, function, "null_pointer_is_valid");
	add_string(lower, function, "frame-pointer", "all");
	add_string(lower, function, "no-builtins", "");
	if (hints_entries(lower->job, index))
		weights_entry(function, hints_entries(lower->job, index));
	if (index) {
		add_flag(lower, function, "alwaysinline");
		LLVMSetLinkage(function, LLVMInternalLinkage);
	}
	return function;
}

static int lower_bodies(struct lower *lower)
{
	int r;

	for (uint32_t i = 0; i < lower->job->n_bodies; i++)
		if (lower->plan->used[i])
			lower->functions[i] = add_function(lower, i);
	for (uint32_t i = 0; i < lower->job->n_bodies; i++) {
		if (!lower->functions[i])
			continue;
		r = lower_body(lower, i);
		if (r)
			return r < 0 ? error_fold(r) : r;
	}
	return 0;
}

int lower_job(LLVMModuleRef module, const struct job_compile *job, const struct plan *plan, bool opaque)
{
	LLVMContextRef context = LLVMGetModuleContext(module);
	struct lower lower = {
		.module = module,
		.context = context,
		.job = job,
		.plan = plan,
		.opaque = opaque,
		.i8 = LLVMInt8TypeInContext(context),
		.i64 = LLVMInt64TypeInContext(context),
		.ptr = LLVMPointerTypeInContext(context, 0),
	};
	LLVMTypeRef arguments[BODY_ARGUMENTS] = { lower.i64, lower.i64, lower.i64, lower.i64, lower.i64 };
	LLVMTypeRef osr_arguments[] = { lower.ptr, lower.ptr };
	int r;

	lower.function_type = LLVMFunctionType(lower.i64, arguments, BODY_ARGUMENTS, 0);
	lower.osr_type = LLVMFunctionType(lower.i64, osr_arguments, ARRAY_SIZE(osr_arguments), 0);
	lower.functions = calloc(job->n_bodies, sizeof(*lower.functions));
	if (!lower.functions)
		return error_origin(-ENOMEM);
	lower.builder = LLVMCreateBuilderInContext(context);
	r = lower_bodies(&lower);
	LLVMDisposeBuilder(lower.builder);
	free(lower.functions);
	return r < 0 ? error_fold(r) : r;
}
