/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Questions about methods, and what clients tell about them: PREPARE, THRESHOLD and OSR */

#include "server/request.h"
#include "tier/records.h"
#include "tiering/core.h"

struct wait;

int query_prepare(struct lane *lane, const struct request *request);
int query_answer(struct lane *lane, const struct request *request);	/* STATUS and REMAINING */
int query_pending(struct lane *lane, const struct request *request);
int query_threshold(struct lane *lane, const struct request *request);
int query_osr(struct lane *lane, const struct request *request);
/* For wait.c: a PREPARE that waits for the optimizer. True: it was answered. */
bool query_prepare_look(struct wait *wait, struct module *module);

void query_reply(struct lane *lane, uint64_t serial, const struct tier_answer *answer);
