/* SPDX-License-Identifier: Apache-2.0 */
/* Validation of bytecode: RFC 9669 as a table
 *
 * One row per opcode says what kind of instruction it is and which of its fields mean something; a field that means
 * nothing must be 0, because a later standard may give it a meaning that we would then silently ignore. What a row
 * cannot say (legal values of a field that is used, targets, references) is checked per kind.
 *
 * One pass over the instructions, no memory: the second slot of a lddw has code 0, which is no legal opcode, so once
 * all slots of a method have passed, a slot with code 0 is exactly what a jump must not lead to. Jumps are therefore
 * checked in a second pass over the same, now known, slots. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include "bytecode/flow.h"
#include "bytecode/verify.h"
#include "util/base.h"

enum kind {
	KIND_ILLEGAL,
	KIND_ALU,
	KIND_DIVIDE,		/* off: 0 unsigned, 1 signed */
	KIND_MOVE,		/* off: 0, or the bits to sign-extend from */
	KIND_SWAP,		/* imm: bits */
	KIND_JUMP,
	KIND_CALL,
	KIND_CALLX,
	KIND_EXIT,
	KIND_LDDW,
	KIND_PACKET,
	KIND_LOAD,
	KIND_STORE,
	KIND_ATOMIC,
};

/* which fields mean something */
enum { DST = 1, SRC = 2, OFF = 4, IMM = 8 };

struct rule {
	uint8_t kind, fields;
};

#define BOTH(kind, op, fields_k, fields_x)                                                                             \
	[BPF_ALU | BPF_K | (op)] = { kind, fields_k }, [BPF_ALU | BPF_X | (op)] = { kind, fields_x },                  \
	[BPF_ALU64 | BPF_K | (op)] = { kind, fields_k }, [BPF_ALU64 | BPF_X | (op)] = { kind, fields_x }
#define ARITHMETIC(op) BOTH(KIND_ALU, op, DST | IMM, DST | SRC)
#define CONDITIONS(class, op)                                                                                          \
	[(class) | BPF_K | (op)] = { KIND_JUMP, DST | OFF | IMM }, [(class) | BPF_X | (op)] = { KIND_JUMP, DST | SRC | OFF }
#define CONDITION(op) CONDITIONS(BPF_JMP, op), CONDITIONS(BPF_JMP32, op)
#define MEMORY(size)                                                                                                   \
	[BPF_LDX | BPF_MEM | (size)] = { KIND_LOAD, DST | SRC | OFF },                                                 \
	[BPF_ST | BPF_MEM | (size)] = { KIND_STORE, DST | OFF | IMM },                                                 \
	[BPF_STX | BPF_MEM | (size)] = { KIND_STORE, DST | SRC | OFF },                                                \
	[BPF_STX | BPF_ATOMIC | (size)] = { KIND_ATOMIC, DST | SRC | OFF | IMM }
#define PACKET(size) [BPF_LD | BPF_ABS | (size)] = { KIND_PACKET, 0 }, [BPF_LD | BPF_IND | (size)] = { KIND_PACKET, 0 }

static const struct rule rules[256] = {
	ARITHMETIC(BPF_ADD), ARITHMETIC(BPF_SUB), ARITHMETIC(BPF_MUL), ARITHMETIC(BPF_OR), ARITHMETIC(BPF_AND),
	ARITHMETIC(BPF_LSH), ARITHMETIC(BPF_RSH), ARITHMETIC(BPF_XOR), ARITHMETIC(BPF_ARSH),
	BOTH(KIND_DIVIDE, BPF_DIV, DST | OFF | IMM, DST | SRC | OFF),
	BOTH(KIND_DIVIDE, BPF_MOD, DST | OFF | IMM, DST | SRC | OFF),
	BOTH(KIND_MOVE, BPF_MOV, DST | IMM, DST | SRC | OFF),
	[BPF_ALU | BPF_NEG] = { KIND_ALU, DST },
	[BPF_ALU64 | BPF_NEG] = { KIND_ALU, DST },
	[BPF_ALU | BPF_K | BPF_END] = { KIND_SWAP, DST | IMM },		/* to little endian */
	[BPF_ALU | BPF_X | BPF_END] = { KIND_SWAP, DST | IMM },		/* to big endian */
	[BPF_ALU64 | BPF_K | BPF_END] = { KIND_SWAP, DST | IMM },	/* unconditionally */
	[BPF_JMP | BPF_JA] = { KIND_JUMP, OFF },
	[BPF_JMP32 | BPF_JA] = { KIND_JUMP, IMM },			/* gotol */
	CONDITION(BPF_JEQ), CONDITION(BPF_JGT), CONDITION(BPF_JGE), CONDITION(BPF_JSET), CONDITION(BPF_JNE),
	CONDITION(BPF_JSGT), CONDITION(BPF_JSGE), CONDITION(BPF_JLT), CONDITION(BPF_JLE), CONDITION(BPF_JSLT),
	CONDITION(BPF_JSLE),
	[BPF_JMP | BPF_CALL] = { KIND_CALL, SRC | IMM },
	[BPF_JMP | BPF_CALL | BPF_X] = { KIND_CALLX, DST },
	[BPF_JMP | BPF_EXIT] = { KIND_EXIT, 0 },
	[BPF_LDDW] = { KIND_LDDW, DST | SRC | IMM },
	PACKET(BPF_W), PACKET(BPF_H), PACKET(BPF_B),
	MEMORY(BPF_W), MEMORY(BPF_H), MEMORY(BPF_B), MEMORY(BPF_DW),
	[BPF_LDX | BPF_MEMSX | BPF_W] = { KIND_LOAD, DST | SRC | OFF },
	[BPF_LDX | BPF_MEMSX | BPF_H] = { KIND_LOAD, DST | SRC | OFF },
	[BPF_LDX | BPF_MEMSX | BPF_B] = { KIND_LOAD, DST | SRC | OFF },
};

/* the method being looked at, for checks and for the sentence */
struct subject {
	const struct image *image;
	const struct verify_origin *origin;
	const struct insn *insns;
	uint32_t n;
	struct refusal *refusal;
};

static bool refuse_at(const struct subject *s, uint32_t pc, const char *format, ...) __attribute__((format(printf, 3, 4)));
static bool refuse_at(const struct subject *s, uint32_t pc, const char *format, ...)
{
	const struct verify_origin *origin = s->origin;
	char reason[160];
	va_list args;

	va_start(args, format);
	vsnprintf(reason, sizeof(reason), format, args);
	va_end(args);
	refuse(s->refusal, "section '%.80s', offset 0x%" PRIx64 ", method '%.80s', opcode 0x%02x: %s",
	       origin->section, origin->section_offset + (uint64_t)pc * sizeof(struct insn), origin->method, s->insns[pc].code,
	       reason);
	return false;
}

static bool check_fields(const struct subject *s, uint32_t pc, unsigned int fields)
{
	const struct insn *insn = &s->insns[pc];

	if (!(fields & DST) && insn->dst)
		return refuse_at(s, pc, "its unused destination register is %u, not 0", insn->dst);
	if (!(fields & SRC) && insn->src)
		return refuse_at(s, pc, "its unused source register is %u, not 0", insn->src);
	if (!(fields & OFF) && insn->off)
		return refuse_at(s, pc, "its unused offset is %d, not 0", insn->off);
	if (!(fields & IMM) && insn->imm)
		return refuse_at(s, pc, "its unused immediate is %" PRId32 ", not 0", insn->imm);
	return true;
}

static bool check_register(const struct subject *s, uint32_t pc, unsigned int reg)
{
	if (reg == 11)
		return refuse_at(s, pc, "arguments beyond the fifth (register r11) are not supported");
	if (reg >= _INSN_REG_N)
		return refuse_at(s, pc, "there is no register r%u", reg);
	return true;
}

/* The source field of CALL and LDDW is no register. */
static bool check_registers(const struct subject *s, uint32_t pc, const struct rule *rule)
{
	const struct insn *insn = &s->insns[pc];
	bool src = (rule->fields & SRC) && rule->kind != KIND_CALL && rule->kind != KIND_LDDW;

	return check_register(s, pc, insn->dst) && (!src || check_register(s, pc, insn->src));
}

static bool check_frame(const struct subject *s, uint32_t pc, unsigned int base)
{
	static const uint8_t bytes[] = { [BPF_W] = 4, [BPF_H] = 2, [BPF_B] = 1, [BPF_DW] = 8 };
	const struct insn *insn = &s->insns[pc];
	int n = bytes[BPF_SIZE(insn->code)];

	if (base != INSN_R10 || (insn->off >= -(int)INSN_FRAME_SIZE && insn->off + n <= 0))
		return true;
	return refuse_at(s, pc, "%d bytes at r10%+d lie outside the frame of %u bytes", n, insn->off, INSN_FRAME_SIZE);
}

static bool check_lddw(const struct subject *s, uint32_t pc)
{
	const struct insn *insn = &s->insns[pc];

	if (pc + 1 == s->n)
		return refuse_at(s, pc, "its second half is missing");
	if (insn[1].code || insn[1].dst || insn[1].src || insn[1].off)
		return refuse_at(s, pc, "its second half has fields that are not 0");
	if (insn->src == INSN_REF_NONE)
		return true;
	if (insn->src >= _INSN_REF_N)
		return refuse_at(s, pc, "unknown kind %u of 64-bit immediate", insn->src);
	if (!image_ref_exists(s->image, insn->src, insn[1].imm, insn->imm))
		return refuse_at(s, pc, "refers to nothing (kind %u, index %" PRId32 ", addend %" PRId32 ")", insn->src,
				 insn[1].imm, insn->imm);
	return true;
}

static bool check_call(const struct subject *s, uint32_t pc)
{
	const struct insn *insn = &s->insns[pc];
	uint32_t index = insn->imm;

	switch (insn->src) {
	case INSN_CALL_HELPER:
		return refuse_at(s, pc, "calls kernel helper %" PRId32 "; there are no helpers here, import a host function",
				 insn->imm);
	case INSN_CALL_METHOD:
		return index < s->image->n_methods || refuse_at(s, pc, "calls method %" PRIu32 " of %" PRIu32, index,
								s->image->n_methods);
	case INSN_CALL_IMPORT:
		return index < s->image->n_imports || refuse_at(s, pc, "calls import %" PRIu32 " of %" PRIu32, index,
								s->image->n_imports);
	default:
		return refuse_at(s, pc, "unknown kind %u of call", insn->src);
	}
}

static bool check_atomic(const struct subject *s, uint32_t pc)
{
	const struct insn *insn = &s->insns[pc];
	unsigned int size = BPF_SIZE(insn->code);

	switch (insn->imm) {
	case BPF_ADD:
	case BPF_OR:
	case BPF_AND:
	case BPF_XOR:
	case BPF_ADD | BPF_FETCH:
	case BPF_OR | BPF_FETCH:
	case BPF_AND | BPF_FETCH:
	case BPF_XOR | BPF_FETCH:
	case BPF_XCHG:
	case BPF_CMPXCHG:
		if (size != BPF_W && size != BPF_DW)
			return refuse_at(s, pc, "atomic operation 0x%" PRIx32 " needs 4 or 8 bytes", insn->imm);
		return check_frame(s, pc, insn->dst);
	case BPF_STORE_REL:
		return check_frame(s, pc, insn->dst);
	case BPF_LOAD_ACQ:
		return check_frame(s, pc, insn->src);
	default:
		return refuse_at(s, pc, "unknown atomic operation 0x%" PRIx32, insn->imm);
	}
}

static bool check_move(const struct subject *s, uint32_t pc)
{
	const struct insn *insn = &s->insns[pc];
	bool wide = BPF_CLASS(insn->code) == BPF_ALU64;

	if (!insn->off || insn->off == 8 || insn->off == 16 || (insn->off == 32 && wide))
		return true;
	return refuse_at(s, pc, "cannot sign-extend from %d bits to %d", insn->off, wide ? 64 : 32);
}

/* what the row in the table cannot say */
static bool check_kind(const struct subject *s, uint32_t pc, enum kind kind)
{
	const struct insn *insn = &s->insns[pc];

	switch (kind) {
	case KIND_ILLEGAL:
	case KIND_PACKET:
		return false;	/* refused before */
	case KIND_ALU:
	case KIND_JUMP:
	case KIND_CALLX:
	case KIND_EXIT:
		return true;
	case KIND_DIVIDE:
		return (insn->off & ~1) == 0 || refuse_at(s, pc, "its offset is %d, neither 0 (unsigned) nor 1 (signed)",
							  insn->off);
	case KIND_MOVE:
		return check_move(s, pc);
	case KIND_SWAP:
		return insn->imm == 16 || insn->imm == 32 || insn->imm == 64
		    || refuse_at(s, pc, "cannot swap the bytes of %" PRId32 " bits", insn->imm);
	case KIND_CALL:
		return check_call(s, pc);
	case KIND_LDDW:
		return check_lddw(s, pc);
	case KIND_LOAD:
		return check_frame(s, pc, insn->src);
	case KIND_STORE:
		return check_frame(s, pc, insn->dst);
	case KIND_ATOMIC:
		return check_atomic(s, pc);
	}
	return false;
}

static bool check_insn(const struct subject *s, uint32_t pc)
{
	const struct insn *insn = &s->insns[pc];
	const struct rule *rule = &rules[insn->code];

	if (rule->kind == KIND_ILLEGAL)
		return refuse_at(s, pc, "unknown opcode");
	if (rule->kind == KIND_PACKET)
		return refuse_at(s, pc, "legacy packet access (BPF_ABS, BPF_IND) is not supported");
	if (!check_fields(s, pc, rule->fields) || !check_registers(s, pc, rule) || !check_kind(s, pc, rule->kind))
		return false;
	if (insn_writes(insn) & 1u << INSN_R10)
		return refuse_at(s, pc, "writes to r10, the frame pointer, which is read-only");
	return true;
}

static bool check_jump(const struct subject *s, uint32_t pc)
{
	const struct insn *insn = &s->insns[pc];
	int64_t target;

	if (!insn_is_jump(insn))
		return true;
	target = (int64_t)pc + 1 + (insn->code == (BPF_JMP32 | BPF_JA) ? insn->imm : insn->off);
	if (target < 0 || target >= s->n)
		return refuse_at(s, pc, "jumps outside the method, to instruction %" PRId64 " of %" PRIu32, target, s->n);
	if (!s->insns[target].code)
		return refuse_at(s, pc, "jumps into the second half of the 16-byte instruction %" PRId64, target - 1);
	return true;
}

static bool check_end(const struct subject *s)
{
	const struct insn *last = &s->insns[s->n - 1];

	if (last->code == (BPF_JMP | BPF_EXIT) || (insn_is_jump(last) && !insn_is_conditional(last)))
		return true;
	return refuse_at(s, s->n - 1, "runs off the end of the method: its last instruction is neither exit nor jump");
}

bool verify_insns(const struct image *image, const struct verify_origin *origin, const struct insn *insns, uint32_t n,
		  struct refusal *refusal)
{
	const struct subject s = { .image = image, .origin = origin, .insns = insns, .n = n, .refusal = refusal };

	for (uint32_t pc = 0; pc < s.n; pc += insn_slots(&s.insns[pc]))
		if (!check_insn(&s, pc))
			return false;
	for (uint32_t pc = 0; pc < s.n; pc += insn_slots(&s.insns[pc]))
		if (!check_jump(&s, pc))
			return false;
	return check_end(&s);
}

bool verify_method(const struct image *image, uint32_t method, struct refusal *refusal)
{
	const struct image_method *m = &image->methods[method];
	const struct verify_origin origin = {
		.section = image->strings + m->section,
		.method = image_method_name(image, method),
		.section_offset = m->section_offset,
	};

	return verify_insns(image, &origin, image_method_insns(image, method), m->n_insns, refusal);
}

bool verify_image(const struct image *image, struct refusal *refusal)
{
	for (uint32_t method = 0; method < image->n_methods; method++)
		if (!verify_method(image, method, refusal))
			return false;
	return true;
}
