/* SPDX-License-Identifier: Apache-2.0 */
#include <stdint.h>
#include "unit/worker/run.h"
#include "reference/reference.c"
#include "bytecode/flow.h"
#include "bytecode/loops.h"

/* Code that is entered at the head of a loop. Each program runs in the reference interpreter, once to its end and, for each head
 * and each arrival there, once up to it and from there on in the optimized code: result, memory and frame must be the same.
 * Registers that are not live at the head hold rubbish, as they may. */

#define HEADS_MAX 8
#define ARRIVALS_MAX 12u
#define WORDS 16

struct osr {
	struct run *run;
	struct flow *flow;		/* of method 0 */
	uint32_t pc, n_left;		/* the n_left-th arrival there enters the code; 0: none does */
	uint64_t code;
	uint8_t frame[INSN_FRAME_SIZE];	/* of method 0 when it last returned */
};

struct outcome {
	uint64_t result, words[WORDS];
	uint8_t frame[INSN_FRAME_SIZE], data[RUN_SEGMENT], bss[RUN_SEGMENT];
};

static uint64_t words[WORDS];	/* what programs get the address of */

typedef uint64_t (*osr_fn)(const uint64_t registers[INSN_R10], uint64_t frame);

static bool on_insn(void *userdata, uint32_t method, uint32_t pc, const uint64_t reg[_INSN_REG_N], uint64_t *ret)
{
	struct osr *osr = userdata;
	const struct insn *insn = osr->run->insns + osr->run->methods[method].insn + pc;
	uint64_t registers[INSN_R10];
	bool enters;

	if (method)
		return false;
	enters = osr->n_left && pc == osr->pc && !--osr->n_left;
	for (unsigned int i = 0; enters && i < INSN_R10; i++)
		registers[i] = osr->flow->live[pc] >> i & 1 ? reg[i] : 0xbad0000bad000000 + i;
	if (enters)
		*ret = ((osr_fn)osr->code)(registers, reg[INSN_R10]);
	if (enters || insn->code == (BPF_JMP | BPF_EXIT))
		memcpy(osr->frame, (const uint8_t *)reg[INSN_R10] - INSN_FRAME_SIZE, INSN_FRAME_SIZE);
	return enters;
}

static void run_osr(struct osr *osr, uint64_t a, uint64_t b, struct outcome *ret)
{
	struct reference reference = run_reference(osr->run);
	const uint64_t args[5] = { a, b, (uintptr_t)words };

	for (uint64_t i = 0; i < WORDS; i++)
		words[i] = i * 0x0123456789abcdefu;
	memset(osr->run->span + RUN_DATA, 7, RUN_SEGMENT);
	memset(osr->run->span + RUN_BSS, 0, RUN_SEGMENT);
	reference.leave = on_insn;
	reference.userdata = osr;
	if (!reference_call(&reference, 0, args, &ret->result))
		fail_msg("reference: %s", reference.fault);
	memcpy(ret->words, words, sizeof(words));
	memcpy(ret->frame, osr->frame, sizeof(osr->frame));
	memcpy(ret->data, osr->run->span + RUN_DATA, RUN_SEGMENT);
	memcpy(ret->bss, osr->run->span + RUN_BSS, RUN_SEGMENT);
}

static uint64_t osr_compile(struct run *run, uint32_t pc, bool candidates, struct refusal *refusal)
{
	struct job_body bodies[RUN_METHODS];
	struct job_compile job = run_job(run, 0, candidates, bodies);

	job.level = TIER_LEVEL_OSR;
	job.osr_pc = pc;
	return run_compile_job(run, &job, refusal);
}

/* Enters at one head, at each of the first arrivals; returns how many there were. */
static uint32_t check_head(struct osr *osr, uint64_t a, uint64_t b, const struct outcome *expected)
{
	static struct outcome got;

	for (uint32_t k = 1; k <= ARRIVALS_MAX; k++) {
		osr->n_left = k;
		run_osr(osr, a, b, &got);
		if (osr->n_left)
			return k - 1;
		if (got.result != expected->result)
			fail_msg("slot %u, arrival %u: %#lx, expected %#lx", osr->pc, k, got.result, expected->result);
		assert_memory_equal(&got, expected, sizeof(got));
	}
	return ARRIVALS_MAX;
}

/* All heads of method 0 on two arguments and the words; how often any was arrived at, which must not be never. */
static void check_loops(struct run *run, bool candidates, uint64_t a, uint64_t b)
{
	static struct outcome expected;
	struct osr osr = { .run = run };
	uint32_t heads[HEADS_MAX], n_arrivals = 0;
	const int64_t n_heads = loops_find(run->insns, run->methods[0].n_insns, NULL);
	struct refusal refusal;

	assert_in_range(n_heads, 1, HEADS_MAX);
	loops_find(run->insns, run->methods[0].n_insns, heads);
	assert_int_equal(flow_new(&osr.flow, run->insns, run->methods[0].n_insns), 0);
	run_compile_all(run, candidates);
	run_osr(&osr, a, b, &expected);
	for (uint32_t i = 0; i < n_heads; i++) {
		osr.pc = heads[i];
		osr.code = osr_compile(run, osr.pc, candidates, &refusal);
		if (!osr.code)
			fail_msg("%s", refusal.text);
		n_arrivals += check_head(&osr, a, b, &expected);
	}
	assert_int_not_equal(n_arrivals, 0);
	flow_free(osr.flow);
}

#define CHECK_LOOPS(a, b, ...)                                                                                         \
	({                                                                                                             \
		struct run *_run = run_new();                                                                          \
		RUN_ADD(_run, __VA_ARGS__);                                                                            \
		check_loops(_run, false, a, b);                                                                        \
		run_free(_run);                                                                                        \
	})

/* -- Registers ----------------------------------------------------------------------------------------------------- */
static void a_sum_goes_on_where_it_was(void **state)
{
	CHECK_LOOPS(10, 3, MOV_K(0, 0), LOAD(BPF_DW, 4, 3, 0), ALU64_X(BPF_ADD, 0, 4), STORE(BPF_DW, 3, 8, 0), ALU64_K(BPF_ADD, 3, 8),
		    ALU64_K(BPF_ADD, 1, -1), JUMP_K(BPF_JNE, 1, 0, -6), ALU64_X(BPF_MUL, 0, 2), EXIT());
}

static void a_loop_may_begin_at_the_first_slot(void **state)
{
	CHECK_LOOPS(5, 7, ALU64_X(BPF_ADD, 6, 2), ALU64_K(BPF_ADD, 1, -1), JUMP_K(BPF_JNE, 1, 0, -3), MOV(0, 6), EXIT());
	CHECK_LOOPS(5, 7, JUMP_K(BPF_JEQ, 1, 0, 3), ALU64_X(BPF_ADD, 6, 2), ALU64_K(BPF_ADD, 1, -1), JUMP(-4), MOV(0, 6), EXIT());
}

/* Upper halves that a 32-bit operation ignores and a 64-bit one does not */
static void registers_keep_all_of_their_64_bits(void **state)
{
	CHECK_LOOPS(0x8000000000000004, 0xfffffffffffffff0, MOV_K(0, 0), MOV(7, 2), ALU32_X(BPF_ADD, 7, 1), ALU64_X(BPF_ADD, 0, 7),
		    ALU64_X(BPF_ADD, 0, 2), ALU64_X(BPF_ADD, 2, 1), ALU32_K(BPF_ADD, 7, -1), ALU64_K(BPF_ADD, 1, -1),
		    ((struct insn){ .code = BPF_JMP32 | BPF_JNE | BPF_K, .dst = 1, .off = -8 }), ALU64_X(BPF_XOR, 0, 1), EXIT());
}

static void loops_within_loops_are_entered_at_either_head(void **state)
{
	CHECK_LOOPS(4, 3, MOV_K(0, 1), MOV(7, 2), ALU64_K(BPF_MUL, 0, 31), ALU64_X(BPF_ADD, 0, 7), ALU64_K(BPF_ADD, 7, -1),
		    JUMP_K(BPF_JNE, 7, 0, -4), STORE(BPF_DW, 3, 16, 0), ALU64_K(BPF_ADD, 1, -1), JUMP_K(BPF_JNE, 1, 0, -8), EXIT());
}

/* Neither of two heads dominates the other: the first jump leads into the middle. */
static void a_loop_with_two_ways_in_is_entered(void **state)
{
	for (uint64_t b = 0; b < 2; b++)
		CHECK_LOOPS(6, b, MOV_K(0, 1), JUMP_K(BPF_JEQ, 2, 0, 1), ALU64_K(BPF_MUL, 0, 3), ALU64_K(BPF_ADD, 0, 5),
			    ALU64_K(BPF_ADD, 1, -1), JUMP_K(BPF_JEQ, 1, 0, 3), JUMP_K(BPF_JSET, 1, 1, -4), ALU64_X(BPF_XOR, 0, 1),
			    JUMP(-6), EXIT());
}

/* -- Pointers ------------------------------------------------------------------------------------------------------ */
static void values_in_the_frame_stay_there(void **state)
{
	CHECK_LOOPS(5, 2, STORE(BPF_DW, 10, -8, 1), STORE_K(BPF_DW, 10, -16, 1), LOAD(BPF_DW, 4, 10, -16), ALU64_K(BPF_MUL, 4, 10),
		    STORE(BPF_DW, 10, -16, 4), STORE(BPF_B, 3, 3, 4), LOAD(BPF_DW, 5, 10, -8), ALU64_K(BPF_ADD, 5, -1),
		    STORE(BPF_DW, 10, -8, 5), JUMP_K(BPF_JNE, 5, 0, -8), LOAD(BPF_DW, 0, 10, -16), EXIT());
}

/* The same bytes by r10 and by a pointer that was made before the loop, in a register and in memory */
static void the_frame_is_reached_by_pointers_of_old(void **state)
{
	CHECK_LOOPS(6, 9, MOV(6, 10), ALU64_K(BPF_ADD, 6, -64), STORE(BPF_DW, 10, -64, 2), STORE_K(BPF_DW, 10, -56, 0),
		    STORE(BPF_DW, 3, 0, 6), LOAD(BPF_DW, 4, 10, -64), ALU64_K(BPF_ADD, 4, 3), STORE(BPF_DW, 6, 0, 4),
		    LOAD(BPF_DW, 5, 10, -64), LOAD(BPF_DW, 7, 3, 0), STORE(BPF_DW, 7, 8, 5), LOAD(BPF_DW, 8, 10, -56),
		    ALU64_X(BPF_ADD, 9, 8), ALU64_K(BPF_ADD, 1, -1), JUMP_K(BPF_JNE, 1, 0, -10), STORE_K(BPF_DW, 3, 0, 0), MOV(0, 9), EXIT());
}

static void a_pointer_that_walks_the_frame_goes_on(void **state)
{
	CHECK_LOOPS(8, 0x1111, MOV(6, 10), ALU64_K(BPF_ADD, 6, -64), STORE(BPF_DW, 6, 0, 2), ALU64_K(BPF_ADD, 2, 7),
		    ALU64_K(BPF_ADD, 6, 8), ALU64_K(BPF_ADD, 1, -1), JUMP_K(BPF_JNE, 1, 0, -5), LOAD(BPF_DW, 0, 10, -24),
		    LOAD(BPF_DW, 1, 6, -8), ALU64_X(BPF_SUB, 0, 1), EXIT());
}

static void a_pointer_into_a_segment_goes_on(void **state)
{
	CHECK_LOOPS(5, 3, LDDW(6, INSN_REF_DATA, 16, 0), LDDW(7, INSN_REF_BSS, 8, 0), LOAD(BPF_W, 4, 6, 0), ALU64_X(BPF_ADD, 4, 2),
		    STORE(BPF_W, 6, 4, 4), STORE(BPF_DW, 7, 0, 4), ALU64_K(BPF_ADD, 6, 4), ALU64_X(BPF_ADD, 7, 2), ALU64_K(BPF_ADD, 1, -1),
		    JUMP_K(BPF_JNE, 1, 0, -8), LOAD(BPF_DW, 0, 7, -1), EXIT());
}

/* One way to the head brings a pointer into the frame, the other one into memory. */
static void a_pointer_of_either_origin_goes_on(void **state)
{
	for (uint64_t b = 0; b < 2; b++)
		CHECK_LOOPS(4, b, STORE_K(BPF_DW, 10, -8, 5), STORE_K(BPF_DW, 10, -16, 6), MOV(4, 3), JUMP_K(BPF_JEQ, 2, 0, 2), MOV(4, 10),
			    ALU64_K(BPF_ADD, 4, -16), LOAD(BPF_DW, 5, 4, 8), ALU64_X(BPF_ADD, 0, 5), STORE_K(BPF_DW, 10, -8, 3),
			    STORE(BPF_DW, 4, 8, 0), ALU64_K(BPF_ADD, 1, -1), JUMP_K(BPF_JNE, 1, 0, -6), EXIT());
}

/* -- Calls --------------------------------------------------------------------------------------------------------- */

/* The callee writes into the frame of the loop, and has one of its own, inlined or not. */
static void calls_within_the_loop_find_both_frames(void **state)
{
	for (int candidates = 0; candidates < 2; candidates++) {
		struct run *run = run_new();

		RUN_ADD(run, MOV(6, 1), MOV(7, 2), STORE_K(BPF_DW, 10, -8, 1), STORE_K(BPF_DW, 10, -16, 2), MOV(1, 10),
			ALU64_K(BPF_ADD, 1, -16), MOV(2, 7), CALL(1), ALU64_X(BPF_ADD, 7, 0), ALU64_X(BPF_ADD, 7, 1),
			LOAD(BPF_DW, 4, 10, -16), STORE(BPF_DW, 10, -8, 4), ALU64_K(BPF_ADD, 6, -1), JUMP_K(BPF_JNE, 6, 0, -10), MOV(0, 7),
			EXIT());
		RUN_ADD(run, STORE(BPF_DW, 10, -8, 2), LOAD(BPF_DW, 3, 1, 8), LOAD(BPF_DW, 0, 10, -8), ALU64_X(BPF_ADD, 0, 3),
			STORE(BPF_DW, 1, 0, 0), EXIT());
		check_loops(run, candidates, 5, 9);
		assert_int_equal(run->n_inlined, candidates);
		run_free(run);
	}
}

/* Each activation has loops: the code is entered in one of them, and calls the method from the start again. */
static void a_recursive_method_is_entered_in_any_activation(void **state)
{
	struct run *run = run_new();

	RUN_ADD(run, MOV_K(0, 1), JUMP_K(BPF_JEQ, 1, 0, 12), MOV(6, 1), MOV(7, 2), MOV_K(8, 0), STORE(BPF_DW, 10, -8, 1), MOV(1, 6),
		ALU64_K(BPF_ADD, 1, -1), MOV(2, 7), CALL(0), ALU64_X(BPF_ADD, 8, 0), ALU64_K(BPF_ADD, 7, -1), JUMP_K(BPF_JSGT, 7, 0, -7),
		MOV(0, 8), EXIT());
	check_loops(run, false, 3, 2);
	run_free(run);
}

/* -- What is no loop ------------------------------------------------------------------------------------------------ */
static void only_the_head_of_a_loop_is_an_entry(void **state)
{
	const uint32_t others[] = { 0, 1, 2, 4, 7, 8, 1000, UINT32_MAX };
	struct run *run = run_new();
	struct refusal refusal;

	RUN_ADD(run, LDDW(0, INSN_REF_NONE, 1, 1), JUMP_K(BPF_JEQ, 1, 0, 3), ALU64_X(BPF_ADD, 0, 2), ALU64_K(BPF_ADD, 1, -1),
		JUMP_K(BPF_JNE, 1, 0, -3), EXIT());
	assert_true(osr_compile(run, 3, false, &refusal) != 0);
	for (size_t i = 0; i < ARRAY_SIZE(others); i++) {
		assert_int_equal(osr_compile(run, others[i], false, &refusal), 0);
		assert_non_null(strstr(refusal.text, "is not the head of a loop"));
	}
	run_free(run);
}

/* Nothing arrives there, but a patchpoint has a number all the same. */
static void a_loop_that_nothing_leads_to_compiles(void **state)
{
	struct run *run = run_new();
	struct refusal refusal;

	RUN_ADD(run, MOV_K(0, 1), EXIT(), MOV(6, 10), LOAD(BPF_DW, 0, 6, -8), ALU64_X(BPF_ADD, 0, 1), JUMP_K(BPF_JNE, 0, 0, -3), EXIT());
	assert_true(osr_compile(run, 3, false, &refusal) != 0);
	run_free(run);
}

/* The way to the loop is no part of the code: a reference that only it has is gone. */
static void what_the_loop_does_not_reach_vanishes(void **state)
{
	struct run *run = run_new();
	struct job_body bodies[RUN_METHODS];
	struct job_compile job;
	struct refusal refusal;
	struct code_result code;
	void *block;

	RUN_ADD(run, CALL_IMPORT(1), MOV_K(6, 10), CALL_IMPORT(0), ALU64_K(BPF_ADD, 6, -1), JUMP_K(BPF_JNE, 6, 0, -3), EXIT());
	job = run_job(run, 0, false, bodies);
	job.level = TIER_LEVEL_OSR;
	job.osr_pc = 2;
	assert_true(codegen_compile(&job, &code, &block, &refusal));
	assert_true(code.n_relocs > 0);
	for (uint32_t i = 0; i < code.n_relocs; i++)
		assert_int_equal(code.relocs[i].index, 0);
	free(block);
	run_free(run);
}

static int setup(void **state)
{
	return codegen_init();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_sum_goes_on_where_it_was),
		cmocka_unit_test(a_loop_may_begin_at_the_first_slot),
		cmocka_unit_test(registers_keep_all_of_their_64_bits),
		cmocka_unit_test(loops_within_loops_are_entered_at_either_head),
		cmocka_unit_test(a_loop_with_two_ways_in_is_entered),
		cmocka_unit_test(values_in_the_frame_stay_there),
		cmocka_unit_test(the_frame_is_reached_by_pointers_of_old),
		cmocka_unit_test(a_pointer_that_walks_the_frame_goes_on),
		cmocka_unit_test(a_pointer_into_a_segment_goes_on),
		cmocka_unit_test(a_pointer_of_either_origin_goes_on),
		cmocka_unit_test(calls_within_the_loop_find_both_frames),
		cmocka_unit_test(a_recursive_method_is_entered_in_any_activation),
		cmocka_unit_test(only_the_head_of_a_loop_is_an_entry),
		cmocka_unit_test(a_loop_that_nothing_leads_to_compiles),
		cmocka_unit_test(what_the_loop_does_not_reach_vanishes),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
