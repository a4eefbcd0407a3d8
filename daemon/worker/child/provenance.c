/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include "bytecode/flow.h"
#include "util/error.h"
#include "worker/child/provenance.h"

/* Two forward passes, each repeated until nothing changes (twice or three times for code with loops):
 *
 * Origins: which arguments may have been added into each register; an access through a register that only one argument
 *          can have reached makes that argument a pointer. Choosing wrongly between two arguments costs speed and
 *          nothing else: LLVM knows the origin of neither.
 * Bases:   with those arguments given, which registers keep their base. */

#define FRAME_BIT ((uint16_t)(1u << INSN_R10))
#define UNREACHED UINT16_MAX

/* -- Origins: 6 bits per register, one for each argument and one for everything else that is a base ---------------- */
#define ORIGIN_BITS 6
#define ORIGIN_KNOWN (1u << 5)

static unsigned int origin_get(uint64_t origins, unsigned int reg)
{
	if (reg == INSN_R10)
		return ORIGIN_KNOWN;
	return origins >> (reg * ORIGIN_BITS) & ((1u << ORIGIN_BITS) - 1);
}

static uint64_t origin_set(uint64_t origins, unsigned int reg, unsigned int origin)
{
	unsigned int shift = reg * ORIGIN_BITS;

	return (origins & ~((uint64_t)((1u << ORIGIN_BITS) - 1) << shift)) | (uint64_t)origin << shift;
}

static bool lddw_is_segment(const struct insn *insn)
{
	return insn_is_lddw(insn) && insn->src >= INSN_REF_RODATA && insn->src <= INSN_REF_BSS;
}

static bool insn_is_move(const struct insn *insn)
{
	return insn->code == (BPF_ALU64 | BPF_MOV | BPF_X) && !insn->off;
}

static bool insn_is_sum(const struct insn *insn)
{
	return BPF_CLASS(insn->code) == BPF_ALU64 && (BPF_OP(insn->code) == BPF_ADD || BPF_OP(insn->code) == BPF_SUB);
}

static uint64_t origins_after(uint64_t before, const struct insn *insn)
{
	uint16_t writes = insn_writes(insn);
	uint64_t after = before;

	if (insn_is_move(insn))
		return origin_set(before, insn->dst, origin_get(before, insn->src));
	if (lddw_is_segment(insn))
		return origin_set(before, insn->dst, ORIGIN_KNOWN);
	if (insn_is_sum(insn)) {
		if (BPF_SRC(insn->code) == BPF_K || BPF_OP(insn->code) == BPF_SUB)
			return before;
		return origin_set(before, insn->dst, origin_get(before, insn->dst) | origin_get(before, insn->src));
	}
	for (unsigned int reg = 0; reg < INSN_R10; reg++)
		if (writes >> reg & 1)
			after = origin_set(after, reg, 0);
	return after;
}

/* The register through which @insn accesses memory, or -1 */
static int insn_base(const struct insn *insn)
{
	switch (BPF_CLASS(insn->code)) {
	case BPF_LDX:
		return insn->src;
	case BPF_ST:
		return insn->dst;
	case BPF_STX:
		return BPF_MODE(insn->code) == BPF_ATOMIC && insn->imm == BPF_LOAD_ACQ ? insn->src : insn->dst;
	default:
		return -1;
	}
}

static bool insn_ends_path(const struct insn *insn)
{
	return insn->code == (BPF_JMP | BPF_EXIT) || (insn_is_jump(insn) && !insn_is_conditional(insn));
}

static bool origins_pass(uint64_t *before, const struct insn *insns, uint32_t n_insns)
{
	uint64_t carried = 0;
	bool changed = false;

	for (uint32_t pc = 0; pc < n_insns; pc += insn_slots(&insns[pc])) {
		before[pc] |= carried;
		carried = origins_after(before[pc], &insns[pc]);
		if (insn_is_jump(&insns[pc])) {
			uint32_t target = flow_jump_target(insns, pc);

			changed |= (before[target] | carried) != before[target];
			before[target] |= carried;
		}
		if (insn_ends_path(&insns[pc]))
			carried = 0;
	}
	return changed;
}

/* Arguments, as origin bits, that some access can only mean; then, for accesses that several may mean and none of those
 * is one, the first. */
static unsigned int origins_demanded(const uint64_t *before, const struct insn *insns, uint32_t n_insns)
{
	unsigned int demanded = 0;

	for (int ambiguous = 0; ambiguous < 2; ambiguous++)
		for (uint32_t pc = 0; pc < n_insns; pc += insn_slots(&insns[pc])) {
			int base = insn_base(&insns[pc]);
			unsigned int origin = base < 0 ? 0 : origin_get(before[pc], base);

			if (!origin || origin & (ORIGIN_KNOWN | demanded))
				continue;
			if (ambiguous || !(origin & (origin - 1)))
				demanded |= origin & -origin;
		}
	return demanded;
}

static int arguments_find(uint16_t *ret, const struct insn *insns, uint32_t n_insns)
{
	uint64_t *before = calloc(n_insns, sizeof(*before));

	if (!before)
		return error_origin(-ENOMEM);
	for (unsigned int i = 0; i < 5; i++)
		before[0] = origin_set(before[0], INSN_R1 + i, 1u << i);
	while (origins_pass(before, insns, n_insns))
		;
	*ret = origins_demanded(before, insns, n_insns) << INSN_R1;
	free(before);
	return 0;
}

/* -- Bases --------------------------------------------------------------------------------------------------------- */
uint16_t provenance_after(uint16_t before, const struct insn *insn)
{
	uint16_t dst = 1u << insn->dst, src = 1u << insn->src;

	if (insn_is_move(insn))
		return before & src ? before | dst : before & ~dst;
	if (lddw_is_segment(insn))
		return before | dst;
	if (insn_is_sum(insn) && BPF_SRC(insn->code) == BPF_K)
		return before;
	if (insn_is_sum(insn)) {
		bool keeps = before & dst ? !(before & src) : before & src && BPF_OP(insn->code) == BPF_ADD;

		return keeps ? before | dst : before & ~dst;
	}
	return before & ~insn_writes(insn);
}

static bool bases_pass(uint16_t *before, const struct insn *insns, uint32_t n_insns)
{
	uint16_t carried = UNREACHED;
	bool changed = false;

	for (uint32_t pc = 0; pc < n_insns; pc += insn_slots(&insns[pc])) {
		before[pc] &= carried;
		carried = before[pc] == UNREACHED ? UNREACHED : provenance_after(before[pc], &insns[pc]);
		if (insn_is_jump(&insns[pc])) {
			uint32_t target = flow_jump_target(insns, pc);

			changed |= (before[target] & carried) != before[target];
			before[target] &= carried;
		}
		if (insn_ends_path(&insns[pc]))
			carried = UNREACHED;
	}
	return changed;
}

int provenance_new(struct provenance **ret, const struct insn *insns, uint32_t n_insns)
{
	struct provenance *provenance;
	uint16_t arguments = 0;
	int r;

	r = arguments_find(&arguments, insns, n_insns);
	if (r)
		return error_fold(r);
	provenance = malloc(sizeof(*provenance) + n_insns * sizeof(provenance->before[0]));
	if (!provenance)
		return error_origin(-ENOMEM);
	provenance->n_insns = n_insns;
	provenance->arguments = arguments;
	memset(provenance->before, 0xff, n_insns * sizeof(provenance->before[0]));
	provenance->before[0] = arguments | FRAME_BIT;
	while (bases_pass(provenance->before, insns, n_insns))
		;
	for (uint32_t pc = 0; pc < n_insns; pc++)
		if (provenance->before[pc] == UNREACHED)
			provenance->before[pc] = FRAME_BIT;
	*ret = provenance;
	return 0;
}
