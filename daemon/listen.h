/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The daemon's socket in the file system: who may have it, and that only one daemon does.
 *
 * A socket that the service manager passes is used as it is: it bound that itself, or keeps it for us. What a daemon binds itself it
 * puts into the store together with the lock on its path, so that clients wait in the socket's queue for a successor, and nobody
 * else takes the path meanwhile. */

#include <stdbool.h>
#include "store/store.h"

struct listen_place {
	char path[108];		/* as sockaddr_un has it */
	int folder_fd;		/* the path's; -1 */
	int fd;			/* listening; -1 */
	int lock_fd;		/* of path.lock: held while the daemon lives; -1 */
};
#define LISTEN_PLACE_NULL { .folder_fd = -1, .fd = -1, .lock_fd = -1 }

/* @path: NULL: $TIERD_SOCKET, else $XDG_RUNTIME_DIR/tierd.sock for a user's daemon, else the system's. Takes the listener that was
 * passed, if there is one. Else makes the folder when it is missing, refuses one in which everybody could replace the socket and a
 * path at which there is anything but a socket or a link, takes the lock, for which it waits some seconds as long as nobody serves
 * there, replaces a dead daemon's socket. Changes the umask for a moment, so: before there are threads. 0, or -errno after the
 * sentence went to the log. */
int listen_open(struct listen_place *place, const char *path, bool user, struct store *store);
/* @is_left: a successor will have it. Otherwise removes the socket, if it is this daemon's own. Also for LISTEN_PLACE_NULL. */
void listen_close(struct listen_place *place, bool is_left);
/* Removes the socket of a daemon that is gone. @listener: it; @lock: on its path. Borrows both. */
void listen_remove(int listener, int lock);
