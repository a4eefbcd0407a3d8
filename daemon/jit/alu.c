/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include "jit/alu.h"
#include "jit/registers.h"
#include "jit/x86.h"

/* Arithmetic
 *
 * Most operations are one instruction. BPF and x86 agree on more than one would hope: 32-bit results are zero-extended,
 * shift counts are masked, immediates are sign-extended from 32 bits. They part where x86 insists on registers: a shift
 * counts in cl (r4), a division takes rdx:rax (r3, r0). Those templates work around the register in scratch ones or the
 * stack, and put it back only if somebody reads it later. They also part on division by zero (BPF: quotient 0, remainder the
 * dividend) and on INT_MIN / -1 (BPF wraps, x86 traps). */

#define BIT(n) (1u << (n))

/* x86's "group 1" number of an operation: op r/m, r is number << 3 | 1, op r/m, imm is 0x83 or 0x81 /number */
static const uint8_t group1[16] = {
	[BPF_ADD >> 4] = 0, [BPF_OR >> 4] = 1, [BPF_AND >> 4] = 4, [BPF_SUB >> 4] = 5, [BPF_XOR >> 4] = 6,
};

/* number of a shift: 0xd3 /number by cl, 0xc1 /number by imm8 */
static const uint8_t shift_group[16] = { [BPF_LSH >> 4] = 4, [BPF_RSH >> 4] = 5, [BPF_ARSH >> 4] = 7 };

static void alu_simple(struct emit *e, const struct insn *insn, enum x86_width w)
{
	const unsigned int number = group1[BPF_OP(insn->code) >> 4];
	const enum x86_reg dst = register_of(insn->dst);

	if (BPF_SRC(insn->code) == BPF_X)
		x86_rr(e, w, number << 3 | 1, register_of(insn->src), dst);	/* op dst, src */
	else
		x86_rri(e, w, 0x83, 0x81, number, dst, insn->imm);		/* op dst, imm */
}

static void alu_multiply(struct emit *e, const struct insn *insn, enum x86_width w)
{
	const enum x86_reg dst = register_of(insn->dst);

	if (BPF_SRC(insn->code) == BPF_X)
		x86_rr(e, w, 0x0faf, dst, register_of(insn->src));		/* imul dst, src */
	else
		x86_rri(e, w, 0x6b, 0x69, dst, dst, insn->imm);			/* imul dst, dst, imm */
}

static void alu_move(struct emit *e, const struct insn *insn, enum x86_width w)
{
	const enum x86_reg dst = register_of(insn->dst), src = register_of(insn->src);

	if (BPF_SRC(insn->code) == BPF_K)
		x86_mov_imm(e, dst, w == X86_64 ? (int64_t)insn->imm : (int64_t)(uint32_t)insn->imm);
	else if (insn->off == 8)
		x86_rr(e, w | x86_byte(src), 0x0fbe, dst, src);			/* movsx dst, src8 */
	else if (insn->off == 16)
		x86_rr(e, w, 0x0fbf, dst, src);					/* movsx dst, src16 */
	else if (insn->off == 32)
		x86_rr(e, w, 0x63, dst, src);					/* movsxd dst, src32 */
	else if (w == X86_32)
		x86_rr(e, w, 0x89, src, dst);					/* mov dst32, src32: never a nop */
	else
		x86_mov(e, dst, src);
}

/* Little endian is what the machine is: conversion to it only truncates. */
static void alu_endian(struct emit *e, const struct insn *insn)
{
	const bool swap = BPF_CLASS(insn->code) == BPF_ALU64 || BPF_SRC(insn->code) == BPF_X;
	const enum x86_reg dst = register_of(insn->dst);

	if (insn->imm == 16) {
		if (swap) {
			EMIT(e, 0x66);
			x86_ri8(e, X86_32, 0xc1, 0, dst, 8);			/* rol dst16, 8 */
		}
		x86_rr(e, X86_32, 0x0fb7, dst, dst);				/* movzx dst, dst16 */
	} else if (swap) {
		x86_plus(e, insn->imm == 64 ? X86_64 : X86_32, 0x0fc8, dst);	/* bswap dst */
	} else if (insn->imm == 32) {
		x86_rr(e, X86_32, 0x89, dst, dst);				/* mov dst32, dst32 */
	}
}

static void alu_shift_constant(struct emit *e, enum x86_width w, unsigned int number, enum x86_reg dst, unsigned int count)
{
	if (count == 1)
		x86_rr(e, w, 0xd1, number, dst);				/* shift dst, 1 */
	else if (count || w == X86_32)
		x86_ri8(e, w, 0xc1, number, dst, count);			/* shift dst, count */
}

static void alu_shift(struct emit *e, const struct insn *insn, enum x86_width w, uint16_t live)
{
	const unsigned int number = shift_group[BPF_OP(insn->code) >> 4];
	const enum x86_reg dst = register_of(insn->dst), src = register_of(insn->src);
	const enum x86_reg target = dst == X86_RCX && src != X86_RCX ? X86_R11 : dst;
	const bool keep = src != X86_RCX && (dst == X86_RCX || register_is_in(live, INSN_R4));

	if (BPF_SRC(insn->code) == BPF_K) {
		alu_shift_constant(e, w, number, dst, insn->imm & (w == X86_64 ? 63 : 31));
		return;
	}
	if (keep)
		x86_mov(e, X86_R11, X86_RCX);					/* to put it back, or to shift it */
	if (src != X86_RCX)
		x86_rr(e, X86_32, 0x89, src, X86_RCX);				/* mov ecx, src32 */
	x86_rr(e, w, 0xd3, number, target);					/* shift target, cl */
	if (keep)
		x86_mov(e, X86_RCX, X86_R11);
}

/* Division and modulo by constants that need no division. Returns whether it was one. */
static bool alu_divide_special(struct emit *e, const struct insn *insn, enum x86_width w)
{
	const bool modulo = BPF_OP(insn->code) == BPF_MOD, is_signed = insn->off == 1;
	const enum x86_reg dst = register_of(insn->dst);

	if (BPF_SRC(insn->code) == BPF_X || (insn->imm != 0 && !(is_signed && insn->imm == -1)))
		return false;
	if (insn->imm == 0 && modulo) {
		if (w == X86_32)
			x86_rr(e, w, 0x89, dst, dst);				/* mov dst32, dst32 */
	} else if (insn->imm == 0 || modulo) {
		x86_mov_imm(e, dst, 0);
	} else {
		x86_rr(e, w, 0xf7, 3, dst);					/* neg dst */
	}
	return true;
}

/* The result for a divisor of 0, without dividing: rax = 0, or rdx = the dividend. */
static size_t alu_guard_unsigned(struct emit *e, enum x86_width w, enum x86_reg divisor, bool modulo)
{
	size_t divide, done;

	x86_rr(e, w, 0x85, divisor, divisor);					/* test divisor, divisor */
	divide = x86_short_jcc(e, X86_NE);
	if (modulo)
		x86_rr(e, w, 0x89, X86_RAX, X86_RDX);				/* mov rdx, rax */
	else
		x86_mov_imm(e, X86_RAX, 0);
	done = x86_short_jmp(e);
	x86_land(e, divide);
	return done;
}

/* The results for divisors 0 and -1, without dividing: both quotients are dividend * divisor, both remainders
 * dividend * (divisor + 1). */
static size_t alu_guard_signed(struct emit *e, enum x86_width w, enum x86_reg divisor, bool modulo)
{
	size_t divide, done;

	x86_mem(e, w, 0x8d, X86_RDX, divisor, 1);				/* lea rdx, [divisor+1] */
	x86_rri(e, w, 0x83, 0x81, 7, X86_RDX, 1);				/* cmp rdx, 1 */
	divide = x86_short_jcc(e, X86_A);
	if (modulo)
		x86_rr(e, w, 0x0faf, X86_RDX, X86_RAX);				/* imul rdx, rax */
	else
		x86_rr(e, w, 0x0faf, X86_RAX, divisor);				/* imul rax, divisor */
	done = x86_short_jmp(e);
	x86_land(e, divide);
	return done;
}

static void alu_divide_rax(struct emit *e, enum x86_width w, enum x86_reg divisor, bool is_signed)
{
	if (!is_signed) {
		x86_mov_imm(e, X86_RDX, 0);
		x86_rr(e, w, 0xf7, 6, divisor);					/* div divisor */
		return;
	}
	if (w == X86_64)
		EMIT(e, 0x48, 0x99);						/* cqo */
	else
		EMIT(e, 0x99);							/* cdq */
	x86_rr(e, w, 0xf7, 7, divisor);						/* idiv divisor */
}

static void alu_divide(struct emit *e, const struct insn *insn, enum x86_width w, uint16_t live)
{
	const bool modulo = BPF_OP(insn->code) == BPF_MOD, is_signed = insn->off == 1;
	const bool by_register = BPF_SRC(insn->code) == BPF_X;
	const enum x86_reg dst = register_of(insn->dst), src = register_of(insn->src);
	const bool move = !by_register || src == X86_RAX || src == X86_RDX;
	const enum x86_reg divisor = move ? X86_R11 : src;
	const bool keep_rax = dst != X86_RAX && register_is_in(live, INSN_R0);
	const bool keep_rdx = dst != X86_RDX && register_is_in(live, INSN_R3);
	size_t done = 0;

	if (alu_divide_special(e, insn, w))
		return;
	if (keep_rax)
		x86_mov(e, X86_R10, X86_RAX);
	if (keep_rdx)
		x86_plus(e, X86_32, 0x50, X86_RDX);				/* push rdx: r9 is not for this */
	if (!by_register)
		x86_mov_imm(e, divisor, insn->imm);
	else
		x86_mov(e, divisor, src);
	x86_mov(e, X86_RAX, dst);
	if (by_register)
		done = is_signed ? alu_guard_signed(e, w, divisor, modulo) : alu_guard_unsigned(e, w, divisor, modulo);
	alu_divide_rax(e, w, divisor, is_signed);
	if (by_register)
		x86_land(e, done);
	x86_mov(e, dst, modulo ? X86_RDX : X86_RAX);
	if (keep_rax)
		x86_mov(e, X86_RAX, X86_R10);
	if (keep_rdx)
		x86_plus(e, X86_32, 0x58, X86_RDX);				/* pop rdx */
}

void alu_emit(struct emit *e, const struct insn *insn, uint16_t live)
{
	const enum x86_width w = BPF_CLASS(insn->code) == BPF_ALU64 ? X86_64 : X86_32;

	switch (BPF_OP(insn->code)) {
	case BPF_ADD:
	case BPF_SUB:
	case BPF_OR:
	case BPF_AND:
	case BPF_XOR:
		alu_simple(e, insn, w);
		break;
	case BPF_MUL:
		alu_multiply(e, insn, w);
		break;
	case BPF_DIV:
	case BPF_MOD:
		alu_divide(e, insn, w, live);
		break;
	case BPF_LSH:
	case BPF_RSH:
	case BPF_ARSH:
		alu_shift(e, insn, w, live);
		break;
	case BPF_NEG:
		x86_rr(e, w, 0xf7, 3, register_of(insn->dst));			/* neg dst */
		break;
	case BPF_MOV:
		alu_move(e, insn, w);
		break;
	case BPF_END:
		alu_endian(e, insn);
		break;
	default:
		assert(!"an operation that verify_image() refuses");
	}
}
