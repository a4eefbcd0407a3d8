/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Tier 0: one linear pass from verified bytecode to machine code
 *
 * Registers map one to one (DESIGN §2: r0=rax, r1..r5=rdi,rsi,rdx,rcx,r8, r6..r9 callee-saved, r10 the frame), so a
 * method is a C function. rbp is an ordinary frame pointer. Direct calls go through the callee's entry-point cell,
 * imports through their private cell, callx through the register's value. Nothing in the code depends on the process
 * that runs it. */

#include "bytecode/flow.h"
#include "bytecode/image.h"
#include "jit/emit.h"
#include "tier/records.h"

/* An upper bound in bytes for the method's code, so that one reservation always suffices. */
size_t baseline_bound(const struct image *image, uint32_t method);

/* Appends the code of @method (verified) to @e. @layout is the module's, base set. Needs memory for jump targets only:
 * returns 0 or -ENOMEM; look at emit_fits(e) afterwards. About two microseconds per hundred instructions. */
int baseline_compile(struct emit *e, const struct image *image, uint32_t method, const struct flow *flow,
		     const struct tier_layout *layout);
