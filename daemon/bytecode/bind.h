/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A body from another object, bound into a module (DESIGN §4, rejit)
 *
 * The body keeps its own .rodata, which goes to a place in the module's span. Whatever else it names is the target module's of
 * that name: methods (the replaced function's own name means the method itself, whatever that is called), variables of .data
 * and .bss (same name and size), imports (a function, a variable or an import of the target). What comes out are
 * instructions as if they had been in the target from the start: references in the target's numbers, .rodata as constants. */

#include <stdbool.h>
#include <stdint.h>
#include "bytecode/image.h"

struct bind_target {
	const struct image *image;		/* checked and verified */
	uint32_t method;			/* whose body this will be */
	/* Index of the method called @name, or -1; of an import likewise */
	int64_t (*find_method)(void *context, const char *name);
	int64_t (*find_import)(void *context, const char *name);
	void *context;
	/* Addresses in the span that every process sees: what a pointer in .rodata to such a thing holds. @ref is METHOD, RODATA, DATA or
	 * BSS of the target; offset in bytes. */
	uint64_t (*address)(void *context, unsigned int ref, uint32_t index, int64_t offset);
};

struct bound_body {
	struct insn *insns;	/* owned; verified against the target */
	uint32_t n_insns;
	uint8_t *rodata;	/* owned: all of the source's, pointers filled in; NULL when it has none */
	uint32_t n_rodata;
};

enum {
	_BIND_E_SUCCESS,
	BIND_E_SIGNATURE,	/* other parameters or result, or not known on either side */
	BIND_E_UNBOUND,		/* the target lacks a name */
	BIND_E_REFUSED,		/* anything else, as the sentence says */
};

/* Whether @source's method may become the body of @target's: signatures equal (struct image_method, signature_hash and
 * n_params). 0 or BIND_E_SIGNATURE with a sentence that shows both. */
int bind_signature(const struct bind_target *target, const struct image *source, uint32_t method, struct refusal *refusal);
/* @source is checked and verified; @rodata: the address that its .rodata will have (aligned as its header asks). 0, BIND_E_*
 * with a sentence, or -ENOMEM. Linear in the method's instructions and the source's relocations and objects. */
int bind_body(struct bound_body *ret, const struct bind_target *target, const struct image *source, uint32_t method, uint64_t rodata,
	      struct refusal *refusal);
void bound_body_deinit(struct bound_body *body);	/* idempotent */
