/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A client without libtier: messages as the protocol has them (tier/wire.h), or as it must not have them. Every function
 * fails the running test when the daemon does not do its part. */

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <tier/wire.h>
#include <unistd.h>
#include "system/harness.h"

#define DATAGRAM_MAX 8192u

struct message {
	struct wire_header header;
	unsigned char body[DATAGRAM_MAX];
};

static inline int raw_connect(const struct daemon *daemon)
{
	const struct timeval patience = { .tv_sec = TEST_DEADLINE_NS / 1000000000u };
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	strcpy(address.sun_path, daemon->socket);
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)), 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	return fd;
}

/* False when the daemon has hung up already. */
static inline bool raw_send(int fd, const void *bytes, size_t n, const int *fds, unsigned int n_fds)
{
	union { struct cmsghdr header; unsigned char bytes[CMSG_SPACE(253 * sizeof(int))]; } control = { 0 };
	struct iovec iov = { .iov_base = (void *)bytes, .iov_len = n };
	struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (n_fds) {
		control.header = (struct cmsghdr){ .cmsg_len = CMSG_LEN(n_fds * sizeof(int)), .cmsg_level = SOL_SOCKET,
						   .cmsg_type = SCM_RIGHTS };
		memcpy(CMSG_DATA(&control.header), fds, n_fds * sizeof(int));
		message.msg_control = &control;
		message.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
	}
	return sendmsg(fd, &message, MSG_NOSIGNAL) >= 0;
}

static inline struct message message_make(unsigned int type, uint64_t serial, const void *body)
{
	struct message message = { .header = { .magic = WIRE_MAGIC, .version = WIRE_VERSION, .type = type, .serial = serial } };
	uint32_t n = wire_body_size(type);

	message.header.size = sizeof(message.header) + n;
	if (body)
		memcpy(message.body, body, n);
	return message;
}

static inline void raw_request(int fd, unsigned int type, uint64_t serial, const void *body, int passed)
{
	struct message message = message_make(type, serial, body);

	message.header.n_fds = passed >= 0;
	assert_true(raw_send(fd, &message, message.header.size, &passed, passed >= 0));
}

/* The next message, descriptors dropped except the first into *ret_fd (may be NULL); false: the daemon hung up. */
static inline bool raw_receive(int fd, struct message *ret, int *ret_fd)
{
	union { struct cmsghdr header; unsigned char bytes[CMSG_SPACE(8 * sizeof(int))]; } control;
	struct iovec iov = { .iov_base = ret, .iov_len = sizeof(*ret) };
	struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control) };
	ssize_t n = recvmsg(fd, &message, MSG_CMSG_CLOEXEC);

	if (n < 0 && errno != ECONNRESET)
		fail_msg("no answer from the daemon: %s", strerror(errno));
	if (n <= 0)
		return false;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c))
		for (size_t i = 0; i < (c->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++) {
			int passed;

			memcpy(&passed, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
			if (!i && ret_fd)
				*ret_fd = passed;
			else
				close(passed);
		}
	assert_int_equal(ret->header.magic, WIRE_MAGIC);
	assert_int_equal(ret->header.size, n);
	return true;
}

/* Asks and gets the reply of @reply_type. */
static inline void raw_ask(int fd, unsigned int type, const void *body, unsigned int reply_type, void *reply)
{
	static uint64_t serial = 1000;
	struct message message;

	/* a user whose descriptors are not closed yet has to wait for it: that brings no event */
	for (uint64_t deadline = test_now_ns() + TEST_DEADLINE_NS;; wait_until_pause("descriptors are closed", deadline)) {
		raw_request(fd, type, ++serial, body, -1);
		assert_true(raw_receive(fd, &message, NULL));
		if (message.header.type != WIRE_ERROR || reply_type == WIRE_ERROR
		    || ((struct wire_error *)message.body)->error != TIER_ERROR_QUOTA)
			break;
	}
	if (message.header.type == WIRE_ERROR && reply_type != WIRE_ERROR)
		fail_msg("request %u: %s", type, ((struct wire_error *)message.body)->text);
	assert_int_equal(message.header.type, reply_type);
	assert_int_equal(message.header.serial, serial);
	if (reply)
		memcpy(reply, message.body, wire_body_size(reply_type));
}

static inline struct wire_welcome raw_hello(int fd, int *ret_page)
{
	const struct wire_hello hello = { .program = "raw" };
	struct wire_welcome welcome;
	struct message message;

	raw_request(fd, WIRE_HELLO, 1, &hello, -1);
	assert_true(raw_receive(fd, &message, ret_page));
	assert_int_equal(message.header.type, WIRE_WELCOME);
	memcpy(&welcome, message.body, sizeof(welcome));
	return welcome;
}

static inline struct wire_stats raw_stats(int fd)
{
	struct wire_stats stats;

	raw_ask(fd, WIRE_STATS, NULL, WIRE_STATISTICS, &stats);
	return stats;
}

/* The daemon says what is wrong and hangs up. */
static inline void raw_check_thrown_out(int fd, const char *what)
{
	const struct wire_error *error;
	struct message message;

	while (raw_receive(fd, &message, NULL)) {
		if (message.header.type != WIRE_ERROR)
			continue;
		error = (const void *)message.body;
		if (error->error != TIER_ERROR_PROTOCOL && error->error != TIER_ERROR_VERSION)
			fail_msg("%s: answered with error %u (%s)", what, error->error, error->text);
		if (!error->text[0])
			fail_msg("%s: no sentence", what);
		if (raw_receive(fd, &message, NULL))
			fail_msg("%s: the daemon goes on after an error of the protocol", what);
		return;
	}
	fail_msg("%s: hung up without a reason", what);
}
