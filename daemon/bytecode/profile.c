/* SPDX-License-Identifier: Apache-2.0 */
/* What instrumented code counts
 *
 * The map is made in two sweeps, since only the first knows how large it is. A lddw's second slot has no opcode, so
 * both may look at every slot. */
#include <errno.h>
#include <stdlib.h>
#include "bytecode/decode.h"
#include "bytecode/profile.h"
#include "util/base.h"
#include "util/error.h"

static const uint8_t profile_words[] = {
	[PROFILE_ENTRY] = 1, [PROFILE_BRANCH] = 2, [PROFILE_CALL] = 1, [PROFILE_CALLX] = 6,
};
_Static_assert(sizeof(profile_words) == _PROFILE_KIND_N, "give every kind its words");

/* What is counted at an instruction; ENTRY: nothing */
static enum profile_kind profile_kind_of(const struct insn *insn)
{
	const unsigned int shape = insn_shape(insn);

	if (shape & INSN_CALLS)
		return insn_is_callx(insn) ? PROFILE_CALLX : PROFILE_CALL;
	return insn_is_conditional(insn) ? PROFILE_BRANCH : PROFILE_ENTRY;
}

/* Counts into @map, and fills its sites in if they are there to be filled. */
static void profile_sweep(struct profile_map *map, const struct insn *insns, uint32_t n_insns, bool fill)
{
	if (fill)
		map->sites[0] = (struct profile_site){ .kind = PROFILE_ENTRY };
	map->n_sites = 1;
	map->n_words = profile_words[PROFILE_ENTRY];
	for (uint32_t pc = 0; pc < n_insns; pc++) {
		const enum profile_kind kind = profile_kind_of(&insns[pc]);

		if (kind == PROFILE_ENTRY)
			continue;
		if (fill)
			map->sites[map->n_sites] = (struct profile_site){ .pc = pc, .kind = kind, .word = map->n_words };
		map->n_sites++;
		map->n_words += profile_words[kind];
	}
	map->n_words = align_up(map->n_words, 2);
}

int profile_map_new(struct profile_map **ret, const struct insn *insns, uint32_t n_insns)
{
	struct profile_map size, *map;

	profile_sweep(&size, insns, n_insns, false);
	map = malloc(sizeof(*map) + size.n_sites * sizeof(map->sites[0]));
	if (!map)
		return error_origin(-ENOMEM);
	profile_sweep(map, insns, n_insns, true);
	*ret = map;
	return 0;
}

uint32_t profile_n_words(const struct insn *insns, uint32_t n_insns)
{
	struct profile_map size;

	profile_sweep(&size, insns, n_insns, false);
	return size.n_words;
}

/* -- Reading: whoever maps the module may be writing meanwhile, so what was checked is never looked at again --- */
static uint32_t profile_word(const uint32_t *words, uint32_t index)
{
	return __atomic_load_n(&words[index], __ATOMIC_RELAXED);
}

/* Two halves that may not belong together name no method, or a wrong one; that is no worse than what could be written
 * there. */
static uint64_t profile_address(const uint32_t *words, const struct profile_site *site)
{
	const uint32_t target = profile_target(site);
	const uint64_t low = profile_word(words, target), high = profile_word(words, target + 1);

	return low | high << 32;
}

bool profile_read(const struct profile_map *map, const uint32_t *words,
		  uint32_t (*method_of)(void *context, uint64_t address), void *context, struct profile_count *ret)
{
	bool any = false;

	for (uint32_t i = 0; i < map->n_sites; i++) {
		const struct profile_site *site = &map->sites[i];
		struct profile_count count = { .pc = site->pc, .kind = site->kind, .method = PROFILE_NO_METHOD };

		count.n = profile_word(words, site->word);
		if (site->kind == PROFILE_BRANCH || site->kind == PROFILE_CALLX)
			count.m = MIN(profile_word(words, site->word + 1), count.n);
		if (site->kind == PROFILE_CALLX && count.m)
			count.method = method_of(context, profile_address(words, site));
		any |= count.n;
		ret[i] = count;
	}
	return any;
}
