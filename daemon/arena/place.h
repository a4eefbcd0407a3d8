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

/* A call through an entry cell ("call [rip -> E]", six bytes) whose displacement can be made an aligned one of a direct call
 * becomes a call site: "call rel32" to the callee's one address (right as it is, should nobody record the site) and a byte of
 * padding, in whatever order puts the field on a multiple of 4, so that one store redirects it (a rel32 slot, reference §1.7).
 * That is every second one; the others stay as they are. */
struct place_site {
	uint64_t address;	/* of the displacement */
	uint32_t method;	/* the callee */
};

struct placed {
	uint64_t address;	/* of the entry */
	uint64_t size;		/* bytes published */
	struct place_site *sites;	/* malloc()ed, the caller's; may be NULL without any */
	uint32_t n_sites;
};

/* Reserves, checks, relocates and publishes. Returns 0, PLACE_E_*, never negative. The daemon's thread only. */
int place_code(struct placed *ret, struct arena *arena, const struct code_result *code, struct refusal *refusal);
