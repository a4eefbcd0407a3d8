/* SPDX-License-Identifier: Apache-2.0 */
#include "workload.h"

/* State that belongs to each process: initialized data, zeroed data, a function pointer that the program itself
 * changes, and a knob in .rodata that an instantiation may set. Two processes that open this module must not see each
 * other's numbers; every thread of one process does. */

#define N_HISTORY 8u

const volatile u64 counter_step = 3;

u64 counter_total = 1000;
u64 counter_calls;
static u64 counter_history[N_HISTORY];

method u64 fold_add(u64 total, u64 value) { return total + value; }
method u64 fold_xor(u64 total, u64 value) { return total ^ value; }

u64 (*counter_fold)(u64 total, u64 value) = fold_add;

/* The new total: the first call with 1 returns 1003. */
export u64 ENTRY(counter)(u64 n)
{
	counter_total = counter_fold(counter_total, n * counter_step);
	counter_history[counter_calls++ % N_HISTORY] = counter_total;
	return counter_total;
}

/* The total @n calls before the last, 0 if there were not so many or it is no longer known */
export u64 ENTRY(counter_past)(u64 n)
{
	return n < counter_calls && n < N_HISTORY ? counter_history[(counter_calls - 1 - n) % N_HISTORY] : 0;
}

/* From now on totals are added to, or, when @is_xor, exclusive-or-ed. Returns how many calls there were. */
export u64 ENTRY(counter_use)(u64 is_xor)
{
	counter_fold = is_xor ? fold_xor : fold_add;
	return counter_calls;
}
