/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzzing the binding of a body from another object: whatever two modules there are, each function of the one becomes a body
 * of the other that its verifier takes, or is refused by a sentence; and wherever its .rodata comes to lie, its pointers to
 * itself lead there.
 *
 *   input   uint32_t n | the target's n bytes | the source's bytes, each as fuzz/input.h tells modules apart
 *
 * links: daemon/worker/child/elf*.c daemon/worker/child/btf*.c tests/tiers/program.c -lelf */
#include "arena/symtab.h"
#include "bytecode/bind.h"
#include "fuzz/input.h"

#define METHODS_MAX 16u		/* of each side: all pairs of them */
#define PLACE_A 0x200000001000ull
#define PLACE_B 0x4ffff0000000ull

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

struct target {
	struct image image;
	struct symtab *names[3];	/* by enum symtab_kind */
};

static int64_t find_method(void *context, const char *name)
{
	return symtab_find(((struct target *)context)->names[SYMTAB_METHODS], name);
}

static int64_t find_import(void *context, const char *name)
{
	return symtab_find(((struct target *)context)->names[SYMTAB_IMPORTS], name);
}

static int64_t find_object(void *context, const char *name)
{
	return symtab_find(((struct target *)context)->names[SYMTAB_OBJECTS], name);
}

static uint64_t address(void *context, unsigned int ref, uint32_t index, int64_t offset)
{
	const struct target *target = context;

	assert(ref != INSN_REF_IMPORT && image_ref_exists(&target->image, ref, index, offset));
	return UINT64_C(0x300000000000) + offset;
}

/* What was bound is valid, and places differ in constants and pointers only by their distance. */
static void check(struct bound_body *body, const struct target *target, const struct image *source, uint32_t method)
{
	const struct verify_origin origin = { .section = "s", .method = "m" };
	struct refusal refusal;
	uint64_t first, second;

	assert(body->n_insns == source->methods[method].n_insns && body->n_rodata == source->n_rodata);
	bound_body_place(body, source, method, PLACE_A);
	assert(verify_insns(&target->image, &origin, body->insns, body->n_insns, &refusal));
	for (uint32_t i = 0; i < source->n_relocs && source->relocs[i].segment == IMAGE_RODATA; i++) {
		if (source->relocs[i].ref != INSN_REF_RODATA)
			continue;
		memcpy(&first, body->rodata + source->relocs[i].offset, sizeof(first));
		assert(first >= PLACE_A && first <= PLACE_A + source->n_rodata);
		bound_body_place(body, source, method, PLACE_B);
		memcpy(&second, body->rodata + source->relocs[i].offset, sizeof(second));
		assert(second - first == PLACE_B - PLACE_A);
		bound_body_place(body, source, method, PLACE_A);
		break;
	}
}

static void bind(struct target *target, uint32_t of, const struct image *source, uint32_t method)
{
	const struct bind_target bind = {
		.image = &target->image, .method = of, .context = target, .address = address,
		.find_method = find_method, .find_import = find_import, .find_object = find_object,
	};
	struct bound_body body = BOUND_BODY_NULL;
	struct refusal refusal = { "" };
	int r;

	if (bind_signature(&bind, source, method, &refusal))
		assert(refusal.text[0]);
	refusal.text[0] = '\0';
	r = bind_body(&body, &bind, source, method, &refusal);
	assert(r >= 0 && (!r || (refusal.text[0] && !body.insns)));
	if (!r)
		check(&body, target, source, method);
	bound_body_deinit(&body);
}

static void bind_all(struct target *target, const struct image *source)
{
	for (unsigned int kind = 0; kind < 3; kind++)
		assert(!symtab_new(&target->names[kind], &target->image, kind));
	for (uint32_t of = 0; of < target->image.n_methods && of < METHODS_MAX; of++)
		for (uint32_t method = 0; method < source->n_methods && method < METHODS_MAX; method++)
			bind(target, of, source, method);
	for (unsigned int kind = 0; kind < 3; kind++)
		target->names[kind] = symtab_free(target->names[kind]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct target target = { .names = { NULL } };
	void *target_bytes, *source_bytes = NULL;
	struct image source;
	uint32_t n_target;

	if (n < sizeof(n_target))
		return 0;
	memcpy(&n_target, data, sizeof(n_target));
	data += sizeof(n_target);
	n -= sizeof(n_target);
	n_target = n_target < n ? n_target : n;
	if (input_image(data, n_target, &target_bytes, &target.image)
	    && input_image(data + n_target, n - n_target, &source_bytes, &source))
		bind_all(&target, &source);
	free(source_bytes);
	free(target_bytes);
	return 0;
}
