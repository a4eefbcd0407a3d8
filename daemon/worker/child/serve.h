/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A worker's life: confined, it answers jobs one by one until its socket is closed
 *
 * For tests the environment variable TIERD_WORKER_FAULT (of the zygote) makes compile jobs fail on purpose:
 *
 *   hang | die | memory           never ends; dies of a signal; allocates until nothing is left
 *   lie                           says that it inlined the module's last method
 *   FAULT:NAME                    only when the method NAME is compiled; the names "(load)" and "(precompile)" mean such jobs
 *                                 instead */

#include <stdint.h>

/* Confines the process and serves jobs on @fd. @parent: the pid it must end with. Does not return. */
_Noreturn void serve_run(int fd, uint64_t memory_limit, int parent);
