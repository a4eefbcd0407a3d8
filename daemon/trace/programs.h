/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The kernel programs with their maps: loaded, attached to the page, and left to a successor */

#include "trace/tracer.h"

struct tracer_bpf;

struct programs {
	struct tracer_bpf *skel;	/* NULL: there are none */
	int links[TIER_PROBE_SLOTS];	/* by site; -1: none of ours */
};

void programs_init(struct programs *programs);

/* Takes over what a predecessor left, or begins anew, and puts it into config->keep. 0; or -errno with everything given back,
 * also what was left, and a sentence about why in @status. */
int programs_start(struct programs *programs, const struct tracer_config *config, int page_fd, char *status, size_t n_status);
void programs_stop(struct programs *programs);	/* ours only: what is kept works on */
void programs_unkeep(const struct programs *programs, const struct tracer_keep *keep);	/* so that nothing of it does */
int programs_ring(const struct programs *programs);	/* the maps' descriptors, borrowed */
int programs_newest(const struct programs *programs);
struct tier_kernel_shared *programs_shared(const struct programs *programs);	/* NULL: there are no programs */
/* What a predecessor left is given back, because nobody will listen. */
void programs_forget(const struct tracer_keep *keep);
