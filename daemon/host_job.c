/* SPDX-License-Identifier: Apache-2.0 */
/* Compile jobs: what goes to a worker, and what comes back
 *
 * A job is all that its code depends upon: bodies, what was counted about them, and a small .rodata. Counts are read here, once,
 * out of memory that clients write; so they decide what is sent along and how it is compiled, never what the code does. */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
#include "bytecode/profile.h"
#include "host.h"
#include "util/base.h"
#include "util/error.h"

#define RODATA_MAX (64u << 10)	/* bytes of .rodata that are sent along: constants, tables of functions */

/* A job that grows */
struct building {
	struct host *host;
	const struct core_compile *compile;
	struct job_compile job;
	struct job_body bodies[HOST_BODIES_MAX];
};

static void building_deinit(struct building *building)
{
	for (uint32_t i = 0; i < building->job.n_bodies; i++)
		free((void *)building->bodies[i].profile);
}

/* -- Profiles --- */
static uint32_t method_of_address(void *context, uint64_t address)
{
	const struct host *host = context;
	const struct tier_layout *layout = arena_layout(host->arena);
	const uint64_t index = (address - tier_layout_precode(layout, 0)) / TIER_PRECODE_SIZE;

	if (index >= layout->n_methods || address != tier_layout_method(layout, index, arena_record(host->arena, index)->flags))
		return PROFILE_NO_METHOD;
	return index;
}

static bool level_has_profile(enum tier_level level)
{
	return level == TIER_LEVEL_TIER1 || level == TIER_LEVEL_OPTIMIZED || level == TIER_LEVEL_OSR;
}

struct profile_count *host_profile(const struct host *host, uint32_t method, const struct insn *insns, uint32_t n_insns, uint32_t *ret_n)
{
	_cleanup_(freep) struct profile_map *map = NULL;
	_cleanup_(freep) struct profile_count *counts = NULL;
	uint32_t cell;

	if (!core_profile(host->module, method, &cell) || profile_map_new(&map, insns, n_insns)
	    || map->n_words > arena_layout(host->arena)->n_cells - cell)
		return NULL;
	counts = calloc(map->n_sites, sizeof(*counts));
	if (!counts || !profile_read(map, arena_counters(host->arena) + cell, method_of_address, (void *)host, counts))
		return NULL;
	*ret_n = map->n_sites;
	return TAKE_PTR(counts);
}

static void body_read_profile(const struct building *building, struct job_body *body)
{
	if (level_has_profile(building->compile->level))
		body->profile = host_profile(building->host, body->method, body->insns, body->n_insns, &body->n_profile);
}

/* -- Bodies --- */
static bool building_has(const struct building *building, uint32_t method)
{
	for (uint32_t i = 0; i < building->job.n_bodies; i++)
		if (building->bodies[i].method == method)
			return true;
	return false;
}

/* @body: of the method; NULL: the image's */
static uint32_t body_n_insns(const struct host *host, uint32_t method, const struct host_body *body)
{
	return body ? body->bound.n_insns : host->image.methods[method].n_insns;
}

static struct job_body *building_add(struct building *building, uint32_t method, const struct host_body *body)
{
	const struct host *host = building->host;
	struct job_body *added = &building->bodies[building->job.n_bodies++];

	*added = (struct job_body){
		.method = method,
		.n_insns = body_n_insns(host, method, body),
		.insns = body ? body->bound.insns : image_method_insns(&host->image, method),
		.name = image_method_name(&host->image, method),
	};
	if (host_body_current(host, method) == body)
		body_read_profile(building, added);
	return added;
}

/* Whom the instruction at @pc calls, as far as that is known: a callx calls whom it mostly called when it was counted. Or -1,
 * also when a profile says that it is never reached. *site walks along the profile. */
static int64_t callee_at(const struct job_body *body, uint32_t pc, uint32_t *site)
{
	const struct insn *insn = &body->insns[pc];
	const struct profile_count *count = NULL;

	if (insn->code != (BPF_JMP | BPF_CALL) && !insn_is_callx(insn))
		return -1;
	while (*site < body->n_profile && body->profile[*site].pc < pc)
		++*site;
	if (*site < body->n_profile && body->profile[*site].pc == pc)
		count = &body->profile[*site];
	if (count && !count->n)
		return -1;
	if (insn_is_callx(insn))
		return count && count->method != PROFILE_NO_METHOD ? (int64_t)count->method : -1;
	return insn->src == INSN_CALL_METHOD ? insn->imm : -1;
}

/* A job carries its method and the small methods that it calls, directly or through each other. Adds the small callees of
 * body @i that are not there yet; walking the list while it grows makes it transitive. */
static void building_add_callees(struct building *building, uint32_t i)
{
	const struct host *host = building->host;
	const struct job_body *caller = &building->bodies[i];
	uint32_t site = 1;	/* behind the entry */

	for (uint32_t pc = 0; pc < caller->n_insns; pc += insn_slots(&caller->insns[pc])) {
		const int64_t callee = callee_at(caller, pc, &site);
		const struct host_body *body;

		if (callee < 0)
			continue;
		if (building->job.n_bodies == HOST_BODIES_MAX)
			return;
		body = host_body_current(host, callee);
		if (body_n_insns(host, callee, body) <= JOB_CANDIDATE_INSNS_MAX && !building_has(building, callee))
			building_add(building, callee, body);
	}
}

/* -- The job --- */
/* Its pointers come first among the relocations, in the same order. */
static void building_add_rodata(struct building *building)
{
	const struct image *image = &building->host->image;
	struct job_compile *job = &building->job;

	if (!image->n_rodata || image->n_rodata > RODATA_MAX)
		return;
	job->rodata = image->rodata;
	job->relocs = image->relocs;
	while (job->n_relocs < image->n_relocs && image->relocs[job->n_relocs].segment == IMAGE_RODATA)
		job->n_relocs++;
}

static void building_init(struct building *building, struct host *host, const struct core_compile *compile)
{
	const struct tier_layout *layout = arena_layout(host->arena);
	const struct image *image = &host->image;

	*building = (struct building){
		.host = host,
		.compile = compile,
		.job = {
			.level = compile->level,
			.method = compile->method,
			.n_methods = image->n_methods,
			.n_imports = image->n_imports,
			.n_rodata = image->n_rodata,
			.n_data = image->n_data,
			.n_bss = image->n_bss,
			.slots = layout->n_slots ? layout->slots - layout->rodata : 0,
			.n_slots = layout->n_slots,
			.call_cells = layout->n_slots ? layout->call_cells - layout->rodata : 0,
			.bodies = building->bodies,
		},
	};
	if (compile->level == TIER_LEVEL_TIER1_INSTRUMENTED) {
		building->job.profile = compile->profile;
		building->job.n_cells = layout->n_cells;
	}
	if (compile->level == TIER_LEVEL_OSR)
		building->job.osr_pc = arena_patchpoint(host->arena, compile->patchpoint)->pc;
	/* Nobody's addresses where there is nothing, so that its code is found in the cache again */
	if (host->base && image->n_data)
		building->job.data = host_data(host);
	if (host->base && image->n_bss)
		building->job.bss = host_bss(host);
	building_add_rodata(building);
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

static int building_put(struct building *building, struct host_bodies *ret, int *ret_fd, size_t *ret_n)
{
	const struct core_compile *compile = building->compile;
	_cleanup_(freep) void *bytes = NULL;
	const struct job_body *method;
	size_t n;
	int r;

	method = building_add(building, compile->method, host_body_of(building->host, compile->method, compile->body));
	if (job_is_too_large(method->insns, method->n_insns))
		return CORE_E_TOO_LARGE;
	if (compile->level != TIER_LEVEL_TIER1_INSTRUMENTED)	/* which inlines nothing */
		for (uint32_t i = 0; i < building->job.n_bodies; i++)
			building_add_callees(building, i);
	r = job_put_compile(&building->job, &bytes, &n);
	if (r)
		return error_origin(r);
	r = memfd_of("tierd-compile", bytes, n);
	if (r < 0)
		return error_fold(r);
	bodies_of(ret, &building->job);
	*ret_fd = r;
	*ret_n = n;
	return 0;
}

int host_compile_job(struct host *host, const struct core_compile *compile, struct host_bodies *ret, int *ret_fd, size_t *ret_n)
{
	struct building building;
	int r;

	building_init(&building, host, compile);
	r = building_put(&building, ret, ret_fd, ret_n);
	building_deinit(&building);
	return r;
}

/* -- What comes back --- */
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
