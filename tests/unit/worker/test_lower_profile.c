/* SPDX-License-Identifier: Apache-2.0 */
#include <stdint.h>
#include "unit/worker/script.h"
#include "reference/reference.c"
#include "worker/child/hints.h"
#include "worker/child/plan.h"

/* What a profile changes in tier-1 code, what it can never change, and what code counts at Tier1Instrumented */

#define ENTRY(count) { .kind = PROFILE_ENTRY, .n = (count), .method = PROFILE_NO_METHOD }
#define BRANCH(at, count, taken) { .pc = (at), .kind = PROFILE_BRANCH, .n = (count), .m = (taken), .method = PROFILE_NO_METHOD }
#define CALLS(at, count) { .pc = (at), .kind = PROFILE_CALL, .n = (count), .method = PROFILE_NO_METHOD }
#define CALLXS(at, count, votes, target) { .pc = (at), .kind = PROFILE_CALLX, .n = (count), .m = (votes), .method = (target) }
#define SET_PROFILE(body, ...)                                                                                         \
	do {                                                                                                           \
		static const struct profile_count _counts[] = { __VA_ARGS__ };                                         \
		(body)->profile = _counts;                                                                             \
		(body)->n_profile = ARRAY_SIZE(_counts);                                                               \
	} while (0)

/* Compiles bodies[0] as it stands and makes it the method's code. */
static void compile_job(struct run *run, const struct job_compile *job)
{
	struct refusal refusal = { "" };
	const uint64_t address = run_compile_job(run, job, &refusal);

	if (!address)
		fail_msg("%s", refusal.text);
	*run_entry(run, job->method) = address;
}

static struct code_result compile_code(const struct job_compile *job, void **block)
{
	struct refusal refusal = { "" };
	struct code_result code;

	if (!codegen_compile(job, &code, block, &refusal))
		fail_msg("%s", refusal.text);
	return code;
}

/* Where the code first refers to what is named so; UINT32_MAX: nowhere */
static uint32_t place_of(const struct code_result *code, enum code_target target, uint32_t index)
{
	for (uint32_t i = 0; i < code->n_relocs; i++)
		if (code->relocs[i].target == target && code->relocs[i].index == index)
			return code->relocs[i].offset;
	return UINT32_MAX;
}

/* -- Branches ------------------------------------------------------------------------------------------------------ */

/* r1 ? import 1 : import 0, and then something more that keeps the calls from becoming one */
static void add_fork(struct run *run)
{
	RUN_ADD(run, JUMP_K(BPF_JNE, 1, 0, 3), CALL_IMPORT(0), ALU64_K(BPF_ADD, 0, 1), EXIT(), CALL_IMPORT(1), EXIT());
}

static void the_usual_way_comes_first(void **state)
{
	for (int taken = 0; taken < 2; taken++) {
		struct run *run = run_new();
		struct job_body bodies[RUN_METHODS];
		struct job_compile job;
		struct code_result code;
		void *block;

		add_fork(run);
		job = run_job(run, 0, false, bodies);
		if (taken)
			SET_PROFILE(&bodies[0], ENTRY(30), BRANCH(0, 30, 30), CALLS(1, 0), CALLS(4, 30));
		else
			SET_PROFILE(&bodies[0], ENTRY(30), BRANCH(0, 30, 0), CALLS(1, 30), CALLS(4, 0));
		code = compile_code(&job, &block);
		assert_true(place_of(&code, CODE_TARGET_IMPORT, taken) < place_of(&code, CODE_TARGET_IMPORT, !taken));
		free(block);
		run_free(run);
	}
}

/* Whether the profile makes other code than none does */
static bool profile_matters(struct run *run, enum tier_level level)
{
	struct job_body bodies[RUN_METHODS];
	struct job_compile job = run_job(run, 0, false, bodies);
	struct code_result with, without;
	void *blocks[2];
	bool differs;

	job.level = level;
	without = compile_code(&job, &blocks[0]);
	SET_PROFILE(&bodies[0], ENTRY(30), BRANCH(0, 30, 0), CALLS(1, 30), CALLS(4, 0));
	with = compile_code(&job, &blocks[1]);
	differs = with.n_bytes != without.n_bytes || memcmp(with.bytes, without.bytes, with.n_bytes);
	SET_PROFILE(&bodies[0], ENTRY(30), BRANCH(0, 30, 30), CALLS(1, 0), CALLS(4, 30));
	free(blocks[1]);
	with = compile_code(&job, &blocks[1]);
	differs |= with.n_bytes != without.n_bytes || memcmp(with.bytes, without.bytes, with.n_bytes);
	free(blocks[0]);
	free(blocks[1]);
	return differs;
}

static void ready_to_run_code_ignores_profiles(void **state)
{
	struct run *run = run_new();

	add_fork(run);
	assert_true(profile_matters(run, TIER_LEVEL_TIER1));
	assert_true(profile_matters(run, TIER_LEVEL_OPTIMIZED));
	assert_false(profile_matters(run, TIER_LEVEL_READY_TO_RUN));
	run_free(run);
}

/* -- Inlining ------------------------------------------------------------------------------------------------------ */

/* How many are inlined into a method that calls one of @n slots in two places, of which the first was executed so often */
static uint32_t inlined_with(uint32_t n, uint32_t n_entries, uint32_t n_first)
{
	struct run *run = run_new();
	struct script script = { .n = 0 };
	struct job_body bodies[RUN_METHODS];
	struct job_compile job;
	uint32_t n_inlined;

	RUN_ADD(run, CALL(1), CALL(1), EXIT());
	while (script.n < n - 1)
		script_add(&script, ALU64_K(BPF_ADD, 0, 1));
	script_add(&script, EXIT());
	run_add(run, script.insns, script.n);
	run_compile(run, 1, false);
	job = run_job(run, 0, true, bodies);
	bodies[0].profile = (const struct profile_count[]){ ENTRY(n_entries), CALLS(0, n_first), CALLS(1, 0) };
	bodies[0].n_profile = 3;
	compile_job(run, &job);
	n_inlined = run->n_inlined;
	assert_int_equal(run_call(run, 0, 0, 0, 0), n - 1);
	run_free(run);
	return n_inlined;
}

static void a_hot_call_inlines_more_and_one_that_never_was_nothing(void **state)
{
	assert_int_equal(inlined_with(PLAN_CALLEE_MAX, 30, 30), 1);
	assert_int_equal(inlined_with(PLAN_CALLEE_MAX + 1, 30, 30), 0);
	assert_int_equal(inlined_with(2, 30, 0), 0);
	assert_int_equal(inlined_with(PLAN_HOT_MAX, 30, 30 * HINTS_HOT - 1), 0);
	assert_int_equal(inlined_with(PLAN_HOT_MAX, 30, 30 * HINTS_HOT), 1);
	assert_int_equal(inlined_with(PLAN_HOT_MAX + 1, 30, 30 * HINTS_HOT), 0);
	assert_int_equal(inlined_with(2, 0, 0), 1);	/* nobody called it: nothing is known */
	assert_int_equal(inlined_with(PLAN_HOT_MAX, 1, UINT32_MAX), 1);
}

/* -- Indirect calls ------------------------------------------------------------------------------------------------ */

/* 0: calls r1 on r2; 1: r1 * 3; 2: r1 + 1000 */
static void add_indirect(struct run *run)
{
	RUN_ADD(run, MOV(6, 1), MOV(1, 2), CALLX(6), ALU64_K(BPF_ADD, 0, 1), EXIT());
	RUN_ADD(run, MOV(0, 1), ALU64_K(BPF_MUL, 0, 3), EXIT());
	RUN_ADD(run, MOV(0, 1), ALU64_K(BPF_ADD, 0, 1000), EXIT());
	run_compile_all(run, false);
}

static void a_usual_target_is_inlined_behind_a_question(void **state)
{
	struct run *run = run_new();
	struct job_body bodies[RUN_METHODS];
	struct job_compile job;

	add_indirect(run);
	job = run_job(run, 0, true, bodies);
	SET_PROFILE(&bodies[0], ENTRY(30), CALLXS(2, 30, 30, 1));
	compile_job(run, &job);
	assert_int_equal(run->n_inlined, 1);
	assert_int_equal(run->inlined[0], 1);
	assert_int_equal(run_call(run, 0, run_address(run, 2), 14, 0), 1015);
	*run_entry(run, 1) = 0;		/* not called, but part of it */
	assert_int_equal(run_call(run, 0, run_address(run, 1), 14, 0), 43);
	run_free(run);
}

static void a_usual_target_that_was_not_sent_is_called_directly(void **state)
{
	struct run *run = run_new();
	struct job_body bodies[RUN_METHODS];
	struct job_compile job;
	struct code_result code;
	void *block;

	add_indirect(run);
	job = run_job(run, 0, false, bodies);
	SET_PROFILE(&bodies[0], ENTRY(30), CALLXS(2, 30, 30, 1));
	code = compile_code(&job, &block);
	assert_int_not_equal(place_of(&code, CODE_TARGET_METHOD, 1), UINT32_MAX);
	assert_int_not_equal(place_of(&code, CODE_TARGET_ENTRY, 1), UINT32_MAX);
	free(block);
	compile_job(run, &job);
	assert_int_equal(run->n_inlined, 0);
	assert_int_equal(run_call(run, 0, run_address(run, 1), 14, 0), 43);
	assert_int_equal(run_call(run, 0, run_address(run, 2), 14, 0), 1015);
	*run_entry(run, 1) = *run_entry(run, 2);	/* through its cell as it is then */
	assert_int_equal(run_call(run, 0, run_address(run, 1), 14, 0), 1015);
	run_free(run);
}

/* How many of @n callx ask for their target */
static uint32_t count_guards(uint32_t n)
{
	struct run *run = run_new();
	_cleanup_(freep) struct profile_count *counts = calloc(n + 1, sizeof(*counts));
	struct script script = { .n = 0 };
	struct job_body bodies[RUN_METHODS];
	struct job_compile job;
	struct plan *plan;
	uint32_t n_guards = 0;

	assert_non_null(counts);
	counts[0] = (struct profile_count)ENTRY(30);
	for (uint32_t i = 0; i < n; i++) {
		script_add(&script, CALLX(6));
		counts[1 + i] = (struct profile_count)CALLXS(i, 30, 30, 0);
	}
	script_add(&script, EXIT());
	run_add(run, script.insns, script.n);
	job = run_job(run, 0, false, bodies);
	bodies[0].profile = counts;
	bodies[0].n_profile = n + 1;
	assert_int_equal(plan_new(&plan, &job), 0);
	for (uint32_t pc = 0; pc < n; pc++)
		n_guards += plan_target(plan, &job, 0, pc) != NULL;
	plan_free(plan);
	run_free(run);
	return n_guards;
}

static void too_many_indirect_calls_ask_for_nobody(void **state)
{
	assert_int_equal(count_guards(1), 1);
	assert_int_equal(count_guards(PLAN_GUARDS_MAX), PLAN_GUARDS_MAX);
	assert_int_equal(count_guards(PLAN_GUARDS_MAX + 1), 0);
}

/* Whether a callx of @n executions with so many @votes for @target asks for it */
static bool is_guarded(uint32_t n, uint32_t votes, uint32_t target)
{
	struct run *run = run_new();
	struct job_body bodies[RUN_METHODS];
	struct job_compile job;
	struct code_result code;
	void *block;
	bool found = false;

	add_indirect(run);
	job = run_job(run, 0, false, bodies);
	bodies[0].profile = (const struct profile_count[]){ ENTRY(30), CALLXS(2, n, votes, target) };
	bodies[0].n_profile = 2;
	code = compile_code(&job, &block);
	for (uint32_t i = 0; i < RUN_METHODS; i++)
		found |= place_of(&code, CODE_TARGET_METHOD, i) != UINT32_MAX;
	free(block);
	run_free(run);
	return found;
}

static void only_a_target_with_enough_votes_is_asked_for(void **state)
{
	assert_true(is_guarded(400, 100, 1));
	assert_false(is_guarded(400, 99, 1));
	assert_false(is_guarded(400, 400, PROFILE_NO_METHOD));
	assert_false(is_guarded(0, 0, 1));
	assert_true(is_guarded(UINT32_MAX, UINT32_MAX, 2));
	assert_true(is_guarded(30, 30, 0));	/* itself: recursion */
	assert_false(is_guarded(30, 30, 3));	/* there is no such method */
}

static void a_method_that_calls_itself_indirectly_ends(void **state)
{
	struct run *run = run_new();
	struct job_body bodies[RUN_METHODS];
	struct job_compile job;

	/* f(n, f) = n ? f(n - 1, f) + 2 : 0 */
	RUN_ADD(run, MOV_K(0, 0), JUMP_K(BPF_JEQ, 1, 0, 3), ALU64_K(BPF_ADD, 1, -1), CALLX(2), ALU64_K(BPF_ADD, 0, 2), EXIT());
	job = run_job(run, 0, true, bodies);
	SET_PROFILE(&bodies[0], ENTRY(30), BRANCH(1, 30, 1), CALLXS(3, 300, 300, 0));
	compile_job(run, &job);
	assert_int_equal(run->n_inlined, 0);
	assert_int_equal(run_call(run, 0, 0, run_address(run, 0), 0), 0);
	assert_int_equal(run_call(run, 0, 1, run_address(run, 0), 0), 2);
	run_free(run);
}

/* -- Nonsense ------------------------------------------------------------------------------------------------------ */
static void a_profile_of_something_else_is_not_believed(void **state)
{
	struct run *run = run_new();
	struct job_body bodies[RUN_METHODS];
	struct job_compile job;
	const struct profile_count *count;

	add_indirect(run);
	job = run_job(run, 0, true, bodies);
	SET_PROFILE(&bodies[0], ENTRY(30), BRANCH(0, 9, 9), CALLS(2, 9), BRANCH(3, UINT32_MAX, 7), CALLXS(4, 5, 5, 2));
	assert_null(hints_at(&job, 0, PROFILE_CALLX, 2));
	assert_null(hints_target(&job, 0, 2));
	assert_null(hints_target(&job, 0, 1));
	assert_int_equal(hints_heat(&job, 0, 2), HINTS_UNKNOWN);
	compile_job(run, &job);
	assert_int_equal(run_call(run, 0, run_address(run, 1), 14, 0), 43);
	count = hints_at(&job, 0, PROFILE_BRANCH, 3);
	assert_non_null(count);
	assert_int_equal(count->m, 7);
	bodies[0].profile = (const struct profile_count[]){ ENTRY(0), CALLXS(2, 5, 5, 2) };
	bodies[0].n_profile = 2;
	assert_null(hints_target(&job, 0, 2));
	bodies[0].n_profile = 1;
	assert_null(hints_target(&job, 0, 2));
	run_free(run);
}

/* Sum of r2 words from r1 on, none of which is 7, with any numbers for its branches */
static void any_weights_give_the_same_result(void **state)
{
	static const uint32_t numbers[] = { 0, 1, 30, 1u << 31, UINT32_MAX };
	uint64_t words[100];
	struct run *run = run_new();

	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		words[i] = i * i + 8;
	RUN_ADD(run, MOV_K(0, 0), JUMP_K(BPF_JEQ, 2, 0, 6), LOAD(BPF_DW, 3, 1, 0), JUMP_K(BPF_JEQ, 3, 7, 4), ALU64_X(BPF_ADD, 0, 3),
		ALU64_K(BPF_ADD, 1, 8), ALU64_K(BPF_ADD, 2, -1), JUMP_K(BPF_JNE, 2, 0, -6), EXIT());
	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++)
		for (size_t k = 0; k <= i; k++) {
			const struct profile_count counts[] = { ENTRY(numbers[i]), BRANCH(1, numbers[i], numbers[k]),
								BRANCH(3, numbers[i], numbers[k]),
								BRANCH(7, numbers[i], numbers[k]) };
			struct job_body bodies[RUN_METHODS];
			struct job_compile job = run_job(run, 0, false, bodies);

			run->n_code = 16 * RUN_METHODS;
			bodies[0].profile = counts;
			bodies[0].n_profile = ARRAY_SIZE(counts);
			compile_job(run, &job);
			assert_int_equal(run_call(run, 0, (uintptr_t)words, 100, 0), run_expect(run, 0, (uintptr_t)words, 100, 0));
			assert_int_equal(run_call(run, 0, (uintptr_t)words, 0, 0), 0);
		}
	run_free(run);
}

/* -- Counting ------------------------------------------------------------------------------------------------------ */
static uint32_t *words_of(struct run *run, const struct job_compile *job)
{
	return (uint32_t *)(run->span + RUN_CELLS) + job->profile;
}

static struct job_compile counting_job(struct run *run, struct job_body bodies[RUN_METHODS])
{
	struct job_compile job = run_job(run, 0, true, bodies);

	job.level = TIER_LEVEL_TIER1_INSTRUMENTED;
	job.profile = 6;
	job.n_cells = RUN_SEGMENT / sizeof(uint32_t);
	return job;
}

static void calls_and_branches_are_counted_and_nothing_is_inlined(void **state)
{
	struct run *run = run_new();
	struct job_body bodies[RUN_METHODS];
	struct job_compile job;
	uint32_t *words;

	/* for (r6 = r1; r6; r6--) if (r6 != 3) call 1 */
	RUN_ADD(run, MOV(6, 1), JUMP_K(BPF_JEQ, 6, 0, 4), JUMP_K(BPF_JEQ, 6, 3, 1), CALL(1), ALU64_K(BPF_ADD, 6, -1), JUMP(-5),
		MOV_K(0, 7), EXIT());
	RUN_ADD(run, MOV_K(0, 1), EXIT());
	run_compile(run, 1, false);
	job = counting_job(run, bodies);
	compile_job(run, &job);
	assert_int_equal(run->n_inlined, 0);
	words = words_of(run, &job);
	assert_int_equal(run_call(run, 0, 0, 0, 0), 7);
	assert_memory_equal(words, ((uint32_t[]){ 1, 1, 1, 0, 0, 0 }), 6 * 4);
	assert_int_equal(run_call(run, 0, 10, 0, 0), 7);
	assert_memory_equal(words, ((uint32_t[]){ 2, 12, 2, 10, 1, 9 }), 6 * 4);
	assert_memory_equal(words - 6, ((uint32_t[6]){ 0 }), 6 * 4);
	assert_memory_equal(words + 6, ((uint32_t[6]){ 0 }), 6 * 4);
	run_free(run);
}

/* for (r1 = 5; r1-- > 1;), with nothing else in it that could keep LLVM from making a vector of the counters */
static void the_last_round_of_a_loop_does_not_go_on(void **state)
{
	struct run *run = run_new();
	struct job_body bodies[RUN_METHODS];
	struct job_compile job;

	RUN_ADD(run, MOV_K(1, 5), ALU64_K(BPF_ADD, 1, -1), JUMP_K(BPF_JSGT, 1, 0, -2), MOV(0, 1), EXIT());
	job = counting_job(run, bodies);
	compile_job(run, &job);
	assert_int_equal(run_call(run, 0, 0, 0, 0), 0);
	assert_memory_equal(words_of(run, &job), ((uint32_t[]){ 1, 5, 4 }), 3 * 4);
	run_free(run);
}

static void votes_of_an_indirect_call_are_the_majoritys(void **state)
{
	struct run *run = run_new();
	struct job_body bodies[RUN_METHODS];
	struct job_compile job;
	uint64_t target;
	uint32_t *words;

	add_indirect(run);
	job = counting_job(run, bodies);
	compile_job(run, &job);
	words = words_of(run, &job);
	for (int i = 0; i < 3; i++)
		assert_int_equal(run_call(run, 0, run_address(run, 1), 14, 0), 43);
	memcpy(&target, words + 4, sizeof(target));
	assert_int_equal(target, run_address(run, 1));
	assert_memory_equal(words, ((uint32_t[]){ 3, 3, 3 }), 3 * 4);
	for (int i = 0; i < 4; i++)
		assert_int_equal(run_call(run, 0, run_address(run, 2), 14, 0), 1015);
	memcpy(&target, words + 4, sizeof(target));
	assert_int_equal(target, run_address(run, 2));
	assert_memory_equal(words, ((uint32_t[]){ 7, 7, 1 }), 3 * 4);
	run_free(run);
}

static uint32_t *watched;
static uint64_t look(uint64_t word, uint64_t b, uint64_t c, uint64_t d, uint64_t e)
{
	return watched[word];
}

/* A callee that never returns must find everything that came before it counted. */
static void what_is_counted_is_there_when_a_call_begins(void **state)
{
	struct run *run = run_new();
	struct job_body bodies[RUN_METHODS];
	struct job_compile job;

	/* for (r6 = r1, r7 = 0; r6; r6--) r7 += import 0(word of the call's site) */
	RUN_ADD(run, MOV(6, 1), MOV_K(7, 0), MOV_K(1, 1), CALL_IMPORT(0), ALU64_X(BPF_ADD, 7, 0), ALU64_K(BPF_ADD, 6, -1),
		JUMP_K(BPF_JNE, 6, 0, -5), MOV(0, 7), EXIT());
	*run_import(run, 0) = (uintptr_t)look;
	job = counting_job(run, bodies);
	compile_job(run, &job);
	watched = words_of(run, &job);
	assert_int_equal(run_call(run, 0, 100, 0, 0), 5050);
	assert_memory_equal(watched, ((uint32_t[]){ 1, 100, 100, 99 }), 4 * 4);
	run_free(run);
}

static void code_that_has_too_few_cells_to_count_in_is_refused(void **state)
{
	struct run *run = run_new();
	struct refusal refusal = { "" };
	struct job_body bodies[RUN_METHODS];
	struct job_compile job;

	add_fork(run);		/* entry, branch, two calls: 5 words, hence 6 */
	job = counting_job(run, bodies);
	job.n_cells = job.profile + 6;
	assert_true(run_compile_job(run, &job, &refusal));
	job.n_cells--;
	assert_false(run_compile_job(run, &job, &refusal));
	assert_non_null(strstr(refusal.text, "cells"));
	job.n_cells = 0;
	assert_false(run_compile_job(run, &job, &refusal));
	run_free(run);
}

static int setup(void **state)
{
	return codegen_init();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_usual_way_comes_first),
		cmocka_unit_test(ready_to_run_code_ignores_profiles),
		cmocka_unit_test(a_hot_call_inlines_more_and_one_that_never_was_nothing),
		cmocka_unit_test(a_usual_target_is_inlined_behind_a_question),
		cmocka_unit_test(a_usual_target_that_was_not_sent_is_called_directly),
		cmocka_unit_test(only_a_target_with_enough_votes_is_asked_for),
		cmocka_unit_test(too_many_indirect_calls_ask_for_nobody),
		cmocka_unit_test(a_method_that_calls_itself_indirectly_ends),
		cmocka_unit_test(a_profile_of_something_else_is_not_believed),
		cmocka_unit_test(any_weights_give_the_same_result),
		cmocka_unit_test(calls_and_branches_are_counted_and_nothing_is_inlined),
		cmocka_unit_test(the_last_round_of_a_loop_does_not_go_on),
		cmocka_unit_test(votes_of_an_indirect_call_are_the_majoritys),
		cmocka_unit_test(what_is_counted_is_there_when_a_call_begins),
		cmocka_unit_test(code_that_has_too_few_cells_to_count_in_is_refused),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
