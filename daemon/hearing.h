/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What the kernel reports, and what of it is believed */

struct tierd;

void hearing_init(struct tierd *tierd);
/* Makes the tracer, with what a predecessor left in the store. 0, or -errno after a sentence in the log. */
int hearing_start(struct tierd *tierd);
/* Hears what was rung before this daemon was there. Modules must be attached by then. */
void hearing_catch_up(struct tierd *tierd);
