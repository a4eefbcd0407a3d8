/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* One random module by tier 0, by tier 1 and by the reference: r0 of every program and all memory must be the same, whatever
 * tier 1 is told in a profile; and what both tiers count must be the same. */

#include <stdbool.h>
#include <stdint.h>
#include "bytecode/image.h"

/* 0 or -errno; check_teardown() afterwards in any case */
int check_setup(void);
void check_teardown(void);

enum check_kind {
	CHECK_BATCH,	/* tier 1 compiles method 0, with most others inlined */
	CHECK_EACH,	/* it compiles every method by itself, and runs also mix the tiers */
	CHECK_RUBBISH,	/* like BATCH, with a profile of rubbish for every method */
	CHECK_COUNTS,	/* like EACH, and both tiers count */
	CHECK_OSR,	/* optimized code for every head of a loop, entered out of the reference at any arrival */
	CHECK_PATCHPOINTS,	/* the same code, entered out of tier 0 */
	_CHECK_KIND_N,
};

/* Makes the module that random_seed stands for, and runs it on several contents of the context. False: @why says what differs,
 * beginning with the seed. */
bool check_module(uint32_t n_programs, enum check_kind kind, struct refusal *why);

extern uint32_t check_skipped;	/* runs that the reference gave up: legal, but not worth waiting for */
extern uint32_t check_entered;	/* times that code was entered in a loop */
extern uint64_t check_seed;	/* of the module being checked, for who handles a signal */
