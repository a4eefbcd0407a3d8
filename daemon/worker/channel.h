/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Datagrams with descriptors on a SOCK_SEQPACKET socket, and what the daemon and its zygote say to each other
 *
 * Either end may be hostile: a datagram of another size or with more descriptors than wanted is a named condition, and
 * nothing that came with it stays open. */

#include <stddef.h>
#include <stdint.h>
#include "worker/compiler.h"

enum {
	_CHANNEL_E_SUCCESS,
	CHANNEL_E_CLOSED,	/* the other end is gone */
	CHANNEL_E_MALFORMED,	/* not n bytes, or more descriptors than fit */
};

/* Sends n bytes and @n_fds descriptors (at most CHANNEL_FDS_MAX), which stay the caller's. Never waits, never raises SIGPIPE.
 * 0 or -errno. */
int channel_send(int fd, const void *bytes, size_t n, const int *fds, unsigned int n_fds);

/* Receives one datagram of exactly @n bytes. @fds: @n_fds places, -1 where none came; the caller closes them. Waits as
 * @flags (0 or MSG_DONTWAIT) says. 0, CHANNEL_E_* or -errno (-EAGAIN: nothing there). */
int channel_receive(int fd, void *bytes, size_t n, int *fds, unsigned int n_fds, int flags);

#define CHANNEL_FDS_MAX 2

#define ZYGOTE_FD 3	/* the zygote finds its end of the channel here */

struct zygote_request {
	uint64_t id;		/* echoed; never 0 */
	uint64_t memory_limit;	/* RLIMIT_AS of the new worker */
	uint32_t uid;		/* whom it will serve: part of its name in ps */
	uint32_t reserved;
};

/* With error 0 two descriptors follow: the worker's socket and its pidfd. id 0: the zygote is ready for requests. */
struct zygote_reply {
	uint64_t id;
	int32_t error;		/* positive errno */
	int32_t pid;
	struct compiler compiler;	/* id 0: who it is; else zeroes */
};
