/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>
#include "bytecode/flow.h"
#include "bytecode/loops.h"
#include "code.h"

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

/* @insns have just these heads. */
static void expect_heads(const struct insn *insns, uint32_t n_insns, const uint32_t *heads, uint32_t n)
{
	uint32_t found[16] = { 0 };

	assert_int_equal(loops_find(insns, n_insns, NULL), n);
	assert_int_equal(loops_find(insns, n_insns, found), n);
	assert_memory_equal(found, heads, n * sizeof(*heads));
}
#define EXPECT(insns, ...)                                                                                             \
	expect_heads(insns, ARRAY_SIZE(insns), (const uint32_t[]){ __VA_ARGS__ },                                        \
		     ARRAY_SIZE(((const uint32_t[]){ __VA_ARGS__ })))

static void straight_code_and_forward_jumps_have_no_heads(void **state)
{
	const struct insn insns[] = { JMP_K(BPF_JEQ, 1, 0, 2), LDDW(0, INSN_REF_NONE, -1, -1), JA(0), GOTOL(0), EXIT };

	expect_heads(insns, ARRAY_SIZE(insns), NULL, 0);
	expect_heads(insns, 0, NULL, 0);
}

static void heads_come_in_ascending_order_each_once(void **state)
{
	const struct insn insns[] = {
		MOV_K(0, 0),
		ALU_K(BPF_ADD, 0, 1),
		ALU_K(BPF_SUB, 1, 1),
		JMP_K(BPF_JNE, 1, 0, -2),
		JMP_K(BPF_JNE, 2, 0, -4),
		JMP_K(BPF_JEQ, 3, 0, -4),
		JA(-6),
		EXIT,
	};

	EXPECT(insns, 1, 2);
}

static void every_kind_of_jump_closes_a_loop(void **state)
{
	const struct insn insns[] = {
		MOV_K(0, 0),
		JMP_K(BPF_JSET, 1, 1, -2),
		LDDW(2, INSN_REF_NONE, 1, 1),
		GOTOL(-3),
		INSN(BPF_JMP32 | BPF_JLT, 1, 0, -2, 3),
		JA(-3),
		EXIT,
	};

	EXPECT(insns, 0, 2, 4);
}

static void a_jump_to_itself_is_a_head(void **state)
{
	const struct insn insns[] = { JMP_K(BPF_JEQ, 1, 0, -1), JA(-1), GOTOL(-1) };

	EXPECT(insns, 0, 1, 2);
}

/* Heads on both sides of a multiple of 64, and one in each slot of many */
static void heads_are_found_wherever_they_lie(void **state)
{
	enum { N = 1000 };
	struct insn insns[N];
	uint32_t heads[N];

	for (uint32_t i = 0; i < N; i++)
		insns[i] = JMP_K(BPF_JEQ, 1, 0, -1);
	assert_int_equal(loops_find(insns, N, heads), N);
	for (uint32_t i = 0; i < N; i++)
		assert_int_equal(heads[i], i);
	for (uint32_t i = 0; i < N; i++)
		insns[i] = i % 2 ? JMP_K(BPF_JEQ, 1, 0, -1 - (int)(i % 64)) : MOV_K(0, 0);
	assert_int_equal(loops_find(insns, N, heads), N / 64 + 1);
	for (uint32_t i = 0; i <= N / 64; i++)
		assert_int_equal(heads[i], i * 64);
}

/* flow_new() marks the same slots; that is what tier 0 goes by. */
static void the_flow_marks_the_same_slots(void **state)
{
	enum { N = 300 };
	struct insn insns[N + 1];

	srand(1);
	for (int round = 0; round < 200; round++) {
		uint32_t heads[N], n = 0;
		struct flow *flow;

		for (int i = 0; i < N; i++) {
			const int target = rand() % (N + 1);

			insns[i] = rand() % 4 ? MOV_K(rand() % 10, 0) : JMP_K(BPF_JEQ, 1, 0, target - i - 1);
		}
		insns[N] = EXIT;
		assert_int_equal(flow_new(&flow, insns, N + 1), 0);
		assert_true(loops_find(insns, N + 1, heads) >= 0);
		for (uint32_t pc = 0; pc <= N; pc++)
			if (flow->marks[pc] & FLOW_BACK_TARGET)
				assert_int_equal(heads[n++], pc);
		assert_int_equal(loops_find(insns, N + 1, NULL), n);
		flow_free(flow);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(straight_code_and_forward_jumps_have_no_heads),
		cmocka_unit_test(heads_come_in_ascending_order_each_once),
		cmocka_unit_test(every_kind_of_jump_closes_a_loop),
		cmocka_unit_test(a_jump_to_itself_is_a_head),
		cmocka_unit_test(heads_are_found_wherever_they_lie),
		cmocka_unit_test(the_flow_marks_the_same_slots),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
