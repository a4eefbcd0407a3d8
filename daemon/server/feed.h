/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Feeds: a client's cursor in the history
 *
 * A reader sees the events of what it may see: its uid's and those of modules that are shared; root sees all. Others'
 * are skipped, so a reader's numbers have holes, which are not gaps; `next` counts them. Once a module is gone only its
 * owner's uid is known, so its history is its owner's and root's. */

#include "server/request.h"

struct wait;

int feed_request(struct lane *lane, const struct request *request);
void feed_look(struct server *server, struct wait *wait);	/* the wait is in no list */
