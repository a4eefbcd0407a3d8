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
#include "bytecode/profile.h"
#include "jit/emit.h"
#include "tier/records.h"

/* What tier 0 does beside the body's own work; zeroes: nothing
 *
 * Counts are those of bytecode/profile.h. Patchpoints are where a running frame may go on in optimized code (on-stack
 * replacement); only a method's own body has any. What the two sides of that step agree on:
 *
 *   - A frame has a counter, a word of 32 bits below its part of the BPF frame. It begins with osr_counter, and each time that
 *     a loop's head is reached it counts down by one. At 0 or below, libtier is asked (jit/stubs.h), with the patchpoint's
 *     record and the counter's address; it sets the counter anew, and the frame goes on behind the test.
 *   - When the answer is the address of optimized code, that is called as a C function: r0 = code(registers, frame).
 *     registers[i] is ri at the loop's head, for r0..r9; those that are not live there (flow->live) hold anything. frame is
 *     the BPF frame's end, r10 of the bytecode, which stays in place, with what the body has stored in it: of its 512 bytes
 *     only those exist that the body uses (flow->frame_low). Both are the code's until it returns. rsp is a multiple of 16
 *     before the call.
 *   - What it returns the method returns, with the registers that its caller keeps.
 *
 * jit/patchpoint.h has the instructions. */
struct baseline_extra {
	const struct profile_map *profile;	/* what is counted; NULL: nothing */
	uint32_t profile_cell;			/* index of the first cell that it counts in; even */
	bool patchpoints;			/* at the heads of its loops (bytecode/loops.h) */
	uint32_t patchpoint;			/* number of the first one in the module */
	uint32_t osr_counter;			/* what a frame's counter begins with; 1..INT32_MAX */
};

/* An upper bound in bytes for the body's code, so that one reservation always suffices. @extra: NULL is as zeroes. */
size_t baseline_bound(const struct insn *insns, uint32_t n_insns, const struct baseline_extra *extra);

/* What the code refers to. Of the records only their flags are read, which say what the addresses of methods are; they stand
 * in the arena (arena_record(arena, 0)). */
struct baseline_module {
	const struct tier_layout *layout;	/* base set */
	const struct tier_record *records;	/* layout->n_methods */
	uint64_t data, bss;			/* addresses of .data and .bss where they are another module's; 0: they lie in the span */
};

/* Appends the code of @insns (verified, @flow is theirs, and so is @extra->profile) to @e. Needs memory for jump targets
 * only: returns 0 or -ENOMEM; look at emit_fits(e) afterwards. About two microseconds per hundred instructions. */
int baseline_compile(struct emit *e, const struct insn *insns, const struct flow *flow, const struct baseline_module *module,
		     const struct baseline_extra *extra);
