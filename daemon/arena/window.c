/* SPDX-License-Identifier: Apache-2.0 */
#include <sys/random.h>
#include "arena/arena.h"
#include "util/base.h"
#include "util/dispatch.h"

/* The window of addresses that modules live in
 *
 * Spans are handed out upwards and never again: an address that somebody kept from an unloaded module can then never mean
 * another one's code. 48 TiB lie between the limits; the random base leaves at least a third of them, eight
 * thousand spans of the largest size. */

#define WINDOW_ALIGN (2ull << 20)
#define WINDOW_ROOM (16ull << 40)
#define WINDOW_TOP 0x7f0000000000ull	/* above it: stacks, libraries, the vDSO */

void window_init(struct window *window, uint64_t base)
{
	uint64_t random;

	if (!base) {
		/* Only early boot or a filter can refuse; a guessable base is then better than no service. */
		if (getrandom(&random, sizeof(random), 0) != sizeof(random))
			random = clock_now_ns() * 0x9e3779b97f4a7c15ull;
		base = TIER_WINDOW_LOW + random % (TIER_WINDOW_HIGH - TIER_WINDOW_LOW - WINDOW_ROOM);
		base &= ~(WINDOW_ALIGN - 1);
	}
	window->base = base;
	window->next = base;
}

/* A base that the administrator chose may lie outside the usual limits (a sanitizer's free range). */
static uint64_t window_end(const struct window *window)
{
	if (window->base < TIER_WINDOW_LOW)
		return TIER_WINDOW_LOW;
	return window->base < TIER_WINDOW_HIGH ? TIER_WINDOW_HIGH : WINDOW_TOP;
}

uint64_t window_take(struct window *window, uint64_t size)
{
	uint64_t end = window_end(window), base;

	if (window->next >= end)
		return 0;
	base = align_up(window->next, WINDOW_ALIGN);
	if (base >= end || size > end - base)
		return 0;
	window->next = base + size;
	return base;
}
