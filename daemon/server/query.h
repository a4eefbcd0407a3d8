/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Questions about methods, and the two things that clients tell about them: PREPARE and THRESHOLD */

#include "server/request.h"
#include "tier/records.h"

int query_prepare(struct lane *lane, const struct request *request);
int query_answer(struct lane *lane, const struct request *request);	/* STATUS and REMAINING */
int query_pending(struct lane *lane, const struct request *request);
int query_threshold(struct lane *lane, const struct request *request);

void query_reply(struct lane *lane, uint64_t serial, const struct tier_answer *answer);
