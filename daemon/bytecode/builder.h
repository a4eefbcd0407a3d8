/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Writing a module image, table by table, in any order
 *
 * A builder remembers that memory ran out or a limit was passed: every call may be made without looking, and
 * builder_finish() tells, once. Methods, their instructions and relocations keep the order in which they were added. */

#include <stddef.h>
#include <stdint.h>
#include "bytecode/image.h"

struct builder_table {
	uint8_t *bytes;
	size_t n, n_max;	/* bytes used and allocated */
};

enum builder_part {
	BUILDER_METHODS, BUILDER_INSNS, BUILDER_RELOCS, BUILDER_IMPORTS, BUILDER_STRINGS, BUILDER_RODATA, BUILDER_DATA,
	BUILDER_TAGS, BUILDER_FILES, BUILDER_LINES, BUILDER_OBJECTS, BUILDER_PRECOMPILED,
	_BUILDER_PART_N,
};

struct builder {
	struct builder_table part[_BUILDER_PART_N];
	uint32_t align[_IMAGE_SEGMENT_N];
	uint64_t n_bss;
	uint32_t note;
	int error;		/* 0, -ENOMEM, or -EFBIG when an IMAGE_*_MAX was passed */
};
#define BUILDER_NULL { .align = { 1, 1, 1 } }

void builder_deinit(struct builder *builder);	/* idempotent */

/* offset of a copy of @name in the strings */
uint32_t builder_string(struct builder *builder, const char *name);
/* Appends a method of @n slots and returns its index. @insns are copied; @section is an offset in the strings. */
uint32_t builder_method(struct builder *builder, const char *name, uint32_t section, uint32_t section_offset,
			uint32_t flags, const struct insn *insns, uint32_t n);
/* What debug information tells about a method that was added. @flags are added to its own; @signature may be NULL. */
void builder_describe(struct builder *builder, uint32_t method, uint32_t flags, const char *signature, uint32_t n_params,
		      uint64_t signature_hash);
/* One more tag of @method; methods in ascending order. */
void builder_tag(struct builder *builder, uint32_t method, const char *tag);
uint32_t builder_file(struct builder *builder, const char *name);	/* index of the new source file */
void builder_line(struct builder *builder, const struct image_line *line);	/* in ascending order of insn */
void builder_note(struct builder *builder, const char *note);	/* why debug information is missing */
/* index of the new import */
uint32_t builder_import(struct builder *builder, const char *name, uint32_t flags);
/* in ascending order of (segment, offset) */
void builder_reloc(struct builder *builder, const struct image_reloc *reloc);
/* A variable called @name; its other fields are @object's. In the order that struct image_object tells. */
void builder_object(struct builder *builder, const char *name, const struct image_object *object);
/* Precompiled code of @n bytes; once. */
void builder_precompiled(struct builder *builder, const void *bytes, size_t n);
/* Appends @n bytes (zeroes when @bytes is NULL, and always for .bss) aligned to @align, a power of two, and returns
 * their offset in the segment. */
uint32_t builder_segment(struct builder *builder, enum image_segment segment, const void *bytes, uint64_t n,
			 uint32_t align);
/* Writable view of @n bytes at @offset of a segment that was added; valid until the next addition. NULL after an error. */
uint8_t *builder_bytes(struct builder *builder, enum image_segment segment, uint32_t offset, uint32_t n);

/* On success *ret is a malloc()ed image of *ret_n bytes, owned by the caller. 0, -ENOMEM or -EFBIG. The builder keeps
 * what it has; call builder_deinit() in any case. */
int builder_finish(struct builder *builder, void **ret, size_t *ret_n);
