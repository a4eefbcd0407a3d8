/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The tracer: the kernel's side of events
 *
 * Makes the probe page (a sealed memfd of probe sites, tier/events.h), attaches the kernel programs of bpf/tier.bpf.c to
 * its sites, and turns the ring buffer into callbacks. Where the kernel refuses, the tracer still exists: the page is
 * there, the sites are plain nops, and tracer_status() says why. */

#include <stdbool.h>
#include <stdint.h>
#include "tier/events.h"
#include "util/dispatch.h"

struct tracer;

/* Returns whether the event led to work (a transition): a turn takes fewer of those. */
typedef bool (*tracer_event_fn)(void *context, const struct tier_kernel_event *event);

struct tracer_config {
	bool kernel;		/* false: --events=socket, do not even try */
	uint32_t ring_bytes;	/* power of two, a multiple of the page size */
};

/* Never fails for lack of privilege or kernel support, only for lack of memory or descriptors (-errno). @fn is called for
 * every record, from the loop, tracer_drain() and tracer_recover(); it must not free the tracer. */
int tracer_new(struct tracer **ret, struct dispatch *dispatch, const struct tracer_config *config, tracer_event_fn fn,
	       void *context);
struct tracer *tracer_free(struct tracer *tracer);	/* takes NULL; returns NULL */

int tracer_page_fd(const struct tracer *tracer);	/* borrowed; read-only description, for clients */
bool tracer_is_attached(const struct tracer *tracer);
const char *tracer_status(const struct tracer *tracer);	/* "kernel probes", or why not, one sentence */

/* Delivers now what the ring holds, at most a few thousand records, fewer when they lead to work (see .c; the loop brings
 * the rest). For use before any question is answered; from inside a tracer_event_fn it does nothing. Returns how many were delivered. */
uint32_t tracer_drain(struct tracer *tracer);

/* Fires the publish site in this process: a tracepoint for everybody who listens, this tracer included. */
void tracer_publish(struct tracer *tracer, uint64_t module, uint32_t method, uint64_t version, unsigned int from, unsigned int to,
		    uint64_t sequence);

/* When the kernel has counted reservations that failed, reads the map of the newest event per method and delivers those,
 * also those that had been delivered before; a bounded number per call. *ret_more: call again in another turn. Returns the
 * number of failures once all is delivered (then the caller sweeps), else 0. Costs one load when there are none. */
uint64_t tracer_recover(struct tracer *tracer, bool *ret_more);

struct tracer_stats {
	uint64_t n_events[_TIER_PROBE_N];	/* records received by probe */
	uint64_t n_dropped;			/* failed reservations, as the kernel programs counted them */
};
void tracer_stats(struct tracer *tracer, struct tracer_stats *ret);
