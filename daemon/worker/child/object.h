/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The compiler's relocatable object becomes flat code: one run of bytes and relocations that name the module's things
 *
 * The lowering gives what lies outside the method names that only the two functions here know; whatever else the
 * compiler refers to (a library function, a section that is not code or constants) is refused by its name. */

#include <stdbool.h>
#include <stddef.h>
#include "bytecode/code.h"

#define OBJECT_SYMBOL_MAX 32
#define OBJECT_ENTRY "method"	/* the compiled method's own symbol */

/* The symbol for what (target, index) names */
void object_symbol(char ret[OBJECT_SYMBOL_MAX], enum code_target target, uint32_t index);

/* The other way: sets target and index of @ret, or returns false for a name that is no such symbol's. */
bool object_symbol_parse(const char *name, struct code_reloc *ret);

/* @file: an x86-64 ELF relocatable of n bytes, 8-byte aligned. Fills bytes, align, entry and relocs (by ascending offset) of
 * @ret, whose inlined the caller has set; all three arrays end up in one malloc()ed block, *ret_block. On refusal the
 * sentence says what cannot be placed, and @ret is unchanged. */
bool object_flatten(const void *file, size_t n, struct code_result *ret, void **ret_block, struct refusal *refusal);
