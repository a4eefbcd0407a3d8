/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Validation of bytecode (DESIGN §2)
 *
 * Known opcodes with their legal fields, registers in range, no write to r10, jump targets inside the method and not
 * in the middle of a 16-byte instruction, no running off the end, frame accesses within the frame where the offset is
 * constant, calls and references to things that exist. It is not a sandbox: a method runs with the rights of the
 * process that calls it. Both tiers rely on it: after verify_image() neither compiler meets a case it does not know. */

#include <stdbool.h>
#include "bytecode/image.h"

/* Where instructions come from, for the sentence */
struct verify_origin {
	const char *section, *method;
	uint32_t section_offset;	/* bytes */
};

/* Validates one method / every method of a checked image. On refusal the sentence names the method, its section, the
 * byte offset in that section, the offending opcode and the reason. Linear time; any thread. */
bool verify_method(const struct image *image, uint32_t method, struct refusal *refusal);
bool verify_image(const struct image *image, struct refusal *refusal);
/* The same of @n (at least 1) instructions that are not in the image but refer to what is in it. */
bool verify_insns(const struct image *image, const struct verify_origin *origin, const struct insn *insns, uint32_t n,
		  struct refusal *refusal);
