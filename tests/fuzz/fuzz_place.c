/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <string.h>
#include "arena/place.h"
#include "util/base.h"

/* Hostile results of a compile worker: place_code() refuses them and leaves the segment alone, or what it placed lies in
 * the segment, every field leads into the span, call sites lead to T, and every other byte is the worker's.
 *
 *   input   struct header | struct code_reloc[n_relocs] | uint32_t inlined[n_inlined] | the bytes */

struct header {
	uint32_t align, entry;
	uint8_t n_relocs, n_inlined;
};

/* Copies the next @n bytes of the input, as far as there are any. */
static void take(void *to, size_t n, const uint8_t **data, size_t *size)
{
	n = MIN(n, *size);
	memcpy(to, *data, n);
	*data += n;
	*size -= n;
}

static struct arena *arena_make(void)
{
	const struct arena_needs needs = {
		.n_methods = 7, .n_imports = 3, .n_rodata = 64, .n_bss = 8, .n_code = 1 << 16,
	};
	struct tier_layout layout;
	struct arena *arena;

	if (arena_plan(&layout, &needs))
		abort();
	layout.base = TIER_WINDOW_LOW;
	if (arena_new(&arena, &layout, 1))
		abort();
	return arena;
}

/* One of two forms that lead to T, in place of a call; made a call through E again */
static void check_site(const struct tier_layout *layout, uint8_t *bytes, uint64_t start, const struct code_result *code,
		       const struct place_site *site)
{
	const uint32_t at = site->address - start, begin = bytes[at - 2] == 0x67 && code->bytes[at - 2] == 0xff ? at - 2 : at - 1;
	int32_t field;

	assert(site->address % 4 == 0 && at + 4 <= code->n_bytes && site->method < layout->n_methods);
	assert(begin == at - 2 ? bytes[at - 1] == 0xe8 : bytes[begin] == 0xe8 && bytes[at + 4] == 0x90);
	memcpy(&field, bytes + at, sizeof(field));
	assert(site->address + 4 + field == tier_layout_precode(layout, site->method));
	assert(code->bytes[begin] == 0xff && code->bytes[begin + 1] == 0x15);
	bytes[begin] = 0xff;
	bytes[begin + 1] = 0x15;
	field = tier_layout_entry(layout, site->method) - (start + begin + 6);
	memcpy(bytes + begin + 2, &field, sizeof(field));
}

static void check_placed(struct arena *arena, const struct code_result *code, const struct placed *placed)
{
	const struct tier_layout *layout = arena_layout(arena);
	uint64_t start = placed->address - code->entry, offset = start - tier_layout_segment(layout, TIER_SEGMENT_CODE);
	uint8_t *bytes = arena_head(arena) + offset;

	assert(code->entry < code->n_bytes && placed->size == code->n_bytes && start % code->align == 0);
	assert(offset + code->n_bytes <= layout->segment[TIER_SEGMENT_CODE].size);
	assert(arena_code_used(arena) == offset + code->n_bytes);
	for (uint32_t i = 0; i < placed->n_sites; i++)
		check_site(layout, bytes, start, code, &placed->sites[i]);
	for (uint32_t i = 0; i < code->n_relocs; i++) {
		uint32_t offset = code->relocs[i].offset, size = code_reloc_size(&code->relocs[i]);
		uint64_t address;
		int32_t field;

		memcpy(&field, bytes + offset, sizeof(field));
		address = start + offset + field;
		if (size == sizeof(address))
			memcpy(&address, bytes + offset, sizeof(address));
		assert(address - layout->base < layout->size);
		memcpy(bytes + offset, code->bytes + offset, size);
	}
	assert(!memcmp(bytes, code->bytes, code->n_bytes));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct arena *arena;
	static uint64_t empty;
	struct code_reloc relocs[256] = { 0 };
	uint32_t inlined[256] = { 0 };
	struct header header = { 0 };
	struct refusal refusal = { "" };
	struct code_result code;
	struct placed placed;
	uint64_t used;
	int r;

	if (!arena) {
		arena = arena_make();
		empty = arena_code_used(arena);
	}
	take(&header, sizeof(header), &data, &size);
	take(relocs, header.n_relocs * sizeof(*relocs), &data, &size);
	take(inlined, header.n_inlined * sizeof(*inlined), &data, &size);
	code = (struct code_result){
		.bytes = data, .n_bytes = size, .align = header.align, .entry = header.entry,
		.relocs = relocs, .n_relocs = header.n_relocs, .inlined = inlined, .n_inlined = header.n_inlined,
	};
	used = arena_code_used(arena);
	r = place_code(&placed, arena, &code, &refusal);
	if (!r) {
		check_placed(arena, &code, &placed);
		free(placed.sites);
	}
	else
		assert(arena_code_used(arena) == used && (r == PLACE_E_FULL || refusal.text[0]));
	if (r == PLACE_E_FULL)
		arena_code_resume(arena, empty);
	return 0;
}
