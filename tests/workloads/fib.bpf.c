/* SPDX-License-Identifier: Apache-2.0 */
#include "workload.h"

/* Fibonacci numbers the slow way: nothing but calls of a method by itself. Each activation needs a frame of its own,
 * and the counter of one method is decremented from many depths. fib_of is global, so its calls have relocations. */

export u64 ENTRY(fib_of)(u64 n)
{
	return n < 2 ? n : ENTRY(fib_of)(n - 1) + ENTRY(fib_of)(n - 2);
}

export u64 ENTRY(fib)(u64 n)
{
	return ENTRY(fib_of)(n);
}
