/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Which machine register holds which BPF register: the C calling convention, register by register (DESIGN §2)
 *
 *   r0   result, rax            r6..r9   kept across calls: rbx r13 r14 r15
 *   r1..r5   arguments          r10      the end of the BPF frame: rbp itself, since the frame lies right below it
 *
 * r10 and r11 are the templates' scratch registers; nothing is in them between two templates. r9 holds a vtable slot's address
 * from its load to the call through it, so no other template may touch it. r12 is left alone, so nobody has to save it. */

#include "bytecode/insn.h"
#include "jit/x86.h"

static const uint8_t registers_of_bpf[] = {
	[INSN_R0] = X86_RAX, [INSN_R1] = X86_RDI, [INSN_R2] = X86_RSI, [INSN_R3] = X86_RDX,
	[INSN_R4] = X86_RCX, [INSN_R5] = X86_R8,  [INSN_R6] = X86_RBX, [INSN_R7] = X86_R13,
	[INSN_R8] = X86_R14, [INSN_R9] = X86_R15, [INSN_R10] = X86_RBP,
};
_Static_assert(sizeof(registers_of_bpf) == _INSN_REG_N, "place every BPF register");

static inline enum x86_reg register_of(unsigned int bpf) { return (enum x86_reg)registers_of_bpf[bpf]; }

/* in a flow's bit set */
static inline bool register_is_in(uint16_t set, unsigned int bpf) { return set >> bpf & 1; }
