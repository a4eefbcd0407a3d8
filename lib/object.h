/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Objects on their way to the daemon: copies in memory files that nobody can change any more, so that what the worker
 * reads is what was checked. Each function returns a descriptor, or a negative errno with a sentence. */

#include <stddef.h>

int object_of_file(const char *path);
int object_of_bytes(const void *bytes, size_t n, const char *name);	/* @name: for the sentence */
