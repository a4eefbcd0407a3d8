/* SPDX-License-Identifier: Apache-2.0 */
#include <stdint.h>
#include "unit/worker/script.h"
#include "reference/reference.c"

/* Every class of instruction, compiled, run here, and compared with the reference interpreter. */

static const uint64_t corners[] = {
	0, 1, 2, 3, 7, 31, 32, 33, 63, 64, 65, 255, 0x7fff, 0x8000, 0xffff, 0x7fffffff, 0x80000000, 0x80000001, 0xffffffff,
	0x100000000, 0x7fffffffffffffff, 0x8000000000000000, 0x8000000000000001, 0xffffffff80000000, 0xffffffffffffffff,
	0x123456789abcdef0,
};

static const uint8_t alu_operations[] = {
	BPF_ADD, BPF_SUB, BPF_MUL, BPF_DIV, BPF_OR, BPF_AND, BPF_LSH, BPF_RSH, BPF_MOD, BPF_XOR, BPF_MOV, BPF_ARSH,
};

static void script_begin(struct script *script)
{
	script->n = script->n_results = 0;
	script_add(script, MOV(6, 1));
	script_add(script, MOV(7, 2));
	script_add(script, MOV(8, 3));
}

static void script_result(struct script *script, unsigned int reg)
{
	script_add(script, STORE(BPF_DW, 8, 8 * script->n_results++, reg));
}

static void script_alu(struct script *script, struct insn insn)
{
	script_add(script, MOV(4, 6));
	script_add(script, insn);
	script_result(script, 4);
}

/* Compiles the script and compares all results for each pair of corner values. */
static void script_run(struct script *script)
{
	static uint64_t got[256], expected[256];
	struct run *run = run_new();

	assert_true(script->n_results <= ARRAY_SIZE(got));
	script_add(script, MOV_K(0, 0));
	script_add(script, EXIT());
	run_add(run, script->insns, script->n);
	run_compile_all(run, false);
	for (unsigned int i = 0; i < ARRAY_SIZE(corners); i++)
		for (unsigned int j = 0; j < ARRAY_SIZE(corners); j++) {
			run_call(run, 0, corners[i], corners[j], (uintptr_t)got);
			run_expect(run, 0, corners[i], corners[j], (uintptr_t)expected);
			for (uint32_t k = 0; k < script->n_results; k++)
				if (got[k] != expected[k])
					fail_msg("a=%#lx b=%#lx result %u: %#lx, expected %#lx", corners[i], corners[j], k,
						 got[k], expected[k]);
		}
	run_free(run);
}

static struct insn with_off(struct insn insn, int16_t off)
{
	insn.off = off;
	return insn;
}

static void arithmetic_on_registers_agrees_in_every_corner(void **state)
{
	struct script script;

	script_begin(&script);
	for (unsigned int i = 0; i < ARRAY_SIZE(alu_operations); i++) {
		script_alu(&script, ALU64_X(alu_operations[i], 4, 7));
		script_alu(&script, ALU32_X(alu_operations[i], 4, 7));
	}
	script_alu(&script, with_off(ALU64_X(BPF_DIV, 4, 7), 1));
	script_alu(&script, with_off(ALU32_X(BPF_DIV, 4, 7), 1));
	script_alu(&script, with_off(ALU64_X(BPF_MOD, 4, 7), 1));
	script_alu(&script, with_off(ALU32_X(BPF_MOD, 4, 7), 1));
	script_alu(&script, ALU64_K(BPF_NEG, 4, 0));
	script_alu(&script, ALU32_K(BPF_NEG, 4, 0));
	script_run(&script);
}

static void arithmetic_on_immediates_agrees_in_every_corner(void **state)
{
	static const int32_t immediates[] = { 0, 1, -1, 7, 31, INT32_MAX, INT32_MIN };
	struct script script;

	script_begin(&script);
	for (unsigned int i = 0; i < ARRAY_SIZE(alu_operations); i++)
		for (unsigned int j = 0; j < ARRAY_SIZE(immediates); j++) {
			bool is_shift = alu_operations[i] == BPF_LSH || alu_operations[i] == BPF_RSH
				     || alu_operations[i] == BPF_ARSH;
			int32_t k = is_shift ? immediates[j] & 31 : immediates[j];

			script_alu(&script, ALU64_K(alu_operations[i], 4, k));
			script_alu(&script, ALU32_K(alu_operations[i], 4, k));
		}
	for (unsigned int j = 0; j < ARRAY_SIZE(immediates); j++) {
		script_alu(&script, with_off(ALU64_K(BPF_DIV, 4, immediates[j]), 1));
		script_alu(&script, with_off(ALU64_K(BPF_MOD, 4, immediates[j]), 1));
		script_alu(&script, with_off(ALU32_K(BPF_DIV, 4, immediates[j]), 1));
		script_alu(&script, with_off(ALU32_K(BPF_MOD, 4, immediates[j]), 1));
	}
	script_run(&script);
}

static void sign_extending_moves_and_byte_swaps_agree(void **state)
{
	struct script script;

	script_begin(&script);
	for (int bits = 8; bits <= 32; bits *= 2)
		script_alu(&script, with_off(MOV(4, 7), bits));
	for (int bits = 8; bits <= 16; bits *= 2)
		script_alu(&script, with_off(ALU32_X(BPF_MOV, 4, 7), bits));
	for (int bits = 16; bits <= 64; bits *= 2) {
		script_alu(&script, ALU32_K(BPF_END, 4, bits));
		script_alu(&script, ALU64_K(BPF_END, 4, bits));
		script_alu(&script, (struct insn){ .code = BPF_ALU | BPF_END | BPF_X, .dst = 4, .imm = bits });
	}
	script_run(&script);
}

static void every_condition_agrees_in_every_corner(void **state)
{
	static const uint8_t conditions[] = { BPF_JEQ, BPF_JGT, BPF_JGE, BPF_JSET, BPF_JNE, BPF_JSGT,
					      BPF_JSGE, BPF_JLT, BPF_JLE, BPF_JSLT, BPF_JSLE };
	struct script script;

	script_begin(&script);
	for (unsigned int i = 0; i < ARRAY_SIZE(conditions); i++)
		for (int form = 0; form < 8; form++) {
			uint8_t class = form & 1 ? BPF_JMP32 : BPF_JMP, source = form & 2 ? BPF_K : BPF_X;
			struct insn jump = { .code = class | conditions[i] | source, .dst = 6, .off = 1 };

			if (source == BPF_X)
				jump.src = form & 4 ? 6 : 7;
			else
				jump.imm = form & 4 ? -1 : 31;
			script_add(&script, MOV_K(4, 1));
			script_add(&script, jump);
			script_add(&script, MOV_K(4, 2));
			script_result(&script, 4);
		}
	script_add(&script, (struct insn){ .code = BPF_JMP32 | BPF_JA, .imm = 1 });
	script_add(&script, MOV_K(4, 77));
	script_result(&script, 4);
	script_run(&script);
}

static void memory_of_every_size_agrees(void **state)
{
	static const uint8_t sizes[] = { BPF_B, BPF_H, BPF_W, BPF_DW };
	struct script script;

	script_begin(&script);
	script_add(&script, STORE(BPF_DW, 10, -8, 6));
	script_add(&script, STORE(BPF_DW, 10, -16, 7));
	for (unsigned int i = 0; i < ARRAY_SIZE(sizes); i++) {
		for (int off = -16; off <= -8; off += 3) {
			script_add(&script, LOAD(sizes[i], 4, 10, off));
			script_result(&script, 4);
			if (sizes[i] == BPF_DW)
				continue;
			script_add(&script, LOADSX(sizes[i], 4, 10, off));
			script_result(&script, 4);
		}
		script_add(&script, STORE(sizes[i], 10, -13, 6));
		script_add(&script, STORE_K(sizes[i], 10, -11, -2));
		script_add(&script, LOAD(BPF_DW, 4, 10, -16));
		script_result(&script, 4);
	}
	script_run(&script);
}

static void atomics_agree_in_every_corner(void **state)
{
	static const uint16_t operations[] = { BPF_ADD, BPF_OR, BPF_AND, BPF_XOR, BPF_ADD | BPF_FETCH, BPF_OR | BPF_FETCH,
					       BPF_AND | BPF_FETCH, BPF_XOR | BPF_FETCH, BPF_XCHG, BPF_CMPXCHG };
	struct script script;

	script_begin(&script);
	for (unsigned int i = 0; i < ARRAY_SIZE(operations); i++)
		for (int wide = 0; wide < 2; wide++) {
			script_add(&script, STORE(BPF_DW, 10, -8, 6));
			script_add(&script, MOV(0, 6));
			script_add(&script, MOV(4, 7));
			script_add(&script, ATOMIC(wide ? BPF_DW : BPF_W, operations[i], 10, -8, 4));
			script_result(&script, 0);
			script_result(&script, 4);
			script_add(&script, LOAD(BPF_DW, 4, 10, -8));
			script_result(&script, 4);
		}
	for (unsigned int size = 0; size <= BPF_DW; size += 8) {
		script_add(&script, STORE(BPF_DW, 10, -8, 6));
		script_add(&script, ATOMIC(size, BPF_LOAD_ACQ, 4, -8, 10));
		script_result(&script, 4);
		script_add(&script, ATOMIC(size, BPF_STORE_REL, 10, -8, 7));
		script_add(&script, LOAD(BPF_DW, 4, 10, -8));
		script_result(&script, 4);
	}
	script_run(&script);
}

static void a_failed_compare_exchange_returns_what_was_there(void **state)
{
	struct run *run = run_new();
	uint64_t word = 5;

	RUN_ADD(run, MOV_K(0, 4), ATOMIC(BPF_DW, BPF_CMPXCHG, 1, 0, 2), EXIT());
	run_compile_all(run, false);
	assert_int_equal(run_call(run, 0, (uintptr_t)&word, 9, 0), 5);
	assert_int_equal(word, 5);
	run_free(run);
}

static void a_loop_over_memory_sums_it(void **state)
{
	struct run *run = run_new();
	uint64_t words[100], sum = 0;

	for (int i = 0; i < 100; i++)
		sum += words[i] = 1ull << (i % 60);
	RUN_ADD(run, MOV_K(0, 0), JUMP_K(BPF_JEQ, 2, 0, 5), LOAD(BPF_DW, 3, 1, 0), ALU64_X(BPF_ADD, 0, 3),
		ALU64_K(BPF_ADD, 1, 8), ALU64_K(BPF_ADD, 2, -1), JUMP_K(BPF_JNE, 2, 0, -5), EXIT());
	run_compile_all(run, false);
	assert_int_equal(run_call(run, 0, (uintptr_t)words, 100, 0), sum);
	assert_int_equal(run_call(run, 0, 0, 0, 0), 0);
	run_free(run);
}

static void a_pointer_survives_in_either_operand_of_a_sum(void **state)
{
	struct run *run = run_new();
	uint8_t bytes[] = { 10, 20, 30, 40 };

	RUN_ADD(run, MOV(3, 2), ALU64_X(BPF_ADD, 3, 1), LOAD(BPF_B, 0, 3, 0), ALU64_X(BPF_SUB, 3, 2), LOAD(BPF_B, 4, 3, 1),
		ALU64_X(BPF_ADD, 0, 4), EXIT());
	run_compile_all(run, false);
	assert_int_equal(run_call(run, 0, (uintptr_t)bytes, 2, 0), 30 + 20);
	run_free(run);
}

/* Where paths meet, one with a pointer into the frame and one with a loaded address, only the integer is common. */
static void paths_with_and_without_a_known_base_meet(void **state)
{
	struct run *run = run_new();
	uint64_t word = 42, pointer = (uintptr_t)&word;

	RUN_ADD(run, STORE_K(BPF_DW, 10, -8, 7), MOV(4, 10), ALU64_K(BPF_ADD, 4, -8), JUMP_K(BPF_JEQ, 2, 0, 1),
		LOAD(BPF_DW, 4, 1, 0), LOAD(BPF_DW, 0, 4, 0), STORE_K(BPF_DW, 4, 0, 8), LOAD(BPF_DW, 5, 10, -8),
		ALU64_K(BPF_LSH, 5, 8), ALU64_X(BPF_OR, 0, 5), EXIT());
	run_compile_all(run, false);
	assert_int_equal(run_call(run, 0, (uintptr_t)&pointer, 0, 0), 7 | 8 << 8);
	assert_int_equal(run_call(run, 0, (uintptr_t)&pointer, 1, 0), 42 | 7 << 8);
	assert_int_equal(word, 8);
	run_free(run);
}

static void segments_are_reached_with_their_offsets(void **state)
{
	struct run *run = run_new();

	*(uint64_t *)(run->span + RUN_RODATA + 24) = 1000;
	*(uint64_t *)(run->span + RUN_DATA + 8) = 200;
	RUN_ADD(run, LDDW(1, INSN_REF_RODATA, 16, 0), LOAD(BPF_DW, 0, 1, 8), LDDW(2, INSN_REF_DATA, 8, 0),
		LOAD(BPF_DW, 3, 2, 0), ALU64_X(BPF_ADD, 0, 3), LDDW(4, INSN_REF_BSS, 4088, 0), STORE(BPF_DW, 4, 0, 0), EXIT());
	run_compile_all(run, false);
	assert_int_equal(run_call(run, 0, 0, 0, 0), 1200);
	assert_int_equal(*(uint64_t *)(run->span + RUN_BSS + 4088), 1200);
	assert_int_equal(run_expect(run, 0, 0, 0, 0), 1200);
	run_free(run);
}

static void a_wide_immediate_keeps_its_64_bits(void **state)
{
	struct run *run = run_new();

	RUN_ADD(run, LDDW(0, INSN_REF_NONE, (int32_t)0x9abcdef0, 0x12345678), EXIT());
	run_compile_all(run, false);
	assert_int_equal(run_call(run, 0, 0, 0, 0), 0x123456789abcdef0);
	run_free(run);
}

static void registers_that_hold_nothing_yet_are_zero(void **state)
{
	struct run *run = run_new();

	RUN_ADD(run, ALU64_X(BPF_ADD, 0, 6), ALU64_X(BPF_ADD, 0, 9), EXIT());
	run_compile_all(run, false);
	assert_int_equal(run_call(run, 0, 1, 2, 3), 0);
	run_free(run);
}

/* -- Random programs ----------------------------------------------------------------------------------------------- */
static uint64_t random_state;

static uint32_t pick(uint32_t n)
{
	random_state = random_state * 6364136223846793005u + 1442695040888963407u;
	return (random_state >> 33) % n;
}

/* r0..r5 hold anything, r6 points into the frame, r7 and r8 as in a script, r9 counts */
static void random_insn(struct script *script)
{
	uint8_t dst = pick(6), src = pick(7), op = alu_operations[pick(ARRAY_SIZE(alu_operations))], size = pick(4) << 3;
	bool is_shift = op == BPF_LSH || op == BPF_RSH || op == BPF_ARSH;

	switch (pick(8)) {
	case 0:
		script_add(script, ALU64_X(op, dst, src));
		return;
	case 1:
		script_add(script, ALU32_X(op, dst, pick(6)));
		return;
	case 2:
		script_add(script, ALU64_K(op, dst, is_shift ? pick(64) : pick(1000) - 500));
		return;
	case 3:
		script_add(script, STORE(size, 10, -8 * (1 + pick(8)), pick(6)));
		return;
	case 4:
		script_add(script, LOAD(size, dst, 6, pick(56)));
		return;
	case 5:
		script_add(script, STORE(size, 6, pick(56), pick(6)));
		return;
	case 6:
		script_add(script, MOV(6, 10));
		script_add(script, ALU64_K(BPF_ADD, 6, -64));
		return;
	default:
		script_add(script, JUMP_X(BPF_JSGT, dst, src == 6 ? 0 : src, 1));
		script_add(script, ALU64_X(BPF_XOR, pick(6), pick(6)));
	}
}

/* Addresses of the two frames differ, so nothing that was computed from one may be compared: r6 is copied nowhere. */
static bool is_address(const struct insn *insn)
{
	return BPF_CLASS(insn->code) == BPF_ALU64 && BPF_SRC(insn->code) == BPF_X && insn->src == 6;
}

static void random_script(struct script *script)
{
	uint32_t head;

	script->n = script->n_results = 0;
	script_add(script, MOV(8, 3));
	for (int off = -64; off < 0; off += 8)
		script_add(script, STORE(BPF_DW, 10, off, 1 + pick(2)));
	script_add(script, MOV_K(0, 0));
	script_add(script, MOV_K(9, 5));
	script_add(script, MOV(6, 10));
	script_add(script, ALU64_K(BPF_ADD, 6, -64));
	script_add(script, MOV_K(3, 3));
	script_add(script, MOV_K(4, 4));
	script_add(script, MOV_K(5, 5));
	head = script->n;
	for (int i = 0; i < 40; i++) {
		uint32_t before = script->n;

		random_insn(script);
		if (is_address(&script->insns[before]))
			script->insns[before].src = 1;
	}
	script_add(script, ALU64_K(BPF_ADD, 9, -1));
	script_add(script, JUMP_K(BPF_JNE, 9, 0, (int)head - (int)script->n - 1));
	for (unsigned int reg = 0; reg < 6; reg++)
		script_result(script, reg);
	for (int off = -64; off < 0; off += 8) {
		script_add(script, LOAD(BPF_DW, 1, 10, off));
		script_result(script, 1);
	}
}

static void random_programs_agree(void **state)
{
	int n = getenv("TIER_TEST_LONG") ? 2000 : 60;
	struct script script;

	for (int i = 0; i < n; i++) {
		random_state = 1000 + i;
		random_script(&script);
		script_run(&script);
	}
}

static int setup(void **state)
{
	return codegen_init();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(arithmetic_on_registers_agrees_in_every_corner),
		cmocka_unit_test(arithmetic_on_immediates_agrees_in_every_corner),
		cmocka_unit_test(sign_extending_moves_and_byte_swaps_agree),
		cmocka_unit_test(every_condition_agrees_in_every_corner),
		cmocka_unit_test(memory_of_every_size_agrees),
		cmocka_unit_test(atomics_agree_in_every_corner),
		cmocka_unit_test(a_failed_compare_exchange_returns_what_was_there),
		cmocka_unit_test(a_loop_over_memory_sums_it),
		cmocka_unit_test(a_pointer_survives_in_either_operand_of_a_sum),
		cmocka_unit_test(paths_with_and_without_a_known_base_meet),
		cmocka_unit_test(segments_are_reached_with_their_offsets),
		cmocka_unit_test(a_wide_immediate_keeps_its_64_bits),
		cmocka_unit_test(registers_that_hold_nothing_yet_are_zero),
		cmocka_unit_test(random_programs_agree),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
