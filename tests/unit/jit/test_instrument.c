/* SPDX-License-Identifier: Apache-2.0 */
#include "unit/jit/world.c"
#include "unit/jit/census.c"
#include "unit/jit/slots.c"

/* What instrumented tier-0 code leaves in its cells; random programs are counted in test_random.c. */

static int instrument_setup(void **state)
{
	struct world *w = world_new();

	w->profiles = true;
	*state = w;
	return 0;
}

/* Runs method 0: result and all cells are as the reference has them. Returns the result. */
static uint64_t run_counted(struct world *w, const uint64_t args[5])
{
	const uint64_t expected = census_take(w, args), native = world_run(w, 0, args);

	assert_int_equal(native, expected);
	assert_int_equal(census_difference(w), -1);
	return native;
}

/* The words of method @method */
static uint32_t *words_of(const struct world *w, uint32_t method) { return world_cells(w) + w->profile_cell[method]; }

static void load_module(struct world *w, const struct program *programs, size_t n)
{
	struct builder builder = BUILDER_NULL;

	builder_import(&builder, "host", 0);
	for (size_t i = 0; i < n; i++)
		world_method(&builder, &programs[i]);
	world_load(w, &builder);
}
#define PROGRAM(...)                                                                                                   \
	{ .insns = { __VA_ARGS__ }, .n = sizeof((const struct insn[]){ __VA_ARGS__ }) / sizeof(struct insn) }

static uint64_t first_argument(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e) { return a; }

/* -- Calls and branches --- */
static void each_call_of_a_method_is_counted(void **state)
{
	const uint64_t args[5] = { 3 };
	struct world *w = *state;

	LOAD_PROGRAM(w, MOV(0, 1), EXIT());
	for (uint32_t i = 1; i <= 5; i++) {
		assert_int_equal(world_run(w, 0, args), 3);
		assert_int_equal(words_of(w, 0)[0], i);
		assert_int_equal(words_of(w, 0)[1], 0);
	}
}

static void a_loop_counts_how_often_it_went_on(void **state)
{
	const uint64_t args[5] = { 10 };
	struct world *w = *state;

	LOAD_PROGRAM(w, MOVI(0, 0), ALU64_X(BPF_ADD, 0, 1), ALU64_K(BPF_SUB, 1, 1), JUMP_K(BPF_JNE, 1, 0, -3), EXIT());
	assert_int_equal(run_counted(w, args), 55);
	assert_int_equal(words_of(w, 0)[0], 1);
	assert_int_equal(words_of(w, 0)[1], 10);
	assert_int_equal(words_of(w, 0)[2], 9);
}

/* The entry is counted once, though the loop leads back to it. */
static void a_loop_at_the_first_instruction_is_no_call(void **state)
{
	const uint64_t args[5] = { 10 };
	struct world *w = *state;

	LOAD_PROGRAM(w, JUMP_K(BPF_JEQ, 1, 0, 2), ALU64_K(BPF_SUB, 1, 1), JA(-3), MOV(0, 1), EXIT());
	assert_int_equal(run_counted(w, args), 0);
	assert_int_equal(words_of(w, 0)[0], 1);
	assert_int_equal(words_of(w, 0)[1], 11);
	assert_int_equal(words_of(w, 0)[2], 1);
}

static void every_condition_counts_what_it_decides(void **state)
{
	static const uint8_t conditions[] = {
		BPF_JEQ, BPF_JGT, BPF_JGE, BPF_JSET, BPF_JNE, BPF_JSGT, BPF_JSGE, BPF_JLT, BPF_JLE, BPF_JSLT, BPF_JSLE,
	};
	struct world *w = *state;

	random_setup(NULL);
	for (uint32_t i = 0; i < ARRAY_SIZE(conditions) * 4; i++) {
		const uint32_t class = i & 1 ? BPF_JMP : BPF_JMP32;
		const bool backward = i % 5 == 0;
		const struct insn branch = i & 2 ? INSN(class | conditions[i / 4] | BPF_X, 1, 2, 2, 0)
						 : INSN(class | conditions[i / 4], 1, 0, 2, random_value());

		if (backward)
			LOAD_PROGRAM(w, MOVI(0, 1), JA(1), EXIT(), INSN(branch.code, 1, branch.src, -2, branch.imm), MOVI(0, 2),
				     EXIT());
		else
			LOAD_PROGRAM(w, MOVI(0, 1), branch, MOVI(0, 2), EXIT(), EXIT());
		for (int run = 0; run < 20; run++) {
			const uint64_t a = random_value(), args[5] = { a, random_below(3) ? random_value() : a };

			run_counted(w, args);
		}
	}
}

/* Both ways lead to the same place, and are told apart all the same. */
static void a_branch_to_the_next_instruction_is_counted(void **state)
{
	const uint64_t yes[5] = { 5 }, no[5] = { 6 };
	struct world *w = *state;

	LOAD_PROGRAM(w, JUMP_K(BPF_JEQ, 1, 5, 0), MOVI(0, 1), EXIT());
	run_counted(w, yes);
	assert_int_equal(words_of(w, 0)[1], 1);
	assert_int_equal(words_of(w, 0)[2], 1);
	run_counted(w, no);
	assert_int_equal(words_of(w, 0)[1], 1);
	assert_int_equal(words_of(w, 0)[2], 0);
}

static void calls_of_methods_and_imports_are_counted_apart(void **state)
{
	const uint64_t args[5] = { 4 };
	struct world *w = *state;
	const struct program programs[] = {
		PROGRAM(MOV(6, 1), MOV(1, 6), CALL(1), MOV(7, 0), MOV(1, 7), CALL_IMPORT(0), ALU64_K(BPF_SUB, 6, 1),
			JUMP_K(BPF_JNE, 6, 0, -7), EXIT()),
		PROGRAM(MOV(0, 1), JUMP_K(BPF_JGT, 1, 2, 1), MOVI(0, 9), EXIT()),
	};

	load_module(w, programs, 2);
	world_bind(w, 0, first_argument);
	assert_int_equal(run_counted(w, args), 9);
	assert_int_equal(words_of(w, 0)[1], 4);		/* the call of method 1 */
	assert_int_equal(words_of(w, 0)[2], 4);		/* the import */
	assert_int_equal(words_of(w, 1)[0], 4);
	assert_int_equal(words_of(w, 1)[2], 2);
}

/* -- Votes --- */
static void votes_are_boyer_and_moores_from_any_content(void **state)
{
	enum { N_CALLEES = 4 };
	struct world *w = *state;
	struct program programs[1 + N_CALLEES] = { PROGRAM(MOV(3, 1), CALLX(3), EXIT()) };
	const struct profile_site *site;
	uint32_t model[8];

	random_setup(NULL);
	for (uint32_t i = 1; i <= N_CALLEES; i++)
		ADD(&programs[i], MOVI(0, i), EXIT());
	load_module(w, programs, 1 + N_CALLEES);
	assert_int_equal(w->profile[0]->n_words, 8);
	site = &w->profile[0]->sites[1];
	for (int round = 0; round < 300; round++) {
		const uint32_t n_likely = 1 + random_below(N_CALLEES);

		for (size_t i = 0; i < ARRAY_SIZE(model); i++)
			words_of(w, 0)[i] = model[i] = round % 3 ? 0 : random_value();
		for (int call = 0; call < 40; call++) {
			const uint32_t callee = 1 + random_below(random_below(4) ? n_likely : N_CALLEES);
			const uint64_t args[5] = { tier_layout_precode(&w->layout, callee) };

			assert_int_equal(world_run(w, 0, args), callee);
			model[0]++;
			model[site->word]++;
			census_vote(model, site, args[0]);
			assert_memory_equal(words_of(w, 0), model, sizeof(model));
		}
	}
}

static void a_majority_wins_the_vote(void **state)
{
	struct world *w = *state;
	const struct program programs[] = {
		PROGRAM(MOV(9, 1), CALLX(9), EXIT()), PROGRAM(MOVI(0, 1), EXIT()), PROGRAM(MOVI(0, 2), EXIT()),
	};
	uint64_t target;

	load_module(w, programs, 3);
	for (int i = 0; i < 101; i++) {
		const uint64_t args[5] = { tier_layout_precode(&w->layout, i % 2 ? 1 : 2) };

		world_run(w, 0, args);
	}
	memcpy(&target, &words_of(w, 0)[profile_target(&w->profile[0]->sites[1])], sizeof(target));
	assert_int_equal(target, tier_layout_precode(&w->layout, 2));
	assert_int_equal(words_of(w, 0)[2], 1);
}

/* The address that the program sees gets the vote, wherever the cell leads; what lies between the load and the call is counted,
 * too, and does not lose the slot. */
static void a_call_through_a_slot_votes_for_what_it_loaded(void **state)
{
	struct world *w = *state;

	for (uint32_t reg = 0; reg <= 9; reg++) {
		if (reg == 1 || reg == 6)
			continue;
		LOAD_SLOTS(w, MOV(6, 1), MOV(1, 2), LOAD(BPF_DW, reg, 6, 0), JUMP_K(BPF_JEQ, 6, 0, 1), CALLX(reg), EXIT());
		*slot_cell(w, SLOT_A) = w->code[2];
		for (uint32_t i = 1; i <= 3; i++) {
			const struct profile_site *site = &w->profile[0]->sites[2];
			uint64_t target;

			assert_int_equal(site->kind, PROFILE_CALLX);
			assert_int_equal(run_on(w, slot_word(w, SLOT_A)), 207);
			memcpy(&target, &words_of(w, 0)[profile_target(site)], sizeof(target));
			assert_int_equal(target, tier_layout_funcptr(&w->layout, 1));
			assert_int_equal(words_of(w, 0)[site->word], i);
			assert_int_equal(words_of(w, 0)[site->word + 1], i);
			assert_int_equal(words_of(w, 0)[2], 0);
			assert_int_equal(words_of(w, 2)[0], i);
		}
		memset(world_cells(w), 0, sizeof(census.cells));
	}
	w->layout.slots = w->layout.n_slots = 0;
}

/* -- Whatever stands there --- */
static void what_the_cells_hold_changes_nothing_else(void **state)
{
	struct world *w = *state;
	const struct program programs[] = {
		PROGRAM(LDDW(7, INSN_REF_METHOD, 0, 1), MOVI(6, 20), MOV(1, 6), CALLX(7), ALU64_X(BPF_ADD, 8, 0),
			ALU64_K(BPF_SUB, 6, 1), JUMP_K(BPF_JSGT, 6, 0, -5), MOV(0, 8), EXIT()),
		PROGRAM(MOVI(0, 1), JUMP_K(BPF_JGT, 1, 10, 1), MOVI(0, 100), EXIT()),
	};

	random_setup(NULL);
	load_module(w, programs, 2);
	for (int round = 0; round < 200; round++) {
		for (uint32_t i = 0; i < w->n_cells; i++)
			world_cells(w)[i] = random_value();
		assert_int_equal(world_run(w, 0, (const uint64_t[5]){ 0 }), 1010);
	}
}

/* Nothing but counts in every instruction: the bound holds, and so do short jumps. world_compile() looks at the bound. */
static void the_longest_templates_fit_their_bound(void **state)
{
	struct world *w = *state;
	struct program callx = { 0 }, far = { 0 };

	for (uint32_t reg = 0; reg <= 9; reg++)
		for (int i = 0; i < 20; i++)
			ADD(&callx, LOAD(BPF_DW, reg, 10, -512), CALLX(reg));
	ADD(&callx, EXIT());
	LOAD_PROGRAM(w, MOVI(0, 0), EXIT());
	w->layout.slots = w->layout.rodata;
	w->layout.n_slots = 4096;
	w->layout.call_cells = w->layout.rodata + 4096;
	world_load_program(w, &callx);
	w->layout.slots = w->layout.n_slots = 0;
	for (int i = 0; i < 400; i++)
		ADD(&far, JUMP_K(BPF_JSGT, 8, 0x12345678, 400 - i), JUMP_K(BPF_JSGT, 9, 0x12345678, -2 * i - 2));
	ADD(&far, EXIT());
	world_load_program(w, &far);
	run_counted(w, (const uint64_t[5]){ 0 });
}

static void a_buffer_that_is_too_small_only_counts(void **state)
{
	struct world *w = *state;
	uint8_t bytes[1024], whole[1024];
	struct emit e = { .p = whole, .n_max = sizeof(whole), .address = w->layout.base + TIER_PRECODES_OFFSET };
	const struct baseline_module module = world_module(w);
	struct baseline_extra extra;
	struct flow *flow;

	LOAD_PROGRAM(w, MOVI(0, 0), JUMP_K(BPF_JEQ, 1, 0, 6), ALU64_X(BPF_MOD, 1, 2), JUMP_K(BPF_JEQ, 1, 3, 3), CALLX(3), CALL(0),
		     JUMP_K(BPF_JNE, 1, 0, -5), JA(-7), EXIT());
	extra = (struct baseline_extra){
		.profile = w->profile[0], .profile_cell = WORLD_CELLS, .patchpoints = true, .osr_counter = 1000,
	};
	assert_int_equal(flow_new(&flow, w->image.insns, w->image.n_insns), 0);
	assert_int_equal(baseline_compile(&e, w->image.insns, flow, &module, &extra), 0);
	assert_true(emit_fits(&e));
	for (size_t n = 0; n <= e.n; n++) {
		struct emit small = { .p = bytes, .n_max = n, .address = e.address };

		memset(bytes, 0xaa, sizeof(bytes));
		assert_int_equal(baseline_compile(&small, w->image.insns, flow, &module, &extra), 0);
		assert_int_equal(small.n, e.n);
		assert_int_equal(emit_fits(&small), n == e.n);
		for (size_t i = n; i < sizeof(bytes); i++)
			assert_int_equal(bytes[i], 0xaa);
	}
	assert_memory_equal(bytes, whole, e.n);
	flow_free(flow);
}

/* -- Figures --- */
static double time_loop(struct world *w)
{
	const uint64_t args[5] = { 10000000 };
	uint64_t best = UINT64_MAX;

	for (int run = 0; run < 3; run++) {
		const uint64_t begin = world_clock();

		world_run(w, 0, args);
		best = MIN(best, world_clock() - begin);
	}
	return (double)best / args[0];
}

static void the_price_of_counting_is_printed(void **state)
{
	struct world *w = *state;
	double plain, counted;

	w->profiles = false;
	LOAD_PROGRAM(w, MOVI(0, 0), ALU64_X(BPF_ADD, 0, 1), ALU64_K(BPF_SUB, 1, 1), JUMP_K(BPF_JNE, 1, 0, -3), EXIT());
	plain = time_loop(w);
	w->profiles = true;
	LOAD_PROGRAM(w, MOVI(0, 0), ALU64_X(BPF_ADD, 0, 1), ALU64_K(BPF_SUB, 1, 1), JUMP_K(BPF_JNE, 1, 0, -3), EXIT());
	counted = time_loop(w);
	print_message("an iteration of three instructions takes %.2f ns, counted %.2f ns\n", plain, counted);
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, instrument_setup, world_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(each_call_of_a_method_is_counted),
		CASE(a_loop_counts_how_often_it_went_on),
		CASE(a_loop_at_the_first_instruction_is_no_call),
		CASE(every_condition_counts_what_it_decides),
		CASE(a_branch_to_the_next_instruction_is_counted),
		CASE(calls_of_methods_and_imports_are_counted_apart),
		CASE(votes_are_boyer_and_moores_from_any_content),
		CASE(a_majority_wins_the_vote),
		CASE(a_call_through_a_slot_votes_for_what_it_loaded),
		CASE(what_the_cells_hold_changes_nothing_else),
		CASE(the_longest_templates_fit_their_bound),
		CASE(a_buffer_that_is_too_small_only_counts),
		CASE(the_price_of_counting_is_printed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
