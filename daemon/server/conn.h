/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A connection: the socket of a lane
 *
 * Datagrams go into lane_feed(), a bounded number per turn, so that no client keeps the loop for itself. Messages that the
 * socket does not take at once are kept; while any is kept nothing more is read, and a client that lets too much
 * pile up is disconnected. A connection is freed only from its own callback or by server_free(): whoever else finds
 * it broken shuts the socket down, and the loop comes back here. */

#include <sys/types.h>
#include "server/lane.h"

#define CONN_MESSAGES_PER_TURN 16
#define CONN_TURN_NS 500000u
#define CONN_OUTBOX_MAX (256u << 10)	/* bytes of messages that a client has not read */

struct conn;

enum {
	_CONN_E_SUCCESS,
	CONN_E_QUOTA,
};

/* Takes @fd on success; belongs to server->conns then. */
int conn_new(struct server *server, int fd, uid_t uid, pid_t pid);
void conn_free_all(struct server *server);
