/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "bytecode/flow.h"
#include "bytecode/loops.h"
#include "bytecode/verify.h"
#include "jit/baseline.h"
#include "jit/stubs.h"
#include "tiers/tiers.h"
#include "util/base.h"
#include "worker/child/codegen.h"

/* The code segment is a memfd mapped twice: r-x in the span, rw- elsewhere. New code goes to ever new places; when they are
 * used up, they begin again behind the precodes, after a change of the mapping that makes the processor forget. */

#define TIERS_CODE (64u << 20)
#define TIERS_GUARD 4096u
#define TIERS_SPAN ((void *)0x300000000000)	/* wanted, so that runs can be repeated; any other does */

const char *const tiers_names[] = { [TIERS_0] = "0", [TIERS_1] = "1", [TIERS_REFERENCE] = "reference" };

/* -- The span --- */
static void lay_out(struct tier_layout *layout)
{
	static const uint64_t sizes[] = {
		[TIER_SEGMENT_CODE] = TIERS_CODE, [TIER_SEGMENT_RECORDS] = 3 * TIERS_SEGMENT,
		[TIER_SEGMENT_COUNTERS] = TIERS_CELLS * sizeof(uint32_t), [TIER_SEGMENT_PRIVATE] = 3 * TIERS_SEGMENT,
	};

	for (int i = 0; i < _TIER_SEGMENT_N; i++) {
		layout->segment[i].offset = layout->size;
		layout->segment[i].size = sizes[i];
		layout->size += sizes[i] + TIERS_GUARD;
	}
	layout->n_methods = TIERS_METHODS;
	layout->n_cells = TIERS_CELLS;
	layout->n_imports = TIERS_IMPORTS;
	layout->n_patchpoints = TIERS_PATCHPOINTS;
	layout->patchpoints = layout->segment[TIER_SEGMENT_RECORDS].offset + TIERS_SEGMENT
			    - TIERS_PATCHPOINTS * sizeof(struct tier_patchpoint);
	layout->rodata = layout->segment[TIER_SEGMENT_RECORDS].offset + TIERS_SEGMENT;
	layout->call_cells = layout->rodata + TIERS_SEGMENT;
	layout->data = layout->segment[TIER_SEGMENT_PRIVATE].offset + TIERS_SEGMENT;
	layout->bss = layout->data + TIERS_SEGMENT;
	layout->n_rodata = layout->n_data = layout->n_bss = TIERS_SEGMENT;
}

static bool map(struct tiers *t)
{
	const int rw = PROT_READ | PROT_WRITE;
	_cleanup_(closep) int fd = memfd_create("tiers", MFD_CLOEXEC);

	if (fd < 0 || ftruncate(fd, TIERS_CODE))
		return false;
	t->span = mmap(TIERS_SPAN, t->layout.size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	t->alias = mmap(NULL, TIERS_CODE, rw, MAP_SHARED, fd, 0);
	if (t->span == MAP_FAILED || t->alias == MAP_FAILED)
		return false;
	if (mmap(t->span, TIERS_CODE, PROT_READ | PROT_EXEC, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED)
		return false;
	t->layout.base = (uintptr_t)t->span;
	for (int i = TIER_SEGMENT_RECORDS; i < _TIER_SEGMENT_N; i++)
		if (mprotect((void *)tier_layout_segment(&t->layout, i), t->layout.segment[i].size, rw))
			return false;
	return true;
}

static struct tier_record *record_of(const struct tiers *t, uint32_t method)
{
	return (struct tier_record *)tier_layout_record(&t->layout, method);
}

static uint64_t *import_cells(const struct tiers *t)
{
	return (uint64_t *)tier_layout_import(&t->layout, 0);
}

struct tiers *tiers_new(void)
{
	struct tiers *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->span = t->alias = MAP_FAILED;
	lay_out(&t->layout);
	if (!map(t))
		return tiers_free(t);
	t->n_steps = 10000000;
	t->e = (struct emit){ .p = t->alias, .n_max = TIERS_CODE, .address = t->layout.base };
	for (int i = 0; i < _TIER_THUNK_N; i++)
		stubs_thunk(&t->e, &t->layout, i);
	t->e.n = TIER_PRECODES_OFFSET;
	for (uint32_t i = 0; i < TIERS_METHODS; i++)
		stubs_precode(&t->e, &t->layout, i);
	return t;
}

struct tiers *tiers_free(struct tiers *t)
{
	if (!t)
		return NULL;
	if (t->span != MAP_FAILED)
		munmap(t->span, t->layout.size);
	if (t->alias != MAP_FAILED)
		munmap(t->alias, TIERS_CODE);
	tiers_forget_profiles(t);
	free(t);
	return NULL;
}

/* -- Loading --- */
static uint64_t address_of(const struct tiers *t, unsigned int ref, uint32_t index)
{
	switch (ref) {
	case INSN_REF_METHOD:
		return tier_layout_method(&t->layout, index, record_of(t, index)->flags);
	case INSN_REF_IMPORT:
		return import_cells(t)[index];
	case INSN_REF_RODATA:
		return t->layout.base + t->layout.rodata;
	case INSN_REF_DATA:
		return t->layout.base + t->layout.data;
	default:
		return t->layout.base + t->layout.bss;
	}
}

/* -- Vtable slots --- */
/* As daemon/host.c finds them: what is a slot, is one whatever the program does with it. */
static bool is_slot(const struct image_reloc *reloc)
{
	return reloc->segment == IMAGE_RODATA && reloc->ref == INSN_REF_METHOD && reloc->width == 8 && reloc->offset % 8 == 0
	    && !reloc->addend;
}

static void find_slots(struct tiers *t)
{
	uint64_t low = UINT64_MAX, end = 0;

	for (uint32_t i = 0; i < t->image.n_methods; i++)
		record_of(t, i)->flags = 0;
	for (uint32_t i = 0; i < t->image.n_relocs; i++) {
		const struct image_reloc *reloc = &t->image.relocs[i];

		if (!is_slot(reloc))
			continue;
		record_of(t, reloc->index)->flags = TIER_RECORD_BACKPATCHABLE;
		low = MIN(low, reloc->offset);
		end = reloc->offset + 8;
	}
	t->layout.slots = end ? t->layout.rodata + low : 0;
	t->layout.n_slots = end ? end - low : 0;
}

static uint64_t *cell_of(const struct tiers *t, const struct image_reloc *reloc)
{
	return (uint64_t *)tier_layout_call_cell(&t->layout, t->layout.base + t->layout.rodata + reloc->offset);
}

/* Cells of slots lead to where direct calls lead; all others hold what .rodata holds. */
static void fill_cells(struct tiers *t)
{
	uint8_t *span = t->span;

	memcpy(span + t->layout.call_cells, span + t->layout.slots, t->layout.n_slots);
	for (uint32_t i = 0; i < t->image.n_relocs; i++)
		if (is_slot(&t->image.relocs[i]))
			*cell_of(t, &t->image.relocs[i]) = record_of(t, t->image.relocs[i].index)->entry;
}

void tiers_reset(struct tiers *t)
{
	const struct image *image = &t->image;
	uint8_t *place[] = {
		[IMAGE_RODATA] = (uint8_t *)t->span + t->layout.rodata, [IMAGE_DATA] = (uint8_t *)t->span + t->layout.data,
	};

	if (image->n_rodata)
		memcpy(place[IMAGE_RODATA], image->rodata, image->n_rodata);
	if (image->n_data)
		memcpy(place[IMAGE_DATA], image->data, image->n_data);
	memset((uint8_t *)t->span + t->layout.bss, 0, image->n_bss);
	for (uint32_t i = 0; i < image->n_relocs; i++) {
		const struct image_reloc *reloc = &image->relocs[i];
		const uint64_t value = address_of(t, reloc->ref, reloc->index) + reloc->addend;

		memcpy(place[reloc->segment] + reloc->offset, &value, reloc->width);
	}
	fill_cells(t);
}

/* P */
static void lead(struct tiers *t, uint32_t method, uint64_t target)
{
	const int32_t jump = tier_layout_precode_jump(&t->layout, method, target);

	record_of(t, method)->precode = target;
	memcpy(t->alias + (tier_layout_precode(&t->layout, method) + TIER_PRECODE_JUMP - t->layout.base), &jump, sizeof(jump));
}

/* -- Patchpoints --- */
static struct tier_patchpoint *patchpoint_of(const struct tiers *t, uint32_t number)
{
	return (struct tier_patchpoint *)tier_layout_patchpoint(&t->layout, number);
}

static bool find_patchpoints(struct tiers *t, struct refusal *refusal)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < t->image.n_methods; i++) {
		const struct insn *insns = image_method_insns(&t->image, i);
		const int64_t n_loops = loops_find(insns, t->image.methods[i].n_insns, NULL);
		_cleanup_(freep) uint32_t *heads = calloc(n_loops + 1, sizeof(*heads));

		if (!heads || n + n_loops > TIERS_PATCHPOINTS || loops_find(insns, t->image.methods[i].n_insns, heads) < 0) {
			refuse(refusal, "the module has more than %u loops, or the machine no memory", TIERS_PATCHPOINTS);
			return false;
		}
		t->first_patchpoint[i] = n;
		for (int64_t loop = 0; loop < n_loops; loop++, n++)
			*patchpoint_of(t, n) = (struct tier_patchpoint){ .method = i, .pc = heads[loop], .number = n, .bump = 1 };
	}
	t->first_patchpoint[t->image.n_methods] = n;
	return true;
}

/* As libtier's entry is to tier-0 code, but that it always knows what to do */
static struct tiers *hit_tiers;	/* in which code runs */

uint64_t tiers_hit(const struct tier_patchpoint *patchpoint, uint32_t *counter);
uint64_t tiers_hit(const struct tier_patchpoint *patchpoint, uint32_t *counter)
{
	*counter = patchpoint->bump;
	hit_tiers->n_hits++;
	if (!hit_tiers->n_stays)
		return patchpoint->code;
	hit_tiers->n_stays--;
	return 0;
}

void tiers_enter_osr(void);
__asm__(".pushsection .text\n"
	".type tiers_enter_osr, @function\n"
	"tiers_enter_osr:\n"
	"	push %rbp\n	mov %rsp, %rbp\n"
	"	push %rax\n	push %rdi\n	push %rsi\n	push %rdx\n	push %rcx\n	push %r8\n	push %r9\n"
	"	and $-16, %rsp\n"
	"	mov %r11, %rdi\n	mov %r10, %rsi\n"
	"	call tiers_hit\n"
	"	mov %rax, %r11\n	mov $-4, %r10\n"
	"	lea -56(%rbp), %rsp\n"
	"	pop %r9\n	pop %r8\n	pop %rcx\n	pop %rdx\n	pop %rsi\n	pop %rdi\n	pop %rax\n	pop %rbp\n"
	"	ret\n"
	".size tiers_enter_osr, . - tiers_enter_osr\n"
	".popsection\n");

/* -- Counting --- */
static int64_t method_at(void *userdata, uint64_t address)
{
	const struct tiers *t = userdata;
	const uint64_t distance = address - tier_layout_precode(&t->layout, 0);
	const uint64_t method = distance / TIER_PRECODE_SIZE;

	return method < t->image.n_methods && address == address_of(t, INSN_REF_METHOD, method) ? (int64_t)method : -1;
}

uint32_t *tiers_words(const struct tiers *t, uint32_t method)
{
	return (uint32_t *)tier_layout_cell(&t->layout, t->cells[method]);
}

static bool find_cells(struct tiers *t, struct refusal *refusal)
{
	uint64_t n = 0;

	for (uint32_t i = 0; i < t->image.n_methods; i++) {
		t->cells[i] = n;
		n += profile_n_words(image_method_insns(&t->image, i), t->image.methods[i].n_insns);
		if (n > TIERS_CELLS) {
			refuse(refusal, "the module counts more than %u words", TIERS_CELLS);
			return false;
		}
	}
	memset(tiers_words(t, 0), 0, n * sizeof(uint32_t));
	return true;
}

void tiers_forget_profiles(struct tiers *t)
{
	for (uint32_t i = 0; i < TIERS_METHODS; i++) {
		free(t->profiles[i].counts);
		t->profiles[i].counts = NULL;
		t->profiles[i].n = 0;
	}
}

static uint32_t profiled_method(void *context, uint64_t address)
{
	const int64_t method = method_at(context, address);

	return method < 0 ? PROFILE_NO_METHOD : method;
}

uint32_t tiers_n_words(const struct tiers *t)
{
	const uint32_t last = t->image.n_methods - 1;

	return t->cells[last] + profile_n_words(image_method_insns(&t->image, last), t->image.methods[last].n_insns);
}

bool tiers_read_profiles(struct tiers *t, struct refusal *refusal)
{
	tiers_forget_profiles(t);
	for (uint32_t i = 0; i < t->image.n_methods; i++) {
		_cleanup_(freep) struct profile_map *profile_map = NULL;
		_cleanup_(freep) struct profile_count *counts = NULL;

		if (!profile_map_new(&profile_map, image_method_insns(&t->image, i), t->image.methods[i].n_insns))
			counts = calloc(profile_map->n_sites, sizeof(*counts));
		if (!counts) {
			refuse(refusal, "out of memory");
			return false;
		}
		if (!profile_read(profile_map, tiers_words(t, i), profiled_method, t, counts))
			continue;
		t->profiles[i].n = profile_map->n_sites;
		t->profiles[i].counts = TAKE_PTR(counts);
	}
	return true;
}

bool tiers_load(struct tiers *t, const struct image *image, const reference_function *imports, struct refusal *refusal)
{
	if (!verify_image(image, refusal))
		return false;
	if (image->n_methods > TIERS_METHODS || image->n_imports > TIERS_IMPORTS || image->n_rodata > TIERS_SEGMENT
	    || image->n_data > TIERS_SEGMENT || image->n_bss > TIERS_SEGMENT) {
		refuse(refusal, "the module has more than %u methods, %u imports or %u bytes in a segment", TIERS_METHODS,
		       TIERS_IMPORTS, TIERS_SEGMENT);
		return false;
	}
	tiers_forget_profiles(t);
	t->image = *image;
	if (!find_cells(t, refusal) || !find_patchpoints(t, refusal))
		return false;
	((struct tier_private *)tier_layout_segment(&t->layout, TIER_SEGMENT_PRIVATE))->osr = (uintptr_t)tiers_enter_osr;
	for (uint32_t i = 0; i < image->n_imports; i++)
		import_cells(t)[i] = (uintptr_t)imports[i];
	for (uint32_t i = 0; i < image->n_methods; i++) {
		t->code[TIERS_0][i] = t->code[TIERS_1][i] = 0;
		record_of(t, i)->entry = record_of(t, i)->funcptr = tier_layout_precode(&t->layout, i);
		lead(t, i, tier_layout_thunk(&t->layout, TIER_THUNK_PRESTUB));
	}
	find_slots(t);
	tiers_reset(t);
	return true;
}

/* -- Compiling --- */
static bool reserve(struct tiers *t, size_t n, uint32_t align, struct refusal *refusal)
{
	const size_t n_fixed = TIER_PRECODES_OFFSET + TIERS_METHODS * TIER_PRECODE_SIZE;

	t->e.n = align_up(t->e.n, align);
	if (t->e.n + n <= TIERS_CODE)
		return true;
	t->e.n = align_up(n_fixed, align);
	mprotect(t->span, TIERS_CODE, PROT_READ);
	mprotect(t->span, TIERS_CODE, PROT_READ | PROT_EXEC);
	if (t->e.n + n <= TIERS_CODE)
		return true;
	refuse(refusal, "%zu bytes of code do not fit", n);
	return false;
}

static bool compile_tier0(struct tiers *t, uint32_t method, struct refusal *refusal)
{
	const struct baseline_module module = { .layout = &t->layout, .records = record_of(t, 0) };
	const struct insn *insns = image_method_insns(&t->image, method);
	const uint32_t n_insns = t->image.methods[method].n_insns;
	_cleanup_(freep) struct profile_map *profile = NULL;
	struct baseline_extra extra = {
		.profile_cell = t->cells[method],
		.patchpoints = t->patchpoints, .patchpoint = t->first_patchpoint[method], .osr_counter = 1,
	};
	struct flow *flow = NULL;
	int r = 0;

	if (t->counts)
		r = profile_map_new(&profile, insns, n_insns);
	extra.profile = profile;
	if (!r && !reserve(t, baseline_bound(insns, n_insns, &extra) + sizeof(uint64_t), 16, refusal))
		return false;
	t->code[TIERS_0][method] = emit_here(&t->e);
	if (!r)
		r = flow_new(&flow, insns, n_insns);
	if (!r)
		r = baseline_compile(&t->e, insns, flow, &module, &extra);
	flow_free(flow);
	if (r)
		refuse(refusal, "out of memory");
	return !r;
}

static uint64_t target_of(const struct tiers *t, const struct code_reloc *reloc)
{
	static const uint8_t refs[] = {
		[CODE_TARGET_METHOD] = INSN_REF_METHOD, [CODE_TARGET_RODATA] = INSN_REF_RODATA,
		[CODE_TARGET_DATA] = INSN_REF_DATA, [CODE_TARGET_BSS] = INSN_REF_BSS,
	};

	switch (reloc->target) {
	case CODE_TARGET_ENTRY:
		return tier_layout_entry(&t->layout, reloc->index);
	case CODE_TARGET_IMPORT:
		return tier_layout_import(&t->layout, reloc->index);
	case CODE_TARGET_CELLS:
		return tier_layout_cell(&t->layout, 0);
	default:
		return address_of(t, refs[reloc->target], reloc->index);
	}
}

/* As arena/place.c does it, which wants every address in the span as well */
static bool place(struct tiers *t, const struct code_result *code, uint64_t *ret, struct refusal *refusal)
{
	size_t begin;

	if (!reserve(t, code->n_bytes + sizeof(uint64_t), code->align, refusal))
		return false;
	begin = t->e.n;
	*ret = emit_here(&t->e) + code->entry;
	emit_bytes(&t->e, code->bytes, code->n_bytes);
	for (uint32_t i = 0; i < code->n_relocs; i++) {
		const struct code_reloc *reloc = &code->relocs[i];
		const uint64_t value = target_of(t, reloc) + reloc->addend;
		const int32_t relative = value - (t->e.address + begin + reloc->offset);

		if (value - t->layout.base >= t->layout.size) {
			refuse(refusal, "relocation %" PRIu32 " leads out of the span", i);
			return false;
		}
		if (reloc->kind == CODE_RELOC_ABSOLUTE)
			emit_patch(&t->e, begin + reloc->offset, &value, sizeof(value));
		else
			emit_patch(&t->e, begin + reloc->offset, &relative, sizeof(relative));
	}
	return true;
}

static uint32_t fill_bodies(const struct tiers *t, struct job_body *bodies, uint32_t method, bool inlines)
{
	uint32_t n = 1;

	for (uint32_t i = 0; i < t->image.n_methods; i++) {
		const uint32_t n_insns = t->image.methods[i].n_insns;

		if (i != method && (!inlines || n_insns > JOB_CANDIDATE_INSNS_MAX))
			continue;
		bodies[i == method ? 0 : n++] = (struct job_body){
			.method = i,
			.n_insns = n_insns,
			.insns = image_method_insns(&t->image, i),
			.name = image_method_name(&t->image, i),
			.profile = t->profiles[i].counts,
			.n_profile = t->profiles[i].n,
		};
	}
	return n;
}

static struct job_compile job_of(const struct tiers *t, struct job_body *bodies, uint32_t method, bool inlines)
{
	const struct image *image = &t->image;
	struct job_compile job = {
		.level = TIER_LEVEL_TIER1, .method = method, .n_methods = image->n_methods, .n_imports = image->n_imports,
		.n_rodata = image->n_rodata, .n_data = image->n_data, .n_bss = image->n_bss, .n_slots = t->layout.n_slots,
		.bodies = bodies,
	};

	if (job.n_slots) {
		job.slots = t->layout.slots - t->layout.rodata;
		job.call_cells = t->layout.call_cells - t->layout.rodata;
	}
	if (t->folds) {
		job.rodata = image->rodata;
		job.relocs = image->relocs;
		while (job.n_relocs < image->n_relocs && image->relocs[job.n_relocs].segment == IMAGE_RODATA)
			job.n_relocs++;
	}
	if (t->far) {
		job.data = t->layout.base + t->layout.data;
		job.bss = t->layout.base + t->layout.bss;
	}
	if (t->counts) {
		job.level = TIER_LEVEL_TIER1_INSTRUMENTED;
		job.profile = t->cells[method];
		job.n_cells = t->layout.n_cells;
	}
	job.n_bodies = fill_bodies(t, bodies, method, inlines);
	return job;
}

static bool compile_job(struct tiers *t, const struct job_compile *job, uint64_t *ret, struct refusal *refusal)
{
	_cleanup_(freep) void *block = NULL;
	struct code_result code;

	return codegen_compile(job, &code, &block, refusal) && place(t, &code, ret, refusal);
}

static struct job_body *bodies_new(const struct tiers *t, struct refusal *refusal)
{
	struct job_body *bodies = calloc(t->image.n_methods, sizeof(*bodies));

	if (!bodies)
		refuse(refusal, "out of memory");
	return bodies;
}

static bool compile_tier1(struct tiers *t, uint32_t method, bool inlines, struct refusal *refusal)
{
	_cleanup_(freep) struct job_body *bodies = bodies_new(t, refusal);
	struct job_compile job;

	if (!bodies)
		return false;
	job = job_of(t, bodies, method, inlines);
	return compile_job(t, &job, &t->code[TIERS_1][method], refusal);
}

bool tiers_compile_osr(struct tiers *t, uint32_t method, uint32_t pc, bool inlines, uint64_t *ret, struct refusal *refusal)
{
	_cleanup_(freep) struct job_body *bodies = bodies_new(t, refusal);
	struct job_compile job;

	if (!bodies)
		return false;
	job = job_of(t, bodies, method, inlines);
	job.level = TIER_LEVEL_OSR;
	job.osr_pc = pc;
	return compile_job(t, &job, ret, refusal);
}

bool tiers_compile_patchpoints(struct tiers *t, uint32_t method, bool inlines, struct refusal *refusal)
{
	for (uint32_t i = t->first_patchpoint[method]; i < t->first_patchpoint[method + 1]; i++) {
		struct tier_patchpoint *patchpoint = patchpoint_of(t, i);

		if (!tiers_compile_osr(t, method, patchpoint->pc, inlines, &patchpoint->code, refusal))
			return false;
	}
	return true;
}

bool tiers_compile(struct tiers *t, enum tiers_kind kind, uint32_t method, bool inlines, struct refusal *refusal)
{
	return kind == TIERS_0 ? compile_tier0(t, method, refusal) : compile_tier1(t, method, inlines, refusal);
}

bool tiers_compile_all(struct tiers *t, enum tiers_kind kind, bool inlines, struct refusal *refusal)
{
	for (uint32_t i = 0; i < t->image.n_methods; i++) {
		if (!tiers_compile(t, kind, i, inlines, refusal))
			return false;
		tiers_select(t, kind, i);
	}
	return true;
}

/* As DESIGN §4 has it: a final tier is what direct calls, slots and pointers reach, others only what the precode leads to. */
void tiers_select(struct tiers *t, enum tiers_kind kind, uint32_t method)
{
	struct tier_record *record = record_of(t, method);

	lead(t, method, t->code[kind][method]);
	record->entry = record->funcptr = kind == TIERS_1 ? t->code[kind][method] : tier_layout_precode(&t->layout, method);
	for (uint32_t i = 0; i < t->image.n_relocs; i++)
		if (is_slot(&t->image.relocs[i]) && t->image.relocs[i].index == method)
			*cell_of(t, &t->image.relocs[i]) = record->entry;
}

/* -- Running --- */
static uint64_t method_address(void *userdata, uint32_t method)
{
	const struct tiers *t = userdata;

	return address_of(t, INSN_REF_METHOD, method);
}

const char *tiers_interpret(struct tiers *t, uint32_t method, const uint64_t args[5], uint64_t *ret)
{
	struct reference reference = {
		.image = &t->image,
		.rodata = t->layout.base + t->layout.rodata,
		.data = t->layout.base + t->layout.data,
		.bss = t->layout.base + t->layout.bss,
		.imports = (const reference_function *)import_cells(t),
		.method_address = method_address,
		.method_at = method_at,
		.leave = t->leave,
		.userdata = t,
		.n_steps = t->n_steps,
	};

	return reference_call(&reference, method, args, ret) ? NULL : reference.fault;
}

/* rbx, rbp, r12..r15 = @patterns, the five arguments, call @code; what those six hold afterwards goes to @after. rax and
 * r9..r11 hold rubbish on the way in, as they may. */
uint64_t tiers_enter(uint64_t code, const uint64_t args[5], const uint64_t patterns[6], uint64_t after[6]);
__asm__(".pushsection .text\n"
	".type tiers_enter, @function\n"
	"tiers_enter:\n"
	"	push %rbp\n	push %rbx\n	push %r12\n	push %r13\n	push %r14\n	push %r15\n	push %rcx\n"
	"	mov %rdi, %r11\n	mov %rsi, %r10\n"
	"	mov (%rdx), %rbx\n	mov 8(%rdx), %rbp\n	mov 16(%rdx), %r12\n"
	"	mov 24(%rdx), %r13\n	mov 32(%rdx), %r14\n	mov 40(%rdx), %r15\n"
	"	mov (%r10), %rdi\n	mov 8(%r10), %rsi\n	mov 16(%r10), %rdx\n	mov 24(%r10), %rcx\n	mov 32(%r10), %r8\n"
	"	mov $-1, %rax\n	mov $-2, %r9\n	mov $-3, %r10\n"
	"	call *%r11\n"
	"	pop %rcx\n"
	"	mov %rbx, (%rcx)\n	mov %rbp, 8(%rcx)\n	mov %r12, 16(%rcx)\n"
	"	mov %r13, 24(%rcx)\n	mov %r14, 32(%rcx)\n	mov %r15, 40(%rcx)\n"
	"	pop %r15\n	pop %r14\n	pop %r13\n	pop %r12\n	pop %rbx\n	pop %rbp\n"
	"	ret\n"
	".size tiers_enter, . - tiers_enter\n"
	".popsection\n");

static const char *enter(uint64_t code, const uint64_t args[5], uint64_t *ret)
{
	static const uint64_t patterns[6] = {
		0x1b1b1b1b1b1b1b1b, 0x2c2c2c2c2c2c2c2c, 0x3d3d3d3d3d3d3d3d,
		0x4e4e4e4e4e4e4e4e, 0x5f5f5f5f5f5f5f5f, 0x6a6a6a6a6a6a6a6a,
	};
	uint64_t after[6];

	*ret = tiers_enter(code, args, patterns, after);
	return memcmp(after, patterns, sizeof(after)) ? "the code changed a register that a C function keeps" : NULL;
}

const char *tiers_call(struct tiers *t, uint32_t method, const uint64_t args[5], uint64_t *ret)
{
	hit_tiers = t;
	return enter(tier_layout_precode(&t->layout, method), args, ret);
}

const char *tiers_call_osr(uint64_t code, const uint64_t registers[INSN_R10], uint64_t frame, uint64_t *ret)
{
	const uint64_t args[5] = { (uintptr_t)registers, frame, 0xdead, 0xdead, 0xdead };

	return enter(code, args, ret);
}
