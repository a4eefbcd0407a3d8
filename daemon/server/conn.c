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

/* A message that waits for room in the socket */
struct parcel {
	struct list link;
	size_t n;
	unsigned int n_fds;
	int fds[LANE_FDS_MAX];		/* duplicates */
	unsigned char bytes[];
};

struct conn {
	struct lane lane;
	struct list link;		/* server->conns */
	int fd;
	struct dispatch_file file;
	struct charge charge;
	struct list outbox;		/* struct parcel */
	size_t n_outbox;		/* bytes */
	bool is_broken;			/* nothing can be sent any more */
	bool is_ending;			/* thrown out; goes when the outbox is empty */
};

enum {
	_SEND_E_SUCCESS,
	SEND_E_FULL,			/* the socket has no room now */
};

/* -- Out --- */
static void conn_break(struct conn *conn)
{
	conn->is_broken = true;
	shutdown(conn->fd, SHUT_RDWR);	/* EPOLLHUP brings us to conn_dispatch() */
}

static int conn_send(struct conn *conn, const void *bytes, size_t n, const int *fds, unsigned int n_fds)
{
	union {
		struct cmsghdr header;
		unsigned char bytes[CMSG_SPACE(LANE_FDS_MAX * sizeof(int))];
	} control = {};
	struct iovec iov = { .iov_base = (void *)bytes, .iov_len = n };
	struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (n_fds) {
		control.header = (struct cmsghdr){ .cmsg_len = CMSG_LEN(n_fds * sizeof(int)), .cmsg_level = SOL_SOCKET,
						   .cmsg_type = SCM_RIGHTS };
		memcpy(CMSG_DATA(&control.header), fds, n_fds * sizeof(int));
		message.msg_control = &control;
		message.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
	}
	if (sendmsg(conn->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0)
		return 0;
	return errno == EAGAIN || errno == EINTR ? SEND_E_FULL : error_origin(-errno);
}

static void parcel_free(struct parcel *parcel)
{
	list_remove(&parcel->link);
	for (unsigned int i = 0; i < parcel->n_fds; i++)
		close_fd(parcel->fds[i]);
	free(parcel);
}

/* NULL: no memory or no descriptor */
static struct parcel *parcel_new(const void *bytes, size_t n, const int *fds, unsigned int n_fds)
{
	struct parcel *parcel = malloc(sizeof(*parcel) + n);

	if (!parcel)
		return NULL;
	*parcel = (struct parcel){ .n = n };
	list_init(&parcel->link);
	memcpy(parcel->bytes, bytes, n);
	for (; parcel->n_fds < n_fds; parcel->n_fds++) {
		int fd = fcntl(fds[parcel->n_fds], F_DUPFD_CLOEXEC, 3);

		if (fd < 0) {
			parcel_free(parcel);
			return NULL;
		}
		parcel->fds[parcel->n_fds] = fd;
	}
	return parcel;
}

/* Reads on only while there is nothing to be sent. */
static void conn_select(struct conn *conn)
{
	if (dispatch_file_select(&conn->file, list_is_empty(&conn->outbox) ? EPOLLIN : EPOLLOUT))
		conn_break(conn);
}

static void conn_keep(struct conn *conn, const void *bytes, size_t n, const int *fds, unsigned int n_fds)
{
	struct parcel *parcel;

	if (conn->n_outbox + n > CONN_OUTBOX_MAX) {
		lane_complain(&conn->lane, "does not read its replies");
		conn_break(conn);
		return;
	}
	parcel = parcel_new(bytes, n, fds, n_fds);
	if (!parcel) {
		conn_break(conn);
		return;
	}
	list_append(&conn->outbox, &parcel->link);
	conn->n_outbox += n;
	conn_select(conn);
}

static void conn_emit(struct lane *lane, const void *message, size_t n, const int *fds, unsigned int n_fds)
{
	struct conn *conn = container_of(lane, struct conn, lane);
	int r = SEND_E_FULL;

	if (conn->is_broken)
		return;
	if (list_is_empty(&conn->outbox))
		r = conn_send(conn, message, n, fds, n_fds);
	if (r == SEND_E_FULL)
		conn_keep(conn, message, n, fds, n_fds);
	else if (r)
		conn_break(conn);
}

static void conn_shut(struct lane *lane)
{
	conn_break(container_of(lane, struct conn, lane));
}

static const struct lane_ops conn_ops = { .emit = conn_emit, .shut = conn_shut };

static void conn_flush(struct conn *conn)
{
	struct list *first;
	int r;

	while ((first = list_first(&conn->outbox))) {
		struct parcel *parcel = list_entry(first, struct parcel, link);

		r = conn_send(conn, parcel->bytes, parcel->n, parcel->fds, parcel->n_fds);
		if (r == SEND_E_FULL)
			break;
		if (r) {
			conn_break(conn);
			return;
		}
		conn->n_outbox -= parcel->n;
		parcel_free(parcel);
	}
	conn_select(conn);
}

/* -- In --- */
/* Every descriptor that came along goes into @datagram, whatever else is wrong with the message. */
static void datagram_take_fds(struct datagram *datagram, struct msghdr *message)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
		size_t n;

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		memcpy(&datagram->fds[datagram->n_fds], CMSG_DATA(c), n * sizeof(int));
		datagram->n_fds += n;
	}
}

/* 1: a datagram; 0: none now; -1: the connection is over. */
static int conn_receive(struct conn *conn, struct datagram *datagram)
{
	union {
		struct cmsghdr header;
		unsigned char bytes[CMSG_SPACE(LANE_FDS_ROOM * sizeof(int))];
	} control;
	struct iovec iov = { .iov_base = datagram->bytes, .iov_len = sizeof(datagram->bytes) };
	struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control) };
	ssize_t n;

	n = recvmsg(conn->fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -1;
	datagram->n = n;
	datagram->n_fds = 0;
	datagram_take_fds(datagram, &message);
	datagram->is_truncated = message.msg_flags & MSG_TRUNC;
	datagram->is_control_truncated = message.msg_flags & MSG_CTRUNC;
	/* An empty datagram looks like the end; a descriptor tells it apart, and neither is worth answering. */
	if (!n)
		lane_drop_fds(&conn->lane, datagram);
	return n ? 1 : -1;
}

static void conn_read(struct conn *conn)
{
	uint64_t begin = clock_now_ns();
	struct datagram datagram;
	int r;

	for (int i = 0; i < CONN_MESSAGES_PER_TURN && clock_now_ns() - begin < CONN_TURN_NS; i++) {
		r = conn_receive(conn, &datagram);
		if (r < 0)
			conn_break(conn);
		if (r <= 0)
			return;
		if (lane_feed(&conn->lane, &datagram) == LANE_E_END) {
			conn->is_ending = true;
			lane_deinit(&conn->lane);
			return;
		}
		if (conn->is_broken || !list_is_empty(&conn->outbox))
			return;
	}
}

/* -- Life --- */
static void conn_free(struct conn *conn)
{
	struct list *pos, *after;

	log_event(LOG_SERVER, LOG_INFO1000, "a connection of pid %d, uid %u ends", (int)conn->lane.pid, conn->lane.uid);
	lane_deinit(&conn->lane);
	list_for_each_safe(pos, after, &conn->outbox)
		parcel_free(list_entry(pos, struct parcel, link));
	list_remove(&conn->link);
	dispatch_file_deinit(&conn->file);
	closing_take_socket(conn->lane.server, conn->lane.uid, conn->fd);
	charge_deinit(&conn->charge);
	free(conn);
}

static int conn_dispatch(struct dispatch_file *file, uint32_t events)
{
	struct conn *conn = container_of(file, struct conn, file);
	bool is_blocked = !list_is_empty(&conn->outbox);

	if (!conn->is_broken && is_blocked && events & (EPOLLHUP | EPOLLERR))
		conn_break(conn);
	if (!conn->is_broken && is_blocked && events & EPOLLOUT)
		conn_flush(conn);
	else if (!conn->is_broken && !conn->is_ending && !is_blocked)
		conn_read(conn);
	if (conn->is_broken || (conn->is_ending && list_is_empty(&conn->outbox)))
		conn_free(conn);
	return 0;
}

int conn_new(struct server *server, int fd, uid_t uid, pid_t pid)
{
	struct charge charge = CHARGE_NULL;
	struct conn *conn;
	int r;

	r = charge_take(&server->charges, &charge, uid, SERVER_SLOT_CONNS, 1);
	if (r)
		return r == CHARGE_E_QUOTA ? CONN_E_QUOTA : error_fold(r);
	conn = calloc(1, sizeof(*conn));
	if (!conn) {
		charge_deinit(&charge);
		return error_origin(-ENOMEM);
	}
	r = dispatch_file_init(&conn->file, server->dispatch, conn_dispatch, "connection", fd, EPOLLIN);
	if (r) {
		charge_deinit(&charge);
		free(conn);
		return error_fold(r);
	}
	lane_init(&conn->lane, server, uid, pid, &conn_ops);
	list_init(&conn->outbox);
	conn->fd = fd;
	conn->charge = charge;
	list_append(&server->conns, &conn->link);
	log_event(LOG_SERVER, LOG_INFO1000, "a connection of pid %d, uid %u begins", (int)pid, uid);
	return 0;
}

void conn_free_all(struct server *server)
{
	struct list *first;

	while ((first = list_first(&server->conns)))
		conn_free(list_entry(first, struct conn, link));
}
