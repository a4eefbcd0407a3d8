/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Modules of any size, generated: n methods m0, m1 ... of the same n instructions, each of arithmetic, frame traffic and
 * short branches, with one reference to data that needs a relocation */

#include <stdint.h>
#include "system/harness.h"

#define SIZES_INSNS_MIN 16u	/* per method */

/* Assembles it into the daemon's folder; returns the path in a static buffer. Fails the running test if it cannot. */
const char *sizes_object(const struct daemon *daemon, const char *name, unsigned int n_methods, unsigned int n_insns);
/* What each method of it returns */
uint64_t sizes_result(unsigned int n_insns, uint64_t x);

/* Time per instruction of loads from a thousand to a million instructions, and of both compilers on one long method */
void sizes_of_loads(const struct daemon *daemon);
void sizes_of_methods(const struct daemon *daemon);
