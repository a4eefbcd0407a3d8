/* SPDX-License-Identifier: Apache-2.0 */
/* BPF instructions as text
 *
 * The daemon has validated what is printed here, but this file does not rely on it: anything else prints as bytes. */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include "bpf.h"

/* fields of an opcode (RFC 9669) */
enum { CLASS_LD, CLASS_LDX, CLASS_ST, CLASS_STX, CLASS_ALU, CLASS_JMP, CLASS_JMP32, CLASS_ALU64 };
enum { MODE_IMM = 0x00, MODE_MEM = 0x60, MODE_MEMSX = 0x80, MODE_ATOMIC = 0xc0 };
enum { SOURCE_REGISTER = 0x08, SIZE_DOUBLE = 0x18, OPCODE_LDDW = 0x18 };
enum { ALU_NEG = 0x8, ALU_MOV = 0xb, ALU_END = 0xd };
enum { JMP_JA = 0x0, JMP_CALL = 0x8, JMP_EXIT = 0x9 };
enum { ATOMIC_FETCH = 0x01, ATOMIC_XCHG = 0xe1, ATOMIC_CMPXCHG = 0xf1, ATOMIC_LOAD = 0x100, ATOMIC_STORE = 0x110 };
enum { REF_METHOD = 1, REF_IMPORT, REF_RODATA, REF_DATA, REF_BSS };
enum { CALL_HELPER, CALL_METHOD, CALL_IMPORT };

struct op {
	uint8_t code, class, dst, src;
	int16_t off;
	int32_t imm;
};

struct out {
	char *text;
	size_t n;
	const struct bpf_names *names;
};

static struct op op_of(uint64_t insn)
{
	return (struct op){
		.code = insn & 0xff,
		.class = insn & 0x07,
		.dst = insn >> 8 & 0xf,
		.src = insn >> 12 & 0xf,
		.off = (int16_t)(insn >> 16),
		.imm = (int32_t)(insn >> 32),
	};
}

#define PRINT(out, ...) (snprintf((out)->text, (out)->n, __VA_ARGS__), true)

static char width_of(const struct op *op)
{
	return op->class == CLASS_ALU || op->class == CLASS_JMP32 ? 'w' : 'r';
}

/* -- Arithmetic --- */
static bool print_end(struct out *out, const struct op *op)
{
	const char *name = op->class == CLASS_ALU64 ? "bswap" : op->code & SOURCE_REGISTER ? "be" : "le";

	return PRINT(out, "r%u = %s%d r%u", op->dst, name, op->imm, op->dst);
}

/* The offset says that a division is signed, or how wide what is moved is before its sign is extended. */
static bool print_alu(struct out *out, const struct op *op)
{
	static const char *const operators[16] = { "+=", "-=", "*=", "/=", "|=", "&=", "<<=", ">>=", [9] = "%=", "^=", "=", "s>>=" };
	unsigned int which = op->code >> 4;
	char width = width_of(op), operand[24];
	const char *sign = op->off == 1 && (which == 3 || which == 9) ? "s" : "";

	if (which == ALU_NEG)
		return PRINT(out, "%c%u = -%c%u", width, op->dst, width, op->dst);
	if (which == ALU_END)
		return print_end(out, op);
	if (!operators[which])
		return false;
	if (!(op->code & SOURCE_REGISTER))
		snprintf(operand, sizeof(operand), "%d", op->imm);
	else if (which == ALU_MOV && op->off)
		snprintf(operand, sizeof(operand), "(s%d)%c%u", op->off, width, op->src);
	else
		snprintf(operand, sizeof(operand), "%c%u", width, op->src);
	return PRINT(out, "%c%u %s%s %s", width, op->dst, sign, operators[which], operand);
}

/* -- Memory --- */
static const char *size_of(const struct op *op)
{
	static const char *const sizes[] = { "32", "16", "8", "64" };

	return sizes[op->code >> 3 & 3];
}

static bool print_load(struct out *out, const struct op *op)
{
	unsigned int mode = op->code & 0xe0;

	if (mode != MODE_MEM && mode != MODE_MEMSX)
		return false;
	return PRINT(out, "r%u = *(%c%s *)(r%u %+d)", op->dst, mode == MODE_MEM ? 'u' : 's', size_of(op), op->src, op->off);
}

static bool print_atomic(struct out *out, const struct op *op)
{
	static const char *const operators[16] = { [0] = "+=", [4] = "|=", [5] = "&=", [10] = "^=" };
	static const char *const names[16] = { [0] = "add", [4] = "or", [5] = "and", [10] = "xor" };
	unsigned int which = op->imm >> 4 & 0xf;
	const char *wide = (op->code & SIZE_DOUBLE) == SIZE_DOUBLE ? "64" : "";
	char place[32];

	snprintf(place, sizeof(place), "(u%s *)(r%u %+d)", size_of(op), op->dst, op->off);
	switch (op->imm) {
	case ATOMIC_XCHG:
		return PRINT(out, "r%u = atomic%s_xchg(%s, r%u)", op->src, wide, place, op->src);
	case ATOMIC_CMPXCHG:
		return PRINT(out, "r0 = atomic%s_cmpxchg(%s, r0, r%u)", wide, place, op->src);
	case ATOMIC_LOAD:
		return PRINT(out, "r%u = load_acquire((u%s *)(r%u %+d))", op->dst, size_of(op), op->src, op->off);
	case ATOMIC_STORE:
		return PRINT(out, "store_release(%s, r%u)", place, op->src);
	}
	if (op->imm & ~0xf1 || !names[which])
		return false;
	if (op->imm & ATOMIC_FETCH)
		return PRINT(out, "r%u = atomic%s_fetch_%s(%s, r%u)", op->src, wide, names[which], place, op->src);
	return PRINT(out, "lock *%s %s r%u", place, operators[which], op->src);
}

static bool print_store(struct out *out, const struct op *op)
{
	unsigned int mode = op->code & 0xe0;

	if (op->class == CLASS_STX && mode == MODE_ATOMIC)
		return print_atomic(out, op);
	if (mode != MODE_MEM)
		return false;
	if (op->class == CLASS_STX)
		return PRINT(out, "*(u%s *)(r%u %+d) = r%u", size_of(op), op->dst, op->off, op->src);
	return PRINT(out, "*(u%s *)(r%u %+d) = %d", size_of(op), op->dst, op->off, op->imm);
}

/* -- 64-bit immediates --- */
static bool print_lddw(struct out *out, const struct op *op, uint64_t second)
{
	static const char *const segments[] = { [REF_RODATA] = ".rodata", [REF_DATA] = ".data", [REF_BSS] = ".bss" };
	uint32_t high = second >> 32;

	switch (op->src) {
	case 0:
		return PRINT(out, "r%u = 0x%" PRIx64, op->dst, (uint64_t)high << 32 | (uint32_t)op->imm);
	case REF_METHOD:
		return PRINT(out, "r%u = &%s", op->dst, out->names->method(out->names->context, high));
	case REF_IMPORT:
		return PRINT(out, "r%u = &%s", op->dst, out->names->import(out->names->context, high));
	case REF_RODATA: case REF_DATA: case REF_BSS:
		return PRINT(out, "r%u = %s+0x%x", op->dst, segments[op->src], (uint32_t)op->imm);
	default:
		return false;
	}
}

/* -- Jumps and calls --- */
static bool print_call(struct out *out, const struct op *op)
{
	if (op->code & SOURCE_REGISTER)
		return PRINT(out, "callx r%u", op->dst);
	switch (op->src) {
	case CALL_METHOD:
		return PRINT(out, "call %s", out->names->method(out->names->context, op->imm));
	case CALL_IMPORT:
		return PRINT(out, "call %s", out->names->import(out->names->context, op->imm));
	default:
		return PRINT(out, "call helper#%d", op->imm);
	}
}

static bool print_jump(struct out *out, const struct op *op)
{
	static const char *const conditions[16] = {
		[1] = "==", ">", ">=", "&", "!=", "s>", "s>=", [10] = "<", "<=", "s<", "s<=",
	};
	unsigned int which = op->code >> 4;
	char width = width_of(op);

	if (which == JMP_JA && op->class == CLASS_JMP)
		return PRINT(out, "goto pc%+d", op->off);
	if (which == JMP_JA)
		return PRINT(out, "gotol pc%+d", op->imm);
	if (which == JMP_CALL && op->class == CLASS_JMP)
		return print_call(out, op);
	if (which == JMP_EXIT && op->class == CLASS_JMP)
		return PRINT(out, "exit");
	if (!conditions[which])
		return false;
	if (op->code & SOURCE_REGISTER)
		return PRINT(out, "if %c%u %s %c%u goto pc%+d", width, op->dst, conditions[which], width, op->src, op->off);
	return PRINT(out, "if %c%u %s 0x%x goto pc%+d", width, op->dst, conditions[which], (uint32_t)op->imm, op->off);
}

static bool print_op(struct out *out, const struct op *op)
{
	switch (op->class) {
	case CLASS_ALU: case CLASS_ALU64:
		return print_alu(out, op);
	case CLASS_LDX:
		return print_load(out, op);
	case CLASS_ST: case CLASS_STX:
		return print_store(out, op);
	case CLASS_JMP: case CLASS_JMP32:
		return print_jump(out, op);
	default:
		return false;
	}
}

uint32_t bpf_text(char *to, size_t n_to, const uint64_t *insns, uint32_t n, const struct bpf_names *names)
{
	struct out out = { .text = to, .n = n_to, .names = names };
	struct op op = op_of(insns[0]);

	if (op.code == OPCODE_LDDW && n >= 2 && print_lddw(&out, &op, insns[1]))
		return 2;
	if (!print_op(&out, &op))
		snprintf(to, n_to, ".insn 0x%016" PRIx64, insns[0]);
	return 1;
}
