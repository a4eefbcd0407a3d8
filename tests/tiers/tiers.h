/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* One module in this process, run by whatever is asked to: tier 0, tier 1, or the reference interpreter
 *
 * All three meet the same span, laid out as records.h draws it, so they see the same addresses: of methods, of segments,
 * of imports. Methods of different tiers call each other through their entry and call cells, as they do in a client; every
 * slot counts as discovered. */

#include <stdbool.h>
#include <stdint.h>
#include "bytecode/image.h"
#include "bytecode/profile.h"
#include "jit/emit.h"
#include "reference/reference.h"
#include "tier/records.h"

#define TIERS_METHODS 4096u
#define TIERS_IMPORTS 64u
#define TIERS_CELLS (1u << 20)
#define TIERS_PATCHPOINTS (1u << 16)
#define TIERS_SEGMENT (4u << 20)	/* room for .rodata; for .data; for .bss */

enum tiers_kind { TIERS_0, TIERS_1, TIERS_REFERENCE, _TIERS_N };
extern const char *const tiers_names[_TIERS_N];	/* "0", "1", "reference" */

struct tiers {
	void *span;
	uint8_t *alias;			/* of the code segment, writable */
	struct tier_layout layout;
	struct emit e;			/* over all of the code segment */
	struct image image;		/* the caller's bytes */
	uint64_t code[2][TIERS_METHODS];	/* per tier; 0: not compiled */
	uint64_t n_steps;		/* that the reference may take in one run */
	bool counts;			/* what is compiled from now on counts: Tier0Instrumented, Tier1Instrumented */
	bool folds;			/* tier 1 is told from now on what .rodata holds, */
	bool far;			/* and where .data and .bss lie, as if they were another module's */
	/* What the reference asks before each instruction (reference.h), with the struct tiers as userdata; NULL: nothing */
	bool (*leave)(void *tiers, uint32_t method, uint32_t pc, const uint64_t reg[_INSN_REG_N], uint64_t *ret);
	uint32_t cells[TIERS_METHODS];	/* per method: the first cell that it counts in */
	bool patchpoints;		/* tier-0 code that is compiled from now on has patchpoints, and asks at each */
	uint32_t first_patchpoint[TIERS_METHODS + 1];	/* by method; the last one counts them */
	uint32_t n_hits, n_stays;	/* patchpoints hit; hits that still go on in tier-0 code, whatever code there is */
	/* What tier 1 knows of each method from now on; n 0: nothing. Freed by tiers_load() and tiers_free(). */
	struct { struct profile_count *counts; uint32_t n; } profiles[TIERS_METHODS];
};

/* NULL and errno: the machine has no memory for it. Tier 1 needs codegen_init() before. */
struct tiers *tiers_new(void);
struct tiers *tiers_free(struct tiers *tiers);

/* Takes in a checked image, whose bytes must live on: verifies it, fills the segments, binds the imports. No method has
 * code then. False: the sentence of the verifier, or that the module is too large for here. */
bool tiers_load(struct tiers *tiers, const struct image *image, const reference_function *imports, struct refusal *refusal);
/* What a run may have changed: .data and .bss as they were loaded. */
void tiers_reset(struct tiers *tiers);

/* Compiles one method, or all. At tier 1 with @inlines the other methods are candidates for inlining. */
bool tiers_compile(struct tiers *tiers, enum tiers_kind kind, uint32_t method, bool inlines, struct refusal *refusal);
bool tiers_compile_all(struct tiers *tiers, enum tiers_kind kind, bool inlines, struct refusal *refusal);
/* Compiles what goes on at the head of a loop at @pc of @method, *ret; no call leads there. */
bool tiers_compile_osr(struct tiers *tiers, uint32_t method, uint32_t pc, bool inlines, uint64_t *ret, struct refusal *refusal);
/* The same for all patchpoints of @method, whose hits go on there once n_stays is used up. */
bool tiers_compile_patchpoints(struct tiers *tiers, uint32_t method, bool inlines, struct refusal *refusal);
/* From now on a call of @method runs its code of @kind, which is compiled. */
void tiers_select(struct tiers *tiers, enum tiers_kind kind, uint32_t method);

/* The words that @method counts in, zeroes after tiers_load(); and what they say, for all methods, becomes their profiles. */
uint32_t *tiers_words(const struct tiers *tiers, uint32_t method);
uint32_t tiers_n_words(const struct tiers *tiers);	/* of all methods: those of method 0 come first */
bool tiers_read_profiles(struct tiers *tiers, struct refusal *refusal);
void tiers_forget_profiles(struct tiers *tiers);

/* Calls @method as a host would: the reference, or the code that was selected. NULL, or what went wrong: the reference gave up,
 * or the code changed a register that a C function keeps. */
const char *tiers_interpret(struct tiers *tiers, uint32_t method, const uint64_t args[5], uint64_t *ret);
const char *tiers_call(struct tiers *tiers, uint32_t method, const uint64_t args[5], uint64_t *ret);
/* Goes on in @code, which tiers_compile_osr() made, with r0..r9 and in the frame that ends at @frame. */
const char *tiers_call_osr(uint64_t code, const uint64_t registers[INSN_R10], uint64_t frame, uint64_t *ret);
