/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include "server/deadline.h"
#include "util/base.h"
#include "util/error.h"

void deadline_heap_deinit(struct deadline_heap *heap)
{
	free(heap->entries);
	*heap = (struct deadline_heap){};
}

static void heap_set(struct deadline_heap *heap, size_t place, struct deadline *deadline)
{
	heap->entries[place] = deadline;
	deadline->place = place;
}

/* Puts @deadline at @place or above it, as far up as its time says. */
static void heap_rise(struct deadline_heap *heap, size_t place, struct deadline *deadline)
{
	while (place > 1 && heap->entries[place / 2]->at_ns > deadline->at_ns) {
		heap_set(heap, place, heap->entries[place / 2]);
		place /= 2;
	}
	heap_set(heap, place, deadline);
}

/* Puts @deadline at @place or below it. */
static void heap_sink(struct deadline_heap *heap, size_t place, struct deadline *deadline)
{
	for (size_t child; (child = place * 2) <= heap->n; place = child) {
		if (child < heap->n && heap->entries[child + 1]->at_ns < heap->entries[child]->at_ns)
			child++;
		if (heap->entries[child]->at_ns >= deadline->at_ns)
			break;
		heap_set(heap, place, heap->entries[child]);
	}
	heap_set(heap, place, deadline);
}

static int heap_grow(struct deadline_heap *heap)
{
	size_t n_max = heap->n_max ? heap->n_max * 2 : 64;
	struct deadline **entries;

	entries = reallocarray(heap->entries, n_max + 1, sizeof(*entries));
	if (!entries)
		return error_origin(-ENOMEM);
	heap->entries = entries;
	heap->n_max = n_max;
	return 0;
}

int deadline_add(struct deadline_heap *heap, struct deadline *deadline, uint64_t at_ns)
{
	int r;

	if (heap->n == heap->n_max) {
		r = heap_grow(heap);
		if (r)
			return error_fold(r);
	}
	deadline->at_ns = at_ns;
	heap_rise(heap, ++heap->n, deadline);
	return 0;
}

void deadline_remove(struct deadline_heap *heap, struct deadline *deadline)
{
	size_t place = deadline->place;
	struct deadline *last;

	if (!place)
		return;
	deadline->place = 0;
	last = heap->entries[heap->n--];
	if (last == deadline)
		return;
	if (place > 1 && heap->entries[place / 2]->at_ns > last->at_ns)
		heap_rise(heap, place, last);
	else
		heap_sink(heap, place, last);
}

struct deadline *deadline_first(const struct deadline_heap *heap)
{
	return heap->n ? heap->entries[1] : NULL;
}
