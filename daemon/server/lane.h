/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A lane: the protocol on one connection, without the connection
 *
 * lane_feed() eats one datagram: decodes it (request.h), calls the request's handler, and answers through lane->ops.
 * The unit tests, the fuzzer and the sockets make the same call. Handlers return 0 or LANE_E_END, after they have told the
 * client why. */

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include "tier/wire.h"

#define LANE_FDS_MAX 4u		/* a message of the protocol carries at most so many, in either direction */
#define LANE_FDS_ROOM 253u	/* a datagram can bring so many (SCM_MAX_FD): what has no room the kernel closes here and now */
#define LANE_DATAGRAM_MAX 2048u	/* room for the largest request, and to see that one is larger */

struct server;
struct lane;
struct request;

enum {
	_LANE_E_SUCCESS,
	LANE_E_END,		/* the client broke the protocol: end the connection when the reason is delivered */
};

struct datagram {
	_Alignas(8) unsigned char bytes[LANE_DATAGRAM_MAX];
	size_t n;
	bool is_truncated;		/* was longer than the room for it */
	bool is_control_truncated;	/* had more control data, or descriptors could not be received */
	unsigned int n_fds;
	int fds[LANE_FDS_ROOM];
};

struct lane_ops {
	/* A whole message; @fds are borrowed. Must not call back. */
	void (*emit)(struct lane *lane, const void *message, size_t n, const int *fds, unsigned int n_fds);
	/* Ends the connection, and with it the lane, in a turn that follows. */
	void (*shut)(struct lane *lane);
};

void lane_init(struct lane *lane, struct server *server, uid_t uid, pid_t pid,
	       const struct lane_ops *ops);
/* Ends the lane's waits and watches without a word, and its session when it was the last lane. Idempotent. */
void lane_deinit(struct lane *lane);

/* Takes the datagram's descriptors in any case. */
int lane_feed(struct lane *lane, struct datagram *datagram);
void lane_drop_fds(struct lane *lane, struct datagram *datagram);

/* -- Replies --- */
/* @body is of the type that the wire fixes for @type (enum wire_type); @fds are borrowed. */
void lane_reply(struct lane *lane, uint64_t serial, unsigned int type, const void *body);
void lane_reply_fds(struct lane *lane, uint64_t serial, unsigned int type, const void *body, const int *fds, unsigned int n_fds);
void lane_done(struct lane *lane, uint64_t serial);
/* NULL for @format: the error's own words. Always returns 0, so that a handler can end with it. */
int lane_error(struct lane *lane, uint64_t serial, enum tier_error error, const char *format, ...)
	__attribute__((format(printf, 4, 5)));
/* GAP, and TIMEOUT of an events request: with event numbers */
int lane_error_numbers(struct lane *lane, uint64_t serial, enum tier_error error, uint64_t first, uint64_t last);
/* ERROR PROTOCOL, counted and logged. Returns LANE_E_END. */
int lane_break(struct lane *lane, uint64_t serial, const char *text);
/* Throws the client out without a word to it, also while others are served; counted and logged. Idempotent. */
void lane_shut(struct lane *lane, const char *text);

/* Counts a client that is thrown out, and tells the log, at most once a second: clients cannot flood it. */
void lane_complain(struct lane *lane, const char *text);
