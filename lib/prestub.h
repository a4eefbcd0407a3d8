/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What methods call when there is no code to go to, or when better code may be there (enter_x86_64.S is the way in) */

#include <stdint.h>
#include "tier/records.h"

/* Entries: reached by jumps and calls of machine code, with a register contract of their own. */
void tier_enter_prestub(void);
void tier_enter_threshold(void);
void tier_enter_osr(void);
void tier_enter_unbound(void);

#define UNBOUND_ENTRIES 256u
#define UNBOUND_ENTRY_SIZE 16u

/* What the cell of an unbound import holds. Imports beyond the table share its last entry and fail without a name. */
static inline uint64_t unbound_entry(uint32_t import)
{
	const uint32_t entry = import < UNBOUND_ENTRIES - 1 ? import : UNBOUND_ENTRIES - 1;

	return (uintptr_t)tier_enter_unbound + (uint64_t)entry * UNBOUND_ENTRY_SIZE;
}

/* Where execution continues: with all argument registers saved, called by the entries. */
uint64_t prestub_enter(const struct tier_record *record, uint64_t cell);
uint64_t threshold_enter(const struct tier_record *record, const struct tier_stub_data *data);
/* Code that takes the running frame over at the patchpoint's loop; 0: it goes on as it is. */
uint64_t osr_enter(const struct tier_patchpoint *patchpoint, int32_t *counter);
_Noreturn void unbound_enter(uint32_t import, uint64_t return_address);
