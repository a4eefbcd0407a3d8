/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Events as a trace that Perfetto's viewer opens: protobuf packets of its published format
 *
 * A track per module, below it one per method with a slice per tier and an instant for each other event; a track per user with a
 * slice per call-counting delay; the length of the background queue as a counter; an instant for each gap. Packets stand for themselves, so a file that is
 * still being written can be opened. A slice that has not ended goes on to the end of the trace. */

#include <stdio.h>
#include <tier/tier.h>

struct export;

struct export *export_new(struct tier_conn *conn, FILE *to);
void export_event(struct export *export, const struct tier_event *event);
void export_missing(struct export *export, uint64_t first, uint64_t last);	/* those numbers are gone */
void export_free(struct export *export);
