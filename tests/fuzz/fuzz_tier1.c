/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzzing the optimizer with what the verifier lets through: every method becomes code that crosses the pipe as it is. A
 * refusal would be a method that stays slow for ever, so it is a finding like a crash.
 *
 * links: daemon/worker/child/elf*.c daemon/worker/child/btf*.c daemon/worker/child/lower.c daemon/worker/child/arith.c
 * links: daemon/worker/child/body.c daemon/worker/child/entry.c daemon/worker/child/access.c daemon/worker/child/call.c
 * links: daemon/worker/child/plan.c daemon/worker/child/provenance.c daemon/worker/child/codegen.c
 * links: daemon/worker/child/object.c daemon/worker/child/slots.c tests/tiers/program.c
 * links: daemon/worker/child/hints.c daemon/worker/child/weights.c daemon/worker/child/counters.c daemon/worker/child/guard.c
 * links: daemon/worker/child/outside.c daemon/worker/child/fold.c
 * links: -lelf llvm */
#include <stdio.h>
#include "bytecode/loops.h"
#include "fuzz/input.h"
#include "worker/child/codegen.h"
#include "worker/job.h"

#define METHODS_MAX 4u		/* compiled of one input; LLVM takes its time */
#define INSNS_MAX 600u
#define HEADS_MAX 3u

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	return codegen_init();
}

static void check_crossing(const struct code_result *code)
{
	struct refusal refusal = { "" };
	struct code_result again;
	void *bytes;
	size_t n;

	if (job_put_code(code, &bytes, &n))
		abort();
	if (!job_get_code(&again, bytes, n, &refusal)) {
		fprintf(stderr, "%s\n", refusal.text);
		abort();
	}
	free(bytes);
}

static void compile_job(const struct job_compile *job)
{
	struct refusal refusal = { "" };
	struct code_result code;
	void *block;

	if (!codegen_compile(job, &code, &block, &refusal)) {
		fprintf(stderr, "%s\n", refusal.text);
		abort();
	}
	check_crossing(&code);
	free(block);
}

/* In form a profile, in content whatever follows from @seed */
static struct profile_count *make_profile(const struct job_compile *job, struct job_body *body, uint64_t *seed)
{
	struct profile_count *counts;
	struct profile_map *map;

	if (profile_map_new(&map, body->insns, body->n_insns))
		abort();
	counts = calloc(map->n_sites, sizeof(*counts));
	if (!counts)
		abort();
	for (uint32_t i = 0; i < map->n_sites; i++) {
		const enum profile_kind kind = map->sites[i].kind;

		*seed = *seed * 6364136223846793005ull + 1442695040888963407ull;
		counts[i] = (struct profile_count){ .pc = map->sites[i].pc, .kind = kind, .n = (*seed >> 32) >> (*seed >> 60),
						    .method = PROFILE_NO_METHOD };
		if (kind == PROFILE_BRANCH || kind == PROFILE_CALLX)
			counts[i].m = counts[i].n >> (*seed >> 57 & 3);
		if (kind == PROFILE_CALLX)
			counts[i].method = *seed % job->n_methods;
	}
	body->profile = counts;
	body->n_profile = map->n_sites;
	free(map);
	return counts;
}

static void compile_with_profiles(struct job_compile *job, uint64_t seed)
{
	struct profile_count *counts[METHODS_MAX];

	for (uint32_t i = 0; i < job->n_bodies; i++)
		counts[i] = make_profile(job, &job->bodies[i], &seed);
	compile_job(job);
	for (uint32_t i = 0; i < job->n_bodies; i++) {
		job->bodies[i].n_profile = 0;
		free(counts[i]);
	}
}

static void compile_counting(struct job_compile *job)
{
	job->level = TIER_LEVEL_TIER1_INSTRUMENTED;
	job->profile = 2;
	job->n_cells = job->profile + profile_n_words(job->bodies[0].insns, job->bodies[0].n_insns);
	compile_job(job);
}

/* Into its loops, whatever they are */
static void compile_loops(struct job_compile *job)
{
	const struct job_body *body = &job->bodies[0];
	const int64_t n = loops_find(body->insns, body->n_insns, NULL);
	uint32_t *heads = calloc(n > 0 ? n : 1, sizeof(*heads));

	if (n < 0 || !heads)
		abort();
	loops_find(body->insns, body->n_insns, heads);
	job->level = TIER_LEVEL_OSR;
	for (uint32_t i = 0; i < n && i < HEADS_MAX; i++) {
		job->osr_pc = heads[i];
		compile_job(job);
	}
	free(heads);
}

static void tell_constants(struct job_compile *job, const struct image *image, uint64_t seed)
{
	if (seed & 2) {
		job->rodata = image->rodata;
		job->relocs = image->relocs;
		while (job->n_relocs < image->n_relocs && image->relocs[job->n_relocs].segment == IMAGE_RODATA)
			job->n_relocs++;
	}
	if (seed & 4) {
		job->data = 0x200000001000;
		job->bss = 0x2f0000002000;
	}
}

/* The job as the daemon would send it: the method first, all others as candidates; without a profile, then with one or
 * counting, then from its loops on. Half the times .rodata comes along, or the other segments are another module's. */
static void compile(const struct image *image, uint32_t method)
{
	const uint64_t seed = image->header->hash + method;
	struct job_body bodies[METHODS_MAX];
	struct job_compile job = {
		.level = TIER_LEVEL_TIER1, .method = method, .n_methods = image->n_methods, .n_imports = image->n_imports,
		.n_rodata = image->n_rodata, .n_data = image->n_data, .n_bss = image->n_bss, .n_slots = image->n_rodata & ~7u,
		.call_cells = (image->n_rodata + 63) & ~63u, .bodies = bodies,
	};

	for (uint32_t i = 0; i < image->n_methods && job.n_bodies < METHODS_MAX; i++) {
		const uint32_t m = i == 0 ? method : i <= method ? i - 1 : i;

		bodies[job.n_bodies++] = (struct job_body){ .method = m, .n_insns = image->methods[m].n_insns,
							    .insns = image_method_insns(image, m), .name = "method" };
	}
	tell_constants(&job, image, seed);
	compile_job(&job);
	if (seed & 1)
		compile_with_profiles(&job, seed);
	else
		compile_counting(&job);
	compile_loops(&job);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct image image;
	void *bytes;

	if (input_image(data, n, &bytes, &image) && image.n_insns <= INSNS_MAX)
		for (uint32_t method = 0; method < image.n_methods && method < METHODS_MAX; method++)
			compile(&image, method);
	free(bytes);
	return 0;
}
