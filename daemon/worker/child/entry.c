/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>
#include "util/base.h"
#include "worker/child/entry.h"

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

/* The entry block: allocas, arguments, and 0 in the registers that hold none */
void entry_lower(struct body *body)
{
	struct lower *lower = body->lower;
	LLVMValueRef frame;

	LLVMPositionBuilderAtEnd(body->builder, LLVMAppendBasicBlockInContext(lower->context, body->function, ""));
	frame = LLVMBuildAlloca(body->builder, LLVMArrayType(lower->i8, INSN_FRAME_SIZE), "");
	LLVMSetAlignment(frame, 16);
	for (unsigned int reg = 0; reg < INSN_R10; reg++) {
		body->integers[reg] = LLVMBuildAlloca(body->builder, lower->i64, "");
		body->pointers[reg] = LLVMBuildAlloca(body->builder, lower->ptr, "");
	}
	body->frame_end = body_offset(body, frame, body_constant(body, INSN_FRAME_SIZE));
	clear_frame(body);
	for (unsigned int reg = 0; reg < INSN_R10; reg++) {
		bool is_argument = reg >= INSN_R1 && reg < INSN_R1 + BODY_ARGUMENTS;
		LLVMValueRef value = is_argument ? LLVMGetParam(body->function, reg - INSN_R1) : body_constant(body, 0);

		body_set(body, reg, value);
		if (body->provenance->arguments >> reg & 1)
			LLVMBuildStore(body->builder, LLVMBuildIntToPtr(body->builder, value, lower->ptr, ""), body->pointers[reg]);
	}
}
