/* SPDX-License-Identifier: Apache-2.0 */
#include "workload.h"

/* Binary searches in a sorted table: where each key would be inserted. A branch that nobody predicts, unless the
 * compiler makes a conditional move of it. */

method u64 lower_bound(const u32 *table, u64 n, u32 key)
{
	u64 low = 0;

	while (n) {
		u64 half = n / 2;

		if (table[low + half] < key) {
			low += half + 1;
			n -= half + 1;
		} else {
			n = half;
		}
	}
	return low;
}

/* The sum of (position + 1) * (index of the key + 1) */
export u64 ENTRY(bsearch)(const u32 *table, u64 n, const u32 *keys, u64 n_keys)
{
	u64 sum = 0;

	for (u64 i = 0; i < n_keys; i++)
		sum += (lower_bound(table, n, keys[i]) + 1) * (i + 1);
	return sum;
}
