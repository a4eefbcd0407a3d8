/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A program as the public conformance suite has it: one run of instructions in the kernel's conventions, and helpers
 *
 * The first instruction is the entry. A method begins wherever a `call` of its own kind (src_reg 1, distance in imm) or a
 * code address (lddw with src_reg 4) leads. What tierd's own loader does with relocations is done here with distances. */

#include <stdbool.h>
#include <stddef.h>
#include "bytecode/image.h"

/* The module image of @n slots, which the caller frees with free(); method 0 is the entry. Refused: what only the kernel
 * has (map pointers), and calls and addresses that lead outside. Nothing else is looked at. */
bool program_to_image(const struct insn *insns, uint32_t n, void **ret, size_t *ret_n, struct refusal *refusal);

/* The image again, with one more import behind the others: calls of helper @number are calls of it. Calls of other helpers
 * stay what verify_image() refuses. The caller frees @ret_bytes. */
bool program_bind_helper(const struct image *image, int32_t number, void **ret_bytes, struct image *ret,
			 struct refusal *refusal);
