/* SPDX-License-Identifier: Apache-2.0 */
/* The ELF loader on what compilers emit
 *
 * Objects are built here by clang, and by clang-19 where it is installed. */
#include "main_object.h"

/* -- What is loaded --- */

static void check_main(const struct image *image)
{
	const char *names[] = { "outer", "leaf", "entry", "weak_one" }, *sections[] = { ".text", ".text", "tc", "xdp" };
	const uint32_t flags[] = { IMAGE_METHOD_GLOBAL, 0, IMAGE_METHOD_GLOBAL, IMAGE_METHOD_GLOBAL | IMAGE_METHOD_WEAK };
	uint32_t leaf = find(image, "leaf"), outer = find(image, "outer");

	assert_int_equal(image->n_methods, 4);
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		const struct image_method *method = &image->methods[find(image, names[i])];

		assert_string_equal(image->strings + method->section, sections[i]);
		assert_int_equal(method->flags, flags[i]);
	}
	assert_int_equal(count(image, "outer", CALL_CODE, INSN_CALL_METHOD, leaf), 1);
	assert_int_equal(count(image, "outer", CALL_CODE, INSN_CALL_IMPORT, find_import(image, "host")), 1);
	assert_int_equal(count(image, "entry", CALL_CODE, INSN_CALL_METHOD, leaf), 1);
	assert_int_equal(count(image, "entry", CALL_CODE, INSN_CALL_METHOD, outer), 1);
	assert_int_equal(count(image, "entry", CALL_CODE, INSN_CALL_IMPORT, find_import(image, "maybe")), 1);
	assert_true(count(image, "entry", BPF_LDDW, INSN_REF_IMPORT, find_import(image, "maybe")) >= 1);
	assert_int_equal(count(image, "entry", BPF_LDDW, INSN_REF_METHOD, leaf), 1);
	assert_int_equal(count(image, "entry", CALLX_CODE, 0, 0), 2);
	assert_true(count(image, "leaf", BPF_LDDW, INSN_REF_BSS, 0) >= 1);
	assert_true(count(image, "leaf", BPF_LDDW, INSN_REF_RODATA, 0) >= 1);
	assert_int_equal(image->n_imports, 2);
	assert_int_equal(image->imports[find_import(image, "host")].flags, 0);
	assert_int_equal(image->imports[find_import(image, "maybe")].flags, IMAGE_IMPORT_WEAK);
	assert_int_equal(image->n_relocs, 9);	/* ops: 6 in .rodata; variable: 3 in .data */
	assert_int_equal(image->n_bss, 16);
	assert_int_equal(image->n_data, 56);	/* not the license */
}

static void check_main_built(const char *compiler, const char *level, const char *version, const char *debug)
{
	struct object_file object;
	struct image image;
	char options[64];
	void *bytes;

	snprintf(options, sizeof(options), "%s -mcpu=%s %s", level, version, debug);
	object = compile(compiler, options, main_source);
	image = load(&object, &bytes);
	check_main(&image);
	free(bytes);
	free(object.bytes);
}

static void a_module_is_loaded_whatever_the_options(void **state)
{
	static const char *const levels[] = { "-O0", "-O1", "-O2", "-Os" }, *const versions[] = { "v1", "v2", "v3", "v4" };

	for (size_t i = 0; i < ARRAY_SIZE(levels); i++)
		for (size_t v = 0; v < ARRAY_SIZE(versions); v++) {
			if (strcmp(versions[v], "v4"))
				check_main_built("clang", levels[i], versions[v], i % 2 ? "-g" : "");
			if (has_clang_19)
				check_main_built("clang-19", levels[i], versions[v], i % 2 ? "" : "-g");
		}
}

static void the_file_is_not_changed(void **state)
{
	struct object_file copy = copy_of(&main_object);
	void *bytes;

	load(&copy, &bytes);
	assert_memory_equal(copy.bytes, main_object.bytes, copy.n);
	free(bytes);
	free(copy.bytes);
}

static void sections_of_a_kind_are_merged_with_their_alignment(void **state)
{
	struct object_file object = compile("clang", "-O2 -fno-common",
		"const char text[3] __attribute__((section(\".rodata.a\"))) = \"ab\";\n"
		"const long number __attribute__((section(\".rodata.b\"), aligned(64))) = 0x1122334455667788;\n"
		"char byte __attribute__((section(\".data.a\"))) = 5;\n"
		"int word __attribute__((section(\".data.b\"))) = 0x01020304;\n"
		"char zero[7] __attribute__((section(\".bss.a\"))); long last __attribute__((section(\".bss.b\"), aligned(4096)));\n"
		"const void *f(int i) { switch (i) { case 0: return text; case 1: return &number; case 2: return &byte;\n"
		"	case 3: return &word; case 4: return zero; default: return &last; } }\n");
	struct image image;
	void *bytes;

	image = load(&object, &bytes);
	assert_int_equal(image.header->align[IMAGE_RODATA], 64);
	assert_string_equal((const char *)image.rodata, "ab");
	assert_int_equal(*(const long *)(image.rodata + 64), 0x1122334455667788);
	assert_int_equal(image.data[0], 5);
	assert_int_equal(*(const int *)(image.data + 4), 0x01020304);
	assert_int_equal(image.n_bss, 4096 + 8);
	assert_int_equal(image.header->align[IMAGE_BSS], 4096);
	assert_int_equal(count(&image, "f", BPF_LDDW, INSN_REF_RODATA, 0), 2);
	assert_int_equal(count(&image, "f", BPF_LDDW, INSN_REF_DATA, 0), 2);
	assert_int_equal(count(&image, "f", BPF_LDDW, INSN_REF_BSS, 0), 2);
	free(bytes);
	free(object.bytes);
}

static const struct image_reloc *reloc_at(const struct image *image, unsigned int segment, uint32_t offset)
{
	for (uint32_t i = 0; i < image->n_relocs; i++)
		if (image->relocs[i].segment == segment && image->relocs[i].offset == offset)
			return &image->relocs[i];
	fail_msg("no relocation at %u of segment %u", offset, segment);
	return NULL;
}

static void assert_reloc(const struct image *image, unsigned int segment, uint32_t offset, unsigned int ref, uint32_t index,
			 int32_t addend)
{
	const struct image_reloc *r = reloc_at(image, segment, offset);
	static const uint8_t zero[8];

	assert_int_equal(r->ref, ref);
	assert_int_equal(r->index, index);
	assert_int_equal(r->addend, addend);
	assert_memory_equal((segment == IMAGE_RODATA ? image->rodata : image->data) + offset, zero, r->width);
}

static void pointers_in_data_lead_to_data_methods_and_imports(void **state)
{
	struct object_file object = compile("clang", "-O2",
		"extern long host(long) __attribute__((section(\".ksyms\")));\n"
		"static long f(long x) { return x; } long g(long x) { return x + 1; }\n"
		"static long array[4] = { 1, 2, 3, 4 }; static long zeroes[4];\n"
		"const struct { long (*f)(long), (*g)(long), (*h)(long); long *third, *end, *zero; } all\n"
		"	__attribute__((section(\".rodata.x\")))\n"
		"	= { f, g, host, &array[2], array + 4, &zeroes[1] };\n"
		"const void *self __attribute__((section(\".data.x\"))) = &self;\n"
		"const void *const where[2] __attribute__((section(\".data.rel.ro\"))) = { 0, &all.g };\n");
	struct image image;
	void *bytes;
	int32_t array;

	image = load(&object, &bytes);
	array = reloc_at(&image, IMAGE_RODATA, 24)->addend - 16;
	assert_memory_equal(image.data + array, ((long[]){ 1, 2, 3, 4 }), 32);
	assert_reloc(&image, IMAGE_RODATA, 0, INSN_REF_METHOD, find(&image, "f"), 0);
	assert_reloc(&image, IMAGE_RODATA, 8, INSN_REF_METHOD, find(&image, "g"), 0);
	assert_reloc(&image, IMAGE_RODATA, 16, INSN_REF_IMPORT, 0, 0);
	assert_reloc(&image, IMAGE_RODATA, 24, INSN_REF_DATA, 0, array + 16);
	assert_reloc(&image, IMAGE_RODATA, 32, INSN_REF_DATA, 0, array + 32);
	assert_reloc(&image, IMAGE_RODATA, 40, INSN_REF_BSS, 0, 8);
	assert_reloc(&image, IMAGE_RODATA, 56, INSN_REF_RODATA, 0, 8);	/* .data.rel.ro is read-only */
	assert_int_equal(image.n_relocs, 8);
	free(bytes);
	free(object.bytes);
}

static void common_symbols_lie_in_bss(void **state)
{
	struct object_file object = compile("clang", "-O2 -fcommon",
		"long one; char many[100] __attribute__((aligned(32))); static long own; \n"
		"void *f(int i) { own++; return i ? (void *)&one : many; }\n");
	struct image image;
	void *bytes;

	image = load(&object, &bytes);
	assert_int_equal(symbol(&object, "one")->st_shndx, SHN_COMMON);
	assert_true(image.n_bss >= 8 + 100 + 8);
	assert_int_equal(image.header->align[IMAGE_BSS], 32);
	assert_true(count(&image, "f", BPF_LDDW, INSN_REF_BSS, 0) >= 3);
	free(bytes);
	free(object.bytes);
}

static void an_unused_license_is_left_out_and_a_used_one_is_data(void **state)
{
	struct object_file object = compile("clang", "-O2",
		"char terms[] __attribute__((section(\"license\"))) = \"GPL\"; char *f(void) { return terms; }\n");
	struct image image;
	void *bytes;

	image = load(&object, &bytes);
	assert_memory_equal(image.data, "GPL", 4);
	assert_int_equal(count(&image, "f", BPF_LDDW, INSN_REF_DATA, 0), 1);
	free(bytes);
	free(object.bytes);
}

static void kernel_maps_are_refused_where_they_are_used(void **state)
{
	struct object_file unused = compile("clang", "-O2",
		"struct { int (*type)[1]; } events __attribute__((section(\".maps\"))); int f(void) { return 1; }\n");
	void *bytes;

	load(&unused, &bytes);
	free(bytes);
	free(unused.bytes);
	assert_source_refused("struct { int (*type)[1]; } events __attribute__((section(\".maps\")));\n"
			      "void *f(void) { return &events; }\n",
			      "section '.text', offset 0x0: refers to kernel map 'events'; kernel maps are not supported");
}

static void callx_has_its_register_in_dst(void **state)
{
	const char *source = "long f(long x, long (*p)(long)) { return p(x) + 1; }";
	struct object_file object = compile("clang", "-O2", source);
	uint32_t *imm = (uint32_t *)((char *)section_bytes(&object, ".text") + 4);
	struct image image;
	void *bytes;

	/* clang 14 writes the register into imm; whoever wrote it, dst is where it ends */
	for (int round = 0; round < 1 + has_clang_19; round++) {
		if (round) {
			free(object.bytes);
			object = compile("clang-19", "-O2", source);
		}
		image = load(&object, &bytes);
		for (uint32_t pc = 0; pc < image.n_insns; pc++)
			if (insn_is_callx(&image.insns[pc])) {
				assert_int_equal(image.insns[pc].dst, 2);
				assert_int_equal(image.insns[pc].imm, 0);
			}
		assert_int_equal(count(&image, "f", CALLX_CODE, 0, 0), 1);
		free(bytes);
		if (!round)
			for (uint32_t pc = 0; pc < image.n_insns; pc++, imm += 2)
				if (*((uint8_t *)imm - 4) == CALLX_CODE)
					*imm = 11;
		if (!round)
			assert_refused(copy_of(&object), "callx names register r0 and r11");
	}
	free(object.bytes);
}

static void version_4_instructions_are_kept(void **state)
{
	struct object_file object;
	struct image image;
	void *bytes;

	if (!has_clang_19)
		skip();
	object = compile("clang-19", "-O2 -mcpu=v4",
		"long divide(long a, long b) { return a / b; } int modulo(int a, int b) { return a % b; }\n"
		"long extend(signed char *p) { return *p; } long widen(short x) { return x; }\n"
		"unsigned swap(unsigned x) { return __builtin_bswap32(x); }\n"
		"long far(long x) { asm volatile(\"gotol +0\"); return x; }\n"
		"long add(long *p) { return __atomic_fetch_add(p, 3, 5); } void only(long *p) { __sync_fetch_and_or(p, 3); }\n"
		"int exchange(int *p, int x) { return __sync_val_compare_and_swap(p, x, 1) + __atomic_exchange_n(p, 2, 5); }\n");
	image = load(&object, &bytes);
	assert_int_equal(count(&image, "far", BPF_JMP32 | BPF_JA, 0, 0), 1);
	assert_int_equal(count(&image, "extend", BPF_LDX | BPF_MEMSX | BPF_B, 1, 0), 1);
	assert_int_equal(count(&image, "swap", BPF_ALU64 | BPF_END, 0, 32), 1);
	assert_int_equal(count(&image, "divide", BPF_ALU64 | BPF_DIV | BPF_X, 2, 0), 1);
	free(bytes);
	free(object.bytes);
}

static void an_alias_is_a_method_and_pointers_lead_to_the_first(void **state)
{
	struct object_file object = compile("clang", "-O2",
		"__attribute__((noinline)) int first(int x) { asm volatile(\"\"); return x + 1; }\n"
		"int second(int x) __attribute__((alias(\"first\"))); int call(int x) { return second(x); }\n"
		"void *address(void) { return second; }\n");
	struct image image;
	uint32_t first;
	void *bytes;

	image = load(&object, &bytes);
	first = find(&image, symbol(&object, "first") < symbol(&object, "second") ? "first" : "second");
	assert_int_equal(image.n_methods, 4);
	assert_int_equal(image.methods[find(&image, "second")].n_insns, image.methods[find(&image, "first")].n_insns);
	assert_int_equal(count(&image, "call", CALL_CODE, INSN_CALL_METHOD, first), 1);
	assert_int_equal(count(&image, "address", BPF_LDDW, INSN_REF_METHOD, first), 1);
	free(bytes);
	free(object.bytes);
}

static void local_functions_with_one_name_are_told_apart(void **state)
{
	struct object_file object = compile("clang", "-O2",
		"#define noinline __attribute__((noinline))\n"
		"static noinline long twin_a(long x) { asm volatile(\"\"); return x * 3; }\n"
		"static noinline long twin_b(long x) { asm volatile(\"\"); return x * 5; }\n"
		"static noinline long twin_c(long x) { asm volatile(\"\"); return x * 7; }\n"
		"long a(long x) { return twin_a(x); } long b(long x) { return twin_b(x); } long c(long x) { return twin_c(x); }\n");
	struct image image;
	void *bytes;

	symbol(&object, "twin_b")->st_name = symbol(&object, "twin_a")->st_name;
	symbol(&object, "twin_c")->st_name = symbol(&object, "twin_a")->st_name;
	image = load(&object, &bytes);
	assert_int_equal(image.n_methods, 6);
	assert_int_equal(count(&image, "a", CALL_CODE, INSN_CALL_METHOD, find(&image, "twin_a")), 1);
	assert_int_equal(count(&image, "b", CALL_CODE, INSN_CALL_METHOD, find(&image, "twin_a.1")), 1);
	assert_int_equal(count(&image, "c", CALL_CODE, INSN_CALL_METHOD, find(&image, "twin_a.2")), 1);
	free(bytes);
	/* a global keeps its name; a made name avoids one that exists */
	symbol(&object, "b")->st_name = symbol(&object, "twin_a")->st_name;
	image = load(&object, &bytes);
	assert_int_equal(image.methods[find(&image, "twin_a")].flags, IMAGE_METHOD_GLOBAL);
	assert_int_equal(image.methods[find(&image, "twin_a.3")].flags, 0);
	free(bytes);
	symbol(&object, "a")->st_name = symbol(&object, "c")->st_name;
	assert_refused(object, "a second global function");
}

static void a_made_name_avoids_those_that_exist(void **state)
{
	struct object_file object = compile("clang", "-O2",
		"static __attribute__((noinline)) long xy1(long x) { asm volatile(\"\"); return x * 3; }\n"
		"static __attribute__((noinline)) long xy2(long x) { asm volatile(\"\"); return x * 5; }\n"
		"long taken(long x) asm(\"xy1.1\"); long taken(long x) { return xy1(x) + xy2(x); }\n");
	struct image image;
	void *bytes;

	symbol(&object, "xy2")->st_name = symbol(&object, "xy1")->st_name;
	image = load(&object, &bytes);
	assert_int_equal(count(&image, "xy1.1", CALL_CODE, INSN_CALL_METHOD, find(&image, "xy1.2")), 1);
	free(bytes);
	free(object.bytes);
}

static void objects_linked_by_bpftool_are_loaded(void **state)
{
	struct object_file object;
	struct image image;
	char command[256];
	void *bytes;

	if (system("command -v /usr/sbin/bpftool >/dev/null"))
		skip();
	compile_as("one", "clang", "-O2 -g",
		   "extern long two(long); long shared = 5;\n"
		   "static __attribute__((noinline)) long helper(long x) { return x * shared; }\n"
		   "__attribute__((noinline)) long one(long x) { return helper(x) + two(x); }\n");
	compile_as("two", "clang", "-O2 -g",
		   "extern long shared; long one(long);\n"
		   "static __attribute__((noinline)) long helper(long x) { return x + shared; }\n"
		   "__attribute__((noinline)) long two(long x) { return x ? helper(x) ^ one(x - 1) : 0; }\n");
	snprintf(command, sizeof(command), "/usr/sbin/bpftool gen object %s/linked.o %s/one.o %s/two.o", folder, folder, folder);
	assert_int_equal(system(command), 0);
	snprintf(command, sizeof(command), "%s/linked.o", folder);
	object = read_object(command);
	image = load(&object, &bytes);
	assert_int_equal(image.n_methods, 4);
	assert_int_equal(image.n_imports, 0);
	assert_int_equal(count(&image, "one", CALL_CODE, INSN_CALL_METHOD, find(&image, "helper")), 1);
	assert_int_equal(count(&image, "two", CALL_CODE, INSN_CALL_METHOD, find(&image, "helper.1")), 1);
	assert_int_equal(count(&image, "two", CALL_CODE, INSN_CALL_METHOD, find(&image, "one")), 1);
	assert_int_equal(count(&image, "one", CALL_CODE, INSN_CALL_METHOD, find(&image, "two")), 1);
	free(bytes);
	free(object.bytes);
}

/* -- Forms that no compiler at hand emits --- */

static void a_code_address_may_be_relative(void **state)
{
	struct object_file object = compile("clang", "-O2",
		"int target(void) { return 1; } long f(void) { return 0x1122334455667788; }\n");
	struct insn *lddw = insn_in(&object, ".text", symbol(&object, "f")->st_value);
	struct image image;
	void *bytes;

	assert_int_equal(lddw->code, BPF_LDDW);
	lddw->src = 4;
	lddw->imm = -3;
	lddw[1].imm = 0;
	image = load(&object, &bytes);
	assert_int_equal(count(&image, "f", BPF_LDDW, INSN_REF_METHOD, find(&image, "target")), 1);
	free(bytes);
	lddw->imm = -2;
	assert_refused(copy_of(&object), "offset 0x10: refers to offset 8 of the section, where no function begins");
	for (unsigned int kind = 1; kind <= 6; kind++) {
		static const char *const words[] = { "", "kernel map", "kernel map", "kernel variable", "no function begins",
						     "kernel map", "kernel map" };

		lddw->src = kind;
		assert_refused(copy_of(&object), words[kind]);
	}
	lddw->src = 7;
	assert_refused(object, "unknown kind 7 of 64-bit immediate");
}

static void narrow_pointers_keep_their_width(void **state)
{
	struct object_file object = copy_of(&main_object);
	struct image image;
	void *bytes;

	reloc(&object, ".rel.data", 0)->r_info = ELF64_R_INFO(ELF64_R_SYM(reloc(&object, ".rel.data", 0)->r_info), 3);
	image = load(&object, &bytes);
	assert_int_equal(reloc_at(&image, IMAGE_DATA, 32)->width, 4);
	free(bytes);
	free(object.bytes);
}

/* Rewrites the REL table @name as RELA at the end of the file, with the addends that stand in the text. */
static void make_rela(struct object_file *object, const char *name, const char *text)
{
	unsigned int index = section_index(object, name), n = section_at(object, index)->sh_size / sizeof(Elf64_Rel);
	size_t at = align_up(object->n, 8);
	Elf64_Rela *table;
	Elf64_Shdr *header;

	object->bytes = realloc(object->bytes, at + n * sizeof(*table));
	object->n = at + n * sizeof(*table);
	table = (Elf64_Rela *)(object->bytes + at);
	header = section_at(object, index);
	for (unsigned int i = 0; i < n; i++) {
		Elf64_Rel *rel = reloc(object, name, i);
		struct insn *insn = insn_in(object, text, rel->r_offset);

		table[i] = (Elf64_Rela){ .r_offset = rel->r_offset, .r_info = rel->r_info };
		table[i].r_addend = insn_is_lddw(insn) ? (int64_t)insn_imm64(insn) : ((int64_t)insn->imm + 1) * 8;
		insn->imm = 0x5a5a;	/* must not be read */
	}
	header->sh_type = SHT_RELA;
	header->sh_entsize = sizeof(*table);
	header->sh_size = n * sizeof(*table);
	header->sh_offset = at;
}

static void relocations_with_explicit_addends_mean_the_same(void **state)
{
	struct object_file object = copy_of(&main_object);
	struct image rel, rela;
	void *a, *b;

	make_rela(&object, ".rel.text", ".text");
	make_rela(&object, ".reltc", "tc");
	rel = load(&main_object, &a);
	rela = load(&object, &b);
	assert_int_equal(rel.header->hash, rela.header->hash);
	free(a);
	free(b);
	free(object.bytes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_module_is_loaded_whatever_the_options),
		cmocka_unit_test(the_file_is_not_changed),
		cmocka_unit_test(sections_of_a_kind_are_merged_with_their_alignment),
		cmocka_unit_test(pointers_in_data_lead_to_data_methods_and_imports),
		cmocka_unit_test(common_symbols_lie_in_bss),
		cmocka_unit_test(an_unused_license_is_left_out_and_a_used_one_is_data),
		cmocka_unit_test(kernel_maps_are_refused_where_they_are_used),
		cmocka_unit_test(callx_has_its_register_in_dst),
		cmocka_unit_test(version_4_instructions_are_kept),
		cmocka_unit_test(an_alias_is_a_method_and_pointers_lead_to_the_first),
		cmocka_unit_test(local_functions_with_one_name_are_told_apart),
		cmocka_unit_test(a_made_name_avoids_those_that_exist),
		cmocka_unit_test(objects_linked_by_bpftool_are_loaded),
		cmocka_unit_test(a_code_address_may_be_relative),
		cmocka_unit_test(narrow_pointers_keep_their_width),
		cmocka_unit_test(relocations_with_explicit_addends_mean_the_same),
	};

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
