/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A module of one method that calls no other, so that nothing climbs beside it: as BPF C for bpf_compile(), and natively */

#define SOLO_METHOD                                                                                                    \
	unsigned long solo(unsigned long n)                                                                            \
	{                                                                                                              \
		unsigned long hash = 14695981039346656037ul;                                                           \
		for (unsigned long i = 0; i < n; i++)                                                                  \
			hash = (hash ^ (i & 0xff)) * 1099511628211ul;                                                  \
		return hash;                                                                                           \
	}

#define SOLO_TEXT(...) SOLO_TEXT_(__VA_ARGS__)
#define SOLO_TEXT_(...) #__VA_ARGS__
#define SOLO_SOURCE SOLO_TEXT(SOLO_METHOD)

static inline SOLO_METHOD

#define SOLO_N 100ul	/* the usual argument */
