/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <bpf/bpf.h>
#include <errno.h>
#include <linux/perf_event.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "tier/events.h"
#include "trace/attach.h"
#include "util/base.h"

/* By the kernel's interface itself: libbpf's links disable their probe when they go, also while somebody else keeps a
 * descriptor of it, and ours is to work on when the daemon has ended. */

static int uprobe_type(void)
{
	FILE *file = fopen("/sys/bus/event_source/devices/uprobe/type", "re");
	int type = -ENOTSUP;

	if (!file)
		return -errno;
	if (fscanf(file, "%d", &type) != 1)
		type = -ENOTSUP;
	fclose(file);
	return type;
}

static int uprobe_open(int file_fd, uint64_t offset)
{
	int type = uprobe_type(), fd;
	char path[64];
	struct perf_event_attr attr = {
		.size = sizeof(attr), .type = type, .config1 = (uintptr_t)path, .config2 = offset,
	};

	if (type < 0)
		return type;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", file_fd);
	/* the processor matters to the kernel's bookkeeping only: a hit counts wherever it happens */
	fd = syscall(SYS_perf_event_open, &attr, -1, 0, -1, PERF_FLAG_FD_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

int attach_uprobe(int program_fd, int file_fd, uint64_t offset)
{
	_cleanup_(closep) int event_fd = uprobe_open(file_fd, offset);
	int link_fd;

	if (event_fd < 0)
		return event_fd;
	link_fd = bpf_link_create(program_fd, event_fd, BPF_PERF_EVENT, NULL);	/* holds the event, too */
	if (link_fd >= 0 && ioctl(event_fd, PERF_EVENT_IOC_ENABLE, 0) == 0)
		return link_fd;
	if (link_fd >= 0) {
		close(link_fd);
		return -errno;
	}
	if (link_fd != -EINVAL)
		return link_fd;
	/* Kernels before 5.15 have no links for these events: there the event itself holds the program. */
	if (ioctl(event_fd, PERF_EVENT_IOC_SET_BPF, program_fd) < 0 || ioctl(event_fd, PERF_EVENT_IOC_ENABLE, 0) < 0)
		return -errno;
	return TAKE_FD(event_fd);
}

static void *end_run(void *fd)
{
	close((int)(intptr_t)fd);
	return NULL;
}

/* False: there is no thread for it. Signals are the loop's. */
static bool end_start(pthread_t *thread, int fd)
{
	sigset_t all, before;
	bool r;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	r = !pthread_create(thread, NULL, end_run, (void *)(intptr_t)fd);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return r;
}

void attach_end(int *fds, size_t n, bool wait)
{
	pthread_t threads[TIER_PROBE_SLOTS];
	size_t n_threads = 0;

	assert(n <= TIER_PROBE_SLOTS);
	for (size_t i = 0; i < n; i++) {
		const int fd = TAKE_FD(fds[i]);

		if (fd < 0)
			continue;
		if (!end_start(&threads[n_threads], fd))
			close(fd);
		else if (wait)
			n_threads++;
		else
			pthread_detach(threads[n_threads]);
	}
	while (n_threads)
		pthread_join(threads[--n_threads], NULL);
}
