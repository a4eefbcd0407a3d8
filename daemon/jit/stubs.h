/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The small pieces of machine code around methods: thunks, precodes, call-counting stubs.
 *
 *   thunk     jmp  *table.entry(%rip)           the per-process part, through the private table
 *   precode   lea  record(%rip), %r10           identity for the prestub
 *             jmp  *record.P(%rip)              T is the address of this
 *   stub      lock decl cell(%rip)              one atomic decrement
 *             je   1f
 *             jmp  code
 *         1:  lea  record(%rip), %r10
 *             lea  data(%rip), %r11             struct tier_stub_data, right behind
 *             jmp  thunk_threshold
 *
 * So the register contract with libtier's entries is: r10 = struct tier_record *, and for the threshold entry
 * r11 = struct tier_stub_data *. For the prestub r11 may hold the address of the call cell that was used; anything
 * else in it is ignored there. */

#include "jit/emit.h"
#include "tier/records.h"

#define STUB_SIZE 64u	/* of a call-counting stub with its data; align 16 */

void stubs_thunk(struct emit *e, const struct tier_layout *layout, enum tier_thunk thunk);
void stubs_precode(struct emit *e, const struct tier_layout *layout, uint32_t method);
/* @e->address must be 16-byte aligned. @code is the counted version's code, in the same span. */
void stubs_counting(struct emit *e, const struct tier_layout *layout, uint32_t method, uint32_t cell, uint64_t version,
		    uint64_t code);
