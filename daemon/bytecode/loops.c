/* SPDX-License-Identifier: Apache-2.0 */
/* Heads of loops
 *
 * Two sweeps: backward jumps set bits, bits are read in order. Most bodies have no loop and need no bits. */
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include "bytecode/decode.h"
#include "bytecode/loops.h"
#include "util/base.h"
#include "util/error.h"

#define WORD_BITS 64u

static bool loops_is_back_edge(const struct insn *insns, uint32_t pc)
{
	return insn_is_jump(&insns[pc]) && flow_jump_target(insns, pc) <= pc;
}

static int64_t loops_read(const uint64_t *bits, uint32_t n_words, uint32_t *heads)
{
	int64_t n = 0;

	for (uint32_t i = 0; i < n_words; i++) {
		for (uint64_t word = bits[i]; word; word &= word - 1) {
			if (heads)
				heads[n] = i * WORD_BITS + __builtin_ctzll(word);
			n++;
		}
	}
	return n;
}

int64_t loops_find(const struct insn *insns, uint32_t n_insns, uint32_t *heads)
{
	const uint32_t n_words = n_insns / WORD_BITS + 1;
	_cleanup_(freep) uint64_t *bits = NULL;
	uint32_t pc = 0;

	while (pc < n_insns && !loops_is_back_edge(insns, pc))
		pc++;
	if (pc == n_insns)
		return 0;
	bits = calloc(n_words, sizeof(*bits));
	if (!bits)
		return error_origin(-ENOMEM);
	for (; pc < n_insns; pc++) {
		const uint32_t target = loops_is_back_edge(insns, pc) ? flow_jump_target(insns, pc) : UINT32_MAX;

		if (target != UINT32_MAX)
			bits[target / WORD_BITS] |= 1ull << target % WORD_BITS;
	}
	return loops_read(bits, n_words, heads);
}
