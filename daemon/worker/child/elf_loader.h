/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What the elf*.c files share: an object file on its way to an image. Private to them.
 *
 *   elf.c          opens the file, sections and their kinds, relocation tables; the order of the whole
 *   elf_symbols.c  symbols, functions and their names, what a symbol and an addend lead to
 *   elf_text.c     methods: instructions whose relocations are resolved into their fields
 *   elf_data.c     segments, the pointers and the variables in them
 *   elf_btf.c      signatures, tags and source lines, as far as the file has them (btf.c reads the format) */

#include <gelf.h>
#include <stdbool.h>
#include <stdint.h>
#include "bytecode/builder.h"
#include "bytecode/image.h"

/* libelf 0.188 names only the first and the last of them */
enum {
	BPF_RELOC_NONE = 0,
	BPF_RELOC_64_64 = 1,		/* lddw: S + A in both immediates */
	BPF_RELOC_64_ABS64 = 2,		/* data: 8 bytes */
	BPF_RELOC_64_ABS32 = 3,		/* data: 4 bytes */
	BPF_RELOC_64_NODYLD32 = 4,	/* BTF and debug sections only */
	BPF_RELOC_64_32 = 10,		/* call: (S + A) / 8 - 1 in the immediate */
};

enum loader_section_kind {
	SECTION_IGNORED,	/* nothing of it reaches the image */
	SECTION_LAZY,		/* becomes DATA when code or data refers to it: license, version, notes */
	SECTION_MAPS,		/* kernel maps: refused when referred to */
	SECTION_CODE,
	SECTION_DATA,		/* lies in @segment from @base on */
};

struct loader_section {
	const char *name;
	const uint8_t *bytes;		/* NULL for NOBITS */
	uint64_t size, align;
	uint64_t flags;			/* SHF_* */
	uint32_t type, link, info;	/* SHT_*, sh_link, sh_info */
	uint64_t entry_size;
	enum loader_section_kind kind;
	enum image_segment segment;
	uint32_t base;
	uint32_t string;		/* CODE with methods: its name in the image's strings */
};

struct loader_symbol {
	const char *name;
	uint64_t value, size;
	uint32_t section;		/* st_shndx */
	uint8_t type, bind;
	uint32_t placed;		/* undefined: its import's index + 1 once used; common: its offset in .bss */
};

struct loader_reloc {
	uint64_t offset;
	int64_t addend;			/* only when RELA */
	uint64_t symbol_value;		/* what an old GNU assembler put into the field beside the addend; else 0 */
	uint32_t section, symbol, type;	/* section: where the field lies */
	bool has_addend;
};

struct loader_function {
	uint32_t symbol, section;
	uint64_t offset, size;
	uint32_t suffix;		/* 0, or N: known as NAME.N because another one is NAME */
};

struct loader {
	Elf *elf;
	const uint8_t *file;
	size_t n_file;
	struct loader_section *sections;
	struct loader_symbol *symbols;
	struct loader_reloc *relocs;		/* by (section, offset) */
	struct loader_function *functions;	/* by (section, offset); their indices are the methods' */
	uint32_t n_sections, n_symbols, n_relocs, n_functions;
	uint32_t symbol_table;			/* index of the section */
	uint32_t file_flags;			/* e_flags */
	bool is_old_gnu;			/* see reloc_translate() */
	struct builder builder;
	struct refusal *refusal;
};

/* The relocation with @index if it lies in @section, else NULL. */
static inline const struct loader_reloc *loader_reloc_in(const struct loader *loader, uint32_t index, uint32_t section)
{
	return index < loader->n_relocs && loader->relocs[index].section == section ? &loader->relocs[index] : NULL;
}

/* what a relocation or a pc-relative field leads to */
struct loader_target {
	enum insn_ref ref;
	uint32_t index;
	int64_t addend;
};

/* Each returns false, so that a caller can return it. */
bool loader_refuse(struct loader *loader, const char *format, ...) __attribute__((format(printf, 2, 3)));
bool loader_refuse_at(struct loader *loader, uint32_t section, uint64_t offset, const char *format, ...)
	__attribute__((format(printf, 4, 5)));

/* elf.c: the string at @offset of string table @table (a section's index), or NULL */
const char *loader_string(const struct loader *loader, uint32_t table, uint64_t offset);
/* index of the first relocation of @section at or after @offset, or where it would be */
uint32_t loader_relocs_from(const struct loader *loader, uint32_t section, uint64_t offset);

/* elf_symbols.c: reads the symbol table; false: refused */
bool loader_read_symbols(struct loader *loader);
bool loader_collect_functions(struct loader *loader);
/* Whether @name may stand in an image: 1 to IMAGE_NAME_MAX bytes, no control characters. @what: for the sentence. */
bool loader_check_name(struct loader *loader, const char *what, const char *name);
/* What @symbol + @addend is. @section and @offset say where the question comes from, for the sentence. */
bool loader_resolve(struct loader *loader, uint32_t section, uint64_t offset, uint32_t symbol, int64_t addend,
		    struct loader_target *ret);
/* The method that begins at @target of @section, or -1. */
int64_t loader_method_at(const struct loader *loader, uint32_t section, uint64_t target);

/* elf_data.c: kinds of sections, segments, pointers in data */
bool loader_classify(struct loader *loader, uint32_t section);
bool loader_place_data(struct loader *loader);
bool loader_relocate_data(struct loader *loader);
bool loader_name_data(struct loader *loader);

/* elf_text.c */
bool loader_add_methods(struct loader *loader);

/* elf_btf.c: never refuses; the methods are there */
void loader_add_debug(struct loader *loader);
