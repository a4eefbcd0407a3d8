/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A module of the fake world: real memory for what the core writes through addresses (records, call cells, forwarders,
 * call sites), and for each piece of code what a processor would find there.
 *
 *   code      precodes | pieces of FAKE_CODE_STEP bytes, each described by a struct fake_code
 *   records   header | record[n_methods] | .rodata: slot, constant, slot, constant, … | its call cells | patchpoints
 *
 * Slot i is method i / n_each's, where each of the first methods is backpatchable and stands in n_each slots. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <cmocka.h>
#include "jit/stubs.h"
#include "tiering/core.h"
#include "util/base.h"

#define FAKE_CODE_STEP    64u
#define FAKE_SEGMENT      (16u << 20)
#define FAKE_INLINED_MAX  6u
#define FAKE_PATCHPOINTS  2u /* of each method */
#define FAKE_SITES_MAX    4u
#define FAKE_SITES_OFFSET 16u /* in a piece of code: one displacement each 8 bytes */

struct fake_body {
	uint32_t method, body;
};

enum fake_kind { FAKE_NOTHING, FAKE_BODY, FAKE_STUB, FAKE_FORWARDER };
struct fake_code {
	enum fake_kind kind;
	enum tier_level level; /* BODY */
	uint32_t method, body;
	uint32_t cell; /* STUB: counts there, for that version, and goes on to the address */
	uint64_t version, leads_to;
	uint32_t n_inlined, n_sites; /* BODY */
	struct fake_body inlined[FAKE_INLINED_MAX];
	struct core_call_site sites[FAKE_SITES_MAX];
};

struct fake_module {
	struct module *module; /* NULL: none */
	uint64_t id;
	uid_t uid;
	struct tier_layout layout;
	uint8_t *segment; /* the records segment */
	struct tier_records_header *header;
	struct tier_record *records;
	uint32_t *cells;
	uint8_t *code; /* the code segment */
	uint64_t code_used;
	struct fake_code *codes; /* by piece */
	uint32_t n_codes;
	uint32_t n_slots, n_each;
	uint8_t *posted; /* by slot: libtier has told the daemon */
	uint64_t inlines[64],
		calls[64]; /* what optimized code of each method inlines, and calls through rel32 sites: masks */
	uint32_t traits[64];	/* of each method's own body; PRECOMPILED code inlines as optimized code does */
	uint32_t n_profile[64]; /* cells that instrumented code of each method counts in */
	struct fake *fake;
};

/* -- Memory --- */
/* Where the daemon writes what lies at @address: call cells, patchpoints and code, nothing else */
static inline void *fake_memory_at(const struct fake_module *fm, uint64_t address)
{
	uint64_t cells = fm->layout.base + fm->layout.call_cells;
	uint64_t code = tier_layout_segment(&fm->layout, TIER_SEGMENT_CODE);

	if (address >= code && address < code + fm->code_used)
		return fm->code + (address - code);
	assert_true(address >= cells && address < cells + fm->layout.n_slots +
						 fm->layout.n_patchpoints * sizeof(struct tier_patchpoint));
	return fm->segment + (address - tier_layout_segment(&fm->layout, TIER_SEGMENT_RECORDS));
}

static inline uint64_t fake_word(const struct fake_module *fm, uint64_t address)
{
	return __atomic_load_n((uint64_t *)fake_memory_at(fm, address), __ATOMIC_RELAXED);
}

/* -- Patchpoints: each method has as many --- */
static inline struct tier_patchpoint *fake_patchpoint(const struct fake_module *fm, uint32_t number)
{
	return fake_memory_at(fm, tier_layout_patchpoint(&fm->layout, number));
}

/* -- Slots --- */
static inline uint64_t fake_slot_address(const struct fake_module *fm, uint32_t slot)
{
	return fm->layout.base + fm->layout.slots + slot * 2 * sizeof(uint64_t);
}

static inline uint64_t fake_call_cell(const struct fake_module *fm, uint32_t slot)
{
	return tier_layout_call_cell(&fm->layout, fake_slot_address(fm, slot));
}

static inline uint64_t fake_slot(const struct fake_module *fm, uint32_t slot)
{
	return fake_word(fm, fake_call_cell(fm, slot));
}

/* The slot whose call cell that is; n_slots: none */
static inline uint32_t fake_slot_of(const struct fake_module *fm, uint64_t cell)
{
	for (uint32_t i = 0; i < fm->n_slots; i++)
		if (fake_call_cell(fm, i) == cell)
			return i;
	return fm->n_slots;
}

static inline uint32_t fake_slot_method(const struct fake_module *fm, uint32_t slot) { return slot / fm->n_each; }
static inline uint32_t fake_slot_first(const struct fake_module *fm, uint32_t method) { return method * fm->n_each; }

static inline bool fake_is_backpatchable(const struct fake_module *fm, uint32_t method)
{
	return fm->records[method].flags & TIER_RECORD_BACKPATCHABLE;
}

/* What stands in .rodata and in pointers that programs copied from there */
static inline uint64_t fake_pointer(const struct fake_module *fm, uint32_t method)
{
	return tier_layout_method(&fm->layout, method, fm->records[method].flags);
}

static inline uint64_t fake_constant(uint32_t i) { return 0xc0150000u + i; }

/* -- Code --- */
static inline struct fake_code *fake_code_at(const struct fake_module *fm, uint64_t address)
{
	uint64_t at = address - tier_layout_segment(&fm->layout, TIER_SEGMENT_CODE);

	assert_true(at < fm->code_used && at % FAKE_CODE_STEP == 0 && at / FAKE_CODE_STEP < fm->n_codes);
	return &fm->codes[at / FAKE_CODE_STEP];
}

/* A new piece of code. What a predecessor made there and did not live to use is gone. */
static inline struct fake_code *fake_take_code(struct fake_module *fm, struct core_code *ret)
{
	uint32_t i = fm->code_used / FAKE_CODE_STEP;

	if (i >= fm->n_codes) {
		uint32_t n = MAX(2 * fm->n_codes, i + 16);

		fm->codes = realloc(fm->codes, n * sizeof(*fm->codes));
		assert_non_null(fm->codes);
		memset(fm->codes + fm->n_codes, 0, (n - fm->n_codes) * sizeof(*fm->codes));
		fm->n_codes = n;
	}
	*ret = (struct core_code){
		.address = tier_layout_segment(&fm->layout, TIER_SEGMENT_CODE) + fm->code_used,
		.size = FAKE_CODE_STEP,
		.code_used = fm->code_used + FAKE_CODE_STEP,
	};
	fm->code_used += FAKE_CODE_STEP;
	assert_true(fm->code_used <= FAKE_SEGMENT);
	fm->codes[i] = (struct fake_code){0};
	return &fm->codes[i];
}

/* A displacement in code that leads to the method's T, as compilers make it */
static inline void fake_add_site(struct fake_module *fm, struct fake_code *code, uint64_t address, uint32_t callee)
{
	const struct core_call_site site = {address + FAKE_SITES_OFFSET + 8 * code->n_sites, callee};

	assert_true(code->n_sites < FAKE_SITES_MAX);
	*(int32_t *)fake_memory_at(fm, site.address) =
		(int64_t)(tier_layout_precode(&fm->layout, callee) - (site.address + 4));
	code->sites[code->n_sites++] = site;
}

static inline uint64_t fake_site_target(const struct fake_module *fm, const struct core_call_site *site)
{
	return site->address + 4 + *(int32_t *)fake_memory_at(fm, site->address);
}

/* -- Precodes --- */
static inline int32_t *fake_jump(const struct fake_module *fm, uint32_t method)
{
	return fake_memory_at(fm, tier_layout_precode(&fm->layout, method) + TIER_PRECODE_JUMP);
}

/* Where a precode with this displacement leads */
static inline uint64_t fake_jump_target(const struct fake_module *fm, uint32_t method, int32_t jump)
{
	const uint64_t precode = tier_layout_precode(&fm->layout, method);
	const uint64_t target = precode + TIER_PRECODE_JUMP + sizeof(jump) + jump;

	return target == precode + TIER_PRECODE_PRESTUB ? tier_layout_thunk(&fm->layout, TIER_THUNK_PRESTUB) : target;
}

/* -- Life --- */
static inline void fake_module_drop(struct fake_module *fm)
{
	free(fm->segment);
	free(fm->cells);
	free(fm->codes);
	free(fm->posted);
	if (fm->code)
		munmap(fm->code, FAKE_SEGMENT);
	*fm = (struct fake_module){0};
}

static inline void fake_module_fill(struct fake_module *fm)
{
	uint64_t *rodata =
		(uint64_t *)(fm->segment + TIER_RECORDS_OFFSET + fm->layout.n_methods * sizeof(struct tier_record));
	uint64_t *cells = rodata + 2 * fm->n_slots;

	for (uint32_t i = 0; i < fm->layout.n_methods; i++)
		fm->records[i] = (struct tier_record){
			.state = tier_state_make(0, TIER_REASON_NONE, TIER_LEVEL_NONE, TIER_STAGE_COLD),
			.precode = tier_layout_thunk(&fm->layout, TIER_THUNK_PRESTUB),
			.entry = tier_layout_precode(&fm->layout, i),
			.funcptr = tier_layout_precode(&fm->layout, i),
			.index = i,
			.flags = i * fm->n_each < fm->n_slots ? TIER_RECORD_BACKPATCHABLE : 0,
		};
	for (uint32_t i = 0; i < fm->layout.n_methods; i++)
		*fake_jump(fm, i) = tier_layout_precode_jump(&fm->layout, i, fm->records[i].precode);
	for (uint32_t i = 0; i < fm->layout.n_patchpoints; i++)
		*fake_patchpoint(fm, i) = (struct tier_patchpoint){
			.method = i / FAKE_PATCHPOINTS,
			.pc = i % FAKE_PATCHPOINTS,
			.number = i,
			.limit = 10,
			.bump = 1000,
		};
	for (uint32_t i = 0; i < fm->n_slots; i++) {
		rodata[2 * i] = fake_pointer(fm, fake_slot_method(fm, i));
		cells[2 * i] = tier_layout_precode(&fm->layout, fake_slot_method(fm, i));
		rodata[2 * i + 1] = cells[2 * i + 1] = fake_constant(i);
	}
}

/* Bytes of the records segment that the core may change */
static inline size_t fake_segment_size(const struct fake_module *fm)
{
	return TIER_RECORDS_OFFSET + fm->layout.n_methods * sizeof(struct tier_record) + 2 * fm->layout.n_slots +
	       fm->layout.n_patchpoints * sizeof(struct tier_patchpoint);
}

static inline void *fake_code_memory(void)
{
	void *memory =
		mmap(NULL, FAKE_SEGMENT, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	assert_true(memory != MAP_FAILED);
	return memory;
}

static inline void fake_module_make_virtual(struct fake_module *fm, uint64_t id, uid_t uid, uint32_t n_methods,
					    uint32_t n_cells, uint32_t n_backpatchable, uint32_t n_each)
{
	uint64_t offset = 0;

	*fm = (struct fake_module){
		.id = id, .uid = uid, .n_slots = n_backpatchable * n_each, .n_each = MAX(n_each, 1u)};
	fm->layout =
		(struct tier_layout){.base = TIER_WINDOW_LOW + (id << 28), .n_methods = n_methods, .n_cells = n_cells};
	for (int i = 0; i < _TIER_SEGMENT_N; i++) {
		fm->layout.segment[i].offset = offset;
		fm->layout.segment[i].size = FAKE_SEGMENT;
		offset += FAKE_SEGMENT + (1 << 20);
	}
	fm->layout.size = offset;
	fm->layout.n_slots = fm->layout.n_rodata = fm->n_slots * 2 * sizeof(uint64_t);
	fm->layout.rodata = fm->layout.slots = fm->layout.segment[TIER_SEGMENT_RECORDS].offset + TIER_RECORDS_OFFSET +
					    n_methods * sizeof(struct tier_record);
	fm->layout.call_cells = fm->layout.slots + fm->layout.n_slots;
	fm->layout.n_patchpoints = FAKE_PATCHPOINTS * n_methods;
	fm->layout.patchpoints = fm->layout.call_cells + fm->layout.n_slots;
	fm->code_used = align_up(TIER_PRECODES_OFFSET + n_methods * TIER_PRECODE_SIZE, FAKE_CODE_STEP);
	fm->segment = calloc(1, fake_segment_size(fm));
	fm->cells = calloc(n_cells + 1, sizeof(*fm->cells));
	fm->posted = calloc(fm->n_slots + 1, 1);
	fm->code = fake_code_memory();
	assert_true(fm->segment && fm->cells && fm->posted);
	fm->header = (struct tier_records_header *)fm->segment;
	fm->records = (struct tier_record *)(fm->segment + TIER_RECORDS_OFFSET);
	fake_module_fill(fm);
}

static inline void fake_module_make(struct fake_module *fm, uint64_t id, uid_t uid, uint32_t n_methods,
				    uint32_t n_cells)
{
	fake_module_make_virtual(fm, id, uid, n_methods, n_cells, 0, 0);
}

static inline void *fake_copy_of(const void *from, size_t n)
{
	void *to = malloc(n);

	assert_non_null(to);
	return memcpy(to, from, n);
}

/* As it is at this instruction, for another world */
static inline void fake_module_copy(struct fake_module *to, const struct fake_module *from, struct fake *fake)
{
	*to = *from;
	to->fake = fake;
	if (!from->id)
		return;
	to->segment = fake_copy_of(from->segment, fake_segment_size(from));
	to->header = (struct tier_records_header *)to->segment;
	to->records = (struct tier_record *)(to->segment + TIER_RECORDS_OFFSET);
	to->cells = fake_copy_of(from->cells, (from->layout.n_cells + 1) * sizeof(*from->cells));
	to->posted = fake_copy_of(from->posted, from->n_slots + 1);
	to->code = fake_code_memory();
	memcpy(to->code, from->code, from->code_used);
	to->codes = NULL;
	if (from->n_codes)
		to->codes = fake_copy_of(from->codes, from->n_codes * sizeof(*from->codes));
}
