/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* FREEZE, THAW and MARK: a module stands still while it is measured, and whether it did
 *
 * A session freezes a module once; the core counts sessions. A freeze is part of the session's hold of the module, so it ends
 * with that: with THAW, the last DETACH, or the session. */

#include <stdbool.h>
#include "server/request.h"

struct hold;
struct module;
struct server;
struct session;
struct wait;

int freeze_request(struct lane *lane, const struct request *request);
int freeze_thaw(struct lane *lane, const struct request *request);
int freeze_mark(struct lane *lane, const struct request *request);

/* For wait.c: true: it was answered. */
bool freeze_look(struct wait *wait, struct module *module);
/* For hold.c: the session's freeze ends, and its requests that wait for it to take effect are canceled; idempotent. */
void freeze_end(struct session *session, struct hold *hold);
/* The same where no request can wait any more. */
void freeze_end_hold(struct server *server, struct hold *hold);
