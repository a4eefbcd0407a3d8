/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Sessions: who a client is, and what ends with it
 *
 * HELLO makes a session or joins one (same uid, the token proves it); the last lane that leaves ends it: the armed
 * counters of the modules that it held are looked at (a client may have died between a decrement and its bell), and its
 * holds are given back. PROBED settles how the client rings. */

#include <stdbool.h>
#include "server/request.h"
#include "tiering/core.h"

struct session;

int session_hello(struct lane *lane, const struct request *request);
int session_probed(struct lane *lane, const struct request *request);
void session_leave(struct lane *lane);				/* idempotent */
void session_hello_seen(struct server *server, uint64_t nonce);

/* -- What a session may see: its uid's modules and shared ones; root sees all --- */
bool session_sees(const struct session *session, const struct core_module_info *info);
/* By id: NULL when there is none that the lane's session sees; *ret_info (may be NULL) is filled otherwise. */
struct module *session_module(const struct lane *lane, uint64_t id, struct core_module_info *ret_info);
/* By id or name: the caller's own, then shared ones, for root then anybody's. NULL: an error was sent. */
struct module *session_resolve(struct lane *lane, uint64_t serial, const struct wire_module_ref *ref,
			       struct core_module_info *ret_info);
/* A method of a module that the session sees. NULL: NO_MODULE or NO_METHOD was sent. */
struct module *session_method(struct lane *lane, uint64_t serial, uint64_t id, uint32_t method);
