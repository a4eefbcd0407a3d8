/* SPDX-License-Identifier: Apache-2.0 */
#include "workload.h"

/* Insertion sort of 32-bit numbers from one array into another, so that every call finds the same disorder. Loads and
 * stores through pointers that may alias, in a loop that ends at an unpredictable place. */

/* Puts @value where it belongs among the @n sorted ones. */
method void insert(u32 *sorted, u64 n, u32 value)
{
	for (; n && sorted[n - 1] > value; n--)
		sorted[n] = sorted[n - 1];
	sorted[n] = value;
}

/* Depends on the order as well as on the values. */
method u64 checksum(const u32 *values, u64 n)
{
	u64 sum = 0;

	for (u64 i = 0; i < n; i++)
		sum += values[i] * (i + 1);
	return sum;
}

export u64 ENTRY(insertsort)(const u32 *values, u64 n, u32 *sorted)
{
	for (u64 i = 0; i < n; i++)
		insert(sorted, i, values[i]);
	return checksum(sorted, n);
}
