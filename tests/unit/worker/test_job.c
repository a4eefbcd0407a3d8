/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>
#include "util/base.h"
#include "worker/job.h"

/* What put writes, get accepts and gives back; everything else is refused. */

static const struct insn insns[] = {
	{ .code = BPF_ALU64 | BPF_MOV | BPF_K, .imm = 7 }, { .code = BPF_JMP | BPF_EXIT },
};

static const uint8_t rodata[16] = { 1, 2, 3, [12] = 4, 5 };

static const struct image_reloc pointers[] = {
	{ .segment = IMAGE_RODATA, .ref = INSN_REF_METHOD, .width = 4, .offset = 3, .index = 2 },
	{ .segment = IMAGE_RODATA, .ref = INSN_REF_BSS, .width = 4, .offset = 8, .addend = 7 },
};

static const struct profile_count counts[] = {
	{ .kind = PROFILE_ENTRY, .n = 30, .method = PROFILE_NO_METHOD },
	{ .kind = PROFILE_CALLX, .pc = 0, .n = 9, .m = 9, .method = 3 },
	{ .kind = PROFILE_BRANCH, .pc = 1, .n = 30, .m = 7, .method = PROFILE_NO_METHOD },
};

static struct job_compile example(struct job_body bodies[2])
{
	bodies[0] = (struct job_body){ .method = 3, .n_insns = 2, .insns = insns, .name = "main" };
	bodies[0].profile = counts;
	bodies[0].n_profile = ARRAY_SIZE(counts);
	bodies[1] = (struct job_body){ .method = 0, .n_insns = 1, .insns = insns + 1, .name = "" };
	bodies[1].profile = counts;
	bodies[1].n_profile = 1;
	return (struct job_compile){ .level = TIER_LEVEL_TIER1, .method = 3, .n_methods = 4, .n_imports = 2,
				     .n_rodata = sizeof(rodata), .n_data = 6, .n_bss = 7, .data = 0x200000001000,
				     .bss = 0x200000002000, .rodata = rodata, .relocs = pointers, .n_relocs = 2,
				     .bodies = bodies, .n_bodies = 2 };
}

static void *example_bytes(size_t *ret_n)
{
	struct job_body bodies[2];
	struct job_compile job = example(bodies);
	void *bytes;

	assert_int_equal(job_put_compile(&job, &bytes, ret_n), 0);
	return bytes;
}

static void a_compile_job_comes_back_as_it_was(void **state)
{
	_cleanup_(freep) void *bytes = NULL;
	struct job_compile got;
	struct refusal refusal;
	size_t n;

	bytes = example_bytes(&n);
	assert_true(job_get_compile(&got, bytes, n, &refusal));
	assert_int_equal(got.level, TIER_LEVEL_TIER1);
	assert_int_equal(got.method, 3);
	assert_int_equal(got.n_methods, 4);
	assert_int_equal(got.n_imports, 2);
	assert_int_equal(got.n_data, 6);
	assert_int_equal(got.n_bss, 7);
	assert_int_equal(got.n_bodies, 2);
	assert_int_equal(got.bodies[1].method, 0);
	assert_memory_equal(got.bodies[0].insns, insns, sizeof(insns));
	assert_string_equal(got.bodies[0].name, "main");
	assert_string_equal(got.bodies[1].name, "");
	assert_memory_equal(got.rodata, rodata, sizeof(rodata));
	assert_int_equal(got.n_relocs, 2);
	assert_memory_equal(got.relocs, pointers, sizeof(pointers));
	assert_int_equal(got.data, 0x200000001000);
	assert_int_equal(got.bss, 0x200000002000);
	assert_int_equal(got.bodies[0].n_profile, ARRAY_SIZE(counts));
	assert_memory_equal(got.bodies[0].profile, counts, sizeof(counts));
	assert_int_equal(got.bodies[1].n_profile, 1);
	assert_memory_equal(got.bodies[1].profile, counts, sizeof(counts[0]));
	free(got.bodies);
}

/* Whether the job gets through, and comes back with the same where only some levels have something */
static bool gets_through(const struct job_compile *job)
{
	_cleanup_(freep) void *bytes = NULL;
	struct refusal refusal = { "" };
	struct job_compile got;
	size_t n;

	assert_int_equal(job_put_compile(job, &bytes, &n), 0);
	if (!job_get_compile(&got, bytes, n, &refusal)) {
		assert_true(refusal.text[0]);
		return false;
	}
	assert_int_equal(got.osr_pc, job->osr_pc);
	assert_int_equal(got.profile, job->profile);
	assert_int_equal(got.n_cells, job->n_cells);
	free(got.bodies);
	return true;
}

static void each_level_has_its_own_numbers(void **state)
{
	static const struct { uint32_t level, osr_pc, profile, n_cells; bool ok; } rows[] = {
		{ TIER_LEVEL_OSR, 1, 0, 0, true }, { TIER_LEVEL_OSR, 2, 0, 0, false }, { TIER_LEVEL_TIER1, 1, 0, 0, false },
		{ TIER_LEVEL_TIER1_INSTRUMENTED, 0, 64, 70, true }, { TIER_LEVEL_TIER1_INSTRUMENTED, 0, 63, 70, false },
		{ TIER_LEVEL_TIER1_INSTRUMENTED, 0, 72, 70, false }, { TIER_LEVEL_TIER1, 0, 64, 70, false },
		{ TIER_LEVEL_TIER1_INSTRUMENTED, 0, 64, 1u << 29, true }, { TIER_LEVEL_OPTIMIZED, 0, 0, 70, false },
		{ TIER_LEVEL_TIER1_INSTRUMENTED, 0, 64, 1u << 30, false }, { _TIER_LEVEL_N, 0, 0, 0, false },
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct job_body bodies[2];
		struct job_compile job = example(bodies);

		job.level = rows[i].level;
		job.osr_pc = rows[i].osr_pc;
		job.profile = rows[i].profile;
		job.n_cells = rows[i].n_cells;
		assert_int_equal(gets_through(&job), rows[i].ok);
	}
}

static bool gets_through_with_counts(const struct profile_count *changed, uint32_t n)
{
	struct job_body bodies[2];
	struct job_compile job = example(bodies);

	bodies[0].profile = changed;
	bodies[0].n_profile = n;
	return gets_through(&job);
}

static void a_profile_keeps_its_promises_or_is_refused(void **state)
{
	static const struct { uint32_t i; struct profile_count count; } rows[] = {
		{ 0, { .kind = PROFILE_CALL, .method = PROFILE_NO_METHOD } },
		{ 0, { .kind = PROFILE_ENTRY, .pc = 1, .method = PROFILE_NO_METHOD } },
		{ 0, { .kind = PROFILE_ENTRY, .n = 5, .m = 1, .method = PROFILE_NO_METHOD } },
		{ 1, { .kind = PROFILE_ENTRY, .method = PROFILE_NO_METHOD } },
		{ 1, { .kind = _PROFILE_KIND_N, .method = PROFILE_NO_METHOD } },
		{ 1, { .kind = PROFILE_CALLX, .n = 3, .m = 4, .method = 1 } },
		{ 1, { .kind = PROFILE_CALLX, .n = 3, .m = 3, .method = 4 } },
		{ 1, { .kind = PROFILE_CALL, .n = 3, .method = 1 } },
		{ 1, { .kind = PROFILE_CALL, .pc = 1, .n = 3, .method = PROFILE_NO_METHOD } },
		{ 2, { .kind = PROFILE_BRANCH, .pc = 1, .n = 6, .m = 7, .method = PROFILE_NO_METHOD } },
		{ 2, { .kind = PROFILE_BRANCH, .pc = 2, .n = 6, .m = 6, .method = PROFILE_NO_METHOD } },
		{ 2, { .kind = PROFILE_BRANCH, .pc = 0, .n = 6, .m = 6, .method = PROFILE_NO_METHOD } },
		{ 2, { .kind = PROFILE_BRANCH, .pc = 1, .method = PROFILE_NO_METHOD, .reserved = 1 } },
	};
	struct profile_count changed[4];

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		memcpy(changed, counts, sizeof(counts));
		assert_true(gets_through_with_counts(changed, 3));
		changed[rows[i].i] = rows[i].count;
		assert_false(gets_through_with_counts(changed, 3));
	}
	memcpy(changed, counts, sizeof(counts));
	changed[3] = counts[2];
	assert_false(gets_through_with_counts(changed, 4));
	assert_true(gets_through_with_counts(NULL, 0));
}

static bool gets_through_with_pointer(struct image_reloc second)
{
	struct image_reloc changed[2] = { pointers[0], second };
	struct job_body bodies[2];
	struct job_compile job = example(bodies);

	job.relocs = changed;
	return gets_through(&job);
}

static void pointers_of_rodata_lie_inside_apart_and_lead_somewhere(void **state)
{
	static const struct { uint8_t segment, ref, width, pad; uint32_t offset, index; int32_t addend; bool ok; } rows[] = {
		{ IMAGE_RODATA, INSN_REF_IMPORT, 4, 0, 7, 1, 0, true }, { IMAGE_RODATA, INSN_REF_IMPORT, 4, 0, 6, 1, 0, false },
		{ IMAGE_RODATA, INSN_REF_IMPORT, 4, 0, 7, 2, 0, false }, { IMAGE_DATA, INSN_REF_IMPORT, 4, 0, 7, 1, 0, false },
		{ IMAGE_RODATA, INSN_REF_METHOD, 4, 0, 7, 4, 0, false }, { IMAGE_RODATA, INSN_REF_METHOD, 4, 0, 7, 3, 8, false },
		{ IMAGE_RODATA, INSN_REF_DATA, 4, 0, 7, 0, 6, true }, { IMAGE_RODATA, INSN_REF_DATA, 4, 0, 7, 0, 7, false },
		{ IMAGE_RODATA, INSN_REF_DATA, 4, 0, 7, 0, -1, false }, { IMAGE_RODATA, INSN_REF_DATA, 4, 0, 7, 1, 0, false },
		{ IMAGE_RODATA, INSN_REF_DATA, 4, 1, 7, 0, 0, false }, { IMAGE_RODATA, INSN_REF_DATA, 2, 0, 7, 0, 0, false },
		{ IMAGE_RODATA, INSN_REF_DATA, 4, 0, 9, 0, 0, false }, { IMAGE_RODATA, INSN_REF_DATA, 8, 0, 9, 0, 0, false },
		{ IMAGE_RODATA, INSN_REF_DATA, 4, 0, UINT32_MAX - 3, 0, 0, false }, { IMAGE_RODATA, 0, 4, 0, 7, 0, 0, false },
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		assert_int_equal(gets_through_with_pointer((struct image_reloc){
			.segment = rows[i].segment, .ref = rows[i].ref, .width = rows[i].width, .pad = rows[i].pad,
			.offset = rows[i].offset, .index = rows[i].index, .addend = rows[i].addend }), rows[i].ok);
}

static void segments_lie_where_a_process_has_memory(void **state)
{
	struct job_body bodies[2];
	struct job_compile job = example(bodies);

	job.data = (1ull << 47) - 1;
	assert_true(gets_through(&job));
	job.data = 1ull << 47;
	assert_false(gets_through(&job));
	job.data = 0;
	job.bss = UINT64_MAX;
	assert_false(gets_through(&job));
}

/* Whether a method of @n slots is too large, every @every-th of which is @insn */
static bool is_too_large_with(uint32_t n, uint32_t every, struct insn insn)
{
	_cleanup_(freep) struct insn *method = calloc(n, sizeof(*method));

	assert_non_null(method);
	for (uint32_t pc = 0; pc < n; pc++)
		method[pc] = insns[0];
	for (uint32_t pc = every; every && pc < n; pc += every)
		method[pc] = insn;
	method[n - 1] = insns[1];
	return job_is_too_large(method, n);
}

/* ... a jump over @off slots */
static bool is_too_large(uint32_t n, uint32_t every, int16_t off)
{
	return is_too_large_with(n, every, (struct insn){ .code = BPF_JMP | BPF_JEQ | BPF_K, .off = off });
}

static void a_method_is_too_large_by_its_slots_or_by_its_jumps(void **state)
{
	assert_false(is_too_large(32768, 0, 0));
	assert_true(is_too_large(32769, 0, 0));
	assert_false(is_too_large(10240, 1, -1));	/* up to there, no jumps are too many */
	assert_true(is_too_large(10241, 1, -1));
	assert_false(is_too_large(32700, 3270, 0));
	assert_true(is_too_large(32700, 1635, 0));
	assert_false(is_too_large(16384, 7, -2));
	assert_true(is_too_large(16384, 5, -2));
}

static void a_method_is_too_large_by_its_calls(void **state)
{
	const struct insn call = { .code = BPF_JMP | BPF_CALL, .src = INSN_CALL_METHOD };
	const struct insn callx = { .code = BPF_JMP | BPF_CALL | BPF_X, .dst = 3 };

	assert_false(is_too_large_with(10240, 1, callx));
	assert_false(is_too_large_with(16000, 1, call));
	assert_true(is_too_large_with(17000, 1, call));
	assert_false(is_too_large_with(13000, 2, callx));
	assert_true(is_too_large_with(14000, 2, callx));
}

static void constants_may_stay_at_home(void **state)
{
	_cleanup_(freep) void *bytes = NULL;
	struct job_body bodies[2];
	struct job_compile job = example(bodies), got;
	struct refusal refusal;
	size_t n;

	job.rodata = NULL;
	assert_false(gets_through(&job));
	job.n_relocs = 0;
	assert_int_equal(job_put_compile(&job, &bytes, &n), 0);
	assert_true(job_get_compile(&got, bytes, n, &refusal));
	assert_null(got.rodata);
	assert_null(got.relocs);
	assert_int_equal(got.n_rodata, sizeof(rodata));
	free(got.bodies);
}

static void a_compile_job_of_any_other_length_is_refused(void **state)
{
	_cleanup_(freep) void *bytes = NULL;
	struct refusal refusal;
	struct job_compile got;
	size_t n;

	bytes = example_bytes(&n);
	for (size_t shorter = 0; shorter < n; shorter++) {
		_cleanup_(freep) void *copy = malloc(MAX(shorter, (size_t)1));

		memcpy(copy, bytes, shorter);
		assert_false(job_get_compile(&got, copy, shorter, &refusal));
	}
	bytes = realloc(bytes, n + 1);
	((char *)bytes)[n] = 0;
	assert_false(job_get_compile(&got, bytes, n + 1, &refusal));
}

/* Whatever byte changes: no crash, and what is accepted stays inside. */
static void a_compile_job_with_a_flipped_byte_stays_inside(void **state)
{
	_cleanup_(freep) uint8_t *bytes = NULL;
	struct refusal refusal;
	struct job_compile got;
	size_t n;

	bytes = example_bytes(&n);
	for (size_t i = 0; i < n; i++)
		for (unsigned int bit = 0; bit < 8; bit++) {
			bytes[i] ^= 1u << bit;
			if (job_get_compile(&got, bytes, n, &refusal)) {
				for (uint32_t b = 0; b < got.n_bodies; b++) {
					assert_true((uint8_t *)(got.bodies[b].insns + got.bodies[b].n_insns) <= bytes + n);
					assert_true(!got.bodies[b].n_profile
						    || (uint8_t *)(got.bodies[b].profile + got.bodies[b].n_profile) <= bytes + n);
				}
				free(got.bodies);
			}
			bytes[i] ^= 1u << bit;
		}
}

static void the_first_body_must_be_the_method_itself(void **state)
{
	_cleanup_(freep) void *bytes = NULL;
	struct job_body bodies[2];
	struct job_compile job = example(bodies), got;
	struct refusal refusal;
	size_t n;

	job.method = 0;
	assert_int_equal(job_put_compile(&job, &bytes, &n), 0);
	assert_false(job_get_compile(&got, bytes, n, &refusal));
	assert_non_null(strstr(refusal.text, "first body"));
}

static void slots_lie_in_rodata_and_their_cells_behind_it(void **state)
{
	static const struct { uint32_t slots, n_slots, call_cells; bool ok; } rows[] = {
		{ 0, 64, 64, true }, { 8, 56, 128, true }, { 56, 8, 64, true }, { 0, 0, 0, true },
		{ 4, 56, 64, false }, { 0, 60, 64, false }, { 8, 64, 64, false }, { 72, 0, 64, false }, { 72, 8, 128, false },
		{ 0, 64, 56, false }, { 0, 64, 68, false }, { 0, 64, 0xfffffff8, false }, { 8, 0, 0, false }, { 0, 0, 64, false },
		{ 8, 0xfffffff8, 64, false }, { 0xfffffff8, 8, 64, false },
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		_cleanup_(freep) void *bytes = NULL;
		struct job_body bodies[2];
		struct job_compile job = example(bodies), got;
		struct refusal refusal;
		size_t n;

		job.rodata = NULL;
		job.n_relocs = 0;
		job.n_rodata = 64;
		job.slots = rows[i].slots;
		job.n_slots = rows[i].n_slots;
		job.call_cells = rows[i].call_cells;
		assert_int_equal(job_put_compile(&job, &bytes, &n), 0);
		assert_int_equal(job_get_compile(&got, bytes, n, &refusal), rows[i].ok);
		if (!rows[i].ok)
			continue;
		assert_int_equal(got.slots, rows[i].slots);
		assert_int_equal(got.n_slots, rows[i].n_slots);
		assert_int_equal(got.call_cells, rows[i].call_cells);
		free(got.bodies);
	}
}

/* -- Code ---------------------------------------------------------------------------------------------------------- */
static const uint8_t code_bytes[] = { 0x90, 0x90, 0xe8, 0, 0, 0, 0, 0xe8, 0, 0, 0, 0, 0xc3 };
static const struct code_reloc relocs[] = {
	{ .offset = 3, .target = CODE_TARGET_ENTRY, .index = 1, .addend = -4 },
	{ .offset = 8, .target = CODE_TARGET_BSS, .addend = 40 },
};
static const uint32_t inlined[] = { 2, 9 };

static struct code_result example_code(void)
{
	return (struct code_result){ .bytes = code_bytes, .n_bytes = sizeof(code_bytes), .align = 32, .entry = 2,
				     .relocs = relocs, .n_relocs = 2, .inlined = inlined, .n_inlined = 2 };
}

static void compiled_code_comes_back_as_it_was(void **state)
{
	_cleanup_(freep) void *bytes = NULL;
	struct code_result code = example_code(), got;
	struct refusal refusal;
	size_t n;

	assert_int_equal(job_put_code(&code, &bytes, &n), 0);
	assert_true(job_get_code(&got, bytes, n, &refusal));
	assert_int_equal(got.n_bytes, sizeof(code_bytes));
	assert_int_equal(got.align, 32);
	assert_int_equal(got.entry, 2);
	assert_memory_equal(got.bytes, code_bytes, sizeof(code_bytes));
	assert_memory_equal(got.relocs, relocs, sizeof(relocs));
	assert_memory_equal(got.inlined, inlined, sizeof(inlined));
	assert_false(job_get_code(&got, bytes, n - 1, &refusal));
}

static void assert_code_refused(const struct code_result *code, const char *why)
{
	_cleanup_(freep) void *bytes = NULL;
	struct code_result got;
	struct refusal refusal;
	size_t n;

	assert_int_equal(job_put_code(code, &bytes, &n), 0);
	assert_false(job_get_code(&got, bytes, n, &refusal));
	if (!strstr(refusal.text, why))
		fail_msg("'%s' does not say '%s'", refusal.text, why);
}

static void code_that_no_arena_could_place_is_refused(void **state)
{
	struct code_result code = example_code();

	code.entry = sizeof(code_bytes);
	assert_code_refused(&code, "entry");
	code = example_code();
	code.align = 48;
	assert_code_refused(&code, "alignment");
	code = example_code();
	code.n_bytes = 0;
	assert_code_refused(&code, "empty");
}

static void relocations_must_lie_inside_and_apart(void **state)
{
	struct code_reloc bad[2];
	struct code_result code = example_code();

	code.relocs = bad;
	memcpy(bad, relocs, sizeof(bad));
	bad[1].offset = sizeof(code_bytes) - 3;
	assert_code_refused(&code, "relocation");
	bad[1].offset = bad[0].offset + 3;
	assert_code_refused(&code, "relocation");
	memcpy(bad, relocs, sizeof(bad));
	bad[0].target = _CODE_TARGET_N;
	assert_code_refused(&code, "target");
	memcpy(bad, relocs, sizeof(bad));
	bad[0].kind = _CODE_RELOC_N;
	assert_code_refused(&code, "unknown kind");
	bad[0].kind = CODE_RELOC_ABSOLUTE;	/* 8 bytes from 3 on */
	assert_code_refused(&code, "overlaps");
}

static void a_method_is_listed_as_inlined_once(void **state)
{
	uint32_t twice[] = { 4, 4 };
	struct code_result code = example_code();

	code.inlined = twice;
	assert_code_refused(&code, "ascending");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_compile_job_comes_back_as_it_was),
		cmocka_unit_test(each_level_has_its_own_numbers),
		cmocka_unit_test(a_profile_keeps_its_promises_or_is_refused),
		cmocka_unit_test(pointers_of_rodata_lie_inside_apart_and_lead_somewhere),
		cmocka_unit_test(segments_lie_where_a_process_has_memory),
		cmocka_unit_test(a_method_is_too_large_by_its_slots_or_by_its_jumps),
		cmocka_unit_test(a_method_is_too_large_by_its_calls),
		cmocka_unit_test(constants_may_stay_at_home),
		cmocka_unit_test(a_compile_job_of_any_other_length_is_refused),
		cmocka_unit_test(a_compile_job_with_a_flipped_byte_stays_inside),
		cmocka_unit_test(the_first_body_must_be_the_method_itself),
		cmocka_unit_test(slots_lie_in_rodata_and_their_cells_behind_it),
		cmocka_unit_test(compiled_code_comes_back_as_it_was),
		cmocka_unit_test(code_that_no_arena_could_place_is_refused),
		cmocka_unit_test(relocations_must_lie_inside_and_apart),
		cmocka_unit_test(a_method_is_listed_as_inlined_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
