/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Random modules that every tier must agree about
 *
 * A module is a batch of programs, so that one run of the optimizer serves many. Method 0 calls one program after the other
 * on the context, its only argument, and leaves the result of program i in word GENERATE_RESULTS + i. A program is a method
 * or a small tree of methods, all of it valid, and all of it ends. */

#include <stdint.h>
#include "bytecode/builder.h"

#define GENERATE_PROGRAMS 32u		/* in one module, at most */
#define GENERATE_IMPORTS 2u		/* that every module has */
#define GENERATE_RESULTS 64u		/* words of the context that programs work on */
#define GENERATE_CONTEXT (GENERATE_RESULTS + GENERATE_PROGRAMS)

/* One sequence of random numbers for everything: the seed before a module is the module. */
extern uint64_t random_seed;
uint64_t random_next(void);
uint32_t random_below(uint32_t n);
uint64_t random_value(void);	/* often a corner: 0, -1, INT_MIN, 2^31, ... */

void generate_module(struct builder *builder, uint32_t n_programs);
