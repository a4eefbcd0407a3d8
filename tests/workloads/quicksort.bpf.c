/* SPDX-License-Identifier: Apache-2.0 */
#include "formats.h"
#include "workload.h"

/* Quicksort of 32-bit numbers by a comparison function that the caller chooses: an indirect call in the innermost loop,
 * and methods that call themselves. */

typedef u64 less_function(u32 a, u32 b);

method u64 less_ascending(u32 a, u32 b) { return a < b; }
method u64 less_descending(u32 a, u32 b) { return a > b; }
method u64 less_signed(u32 a, u32 b) { return (int)a < (int)b; }

/* By the number of ones, then by value */
method u64 less_ones(u32 a, u32 b)
{
	u32 n_a = 0, n_b = 0;

	for (u32 x = a; x; x &= x - 1)
		n_a++;
	for (u32 x = b; x; x &= x - 1)
		n_b++;
	return n_a != n_b ? n_a < n_b : a < b;
}

static less_function *const orders[_SORT_N] = {
	[SORT_ASCENDING] = less_ascending,
	[SORT_DESCENDING] = less_descending,
	[SORT_SIGNED] = less_signed,
	[SORT_ONES] = less_ones,
};

static inline void swap(u32 *a, u32 *b)
{
	u32 value = *a;

	*a = *b;
	*b = value;
}

/* Moves what is less than the middle element before it and the rest behind; returns where that element came to lie. */
method u64 partition(u32 *values, u64 n, less_function *less)
{
	u64 end = 0;

	swap(&values[n / 2], &values[n - 1]);
	for (u64 i = 0; i < n - 1; i++)
		if (less(values[i], values[n - 1]))
			swap(&values[i], &values[end++]);
	swap(&values[end], &values[n - 1]);
	return end;
}

/* Calls itself for the smaller part only, so that it never gets deep. */
method void sort(u32 *values, u64 n, less_function *less)
{
	while (n > 1) {
		u64 at = partition(values, n, less), rest = n - at - 1;

		if (at < rest) {
			sort(values, at, less);
			values += at + 1;
			n = rest;
		} else {
			sort(values + at + 1, rest, less);
			n = at;
		}
	}
}

/* Returns a sum that depends on the order. */
export u64 ENTRY(quicksort)(const u32 *values, u64 n, u32 *sorted, u64 order)
{
	u64 sum = 0;

	for (u64 i = 0; i < n; i++)
		sorted[i] = values[i];
	sort(sorted, n, orders[order % _SORT_N]);
	for (u64 i = 0; i < n; i++)
		sum += sorted[i] * (i + 1);
	return sum;
}
