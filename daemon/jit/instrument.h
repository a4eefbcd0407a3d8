/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What instrumented tier-0 code counts: templates that stand in front of an instruction's own
 *
 * Words and their meaning are bytecode/profile.h's; word i is the cell with the number cell + i. Nothing is atomic. Every
 * template leaves all registers as they are but r10, and changes flags, which no BPF instruction expects anything of. */

#include "bytecode/profile.h"
#include "jit/x86.h"
#include "tier/records.h"

struct instrument {
	const struct profile_map *map;		/* NULL: nothing is counted */
	const struct tier_layout *layout;
	uint32_t cell;				/* the first one; even */
	uint32_t next;				/* index of the next site */
};

/* Bytes that all sites of a map take */
size_t instrument_bound(const struct profile_map *map);

/* The site of the instruction at @pc, or NULL; first the entry, which has pc 0, too. Instructions come in order. */
static inline const struct profile_site *instrument_site(struct instrument *instrument, uint32_t pc)
{
	const struct profile_map *map = instrument->map;

	if (!map || instrument->next == map->n_sites || map->sites[instrument->next].pc != pc)
		return NULL;
	return &map->sites[instrument->next++];
}

/* One more in that word */
void instrument_count(struct emit *e, const struct instrument *instrument, uint32_t word);
/* CALLX: a vote of Boyer and Moore's for the address in @value. One for the target adds to the votes; another takes one away, or
 * becomes the target, with one vote, when there are none. */
void instrument_vote(struct emit *e, const struct instrument *instrument, const struct profile_site *site, enum x86_reg value);
