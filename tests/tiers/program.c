/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "bytecode/builder.h"
#include "tiers/program.h"
#include "util/base.h"

/* src_reg in the kernel's conventions */
#define KERNEL_CALL_LOCAL 1	/* call: imm is a distance in slots */
#define KERNEL_CODE_ADDRESS 4	/* lddw: imm is a distance in slots */

struct program {
	struct insn *insns;	/* a copy, normalized in place */
	uint32_t n;
	uint32_t *methods;	/* per slot: index + 1 of the method that begins there; 1 is enough of a mark at first */
	struct refusal *refusal;
};

/* Whether the instruction names a slot by its distance */
static bool names_slot(const struct insn *insn)
{
	return (insn->code == (BPF_JMP | BPF_CALL) && insn->src == KERNEL_CALL_LOCAL)
	    || (insn_is_lddw(insn) && insn->src == KERNEL_CODE_ADDRESS);
}

static bool mark_method(struct program *p, uint32_t pc)
{
	const int64_t target = (int64_t)pc + 1 + p->insns[pc].imm;

	if (target < 0 || target >= p->n) {
		refuse(p->refusal, "offset 0x%" PRIx32 ": calls outside the program", pc * 8);
		return false;
	}
	p->methods[target] = 1;
	return true;
}

static bool mark_methods(struct program *p)
{
	p->methods[0] = 1;
	for (uint32_t pc = 0; pc < p->n; pc += insn_slots(&p->insns[pc])) {
		const struct insn *insn = &p->insns[pc];

		if (insn_is_lddw(insn) && insn->src && insn->src != KERNEL_CODE_ADDRESS) {
			refuse(p->refusal, "offset 0x%" PRIx32 ": pointers to kernel maps and variables are not supported",
			       pc * 8);
			return false;
		}
		if (names_slot(insn) && !mark_method(p, pc))
			return false;
	}
	return true;
}

static void normalize(struct program *p, uint32_t pc)
{
	struct insn *insn = &p->insns[pc];

	if (insn_is_lddw(insn) && pc + 1 < p->n && insn->src == KERNEL_CODE_ADDRESS) {
		insn[1].imm = p->methods[pc + 1 + insn->imm] - 1;
		insn->src = INSN_REF_METHOD;
		insn->imm = 0;
	} else if (names_slot(insn)) {
		insn->imm = p->methods[pc + 1 + insn->imm] - 1;
		insn->src = INSN_CALL_METHOD;
	} else if (insn_is_callx(insn) && !insn->dst && insn->imm > 0 && insn->imm < _INSN_REG_N) {
		insn->dst = insn->imm;		/* LLVM up to 18 */
		insn->imm = 0;
	}
}

static int build(struct program *p, void **ret, size_t *ret_n)
{
	struct builder builder = BUILDER_NULL;
	uint32_t text = builder_string(&builder, ".text"), n_methods = 0, n;
	char name[32];
	int r;

	for (uint32_t pc = 0; pc < p->n; pc++)
		if (p->methods[pc])
			p->methods[pc] = ++n_methods;
	for (uint32_t pc = 0; pc < p->n; pc += insn_slots(&p->insns[pc]))
		normalize(p, pc);
	for (uint32_t pc = 0; pc < p->n; pc += n) {
		for (n = 1; pc + n < p->n && !p->methods[pc + n]; n++)
			;
		snprintf(name, sizeof(name), "at%" PRIu32, pc);
		builder_method(&builder, name, text, pc * 8, 0, &p->insns[pc], n);
	}
	r = builder_finish(&builder, ret, ret_n);
	builder_deinit(&builder);
	return r;
}

bool program_to_image(const struct insn *insns, uint32_t n, void **ret, size_t *ret_n, struct refusal *refusal)
{
	_cleanup_(freep) struct insn *copy = calloc(n + 1, sizeof(*copy));
	_cleanup_(freep) uint32_t *methods = calloc(n + 1, sizeof(*methods));
	struct program p = { .insns = copy, .n = n, .methods = methods, .refusal = refusal };

	if (!n) {
		refuse(refusal, "the program has no instructions");
		return false;
	}
	if (!copy || !methods) {
		refuse(refusal, "out of memory");
		return false;
	}
	memcpy(copy, insns, n * sizeof(*insns));
	if (!mark_methods(&p))
		return false;
	if (build(&p, ret, ret_n)) {
		refuse(refusal, "the program is too large");
		return false;
	}
	return true;
}

/* -- Helpers --- */
static void copy_tables(struct builder *builder, const struct image *image)
{
	const uint32_t *align = image->header->align;

	for (uint32_t i = 0; i < image->n_imports; i++)
		builder_import(builder, image_import_name(image, i), image->imports[i].flags);
	for (uint32_t i = 0; i < image->n_relocs; i++)
		builder_reloc(builder, &image->relocs[i]);
	builder_segment(builder, IMAGE_RODATA, image->rodata, image->n_rodata, align[IMAGE_RODATA]);
	builder_segment(builder, IMAGE_DATA, image->data, image->n_data, align[IMAGE_DATA]);
	builder_segment(builder, IMAGE_BSS, NULL, image->n_bss, align[IMAGE_BSS]);
}

static void bind_calls(struct insn *insns, uint32_t n, int32_t number, uint32_t import)
{
	for (uint32_t pc = 0; pc < n; pc += insn_slots(&insns[pc])) {
		if (insns[pc].code != (BPF_JMP | BPF_CALL) || insns[pc].src != INSN_CALL_HELPER || insns[pc].imm != number)
			continue;
		insns[pc].src = INSN_CALL_IMPORT;
		insns[pc].imm = import;
	}
}

bool program_bind_helper(const struct image *image, int32_t number, void **ret_bytes, struct image *ret,
			 struct refusal *refusal)
{
	_cleanup_(freep) struct insn *insns = calloc(image->n_insns + 1, sizeof(*insns));
	struct builder builder = BUILDER_NULL;
	uint32_t import;
	size_t n;
	int r;

	if (!insns) {
		refuse(refusal, "out of memory");
		return false;
	}
	memcpy(insns, image->insns, image->n_insns * sizeof(*insns));
	copy_tables(&builder, image);
	import = builder_import(&builder, "helper", 0);
	for (uint32_t i = 0; i < image->n_methods; i++) {
		const struct image_method *m = &image->methods[i];

		bind_calls(insns + m->insn, m->n_insns, number, import);
		builder_method(&builder, image->strings + m->name, builder_string(&builder, image->strings + m->section),
			       m->section_offset, m->flags, insns + m->insn, m->n_insns);
	}
	r = builder_finish(&builder, ret_bytes, &n);
	builder_deinit(&builder);
	if (r)
		refuse(refusal, "the program is too large");
	return !r && image_check(*ret_bytes, n, ret, refusal);
}
