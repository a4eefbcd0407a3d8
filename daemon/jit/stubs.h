/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The small pieces of machine code around methods: thunks, precodes, call-counting stubs.
 *
 *   thunk     jmp  *table.entry(%rip)           the per-process part, through the private table
 *   precode   nopl (%rax)                       so that the displacement is aligned
 *             jmp  P                            T is the address of this; one aligned store redirects it
 *   funcptr   jmp  *record.F(%rip)              of a backpatchable method: its address
 *   prestub   lea  record(%rip), %r11           identity; where the precode leads while there is no code
 *             jmp  thunk_prestub
 *   stub      lock decl cell(%rip)              one atomic decrement
 *             je   1f
 *             jmp  code
 *         1:  lea  record(%rip), %r11
 *             lea  data(%rip), %r10             struct tier_stub_data, right behind
 *             jmp  thunk_threshold
 *   forwarder jmp  *target(%rip)                --backpatch=forwarder: what slots hold while calls are counted
 *             target                            8 bytes, aligned, changed by the daemon
 *
 * So the register contract with libtier's entries is: r11 = struct tier_record *, and for the threshold entry
 * r10 = struct tier_stub_data *. For the prestub r10 may hold the address of the call cell that was used (the C ABI's static
 * chain register, so that optimized code can pass it); anything else in it is ignored there.
 *
 * The OSR entry is the only one that is called, by tier-0 code at a patchpoint (jit/patchpoint.h):
 *
 *   in    r11 = struct tier_patchpoint *         in records memory; the address is from our own code
 *         r10 = uint32_t *                       the frame's counter, 0 or below; the entry sets it to the patchpoint's bump
 *         rsp a multiple of 8 and no more: the entry aligns it; rbp is the frame's and may be unwound by
 *   out   r11 = address of optimized code, or 0; all other registers but r10 as they were; flags may differ
 *
 * so it saves what C code may change: rax, rdi, rsi, rdx, rcx, r8 and r9. Tier-0 code uses no vector registers. */

#include "jit/emit.h"
#include "tier/records.h"

#define STUB_SIZE 64u	/* of a call-counting stub with its data; align 16 */

void stubs_thunk(struct emit *e, const struct tier_layout *layout, enum tier_thunk thunk);
/* All three of a method, TIER_PRECODE_SIZE bytes, P being the prestub */
void stubs_precode(struct emit *e, const struct tier_layout *layout, uint32_t method);
#define FORWARDER_SIZE 16u	/* align 16; its target lies FORWARDER_TARGET bytes from its start */
#define FORWARDER_TARGET 8u
void stubs_forwarder(struct emit *e, uint64_t target);
/* @e->address must be 16-byte aligned. @code is the counted version's code, in the same span. */
void stubs_counting(struct emit *e, const struct tier_layout *layout, uint32_t method, uint32_t cell, uint64_t version,
		    uint64_t code);
