/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A method on its way along its schedule, as drive and bench take it */

#include "answer.h"
#include "ctl.h"

struct climber {
	struct ctl *ctl;
	struct target target;
	struct call_args args;
	struct tier_climb climb;
	struct table *table;
	uint64_t start_ns, deadline_ns;
	uint64_t n_calls;
};

bool climber_init(struct climber *c, struct ctl *ctl);	/* false: the sentence was printed */
uint64_t climber_time_left(const struct climber *c);	/* TIER_FOREVER: any; 0: none */
uint64_t climber_call(struct climber *c, uint64_t n);	/* the nanoseconds that took */
/* The end of a climb as an exit status: 0 only when the method is on the tier that it was climbing to. */
int climber_end(const struct climber *c, int r);
