/* SPDX-License-Identifier: Apache-2.0 */
/* Binding a body into a module
 *
 * Each reference of the source (a lddw, a call, a pointer in .rodata) is first turned into a struct bound: what of the target
 * it means, found by name. What has a name, and which, differs:
 *
 *   method      its name, but the replaced function means the method itself
 *   import      its name, which in the target may be a method, a variable or an import
 *   .data .bss  the name of the variable that lies there; the rest of the offset stays
 *   .rodata     nothing: it is the body's own, an address that bound_body_place() fills in
 *
 * Then each kind of reference writes what it found into its field. Slots of instructions and of .rodata stay where they were,
 * so that bound_body_place() can walk the source beside the result. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include "bytecode/bind.h"
#include "bytecode/verify.h"
#include "util/base.h"
#include "util/error.h"

/* what of the target a reference means; RODATA is the target's */
struct bound {
	enum insn_ref ref;
	uint32_t index;
	int64_t offset;
};

struct bind {
	const struct bind_target *target;
	const struct image *source;
	uint32_t method;	/* of the source */
	struct refusal *refusal;
};

void bound_body_deinit(struct bound_body *body)
{
	free(body->insns);
	free(body->rodata);
	*body = (struct bound_body)BOUND_BODY_NULL;
}

/* -- Names --- */
static bool bind_find_method(const struct bind *b, const char *name, struct bound *ret)
{
	int64_t index = b->target->find_method(b->target->context, name);

	*ret = (struct bound){ .ref = INSN_REF_METHOD, .index = index };
	return index >= 0;
}

static bool bind_find_import(const struct bind *b, const char *name, struct bound *ret)
{
	int64_t index = b->target->find_import(b->target->context, name);

	*ret = (struct bound){ .ref = INSN_REF_IMPORT, .index = index };
	return index >= 0;
}

static int bind_refuse_name(const struct bind *b, int64_t found, const char *what, const char *name)
{
	if (found == BIND_AMBIGUOUS)
		refuse(b->refusal, "the module has several variables '%s'", name);
	else
		refuse(b->refusal, "the module has no %s '%s', which the new body uses", what, name);
	return BIND_E_UNBOUND;
}

static struct bound bound_object(const struct bind *b, uint32_t object)
{
	static const enum insn_ref refs[] = {
		[IMAGE_RODATA] = INSN_REF_RODATA, [IMAGE_DATA] = INSN_REF_DATA, [IMAGE_BSS] = INSN_REF_BSS,
	};
	const struct image_object *o = &b->target->image->objects[object];

	return (struct bound){ .ref = refs[o->segment], .offset = o->offset };
}

/* -- What a reference means --- */
static int bind_method(const struct bind *b, uint32_t index, struct bound *ret)
{
	const char *name = image_method_name(b->source, index);

	if (index == b->method) {
		*ret = (struct bound){ .ref = INSN_REF_METHOD, .index = b->target->method };
		return 0;
	}
	if (bind_find_method(b, name, ret) || bind_find_import(b, name, ret))
		return 0;
	return bind_refuse_name(b, -1, "function", name);
}

static int bind_import(const struct bind *b, uint32_t index, struct bound *ret)
{
	const char *name = image_import_name(b->source, index);
	int64_t object;

	if (bind_find_method(b, name, ret))
		return 0;
	object = b->target->find_object(b->target->context, name);
	if (object >= 0) {
		*ret = bound_object(b, object);
		return 0;
	}
	if (object != BIND_AMBIGUOUS && bind_find_import(b, name, ret))
		return 0;
	return bind_refuse_name(b, object, "function, variable or import", name);
}

/* A byte of the source's .data or .bss */
static int bind_variable(const struct bind *b, enum image_segment segment, int64_t offset, struct bound *ret)
{
	int64_t index = image_object_at(b->source, segment, offset), found;
	const struct image_object *own, *object;
	const char *name;

	if (index < 0) {
		refuse(b->refusal, "the new body uses byte %" PRId64 " of its %s, where its object names no variable", offset,
		       segment == IMAGE_DATA ? ".data" : ".bss");
		return BIND_E_UNBOUND;
	}
	own = &b->source->objects[index];
	name = image_object_name(b->source, index);
	found = b->target->find_object(b->target->context, name);
	if (found < 0)
		return bind_refuse_name(b, found, "variable", name);
	object = &b->target->image->objects[found];
	if (object->segment == IMAGE_RODATA) {
		refuse(b->refusal, "variable '%s' is constant in the module, and not in the new body", name);
		return BIND_E_REFUSED;
	}
	if (object->size != own->size) {
		refuse(b->refusal, "variable '%s' has %" PRIu32 " bytes in the module, and %" PRIu32 " in the new body", name,
		       object->size, own->size);
		return BIND_E_REFUSED;
	}
	*ret = bound_object(b, found);
	ret->offset += offset - own->offset;
	return 0;
}

/* Any but the body's own .rodata */
static int bind_reference(const struct bind *b, unsigned int ref, uint32_t index, int64_t offset, struct bound *ret)
{
	switch (ref) {
	case INSN_REF_METHOD:
		return bind_method(b, index, ret);
	case INSN_REF_IMPORT:
		return bind_import(b, index, ret);
	default:
		return bind_variable(b, ref == INSN_REF_DATA ? IMAGE_DATA : IMAGE_BSS, offset, ret);
	}
}

/* -- Instructions --- */
static int bind_lddw(const struct bind *b, struct insn *insn)
{
	struct bound bound = { .ref = INSN_REF_NONE };	/* .rodata: 0 until it has a place */
	int r;

	if (insn->src != INSN_REF_RODATA) {
		r = bind_reference(b, insn->src, insn[1].imm, insn->imm, &bound);
		if (r)
			return r;
	}
	insn[0].src = bound.ref;
	insn[0].imm = bound.offset;
	insn[1].imm = bound.index;
	return 0;
}

static int bind_call(const struct bind *b, struct insn *insn)
{
	unsigned int ref = insn->src == INSN_CALL_METHOD ? INSN_REF_METHOD : INSN_REF_IMPORT;
	struct bound bound;
	int r;

	r = bind_reference(b, ref, insn->imm, 0, &bound);
	if (r)
		return r;
	if (bound.ref != INSN_REF_METHOD && bound.ref != INSN_REF_IMPORT) {
		refuse(b->refusal, "the new body calls '%s', which is a variable of the module",
		       image_import_name(b->source, insn->imm));
		return BIND_E_REFUSED;
	}
	insn->src = bound.ref == INSN_REF_METHOD ? INSN_CALL_METHOD : INSN_CALL_IMPORT;
	insn->imm = bound.index;
	return 0;
}

static int bind_insns(const struct bind *b, struct bound_body *body)
{
	const struct image_method *m = &b->source->methods[b->method];
	const struct verify_origin origin = {
		.section = b->source->strings + m->section,
		.method = image_method_name(b->source, b->method),
		.section_offset = m->section_offset,
	};
	int r = 0;

	body->n_insns = m->n_insns;
	body->insns = malloc(m->n_insns * sizeof(*body->insns));
	if (!body->insns)
		return error_origin(-ENOMEM);
	memcpy(body->insns, image_method_insns(b->source, b->method), m->n_insns * sizeof(*body->insns));
	for (uint32_t pc = 0; !r && pc < m->n_insns; pc += insn_slots(&body->insns[pc])) {
		struct insn *insn = &body->insns[pc];

		if (insn_is_lddw(insn) && insn->src != INSN_REF_NONE)
			r = bind_lddw(b, insn);
		else if (insn->code == (BPF_JMP | BPF_CALL))
			r = bind_call(b, insn);
	}
	if (r)
		return r;
	return verify_insns(b->target->image, &origin, body->insns, body->n_insns, b->refusal) ? 0 : BIND_E_REFUSED;
}

/* -- .rodata --- */
static int bind_pointer(const struct bind *b, const struct image_reloc *reloc, uint8_t *rodata)
{
	struct bound bound;
	uint64_t value;
	int r;

	if (reloc->width != sizeof(value)) {
		refuse(b->refusal, ".rodata+0x%" PRIx32 " of the new body: a pointer of %u bytes cannot hold an address",
		       reloc->offset, reloc->width);
		return BIND_E_REFUSED;
	}
	if (reloc->ref == INSN_REF_RODATA)
		return 0;
	r = bind_reference(b, reloc->ref, reloc->index, reloc->addend, &bound);
	if (r)
		return r;
	if (bound.ref == INSN_REF_IMPORT) {
		refuse(b->refusal, ".rodata+0x%" PRIx32 " of the new body: the address of import '%s' differs from process to process "
		       "and cannot stand there", reloc->offset, image_import_name(b->target->image, bound.index));
		return BIND_E_REFUSED;
	}
	value = b->target->address(b->target->context, bound.ref, bound.index, bound.offset);
	memcpy(rodata + reloc->offset, &value, sizeof(value));
	return 0;
}

static int bind_rodata(const struct bind *b, struct bound_body *body)
{
	const struct image *source = b->source;
	int r = 0;

	if (!source->n_rodata)
		return 0;
	body->n_rodata = source->n_rodata;
	body->rodata = malloc(source->n_rodata);
	if (!body->rodata)
		return error_origin(-ENOMEM);
	memcpy(body->rodata, source->rodata, source->n_rodata);
	for (uint32_t i = 0; !r && i < source->n_relocs && source->relocs[i].segment == IMAGE_RODATA; i++)
		r = bind_pointer(b, &source->relocs[i], body->rodata);
	return r;
}

/* -- The whole --- */
static const char *signature_of(const struct image *image, uint32_t method)
{
	return image->methods[method].signature ? image_method_signature(image, method) : "unknown";
}

int bind_signature(const struct bind_target *target, const struct image *source, uint32_t method, struct refusal *refusal)
{
	const struct image_method *has = &target->image->methods[target->method], *gets = &source->methods[method];

	if (has->signature && gets->signature && has->n_params == gets->n_params && has->signature_hash == gets->signature_hash)
		return 0;
	refuse(refusal, "the method's signature is %.160s, the new body's is %.160s", signature_of(target->image, target->method),
	       signature_of(source, method));
	return BIND_E_SIGNATURE;
}

int bind_body(struct bound_body *ret, const struct bind_target *target, const struct image *source, uint32_t method,
	      struct refusal *refusal)
{
	const struct bind b = { .target = target, .source = source, .method = method, .refusal = refusal };
	_cleanup_(bound_body_deinit) struct bound_body body = BOUND_BODY_NULL;
	int r;

	r = bind_insns(&b, &body);
	if (!r)
		r = bind_rodata(&b, &body);
	if (r)
		return r;
	*ret = body;
	body = (struct bound_body)BOUND_BODY_NULL;
	return 0;
}

void bound_body_place(struct bound_body *body, const struct image *source, uint32_t method, uint64_t rodata)
{
	const struct insn *insns = image_method_insns(source, method);

	for (uint32_t pc = 0; pc < body->n_insns; pc += insn_slots(&insns[pc])) {
		uint64_t value = rodata + (uint32_t)insns[pc].imm;

		if (!insn_is_lddw(&insns[pc]) || insns[pc].src != INSN_REF_RODATA)
			continue;
		body->insns[pc].imm = (uint32_t)value;
		body->insns[pc + 1].imm = value >> 32;
	}
	for (uint32_t i = 0; i < source->n_relocs && source->relocs[i].segment == IMAGE_RODATA; i++) {
		const struct image_reloc *reloc = &source->relocs[i];
		uint64_t value = rodata + (uint32_t)reloc->addend;

		if (reloc->ref == INSN_REF_RODATA)
			memcpy(body->rodata + reloc->offset, &value, sizeof(value));
	}
}
