/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What the journal keeps on disk comes in pieces of 64 bytes whose last word vouches for the bytes before it: events,
 * headers of segments, and the numbers (tier/journal.h). */

#include <stdbool.h>
#include "tier/events.h"

/* CRC-32 as in zlib, gzip and PNG, so that any tool can check a record. @record: 64 bytes */
uint32_t record_crc(const void *record);
static inline bool record_is_sound(const struct tier_event *event) { return event->crc == record_crc(event); }
