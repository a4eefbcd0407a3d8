/* SPDX-License-Identifier: Apache-2.0 */
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include "util/base.h"
#include "util/error.h"
#include "util/fault.h"
#include "util/log.h"
#include "worker/channel.h"
#include "worker/child/codegen.h"
#include "worker/child/identity.h"
#include "worker/child/sandbox.h"
#include "worker/child/serve.h"
#include "worker/child/zygote.h"

/* Workers are made as children of the daemon (CLONE_PARENT), not of the zygote: the daemon learns how they end, and they
 * end with the daemon and not with a zygote that somebody killed. */

static _Noreturn void become_worker(const struct zygote_request *request, int fd, int parent)
{
	char name[16];

	snprintf(name, sizeof(name), "tierd-w %u", request->uid);
	prctl(PR_SET_NAME, name);
	serve_run(fd, request->memory_limit, parent);
}

static void spawn(const struct zygote_request *request, int channel, int parent)
{
	struct zygote_reply reply = { .id = request->id };
	int sockets[2] = { -1, -1 }, pidfd = -1;
	long pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets) < 0) {
		reply.error = errno;
		channel_send(channel, &reply, sizeof(reply), NULL, 0);
		return;
	}
	pid = syscall(SYS_clone, CLONE_PARENT | CLONE_PIDFD | SIGCHLD, NULL, &pidfd, NULL, NULL);
	if (!pid)
		become_worker(request, sockets[1], parent);
	reply.error = pid < 0 ? errno : 0;
	reply.pid = MAX(pid, 0l);
	channel_send(channel, &reply, sizeof(reply), (int[]){ sockets[0], pidfd }, pid < 0 ? 0 : 2);
	close_fd(sockets[0]);
	close_fd(sockets[1]);
	close_fd(pidfd);
}

int zygote_run(int fd)
{
	struct zygote_reply ready = { .id = 0 };
	struct zygote_request request;
	int parent = getppid();
	int r;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	fault_begin_child();
	sandbox_prepare();
	r = codegen_init();
	if (r) {
		log_line(LOG_ERROR, "tierd-worker: LLVM cannot be initialized for this processor: %s", strerror(-r));
		return EXIT_FAILURE;
	}
	r = identity_init();
	if (r) {
		log_line(LOG_ERROR, "tierd-worker: its own program cannot be read: %s", strerror(-r));
		return EXIT_FAILURE;
	}
	ready.compiler = *identity();
	if (channel_send(fd, &ready, sizeof(ready), NULL, 0))
		return EXIT_FAILURE;
	while (!channel_receive(fd, &request, sizeof(request), NULL, 0, 0))
		spawn(&request, fd, parent);
	return EXIT_SUCCESS;
}
