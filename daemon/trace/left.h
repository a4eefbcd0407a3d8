/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What a predecessor left of the kernel's: the maps, and a link per site under either of two names that take turns */

#include <stdbool.h>
#include <stdint.h>
#include "tier/events.h"
#include "trace/tracer.h"

struct bpf_map;

enum left_map { LEFT_MAP_RING, LEFT_MAP_NEWEST, LEFT_MAP_LIMITS, LEFT_MAP_SHARED, _LEFT_MAP_N };
extern const char *const left_map_names[_LEFT_MAP_N];
const char *left_link_name(char *name, unsigned int site, unsigned int turn);	/* @name: KEEP_NAME_MAX bytes; returns it */

struct left {
	int maps[_LEFT_MAP_N];			/* -1: nothing, here and below */
	int links[TIER_PROBE_SLOTS][2];
};

struct left left_take(const struct tracer_keep *keep);		/* it stays kept */
/* No longer kept, and closed: without waiting for the kernel, which takes long to detach. */
void left_drop_maps(struct left *left, const struct tracer_keep *keep);
void left_drop_link(struct left *left, const struct tracer_keep *keep, unsigned int site, unsigned int turn);
void left_drop_links(struct left *left, const struct tracer_keep *keep);

/* Whether all maps are there and like those given; if only some are, the log says which is at fault. */
bool left_fits(const struct left *left, struct bpf_map *const maps[_LEFT_MAP_N]);
/* Whether each of the sites, a bit each, has one link */
bool left_has_links(const struct left *left, uint32_t sites);
int left_take_link(struct left *left, unsigned int site);	/* the caller's now */
