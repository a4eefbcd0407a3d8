/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Small things that every file uses: cleanup attributes, TAKE, min and max, alignment, container_of. */

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#define _cleanup_(function) __attribute__((cleanup(function), unused))	/* its end is a use */
#define _unused_ __attribute__((unused))

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define container_of(p, type, member) ((type *)((char *)(p)-offsetof(type, member)))
#define MIN(a, b) ({ __typeof__(a) _a = (a); __typeof__(b) _b = (b); _a < _b ? _a : _b; })
#define MAX(a, b) ({ __typeof__(a) _a = (a); __typeof__(b) _b = (b); _a > _b ? _a : _b; })

/* Hands ownership over: the value, and the variable is empty afterwards. */
#define TAKE_PTR(p) ({ __typeof__(p) _p = (p); (p) = NULL; _p; })
#define TAKE_FD(fd) ({ int _fd = (fd); (fd) = -1; _fd; })

static inline uint64_t align_up(uint64_t n, uint64_t align) { return (n + align - 1) & ~(align - 1); }
static inline int is_power_of_two(uint64_t n) { return n && !(n & (n - 1)); }

static inline void freep(void *p) { free(*(void **)p); }
static inline int close_fd(int fd)	/* closes if open; returns -1 for assignment */
{
	if (fd >= 0)
		close(fd);
	return -1;
}
static inline void closep(int *fd) { close_fd(*fd); }

#define DEFINE_CLEANUP(type, destroy)                                                                                  \
	_unused_ static inline void destroy##p(type *p)                                                                \
	{                                                                                                              \
		if (*p)                                                                                                \
			destroy(*p);                                                                                   \
	}
