/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "bytecode/verify.h"
#include "code.h"

/* -- A method of the given instructions: legal, or refused with a word --- */

static void check(const struct insn *insns, uint32_t n, const char *word, int line)
{
	struct refusal refusal = {};
	struct image image;
	void *bytes;
	bool legal;

	image = code_image(&bytes, insns, n);
	legal = verify_image(&image, &refusal);
	free(bytes);
	if (!word && !legal)
		fail_msg("line %d: refused: %s", line, refusal.text);
	if (word && legal)
		fail_msg("line %d: accepted, not refused for '%s'", line, word);
	if (word && (!strstr(refusal.text, word) || !strstr(refusal.text, "section '.text', offset 0x")))
		fail_msg("line %d: '%s' does not say '%s'", line, refusal.text, word);
}

#define LEGAL(...)                                                                                                     \
	do {                                                                                                           \
		const struct insn _insns[] = { __VA_ARGS__ };                                                          \
		check(_insns, sizeof(_insns) / sizeof(*_insns), NULL, __LINE__);                                       \
	} while (0)
#define REFUSED(word, ...)                                                                                             \
	do {                                                                                                           \
		const struct insn _insns[] = { __VA_ARGS__ };                                                          \
		check(_insns, sizeof(_insns) / sizeof(*_insns), word, __LINE__);                                       \
	} while (0)

static void exactly_the_opcodes_of_the_rfc_are_known(void **state)
{
	unsigned int n_known = 0;

	for (unsigned int code = 0; code < 256; code++) {
		struct insn insns[] = { INSN(code, 1, 0, 0, 0), INSN(0, 0, 0, 0, 0), EXIT };
		struct refusal refusal = {};
		struct image image;
		void *bytes;

		image = code_image(&bytes, insns, 3);
		verify_image(&image, &refusal);
		n_known += !strstr(refusal.text, "offset 0x40, method 'm', opcode") || !strstr(refusal.text, "unknown opcode");
		free(bytes);
	}
	/* ALU 12 * 2, neg, le, be; ALU64 12 * 2, neg, bswap; JMP 11 * 2, ja, call, callx, exit; JMP32 11 * 2, gotol; lddw;
	 * 6 for packets; LDX 4 and 3 sign-extending; ST 4; STX 4 and 4 atomic */
	assert_int_equal(n_known, 27 + 26 + 26 + 23 + 1 + 6 + 7 + 4 + 8);
}

static void unknown_opcodes_are_refused(void **state)
{
	REFUSED("unknown opcode", INSN(0x00, 0, 0, 0, 0), EXIT);
	REFUSED("unknown opcode", INSN(BPF_ALU64 | BPF_NEG | BPF_X, 1, 0, 0, 0), EXIT);
	REFUSED("unknown opcode", INSN(BPF_ALU64 | BPF_END | BPF_X, 1, 0, 0, 16), EXIT);
	REFUSED("unknown opcode", INSN(BPF_ALU | 0xe0, 1, 0, 0, 0), EXIT);
	REFUSED("unknown opcode", INSN(BPF_JMP32 | BPF_CALL, 0, 1, 0, 0), EXIT);
	REFUSED("unknown opcode", INSN(BPF_JMP32 | BPF_EXIT, 0, 0, 0, 0), EXIT);
	REFUSED("unknown opcode", INSN(BPF_JMP | BPF_EXIT | BPF_X, 0, 0, 0, 0), EXIT);
	REFUSED("unknown opcode", INSN(BPF_JMP | 0xe0, 0, 0, 0, 0), EXIT);
	REFUSED("unknown opcode", INSN(BPF_LDX | BPF_MEMSX | BPF_DW, 1, 2, 0, 0), EXIT);
	REFUSED("opcode 0xff", INSN(0xff, 0, 0, 0, 0), EXIT);
}

static void unused_fields_must_be_zero(void **state)
{
	LEGAL(ALU_K(BPF_ADD, 1, 5), EXIT);
	REFUSED("source register is 2", INSN(BPF_ALU64 | BPF_ADD | BPF_K, 1, 2, 0, 5), EXIT);
	REFUSED("offset is 1", INSN(BPF_ALU64 | BPF_ADD | BPF_K, 1, 0, 1, 5), EXIT);
	LEGAL(ALU_X(BPF_ADD, 1, 2), EXIT);
	REFUSED("immediate is 5", INSN(BPF_ALU64 | BPF_ADD | BPF_X, 1, 2, 0, 5), EXIT);
	REFUSED("offset is 8", INSN(BPF_ALU64 | BPF_MOV | BPF_K, 1, 0, 8, 5), EXIT);
	REFUSED("immediate is 1", INSN(BPF_ALU64 | BPF_NEG, 1, 0, 0, 1), EXIT);
	REFUSED("immediate is 9", INSN(BPF_LDX | BPF_MEM | BPF_B, 1, 2, 0, 9), EXIT);
	REFUSED("source register is 3", INSN(BPF_ST | BPF_MEM | BPF_B, 1, 3, 0, 9), EXIT);
	REFUSED("immediate is 9", INSN(BPF_STX | BPF_MEM | BPF_B, 1, 3, 0, 9), EXIT);
	REFUSED("destination register is 1", INSN(BPF_JMP | BPF_JA, 1, 0, 0, 0), EXIT);
	REFUSED("immediate is 1", INSN(BPF_JMP | BPF_JA, 0, 0, 0, 1), EXIT);
	REFUSED("offset is 1", INSN(BPF_JMP32 | BPF_JA, 0, 0, 1, 0), EXIT);
	REFUSED("immediate is 1", INSN(BPF_JMP | BPF_JEQ | BPF_X, 1, 2, 0, 1), EXIT);
	REFUSED("source register is 2", INSN(BPF_JMP | BPF_JEQ | BPF_K, 1, 2, 0, 1), EXIT);
	REFUSED("destination register is 1", INSN(BPF_JMP | BPF_CALL, 1, INSN_CALL_METHOD, 0, 1), EXIT);
	REFUSED("offset is 1", INSN(BPF_JMP | BPF_CALL, 0, INSN_CALL_METHOD, 1, 1), EXIT);
	REFUSED("immediate is 3", INSN(BPF_JMP | BPF_CALL | BPF_X, 0, 0, 0, 3), EXIT);
	REFUSED("immediate is 1", INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 1));
	REFUSED("source register is 1", INSN(BPF_JMP | BPF_EXIT, 0, 1, 0, 0));
	REFUSED("offset is 1", INSN(BPF_LDDW, 1, 0, 1, 0), INSN(0, 0, 0, 0, 0), EXIT);
}

static void every_operation_has_both_widths_and_sources(void **state)
{
	static const uint8_t operations[] = { BPF_ADD, BPF_SUB, BPF_MUL, BPF_DIV, BPF_OR, BPF_AND, BPF_LSH, BPF_RSH, BPF_MOD,
					      BPF_XOR, BPF_MOV, BPF_ARSH };
	static const uint8_t conditions[] = { BPF_JEQ, BPF_JGT, BPF_JGE, BPF_JSET, BPF_JNE, BPF_JSGT, BPF_JSGE, BPF_JLT,
					      BPF_JLE, BPF_JSLT, BPF_JSLE };

	for (size_t i = 0; i < sizeof(operations); i++)
		LEGAL(INSN(BPF_ALU | BPF_K | operations[i], 1, 0, 0, -1), INSN(BPF_ALU | BPF_X | operations[i], 1, 2, 0, 0),
		      INSN(BPF_ALU64 | BPF_K | operations[i], 1, 0, 0, -1), INSN(BPF_ALU64 | BPF_X | operations[i], 1, 10, 0, 0),
		      EXIT);
	for (size_t i = 0; i < sizeof(conditions); i++)
		LEGAL(INSN(BPF_JMP | BPF_K | conditions[i], 1, 0, 0, -1), INSN(BPF_JMP | BPF_X | conditions[i], 1, 10, 0, 0),
		      INSN(BPF_JMP32 | BPF_K | conditions[i], 10, 0, 0, -1), INSN(BPF_JMP32 | BPF_X | conditions[i], 1, 2, 0, 0),
		      EXIT);
	LEGAL(INSN(BPF_ALU | BPF_NEG, 1, 0, 0, 0), INSN(BPF_ALU64 | BPF_NEG, 1, 0, 0, 0), EXIT);
}

static void shifts_and_zero_divisors_are_legal(void **state)
{
	LEGAL(ALU_K(BPF_LSH, 1, 64), ALU_K(BPF_DIV, 1, 0), ALU_K(BPF_MOD, 1, 0), EXIT);
}

static void division_is_unsigned_or_signed(void **state)
{
	LEGAL(INSN(BPF_ALU64 | BPF_DIV | BPF_X, 1, 2, 1, 0), INSN(BPF_ALU | BPF_MOD | BPF_K, 1, 0, 1, 7), EXIT);
	REFUSED("neither 0", INSN(BPF_ALU64 | BPF_DIV | BPF_X, 1, 2, 2, 0), EXIT);
	REFUSED("neither 0", INSN(BPF_ALU | BPF_MOD | BPF_K, 1, 0, -1, 7), EXIT);
}

static void moves_sign_extend_from_narrower_widths(void **state)
{
	for (int bits = 8; bits <= 32; bits *= 2)
		LEGAL(INSN(BPF_ALU64 | BPF_MOV | BPF_X, 1, 2, bits, 0), EXIT);
	LEGAL(INSN(BPF_ALU | BPF_MOV | BPF_X, 1, 2, 8, 0), INSN(BPF_ALU | BPF_MOV | BPF_X, 1, 2, 16, 0), EXIT);
	REFUSED("from 32 bits to 32", INSN(BPF_ALU | BPF_MOV | BPF_X, 1, 2, 32, 0), EXIT);
	REFUSED("from 64 bits to 64", INSN(BPF_ALU64 | BPF_MOV | BPF_X, 1, 2, 64, 0), EXIT);
	REFUSED("from 9 bits", INSN(BPF_ALU64 | BPF_MOV | BPF_X, 1, 2, 9, 0), EXIT);
}

static void bytes_are_swapped_in_three_widths(void **state)
{
	static const uint8_t codes[] = { BPF_ALU | BPF_END, BPF_ALU | BPF_END | BPF_X, BPF_ALU64 | BPF_END };

	for (size_t i = 0; i < sizeof(codes); i++) {
		LEGAL(INSN(codes[i], 1, 0, 0, 16), INSN(codes[i], 1, 0, 0, 32), INSN(codes[i], 1, 0, 0, 64), EXIT);
		REFUSED("8 bits", INSN(codes[i], 1, 0, 0, 8), EXIT);
		REFUSED("0 bits", INSN(codes[i], 1, 0, 0, 0), EXIT);
	}
}

static void registers_end_at_r10(void **state)
{
	LEGAL(MOV_X(9, 10), EXIT);
	REFUSED("beyond the fifth (register r11)", MOV_X(1, 11), EXIT);
	REFUSED("beyond the fifth (register r11)", STX(BPF_DW, 11, -8, 1), EXIT);
	REFUSED("no register r12", MOV_X(1, 12), EXIT);
	REFUSED("no register r15", MOV_K(15, 0), EXIT);
	REFUSED("no register r12", CALLX(12), EXIT);
	REFUSED("no register r13", INSN(BPF_JMP | BPF_JEQ | BPF_X, 1, 13, 0, 0), EXIT);
}

static void r10_is_never_written(void **state)
{
	LEGAL(MOV_K(9, 1), LDX(BPF_DW, 9, 10, -8), STX(BPF_DW, 10, -8, 10), EXIT);
	REFUSED("read-only", MOV_K(10, 1), EXIT);
	REFUSED("read-only", ALU_K(BPF_ADD, 10, 8), EXIT);
	REFUSED("read-only", INSN(BPF_ALU64 | BPF_NEG, 10, 0, 0, 0), EXIT);
	REFUSED("read-only", LDX(BPF_DW, 10, 1, 0), EXIT);
	REFUSED("read-only", LDDW(10, 0, 0, 0), EXIT);
	LEGAL(ATOMIC(BPF_DW, 1, 0, 10, BPF_ADD), EXIT);
	REFUSED("read-only", ATOMIC(BPF_DW, 1, 0, 10, BPF_ADD | BPF_FETCH), EXIT);
	REFUSED("read-only", ATOMIC(BPF_DW, 1, 0, 10, BPF_XCHG), EXIT);
	LEGAL(ATOMIC(BPF_DW, 1, 0, 10, BPF_CMPXCHG), EXIT);
	REFUSED("read-only", ATOMIC(BPF_DW, 10, 0, 1, BPF_LOAD_ACQ), EXIT);
}

static void the_frame_has_512_bytes(void **state)
{
	LEGAL(STX(BPF_DW, 10, -512, 1), LDX(BPF_B, 0, 10, -1), ST(BPF_W, 10, -4, 1), LDX(BPF_H, 0, 10, -2), EXIT);
	REFUSED("8 bytes at r10-513", STX(BPF_DW, 10, -513, 1), EXIT);
	REFUSED("8 bytes at r10-7", LDX(BPF_DW, 0, 10, -7), EXIT);
	REFUSED("1 bytes at r10+0", LDX(BPF_B, 0, 10, 0), EXIT);
	REFUSED("4 bytes at r10-3", ST(BPF_W, 10, -3, 1), EXIT);
	REFUSED("2 bytes at r10-1", INSN(BPF_LDX | BPF_MEMSX | BPF_H, 0, 10, -1, 0), EXIT);
	REFUSED("4 bytes at r10+8", ATOMIC(BPF_W, 10, 8, 1, BPF_ADD), EXIT);
	LEGAL(ATOMIC(BPF_B, 1, -1, 10, BPF_LOAD_ACQ), EXIT);
	REFUSED("1 bytes at r10+0", ATOMIC(BPF_B, 1, 0, 10, BPF_LOAD_ACQ), EXIT);
	REFUSED("8 bytes at r10-520", ATOMIC(BPF_DW, 10, -520, 1, BPF_STORE_REL), EXIT);
	LEGAL(LDX(BPF_DW, 0, 1, 0x7fff), STX(BPF_DW, 1, -0x8000, 0), EXIT);
}

static void atomics_are_those_of_the_rfc(void **state)
{
	static const int operations[] = { BPF_ADD, BPF_OR, BPF_AND, BPF_XOR, BPF_ADD | BPF_FETCH, BPF_OR | BPF_FETCH,
					  BPF_AND | BPF_FETCH, BPF_XOR | BPF_FETCH, BPF_XCHG, BPF_CMPXCHG };

	for (size_t i = 0; i < sizeof(operations) / sizeof(*operations); i++) {
		LEGAL(ATOMIC(BPF_W, 1, 0, 2, operations[i]), ATOMIC(BPF_DW, 1, 0, 2, operations[i]), EXIT);
		REFUSED("4 or 8 bytes", ATOMIC(BPF_H, 1, 0, 2, operations[i]), EXIT);
		REFUSED("4 or 8 bytes", ATOMIC(BPF_B, 1, 0, 2, operations[i]), EXIT);
	}
	LEGAL(ATOMIC(BPF_B, 1, 0, 2, BPF_LOAD_ACQ), ATOMIC(BPF_H, 1, 0, 2, BPF_LOAD_ACQ), ATOMIC(BPF_W, 1, 0, 2, BPF_LOAD_ACQ),
	      ATOMIC(BPF_DW, 1, 0, 2, BPF_LOAD_ACQ), EXIT);
	LEGAL(ATOMIC(BPF_B, 1, 0, 2, BPF_STORE_REL), ATOMIC(BPF_H, 1, 0, 2, BPF_STORE_REL),
	      ATOMIC(BPF_W, 1, 0, 2, BPF_STORE_REL), ATOMIC(BPF_DW, 1, 0, 2, BPF_STORE_REL), EXIT);
	REFUSED("unknown atomic operation 0x10", ATOMIC(BPF_DW, 1, 0, 2, BPF_SUB), EXIT);
	REFUSED("unknown atomic operation 0xe0", ATOMIC(BPF_DW, 1, 0, 2, 0xe0), EXIT);
	REFUSED("unknown atomic operation 0xf0", ATOMIC(BPF_DW, 1, 0, 2, 0xf0), EXIT);
	REFUSED("unknown atomic operation 0x101", ATOMIC(BPF_DW, 1, 0, 2, 0x101), EXIT);
	REFUSED("unknown atomic operation 0x120", ATOMIC(BPF_DW, 1, 0, 2, 0x120), EXIT);
}

static void jumps_stay_inside_the_method(void **state)
{
	LEGAL(JA(1), EXIT, JA(-2));
	REFUSED("to instruction 2 of 2", JA(1), EXIT);
	REFUSED("to instruction -1 of 2", EXIT, JA(-3));
	REFUSED("outside the method", JMP_K(BPF_JEQ, 1, 0, 0x7fff), EXIT);
	LEGAL(INSN(BPF_JMP32 | BPF_JSLE | BPF_K, 1, 0, -1, 3), EXIT);
	LEGAL(GOTOL(0), EXIT);
	REFUSED("to instruction 2147483648 of 2", GOTOL(0x7fffffff), EXIT);
	REFUSED("outside the method", GOTOL((int32_t)0x80000000), EXIT);
}

static void jumps_never_lead_into_a_16_byte_instruction(void **state)
{
	LEGAL(JA(2), LDDW(1, 0, 0, 0), EXIT);
	LEGAL(JA(0), LDDW(1, 0, 0, 0), EXIT);
	REFUSED("second half of the 16-byte instruction 1", JA(1), LDDW(1, 0, 0, 0), EXIT);
	REFUSED("second half of the 16-byte instruction 0", LDDW(1, 0, 0, 0), JMP_K(BPF_JNE, 1, 0, -2), EXIT);
	REFUSED("second half", GOTOL(1), LDDW(1, 0, 0, 0), EXIT);
}

static void a_method_ends_in_exit_or_a_jump(void **state)
{
	LEGAL(EXIT);
	LEGAL(EXIT, JA(-2));
	LEGAL(EXIT, GOTOL(-2));
	REFUSED("runs off the end", MOV_K(0, 0));
	REFUSED("runs off the end", EXIT, JMP_K(BPF_JEQ, 0, 0, -2));
	REFUSED("runs off the end", EXIT, CALL(INSN_CALL_METHOD, 1));
	REFUSED("runs off the end", EXIT, LDDW(0, 0, 0, 0));
	REFUSED("runs off the end", EXIT, CALLX(1));
}

static void a_16_byte_instruction_is_whole(void **state)
{
	LEGAL(LDDW(1, 0, -1, -1), EXIT);
	REFUSED("second half is missing", EXIT, INSN(BPF_LDDW, 1, 0, 0, 0));
	REFUSED("fields that are not 0", INSN(BPF_LDDW, 1, 0, 0, 0), EXIT);
	REFUSED("fields that are not 0", INSN(BPF_LDDW, 1, 0, 0, 0), INSN(0, 1, 0, 0, 0), EXIT);
	REFUSED("fields that are not 0", INSN(BPF_LDDW, 1, 0, 0, 0), INSN(0, 0, 1, 0, 0), EXIT);
	REFUSED("fields that are not 0", INSN(BPF_LDDW, 1, 0, 0, 0), INSN(0, 0, 0, 1, 0), EXIT);
}

static void references_name_what_exists(void **state)
{
	LEGAL(LDDW(1, INSN_REF_METHOD, 0, 1), LDDW(1, INSN_REF_IMPORT, 0, 1), EXIT);
	LEGAL(LDDW(1, INSN_REF_RODATA, 64, 0), LDDW(1, INSN_REF_DATA, 32, 0), LDDW(1, INSN_REF_BSS, 16, 0), EXIT);
	REFUSED("refers to nothing", LDDW(1, INSN_REF_METHOD, 0, 2), EXIT);
	REFUSED("refers to nothing", LDDW(1, INSN_REF_METHOD, 0, -1), EXIT);
	REFUSED("refers to nothing", LDDW(1, INSN_REF_METHOD, 8, 1), EXIT);
	REFUSED("refers to nothing", LDDW(1, INSN_REF_IMPORT, 0, 2), EXIT);
	REFUSED("refers to nothing", LDDW(1, INSN_REF_RODATA, 65, 0), EXIT);
	REFUSED("refers to nothing", LDDW(1, INSN_REF_RODATA, -1, 0), EXIT);
	REFUSED("refers to nothing", LDDW(1, INSN_REF_RODATA, 0, 1), EXIT);
	REFUSED("refers to nothing", LDDW(1, INSN_REF_DATA, 33, 0), EXIT);
	REFUSED("refers to nothing", LDDW(1, INSN_REF_BSS, 17, 0), EXIT);
	REFUSED("unknown kind 6", LDDW(1, 6, 0, 0), EXIT);
}

static void calls_name_what_exists(void **state)
{
	LEGAL(CALL(INSN_CALL_METHOD, 1), CALL(INSN_CALL_IMPORT, 1), CALLX(9), CALLX(10), EXIT);
	REFUSED("method 2 of 2", CALL(INSN_CALL_METHOD, 2), EXIT);
	REFUSED("method 4294967295 of 2", CALL(INSN_CALL_METHOD, -1), EXIT);
	REFUSED("import 2 of 2", CALL(INSN_CALL_IMPORT, 2), EXIT);
	REFUSED("unknown kind 3 of call", CALL(3, 0), EXIT);
}

static void what_belongs_to_the_kernel_is_refused_by_a_sentence(void **state)
{
	REFUSED("calls kernel helper 5", CALL(INSN_CALL_HELPER, 5), EXIT);
	REFUSED("legacy packet access", INSN(BPF_LD | BPF_ABS | BPF_W, 0, 0, 0, 0), EXIT);
	REFUSED("legacy packet access", INSN(BPF_LD | BPF_IND | BPF_B, 0, 1, 0, 0), EXIT);
}

static void a_refusal_says_where_and_what(void **state)
{
	const struct insn insns[] = { MOV_K(0, 1), LDDW(1, 0, 0, 0), MOV_K(10, 1), EXIT };
	struct refusal refusal = {};
	struct image image;
	void *bytes;

	image = code_image(&bytes, insns, 5);
	assert_false(verify_method(&image, 0, &refusal));
	assert_string_equal(refusal.text, "section '.text', offset 0x58, method 'm', opcode 0xb7: writes to r10, the frame "
					  "pointer, which is read-only");
	assert_true(verify_method(&image, 1, &refusal));
	free(bytes);
}

static double seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static void a_million_instructions_take_well_under_a_second(void **state)
{
	const uint32_t n = 1000000;
	struct insn *insns = malloc(n * sizeof(*insns));
	struct refusal refusal = {};
	struct image image;
	double begin;
	void *bytes;

	for (uint32_t i = 0; i < n - 1; i++)
		insns[i] = i % 4 == 3 ? JMP_K(BPF_JNE, 1, 0, i % 8 == 7 ? -8 : 1) : ALU_K(BPF_ADD, i % 10, i);
	insns[n - 2] = MOV_K(0, 0);
	insns[n - 1] = EXIT;
	image = code_image(&bytes, insns, n);
	begin = seconds();
	if (!verify_image(&image, &refusal))
		fail_msg("%s", refusal.text);
	assert_true(seconds() - begin < 0.5);
	free(bytes);
	free(insns);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(exactly_the_opcodes_of_the_rfc_are_known),
		cmocka_unit_test(unknown_opcodes_are_refused),
		cmocka_unit_test(unused_fields_must_be_zero),
		cmocka_unit_test(every_operation_has_both_widths_and_sources),
		cmocka_unit_test(shifts_and_zero_divisors_are_legal),
		cmocka_unit_test(division_is_unsigned_or_signed),
		cmocka_unit_test(moves_sign_extend_from_narrower_widths),
		cmocka_unit_test(bytes_are_swapped_in_three_widths),
		cmocka_unit_test(registers_end_at_r10),
		cmocka_unit_test(r10_is_never_written),
		cmocka_unit_test(the_frame_has_512_bytes),
		cmocka_unit_test(atomics_are_those_of_the_rfc),
		cmocka_unit_test(jumps_stay_inside_the_method),
		cmocka_unit_test(jumps_never_lead_into_a_16_byte_instruction),
		cmocka_unit_test(a_method_ends_in_exit_or_a_jump),
		cmocka_unit_test(a_16_byte_instruction_is_whole),
		cmocka_unit_test(references_name_what_exists),
		cmocka_unit_test(calls_name_what_exists),
		cmocka_unit_test(what_belongs_to_the_kernel_is_refused_by_a_sentence),
		cmocka_unit_test(a_refusal_says_where_and_what),
		cmocka_unit_test(a_million_instructions_take_well_under_a_second),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
