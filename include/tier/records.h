/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The arena of a module, as every process maps it
 *
 * One span of addresses per module, the same in every process. Four segments, each a memfd, at fixed distances:
 *
 *   span ──► code      r-x shared    thunks | precodes[n_methods] | stubs and code, in order of publication
 *            (guard)
 *            records   r-- shared    header | record[n_methods] | .rodata | call cells | patchpoints
 *            (guard)
 *            counters  rw- shared    uint32_t cell[n_cells] | visits | hits[n_patchpoints]
 *            (guard)
 *            private   rw- private   table | imports[] | .data | .bss
 *
 * Only the daemon writes code and records, through aliases of its own that nobody executes. The span is smaller than
 * 2 GiB, so code reaches everything in it from rip. Everything read from counters is hostile: see tier_count_remaining().
 *
 * All integers are little endian and naturally aligned; this header is the format, version TIER_RECORDS_VERSION. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "tier/types.h"

#define TIER_RECORDS_MAGIC 0x3144524345524954ull	/* "TIRECRD1" */
#define TIER_RECORDS_VERSION 4u

#define TIER_SPAN_MAX (2ull << 30)
#define TIER_WINDOW_LOW 0x200000000000ull
#define TIER_WINDOW_HIGH 0x500000000000ull

enum tier_segment { TIER_SEGMENT_CODE, TIER_SEGMENT_RECORDS, TIER_SEGMENT_COUNTERS, TIER_SEGMENT_PRIVATE, _TIER_SEGMENT_N };

/* Where everything of one module lies. Offsets and sizes of segments are in bytes from the span's base, multiples of
 * 4096. Crosses the wire (attach reply) and stands in the records header, so a client can check one against the other. */
struct tier_layout {
	uint64_t base;				/* address of the span */
	uint64_t size;				/* bytes of the span, guards included */
	struct { uint64_t offset, size; } segment[_TIER_SEGMENT_N];
	uint32_t n_methods, n_imports, n_cells, n_patchpoints;
	uint64_t rodata, data, bss;		/* offsets from base */
	uint64_t n_rodata, n_data, n_bss;	/* bytes */
	/* The part of .rodata that holds vtable slots (offset from base, a multiple of 8; bytes; 0: there are none), and the
	 * copy of that part whose words calls go through: the slot at address a has its call cell at a - slots + call_cells.
	 * Words of the copy that are no vtable slots hold what .rodata holds. */
	uint64_t slots, n_slots, call_cells;
	uint64_t visits;			/* offset of struct tier_visits, in the counters segment */
	uint64_t patchpoints;			/* offset of struct tier_patchpoint[n_patchpoints], in the records segment */
	uint64_t hits;				/* offset of uint32_t[n_patchpoints], in the counters segment */
};

#define TIER_THUNK_SIZE 16u	/* one jump through a private table entry, padded */
#define TIER_PRECODES_OFFSET 64u /* from the code segment's start; thunks come before */
#define TIER_PRECODE_SIZE 32u		/* precode, funcptr precode, and the way to the prestub: */
#define TIER_PRECODE_JUMP 4u		/* where the displacement lies that leads to P, a multiple of 4 */
#define TIER_FUNCPTR_OFFSET 8u
#define TIER_PRECODE_PRESTUB 16u	/* where it leads while P is the prestub */
#define TIER_RECORDS_OFFSET 256u /* first method record, from the records segment's start */

/* A thunk per private table entry that code may be led to: "jmp *table.entry(%rip)" at code + index * TIER_THUNK_SIZE */
enum tier_thunk { TIER_THUNK_PRESTUB, TIER_THUNK_THRESHOLD, TIER_THUNK_OSR, _TIER_THUNK_N };
TIER_STATIC_ASSERT(_TIER_THUNK_N * TIER_THUNK_SIZE <= TIER_PRECODES_OFFSET, "thunks end before the first precode");

struct tier_records_header {
	uint64_t magic;
	uint32_t version, record_size;
	uint64_t module;			/* the module's id */
	struct tier_layout layout;
	/* What tier_changed_since() goes by, see tier_records_mark(). changes grows by one before and by one after each
	 * publication and reset of any of the module's methods is visible, so an odd value says that one is under way, and
	 * by two when a compilation begins or ends. */
	uint64_t changes;
	uint32_t n_compiling;			/* compilations under way */
	uint32_t is_frozen;			/* 1: no promotion starts (tier_freeze()) */
	/* The daemon's own, for its successor: bytes of the code segment, from its start, in which something was ever placed. Nothing
	 * is placed below it any more, whether the ledger came to know of what lies there or not. */
	uint64_t code_used;
};
TIER_STATIC_ASSERT(sizeof(struct tier_records_header) <= TIER_RECORDS_OFFSET, "the header ends before the first record");

/* One per method. Written only by the daemon, every field by one atomic store. */
struct tier_record {
	uint64_t state;		/* see TIER_STATE_*; its low 32 bits are the futex word of waits */
	uint64_t precode;	/* P, the precode's target: an address in the code segment. The precode has it as a displacement */
	uint64_t entry;		/* E, what direct calls call: T until final, then the code */
	uint64_t version;	/* id of the active version; 0 when cold */
	uint64_t code;		/* the active version's native code; 0 when cold */
	uint32_t cell;		/* index of the active version's counter cell; valid in stages COUNTING..COMPILING */
	uint32_t threshold;	/* N: the cell starts at N and crosses to 0 on the N-th counted call */
	uint32_t index;		/* of the method in its module */
	uint32_t flags;		/* enum tier_record_flags; fixed for life */
	uint64_t funcptr;	/* F, the funcptr precode's target: T until final, then the code; not backpatchable: T */
};
enum tier_record_flags {
	TIER_RECORD_BACKPATCHABLE = 1u << 0,	/* its address stands in a vtable slot */
};
TIER_STATIC_ASSERT(sizeof(struct tier_record) == 64, "a record is one cache line");

/* The state word: generation << 24 | reason << 16 | tier << 8 | frozen << 7 | stage.
 * frozen: no compilation begins for it, because the module is frozen; one that has begun goes on to its end. The generation
 * grows with each publication and each reset and is never 0 for a method that has code. */
#define TIER_STATE_GENERATION_SHIFT 24
static inline uint64_t tier_state_make(uint64_t generation, unsigned int reason, unsigned int tier, unsigned int stage)
{
	return generation << TIER_STATE_GENERATION_SHIFT | (uint64_t)(reason & 0xff) << 16 | (tier & 0xff) << 8 | (stage & 0xff);
}
static inline uint64_t tier_state_generation(uint64_t state) { return state >> TIER_STATE_GENERATION_SHIFT; }
static inline unsigned int tier_state_reason(uint64_t state) { return state >> 16 & 0xff; }
static inline unsigned int tier_state_tier(uint64_t state) { return state >> 8 & 0xff; }
#define TIER_STATE_FROZEN 0x80u
static inline unsigned int tier_state_stage(uint64_t state) { return state & 0x7f; }

/* Start of the private segment. libtier fills the first five before any code of the module can run in the process. */
struct tier_private {
	uint64_t prestub;		/* tier_enter_prestub */
	uint64_t threshold;		/* tier_enter_threshold */
	uint64_t osr;			/* tier_enter_osr */
	uint64_t unbound_import;	/* what an unbound import's cell points to */
	uint64_t client;		/* libtier's own pointer for this mapping; code never reads it */
	uint64_t reserved[3];
	uint64_t imports[];		/* n_imports cells: the host function's address; bound by libtier */
};
TIER_STATIC_ASSERT(sizeof(struct tier_private) == 64, "imports start at a cache line");

/* What clients count about themselves, beside the cells: so hostile, and for people only. Added to with atomic adds. */
struct tier_visits {
	uint64_t n[_TIER_VISIT_N];	/* prestub visits by reason */
	uint64_t ns[_TIER_VISIT_N];	/* CLOCK_MONOTONIC spent in them, waiting included */
	uint64_t n_slot_writes;		/* writes of slots in the clients' own memory, registration not counted */
};

/* A loop of a method's own body, at whose head its unoptimized code looks whether optimized code for the running frame is there
 * (on-stack replacement). Written only by the daemon; the hits that its limit is for lie in the counters segment. */
struct tier_patchpoint {
	uint64_t code;		/* r0 = code(const uint64_t registers[10], frame): goes on at the loop; 0: none */
	uint32_t method;	/* index */
	uint32_t pc;		/* instruction slot of the loop's head */
	uint32_t number;	/* of the patchpoint in the module: index of its hits */
	uint32_t limit;		/* so many hits ask for code */
	uint32_t bump;		/* what the frame's counter gets at a hit */
	uint32_t offset;	/* of this from the start of the records segment: whoever has its address finds the header */
};
TIER_STATIC_ASSERT(sizeof(struct tier_patchpoint) == 32, "records format 4");

/* What a measurement must find the same before and after it */
struct tier_records_mark {
	uint64_t changes;
	uint32_t n_compiling;
	bool is_frozen;
};

/* Nothing was compiled, published or reset between two of these if changes is the same and even, and n_compiling 0 in both. Any
 * thread, signal handlers too. */
static inline struct tier_records_mark tier_records_mark(const struct tier_records_header *header)
{
	struct tier_records_mark mark;

	/* Synchronizes with the release fence in mark_begin(): whoever has met something new finds it in changes. */
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	/* Synchronizes with the release stores in mark.c: when nothing is compiled any more, the ends were counted; and what
	 * changes has counted is there. */
	mark.n_compiling = __atomic_load_n(&header->n_compiling, __ATOMIC_ACQUIRE);
	mark.changes = __atomic_load_n(&header->changes, __ATOMIC_ACQUIRE);
	mark.is_frozen = __atomic_load_n(&header->is_frozen, __ATOMIC_RELAXED);
	return mark;
}

/* What a call-counting stub hands to the threshold entry in r10: lies in the code segment beside the stub. */
struct tier_stub_data {
	uint64_t version;	/* id of the counted version */
	uint64_t code;		/* its code: where the crossing call continues */
};

/* -- What lies where --- */
static inline uint64_t tier_layout_segment(const struct tier_layout *layout, enum tier_segment segment)
{
	return layout->base + layout->segment[segment].offset;
}
static inline uint64_t tier_layout_thunk(const struct tier_layout *layout, enum tier_thunk thunk)
{
	return tier_layout_segment(layout, TIER_SEGMENT_CODE) + (uint64_t)thunk * TIER_THUNK_SIZE;
}
/* T, the temporary entry point */
static inline uint64_t tier_layout_precode(const struct tier_layout *layout, uint32_t method)
{
	return tier_layout_segment(layout, TIER_SEGMENT_CODE) + TIER_PRECODES_OFFSET + (uint64_t)method * TIER_PRECODE_SIZE;
}
/* The displacement that makes the method's precode lead to @target */
static inline int32_t tier_layout_precode_jump(const struct tier_layout *layout, uint32_t method, uint64_t target)
{
	uint64_t precode = tier_layout_precode(layout, method);

	if (target == tier_layout_thunk(layout, TIER_THUNK_PRESTUB))
		target = precode + TIER_PRECODE_PRESTUB;
	return target - (precode + TIER_PRECODE_JUMP + sizeof(int32_t));
}
/* F's precode; only backpatchable methods have one */
static inline uint64_t tier_layout_funcptr(const struct tier_layout *layout, uint32_t method)
{
	return tier_layout_precode(layout, method) + TIER_FUNCPTR_OFFSET;
}
/* The method's one address for its life, the only one that programs ever see. @flags: its record's */
static inline uint64_t tier_layout_method(const struct tier_layout *layout, uint32_t method, uint32_t flags)
{
	return flags & TIER_RECORD_BACKPATCHABLE ? tier_layout_funcptr(layout, method) : tier_layout_precode(layout, method);
}
/* The call cell of what lies at @address; 0: nothing there is a vtable slot */
static inline uint64_t tier_layout_call_cell(const struct tier_layout *layout, uint64_t address)
{
	uint64_t at = address - (layout->base + layout->slots);

	return layout->n_slots && at <= layout->n_slots - sizeof(uint64_t) ? layout->base + layout->call_cells + at : 0;
}
static inline uint64_t tier_layout_record(const struct tier_layout *layout, uint32_t method)
{
	return tier_layout_segment(layout, TIER_SEGMENT_RECORDS) + TIER_RECORDS_OFFSET
	     + (uint64_t)method * sizeof(struct tier_record);
}
static inline uint64_t tier_layout_entry(const struct tier_layout *layout, uint32_t method)
{
	return tier_layout_record(layout, method) + offsetof(struct tier_record, entry);
}
static inline uint64_t tier_layout_cell(const struct tier_layout *layout, uint32_t cell)
{
	return tier_layout_segment(layout, TIER_SEGMENT_COUNTERS) + (uint64_t)cell * sizeof(uint32_t);
}
static inline uint64_t tier_layout_patchpoint(const struct tier_layout *layout, uint32_t patchpoint)
{
	return layout->base + layout->patchpoints + (uint64_t)patchpoint * sizeof(struct tier_patchpoint);
}
static inline uint64_t tier_layout_import(const struct tier_layout *layout, uint32_t import)
{
	return tier_layout_segment(layout, TIER_SEGMENT_PRIVATE) + offsetof(struct tier_private, imports)
	     + (uint64_t)import * sizeof(uint64_t);
}

/* -- Answers from shared memory ---
 * The daemon and libtier both answer through these, so that both always agree. */

/* Calls left on a cell that started at @threshold: what the counter says, clamped. A cell outside 1..N means that the
 * threshold was reached (DESIGN §6.1), so 0. */
static inline uint32_t tier_count_remaining(uint32_t cell, uint32_t threshold)
{
	return cell >= 1 && cell <= threshold ? cell : 0;
}

struct tier_answer {
	enum tier_status status;
	enum tier_stage stage;
	enum tier_level tier;		/* of the active version */
	enum tier_reason reason;	/* why final; NONE otherwise */
	uint64_t generation;
	uint32_t remaining;		/* calls to the next tier, as DESIGN §5 defines them */
	bool is_frozen;			/* it will not go on: its module is frozen */
};

/* Whether a wait on this answer is over: final, cold, frozen, or counting with calls left. */
static inline bool tier_answer_is_quiet(const struct tier_answer *answer)
{
	return answer->stage == TIER_STAGE_FINAL || answer->stage == TIER_STAGE_COLD || answer->is_frozen
	    || (answer->stage == TIER_STAGE_COUNTING && answer->remaining > 0);
}

/* A consistent answer about one method. @record and @cells may be written concurrently by the daemon and (cells) by
 * anybody. Wait-free in practice: it repeats only while the daemon publishes. Any thread, signal handlers too. */
static inline struct tier_answer tier_record_answer(const struct tier_record *record, const uint32_t *cells, uint32_t n_cells)
{
	struct tier_answer answer;
	uint64_t state, again;

	do {
		uint32_t cell, threshold, left = 0;

		/* Synchronizes with the release store in entry.c: fields before the state word that announces them. Where they
		 * change under a counting method, entry.c first says REACHED, so no two versions share a state word. */
		state = __atomic_load_n(&record->state, __ATOMIC_ACQUIRE);
		cell = __atomic_load_n(&record->cell, __ATOMIC_RELAXED);
		threshold = __atomic_load_n(&record->threshold, __ATOMIC_RELAXED);
		if (tier_state_stage(state) == TIER_STAGE_COUNTING && cell < n_cells)
			left = tier_count_remaining(__atomic_load_n(&cells[cell], __ATOMIC_RELAXED), threshold);
		answer.stage = (enum tier_stage)tier_state_stage(state);
		answer.tier = (enum tier_level)tier_state_tier(state);
		answer.reason = TIER_REASON_NONE;
		answer.generation = tier_state_generation(state);
		answer.is_frozen = state & TIER_STATE_FROZEN;
		switch (answer.stage) {
		case TIER_STAGE_COLD:
			answer.status = TIER_STATUS_COLD;
			answer.remaining = 1;
			break;
		case TIER_STAGE_UNCOUNTED:
			answer.status = TIER_STATUS_OPTIMIZING;
			answer.remaining = threshold;
			break;
		case TIER_STAGE_COUNTING:
			answer.status = TIER_STATUS_OPTIMIZING;
			answer.remaining = left;
			if (!left)
				answer.stage = TIER_STAGE_REACHED;
			break;
		case TIER_STAGE_FINAL:
			answer.status = TIER_STATUS_FINAL;
			answer.reason = (enum tier_reason)tier_state_reason(state);
			answer.remaining = 0;
			break;
		default:
			answer.status = TIER_STATUS_OPTIMIZING;
			answer.remaining = 0;
			break;
		}
		__atomic_thread_fence(__ATOMIC_ACQUIRE);
		again = __atomic_load_n(&record->state, __ATOMIC_RELAXED);
	} while (state != again);
	return answer;
}
