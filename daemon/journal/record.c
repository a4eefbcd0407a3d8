/* SPDX-License-Identifier: Apache-2.0 */
#include <stddef.h>
#include "journal/record.h"
#include "tier/journal.h"

#define CRC_ENDS(type) _Static_assert(offsetof(type, crc) + sizeof(uint32_t) == sizeof(type), "the crc ends the record")
CRC_ENDS(struct tier_event);
CRC_ENDS(struct tier_segment_header);
CRC_ENDS(struct tier_numbers);

/* Half a byte at a time: a table of 16 words stays in the cache, and 120 steps an event are 0.1 µs. */
uint32_t record_crc(const void *record)
{
	static const uint32_t table[16] = {
		0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4, 0x4db26158, 0x5005713c,
		0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c, 0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c,
	};
	const unsigned char *p = record;
	uint32_t crc = UINT32_MAX;

	for (size_t i = 0; i < offsetof(struct tier_event, crc); i++) {
		crc = crc >> 4 ^ table[(crc ^ p[i]) & 15];
		crc = crc >> 4 ^ table[(crc ^ p[i] >> 4) & 15];
	}
	return ~crc;
}
