/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>
#include "arena/place.h"
#include "util/base.h"

/* Check everything, then write: a refused result leaves no byte behind.
 *
 *   sizes, entry, alignment ──► each relocation by itself ──► no two fields overlap ──► reserve ──► copy, apply ──► publish
 *
 * Nothing of the bytes is changed but fields, and calls through entry cells that become call sites (place.h).
 *
 * S + addend must lie in the module's span, which also makes every difference fit: the span is smaller than 2 GiB. More
 * is not asked of an addend, since a program may well form a pointer before its array, or past it. */

static const char *const target_names[] = {
	[CODE_TARGET_ENTRY] = "entry cell", [CODE_TARGET_METHOD] = "method", [CODE_TARGET_IMPORT] = "import",
	[CODE_TARGET_RODATA] = ".rodata", [CODE_TARGET_DATA] = ".data", [CODE_TARGET_BSS] = ".bss",
	[CODE_TARGET_CELLS] = "cells",
};
_Static_assert(ARRAY_SIZE(target_names) == _CODE_TARGET_N, "name every target");

/* How many of a target there are: indices below it exist. A segment has an address even if it has no bytes: that of an empty
 * array, say, which verify.c accepts as well. */
static uint32_t target_count(const struct tier_layout *layout, uint32_t target)
{
	switch (target) {
	case CODE_TARGET_ENTRY:
	case CODE_TARGET_METHOD:
		return layout->n_methods;
	case CODE_TARGET_IMPORT:
		return layout->n_imports;
	default:
		return 1;
	}
}

/* S of a target that exists */
static uint64_t target_address(struct arena *arena, uint32_t target, uint32_t index)
{
	const struct tier_layout *layout = arena_layout(arena);

	switch (target) {
	case CODE_TARGET_ENTRY:
		return tier_layout_entry(layout, index);
	case CODE_TARGET_METHOD:
		return tier_layout_method(layout, index, arena_record(arena, index)->flags);
	case CODE_TARGET_IMPORT:
		return tier_layout_import(layout, index);
	case CODE_TARGET_RODATA:
		return layout->base + layout->rodata;
	case CODE_TARGET_DATA:
		return layout->base + layout->data;
	case CODE_TARGET_BSS:
		return layout->base + layout->bss;
	default:
		return tier_layout_cell(layout, 0);
	}
}

static bool check_shape(const struct code_result *code, const struct tier_layout *layout, struct refusal *refusal)
{
	if (!code->n_bytes || code->n_bytes > CODE_BYTES_MAX)
		refuse(refusal, "the compiled code has %u bytes; 1 to %u are allowed", code->n_bytes, CODE_BYTES_MAX);
	else if (!is_power_of_two(code->align) || code->align < 16 || code->align > 4096)
		refuse(refusal, "the compiled code wants alignment %u; a power of two from 16 to 4096 is allowed", code->align);
	else if (code->entry >= code->n_bytes)
		refuse(refusal, "the compiled code's entry %u lies outside its %u bytes", code->entry, code->n_bytes);
	else if (code->n_relocs > code->n_bytes / 4)
		refuse(refusal, "%u relocations overlap in %u bytes of compiled code", code->n_relocs, code->n_bytes);
	else if (code->n_relocs > CODE_RELOCS_MAX)
		refuse(refusal, "the compiled code has %u relocations; at most %u are allowed", code->n_relocs, CODE_RELOCS_MAX);
	else if (code->n_inlined > layout->n_methods)
		refuse(refusal, "%u inlined methods in a module of %u", code->n_inlined, layout->n_methods);
	else
		return true;
	return false;
}

static bool check_reloc(const struct code_result *code, uint32_t i, struct arena *arena, struct refusal *refusal)
{
	const struct tier_layout *layout = arena_layout(arena);
	const struct code_reloc *reloc = &code->relocs[i];
	uint32_t size = code_reloc_size(reloc);
	uint64_t s;

	if (reloc->target >= _CODE_TARGET_N || reloc->kind >= _CODE_RELOC_N) {
		refuse(refusal, "relocation %u at %u: unknown target %u or kind %u", i, reloc->offset, reloc->target, reloc->kind);
		return false;
	}
	if (code->n_bytes < size || reloc->offset > code->n_bytes - size) {
		refuse(refusal, "relocation %u: field at %u lies outside the code's %u bytes", i, reloc->offset, code->n_bytes);
		return false;
	}
	if (reloc->index >= target_count(layout, reloc->target)) {
		refuse(refusal, "relocation %u at %u: %s %u does not exist, the module has %u", i, reloc->offset,
		       target_names[reloc->target], reloc->index, target_count(layout, reloc->target));
		return false;
	}
	s = target_address(arena, reloc->target, reloc->index) + reloc->addend;
	if (s - layout->base >= layout->size) {
		refuse(refusal, "relocation %u at %u: %s %u with addend %d leads out of the module's span", i, reloc->offset,
		       target_names[reloc->target], reloc->index, reloc->addend);
		return false;
	}
	return true;
}

/* Sets @taken's bits: linear for relocations in any order. */
static bool check_disjoint(const struct code_result *code, uint8_t *taken, struct refusal *refusal)
{
	for (uint32_t i = 0; i < code->n_relocs; i++) {
		uint32_t at = code->relocs[i].offset;
		uint16_t field = ((1u << code_reloc_size(&code->relocs[i])) - 1) << at % 8, before;	/* at most 15 bits */

		memcpy(&before, &taken[at / 8], sizeof(before));
		if (before & field) {
			refuse(refusal, "relocation %u at %u overlaps another", i, at);
			return false;
		}
		before |= field;
		memcpy(&taken[at / 8], &before, sizeof(before));
	}
	return true;
}

/* *ret_taken: a bit per byte of the code that belongs to a field */
static bool check_code(const struct code_result *code, struct arena *arena, uint8_t **ret_taken, struct refusal *refusal)
{
	const struct tier_layout *layout = arena_layout(arena);

	if (!check_shape(code, layout, refusal))
		return false;
	for (uint32_t i = 0; i < code->n_relocs; i++)
		if (!check_reloc(code, i, arena, refusal))
			return false;
	for (uint32_t i = 0; i < code->n_inlined; i++)
		if (code->inlined[i] >= layout->n_methods) {
			refuse(refusal, "inlined method %u does not exist, the module has %u", code->inlined[i], layout->n_methods);
			return false;
		}
	*ret_taken = calloc(1, code->n_bytes / 8 + 2);
	if (*ret_taken)
		return check_disjoint(code, *ret_taken, refusal);
	refuse(refusal, "out of memory while checking %u relocations", code->n_relocs);
	return false;
}

/* -- Call sites --- */
static bool is_taken(const uint8_t *taken, uint32_t at)
{
	return taken[at / 8] >> at % 8 & 1;
}

/* Whether the relocation is that of a whole "call [rip -> E]": ff 15, the field, nothing behind it. The two bytes before are the
 * instruction's only if they are nobody else's field. */
static bool is_entry_call(const struct code_result *code, const struct code_reloc *reloc, const uint8_t *taken)
{
	const uint32_t at = reloc->offset;

	return reloc->target == CODE_TARGET_ENTRY && reloc->kind == CODE_RELOC_RELATIVE && reloc->addend == -4 && at >= 2
	    && code->bytes[at - 2] == 0xff && code->bytes[at - 1] == 0x15 && !is_taken(taken, at - 2) && !is_taken(taken, at - 1);
}

/* Which of the two forms has its field on a multiple of 4 when the instruction is at @address, as the field's distance from there;
 * 0: neither */
static uint32_t site_field(uint64_t address)
{
	return address % 4 == 2 ? 2 : address % 4 == 3 ? 1 : 0;
}

static void write_site(uint8_t *to, uint64_t address, uint64_t target)
{
	const uint32_t at = site_field(address);
	const int32_t distance = target - (address + at + 4);

	if (at == 2) {
		to[0] = 0x67;	/* a prefix that a call ignores */
		to[1] = 0xe8;
	} else {
		to[0] = 0xe8;
		to[5] = 0x90;	/* nop, when it returns */
	}
	memcpy(to + at, &distance, sizeof(distance));
}

/* The relocation as a call site, if it can be one: then it is written here. */
static bool place_site(struct placed *placed, struct arena *arena, const struct code_span *span, const struct code_reloc *reloc)
{
	const uint64_t address = span->address + reloc->offset - 2;
	const uint64_t target = target_address(arena, CODE_TARGET_METHOD, reloc->index);

	if (!placed->sites || !site_field(address))
		return false;
	write_site(span->write + reloc->offset - 2, address, target);
	placed->sites[placed->n_sites++] =
		(struct place_site){ .address = address + site_field(address), .method = reloc->index };
	return true;
}

/* -- Placing --- */
static void apply_reloc(const struct code_reloc *reloc, struct arena *arena, const struct code_span *span)
{
	uint64_t s = target_address(arena, reloc->target, reloc->index) + reloc->addend;
	int32_t field = s - (span->address + reloc->offset);

	if (reloc->kind == CODE_RELOC_ABSOLUTE)
		memcpy(span->write + reloc->offset, &s, sizeof(s));
	else
		memcpy(span->write + reloc->offset, &field, sizeof(field));
}

/* Without memory for the sites, the calls stay what they are. */
static struct place_site *sites_new(const struct code_result *code, const uint8_t *taken)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < code->n_relocs; i++)
		n += is_entry_call(code, &code->relocs[i], taken);
	return n ? calloc(n, sizeof(struct place_site)) : NULL;
}

int place_code(struct placed *ret, struct arena *arena, const struct code_result *code, struct refusal *refusal)
{
	_cleanup_(freep) uint8_t *taken = NULL;
	struct placed placed = { .size = code->n_bytes };
	struct code_span span;

	if (!check_code(code, arena, &taken, refusal))
		return PLACE_E_REFUSED;
	if (arena_reserve(arena, code->n_bytes, code->align, &span))
		return PLACE_E_FULL;
	placed.address = span.address + code->entry;
	placed.sites = sites_new(code, taken);
	memcpy(span.write, code->bytes, code->n_bytes);
	for (uint32_t i = 0; i < code->n_relocs; i++) {
		const struct code_reloc *reloc = &code->relocs[i];

		if (!is_entry_call(code, reloc, taken) || !place_site(&placed, arena, &span, reloc))
			apply_reloc(reloc, arena, &span);
	}
	arena_publish(arena, &span, code->n_bytes);
	*ret = placed;
	return 0;
}
