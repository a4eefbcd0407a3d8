/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Precompiled code: what an object's section ".tier.code" holds
 *
 *   header | row[n_methods] | codes, each as job_put_code() made it, at multiples of 8
 *
 * It is bound to the image that the object gives without it, by hash, and to the compiler that made it. The section
 * comes out of a file that anybody made: nothing of it is believed that was not checked, and what does not fit is left
 * out, by a sentence. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "bytecode/code.h"
#include "bytecode/image.h"
#include "worker/compiler.h"
#include "worker/job.h"

#define PRECOMPILED_SECTION ".tier.code"

struct precompiled_row {
	uint32_t offset, n; /* of its code in the section, bytes; n 0: it has none */
};

/* Checked; borrows from the image */
struct precompiled {
	const uint8_t *bytes;
	const struct precompiled_row *rows;
	uint32_t n_methods; /* 0: there is none, or it was left out */
	uint32_t n_codes;   /* methods that have some */
};

/* Where slots and call cells lie in a module, as struct job_compile has it: the code relies upon it. */
struct precompiled_place {
	uint32_t slots, n_slots, call_cells;
};
/* In a module of this image, as arena_plan() places them */
struct precompiled_place precompiled_place(const struct image *image);

/* The section for codes[i], a block of job_put_code() with sizes[i] bytes (0: none), by method. 0, -ENOMEM, or -EFBIG:
 * more than IMAGE_PRECOMPILED_MAX bytes. *ret is malloc()ed. */
int precompiled_put(const struct image *image, const struct compiler *compiler, void *const *codes, const size_t *sizes,
		    void **ret, size_t *ret_n);

/* Whether the image's precompiled code was made of this very image, by @here, and is whole: each code is what
 * job_get_code() accepts, and inlined only methods that exist, not itself. @place: the module's. False: @why. Linear in
 * its size; any thread. */
bool precompiled_check(struct precompiled *ret, const struct image *image, const struct compiler *here,
		       const struct precompiled_place *place, struct refusal *why);
/* Code of a method that has some */
static inline bool precompiled_has(const struct precompiled *precompiled, uint32_t method)
{
	return method < precompiled->n_methods && precompiled->rows[method].n;
}
void precompiled_get(const struct precompiled *precompiled, uint32_t method, struct code_result *ret);
