/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include "server/conn.h"
#include "server/state.h"
#include "util/base.h"
#include "util/error.h"
#include "util/log.h"

#define LISTENER_ACCEPTS_PER_TURN 16
#define LISTENER_NOBODY ((uid_t)-1)	/* whom a connection is charged to that was never admitted */

/* A client that is not admitted gets its reason and is closed. */
static void listener_refuse(struct listener *listener, uid_t uid, int fd, enum tier_error error, const char *text)
{
	struct {
		struct wire_header header;
		struct wire_error body;
	} message = {
		.header = { .magic = WIRE_MAGIC, .version = WIRE_VERSION, .type = WIRE_ERROR, .size = sizeof(message) },
		.body = { .error = error },
	};

	strncpy(message.body.text, text, sizeof(message.body.text) - 1);
	send(fd, &message, sizeof(message), MSG_DONTWAIT | MSG_NOSIGNAL);
	closing_take_socket(listener->server, uid, fd);
}

/* Takes @fd. */
static void listener_admit(struct listener *listener, int fd)
{
	const struct server *server = listener->server;
	struct ucred peer;
	socklen_t n = sizeof(peer);
	int r;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &n) < 0) {
		closing_take_socket(listener->server, LISTENER_NOBODY, fd);
		return;
	}
	if (server->config.owner != (uid_t)-1 && peer.uid != server->config.owner) {
		listener_refuse(listener, peer.uid, fd, TIER_ERROR_DENIED, "this daemon serves another user only");
		return;
	}
	if (!closing_admits(listener->server, peer.uid)) {
		listener_refuse(listener, peer.uid, fd, TIER_ERROR_QUOTA, "descriptors that this user sent are not closed yet");
		return;
	}
	r = conn_new(listener->server, fd, peer.uid, peer.pid);
	if (r == CONN_E_QUOTA)
		listener_refuse(listener, peer.uid, fd, TIER_ERROR_QUOTA, "this user has too many connections");
	else if (r)
		listener_refuse(listener, peer.uid, fd, TIER_ERROR_NO_MEMORY, "the daemon is out of memory");
}

/* No descriptor is left, and the connection would stay readable for ever: the spare one makes room to say so. */
static void listener_turn_away(struct listener *listener)
{
	int fd;

	listener->spare_fd = close_fd(listener->spare_fd);
	fd = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd >= 0)
		listener_refuse(listener, LISTENER_NOBODY, fd, TIER_ERROR_NO_MEMORY, "the daemon is out of descriptors");
	listener->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

/* Whoever is accepted must be closed again, and that is what cannot be done now. Who is connected goes on. */
static int listener_pause(struct listener *listener)
{
	log_line(LOG_WARNING, "no new connections until some of %u descriptors that clients sent are closed",
		 listener->server->closings.n);
	listener->is_paused = true;
	return error_fold(dispatch_file_select(&listener->file, 0));
}

void listener_resume(struct listener *listener)
{
	if (!listener->is_paused || dispatch_file_select(&listener->file, EPOLLIN))
		return;
	listener->is_paused = false;
}

static int listener_dispatch(struct dispatch_file *file, uint32_t events)
{
	struct listener *listener = container_of(file, struct listener, file);

	if (closing_is_full(listener->server))
		return listener_pause(listener);
	for (int i = 0; i < LISTENER_ACCEPTS_PER_TURN; i++) {
		int fd = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (fd >= 0) {
			listener_admit(listener, fd);
			continue;
		}
		if (errno == EMFILE || errno == ENFILE)
			listener_turn_away(listener);
		if (errno != EINTR && errno != ECONNABORTED)
			break;
	}
	return 0;
}

int listener_init(struct listener *listener, struct server *server, int fd)
{
	int r;

	*listener = (struct listener)LISTENER_NULL(*listener);
	listener->server = server;
	listener->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	if (listener->spare_fd < 0)
		return error_origin(-errno);
	if (fcntl(fd, F_SETFL, O_NONBLOCK) < 0)
		r = error_origin(-errno);
	else
		r = dispatch_file_init(&listener->file, server->dispatch, listener_dispatch, "listener", fd, EPOLLIN);
	if (r) {
		listener->spare_fd = close_fd(listener->spare_fd);
		return error_fold(r);
	}
	listener->fd = fd;
	return 0;
}

void listener_deinit(struct listener *listener)
{
	dispatch_file_deinit(&listener->file);
	listener->fd = close_fd(listener->fd);
	listener->spare_fd = close_fd(listener->spare_fd);
}
