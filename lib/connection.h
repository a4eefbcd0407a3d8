/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A connection: a session with the daemon, its lanes, its probe page */

#include <stdbool.h>
#include <stdint.h>
#include "fork.h"
#include "lane.h"
#include "slots.h"
#include "tier/tier.h"

struct tier_module;

struct tier_conn {
	struct conn_page *page;
	uint32_t epoch;		/* grows when a fork starts a session of its own */
	uint32_t n_refs;	/* the program, each open module, each cold call under way */
	uint32_t is_closed;
	struct lane api;	/* page->api guards it */
	struct lane prestub;	/* page->prestub guards it */
	struct slots slots;	/* page->watch guards it */
	struct tier_module *modules;	/* that the session holds; process_page()->links guards it */

	/* the session; replaced as a whole in a fork */
	uint64_t session[2];
	uint8_t *probes;	/* the probe page; NULL: could not be mapped */
	enum wire_path_kind path;
	uint32_t sites;		/* on the kernel path: those whose hits reach the daemon */
	char why[WIRE_TEXT_MAX];

	/* how to make one */
	uint64_t timeout_ns;
	struct sockaddr_un address;
	char program[32];
};

/* Connects both lanes, maps the probe page, and learns which path thresholds take. @mask as in struct request. On
 * failure what was opened stays for session_end(). */
int session_start(struct tier_conn *conn, uint64_t deadline_ns, const uint64_t *mask);
/* Opens one more lane of the session. */
int session_join(struct tier_conn *conn, struct lane *lane, enum wire_lane kind, uint64_t deadline_ns, const uint64_t *mask);
/* Closes the lanes and unmaps the probe page. */
void session_end(struct tier_conn *conn);

/* With all signals blocked: the one gate before every use of a lane or of the probe page. */
int conn_ready(struct tier_conn *conn, uint64_t deadline_ns);
struct lane conn_lane(struct tier_conn *conn);	/* not open yet */

/* A request on the API lane, signals open while it waits. Fills mask, and the deadline if it has none. */
int conn_request(struct tier_conn *conn, struct request *request);
/* The common case: no descriptors. */
int conn_ask(struct tier_conn *conn, enum wire_type type, const void *body, enum wire_type reply_type, void *reply);
/* For a wait: whether the connection still works; asks the daemon to look at the method if @ref is not NULL. Does not
 * wait for an answer. 0, or a negative errno with a sentence. */
int conn_nudge(struct tier_conn *conn, const struct wire_method_ref *ref, uint64_t deadline_ns);

/* With all signals blocked: */
int conn_prepare(struct tier_conn *conn, const struct tier_record *record, uint64_t module, uint32_t method);
void conn_threshold(struct tier_conn *conn, uint64_t module, uint32_t method, uint64_t version);
int conn_slot_used(struct tier_conn *conn, const struct wire_slot *slot);	/* 0, or a negative errno: not told */
int conn_osr(struct tier_conn *conn, const struct wire_osr *osr, uint32_t method);		/* the same */

void conn_ref(struct tier_conn *conn);
void conn_unref(struct tier_conn *conn);

/* -- The probe page (probe.c) --- */
/* Maps it between two pages that nobody can touch; it is gone in a fork. NULL when that is not possible. */
uint8_t *probe_map(int fd);
void probe_unmap(uint8_t *probes);
static inline void probe_fire(uint8_t *probes, enum tier_probe probe, uint64_t a, uint64_t b, uint64_t c)
{
	((tier_fn)(uintptr_t)(probes + TIER_PROBE_OFFSET(probe)))(a, b, c, 0, 0);
}
