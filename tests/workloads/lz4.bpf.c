/* SPDX-License-Identifier: Apache-2.0 */
#include "workload.h"

/* Decompression of one LZ4 block: literals, then a copy from what was already written, again and again
 *
 * Every length and offset is checked: a block may be cut off or lie. Copies may overlap their own source by design, so
 * they go byte by byte. */

#define LZ4_FAILED (~0ull)

/* What is being read; lies in the entry's frame. */
struct lz4 {
	const u8 *in;
	u64 n, at;
};

/* A length that did not fit in its four bits of the token goes on in bytes, the last of which is below 255. */
method u64 lz4_length(struct lz4 *z, u64 length)
{
	u8 more = 255;

	if (length != 15)
		return length;
	while (more == 255) {
		if (z->at == z->n)
			return LZ4_FAILED;
		more = z->in[z->at++];
		length += more;
	}
	return length;
}

method void lz4_copy(u8 *to, const u8 *from, u64 n)
{
	for (u64 i = 0; i < n; i++)
		to[i] = from[i];
}

/* Returns how many bytes were written to @out, or ~0 for a block that is malformed or larger than @n_out. */
export u64 ENTRY(lz4)(const u8 *block, u64 n, u8 *out, u64 n_out)
{
	struct lz4 z = { block, n, 0 };
	u64 written = 0, length, offset;

	while (z.at < n) {
		u8 token = block[z.at++];

		length = lz4_length(&z, token >> 4);
		if (length > n - z.at || length > n_out - written)
			return LZ4_FAILED;
		lz4_copy(out + written, block + z.at, length);
		z.at += length;
		written += length;
		if (z.at == n)
			return written;
		if (n - z.at < 2)
			return LZ4_FAILED;
		offset = block[z.at] | (u64)block[z.at + 1] << 8;
		z.at += 2;
		length = lz4_length(&z, token & 15);
		if (length == LZ4_FAILED || !offset || offset > written || length + 4 > n_out - written)
			return LZ4_FAILED;
		lz4_copy(out + written, out + written - offset, length + 4);
		written += length + 4;
	}
	return LZ4_FAILED;
}
