/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzzing the way of a module to tier 0: whatever the verifier lets through compiles, within the bound that was promised
 * for it, and a buffer that is too small is only ever counted past.
 *
 * links: daemon/worker/child/elf*.c daemon/worker/child/btf*.c tests/tiers/program.c -lelf */
#include "arena/arena.h"
#include "bytecode/flow.h"
#include "fuzz/input.h"
#include "jit/baseline.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static bool plan(struct tier_layout *ret, const struct image *image)
{
	const struct arena_needs needs = {
		.n_methods = image->n_methods, .n_imports = image->n_imports, .n_insns = image->n_insns,
		.n_rodata = image->n_rodata, .n_data = image->n_data, .n_bss = image->n_bss,
		.align_rodata = image->header->align[IMAGE_RODATA], .align_data = image->header->align[IMAGE_DATA],
		.align_bss = image->header->align[IMAGE_BSS],
	};

	if (!image->n_methods || arena_plan(ret, &needs))
		return false;
	ret->base = TIER_WINDOW_LOW;
	return true;
}

/* Compiles into @n bytes that are exactly so many, so that a byte too much is noticed. Returns how many it took. */
static size_t compile(const struct image *image, uint32_t method, const struct flow *flow, const struct tier_layout *layout,
		      size_t n)
{
	struct emit e = { .p = malloc(n + !n), .n_max = n, .address = tier_layout_segment(layout, TIER_SEGMENT_CODE) };

	assert(e.p);
	if (baseline_compile(&e, image, method, flow, layout))
		abort();
	free(e.p);
	return e.n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct tier_layout layout;
	struct image image;
	void *bytes;

	if (!input_image(data, n, &bytes, &image) || !plan(&layout, &image)) {
		free(bytes);
		return 0;
	}
	for (uint32_t method = 0; method < image.n_methods; method++) {
		const size_t bound = baseline_bound(&image, method);
		struct flow *flow = NULL;
		size_t n_code;

		if (flow_new(&flow, &image, method))
			abort();
		n_code = compile(&image, method, flow, &layout, bound);
		assert(n_code && n_code <= bound);
		assert(compile(&image, method, flow, &layout, n_code / 2) == n_code);
		flow_free(flow);
	}
	free(bytes);
	return 0;
}
