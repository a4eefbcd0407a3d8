/* SPDX-License-Identifier: Apache-2.0 */
/* What an instruction does to registers and to the program counter. Verified instructions only, except where said. */
#include "bytecode/flow.h"

#define R(reg) ((uint16_t)(1u << (reg)))
#define R1_TO_R5 ((uint16_t)0x3e)

bool insn_is_conditional(const struct insn *insn)
{
	unsigned int class = BPF_CLASS(insn->code), op = BPF_OP(insn->code);

	return (class == BPF_JMP || class == BPF_JMP32) && op != BPF_JA && op != BPF_CALL && op != BPF_EXIT;
}

bool insn_is_jump(const struct insn *insn)
{
	return insn->code == (BPF_JMP | BPF_JA) || insn->code == (BPF_JMP32 | BPF_JA) || insn_is_conditional(insn);
}

uint32_t flow_jump_target(const struct insn *insns, uint32_t pc)
{
	const struct insn *insn = &insns[pc];

	return pc + 1 + (insn->code == (BPF_JMP32 | BPF_JA) ? insn->imm : insn->off);
}

static uint16_t alu_reads(const struct insn *insn)
{
	unsigned int op = BPF_OP(insn->code);
	uint16_t src = BPF_SRC(insn->code) == BPF_X ? R(insn->src) : 0;

	if (op == BPF_MOV)
		return src;
	if (op == BPF_END || op == BPF_NEG)
		return R(insn->dst);	/* the source bit of END is the byte order */
	return R(insn->dst) | src;
}

static uint16_t jump_reads(const struct insn *insn)
{
	switch (BPF_OP(insn->code)) {
	case BPF_JA:
		return 0;
	case BPF_EXIT:
		return R(INSN_R0);
	case BPF_CALL:
		return R1_TO_R5 | (insn_is_callx(insn) ? R(insn->dst) : 0);
	default:
		return R(insn->dst) | (BPF_SRC(insn->code) == BPF_X ? R(insn->src) : 0);
	}
}

static bool insn_is_atomic(const struct insn *insn)
{
	return BPF_CLASS(insn->code) == BPF_STX && BPF_MODE(insn->code) == BPF_ATOMIC;
}

uint16_t insn_reads(const struct insn *insn)
{
	switch (BPF_CLASS(insn->code)) {
	case BPF_ALU:
	case BPF_ALU64:
		return alu_reads(insn);
	case BPF_JMP:
	case BPF_JMP32:
		return jump_reads(insn);
	case BPF_LDX:
		return R(insn->src);
	case BPF_ST:
		return R(insn->dst);
	case BPF_STX:
		if (insn_is_atomic(insn) && insn->imm == BPF_LOAD_ACQ)
			return R(insn->src);
		if (insn_is_atomic(insn) && insn->imm == BPF_CMPXCHG)
			return R(insn->dst) | R(insn->src) | R(INSN_R0);
		return R(insn->dst) | R(insn->src);
	default:
		return 0;	/* lddw */
	}
}

static uint16_t atomic_writes(const struct insn *insn)
{
	if (insn->imm == BPF_LOAD_ACQ)
		return R(insn->dst);
	if (insn->imm == BPF_CMPXCHG)
		return R(INSN_R0);
	return insn->imm != BPF_STORE_REL && insn->imm & BPF_FETCH ? R(insn->src) : 0;
}

uint16_t insn_writes(const struct insn *insn)
{
	switch (BPF_CLASS(insn->code)) {
	case BPF_ALU:
	case BPF_ALU64:
	case BPF_LD:
	case BPF_LDX:
		return R(insn->dst);
	case BPF_JMP:
	case BPF_JMP32:
		return BPF_OP(insn->code) == BPF_CALL ? R(INSN_R0) | R1_TO_R5 : 0;
	case BPF_STX:
		return insn_is_atomic(insn) ? atomic_writes(insn) : 0;
	default:
		return 0;	/* ST */
	}
}
