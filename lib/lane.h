/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A lane: one connection to the daemon, one request at a time (tier/wire.h)
 *
 * A lane that is broken (its daemon hung up, or did not keep the protocol) gets another connection under the same descriptor
 * number: whoever holds no lock, because what it sends has no reply, uses the old one or the new one, never a stranger's.
 *
 * Whoever uses a lane holds its lock and has all signals blocked; only the sleep in lane_await() opens them, when the
 * request allows it. So nothing can fork between the check that this lane is ours and the use of it.
 *
 * Nothing here allocates, takes locks of the C library's, or is a cancellation point. */

#include <stdbool.h>
#include <stdint.h>
#include <sys/un.h>
#include "tier/wire.h"

#define LANE_FDS_MAX 4u

union lane_body {
#define LANE_BODY(name, number, type) type as_##name;
	WIRE_REPLY_LIST(LANE_BODY)
#undef LANE_BODY
};

struct lane {
	int fd;			/* -1: none */
	uint64_t cookie;	/* of the socket: the program may have closed it and opened something else under its number */
	uint64_t serial;	/* of the last request */
	bool is_broken;		/* also written by who ends the session, so it is loaded and stored at once */
	bool is_sent;		/* the last request may have reached the daemon */
	bool is_marked;		/* its descriptor table can be told from a fork's copy */
	const uint32_t *mine;	/* the connection's words: zero in a fork; grows when a fork starts its own session */
	const uint32_t *epoch;
	const struct sockaddr_un *address;
	struct wire_header header;	/* the message that came last */
	union lane_body body;
};

struct tier_module;

struct request {
	enum wire_type type;
	const void *body;
	int fd;			/* to send along; -1: none */
	enum wire_type reply_type;
	void *reply;		/* takes the reply's body; may be NULL */
	int *fds;		/* takes at most LANE_FDS_MAX descriptors, owned by the caller; NULL: the reply has none */
	uint32_t *n_fds;
	uint64_t deadline_ns;
	const uint64_t *mask;	/* signals during the sleep; NULL: all stay blocked */

	/* what conn_request() makes of it */
	const struct tier_module *module;	/* whose number the body has; NULL: nobody's */
	uint32_t only_in;	/* means something to this session only; 0: to any. Then it is neither waited for nor repeated. */
	uint32_t session;	/* out: the session in which it was answered */
};

/* Connects. 0, or a negative errno with a sentence. */
int lane_open(struct lane *lane, uint64_t deadline_ns);
/* @lane, which only the caller could give another connection now, gets that of @fresh, which then has none. */
void lane_adopt(struct lane *lane, struct lane *fresh);
/* Closes the descriptor, unless the program has put something else there. */
void lane_close(struct lane *lane);
/* In a fork: whether closing the lane closes this process's copy only. A raw clone may share the table of its parent, whose
 * session would end; then, and where the kernel does not say, an open descriptor too many is the smaller evil. */
bool lane_is_copy(const struct lane *lane);
/* Ends the connection but keeps the descriptor's number, for others may be about to use it. */
void lane_shut(struct lane *lane);
/* Whether the descriptor is still the socket that lane_open() made. */
bool lane_is_intact(const struct lane *lane);
static inline bool lane_is_broken(const struct lane *lane) { return __atomic_load_n(&lane->is_broken, __ATOMIC_ACQUIRE); }
/* Whether the daemon still holds the other end. */
bool lane_is_alive(const struct lane *lane);

/* Sends a request and takes its reply. 0, or a negative errno with a sentence: the daemon's own if it answered ERROR. */
int lane_request(struct lane *lane, const struct request *request);
/* The two halves of it. A request whose wait timed out can be awaited again, until the next one is posted. */
int lane_post(struct lane *lane, const struct request *request);
int lane_await(struct lane *lane, const struct request *request);

/* Sends without waiting for anything, neither room nor a reply; needs no lock when the type has no reply. */
int lane_ring(struct lane *lane, enum wire_type type, const void *body, uint64_t serial);
/* The next message, whatever it is, into lane->header and ->body: for a lane on which the daemon speaks unasked. The thread's
 * own signal mask stays. 0, or a negative errno with a sentence: the lane is broken, unless it is -ETIMEDOUT. */
int lane_listen(struct lane *lane, uint64_t deadline_ns);
/* Throws away the replies that nobody awaits any more. */
void lane_drain(struct lane *lane);
