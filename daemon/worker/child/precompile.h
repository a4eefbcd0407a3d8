/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* From an object to the same object with optimized code inside */

#include <stdbool.h>
#include <stddef.h>
#include "bytecode/image.h"

/* Compiles every method of the object in @file (n bytes) that the compiler takes, at level READY_TO_RUN. On success
 * *ret is the object with a section PRECOMPILED_SECTION, malloc()ed, of *ret_n bytes; a section of that name that was
 * there is replaced. Methods that are too large, not to be optimized, or refused by the compiler have no code in it. */
bool precompile(void *file, size_t n, void **ret, size_t *ret_n, struct refusal *refusal);
