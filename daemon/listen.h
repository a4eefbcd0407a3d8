/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The daemon's socket in the file system: who may have it, and that only one daemon does. */

#include <stdbool.h>

struct listen_place {
	char path[108];		/* as sockaddr_un has it */
	int fd;			/* listening; -1 */
	int lock_fd;		/* of path.lock: held while the daemon lives; -1 */
};
#define LISTEN_PLACE_NULL { .fd = -1, .lock_fd = -1 }

/* @path: NULL: $TIERD_SOCKET, else $XDG_RUNTIME_DIR/tierd.sock for a user's daemon, else the system's. Makes the folder when it is missing,
 * takes the lock, replaces a dead daemon's socket. 0, or -errno after the sentence went to the log. */
int listen_open(struct listen_place *place, const char *path, bool user);
void listen_close(struct listen_place *place);	/* removes the socket; also for LISTEN_PLACE_NULL */
