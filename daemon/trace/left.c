/* SPDX-License-Identifier: Apache-2.0 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include "trace/attach.h"
#include "trace/keep.h"
#include "trace/left.h"
#include "util/base.h"
#include "util/log.h"

const char *const left_map_names[_LEFT_MAP_N] = { "ring", "newest", "limits", "bss" };

const char *left_link_name(char *name, unsigned int site, unsigned int turn)
{
	snprintf(name, KEEP_NAME_MAX, "link.%u.%u", site, turn);
	return name;
}

struct left left_take(const struct tracer_keep *keep)
{
	char name[KEEP_NAME_MAX];
	struct left left;

	for (unsigned int i = 0; i < _LEFT_MAP_N; i++)
		left.maps[i] = keep_take(keep, left_map_names[i]);
	for (unsigned int i = 0; i < TIER_PROBE_SLOTS; i++)
		for (unsigned int turn = 0; turn < 2; turn++)
			left.links[i][turn] = keep_take(keep, left_link_name(name, i, turn));
	return left;
}

/* Removed before it is closed: whoever closes last waits for the kernel. */
static void left_drop(int *fd, const struct tracer_keep *keep, const char *name)
{
	if (*fd < 0)
		return;
	keep_remove(keep, name);
	attach_end(fd, 1, false);
}

void left_drop_maps(struct left *left, const struct tracer_keep *keep)
{
	for (unsigned int i = 0; i < _LEFT_MAP_N; i++)
		left_drop(&left->maps[i], keep, left_map_names[i]);
}

void left_drop_link(struct left *left, const struct tracer_keep *keep, unsigned int site, unsigned int turn)
{
	char name[KEEP_NAME_MAX];

	left_drop(&left->links[site][turn], keep, left_link_name(name, site, turn));
}

void left_drop_links(struct left *left, const struct tracer_keep *keep)
{
	for (unsigned int i = 0; i < TIER_PROBE_SLOTS; i++)
		for (unsigned int turn = 0; turn < 2; turn++)
			left_drop_link(left, keep, i, turn);
}

/* -- Whether it can be used --- */
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

static const char *shared_check(int fd)
{
	struct tier_kernel_shared shared = { 0 };
	const uint32_t key = 0;

	if (bpf_map_lookup_elem(fd, &key, &shared))
		return "it cannot be read";
	return shared.format == TIER_KERNEL_FORMAT ? NULL : "it has another format";
}

static const char *left_map_fault(const struct left *left, unsigned int i, const struct bpf_map *map)
{
	const char *fault = map_check(map, left->maps[i], i == LEFT_MAP_RING);

	return fault || i != LEFT_MAP_SHARED ? fault : shared_check(left->maps[i]);
}

bool left_fits(const struct left *left, struct bpf_map *const maps[_LEFT_MAP_N])
{
	unsigned int n_missing = 0;

	for (unsigned int i = 0; i < _LEFT_MAP_N; i++) {
		const char *fault = left->maps[i] >= 0 ? left_map_fault(left, i, maps[i]) : NULL;

		n_missing += left->maps[i] < 0;
		if (fault) {
			log_line(LOG_WARNING, "the kernel map '%s' of the daemon before is not used: %s", left_map_names[i], fault);
			return false;
		}
	}
	if (n_missing && n_missing < _LEFT_MAP_N)
		log_line(LOG_WARNING, "kernel maps of the daemon before are not used: %u of %u are missing", n_missing,
			 (unsigned int)_LEFT_MAP_N);
	return !n_missing;
}

/* A link to an event, or on kernels before 5.15 the event */
static bool is_link(int fd)
{
	char path[64], target[64] = "";

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return readlink(path, target, sizeof(target) - 1) > 0
	    && (!strcmp(target, "anon_inode:bpf_link") || !strcmp(target, "anon_inode:[perf_event]"));
}

bool left_has_links(const struct left *left, uint32_t sites)
{
	for (unsigned int i = 0; i < TIER_PROBE_SLOTS; i++) {
		const int *links = left->links[i];

		if (!(sites >> i & 1))
			continue;
		if ((links[0] < 0) == (links[1] < 0))
			return false;	/* none, or one too many */
		if (!is_link(MAX(links[0], links[1])))
			return false;
	}
	return true;
}

int left_take_link(struct left *left, unsigned int site)
{
	return left->links[site][0] >= 0 ? TAKE_FD(left->links[site][0]) : TAKE_FD(left->links[site][1]);
}
