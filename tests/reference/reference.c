/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>
#include "reference/reference.h"

struct reference_activation {
	struct reference *reference;
	const struct insn *insns;
	uint32_t method, pc;
	uint64_t reg[_INSN_REG_N];
	uint8_t frame[INSN_FRAME_SIZE] __attribute__((aligned(16)));
};

static bool reference_fault(struct reference *reference, const char *fault)
{
	reference->fault = fault;
	return false;
}

/* -- Arithmetic --- */
static uint64_t reference_divide(uint64_t a, uint64_t b) { return b ? a / b : 0; }
static uint64_t reference_modulo(uint64_t a, uint64_t b) { return b ? a % b : a; }
static uint64_t reference_divide_signed(int64_t a, int64_t b)
{
	return b == 0 ? 0 : b == -1 ? -(uint64_t)a : (uint64_t)(a / b);
}
static uint64_t reference_modulo_signed(int64_t a, int64_t b)
{
	return b == 0 ? (uint64_t)a : b == -1 ? 0 : (uint64_t)(a % b);
}

static uint64_t reference_extend(uint64_t value, unsigned int bits)
{
	switch (bits) {
	case 8: return (int8_t)value;
	case 16: return (int16_t)value;
	case 32: return (int32_t)value;
	default: return value;
	}
}

static uint64_t reference_endian(const struct insn *insn, uint64_t value)
{
	const bool swap = BPF_CLASS(insn->code) == BPF_ALU64 || BPF_SRC(insn->code) == BPF_X;

	switch (insn->imm) {
	case 16: return swap ? __builtin_bswap16(value) : (uint16_t)value;
	case 32: return swap ? __builtin_bswap32(value) : (uint32_t)value;
	default: return swap ? __builtin_bswap64(value) : value;
	}
}

/* @a op @b; 32-bit operands come zero-extended, their signed operations look at the low half only */
static bool reference_compute(const struct insn *insn, uint64_t a, uint64_t b, uint64_t *ret)
{
	const bool wide = BPF_CLASS(insn->code) == BPF_ALU64, is_signed = insn->off == 1;
	const int64_t sa = wide ? (int64_t)a : (int32_t)a, sb = wide ? (int64_t)b : (int32_t)b;
	const unsigned int count = b & (wide ? 63 : 31);

	switch (BPF_OP(insn->code)) {
	case BPF_ADD: *ret = a + b; break;
	case BPF_SUB: *ret = a - b; break;
	case BPF_MUL: *ret = a * b; break;
	case BPF_DIV: *ret = is_signed ? reference_divide_signed(sa, sb) : reference_divide(a, b); break;
	case BPF_MOD: *ret = is_signed ? reference_modulo_signed(sa, sb) : reference_modulo(a, b); break;
	case BPF_OR: *ret = a | b; break;
	case BPF_AND: *ret = a & b; break;
	case BPF_XOR: *ret = a ^ b; break;
	case BPF_LSH: *ret = a << count; break;
	case BPF_RSH: *ret = a >> count; break;
	case BPF_ARSH: *ret = sa >> count; break;
	case BPF_NEG: *ret = -a; break;
	case BPF_MOV: *ret = reference_extend(b, insn->off); break;
	default: return false;
	}
	return true;
}

static bool reference_alu(struct reference_activation *a, const struct insn *insn)
{
	const bool wide = BPF_CLASS(insn->code) == BPF_ALU64;
	uint64_t *dst = &a->reg[insn->dst];
	uint64_t operand = BPF_SRC(insn->code) == BPF_X ? a->reg[insn->src] : (uint64_t)(int64_t)insn->imm;

	if (BPF_OP(insn->code) == BPF_END) {
		*dst = reference_endian(insn, *dst);
		return true;
	}
	if (!reference_compute(insn, wide ? *dst : (uint32_t)*dst, wide ? operand : (uint32_t)operand, dst))
		return reference_fault(a->reference, "unknown arithmetic operation");
	if (!wide)
		*dst = (uint32_t)*dst;
	return true;
}

/* -- Memory --- */
static unsigned int reference_size(uint8_t code)
{
	switch (BPF_SIZE(code)) {
	case BPF_B: return 1;
	case BPF_H: return 2;
	case BPF_W: return 4;
	default: return 8;
	}
}

static uint64_t reference_load(uint64_t address, unsigned int size)
{
	uint64_t value = 0;

	memcpy(&value, (const void *)address, size);
	return value;
}

static void reference_store(uint64_t address, unsigned int size, uint64_t value)
{
	memcpy((void *)address, &value, size);
}

static bool reference_atomic(struct reference_activation *a, const struct insn *insn)
{
	const unsigned int size = reference_size(insn->code);
	const uint64_t address = a->reg[insn->dst] + insn->off, operand = a->reg[insn->src];
	uint64_t old, new;

	if (insn->imm == BPF_LOAD_ACQ) {
		a->reg[insn->dst] = reference_load(a->reg[insn->src] + insn->off, size);
		return true;
	}
	if (insn->imm == BPF_STORE_REL) {
		reference_store(address, size, operand);
		return true;
	}
	old = reference_load(address, size);
	if (insn->imm == BPF_CMPXCHG) {
		if (old == (size == 4 ? (uint32_t)a->reg[0] : a->reg[0]))
			reference_store(address, size, operand);
		a->reg[0] = old;
		return true;
	}
	switch (insn->imm & ~BPF_FETCH) {
	case BPF_ADD: new = old + operand; break;
	case BPF_OR: new = old | operand; break;
	case BPF_AND: new = old & operand; break;
	case BPF_XOR: new = old ^ operand; break;
	case BPF_XCHG & ~BPF_FETCH: new = operand; break;
	default: return reference_fault(a->reference, "unknown atomic operation");
	}
	reference_store(address, size, new);
	if (insn->imm & BPF_FETCH)
		a->reg[insn->src] = old;
	return true;
}

static bool reference_memory(struct reference_activation *a, const struct insn *insn)
{
	const unsigned int size = reference_size(insn->code);

	switch (BPF_CLASS(insn->code) | BPF_MODE(insn->code)) {
	case BPF_LDX | BPF_MEM:
		a->reg[insn->dst] = reference_load(a->reg[insn->src] + insn->off, size);
		return true;
	case BPF_LDX | BPF_MEMSX:
		a->reg[insn->dst] = reference_extend(reference_load(a->reg[insn->src] + insn->off, size), size * 8);
		return true;
	case BPF_ST | BPF_MEM:
		reference_store(a->reg[insn->dst] + insn->off, size, (uint64_t)(int64_t)insn->imm);
		return true;
	case BPF_STX | BPF_MEM:
		reference_store(a->reg[insn->dst] + insn->off, size, a->reg[insn->src]);
		return true;
	case BPF_STX | BPF_ATOMIC:
		return reference_atomic(a, insn);
	default:
		return reference_fault(a->reference, "unknown memory access");
	}
}

static bool reference_lddw(struct reference_activation *a, const struct insn *insn)
{
	struct reference *reference = a->reference;
	const uint32_t index = insn[1].imm;
	uint64_t value;

	switch (insn->src) {
	case INSN_REF_NONE: value = (uint32_t)insn->imm | (uint64_t)index << 32; break;
	case INSN_REF_METHOD: value = reference->method_address(reference->userdata, index); break;
	case INSN_REF_IMPORT: value = (uintptr_t)reference->imports[index]; break;
	case INSN_REF_RODATA: value = reference->rodata + insn->imm; break;
	case INSN_REF_DATA: value = reference->data + insn->imm; break;
	case INSN_REF_BSS: value = reference->bss + insn->imm; break;
	default: return reference_fault(reference, "unknown reference");
	}
	a->reg[insn->dst] = value;
	a->pc++;	/* the second slot */
	return true;
}

/* -- Control --- */
static bool reference_holds(const struct insn *insn, uint64_t a, uint64_t b)
{
	const bool wide = BPF_CLASS(insn->code) == BPF_JMP;
	const int64_t sa = wide ? (int64_t)a : (int32_t)a, sb = wide ? (int64_t)b : (int32_t)b;

	if (!wide) {
		a = (uint32_t)a;
		b = (uint32_t)b;
	}
	switch (BPF_OP(insn->code)) {
	case BPF_JA: return true;
	case BPF_JEQ: return a == b;
	case BPF_JNE: return a != b;
	case BPF_JSET: return a & b;
	case BPF_JGT: return a > b;
	case BPF_JGE: return a >= b;
	case BPF_JLT: return a < b;
	case BPF_JLE: return a <= b;
	case BPF_JSGT: return sa > sb;
	case BPF_JSGE: return sa >= sb;
	case BPF_JSLT: return sa < sb;
	default: return sa <= sb;
	}
}

static void reference_jump(struct reference_activation *a, const struct insn *insn)
{
	const uint64_t operand = BPF_SRC(insn->code) == BPF_X ? a->reg[insn->src] : (uint64_t)(int64_t)insn->imm;
	const bool far = insn->code == (BPF_JMP32 | BPF_JA);	/* gotol: the distance is the immediate */

	if (reference_holds(insn, a->reg[insn->dst], operand))
		a->pc += far ? insn->imm : insn->off;
}

static bool reference_invoke(struct reference_activation *a, const struct insn *insn)
{
	struct reference *reference = a->reference;
	const uint64_t *args = &a->reg[1];
	int64_t method = -1;
	reference_function function = NULL;

	if (BPF_SRC(insn->code) == BPF_X) {
		function = (reference_function)a->reg[insn->dst];
		method = reference->method_at ? reference->method_at(reference->userdata, a->reg[insn->dst]) : -1;
	} else if (insn->src == INSN_CALL_METHOD) {
		method = insn->imm;
	} else if (insn->src == INSN_CALL_IMPORT) {
		function = reference->imports[insn->imm];
	} else {
		return reference_fault(reference, "call of a helper");
	}
	if (method < 0)
		a->reg[0] = function(args[0], args[1], args[2], args[3], args[4]);
	else if (!reference_call(reference, method, args, &a->reg[0]))
		return false;
	memset(&a->reg[1], 0, 5 * sizeof(a->reg[1]));
	return true;
}

static bool reference_step(struct reference_activation *a, const struct insn *insn)
{
	switch (BPF_CLASS(insn->code)) {
	case BPF_ALU:
	case BPF_ALU64:
		return reference_alu(a, insn);
	case BPF_LD:
		return insn_is_lddw(insn) ? reference_lddw(a, insn) : reference_fault(a->reference, "unknown load");
	case BPF_JMP:
	case BPF_JMP32:
		if (BPF_CLASS(insn->code) == BPF_JMP && BPF_OP(insn->code) == BPF_CALL)
			return reference_invoke(a, insn);
		reference_jump(a, insn);
		return true;
	default:
		return reference_memory(a, insn);
	}
}

static bool reference_run(struct reference_activation *a, uint64_t *ret)
{
	struct reference *reference = a->reference;

	for (;;) {
		const struct insn *insn = &a->insns[a->pc];

		if (reference->leave && reference->leave(reference->userdata, a->method, a->pc, a->reg, ret))
			return true;
		if (!reference->n_steps--)
			return reference_fault(reference, "out of steps");
		a->pc++;
		if (insn->code == (BPF_JMP | BPF_EXIT)) {
			*ret = a->reg[0];
			return true;
		}
		if (!reference_step(a, insn))
			return false;
	}
}

bool reference_call(struct reference *reference, uint32_t method, const uint64_t args[5], uint64_t *ret)
{
	struct reference_activation a = {
		.reference = reference, .method = method, .insns = image_method_insns(reference->image, method),
	};

	memcpy(&a.reg[1], args, 5 * sizeof(args[0]));
	a.reg[INSN_R10] = (uintptr_t)a.frame + sizeof(a.frame);
	if (reference->entered)
		reference->entered(reference->userdata, method);
	return reference_run(&a, ret);
}

bool reference_resume(struct reference *reference, uint32_t method, uint32_t pc, const uint64_t registers[10], uint64_t frame,
		      uint64_t *ret)
{
	struct reference_activation a = {
		.reference = reference, .method = method, .insns = image_method_insns(reference->image, method), .pc = pc,
	};

	memcpy(a.reg, registers, 10 * sizeof(registers[0]));
	a.reg[INSN_R10] = frame;
	return reference_run(&a, ret);
}
