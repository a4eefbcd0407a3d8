/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* One event as the journal keeps it: a struct tier_event whose last word vouches for the bytes before it. */

#include <stdbool.h>
#include "tier/events.h"

/* CRC-32 as in zlib, gzip and PNG, so that any tool can check a record */
uint32_t record_crc(const struct tier_event *event);
static inline bool record_is_sound(const struct tier_event *event) { return event->crc == record_crc(event); }
