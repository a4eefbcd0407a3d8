/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The x86-64 emitter: one function per shape of encoding, the opcode is the caller's
 *
 * A template reads "bytes left, instruction right":
 *
 *	x86_rr(e, X86_64, 0x01, src, dst);		// add dst, src
 *	x86_mem(e, X86_32, 0x8b, dst, base, 8);		// mov dst, [base+8]
 *
 * An opcode above 0xff is of the two-byte map: 0x0fb6 is movzx. REX bits for r8..r15 are added as needed. A legacy
 * prefix (0x66, 0xf0) is emitted by the caller, just before. */

#include "jit/emit.h"

enum x86_reg {
	X86_RAX, X86_RCX, X86_RDX, X86_RBX, X86_RSP, X86_RBP, X86_RSI, X86_RDI,
	X86_R8, X86_R9, X86_R10, X86_R11, X86_R12, X86_R13, X86_R14, X86_R15,
};

/* Values are REX prefixes: 0 emits one only for r8..r15, X86_8 emits one always (so that 4..7 mean spl..dil). */
enum x86_width { X86_32 = 0, X86_8 = 0x40, X86_64 = 0x48 };

/* condition codes: the low nibble of jcc, setcc, cmovcc */
enum x86_cc {
	X86_B = 0x2, X86_AE = 0x3, X86_E = 0x4, X86_NE = 0x5, X86_BE = 0x6, X86_A = 0x7,
	X86_L = 0xc, X86_GE = 0xd, X86_LE = 0xe, X86_G = 0xf,
};
static inline enum x86_cc x86_not(enum x86_cc cc) { return (enum x86_cc)(cc ^ 1); }

/* The width to give when @reg is a byte register: al..bl need no REX, spl..dil do. */
static inline enum x86_width x86_byte(enum x86_reg reg) { return reg < X86_RSP ? X86_32 : X86_8; }

/* op rm, reg (or op reg, rm, as the opcode says); @reg is the opcode's extension where it has one */
void x86_rr(struct emit *e, enum x86_width w, unsigned int op, unsigned int reg, enum x86_reg rm);
/* op reg, [base+disp]; @base is neither rsp nor r12. At most 8 bytes. */
void x86_mem(struct emit *e, enum x86_width w, unsigned int op, unsigned int reg, enum x86_reg base, int32_t disp);
/* op reg, [rip -> target]; @target must be in reach: x86_reaches() */
void x86_rip(struct emit *e, enum x86_width w, unsigned int op, unsigned int reg, uint64_t target);
/* op reg, rm, imm: @op8 where imm8 does, else @op32 */
void x86_rri(struct emit *e, enum x86_width w, uint8_t op8, uint8_t op32, unsigned int reg, enum x86_reg rm, int32_t imm);
/* op/ext rm, imm8 */
void x86_ri8(struct emit *e, enum x86_width w, uint8_t op, unsigned int ext, enum x86_reg rm, uint8_t imm);
/* opcodes that hold the register: 0x50 push, 0x58 pop, 0x0fc8 bswap */
void x86_plus(struct emit *e, enum x86_width w, unsigned int op, enum x86_reg reg);
/* mov reg, value: the shortest of xor, mov r32, mov sign-extended, movabs. Changes flags. */
void x86_mov_imm(struct emit *e, enum x86_reg reg, int64_t value);
/* mov to, from; nothing when they are the same */
void x86_mov(struct emit *e, enum x86_reg to, enum x86_reg from);
/* jmp target, and jcc target: rel8 where that reaches, else rel32 */
void x86_jmp(struct emit *e, uint64_t target);
void x86_jcc(struct emit *e, enum x86_cc cc, uint64_t target);
void x86_call(struct emit *e, uint64_t target);

/* A jump within a template, to what is not emitted yet: x86_short_jcc() .. x86_land(). Distance under 128 bytes. */
size_t x86_short_jcc(struct emit *e, enum x86_cc cc);
size_t x86_short_jmp(struct emit *e);
void x86_land(struct emit *e, size_t at);

/* Whether any instruction emitted now reaches @target from rip; 16 bytes of margin for the instruction itself. */
static inline bool x86_reaches(const struct emit *e, uint64_t target)
{
	const int64_t distance = (int64_t)(target - emit_here(e));

	return distance >= INT32_MIN + 16 && distance <= INT32_MAX - 16;
}
