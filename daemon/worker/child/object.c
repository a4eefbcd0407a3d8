/* SPDX-License-Identifier: Apache-2.0 */
#include <elf.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include "util/base.h"
#include "worker/child/object.h"

/* Read the section table, lay the sections that are mapped at run time one behind the other, copy them, then go through
 * their relocations: what refers to such a section is resolved here, what refers to the module's things becomes a
 * code_reloc. The file comes out of LLVM's memory, not from outside; it is bounds-checked all the same, as it is
 * parsed where hostile input has been. */

#define NOT_PLACED UINT32_MAX

struct object {
	const uint8_t *file;
	size_t n_file;
	const Elf64_Shdr *sections;
	uint32_t n_sections;
	const char *names;		/* of sections; ends in NUL */
	size_t n_names;
	const Elf64_Sym *symbols;
	uint32_t n_symbols;
	const char *strings;		/* of symbols; ends in NUL */
	size_t n_strings;
	uint32_t *places;		/* per section: its offset in the code, or NOT_PLACED */
	uint32_t n_relocs_max;
	struct code_result code;	/* under construction; bytes and relocs are ours to write */
	struct refusal *refusal;
};

static const char *const target_names[_CODE_TARGET_N] = {
	[CODE_TARGET_ENTRY] = "tier.entry",   [CODE_TARGET_METHOD] = "tier.method", [CODE_TARGET_IMPORT] = "tier.import",
	[CODE_TARGET_RODATA] = "tier.rodata", [CODE_TARGET_DATA] = "tier.data",	    [CODE_TARGET_BSS] = "tier.bss",
	[CODE_TARGET_CELLS] = "tier.cells",
};

void object_symbol(char ret[OBJECT_SYMBOL_MAX], enum code_target target, uint32_t index)
{
	snprintf(ret, OBJECT_SYMBOL_MAX, "%s.%u", target_names[target], index);
}

bool object_symbol_parse(const char *name, struct code_reloc *ret)
{
	const char *dot = strrchr(name, '.');
	unsigned long index;
	char *end;

	if (!dot || dot[1] < '0' || dot[1] > '9')
		return false;
	index = strtoul(dot + 1, &end, 10);
	for (uint32_t i = 0; i < _CODE_TARGET_N; i++) {
		if (strlen(target_names[i]) != (size_t)(dot - name) || strncmp(name, target_names[i], dot - name))
			continue;
		ret->target = i;
		ret->index = index;
		return !*end && index <= UINT32_MAX;
	}
	return false;
}

static bool refused(struct object *object, const char *what)
{
	refuse(object->refusal, "the compiler's object file is malformed: %s", what);
	return false;
}

/* -- The file ------------------------------------------------------------------------------------------------------ */
static const void *slice(const struct object *object, uint64_t offset, uint64_t size)
{
	if (offset > object->n_file || size > object->n_file - offset || offset % 8)
		return NULL;
	return object->file + offset;
}

static bool strings_slice(struct object *object, uint32_t section, const char **ret, size_t *ret_n)
{
	const Elf64_Shdr *header = &object->sections[section];

	if (section >= object->n_sections || header->sh_type != SHT_STRTAB || !header->sh_size)
		return false;
	if (header->sh_offset > object->n_file || header->sh_size > object->n_file - header->sh_offset)
		return false;
	*ret = (const char *)object->file + header->sh_offset;
	*ret_n = header->sh_size;
	return !(*ret)[*ret_n - 1];
}

static bool open_symbols(struct object *object)
{
	for (uint32_t i = 0; i < object->n_sections; i++) {
		const Elf64_Shdr *header = &object->sections[i];

		if (header->sh_type != SHT_SYMTAB)
			continue;
		object->symbols = slice(object, header->sh_offset, header->sh_size);
		object->n_symbols = header->sh_size / sizeof(Elf64_Sym);
		return object->symbols && strings_slice(object, header->sh_link, &object->strings, &object->n_strings);
	}
	return false;
}

static bool open_file(struct object *object)
{
	const Elf64_Ehdr *header = slice(object, 0, sizeof(*header));

	if (!header || (uintptr_t)object->file % 8)
		return refused(object, "its header is missing");
	if (memcmp(header->e_ident, ELFMAG, SELFMAG) || header->e_ident[EI_CLASS] != ELFCLASS64
	    || header->e_type != ET_REL || header->e_machine != EM_X86_64)
		return refused(object, "not an x86-64 relocatable");
	object->n_sections = header->e_shnum;
	object->sections = slice(object, header->e_shoff, (uint64_t)header->e_shnum * sizeof(Elf64_Shdr));
	if (!object->sections || header->e_shentsize != sizeof(Elf64_Shdr) || !object->n_sections)
		return refused(object, "its section table is out of range");
	if (!strings_slice(object, header->e_shstrndx, &object->names, &object->n_names) || !open_symbols(object))
		return refused(object, "its symbol or name tables are out of range");
	return true;
}

static const char *section_name(const struct object *object, const Elf64_Shdr *header)
{
	return header->sh_name < object->n_names ? object->names + header->sh_name : "?";
}

static const char *symbol_name(const struct object *object, const Elf64_Sym *symbol)
{
	return symbol->st_name < object->n_strings ? object->strings + symbol->st_name : "?";
}

/* -- Layout -------------------------------------------------------------------------------------------------------- */

/* Code and constants, which .data.rel.ro holds too: they are final once the daemon has relocated them. */
static bool is_constant(const struct object *object, const Elf64_Shdr *header)
{
	if (header->sh_type != SHT_PROGBITS || header->sh_flags & SHF_TLS)
		return false;
	return !(header->sh_flags & SHF_WRITE) || !strncmp(section_name(object, header), ".data.rel.ro", 12);
}

/* Constants are placed; what is not mapped at run time is left out; anything else cannot be shared. */
static bool place_section(struct object *object, uint32_t i)
{
	const Elf64_Shdr *header = &object->sections[i];
	uint64_t align = MAX(header->sh_addralign, 1u), at = align_up(object->code.n_bytes, align);

	object->places[i] = NOT_PLACED;
	if (!(header->sh_flags & SHF_ALLOC) || !header->sh_size)
		return true;
	if (!is_constant(object, header)) {
		refuse(object->refusal, "the compiler produced section '%s', which is neither code nor constants",
		       section_name(object, header));
		return false;
	}
	if (header->sh_offset > object->n_file || header->sh_size > object->n_file - header->sh_offset)
		return refused(object, "a section is out of range");
	if (!is_power_of_two(align) || align > 4096 || at + header->sh_size > CODE_BYTES_MAX) {
		refuse(object->refusal, "the compiled code is larger than %u bytes or wants alignment %llu", CODE_BYTES_MAX,
		       (unsigned long long)align);
		return false;
	}
	object->places[i] = at;
	object->code.n_bytes = at + header->sh_size;
	object->code.align = MAX(object->code.align, (uint32_t)align);
	return true;
}

static bool place_sections(struct object *object)
{
	uint64_t n_relocs = 0;

	object->code.align = 16;
	for (uint32_t i = 0; i < object->n_sections; i++) {
		if (!place_section(object, i))
			return false;
		if (object->sections[i].sh_type == SHT_RELA)
			n_relocs += object->sections[i].sh_size / sizeof(Elf64_Rela);
	}
	if (n_relocs > CODE_BYTES_MAX / 4)
		return refused(object, "more relocations than bytes");
	object->n_relocs_max = n_relocs;
	return true;
}

/* The block: relocations, inlined, bytes */
static void *build_block(struct object *object)
{
	size_t n_relocs = sizeof(struct code_reloc) * object->n_relocs_max;
	size_t n_inlined = sizeof(uint32_t) * object->code.n_inlined;
	uint8_t *block = calloc(1, n_relocs + n_inlined + object->code.n_bytes);

	if (!block)
		return NULL;
	if (n_inlined)
		memcpy(block + n_relocs, object->code.inlined, n_inlined);
	object->code.relocs = (struct code_reloc *)block;
	object->code.inlined = (uint32_t *)(block + n_relocs);
	object->code.bytes = block + n_relocs + n_inlined;
	for (uint32_t i = 0; i < object->n_sections; i++)
		if (object->places[i] != NOT_PLACED)
			memcpy(block + n_relocs + n_inlined + object->places[i], object->file + object->sections[i].sh_offset,
			       object->sections[i].sh_size);
	return block;
}

static bool find_entry(struct object *object)
{
	for (uint32_t i = 0; i < object->n_symbols; i++) {
		const Elf64_Sym *symbol = &object->symbols[i];

		if (strcmp(symbol_name(object, symbol), OBJECT_ENTRY) || symbol->st_shndx >= object->n_sections
		    || object->places[symbol->st_shndx] == NOT_PLACED
		    || symbol->st_value >= object->sections[symbol->st_shndx].sh_size)
			continue;
		object->code.entry = object->places[symbol->st_shndx] + symbol->st_value;
		return true;
	}
	return refused(object, "the method's symbol is missing");
}

/* -- Relocations --------------------------------------------------------------------------------------------------- */
static bool relocate_inside(struct object *object, const Elf64_Sym *symbol, const Elf64_Rela *rela, uint32_t field)
{
	uint32_t place = symbol->st_shndx < object->n_sections ? object->places[symbol->st_shndx] : NOT_PLACED;
	int64_t value;
	int32_t narrow;

	if (place == NOT_PLACED)
		return refused(object, "a relocation refers to a section that is not mapped");
	value = (int64_t)place + (int64_t)symbol->st_value + rela->r_addend - (int64_t)field;
	if (value < INT32_MIN || value > INT32_MAX)
		return refused(object, "a relocation's value does not fit");
	narrow = value;
	memcpy((uint8_t *)object->code.bytes + field, &narrow, sizeof(narrow));
	return true;
}

static bool relocate_outside(struct object *object, const Elf64_Sym *symbol, const Elf64_Rela *rela, uint32_t field)
{
	struct code_reloc *reloc = (struct code_reloc *)&object->code.relocs[object->code.n_relocs];

	if (!object_symbol_parse(symbol_name(object, symbol), reloc)) {
		refuse(object->refusal, "the compiled code needs '%s', which no method can reach", symbol_name(object, symbol));
		return false;
	}
	if (rela->r_addend < INT32_MIN || rela->r_addend > INT32_MAX)
		return refused(object, "a relocation's addend does not fit");
	reloc->kind = ELF64_R_TYPE(rela->r_info) == R_X86_64_64 ? CODE_RELOC_ABSOLUTE : CODE_RELOC_RELATIVE;
	reloc->offset = field;
	reloc->addend = rela->r_addend;
	if (++object->code.n_relocs > CODE_RELOCS_MAX) {
		refuse(object->refusal, "the compiled code has more than %u relocations", CODE_RELOCS_MAX);
		return false;
	}
	return true;
}

static bool relocate(struct object *object, uint32_t section, const Elf64_Rela *rela)
{
	uint32_t type = ELF64_R_TYPE(rela->r_info), index = ELF64_R_SYM(rela->r_info);
	uint32_t field, size = type == R_X86_64_64 ? 8 : 4;
	const Elf64_Sym *symbol = &object->symbols[index];
	bool is_outside;

	if (type == R_X86_64_NONE)
		return true;
	if (index >= object->n_symbols || object->sections[section].sh_size < size
	    || rela->r_offset > object->sections[section].sh_size - size)
		return refused(object, "a relocation is out of range");
	is_outside = symbol->st_shndx == SHN_UNDEF;
	if (type != R_X86_64_PC32 && type != R_X86_64_PLT32 && !(type == R_X86_64_64 && is_outside)) {
		refuse(object->refusal, "the compiled code has a relocation of type %u against '%s' in section '%s'", type,
		       symbol_name(object, symbol), section_name(object, &object->sections[section]));
		return false;
	}
	field = object->places[section] + rela->r_offset;
	if (is_outside)
		return relocate_outside(object, symbol, rela, field);
	return relocate_inside(object, symbol, rela, field);
}

static bool relocate_section(struct object *object, const Elf64_Shdr *header)
{
	const Elf64_Rela *relas = slice(object, header->sh_offset, header->sh_size);

	if (!relas || header->sh_info >= object->n_sections)
		return refused(object, "a relocation table is out of range");
	if (object->places[header->sh_info] == NOT_PLACED)
		return true;
	for (uint32_t i = 0; i < header->sh_size / sizeof(*relas); i++)
		if (!relocate(object, header->sh_info, &relas[i]))
			return false;
	return true;
}

static int reloc_compare(const void *a, const void *b)
{
	const struct code_reloc *x = a, *y = b;

	return (x->offset > y->offset) - (x->offset < y->offset);
}

static bool relocate_sections(struct object *object)
{
	for (uint32_t i = 0; i < object->n_sections; i++)
		if (object->sections[i].sh_type == SHT_RELA && !relocate_section(object, &object->sections[i]))
			return false;
	if (object->code.n_relocs)
		qsort((void *)object->code.relocs, object->code.n_relocs, sizeof(struct code_reloc), reloc_compare);
	for (uint32_t i = 1; i < object->code.n_relocs; i++)
		if (object->code.relocs[i].offset < object->code.relocs[i - 1].offset
						    + code_reloc_size(&object->code.relocs[i - 1]))
			return refused(object, "two relocations overlap");
	return true;
}

bool object_flatten(const void *file, size_t n, struct code_result *ret, void **ret_block, struct refusal *refusal)
{
	_cleanup_(freep) uint32_t *places = NULL;
	_cleanup_(freep) void *block = NULL;
	struct object object = { .file = file, .n_file = n, .refusal = refusal,
				 .code = { .inlined = ret->inlined, .n_inlined = ret->n_inlined } };

	if (!open_file(&object))
		return false;
	object.places = places = calloc(object.n_sections, sizeof(*places));
	if (!places) {
		refuse(refusal, "out of memory");
		return false;
	}
	if (!place_sections(&object))
		return false;
	block = build_block(&object);
	if (!block) {
		refuse(refusal, "out of memory");
		return false;
	}
	if (!find_entry(&object) || !relocate_sections(&object))
		return false;
	*ret = object.code;
	*ret_block = TAKE_PTR(block);
	return true;
}
