/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The arena: a module's shared memory, from the writer's side
 *
 * Four memfds (tier/records.h), sized once, sealed against resizing and further seals, mapped here read-write at
 * addresses of the daemon's own choice. Clients get descriptors that cannot be written through (all but counters).
 * Code memory is a transaction: reserve, write through the alias, publish or abort; half-written code has no address
 * that anyone can hold. Reservations do not nest: one at a time, which the single writer thread makes natural. */

#include <stddef.h>
#include <stdint.h>
#include "bytecode/image.h"
#include "tier/records.h"

struct arena;

enum {
	_ARENA_E_SUCCESS,
	ARENA_E_FULL,		/* no room in the code segment */
	ARENA_E_TOO_LARGE,	/* the module does not fit a span of less than 2 GiB */
};

/* What a module needs; sizes in bytes, alignments are powers of two of at most 4096. */
struct arena_needs {
	uint32_t n_methods, n_imports, n_insns;
	uint64_t n_rodata, n_data, n_bss;
	uint32_t align_rodata, align_data, align_bss;
	uint32_t n_patchpoints;
	uint64_t n_profile;	/* cells for profiles, beside those that count calls */
	uint64_t slots, n_slots;	/* part of .rodata that holds vtable slots: offset in it (a multiple of 8) and bytes; n_slots 0: none */
	uint64_t n_code;	/* bytes of code segment beyond precodes; 0: generous, from n_insns and n_methods */
};

/* Lays a module out at offsets from base 0, a guard page after each segment. The generous code segment shrinks to what
 * the span leaves it, down to what tier 0 needs. Returns 0 or ARENA_E_TOO_LARGE. Pure. */
int arena_plan(struct tier_layout *ret, const struct arena_needs *needs);

/* Makes the memfds for @layout (whose base is set), fills the records header and every record as cold: P = prestub
 * thunk, E = T. The caller writes thunks and precodes into arena_head() (machine code is jit's business) before any
 * client gets a descriptor. Returns 0, or a negative errno (no memory, descriptors). */
int arena_new(struct arena **ret, const struct tier_layout *layout, uint64_t module);
struct arena *arena_free(struct arena *arena);	/* takes NULL; returns NULL */
/* The same memory again, in a successor: @fds are the writable descriptors that a predecessor kept (arena_own_fd()), in the order of
 * segments, taken in any case; @layout and @module as the ledger has them. Nothing of it changes. 0; -EBADMSG: they are not that
 * module's memory; -errno. A failure has its sentence. */
int arena_adopt(struct arena **ret, const struct tier_layout *layout, uint64_t module, int fds[_TIER_SEGMENT_N],
		struct refusal *refusal);

const struct tier_layout *arena_layout(const struct arena *arena);

/* The daemon's aliases. header: of the records segment; records: n_methods of them; counters: n_cells; the others as long as the layout says. */
struct tier_records_header *arena_header(struct arena *arena);
struct tier_record *arena_record(struct arena *arena, uint32_t method);
uint32_t *arena_counters(struct arena *arena);
uint8_t *arena_head(struct arena *arena);	/* start of the code segment, up to the end of the last precode */
uint8_t *arena_rodata(struct arena *arena);
uint8_t *arena_call_cells(struct arena *arena);	/* layout.n_slots bytes */
struct tier_patchpoint *arena_patchpoint(struct arena *arena, uint32_t patchpoint);
struct tier_visits *arena_visits(struct arena *arena);
uint32_t arena_hits(struct arena *arena, uint32_t patchpoint);	/* whatever clients have made of them */
/* The alias of what clients see at @address in the code or records segment; NULL: [address, address + n) is elsewhere */
void *arena_alias(struct arena *arena, uint64_t address, size_t n);
uint8_t *arena_data(struct arena *arena);	/* in the private segment's initial image */

/* The descriptor of a segment for clients: read-only open file description for all but counters. Borrowed. */
int arena_client_fd(const struct arena *arena, enum tier_segment segment);
/* The writable one, which nobody but a successor may get. Borrowed. */
int arena_own_fd(const struct arena *arena, enum tier_segment segment);

/* -- Code memory as a transaction --- */
struct code_span {
	uint64_t address;	/* where clients will execute it; 16-byte aligned at least */
	uint8_t *write;		/* the same bytes in the daemon's alias */
	size_t n_max;
};

/* @align is a power of two from 16 to 4096. Returns 0 or ARENA_E_FULL. */
int arena_reserve(struct arena *arena, size_t n_max, size_t align, struct code_span *ret);
void arena_publish(struct arena *arena, const struct code_span *span, size_t n);	/* keeps the first n bytes */
void arena_abort(struct arena *arena, const struct code_span *span);

/* Code bytes used so far, from the segment's start: durable (struct tier_records_header). */
uint64_t arena_code_used(const struct arena *arena);
void arena_code_resume(struct arena *arena, uint64_t n_used);	/* tests: as if so much were used */

/* -- The window: which addresses modules get --- */
struct window {
	uint64_t base;		/* random once, 2 MiB aligned, between TIER_WINDOW_LOW and TIER_WINDOW_HIGH */
	uint64_t next;		/* first address never handed out */
};
void window_init(struct window *window, uint64_t base);	/* 0: choose at random */
/* A span of @size bytes that was never handed out before; 2 MiB aligned. Returns its base, or 0 when none is left: the
 * window ends at the next of TIER_WINDOW_LOW, TIER_WINDOW_HIGH and the end of user addresses. */
uint64_t window_take(struct window *window, uint64_t size);
