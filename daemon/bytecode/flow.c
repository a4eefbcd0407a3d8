/* SPDX-License-Identifier: Apache-2.0 */
/* Liveness of registers over a verified method
 *
 * Straight runs of instructions are blocks. A block is summed up in two bit sets, what it reads before writing (needs)
 * and what it writes (writes), so that
 *
 *     live at its start = needs | (live at its end & ~writes)
 *
 * costs nothing to repeat. A worklist repeats it until nothing grows: a set has 11 bits and a block two successors, so
 * it is taken up at most 23 times, whatever shape the loops have, and the whole is linear in the method's length. A last
 * backward pass spreads the result over the instructions.
 *
 *   first[]  slot where block b starts, first[n_blocks] = the end     block_of[]  block of each slot
 *   sources  lists of the blocks that jump to block b: source_head[b] → source_next[] → ... → NONE */
#include <errno.h>
#include <string.h>
#include "bytecode/flow.h"
#include "util/base.h"
#include "util/error.h"

#define NONE UINT32_MAX
#define ENTRY_UNDEFINED ((uint16_t)(1u << INSN_R0 | 0xfu << INSN_R6))	/* r1..r5 are arguments */

struct blocks {
	uint32_t *block_of;		/* per slot */
	uint32_t *first;		/* per block and one more */
	uint32_t *source_head, *source_next;
	uint16_t *needs, *writes, *live_in;
	uint32_t *worklist;		/* a stack; listed[b] says that b is on it */
	uint8_t *listed;
	uint32_t n, n_worklist;
};

static void blocks_deinit(struct blocks *blocks)
{
	free(blocks->block_of);
	free(blocks->first);
	free(blocks->source_head);
	free(blocks->source_next);
	free(blocks->needs);
	free(blocks->writes);
	free(blocks->live_in);
	free(blocks->worklist);
	free(blocks->listed);
}

struct flow *flow_free(struct flow *flow)
{
	if (flow) {
		free(flow->marks);
		free(flow->live);
		free(flow);
	}
	return NULL;
}
DEFINE_CLEANUP(struct flow *, flow_free)

/* -- One pass for everything that needs no fixed point --- */

static bool falls_through(const struct insn *insn)
{
	return insn->code != (BPF_JMP | BPF_EXIT) && (!insn_is_jump(insn) || insn_is_conditional(insn));
}

/* The base register of a memory access, and -1 for what is none. */
static int access_base(const struct insn *insn)
{
	bool acquire = BPF_MODE(insn->code) == BPF_ATOMIC && insn->imm == BPF_LOAD_ACQ;

	switch (BPF_CLASS(insn->code)) {
	case BPF_LDX:
		return insn->src;
	case BPF_ST:
		return insn->dst;
	case BPF_STX:
		return acquire ? insn->src : insn->dst;
	default:
		return -1;
	}
}

/* r10 as the base of an access with its constant offset is the only use that keeps the frame's extent known; a store of
 * r10 itself through r10 is both, so the value operand counts as an escape. */
static void flow_note_frame(struct flow *flow, const struct insn *insn)
{
	bool stores = BPF_CLASS(insn->code) == BPF_STX && insn->src == INSN_R10
		   && !(BPF_MODE(insn->code) == BPF_ATOMIC && insn->imm == BPF_LOAD_ACQ);

	if (!(insn_reads(insn) & 1u << INSN_R10))
		return;
	flow->frame = true;
	if (access_base(insn) != INSN_R10 || stores)
		flow->frame_low = -(int32_t)INSN_FRAME_SIZE;
	else
		flow->frame_low = MIN(flow->frame_low, (int32_t)insn->off);
}

static void flow_mark(struct flow *flow, const struct insn *insns)
{
	for (uint32_t pc = 0; pc < flow->n_insns; pc += insn_slots(&insns[pc])) {
		const struct insn *insn = &insns[pc];

		flow->written |= insn_writes(insn);
		flow->used |= insn_reads(insn) | insn_writes(insn);
		flow_note_frame(flow, insn);
		if (insn_is_lddw(insn))
			flow->marks[pc + 1] |= FLOW_SECOND_HALF;
		if (BPF_CLASS(insn->code) == BPF_JMP && BPF_OP(insn->code) == BPF_CALL)
			flow->calls = true;
		if (insn_is_jump(insn)) {
			uint32_t target = flow_jump_target(insns, pc);

			flow->marks[target] |= FLOW_TARGET | (target <= pc ? FLOW_BACK_TARGET : 0);
		}
	}
}

/* -- Blocks --- */

static bool ends_block(const struct insn *insn)
{
	return insn_is_jump(insn) || !falls_through(insn);
}

/* Numbers the blocks; with first == NULL only counts them, so that the second run finds its arrays allocated. */
static uint32_t blocks_number(const struct flow *flow, const struct insn *insns, uint32_t *first, uint32_t *block_of)
{
	uint32_t n = 0;
	bool starts = true;

	for (uint32_t pc = 0; pc < flow->n_insns; pc += insn_slots(&insns[pc])) {
		if (starts || flow->marks[pc] & FLOW_TARGET) {
			if (first)
				first[n] = pc;
			n++;
		}
		if (block_of)
			block_of[pc] = n - 1;
		starts = ends_block(&insns[pc]);
	}
	if (first)
		first[n] = flow->n_insns;
	return n;
}

static int blocks_allocate(struct blocks *blocks, uint32_t n, uint32_t n_insns)
{
	blocks->n = n;
	blocks->block_of = malloc(n_insns * sizeof(uint32_t));
	blocks->first = malloc((n + (size_t)1) * sizeof(uint32_t));
	blocks->source_head = malloc(n * sizeof(uint32_t));
	blocks->source_next = malloc(n * sizeof(uint32_t));
	blocks->needs = calloc(n, sizeof(uint16_t));
	blocks->writes = calloc(n, sizeof(uint16_t));
	blocks->live_in = calloc(n, sizeof(uint16_t));
	blocks->worklist = malloc(n * sizeof(uint32_t));
	blocks->listed = calloc(n, 1);
	return blocks->block_of && blocks->first && blocks->source_head && blocks->source_next && blocks->needs
	    && blocks->writes && blocks->live_in && blocks->worklist && blocks->listed ? 0 : error_origin(-ENOMEM);
}

/* last instruction of block @b: its last slot, or the one before when that is the second half of a lddw */
static uint32_t block_last(const struct flow *flow, const struct blocks *blocks, uint32_t b)
{
	uint32_t pc = blocks->first[b + 1] - 1;

	return flow->marks[pc] & FLOW_SECOND_HALF ? pc - 1 : pc;
}

/* block that the jump ending block @b leads to, or NONE */
static uint32_t block_target(const struct flow *flow, const struct blocks *blocks, const struct insn *insns, uint32_t b)
{
	uint32_t pc = block_last(flow, blocks, b);

	return insn_is_jump(&insns[pc]) ? blocks->block_of[flow_jump_target(insns, pc)] : NONE;
}

static void blocks_sum_up(struct blocks *blocks, const struct insn *insns)
{
	for (uint32_t b = 0; b < blocks->n; b++)
		for (uint32_t pc = blocks->first[b]; pc < blocks->first[b + 1]; pc += insn_slots(&insns[pc])) {
			blocks->needs[b] |= insn_reads(&insns[pc]) & ~blocks->writes[b];
			blocks->writes[b] |= insn_writes(&insns[pc]);
		}
}

static void blocks_link(struct blocks *blocks, const struct flow *flow, const struct insn *insns)
{
	memset(blocks->source_head, 0xff, blocks->n * sizeof(uint32_t));
	for (uint32_t b = 0; b < blocks->n; b++) {
		uint32_t target = block_target(flow, blocks, insns, b);

		if (target == NONE)
			continue;
		blocks->source_next[b] = blocks->source_head[target];
		blocks->source_head[target] = b;
	}
}

/* -- The fixed point --- */

static void blocks_list(struct blocks *blocks, uint32_t b)
{
	if (blocks->listed[b])
		return;
	blocks->listed[b] = 1;
	blocks->worklist[blocks->n_worklist++] = b;
}

static uint16_t block_live_out(const struct flow *flow, const struct blocks *blocks, const struct insn *insns, uint32_t b)
{
	uint32_t target = block_target(flow, blocks, insns, b);
	uint16_t live = target == NONE ? 0 : blocks->live_in[target];

	if (falls_through(&insns[block_last(flow, blocks, b)]))
		live |= blocks->live_in[b + 1];
	return live;
}

static void blocks_solve(struct blocks *blocks, const struct flow *flow, const struct insn *insns)
{
	/* pushed in program order, so popped from the end backward: most blocks are right the first time */
	for (uint32_t b = 0; b < blocks->n; b++)
		blocks_list(blocks, b);
	while (blocks->n_worklist) {
		uint32_t b = blocks->worklist[--blocks->n_worklist];
		uint16_t live = block_live_out(flow, blocks, insns, b);

		blocks->listed[b] = 0;
		live = blocks->needs[b] | (live & ~blocks->writes[b]);
		if (live == blocks->live_in[b])
			continue;
		blocks->live_in[b] = live;
		for (uint32_t source = blocks->source_head[b]; source != NONE; source = blocks->source_next[source])
			blocks_list(blocks, source);
		if (b && falls_through(&insns[block_last(flow, blocks, b - 1)]))
			blocks_list(blocks, b - 1);
	}
}

static void flow_spread(struct flow *flow, const struct blocks *blocks, const struct insn *insns)
{
	for (uint32_t b = 0; b < blocks->n; b++) {
		uint16_t live = block_live_out(flow, blocks, insns, b);

		for (uint32_t pc = blocks->first[b + 1]; pc-- > blocks->first[b];) {
			/* the second half of a lddw has nothing of its own: what is live after the whole */
			if (!(flow->marks[pc] & FLOW_SECOND_HALF))
				live = insn_reads(&insns[pc]) | (live & ~insn_writes(&insns[pc]));
			flow->live[pc] = live;
		}
	}
	flow->undefined = flow->live[0] & ENTRY_UNDEFINED;
}

static int flow_solve(struct flow *flow, const struct insn *insns)
{
	_cleanup_(blocks_deinit) struct blocks blocks = {};
	int r;

	r = blocks_allocate(&blocks, blocks_number(flow, insns, NULL, NULL), flow->n_insns);
	if (r)
		return error_fold(r);
	blocks_number(flow, insns, blocks.first, blocks.block_of);
	blocks_sum_up(&blocks, insns);
	blocks_link(&blocks, flow, insns);
	blocks_solve(&blocks, flow, insns);
	flow_spread(flow, &blocks, insns);
	return 0;
}

int flow_new(struct flow **ret, const struct image *image, uint32_t method)
{
	const struct insn *insns = image_method_insns(image, method);
	uint32_t n = image->methods[method].n_insns;
	_cleanup_(flow_freep) struct flow *flow = NULL;
	int r;

	flow = calloc(1, sizeof(*flow));
	if (!flow)
		return error_origin(-ENOMEM);
	flow->n_insns = n;
	flow->marks = calloc(n, sizeof(*flow->marks));
	flow->live = calloc(n, sizeof(*flow->live));
	if (!flow->marks || !flow->live)
		return error_origin(-ENOMEM);
	flow_mark(flow, insns);
	r = flow_solve(flow, insns);
	if (r)
		return error_fold(r);
	*ret = TAKE_PTR(flow);
	return 0;
}
