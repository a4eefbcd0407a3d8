/* SPDX-License-Identifier: Apache-2.0 */
#include "unit/jit/world.c"

/* Every operation on every pair of registers, against the reference
 *
 * A program loads all of r0..r9 from memory, runs one operation, and ends in one of two ways: everything is stored back
 * (all registers are live after the operation: nothing else may change), or only the destination is returned (nothing else
 * is live: the template may take what it wants). */

enum { N_RUNS = 24, N_CELLS = 16 };

/* what programs work on: r0..r9 in and out, then cells for memory operations */
static uint64_t context[16 + N_CELLS] __attribute__((aligned(64)));
static uint64_t *const cells = context + 16;

static void load_all(struct program *program)
{
	ADD(program, STORE(BPF_DW, 10, -8, 1), LOAD(BPF_DW, 0, 1, 0));
	for (int reg = 9; reg >= 1; reg--)
		ADD(program, LOAD(BPF_DW, reg, 1, reg * 8));
}

static void store_all(struct program *program)
{
	ADD(program, STORE(BPF_DW, 10, -16, 0), LOAD(BPF_DW, 0, 10, -8));
	for (int reg = 1; reg <= 9; reg++)
		ADD(program, STORE(BPF_DW, 0, reg * 8, reg));
	ADD(program, LOAD(BPF_DW, 1, 10, -16), STORE(BPF_DW, 0, 0, 1), MOVI(0, 0), EXIT());
}

/* Native and interpreted from the same context: same result, same context afterwards. */
static void compare(struct world *w, const struct insn *insn)
{
	const uint64_t args[5] = { (uintptr_t)context, 2, 3, 4, 5 };
	uint64_t before[ARRAY_SIZE(context)], native[ARRAY_SIZE(context)], result, expected;

	memcpy(before, context, sizeof(context));
	result = world_run(w, 0, args);
	memcpy(native, context, sizeof(context));
	memcpy(context, before, sizeof(context));
	expected = world_interpret(w, 0, args);
	if (result == expected && !memcmp(native, context, sizeof(context)))
		return;
	print_error("code 0x%02x dst %u src %u off %d imm %d\n", insn->code, insn->dst, insn->src, insn->off, insn->imm);
	for (size_t i = 0; i < ARRAY_SIZE(context); i++)
		print_error("%2zu: %016llx -> native %016llx reference %016llx\n", i, (unsigned long long)before[i],
			    (unsigned long long)native[i], (unsigned long long)context[i]);
	fail_msg("native returned 0x%llx, the reference 0x%llx", (unsigned long long)result, (unsigned long long)expected);
}

static void fill(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(context); i++)
		context[i] = random_value();
}

/* The two values that matter get the pairs that trap or wrap, each in turn, then anything. */
static void fill_pair(const struct insn *insn, int run)
{
	static const uint64_t pairs[][2] = {
		{ 0x8000000000000000, -1 }, { 0x80000000, -1 }, { 0x80000000, 0xffffffff }, { 5, 0 }, { -5, 0 }, { 0, 0 },
		{ -1, -1 }, { 0xdeadbeef80000000, 0xffffffff }, { 0xdeadbeef00000005, 0xdeadbeef00000000 }, { 1, 64 }, { 1, 32 },
	};

	fill();
	if (run < (int)ARRAY_SIZE(pairs)) {
		context[insn->dst] = pairs[run][0];
		if (insn->src < INSN_R10)
			context[insn->src] = pairs[run][1];
	}
}

static void check_alu(struct world *w, struct insn insn)
{
	for (int all_live = 0; all_live < 2; all_live++) {
		struct program program = { 0 };

		load_all(&program);
		ADD(&program, insn);
		if (all_live)
			store_all(&program);
		else
			ADD(&program, MOV(0, insn.dst), EXIT());
		world_load_program(w, &program);
		for (int run = 0; run < N_RUNS; run++) {
			fill_pair(&insn, run);
			compare(w, &insn);
		}
	}
}

static void check_alu_pairs(struct world *w, unsigned int op, int16_t off)
{
	static const uint8_t classes[] = { BPF_ALU64, BPF_ALU };

	for (size_t class = 0; class < ARRAY_SIZE(classes); class++)
		for (int dst = 0; dst <= 9; dst++)
			for (int src = 0; src <= 9; src++)
				check_alu(w, INSN(classes[class] | BPF_X | op, dst, src, off, 0));
}

static void check_alu_constants(struct world *w, unsigned int op, int16_t off)
{
	static const int32_t constants[] = { 0, 1, 2, 5, 31, 32, 63, 127, 128, -1, -2, -128, -129, INT32_MAX, INT32_MIN };
	static const uint8_t classes[] = { BPF_ALU64, BPF_ALU };

	for (size_t class = 0; class < ARRAY_SIZE(classes); class++)
		for (int dst = 0; dst <= 9; dst++)
			for (size_t i = 0; i < ARRAY_SIZE(constants); i++)
				check_alu(w, INSN(classes[class] | BPF_K | op, dst, 0, off, constants[i]));
}

static void arithmetic_agrees_on_every_pair_of_registers(void **state)
{
	static const uint8_t ops[] = { BPF_ADD, BPF_SUB, BPF_MUL, BPF_OR, BPF_AND, BPF_XOR, BPF_MOV };

	for (size_t i = 0; i < ARRAY_SIZE(ops); i++)
		check_alu_pairs(*state, ops[i], 0);
}

static void arithmetic_agrees_on_every_constant(void **state)
{
	static const uint8_t ops[] = { BPF_ADD, BPF_SUB, BPF_MUL, BPF_OR, BPF_AND, BPF_XOR, BPF_MOV };

	for (size_t i = 0; i < ARRAY_SIZE(ops); i++)
		check_alu_constants(*state, ops[i], 0);
}

static void shifts_agree_on_every_pair_of_registers(void **state)
{
	check_alu_pairs(*state, BPF_LSH, 0);
	check_alu_pairs(*state, BPF_RSH, 0);
	check_alu_pairs(*state, BPF_ARSH, 0);
}

static void shifts_agree_on_every_constant(void **state)
{
	check_alu_constants(*state, BPF_LSH, 0);
	check_alu_constants(*state, BPF_RSH, 0);
	check_alu_constants(*state, BPF_ARSH, 0);
}

static void division_agrees_on_every_pair_of_registers(void **state)
{
	check_alu_pairs(*state, BPF_DIV, 0);
	check_alu_pairs(*state, BPF_DIV, 1);
}

static void modulo_agrees_on_every_pair_of_registers(void **state)
{
	check_alu_pairs(*state, BPF_MOD, 0);
	check_alu_pairs(*state, BPF_MOD, 1);
}

static void division_and_modulo_agree_on_every_constant(void **state)
{
	check_alu_constants(*state, BPF_DIV, 0);
	check_alu_constants(*state, BPF_DIV, 1);
	check_alu_constants(*state, BPF_MOD, 0);
	check_alu_constants(*state, BPF_MOD, 1);
}

static void sign_extending_moves_agree_on_every_pair_of_registers(void **state)
{
	check_alu_pairs(*state, BPF_MOV, 8);
	check_alu_pairs(*state, BPF_MOV, 16);
	for (int dst = 0; dst <= 9; dst++)
		for (int src = 0; src <= 9; src++)
			check_alu(*state, INSN(BPF_ALU64 | BPF_X | BPF_MOV, dst, src, 32, 0));
}

static void negation_and_byte_swaps_agree_on_every_register(void **state)
{
	static const uint8_t swaps[] = { BPF_ALU | BPF_K | BPF_END, BPF_ALU | BPF_X | BPF_END, BPF_ALU64 | BPF_K | BPF_END };

	for (int dst = 0; dst <= 9; dst++) {
		check_alu(*state, INSN(BPF_ALU | BPF_NEG, dst, 0, 0, 0));
		check_alu(*state, INSN(BPF_ALU64 | BPF_NEG, dst, 0, 0, 0));
		for (size_t i = 0; i < ARRAY_SIZE(swaps); i++)
			for (int bits = 16; bits <= 64; bits *= 2)
				check_alu(*state, INSN(swaps[i], dst, 0, 0, bits));
	}
}

/* -- Conditions --- */
static const uint8_t conditions[] = {
	BPF_JEQ, BPF_JGT, BPF_JGE, BPF_JSET, BPF_JNE, BPF_JSGT, BPF_JSGE, BPF_JLT, BPF_JLE, BPF_JSLT, BPF_JSLE,
};

static void check_condition(struct world *w, struct insn jump)
{
	struct program program = { 0 };

	jump.off = 2;
	load_all(&program);
	ADD(&program, jump, MOVI(0, 1), EXIT(), MOVI(0, 2), EXIT());
	world_load_program(w, &program);
	for (int run = 0; run < N_RUNS; run++) {
		fill();
		if (run < 8 && jump.src < INSN_R10 && BPF_SRC(jump.code) == BPF_X)	/* equal, or equal in one half */
			context[jump.src] = context[jump.dst] ^ (run & 1 ? 1ull << 32 << run : 0);
		if (run < 8 && BPF_SRC(jump.code) == BPF_K)
			context[jump.dst] = (uint64_t)(int64_t)jump.imm ^ (run & 1 ? 1ull << 32 << run : 0);
		compare(w, &jump);
	}
}

static void conditions_agree_on_every_pair_of_registers(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(conditions); i++) {
		for (int dst = 0; dst <= 9; dst++) {
			for (int src = 0; src <= 9; src++) {
				check_condition(*state, INSN(BPF_JMP | BPF_X | conditions[i], dst, src, 0, 0));
				check_condition(*state, INSN(BPF_JMP32 | BPF_X | conditions[i], dst, src, 0, 0));
			}
		}
	}
}

static void conditions_agree_on_every_constant(void **state)
{
	static const int32_t constants[] = { 0, 1, 5, 127, 128, -1, -128, -129, INT32_MAX, INT32_MIN };

	for (size_t i = 0; i < ARRAY_SIZE(conditions); i++) {
		for (int dst = 0; dst <= 9; dst++) {
			for (size_t k = 0; k < ARRAY_SIZE(constants); k++) {
				check_condition(*state, INSN(BPF_JMP | BPF_K | conditions[i], dst, 0, 0, constants[k]));
				check_condition(*state, INSN(BPF_JMP32 | BPF_K | conditions[i], dst, 0, 0, constants[k]));
			}
		}
	}
}

/* -- Memory --- */
/* @insn accesses [@base + off]; whatever off is, that is a cell. @compared: r0 is what the cell holds, every other run. */
static void check_memory(struct world *w, struct insn insn, unsigned int base, bool compared)
{
	for (int all_live = 0; all_live < 2; all_live++) {
		struct program program = { 0 };

		load_all(&program);
		ADD(&program, insn);
		if (all_live)
			store_all(&program);
		else
			ADD(&program, MOV(0, BPF_CLASS(insn.code) == BPF_LDX ? insn.dst : insn.src), EXIT());
		world_load_program(w, &program);
		for (int run = 0; run < N_RUNS; run++) {
			uint64_t *cell = &cells[random_below(N_CELLS)];

			fill();
			if (compared && run & 1)
				context[0] = run & 2 ? *cell : (uint32_t)*cell;
			context[base] = (uintptr_t)cell - insn.off;
			compare(w, &insn);
		}
	}
}

static const uint8_t sizes[] = { BPF_B, BPF_H, BPF_W, BPF_DW };
static const int16_t offsets[] = { 0, 8, -8, 127, 128, -128, -129, INT16_MAX, INT16_MIN };

static void loads_agree_on_every_pair_of_registers(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		for (int dst = 0; dst <= 9; dst++) {
			for (int src = 0; src <= 9; src++) {
				for (size_t k = 0; k < ARRAY_SIZE(offsets); k += 1 + random_below(3)) {
					check_memory(*state, LOAD(sizes[i], dst, src, offsets[k]), src, false);
					if (sizes[i] != BPF_DW)
						check_memory(*state, LOAD_SIGNED(sizes[i], dst, src, offsets[k]), src, false);
				}
			}
		}
	}
}

static void stores_agree_on_every_pair_of_registers(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++)
		for (int dst = 0; dst <= 9; dst++)
			for (int src = 0; src <= 9; src++)
				for (size_t k = 0; k < ARRAY_SIZE(offsets); k += 1 + random_below(3))
					check_memory(*state, STORE(sizes[i], dst, offsets[k], src), dst, false);
}

static void stores_of_constants_agree_on_every_register(void **state)
{
	static const int32_t constants[] = { 0, 1, -1, 127, 128, 255, 256, -129, INT32_MAX, INT32_MIN };

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++)
		for (int dst = 0; dst <= 9; dst++)
			for (size_t k = 0; k < ARRAY_SIZE(constants); k++)
				check_memory(*state, STORE_K(sizes[i], dst, offsets[k % ARRAY_SIZE(offsets)], constants[k]),
					     dst, false);
}

static void atomics_agree_on_every_pair_of_registers(void **state)
{
	static const int32_t ops[] = {
		BPF_ADD, BPF_OR, BPF_AND, BPF_XOR, BPF_ADD | BPF_FETCH, BPF_OR | BPF_FETCH, BPF_AND | BPF_FETCH,
		BPF_XOR | BPF_FETCH, BPF_XCHG, BPF_CMPXCHG,
	};

	for (size_t i = 0; i < ARRAY_SIZE(ops); i++) {
		for (int dst = 0; dst <= 9; dst++) {
			for (int src = 0; src <= 9; src++) {
				const int16_t off = offsets[random_below(ARRAY_SIZE(offsets))] & ~7;	/* aligned */

				check_memory(*state, ATOMIC(BPF_DW, ops[i], dst, off, src), dst, ops[i] == BPF_CMPXCHG && dst);
				check_memory(*state, ATOMIC(BPF_W, ops[i], dst, off, src), dst, ops[i] == BPF_CMPXCHG && dst);
			}
		}
	}
}

static void acquiring_loads_and_releasing_stores_agree_on_every_pair(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		for (int dst = 0; dst <= 9; dst++) {
			for (int src = 0; src <= 9; src++) {
				check_memory(*state, ATOMIC(sizes[i], BPF_LOAD_ACQ, dst, 8, src), src, false);
				check_memory(*state, ATOMIC(sizes[i], BPF_STORE_REL, dst, -8, src), dst, false);
			}
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(arithmetic_agrees_on_every_pair_of_registers),
		cmocka_unit_test(arithmetic_agrees_on_every_constant),
		cmocka_unit_test(shifts_agree_on_every_pair_of_registers),
		cmocka_unit_test(shifts_agree_on_every_constant),
		cmocka_unit_test(division_agrees_on_every_pair_of_registers),
		cmocka_unit_test(modulo_agrees_on_every_pair_of_registers),
		cmocka_unit_test(division_and_modulo_agree_on_every_constant),
		cmocka_unit_test(sign_extending_moves_agree_on_every_pair_of_registers),
		cmocka_unit_test(negation_and_byte_swaps_agree_on_every_register),
		cmocka_unit_test(conditions_agree_on_every_pair_of_registers),
		cmocka_unit_test(conditions_agree_on_every_constant),
		cmocka_unit_test(loads_agree_on_every_pair_of_registers),
		cmocka_unit_test(stores_agree_on_every_pair_of_registers),
		cmocka_unit_test(stores_of_constants_agree_on_every_register),
		cmocka_unit_test(atomics_agree_on_every_pair_of_registers),
		cmocka_unit_test(acquiring_loads_and_releasing_stores_agree_on_every_pair),
	};

	random_setup(NULL);
	return cmocka_run_group_tests(tests, world_setup, world_teardown);
}
