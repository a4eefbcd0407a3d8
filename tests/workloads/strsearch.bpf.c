/* SPDX-License-Identifier: Apache-2.0 */
#include "workload.h"

/* Boyer, Moore and Horspool's string search: how often the needle occurs, overlaps included. The table of shifts
 * takes half of the BPF frame; the loads from it depend on the text. */

#define NEEDLE_MAX 255u		/* a shift must fit in a byte */

method void shifts_fill(u8 *shifts, const u8 *needle, u64 n)
{
	for (u64 i = 0; i < 256; i++)
		shifts[i] = n;
	for (u64 i = 0; i + 1 < n; i++)
		shifts[needle[i]] = n - 1 - i;
}

method u64 is_equal(const u8 *a, const u8 *b, u64 n)
{
	for (u64 i = 0; i < n; i++)
		if (a[i] != b[i])
			return 0;
	return 1;
}

export u64 ENTRY(strsearch)(const u8 *text, u64 n, const u8 *needle, u64 n_needle)
{
	u8 shifts[256], last;
	u64 count = 0;

	if (!n_needle || n_needle > NEEDLE_MAX || n_needle > n)
		return 0;
	shifts_fill(shifts, needle, n_needle);
	last = needle[n_needle - 1];
	for (u64 at = 0; at <= n - n_needle;) {
		u8 seen = text[at + n_needle - 1];

		if (seen == last && is_equal(text + at, needle, n_needle - 1))
			count++;
		at += shifts[seen];
	}
	return count;
}
