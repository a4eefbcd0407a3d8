/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What an instruction does to registers and to the program counter
 *
 * Both compilers ask this of every instruction, several times; so one table, indexed by the opcode, says all that the
 * opcode decides, and what is asked here is a few shifts of its row: no switch, no call. Verified instructions only; rows
 * of other opcodes, and of a lddw's second half, are 0: nothing read or written, goes on to the next slot. */

#include <stdbool.h>
#include <stdint.h>
#include "bytecode/insn.h"

enum insn_shape {
	INSN_READS_DST = 1u << 0,
	INSN_READS_SRC = 1u << 1,
	INSN_WRITES_DST = 1u << 2,
	INSN_JUMPS = 1u << 3,		/* has a jump target: JA, gotol, conditional */
	INSN_ENDS = 1u << 4,		/* never goes on to the next instruction: JA, gotol, EXIT */
	INSN_RETURNS = 1u << 5,		/* EXIT: reads r0 */
	INSN_CALLS = 1u << 6,		/* a call of any kind: reads r1..r5, writes r0..r5 */
	INSN_ATOMIC = 1u << 7,		/* imm says which registers */
};

extern const uint8_t insn_shapes[256];	/* enum insn_shape per opcode */

/* bit sets, bit i for ri */
struct insn_registers {
	uint16_t reads, writes;
};

/* inline helpers */
static inline unsigned int insn_shape(const struct insn *insn) { return insn_shapes[insn->code]; }

static inline bool insn_is_jump(const struct insn *insn) { return insn_shape(insn) & INSN_JUMPS; }
static inline bool insn_is_conditional(const struct insn *insn)
{
	return (insn_shape(insn) & (INSN_JUMPS | INSN_ENDS)) == INSN_JUMPS;
}

static inline struct insn_registers insn_atomic_registers(const struct insn *insn)
{
	const uint16_t dst = 1u << insn->dst, src = 1u << insn->src, r0 = 1u << INSN_R0;

	if (insn->imm == BPF_LOAD_ACQ)
		return (struct insn_registers){ .reads = src, .writes = dst };
	if (insn->imm == BPF_CMPXCHG)
		return (struct insn_registers){ .reads = dst | src | r0, .writes = r0 };
	return (struct insn_registers){ .reads = dst | src, .writes = insn->imm & BPF_FETCH ? src : 0 };
}

static inline struct insn_registers insn_registers(const struct insn *insn)
{
	const unsigned int shape = insn_shape(insn);
	struct insn_registers registers = {
		.reads = (shape & INSN_READS_DST) << insn->dst | (shape & INSN_READS_SRC) / INSN_READS_SRC << insn->src,
		.writes = (shape & INSN_WRITES_DST) / INSN_WRITES_DST << insn->dst,
	};

	if (shape & INSN_ATOMIC)
		return insn_atomic_registers(insn);
	if (shape & INSN_RETURNS)
		registers.reads |= 1u << INSN_R0;
	if (shape & INSN_CALLS) {
		registers.reads |= 0x1fu << INSN_R1;
		registers.writes |= 0x3fu << INSN_R0;
	}
	return registers;
}

static inline uint16_t insn_reads(const struct insn *insn) { return insn_registers(insn).reads; }
static inline uint16_t insn_writes(const struct insn *insn) { return insn_registers(insn).writes; }

/* index of the slot that the jump at @pc of a verified method leads to; only for jumps */
static inline uint32_t flow_jump_target(const struct insn *insns, uint32_t pc)
{
	const struct insn *insn = &insns[pc];

	return pc + 1 + (insn->code == (BPF_JMP32 | BPF_JA) ? insn->imm : insn->off);
}
