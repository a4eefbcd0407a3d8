/* SPDX-License-Identifier: Apache-2.0 */
/* Precompiling: every method of an object, one after the other, as a promotion without a profile would compile it
 *
 * Who comes along to be inlined is chosen as the daemon does for its jobs: the small methods that are called, directly
 * or through each other. */
#include <errno.h>
#include <stdlib.h>
#include "bytecode/decode.h"
#include "bytecode/verify.h"
#include "util/base.h"
#include "worker/child/codegen.h"
#include "worker/child/elf.h"
#include "worker/child/elf_append.h"
#include "worker/child/identity.h"
#include "worker/child/precompile.h"
#include "worker/precompiled.h"

struct codes {
	void **codes; /* by method; NULL: none */
	size_t *sizes;
	uint32_t n;
};

static void codes_deinit(struct codes *codes)
{
	for (uint32_t i = 0; codes->codes && i < codes->n; i++)
		free(codes->codes[i]);
	free(codes->codes);
	free(codes->sizes);
}

static bool has_body(const struct job_compile *job, uint32_t method)
{
	for (uint32_t i = 0; i < job->n_bodies; i++)
		if (job->bodies[i].method == method)
			return true;
	return false;
}

static void add_body(struct job_compile *job, const struct image *image, uint32_t method)
{
	job->bodies[job->n_bodies++] = (struct job_body){
		.method = method,
		.n_insns = image->methods[method].n_insns,
		.insns = image_method_insns(image, method),
		.name = image_method_name(image, method),
	};
}

static void add_callees(struct job_compile *job, const struct image *image, uint32_t i)
{
	const struct insn *insns = job->bodies[i].insns;
	uint32_t n_insns = job->bodies[i].n_insns;

	for (uint32_t pc = 0; pc < n_insns && job->n_bodies < JOB_BODIES_MAX; pc += insn_slots(&insns[pc])) {
		uint32_t callee = (uint32_t)insns[pc].imm;

		if (insns[pc].code != (BPF_JMP | BPF_CALL) || insns[pc].src != INSN_CALL_METHOD)
			continue;
		if (image->methods[callee].n_insns <= JOB_CANDIDATE_INSNS_MAX && !has_body(job, callee))
			add_body(job, image, callee);
	}
}

/* False: the method stays without. */
static bool compile_method(const struct image *image, uint32_t method, void **ret, size_t *ret_n)
{
	const struct precompiled_place place = precompiled_place(image);
	struct job_body bodies[JOB_BODIES_MAX];
	struct job_compile job = {
		.level = TIER_LEVEL_READY_TO_RUN,
		.method = method,
		.n_methods = image->n_methods,
		.n_imports = image->n_imports,
		.n_rodata = image->n_rodata,
		.n_data = image->n_data,
		.n_bss = image->n_bss,
		.slots = place.slots,
		.n_slots = place.n_slots,
		.call_cells = place.call_cells,
		.bodies = bodies,
	};
	struct code_result code;
	struct refusal refusal;
	void *block;

	if (image->methods[method].flags & IMAGE_METHOD_NO_OPTIMIZATION)
		return false;
	add_body(&job, image, method);
	if (job_is_too_large(bodies[0].insns, bodies[0].n_insns))
		return false;
	for (uint32_t i = 0; i < job.n_bodies; i++)
		add_callees(&job, image, i);
	if (!codegen_compile(&job, &code, &block, &refusal))
		return false;
	if (code.n_bytes > CODE_BYTES_MAX || code.n_relocs > CODE_RELOCS_MAX) { /* the daemon would not take it */
		free(block);
		return false;
	}
	if (job_put_code(&code, ret, ret_n))
		abort();
	free(block);
	return true;
}

static void compile_all(struct codes *codes, const struct image *image)
{
	codes->n = image->n_methods;
	codes->codes = calloc(codes->n + 1, sizeof(*codes->codes));
	codes->sizes = calloc(codes->n + 1, sizeof(*codes->sizes));
	if (!codes->codes || !codes->sizes)
		abort();
	for (uint32_t i = 0; i < image->n_methods; i++)
		compile_method(image, i, &codes->codes[i], &codes->sizes[i]);
}

bool precompile(void *file, size_t n, void **ret, size_t *ret_n, struct refusal *refusal)
{
	_cleanup_(codes_deinit) struct codes codes = { .codes = NULL };
	_cleanup_(freep) void *bytes = NULL;
	_cleanup_(freep) void *section = NULL;
	struct image image;
	size_t n_bytes, n_section;
	int r;

	if (!elf_to_image(file, n, &bytes, &n_bytes, refusal) || !image_check(bytes, n_bytes, &image, refusal) ||
	    !verify_image(&image, refusal))
		return false;
	compile_all(&codes, &image);
	r = precompiled_put(&image, identity(), codes.codes, codes.sizes, &section, &n_section);
	if (r == -ENOMEM)
		abort();
	if (r) {
		refuse(refusal, "the code of its %u methods has more than %u MiB", image.n_methods,
		       IMAGE_PRECOMPILED_MAX >> 20);
		return false;
	}
	return elf_append(file, n, PRECOMPILED_SECTION, section, n_section, ret, ret_n, refusal);
}
