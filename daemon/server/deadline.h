/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Deadlines: a binary heap, for thousands of waits behind one timer of the loop
 *
 * A struct deadline is embedded in what it belongs to; it knows its place, so that it can leave from the middle. */

#include <stddef.h>
#include <stdint.h>

struct deadline {
	uint64_t at_ns;			/* CLOCK_MONOTONIC */
	size_t place;			/* 1-based position in the heap; 0: in none */
};

struct deadline_heap {
	struct deadline **entries;	/* entries[0] is not used */
	size_t n, n_max;
};

void deadline_heap_deinit(struct deadline_heap *heap);
int deadline_add(struct deadline_heap *heap, struct deadline *deadline, uint64_t at_ns);	/* 0 or -ENOMEM */
void deadline_remove(struct deadline_heap *heap, struct deadline *deadline);	/* idempotent */
struct deadline *deadline_first(const struct deadline_heap *heap);		/* the earliest, or NULL */
