/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A fuzzer's bytes as a module, told apart by how they begin: an ELF object; a module image, whose size and hash are put right,
 * since guessing them would be all it did; after the word "repaired", instructions that are bent until they are legal, so that
 * every input reaches the compilers; else instructions in the kernel's conventions as they are. */

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include "bytecode/decode.h"
#include "bytecode/verify.h"
#include "tiers/program.h"
#include "worker/child/elf.h"

#define INPUT_REPAIRED "repaired"

static inline struct insn repair_alu(struct insn insn)
{
	static const int16_t moves[] = { 0, 8, 16, 32 };
	const unsigned int op = BPF_OP(insn.code);
	const bool wide = BPF_CLASS(insn.code) == BPF_ALU64;

	if (op == BPF_NEG || (op == BPF_END && wide))
		insn.code &= ~BPF_X;
	if (op == BPF_END)
		insn.imm = 16 << (uint32_t)insn.imm % 3;
	else if (op == BPF_NEG || BPF_SRC(insn.code) == BPF_X)
		insn.imm = 0;
	insn.src = BPF_SRC(insn.code) == BPF_X && op != BPF_END ? insn.src % 11 : 0;
	if (op == BPF_DIV || op == BPF_MOD)
		insn.off &= 1;
	else if (op == BPF_MOV && BPF_SRC(insn.code) == BPF_X)
		insn.off = moves[(uint16_t)insn.off % (wide ? 4 : 3)];
	else
		insn.off = 0;
	return insn;
}

static inline struct insn repair_atomic(struct insn insn)
{
	static const int32_t ops[] = {
		BPF_ADD, BPF_OR, BPF_AND, BPF_XOR, BPF_ADD | BPF_FETCH, BPF_OR | BPF_FETCH, BPF_AND | BPF_FETCH,
		BPF_XOR | BPF_FETCH, BPF_XCHG, BPF_CMPXCHG, BPF_LOAD_ACQ, BPF_STORE_REL,
	};

	insn.imm = ops[(uint32_t)insn.imm % (sizeof(ops) / sizeof(ops[0]))];
	insn.src %= insn.imm == BPF_LOAD_ACQ ? 11 : 10;
	insn.dst %= insn.imm == BPF_LOAD_ACQ ? 10 : 11;
	if (insn.imm < BPF_LOAD_ACQ && BPF_SIZE(insn.code) != BPF_W)
		insn.code = BPF_STX | BPF_ATOMIC | BPF_DW;
	return insn;
}

static inline struct insn repair_memory(struct insn insn)
{
	const bool loads = BPF_CLASS(insn.code) == BPF_LDX;

	if (BPF_MODE(insn.code) == BPF_ATOMIC) {
		insn = repair_atomic(insn);
	} else {
		if (insn.code == (BPF_LDX | BPF_MEMSX | BPF_DW))
			insn.code = BPF_LDX | BPF_MEM | BPF_DW;
		insn.dst %= loads ? 10 : 11;
		insn.src = BPF_CLASS(insn.code) == BPF_ST ? 0 : insn.src % 11;
		insn.imm = BPF_CLASS(insn.code) == BPF_ST ? insn.imm : 0;
	}
	if (insn.dst == INSN_R10 || insn.src == INSN_R10)
		insn.off = -8 - (uint16_t)insn.off % (INSN_FRAME_SIZE - 7);
	return insn;
}

/* Targets anywhere in the method, for now */
static inline struct insn repair_jump(struct insn insn, uint32_t pc, uint32_t n)
{
	const bool far = insn.code == (BPF_JMP32 | BPF_JA), conditional = BPF_OP(insn.code) != BPF_JA;
	const int32_t distance = (uint32_t)(far ? insn.imm : insn.off) % n - (pc + 1);
	const bool by_register = BPF_SRC(insn.code) == BPF_X;

	return (struct insn){
		.code = insn.code, .dst = conditional ? insn.dst % 11 : 0, .src = conditional && by_register ? insn.src % 11 : 0,
		.off = far ? 0 : distance, .imm = far ? distance : conditional && !by_register ? insn.imm : 0,
	};
}

static inline struct insn repair_insn(struct insn insn, uint32_t pc, uint32_t n)
{
	if (insn_is_jump(&insn))
		return repair_jump(insn, pc, n);
	switch (BPF_CLASS(insn.code)) {
	case BPF_ALU:
	case BPF_ALU64:
		insn.dst %= 10;
		return repair_alu(insn);
	case BPF_LDX:
	case BPF_ST:
	case BPF_STX:
		return repair_memory(insn);
	case BPF_LD:
		return (struct insn){ .code = BPF_LDDW, .dst = insn.dst % 10, .imm = insn.imm };
	default:
		if (insn_shape(&insn) & INSN_RETURNS)
			return (struct insn){ .code = BPF_JMP | BPF_EXIT };
		return (struct insn){ .code = BPF_JMP | BPF_CALL | BPF_X, .dst = insn.dst % 11 };
	}
}

/* Forward over all of them: unknown opcodes are moves, the last one is an exit, and a jump into a lddw goes to its start. */
static inline void input_repair(struct insn *insns, uint32_t n)
{
	for (uint32_t pc = 0; pc < n; pc++) {
		if (!insn_shape(&insns[pc]) || (insn_is_lddw(&insns[pc]) && pc + 2 >= n))
			insns[pc].code = BPF_ALU64 | BPF_MOV | (insns[pc].code & BPF_X);
		insns[pc] = repair_insn(insns[pc], pc, n);
		if (insn_is_lddw(&insns[pc])) {
			pc++;
			insns[pc] = (struct insn){ .imm = insns[pc].imm };
		}
	}
	insns[n - 1] = (struct insn){ .code = BPF_JMP | BPF_EXIT };
	for (uint32_t pc = 0; pc < n; pc++)
		if (insn_is_jump(&insns[pc]) && !insns[flow_jump_target(insns, pc)].code) {
			insns[pc].off -= insns[pc].code != (BPF_JMP32 | BPF_JA);
			insns[pc].imm -= insns[pc].code == (BPF_JMP32 | BPF_JA);
		}
}

/* @repaired: bent, so that no refusal is excused */
static inline bool input_program(const uint8_t *data, size_t n, bool repaired, void **ret, size_t *ret_n,
				 struct refusal *refusal)
{
	struct insn *insns = malloc(n + 1);
	const uint32_t n_insns = n / sizeof(*insns);
	struct image image;
	bool ok;

	assert(insns);
	memcpy(insns, data, n);
	if (repaired && n_insns)
		input_repair(insns, n_insns < 4096 ? n_insns : 4096);
	ok = program_to_image(insns, repaired && n_insns > 4096 ? 4096 : n_insns, ret, ret_n, refusal);
	if (repaired && n_insns)
		assert(ok && image_check(*ret, *ret_n, &image, refusal) && verify_image(&image, refusal));
	free(insns);
	return ok;
}

static inline bool input_bytes(const uint8_t *data, size_t n, void **ret, size_t *ret_n, struct refusal *refusal)
{
	const uint64_t magic = IMAGE_MAGIC;
	struct image_header *header;
	bool ok;

	if (n >= 4 && !memcmp(data, "\177ELF", 4)) {
		void *file = malloc(n);

		assert(file);
		memcpy(file, data, n);
		ok = elf_to_image(file, n, ret, ret_n, refusal);
		free(file);
		return ok;
	}
	if (n < sizeof(*header) || memcmp(data, &magic, sizeof(magic))) {
		const size_t n_word = n >= 8 && !memcmp(data, INPUT_REPAIRED, 8) ? 8 : 0;

		return input_program(data + n_word, n - n_word, n_word, ret, ret_n, refusal);
	}
	header = malloc(n);
	assert(header);
	memcpy(header, data, n);
	header->size = n;
	header->hash = image_hash(header, n);
	*ret = header;
	*ret_n = n;
	return true;
}

/* A verified image, and the bytes it lies in for free(); or a sentence was given why not, and *ret_bytes may be NULL. */
static inline bool input_image(const uint8_t *data, size_t n, void **ret_bytes, struct image *ret)
{
	struct refusal refusal = { "" };
	size_t n_bytes;

	*ret_bytes = NULL;
	if (input_bytes(data, n, ret_bytes, &n_bytes, &refusal) && image_check(*ret_bytes, n_bytes, ret, &refusal)
	    && verify_image(ret, &refusal))
		return true;
	assert(refusal.text[0]);
	return false;
}
