/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include "server/closing.h"
#include "server/state.h"
#include "util/base.h"
#include "util/error.h"

#define CLOSING_INLINE_MAX (64u << 20)	/* bytes; to free them takes a few milliseconds */

struct closing {
	struct task task;
	struct list link;		/* closings.list */
	struct server *server;
	struct charge charge;
	int fd;
};

/* -- Under way --- */
static void closing_run(struct task *task)
{
	struct closing *closing = container_of(task, struct closing, task);

	closing->fd = close_fd(closing->fd);
}

static void closing_done(struct task *task)
{
	struct closing *closing = container_of(task, struct closing, task);
	struct server *server = closing->server;

	list_remove(&closing->link);
	server->closings.n--;
	charge_deinit(&closing->charge);
	free(closing);
	listener_resume(&server->listener);
}

/* Over the quota it must be closed all the same: uncharged, which the quota's refusals keep rare. */
static void closing_submit(struct server *server, uid_t uid, int fd)
{
	struct closing *closing = calloc(1, sizeof(*closing));

	if (!closing) {		/* rather a turn that may be long than a descriptor lost */
		close_fd(fd);
		return;
	}
	closing->server = server;
	closing->fd = fd;
	closing->task = (struct task)TASK_NULL(closing->task);
	(void)!charge_take(&server->charges, &closing->charge, uid, SERVER_SLOT_CLOSINGS, 1);
	list_append(&server->closings.list, &closing->link);
	server->closings.n++;
	task_submit(server->closings.thread, &closing->task, closing_run, closing_done);
}

/* -- Coming --- */
/* Only files in shared memory can be sealed, and nothing but their size makes their close long. The order matters: fstat()
 * of any other file may hang. */
static bool closes_at_once(int fd)
{
	struct stat st;

	return fcntl(fd, F_GET_SEALS) >= 0 && !fstat(fd, &st) && (uint64_t)st.st_blocks * 512 <= CLOSING_INLINE_MAX;
}

void closing_take(struct server *server, uid_t uid, int fd)
{
	if (closes_at_once(fd))
		close_fd(fd);
	else
		closing_submit(server, uid, fd);
}

/* Empties the queue of a socket that gets nothing any more, as far as no descriptors lie in it: true when it is empty.
 * A peek without room for descriptors leaves them where they are, and says so. With credentials that come along with each
 * message its end can be told from an empty message. */
static bool socket_is_drained(int fd)
{
	union {
		struct cmsghdr header;
		unsigned char bytes[CMSG_SPACE(sizeof(struct ucred))];
	} control;
	char byte;
	struct iovec iov = { .iov_base = &byte, .iov_len = 1 };
	struct msghdr message;

	if (setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &(int){ 1 }, sizeof(int)) < 0)
		return false;
	for (;;) {
		message = (struct msghdr){ .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control) };
		if (recvmsg(fd, &message, MSG_DONTWAIT | MSG_PEEK) < 0)
			return errno == EAGAIN;
		if (message.msg_flags & MSG_CTRUNC)
			return false;
		if (!message.msg_controllen)
			return true;
		(void)!recv(fd, NULL, 0, MSG_DONTWAIT);
	}
}

void closing_take_socket(struct server *server, uid_t uid, int fd)
{
	shutdown(fd, SHUT_RDWR);	/* from here on the queue cannot grow */
	if (socket_is_drained(fd))
		close_fd(fd);
	else
		closing_submit(server, uid, fd);
}

/* -- How much --- */
bool closing_admits(const struct server *server, uid_t uid)
{
	return charge_used(&server->charges, uid, SERVER_SLOT_CLOSINGS) < server->config.closings_per_uid;
}

bool closing_is_full(const struct server *server)
{
	return server->closings.n >= CLOSING_UIDS * server->config.closings_per_uid;
}

/* -- Life --- */
int closing_init(struct server *server)
{
	return error_fold(task_thread_new(&server->closings.thread, server->dispatch, "close"));
}

void closing_deinit(struct server *server)
{
	struct closings *closings = &server->closings;
	struct list *pos;

	list_for_each(pos, &closings->list)
		charge_deinit(&list_entry(pos, struct closing, link)->charge);
	if (closings->n)
		task_thread_abandon(closings->thread);
	else
		task_thread_free(closings->thread);
	closings->thread = NULL;
}
