/* SPDX-License-Identifier: Apache-2.0 */
#include "jit/instrument.h"

#define COUNT_BOUND 6u		/* inc dword [rip -> word] */
#define BRANCH_BOUND 24u	/* two of them, and the jump around the second with the one behind it */
#define VOTE_BOUND 48u

size_t instrument_bound(const struct profile_map *map)
{
	static const uint8_t bounds[] = {
		[PROFILE_ENTRY] = COUNT_BOUND, [PROFILE_BRANCH] = BRANCH_BOUND, [PROFILE_CALL] = COUNT_BOUND,
		[PROFILE_CALLX] = COUNT_BOUND + VOTE_BOUND,
	};
	size_t bound = 0;

	for (uint32_t i = 0; i < map->n_sites; i++)
		bound += bounds[map->sites[i].kind];
	return bound;
}

static uint64_t instrument_address(const struct instrument *instrument, uint32_t word)
{
	return tier_layout_cell(instrument->layout, instrument->cell + word);
}

void instrument_count(struct emit *e, const struct instrument *instrument, uint32_t word)
{
	x86_rip(e, X86_32, 0xff, 0, instrument_address(instrument, word));	/* inc dword [rip -> word] */
}

/* Between two processes' votes any mixture may come out; it is a target that somebody called, or nobody. */
void instrument_vote(struct emit *e, const struct instrument *instrument, const struct profile_site *site, enum x86_reg value)
{
	const uint64_t votes = instrument_address(instrument, site->word + 1);
	const uint64_t target = instrument_address(instrument, profile_target(site));
	size_t same, done;

	x86_rip(e, X86_32, 0x8b, X86_R10, votes);				/* mov r10d, [rip -> votes] */
	x86_rip(e, X86_64, 0x39, value, target);				/* cmp [rip -> target], value */
	same = x86_short_jcc(e, X86_E);
	x86_rri(e, X86_32, 0x83, 0x81, 5, X86_R10, 1);				/* sub r10d, 1 */
	done = x86_short_jcc(e, X86_AE);
	x86_rip(e, X86_64, 0x89, value, target);				/* mov [rip -> target], value */
	x86_mov_imm(e, X86_R10, 0);
	x86_land(e, same);
	x86_rr(e, X86_32, 0xff, 0, X86_R10);					/* inc r10d */
	x86_land(e, done);
	x86_rip(e, X86_32, 0x89, X86_R10, votes);				/* mov [rip -> votes], r10d */
}
