/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What the files of the server share
 *
 *	server ─┬─ conns      the sockets; each embeds a lane
 *	        ├─ sessions ──┬─ lanes ──── waits, loads that were asked for there
 *	        │             └─ holds ───┐
 *	        ├─ residents ◄────────────┘ a module as the server knows it: who holds it, who waits for its methods
 *	        └─ waits by method, feeds, news (waits and feeds that have something to look at)
 *
 * Bytes go in through lane_feed() and come out through lane->ops: everything but listener.c and conn.c works without
 * a socket. Objects die bottom up: a lane takes its waits along, the last lane its session, a session its holds. Nothing
 * is freed from inside these. */

#include "server/closing.h"
#include "server/deadline.h"
#include "server/listener.h"
#include "server/server.h"
#include "util/charge.h"

#define SERVER_RESIDENT_BUCKETS 256u
#define SERVER_WAIT_BUCKETS 4096u
#define SERVER_WATCH_BUCKETS 4096u
#define SERVER_NONCE_BUCKETS 1024u	/* a power of two */

enum server_slot {
	SERVER_SLOT_CONNS, SERVER_SLOT_SESSIONS, SERVER_SLOT_LOADS,
	SERVER_SLOT_OBJECTS,		/* bytes of object files that are being loaded */
	SERVER_SLOT_CLOSINGS,
	SERVER_SLOT_WATCHES,
	_SERVER_SLOT_N
};
_Static_assert(_SERVER_SLOT_N <= CHARGE_SLOTS_MAX, "a slot per quota");

struct server {
	struct dispatch *dispatch;
	struct core *core;
	struct server_config config;
	const struct server_ops *ops;
	void *context;
	struct listener listener;
	struct charge_table charges;
	struct closings closings;
	bool is_closing;		/* the daemon ends, not its clients' sessions */

	struct list conns;
	struct list sessions;		/* by number */
	struct list nonces[SERVER_NONCE_BUCKETS];	/* the same by nonce */
	uint64_t last_session;		/* number of the newest */
	uint32_t n_sessions;
	struct list loads;
	struct list residents[SERVER_RESIDENT_BUCKETS];
	struct list orphans;		/* holds of sessions that ended, to be released */
	struct dispatch_timer orphan_timer;
	uint64_t grace;			/* modules up to this id stay, whoever holds them; 0: no longer */
	uint64_t n_settled;		/* those up to this id have been looked at since */
	struct dispatch_timer grace_timer;

	struct list waits[SERVER_WAIT_BUCKETS];	/* for methods, by module and index */
	uint64_t seed;			/* of that hash and the nonces': clients choose what they wait for */
	struct list feeds;		/* events requests with nothing to tell */
	struct list news;		/* waits and feeds that are to be looked at */
	struct list watches[SERVER_WATCH_BUCKETS];	/* by module and method */
	struct list slot_news;		/* lanes that are to be told of changes */
	uint64_t n_changes;		/* number of the newest change of a watched method */
	struct deadline_heap deadlines;
	struct dispatch_timer news_timer, deadline_timer, slot_timer;

	uint64_t n_requests, n_disconnected;
	uint64_t complained_ns;		/* when the log last heard of a disconnected client */
};

struct session {
	struct server *server;
	struct list link;		/* server->sessions */
	struct list nonce_link;		/* a bucket of server->nonces */
	uint64_t number;
	uint64_t token[2];
	uint64_t nonce;			/* of the hello probe */
	bool hello_seen;		/* by the kernel */
	uid_t uid;
	pid_t pid;
	struct charge charge;
	struct list lanes, holds;
	uint32_t n_lanes, n_holds, n_waits, n_watches, n_settlings;
	uint32_t path;			/* enum wire_path_kind */
	char why[WIRE_TEXT_MAX];
	char program[32];
};

struct lane {
	struct server *server;
	struct session *session;	/* NULL before HELLO */
	struct list link;		/* session->lanes */
	struct list waits, loads;
	enum wire_lane kind;
	/* SLOTS: what it watches, and of that what it is to be told and what it has not answered (slots.h) */
	struct list watches, marked, told;
	struct list slot_link;		/* server->slot_news */
	uint32_t n_told;
	uint64_t ticket;		/* of the newest change that it was told of */
	uid_t uid;
	pid_t pid;
	bool is_shut;
	const struct lane_ops *ops;
};

/* A module that somebody holds or waits for */
struct resident {
	struct list link;		/* server->residents */
	uint64_t id;
	uint32_t n_holders;		/* sessions, instantiations that are being made of it */
	struct list waits;
	struct list changes;		/* of watched methods, away from code, that are not answered yet; oldest first */
};

/* A session's hold of a module */
struct hold {
	struct list link;		/* session->holds, server->orphans */
	struct resident *resident;
	uint64_t n;			/* attached so many times */
	bool is_freezing;		/* FREEZE: the module is frozen, and held */
};

enum wait_kind { WAIT_METHOD, WAIT_PREPARE, WAIT_FREEZE, WAIT_SETTLED, WAIT_FEED, WAIT_REVERT, WAIT_SLOTS };
#define WAIT_NO_METHOD UINT32_MAX
struct wait {
	enum wait_kind kind;
	struct lane *lane;
	struct list lane_link;
	uint64_t serial;
	struct list link;		/* a bucket of server->waits, server->feeds, server->news or change->waits */
	struct deadline deadline;
	/* METHOD, PREPARE, FREEZE, SETTLED */
	struct resident *resident;
	struct list resident_link;
	/* all but FREEZE (which is WAIT_NO_METHOD) and FEED */
	uint32_t method;
	struct settling *settling;	/* SETTLED: how far it came (settle.c); owned */
	struct change *change;		/* SLOTS: the first that must be answered (slots.c) */
	/* FEED: number of the next event, or WIRE_EVENTS_SINCE and a time; REVERT: the module; SLOTS: number of the newest
	 * change that must be answered */
	uint64_t next;
	bool is_prompt;			/* FEED: answers with nothing when there is nothing */
};

struct server_load {
	struct server *server;
	struct list link;		/* server->loads: its name is taken */
	struct lane *lane;		/* who is to be told; NULL: gone meanwhile */
	struct list lane_link;
	uint64_t serial;
	uid_t uid;
	struct wait *settling;		/* REJIT: answers when it has taken effect everywhere; valid while there is a lane */
	struct resident *base;		/* INSTANTIATE: what it is made of, and holds */
	struct charge charge, object;	/* one load; its bytes */
	int object_fd;
	char name[WIRE_NAME_MAX];
};
