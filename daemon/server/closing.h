/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Closing: descriptors that clients made go where a close may take its time
 *
 * The last close of a file is the file's own code: a socket that lingers and a file system in user space keep whoever
 * closes for as long as they like, which must not be the loop. So only files in shared memory of a moderate size are closed
 * at once; everything else is closed by a thread of its own, one after the other. No honest client sends such files: a
 * close that hangs delays only those of others who do so too.
 *
 * What waits there is charged to the uid that sent it. A uid over its quota is thrown out by lane.c, and not admitted by
 * listener.c until the thread has caught up; when too many wait in all, nobody is. */

#include <stdbool.h>
#include <sys/types.h>
#include "util/list.h"
#include "util/task.h"

#define CLOSING_UIDS 4u		/* as many uids may use their quota up before nobody is admitted */

struct server;

struct closings {
	struct task_thread *thread;
	struct list list;		/* under way */
	uint32_t n;
};

int closing_init(struct server *server);	/* 0 or -errno */
/* Waits for nothing: closes that are still under way are left to their thread, and in the end to the process's exit. */
void closing_deinit(struct server *server);

/* Takes @fd, which came from a client of @uid. */
void closing_take(struct server *server, uid_t uid, int fd);
/* Takes a connection's socket and ends it so that the peer can read what was sent to it: a close with unread data in
 * the queue would tell it ECONNRESET instead. Descriptors may lie in the queue unread; those close with it. */
void closing_take_socket(struct server *server, uid_t uid, int fd);

bool closing_admits(const struct server *server, uid_t uid);	/* false: the uid has too much under way */
bool closing_is_full(const struct server *server);		/* too much is under way in all */
