/* SPDX-License-Identifier: Apache-2.0 */
#include "connection.h"
#include "mapping.h"
#include "prestub.h"
#include "sync.h"

/* A loop that runs for long: on-stack replacement
 *
 * Each activation of unoptimized code counts its loops' back edges down in a word of its own; at zero it comes here. If the
 * loop has code for a running frame, the frame goes on there; else it gets another round, and the hit counts. So many hits,
 * of all frames of all processes, ask the daemon for the code, which some later hit finds. The note may get lost: it is sent
 * again when the hits have doubled, which costs nothing and ends by itself.
 *
 * Nothing here waits. Signals are blocked only while the note is sent (prestub.c says why); errno is not touched. */

static bool osr_is_due(uint32_t hits, uint32_t limit)
{
	return hits == limit || (hits > limit && (hits & (hits - 1)) == 0);
}

static void osr_tell(struct mapping *mapping, const struct tier_patchpoint *patchpoint)
{
	const struct wire_osr osr = { .module = mapping->module, .patchpoint = patchpoint->number };
	const uint64_t mask = signals_block();
	struct tier_conn *conn = mapping_conn_for_note(mapping);

	if (conn) {
		conn_osr(conn, &osr, patchpoint->method);
		conn_unref(conn);
	}
	signals_restore(mask);
}

uint64_t osr_enter(const struct tier_patchpoint *patchpoint, int32_t *counter)
{
	/* Synchronizes with the release store of the daemon's: the code's bytes before its address. */
	const uint64_t code = __atomic_load_n(&patchpoint->code, __ATOMIC_ACQUIRE);
	struct mapping *mapping;
	uint32_t hits;

	*counter = patchpoint->bump;
	if (code)
		return code;
	mapping = mapping_of_patchpoint(patchpoint);
	if (patchpoint->number >= mapping->layout.n_patchpoints)
		return 0;
	hits = __atomic_add_fetch(&mapping->hits[patchpoint->number], 1, __ATOMIC_RELAXED);
	if (osr_is_due(hits, patchpoint->limit))
		osr_tell(mapping, patchpoint);
	return 0;
}
