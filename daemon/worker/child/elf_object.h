/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What the elf*.c files share: an object file on its way to an image. Private to them.
 *
 *   elf.c          opens the file, sections and their kinds, relocation tables; the order of the whole
 *   elf_symbols.c  symbols, functions and their names, what a symbol and an addend lead to
 *   elf_text.c     methods: instructions whose relocations are resolved into their fields
 *   elf_data.c     segments, and the pointers in them */

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

enum object_section_kind {
	SECTION_IGNORED,	/* nothing of it reaches the image */
	SECTION_LAZY,		/* becomes DATA when code or data refers to it: license, version, notes */
	SECTION_MAPS,		/* kernel maps: refused when referred to */
	SECTION_CODE,
	SECTION_DATA,		/* lies in @segment from @base on */
};

struct object_section {
	const char *name;
	const uint8_t *bytes;		/* NULL for NOBITS */
	uint64_t size, align;
	uint64_t flags;			/* SHF_* */
	uint32_t type, link, info;	/* SHT_*, sh_link, sh_info */
	uint64_t entry_size;
	enum object_section_kind kind;
	enum image_segment segment;
	uint32_t base;
	uint32_t string;		/* CODE with methods: its name in the image's strings */
};

struct object_symbol {
	const char *name;
	uint64_t value, size;
	uint32_t section;		/* st_shndx */
	uint8_t type, bind;
	uint32_t placed;		/* undefined: its import's index + 1 once used; common: its offset in .bss */
};

struct object_reloc {
	uint64_t offset;
	int64_t addend;			/* only when RELA */
	uint32_t section, symbol, type;	/* section: where the field lies */
	bool has_addend;
};

struct object_function {
	uint32_t symbol, section;
	uint64_t offset, size;
	uint32_t suffix;		/* 0, or N: known as NAME.N because another one is NAME */
};

struct object {
	Elf *elf;
	const uint8_t *file;
	size_t n_file;
	struct object_section *sections;
	struct object_symbol *symbols;
	struct object_reloc *relocs;		/* by (section, offset) */
	struct object_function *functions;	/* by (section, offset); their indices are the methods' */
	uint32_t n_sections, n_symbols, n_relocs, n_functions;
	uint32_t symbol_table;			/* index of the section */
	struct builder builder;
	struct refusal *refusal;
};

/* what a relocation or a pc-relative field leads to */
struct object_target {
	enum insn_ref ref;
	uint32_t index;
	int64_t addend;
};

/* Each returns false, so that a caller can return it. */
bool object_refuse(struct object *object, const char *format, ...) __attribute__((format(printf, 2, 3)));
bool object_refuse_at(struct object *object, uint32_t section, uint64_t offset, const char *format, ...)
	__attribute__((format(printf, 4, 5)));

/* elf.c: the string at @offset of string table @table (a section's index), or NULL */
const char *object_string(const struct object *object, uint32_t table, uint64_t offset);
/* the first relocation of @section at or after @offset; the array's end when there is none */
const struct object_reloc *object_relocs_from(const struct object *object, uint32_t section, uint64_t offset);

/* elf_symbols.c: reads the symbol table; false: refused */
bool object_read_symbols(struct object *object);
bool object_collect_functions(struct object *object);
/* Whether @name may stand in an image: 1 to IMAGE_NAME_MAX bytes, no control characters. @what: for the sentence. */
bool object_check_name(struct object *object, const char *what, const char *name);
/* What @symbol + @addend is. @section and @offset say where the question comes from, for the sentence. */
bool object_resolve(struct object *object, uint32_t section, uint64_t offset, uint32_t symbol, int64_t addend,
		    struct object_target *ret);
/* The method that begins at @target of @section, or -1. */
int64_t object_method_at(const struct object *object, uint32_t section, uint64_t target);

/* elf_data.c: kinds of sections, segments, pointers in data */
bool object_classify(struct object *object, uint32_t section);
bool object_place_data(struct object *object);
bool object_relocate_data(struct object *object);

/* elf_text.c */
bool object_add_methods(struct object *object);
