/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Whether a thread of this process sleeps on a word of memory, so that no test need guess how long that takes */

#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#ifndef SYS_futex_waitv
#define SYS_futex_waitv 449
#endif

/* In the kernel, in futex() or futex_waitv(): the number of the call comes first. *@tid is 0 until the thread has begun. */
static inline bool is_asleep(const pid_t *tid)
{
	char path[64], text[32] = "";
	ssize_t n;
	long call;
	int fd;

	snprintf(path, sizeof(path), "/proc/self/task/%d/syscall", (int)__atomic_load_n(tid, __ATOMIC_ACQUIRE));
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	call = n > 0 && text[0] >= '0' && text[0] <= '9' ? strtol(text, NULL, 10) : -1;
	return call == SYS_futex || call == SYS_futex_waitv;
}
