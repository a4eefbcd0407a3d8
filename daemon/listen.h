/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The daemon's socket in the file system: who may have it, and that only one daemon does. */

#include <stdbool.h>

struct listen_place {
	char path[108];		/* as sockaddr_un has it */
	int folder_fd;		/* the path's; -1 */
	int fd;			/* listening; -1 */
	int lock_fd;		/* of path.lock: held while the daemon lives; -1 */
};
#define LISTEN_PLACE_NULL { .folder_fd = -1, .fd = -1, .lock_fd = -1 }

/* @path: NULL: $TIERD_SOCKET, else $XDG_RUNTIME_DIR/tierd.sock for a user's daemon, else the system's. Makes the folder when
 * it is missing, refuses one in which everybody could replace the socket, takes the lock, replaces a dead daemon's socket.
 * Changes the umask for a moment, so: before there are threads. 0, or -errno after the sentence went to the log. */
int listen_open(struct listen_place *place, const char *path, bool user);
void listen_close(struct listen_place *place);	/* removes the socket; also for LISTEN_PLACE_NULL */
