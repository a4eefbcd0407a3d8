/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What the daemon tells about itself: its counters, and who its clients are (a user sees its own, root all) */

#include "server/request.h"

int report_stats(struct lane *lane, const struct request *request);
int report_counters(struct lane *lane, const struct request *request);
int report_knobs(struct lane *lane, const struct request *request);
int report_clients(struct lane *lane, const struct request *request);
