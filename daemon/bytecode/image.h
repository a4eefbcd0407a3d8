/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The flat module image: what the load worker makes of an ELF object
 *
 * One block of bytes without pointers: a header, then tables at 8-byte aligned offsets. The worker writes it with a
 * struct builder (builder.h); the daemon trusts none of it and calls image_check() once over its own copy, after which every
 * offset, count and index in it may be followed without looking again.
 *
 *   header | methods[] | insns[] | relocs[] | imports[] | strings | rodata bytes | data bytes | tags[] | files[] | lines[]
 *   | objects[] | precompiled bytes
 *
 * Precompiled code, if the object has any, is bytes that nobody here looks at (worker/precompiled.h): they come last, so that
 * everything before them is what the image would be without.
 *
 * What debug information told (signatures, tags, source lines) is there for people and for checks of a replaced body;
 * an image without any of it is just as good.
 *
 * Thread safety: an image that has been checked is never changed; any thread may read it. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "bytecode/insn.h"

#define IMAGE_MAGIC 0x34474d4952454954ull	/* "TIERIMG4" in little endian */

/* Limits, checked by both sides; far above what compilers emit, far below what would hurt the daemon. */
#define IMAGE_METHODS_MAX (1u << 15)
#define IMAGE_INSNS_MAX (1u << 24)
#define IMAGE_IMPORTS_MAX (1u << 12)
#define IMAGE_RELOCS_MAX (1u << 22)
#define IMAGE_SEGMENT_MAX (256u << 20)	/* bytes of .rodata, .data or .bss each */
#define IMAGE_NAME_MAX 255u		/* bytes of a method's, import's or section's name */
#define IMAGE_ALIGN_MAX 4096u
#define IMAGE_SIGNATURE_MAX 511u	/* bytes of a signature */
#define IMAGE_TAGS_MAX (1u << 20)
#define IMAGE_OBJECTS_MAX (1u << 20)	/* named variables */
#define IMAGE_FILES_MAX (1u << 12)	/* source files; a name has at most IMAGE_NAME_MAX bytes */
#define IMAGE_PRECOMPILED_MAX (256u << 20)	/* bytes */

enum image_segment { IMAGE_RODATA, IMAGE_DATA, IMAGE_BSS, _IMAGE_SEGMENT_N };

struct image_table { uint32_t offset, n; };	/* offset in bytes from the header, n elements */

struct image_header {
	uint64_t magic;
	uint32_t size;				/* of the whole image in bytes */
	uint32_t flags;				/* 0 */
	struct image_table methods, insns, relocs, imports, strings, rodata, data, tags, files, lines, objects;
	struct image_table precompiled;
	uint32_t n_bss;				/* bytes */
	uint32_t align[_IMAGE_SEGMENT_N];	/* powers of two, at most IMAGE_ALIGN_MAX */
	uint32_t note;				/* offset in strings: why debug information was left out; 0: it was not */
	uint32_t reserved;			/* 0 */
	uint64_t hash;				/* FNV-1a 64 over all bytes after this header; names the content, no security */
};

enum image_method_flags {
	IMAGE_METHOD_GLOBAL = 1u << 0,		/* STB_GLOBAL or STB_WEAK; else local */
	IMAGE_METHOD_WEAK = 1u << 1,
	IMAGE_METHOD_NO_OPTIMIZATION = 1u << 2,	/* tagged "tier:no_optimization" */
	IMAGE_METHOD_AGGRESSIVE_OPTIMIZATION = 1u << 3,
	IMAGE_METHOD_PINNED = 1u << 4,
	_IMAGE_METHOD_FLAGS = (1u << 5) - 1,
};

struct image_method {
	uint32_t name;		/* offset in strings, NUL-terminated */
	uint32_t section;	/* offset in strings: the section's name, for messages */
	uint32_t section_offset; /* bytes from the section's start to the first instruction */
	uint32_t insn;		/* index of the first instruction slot */
	uint32_t n_insns;	/* instruction slots (an lddw is two) */
	uint32_t flags;
	uint32_t signature;	/* offset in strings: a declaration in C; 0: unknown, like the two below */
	uint32_t n_params;
	uint64_t signature_hash; /* equal for signatures whose values have the same kinds and sizes, whatever their names */
	uint32_t tag, n_tags;	/* its part of tags; methods' parts are in order, none overlap */
};

enum image_import_flags { IMAGE_IMPORT_WEAK = 1u << 0 };

struct image_import {
	uint32_t name;		/* offset in strings */
	uint32_t flags;
};

/* A pointer in .rodata or .data; written by the daemon once the span's addresses are known. The table is in ascending
 * order of (segment, offset), fields don't overlap, and the bytes they cover are 0 in the image. Fields need not be
 * aligned. */
struct image_reloc {
	uint8_t segment;	/* IMAGE_RODATA or IMAGE_DATA: where the field lies */
	uint8_t ref;		/* enum insn_ref, never NONE: what it points to */
	uint8_t width;		/* 8, or 4: then the value must fit, else the load is refused */
	uint8_t pad;
	uint32_t offset;	/* of the field in its segment */
	uint32_t index;		/* method or import index; 0 for segments */
	int32_t addend;		/* bytes */
};

/* From this instruction on (up to the next entry, within one method) the source is that line. In ascending order of insn,
 * no two for one. */
struct image_line {
	uint32_t insn;		/* index in insns */
	uint32_t file;		/* index in files */
	uint32_t line;		/* 0: the compiler's own */
	uint32_t column;	/* 0: unknown */
};

/* A variable, as far as the symbol table names it: what a replaced body binds to by name, and `const volatile` knobs. In
 * ascending order of (segment, offset, is_global, size); two may share a place, and the last of those is known best. */
struct image_object {
	uint32_t name;		/* offset in strings */
	uint32_t offset, size;	/* bytes in its segment; size may be 0: unknown */
	uint8_t segment;	/* enum image_segment */
	uint8_t is_global;
	uint8_t reserved[2];	/* 0 */
};

/* A checked image; borrowed pointers into the caller's bytes, valid as long as those are. */
struct image {
	const struct image_header *header;
	const struct image_method *methods;
	const struct insn *insns;
	const struct image_reloc *relocs;
	const struct image_import *imports;
	const char *strings;
	const uint8_t *rodata, *data;
	const uint32_t *tags, *files;	/* offsets in strings */
	const struct image_line *lines;
	const struct image_object *objects;
	const uint8_t *precompiled;	/* 8-byte aligned */
	uint32_t n_methods, n_insns, n_relocs, n_imports, n_rodata, n_data, n_bss, n_tags, n_files, n_lines, n_objects;
	uint32_t n_precompiled;
};

/* A refusal: what, where, why. One sentence in @text, without a final full stop or newline. */
struct refusal {
	char text[384];
};
void refuse(struct refusal *refusal, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Checks all of @bytes (8-byte aligned, @n bytes): magic, size, every table inside the image and not overlapping the
 * header, every name terminated, every index in range, methods' instruction ranges inside insns and disjoint, relocs'
 * fields inside their segments, lines in order, the hash. Does not look at instructions: that is verify_image(). Fills
 * @ret and returns true, or fills @refusal and returns false. Linear in @n; any thread. */
bool image_check(const void *bytes, size_t n, struct image *ret, struct refusal *refusal);

/* FNV-1a 64 over everything after the header of an image of @n bytes. */
uint64_t image_hash(const void *bytes, size_t n);
/* The same kind of hash of what the image is without its precompiled code: sizes, alignments, and every table. */
uint64_t image_content_hash(const struct image *image);
/* Whether a reference (enum insn_ref, never NONE) of a lddw or a relocation names something of the image: an existing
 * method or import, with addend 0, or a byte of a segment or the place just after its last. */
bool image_ref_exists(const struct image *image, unsigned int ref, uint32_t index, int64_t addend);

static inline const char *image_method_name(const struct image *image, uint32_t method)
{
	return image->strings + image->methods[method].name;
}
static inline const char *image_import_name(const struct image *image, uint32_t import)
{
	return image->strings + image->imports[import].name;
}
/* "" when unknown */
static inline const char *image_method_signature(const struct image *image, uint32_t method)
{
	return image->methods[method].signature ? image->strings + image->methods[method].signature : "";
}
static inline const struct insn *image_method_insns(const struct image *image, uint32_t method)
{
	return image->insns + image->methods[method].insn;
}

static inline const char *image_object_name(const struct image *image, uint32_t object)
{
	return image->strings + image->objects[object].name;
}
/* The variable that the byte at @offset of @segment belongs to, or just follows: of those that begin last at or before it the
 * best known one. -1: none does. Logarithmic. */
int64_t image_object_at(const struct image *image, enum image_segment segment, uint64_t offset);

/* Vtable slots: aligned pointers to methods in .rodata. Relocations there come first, in ascending order. */
bool image_reloc_is_slot(const struct image_reloc *reloc);
/* Where in .rodata the first of them lies, and the bytes up to the end of the last; 0 and 0: there is none. */
uint32_t image_slots(const struct image *image, uint32_t *ret_n);

/* Index of the first line entry for instruction slot @insn or a later one; n_lines: none. */
uint32_t image_lines_from(const struct image *image, uint32_t insn);

/* For tests: index of the method called @name, or -1. Linear; the daemon has a symtab (arena/symtab). */
int64_t image_find_method(const struct image *image, const char *name);
