/* SPDX-License-Identifier: Apache-2.0 */
/* The ELF loader on what compilers emit, and on what they never would
 *
 * Objects are built here by clang, and by clang-19 where it is installed; spoiled ones are those with a field changed. */
#include "object.h"
#include <elf.h>
#include "bytecode/flow.h"

static const char main_source[] =
	"typedef unsigned long long u64;\n"
	"#define noinline __attribute__((noinline))\n"
	"extern u64 host(u64) __attribute__((section(\".ksyms\")));\n"
	"extern u64 maybe(u64) __attribute__((weak, section(\".ksyms\")));\n"
	"static u64 table[4] = { 1, 2, 3, 4 };\n"
	"static const u64 primes[5] = { 2, 3, 5, 7, 11 };\n"
	"u64 counter; static u64 hidden;\n"
	"static noinline u64 leaf(u64 x) { hidden += x; return x * 3 + primes[x % 5]; }\n"
	"noinline u64 outer(u64 x) { return leaf(x) + host(x); }\n"
	"struct ops { u64 (*f)(u64); const char *name; u64 *at; };\n"
	"const struct ops ops[2] = { { leaf, \"leaf\", table }, { outer, \"outer\", table + 2 } };\n"
	"struct ops variable = { host, \"x\", &counter };\n"
	"__attribute__((section(\"tc\"))) u64 entry(u64 x) {\n"
	"	return leaf(x) + outer(x) + ops[x & 1].f(x) + variable.f(x) + (maybe ? maybe(x) : 0) + (u64)leaf; }\n"
	"__attribute__((weak, section(\"xdp\"))) u64 weak_one(u64 x) { return ops[x].name[1] + table[x]; }\n"
	"char LICENSE[] __attribute__((section(\"license\"))) = \"GPL\";\n";

static struct object_file main_object;	/* main_source, clang -O2 -g -mcpu=v3 */
static bool has_clang_19;

static int group_setup(void **state)
{
	char path[128];

	folder_make();
	has_clang_19 = !system("command -v clang-19 >/dev/null");
	compile_as("main", "clang", "-O2 -g -mcpu=v3", main_source);
	snprintf(path, sizeof(path), "%s/main.o", folder);
	main_object = read_object(path);
	return 0;
}

static int group_teardown(void **state)
{
	free(main_object.bytes);
	return folder_remove();
}

/* -- Loading --- */

/* takes @object; freed is what it and the image have */
static void assert_refused(struct object_file object, const char *word)
{
	struct refusal refusal = {};
	void *bytes = NULL;
	size_t n;

	if (elf_to_image(object.bytes, object.n, &bytes, &n, &refusal))
		fail_msg("accepted, not refused for '%s'", word);
	if (!strstr(refusal.text, word))
		fail_msg("'%s' does not say '%s'", refusal.text, word);
	assert_null(bytes);
	free(object.bytes);
}

static void assert_source_refused(const char *source, const char *word)
{
	assert_refused(compile("clang", "-O2", source), word);
}

static uint32_t find(const struct image *image, const char *name)
{
	int64_t method = image_find_method(image, name);

	if (method < 0)
		fail_msg("no method '%s'", name);
	return method;
}

/* how many instructions of @method have @code, @src and (unless -1) @index, in imm of a call, in next.imm of a lddw */
static unsigned int count(const struct image *image, const char *method, uint8_t code, unsigned int src, int64_t index)
{
	uint32_t m = find(image, method);
	const struct insn *insns = image_method_insns(image, m);
	unsigned int n = 0;

	for (uint32_t pc = 0; pc < image->methods[m].n_insns; pc += insn_slots(&insns[pc])) {
		int32_t has = insn_is_lddw(&insns[pc]) ? insns[pc + 1].imm : insns[pc].imm;

		n += insns[pc].code == code && insns[pc].src == src && (index < 0 || has == index);
	}
	return n;
}

#define CALL_CODE (BPF_JMP | BPF_CALL)
#define CALLX_CODE (BPF_JMP | BPF_CALL | BPF_X)

static int64_t find_import(const struct image *image, const char *name)
{
	for (uint32_t i = 0; i < image->n_imports; i++)
		if (!strcmp(image_import_name(image, i), name))
			return i;
	fail_msg("no import '%s'", name);
	return -1;
}

/* -- Editing --- */

static Elf64_Ehdr *header_of(struct object_file *object)
{
	return (Elf64_Ehdr *)object->bytes;
}

static Elf64_Shdr *section_at(struct object_file *object, unsigned int index)
{
	return (Elf64_Shdr *)(object->bytes + header_of(object)->e_shoff) + index;
}

static unsigned int section_index(struct object_file *object, const char *name)
{
	const char *names = (const char *)object->bytes + section_at(object, header_of(object)->e_shstrndx)->sh_offset;

	for (unsigned int i = 1; i < header_of(object)->e_shnum; i++)
		if (!strcmp(names + section_at(object, i)->sh_name, name))
			return i;
	fail_msg("no section '%s'", name);
	return 0;
}

static Elf64_Shdr *section(struct object_file *object, const char *name)
{
	return section_at(object, section_index(object, name));
}

static void *section_bytes(struct object_file *object, const char *name)
{
	return object->bytes + section(object, name)->sh_offset;
}

static Elf64_Sym *symbol(struct object_file *object, const char *name)
{
	Elf64_Shdr *table = section(object, ".symtab");
	Elf64_Sym *symbols = section_bytes(object, ".symtab");
	const char *names = (const char *)object->bytes + section_at(object, table->sh_link)->sh_offset;

	for (size_t i = 0; i < table->sh_size / sizeof(*symbols); i++)
		if (!strcmp(names + symbols[i].st_name, name) && ELF64_ST_TYPE(symbols[i].st_info) != STT_SECTION)
			return &symbols[i];
	fail_msg("no symbol '%s'", name);
	return NULL;
}

static Elf64_Rel *reloc(struct object_file *object, const char *table, unsigned int index)
{
	return (Elf64_Rel *)section_bytes(object, table) + index;
}

/* The main object with one statement about it (its name is o), refused with a word. */
#define spoil(statement, word)                                                                                         \
	do {                                                                                                           \
		struct object_file _o = copy_of(&main_object), *o = &_o;                                               \
		statement;                                                                                             \
		assert_refused(_o, word);                                                                              \
	} while (0)

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

static struct insn *insn_in(struct object_file *object, const char *name, uint64_t offset)
{
	return (struct insn *)((char *)section_bytes(object, name) + offset);
}

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

/* -- What is refused --- */

static void other_files_are_refused(void **state)
{
	struct object_file text = { .bytes = malloc(100), .n = 100 };

	memset(text.bytes, 'x', text.n);
	assert_refused(text, "not an ELF object file");
	spoil(o->n = 63, "not an ELF object file");
	spoil(o->bytes[EI_CLASS] = ELFCLASS32, "not a 64-bit ELF file");
	spoil(o->bytes[EI_DATA] = ELFDATA2MSB, "big-endian");
	spoil(o->bytes[EI_VERSION] = 2, "ELF version 2");
	spoil(header_of(o)->e_machine = EM_X86_64, "machine 62");
	spoil(header_of(o)->e_type = ET_EXEC, "not a relocatable object");
	assert_refused(compile("clang", "-O2 -mbig-endian", "int f(void) { return 1; }"), "big-endian");
	assert_refused(compile("clang", "-target x86_64", "int f(void) { return 1; }"), "not for BPF");
}

static void bad_section_headers_are_refused(void **state)
{
	spoil(header_of(o)->e_shoff = o->n, "no section headers");
	spoil(header_of(o)->e_shentsize = 40, "no section headers");
	spoil(header_of(o)->e_shnum += 1, "end after the file");
	spoil(header_of(o)->e_shnum = 0, "");
	spoil(header_of(o)->e_shstrndx = 500, "names in section 500");
	spoil(header_of(o)->e_shstrndx = 2, "name lies outside");
	spoil(section(o, ".text")->sh_name = 0xffffff, "its name lies outside");
	spoil(section(o, ".text")->sh_offset = o->n, "end after the file");
	spoil(section(o, ".text")->sh_size = UINT64_MAX, "end after the file");
	spoil(section(o, ".rodata")->sh_addralign = 24, "section '.rodata', offset 0x0: alignment 24");
	spoil(section(o, ".rodata")->sh_addralign = 8192, "alignment 8192");
	spoil(section(o, ".text")->sh_type = SHT_NOBITS, "executable section");
	spoil(section(o, ".bss")->sh_size = 1ull << 40, "section '.bss', offset 0x0: 0x10000000000 bytes");
	spoil(section(o, ".data")->sh_flags |= SHF_TLS, "thread-local");
	spoil(section(o, ".data")->sh_flags |= SHF_COMPRESSED, "compressed");
	spoil(section(o, ".data")->sh_type = SHT_INIT_ARRAY, "constructors");
}

static void bad_symbol_tables_are_refused(void **state)
{
	spoil(section(o, ".symtab")->sh_type = SHT_PROGBITS, "no symbol table");
	spoil((section(o, ".BTF")->sh_type = SHT_SYMTAB, section(o, ".BTF")->sh_entsize = section(o, ".BTF")->sh_size = 24),
	      "second symbol table");
	spoil(section(o, ".symtab")->sh_entsize = 16, "entries of 16 bytes");
	spoil(section(o, ".symtab")->sh_size -= 8, "entries of 24 bytes");
	spoil(section(o, ".symtab")->sh_link = 2, "name lies outside the string table");
	spoil(symbol(o, "leaf")->st_name = 0xffffff, "name lies outside the string table");
	spoil(symbol(o, "leaf")->st_shndx = 200, "in section 200");
	spoil(o->bytes[section(o, ".strtab")->sh_offset + section(o, ".strtab")->sh_size - 1] = 'x', "name lies outside");
}

static void bad_functions_are_refused(void **state)
{
	spoil(symbol(o, "leaf")->st_value += 4, "section '.text', offset 0x3c: function 'leaf' does not begin at a multiple of 8");
	spoil(symbol(o, "leaf")->st_size -= 4, "not a positive multiple of 8");
	spoil(symbol(o, "leaf")->st_size = 0, "has 0 bytes");
	spoil(symbol(o, "leaf")->st_size += 8, "ends outside its section");
	spoil(symbol(o, "leaf")->st_value = 1ull << 60, "ends outside its section");
	spoil(symbol(o, "outer")->st_size += 8, "function 'leaf' overlaps 'outer'");
	spoil(symbol(o, "leaf")->st_shndx = section_index(o, ".data"), "not executable");
	spoil(symbol(o, "leaf")->st_shndx = SHN_ABS, "not executable");
	spoil(symbol(o, "leaf")->st_name = 0, "function '': its name has 0 bytes");
	spoil(symbol(o, "entry")->st_name = symbol(o, "outer")->st_name, "second global function 'outer'");
	spoil(symbol(o, "host")->st_name = 0, "import ''");
	assert_source_refused("int x = 1;", "no functions");
}

static void names_are_bounded(void **state)
{
	char source[400] = "int ";

	memset(source + 4, 'f', 255);
	strcpy(source + 259, "(void) { return 1; }");
	free(compile("clang", "-O2", source).bytes);
	{
		struct object_file object = compile("clang", "-O2", source);
		void *bytes;

		load(&object, &bytes);
		free(bytes);
		free(object.bytes);
	}
	memset(source + 4, 'f', 256);
	strcpy(source + 260, "(void) { return 1; }");
	assert_source_refused(source, "name has 256 bytes");
	spoil(*((char *)section_bytes(o, ".strtab") + symbol(o, "leaf")->st_name) = '\033', "control character");
}

static void bad_relocations_are_refused(void **state)
{
	Elf64_Rel *r;

	spoil(section(o, ".rel.text")->sh_entsize = 24, "a relocation table with entries of 24 bytes");
	spoil(section(o, ".rel.text")->sh_link = 1, "for the symbols in section 1");
	spoil(section(o, ".rel.text")->sh_size -= 1, "a relocation table");
	spoil((r = reloc(o, ".rel.text", 0), r->r_info = ELF64_R_INFO(9999, 10)),
	      "section '.text', offset 0x20: its relocation names symbol 9999");
	spoil((r = reloc(o, ".rel.text", 0), r->r_info = ELF64_R_INFO(0, 10)), "names no symbol");
	spoil((r = reloc(o, ".rel.text", 0), r->r_info = ELF64_R_INFO(ELF64_R_SYM(r->r_info), 1)),
	      "relocation type 1 does not belong to a call");
	spoil((r = reloc(o, ".rel.text", 1), r->r_info = ELF64_R_INFO(ELF64_R_SYM(r->r_info), 10)),
	      "does not belong to a 64-bit immediate");
	spoil((r = reloc(o, ".rel.text", 1), r->r_info = ELF64_R_INFO(ELF64_R_SYM(r->r_info), 77)), "relocation type 77");
	spoil(reloc(o, ".rel.text", 0)->r_offset += 4, "in the middle of an instruction");
	spoil(reloc(o, ".rel.text", 1)->r_offset += 8, "in the middle of an instruction");
	spoil(reloc(o, ".rel.text", 0)->r_offset = 0, "does not belong to this instruction");
	spoil(reloc(o, ".rel.text", 1)->r_offset = reloc(o, ".rel.text", 0)->r_offset, "two relocations");
	spoil((r = reloc(o, ".rel.rodata", 0), r->r_info = ELF64_R_INFO(ELF64_R_SYM(r->r_info), 1)),
	      "type 1 is not known in data");
	spoil(reloc(o, ".rel.rodata", 0)->r_offset = 1 << 20, "outside the section's bytes");
	spoil(reloc(o, ".rel.rodata", 1)->r_offset -= 4, "overlaps");
	spoil(section(o, ".rel.rodata")->sh_info = section_index(o, ".bss"), "section '.bss'");
}

static void references_outside_are_refused(void **state)
{
	Elf64_Rel *r;

	/* leaf is reached through the section's symbol and the call's imm, .bss through its symbol and the lddw's */
	spoil((r = reloc(o, ".reltc", 1), insn_in(o, "tc", r->r_offset)->imm += 1), "where no function begins");
	spoil((r = reloc(o, ".reltc", 1), insn_in(o, "tc", r->r_offset)->imm = -100), "where no function begins");
	spoil(insn_in(o, ".text", reloc(o, ".rel.text", 1)->r_offset)->imm = 17,
	      "refers to offset 17 of section '.bss', which has 16 bytes");
	spoil(insn_in(o, ".text", reloc(o, ".rel.text", 1)->r_offset)[1].imm = 1, "which has 16 bytes");
	spoil(insn_in(o, ".text", reloc(o, ".rel.text", 0)->r_offset)->imm = 0, "import 'host' with offset 8");
	spoil(symbol(o, "ops")->st_shndx = SHN_ABS, "special section 0xfff1");
	spoil(symbol(o, "ops")->st_shndx = 0xfff3, "special section 0xfff3");
	spoil(symbol(o, "ops")->st_shndx = SHN_XINDEX, "special section 0xffff");
	spoil(symbol(o, "ops")->st_shndx = section_index(o, ".BTF"), "which is not loaded");
	spoil(symbol(o, "host")->st_shndx = section_index(o, ".data"), "which is data");
	spoil(insn_in(o, ".text", 8)->imm += 1, "section '.text', offset 0x8: refers to offset 64 of the section");
	spoil(insn_in(o, ".text", 8)->src = 2, "calls kernel function 5 by number");
	spoil(insn_in(o, ".text", 8)->src = 3, "unknown kind 3 of call");
	spoil(symbol(o, "leaf")->st_size = 8, "ends inside a 16-byte instruction");
}

/* -- Anything at all --- */

static void load_anything(struct object_file object)
{
	struct refusal refusal = {};
	void *bytes = NULL;
	struct image image;
	struct flow *flow;
	size_t n;

	if (!elf_to_image(object.bytes, object.n, &bytes, &n, &refusal)) {
		assert_true(strlen(refusal.text) > 0);
		assert_null(bytes);
		return;
	}
	assert_true(image_check(bytes, n, &image, &refusal));
	for (uint32_t m = 0; m < image.n_methods; m++)
		if (verify_method(&image, m, &refusal)) {
			assert_int_equal(flow_new(&flow, image_method_insns(&image, m), image.methods[m].n_insns), 0);
			flow_free(flow);
		}
	free(bytes);
}

static void a_file_cut_anywhere_is_an_image_or_a_refusal(void **state)
{
	for (size_t n = 0; n < main_object.n; n += 8) {
		struct object_file cut = { .bytes = malloc(n + 1), .n = n };

		memcpy(cut.bytes, main_object.bytes, n);
		load_anything(cut);
		free(cut.bytes);
	}
}

static void a_flipped_byte_gives_an_image_or_a_refusal(void **state)
{
	static const uint8_t flips[] = { 0x01, 0x08, 0x80, 0xff };
	struct object_file object = copy_of(&main_object);
	size_t step = getenv("TIER_TEST_LONG") ? 1 : 3;

	for (size_t i = 0; i < object.n; i += step)
		for (size_t f = 0; f < sizeof(flips); f++) {
			object.bytes[i] ^= flips[f];
			load_anything(object);
			object.bytes[i] ^= flips[f];
		}
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
		cmocka_unit_test(other_files_are_refused),
		cmocka_unit_test(bad_section_headers_are_refused),
		cmocka_unit_test(bad_symbol_tables_are_refused),
		cmocka_unit_test(bad_functions_are_refused),
		cmocka_unit_test(names_are_bounded),
		cmocka_unit_test(bad_relocations_are_refused),
		cmocka_unit_test(references_outside_are_refused),
		cmocka_unit_test(a_file_cut_anywhere_is_an_image_or_a_refusal),
		cmocka_unit_test(a_flipped_byte_gives_an_image_or_a_refusal),
	};

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
