/* SPDX-License-Identifier: Apache-2.0 */
#include "workload.h"

/* CRC-32 (IEEE 802.3, reflected), a byte at a time through a table of 1 KiB in .rodata. The preprocessor computes the
 * table: a row of it is the remainder of its own index. */

#define CRC_POLYNOMIAL 0xedb88320u
#define BIT(c) ((c) >> 1 ^ (CRC_POLYNOMIAL & -((c)&1u)))
#define ROW(c) BIT(BIT(BIT(BIT(BIT(BIT(BIT(BIT((u32)(c)))))))))
#define ROWS_4(c) ROW(c), ROW((c) + 1), ROW((c) + 2), ROW((c) + 3)
#define ROWS_16(c) ROWS_4(c), ROWS_4((c) + 4), ROWS_4((c) + 8), ROWS_4((c) + 12)
#define ROWS_64(c) ROWS_16(c), ROWS_16((c) + 16), ROWS_16((c) + 32), ROWS_16((c) + 48)

static const u32 crc_table[256] = { ROWS_64(0), ROWS_64(64), ROWS_64(128), ROWS_64(192) };

method u32 crc32_update(u32 crc, const u8 *bytes, u64 n)
{
	for (u64 i = 0; i < n; i++)
		crc = crc_table[(crc ^ bytes[i]) & 0xff] ^ crc >> 8;
	return crc;
}

export u64 ENTRY(crc32)(const u8 *bytes, u64 n)
{
	return (u32)~crc32_update(~0u, bytes, n);
}
