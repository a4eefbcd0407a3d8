/* SPDX-License-Identifier: Apache-2.0 */
#include "bytecode/decode.h"

#define DST INSN_READS_DST
#define SRC INSN_READS_SRC
#define RESULT INSN_WRITES_DST

#define BOTH(op, shape_k, shape_x)                                                                                     \
	[BPF_ALU | BPF_K | (op)] = (shape_k), [BPF_ALU | BPF_X | (op)] = (shape_x),                                    \
	[BPF_ALU64 | BPF_K | (op)] = (shape_k), [BPF_ALU64 | BPF_X | (op)] = (shape_x)
#define ARITHMETIC(op) BOTH(op, DST | RESULT, DST | SRC | RESULT)
#define CONDITIONS(class, op)                                                                                          \
	[(class) | BPF_K | (op)] = DST | INSN_JUMPS, [(class) | BPF_X | (op)] = DST | SRC | INSN_JUMPS
#define CONDITION(op) CONDITIONS(BPF_JMP, op), CONDITIONS(BPF_JMP32, op)
#define MEMORY(size)                                                                                                   \
	[BPF_LDX | BPF_MEM | (size)] = SRC | RESULT, [BPF_LDX | BPF_MEMSX | (size)] = SRC | RESULT,                    \
	[BPF_ST | BPF_MEM | (size)] = DST, [BPF_STX | BPF_MEM | (size)] = DST | SRC,                                   \
	[BPF_STX | BPF_ATOMIC | (size)] = INSN_ATOMIC

const uint8_t insn_shapes[256] = {
	ARITHMETIC(BPF_ADD), ARITHMETIC(BPF_SUB), ARITHMETIC(BPF_MUL), ARITHMETIC(BPF_DIV), ARITHMETIC(BPF_MOD),
	ARITHMETIC(BPF_OR), ARITHMETIC(BPF_AND), ARITHMETIC(BPF_XOR), ARITHMETIC(BPF_LSH), ARITHMETIC(BPF_RSH),
	ARITHMETIC(BPF_ARSH),
	BOTH(BPF_MOV, RESULT, SRC | RESULT),
	BOTH(BPF_NEG, DST | RESULT, DST | RESULT),
	BOTH(BPF_END, DST | RESULT, DST | RESULT),	/* the source bit is the byte order */
	[BPF_JMP | BPF_JA] = INSN_JUMPS | INSN_ENDS,
	[BPF_JMP32 | BPF_JA] = INSN_JUMPS | INSN_ENDS,	/* gotol */
	CONDITION(BPF_JEQ), CONDITION(BPF_JGT), CONDITION(BPF_JGE), CONDITION(BPF_JSET), CONDITION(BPF_JNE),
	CONDITION(BPF_JSGT), CONDITION(BPF_JSGE), CONDITION(BPF_JLT), CONDITION(BPF_JLE), CONDITION(BPF_JSLT),
	CONDITION(BPF_JSLE),
	[BPF_JMP | BPF_CALL] = INSN_CALLS,
	[BPF_JMP | BPF_CALL | BPF_X] = INSN_CALLS | DST,
	[BPF_JMP | BPF_EXIT] = INSN_ENDS | INSN_RETURNS,
	[BPF_LDDW] = RESULT,
	MEMORY(BPF_W), MEMORY(BPF_H), MEMORY(BPF_B), MEMORY(BPF_DW),
};
