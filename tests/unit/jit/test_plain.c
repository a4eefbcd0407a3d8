/* SPDX-License-Identifier: Apache-2.0 */
#include "unit/jit/world.c"

/* What tier 0 emits when nothing is asked of it beside a body's own work, held fast byte for byte: each template with every
 * register and with constants of every size. A number here is the sum of all of a test's code. Whoever changes a template on purpose puts
 * the new number in its place; nobody else may change it. */

#define HASH_BEGIN 0xcbf29ce484222325ull
#define ARITHMETIC_HASH 0x14ab18e1224e4d0ull
#define REGISTER_HASH 0x5329a45a42ef71edull
#define MEMORY_HASH 0xeeb30252f80e5057ull
#define ATOMIC_HASH 0xa4e2acbef88da818ull
#define JUMP_HASH 0x6b6dde5100b90ebull
#define CALL_HASH 0xf4d5ef1e63ed0d91ull

static const int32_t constants[] = { 0, 1, -1, 127, 128, -129, 0x12345678, INT32_MIN };

/* Loads @program as the only method and adds its code. */
static uint64_t hash_program(struct world *w, const struct program *program, uint64_t hash)
{
	struct builder builder = BUILDER_NULL;

	for (int i = 0; i < _IMAGE_SEGMENT_N; i++)
		builder_segment(&builder, i, NULL, 64, 8);
	world_method(&builder, program);
	world_load(w, &builder);
	for (size_t i = 0; i < w->n_code[0]; i++)
		hash = (hash ^ ((const uint8_t *)w->code[0])[i]) * 0x100000001b3ull;
	return hash;
}

/* Once with nothing live behind it, once with all registers */
static uint64_t hash_both(struct world *w, struct program *program, uint64_t hash)
{
	struct program all = *program;

	ADD(program, MOVI(0, 0), EXIT());
	for (uint32_t reg = 1; reg <= 9; reg++)
		ADD(&all, ALU64_X(BPF_ADD, 0, reg));
	ADD(&all, EXIT());
	return hash_program(w, &all, hash_program(w, program, hash));
}

static void add_alu(struct program *program, uint32_t code, uint32_t dst, int16_t off)
{
	for (uint32_t src = 0; src <= 9; src++)
		ADD(program, INSN(code | BPF_X, dst, src, off, 0));
	for (size_t i = 0; i < ARRAY_SIZE(constants); i++)
		if (BPF_OP(code) != BPF_LSH && BPF_OP(code) != BPF_RSH && BPF_OP(code) != BPF_ARSH)
			ADD(program, INSN(code, dst, 0, off, constants[i]));
		else
			ADD(program, INSN(code, dst, 0, off, constants[i] & 31));
}

static void arithmetic_is_the_same(void **state)
{
	static const uint8_t ops[] = {
		BPF_ADD, BPF_SUB, BPF_MUL, BPF_DIV, BPF_OR, BPF_AND, BPF_LSH, BPF_RSH, BPF_MOD, BPF_XOR, BPF_MOV, BPF_ARSH,
	};
	struct world *w = *state;
	uint64_t hash = HASH_BEGIN;

	for (size_t i = 0; i < ARRAY_SIZE(ops); i++) {
		for (uint32_t dst = 0; dst <= 9; dst++) {
			struct program program = { 0 };

			add_alu(&program, BPF_ALU64 | ops[i], dst, 0);
			add_alu(&program, BPF_ALU | ops[i], dst, 0);
			if (ops[i] == BPF_DIV || ops[i] == BPF_MOD) {
				add_alu(&program, BPF_ALU64 | ops[i], dst, 1);
				add_alu(&program, BPF_ALU | ops[i], dst, 1);
			}
			hash = hash_both(w, &program, hash);
		}
	}
	assert_int_equal(hash, ARITHMETIC_HASH);
}

static void what_changes_one_register_is_the_same(void **state)
{
	struct world *w = *state;
	uint64_t hash = HASH_BEGIN;

	for (uint32_t dst = 0; dst <= 9; dst++) {
		struct program program = { 0 };

		ADD(&program, INSN(BPF_ALU64 | BPF_NEG, dst, 0, 0, 0), INSN(BPF_ALU | BPF_NEG, dst, 0, 0, 0));
		for (int32_t bits = 16; bits <= 64; bits *= 2)
			ADD(&program, INSN(BPF_ALU | BPF_END, dst, 0, 0, bits), INSN(BPF_ALU | BPF_X | BPF_END, dst, 0, 0, bits),
			    INSN(BPF_ALU64 | BPF_END, dst, 0, 0, bits));
		for (uint32_t src = 0; src <= 10; src++)
			ADD(&program, INSN(BPF_ALU64 | BPF_MOV | BPF_X, dst, src, 8, 0),
			    INSN(BPF_ALU64 | BPF_MOV | BPF_X, dst, src, 16, 0),
			    INSN(BPF_ALU64 | BPF_MOV | BPF_X, dst, src, 32, 0),
			    INSN(BPF_ALU | BPF_MOV | BPF_X, dst, src, 8, 0), INSN(BPF_ALU | BPF_MOV | BPF_X, dst, src, 16, 0),
			    MOV(dst, src));
		for (uint32_t ref = INSN_REF_RODATA; ref <= INSN_REF_BSS; ref++)
			ADD(&program, LDDW(dst, ref, 40, 0));
		ADD(&program, LDDW(dst, INSN_REF_NONE, 5, 0), LDDW(dst, INSN_REF_NONE, -5, -1), LDDW(dst, INSN_REF_NONE, 0, 1),
		    LDDW(dst, INSN_REF_METHOD, 0, 0));
		hash = hash_both(w, &program, hash);
	}
	assert_int_equal(hash, REGISTER_HASH);
}

static void loads_and_stores_are_the_same(void **state)
{
	static const uint8_t sizes[] = { BPF_B, BPF_H, BPF_W, BPF_DW };
	struct world *w = *state;
	uint64_t hash = HASH_BEGIN;

	for (uint32_t reg = 0; reg <= 9; reg++) {
		for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
			struct program program = { 0 };

			for (uint32_t base = 0; base <= 10; base++) {
				ADD(&program, LOAD(sizes[i], reg, base, -8), STORE(sizes[i], base, -200, reg));
				if (base < 10)
					ADD(&program, LOAD(sizes[i], reg, base, 0), STORE(sizes[i], base, 0x7000, reg));
				if (sizes[i] != BPF_DW)
					ADD(&program, LOAD_SIGNED(sizes[i], reg, base, -16));
				ADD(&program, STORE_K(sizes[i], base, -24, constants[reg % ARRAY_SIZE(constants)]));
			}
			hash = hash_both(w, &program, hash);
		}
	}
	assert_int_equal(hash, MEMORY_HASH);
}

static void atomic_operations_are_the_same(void **state)
{
	static const int32_t ops[] = {
		BPF_ADD, BPF_OR, BPF_AND, BPF_XOR, BPF_ADD | BPF_FETCH, BPF_OR | BPF_FETCH, BPF_AND | BPF_FETCH,
		BPF_XOR | BPF_FETCH, BPF_XCHG, BPF_CMPXCHG, BPF_LOAD_ACQ, BPF_STORE_REL,
	};
	struct world *w = *state;
	uint64_t hash = HASH_BEGIN;

	for (size_t i = 0; i < ARRAY_SIZE(ops); i++) {
		for (uint32_t dst = 0; dst <= 9; dst++) {
			struct program program = { 0 };

			for (uint32_t src = 0; src <= 9; src++)
				ADD(&program, ATOMIC(BPF_W, ops[i], dst, -8, src), ATOMIC(BPF_DW, ops[i], dst, 256, src));
			hash = hash_both(w, &program, hash);
		}
	}
	assert_int_equal(hash, ATOMIC_HASH);
}

static void jumps_are_the_same(void **state)
{
	static const uint8_t conditions[] = {
		BPF_JEQ, BPF_JGT, BPF_JGE, BPF_JSET, BPF_JNE, BPF_JSGT, BPF_JSGE, BPF_JLT, BPF_JLE, BPF_JSLT, BPF_JSLE,
	};
	struct world *w = *state;
	uint64_t hash = HASH_BEGIN;

	for (size_t i = 0; i < ARRAY_SIZE(conditions); i++) {
		for (uint32_t wide = 0; wide < 2; wide++) {
			const uint32_t code = (wide ? BPF_JMP : BPF_JMP32) | conditions[i];
			struct program program = { 0 };

			for (uint32_t dst = 0; dst <= 9; dst++) {
				ADD(&program, INSN(code, dst, 0, 2, constants[dst % ARRAY_SIZE(constants)]), JA(0),
				    INSN(code | BPF_X, dst, 9 - dst, -3, 0), INSN(code, dst, 0, 0, 5),
				    INSN(BPF_JMP32 | BPF_JA, 0, 0, 0, 1), INSN(code | BPF_X, dst, dst, -6, 0),
				    INSN(code, dst, 0, -(int)program.n - 7, -1));
			}
			hash = hash_both(w, &program, hash);
		}
	}
	assert_int_equal(hash, JUMP_HASH);
}

/* With kept registers and a frame, since both shape what calls need */
static void calls_and_frames_are_the_same(void **state)
{
	struct world *w = *state;
	uint64_t hash = HASH_BEGIN;

	for (uint32_t n_kept = 0; n_kept <= 4; n_kept++) {
		for (uint32_t low = 0; low <= INSN_FRAME_SIZE; low += 8) {
			struct program program = { 0 };

			for (uint32_t reg = 6; reg < 6 + n_kept; reg++)
				ADD(&program, MOVI(reg, 1));
			if (low)
				ADD(&program, STORE_K(BPF_DW, 10, -(int)low, 1));
			hash = hash_both(w, &program, hash);
			program.n -= 2;
			ADD(&program, CALL(0), ALU64_X(BPF_ADD, 0, low % 5 + 1), CALLX(low % 10), CALLX(3));
			hash = hash_both(w, &program, hash);
		}
	}
	assert_int_equal(hash, CALL_HASH);
}

/* Nothing asked for in another way */
static void extras_of_zeroes_are_none(void **state)
{
	const struct baseline_extra none = { 0 }, no_loops = { .patchpoints = true, .osr_counter = 1 };
	const struct baseline_extra *extras[] = { NULL, &none, &no_loops };
	struct world *w = *state;
	const struct baseline_module module = world_module(w);
	uint8_t bytes[ARRAY_SIZE(extras)][256];
	struct flow *flow;
	size_t n = 0;

	LOAD_PROGRAM(w, MOV(6, 1), JUMP_K(BPF_JEQ, 1, 0, 1), STORE(BPF_DW, 10, -8, 1), CALL(0), CALLX(6), EXIT());
	assert_int_equal(flow_new(&flow, w->image.insns, w->image.n_insns), 0);
	for (size_t i = 0; i < ARRAY_SIZE(extras); i++) {
		struct emit e = { .p = bytes[i], .n_max = sizeof(bytes[i]), .address = w->code[0] };

		assert_int_equal(baseline_compile(&e, w->image.insns, flow, &module, extras[i]), 0);
		assert_true(emit_fits(&e) && (!i || e.n == n));
		n = e.n;
		assert_memory_equal(bytes[i], bytes[0], n);
		assert_int_equal(baseline_bound(w->image.insns, w->image.n_insns, extras[i]),
				 baseline_bound(w->image.insns, w->image.n_insns, NULL));
	}
	flow_free(flow);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(arithmetic_is_the_same, world_setup, world_teardown),
		cmocka_unit_test_setup_teardown(what_changes_one_register_is_the_same, world_setup, world_teardown),
		cmocka_unit_test_setup_teardown(loads_and_stores_are_the_same, world_setup, world_teardown),
		cmocka_unit_test_setup_teardown(atomic_operations_are_the_same, world_setup, world_teardown),
		cmocka_unit_test_setup_teardown(jumps_are_the_same, world_setup, world_teardown),
		cmocka_unit_test_setup_teardown(calls_and_frames_are_the_same, world_setup, world_teardown),
		cmocka_unit_test_setup_teardown(extras_of_zeroes_are_none, world_setup, world_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
