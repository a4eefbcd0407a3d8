/* SPDX-License-Identifier: Apache-2.0 */
/* Liveness of registers over a verified method
 *
 * One sweep from the last slot to the first finds everything that no loop is needed for: forward jumps lead to slots that
 * the sweep has seen. A slot with code 0 is the second half of a lddw and nothing else, so slots can be walked backward.
 *
 * What a backward jump brings is added afterwards. A register that turns out to be live behind a slot is carried
 * backward, from slot to slot and along every jump that leads to one of them, until something writes it or it was live
 * there already. It can become live at a slot only once, so all of it together is linear in the method's length,
 * whatever shape the loops have. Blocks and a numbering of them are not needed for that.
 *
 *   newest[]  per slot: the last jump that leads there      older[]  per jump: the next one that leads to the same slot
 *   grown[]   slots that jumps lead to, live[] of which grew since it was last carried along those jumps
 *
 * Last, each callx looks back for the load of its register. It looks no farther than to the call before it, so all of them
 * together are linear as well; methods without callx do not pay for it. */
#include <errno.h>
#include "bytecode/flow.h"
#include "util/base.h"
#include "util/error.h"

#define ENTRY_UNDEFINED ((uint16_t)(1u << INSN_R0 | 0xfu << INSN_R6))	/* r1..r5 are arguments */
#define FLOW_GROWN 0x80u	/* a mark while the slot is in grown[] */

struct jumps {
	uint32_t *newest, *older;	/* slot + 1; 0: none */
	uint32_t *grown;		/* a stack */
	uint32_t n_grown;
};

struct flow *flow_free(struct flow *flow)
{
	free(flow);
	return NULL;
}

/* -- The sweep --- */
/* r10 as the base of an access with its constant offset is the only use that keeps the frame's extent known; a store of
 * r10 itself through r10 is both, so the value operand counts as an escape. */
static bool frame_escapes(const struct insn *insn)
{
	const unsigned int class = BPF_CLASS(insn->code);

	if (class == BPF_STX && insn->src == INSN_R10)
		return !(BPF_MODE(insn->code) == BPF_ATOMIC && insn->imm == BPF_LOAD_ACQ);
	return class != BPF_LDX && class != BPF_ST && class != BPF_STX;
}

static void flow_note_frame(struct flow *flow, const struct insn *insn)
{
	const int32_t low = frame_escapes(insn) ? -(int32_t)INSN_FRAME_SIZE : insn->off;

	flow->frame = true;
	flow->frame_low = MIN(flow->frame_low, low);
}

/* Returns what is live at the target as far as the sweep knows; nothing yet for a backward jump. */
static uint16_t flow_note_jump(struct flow *flow, uint32_t pc, uint32_t target)
{
	if (target > pc) {
		flow->marks[target] |= FLOW_TARGET;
		return flow->live[target];
	}
	flow->marks[target] |= FLOW_TARGET | FLOW_BACK_TARGET;
	return 0;
}

/* Returns how many jumps there are, or 0 when none leads backward; *ret_callx: whether there is any. */
static uint32_t flow_sweep(struct flow *flow, const struct insn *insns, bool *ret_callx)
{
	uint16_t live = 0, used = 0, written = 0;
	uint32_t n_jumps = 0;
	bool backward = false, callx = false;

	for (uint32_t pc = flow->n_insns; pc-- > 0;) {
		const struct insn *insn = &insns[pc];
		const unsigned int shape = insn_shape(insn);
		const struct insn_registers registers = insn_registers(insn);

		if (shape & INSN_ENDS)
			live = 0;
		if (shape & INSN_JUMPS) {
			const uint32_t target = flow_jump_target(insns, pc);

			live |= flow_note_jump(flow, pc, target);
			backward |= target <= pc;
			n_jumps++;
		}
		if (!insn->code)
			flow->marks[pc] |= FLOW_SECOND_HALF;
		if (registers.reads & 1u << INSN_R10)
			flow_note_frame(flow, insn);
		flow->calls |= !!(shape & INSN_CALLS);
		callx |= insn_is_callx(insn);
		written |= registers.writes;
		used |= registers.reads | registers.writes;
		flow->live[pc] = live = registers.reads | (live & ~registers.writes);
	}
	flow->used = used;
	flow->written = written;
	*ret_callx = callx;
	return backward ? n_jumps : 0;
}

/* -- Backward jumps --- */
/* @bits are live behind slot @pc. */
static void flow_carry(struct flow *flow, const struct insn *insns, struct jumps *jumps, uint32_t pc, uint16_t bits)
{
	do {
		bits &= ~(insn_writes(&insns[pc]) | flow->live[pc]);
		if (!bits)
			return;
		flow->live[pc] |= bits;
		if ((flow->marks[pc] & (FLOW_TARGET | FLOW_GROWN)) == FLOW_TARGET) {
			flow->marks[pc] |= FLOW_GROWN;
			jumps->grown[jumps->n_grown++] = pc;
		}
	} while (pc && !(insn_shape(&insns[--pc]) & INSN_ENDS));
}

/* Links all jumps, and carries along the backward ones what the sweep found at their targets. */
static void flow_link(struct flow *flow, const struct insn *insns, struct jumps *jumps)
{
	for (uint32_t pc = 0; pc < flow->n_insns; pc++) {
		uint32_t target;

		if (!insn_is_jump(&insns[pc]))
			continue;
		target = flow_jump_target(insns, pc);
		jumps->older[pc] = jumps->newest[target];
		jumps->newest[target] = pc + 1;
		if (target <= pc)
			flow_carry(flow, insns, jumps, pc, flow->live[target]);
	}
}

static int flow_settle(struct flow *flow, const struct insn *insns, uint32_t n_jumps)
{
	_cleanup_(freep) uint32_t *slots = calloc(2 * (size_t)flow->n_insns + n_jumps, sizeof(*slots));
	struct jumps jumps = { .newest = slots, .older = slots + flow->n_insns, .grown = slots + 2 * (size_t)flow->n_insns };

	if (!slots)
		return error_origin(-ENOMEM);
	flow_link(flow, insns, &jumps);
	while (jumps.n_grown) {
		const uint32_t target = jumps.grown[--jumps.n_grown];

		flow->marks[target] &= ~FLOW_GROWN;
		for (uint32_t jump = jumps.newest[target]; jump; jump = jumps.older[jump - 1])
			flow_carry(flow, insns, &jumps, jump - 1, flow->live[target]);
	}
	return 0;
}

/* -- Slots --- */
/* The callx at @pc. What lies between a call or a jump that always goes elsewhere and the next target is never run. */
static void flow_pair(struct flow *flow, const struct insn *insns, uint32_t pc)
{
	const uint16_t callee = 1u << insns[pc].dst;
	uint32_t at = pc;

	while (at && !(flow->marks[at] & FLOW_TARGET)) {
		const struct insn *insn = &insns[--at];

		if (insn_shape(insn) & (INSN_CALLS | INSN_ENDS))
			return;
		if (!(insn_writes(insn) & callee))
			continue;
		if (insn->code == (BPF_LDX | BPF_MEM | BPF_DW)) {
			flow->marks[at] |= FLOW_SLOT_LOAD;
			flow->marks[pc] |= FLOW_SLOT_CALL;
		}
		return;
	}
}

static void flow_pair_all(struct flow *flow, const struct insn *insns)
{
	for (uint32_t pc = 0; pc < flow->n_insns; pc++)
		if (insn_is_callx(&insns[pc]))
			flow_pair(flow, insns, pc);
}

int flow_new(struct flow **ret, const struct insn *insns, uint32_t n)
{
	_cleanup_(freep) struct flow *flow = NULL;
	uint32_t n_jumps;
	bool callx;
	int r;

	/* one piece: the flow, its live[], its marks[] */
	flow = calloc(1, sizeof(*flow) + n * (sizeof(*flow->live) + sizeof(*flow->marks)));
	if (!flow)
		return error_origin(-ENOMEM);
	flow->n_insns = n;
	flow->live = (uint16_t *)(flow + 1);
	flow->marks = (uint8_t *)(flow->live + n);
	n_jumps = flow_sweep(flow, insns, &callx);
	if (n_jumps) {
		r = flow_settle(flow, insns, n_jumps);
		if (r)
			return error_fold(r);
	}
	if (callx)
		flow_pair_all(flow, insns);
	flow->undefined = flow->live[0] & ENTRY_UNDEFINED;
	*ret = TAKE_PTR(flow);
	return 0;
}
