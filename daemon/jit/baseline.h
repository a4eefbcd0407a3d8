/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Tier 0: one linear pass from verified bytecode to machine code
 *
 * Registers map one to one (DESIGN §2: r0=rax, r1..r5=rdi,rsi,rdx,rcx,r8, r6..r9 callee-saved, r10 the frame), so a
 * method is a C function. rbp is an ordinary frame pointer. Direct calls go through the callee's entry-point cell,
 * imports through their private cell. callx goes through the call cell of the vtable slot that its register was loaded
 * from, if it was loaded from one (DESIGN §2), and tells it in r10; else through the register's value. Nothing in the code
 * depends on the process that runs it.
 *
 * A body is given by its instructions, so that one from another object (bytecode/bind.h) is compiled like the method's own. */

#include "bytecode/flow.h"
#include "jit/emit.h"
#include "tier/records.h"

/* An upper bound in bytes for the body's code, so that one reservation always suffices. */
size_t baseline_bound(const struct insn *insns, uint32_t n_insns);

/* What the code refers to. Of the records only their flags are read, which say what the addresses of methods are; they stand
 * in the arena (arena_record(arena, 0)). */
struct baseline_module {
	const struct tier_layout *layout;	/* base set */
	const struct tier_record *records;	/* layout->n_methods */
};

/* Appends the code of @insns (verified, @flow is theirs) to @e. Needs memory for jump targets only: returns 0 or -ENOMEM;
 * look at emit_fits(e) afterwards. About two microseconds per hundred instructions. */
int baseline_compile(struct emit *e, const struct insn *insns, const struct flow *flow, const struct baseline_module *module);
