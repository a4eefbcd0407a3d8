/* SPDX-License-Identifier: Apache-2.0 */
/* What a method's instructions and attributes say about its way through the tiers
 *
 * Loops, patchpoints and the sizes of profiles are looked up while the module is built, in one pass over its instructions;
 * later a trait is a load. Patchpoints are numbered in the order of methods, within a method in that of its loops. Attributes
 * are the method's, whatever body it has; loops and precompiled code are the body's. */
#include <errno.h>
#include <stdlib.h>
#include "bytecode/loops.h"
#include "bytecode/profile.h"
#include "host.h"
#include "util/base.h"
#include "util/error.h"

#define VERSIONS_COUNTED 2u	/* for which a method has cells: its own instrumented one, and one of another body */

uint32_t host_profile_words(const struct host *host, const struct insn *insns, uint32_t n_insns)
{
	return host->config.pgo && n_insns < HOST_INSNS_HUGE ? profile_n_words(insns, n_insns) : 0;
}

/* -- While the module is built --- */
/* Only frames of tier 0 go on elsewhere, and these methods have none. */
static bool method_skips_tier0(const struct host *host, uint32_t method)
{
	return host->image.methods[method].flags & (IMAGE_METHOD_NO_OPTIMIZATION | IMAGE_METHOD_AGGRESSIVE_OPTIMIZATION);
}

int host_measure(struct host *host, struct arena_needs *needs)
{
	host->own = calloc(MAX(host->image.n_methods, 1u), sizeof(*host->own));
	if (!host->own)
		return error_origin(-ENOMEM);
	for (uint32_t i = 0; i < host->image.n_methods; i++) {
		struct host_method *method = &host->own[i];
		int64_t n = loops_find(image_method_insns(&host->image, i), host->image.methods[i].n_insns, NULL);

		if (n < 0)
			return error_fold(n);
		method->has_loops = n > 0;
		method->patchpoint = needs->n_patchpoints;
		if (host->config.osr && !method_skips_tier0(host, i))
			method->n_patchpoints = n;
		needs->n_patchpoints += method->n_patchpoints;
		method->n_profile = host_profile_words(host, image_method_insns(&host->image, i), host->image.methods[i].n_insns);
		needs->n_profile += VERSIONS_COUNTED * (uint64_t)method->n_profile;
	}
	return 0;
}

void host_forgo(struct host *host, struct arena_needs *needs)
{
	for (uint32_t i = 0; i < host->image.n_methods; i++)
		host->own[i].n_patchpoints = 0;
	host->config.pgo = host->config.osr = false;
	needs->n_patchpoints = 0;
	needs->n_profile = 0;
}

static int method_fill_patchpoints(struct host *host, uint32_t index)
{
	const struct host_method *method = &host->own[index];
	const struct tier_layout *layout = arena_layout(host->arena);
	_cleanup_(freep) uint32_t *heads = calloc(method->n_patchpoints, sizeof(*heads));
	int64_t n;

	if (!heads)
		return error_origin(-ENOMEM);
	n = loops_find(image_method_insns(&host->image, index), host->image.methods[index].n_insns, heads);
	for (uint32_t i = 0; i < n; i++) {
		const uint32_t number = method->patchpoint + i;

		*arena_patchpoint(host->arena, number) = (struct tier_patchpoint){
			.method = index, .pc = heads[i], .number = number,
			.limit = host->config.osr_hit_limit, .bump = host->config.osr_counter_bump,
			.offset = tier_layout_patchpoint(layout, number) - tier_layout_segment(layout, TIER_SEGMENT_RECORDS),
		};
	}
	return n < 0 ? error_fold(n) : 0;
}

int host_fill_patchpoints(struct host *host)
{
	for (uint32_t i = 0; i < host->image.n_methods; i++) {
		int r = host->own[i].n_patchpoints ? method_fill_patchpoints(host, i) : 0;

		if (r)
			return error_fold(r);
	}
	return 0;
}

/* -- Questions --- */
uint32_t host_traits(const struct host *host, uint32_t method, uint32_t id)
{
	const struct host_body *body = host_body_of(host, method, id);
	const uint32_t flags = host->image.methods[method].flags;
	uint32_t traits = 0;

	if (flags & IMAGE_METHOD_NO_OPTIMIZATION)
		traits |= CORE_TRAIT_NO_OPTIMIZATION;
	if (flags & IMAGE_METHOD_AGGRESSIVE_OPTIMIZATION)
		traits |= CORE_TRAIT_AGGRESSIVE_OPTIMIZATION;
	if (body ? body->has_loops : host->own[method].has_loops)
		traits |= CORE_TRAIT_LOOPS;
	if (!body && host_has_precompiled(host, method))
		traits |= CORE_TRAIT_PRECOMPILED | (flags & IMAGE_METHOD_PINNED ? CORE_TRAIT_PINNED : 0);
	return traits;
}

uint32_t host_n_profile(const struct host *host, uint32_t method, uint32_t id)
{
	const struct host_body *body = host_body_of(host, method, id);

	if (!host->config.pgo)
		return 0;
	return body ? body->n_profile : host->own[method].n_profile;
}
