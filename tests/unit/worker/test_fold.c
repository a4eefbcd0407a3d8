/* SPDX-License-Identifier: Apache-2.0 */
#include <stdint.h>
#include "unit/worker/run.h"
#include "reference/reference.c"

/* What is known of .rodata: knobs, tables of numbers and of methods, pointers; and what looks known, but is not. What the code
 * may not know is changed behind its back between two calls. */

#define N_RODATA 0x800u
#define CELLS 0x800u		/* offset of the call cells: the place just behind */
#define SLOTS 0x100u		/* the part with vtable slots: four words */
#define N_SLOTS 32u
#define RELOCS_MAX 16u

struct fold_test {
	struct run *run;
	uint8_t rodata[N_RODATA];	/* as the job has it: without pointers */
	struct image_reloc relocs[RELOCS_MAX];
	struct job_body bodies[RUN_METHODS];
	struct job_compile job;
};

static struct fold_test *fold_new(void)
{
	struct fold_test *test = calloc(1, sizeof(*test));

	assert_non_null(test);
	test->run = run_new();
	return test;
}

static void fold_free(struct fold_test *test)
{
	run_free(test->run);
	free(test);
}

/* What the program sees */
static void *real(struct fold_test *test, uint32_t offset)
{
	return test->run->span + RUN_RODATA + offset;
}

static void put(struct fold_test *test, uint32_t offset, const void *p, uint32_t n)
{
	memcpy(test->rodata + offset, p, n);
	memcpy(real(test, offset), p, n);
}

static void put_number(struct fold_test *test, uint32_t offset, uint64_t number)
{
	put(test, offset, &number, sizeof(number));
}

/* In ascending order of offsets. @value is what the daemon would write there. */
static void put_pointer(struct fold_test *test, uint32_t offset, enum insn_ref ref, uint32_t index, int32_t addend,
			uint64_t value)
{
	assert_true(test->job.n_relocs < RELOCS_MAX);
	test->relocs[test->job.n_relocs++] = (struct image_reloc){ .segment = IMAGE_RODATA, .ref = ref, .width = 8, .offset = offset,
								   .index = index, .addend = addend };
	memcpy(real(test, offset), &value, sizeof(value));
}

static void put_method(struct fold_test *test, uint32_t offset, uint32_t method)
{
	put_pointer(test, offset, INSN_REF_METHOD, method, 0, run_address(test->run, method));
}

static struct job_compile *fold_job(struct fold_test *test, bool candidates)
{
	const uint32_t n_relocs = test->job.n_relocs;

	test->job = run_job(test->run, 0, candidates, test->bodies);
	test->job.n_rodata = N_RODATA;
	test->job.rodata = test->rodata;
	test->job.relocs = test->relocs;
	test->job.n_relocs = n_relocs;
	return &test->job;
}

/* A table of four, and the cells of its slots */
static struct job_compile *fold_job_slots(struct fold_test *test, bool candidates)
{
	struct job_compile *job = fold_job(test, candidates);

	job->slots = SLOTS;
	job->n_slots = N_SLOTS;
	job->call_cells = CELLS;
	return job;
}

static uint64_t *cell(struct fold_test *test, uint32_t slot)
{
	return real(test, CELLS + slot - SLOTS);
}

static void fold_compile(struct fold_test *test, const struct job_compile *job)
{
	struct refusal refusal;
	const uint64_t address = run_compile_job(test->run, job, &refusal);

	if (!address)
		fail_msg("%s", refusal.text);
	*run_entry(test->run, 0) = address;
}

static uint32_t n_relocs_of(const struct job_compile *job, enum code_target target)
{
	struct refusal refusal;
	struct code_result code;
	uint32_t n = 0;
	void *block;

	if (!codegen_compile(job, &code, &block, &refusal))
		fail_msg("%s", refusal.text);
	for (uint32_t i = 0; i < code.n_relocs; i++)
		n += code.relocs[i].target == target;
	free(block);
	return n;
}

/* -- Numbers ------------------------------------------------------------------------------------------------------- */
static void the_branch_that_a_knob_turns_off_is_gone(void **state)
{
	struct fold_test *test = fold_new();
	struct job_compile *job;

	put_number(test, 8, 1);
	RUN_ADD(test->run, LDDW(1, INSN_REF_RODATA, 8, 0), LOAD(BPF_W, 2, 1, 0), JUMP_K(BPF_JEQ, 2, 0, 2), MOV_K(0, 5), EXIT(),
		CALL_IMPORT(0), EXIT());
	job = fold_job(test, false);
	assert_int_equal(n_relocs_of(job, CODE_TARGET_IMPORT), 0);
	assert_int_equal(n_relocs_of(job, CODE_TARGET_RODATA), 0);
	job->rodata = NULL;
	job->n_relocs = 0;
	assert_true(n_relocs_of(job, CODE_TARGET_IMPORT) && n_relocs_of(job, CODE_TARGET_RODATA));
	fold_free(test);
}

static void knobs_of_every_size_have_their_values(void **state)
{
	static const struct insn loads[] = {
		LOAD(BPF_B, 2, 1, 3), LOAD(BPF_H, 2, 1, 3), LOAD(BPF_W, 2, 1, 3), LOAD(BPF_DW, 2, 1, 3), LOADSX(BPF_B, 2, 1, 7),
		LOADSX(BPF_H, 2, 1, 6), LOADSX(BPF_W, 2, 1, 5),
	};
	struct fold_test *test = fold_new();
	struct { struct insn insns[64]; uint32_t n; } script = { .n = 0 };
	const struct insn base[] = { LDDW(1, INSN_REF_RODATA, 16, 0) };
	uint64_t expected;

	put_number(test, 16, 0x8123456789abcdef);
	put_number(test, 24, 0xf0e1d2c3b4a59687);
	for (size_t i = 0; i < ARRAY_SIZE(loads); i++) {
		memcpy(script.insns + script.n, base, sizeof(base));
		script.n += ARRAY_SIZE(base);
		script.insns[script.n++] = loads[i];
		script.insns[script.n++] = ALU64_K(BPF_MUL, 0, 31);
		script.insns[script.n++] = ALU64_X(BPF_XOR, 0, 2);
	}
	script.insns[script.n++] = EXIT();
	run_add(test->run, script.insns, script.n);
	expected = run_expect(test->run, 0, 0, 0, 0);
	assert_int_equal(n_relocs_of(fold_job(test, false), CODE_TARGET_RODATA), 0);
	fold_compile(test, &test->job);
	assert_int_equal(run_call(test->run, 0, 0, 0, 0), expected);
	fold_free(test);
}

/* table[table[knob]] */
static void one_number_leads_to_another(void **state)
{
	struct fold_test *test = fold_new();

	put_number(test, 0, 3);
	put_number(test, 64 + 3 * 8, 5);
	put_number(test, 64 + 5 * 8, 777);
	RUN_ADD(test->run, LDDW(1, INSN_REF_RODATA, 0, 0), LOAD(BPF_DW, 2, 1, 0), ALU64_K(BPF_LSH, 2, 3),
		LDDW(3, INSN_REF_RODATA, 64, 0), ALU64_X(BPF_ADD, 2, 3), LOAD(BPF_DW, 4, 2, 0), ALU64_K(BPF_LSH, 4, 3), ALU64_X(BPF_ADD, 4, 3), LOAD(BPF_DW, 0, 4, 0),
		EXIT());
	assert_int_equal(n_relocs_of(fold_job(test, false), CODE_TARGET_RODATA), 0);
	fold_compile(test, &test->job);
	assert_int_equal(run_call(test->run, 0, 0, 0, 0), 777);
	fold_free(test);
}

static void a_loop_over_a_table_that_is_unrolled_leaves_a_number(void **state)
{
	struct fold_test *test = fold_new();

	for (uint32_t i = 0; i < 4; i++)
		put_number(test, 32 + 8 * i, 1 + i);
	RUN_ADD(test->run, MOV_K(2, 0), LDDW(1, INSN_REF_RODATA, 32, 0), LOAD(BPF_DW, 3, 1, 0), ALU64_K(BPF_MUL, 0, 10),
		ALU64_X(BPF_ADD, 0, 3), ALU64_K(BPF_ADD, 1, 8), ALU64_K(BPF_ADD, 2, 1), JUMP_K(BPF_JNE, 2, 4, -6), EXIT());
	assert_int_equal(n_relocs_of(fold_job(test, false), CODE_TARGET_RODATA), 0);
	fold_compile(test, &test->job);
	assert_int_equal(run_call(test->run, 0, 0, 0, 0), 1234);
	fold_free(test);
}

static void an_inlined_method_knows_the_table_that_it_gets(void **state)
{
	struct fold_test *test = fold_new();

	put_number(test, 48, 99);
	RUN_ADD(test->run, LDDW(1, INSN_REF_RODATA, 40, 0), CALL(1), EXIT());
	RUN_ADD(test->run, LOAD(BPF_DW, 0, 1, 8), EXIT());
	assert_int_equal(n_relocs_of(fold_job(test, true), CODE_TARGET_RODATA), 0);
	fold_compile(test, &test->job);
	assert_int_equal(run_call(test->run, 0, 0, 0, 0), 99);
	fold_free(test);
}

static void an_entry_in_a_loop_knows_as_much(void **state)
{
	struct fold_test *test = fold_new();
	struct job_compile *job;

	put_number(test, 0, 0);
	RUN_ADD(test->run, MOV_K(6, 10), LDDW(1, INSN_REF_RODATA, 0, 0), LOAD(BPF_DW, 2, 1, 0), JUMP_K(BPF_JEQ, 2, 0, 1), CALL_IMPORT(0),
		ALU64_K(BPF_ADD, 6, -1), JUMP_K(BPF_JNE, 6, 0, -7), EXIT());
	job = fold_job(test, false);
	job->level = TIER_LEVEL_OSR;
	job->osr_pc = 1;
	assert_int_equal(n_relocs_of(job, CODE_TARGET_IMPORT), 0);
	fold_free(test);
}

/* Code made of an object may run with other knobs. */
static void what_is_compiled_before_its_module_is_loaded_knows_nothing(void **state)
{
	struct fold_test *test = fold_new();

	put_number(test, 0, 3);
	RUN_ADD(test->run, LDDW(1, INSN_REF_RODATA, 0, 0), LOAD(BPF_DW, 0, 1, 0), EXIT());
	fold_job(test, false)->level = TIER_LEVEL_READY_TO_RUN;
	fold_compile(test, &test->job);
	*(uint64_t *)real(test, 0) = 4;
	assert_int_equal(run_call(test->run, 0, 0, 0, 0), 4);
	fold_free(test);
}

/* No bytes of it come along: an index that is only known at run time reaches the one .rodata that there is. */
static void the_code_has_no_copy_of_the_table(void **state)
{
	struct fold_test *test = fold_new();
	struct code_result code;
	struct refusal refusal;
	void *block;

	for (uint32_t i = 0; i < N_RODATA / 8; i++)
		put_number(test, 8 * i, 0x9e3779b97f4a7c15u * (i + 1));
	RUN_ADD(test->run, ALU64_K(BPF_AND, 1, 0xff), ALU64_K(BPF_LSH, 1, 3), LDDW(2, INSN_REF_RODATA, 0, 0), ALU64_X(BPF_ADD, 1, 2),
		LOAD(BPF_DW, 0, 1, 0), EXIT());
	assert_int_equal(n_relocs_of(fold_job(test, false), CODE_TARGET_RODATA), 1);
	assert_true(codegen_compile(&test->job, &code, &block, &refusal));
	assert_true(code.n_bytes < 256);
	assert_null(memmem(code.bytes, code.n_bytes, test->rodata + 64, 8));
	free(block);
	fold_compile(test, &test->job);
	assert_int_equal(run_call(test->run, 0, 200, 0, 0), 0x9e3779b97f4a7c15u * 201);
	*(uint64_t *)real(test, 8 * 200) = 5;
	assert_int_equal(run_call(test->run, 0, 200, 0, 0), 5);
	fold_free(test);
}

/* -- Places outside ------------------------------------------------------------------------------------------------ */

/* Loads that begin before .rodata, end behind it, or lie there: what they read changes. */
static void a_load_across_an_end_of_rodata_is_left_alone(void **state)
{
	static const struct { int16_t off; uint8_t size; } loads[] = {
		{ N_RODATA - 4, BPF_DW }, { N_RODATA - 1, BPF_H }, { N_RODATA, BPF_B }, { N_RODATA, BPF_DW }, { N_RODATA + 1000, BPF_W },
		{ -1, BPF_B }, { -4, BPF_DW }, { -8, BPF_DW }, { -1000, BPF_W },
	};

	for (size_t i = 0; i < ARRAY_SIZE(loads); i++) {
		struct fold_test *test = fold_new();

		RUN_ADD(test->run, LDDW(1, INSN_REF_RODATA, 0, 0), LOAD(loads[i].size, 0, 1, loads[i].off), EXIT());
		fold_job(test, false);
		fold_compile(test, &test->job);
		for (uint64_t k = 1; k <= 2; k++) {
			memset(real(test, 0) - 1024, 0x11 * k, 1024);
			memset(real(test, N_RODATA), 0x21 * k, 1024);
			assert_int_equal(run_call(test->run, 0, 0, 0, 0), run_expect(test->run, 0, 0, 0, 0));
		}
		fold_free(test);
	}
}

/* The way to it is never taken, and must not be taken for the only one. */
static void a_load_far_outside_says_nothing_about_the_way_there(void **state)
{
	struct fold_test *test = fold_new();

	RUN_ADD(test->run, LDDW(3, INSN_REF_RODATA, 0, 0), ALU64_K(BPF_ADD, 3, 0x40000000), MOV_K(0, 7), JUMP_K(BPF_JEQ, 1, 0, 1),
		LOAD(BPF_DW, 0, 3, 0), EXIT());
	fold_job(test, false);
	fold_compile(test, &test->job);
	assert_int_equal(run_call(test->run, 0, 0, 0, 0), 7);
	fold_free(test);
}

static void variables_are_no_constants(void **state)
{
	struct fold_test *test = fold_new();

	put_number(test, 0, 1);
	RUN_ADD(test->run, LDDW(1, INSN_REF_DATA, 0, 0), LOAD(BPF_DW, 0, 1, 0), LDDW(2, INSN_REF_BSS, 0, 0), LOAD(BPF_DW, 2, 2, 0),
		ALU64_X(BPF_ADD, 0, 2), LDDW(3, INSN_REF_RODATA, 0, 0), LOAD(BPF_DW, 3, 3, 0), ALU64_X(BPF_ADD, 0, 3), EXIT());
	fold_job(test, false);
	fold_compile(test, &test->job);
	for (uint64_t k = 1; k <= 2; k++) {
		*(uint64_t *)(test->run->span + RUN_DATA) = 100 * k;
		*(uint64_t *)(test->run->span + RUN_BSS) = 1000 * k;
		assert_int_equal(run_call(test->run, 0, 0, 0, 0), 1100 * k + 1);
	}
	fold_free(test);
}

/* -- Pointers ------------------------------------------------------------------------------------------------------ */
static void pointers_lead_where_they_point(void **state)
{
	struct fold_test *test = fold_new();
	const uint64_t data = (uint64_t)test->run->span + RUN_DATA + 24, bss = (uint64_t)test->run->span + RUN_BSS + 8;

	put_number(test, 0x40, 4000);
	put_pointer(test, 0, INSN_REF_DATA, 0, 24, data);
	put_pointer(test, 8, INSN_REF_BSS, 0, 8, bss);
	put_pointer(test, 16, INSN_REF_RODATA, 0, 0x40, (uint64_t)real(test, 0x40));
	RUN_ADD(test->run, LDDW(1, INSN_REF_RODATA, 0, 0), LOAD(BPF_DW, 2, 1, 0), LOAD(BPF_DW, 0, 2, 0), LOAD(BPF_DW, 2, 1, 8),
		LOAD(BPF_DW, 2, 2, 0), ALU64_X(BPF_ADD, 0, 2), LOAD(BPF_DW, 2, 1, 16), LOAD(BPF_DW, 2, 2, 0), ALU64_X(BPF_ADD, 0, 2),
		EXIT());
	assert_int_equal(n_relocs_of(fold_job(test, false), CODE_TARGET_RODATA), 0);
	assert_true(n_relocs_of(&test->job, CODE_TARGET_DATA) && n_relocs_of(&test->job, CODE_TARGET_BSS));
	fold_compile(test, &test->job);
	*(uint64_t *)data = 7;
	*(uint64_t *)bss = 50;
	assert_int_equal(run_call(test->run, 0, 0, 0, 0), 4057);
	fold_free(test);
}

/* Parts of pointers, pointers and a byte more, and pointers that no place at load time decides */
static void a_part_of_a_pointer_is_left_alone(void **state)
{
	static const struct insn loads[] = {
		LOAD(BPF_W, 0, 1, 8), LOAD(BPF_W, 0, 1, 12), LOAD(BPF_B, 0, 1, 15), LOAD(BPF_DW, 0, 1, 4), LOAD(BPF_DW, 0, 1, 12),
		LOAD(BPF_DW, 0, 1, 9), LOADSX(BPF_W, 0, 1, 8), LOAD(BPF_DW, 0, 1, 24), LOAD(BPF_W, 0, 1, 32), LOAD(BPF_DW, 0, 1, 32),
	};

	for (size_t i = 0; i < ARRAY_SIZE(loads); i++) {
		struct fold_test *test = fold_new();

		put_number(test, 0, 0x0102030405060708);
		put_number(test, 16, 0x1112131415161718);
		put_method(test, 8, 0);
		put_pointer(test, 24, INSN_REF_IMPORT, 1, 0, 0x123456789abc);
		put_pointer(test, 32, INSN_REF_DATA, 0, 0, 0x55667788);
		test->relocs[2].width = 4;
		RUN_ADD(test->run, LDDW(1, INSN_REF_RODATA, 0, 0), loads[i], EXIT());
		fold_job(test, false);
		fold_compile(test, &test->job);
		assert_int_equal(run_call(test->run, 0, 0, 0, 0), run_expect(test->run, 0, 0, 0, 0));
		fold_free(test);
	}
}

/* A number that is added to a known address goes into the reference, and may lead too far for one. */
static void a_known_address_and_a_large_number_make_no_reference(void **state)
{
	struct fold_test *test = fold_new();

	put_method(test, 0, 0);
	RUN_ADD(test->run, LDDW(1, INSN_REF_RODATA, 0, 0), LOAD(BPF_DW, 0, 1, 0), ALU64_K(BPF_ADD, 0, 0x7ffffff0), EXIT());
	fold_job(test, false);
	fold_compile(test, &test->job);
	assert_int_equal(run_call(test->run, 0, 0, 0, 0), run_address(test->run, 0) + 0x7ffffff0);
	fold_free(test);
}

/* -- Calls --------------------------------------------------------------------------------------------------------- */

/* Method 0 calls through a word of .rodata; 1 and 2 return their numbers. */
static struct fold_test *call_test(const struct insn *insns, uint32_t n)
{
	struct fold_test *test = fold_new();

	run_add(test->run, insns, n);
	RUN_ADD(test->run, MOV_K(0, 1), ALU64_X(BPF_ADD, 0, 1), EXIT());
	RUN_ADD(test->run, MOV_K(0, 2), ALU64_X(BPF_ADD, 0, 1), EXIT());
	run_compile(test->run, 1, false);
	run_compile(test->run, 2, false);
	put_number(test, SLOTS + 16, 12345);
	put_method(test, SLOTS, 1);
	put_method(test, SLOTS + 8, 2);
	put_method(test, SLOTS + 24, 2);
	return test;
}
#define CALL_TEST(...)                                                                                                 \
	({ const struct insn _insns[] = { __VA_ARGS__ }; call_test(_insns, ARRAY_SIZE(_insns)); })

static void a_call_through_a_known_slot_is_a_direct_call(void **state)
{
	struct fold_test *test = CALL_TEST(LDDW(6, INSN_REF_RODATA, SLOTS - 8, 0), LOAD(BPF_DW, 7, 6, 16), MOV_K(1, 40), CALLX(7),
					   ALU64_K(BPF_MUL, 0, 2), EXIT());
	const struct job_compile *job = fold_job_slots(test, false);
	struct code_result code;
	struct refusal refusal;
	void *block;

	assert_true(codegen_compile(job, &code, &block, &refusal));
	assert_int_equal(code.n_relocs, 1);
	assert_int_equal(code.relocs[0].target, CODE_TARGET_ENTRY);
	assert_int_equal(code.relocs[0].index, 2);
	assert_memory_equal(code.bytes + code.relocs[0].offset - 2, ((uint8_t[]){ 0xff, 0x15 }), 2);
	free(block);
	fold_compile(test, job);
	assert_int_equal(run_call(test->run, 0, 0, 0, 0), 84);
	*run_entry(test->run, 2) = *run_entry(test->run, 1);	/* it follows its method's next version */
	assert_int_equal(run_call(test->run, 0, 0, 0, 0), 82);
	fold_free(test);
}

static void a_slot_that_a_knob_chooses_is_known(void **state)
{
	struct fold_test *test = CALL_TEST(LDDW(6, INSN_REF_RODATA, 0, 0), LOAD(BPF_DW, 2, 6, 0), ALU64_K(BPF_LSH, 2, 3),
					   LDDW(6, INSN_REF_RODATA, SLOTS, 0), ALU64_X(BPF_ADD, 6, 2), LOAD(BPF_DW, 7, 6, 0), MOV_K(1, 40),
					   CALLX(7), EXIT());

	put_number(test, 0, 1);
	assert_int_equal(n_relocs_of(fold_job_slots(test, false), CODE_TARGET_ENTRY), 1);
	assert_int_equal(n_relocs_of(&test->job, CODE_TARGET_RODATA), 0);
	fold_compile(test, &test->job);
	assert_int_equal(run_call(test->run, 0, 0, 0, 0), 42);
	fold_free(test);
}

/* What it calls is in its cell, not in .rodata: only tierd knows when that changes. */
static void a_call_through_an_unknown_slot_keeps_its_cell(void **state)
{
	struct fold_test *test = CALL_TEST(ALU64_K(BPF_LSH, 1, 3), LDDW(6, INSN_REF_RODATA, SLOTS, 0), ALU64_X(BPF_ADD, 6, 1),
					   LOAD(BPF_DW, 7, 6, 0), MOV_K(1, 40), CALLX(7), EXIT());

	fold_job_slots(test, false);
	fold_compile(test, &test->job);
	*cell(test, SLOTS) = *run_entry(test->run, 2);
	*cell(test, SLOTS + 8) = *run_entry(test->run, 1);
	assert_int_equal(run_call(test->run, 0, 0, 0, 0), 42);
	assert_int_equal(run_call(test->run, 0, 1, 0, 0), 41);
	fold_free(test);
}

/* A number among the slots, and a place between two of them: no method stands there, so the call is as it was. */
static void a_known_word_that_is_no_method_is_called_through_its_cell(void **state)
{
	struct fold_test *test = CALL_TEST(LDDW(6, INSN_REF_RODATA, SLOTS, 0), LOAD(BPF_DW, 7, 6, 16), MOV_K(1, 40), CALLX(7), EXIT());

	assert_int_equal(n_relocs_of(fold_job_slots(test, false), CODE_TARGET_ENTRY), 0);
	fold_compile(test, &test->job);
	*cell(test, SLOTS + 16) = *run_entry(test->run, 1);
	assert_int_equal(run_call(test->run, 0, 0, 0, 0), 41);
	fold_free(test);
}

/* A pointer that is no slot, because it is not aligned: the value is known, and so is whom it calls. */
static void a_known_pointer_that_is_no_slot_is_called_directly(void **state)
{
	struct fold_test *test = CALL_TEST(LDDW(6, INSN_REF_RODATA, 0, 0), LOAD(BPF_DW, 7, 6, 0x203), MOV_K(1, 40), CALLX(7), EXIT());

	put_method(test, 0x203, 1);
	assert_int_equal(n_relocs_of(fold_job_slots(test, false), CODE_TARGET_ENTRY), 1);
	assert_int_equal(n_relocs_of(&test->job, CODE_TARGET_METHOD), 0);
	fold_compile(test, &test->job);
	assert_int_equal(run_call(test->run, 0, 0, 0, 0), 41);
	fold_free(test);
}

/* With a profile, who is known to be called comes in, and nobody asks whether it is called. */
static void a_known_slot_and_a_profile_inline_without_a_question(void **state)
{
	struct fold_test *test = CALL_TEST(LDDW(6, INSN_REF_RODATA, SLOTS, 0), LOAD(BPF_DW, 7, 6, 8), MOV_K(1, 40), CALLX(7), EXIT());
	const struct profile_count counts[] = {
		{ .kind = PROFILE_ENTRY, .n = 30 }, { .kind = PROFILE_CALLX, .pc = 4, .n = 30, .m = 30, .method = 2 },
	};
	struct job_compile *job = fold_job_slots(test, true);

	job->bodies[0].profile = counts;
	job->bodies[0].n_profile = ARRAY_SIZE(counts);
	fold_compile(test, job);
	assert_int_equal(test->run->n_inlined, 1);
	for (uint32_t target = 0; target < _CODE_TARGET_N; target++)
		assert_int_equal(n_relocs_of(job, target), 0);
	assert_int_equal(run_call(test->run, 0, 0, 0, 0), 42);
	fold_free(test);
}

/* -- .data and .bss of another module ------------------------------------------------------------------------------ */
static void segments_elsewhere_are_reached_by_number(void **state)
{
	const int flags = MAP_PRIVATE | MAP_ANONYMOUS;
	uint64_t *far = mmap((void *)0x210000000000, 8192, PROT_READ | PROT_WRITE, flags, -1, 0);
	struct fold_test *test = fold_new();
	struct job_compile *job;

	assert_ptr_not_equal(far, MAP_FAILED);
	put_pointer(test, 0, INSN_REF_DATA, 0, 16, (uint64_t)(far + 2));
	RUN_ADD(test->run, LDDW(1, INSN_REF_DATA, 8, 0), LOAD(BPF_DW, 0, 1, 0), STORE_K(BPF_DW, 1, 0, 11), LDDW(2, INSN_REF_BSS, 24, 0),
		LOAD(BPF_DW, 3, 2, 0), ALU64_X(BPF_ADD, 0, 3), LDDW(4, INSN_REF_RODATA, 0, 0), LOAD(BPF_DW, 4, 4, 0), LOAD(BPF_DW, 4, 4, 0),
		ALU64_X(BPF_ADD, 0, 4), EXIT());
	job = fold_job(test, false);
	job->data = (uint64_t)far;
	job->bss = (uint64_t)(far + 512);
	for (uint32_t target = 0; target < _CODE_TARGET_N; target++)
		assert_int_equal(n_relocs_of(job, target), 0);
	fold_compile(test, job);
	far[1] = 5;
	far[2] = 30;
	far[512 + 3] = 200;
	assert_int_equal(run_call(test->run, 0, 0, 0, 0), 235);
	assert_int_equal(run_call(test->run, 0, 0, 0, 0), 241);
	munmap(far, 8192);
	fold_free(test);
}

static int setup(void **state)
{
	return codegen_init();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_branch_that_a_knob_turns_off_is_gone),
		cmocka_unit_test(knobs_of_every_size_have_their_values),
		cmocka_unit_test(one_number_leads_to_another),
		cmocka_unit_test(a_loop_over_a_table_that_is_unrolled_leaves_a_number),
		cmocka_unit_test(an_inlined_method_knows_the_table_that_it_gets),
		cmocka_unit_test(an_entry_in_a_loop_knows_as_much),
		cmocka_unit_test(what_is_compiled_before_its_module_is_loaded_knows_nothing),
		cmocka_unit_test(the_code_has_no_copy_of_the_table),
		cmocka_unit_test(a_load_across_an_end_of_rodata_is_left_alone),
		cmocka_unit_test(a_load_far_outside_says_nothing_about_the_way_there),
		cmocka_unit_test(variables_are_no_constants),
		cmocka_unit_test(pointers_lead_where_they_point),
		cmocka_unit_test(a_part_of_a_pointer_is_left_alone),
		cmocka_unit_test(a_known_address_and_a_large_number_make_no_reference),
		cmocka_unit_test(a_call_through_a_known_slot_is_a_direct_call),
		cmocka_unit_test(a_slot_that_a_knob_chooses_is_known),
		cmocka_unit_test(a_call_through_an_unknown_slot_keeps_its_cell),
		cmocka_unit_test(a_known_word_that_is_no_method_is_called_through_its_cell),
		cmocka_unit_test(a_known_pointer_that_is_no_slot_is_called_directly),
		cmocka_unit_test(a_known_slot_and_a_profile_inline_without_a_question),
		cmocka_unit_test(segments_elsewhere_are_reached_by_number),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
