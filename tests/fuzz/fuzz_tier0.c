/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzzing the way of a module to tier 0: whatever the verifier lets through compiles, within the bound that was promised
 * for it, and a buffer that is too small is only ever counted past; with counts and patchpoints and without.
 *
 * links: daemon/worker/child/elf*.c daemon/worker/child/btf*.c tests/tiers/program.c -lelf */
#include "arena/arena.h"
#include "bytecode/flow.h"
#include "bytecode/loops.h"
#include "fuzz/input.h"
#include "jit/baseline.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static bool plan(struct tier_layout *ret, const struct image *image)
{
	struct arena_needs needs = {
		.n_methods = image->n_methods, .n_imports = image->n_imports, .n_insns = image->n_insns,
		.n_rodata = image->n_rodata, .n_data = image->n_data, .n_bss = image->n_bss,
		.align_rodata = image->header->align[IMAGE_RODATA], .align_data = image->header->align[IMAGE_DATA],
		.align_bss = image->header->align[IMAGE_BSS],
		.n_slots = image->n_rodata & ~7u,
	};

	for (uint32_t method = 0; method < image->n_methods; method++) {
		const struct insn *insns = image_method_insns(image, method);
		const int64_t n_loops = loops_find(insns, image->methods[method].n_insns, NULL);

		assert(n_loops >= 0);
		needs.n_patchpoints += n_loops;
		needs.n_profile += profile_n_words(insns, image->methods[method].n_insns);
	}
	if (!image->n_methods || arena_plan(ret, &needs))
		return false;
	ret->base = TIER_WINDOW_LOW;
	return true;
}

/* Compiles into @n bytes that are exactly so many, so that a byte too much is noticed. Returns how many it took. */
static size_t compile(const struct insn *insns, const struct flow *flow, const struct baseline_module *module,
		      const struct baseline_extra *extra, size_t n)
{
	struct emit e = { .p = malloc(n + !n), .n_max = n, .address = tier_layout_segment(module->layout, TIER_SEGMENT_CODE) };

	assert(e.p);
	if (baseline_compile(&e, insns, flow, module, extra))
		abort();
	free(e.p);
	return e.n;
}

static void check(const struct insn *insns, const struct flow *flow, const struct baseline_module *module,
		  const struct baseline_extra *extra)
{
	const size_t bound = baseline_bound(insns, flow->n_insns, extra), n_code = compile(insns, flow, module, extra, bound);

	assert(n_code && n_code <= bound);
	assert(compile(insns, flow, module, extra, n_code / 2) == n_code);
}

/* Plain, and with all that tier 0 does beside */
static void check_method(const struct insn *insns, uint32_t n_insns, const struct baseline_module *module)
{
	struct baseline_extra extra = { .patchpoints = true, .osr_counter = 1 + n_insns };
	struct profile_map *map = NULL;
	struct flow *flow = NULL;

	if (flow_new(&flow, insns, n_insns) || profile_map_new(&map, insns, n_insns))
		abort();
	assert(map->n_words == profile_n_words(insns, n_insns));
	check(insns, flow, module, NULL);
	check(insns, flow, module, &extra);
	extra.profile = map;
	check(insns, flow, module, &extra);
	free(map);
	flow_free(flow);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct tier_layout layout;
	struct baseline_module module = { .layout = &layout };
	struct tier_record *records;
	struct image image;
	void *bytes;

	if (!input_image(data, n, &bytes, &image) || !plan(&layout, &image)) {
		free(bytes);
		return 0;
	}
	module.records = records = calloc(image.n_methods, sizeof(*records));
	assert(records);
	for (uint32_t method = 0; method < image.n_methods; method++)
		records[method].flags = method & TIER_RECORD_BACKPATCHABLE;
	for (uint32_t method = 0; method < image.n_methods; method++)
		check_method(image_method_insns(&image, method), image.methods[method].n_insns, &module);
	free(records);
	free(bytes);
	return 0;
}
