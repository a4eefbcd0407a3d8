/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <string.h>
#include "bytecode/decode.h"
#include "util/base.h"
#include "util/error.h"
#include "worker/job.h"

/* The two formats, each a header with counts and then its tables without gaps:
 *
 *   compile   header | row[n_bodies] | insn[n_insns], body after body | count[n_counts], likewise | image_reloc[n_relocs]
 *             | names, each with its NUL | rodata
 *   code      header | reloc[n_relocs] | inlined[n_inlined] | bytes
 *
 * There are no offsets to check: whatever follows from the counts must end exactly where the block ends. */

#define JOB_COMPILE_MAGIC 0x33504d4352454954ull	/* "TIERCMP3" */
#define JOB_CODE_MAGIC 0x31444f4352454954ull	/* "TIERCOD1" */

struct compile_header {
	uint64_t magic;
	uint32_t level, method;
	uint32_t n_methods, n_imports;
	uint32_t n_rodata, n_data, n_bss;
	uint32_t has_rodata;	/* 1: n_rodata bytes follow the names */
	uint32_t n_bodies;
	uint32_t n_insns;	/* of all bodies */
	uint32_t n_names;	/* bytes of all names, terminators included */
	uint32_t n_counts;	/* of all bodies' profiles */
	uint32_t n_relocs;
	uint32_t slots, n_slots, call_cells;
	uint32_t osr_pc;
	uint32_t profile, n_cells;
	uint32_t reserved;	/* 0 */
	uint64_t data, bss;
};
static_assert(sizeof(struct compile_header) == 8 + 20 * 4 + 2 * 8, "no padding, and rows follow aligned");

struct compile_row {
	uint32_t method, n_insns, n_counts;
	uint32_t reserved;	/* 0 */
};
static_assert(sizeof(struct compile_row) % 8 == 0 && sizeof(struct profile_count) % 8 == 0, "what follows is aligned");

struct code_header {
	uint64_t magic;
	uint32_t n_bytes, align, entry;
	uint32_t n_relocs, n_inlined;
	uint32_t reserved;
};
static_assert(sizeof(struct code_header) % 8 == 0, "relocations follow aligned");

/* A jump or a call takes LLVM as long as so many straight slots more, if there are many; a callx may be one through a slot, with
 * jumps of its own. */
#define JUMP_WEIGHT 6u
#define CALLX_WEIGHT 3u
#define CALL_WEIGHT 1u

static uint32_t weight_of(const struct insn *insn)
{
	if (insn_is_jump(insn))
		return JUMP_WEIGHT;
	if (insn_is_callx(insn))
		return CALLX_WEIGHT;
	return insn->code == (BPF_JMP | BPF_CALL) ? CALL_WEIGHT : 0;
}

bool job_is_too_large(const struct insn *insns, uint32_t n_insns)
{
	uint32_t weight = n_insns;

	if (n_insns <= JOB_INSNS_SURE || n_insns > JOB_INSNS_MAX)
		return n_insns > JOB_INSNS_MAX;
	for (uint32_t pc = 0; pc < n_insns; pc += insn_slots(&insns[pc]))
		weight += weight_of(&insns[pc]);
	return weight > JOB_INSNS_MAX;
}

static void *put(void *at, const void *p, size_t n)
{
	if (n)
		memcpy(at, p, n);
	return (char *)at + n;
}

static void *put_compile_tables(void *at, const struct job_compile *job)
{
	for (uint32_t i = 0; i < job->n_bodies; i++) {
		const struct job_body *body = &job->bodies[i];
		struct compile_row row = { .method = body->method, .n_insns = body->n_insns, .n_counts = body->n_profile };

		at = put(at, &row, sizeof(row));
	}
	for (uint32_t i = 0; i < job->n_bodies; i++)
		at = put(at, job->bodies[i].insns, sizeof(struct insn) * job->bodies[i].n_insns);
	for (uint32_t i = 0; i < job->n_bodies; i++)
		at = put(at, job->bodies[i].profile, sizeof(struct profile_count) * job->bodies[i].n_profile);
	at = put(at, job->relocs, sizeof(struct image_reloc) * job->n_relocs);
	for (uint32_t i = 0; i < job->n_bodies; i++)
		at = put(at, job->bodies[i].name, strlen(job->bodies[i].name) + 1);
	return job->rodata ? put(at, job->rodata, job->n_rodata) : at;
}

static uint64_t compile_size(const struct compile_header *header)
{
	return sizeof(*header) + (uint64_t)header->n_bodies * sizeof(struct compile_row)
	     + (uint64_t)header->n_insns * sizeof(struct insn) + (uint64_t)header->n_counts * sizeof(struct profile_count)
	     + (uint64_t)header->n_relocs * sizeof(struct image_reloc) + header->n_names
	     + (header->has_rodata ? header->n_rodata : 0);
}

int job_put_compile(const struct job_compile *job, void **ret_bytes, size_t *ret_n)
{
	struct compile_header header = {
		.magic = JOB_COMPILE_MAGIC,
		.level = job->level,
		.method = job->method,
		.n_methods = job->n_methods,
		.n_imports = job->n_imports,
		.n_rodata = job->n_rodata,
		.n_data = job->n_data,
		.n_bss = job->n_bss,
		.slots = job->slots,
		.n_slots = job->n_slots,
		.call_cells = job->call_cells,
		.osr_pc = job->osr_pc,
		.profile = job->profile,
		.n_cells = job->n_cells,
		.data = job->data,
		.bss = job->bss,
		.has_rodata = job->rodata != NULL,
		.n_relocs = job->n_relocs,
		.n_bodies = job->n_bodies,
	};
	size_t n;
	void *bytes;

	for (uint32_t i = 0; i < job->n_bodies; i++) {
		header.n_insns += job->bodies[i].n_insns;
		header.n_counts += job->bodies[i].n_profile;
		header.n_names += strlen(job->bodies[i].name) + 1;
	}
	n = compile_size(&header);
	bytes = malloc(n);
	if (!bytes)
		return error_origin(-ENOMEM);
	put_compile_tables(put(bytes, &header, sizeof(header)), job);
	*ret_bytes = bytes;
	*ret_n = n;
	return 0;
}

static bool refused(struct refusal *refusal, const char *what)
{
	refuse(refusal, "malformed job: %s", what);
	return false;
}

static bool slots_check(const struct compile_header *header)
{
	if (!header->n_slots)
		return !header->slots && !header->call_cells;
	return header->slots % 8 == 0 && header->n_slots % 8 == 0 && header->slots <= header->n_rodata
	    && header->n_slots <= header->n_rodata - header->slots && header->call_cells >= header->n_rodata
	    && header->call_cells % 8 == 0 && header->call_cells <= JOB_CALL_CELLS_MAX;
}

/* What only some levels have; and addresses that nothing of a segment could wrap around from */
static bool level_check(const struct compile_header *header, struct refusal *refusal)
{
	if (header->level >= _TIER_LEVEL_N)
		return refused(refusal, "unknown tier");
	if (header->level != TIER_LEVEL_OSR && header->osr_pc)
		return refused(refusal, "only OSR begins elsewhere than at the entry");
	if (header->level != TIER_LEVEL_TIER1_INSTRUMENTED && (header->profile || header->n_cells))
		return refused(refusal, "only instrumented code counts");
	if (header->profile % 2 || header->profile > header->n_cells || header->n_cells > JOB_CELLS_MAX)
		return refused(refusal, "the cells to count in are out of range");
	if (header->data > JOB_ADDRESS_MAX || header->bss > JOB_ADDRESS_MAX)
		return refused(refusal, "a segment lies where no process has memory");
	return true;
}

static bool compile_header_check(const struct compile_header *header, size_t n, struct refusal *refusal)
{
	if (header->magic != JOB_COMPILE_MAGIC)
		return refused(refusal, "not a compile job");
	if (!level_check(header, refusal))
		return false;
	if (header->n_methods > IMAGE_METHODS_MAX || header->n_imports > IMAGE_IMPORTS_MAX)
		return refused(refusal, "more methods or imports than a module may have");
	if (header->n_rodata > IMAGE_SEGMENT_MAX || header->n_data > IMAGE_SEGMENT_MAX || header->n_bss > IMAGE_SEGMENT_MAX)
		return refused(refusal, "a segment is larger than a module's may be");
	if (!header->n_bodies || header->n_bodies > header->n_methods || header->n_insns > IMAGE_INSNS_MAX)
		return refused(refusal, "the number of bodies or instructions is out of range");
	if (header->has_rodata > 1 || header->reserved)
		return refused(refusal, "a reserved field is set");
	if (header->n_counts > header->n_insns + header->n_bodies)
		return refused(refusal, "more is counted than there is to count");
	if (!header->has_rodata && header->n_relocs)
		return refused(refusal, "pointers of a .rodata that was not sent");
	if (!slots_check(header))
		return refused(refusal, "the slots do not lie in .rodata, or their cells not behind it");
	if (n != compile_size(header))
		return refused(refusal, "its size does not follow from its counts");
	return true;
}

/* Where the tables of a block lie whose counts are checked */
struct compile_tables {
	const struct compile_row *rows;
	const struct insn *insns;
	const struct profile_count *counts;
	const struct image_reloc *relocs;
	const char *names;
	const uint8_t *rodata;		/* NULL: not sent */
};

static struct compile_tables compile_tables(const struct compile_header *header)
{
	struct compile_tables tables = { .rows = (const void *)(header + 1) };

	tables.insns = (const void *)(tables.rows + header->n_bodies);
	tables.counts = (const void *)(tables.insns + header->n_insns);
	tables.relocs = (const void *)(tables.counts + header->n_counts);
	tables.names = (const void *)(tables.relocs + header->n_relocs);
	tables.rodata = header->has_rodata ? (const uint8_t *)tables.names + header->n_names : NULL;
	return tables;
}

/* As the image has them, but those of one segment. */
static bool relocs_check(const struct compile_header *header, const struct compile_tables *tables, struct refusal *refusal)
{
	const struct image module = { .n_methods = header->n_methods, .n_imports = header->n_imports, .n_rodata = header->n_rodata,
				      .n_data = header->n_data, .n_bss = header->n_bss };
	static const uint8_t zeroes[8];
	uint64_t end = 0;

	for (uint32_t i = 0; i < header->n_relocs; i++) {
		const struct image_reloc *reloc = &tables->relocs[i];

		if (reloc->segment != IMAGE_RODATA || reloc->pad || (reloc->width != 8 && reloc->width != 4))
			return refused(refusal, "a pointer of .rodata has an unknown form");
		if (reloc->offset < end || (uint64_t)reloc->offset + reloc->width > header->n_rodata)
			return refused(refusal, "a pointer lies outside .rodata or overlaps another");
		if (!image_ref_exists(&module, reloc->ref, reloc->index, reloc->addend))
			return refused(refusal, "a pointer of .rodata leads to nothing");
		if (memcmp(tables->rodata + reloc->offset, zeroes, reloc->width))
			return refused(refusal, "a pointer of .rodata is there already");
		end = (uint64_t)reloc->offset + reloc->width;
	}
	return true;
}

/* What bytecode/profile.h promises of counts; whether they belong to the instructions there, who uses them asks. */
static bool counts_check(const struct compile_header *header, const struct compile_row *row, const struct profile_count *counts)
{
	for (uint32_t i = 0; i < row->n_counts; i++) {
		const struct profile_count *count = &counts[i];

		if (count->kind >= _PROFILE_KIND_N || (count->kind == PROFILE_ENTRY) != (i == 0) || count->reserved)
			return false;
		if (count->pc >= row->n_insns || (i == 0 && count->pc) || (i > 1 && count->pc <= count[-1].pc))
			return false;
		if (count->m > (count->kind == PROFILE_BRANCH || count->kind == PROFILE_CALLX ? count->n : 0))
			return false;
		if (count->method != PROFILE_NO_METHOD && (count->kind != PROFILE_CALLX || count->method >= header->n_methods))
			return false;
	}
	return true;
}

/* Rows to bodies; the instructions must be as many as the header says. */
static bool get_bodies(struct job_body *bodies, const struct compile_header *header, const struct compile_tables *tables,
		       struct refusal *refusal)
{
	const struct compile_row *rows = tables->rows;
	const char *names = tables->names;
	uint32_t n_insns = 0, n_names = 0, n_counts = 0;

	for (uint32_t i = 0; i < header->n_bodies; i++) {
		size_t length = strnlen(names + n_names, header->n_names - n_names);

		if (rows[i].method >= header->n_methods)
			return refused(refusal, "a body's method does not exist");
		if (!rows[i].n_insns || rows[i].n_insns > header->n_insns - n_insns)
			return refused(refusal, "a body's instructions are out of range");
		if (rows[i].n_counts > header->n_counts - n_counts || rows[i].reserved
		    || !counts_check(header, &rows[i], tables->counts + n_counts))
			return refused(refusal, "a body's profile is none");
		if (length == header->n_names - n_names || length > IMAGE_NAME_MAX)
			return refused(refusal, "a body's name is not terminated or too long");
		bodies[i] = (struct job_body){ .method = rows[i].method, .n_insns = rows[i].n_insns,
					       .insns = tables->insns + n_insns, .name = names + n_names,
					       .profile = rows[i].n_counts ? tables->counts + n_counts : NULL,
					       .n_profile = rows[i].n_counts };
		n_insns += rows[i].n_insns;
		n_counts += rows[i].n_counts;
		n_names += length + 1;
	}
	if (n_insns != header->n_insns || n_names != header->n_names || n_counts != header->n_counts)
		return refused(refusal, "instructions, names or counts are left over");
	if (bodies[0].method != header->method)
		return refused(refusal, "the first body is not the method to compile");
	if (header->osr_pc >= bodies[0].n_insns)
		return refused(refusal, "the code is to begin behind the method's end");
	return true;
}

bool job_get_compile(struct job_compile *ret, const void *bytes, size_t n, struct refusal *refusal)
{
	_cleanup_(freep) struct job_body *bodies = NULL;
	const struct compile_header *header = bytes;
	struct compile_tables tables;

	if (n < sizeof(*header))
		return refused(refusal, "shorter than its header");
	if (!compile_header_check(header, n, refusal))
		return false;
	tables = compile_tables(header);
	if (!relocs_check(header, &tables, refusal))
		return false;
	bodies = calloc(header->n_bodies, sizeof(*bodies));
	if (!bodies)
		return refused(refusal, "out of memory");
	if (!get_bodies(bodies, header, &tables, refusal))
		return false;
	*ret = (struct job_compile){
		.level = header->level,
		.method = header->method,
		.n_methods = header->n_methods,
		.n_imports = header->n_imports,
		.n_rodata = header->n_rodata,
		.n_data = header->n_data,
		.n_bss = header->n_bss,
		.slots = header->slots,
		.n_slots = header->n_slots,
		.call_cells = header->call_cells,
		.osr_pc = header->osr_pc,
		.profile = header->profile,
		.n_cells = header->n_cells,
		.data = header->data,
		.bss = header->bss,
		.rodata = tables.rodata,
		.relocs = header->n_relocs ? tables.relocs : NULL,
		.n_relocs = header->n_relocs,
		.n_bodies = header->n_bodies,
		.bodies = TAKE_PTR(bodies),
	};
	return true;
}

static uint64_t code_size(const struct code_header *header)
{
	return sizeof(*header) + (uint64_t)header->n_relocs * sizeof(struct code_reloc)
	     + (uint64_t)header->n_inlined * sizeof(uint32_t) + header->n_bytes;
}

int job_put_code(const struct code_result *code, void **ret_bytes, size_t *ret_n)
{
	struct code_header header = {
		.magic = JOB_CODE_MAGIC,
		.n_bytes = code->n_bytes,
		.align = code->align,
		.entry = code->entry,
		.n_relocs = code->n_relocs,
		.n_inlined = code->n_inlined,
	};
	size_t n = code_size(&header);
	void *bytes, *at;

	bytes = malloc(n);
	if (!bytes)
		return error_origin(-ENOMEM);
	at = put(bytes, &header, sizeof(header));
	at = put(at, code->relocs, sizeof(*code->relocs) * code->n_relocs);
	at = put(at, code->inlined, sizeof(*code->inlined) * code->n_inlined);
	put(at, code->bytes, code->n_bytes);
	*ret_bytes = bytes;
	*ret_n = n;
	return 0;
}

static bool code_header_check(const struct code_header *header, size_t n, struct refusal *refusal)
{
	if (header->magic != JOB_CODE_MAGIC)
		return refused(refusal, "not compiled code");
	if (!header->n_bytes || header->n_bytes > CODE_BYTES_MAX || header->entry >= header->n_bytes)
		return refused(refusal, "the code is empty or too large, or its entry lies outside");
	if (!is_power_of_two(header->align) || header->align < 16 || header->align > 4096)
		return refused(refusal, "the code's alignment is not a power of two from 16 to 4096");
	if (header->n_relocs > MIN(header->n_bytes / 4, CODE_RELOCS_MAX) || header->n_inlined > IMAGE_METHODS_MAX || header->reserved)
		return refused(refusal, "more relocations or inlined methods than possible");
	if (n != code_size(header))
		return refused(refusal, "its size does not follow from its counts");
	return true;
}

static bool code_relocs_check(const struct code_reloc *relocs, const struct code_header *header, struct refusal *refusal)
{
	uint32_t end = 0;

	for (uint32_t i = 0; i < header->n_relocs; i++) {
		uint32_t size = code_reloc_size(&relocs[i]);

		if (relocs[i].target >= _CODE_TARGET_N || relocs[i].kind >= _CODE_RELOC_N)
			return refused(refusal, "a relocation or its target is of an unknown kind");
		if (relocs[i].offset < end || header->n_bytes < size || relocs[i].offset > header->n_bytes - size)
			return refused(refusal, "a relocation overlaps another, is out of order or lies outside the code");
		end = relocs[i].offset + size;
	}
	return true;
}

bool job_get_code(struct code_result *ret, const void *bytes, size_t n, struct refusal *refusal)
{
	const struct code_header *header = bytes;
	const struct code_reloc *relocs;
	const uint32_t *inlined;

	if (n < sizeof(*header))
		return refused(refusal, "shorter than its header");
	if (!code_header_check(header, n, refusal))
		return false;
	relocs = (const void *)(header + 1);
	inlined = (const void *)(relocs + header->n_relocs);
	if (!code_relocs_check(relocs, header, refusal))
		return false;
	for (uint32_t i = 1; i < header->n_inlined; i++)
		if (inlined[i] <= inlined[i - 1])
			return refused(refusal, "inlined methods are not in ascending order");
	*ret = (struct code_result){
		.bytes = (const uint8_t *)(inlined + header->n_inlined),
		.n_bytes = header->n_bytes,
		.align = header->align,
		.entry = header->entry,
		.relocs = relocs,
		.n_relocs = header->n_relocs,
		.inlined = inlined,
		.n_inlined = header->n_inlined,
	};
	return true;
}
