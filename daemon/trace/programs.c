/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include "trace/attach.h"
#include "trace/keep.h"
#include "trace/programs.h"
#include "util/base.h"
#include "util/fault.h"
#include "util/log.h"
#include "tracer.skel.h"

/* The kernel programs
 *
 *   open ──► reuse what was left ──► load ──► put the maps ──► attach to each site, put its link ──► remove the old links
 *                  │ nothing, or not to be used
 *                  └──► size the ring, make all anew
 *
 * Maps are taken over all together or not at all: what one says of the others must be true. A link has two names that take turns,
 * since the new one is put before the old one goes: between the two a hit is told twice, which the daemon notices, and nowhere is
 * it told not at all. A daemon that dies on the way leaves both, or some maps without the others; its successor tidies up. */

enum { MAP_RING, MAP_NEWEST, MAP_LIMITS, MAP_COUNTS, N_MAPS };
static const char *const map_names[N_MAPS] = { "ring", "newest", "limits", "bss" };

struct left {
	int maps[N_MAPS];
	int links[TIER_PROBE_SLOTS][2];
};

/* -- What a predecessor left --- */
static const char *link_name(char name[KEEP_NAME_MAX], unsigned int site, unsigned int turn)
{
	snprintf(name, KEEP_NAME_MAX, "link.%u.%u", site, turn);
	return name;
}

static struct left left_take(const struct tracer_keep *keep)
{
	char name[KEEP_NAME_MAX];
	struct left left;

	for (unsigned int i = 0; i < N_MAPS; i++)
		left.maps[i] = keep_take(keep, map_names[i]);
	for (unsigned int i = 0; i < TIER_PROBE_SLOTS; i++)
		for (unsigned int turn = 0; turn < 2; turn++)
			left.links[i][turn] = keep_take(keep, link_name(name, i, turn));
	return left;
}

static void left_drop(int *fd, const struct tracer_keep *keep, const char *name)
{
	if (*fd < 0)
		return;
	keep_remove(keep, name);
	*fd = close_fd(*fd);
}

static void left_drop_maps(struct left *left, const struct tracer_keep *keep)
{
	for (unsigned int i = 0; i < N_MAPS; i++)
		left_drop(&left->maps[i], keep, map_names[i]);
}

static void left_drop_link(struct left *left, const struct tracer_keep *keep, unsigned int site, unsigned int turn)
{
	char name[KEEP_NAME_MAX];

	left_drop(&left->links[site][turn], keep, link_name(name, site, turn));
}

static void left_drop_links(struct left *left, const struct tracer_keep *keep)
{
	for (unsigned int i = 0; i < TIER_PROBE_SLOTS; i++)
		for (unsigned int turn = 0; turn < 2; turn++)
			left_drop_link(left, keep, i, turn);
}

void programs_forget(const struct tracer_keep *keep)
{
	struct left left = left_take(keep);

	left_drop_links(&left, keep);
	left_drop_maps(&left, keep);
}

/* -- Maps --- */
static struct bpf_map *program_map(const struct tracer_bpf *skel, unsigned int i)
{
	struct bpf_map *const maps[N_MAPS] = { skel->maps.ring, skel->maps.newest, skel->maps.limits, skel->maps.bss };

	return maps[i];
}

/* NULL, or why it is none that these programs can use */
static const char *map_check(const struct bpf_map *map, int fd, bool is_ring)
{
	struct bpf_map_info info = { 0 };
	uint32_t n = sizeof(info);

	if (bpf_obj_get_info_by_fd(fd, &info, &n))
		return "it is no map";
	if (info.type != bpf_map__type(map) || info.map_flags != bpf_map__map_flags(map))
		return "it is a map of another kind";
	if (info.key_size != bpf_map__key_size(map) || info.value_size != bpf_map__value_size(map))
		return "its entries have another size";
	return is_ring || info.max_entries == bpf_map__max_entries(map) ? NULL : "it has another number of entries";
}

static const char *counts_check(int fd)
{
	struct tracer_bpf__bss bss = { 0 };
	const uint32_t key = 0;

	static_assert(sizeof(bss) == sizeof(struct tier_kernel_counts), "nothing else is in .bss: what a daemon leaves has one format");
	if (bpf_map_lookup_elem(fd, &key, &bss))
		return "it cannot be read";
	return bss.counts.format == TIER_KERNEL_FORMAT ? NULL : "it has another format";
}

/* Whether all of them are there and fit; if only some are, the log says which is at fault. */
static bool left_fits(const struct left *left, const struct tracer_bpf *skel)
{
	unsigned int n_missing = 0;

	for (unsigned int i = 0; i < N_MAPS; i++) {
		const char *fault = NULL;

		if (left->maps[i] < 0) {
			n_missing++;
			continue;
		}
		fault = map_check(program_map(skel, i), left->maps[i], i == MAP_RING);
		if (!fault && i == MAP_COUNTS)
			fault = counts_check(left->maps[i]);
		if (fault) {
			log_line(LOG_WARNING, "the kernel map '%s' of the daemon before is not used: %s", map_names[i], fault);
			return false;
		}
	}
	if (n_missing && n_missing < N_MAPS)
		log_line(LOG_WARNING, "kernel maps of the daemon before are not used: %u of %u are missing", n_missing, N_MAPS);
	return !n_missing;
}

static int left_reuse(const struct left *left, const struct tracer_bpf *skel)
{
	int r = 0;

	for (unsigned int i = 0; i < N_MAPS && !r; i++)
		r = bpf_map__reuse_fd(program_map(skel, i), left->maps[i]);
	return r;
}

static void ring_compare(const struct tracer_bpf *skel, uint32_t bytes)
{
	const uint32_t has = bpf_map__max_entries(skel->maps.ring);

	if (has != bytes)
		log_line(LOG_WARNING, "the ring buffer keeps the size that it had before, %u bytes: it holds what was not read yet", has);
}

static void maps_put(const struct tracer_bpf *skel, const struct tracer_keep *keep)
{
	skel->bss->counts.format = TIER_KERNEL_FORMAT;
	for (unsigned int i = 0; i < N_MAPS; i++)
		keep_put(keep, map_names[i], bpf_map__fd(program_map(skel, i)));
}

/* -- Programs --- */
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
#define programs_count_faults(skel) fault_set(FAULT_RESERVE, (skel)->bss->counts.n_reserved)
#else
#define programs_arm_fault(skel) ((void)0)
#define programs_count_faults(skel) ((void)0)
#endif

/* A process that hits all the time may fill a quarter of the ring at once. */
static void programs_configure(struct tracer_bpf *skel, const struct tracer_config *config)
{
	const uint64_t n_burst = config->ring_bytes / 4 / (sizeof(struct tier_kernel_event) + BPF_RINGBUF_HDR_SZ);
	struct stat namespace;

	programs_arm_fault(skel);
	if (config->per_second) {
		skel->rodata->limit_cost_ns = UINT64_C(1000000000) / config->per_second;
		skel->rodata->limit_burst_ns = MAX(n_burst, UINT64_C(1)) * skel->rodata->limit_cost_ns;
	}
	if (stat("/proc/self/ns/pid", &namespace) < 0)
		return;		/* then nobody is the daemon: what it publishes is for others' tracers only */
	skel->rodata->daemon_dev = namespace.st_dev;
	skel->rodata->daemon_ino = namespace.st_ino;
	skel->rodata->daemon_pid = getpid();
}

static int programs_load(struct tracer_bpf *skel, const struct tracer_config *config, struct left *left, const struct refusal *why)
{
	const bool is_left = left_fits(left, skel);
	int r;

	programs_configure(skel, config);
	if (!is_left)
		left_drop_maps(left, config->keep);
	r = is_left ? left_reuse(left, skel) : bpf_map__set_max_entries(skel->maps.ring, config->ring_bytes);
	if (r)
		return refuse(why, is_left ? "taking over the kernel maps" : "sizing the ring buffer", "", r);
	r = tracer_bpf__load(skel);
	if (r)
		return refuse(why, "loading the kernel programs", "", r);
	if (is_left)
		ring_compare(skel, config->ring_bytes);
	else
		maps_put(skel, config->keep);
	return 0;
}

/* -- Links --- */
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

/* The new link is put in the turn that is free, then the old one goes. */
static void link_keep(const struct tracer_keep *keep, struct left *left, unsigned int site, int fd)
{
	const unsigned int turn = left->links[site][0] >= 0;
	char name[KEEP_NAME_MAX];

	if (turn)
		left_drop_link(left, keep, site, 1);	/* of a daemon that died between the two steps */
	keep_put(keep, link_name(name, site, turn), fd);
	left_drop_link(left, keep, site, !turn);
}

static int programs_attach(struct programs *programs, int page_fd, const struct tracer_keep *keep, struct left *left,
			   const struct refusal *why)
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
		link_keep(keep, left, i, r);
		log_event(LOG_TRACE, LOG_INFO100, "attached to the site %s", names[i]);
	}
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

	for (unsigned int i = 0; i < N_MAPS; i++)
		keep_remove(keep, map_names[i]);
	for (unsigned int i = 0; i < TIER_PROBE_SLOTS; i++)
		for (unsigned int turn = 0; turn < 2 && programs->links[i] >= 0; turn++)
			keep_remove(keep, link_name(name, i, turn));
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
		r = programs_attach(programs, page_fd, config->keep, &left, &why);
	left_drop_links(&left, config->keep);	/* to sites that we do not listen to, too */
	for (unsigned int i = 0; i < N_MAPS; i++)
		close_fd(left.maps[i]);
	if (r) {
		programs_unkeep(programs, config->keep);
		programs_stop(programs);
	}
	return r;
}

void programs_stop(struct programs *programs)
{
	for (unsigned int i = 0; i < TIER_PROBE_SLOTS; i++)
		programs->links[i] = close_fd(programs->links[i]);
	if (programs->skel && programs->skel->bss)
		programs_count_faults(programs->skel);
	tracer_bpf__destroy(programs->skel);
	programs->skel = NULL;
}

int programs_ring(const struct programs *programs)
{
	return bpf_map__fd(programs->skel->maps.ring);
}

int programs_newest(const struct programs *programs)
{
	return bpf_map__fd(programs->skel->maps.newest);
}

struct tier_kernel_counts *programs_counts(const struct programs *programs)
{
	return programs->skel ? &programs->skel->bss->counts : NULL;
}
