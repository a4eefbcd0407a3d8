/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* FNV-1a, 64 bits (Fowler, Noll, Vo): finds equal content quickly. No security: whoever wants equality compares. */

#include <stddef.h>
#include <stdint.h>

#define HASH_FNV_BASIS 0xcbf29ce484222325ull

/* Goes on from @hash, which begins as HASH_FNV_BASIS. */
static inline uint64_t hash_fnv(uint64_t hash, const void *bytes, size_t n)
{
	const uint8_t *p = bytes;

	for (size_t i = 0; i < n; i++)
		hash = (hash ^ p[i]) * 0x100000001b3ull;
	return hash;
}
