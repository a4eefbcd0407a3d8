/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include "jit/memory.h"
#include "jit/registers.h"
#include "jit/x86.h"

/* Memory
 *
 * Every access is [register + constant], and r10 is rbp, so each is one x86 addressing mode. x86 orders loads with loads
 * and stores with stores, so load-acquire and store-release are plain moves. Every atomic operation is one locked
 * instruction, except and, or and xor that return the old value: x86 has none, they loop. */

static void memory_load(struct emit *e, unsigned int size, enum x86_reg dst, enum x86_reg base, int32_t off)
{
	switch (size) {
	case BPF_B:
		x86_mem(e, X86_32, 0x0fb6, dst, base, off);			/* movzx dst, byte [base+off] */
		break;
	case BPF_H:
		x86_mem(e, X86_32, 0x0fb7, dst, base, off);			/* movzx dst, word [base+off] */
		break;
	case BPF_W:
		x86_mem(e, X86_32, 0x8b, dst, base, off);			/* mov dst32, [base+off] */
		break;
	default:
		x86_mem(e, X86_64, 0x8b, dst, base, off);			/* mov dst, [base+off] */
	}
}

static void memory_load_signed(struct emit *e, unsigned int size, enum x86_reg dst, enum x86_reg base, int32_t off)
{
	const unsigned int op = size == BPF_B ? 0x0fbe : size == BPF_H ? 0x0fbf : 0x63;

	x86_mem(e, X86_64, op, dst, base, off);					/* movsx dst, [base+off] */
}

static void memory_store(struct emit *e, unsigned int size, enum x86_reg base, int32_t off, enum x86_reg src)
{
	switch (size) {
	case BPF_B:
		x86_mem(e, x86_byte(src), 0x88, src, base, off);		/* mov [base+off], src8 */
		break;
	case BPF_H:
		EMIT(e, 0x66);
		x86_mem(e, X86_32, 0x89, src, base, off);			/* mov [base+off], src16 */
		break;
	case BPF_W:
		x86_mem(e, X86_32, 0x89, src, base, off);			/* mov [base+off], src32 */
		break;
	default:
		x86_mem(e, X86_64, 0x89, src, base, off);			/* mov [base+off], src */
	}
}

static void memory_store_constant(struct emit *e, unsigned int size, enum x86_reg base, int32_t off, int32_t imm)
{
	static const uint8_t n_imm[] = { [BPF_B >> 3] = 1, [BPF_H >> 3] = 2, [BPF_W >> 3] = 4, [BPF_DW >> 3] = 4 };

	if (size == BPF_H)
		EMIT(e, 0x66);
	x86_mem(e, size == BPF_DW ? X86_64 : X86_32, size == BPF_B ? 0xc6 : 0xc7, 0, base, off);	/* mov [base+off], */
	emit_word(e, (uint32_t)imm, n_imm[size >> 3]);							/*   imm */
}

/* The old value goes to src. r0 is rax, which cmpxchg wants: r10 holds its value meanwhile, and stands in for it. */
static void memory_fetch_loop(struct emit *e, const struct insn *insn, enum x86_width w, unsigned int op, uint16_t live)
{
	const enum x86_reg dst = register_of(insn->dst), src = register_of(insn->src);
	const enum x86_reg base = dst == X86_RAX ? X86_R10 : dst;
	const enum x86_reg operand = src == X86_RAX ? X86_R10 : src;
	uint64_t again;

	x86_mov(e, X86_R10, X86_RAX);
	x86_mem(e, w, 0x8b, X86_RAX, base, insn->off);				/* mov rax, [base+off] */
	again = emit_here(e);
	x86_rr(e, w, 0x89, X86_RAX, X86_R11);					/* mov r11, rax */
	x86_rr(e, w, op, operand, X86_R11);					/* op r11, operand */
	EMIT(e, 0xf0);
	x86_mem(e, w, 0x0fb1, X86_R11, base, insn->off);			/* lock cmpxchg [base+off], r11 */
	x86_jcc(e, X86_NE, again);
	x86_mov(e, src, X86_RAX);
	if (src != X86_RAX && register_is_in(live, INSN_R0))
		x86_mov(e, X86_RAX, X86_R10);
}

static void memory_compare_exchange(struct emit *e, const struct insn *insn, enum x86_width w)
{
	EMIT(e, 0xf0);								/* lock cmpxchg [dst+off], src */
	x86_mem(e, w, 0x0fb1, register_of(insn->src), register_of(insn->dst), insn->off);
	if (w == X86_32)
		x86_rr(e, w, 0x89, X86_RAX, X86_RAX);				/* mov eax, eax: success left its upper half */
}

static void memory_read_modify_write(struct emit *e, const struct insn *insn, enum x86_width w, uint16_t live)
{
	static const uint8_t ops[] = {
		[BPF_ADD >> 4] = 0x01, [BPF_OR >> 4] = 0x09, [BPF_AND >> 4] = 0x21, [BPF_XOR >> 4] = 0x31,
	};
	const enum x86_reg dst = register_of(insn->dst), src = register_of(insn->src);
	unsigned int op = ops[BPF_OP(insn->imm) >> 4];

	if (insn->imm & BPF_FETCH && BPF_OP(insn->imm) != BPF_ADD) {
		memory_fetch_loop(e, insn, w, op, live);
		return;
	}
	if (insn->imm & BPF_FETCH)
		op = 0x0fc1;							/* xadd */
	EMIT(e, 0xf0);
	x86_mem(e, w, op, src, dst, insn->off);					/* lock op [dst+off], src */
}

static void memory_atomic(struct emit *e, const struct insn *insn, uint16_t live)
{
	const enum x86_reg dst = register_of(insn->dst), src = register_of(insn->src);
	const unsigned int size = BPF_SIZE(insn->code);
	const enum x86_width w = size == BPF_DW ? X86_64 : X86_32;

	switch (insn->imm) {
	case BPF_LOAD_ACQ:
		memory_load(e, size, dst, src, insn->off);
		break;
	case BPF_STORE_REL:
		memory_store(e, size, dst, insn->off, src);
		break;
	case BPF_XCHG:
		x86_mem(e, w, 0x87, src, dst, insn->off);			/* xchg [dst+off], src: locks by itself */
		break;
	case BPF_CMPXCHG:
		memory_compare_exchange(e, insn, w);
		break;
	default:
		memory_read_modify_write(e, insn, w, live);
	}
}

void memory_emit(struct emit *e, const struct insn *insn, uint16_t live)
{
	const enum x86_reg dst = register_of(insn->dst), src = register_of(insn->src);
	const unsigned int size = BPF_SIZE(insn->code);

	switch (BPF_CLASS(insn->code) | BPF_MODE(insn->code)) {
	case BPF_LDX | BPF_MEM:
		memory_load(e, size, dst, src, insn->off);
		break;
	case BPF_LDX | BPF_MEMSX:
		memory_load_signed(e, size, dst, src, insn->off);
		break;
	case BPF_ST | BPF_MEM:
		memory_store_constant(e, size, dst, insn->off, insn->imm);
		break;
	case BPF_STX | BPF_MEM:
		memory_store(e, size, dst, insn->off, src);
		break;
	case BPF_STX | BPF_ATOMIC:
		memory_atomic(e, insn, live);
		break;
	default:
		assert(!"a mode that verify_image() refuses");
	}
}
