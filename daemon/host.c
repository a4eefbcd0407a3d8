/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include "bytecode/flow.h"
#include "bytecode/verify.h"
#include "host.h"
#include "jit/baseline.h"
#include "jit/stubs.h"
#include "util/base.h"
#include "util/error.h"

/* Tier 0 of a method takes about 50 ns per instruction in the loop at its first call; from this size on that would be
 * most of a millisecond, so it is compiled while the module is built. */
#define AHEAD_INSNS_MIN 8192u

#define TIER0_ALIGN 16u
#define STUB_BOUND (2 * STUB_SIZE - 1)	/* with what its alignment takes */

struct host_ahead {
	uint32_t method;
	struct core_code code;
};

DEFINE_CLEANUP(struct host *, host_free)
DEFINE_CLEANUP(struct flow *, flow_free)

static void host_deinit(struct host *host)
{
	for (uint32_t method = 0; host->bodies && method < host->image.n_methods; method++)
		if (host->bodies[method])
			host_body_deinit(host->bodies[method]);
	free(TAKE_PTR(host->ahead));
	free((void *)TAKE_PTR(host->first_sites));
	host->calls = calls_free(host->calls);
	host->objects = symtab_free(host->objects);
	host->imports = symtab_free(host->imports);
	host->symtab = symtab_free(host->symtab);
	host->arena = arena_free(host->arena);
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
	host_deinit(container_of(task, struct host, end));
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

/* -- Code --- */
static void host_publish(struct host *host, const struct code_span *span, size_t n, struct core_code *ret)
{
	arena_publish(host->arena, span, n);
	*ret = (struct core_code){ .address = span->address, .size = n, .code_used = arena_code_used(host->arena) };
}

bool host_has_room(const struct host *host, uint64_t n)
{
	const uint64_t n_free = arena_layout(host->arena)->segment[TIER_SEGMENT_CODE].size - arena_code_used(host->arena);

	return n_free >= host->n_owed && n_free - host->n_owed >= n;
}

int host_compile_tier0(struct host *host, const struct insn *insns, uint32_t n_insns, struct core_code *ret)
{
	const struct baseline_module module = { .layout = arena_layout(host->arena), .records = arena_record(host->arena, 0) };
	_cleanup_(flow_freep) struct flow *flow = NULL;
	struct code_span span;
	struct emit e;
	int r;

	r = flow_new(&flow, insns, n_insns);
	if (r)
		return error_origin(r);
	if (arena_reserve(host->arena, baseline_bound(insns, n_insns), TIER0_ALIGN, &span))
		return CORE_E_FULL;
	e = (struct emit){ .p = span.write, .n_max = span.n_max, .address = span.address };
	r = baseline_compile(&e, insns, flow, &module);
	if (!r && !emit_fits(&e))
		r = -EOVERFLOW;
	if (r) {
		arena_abort(host->arena, &span);
		return error_origin(r);
	}
	host_publish(host, &span, e.n, ret);
	return 0;
}

/* What its first call takes */
static uint64_t host_own_bound(const struct host *host, uint32_t method)
{
	return TIER0_ALIGN - 1 + baseline_bound(image_method_insns(&host->image, method), host->image.methods[method].n_insns);
}

static int host_compile_own(struct host *host, uint32_t method, struct core_code *ret)
{
	int r;

	r = host_compile_tier0(host, image_method_insns(&host->image, method), host->image.methods[method].n_insns, ret);
	if (!r)
		host->n_owed -= MIN(host->n_owed, host_own_bound(host, method));
	return r;
}

static bool host_is_huge(const struct host *host, uint32_t method)
{
	return host->image.methods[method].n_insns >= AHEAD_INSNS_MIN;
}

int host_tier0(struct host *host, uint32_t method, uint32_t id, struct core_code *ret)
{
	const struct host_body *body = host_body_of(host, method, id);
	const struct core_code *made = body ? &body->tier0 : NULL;

	for (uint32_t i = 0; !id && host_is_huge(host, method) && i < host->n_ahead; i++)
		if (host->ahead[i].method == method)
			made = &host->ahead[i].code;
	if (!made)
		return host_compile_own(host, method, ret);
	*ret = *made;
	ret->code_used = arena_code_used(host->arena);
	return 0;
}

/* A body that came later has brought room for the stub of its tier 0. */
static bool host_take_stub_room(struct host *host, uint32_t method, uint64_t code, struct code_span *ret)
{
	struct host_body *body = host->bodies ? host->bodies[method] : NULL;

	if (!body || !body->stub || code != body->tier0.address)
		return false;
	*ret = (struct code_span){ .address = body->stub, .write = arena_alias(host->arena, body->stub, STUB_SIZE), .n_max = STUB_SIZE };
	body->stub = 0;
	return true;
}

int host_stub(struct host *host, uint32_t method, uint32_t cell, uint64_t version, uint64_t code, struct core_code *ret)
{
	struct code_span span;
	struct emit e;

	if (!host_take_stub_room(host, method, code, &span)) {
		if (arena_reserve(host->arena, STUB_SIZE, STUB_SIZE, &span))
			return CORE_E_FULL;
		arena_publish(host->arena, &span, STUB_SIZE);	/* nothing leads there yet */
		host->n_owed -= MIN(host->n_owed, STUB_BOUND);
	}
	e = (struct emit){ .p = span.write, .n_max = span.n_max, .address = span.address };
	stubs_counting(&e, arena_layout(host->arena), method, cell, version, code);
	*ret = (struct core_code){ .address = span.address, .size = e.n, .code_used = arena_code_used(host->arena) };
	return 0;
}

int host_forwarder(struct host *host, uint64_t target, struct core_code *ret)
{
	struct code_span span;
	struct emit e;

	if (arena_reserve(host->arena, FORWARDER_SIZE, FORWARDER_SIZE, &span))
		return CORE_E_FULL;
	e = (struct emit){ .p = span.write, .n_max = span.n_max, .address = span.address };
	stubs_forwarder(&e, target);
	host_publish(host, &span, e.n, ret);
	return 0;
}

/* What is written there has 4 or 8 bytes and is aligned; so 4 in the segment say enough of both. */
void *host_alias(struct host *host, uint64_t address)
{
	return arena_alias(host->arena, address, sizeof(uint32_t));
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
		return layout->base + layout->data + reloc->addend;
	case INSN_REF_BSS:
		return layout->base + layout->bss + reloc->addend;
	default:
		refuse(refusal, "%s+0x%x: the address of import '%s' differs from process to process and cannot stand in data",
		       reloc->segment == IMAGE_RODATA ? ".rodata" : ".data", reloc->offset,
		       image_import_name(&host->image, reloc->index));
		return 0;
	}
}

static bool host_fill_data(struct host *host, struct refusal *refusal)
{
	const struct image *image = &host->image;
	uint8_t *segments[] = { [IMAGE_RODATA] = arena_rodata(host->arena), [IMAGE_DATA] = arena_data(host->arena) };

	if (image->n_rodata)
		memcpy(segments[IMAGE_RODATA], image->rodata, image->n_rodata);
	if (image->n_data)
		memcpy(segments[IMAGE_DATA], image->data, image->n_data);
	for (uint32_t i = 0; i < image->n_relocs; i++) {
		const struct image_reloc *reloc = &image->relocs[i];
		uint64_t value = host_reloc_value(host, reloc, refusal);

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

static enum tier_error host_make_arena(struct host *host, const struct host_plan *plan, struct refusal *refusal)
{
	const struct image *image = &host->image;
	struct arena_needs needs = {
		.n_methods = image->n_methods,
		.n_imports = image->n_imports,
		.n_insns = image->n_insns,
		.n_rodata = image->n_rodata,
		.n_data = image->n_data,
		.n_bss = image->n_bss,
		.align_rodata = image->header->align[IMAGE_RODATA],
		.align_data = image->header->align[IMAGE_DATA],
		.align_bss = image->header->align[IMAGE_BSS],
		.n_code = plan->n_code,
	};
	struct tier_layout layout;
	uint32_t n_slots;
	int r;

	needs.slots = image_slots(image, &n_slots);
	needs.n_slots = n_slots;
	if (arena_plan(&layout, &needs)) {
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

static void host_owe_first_calls(struct host *host)
{
	for (uint32_t method = 0; method < host->image.n_methods; method++)
		host->n_owed += host_own_bound(host, method) + STUB_BOUND;
}

/* A code segment that is too small for all of them is no reason to refuse the module: the rest is tried again at its
 * first call, and says so there. */
static int host_compile_ahead(struct host *host)
{
	uint32_t n_huge = 0;
	int r;

	for (uint32_t method = 0; method < host->image.n_methods; method++)
		n_huge += host_is_huge(host, method);
	if (!n_huge)
		return 0;
	host->ahead = calloc(n_huge, sizeof(*host->ahead));
	if (!host->ahead)
		return -ENOMEM;
	for (uint32_t method = 0; method < host->image.n_methods; method++) {
		struct host_ahead *ahead = &host->ahead[host->n_ahead];

		if (!host_is_huge(host, method))
			continue;
		r = host_compile_own(host, method, &ahead->code);
		if (r < 0)
			return r;
		if (r == CORE_E_FULL)
			break;
		ahead->method = method;
		host->n_ahead++;
	}
	return 0;
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
	if (!image_check(bytes, n, &host->image, refusal) || !verify_image(&host->image, refusal))
		return TIER_ERROR_BAD_MODULE;
	error = host_make_arena(host, plan, refusal);
	if (error)
		return error;
	host_write_head(host);
	host_mark_backpatchable(host);
	if (!host_fill_data(host, refusal))
		return TIER_ERROR_BAD_MODULE;
	host_fill_call_cells(host);
	if (plan->ready_to_run)
		host_find_precompiled(host, &plan->compiler);
	host_owe_first_calls(host);
	if (symtab_new(&host->symtab, &host->image, SYMTAB_METHODS) || symtab_new(&host->imports, &host->image, SYMTAB_IMPORTS)
	    || symtab_new(&host->objects, &host->image, SYMTAB_OBJECTS) || calls_new(&host->calls, &host->image)
	    || host_compile_ahead(host)) {
		refuse(refusal, "out of memory");
		return TIER_ERROR_NO_MEMORY;
	}
	*ret = TAKE_PTR(host);
	return TIER_ERROR_NONE;
}

/* -- Compile jobs --- */
static bool job_has(const struct job_compile *job, uint32_t method)
{
	for (uint32_t i = 0; i < job->n_bodies; i++)
		if (job->bodies[i].method == method)
			return true;
	return false;
}

/* @body: of the method; NULL: the image's */
static uint32_t body_n_insns(const struct host *host, uint32_t method, const struct host_body *body)
{
	return body ? body->bound.n_insns : host->image.methods[method].n_insns;
}

static void job_add_body(struct job_compile *job, const struct host *host, uint32_t method, const struct host_body *body)
{
	job->bodies[job->n_bodies++] = (struct job_body){
		.method = method,
		.n_insns = body_n_insns(host, method, body),
		.insns = body ? body->bound.insns : image_method_insns(&host->image, method),
		.name = image_method_name(&host->image, method),
	};
}

/* A job carries its method and the small methods that it calls, directly or through each other. Adds the small callees of
 * body @i that are not there yet; walking the list while it grows makes it transitive. */
static void job_add_callees(struct job_compile *job, const struct host *host, uint32_t i)
{
	const struct insn *insns = job->bodies[i].insns;
	uint32_t n_insns = job->bodies[i].n_insns;

	for (uint32_t pc = 0; pc < n_insns; pc += insn_slots(&insns[pc])) {
		uint32_t callee = (uint32_t)insns[pc].imm;
		const struct host_body *body;

		if (insns[pc].code != (BPF_JMP | BPF_CALL) || insns[pc].src != INSN_CALL_METHOD)
			continue;
		if (job->n_bodies == HOST_BODIES_MAX)
			return;
		body = host_body_current(host, callee);
		if (body_n_insns(host, callee, body) <= JOB_CANDIDATE_INSNS_MAX && !job_has(job, callee))
			job_add_body(job, host, callee, body);
	}
}

static int memfd_of(const char *name, const void *bytes, size_t n)
{
	_cleanup_(closep) int fd = memfd_create(name, MFD_CLOEXEC);
	size_t done = 0;

	if (fd < 0)
		return error_origin(-errno);
	while (done < n) {
		ssize_t written = pwrite(fd, (const uint8_t *)bytes + done, n - done, done);

		if (written < 0)
			return error_origin(-errno);
		done += written;
	}
	return TAKE_FD(fd);
}

static void bodies_of(struct host_bodies *ret, const struct job_compile *job)
{
	ret->n = job->n_bodies;
	for (uint32_t i = 0; i < job->n_bodies; i++)
		ret->methods[i] = job->bodies[i].method;
}

int host_compile_job(struct host *host, uint32_t method, uint32_t id, enum tier_level level, struct host_bodies *ret, int *ret_fd,
		     size_t *ret_n)
{
	const struct host_body *body = host_body_of(host, method, id);
	const struct tier_layout *layout = arena_layout(host->arena);
	const struct image *image = &host->image;
	struct job_body bodies[HOST_BODIES_MAX];
	struct job_compile job = {
		.level = level,
		.method = method,
		.n_methods = image->n_methods,
		.n_imports = image->n_imports,
		.n_rodata = image->n_rodata,
		.n_data = image->n_data,
		.n_bss = image->n_bss,
		.slots = layout->n_slots ? layout->slots - layout->rodata : 0,
		.n_slots = layout->n_slots,
		.call_cells = layout->n_slots ? layout->call_cells - layout->rodata : 0,
		.rodata = NULL,	/* the image's .rodata lacks its relocated pointers: nothing to fold from */
		.bodies = bodies,
	};
	_cleanup_(freep) void *bytes = NULL;
	size_t n;
	int r;

	job_add_body(&job, host, method, body);
	if (job_is_too_large(bodies[0].insns, bodies[0].n_insns))
		return CORE_E_TOO_LARGE;
	for (uint32_t i = 0; i < job.n_bodies; i++)
		job_add_callees(&job, host, i);
	r = job_put_compile(&job, &bytes, &n);
	if (r)
		return error_origin(r);
	r = memfd_of("tierd-compile", bytes, n);
	if (r < 0)
		return error_fold(r);
	bodies_of(ret, &job);
	*ret_fd = r;
	*ret_n = n;
	return 0;
}

/* Whom it says that it inlined it must have been given. */
static bool check_inlined(const struct code_result *code, const struct host_bodies *bodies, struct refusal *refusal)
{
	for (uint32_t i = 0, k; i < code->n_inlined; i++) {
		for (k = 1; k < bodies->n && bodies->methods[k] != code->inlined[i]; k++)
			;
		if (k < bodies->n)
			continue;
		refuse(refusal, "the worker says that it inlined method %u, which it was not given", code->inlined[i]);
		return false;
	}
	return true;
}

/* The placer's sites in the core's words. Sites that there is no memory for stay as they are: they lead to the method's T. */
static void result_take_sites(struct core_result *result, const struct placed *placed)
{
	struct core_call_site *sites = calloc(placed->n_sites, sizeof(*sites));

	if (!sites)
		return;
	for (uint32_t i = 0; i < placed->n_sites; i++)
		sites[i] = (struct core_call_site){ .address = placed->sites[i].address, .method = placed->sites[i].method };
	result->sites = sites;
	result->n_sites = placed->n_sites;
}

enum tier_reason host_place_code(struct host *host, const struct code_result *code, struct core_result *ret, struct refusal *refusal)
{
	struct placed placed = { .sites = NULL };
	int r = PLACE_E_FULL;

	if (host_has_room(host, (uint64_t)code->n_bytes + code->align))
		r = place_code(&placed, host->arena, code, refusal);
	switch (r) {
	case 0:
		break;
	case PLACE_E_FULL:
		refuse(refusal, "the module's code segment is full");
		return TIER_REASON_ARENA_FULL;
	default:
		return TIER_REASON_RESULT_REFUSED;
	}
	*ret = (struct core_result){
		.code = { .address = placed.address, .size = placed.size, .code_used = arena_code_used(host->arena) },
		.inlined = code->inlined,
		.n_inlined = code->n_inlined,
	};
	if (placed.n_sites)
		result_take_sites(ret, &placed);
	free(placed.sites);
	return TIER_REASON_NONE;
}

enum tier_reason host_place(struct host *host, const struct host_bodies *bodies, const void *bytes, size_t n,
			    struct core_result *ret, struct refusal *refusal)
{
	struct code_result code;

	if (!job_get_code(&code, bytes, n, refusal) || !check_inlined(&code, bodies, refusal))
		return TIER_REASON_RESULT_REFUSED;
	return host_place_code(host, &code, ret, refusal);
}
