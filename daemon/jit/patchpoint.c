/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include "jit/patchpoint.h"
#include "jit/registers.h"

#define FIXED_BOUND 80u	/* the counter's first value: 10; common: 48; the exit: 9 */
#define EACH_BOUND 32u	/* test: 12; slow: 17 */

bool patchpoint_has_any(const struct flow *flow)
{
	for (uint32_t pc = 0; pc < flow->n_insns; pc++)
		if (flow->marks[pc] & FLOW_BACK_TARGET)
			return true;
	return false;
}

/* Jumps to the same head count as many. */
size_t patchpoint_bound(const struct insn *insns, uint32_t n_insns)
{
	size_t bound = 0;

	for (uint32_t pc = 0; pc < n_insns; pc++)
		if (insn_is_jump(&insns[pc]) && flow_jump_target(insns, pc) <= pc)
			bound += EACH_BOUND;
	return bound ? FIXED_BOUND + bound : 0;
}

void patchpoint_begin(struct emit *e, const struct patchpoints *patchpoints, uint32_t begin)
{
	assert(begin >= 1 && begin <= INT32_MAX);
	x86_mem(e, X86_32, 0xc7, 0, X86_RBP, patchpoints->counter);		/* mov dword [rbp+counter], */
	emit_word(e, begin, 4);							/*   begin */
}

void patchpoint_test(struct emit *e, struct patchpoints *patchpoints)
{
	const size_t begin = e->n;

	x86_mem(e, X86_32, 0xff, 1, X86_RBP, patchpoints->counter);		/* dec dword [rbp+counter] */
	EMIT(e, 0x0f, 0x80 | X86_LE, IMM32(0));					/* jle slow */
	patchpoints->n_test = e->n - begin;
}

void patchpoint_common(struct emit *e, const struct patchpoints *patchpoints, const struct tier_layout *layout)
{
	size_t enter;

	x86_mem(e, X86_64, 0x8d, X86_R10, X86_RBP, patchpoints->counter);	/* lea r10, [rbp+counter] */
	x86_call(e, tier_layout_thunk(layout, TIER_THUNK_OSR));
	x86_rr(e, X86_64, 0x85, X86_R11, X86_R11);				/* test r11, r11 */
	enter = x86_short_jcc(e, X86_NE);
	EMIT(e, 0xc3);								/* ret */
	x86_land(e, enter);
	x86_plus(e, X86_32, 0x58, X86_R10);					/* pop r10 */
	for (unsigned int reg = INSN_R9 + 1; reg-- > INSN_R0;)
		x86_plus(e, X86_32, 0x50, register_of(reg));			/* push reg */
	x86_mov(e, X86_RDI, X86_RSP);
	x86_mov(e, X86_RSI, X86_RBP);
	x86_rr(e, X86_32, 0xff, 2, X86_R11);					/* call r11 */
	x86_rri(e, X86_64, 0x83, 0x81, 0, X86_RSP, 10 * sizeof(uint64_t));	/* add rsp, 80 */
}

/* The slow part of the patchpoint whose test ends at offset @goes_on, where its jle has 0 yet. */
static void patchpoint_slow_one(struct emit *e, const struct tier_layout *layout, uint32_t number, uint32_t goes_on,
				uint64_t common)
{
	const uint32_t distance = e->n - goes_on;

	emit_patch(e, goes_on - sizeof(distance), &distance, sizeof(distance));
	x86_rip(e, X86_64, 0x8d, X86_R11, tier_layout_patchpoint(layout, number));	/* lea r11, [rip -> patchpoint] */
	x86_call(e, common);
	x86_jmp(e, e->address + goes_on);
}

void patchpoint_slow(struct emit *e, const struct patchpoints *patchpoints, const struct tier_layout *layout,
		     const struct flow *flow, const uint32_t *at, uint64_t common)
{
	uint32_t number = patchpoints->first;

	for (uint32_t pc = 0; pc < flow->n_insns; pc++)
		if (flow->marks[pc] & FLOW_BACK_TARGET)
			patchpoint_slow_one(e, layout, number++, at[pc] + patchpoints->n_test, common);
}
