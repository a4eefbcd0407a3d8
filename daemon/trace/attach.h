/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Attaches a kernel program to the file's code at @offset, for all processes that map it, now or later. Returns the one
 * descriptor that holds all of it together, wherever that is kept: when its last duplicate is closed, in whatever process, the
 * program is detached. -errno. */
int attach_uprobe(int program_fd, int file_fd, uint64_t offset);

/* Closes what is not -1 of the @n descriptors, all at the same time, because the kernel takes a fifth of a second over the last
 * one of each; they are -1 then. @wait: returns when it is done; else that comes as it comes. */
void attach_end(int *fds, size_t n, bool wait);
