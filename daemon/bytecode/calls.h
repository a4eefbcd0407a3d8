/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Who calls whom in a module, as far as its bytecode says
 *
 * Indirect calls are not in it: where those lead is known only while they run. Made once, off the loop; each question is
 * then two loads. */

#include "bytecode/image.h"

enum calls_relation {
	CALLS_CALLEES,		/* methods that a method calls */
	CALLS_CALLERS,		/* methods that call it */
	CALLS_ADDRESSES,	/* methods whose address it takes */
	CALLS_IMPORTS,		/* imports that it calls or whose address it takes */
	_CALLS_RELATION_N,
};

struct calls;

/* @image is checked and verified; it is only read here. 0 or -ENOMEM. Linear in its instructions. Any thread. */
int calls_new(struct calls **ret, const struct image *image);
/* The same for one body, @n verified instructions that refer to what is in @image: questions are then about method 0, and callers
 * are not told. */
int calls_new_body(struct calls **ret, const struct image *image, const struct insn *insns, uint32_t n);
struct calls *calls_free(struct calls *calls);

/* Indices in ascending order of their first appearance (callers: ascending), each once; *ret_n of them. */
const uint32_t *calls_of(const struct calls *calls, enum calls_relation relation, uint32_t method, uint32_t *ret_n);
