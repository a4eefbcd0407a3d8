/* SPDX-License-Identifier: Apache-2.0 */
#include "workload.h"

/* Base64 (RFC 4648) encoding. The alphabet is a string literal, which compilers put into a section of its own for
 * strings that a linker may merge. Byte loads and byte stores through pointers that may alias. */

method u64 digit(u64 value)
{
	return "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"[value & 63];
}

method void group(u8 *text, u64 bits)
{
	text[0] = digit(bits >> 18);
	text[1] = digit(bits >> 12);
	text[2] = digit(bits >> 6);
	text[3] = digit(bits);
}

/* Returns how many characters were written: (n + 2) / 3 * 4. */
export u64 ENTRY(base64)(const u8 *bytes, u64 n, u8 *text)
{
	u64 i = 0, at = 0, bits;

	for (; i + 3 <= n; i += 3, at += 4)
		group(text + at, (u64)bytes[i] << 16 | (u64)bytes[i + 1] << 8 | bytes[i + 2]);
	if (i == n)
		return at;
	bits = (u64)bytes[i] << 16;
	if (i + 2 == n)
		bits |= (u64)bytes[i + 1] << 8;
	group(text + at, bits);
	if (i + 1 == n)
		text[at + 2] = '=';
	text[at + 3] = '=';
	return at + 4;
}
