/* SPDX-License-Identifier: Apache-2.0 */
#include <elf.h>
#include <stddef.h>
#include <stdio.h>
#include <time.h>
#include "unit/worker/run.h"
#include "reference/reference.c"
#include "worker/child/object.h"

/* From IR to flat code: what is in the result, what is refused, and how long it takes. */

static struct job_compile example_job(struct job_body *body, const struct insn *insns, uint32_t n, uint32_t level)
{
	static const uint8_t rodata[64];

	*body = (struct job_body){ .method = 2, .n_insns = n, .insns = insns, .name = "example" };
	return (struct job_compile){ .level = level, .method = 2, .n_methods = 5, .n_imports = 3, .n_rodata = 64, .n_data = 64,
				     .n_bss = 64, .slots = 8, .n_slots = 32, .call_cells = 4096, .rodata = rodata, .bodies = body,
				     .n_bodies = 1 };
}

static bool compile(const struct insn *insns, uint32_t n, uint32_t level, struct code_result *code, void **block,
		    struct refusal *refusal)
{
	struct job_body body;
	const struct job_compile job = example_job(&body, insns, n, level);

	return codegen_compile(&job, code, block, refusal);
}

static void relocations_name_what_the_bytecode_names(void **state)
{
	const struct insn insns[] = {
		LDDW(1, INSN_REF_DATA, 16, 0), LOAD(BPF_DW, 1, 1, 0), LDDW(2, INSN_REF_METHOD, 0, 4), CALL(3), CALL_IMPORT(1),
		LDDW(1, INSN_REF_BSS, 8, 0), STORE(BPF_DW, 1, 0, 0), EXIT(),
	};
	bool seen[_CODE_TARGET_N] = { false };
	static const uint32_t indices[_CODE_TARGET_N] = {
		[CODE_TARGET_ENTRY] = 3, [CODE_TARGET_METHOD] = 4, [CODE_TARGET_IMPORT] = 1,
	};
	struct code_result code;
	struct refusal refusal;
	void *block;

	assert_true(compile(insns, ARRAY_SIZE(insns), TIER_LEVEL_TIER1, &code, &block, &refusal));
	for (uint32_t i = 0; i < code.n_relocs; i++) {
		seen[code.relocs[i].target] = true;
		assert_int_equal(code.relocs[i].index, indices[code.relocs[i].target]);
		assert_true(code.relocs[i].offset + 4 <= code.n_bytes);
		assert_true(i == 0 || code.relocs[i].offset >= code.relocs[i - 1].offset + 4);
	}
	for (unsigned int target = 0; target < _CODE_TARGET_N; target++)
		assert_true(seen[target] == (target != CODE_TARGET_RODATA && target != CODE_TARGET_CELLS));
	assert_true(code.align >= 16 && code.entry < code.n_bytes);
	assert_int_equal(code.n_inlined, 0);
	free(block);
}

/* What place.c makes a call site of: ff 15, the field, nothing behind it; and every call its own, also in a loop */
static void a_direct_call_has_the_entry_cell_for_its_operand(void **state)
{
	const struct insn insns[] = {
		MOV(6, 1), MOV(1, 6), CALL(3), MOV(1, 0), CALL(3), ALU64_K(BPF_ADD, 6, -1), JUMP_K(BPF_JNE, 6, 0, -6), MOV_K(0, 0), EXIT(),
	};
	struct code_result code;
	struct refusal refusal;
	uint32_t n_calls = 0;
	void *block;

	assert_true(compile(insns, ARRAY_SIZE(insns), TIER_LEVEL_TIER1, &code, &block, &refusal));
	for (uint32_t i = 0; i < code.n_relocs; i++) {
		const uint32_t at = code.relocs[i].offset;

		assert_int_equal(code.relocs[i].target, CODE_TARGET_ENTRY);
		assert_int_equal(code.relocs[i].addend, -4);
		assert_memory_equal(code.bytes + at - 2, ((uint8_t[]){ 0xff, 0x15 }), 2);
		n_calls++;
	}
	assert_true(n_calls >= 2);
	free(block);
}

/* push %rbp; mov %rsp,%rbp: profilers walk the stack by it */
static void every_method_has_a_frame_pointer(void **state)
{
	const struct insn insns[] = { MOV(0, 1), EXIT() };
	struct code_result code;
	struct refusal refusal;
	void *block;

	assert_true(compile(insns, ARRAY_SIZE(insns), TIER_LEVEL_TIER1, &code, &block, &refusal));
	assert_memory_equal(code.bytes + code.entry, ((uint8_t[]){ 0x55, 0x48, 0x89, 0xe5 }), 4);
	free(block);
}

/* Constants that the vectorizer needs come along, reached from rip. */
static void vector_constants_are_part_of_the_code(void **state)
{
	struct run *run = run_new();
	uint32_t words[64];

	for (uint32_t i = 0; i < ARRAY_SIZE(words); i++)
		words[i] = i;
	/* for (; n; n--, p += 4) *p = *p * 40503 + 1013904223 */
	RUN_ADD(run, JUMP_K(BPF_JEQ, 2, 0, 7), LOAD(BPF_W, 3, 1, 0), ALU32_K(BPF_MUL, 3, 40503),
		ALU32_K(BPF_ADD, 3, 1013904223), STORE(BPF_W, 1, 0, 3), ALU64_K(BPF_ADD, 1, 4), ALU64_K(BPF_ADD, 2, -1),
		JUMP(-8), MOV_K(0, 0), EXIT());
	run_compile(run, 0, false);
	run_call(run, 0, (uintptr_t)words, ARRAY_SIZE(words), 0);
	for (uint32_t i = 0; i < ARRAY_SIZE(words); i++)
		assert_int_equal(words[i], i * 40503 + 1013904223u);
	run_free(run);
}

static void another_tier_is_refused_by_name(void **state)
{
	const struct insn insns[] = { EXIT() };
	struct code_result code;
	struct refusal refusal;
	void *block;

	assert_false(compile(insns, 1, TIER_LEVEL_TIER0, &code, &block, &refusal));
	assert_non_null(strstr(refusal.text, "Tier0"));
}

/* -- Objects that the compiler should not have made ---------------------------------------------------------------- */

/* A minimal object: .text with one relocation against one symbol */
struct object_file {
	Elf64_Ehdr header;
	Elf64_Shdr sections[5];		/* null, .text, .rela, .symtab, .strtab */
	Elf64_Sym symbols[3];		/* null, method, the other */
	Elf64_Rela rela;
	uint8_t text[16];
	char strings[64];
};

static struct object_file object_example(const char *symbol, uint32_t type)
{
	struct object_file file = {
		.header = { .e_type = ET_REL, .e_machine = EM_X86_64, .e_shoff = offsetof(struct object_file, sections),
			    .e_shentsize = sizeof(Elf64_Shdr), .e_shnum = 5, .e_shstrndx = 4 },
		.sections = {
			[1] = { .sh_name = 1, .sh_type = SHT_PROGBITS, .sh_flags = SHF_ALLOC | SHF_EXECINSTR,
				.sh_offset = offsetof(struct object_file, text), .sh_size = 16, .sh_addralign = 16 },
			[2] = { .sh_type = SHT_RELA, .sh_offset = offsetof(struct object_file, rela),
				.sh_size = sizeof(Elf64_Rela), .sh_info = 1 },
			[3] = { .sh_type = SHT_SYMTAB, .sh_offset = offsetof(struct object_file, symbols),
				.sh_size = 3 * sizeof(Elf64_Sym), .sh_link = 4 },
			[4] = { .sh_type = SHT_STRTAB, .sh_offset = offsetof(struct object_file, strings), .sh_size = 64 },
		},
		.symbols = { [1] = { .st_name = 7, .st_shndx = 1 }, [2] = { .st_name = 14 } },
		.rela = { .r_offset = 4, .r_info = ELF64_R_INFO(2, type), .r_addend = -4 },
		.strings = "\0.text\0method",
	};

	memcpy(file.header.e_ident, ELFMAG, SELFMAG);
	file.header.e_ident[EI_CLASS] = ELFCLASS64;
	strcpy(file.strings + 14, symbol);
	return file;
}

static bool flatten(const struct object_file *file, struct code_result *code, struct refusal *refusal)
{
	void *block;

	*code = (struct code_result){ .n_inlined = 0 };
	if (!object_flatten(file, sizeof(*file), code, &block, refusal))
		return false;
	free(block);
	return true;
}

static void assert_not_flattened(const struct object_file *file, const char *why)
{
	struct code_result code;
	struct refusal refusal;

	assert_false(flatten(file, &code, &refusal));
	if (!strstr(refusal.text, why))
		fail_msg("'%s' does not say '%s'", refusal.text, why);
}

static void an_object_that_names_the_module_is_flattened(void **state)
{
	struct object_file file = object_example("tier.entry.4", R_X86_64_PC32);
	struct code_result code;
	struct refusal refusal;

	assert_true(flatten(&file, &code, &refusal));
	assert_int_equal(code.n_bytes, 16);
	assert_int_equal(code.n_relocs, 1);
}

static void a_library_function_is_refused_by_name(void **state)
{
	struct object_file file = object_example("memset", R_X86_64_PLT32);

	assert_not_flattened(&file, "memset");
	file = object_example("tier.entry.4x", R_X86_64_PLT32);
	assert_not_flattened(&file, "tier.entry.4x");
}

static void an_absolute_relocation_has_eight_bytes(void **state)
{
	struct object_file file = object_example("tier.rodata.0", R_X86_64_64);
	struct code_result code;
	struct refusal refusal;

	assert_true(flatten(&file, &code, &refusal));
	assert_int_equal(code.n_relocs, 1);
	file.rela.r_offset = 16 - 7;
	assert_not_flattened(&file, "out of range");
	file.rela.r_info = ELF64_R_INFO(2, R_X86_64_32S);
	assert_not_flattened(&file, "relocation of type");
}

static void a_writable_section_is_refused(void **state)
{
	struct object_file file = object_example("tier.method.1", R_X86_64_PC32);

	file.sections[1].sh_flags |= SHF_WRITE;
	assert_not_flattened(&file, ".text");
}

static void an_object_that_points_outside_itself_is_refused(void **state)
{
	struct object_file file = object_example("tier.data.0", R_X86_64_PC32);

	file.rela.r_offset = 13;
	assert_not_flattened(&file, "out of range");
	file = object_example("tier.data.0", R_X86_64_PC32);
	file.sections[1].sh_size = 1 << 20;
	assert_not_flattened(&file, "out of range");
	file = object_example("tier.data.0", R_X86_64_PC32);
	file.header.e_shoff = sizeof(file) - 8;
	assert_not_flattened(&file, "out of range");
	file = object_example("tier.data.0", R_X86_64_PC32);
	file.symbols[1].st_value = 16;
	assert_not_flattened(&file, "missing");
}

/* No byte of such an object may lead outside it. */
static void an_object_with_a_flipped_byte_stays_inside(void **state)
{
	struct object_file file = object_example("tier.data.0", R_X86_64_PC32);
	struct code_result code;
	struct refusal refusal;

	for (size_t i = 0; i < sizeof(file); i++)
		for (unsigned int bit = 0; bit < 8; bit++) {
			((uint8_t *)&file)[i] ^= 1u << bit;
			flatten(&file, &code, &refusal);
			((uint8_t *)&file)[i] ^= 1u << bit;
		}
}

#define COUNTED_MAX 8191u	/* slots of the largest method that is ever instrumented (daemon/host) */

/* -- Time, printed and not judged ---------------------------------------------------------------------------------- */
static double now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return ts.tv_sec * 1e3 + ts.tv_nsec / 1e6;
}

static int compare_doubles(const void *a, const void *b)
{
	const double *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

/* FNV-1a over a buffer with a word at the end: loads, a loop, a handful of blocks */
static void fifty_instructions_take_some_milliseconds(void **state)
{
	struct insn insns[50];
	uint32_t n = 0;
	double times[15];

	insns[n++] = MOV_K(0, 0x1234567);
	while (n < 40) {
		insns[n++] = JUMP_K(BPF_JEQ, 2, 0, 5);
		insns[n++] = LOAD(BPF_B, 3, 1, 0);
		insns[n++] = ALU64_X(BPF_XOR, 0, 3);
		insns[n++] = ALU64_K(BPF_MUL, 0, 0x1000193);
		insns[n++] = ALU64_K(BPF_ADD, 1, 1);
		insns[n++] = ALU64_K(BPF_ADD, 2, -1);
	}
	insns[n] = JUMP_K(BPF_JNE, 2, 0, -(int)n);
	for (n++; n < 49; n++)
		insns[n] = ALU64_K(BPF_ADD, 0, n);
	insns[49] = EXIT();
	for (unsigned int i = 0; i < ARRAY_SIZE(times); i++) {
		struct code_result code;
		struct refusal refusal;
		void *block;

		times[i] = now_ms();
		assert_true(compile(insns, 50, TIER_LEVEL_TIER1, &code, &block, &refusal));
		times[i] = now_ms() - times[i];
		free(block);
	}
	qsort(times, ARRAY_SIZE(times), sizeof(times[0]), compare_doubles);
	printf("           50 instructions: median %.2f ms, best %.2f ms\n", times[ARRAY_SIZE(times) / 2], times[0]);
}

static double time_job(const struct job_compile *job)
{
	struct refusal refusal = { "" };
	struct code_result code;
	double begin = now_ms();
	void *block;

	if (!codegen_compile(job, &code, &block, &refusal))
		fail_msg("%s", refusal.text);
	free(block);
	return (now_ms() - begin) / 1e3;
}

/* Half of all branches are usual one way, every callx usually calls a method that was not sent. */
static struct profile_count *make_profile(const struct profile_map *map)
{
	struct profile_count *counts = calloc(map->n_sites, sizeof(*counts));

	assert_non_null(counts);
	for (uint32_t i = 0; i < map->n_sites; i++) {
		const uint32_t kind = map->sites[i].kind;

		counts[i] = (struct profile_count){ .pc = map->sites[i].pc, .kind = kind, .n = 30, .method = PROFILE_NO_METHOD };
		if (kind == PROFILE_BRANCH)
			counts[i].m = i % 2 ? 30 : 7;
		if (kind == PROFILE_CALLX) {
			counts[i].m = 30;
			counts[i].method = 3;
		}
	}
	return counts;
}

/* Only methods that are not too large for it are counted, and so have a profile. */
static void time_counted(struct job_compile *job)
{
	_cleanup_(freep) struct profile_count *counts = NULL;
	_cleanup_(freep) struct profile_map *map = NULL;
	struct job_body *body = &job->bodies[0];

	if (body->n_insns > COUNTED_MAX)
		return;
	assert_int_equal(profile_map_new(&map, body->insns, body->n_insns), 0);
	body->profile = counts = make_profile(map);
	body->n_profile = map->n_sites;
	printf(", with a profile %.2f s", time_job(job));
	job->level = TIER_LEVEL_TIER1_INSTRUMENTED;
	job->n_cells = map->n_words;
	printf(", counting %.2f s", time_job(job));
}

/* @n slots: @piece over and over, then r0 as it is, and exit */
static void time_long(const char *what, uint32_t n, const struct insn *piece, uint32_t n_piece)
{
	_cleanup_(freep) struct insn *insns = calloc(n, sizeof(*insns));
	struct job_compile job;
	struct job_body body;

	assert_non_null(insns);
	for (uint32_t i = 0; i < n - 1; i++)
		insns[i] = i / n_piece < (n - 1) / n_piece ? piece[i % n_piece] : ALU64_K(BPF_ADD, 0, 1);
	insns[n - 1] = EXIT();
	assert_false(job_is_too_large(insns, n));
	job = example_job(&body, insns, n, TIER_LEVEL_TIER1);
	printf("           %5u instructions, %s: %.2f s", n, what, time_job(&job));
	time_counted(&job);
	printf("\n");
}
/* 1000, 4000, the largest that is counted, the largest that is surely compiled */
static uint32_t longer(uint32_t n)
{
	return n == 4000 ? COUNTED_MAX : n == COUNTED_MAX ? JOB_INSNS_SURE : n * 4;
}

#define TIME_LONG(what, n, ...) \
	({ const struct insn _piece[] = { __VA_ARGS__ }; time_long(what, n, _piece, ARRAY_SIZE(_piece)); })

static void the_longest_methods_take_a_third_of_their_time(void **state)
{
	const bool all = getenv("TIER_TEST_LONG");

	for (uint32_t n = 1000; n <= (all ? JOB_INSNS_MAX : 1000); n = n == 16000 ? JOB_INSNS_MAX : n * 4)
		TIME_LONG("straight", n, LOAD(BPF_DW, 3, 1, 8), ALU64_X(BPF_XOR, 0, 3), ALU64_K(BPF_MUL, 0, 31),
			  STORE(BPF_DW, 1, 16, 0), ALU32_X(BPF_ADD, 4, 3));
	for (uint32_t n = 1000; n <= (all ? JOB_INSNS_SURE : 1000); n = longer(n))
		TIME_LONG("branches", n, LOAD(BPF_DW, 3, 1, 0), ALU64_X(BPF_ADD, 4, 3), JUMP_X(BPF_JGT, 4, 0, 2),
			  ALU64_K(BPF_ADD, 0, 7), JUMP(1), ALU64_K(BPF_MUL, 0, 31), ALU64_X(BPF_XOR, 0, 4));
	for (uint32_t n = 1000; n <= (all ? JOB_INSNS_SURE : 1000); n = longer(n))
		TIME_LONG("loops", n, MOV_K(5, 20), LOAD(BPF_DW, 3, 1, 0), ALU64_X(BPF_ADD, 0, 3), ALU64_K(BPF_MUL, 0, 31),
			  ALU64_K(BPF_ADD, 1, 8), ALU64_K(BPF_ADD, 5, -1), JUMP_K(BPF_JNE, 5, 0, -6));
	for (uint32_t n = 1000; n <= (all ? 16000 : 1000); n *= 4)
		TIME_LONG("calls", n, CALL(3));
	for (uint32_t n = 1000; n <= (all ? JOB_INSNS_SURE : 1000); n = longer(n))
		TIME_LONG("calls through slots", n, LOAD(BPF_DW, 3, 6, 8), CALLX(3));
	for (uint32_t n = 1000; n <= (all ? JOB_INSNS_SURE : 1000); n = longer(n))
		TIME_LONG("knobs", n, LDDW(6, INSN_REF_RODATA, 8, 0), LOAD(BPF_DW, 3, 6, 24), JUMP_K(BPF_JEQ, 3, 0, 1), CALL(3),
			  ALU64_X(BPF_ADD, 0, 3));
}

static int setup(void **state)
{
	return codegen_init();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(relocations_name_what_the_bytecode_names),
		cmocka_unit_test(a_direct_call_has_the_entry_cell_for_its_operand),
		cmocka_unit_test(every_method_has_a_frame_pointer),
		cmocka_unit_test(vector_constants_are_part_of_the_code),
		cmocka_unit_test(another_tier_is_refused_by_name),
		cmocka_unit_test(an_object_that_names_the_module_is_flattened),
		cmocka_unit_test(a_library_function_is_refused_by_name),
		cmocka_unit_test(an_absolute_relocation_has_eight_bytes),
		cmocka_unit_test(a_writable_section_is_refused),
		cmocka_unit_test(an_object_that_points_outside_itself_is_refused),
		cmocka_unit_test(an_object_with_a_flipped_byte_stays_inside),
		cmocka_unit_test(fifty_instructions_take_some_milliseconds),
		cmocka_unit_test(the_longest_methods_take_a_third_of_their_time),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
