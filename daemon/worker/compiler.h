/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Who compiled, and for which processor
 *
 * Optimized code that was kept (in an object, in the cache) is of use only to the compiler that would make the same
 * again: of another one it may not fit what surrounds it, and on another processor it may not run. The zygote knows;
 * the daemon compares. */

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

struct compiler {
	char version[16]; /* tierd-worker's; texts are padded with zeroes */
	char llvm[16];
	char cpu[32];      /* as LLVM calls it */
	uint64_t features; /* a hash of LLVM's words for what the processor has */
	uint64_t build;    /* a hash of tierd-worker's program: two builds of one version are different compilers */
};
_Static_assert(sizeof(struct compiler) == 80, "no padding: it is compared and stored as bytes");

static inline bool compiler_equals(const struct compiler *a, const struct compiler *b)
{
	return !memcmp(a, b, sizeof(*a));
}
