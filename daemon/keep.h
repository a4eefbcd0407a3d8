/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* tierd --keep: a service manager for one daemon
 *
 * The keeper starts the daemon, keeps the descriptors that it puts into the store, and starts the next one with them when it dies. It
 * speaks sd_notify(3)'s protocol as systemd does, so the daemon does not know which of the two keeps it:
 *
 *	FDSTORE=1, FDNAME=	kept, unless this very open file is kept already; several under a name, the newest is passed first
 *	FDSTOREREMOVE=1, FDNAME=	all of that name are closed
 *	READY=1			the daemon serves
 *
 * It opens nothing else that comes from outside, so there is little that could end it.
 *
 *	the daemon...			the keeper...
 *	ends with 0			ends with 0: somebody stopped the daemon
 *	ends with 2 before it served	ends with 2, if it was the first one
 *	likewise, a later one		goes on keeping: SIGHUP starts it again, SIGTERM gives up
 *	dies				starts the next one at once; before it was ready, only a few times, with growing pauses
 *
 * SIGTERM, SIGINT: the store ends first, so the daemon ends as one that nobody keeps. SIGHUP: the daemon ends as one that is kept, and
 * the program that is at its path by then is started. */

#include "store/store.h"

/* Until the daemon ends: tierd's exit status. @store is the keeper's own, for what a manager above it passed; taken. @argc and @argv:
 * the keeper's. @ready is called once, when the first daemon serves. */
int keep_run(struct store *store, int argc, char **argv, void (*ready)(void *context), void *context);
