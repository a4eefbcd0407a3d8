/* SPDX-License-Identifier: Apache-2.0 */
#include "workload.h"

/* The product of two square matrices of 32-bit integers, modulo 2^32. The inner loop goes along rows, so a compiler
 * that still knows the base of each pointer vectorizes it. */

method void row_add(u32 *sum, const u32 *row, u32 factor, u64 n)
{
	for (u64 i = 0; i < n; i++)
		sum[i] += factor * row[i];
}

method u64 trace(const u32 *matrix, u64 n)
{
	u64 sum = 0;

	for (u64 i = 0; i < n; i++)
		sum += matrix[i * n + i];
	return sum;
}

/* Returns the trace of @product, not reduced. */
export u64 ENTRY(matmul)(const u32 *a, const u32 *b, u32 *product, u64 n)
{
	for (u64 i = 0; i < n; i++) {
		for (u64 j = 0; j < n; j++)
			product[i * n + j] = 0;
		for (u64 k = 0; k < n; k++)
			row_add(product + i * n, b + k * n, a[i * n + k], n);
	}
	return trace(product, n);
}
