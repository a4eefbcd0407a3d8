/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Patchpoints: where a running frame may leave tier-0 code for optimized code (on-stack replacement)
 *
 * Each frame has a counter of its own. At the head of every loop, whichever way it is reached:
 *
 *   head:      dec  dword [counter]
 *              jle  slow
 *   goes on:   the loop
 *
 * and behind the method's code, once for all of its loops, then once per loop:
 *
 *   common:    lea  counter, %r10               slow:   lea  patchpoint(%rip), %r11
 *              call thunk_osr                           call common
 *              test %r11, %r11                          jmp  goes on
 *              jne  1f
 *              ret
 *          1:  pop  %r10                        nobody goes back to slow
 *              push r9 .. push r0               uint64_t registers[10]
 *              mov  %rsp, %rdi
 *              mov  %rbp, %rsi                  the BPF frame's end, r10 of the bytecode
 *              call *%r11                       r0 = code(registers, frame)
 *              add  $80, %rsp
 *              the method's exit
 *
 * So that the frame goes on behind the test, whatever stands in its counter, and enters the optimized code instead of
 * the iteration that begins. rbp is the frame's all the way: stacks unwind by it at every instruction. jit/stubs.h says
 * what the thunk's entry promises. */

#include "bytecode/flow.h"
#include "jit/emit.h"
#include "tier/records.h"

struct patchpoints {
	uint32_t first;		/* number of the first one in the module */
	int32_t counter;	/* where the frame's counter lies, from rbp; 0: there are no patchpoints */
	uint32_t n_test;	/* bytes of each test; known once one is emitted */
};

#define PATCHPOINT_COUNTER_SIZE 8u	/* of the frame; the counter is the lower half */

bool patchpoint_has_any(const struct flow *flow);
/* Bytes that all of it takes */
size_t patchpoint_bound(const struct insn *insns, uint32_t n_insns);

/* In the prologue; @begin: 1..INT32_MAX */
void patchpoint_begin(struct emit *e, const struct patchpoints *patchpoints, uint32_t begin);
/* At a loop's head */
void patchpoint_test(struct emit *e, struct patchpoints *patchpoints);
/* The common part, up to the method's exit, which the caller emits; rsp is a multiple of 16 in the method's code. */
void patchpoint_common(struct emit *e, const struct patchpoints *patchpoints, const struct tier_layout *layout);
/* All slow parts. @at: by slot, where its code begins; @common: address of the common part. */
void patchpoint_slow(struct emit *e, const struct patchpoints *patchpoints, const struct tier_layout *layout,
		     const struct flow *flow, const uint32_t *at, uint64_t common);
