/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* zlib, as segments use it */

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* One zlib stream at level 6: *ret is malloc()ed. 0 or -ENOMEM. */
int segment_deflate_bytes(const void *p, size_t n, void **ret, size_t *ret_n);
/* The other way, from offset @at of a file, at most @n_max bytes: how many came out before the end of the stream, its first
 * damage, or the end of the file; or -errno. */
ssize_t segment_inflate(int fd, uint64_t at, void *to, size_t n_max);
