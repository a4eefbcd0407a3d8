/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>
#include <zlib.h>
#include "journal/segment_z.h"
#include "util/base.h"
#include "util/error.h"

#define LEVEL 6
#define CHUNK (64u << 10)	/* of the file, read at a time */

int segment_deflate_bytes(const void *p, size_t n, void **ret, size_t *ret_n)
{
	uLongf n_out = compressBound(n);
	_cleanup_(freep) void *bytes = malloc(n_out);

	if (!bytes || compress2(bytes, &n_out, p, n, LEVEL) != Z_OK)
		return error_origin(-ENOMEM);
	*ret = TAKE_PTR(bytes);
	*ret_n = n_out;
	return 0;
}

/* False: the stream has ended, is damaged, or no more is wanted. */
static bool inflate_chunk(z_stream *z, void *chunk, size_t n)
{
	z->next_in = chunk;
	z->avail_in = n;
	while (z->avail_in && z->avail_out)
		if (inflate(z, Z_NO_FLUSH) != Z_OK)
			return false;
	return z->avail_out;
}

ssize_t segment_inflate(int fd, uint64_t at, void *to, size_t n_max)
{
	_cleanup_(freep) void *chunk = malloc(CHUNK);
	z_stream z = { .next_out = to, .avail_out = n_max };
	ssize_t n = 1;

	if (!chunk || inflateInit(&z) != Z_OK)
		return error_origin(-ENOMEM);
	while (n > 0) {
		n = pread(fd, chunk, CHUNK, at);
		if (n < 0 && errno == EINTR) {
			n = 1;
			continue;
		}
		if (n <= 0 || !inflate_chunk(&z, chunk, n))
			break;
		at += n;
	}
	inflateEnd(&z);
	return n < 0 ? error_origin(-errno) : (ssize_t)(n_max - z.avail_out);
}
