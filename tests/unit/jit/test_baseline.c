/* SPDX-License-Identifier: Apache-2.0 */
#include "unit/jit/world.c"
#include "unit/jit/slots.c"

/* What a method is to its callers and callees: frames, calls, references, jumps, the shape of its code. */

static const uint64_t no_args[5];

#define MODULE(w, ...)                                                                                                 \
	do {                                                                                                           \
		struct builder _builder = BUILDER_NULL;                                                                \
		const struct program _programs[] = { __VA_ARGS__ };                                                    \
		for (size_t _i = 0; _i < ARRAY_SIZE(_programs); _i++)                                                  \
			world_method(&_builder, &_programs[_i]);                                                       \
		world_load((w), &_builder);                                                                            \
	} while (0)
#define PROGRAM(...)                                                                                                   \
	{ .insns = { __VA_ARGS__ }, .n = sizeof((const struct insn[]){ __VA_ARGS__ }) / sizeof(struct insn) }

/* a module of one program with @n imports */
static void load_with_imports(struct world *w, uint32_t n, const struct program *program)
{
	struct builder builder = BUILDER_NULL;

	for (uint32_t i = 0; i < n; i++)
		builder_import(&builder, "host", 0);
	world_method(&builder, program);
	world_load(w, &builder);
}

/* -- Registers --- */
static void a_method_is_a_c_function_of_five_arguments(void **state)
{
	struct world *w = *state;
	uint64_t (*function)(uint64_t, uint64_t, uint64_t, uint64_t, uint64_t);

	LOAD_PROGRAM(w, MOV(0, 1), ALU64_K(BPF_LSH, 0, 8), ALU64_X(BPF_OR, 0, 2), ALU64_K(BPF_LSH, 0, 8), ALU64_X(BPF_OR, 0, 3),
		     ALU64_K(BPF_LSH, 0, 8), ALU64_X(BPF_OR, 0, 4), ALU64_K(BPF_LSH, 0, 8), ALU64_X(BPF_OR, 0, 5), EXIT());
	function = (void *)tier_layout_precode(&w->layout, 0);
	assert_int_equal(function(1, 2, 3, 4, 5), 0x0102030405);
	assert_int_equal(world_agree(w, (const uint64_t[]){ 5, 4, 3, 2, 1 }), 0x0504030201);
}

static void registers_that_were_never_written_read_as_zero(void **state)
{
	struct world *w = *state;

	LOAD_PROGRAM(w, ALU64_X(BPF_OR, 0, 6), ALU64_X(BPF_OR, 0, 7), ALU64_X(BPF_OR, 0, 8), ALU64_X(BPF_OR, 0, 9), EXIT());
	assert_int_equal(world_agree(w, no_args), 0);
	LOAD_PROGRAM(w, EXIT());
	assert_int_equal(world_agree(w, no_args), 0);
	/* written on one path only */
	LOAD_PROGRAM(w, JUMP_K(BPF_JEQ, 1, 0, 2), MOVI(7, 5), MOVI(9, 6), MOV(0, 7), ALU64_X(BPF_ADD, 0, 9), EXIT());
	assert_int_equal(world_agree(w, no_args), 0);
	assert_int_equal(world_agree(w, (const uint64_t[5]){ 1 }), 11);
}

static void a_call_leaves_the_argument_registers_zero(void **state)
{
	struct world *w = *state;

	MODULE(w, PROGRAM(CALL(1), ALU64_X(BPF_OR, 0, 1), ALU64_X(BPF_OR, 0, 2), ALU64_X(BPF_OR, 0, 3), ALU64_X(BPF_OR, 0, 4),
			  ALU64_X(BPF_OR, 0, 5), EXIT()),
	       PROGRAM(MOVI(1, -1), MOVI(2, -1), MOVI(3, -1), MOVI(4, -1), MOVI(5, -1), MOVI(0, 64), EXIT()));
	assert_int_equal(world_agree(w, (const uint64_t[]){ -1, -1, -1, -1, -1 }), 64);
}

static uint64_t check_alignment(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e)
{
	return (uintptr_t)__builtin_frame_address(0) % 16;
}

/* Whatever is pushed and however large the frame: world_enter() checks that callers find their registers, and imports
 * find the stack aligned. */
static void any_set_of_saved_registers_and_any_frame_keeps_the_convention(void **state)
{
	struct world *w = *state;

	for (unsigned int set = 0; set < 16; set++) {
		for (int frame = 0; frame <= 24; frame += 8) {
			struct program program = { 0 };

			for (unsigned int i = 0; i < 4; i++)
				if (set >> i & 1)
					ADD(&program, MOVI(INSN_R6 + i, i + 1));
			if (frame)
				ADD(&program, STORE_K(BPF_DW, 10, -frame, 7));
			ADD(&program, CALL_IMPORT(0));
			for (unsigned int i = 0; i < 4; i++)
				if (set >> i & 1)
					ADD(&program, ALU64_X(BPF_ADD, 0, INSN_R6 + i));
			ADD(&program, EXIT());
			world_bind(w, 0, check_alignment);
			load_with_imports(w, 1, &program);
			assert_int_equal(world_run(w, 0, no_args),
					 (set & 1) + (set & 2) + (set >> 2 & 1) * 3 + (set >> 3) * 4);
		}
	}
}

/* -- Frames --- */
/* The caller fills its frame, hands a part of it to the callee, which fills its own and writes to that part. */
static void caller_and_callee_have_a_frame_each(void **state)
{
	struct world *w = *state;
	struct program caller = { 0 }, callee = { 0 };
	uint64_t expected = 0;

	for (int off = -512; off < 0; off += 8) {
		ADD(&caller, STORE_K(BPF_DW, 10, off, 3 * off));
		ADD(&callee, STORE_K(BPF_DW, 10, off, 5 * off));
		expected += 3 * off;
	}
	ADD(&caller, MOV(1, 10), ALU64_K(BPF_ADD, 1, -256), CALL(1), MOV(6, 0), MOVI(0, 0));
	ADD(&callee, LOAD(BPF_DW, 0, 1, 0), STORE_K(BPF_DW, 1, 0, 1000), EXIT());
	for (int off = -512; off < 0; off += 8)
		ADD(&caller, LOAD(BPF_DW, 1, 10, off), ALU64_X(BPF_ADD, 0, 1));
	ADD(&caller, ALU64_K(BPF_LSH, 0, 16), ALU64_X(BPF_XOR, 0, 6), EXIT());
	MODULE(w, caller, callee);
	expected = (expected + 3 * 256 + 1000) << 16 ^ (uint64_t)(-3 * 256);
	assert_int_equal(world_agree(w, no_args), expected);
}

static void the_frame_is_accessed_through_copies_of_r10_too(void **state)
{
	struct world *w = *state;

	LOAD_PROGRAM(w, MOV(2, 10), ALU64_K(BPF_ADD, 2, -512), STORE(BPF_DW, 2, 0, 1), STORE(BPF_DW, 10, -8, 10),
		     LOAD(BPF_DW, 3, 10, -8), LOAD(BPF_DW, 0, 3, -512), MOV(4, 10), ALU64_X(BPF_SUB, 4, 3), ALU64_X(BPF_ADD, 0, 4),
		     JUMP_X(BPF_JEQ, 3, 10, 1), MOVI(0, 0), EXIT());
	assert_int_equal(world_agree(w, (const uint64_t[5]){ 77 }), 77);
}

/* even(n) and odd(n) call each other, with something kept in register and frame across each call */
static void recursion_goes_deep_across_methods(void **state)
{
	struct world *w = *state;
	const uint64_t shallow[5] = { 1000 }, deep[5] = { 30000 };

	MODULE(w, PROGRAM(MOV(6, 1), MOVI(0, 0), JUMP_K(BPF_JEQ, 1, 0, 4), ALU64_K(BPF_SUB, 1, 1), CALL(1),
			  ALU64_X(BPF_ADD, 0, 6), JA(0), EXIT()),
	       PROGRAM(STORE(BPF_DW, 10, -8, 1), MOVI(0, 0), JUMP_K(BPF_JEQ, 1, 0, 4), ALU64_K(BPF_SUB, 1, 1), CALL(0),
		       LOAD(BPF_DW, 1, 10, -8), ALU64_X(BPF_ADD, 0, 1), EXIT()));
	assert_int_equal(world_agree(w, shallow), 500500);
	assert_int_equal(world_run(w, 0, deep), 450015000);
}

/* an import that walks the chain of frames it was called from */
static struct { uint64_t caller[3], return_address[3]; } walk;
static uint64_t walk_stack(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e)
{
	const uint64_t *frame = __builtin_frame_address(0);

	for (int i = 0; i < 3; i++) {
		walk.return_address[i] = frame[1];
		walk.caller[i] = frame[0];
		frame = (const uint64_t *)frame[0];
	}
	return 1;
}

static bool is_in_code(const struct world *w, uint32_t method, uint64_t address)
{
	return address > w->code[method] && address <= w->code[method] + w->n_code[method];
}

static void stacks_unwind_by_rbp(void **state)
{
	struct world *w = *state;
	struct builder builder = BUILDER_NULL;
	const struct program outer = PROGRAM(STORE_K(BPF_DW, 10, -256, 1), MOVI(6, 1), CALL(1), ALU64_X(BPF_ADD, 0, 6), EXIT()),
			     inner = PROGRAM(MOVI(7, 1), MOVI(8, 2), STORE_K(BPF_B, 10, -1, 1), CALL_IMPORT(0),
					     ALU64_X(BPF_ADD, 0, 8), EXIT());

	world_bind(w, 0, walk_stack);
	builder_import(&builder, "walk", 0);
	world_method(&builder, &outer);
	world_method(&builder, &inner);
	world_load(w, &builder);
	assert_int_equal(world_run(w, 0, no_args), 4);
	assert_true(is_in_code(w, 1, walk.return_address[0]));
	assert_true(is_in_code(w, 0, walk.return_address[1]));
	assert_true(walk.return_address[2] >= (uintptr_t)world_enter && walk.return_address[2] < (uintptr_t)world_enter + 256);
	assert_int_equal(walk.caller[2], world_patterns[1]);
}

/* -- Calls --- */
static uint64_t digits(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e)
{
	return a * 10000 + b * 1000 + c * 100 + d * 10 + e;
}

static uint64_t product(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e) { return a * b * c * d * e; }

static void imports_are_called_through_their_private_cells(void **state)
{
	struct world *w = *state;
	const struct program program = PROGRAM(CALL_IMPORT(1), EXIT());
	const uint64_t args[5] = { 1, 2, 3, 4, 5 };

	world_bind(w, 1, digits);
	load_with_imports(w, 2, &program);
	assert_int_equal(world_agree(w, args), 12345);
	world_bind(w, 1, product);
	assert_int_equal(world_agree(w, args), 120);
}

/* Whoever changes E redirects every direct call, a method's calls of itself included. */
static void direct_calls_go_through_the_entry_cell(void **state)
{
	struct world *w = *state;

	MODULE(w, PROGRAM(JUMP_K(BPF_JNE, 1, 0, 2), MOVI(0, 5), EXIT(), MOVI(1, 0), CALL(0), ALU64_K(BPF_ADD, 0, 100), EXIT()),
	       PROGRAM(MOVI(0, 7), EXIT()));
	assert_int_equal(world_agree(w, (const uint64_t[5]){ 1 }), 105);
	world_record(w, 0)->entry = w->code[1];
	assert_int_equal(world_run(w, 0, (const uint64_t[5]){ 1 }), 107);
	assert_int_equal(world_run(w, 0, no_args), 5);
	world_record(w, 0)->entry = tier_layout_precode(&w->layout, 0);
}

static void callx_calls_methods_and_host_functions_in_any_register(void **state)
{
	struct world *w = *state;
	const uint64_t args[5] = { 1, 2, 3, 4, 5 };

	for (int reg = 0; reg <= 9; reg++) {
		MODULE(w, PROGRAM(LDDW(reg, INSN_REF_METHOD, 0, 1), CALLX(reg), EXIT()),
		       PROGRAM(MOV(0, 4), ALU64_K(BPF_MUL, 0, 11), ALU64_X(BPF_ADD, 0, 5), EXIT()));
		world_agree(w, args);
	}
	for (int reg = 0; reg <= 9; reg++) {
		const struct program program = PROGRAM(LDDW(reg, INSN_REF_IMPORT, 0, 0), CALLX(reg), EXIT());

		world_bind(w, 0, digits);
		load_with_imports(w, 1, &program);
		world_agree(w, args);
	}
}

/* -- References --- */
static void lddw_yields_every_kind_of_reference(void **state)
{
	static const uint64_t immediates[] = {
		0, 1, 0x7fffffff, 0x80000000, 0xffffffff, 0x100000000, 0xffffffff80000000, 0xffffffff7fffffff,
		0x8000000000000000, -1,
	};
	struct world *w = *state;

	for (int reg = 0; reg <= 9; reg++) {
		for (size_t i = 0; i < ARRAY_SIZE(immediates); i++) {
			LOAD_PROGRAM(w, LDDW(reg, INSN_REF_NONE, immediates[i], immediates[i] >> 32), MOV(0, reg), EXIT());
			assert_int_equal(world_agree(w, no_args), immediates[i]);
		}
		for (int ref = INSN_REF_METHOD; ref < _INSN_REF_N; ref++) {
			const bool segment = ref >= INSN_REF_RODATA;
			const uint64_t expected[] = {
				[INSN_REF_METHOD] = tier_layout_precode(&w->layout, 0),
				[INSN_REF_IMPORT] = (uintptr_t)digits,
				[INSN_REF_RODATA] = w->layout.base + w->layout.rodata + 40,
				[INSN_REF_DATA] = w->layout.base + w->layout.data + 40,
				[INSN_REF_BSS] = w->layout.base + w->layout.bss + 40,
			};
			const struct program program = PROGRAM(LDDW(reg, ref, segment ? 40 : 0, 0), MOV(0, reg), EXIT());
			struct builder builder = BUILDER_NULL;

			world_bind(w, 0, digits);
			builder_import(&builder, "digits", 0);
			for (int i = 0; i < _IMAGE_SEGMENT_N; i++)
				builder_segment(&builder, i, NULL, 64, 8);
			world_method(&builder, &program);
			world_load(w, &builder);
			assert_int_equal(world_agree(w, no_args), expected[ref]);
		}
	}
}

/* a C struct of function pointers in .rodata, state in .data and .bss */
static void segments_are_read_and_written_in_place(void **state)
{
	struct world *w = *state;
	const uint64_t table[2] = { tier_layout_precode(&w->layout, 1), tier_layout_precode(&w->layout, 2) }, start = 40;
	const struct program programs[] = {
		PROGRAM(LDDW(2, INSN_REF_RODATA, 0, 0), ALU64_K(BPF_LSH, 1, 3), ALU64_X(BPF_ADD, 2, 1), LOAD(BPF_DW, 3, 2, 0),
			CALLX(3), EXIT()),
		PROGRAM(LDDW(1, INSN_REF_DATA, 0, 0), MOVI(0, 2), ATOMIC(BPF_DW, BPF_ADD | BPF_FETCH, 1, 0, 0), EXIT()),
		PROGRAM(LDDW(1, INSN_REF_BSS, 8, 0), LOAD(BPF_W, 0, 1, 0), ALU64_K(BPF_ADD, 0, 1), STORE(BPF_W, 1, 0, 0),
			EXIT()),
	};
	struct builder builder = BUILDER_NULL;

	builder_segment(&builder, IMAGE_RODATA, table, sizeof(table), 8);
	builder_segment(&builder, IMAGE_DATA, &start, sizeof(start), 8);
	builder_segment(&builder, IMAGE_BSS, NULL, 16, 8);
	for (size_t i = 0; i < ARRAY_SIZE(programs); i++)
		world_method(&builder, &programs[i]);
	world_load(w, &builder);
	assert_int_equal(world_run(w, 0, no_args), 40);
	assert_int_equal(world_interpret(w, 0, no_args), 42);
	assert_int_equal(world_run(w, 0, no_args), 44);
	assert_int_equal(world_run(w, 0, (const uint64_t[5]){ 1 }), 1);
	assert_int_equal(world_interpret(w, 0, (const uint64_t[5]){ 1 }), 2);
	assert_int_equal(world_run(w, 0, (const uint64_t[5]){ 1 }), 3);
}

/* -- Jumps --- */
/* for (r2 = r1; r2; r2--) r0 += 3, with @n instructions more in the loop, two of them jumps forward over all others */
static void load_loop(struct world *w, uint32_t n)
{
	struct program program = { 0 };

	ADD(&program, MOVI(0, 0), MOV(2, 1), JUMP_K(BPF_JEQ, 2, 0, n + 5), JUMP_K(BPF_JEQ, 2, 3, n + 1),
	    JUMP_K(BPF_JSLT, 2, -1, n));
	for (uint32_t i = 0; i < n; i++)
		ADD(&program, ALU64_K(BPF_ADD, 0, 1));
	ADD(&program, ALU64_K(BPF_ADD, 0, 3), ALU64_K(BPF_SUB, 2, 1), JA(-(int)n - 6), EXIT());
	world_load_program(w, &program);
}

static void jumps_reach_near_and_far_in_both_directions(void **state)
{
	struct world *w = *state;

	for (uint32_t n = 0; n < 100; n++) {
		load_loop(w, n);
		assert_int_equal(world_agree(w, (const uint64_t[5]){ 10 }), 30 + 9 * n);
		assert_int_equal(world_agree(w, no_args), 0);
	}
	load_loop(w, 900);
	assert_int_equal(world_agree(w, (const uint64_t[5]){ 10 }), 30 + 9 * 900);
}

static void gotol_jumps_farther_than_sixteen_bits(void **state)
{
	enum { N = 100000 };
	_cleanup_(freep) struct insn *insns = calloc(N + 6, sizeof(*insns));
	struct builder builder = BUILDER_NULL;
	struct world *w = *state;
	uint32_t n = 0;

	insns[n++] = MOVI(0, 1);
	insns[n++] = INSN(BPF_JMP32 | BPF_JA, 0, 0, 0, N + 1);
	insns[n++] = EXIT();
	for (int i = 0; i < N; i++)
		insns[n++] = ALU64_K(BPF_ADD, 0, 5);
	insns[n++] = ALU64_K(BPF_ADD, 0, 1);
	insns[n++] = INSN(BPF_JMP32 | BPF_JA, 0, 0, 0, -N - 3);
	insns[n++] = EXIT();
	builder_method(&builder, "far", builder_string(&builder, ".text"), 0, 0, insns, n);
	world_load(w, &builder);
	assert_int_equal(world_agree(w, no_args), 2);
}

/* -- The shape of the code --- */
#define assert_code(w, ...)                                                                                            \
	do {                                                                                                           \
		const uint8_t _bytes[] = { __VA_ARGS__ };                                                              \
		assert_int_equal((w)->n_code[0], sizeof(_bytes));                                                      \
		assert_memory_equal((const void *)(w)->code[0], _bytes, sizeof(_bytes));                               \
	} while (0)

static void a_leaf_has_no_frame_and_saves_nothing(void **state)
{
	struct world *w = *state;

	LOAD_PROGRAM(w, MOVI(0, 7), EXIT());
	assert_code(w, 0x55, 0x48, 0x89, 0xe5, 0xb8, 7, 0, 0, 0, 0x5d, 0xc3);
	LOAD_PROGRAM(w, MOVI(6, 0), STORE(BPF_DW, 10, -16, 1), LOAD(BPF_DW, 0, 10, -16), EXIT());
	assert_code(w, 0x55, 0x48, 0x89, 0xe5,		/* push rbp; mov rbp, rsp */
		    0x48, 0x83, 0xec, 16, 0x53,		/* sub rsp, 16; push rbx */
		    0x31, 0xdb,				/* xor ebx, ebx */
		    0x48, 0x89, 0x7d, 0xf0,		/* mov [rbp-16], rdi */
		    0x48, 0x8b, 0x45, 0xf0,		/* mov rax, [rbp-16] */
		    0x5b, 0xc9, 0xc3);			/* pop rbx; leave; ret */
}

static void a_loop_is_a_test_and_a_short_jump_back(void **state)
{
	struct world *w = *state;

	LOAD_PROGRAM(w, MOVI(0, 0), ALU64_X(BPF_ADD, 0, 1), ALU64_K(BPF_SUB, 1, 1), JUMP_K(BPF_JNE, 1, 0, -3), EXIT());
	assert_code(w, 0x55, 0x48, 0x89, 0xe5, 0x31, 0xc0, 0x48, 0x01, 0xf8, 0x48, 0x83, 0xef, 0x01,
		    0x48, 0x85, 0xff, 0x75, 0xf4, 0x5d, 0xc3);
}

/* Division and shifts take rax, rdx and rcx without saving them when nobody reads those afterwards. */
static void templates_save_only_what_is_live(void **state)
{
	struct world *w = *state;
	size_t n_dead;

	LOAD_PROGRAM(w, ALU64_X(BPF_MOD, 1, 2), MOV(0, 1), EXIT());
	n_dead = w->n_code[0];
	LOAD_PROGRAM(w, ALU64_X(BPF_MOD, 1, 2), MOV(0, 1), ALU64_X(BPF_ADD, 0, 3), EXIT());
	assert_int_equal(w->n_code[0], n_dead + 3 + 2 * 1);	/* the addition; push and pop rdx */
	LOAD_PROGRAM(w, ALU64_X(BPF_LSH, 1, 2), MOV(0, 1), EXIT());
	assert_code(w, 0x55, 0x48, 0x89, 0xe5, 0x89, 0xf1, 0x48, 0xd3, 0xe7, 0x48, 0x89, 0xf8, 0x5d, 0xc3);
}

static void a_buffer_that_is_too_small_only_counts(void **state)
{
	struct world *w = *state;
	uint8_t bytes[512], whole[512];
	struct emit e = { .p = whole, .n_max = sizeof(whole), .address = w->layout.base + TIER_PRECODES_OFFSET };
	const struct baseline_module module = world_module(w);
	struct flow *flow;

	LOAD_PROGRAM(w, MOVI(0, 0), JUMP_K(BPF_JEQ, 1, 0, 6), ALU64_X(BPF_MOD, 1, 2), JUMP_K(BPF_JEQ, 1, 3, 4),
		     ATOMIC(BPF_DW, BPF_OR | BPF_FETCH, 10, -8, 1), STORE_K(BPF_H, 10, -8, 5), CALL(0), JA(-7), EXIT());
	assert_int_equal(flow_new(&flow, w->image.insns, w->image.n_insns), 0);
	assert_int_equal(baseline_compile(&e, w->image.insns, flow, &module, NULL), 0);
	assert_true(emit_fits(&e));
	for (size_t n = 0; n <= e.n; n++) {
		struct emit small = { .p = bytes, .n_max = n, .address = e.address };

		memset(bytes, 0xaa, sizeof(bytes));
		assert_int_equal(baseline_compile(&small, w->image.insns, flow, &module, NULL), 0);
		assert_int_equal(small.n, e.n);
		assert_int_equal(emit_fits(&small), n == e.n);
		for (size_t i = n; i < sizeof(bytes); i++)
			assert_int_equal(bytes[i], 0xaa);
	}
	assert_memory_equal(bytes, whole, e.n);
	flow_free(flow);
}

/* -- Calls through vtable slots --- */
static void a_call_through_a_slot_goes_where_its_cell_leads(void **state)
{
	struct world *w = world_new();

	for (uint32_t reg = 0; reg <= 9; reg++) {
		if (reg == 1)
			continue;
		LOAD_SLOTS(w, CALL_AT(reg));
		assert_int_equal(run_on(w, slot_word(w, SLOT_A)), 107);
		assert_int_equal(run_on(w, slot_word(w, SLOT_B)), 207);
		*slot_cell(w, SLOT_C) = w->code[2];		/* as if it had been patched: the slot's value says 1 */
		assert_int_equal(run_on(w, slot_word(w, SLOT_C)), 207);
		assert_int_equal(run_on(w, slot_word(w, SLOT_A)), 107);
	}
	world_free(w);
}

static void a_call_of_what_lies_elsewhere_goes_where_its_value_leads(void **state)
{
	struct world *w = world_new();
	uint64_t copy[2];

	LOAD_SLOTS(w, CALL_AT(3));
	for (uint32_t word = 0; word < SLOT_BEHIND; word++)
		*slot_cell(w, word) = w->code[2];
	copy[0] = *slot_word(w, SLOT_A);
	assert_int_equal(run_on(w, copy), 107);
	assert_int_equal(run_on(w, slot_word(w, SLOT_BEHIND)), 207);
	memcpy((uint8_t *)copy + 3, slot_word(w, SLOT_A), 8);		/* nothing asks for alignment */
	assert_int_equal(run_on(w, (uint8_t *)copy + 3), 107);
	w->layout.slots += 8;						/* now it lies just below them */
	world_compile(w, 0);
	assert_int_equal(run_on(w, slot_word(w, SLOT_A)), 107);
	world_free(w);
}

/* The word below the first slot and the bytes behind the last one's first are no slots, even in part. */
static void the_range_of_slots_ends_with_the_last_whole_one(void **state)
{
	struct world *w = world_new();
	const uint64_t base = w->layout.rodata;

	LOAD_SLOTS(w, CALL_AT(3));
	w->layout.slots = base + 64;
	w->layout.n_slots = 8;
	w->layout.call_cells = base + 1024;
	world_compile(w, 0);
	for (int32_t distance = -16; distance <= 16; distance++) {
		void *address = (uint8_t *)slot_word(w, 8) + distance;
		void *cell = (uint8_t *)slot_word(w, 128) + distance;

		memset(slot_word(w, 0), 0, 2048);
		memcpy(address, &w->code[1], 8);
		if (!distance)
			memcpy(cell, &w->code[2], 8);
		assert_int_equal(run_on(w, address), distance ? 107 : 207);
	}
	world_free(w);
}

/* Everything between the load and the call: arguments, divisions that need scratch registers, atomics, a jump that is not taken */
static void what_lies_between_load_and_call_keeps_the_slot(void **state)
{
	struct world *w = world_new();

	LOAD_SLOTS(w, MOV(6, 1), LOAD(BPF_DW, 7, 6, 0), MOVI(4, 3), MOVI(3, 40), MOVI(0, 5), MOVI(8, 100), MOVI(9, 2),
		   ALU64_X(BPF_DIV, 8, 9), INSN(BPF_ALU64 | BPF_MOD | BPF_X, 8, 4, 1, 0), ALU64_K(BPF_DIV, 4, 2),
		   ALU64_X(BPF_LSH, 9, 4), STORE(BPF_DW, 10, -8, 8), ATOMIC(BPF_DW, BPF_OR | BPF_FETCH, 10, -8, 9),
		   ATOMIC(BPF_DW, BPF_CMPXCHG, 10, -8, 9), ATOMIC(BPF_W, BPF_XOR | BPF_FETCH, 10, -8, 0),
		   MOV(1, 2), JUMP_K(BPF_JEQ, 3, 41, 2), ALU64_X(BPF_ADD, 1, 3), CALLX(7), EXIT());
	assert_int_equal(run_on(w, slot_word(w, SLOT_A)), 147);
	*slot_cell(w, SLOT_A) = w->code[2];
	assert_int_equal(run_on(w, slot_word(w, SLOT_A)), 247);
	world_free(w);
}

static void a_register_that_survives_the_call_still_holds_the_value(void **state)
{
	struct world *w = world_new();
	uint64_t value;

	LOAD_SLOTS(w, MOV(6, 1), MOV(1, 2), LOAD(BPF_DW, 7, 6, 0), CALLX(7), MOV(0, 7), EXIT());
	value = *slot_word(w, SLOT_A);
	assert_int_equal(run_on(w, slot_word(w, SLOT_A)), value);
	*slot_cell(w, SLOT_A) = w->code[2];
	assert_int_equal(run_on(w, slot_word(w, SLOT_A)), value);
	LOAD_SLOTS(w, MOV(6, 1), MOV(8, 2), MOV(1, 2), LOAD(BPF_DW, 7, 6, 0), CALLX(7), MOV(1, 8), CALLX(7), EXIT());
	*slot_cell(w, SLOT_A) = w->code[2];				/* the second call has no load of its own */
	assert_int_equal(run_on(w, slot_word(w, SLOT_A)), 107);
	world_free(w);
}

/* A module without slots pays nothing for callx. */
static void without_slots_callx_is_one_call(void **state)
{
	struct world *w = world_new();

	LOAD_PROGRAM(w, LOAD(BPF_DW, 2, 1, 0), CALLX(2), EXIT());
	assert_code(w, 0x55, 0x48, 0x89, 0xe5, 0x48, 0x8b, 0x37, 0xff, 0xd6, 0x5d, 0xc3);
	world_free(w);
}

static void lddw_of_a_backpatchable_method_is_its_funcptr_precode(void **state)
{
	struct world *w = world_new();
	const uint64_t args[5] = { 0, 7 };

	LOAD_SLOTS(w, LDDW(0, INSN_REF_METHOD, 0, 1), EXIT());
	assert_int_equal(world_run(w, 0, args), tier_layout_funcptr(&w->layout, 1));
	LOAD_SLOTS(w, LDDW(0, INSN_REF_METHOD, 0, 0), EXIT());
	assert_int_equal(world_run(w, 0, args), tier_layout_precode(&w->layout, 0));
	LOAD_SLOTS(w, MOV(1, 2), LDDW(3, INSN_REF_METHOD, 0, 1), CALLX(3), EXIT());
	assert_int_equal(world_run(w, 0, args), 107);			/* F leads to T */
	world_record(w, 1)->funcptr = w->code[2];
	assert_int_equal(world_run(w, 0, args), 207);
	world_free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_method_is_a_c_function_of_five_arguments),
		cmocka_unit_test(registers_that_were_never_written_read_as_zero),
		cmocka_unit_test(a_call_leaves_the_argument_registers_zero),
		cmocka_unit_test(any_set_of_saved_registers_and_any_frame_keeps_the_convention),
		cmocka_unit_test(caller_and_callee_have_a_frame_each),
		cmocka_unit_test(the_frame_is_accessed_through_copies_of_r10_too),
		cmocka_unit_test(recursion_goes_deep_across_methods),
		cmocka_unit_test(stacks_unwind_by_rbp),
		cmocka_unit_test(imports_are_called_through_their_private_cells),
		cmocka_unit_test(direct_calls_go_through_the_entry_cell),
		cmocka_unit_test(callx_calls_methods_and_host_functions_in_any_register),
		cmocka_unit_test(lddw_yields_every_kind_of_reference),
		cmocka_unit_test(segments_are_read_and_written_in_place),
		cmocka_unit_test(jumps_reach_near_and_far_in_both_directions),
		cmocka_unit_test(gotol_jumps_farther_than_sixteen_bits),
		cmocka_unit_test(a_leaf_has_no_frame_and_saves_nothing),
		cmocka_unit_test(a_loop_is_a_test_and_a_short_jump_back),
		cmocka_unit_test(templates_save_only_what_is_live),
		cmocka_unit_test(a_buffer_that_is_too_small_only_counts),
		cmocka_unit_test(a_call_through_a_slot_goes_where_its_cell_leads),
		cmocka_unit_test(a_call_of_what_lies_elsewhere_goes_where_its_value_leads),
		cmocka_unit_test(the_range_of_slots_ends_with_the_last_whole_one),
		cmocka_unit_test(what_lies_between_load_and_call_keeps_the_slot),
		cmocka_unit_test(a_register_that_survives_the_call_still_holds_the_value),
		cmocka_unit_test(without_slots_callx_is_one_call),
		cmocka_unit_test(lddw_of_a_backpatchable_method_is_its_funcptr_precode),
	};

	return cmocka_run_group_tests(tests, world_setup, world_teardown);
}
