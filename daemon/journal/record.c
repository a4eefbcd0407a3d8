/* SPDX-License-Identifier: Apache-2.0 */
#include <stddef.h>
#include "journal/record.h"
#include "tier/journal.h"

#define CRC_ENDS(type) _Static_assert(offsetof(type, crc) + sizeof(uint32_t) == sizeof(type), "the crc ends the record")
CRC_ENDS(struct tier_event);
CRC_ENDS(struct tier_segment_header);
CRC_ENDS(struct tier_numbers);

/* Twelve bytes at a time, five times: five times as fast as byte by byte, for a successor checks a quarter of a million events
 * before it serves.
 * table[k][b] is what byte b contributes when k bytes follow it in its dozen. */
#define STEP 12u
_Static_assert(offsetof(struct tier_event, crc) % STEP == 0, "no bytes are left over");

static uint32_t table[STEP][256];

__attribute__((constructor)) static void table_init(void)
{
	for (unsigned int b = 0; b < 256; b++) {
		table[0][b] = b;
		for (unsigned int bit = 0; bit < 8; bit++)
			table[0][b] = table[0][b] >> 1 ^ (table[0][b] & 1 ? 0xedb88320 : 0);
	}
	for (unsigned int k = 1; k < STEP; k++)
		for (unsigned int b = 0; b < 256; b++)
			table[k][b] = table[k - 1][b] >> 8 ^ table[0][table[k - 1][b] & 255];
}

uint32_t record_crc(const void *record)
{
	const unsigned char *p = record;
	uint32_t crc = UINT32_MAX;

	for (size_t at = 0; at < offsetof(struct tier_event, crc); at += STEP) {
		uint32_t next = 0;

		for (unsigned int i = 0; i < STEP; i++)
			next ^= table[STEP - 1 - i][p[at + i] ^ (i < 4 ? crc >> 8 * i & 255 : 0)];
		crc = next;
	}
	return ~crc;
}
