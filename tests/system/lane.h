/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A lane with a session of its own, without libtier: for tests that want many requests under way at a time, and the
 * descriptors that come with replies. For broken messages there is raw.h. */

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <cmocka.h>
#include <tier/wire.h>
#include "system/harness.h"

struct lane {
	int fd;
	uint64_t serial;		/* of the last request */
	struct wire_welcome welcome;
	int fds[16];			/* that came with the last message */
	size_t n_fds;
};

union lane_body {			/* room for any reply */
#define LANE_BODY(name, number, type) type as_##name;
	WIRE_REPLY_LIST(LANE_BODY)
#undef LANE_BODY
};

/* Sends a request of a known type and returns its serial. */
static inline uint64_t lane_send(struct lane *lane, enum wire_type type, const void *body)
{
	struct {
		struct wire_header header;
		char body[2048];
	} message = { .header = { .magic = WIRE_MAGIC, .version = WIRE_VERSION, .type = type, .serial = ++lane->serial } };
	size_t n_body = wire_body_size(type);

	assert_true(n_body && n_body <= sizeof(message.body));
	message.header.size = sizeof(message.header) + n_body;
	memcpy(message.body, body, n_body);
	if (send(lane->fd, &message, message.header.size, MSG_NOSIGNAL) != message.header.size)
		fail_msg("send: %s", strerror(errno));
	return lane->serial;
}

static inline void lane_drop_fds(struct lane *lane)
{
	while (lane->n_fds)
		close(lane->fds[--lane->n_fds]);
}

static inline void lane_take_fds(struct lane *lane, struct msghdr *message)
{
	struct cmsghdr *c = CMSG_FIRSTHDR(message);

	lane_drop_fds(lane);
	if (!c || c->cmsg_type != SCM_RIGHTS)
		return;
	lane->n_fds = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
	memcpy(lane->fds, CMSG_DATA(c), lane->n_fds * sizeof(int));
}

/* Takes the next message, whatever it answers; the descriptors of the last one are closed. */
static inline struct wire_header lane_receive(struct lane *lane, union lane_body *body)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(lane->fds))];
	struct wire_header header;
	struct iovec parts[2] = { { &header, sizeof(header) }, { body, sizeof(*body) } };
	struct msghdr message = { .msg_iov = parts, .msg_iovlen = 2, .msg_control = control, .msg_controllen = sizeof(control) };
	struct pollfd ready = { .fd = lane->fd, .events = POLLIN };

	if (poll(&ready, 1, TEST_DEADLINE_NS / 1000000) != 1)
		fail_msg("no answer from the daemon in time");
	if (recvmsg(lane->fd, &message, MSG_CMSG_CLOEXEC) < (ssize_t)sizeof(header))
		fail_msg("the daemon hung up");
	lane_take_fds(lane, &message);
	assert_int_equal(header.magic, WIRE_MAGIC);
	assert_int_equal(header.size, sizeof(header) + wire_body_size(header.type));
	return header;
}

/* A request and its reply, which must be of that type; nothing else may be under way. */
static inline union lane_body lane_ask(struct lane *lane, enum wire_type type, const void *body, enum wire_type reply_type)
{
	uint64_t serial = lane_send(lane, type, body);
	union lane_body reply;
	struct wire_header header = lane_receive(lane, &reply);

	assert_int_equal(header.serial, serial);
	if (header.type == WIRE_ERROR && reply_type != WIRE_ERROR)
		fail_msg("request %d: %s", type, reply.as_ERROR.text);
	assert_int_equal(header.type, reply_type);
	return reply;
}

/* Connects and says HELLO in a session of its own. */
static inline void lane_open(struct lane *lane, const struct daemon *daemon)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct wire_hello hello = { .lane = WIRE_LANE_API, .program = "raw" };

	*lane = (struct lane){ .fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0) };
	strcpy(address.sun_path, daemon->socket);
	if (lane->fd < 0 || connect(lane->fd, (struct sockaddr *)&address, sizeof(address)))
		fail_msg("connect: %s", strerror(errno));
	lane->welcome = lane_ask(lane, WIRE_HELLO, &hello, WIRE_WELCOME).as_WELCOME;
}

static inline void lane_close(struct lane *lane)
{
	lane_drop_fds(lane);
	close(lane->fd);
}
