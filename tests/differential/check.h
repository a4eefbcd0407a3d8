/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* One random module by tier 0, by tier 1 and by the reference: r0 of every program and all memory must be the same. */

#include <stdbool.h>
#include <stdint.h>
#include "bytecode/image.h"

/* 0 or -errno; check_teardown() afterwards in any case */
int check_setup(void);
void check_teardown(void);

/* Makes the module that random_seed stands for, and runs it on several contents of the context. With @all every method is
 * compiled by itself at tier 1, and runs also mix the tiers; else only method 0 is, with most others inlined. False: @why says
 * what differs, beginning with the seed. */
bool check_module(uint32_t n_programs, bool all, struct refusal *why);

extern uint32_t check_skipped;	/* runs that the reference gave up: legal, but not worth waiting for */
extern uint64_t check_seed;	/* of the module being checked, for who handles a signal */
