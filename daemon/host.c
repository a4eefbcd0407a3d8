/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "bytecode/verify.h"
#include "host.h"
#include "host_kept.h"
#include "jit/stubs.h"
#include "util/base.h"
#include "util/error.h"

DEFINE_CLEANUP(struct host *, host_free)

static void host_deinit(struct host *host)
{
	for (uint32_t method = 0; host->bodies && method < host->image.n_methods; method++)
		if (host->bodies[method])
			host_body_deinit(host->bodies[method]);
	free(TAKE_PTR(host->ahead));
	free(TAKE_PTR(host->own));
	free((void *)TAKE_PTR(host->first_sites));
	if (!host->base) {
		host->calls = calls_free(host->calls);
		host->objects = symtab_free(host->objects);
		host->imports = symtab_free(host->imports);
		host->symtab = symtab_free(host->symtab);
	}
	host->arena = arena_free(host->arena);
	free(TAKE_PTR(host->rodata));
	free(TAKE_PTR(host->bytes));
}

/* The bodies' charges are the loop's to give back. */
static void host_free_bodies(struct host *host)
{
	for (uint32_t method = 0; host->bodies && method < host->image.n_methods; method++)
		host_body_free(host->bodies[method]);
	free(TAKE_PTR(host->bodies));
}

struct host *host_free(struct host *host)
{
	if (host) {
		host_free_bodies(host);
		charge_deinit(&host->methods);
		charge_deinit(&host->memory);
		host_deinit(host);
		free(host);
	}
	return NULL;
}

/* In the thread */
static void host_end(struct task *task)
{
	struct host *host = container_of(task, struct host, end);

	host_unkeep(host);
	host_deinit(host);
}

/* Back in the loop; what never ran is done here. */
static void host_ended(struct task *task)
{
	host_free(container_of(task, struct host, end));
}

void host_release(struct host *host, struct task_thread *thread)
{
	host->end = (struct task)TASK_NULL(host->end);
	task_submit(thread, &host->end, host_end, host_ended);
}

/* -- Building --- */
static void host_write_head(struct host *host)
{
	const struct tier_layout *layout = arena_layout(host->arena);
	struct emit e = {
		.p = arena_head(host->arena),
		.n_max = TIER_PRECODES_OFFSET + (size_t)layout->n_methods * TIER_PRECODE_SIZE,
		.address = tier_layout_segment(layout, TIER_SEGMENT_CODE),
	};

	for (unsigned int thunk = 0; thunk < _TIER_THUNK_N; thunk++) {
		e.n = thunk * TIER_THUNK_SIZE;
		stubs_thunk(&e, layout, thunk);
	}
	for (uint32_t method = 0; method < layout->n_methods; method++) {
		e.n = TIER_PRECODES_OFFSET + (size_t)method * TIER_PRECODE_SIZE;
		stubs_precode(&e, layout, method);
	}
}

static uint64_t host_method_address(const struct host *host, uint32_t method)
{
	return tier_layout_method(arena_layout(host->arena), method, arena_record(host->arena, method)->flags);
}

/* The address that a pointer in .rodata or .data gets; 0 with a sentence when it has none at load time. */
static uint64_t host_reloc_value(const struct host *host, const struct image_reloc *reloc, struct refusal *refusal)
{
	const struct tier_layout *layout = arena_layout(host->arena);

	switch (reloc->ref) {
	case INSN_REF_METHOD:
		return host_method_address(host, reloc->index);
	case INSN_REF_RODATA:
		return layout->base + layout->rodata + reloc->addend;
	case INSN_REF_DATA:
		return host_data(host) + reloc->addend;
	case INSN_REF_BSS:
		return host_bss(host) + reloc->addend;
	default:
		refuse(refusal, "%s+0x%x: the address of import '%s' differs from process to process and cannot stand in data",
		       reloc->segment == IMAGE_RODATA ? ".rodata" : ".data", reloc->offset,
		       image_import_name(&host->image, reloc->index));
		return 0;
	}
}

/* .data is filled once: an instantiation's is its base's, with the pointers that stand there. */
static bool host_fill_data(struct host *host, struct refusal *refusal)
{
	const struct image *image = &host->image;
	uint8_t *segments[] = { [IMAGE_RODATA] = arena_rodata(host->arena), [IMAGE_DATA] = arena_data(host->arena) };

	if (image->n_rodata)
		memcpy(segments[IMAGE_RODATA], image->rodata, image->n_rodata);
	if (image->n_data && !host->base)
		memcpy(segments[IMAGE_DATA], image->data, image->n_data);
	for (uint32_t i = 0; i < image->n_relocs; i++) {
		const struct image_reloc *reloc = &image->relocs[i];
		uint64_t value;

		if (reloc->segment == IMAGE_DATA && host->base)
			break;
		value = host_reloc_value(host, reloc, refusal);
		if (!value)
			return false;
		if (reloc->width != sizeof(value)) {
			refuse(refusal, "%s+0x%x: a pointer of %u bytes cannot hold an address of this module",
			       reloc->segment == IMAGE_RODATA ? ".rodata" : ".data", reloc->offset, reloc->width);
			return false;
		}
		memcpy(segments[reloc->segment] + reloc->offset, &value, sizeof(value));
	}
	return true;
}

/* -- Vtable slots --- */
/* Before anything is written that holds an address of a method: which one it is depends on this. */
static void host_mark_backpatchable(struct host *host)
{
	const struct image *image = &host->image;

	for (uint32_t i = 0; i < image->n_relocs && image->relocs[i].segment == IMAGE_RODATA; i++)
		if (image_reloc_is_slot(&image->relocs[i]))
			arena_record(host->arena, image->relocs[i].index)->flags |= TIER_RECORD_BACKPATCHABLE;
}

/* Once .rodata is filled */
static void host_fill_call_cells(struct host *host)
{
	const struct tier_layout *layout = arena_layout(host->arena);
	const struct image *image = &host->image;
	uint8_t *cells = arena_call_cells(host->arena);
	const uint64_t first = layout->slots - layout->rodata;

	if (!layout->n_slots)
		return;
	memcpy(cells, arena_rodata(host->arena) + first, layout->n_slots);
	for (uint32_t i = 0; i < image->n_relocs && image->relocs[i].segment == IMAGE_RODATA; i++) {
		const struct image_reloc *reloc = &image->relocs[i];
		uint64_t entry = tier_layout_precode(layout, reloc->index);

		if (image_reloc_is_slot(reloc))
			memcpy(cells + (reloc->offset - first), &entry, sizeof(entry));
	}
}

int64_t host_slot_method(const struct host *host, uint64_t cell)
{
	const struct tier_layout *layout = arena_layout(host->arena);
	const struct image *image = &host->image;
	uint64_t at = cell - (layout->base + layout->call_cells);
	uint32_t low = 0, high = image->n_relocs;

	if (at >= layout->n_slots)
		return -1;
	at += layout->slots - layout->rodata;
	while (low < high) {
		uint32_t middle = low + (high - low) / 2;
		const struct image_reloc *reloc = &image->relocs[middle];

		if (reloc->segment == IMAGE_RODATA && reloc->offset < at)
			low = middle + 1;
		else
			high = middle;
	}
	if (low == image->n_relocs || image->relocs[low].offset != at || !image_reloc_is_slot(&image->relocs[low]))
		return -1;
	return image->relocs[low].index;
}

int host_needs(struct host *host, struct arena_needs *needs)
{
	const struct image *image = &host->image;
	uint32_t n_slots;

	*needs = (struct arena_needs){
		.n_methods = image->n_methods,
		.n_imports = image->n_imports,
		.n_insns = image->n_insns,
		.n_rodata = image->n_rodata,
		.n_data = host->base ? 0 : image->n_data,
		.n_bss = host->base ? 0 : image->n_bss,
		.align_rodata = image->header->align[IMAGE_RODATA],
		.align_data = image->header->align[IMAGE_DATA],
		.align_bss = image->header->align[IMAGE_BSS],
		.slots = image_slots(image, &n_slots),
	};
	needs->n_slots = n_slots;
	return host_measure(host, needs);
}

static enum tier_error host_make_arena(struct host *host, const struct host_plan *plan, struct refusal *refusal)
{
	struct arena_needs needs;
	struct tier_layout layout;
	int r;

	if (host_needs(host, &needs)) {
		refuse(refusal, "out of memory");
		return TIER_ERROR_NO_MEMORY;
	}
	needs.n_code = plan->n_code;
	r = arena_plan(&layout, &needs);
	if (r && (needs.n_patchpoints || needs.n_profile)) {
		host_forgo(host, &needs);
		r = arena_plan(&layout, &needs);
	}
	if (r) {
		refuse(refusal, "the module needs a span of 2 GiB or more");
		return TIER_ERROR_BAD_MODULE;
	}
	layout.base = window_take(plan->window, layout.size);
	if (!layout.base) {
		refuse(refusal, "the window of addresses is used up; restart the daemon");
		return TIER_ERROR_NO_MEMORY;
	}
	r = arena_new(&host->arena, &layout, plan->id);
	if (r) {
		refuse(refusal, "cannot make the module's shared memory: %s", strerrordesc_np(-r));
		return TIER_ERROR_NO_MEMORY;
	}
	return TIER_ERROR_NONE;
}

/* The image is there, and checked. */
static enum tier_error host_lay_out(struct host *host, const struct host_plan *plan, struct refusal *refusal)
{
	enum tier_error error = host_make_arena(host, plan, refusal);

	if (error)
		return error;
	host_write_head(host);
	host_mark_backpatchable(host);
	if (!host_fill_data(host, refusal))
		return TIER_ERROR_BAD_MODULE;
	host_fill_call_cells(host);
	return TIER_ERROR_NONE;
}

int host_make_tables(struct host *host)
{
	int r;

	r = symtab_new(&host->symtab, &host->image, SYMTAB_METHODS);
	if (!r)
		r = symtab_new(&host->imports, &host->image, SYMTAB_IMPORTS);
	if (!r)
		r = symtab_new(&host->objects, &host->image, SYMTAB_OBJECTS);
	return r ? r : calls_new(&host->calls, &host->image);
}

enum tier_error host_build(struct host **ret, const struct host_plan *plan, void *bytes, size_t n, struct refusal *refusal)
{
	_cleanup_(host_freep) struct host *host = NULL;
	enum tier_error error;

	host = calloc(1, sizeof(*host));
	if (!host) {
		free(bytes);
		refuse(refusal, "out of memory");
		return TIER_ERROR_NO_MEMORY;
	}
	host->bytes = bytes;
	host->id = plan->id;
	host->config = plan->config;
	if (!image_check(bytes, n, &host->image, refusal) || !verify_image(&host->image, refusal))
		return TIER_ERROR_BAD_MODULE;
	error = host_lay_out(host, plan, refusal);
	if (error)
		return error;
	host->ready_to_run = plan->ready_to_run;
	host->compiler = plan->compiler;
	if (plan->ready_to_run)
		host_find_precompiled(host, &plan->compiler);
	host_owe_first_calls(host);
	if (host_make_tables(host) || host_fill_patchpoints(host) || host_compile_ahead(host)) {
		refuse(refusal, "out of memory");
		return TIER_ERROR_NO_MEMORY;
	}
	*ret = TAKE_PTR(host);
	return TIER_ERROR_NONE;
}

void host_borrow(struct host *host, struct host *base)
{
	host->base = base;
	host->image = base->image;
	host->image.rodata = host->rodata;
	host->symtab = base->symtab;
	host->imports = base->imports;
	host->objects = base->objects;
	host->calls = base->calls;
}

enum tier_error host_instantiate(struct host **ret, const struct host_plan *plan, struct host *base, const struct host_knobs *knobs,
				 struct refusal *refusal)
{
	_cleanup_(host_freep) struct host *host = calloc(1, sizeof(*host));
	enum tier_error error;

	if (host)
		host->rodata = host_rodata_with(&base->image, knobs);
	if (!host || !host->rodata) {
		refuse(refusal, "out of memory");
		return TIER_ERROR_NO_MEMORY;
	}
	host->id = plan->id;
	host->config = plan->config;
	host->knobs = *knobs;
	host_borrow(host, base);
	error = host_lay_out(host, plan, refusal);
	if (error)
		return error;
	host_owe_first_calls(host);
	if (host_fill_patchpoints(host) || host_compile_ahead(host)) {
		refuse(refusal, "out of memory");
		return TIER_ERROR_NO_MEMORY;
	}
	*ret = TAKE_PTR(host);
	return TIER_ERROR_NONE;
}
