/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Which registers provably hold a pointer whose origin is known, at every instruction of a method
 *
 * BPF's registers are integers; C's pointers were lost on the way. LLVM's alias analysis needs them back: an address that is
 * computed with integers may point anywhere. A register *keeps its base* when it is r10, a reference to a segment, or an
 * argument that the method dereferences, moved and added to. Moves keep it, pointer ± integer keeps it; loads, all other
 * arithmetic and calls end it; where paths meet it must hold on all of them. */

#include <stdint.h>
#include "bytecode/insn.h"

struct provenance {
	uint32_t n_insns;
	uint16_t arguments;	/* bit i: ri is an argument that is used as a pointer */
	uint16_t before[];	/* per slot, bit i: ri keeps its base before the instruction */
};

/* @insns: n_insns slots of a verified method. Returns 0 and what the caller frees with free(), or -ENOMEM. */
int provenance_new(struct provenance **ret, const struct insn *insns, uint32_t n_insns);

/* The registers that keep their base after @insn if @before did. The lowering asks here as well, so that analysis and
 * code cannot disagree. */
uint16_t provenance_after(uint16_t before, const struct insn *insn);
