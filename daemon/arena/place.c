/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>
#include "arena/place.h"
#include "util/base.h"

/* Check everything, then write: a refused result leaves no byte behind.
 *
 *   sizes, entry, alignment ──► each relocation by itself ──► no two fields overlap ──► reserve ──► copy, apply ──► publish
 *
 * S + addend must lie in the module's span, which also makes every difference fit: the span is smaller than 2 GiB. More
 * is not asked of an addend, since a program may well form a pointer before its array, or past it. */

static const char *const target_names[] = {
	[CODE_TARGET_ENTRY] = "entry cell", [CODE_TARGET_METHOD] = "method", [CODE_TARGET_IMPORT] = "import",
	[CODE_TARGET_RODATA] = ".rodata", [CODE_TARGET_DATA] = ".data", [CODE_TARGET_BSS] = ".bss",
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
static uint64_t target_address(const struct tier_layout *layout, uint32_t target, uint32_t index)
{
	switch (target) {
	case CODE_TARGET_ENTRY:
		return tier_layout_entry(layout, index);
	case CODE_TARGET_METHOD:
		return tier_layout_precode(layout, index);
	case CODE_TARGET_IMPORT:
		return tier_layout_import(layout, index);
	case CODE_TARGET_RODATA:
		return layout->base + layout->rodata;
	case CODE_TARGET_DATA:
		return layout->base + layout->data;
	default:
		return layout->base + layout->bss;
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

static bool check_reloc(const struct code_result *code, uint32_t i, const struct tier_layout *layout, struct refusal *refusal)
{
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
	s = target_address(layout, reloc->target, reloc->index) + reloc->addend;
	if (s - layout->base >= layout->size) {
		refuse(refusal, "relocation %u at %u: %s %u with addend %d leads out of the module's span", i, reloc->offset,
		       target_names[reloc->target], reloc->index, reloc->addend);
		return false;
	}
	return true;
}

/* A bit per byte, set for bytes of fields: linear for relocations in any order. */
static bool check_disjoint(const struct code_result *code, struct refusal *refusal)
{
	_cleanup_(freep) uint8_t *taken = calloc(1, code->n_bytes / 8 + 2);

	if (!taken) {
		refuse(refusal, "out of memory while checking %u relocations", code->n_relocs);
		return false;
	}
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

static bool check_code(const struct code_result *code, const struct tier_layout *layout, struct refusal *refusal)
{
	if (!check_shape(code, layout, refusal))
		return false;
	for (uint32_t i = 0; i < code->n_relocs; i++)
		if (!check_reloc(code, i, layout, refusal))
			return false;
	for (uint32_t i = 0; i < code->n_inlined; i++)
		if (code->inlined[i] >= layout->n_methods) {
			refuse(refusal, "inlined method %u does not exist, the module has %u", code->inlined[i], layout->n_methods);
			return false;
		}
	return check_disjoint(code, refusal);
}

static void apply_reloc(const struct code_reloc *reloc, const struct tier_layout *layout, const struct code_span *span)
{
	uint64_t s = target_address(layout, reloc->target, reloc->index) + reloc->addend;
	int32_t field = s - (span->address + reloc->offset);

	if (reloc->kind == CODE_RELOC_ABSOLUTE)
		memcpy(span->write + reloc->offset, &s, sizeof(s));
	else
		memcpy(span->write + reloc->offset, &field, sizeof(field));
}

int place_code(struct placed *ret, struct arena *arena, const struct code_result *code, struct refusal *refusal)
{
	const struct tier_layout *layout = arena_layout(arena);
	struct code_span span;

	if (!check_code(code, layout, refusal))
		return PLACE_E_REFUSED;
	if (arena_reserve(arena, code->n_bytes, code->align, &span))
		return PLACE_E_FULL;
	memcpy(span.write, code->bytes, code->n_bytes);
	for (uint32_t i = 0; i < code->n_relocs; i++)
		apply_reloc(&code->relocs[i], layout, &span);
	arena_publish(arena, &span, code->n_bytes);
	*ret = (struct placed){ .address = span.address + code->entry, .size = code->n_bytes };
	return 0;
}
