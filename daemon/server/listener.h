/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The listener: accepts connections, and turns away whom the quotas or the daemon's owner do not admit. */

#include "util/dispatch.h"

struct server;

struct listener {
	struct server *server;
	int fd;
	int spare_fd;			/* given up for a moment to turn a client away when descriptors are used up */
	bool is_paused;
	struct dispatch_file file;
};
#define LISTENER_NULL(x) { .fd = -1, .spare_fd = -1, .file = DISPATCH_FILE_NULL((x).file) }

/* Takes @fd on success. */
int listener_init(struct listener *listener, struct server *server, int fd);
void listener_deinit(struct listener *listener);
void listener_resume(struct listener *listener);	/* a close ended: accepts again if too many were under way */
