/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* SETTLED: whether a method, and all that it has called, has come to its end */

#include "server/request.h"

struct server;
struct wait;

int settle_request(struct lane *lane, const struct request *request);
/* For wait.c: goes on with one that takes several turns; the wait is in no list. */
void settle_look(struct server *server, struct wait *wait);
void settle_free(struct wait *wait);	/* what it had found */
