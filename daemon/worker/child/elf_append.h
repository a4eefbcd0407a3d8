/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* An object file with one section more */

#include <stdbool.h>
#include <stddef.h>
#include "bytecode/image.h"

/* @file: an object that elf_to_image() takes. The copy in *ret (malloc()ed, *ret_n bytes) has a section @name that
 * holds @bytes, is not loaded, and is 8-byte aligned in the file; if there is a section of that name, it has these
 * bytes instead. What the file had stays where it was, but for its headers and the table of names. */
bool elf_append(const void *file, size_t n, const char *name, const void *bytes, size_t n_bytes, void **ret,
		size_t *ret_n, struct refusal *refusal);
