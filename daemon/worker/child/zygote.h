/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The zygote: LLVM loaded, initialized and warm, no input seen. It forks workers and does nothing else. */

/* Serves requests on the channel @fd until it is closed; the exit status of the process. */
int zygote_run(int fd);
