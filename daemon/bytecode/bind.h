/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A body from another object, bound into a module (DESIGN §4, rejit)
 *
 * The body keeps its own .rodata, which goes to a place in the module's span. Whatever else it names is the target module's of
 * that name: methods (the replaced function's own name means the method itself, whatever that is called), variables of .data
 * and .bss (same name and size), imports (a function, a variable or an import of the target). What comes out are
 * instructions as if they had been in the target from the start: references in the target's numbers, .rodata as constants.
 *
 * Binding takes as long as looking up names does, and needs no address of the span but those that are there already; so it
 * may be done off the loop. Moving the result to where its .rodata is to lie is a pass of additions. */

#include <stdbool.h>
#include <stdint.h>
#include "bytecode/image.h"

#define BIND_AMBIGUOUS (-2)	/* find_object(): several variables have that name */

struct bind_target {
	const struct image *image;		/* checked and verified */
	uint32_t method;			/* whose body this will be */
	/* Index of the method called @name, or -1; of an import and of a variable likewise */
	int64_t (*find_method)(void *context, const char *name);
	int64_t (*find_import)(void *context, const char *name);
	int64_t (*find_object)(void *context, const char *name);
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
#define BOUND_BODY_NULL { .insns = NULL }

enum {
	_BIND_E_SUCCESS,
	BIND_E_SIGNATURE,	/* other parameters or result, or not known on either side */
	BIND_E_UNBOUND,		/* the target lacks a name */
	BIND_E_REFUSED,		/* anything else, as the sentence says */
};

/* Whether @source's method may become the body of @target's: signatures equal (struct image_method, signature_hash and
 * n_params). 0 or BIND_E_SIGNATURE with a sentence that shows both. */
int bind_signature(const struct bind_target *target, const struct image *source, uint32_t method, struct refusal *refusal);
/* @source is checked and verified. 0 and *ret, whose .rodata has no address yet: bound_body_place() must come before anybody
 * uses it. Else BIND_E_* with a sentence, or -ENOMEM. Look-ups apart linear in the method's instructions and the source's
 * relocations; each needs a bisection of the source's variables. */
int bind_body(struct bound_body *ret, const struct bind_target *target, const struct image *source, uint32_t method,
	      struct refusal *refusal);
/* Its .rodata is to lie at @rodata (aligned as the source's header asks): fills in what refers to it. @source and @method are
 * those that it was bound from. Linear, without look-ups; may be called again. */
void bound_body_place(struct bound_body *body, const struct image *source, uint32_t method, uint64_t rodata);
void bound_body_deinit(struct bound_body *body);	/* idempotent */
