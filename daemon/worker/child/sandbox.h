/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What a worker gives up before it sees a job: files, network, other processes, executable memory, most of its identity */

#include <stdbool.h>
#include <stdint.h>

/* The zygote's part, once, inherited by all workers: namespaces without network, mounts or IPC of anybody else, as far as
 * the kernel lets this user; no core dumps, no ptrace. Failing is not an error: the worker's own part does not build on it. */
void sandbox_prepare(void);

/* The worker's part, final. @fd becomes SANDBOX_FD, every other descriptor is closed or /dev/null. The process ends with
 * its parent, which is @parent. Afterwards any system call off the list kills the process with SIGSYS. 0 or -errno. */
int sandbox_enter(int fd, uint64_t memory_limit, int parent);
#define SANDBOX_FD 3

/* Who root's workers become: no account, subordinate range or container has this number, so nobody but root may send them
 * a signal. Where a user namespace does not map it, they become nobody. */
#define WORKER_ID 2000000000

/* Whether memory is (as good as) exhausted: another eighth of @memory_limit cannot be had. Any context, signal handlers too. */
bool sandbox_is_out_of_memory(uint64_t memory_limit);
