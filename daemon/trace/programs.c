/* SPDX-License-Identifier: Apache-2.0 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include "trace/attach.h"
#include "trace/keep.h"
#include "trace/left.h"
#include "trace/programs.h"
#include "util/base.h"
#include "util/fault.h"
#include "util/hash.h"
#include "util/log.h"
#include "tracer.skel.h"

/* The kernel programs
 *
 *   open ──► reuse the maps ──► load ──► the same programs are attached: keep the links
 *                │ not to be used       └──► attach to each site, put the links ──► remove the old links
 *                └──► make them anew, put them
 *
 * Maps are taken over all together or not at all: what one says of the others must be true. Attaching takes the kernel a tenth of
 * a second, detaching longer, so it is done only if the programs are others, as between versions. A link has two names that take
 * turns, since the new one is put before the old one goes: between the two a hit is told twice, which the daemon notices, and
 * nowhere is it told not at all. What is attached is noted last; a daemon that dies on the way leaves both links, or some maps
 * without the others, and its successor attaches anew and tidies up. */

static void programs_maps(const struct tracer_bpf *skel, struct bpf_map *maps[_LEFT_MAP_N])
{
	maps[LEFT_MAP_RING] = skel->maps.ring;
	maps[LEFT_MAP_NEWEST] = skel->maps.newest;
	maps[LEFT_MAP_LIMITS] = skel->maps.limits;
	maps[LEFT_MAP_SHARED] = skel->maps.bss;
}

static const struct bpf_program *site_program(const struct tracer_bpf *skel, unsigned int site)
{
	switch (site) {
	case TIER_PROBE_THRESHOLD: return skel->progs.on_threshold;
	case TIER_PROBE_PUBLISH: return skel->progs.on_publish;
	case TIER_PROBE_HELLO: return skel->progs.on_hello;
	case TIER_PROBE_OSR_REQUESTED: return skel->progs.on_osr_requested;
	default: return NULL;	/* for other tracers only */
	}
}

static uint32_t programs_sites(const struct tracer_bpf *skel)
{
	uint32_t sites = 0;

	for (unsigned int i = 0; i < TIER_PROBE_SLOTS; i++)
		if (site_program(skel, i))
			sites |= UINT32_C(1) << i;
	return sites;
}

/* Which programs these are, on which page: never 0 */
static uint64_t programs_identity(int page_fd)
{
	struct stat page = { 0 };
	size_t n;
	const void *bytes = tracer_bpf__elf_bytes(&n);
	uint64_t identity = hash_fnv(HASH_FNV_BASIS, bytes, n);

	fstat(page_fd, &page);
	return hash_fnv(identity, &page.st_ino, sizeof(page.st_ino)) | 1;
}

struct refusal {
	char *status;
	size_t n_status;
};

/* Notes why there are no kernel probes. Returns @r. */
static int refuse(const struct refusal *refusal, const char *step, const char *what, int r)
{
	const char *hint = r == -EPERM || r == -EACCES ? " (it takes root, or CAP_BPF and CAP_PERFMON)" : "";

	snprintf(refusal->status, refusal->n_status, "no kernel probes: %s%s: %s%s", step, what, strerrordesc_np(-r), hint);
	return r;
}

/* Which reservation fails on purpose is the kernel program's to count. */
#ifdef TIER_FAULTS
#define programs_arm_fault(skel) ((skel)->rodata->fault_reserve = fault_at(FAULT_RESERVE))
#define programs_count_faults(skel) fault_set(FAULT_RESERVE, (skel)->bss->shared.n_reserved)
#else
#define programs_arm_fault(skel) ((void)0)
#define programs_count_faults(skel) ((void)0)
#endif

/* -- Maps --- */
static int maps_reuse(struct bpf_map *const maps[_LEFT_MAP_N], const struct left *left)
{
	int r = 0;

	for (unsigned int i = 0; i < _LEFT_MAP_N && !r; i++)
		r = bpf_map__reuse_fd(maps[i], left->maps[i]);
	return r;
}

static void maps_put(struct bpf_map *const maps[_LEFT_MAP_N], const struct tracer_keep *keep)
{
	for (unsigned int i = 0; i < _LEFT_MAP_N; i++)
		keep_put(keep, left_map_names[i], bpf_map__fd(maps[i]));
}

static void ring_compare(const struct bpf_map *ring, uint32_t bytes)
{
	const uint32_t has = bpf_map__max_entries(ring);

	if (has != bytes)
		log_line(LOG_WARNING, "the ring buffer keeps the size that it had before, %u bytes: it holds what was not read yet", has);
}

/* A process that hits all the time may fill a quarter of the ring at once. */
static void shared_configure(struct tier_kernel_shared *shared, uint32_t ring_bytes, uint32_t per_second)
{
	const uint64_t n_burst = ring_bytes / 4 / (sizeof(struct tier_kernel_event) + BPF_RINGBUF_HDR_SZ);
	struct stat namespace = { 0 };

	shared->format = TIER_KERNEL_FORMAT;
	shared->limit_cost_ns = per_second ? UINT64_C(1000000000) / per_second : 0;
	shared->limit_burst_ns = MAX(n_burst, UINT64_C(1)) * shared->limit_cost_ns;
	/* without a namespace nobody is the daemon: what it publishes is for other tracers only */
	stat("/proc/self/ns/pid", &namespace);
	shared->daemon_dev = namespace.st_dev;
	shared->daemon_ino = namespace.st_ino;
	shared->daemon_pid = getpid();
}

static int programs_load(struct tracer_bpf *skel, const struct tracer_config *config, struct left *left, const struct refusal *why)
{
	struct bpf_map *maps[_LEFT_MAP_N];
	bool is_left;
	int r;

	programs_maps(skel, maps);
	programs_arm_fault(skel);
	is_left = left_fits(left, maps);
	if (!is_left)
		left_drop_maps(left, config->keep);
	r = is_left ? maps_reuse(maps, left) : bpf_map__set_max_entries(maps[LEFT_MAP_RING], config->ring_bytes);
	if (r)
		return refuse(why, is_left ? "taking over the kernel maps" : "sizing the ring buffer", "", r);
	r = tracer_bpf__load(skel);
	if (r)
		return refuse(why, "loading the kernel programs", "", r);
	shared_configure(&skel->bss->shared, bpf_map__max_entries(maps[LEFT_MAP_RING]), config->per_second);
	if (is_left)
		ring_compare(maps[LEFT_MAP_RING], config->ring_bytes);
	else
		maps_put(maps, config->keep);
	return 0;
}

/* -- Links --- */
/* The new link is put in the turn that is free, then the old one goes. */
static void link_keep(const struct tracer_keep *keep, struct left *left, unsigned int site, int fd)
{
	const unsigned int turn = left->links[site][0] >= 0;
	char name[KEEP_NAME_MAX];

	if (turn)
		left_drop_link(left, keep, site, 1);	/* of a daemon that died between the two steps */
	keep_put(keep, left_link_name(name, site, turn), fd);
	left_drop_link(left, keep, site, !turn);
}

static int programs_attach(struct programs *programs, int page_fd, const struct refusal *why)
{
	static const char *const names[] = {
#define PROBE_NAME(name, number, text) [number] = text,
		TIER_PROBE_LIST(PROBE_NAME)
	};
	int r;

	for (unsigned int i = 0; i < _TIER_PROBE_N; i++) {
		const struct bpf_program *program = site_program(programs->skel, i);

		if (!program)
			continue;
		r = attach_uprobe(bpf_program__fd(program), page_fd, TIER_PROBE_OFFSET(i));
		if (r < 0)
			return refuse(why, "attaching to the site ", names[i], r);
		programs->links[i] = r;
		log_event(LOG_TRACE, LOG_INFO100, "attached to the site %s", names[i]);
	}
	return 0;
}

static int programs_link(struct programs *programs, int page_fd, const struct tracer_keep *keep, struct left *left,
			 const struct refusal *why)
{
	struct tier_kernel_shared *shared = &programs->skel->bss->shared;
	const uint32_t sites = programs_sites(programs->skel);
	int r;

	if (shared->programs == programs_identity(page_fd) && left_has_links(left, sites)) {
		for (unsigned int i = 0; i < TIER_PROBE_SLOTS; i++)
			if (sites >> i & 1)
				programs->links[i] = left_take_link(left, i);
		return 0;
	}
	shared->programs = 0;
	r = programs_attach(programs, page_fd, why);
	if (r)
		return r;
	for (unsigned int i = 0; i < TIER_PROBE_SLOTS; i++)
		if (programs->links[i] >= 0)
			link_keep(keep, left, i, programs->links[i]);
	shared->programs = programs_identity(page_fd);
	return 0;
}

/* -- Life --- */
void programs_init(struct programs *programs)
{
	programs->skel = NULL;
	for (unsigned int i = 0; i < TIER_PROBE_SLOTS; i++)
		programs->links[i] = -1;
}

void programs_unkeep(const struct programs *programs, const struct tracer_keep *keep)
{
	char name[KEEP_NAME_MAX];

	for (unsigned int i = 0; i < _LEFT_MAP_N; i++)
		keep_remove(keep, left_map_names[i]);
	for (unsigned int i = 0; i < TIER_PROBE_SLOTS; i++)
		for (unsigned int turn = 0; turn < 2 && programs->links[i] >= 0; turn++)
			keep_remove(keep, left_link_name(name, i, turn));
}

int programs_start(struct programs *programs, const struct tracer_config *config, int page_fd, char *status, size_t n_status)
{
	const struct refusal why = { status, n_status };
	struct left left = left_take(config->keep);
	int r;

	programs->skel = tracer_bpf__open();
	r = programs->skel ? programs_load(programs->skel, config, &left, &why)
			   : refuse(&why, "opening the kernel programs", "", -errno);
	if (!r)
		r = programs_link(programs, page_fd, config->keep, &left, &why);
	left_drop_links(&left, config->keep);	/* to sites that we do not listen to, too */
	for (unsigned int i = 0; i < _LEFT_MAP_N; i++)
		close_fd(left.maps[i]);
	if (r) {
		programs_unkeep(programs, config->keep);
		programs_stop(programs);
	}
	return r;
}

void programs_stop(struct programs *programs)
{
	attach_end(programs->links, TIER_PROBE_SLOTS, true);
	if (programs->skel && programs->skel->bss)
		programs_count_faults(programs->skel);
	tracer_bpf__destroy(programs->skel);
	programs->skel = NULL;
}

void programs_forget(const struct tracer_keep *keep)
{
	struct left left = left_take(keep);

	left_drop_links(&left, keep);
	left_drop_maps(&left, keep);
}

int programs_ring(const struct programs *programs)
{
	return bpf_map__fd(programs->skel->maps.ring);
}

int programs_newest(const struct programs *programs)
{
	return bpf_map__fd(programs->skel->maps.newest);
}

struct tier_kernel_shared *programs_shared(const struct programs *programs)
{
	return programs->skel ? &programs->skel->bss->shared : NULL;
}
