/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Holds: who keeps a module alive
 *
 * A session holds a module as often as it attached it, its instantiations hold it, and so does one that is being made. A
 * module that lost its name and its last holder goes: whoever still waits for one of its methods is told that there is no
 * such module. */

#include "server/request.h"

struct dispatch_timer;
struct hold;
struct resident;
struct session;

int hold_attach(struct lane *lane, const struct request *request);
int hold_detach(struct lane *lane, const struct request *request);
int hold_unload(struct lane *lane, const struct request *request);
/* The session ends. What it held and cannot be released within a moment is released in the turns that follow. */
void hold_release_all(struct session *session);
void hold_release_orphans(struct server *server);	/* a part of it; all of it when the server ends */
int hold_orphan_timer(struct dispatch_timer *timer, uint64_t now_ns);
void hold_grant_grace(struct server *server, uint64_t ns);	/* as server_grant_grace() */
int hold_grace_timer(struct dispatch_timer *timer, uint64_t now_ns);

/* For freeze.c: the session's hold of a module, made when there is none; NULL: no memory. */
struct hold *hold_get(struct session *session, uint64_t id);
/* The module goes if this was what kept it: the hold is freed unless something still holds it. */
void hold_put(struct session *session, struct hold *hold);
struct hold *hold_find(const struct session *session, uint64_t id);	/* NULL: the session does not hold the module */

/* -- Residents --- */
struct resident *resident_find(const struct server *server, uint64_t id);
struct resident *resident_get(struct server *server, uint64_t id);	/* made when there is none; NULL: no memory */
void resident_put(struct resident *resident);				/* freed when nobody holds it or waits for it */
/* Whoever counted itself among its holders no longer does. The module goes if nobody else holds it and it has no name. */
void resident_leave(struct server *server, struct resident *resident);
