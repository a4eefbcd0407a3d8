/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Waits: requests that are answered later
 *
 * A wait for a method sits in a bucket by method, an events request (feed.h) in the list of feeds; both end with an
 * answer, at their deadline, by CANCEL, or silently with their lane. News never answers from inside the core: what
 * changed moves to server->news, and a timer that is due at once looks at it, for a bounded time per turn. */

#include "server/request.h"
#include "server/state.h"

int wait_request(struct lane *lane, const struct request *request);
int wait_cancel(struct lane *lane, const struct request *request);

/* For the other files: a wait that @timeout_ns from now ends with TIMEOUT (UINT64_MAX: never). NULL: an error was sent. */
struct wait *wait_new(struct lane *lane, uint64_t serial, enum wait_kind kind, uint64_t timeout_ns);
void wait_free(struct wait *wait);
/* Gives the deadline to a wait that has none. 0 or -ENOMEM. */
int wait_set_deadline(struct server *server, struct wait *wait, uint64_t timeout_ns);
void wait_look_again(struct server *server, struct wait *wait);	/* as if there were news; the wait is in no list */
/* For others that wait for news of a module: the wait is for @method of it (WAIT_NO_METHOD: that nothing of it is compiled),
 * and is in no list yet. False: an error was sent, it is freed. */
bool wait_for_module(struct wait *wait, uint64_t module, uint32_t method);
void wait_end(struct wait *wait, enum tier_error error);

void wait_end_lane(struct lane *lane);			/* silently */

void wait_method_changed(struct server *server, uint64_t module, uint32_t method);
void wait_module_quiet(struct server *server, uint64_t module);
void wait_module_gone(struct server *server, struct resident *resident);	/* the module that they wait for */
void wait_event_added(struct server *server);
int wait_news_timer(struct dispatch_timer *timer, uint64_t now_ns);
int wait_deadline_timer(struct dispatch_timer *timer, uint64_t now_ns);
