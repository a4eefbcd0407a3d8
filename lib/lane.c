/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include "error.h"
#include "lane.h"
#include "sync.h"
#include "sys.h"

/* A reply to a request that was given up (its deadline passed) is recognized by its serial and skipped. Everything else
 * that is not the awaited reply breaks the lane: what a peer means that breaks the format cannot be known. */

#ifndef SO_COOKIE
#define SO_COOKIE 57
#endif
#ifndef POLLRDHUP
#define POLLRDHUP 0x2000
#endif

/* -- The descriptor --- */
static uint64_t socket_cookie(int fd)
{
	socklen_t n = sizeof(uint64_t);
	uint64_t cookie = 0;

	return sys_getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &n) < 0 ? 0 : cookie;
}

bool lane_is_intact(const struct lane *lane)
{
	const int fd = __atomic_load_n(&lane->fd, __ATOMIC_ACQUIRE);

	return fd >= 0 && socket_cookie(fd) == __atomic_load_n(&lane->cookie, __ATOMIC_SEQ_CST);
}

/* A record lock belongs to the descriptor table through which it was taken, and lives no longer than that. So it tells a
 * table from its copies, without a process id that another process may have by now or another namespace has not, and
 * without a privilege. */
static bool socket_mark(int fd)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

	return sys_fcntl(fd, F_SETLK, (long)&lock) == 0;
}

/* 1: such a lock would stand in the way, of a table that is not its own (F_GETLK) or of anybody (F_OFD_GETLK) */
static int socket_ask_mark(int fd, int how)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	int r;

	r = sys_fcntl(fd, how, (long)&lock);
	return r < 0 ? r : lock.l_type != F_UNLCK;
}

bool lane_is_copy(const struct lane *lane)
{
	if (!lane->is_marked || !lane_is_intact(lane))
		return false;
	return socket_ask_mark(lane->fd, F_GETLK) == 1 || socket_ask_mark(lane->fd, F_OFD_GETLK) == 0;
}

bool lane_is_alive(const struct lane *lane)
{
	struct pollfd poll = { .fd = lane->fd, .events = POLLRDHUP };
	struct timespec zero = { 0 };

	if (lane_is_broken(lane) || !lane_is_intact(lane))
		return false;
	return sys_ppoll(&poll, 1, &zero, NULL) <= 0 || !(poll.revents & (POLLRDHUP | POLLHUP | POLLERR));
}

void lane_close(struct lane *lane)
{
	if (lane_is_intact(lane))
		sys_close(lane->fd);
	lane->fd = -1;
}

void lane_shut(struct lane *lane)
{
	__atomic_store_n(&lane->is_broken, true, __ATOMIC_RELEASE);
	if (lane_is_intact(lane))
		sys_shutdown(lane->fd, SHUT_RDWR);
}

static int lane_break(struct lane *lane, int r, const char *why)
{
	lane_shut(lane);
	return error_set(r, "the connection to the daemon at %s is lost: %s", lane->address->sun_path, why);
}

/* Away from the standard descriptors: a program that starts with them closed would print into the socket. */
static int socket_lift(int fd)
{
	int lifted;

	if (fd > 2 || fd < 0)
		return fd;
	lifted = sys_fcntl(fd, F_DUPFD_CLOEXEC, 3);
	sys_close(fd);
	return lifted;
}

/* The socket blocks while the daemon's backlog is full, but no longer than the deadline. */
static int socket_connect(int fd, const struct sockaddr_un *address, uint64_t deadline_ns)
{
	struct { int64_t s, us; } patience = { 0, 0 };	/* the kernel's timeval; zeros: no limit */
	struct timespec left;
	int r;

	do {
		if (deadline_left(deadline_ns, &left)) {
			patience.s = left.tv_sec;
			patience.us = left.tv_nsec / 1000 + 1;
		}
		sys_setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
		r = sys_connect(fd, address, sizeof(*address));
	} while (r == -EINTR);
	return r == -EAGAIN ? -ETIMEDOUT : r;
}

int lane_open(struct lane *lane, uint64_t deadline_ns)
{
	int fd, r;

	fd = socket_lift(sys_socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC));
	if (fd < 0)
		return error_set(fd, "cannot make a socket: %s", error_word(fd));
	/* in the lane before it leads anywhere: a fork in the middle of this closes its copy */
	lane->cookie = socket_cookie(fd);
	lane->is_marked = socket_mark(fd);
	lane->is_broken = false;
	lane->fd = fd;
	r = socket_connect(fd, lane->address, deadline_ns);
	if (r < 0) {
		lane_close(lane);
		return error_set(r, "cannot connect to the daemon at %s: %s; start it with `sudo tierd`, or "
				    "`tierd --user` for yourself, or name its socket in TIERD_SOCKET",
				 lane->address->sun_path, error_word(r));
	}
	return 0;
}

/* The number stays, since others may be about to use it; what they send before this goes to the old connection, which is dead,
 * and between the two stores nowhere. If the program has put something of its own there, the number is its. A mark goes with the
 * first descriptor of its socket that is closed, so it is made again. */
void lane_adopt(struct lane *lane, struct lane *fresh)
{
	if (lane_is_intact(lane) && sys_dup3(fresh->fd, lane->fd, O_CLOEXEC) >= 0)
		sys_close(fresh->fd);
	else
		__atomic_store_n(&lane->fd, fresh->fd, __ATOMIC_RELEASE);
	__atomic_store_n(&lane->cookie, fresh->cookie, __ATOMIC_SEQ_CST);
	fresh->fd = -1;
	lane->is_marked = socket_mark(lane->fd);
	if (lane->serial < fresh->serial)
		lane->serial = fresh->serial;
	__atomic_store_n(&lane->is_broken, false, __ATOMIC_RELEASE);
}

/* -- Sleeping --- */
/* In a fork the other end's answers are the parent's; a signal handler may have forked while this thread slept. */
static bool lane_is_foreign(const struct lane *lane, uint32_t epoch)
{
	return !__atomic_load_n(lane->mine, __ATOMIC_ACQUIRE) || *lane->epoch != epoch;
}

/* 0: try again; -ETIMEDOUT, -ECONNRESET with a sentence. */
static int lane_sleep(struct lane *lane, short events, const struct request *request)
{
	struct pollfd poll = { .fd = lane->fd, .events = events };
	const uint64_t all = UINT64_MAX;
	const uint32_t epoch = *lane->epoch;
	struct timespec left;
	int r;

	r = sys_ppoll(&poll, 1, deadline_left(request->deadline_ns, &left), request->mask ? request->mask : &all);
	if (request->mask && lane_is_foreign(lane, epoch))
		return error_set(-ECONNRESET, "the process forked in the middle of a request; ask again");
	if (r == 0)
		return error_set(-ETIMEDOUT, "the daemon at %s did not answer in time", lane->address->sun_path);
	if (r < 0 && r != -EINTR)
		return lane_break(lane, -ECONNRESET, error_word(r));
	return 0;
}

/* -- Sending --- */
static int lane_send(struct lane *lane, enum wire_type type, const void *body, uint64_t serial, int fd)
{
	const uint32_t n = wire_body_size(type);
	struct wire_header header = { .magic = WIRE_MAGIC, .version = WIRE_VERSION, .type = type, .size = sizeof(header) + n,
				      .n_fds = fd >= 0, .serial = serial };
	struct iovec parts[2] = { { &header, sizeof(header) }, { (void *)body, n } };
	union { char bytes[CMSG_SPACE(sizeof(int))]; struct cmsghdr align; } control = { .bytes = { 0 } };
	struct msghdr message = { .msg_iov = parts, .msg_iovlen = 2 };
	long r;

	if (fd >= 0) {
		control.align = (struct cmsghdr){ CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS };
		memcpy(CMSG_DATA(&control.align), &fd, sizeof(fd));
		message.msg_control = &control;
		message.msg_controllen = CMSG_LEN(sizeof(int));
	}
	r = sys_sendmsg(lane->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
	return r < 0 ? r : 0;
}

int lane_ring(struct lane *lane, enum wire_type type, const void *body, uint64_t serial)
{
	if (lane_is_broken(lane) || !lane_is_intact(lane))
		return -ECONNRESET;
	return lane_send(lane, type, body, serial, -1);
}

int lane_post(struct lane *lane, const struct request *request)
{
	int r;

	lane->is_sent = false;
	if (lane_is_broken(lane))
		return error_set(-ECONNRESET, "the connection to the daemon at %s is lost", lane->address->sun_path);
	if (!lane_is_intact(lane))
		return lane_break(lane, -ECONNRESET, "the program closed libtier's descriptor");
	lane->serial++;
	lane->header.serial = 0;
	for (;;) {
		r = lane_send(lane, request->type, request->body, lane->serial, request->fd);
		lane->is_sent = r == 0;
		/* EPIPE: why the daemon hung up may still be there to read */
		if (r == 0 || r == -EPIPE || r == -ECONNRESET)
			return 0;
		if (r != -EAGAIN)
			return error_set(r, "cannot send to the daemon at %s: %s", lane->address->sun_path, error_word(r));
		r = lane_sleep(lane, POLLOUT, request);
		if (r < 0)
			return r;
	}
}

/* -- Receiving --- */
struct parcel {		/* the descriptors that came with a message */
	int fds[LANE_FDS_MAX];
	uint32_t n;
};

static void parcel_drop(struct parcel *parcel)
{
	while (parcel->n)
		sys_close(parcel->fds[--parcel->n]);
}

static void parcel_take(struct parcel *parcel, struct msghdr *message)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < (c->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++)
			memcpy(&parcel->fds[parcel->n++], CMSG_DATA(c) + i * sizeof(int), sizeof(int));
	}
}

/* What is wrong with the message of @n bytes that came, or NULL. */
static const char *lane_check(const struct lane *lane, size_t n, int flags, uint32_t n_fds)
{
	const struct wire_header *header = &lane->header;

	if (n < sizeof(*header) || header->magic != WIRE_MAGIC)
		return "it sent something that is not a message of tierd";
	if (header->version != WIRE_VERSION)
		return "it speaks another version of the protocol";
	if (header->type < WIRE_ERROR || !wire_body_size(header->type))
		return "it sent a message of unknown type";
	if (flags & (MSG_TRUNC | MSG_CTRUNC) || header->size != n || n != sizeof(*header) + wire_body_size(header->type))
		return "it sent a message of the wrong size";
	if (header->n_fds != n_fds)
		return "it sent another number of descriptors than it said";
	return NULL;
}

/* The next message into lane->header and ->body. 0; -EAGAIN; another negative errno with a sentence: broken. */
static int lane_receive(struct lane *lane, struct parcel *parcel)
{
	struct iovec parts[2] = { { &lane->header, sizeof(lane->header) }, { &lane->body, sizeof(lane->body) } };
	union { char bytes[CMSG_SPACE(sizeof(int) * LANE_FDS_MAX)]; struct cmsghdr align; } control;
	struct msghdr message = { .msg_iov = parts, .msg_iovlen = 2, .msg_control = &control, .msg_controllen = sizeof(control) };
	const char *wrong;
	long n;

	n = sys_recvmsg(lane->fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	if (n == -EAGAIN || n == -EINTR)
		return -EAGAIN;
	if (n <= 0)
		return lane_break(lane, -ECONNRESET, n ? error_word(n) : "the daemon closed it");
	parcel_take(parcel, &message);
	wrong = lane_check(lane, n, message.msg_flags, parcel->n);
	if (!wrong)
		return 0;
	parcel_drop(parcel);
	return lane_break(lane, -EPROTO, wrong);
}

/* ERROR with serial 0 is the daemon's last word before it hangs up. */
static int lane_refused(struct lane *lane)
{
	struct wire_error *error = &lane->body.as_ERROR;

	error->text[sizeof(error->text) - 1] = 0;
	if (!lane->header.serial || error->error == TIER_ERROR_NONE)
		return lane_break(lane, -EPROTO, error->text);
	return error_set(-tier_error_errno(error->error), "%s",
			 error->text[0] ? error->text : tier_error_name(error->error));
}

/* The awaited reply is in the lane: hands out what the request wants of it. */
static int lane_deliver(struct lane *lane, const struct request *request, struct parcel *parcel)
{
	if (lane->header.type == WIRE_ERROR)
		return lane_refused(lane);
	if (lane->header.type != request->reply_type || (parcel->n && !request->fds))
		return lane_break(lane, -EPROTO, "it sent a reply that does not fit the request");
	if (request->reply)
		memcpy(request->reply, &lane->body, wire_body_size(request->reply_type));
	if (request->fds) {
		memcpy(request->fds, parcel->fds, parcel->n * sizeof(int));
		*request->n_fds = parcel->n;
		parcel->n = 0;
	}
	return 0;
}

int lane_await(struct lane *lane, const struct request *request)
{
	int r;

	for (;;) {
		struct parcel parcel = { .n = 0 };
		const uint64_t *serial = &lane->header.serial;

		r = lane_receive(lane, &parcel);
		if (r == -EAGAIN) {
			r = lane_sleep(lane, POLLIN, request);
			if (r < 0)
				return r;
			continue;
		}
		if (r < 0)
			return r;
		if (*serial == lane->serial || (!*serial && lane->header.type == WIRE_ERROR))
			r = lane_deliver(lane, request, &parcel);
		else if (*serial > lane->serial || !*serial)
			r = lane_break(lane, -EPROTO, "it answered a question that nobody asked");
		else
			r = -EAGAIN;	/* given up long ago */
		parcel_drop(&parcel);
		if (r != -EAGAIN)
			return r;
	}
}

int lane_request(struct lane *lane, const struct request *request)
{
	int r;

	r = lane_post(lane, request);
	return r < 0 ? r : lane_await(lane, request);
}

int lane_listen(struct lane *lane, uint64_t deadline_ns)
{
	struct pollfd poll = { .fd = lane->fd, .events = POLLIN };
	struct parcel parcel = { .n = 0 };
	struct timespec left;
	int r = -EAGAIN;

	while (r == -EAGAIN) {
		if (sys_ppoll(&poll, 1, deadline_left(deadline_ns, &left), NULL) == 0)
			return error_set(-ETIMEDOUT, "the daemon at %s did not answer in time", lane->address->sun_path);
		if (!lane_is_intact(lane))
			return lane_break(lane, -ECONNRESET, "the program closed libtier's descriptor");
		r = lane_receive(lane, &parcel);
	}
	parcel_drop(&parcel);
	return r;
}

void lane_drain(struct lane *lane)
{
	struct parcel parcel = { .n = 0 };

	while (!lane_is_broken(lane) && lane_is_intact(lane) && !lane_receive(lane, &parcel))
		parcel_drop(&parcel);
}
