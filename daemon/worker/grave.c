/* SPDX-License-Identifier: Apache-2.0 */
#include <signal.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include "util/base.h"
#include "util/error.h"
#include "worker/grave.h"

#ifndef P_PIDFD
#define P_PIDFD 3
#endif

struct grave {
	struct list link;
	struct dispatch_file file;
	int pidfd;
};

void graveyard_init(struct graveyard *graveyard, struct dispatch *dispatch)
{
	graveyard->dispatch = dispatch;
	list_init(&graveyard->graves);
}

static void grave_free(struct grave *grave)
{
	dispatch_file_deinit(&grave->file);
	list_remove(&grave->link);
	close(grave->pidfd);
	free(grave);
}

bool child_has_ended(int pidfd, int *ret_code, int *ret_status)
{
	siginfo_t info = { .si_pid = 0 };

	*ret_code = *ret_status = 0;
	if (waitid(P_PIDFD, pidfd, &info, WEXITED | WNOHANG) < 0)
		return errno == ECHILD;
	if (!info.si_pid)
		return false;
	*ret_code = info.si_code;
	*ret_status = info.si_status;
	return true;
}

static int grave_dispatch(struct dispatch_file *file, uint32_t events)
{
	struct grave *grave = container_of(file, struct grave, file);
	int code, status;

	if (child_has_ended(grave->pidfd, &code, &status))
		grave_free(grave);
	return 0;
}

static void reap_now(int pidfd)
{
	siginfo_t info;

	waitid(P_PIDFD, pidfd, &info, WEXITED);
	close(pidfd);
}

void graveyard_bury(struct graveyard *graveyard, int pidfd)
{
	struct grave *grave;
	int r;

	if (pidfd < 0)
		return;
	syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
	grave = calloc(1, sizeof(*grave));
	if (!grave) {
		reap_now(pidfd);
		return;
	}
	grave->pidfd = pidfd;
	list_init(&grave->link);
	r = dispatch_file_init(&grave->file, graveyard->dispatch, grave_dispatch, "grave", pidfd, EPOLLIN);
	if (r) {
		free(grave);
		reap_now(pidfd);
		return;
	}
	list_append(&graveyard->graves, &grave->link);
}

void graveyard_deinit(struct graveyard *graveyard)
{
	struct list *first;

	while ((first = list_first(&graveyard->graves))) {
		struct grave *grave = list_entry(first, struct grave, link);
		siginfo_t info;

		waitid(P_PIDFD, grave->pidfd, &info, WEXITED);
		grave_free(grave);
	}
}
