/* SPDX-License-Identifier: Apache-2.0 */
#include "workload.h"

/* FNV-1a, 64 bits: one xor and one multiplication a byte. The chain of multiplications is the whole cost, so what a
 * compiler adds per byte shows at once. */

#define FNV_OFFSET 0xcbf29ce484222325ull
#define FNV_PRIME 0x100000001b3ull

method u64 fnv1a_step(u64 hash, u64 byte)
{
	return (hash ^ byte) * FNV_PRIME;
}

export u64 ENTRY(fnv1a)(const u8 *bytes, u64 n)
{
	u64 hash = FNV_OFFSET;

	for (u64 i = 0; i < n; i++)
		hash = fnv1a_step(hash, bytes[i]);
	return hash;
}
