/* SPDX-License-Identifier: Apache-2.0 */
#include "worker/child/body.h"
#include "worker/child/outside.h"

/* -- Registers and values --- */
LLVMValueRef body_pointer(struct body *body, unsigned int reg)
{
	if (reg == INSN_R10)
		return body->frame_end;
	if (body->known >> reg & 1)
		return LLVMBuildLoad2(body->builder, body->lower->ptr, body->pointers[reg], "");
	return LLVMBuildIntToPtr(body->builder, LLVMBuildLoad2(body->builder, body->lower->i64, body->integers[reg], ""),
				 body->lower->ptr, "");
}

LLVMValueRef body_integer(struct body *body, unsigned int reg)
{
	if (body->known >> reg & 1)
		return LLVMBuildPtrToInt(body->builder, body_pointer(body, reg), body->lower->i64, "");
	return LLVMBuildLoad2(body->builder, body->lower->i64, body->integers[reg], "");
}

void body_set(struct body *body, unsigned int reg, LLVMValueRef value)
{
	LLVMBuildStore(body->builder, value, body->integers[reg]);
}

void body_set_pointer(struct body *body, unsigned int reg, LLVMValueRef pointer)
{
	LLVMBuildStore(body->builder, pointer, body->pointers[reg]);
	body_set(body, reg, LLVMBuildPtrToInt(body->builder, pointer, body->lower->i64, ""));
}

LLVMValueRef body_constant(struct body *body, int64_t value)
{
	return LLVMConstInt(body->lower->i64, value, 1);
}

LLVMTypeRef body_int_type(struct body *body, unsigned int bits)
{
	return LLVMIntTypeInContext(body->lower->context, bits);
}

LLVMValueRef body_operand(struct body *body, const struct insn *insn)
{
	return BPF_SRC(insn->code) == BPF_X ? body_integer(body, insn->src) : body_constant(body, insn->imm);
}

LLVMValueRef body_narrow(struct body *body, LLVMValueRef value, unsigned int bits)
{
	return bits == 64 ? value : LLVMBuildTrunc(body->builder, value, body_int_type(body, bits), "");
}

LLVMValueRef body_widen(struct body *body, LLVMValueRef value)
{
	return LLVMBuildZExtOrBitCast(body->builder, value, body->lower->i64, "");
}

LLVMValueRef body_offset(struct body *body, LLVMValueRef pointer, LLVMValueRef offset)
{
	return LLVMBuildGEP2(body->builder, body->lower->i8, pointer, &offset, 1, "");
}

const struct profile_site *body_site(struct body *body, uint32_t pc)
{
	if (!body->map || body->site == body->map->n_sites || body->map->sites[body->site].pc != pc)
		return NULL;
	return &body->map->sites[body->site++];
}

/* -- What lies outside the method --- */
LLVMValueRef body_load_cell(struct body *body, enum code_target target, uint32_t index)
{
	return outside_load_cell(body->builder, body->lower->module, body->lower->job, target, index);
}

LLVMValueRef body_address_of(struct body *body, enum code_target target, uint32_t index)
{
	LLVMValueRef pointer = outside_address(body->lower->module, body->lower->job, target, index);

	return body->lower->opaque ? slot_opaque(body->builder, pointer) : pointer;
}

LLVMValueRef body_words(struct body *body)
{
	const struct job_compile *job = body->lower->job;
	LLVMValueRef cells = outside_address(body->lower->module, job, CODE_TARGET_CELLS, 0);

	return body_offset(body, cells, body_constant(body, job->profile * (int64_t)sizeof(uint32_t)));
}
