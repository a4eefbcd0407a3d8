/* SPDX-License-Identifier: Apache-2.0 */
/* Compile jobs: what goes to a worker, and what comes back */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
#include "host.h"
#include "util/base.h"
#include "util/error.h"

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
