/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "cache/entry.h"
#include "util/base.h"
#include "util/error.h"
#include "util/hash.h"

#define ENTRY_MAGIC 0x3148434352454954ull	/* "TIERCCH1" */

struct entry_header {
	uint64_t magic;
	uint64_t sum;		/* of all bytes behind this field: a file that was torn does not match */
	uint64_t n_key, n_profiles, n_code;
};

/* Words rather than bytes, rotated rather than xored: MurmurHash's finalizer after each */
static uint64_t mix(const void *bytes, size_t n)
{
	const uint8_t *p = bytes;
	uint64_t hash = n * 0x9e3779b97f4a7c15ull;

	for (size_t i = 0; i < n; i += 8) {
		uint64_t word = 0;

		memcpy(&word, p + i, MIN(n - i, (size_t)8));
		hash = (hash << 23 | hash >> 41) + word;
		hash = (hash ^ hash >> 33) * 0xff51afd7ed558ccdull;
		hash = (hash ^ hash >> 33) * 0xc4ceb9fe1a85ec53ull;
		hash ^= hash >> 33;
	}
	return hash;
}

struct entry_name entry_name(const void *key, size_t n)
{
	return (struct entry_name){ { hash_fnv(HASH_FNV_BASIS, key, n), mix(key, n) } };
}

static uint64_t sum_of(const void *bytes, size_t n)
{
	const size_t from = offsetof(struct entry_header, n_key);

	return mix((const uint8_t *)bytes + from, n - from);
}

static void *put(void *at, const struct entry_part *part)
{
	if (part->n)
		memcpy(at, part->bytes, part->n);
	return (uint8_t *)at + align_up(part->n, 8);
}

int entry_put(const struct entry *entry, void **ret, size_t *ret_n)
{
	struct entry_header *header;
	size_t n = sizeof(*header);

	if (entry->key.n > ENTRY_MAX || entry->profiles.n > ENTRY_MAX || entry->code.n > ENTRY_MAX)
		return -EFBIG;
	n += align_up(entry->key.n, 8) + align_up(entry->profiles.n, 8) + align_up(entry->code.n, 8);
	if (n > ENTRY_MAX)
		return -EFBIG;
	header = calloc(1, n);
	if (!header)
		return error_origin(-ENOMEM);
	*header = (struct entry_header){
		.magic = ENTRY_MAGIC, .n_key = entry->key.n, .n_profiles = entry->profiles.n, .n_code = entry->code.n,
	};
	put(put(put(header + 1, &entry->key), &entry->profiles), &entry->code);
	header->sum = sum_of(header, n);
	*ret = header;
	*ret_n = n;
	return 0;
}

/* A part of @n bytes at *at, which moves behind it; false: there are not so many. */
static bool take(struct entry_part *ret, const uint8_t **at, const uint8_t *end, uint64_t n)
{
	if (n > ENTRY_MAX || align_up(n, 8) > (uint64_t)(end - *at))
		return false;
	*ret = (struct entry_part){ *at, n };
	*at += align_up(n, 8);
	return true;
}

enum entry_state entry_get(struct entry *ret, const void *bytes, size_t n, const struct entry_part *key)
{
	const struct entry_header *header = bytes;
	const uint8_t *at = (const uint8_t *)(header + 1), *end = (const uint8_t *)bytes + n;
	struct entry entry;

	if (n < sizeof(*header) || header->magic != ENTRY_MAGIC || header->sum != sum_of(bytes, n))
		return ENTRY_DAMAGED;
	if (!take(&entry.key, &at, end, header->n_key) || !take(&entry.profiles, &at, end, header->n_profiles)
	    || !take(&entry.code, &at, end, header->n_code) || at != end)
		return ENTRY_DAMAGED;
	if (entry.key.n != key->n || memcmp(entry.key.bytes, key->bytes, key->n))
		return ENTRY_OF_ANOTHER;
	*ret = entry;
	return ENTRY_FOUND;
}
