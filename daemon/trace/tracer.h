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

/* Who keeps descriptors for a successor: as daemon/store/store.h has it */
struct tracer_keep {
	int (*take)(void *context, const char *name);	/* what a predecessor put, the caller's now; it stays kept. -1: nothing */
	int (*put)(void *context, const char *name, int fd);
	void (*remove)(void *context, const char *name);
	void *context;
};

struct tracer_config {
	bool kernel;		/* false: --events=socket, do not even try */
	uint32_t ring_bytes;	/* power of two, a multiple of the page size; a ring that is taken over keeps its size */
	uint32_t per_second;	/* records that a process may cause; 0: any number */
	const struct tracer_keep *keep;		/* NULL: nothing outlives the tracer; used in tracer_new() only */
};

/* Takes over what a predecessor put: "page", the maps "ring", "newest", "limits" and "bss", and links "link.SITE.TURN"; what is
 * missing is made and put, and what does not fit replaced, with a line in the log. What was rung while there was no tracer is
 * delivered by the loop, tracer_drain() and tracer_recover(). Never fails for lack of privilege or kernel support, only for lack
 * of memory or descriptors (-errno). @fn is called for every record, from the loop, tracer_drain() and tracer_recover(); it must
 * not free the tracer. */
int tracer_new(struct tracer **ret, struct dispatch *dispatch, const struct tracer_config *config, tracer_event_fn fn,
	       void *context);
struct tracer *tracer_free(struct tracer *tracer);	/* what is kept works on. Takes NULL; returns NULL */

int tracer_page_fd(const struct tracer *tracer);	/* borrowed; read-only description, for clients */
bool tracer_is_attached(const struct tracer *tracer);
uint32_t tracer_sites(const struct tracer *tracer);	/* bit i: site i leads here; 0: not attached */
const char *tracer_status(const struct tracer *tracer);	/* "kernel probes", or why not, one sentence */

/* Delivers now what the ring holds, at most a few thousand records, fewer when they lead to work (see .c; the loop brings
 * the rest). For use before any question is answered; from inside a tracer_event_fn it does nothing. Returns how many were delivered. */
uint32_t tracer_drain(struct tracer *tracer);

/* Tells of a transition that is committed: fires its site in this process, if it has one, for everybody who listens. */
void tracer_fire(struct tracer *tracer, const struct tier_event *event);

/* When thresholds found no place in the ring, reads the map of the newest event per method and delivers those, also such as had
 * been delivered before; a bounded number per call, and while a process floods at longer intervals. *ret_when: call again then,
 * CLOCK_MONOTONIC ns; 0: there is nothing to come back for. Returns how many there were once all is delivered (then the caller
 * sweeps), else 0. Costs one load when there are none. */
uint64_t tracer_recover(struct tracer *tracer, uint64_t *ret_when);

struct tracer_stats {
	uint64_t n_events[_TIER_PROBE_N];	/* records received by probe */
	/* as the kernel programs counted them, a predecessor's included: */
	uint64_t n_dropped;			/* failed reservations */
	uint64_t n_limited;			/* what processes had too many of */
	uint64_t n_refused;			/* hits of our own sites by others */
};
void tracer_stats(struct tracer *tracer, struct tracer_stats *ret);
