/* SPDX-License-Identifier: Apache-2.0 */
#include "workload.h"

/* xxHash64: four independent lanes of 8 bytes each, merged and mixed at the end. Wants rotates as one instruction and
 * the four lanes kept in registers. */

#define PRIME_1 0x9e3779b185ebca87ull
#define PRIME_2 0xc2b2ae3d27d4eb4full
#define PRIME_3 0x165667b19e3779f9ull
#define PRIME_4 0x85ebca77c2b2ae63ull
#define PRIME_5 0x27d4eb2f165667c5ull

method u64 xxh64_round(u64 lane, u64 input)
{
	return rotl64(lane + input * PRIME_2, 31) * PRIME_1;
}

method u64 xxh64_merge(u64 hash, u64 lane)
{
	return (hash ^ xxh64_round(0, lane)) * PRIME_1 + PRIME_4;
}

/* Whole 32-byte stripes from @p to @end */
method u64 xxh64_stripes(const u8 *p, const u8 *end, u64 seed)
{
	u64 a = seed + PRIME_1 + PRIME_2, b = seed + PRIME_2, c = seed, d = seed - PRIME_1, hash;

	for (; p < end; p += 32) {
		a = xxh64_round(a, load64(p));
		b = xxh64_round(b, load64(p + 8));
		c = xxh64_round(c, load64(p + 16));
		d = xxh64_round(d, load64(p + 24));
	}
	hash = rotl64(a, 1) + rotl64(b, 7) + rotl64(c, 12) + rotl64(d, 18);
	hash = xxh64_merge(hash, a);
	hash = xxh64_merge(hash, b);
	hash = xxh64_merge(hash, c);
	return xxh64_merge(hash, d);
}

/* The last 0 to 31 bytes */
method u64 xxh64_tail(u64 hash, const u8 *p, u64 n)
{
	for (; n >= 8; p += 8, n -= 8)
		hash = rotl64(hash ^ xxh64_round(0, load64(p)), 27) * PRIME_1 + PRIME_4;
	if (n >= 4) {
		hash = rotl64(hash ^ load32(p) * PRIME_1, 23) * PRIME_2 + PRIME_3;
		p += 4;
		n -= 4;
	}
	for (; n; p++, n--)
		hash = rotl64(hash ^ *p * PRIME_5, 11) * PRIME_1;
	return hash;
}

method u64 xxh64_avalanche(u64 hash)
{
	hash = (hash ^ hash >> 33) * PRIME_2;
	hash = (hash ^ hash >> 29) * PRIME_3;
	return hash ^ hash >> 32;
}

export u64 ENTRY(xxhash64)(const u8 *bytes, u64 n, u64 seed)
{
	u64 n_stripes = n & ~31ull, hash;

	hash = n_stripes ? xxh64_stripes(bytes, bytes + n_stripes, seed) : seed + PRIME_5;
	return xxh64_avalanche(xxh64_tail(hash + n, bytes + n_stripes, n & 31));
}
