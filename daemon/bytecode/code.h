/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Optimized code on its way from a compile worker into a module's arena: bytes and a flat list of relocations
 *
 * The worker has already resolved whatever lies inside the bytes (jump tables, constants). What is left refers to the
 * module: S is what target and index name, and its addresses are the same in every process. */

#include <stddef.h>
#include <stdint.h>
#include "bytecode/image.h"

enum code_target {
	CODE_TARGET_ENTRY,	/* the entry-point cell E of method index (an 8-byte cell: called through) */
	CODE_TARGET_METHOD,	/* the program-visible address of method index */
	CODE_TARGET_IMPORT,	/* the private cell of import index (an 8-byte cell) */
	CODE_TARGET_RODATA,	/* .rodata; index 0 */
	CODE_TARGET_DATA,	/* .data; index 0 */
	CODE_TARGET_BSS,	/* .bss; index 0 */
	CODE_TARGET_CELLS,	/* the module's cells (the counters segment's start); index 0 */
	_CODE_TARGET_N,
};

enum code_reloc_kind {
	CODE_RELOC_RELATIVE,	/* 4 bytes: S + addend - address of the field */
	CODE_RELOC_ABSOLUTE,	/* 8 bytes: S + addend; in tables of pointers that the compiler made of a switch */
	_CODE_RELOC_N,
};

struct code_reloc {
	uint32_t offset;	/* of the field in the bytes */
	uint16_t target;	/* enum code_target */
	uint16_t kind;		/* enum code_reloc_kind */
	uint32_t index;
	int32_t addend;		/* already includes what the instruction's end needs (usually -4) */
};

/* Whom the compiler inlined: method indices, each once, without the method itself. */
struct code_result {
	const uint8_t *bytes;
	uint32_t n_bytes, align;	/* align: power of two, 16..4096 */
	uint32_t entry;			/* offset of the method's first instruction in bytes */
	const struct code_reloc *relocs;
	uint32_t n_relocs;
	const uint32_t *inlined;
	uint32_t n_inlined;
};

/* Bytes of its field */
static inline uint32_t code_reloc_size(const struct code_reloc *reloc)
{
	return reloc->kind == CODE_RELOC_ABSOLUTE ? 8 : 4;
}

/* The daemon checks, copies and relocates what a worker compiled in one turn of its loop: this much takes a millisecond,
 * most of it for fresh pages. */
#define CODE_BYTES_MAX (512u << 10)
#define CODE_RELOCS_MAX 16384u
