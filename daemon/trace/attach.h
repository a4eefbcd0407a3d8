/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdint.h>

/* Attaches a kernel program to the file's code at @offset, for all processes that map it, now or later. Returns the one
 * descriptor that holds all of it together, wherever that is kept: when its last duplicate is closed, in whatever process, the
 * program is detached. -errno. */
int attach_uprobe(int program_fd, int file_fd, uint64_t offset);
