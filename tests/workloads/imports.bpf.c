/* SPDX-License-Identifier: Apache-2.0 */
#include "workload.h"

/* Functions of the host: one that must be bound before the first call, one that may be absent (its address is 0). */

extern u64 host_mix(u64 a, u64 b) import;
extern u64 host_bonus(u64 value) import_weak;

method u64 mix_twice(u64 a, u64 b)
{
	return host_mix(host_mix(a, b), b);
}

/* @rounds of mixing, two calls of the host each, and then its bonus if there is one */
export u64 ENTRY(imports)(u64 value, u64 rounds)
{
	for (u64 i = 0; i < rounds; i++)
		value = mix_twice(value, i);
	return host_bonus ? host_bonus(value) : value;
}
