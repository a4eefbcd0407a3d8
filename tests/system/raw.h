/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A client that speaks the wire protocol itself, without libtier: it can do what libtier never does */

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

struct raw {
	int fd;
	uint64_t serial;		/* of the last request */
	struct wire_welcome welcome;
	int fds[16];			/* that came with the last message */
	size_t n_fds;
};

union raw_body {			/* room for any reply */
#define RAW_BODY(name, number, type) type as_##name;
	WIRE_REPLY_LIST(RAW_BODY)
#undef RAW_BODY
};

/* Sends a request of a known type and returns its serial. */
static inline uint64_t raw_send(struct raw *raw, enum wire_type type, const void *body)
{
	struct {
		struct wire_header header;
		char body[512];
	} message = { .header = { .magic = WIRE_MAGIC, .version = WIRE_VERSION, .type = type, .serial = ++raw->serial } };
	size_t n_body = wire_body_size(type);

	assert_true(n_body && n_body <= sizeof(message.body));
	message.header.size = sizeof(message.header) + n_body;
	memcpy(message.body, body, n_body);
	if (send(raw->fd, &message, message.header.size, MSG_NOSIGNAL) != message.header.size)
		fail_msg("send: %s", strerror(errno));
	return raw->serial;
}

static inline void raw_drop_fds(struct raw *raw)
{
	while (raw->n_fds)
		close(raw->fds[--raw->n_fds]);
}

static inline void raw_take_fds(struct raw *raw, struct msghdr *message)
{
	struct cmsghdr *c = CMSG_FIRSTHDR(message);

	raw_drop_fds(raw);
	if (!c || c->cmsg_type != SCM_RIGHTS)
		return;
	raw->n_fds = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
	memcpy(raw->fds, CMSG_DATA(c), raw->n_fds * sizeof(int));
}

/* Takes the next message, whatever it answers; the descriptors of the last one are closed. */
static inline struct wire_header raw_receive(struct raw *raw, union raw_body *body)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(raw->fds))];
	struct wire_header header;
	struct iovec parts[2] = { { &header, sizeof(header) }, { body, sizeof(*body) } };
	struct msghdr message = { .msg_iov = parts, .msg_iovlen = 2, .msg_control = control, .msg_controllen = sizeof(control) };
	struct pollfd ready = { .fd = raw->fd, .events = POLLIN };

	if (poll(&ready, 1, TEST_DEADLINE_NS / 1000000) != 1)
		fail_msg("no answer from the daemon in time");
	if (recvmsg(raw->fd, &message, MSG_CMSG_CLOEXEC) < (ssize_t)sizeof(header))
		fail_msg("the daemon hung up");
	raw_take_fds(raw, &message);
	assert_int_equal(header.magic, WIRE_MAGIC);
	assert_int_equal(header.size, sizeof(header) + wire_body_size(header.type));
	return header;
}

/* A request and its reply, which must be of that type; nothing else may be under way. */
static inline union raw_body raw_ask(struct raw *raw, enum wire_type type, const void *body, enum wire_type reply_type)
{
	uint64_t serial = raw_send(raw, type, body);
	union raw_body reply;
	struct wire_header header = raw_receive(raw, &reply);

	assert_int_equal(header.serial, serial);
	if (header.type == WIRE_ERROR && reply_type != WIRE_ERROR)
		fail_msg("request %d: %s", type, reply.as_ERROR.text);
	assert_int_equal(header.type, reply_type);
	return reply;
}

/* Connects and says HELLO in a session of its own. */
static inline void raw_open(struct raw *raw, const struct daemon *daemon)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct wire_hello hello = { .lane = WIRE_LANE_API, .program = "raw" };

	*raw = (struct raw){ .fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0) };
	strcpy(address.sun_path, daemon->socket);
	if (raw->fd < 0 || connect(raw->fd, (struct sockaddr *)&address, sizeof(address)))
		fail_msg("connect: %s", strerror(errno));
	raw->welcome = raw_ask(raw, WIRE_HELLO, &hello, WIRE_WELCOME).as_WELCOME;
}

static inline void raw_close(struct raw *raw)
{
	raw_drop_fds(raw);
	close(raw->fd);
}
