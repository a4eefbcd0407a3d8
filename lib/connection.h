/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A connection: a session with the daemon, its lanes, its probe page */

#include <stdbool.h>
#include <stdint.h>
#include "fork.h"
#include "lane.h"
#include "slots.h"
#include "tier/tier.h"

struct mapping;
struct probe_page;
struct tier_module;

struct tier_conn {
	struct conn_page *page;
	uint32_t epoch;		/* grows when a fork lets go of its parent's session */
	uint32_t n_refs;	/* the program, each open module, each cold call under way */
	uint32_t is_closed;
	struct lane api;	/* page->api guards it */
	struct lane prestub;	/* page->prestub guards it */
	struct slots slots;	/* page->watch guards it */
	struct tier_module *modules;	/* that the session holds; process_page()->links guards it */

	/* the session; page->recovery guards it */
	uint64_t session[2];	/* its token; zeros: there is none */
	uint32_t n_sessions;	/* that the connection has had: its number */
	struct lane fresh;	/* on its way to becoming one of the lanes */
	struct probe_page *pages;	/* all that were mapped */
	struct probe_page *probes;	/* the session's; NULL: could not be mapped */
	enum wire_path_kind path;
	uint32_t sites;		/* on the kernel path: those whose hits reach the daemon */
	char why[2][WIRE_TEXT_MAX];	/* in turn, for somebody may still read the other one */
	uint64_t note_ns, note_pause_ns;	/* when a note may look for the daemon again; how long after that */
	uint32_t note_session;		/* the session's number when one looked last */

	/* how to make one */
	uint64_t timeout_ns;
	struct sockaddr_un address;
	char program[32];
};

/* -- The session (session.c) --- */
enum session_flags {
	SESSION_JOIN_ONLY = 1u << 0,	/* only if the session is still there */
};
/* Gives @lane a connection to the session. If there is none any more, the connection makes the next: it maps the probe page,
 * learns which path thresholds take, and has the daemon hold what modules are open. The caller holds what guards the lane.
 * @mask as in struct request. On failure the lane is as before. */
int session_connect(struct tier_conn *conn, struct lane *lane, enum wire_lane kind, unsigned int flags, uint64_t deadline_ns,
		    const uint64_t *mask);
/* The same for a lane that is broken, with all signals blocked. -ECONNRESET with a sentence: there is no daemon now, but one may
 * come; anything else is what the one that is there says. */
int session_renew(struct tier_conn *conn, struct lane *lane, enum wire_lane kind, unsigned int flags, uint64_t deadline_ns);
/* The session holds all modules that are open. With page->api, all signals blocked. */
int session_hold(struct tier_conn *conn, uint64_t deadline_ns);
/* Closes the lanes and unmaps the probe pages. */
void session_end(struct tier_conn *conn);
static inline uint32_t session_number(const struct tier_conn *conn) { return __atomic_load_n(&conn->n_sessions, __ATOMIC_ACQUIRE); }

/* With all signals blocked, before every use of a lane or of the probe page: the connection is not closed, and this
 * process's own. */
int conn_ready(struct tier_conn *conn, uint64_t deadline_ns);
struct lane conn_lane(struct tier_conn *conn);	/* not open yet */

/* A request on the API lane, signals open while it waits. Fills mask, and the deadline if it has none. When the daemon goes,
 * it waits for the next one, and asks that; but what may have changed something, and may not change it twice, ends with
 * -ECONNRESET if it was sent. */
int conn_request(struct tier_conn *conn, struct request *request);
/* The common case: no descriptors. */
int conn_ask(struct tier_conn *conn, enum wire_type type, const void *body, enum wire_type reply_type, void *reply);
/* The same about a module that is open. */
int conn_ask_about(const struct tier_module *module, enum wire_type type, const void *body, enum wire_type reply_type, void *reply);
/* The session holds all modules that are open. */
int conn_hold(struct tier_conn *conn);
/* For a wait: whether the connection still works, or does again, and the daemon knows the module; asks it to look at the
 * method if @ref is not NULL. Does not wait for an answer. 0, or a negative errno with a sentence, -ECONNRESET if there is no
 * daemon now. */
int conn_nudge(const struct tier_module *module, const struct wire_method_ref *ref, uint64_t deadline_ns);

/* With all signals blocked: */
int conn_prepare(struct tier_conn *conn, const struct mapping *mapping, const struct tier_record *record);
void conn_threshold(struct tier_conn *conn, uint64_t module, uint32_t method, uint64_t version);
int conn_slot_used(struct tier_conn *conn, const struct wire_slot *slot);	/* 0, or a negative errno: not told */
int conn_osr(struct tier_conn *conn, const struct wire_osr *osr, uint32_t method);		/* the same */

void conn_ref(struct tier_conn *conn);
void conn_unref(struct tier_conn *conn);

/* -- The probe page (probe.c) --- */
struct probe_page {
	struct probe_page *older;
	uint64_t device, inode;		/* of its file */
	uint8_t *sites;
};
/* The page of that file: one of @pages, or mapped between two pages that nobody can touch and added to them; it is gone in a
 * fork. NULL when that is not possible. */
struct probe_page *probe_map(struct probe_page **pages, int fd);
void probe_unmap_all(struct probe_page **pages);
static inline void probe_fire(const struct probe_page *page, enum tier_probe probe, uint64_t a, uint64_t b, uint64_t c)
{
	((tier_fn)(uintptr_t)(page->sites + TIER_PROBE_OFFSET(probe)))(a, b, c, 0, 0);
}
