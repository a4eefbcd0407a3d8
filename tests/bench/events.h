/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The way of events, by the kernel's probes or over sockets (@mode: "kernel" or "socket"), on daemons of their own */

void events_rate(const char *mode);          /* many clients, into a journal in a folder, to a follower */
void events_of_thresholds(const char *mode); /* what one costs the calling thread, and when a follower has it */
