/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Latencies of the service: loads, cold calls, thresholds, wake-ups. Each prints its lines: medians over many events of
 * one run, with a yardstick measured in the same run where the figure needs one. */

#include "system/harness.h"

void latency_of_loads(const struct daemon *daemon);
void latency_of_cold_calls(const struct daemon *daemon);
void latency_of_climbs(const struct daemon *daemon);	/* threshold → handled, compile, publication → waiter */
void latency_of_futex(void);				/* the yardstick: a raw round trip between two processes */
void latency_of_questions(const struct daemon *daemon);	/* status, remaining, marks: from shared memory, and over the socket */
