/* SPDX-License-Identifier: Apache-2.0 */
#include "workload.h"

/* SHA-256 of a message: eight words of state, a schedule in a ring of sixteen words, constants in .rodata. All in 32
 * bits, so it shows what ALU32 instructions and their zero extension cost. */

static const u32 sha_constants[64] = {
	0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
	0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
	0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
	0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
	0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
	0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
	0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
	0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static inline u32 mix(u32 x, unsigned int a, unsigned int b, unsigned int c)
{
	return rotl32(x, 32 - a) ^ rotl32(x, 32 - b) ^ rotl32(x, 32 - c);
}

/* The next word of the schedule, over the one sixteen rounds ago */
method u32 sha_schedule(u32 *ring, u32 i)
{
	u32 a = ring[(i + 1) % 16], b = ring[(i + 14) % 16];

	ring[i % 16] += (rotl32(a, 25) ^ rotl32(a, 14) ^ a >> 3) + (rotl32(b, 15) ^ rotl32(b, 13) ^ b >> 10) +
			ring[(i + 9) % 16];
	return ring[i % 16];
}

/* The state's eight words go round: @t is where word a of this round lies. */
method void sha_round(u32 *state, u32 t, u32 word)
{
	u32 a = state[t % 8], b = state[(t + 1) % 8], c = state[(t + 2) % 8];
	u32 e = state[(t + 4) % 8], f = state[(t + 5) % 8], g = state[(t + 6) % 8];
	u32 sum = state[(t + 7) % 8] + mix(e, 6, 11, 25) + ((e & f) ^ (~e & g)) + word;

	state[(t + 3) % 8] += sum;
	state[(t + 7) % 8] = sum + mix(a, 2, 13, 22) + ((a & b) ^ (a & c) ^ (b & c));
}

method void sha_block(u32 *state, const u8 *block)
{
	u32 ring[16], work[8];

	for (u32 i = 0; i < 8; i++)
		work[i] = state[i];
	for (u32 i = 0; i < 64; i++) {
		if (i < 16)
			ring[i] = __builtin_bswap32(load32(block + 4 * i));
		sha_round(work, -i, sha_constants[i] + (i < 16 ? ring[i] : sha_schedule(ring, i)));
	}
	for (u32 i = 0; i < 8; i++)
		state[i] += work[i];
}

/* The last block or two: the rest of the message, a one bit, zeros, the length in bits */
method void sha_finish(u32 *state, const u8 *rest, u64 n)
{
	u64 n_rest = n % 64, n_padded = n_rest < 56 ? 64 : 128;
	u8 last[128];

	for (u64 i = 0; i < n_padded; i++)
		last[i] = i < n_rest ? rest[i] : 0;
	last[n_rest] = 0x80;
	*(u64_alias *)(last + n_padded - 8) = __builtin_bswap64(n * 8);
	sha_block(state, last);
	if (n_padded > 64)
		sha_block(state, last + 64);
}

/* @digest: 32 bytes. Returns the first eight of them as a big-endian number. */
export u64 ENTRY(sha256)(const u8 *message, u64 n, u8 *digest)
{
	u32 state[8] = {
		0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
	};

	for (u64 i = 0; i < n / 64; i++)
		sha_block(state, message + 64 * i);
	sha_finish(state, message + (n & ~63ull), n);
	for (u32 i = 0; i < 8; i++)
		((u32_alias *)digest)[i] = __builtin_bswap32(state[i]);
	return (u64)state[0] << 32 | state[1];
}
