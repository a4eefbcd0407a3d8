/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* One object with something of everything, for the tests of the loader, and what changes a field of it */

#include <elf.h>
#include "object.h"

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
_unused_ static bool has_clang_19;

_unused_ static int group_setup(void **state)
{
	char path[128];

	folder_make();
	has_clang_19 = !system("command -v clang-19 >/dev/null");
	compile_as("main", "clang", "-O2 -g -mcpu=v3", main_source);
	snprintf(path, sizeof(path), "%s/main.o", folder);
	main_object = read_object(path);
	return 0;
}

_unused_ static int group_teardown(void **state)
{
	free(main_object.bytes);
	return folder_remove();
}

/* -- Loading --- */

/* takes @object; freed is what it and the image have */
_unused_ static void assert_refused(struct object_file object, const char *word)
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

_unused_ static void assert_source_refused(const char *source, const char *word)
{
	assert_refused(compile("clang", "-O2", source), word);
}

_unused_ static uint32_t find(const struct image *image, const char *name)
{
	int64_t method = image_find_method(image, name);

	if (method < 0)
		fail_msg("no method '%s'", name);
	return method;
}

/* how many instructions of @method have @code, @src and (unless -1) @index, in imm of a call, in next.imm of a lddw */
_unused_ static unsigned int count(const struct image *image, const char *method, uint8_t code, unsigned int src, int64_t index)
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

_unused_ static int64_t find_import(const struct image *image, const char *name)
{
	for (uint32_t i = 0; i < image->n_imports; i++)
		if (!strcmp(image_import_name(image, i), name))
			return i;
	fail_msg("no import '%s'", name);
	return -1;
}

/* -- Editing --- */

_unused_ static Elf64_Ehdr *header_of(struct object_file *object)
{
	return (Elf64_Ehdr *)object->bytes;
}

_unused_ static Elf64_Shdr *section_at(struct object_file *object, unsigned int index)
{
	return (Elf64_Shdr *)(object->bytes + header_of(object)->e_shoff) + index;
}

_unused_ static unsigned int section_index(struct object_file *object, const char *name)
{
	const char *names = (const char *)object->bytes + section_at(object, header_of(object)->e_shstrndx)->sh_offset;

	for (unsigned int i = 1; i < header_of(object)->e_shnum; i++)
		if (!strcmp(names + section_at(object, i)->sh_name, name))
			return i;
	fail_msg("no section '%s'", name);
	return 0;
}

_unused_ static Elf64_Shdr *section(struct object_file *object, const char *name)
{
	return section_at(object, section_index(object, name));
}

_unused_ static void *section_bytes(struct object_file *object, const char *name)
{
	return object->bytes + section(object, name)->sh_offset;
}

_unused_ static Elf64_Sym *symbol(struct object_file *object, const char *name)
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

_unused_ static Elf64_Rel *reloc(struct object_file *object, const char *table, unsigned int index)
{
	return (Elf64_Rel *)section_bytes(object, table) + index;
}

_unused_ static struct insn *insn_in(struct object_file *object, const char *name, uint64_t offset)
{
	return (struct insn *)((char *)section_bytes(object, name) + offset);
}

/* The main object with one statement about it (its name is o), refused with a word. */
#define spoil(statement, word)                                                                                         \
	do {                                                                                                           \
		struct object_file _o = copy_of(&main_object), *o = &_o;                                               \
		statement;                                                                                             \
		assert_refused(_o, word);                                                                              \
	} while (0)
