/* SPDX-License-Identifier: Apache-2.0 */
#include <signal.h>
#include <stdint.h>
#include <sys/time.h>
#include <sys/wait.h>
#include "unit/worker/script.h"
#include "reference/reference.c"
#include "worker/child/plan.h"

/* Calls of every kind, who is inlined, and what the optimizer must leave as it is */

/* -- Calls --------------------------------------------------------------------------------------------------------- */
static void a_direct_call_reads_the_entry_cell_every_time(void **state)
{
	struct run *run = run_new();

	RUN_ADD(run, CALL(1), MOV(6, 0), CALL(1), ALU64_K(BPF_LSH, 6, 8), ALU64_X(BPF_OR, 0, 6), EXIT());
	RUN_ADD(run, MOV_K(0, 1), EXIT());
	RUN_ADD(run, MOV_K(0, 2), EXIT());
	run_compile_all(run, false);
	assert_int_equal(run->n_inlined, 0);
	assert_int_equal(run_call(run, 0, 0, 0, 0), 0x0101);
	*run_entry(run, 1) = *run_entry(run, 2);
	assert_int_equal(run_call(run, 0, 0, 0, 0), 0x0202);
	run_free(run);
}

static uint64_t redirect(uint64_t cell, uint64_t to, uint64_t c, uint64_t d, uint64_t e)
{
	*(volatile uint64_t *)cell = to;
	return 0;
}

/* The callee changes its own cell while the loop runs, as a publication would. */
static void a_cell_that_changes_between_two_calls_is_seen(void **state)
{
	struct run *run = run_new();

	RUN_ADD(run, MOV(6, 1), MOV(7, 2), MOV_K(8, 0), MOV_K(9, 3), CALL(1), ALU64_K(BPF_MUL, 8, 10), ALU64_X(BPF_ADD, 8, 0),
		MOV(1, 6), MOV(2, 7), CALL_IMPORT(0), ALU64_K(BPF_ADD, 9, -1), JUMP_K(BPF_JNE, 9, 0, -8), MOV(0, 8), EXIT());
	RUN_ADD(run, MOV_K(0, 1), EXIT());
	RUN_ADD(run, MOV_K(0, 2), EXIT());
	*run_import(run, 0) = (uintptr_t)redirect;
	run_compile_all(run, false);
	assert_int_equal(run_call(run, 0, (uintptr_t)run_entry(run, 1), *run_entry(run, 2), 0), 122);
	run_free(run);
}

static void recursion_goes_through_the_methods_own_cell(void **state)
{
	struct run *run = run_new();

	/* fib: if (n < 2) return n; return fib(n - 1) + fib(n - 2) */
	RUN_ADD(run, MOV(6, 1), MOV(0, 1), JUMP_K(BPF_JLT, 1, 2, 8), ALU64_K(BPF_ADD, 1, -1), CALL(0), MOV(7, 0), MOV(1, 6),
		ALU64_K(BPF_ADD, 1, -2), CALL(0), ALU64_X(BPF_ADD, 0, 7), JUMP(0), EXIT());
	run_compile(run, 0, true);
	assert_int_equal(run->n_inlined, 0);
	assert_int_equal(run_call(run, 0, 20, 0, 0), 6765);
	run_free(run);
}

static void a_call_leaves_zero_in_the_argument_registers(void **state)
{
	for (int candidates = 0; candidates < 2; candidates++) {
		struct run *run = run_new();

		RUN_ADD(run, MOV_K(5, 9), CALL(1), MOV(0, 1), ALU64_X(BPF_ADD, 0, 2), ALU64_X(BPF_ADD, 0, 5), EXIT());
		RUN_ADD(run, MOV_K(0, 1), MOV_K(1, 5), MOV_K(5, 6), EXIT());
		run_compile_all(run, candidates);
		assert_int_equal(run_call(run, 0, 7, 8, 9), 0);
		run_free(run);
	}
}

static uint64_t import_sum(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e)
{
	return a + 10 * b + 100 * c + 1000 * d + 10000 * e;
}

static uint64_t import_first(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e)
{
	return a;
}

static void an_import_is_called_through_its_cell(void **state)
{
	struct run *run = run_new();

	RUN_ADD(run, MOV_K(1, 1), MOV_K(2, 2), MOV_K(3, 3), MOV_K(4, 4), MOV_K(5, 5), CALL_IMPORT(2), EXIT());
	run_compile_all(run, false);
	*run_import(run, 2) = (uintptr_t)import_sum;
	assert_int_equal(run_call(run, 0, 0, 0, 0), 54321);
	*run_import(run, 2) = (uintptr_t)import_first;
	assert_int_equal(run_call(run, 0, 0, 0, 0), 1);
	run_free(run);
}

static void an_indirect_call_calls_the_value(void **state)
{
	struct run *run = run_new();

	RUN_ADD(run, MOV(6, 1), MOV(1, 2), CALLX(6), EXIT());
	RUN_ADD(run, LDDW(0, INSN_REF_METHOD, 0, 2), EXIT());
	RUN_ADD(run, MOV(0, 1), ALU64_K(BPF_MUL, 0, 3), EXIT());
	RUN_ADD(run, LDDW(6, INSN_REF_METHOD, 0, 2), CALLX(6), EXIT());
	RUN_ADD(run, LDDW(0, INSN_REF_IMPORT, 0, 1), EXIT());
	run_compile_all(run, true);
	*run_import(run, 1) = (uintptr_t)import_first;
	assert_int_equal(run_call(run, 1, 0, 0, 0), run_address(run, 2));
	assert_int_equal(run_call(run, 0, run_call(run, 1, 0, 0, 0), 14, 0), 42);
	assert_int_equal(run_call(run, 3, 5, 0, 0), 15);
	assert_int_equal(run_call(run, 4, 0, 0, 0), (uintptr_t)import_first);
	run_free(run);
}

/* -- Inlining ------------------------------------------------------------------------------------------------------ */

/* Each of the two frames holds its own words while both are alive; the callee writes through the caller's pointer too. */
static void two_frames_alive_at_once_do_not_overlap(void **state)
{
	for (int candidates = 0; candidates < 2; candidates++) {
		struct run *run = run_new();

		RUN_ADD(run, STORE_K(BPF_DW, 10, -8, 11), STORE_K(BPF_DW, 10, -16, 22), MOV(1, 10), ALU64_K(BPF_ADD, 1, -16),
			CALL(1), LOAD(BPF_DW, 1, 10, -8), LOAD(BPF_DW, 2, 10, -16), ALU64_K(BPF_MUL, 1, 100),
			ALU64_K(BPF_MUL, 2, 10000), ALU64_X(BPF_ADD, 0, 1), ALU64_X(BPF_ADD, 0, 2), EXIT());
		RUN_ADD(run, STORE_K(BPF_DW, 10, -8, 3), STORE_K(BPF_DW, 10, -16, 4), STORE_K(BPF_DW, 1, 0, 33),
			LOAD(BPF_DW, 0, 10, -8), LOAD(BPF_DW, 2, 10, -16), ALU64_K(BPF_MUL, 2, 10), ALU64_X(BPF_ADD, 0, 2),
			EXIT());
		run_compile_all(run, candidates);
		assert_int_equal(run_call(run, 0, 0, 0, 0), 43 + 1100 + 330000);
		run_compile(run, 0, candidates);
		assert_int_equal(run->n_inlined, candidates);
		run_free(run);
	}
}

static void inlining_is_listed_transitively_and_nothing_else_is(void **state)
{
	struct run *run = run_new();

	RUN_ADD(run, CALL(2), EXIT());
	RUN_ADD(run, MOV_K(0, 5), EXIT());
	RUN_ADD(run, CALL(3), ALU64_K(BPF_ADD, 0, 1), EXIT());
	RUN_ADD(run, MOV_K(0, 40), EXIT());
	run_compile_all(run, true);
	run_compile(run, 0, true);
	assert_int_equal(run->n_inlined, 2);
	assert_int_equal(run->inlined[0], 2);
	assert_int_equal(run->inlined[1], 3);
	*run_entry(run, 2) = *run_entry(run, 3) = 0;
	assert_int_equal(run_call(run, 0, 0, 0, 0), 41);
	run_free(run);
}

static void methods_that_call_each_other_are_not_expanded_forever(void **state)
{
	struct run *run = run_new();

	/* even(n) = n ? odd(n - 1) : 1, odd(n) = n ? even(n - 1) : 0 */
	RUN_ADD(run, MOV_K(0, 1), JUMP_K(BPF_JEQ, 1, 0, 2), ALU64_K(BPF_ADD, 1, -1), CALL(1), EXIT());
	RUN_ADD(run, MOV_K(0, 0), JUMP_K(BPF_JEQ, 1, 0, 2), ALU64_K(BPF_ADD, 1, -1), CALL(0), EXIT());
	run_compile_all(run, true);
	assert_int_equal(run->n_inlined, 1);
	assert_int_equal(run_call(run, 0, 1001, 0, 0), 0);
	assert_int_equal(run_call(run, 1, 1001, 0, 0), 1);
	run_free(run);
}

/* How many methods are inlined into one that calls a method of @n slots in @places places */
static uint32_t inlined_with(uint32_t n, unsigned int places)
{
	struct run *run = run_new();
	struct insn insns[PLAN_ONCE_MAX + 1];
	uint32_t n_inlined;

	for (unsigned int i = 0; i < n - 1; i++)
		insns[i] = ALU64_K(BPF_ADD, 0, 1);
	insns[n - 1] = EXIT();
	if (places == 1)
		RUN_ADD(run, CALL(1), EXIT());
	else
		RUN_ADD(run, CALL(1), CALL(1), EXIT());
	run_add(run, insns, n);
	run_compile_all(run, true);
	run_compile(run, 0, true);
	assert_int_equal(run_call(run, 0, 0, 0, 0), n - 1);
	n_inlined = run->n_inlined;
	run_free(run);
	return n_inlined;
}

static void a_large_callee_is_called_and_not_listed(void **state)
{
	assert_int_equal(inlined_with(PLAN_CALLEE_MAX, 2), 1);
	assert_int_equal(inlined_with(PLAN_CALLEE_MAX + 1, 2), 0);
	assert_int_equal(inlined_with(PLAN_ONCE_MAX, 1), 1);
	assert_int_equal(inlined_with(PLAN_ONCE_MAX + 1, 1), 0);
}

/* -- What the optimizer must leave alone --------------------------------------------------------------------------- */
static void a_loop_without_end_stays_one(void **state)
{
	struct itimerval soon = { .it_value.tv_usec = 20000 };
	struct run *run = run_new();
	int status;
	pid_t pid;

	RUN_ADD(run, MOV_K(0, 7), JUMP_K(BPF_JEQ, 1, 0, 1), JUMP(-1), EXIT());
	run_compile_all(run, false);
	assert_int_equal(run_call(run, 0, 0, 0, 0), 7);
	pid = fork();
	if (!pid) {
		setitimer(ITIMER_VIRTUAL, &soon, NULL);
		run_call(run, 0, 1, 0, 0);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGVTALRM);
	run_free(run);
}

static void clearing_and_copying_loops_need_no_library(void **state)
{
	struct run *run = run_new();
	uint8_t from[300], to[300];

	memset(from, 0xaa, sizeof(from));
	/* while (n--) to[n] = from[n] */
	RUN_ADD(run, JUMP_K(BPF_JEQ, 3, 0, 8), ALU64_K(BPF_ADD, 3, -1), MOV(4, 2), ALU64_X(BPF_ADD, 4, 3), LOAD(BPF_B, 5, 4, 0),
		MOV(4, 1), ALU64_X(BPF_ADD, 4, 3), STORE(BPF_B, 4, 0, 5), JUMP(-9), MOV_K(0, 0), EXIT());
	/* for (i = 0; i < n; i++) to[i] = 0 */
	RUN_ADD(run, MOV_K(3, 0), JUMP_X(BPF_JGE, 3, 2, 5), MOV(4, 1), ALU64_X(BPF_ADD, 4, 3), STORE_K(BPF_B, 4, 0, 0),
		ALU64_K(BPF_ADD, 3, 1), JUMP(-6), MOV_K(0, 0), EXIT());
	run_compile_all(run, false);
	run_call(run, 0, (uintptr_t)to, (uintptr_t)from, sizeof(to));
	assert_memory_equal(to, from, sizeof(to));
	memset(from, 0, sizeof(from));
	run_call(run, 1, (uintptr_t)to, sizeof(to), 0);
	assert_memory_equal(to, from, sizeof(to));
	run_free(run);
}

static void a_large_frame_is_cleared_without_a_library(void **state)
{
	struct run *run = run_new();
	struct script script = { .n = 0 };

	for (int off = -512; off < 0; off += 8)
		script_add(&script, STORE_K(BPF_DW, 10, off, 0));
	script_add(&script, MOV(1, 10));
	script_add(&script, ALU64_K(BPF_ADD, 1, -512));
	script_add(&script, CALL_IMPORT(0));
	script_add(&script, EXIT());
	run_add(run, script.insns, script.n);
	run_compile_all(run, false);
	*run_import(run, 0) = (uintptr_t)import_first;
	assert_true(run_call(run, 0, 0, 0, 0) != 0);
	run_free(run);
}

/* A chain of comparisons that yields addresses: the optimizer may not make a table of absolute addresses of it. */
static void choosing_between_addresses_needs_no_absolute_ones(void **state)
{
	struct run *run = run_new();
	struct script script = { .n = 0 };

	for (int i = 0; i < 8; i++) {
		struct insn address[] = { LDDW(0, i & 1 ? INSN_REF_DATA : INSN_REF_METHOD, i & 1 ? 8 * i : 0, 0) };

		script_add(&script, JUMP_K(BPF_JNE, 1, i, 3));
		script_add(&script, address[0]);
		script_add(&script, address[1]);
		script_add(&script, EXIT());
	}
	script_add(&script, MOV_K(0, 0));
	script_add(&script, EXIT());
	run_add(run, script.insns, script.n);
	run_compile_all(run, false);
	for (uint64_t i = 0; i < 8; i++)
		assert_int_equal(run_call(run, 0, i, 0, 0), i & 1 ? (uintptr_t)run->span + RUN_DATA + 8 * i : run_address(run, 0));
	run_free(run);
}

static int setup(void **state)
{
	return codegen_init();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_direct_call_reads_the_entry_cell_every_time),
		cmocka_unit_test(a_cell_that_changes_between_two_calls_is_seen),
		cmocka_unit_test(recursion_goes_through_the_methods_own_cell),
		cmocka_unit_test(a_call_leaves_zero_in_the_argument_registers),
		cmocka_unit_test(an_import_is_called_through_its_cell),
		cmocka_unit_test(an_indirect_call_calls_the_value),
		cmocka_unit_test(two_frames_alive_at_once_do_not_overlap),
		cmocka_unit_test(inlining_is_listed_transitively_and_nothing_else_is),
		cmocka_unit_test(methods_that_call_each_other_are_not_expanded_forever),
		cmocka_unit_test(a_large_callee_is_called_and_not_listed),
		cmocka_unit_test(a_loop_without_end_stays_one),
		cmocka_unit_test(clearing_and_copying_loops_need_no_library),
		cmocka_unit_test(a_large_frame_is_cleared_without_a_library),
		cmocka_unit_test(choosing_between_addresses_needs_no_absolute_ones),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
