/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include "journal/index.h"
#include "util/base.h"
#include "util/error.h"

int index_reserve(struct segment_index *index)
{
	const uint32_t n_max = MAX(2 * index->n, 64u);
	struct segment *segments;

	if (index->n < index->n_max)
		return 0;
	segments = reallocarray(index->segments, n_max, sizeof(*segments));
	if (!segments)
		return error_origin(-ENOMEM);
	index->segments = segments;
	index->n_max = n_max;
	return 0;
}

void index_append(struct segment_index *index, const struct segment *segment)
{
	assert(index->n < index->n_max && (!index->n || segment->first > index_newest(index)->last));
	index->segments[index->n++] = *segment;
	index->n_bytes += segment->n_bytes;
}

void index_update(struct segment_index *index, struct segment *segment, const struct segment *now)
{
	assert(segment->first == now->first);
	index->n_bytes += now->n_bytes - segment->n_bytes;
	*segment = *now;
}

void index_remove_oldest(struct segment_index *index)
{
	assert(index->n);
	index->n_bytes -= index->segments[0].n_bytes;
	memmove(index->segments, index->segments + 1, --index->n * sizeof(index->segments[0]));
}

void index_remove_newest(struct segment_index *index)
{
	assert(index->n);
	index->n_bytes -= index->segments[--index->n].n_bytes;
}

void index_deinit(struct segment_index *index)
{
	free(index->segments);
	*index = (struct segment_index){};
}

/* -- Finding --- */
static struct segment *find(const struct segment_index *index, uint64_t key, size_t field)
{
	uint32_t low = 0, high = index->n;	/* those below low are not after the key, those from high on are */

	while (low < high) {
		const uint32_t middle = low + (high - low) / 2;
		const uint64_t *value = (const uint64_t *)((const char *)&index->segments[middle] + field);

		if (*value <= key)
			low = middle + 1;
		else
			high = middle;
	}
	return low ? &index->segments[low - 1] : NULL;
}

struct segment *index_find(const struct segment_index *index, uint64_t sequence)
{
	return find(index, sequence, offsetof(struct segment, first));
}

struct segment *index_find_time(const struct segment_index *index, uint64_t time_ns)
{
	return find(index, time_ns, offsetof(struct segment, time_ns));
}

uint32_t events_find_time(const struct tier_event *events, uint32_t n, uint64_t time_ns)
{
	uint32_t low = 0, high = n;

	while (low < high) {
		const uint32_t middle = low + (high - low) / 2;

		if (events[middle].time_ns < time_ns)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}
