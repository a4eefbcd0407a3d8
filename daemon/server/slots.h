/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Slots: what clients say of the pointers through which they call methods
 *
 * SLOT_USED tells that a call came to the prestub through a vtable slot: one-way, hostile, checked against the module.
 *
 * SLOT_WATCH asks for news of a method, for slots in the client's own memory, on a lane for nothing else. Each change of
 * where a watched method's calls go (E) is told there as SLOT_CHANGED and answered by SLOT_DONE. What a lane has not been told
 * yet is a mark per method, and only so many changes are unanswered at a time: a client that doesn't read costs no more than
 * its watches.
 *
 *	clean ──changed──► marked ──told──► told ──SLOT_DONE──► clean
 *	                     ▲               │ changed again: marked and told, told again when it has answered
 *	                     └──SLOT_DONE────┘
 *
 * A request that replaces a method's body settles when no slot is left that may hold code of the method, or code that had
 * inlined it: when the changes that lead away from such code, and came before, are answered, or those who should answer are
 * gone. A module's unanswered changes away from code stand in a list in the order of their numbers; a request waits for the
 * first that concerns it, then for the next from there on. Who has not answered at its deadline is thrown off. */

#include "server/request.h"

struct dispatch_timer;
struct hold;
struct module;
struct session;
struct wait;

int slots_used(struct lane *lane, const struct request *request);
int slots_watch(struct lane *lane, const struct request *request);
int slots_done(struct lane *lane, const struct request *request);
void slots_end_lane(struct lane *lane);			/* its watches end; idempotent */
void slots_end_hold(struct session *session, const struct hold *hold);	/* those of the module that it holds */

/* @id: the module's */
void slots_method_changed(struct server *server, const struct module *module, uint64_t id, uint32_t method);
int slots_timer(struct dispatch_timer *timer, uint64_t now_ns);

/* @wait (of kind SLOTS, for a method) is answered with DONE when the replacement of its body is settled, perhaps at once. */
void slots_settle(struct wait *wait, uint64_t module);
void slots_late(struct wait *wait);			/* its deadline has come: TIMEOUT, and the late ones' lanes are shut */
