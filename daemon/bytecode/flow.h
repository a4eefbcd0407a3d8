/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Facts about a verified method that both compilers need: computed once, in linear time, for about as much as tier 0's
 * pass over it. Facts about a single instruction are in decode.h. */

#include <stdbool.h>
#include <stdint.h>
#include "bytecode/decode.h"

enum flow_mark {
	FLOW_TARGET = 1u << 0,		/* some jump leads here */
	FLOW_BACK_TARGET = 1u << 1,	/* a backward jump leads here: a loop head, a patchpoint's place */
	FLOW_SECOND_HALF = 1u << 2,	/* second slot of an lddw: not an instruction */
	FLOW_SLOT_LOAD = 1u << 3,	/* a 64-bit load whose value is what the next call of any kind calls, and ... */
	FLOW_SLOT_CALL = 1u << 4,	/* ... that callx: nothing leads in between, so its register holds just that value */
};

struct flow {
	uint8_t *marks;			/* enum flow_mark per instruction slot */
	uint16_t *live;			/* registers live *before* each slot, bit i for ri; see flow_new() */
	uint32_t n_insns;
	uint16_t used;			/* registers read or written anywhere, bit i for ri */
	uint16_t written;		/* registers written anywhere */
	uint16_t undefined;		/* r0, r6..r9 that may be read before written: start as 0 at every tier. r1..r5 at the
					 * entry are the arguments, whatever the caller left there */
	bool frame;			/* r10 is read */
	int32_t frame_low;		/* lowest constant offset from r10 accessed, <= 0; -INSN_FRAME_SIZE when r10 escapes into
					 * another register */
	bool calls;			/* has a call of any kind */
};

/* A call of any kind defines r0 and *leaves r1..r5 as 0* for code that reads them before writing them (a defined value,
 * the same at both tiers): such registers are in live[] after the call, so a compiler need only zero
 * those of r1..r5 that are live there. Callee-saved r6..r9 survive calls.
 * @insns are the @n_insns slots of a verified body. Returns 0 and a flow the caller frees with flow_free(), or -ENOMEM. */
int flow_new(struct flow **ret, const struct insn *insns, uint32_t n_insns);
struct flow *flow_free(struct flow *flow);
