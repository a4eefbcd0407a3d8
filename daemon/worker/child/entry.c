/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>
#include "util/base.h"
#include "worker/child/entry.h"

/* -- From the start ------------------------------------------------------------------------------------------------ */

/* How far below r10 the method gets: by constant offsets, from r10 itself or from a copy of it where that is made. */
static uint32_t frame_reach(const struct insn *insns, uint32_t n_insns)
{
	int32_t low = 0;

	for (uint32_t pc = 0; pc < n_insns; pc += insn_slots(&insns[pc])) {
		const struct insn *insn = &insns[pc];
		unsigned int class = BPF_CLASS(insn->code);

		if (!(insn_registers(insn).reads >> INSN_R10 & 1))
			continue;
		if (class == BPF_LDX || class == BPF_ST || (class == BPF_STX && insn->src != INSN_R10))
			low = MIN(low, insn->off);
		else if (insn->code == (BPF_ALU64 | BPF_MOV | BPF_X) && insn[1].code == (BPF_ALU64 | BPF_ADD | BPF_K)
			 && insn[1].dst == insn->dst && insn[1].imm < 0)
			low = MIN(low, insn[1].imm);
		else
			return INSN_FRAME_SIZE;
	}
	return MIN((uint32_t)-low, INSN_FRAME_SIZE);
}

/* Never a call of memset(), which is not there. SROA and DSE take away what is written before it is read. */
static void clear_frame(struct body *body)
{
	struct lower *lower = body->lower;
	uint32_t n = frame_reach(body->insns, body->n_insns);
	LLVMTypeRef types[] = { lower->ptr, lower->i64 };
	unsigned int id = LLVMLookupIntrinsicID("llvm.memset.inline", strlen("llvm.memset.inline"));
	LLVMValueRef clear = LLVMGetIntrinsicDeclaration(lower->module, id, types, ARRAY_SIZE(types));
	LLVMValueRef arguments[] = {
		body_offset(body, body->frame_end, body_constant(body, -(int64_t)n)), LLVMConstNull(lower->i8), body_constant(body, n),
		LLVMConstNull(LLVMInt1TypeInContext(lower->context)),
	};

	if (n)
		LLVMBuildCall2(body->builder, LLVMGlobalGetValueType(clear), clear, arguments, ARRAY_SIZE(arguments), "");
}

static void make_registers(struct body *body)
{
	for (unsigned int reg = 0; reg < INSN_R10; reg++) {
		body->integers[reg] = LLVMBuildAlloca(body->builder, body->lower->i64, "");
		body->pointers[reg] = LLVMBuildAlloca(body->builder, body->lower->ptr, "");
	}
}

static void make_frame(struct body *body)
{
	LLVMValueRef frame = LLVMBuildAlloca(body->builder, LLVMArrayType(body->lower->i8, INSN_FRAME_SIZE), "");

	LLVMSetAlignment(frame, 16);
	body->frame_end = body_offset(body, frame, body_constant(body, INSN_FRAME_SIZE));
	clear_frame(body);
}

/* @is_base: it keeps its base at the place that the entry leads to. */
static void set_first(struct body *body, unsigned int reg, LLVMValueRef value, bool is_base)
{
	body_set(body, reg, value);
	if (is_base)
		LLVMBuildStore(body->builder, LLVMBuildIntToPtr(body->builder, value, body->lower->ptr, ""), body->pointers[reg]);
}

/* The arguments, and 0 in the registers that hold none */
static void take_arguments(struct body *body)
{
	for (unsigned int reg = 0; reg < INSN_R10; reg++) {
		bool is_argument = reg >= INSN_R1 && reg < INSN_R1 + BODY_ARGUMENTS;
		LLVMValueRef value = is_argument ? LLVMGetParam(body->function, reg - INSN_R1) : body_constant(body, 0);

		set_first(body, reg, value, body->provenance->arguments >> reg & 1);
	}
}

/* -- A loop that is running already -------------------------------------------------------------------------------- */
static LLVMValueRef load_register(struct body *body, unsigned int reg)
{
	LLVMValueRef place = body_offset(body, LLVMGetParam(body->function, 0), body_constant(body, 8 * reg)), load;

	load = LLVMBuildLoad2(body->builder, body->lower->i64, place, "");
	LLVMSetAlignment(load, 8);
	return load;
}

/* Its frame is noalias when no address in it can be anywhere but in r10: what a call does, or a store elsewhere, leaves it alone
 * then, as it would an alloca. */
static void take_over_frame(struct body *body)
{
	const unsigned int noalias = LLVMGetEnumAttributeKindForName("noalias", strlen("noalias"));

	body->frame_end = LLVMGetParam(body->function, 1);
	if (body->flow->frame_low > -(int32_t)INSN_FRAME_SIZE)
		LLVMAddAttributeAtIndex(body->function, 2, LLVMCreateEnumAttribute(body->lower->context, noalias, 0));
}

/* What a register points to came from somewhere that LLVM has not seen: any memory, the frame as well. That is less than it knows
 * of a body from its start on, so whatever holds there holds here. */
static void take_over_registers(struct body *body, uint32_t pc)
{
	for (unsigned int reg = 0; reg < INSN_R10; reg++)
		set_first(body, reg, load_register(body, reg), body->provenance->before[pc] >> reg & 1);
}

void entry_lower(struct body *body)
{
	LLVMPositionBuilderAtEnd(body->builder, LLVMAppendBasicBlockInContext(body->lower->context, body->function, ""));
	make_registers(body);
	if (body->is_osr) {
		take_over_frame(body);
		take_over_registers(body, body->lower->job->osr_pc);
	} else {
		make_frame(body);
		take_arguments(body);
	}
}
