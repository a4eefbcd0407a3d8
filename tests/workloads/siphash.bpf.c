/* SPDX-License-Identifier: Apache-2.0 */
#include "workload.h"

/* SipHash-2-4: a keyed hash of additions, rotations and xors. Its state is a struct in the entry's frame that the
 * rounds, a method of their own, reach through a pointer. */

struct sip { u64 a, b, c, d; };

method void sip_round(struct sip *s)
{
	s->a += s->b;
	s->c += s->d;
	s->b = rotl64(s->b, 13) ^ s->a;
	s->d = rotl64(s->d, 16) ^ s->c;
	s->a = rotl64(s->a, 32);
	s->c += s->b;
	s->a += s->d;
	s->b = rotl64(s->b, 17) ^ s->c;
	s->d = rotl64(s->d, 21) ^ s->a;
	s->c = rotl64(s->c, 32);
}

static inline void sip_feed(struct sip *s, u64 word)
{
	s->d ^= word;
	sip_round(s);
	sip_round(s);
	s->a ^= word;
}

/* The last 0 to 7 bytes, with the length in the top byte */
method u64 sip_tail(const u8 *bytes, u64 n)
{
	u64 word = n << 56;

	for (u64 i = 0; i < n % 8; i++)
		word |= (u64)bytes[(n & ~7ull) + i] << 8 * i;
	return word;
}

export u64 ENTRY(siphash)(const u8 *bytes, u64 n, u64 key_low, u64 key_high)
{
	struct sip s = {
		key_low ^ 0x736f6d6570736575ull,
		key_high ^ 0x646f72616e646f6dull,
		key_low ^ 0x6c7967656e657261ull,
		key_high ^ 0x7465646279746573ull,
	};

	for (u64 i = 0; i < n / 8; i++)
		sip_feed(&s, load64(bytes + 8 * i));
	sip_feed(&s, sip_tail(bytes, n));
	s.c ^= 0xff;
	for (int i = 0; i < 4; i++)
		sip_round(&s);
	return s.a ^ s.b ^ s.c ^ s.d;
}
