/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>
#include <sys/socket.h>
#include "util/base.h"
#include "util/error.h"
#include "worker/channel.h"

union control {
	struct cmsghdr header;
	char bytes[CMSG_SPACE(sizeof(int) * CHANNEL_FDS_MAX)];
};

int channel_send(int fd, const void *bytes, size_t n, const int *fds, unsigned int n_fds)
{
	struct iovec iov = { .iov_base = (void *)bytes, .iov_len = n };
	struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1 };
	union control control = { .bytes = { 0 } };

	if (n_fds) {
		message.msg_control = &control;
		message.msg_controllen = CMSG_SPACE(sizeof(int) * n_fds);
		control.header.cmsg_level = SOL_SOCKET;
		control.header.cmsg_type = SCM_RIGHTS;
		control.header.cmsg_len = CMSG_LEN(sizeof(int) * n_fds);
		memcpy(CMSG_DATA(&control.header), fds, sizeof(int) * n_fds);
	}
	return sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ? -errno : 0;
}

static void take_fds(struct msghdr *message, int *fds, unsigned int n_fds)
{
	struct cmsghdr *header = CMSG_FIRSTHDR(message);
	unsigned int n;

	if (!header || header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS)
		return;
	n = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
	memcpy(fds, CMSG_DATA(header), sizeof(int) * MIN(n, n_fds));
}

int channel_receive(int fd, void *bytes, size_t n, int *fds, unsigned int n_fds, int flags)
{
	struct iovec iov = { .iov_base = bytes, .iov_len = n };
	union control control = { .bytes = { 0 } };
	struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control };
	ssize_t got;

	for (unsigned int i = 0; i < n_fds; i++)
		fds[i] = -1;
	message.msg_controllen = n_fds ? CMSG_LEN(sizeof(int) * n_fds) : 0;
	do {
		got = recvmsg(fd, &message, flags | MSG_CMSG_CLOEXEC);
	} while (got < 0 && errno == EINTR);
	if (got < 0)
		return errno == ECONNRESET ? CHANNEL_E_CLOSED : -errno;
	take_fds(&message, fds, n_fds);
	if ((size_t)got == n && !(message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)))
		return 0;
	for (unsigned int i = 0; i < n_fds; i++)
		fds[i] = close_fd(fds[i]);
	return got || message.msg_flags & MSG_CTRUNC ? CHANNEL_E_MALFORMED : CHANNEL_E_CLOSED;
}
