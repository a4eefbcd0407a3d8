/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* REJIT and REVERT: a method gets another body, or its own back. The module's owner and root may. Whoever asked is
 * answered when every process runs that body (slots.h). */

#include "server/request.h"
#include "tiering/core.h"

struct server;
struct server_load;
struct wait;

int rejit_request(struct lane *lane, const struct request *request);
int rejit_revert(struct lane *lane, const struct request *request);
/* For wait.c: a revert that takes several turns; the wait is in no list. */
void rejit_revert_look(struct server *server, struct wait *wait);
/* A load that rejit_request() began has ended, and its lane is still there. */
void rejit_loaded(struct server_load *load, struct module *module, enum tier_error error, const char *text);
