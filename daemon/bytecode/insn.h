/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* BPF instructions as tierd passes them around (RFC 9669)
 *
 * An instruction is its 8-byte encoding, unchanged. What the ELF file left to relocations is *normalized* by the
 * loader into the src_reg field, so that code after the loader never sees a symbol:
 *
 *   lddw  src_reg = enum insn_ref     imm       = low half of the addend (a byte offset, two's complement)
 *                                     next.imm  = index of what is referred to (method, import); 0 for segments
 *   call  src_reg = INSN_CALL_*       imm       = method index, import index or helper number
 *
 * lddw with INSN_REF_NONE keeps its 64-bit immediate. Everything else is as clang wrote it. */

#include <stdint.h>

struct insn {
	uint8_t code;
	uint8_t dst : 4;
	uint8_t src : 4;
	int16_t off;
	int32_t imm;
};
_Static_assert(sizeof(struct insn) == 8, "a BPF instruction is 8 bytes");

/* classes: code & 7 */
#define BPF_CLASS(code) ((code) & 0x07)
#define BPF_LD 0x00
#define BPF_LDX 0x01
#define BPF_ST 0x02
#define BPF_STX 0x03
#define BPF_ALU 0x04
#define BPF_JMP 0x05
#define BPF_JMP32 0x06
#define BPF_ALU64 0x07

/* operand source of ALU and JMP */
#define BPF_SRC(code) ((code) & 0x08)
#define BPF_K 0x00
#define BPF_X 0x08

/* ALU and JMP operations: code & 0xf0 */
#define BPF_OP(code) ((code) & 0xf0)
#define BPF_ADD 0x00
#define BPF_SUB 0x10
#define BPF_MUL 0x20
#define BPF_DIV 0x30
#define BPF_OR 0x40
#define BPF_AND 0x50
#define BPF_LSH 0x60
#define BPF_RSH 0x70
#define BPF_NEG 0x80
#define BPF_MOD 0x90
#define BPF_XOR 0xa0
#define BPF_MOV 0xb0
#define BPF_ARSH 0xc0
#define BPF_END 0xd0

#define BPF_JA 0x00
#define BPF_JEQ 0x10
#define BPF_JGT 0x20
#define BPF_JGE 0x30
#define BPF_JSET 0x40
#define BPF_JNE 0x50
#define BPF_JSGT 0x60
#define BPF_JSGE 0x70
#define BPF_CALL 0x80
#define BPF_EXIT 0x90
#define BPF_JLT 0xa0
#define BPF_JLE 0xb0
#define BPF_JSLT 0xc0
#define BPF_JSLE 0xd0

/* sizes and modes of loads and stores */
#define BPF_SIZE(code) ((code) & 0x18)
#define BPF_W 0x00
#define BPF_H 0x08
#define BPF_B 0x10
#define BPF_DW 0x18
#define BPF_MODE(code) ((code) & 0xe0)
#define BPF_IMM 0x00
#define BPF_ABS 0x20
#define BPF_IND 0x40
#define BPF_MEM 0x60
#define BPF_MEMSX 0x80
#define BPF_ATOMIC 0xc0

/* atomic operations: imm of a STX | ATOMIC */
#define BPF_FETCH 0x01
#define BPF_XCHG 0xe1
#define BPF_CMPXCHG 0xf1
#define BPF_LOAD_ACQ 0x100
#define BPF_STORE_REL 0x110

#define BPF_LDDW (BPF_LD | BPF_IMM | BPF_DW)

enum insn_reg {
	INSN_R0, INSN_R1, INSN_R2, INSN_R3, INSN_R4, INSN_R5, INSN_R6, INSN_R7, INSN_R8, INSN_R9,
	INSN_R10,	/* the frame: read-only, points to its end */
	_INSN_REG_N,
};

/* what a normalized lddw refers to (its src_reg) */
enum insn_ref {
	INSN_REF_NONE = 0,	/* a plain 64-bit immediate */
	INSN_REF_METHOD = 1,	/* the program-visible address of method next.imm */
	INSN_REF_IMPORT = 2,	/* the address bound to import next.imm (0: weak and absent) */
	INSN_REF_RODATA = 3,	/* .rodata + imm */
	INSN_REF_DATA = 4,	/* .data + imm */
	INSN_REF_BSS = 5,	/* .bss + imm */
	_INSN_REF_N,
};

/* what a normalized call calls (its src_reg) */
enum insn_call {
	INSN_CALL_HELPER = 0,	/* helper number imm: refused by verify; who has helpers makes imports of them before */
	INSN_CALL_METHOD = 1,	/* method imm of the same module */
	INSN_CALL_IMPORT = 2,	/* import imm */
	_INSN_CALL_N,
};

#define INSN_FRAME_SIZE 512u	/* bytes of BPF frame per activation, RFC 9669 and DESIGN §2 */

static inline int insn_is_lddw(const struct insn *insn) { return insn->code == BPF_LDDW; }

/* 8-byte slots that the instruction takes: 2 for lddw, else 1 */
static inline unsigned int insn_slots(const struct insn *insn) { return insn_is_lddw(insn) ? 2 : 1; }

/* the 64-bit immediate of a lddw; the caller has checked that insn[1] exists */
static inline uint64_t insn_imm64(const struct insn *insn)
{
	return (uint64_t)(uint32_t)insn[0].imm | (uint64_t)(uint32_t)insn[1].imm << 32;
}

static inline int insn_is_callx(const struct insn *insn) { return insn->code == (BPF_JMP | BPF_CALL | BPF_X); }

/* callx names its register in dst, or in imm as LLVM up to 18 writes it; the loader normalizes it into dst. */
