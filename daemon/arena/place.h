/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Placing tier-1 code: the worker's bytes and relocations become code of a module
 *
 * The worker is not trusted: every relocation is checked (field inside the bytes, fields disjoint, target exists,
 * result in the module's span), and every inlined method's index, before a byte is written. Relocations are all
 * pc-relative 32-bit fields: *field = S + addend - P. */

#include <stdint.h>
#include "arena/arena.h"
#include "bytecode/image.h"
#include "bytecode/code.h"

enum {
	_PLACE_E_SUCCESS,
	PLACE_E_FULL,		/* no room in the code segment */
	PLACE_E_REFUSED,	/* the relocations or bytes are not acceptable; @refusal says which */
};

struct placed {
	uint64_t address;	/* of the entry */
	uint64_t size;		/* bytes published */
};

/* Reserves, checks, relocates and publishes. Returns 0, PLACE_E_*, never negative. The daemon's thread only. */
int place_code(struct placed *ret, struct arena *arena, const struct code_result *code, struct refusal *refusal);
