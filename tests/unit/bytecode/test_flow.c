/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "bytecode/flow.h"
#include "bytecode/verify.h"
#include "code.h"

#define R(i) (1u << (i))
#define ARGUMENTS 0x3eu

static struct flow *flow_of(const struct insn *insns, uint32_t n)
{
	struct refusal refusal = {};
	struct flow *flow = NULL;
	struct image image;
	void *bytes;

	image = code_image(&bytes, insns, n);
	if (!verify_image(&image, &refusal))
		fail_msg("%s", refusal.text);
	assert_int_equal(flow_new(&flow, image_method_insns(&image, 0), image.methods[0].n_insns), 0);
	free(bytes);
	return flow;
}
#define FLOW(...)                                                                                                      \
	({                                                                                                             \
		const struct insn _insns[] = { __VA_ARGS__ };                                                          \
		flow_of(_insns, sizeof(_insns) / sizeof(*_insns));                                                     \
	})

static void straight_code_needs_what_it_reads_first(void **state)
{
	struct flow *flow = FLOW(MOV_X(0, 1), ALU_X(BPF_ADD, 0, 2), EXIT);

	assert_int_equal(flow->live[0], R(1) | R(2));
	assert_int_equal(flow->live[1], R(0) | R(2));
	assert_int_equal(flow->live[2], R(0));
	assert_int_equal(flow->used, R(0) | R(1) | R(2));
	assert_int_equal(flow->written, R(0));
	assert_int_equal(flow->undefined, 0);
	assert_false(flow->frame);
	assert_false(flow->calls);
	flow_free(flow);
}

static void branches_join_what_either_side_needs(void **state)
{
	struct flow *flow = FLOW(JMP_K(BPF_JEQ, 1, 0, 2), MOV_X(0, 2), EXIT, MOV_X(0, 3), EXIT);

	assert_int_equal(flow->live[0], R(1) | R(2) | R(3));
	assert_int_equal(flow->live[1], R(2));
	assert_int_equal(flow->live[3], R(3));
	assert_int_equal(flow->marks[3], FLOW_TARGET);
	assert_int_equal(flow->marks[1], 0);
	flow_free(flow);
}

static void a_loop_keeps_its_registers_alive(void **state)
{
	/* r0 = 0; do { r0 += r2; r1 -= 1 } while (r1) */
	struct flow *flow = FLOW(MOV_K(0, 0), ALU_X(BPF_ADD, 0, 2), ALU_K(BPF_SUB, 1, 1), JMP_K(BPF_JNE, 1, 0, -3), EXIT);

	assert_int_equal(flow->live[3], R(0) | R(1) | R(2));
	assert_int_equal(flow->live[4], R(0));
	assert_int_equal(flow->live[0], R(1) | R(2));
	assert_int_equal(flow->marks[1], FLOW_TARGET | FLOW_BACK_TARGET);
	flow_free(flow);
}

static void a_jump_to_itself_is_a_loop(void **state)
{
	struct flow *flow = FLOW(JMP_K(BPF_JNE, 1, 0, -1), EXIT, GOTOL(-1));

	assert_int_equal(flow->marks[0], FLOW_TARGET | FLOW_BACK_TARGET);
	assert_int_equal(flow->marks[2], FLOW_TARGET | FLOW_BACK_TARGET);
	assert_int_equal(flow->live[2], 0);
	assert_int_equal(flow->undefined, R(0));
	flow_free(flow);
}

static void what_is_read_before_it_is_written_is_undefined(void **state)
{
	struct flow *flow = FLOW(ALU_X(BPF_ADD, 7, 3), MOV_X(0, 7), JMP_K(BPF_JEQ, 1, 0, 1), MOV_K(9, 1), ALU_X(BPF_ADD, 0, 9),
				 EXIT);

	assert_int_equal(flow->undefined, R(7) | R(9));
	flow_free(flow);
}

static void a_call_reads_arguments_and_leaves_zeroes(void **state)
{
	struct flow *flow = FLOW(MOV_X(6, 1), CALL(INSN_CALL_METHOD, 1), ALU_X(BPF_ADD, 0, 6), ALU_X(BPF_ADD, 0, 3), EXIT);

	assert_true(flow->calls);
	assert_int_equal(flow->live[2], R(0) | R(3) | R(6));	/* r3 is to be zeroed there */
	assert_int_equal(flow->live[1], ARGUMENTS | R(6));
	assert_int_equal(flow->live[0], ARGUMENTS);
	flow_free(flow);
	flow = FLOW(CALLX(7), EXIT);
	assert_int_equal(flow->live[0], ARGUMENTS | R(7));
	assert_int_equal(flow->undefined, R(7));
	flow_free(flow);
}

static void lddw_has_one_life_and_two_slots(void **state)
{
	struct flow *flow = FLOW(LDDW(1, 0, 1, 2), MOV_X(0, 1), EXIT);

	assert_int_equal(flow->marks[1], FLOW_SECOND_HALF);
	assert_int_equal(flow->live[0], 0);
	assert_int_equal(flow->live[1], R(1));
	flow_free(flow);
	flow = FLOW(JMP_K(BPF_JEQ, 1, 0, 3), MOV_K(0, 0), LDDW(2, 0, 0, 0), ALU_X(BPF_ADD, 0, 2), EXIT);
	assert_int_equal(flow->live[0], R(0) | R(1) | R(2));
	flow_free(flow);
}

static void atomics_write_what_they_fetch(void **state)
{
	const struct insn add = ATOMIC(BPF_DW, 1, 0, 2, BPF_ADD), fetch = ATOMIC(BPF_DW, 1, 0, 2, BPF_ADD | BPF_FETCH);
	const struct insn exchange = ATOMIC(BPF_W, 1, 0, 2, BPF_XCHG), compare = ATOMIC(BPF_W, 1, 0, 2, BPF_CMPXCHG);
	const struct insn acquire = ATOMIC(BPF_W, 1, 0, 2, BPF_LOAD_ACQ), release = ATOMIC(BPF_W, 1, 0, 2, BPF_STORE_REL);

	assert_int_equal(insn_writes(&add), 0);
	assert_int_equal(insn_writes(&fetch), R(2));
	assert_int_equal(insn_writes(&exchange), R(2));
	assert_int_equal(insn_reads(&exchange), R(1) | R(2));
	assert_int_equal(insn_writes(&compare), R(0));
	assert_int_equal(insn_reads(&compare), R(0) | R(1) | R(2));
	assert_int_equal(insn_writes(&acquire), R(1));
	assert_int_equal(insn_reads(&acquire), R(2));
	assert_int_equal(insn_writes(&release), 0);
	assert_int_equal(insn_reads(&release), R(1) | R(2));
}

static void each_class_reads_and_writes_its_own(void **state)
{
	const struct insn neg = INSN(BPF_ALU64 | BPF_NEG, 3, 0, 0, 0), be = INSN(BPF_ALU | BPF_END | BPF_X, 3, 0, 0, 16);
	const struct insn mov = MOV_X(3, 4), ldx = LDX(BPF_B, 3, 4, 0), st = ST(BPF_B, 3, 0, 1), stx = STX(BPF_B, 3, 0, 4);
	const struct insn ja = JA(0), exit = EXIT, jeq = INSN(BPF_JMP32 | BPF_JEQ | BPF_X, 3, 4, 0, 0);

	assert_int_equal(insn_reads(&neg), R(3));
	assert_int_equal(insn_reads(&be), R(3));
	assert_int_equal(insn_reads(&mov), R(4));
	assert_int_equal(insn_writes(&mov), R(3));
	assert_int_equal(insn_reads(&ldx), R(4));
	assert_int_equal(insn_writes(&ldx), R(3));
	assert_int_equal(insn_reads(&st), R(3));
	assert_int_equal(insn_writes(&st), 0);
	assert_int_equal(insn_reads(&stx), R(3) | R(4));
	assert_int_equal(insn_reads(&ja), 0);
	assert_int_equal(insn_reads(&exit), R(0));
	assert_int_equal(insn_reads(&jeq), R(3) | R(4));
	assert_true(insn_is_conditional(&jeq) && insn_is_jump(&ja) && !insn_is_conditional(&ja) && !insn_is_jump(&exit));
}

static void the_frame_extends_as_far_as_it_is_used(void **state)
{
	struct flow *flow = FLOW(STX(BPF_DW, 10, -16, 1), LDX(BPF_B, 0, 10, -40), EXIT);

	assert_true(flow->frame);
	assert_int_equal(flow->frame_low, -40);
	flow_free(flow);
	flow = FLOW(MOV_X(2, 10), LDX(BPF_B, 0, 10, -4), EXIT);
	assert_int_equal(flow->frame_low, -(int)INSN_FRAME_SIZE);
	flow_free(flow);
	flow = FLOW(STX(BPF_DW, 10, -8, 10), EXIT);
	assert_int_equal(flow->frame_low, -(int)INSN_FRAME_SIZE);
	flow_free(flow);
	flow = FLOW(ATOMIC(BPF_DW, 1, -24, 10, BPF_LOAD_ACQ), EXIT);
	assert_int_equal(flow->frame_low, -24);
	flow_free(flow);
	flow = FLOW(MOV_K(0, 0), EXIT);
	assert_false(flow->frame);
	assert_int_equal(flow->frame_low, 0);
	flow_free(flow);
}

/* -- Against the definition: the least solution by passes until nothing changes --- */

static uint32_t random_next(uint32_t *seed)
{
	return *seed = *seed * 1664525u + 1013904223u;
}

static uint32_t random_method(struct insn *insns, uint32_t n, uint32_t *seed)
{
	for (uint32_t i = 0; i + 1 < n; i++) {
		uint32_t what = random_next(seed) >> 16, target = (random_next(seed) >> 8) % n;

		switch (what % 6) {
		case 0:
			insns[i] = JMP_K(BPF_JEQ, what >> 4 & 7, 0, (int)target - (int)i - 1);
			break;
		case 1:
			insns[i] = what & 0x100 ? JA((int)target - (int)i - 1) : EXIT;
			break;
		case 2:
			insns[i] = what & 0x300 ? MOV_K(what >> 4 & 7, 1) : CALL(INSN_CALL_METHOD, 1);
			break;
		default:
			insns[i] = ALU_X(what & 0x800 ? BPF_ADD : BPF_MOV, what >> 4 & 7, what >> 7 & 7);
		}
	}
	insns[n - 1] = EXIT;
	return n;
}

static void naive_live(const struct insn *insns, uint32_t n, uint16_t *live)
{
	bool changed = true;

	memset(live, 0, n * sizeof(*live));
	while (changed) {
		changed = false;
		for (uint32_t pc = n; pc-- > 0;) {
			bool stops = insns[pc].code == (BPF_JMP | BPF_EXIT) || insns[pc].code == (BPF_JMP | BPF_JA);
			uint16_t now = stops ? 0 : live[pc + 1];

			if (insn_is_jump(&insns[pc]))
				now |= live[flow_jump_target(insns, pc)];
			now = insn_reads(&insns[pc]) | (now & ~insn_writes(&insns[pc]));
			changed |= now != live[pc];
			live[pc] = now;
		}
	}
}

static void naive_marks(const struct insn *insns, uint32_t n, uint8_t *marks)
{
	memset(marks, 0, n);
	for (uint32_t pc = 0; pc < n; pc++)
		if (insn_is_jump(&insns[pc])) {
			const uint32_t target = flow_jump_target(insns, pc);

			marks[target] |= FLOW_TARGET | (target <= pc ? FLOW_BACK_TARGET : 0);
		}
}

static void random_methods_agree_with_the_definition(void **state)
{
	uint32_t seed = 20240607;
	struct insn insns[64];
	uint16_t live[64];
	uint8_t marks[64];

	for (unsigned int round = 0; round < 2000; round++) {
		uint32_t n = random_method(insns, 1 + round % 64, &seed);
		struct flow *flow = flow_of(insns, n);

		naive_live(insns, n, live);
		naive_marks(insns, n, marks);
		assert_memory_equal(flow->live, live, n * sizeof(*live));
		assert_memory_equal(flow->marks, marks, n * sizeof(*marks));
		flow_free(flow);
	}
}

static void a_chain_of_back_edges_stays_linear(void **state)
{
	/* blocks in reverse order, each jumping back to the one before it: liveness travels against the passes, one
	 * block each; naive passes would need 1e5 * 3e5 steps */
	const uint32_t n_blocks = 100000, n = 1 + 2 * n_blocks + 1;
	struct insn *insns = malloc(n * sizeof(*insns));
	struct timespec begin, end;
	struct flow *flow;

	insns[0] = GOTOL(2 * (n_blocks - 1));	/* to the last block */
	for (uint32_t b = 0; b < n_blocks; b++) {
		insns[1 + 2 * b] = ALU_K(BPF_ADD, 9, 1);
		insns[2 + 2 * b] = b ? INSN(BPF_JMP32 | BPF_JA, 0, 0, 0, -4) : INSN(BPF_JMP32 | BPF_JA, 0, 0, 0, (int)(n - 4));
	}
	insns[n - 1] = EXIT;
	clock_gettime(CLOCK_MONOTONIC, &begin);
	flow = flow_of(insns, n);
	clock_gettime(CLOCK_MONOTONIC, &end);
	assert_int_equal(flow->live[0], R(0) | R(9));
	assert_int_equal(flow->undefined, R(0) | R(9));
	assert_true(end.tv_sec - begin.tv_sec < 2);
	flow_free(flow);
	free(insns);
}

/* -- Loads that feed a callx --- */
#define LOAD_CALLEE(reg) LDX(BPF_DW, reg, 6, 8)
#define IS_PAIR(flow, load, call)                                                                                      \
	((flow)->marks[load] & FLOW_SLOT_LOAD && (flow)->marks[call] & FLOW_SLOT_CALL)

static bool has_pair(const struct flow *flow)
{
	for (uint32_t pc = 0; pc < flow->n_insns; pc++)
		if (flow->marks[pc] & (FLOW_SLOT_LOAD | FLOW_SLOT_CALL))
			return true;
	return false;
}

static void a_callx_knows_the_load_of_its_register(void **state)
{
	struct flow *flow = FLOW(LOAD_CALLEE(4), CALLX(4), EXIT);

	assert_true(IS_PAIR(flow, 0, 1));
	flow_free(flow);
	flow = FLOW(LOAD_CALLEE(4), LOAD_CALLEE(4), MOV_X(1, 6), ALU_K(BPF_DIV, 1, 3), STX(BPF_DW, 10, -8, 4), LDDW(2, 0, 1, 1),
		    LOAD_CALLEE(5), CALLX(4), EXIT);
	assert_true(IS_PAIR(flow, 1, 8));
	assert_int_equal((flow->marks[0] | flow->marks[7]) & FLOW_SLOT_LOAD, 0);
	flow_free(flow);
}

static void a_conditional_jump_in_between_that_is_not_taken_changes_nothing(void **state)
{
	struct flow *flow = FLOW(LOAD_CALLEE(4), JMP_K(BPF_JEQ, 4, 0, 1), CALLX(4), EXIT);

	assert_true(IS_PAIR(flow, 0, 2));
	flow_free(flow);
}

static void every_callx_has_its_own_load(void **state)
{
	struct flow *flow = FLOW(LOAD_CALLEE(7), LOAD_CALLEE(8), CALLX(7), CALLX(8), LOAD_CALLEE(8), CALLX(8), CALLX(8), EXIT);

	assert_true(IS_PAIR(flow, 0, 2) && IS_PAIR(flow, 4, 5));
	assert_int_equal((flow->marks[1] | flow->marks[3] | flow->marks[6]) & (FLOW_SLOT_LOAD | FLOW_SLOT_CALL), 0);
	flow_free(flow);
}

static void what_defines_the_register_otherwise_is_no_slot(void **state)
{
	static const struct insn between[] = {
		MOV_K(4, 0), MOV_X(4, 5), ALU_K(BPF_ADD, 4, 0), ALU_K(BPF_NEG, 4, 0), LDX(BPF_W, 4, 6, 0),
		INSN(BPF_LDX | BPF_MEMSX | BPF_W, 4, 6, 0, 0), ATOMIC(BPF_DW, 6, 0, 4, BPF_XCHG), ATOMIC(BPF_DW, 4, 0, 6, BPF_LOAD_ACQ),
		ATOMIC(BPF_DW, 6, 0, 4, BPF_ADD | BPF_FETCH), CALL(INSN_CALL_IMPORT, 0), CALL(INSN_CALL_METHOD, 1),
	};

	for (size_t i = 0; i < sizeof(between) / sizeof(*between); i++) {
		struct flow *flow = FLOW(LOAD_CALLEE(4), between[i], CALLX(4), EXIT);

		assert_false(has_pair(flow));
		flow_free(flow);
	}
}

static void a_jump_that_leads_in_between_ends_the_pair(void **state)
{
	struct flow *flow = FLOW(JMP_K(BPF_JEQ, 1, 0, 1), LOAD_CALLEE(4), CALLX(4), EXIT);	/* from before */

	assert_false(has_pair(flow));
	flow_free(flow);
	flow = FLOW(LOAD_CALLEE(7), CALLX(7), JMP_K(BPF_JNE, 0, 0, -2), EXIT);			/* from behind */
	assert_false(has_pair(flow));
	flow_free(flow);
	flow = FLOW(LOAD_CALLEE(7), CALLX(7), JMP_K(BPF_JNE, 0, 0, -3), EXIT);			/* to the load itself: once more */
	assert_true(IS_PAIR(flow, 0, 1));
	flow_free(flow);
	flow = FLOW(LOAD_CALLEE(4), JA(1), EXIT, CALLX(4), EXIT);				/* by a way around */
	assert_false(has_pair(flow));
	flow_free(flow);
}

static void a_callx_of_an_argument_has_no_load(void **state)
{
	struct flow *flow = FLOW(CALLX(1), EXIT);

	assert_false(has_pair(flow));
	flow_free(flow);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(straight_code_needs_what_it_reads_first),
		cmocka_unit_test(branches_join_what_either_side_needs),
		cmocka_unit_test(a_loop_keeps_its_registers_alive),
		cmocka_unit_test(a_jump_to_itself_is_a_loop),
		cmocka_unit_test(what_is_read_before_it_is_written_is_undefined),
		cmocka_unit_test(a_call_reads_arguments_and_leaves_zeroes),
		cmocka_unit_test(lddw_has_one_life_and_two_slots),
		cmocka_unit_test(atomics_write_what_they_fetch),
		cmocka_unit_test(each_class_reads_and_writes_its_own),
		cmocka_unit_test(the_frame_extends_as_far_as_it_is_used),
		cmocka_unit_test(random_methods_agree_with_the_definition),
		cmocka_unit_test(a_chain_of_back_edges_stays_linear),
		cmocka_unit_test(a_callx_knows_the_load_of_its_register),
		cmocka_unit_test(a_conditional_jump_in_between_that_is_not_taken_changes_nothing),
		cmocka_unit_test(every_callx_has_its_own_load),
		cmocka_unit_test(what_defines_the_register_otherwise_is_no_slot),
		cmocka_unit_test(a_jump_that_leads_in_between_ends_the_pair),
		cmocka_unit_test(a_callx_of_an_argument_has_no_load),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
