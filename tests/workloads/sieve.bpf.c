/* SPDX-License-Identifier: Apache-2.0 */
#include "workload.h"

/* The sieve of Eratosthenes, a bit for each number, in the caller's buffer. Returns how many primes there are below
 * @limit. Stores with a stride, and a population count that BPF has no instruction for. */

method void sieve_fill(u64 *words, u64 n)
{
	for (u64 i = 0; i < n; i++)
		words[i] = ~0ull;
}

static inline void sieve_clear(u64 *words, u64 i) { words[i / 64] &= ~(1ull << i % 64); }

method void sieve_strike(u64 *words, u64 prime, u64 limit)
{
	for (u64 i = prime * prime; i < limit; i += prime)
		sieve_clear(words, i);
}

method u64 sieve_count(const u64 *words, u64 n)
{
	u64 count = 0;

	for (u64 i = 0; i < n; i++)
		count += __builtin_popcountll(words[i]);
	return count;
}

/* @words: (limit + 63) / 64 of them; bit i is set afterwards exactly when i < @limit is prime. */
export u64 ENTRY(sieve)(u64 *words, u64 limit)
{
	u64 n = (limit + 63) / 64;

	if (limit < 2)
		return 0;
	sieve_fill(words, n);
	words[0] &= ~3ull;
	if (limit % 64)
		words[n - 1] &= (1ull << limit % 64) - 1;
	for (u64 i = 2; i * i < limit; i++)
		if (words[i / 64] >> i % 64 & 1)
			sieve_strike(words, i, limit);
	return sieve_count(words, n);
}
