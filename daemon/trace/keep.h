/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What the tracer leaves to its successor: who keeps it comes in as functions (tracer.h); NULL: nobody does */

#include <stdio.h>
#include "trace/tracer.h"
#include "util/base.h"

#define KEEP_NAME_MAX 32u

static inline int keep_take(const struct tracer_keep *keep, const char *name)
{
	return keep ? keep->take(keep->context, name) : -1;
}

/* Whoever keeps it says so when he can't; then a successor has to find out by the counters. */
static inline void keep_put(const struct tracer_keep *keep, const char *name, int fd)
{
	if (keep)
		keep->put(keep->context, name, fd);
}

static inline void keep_remove(const struct tracer_keep *keep, const char *name)
{
	if (keep)
		keep->remove(keep->context, name);
}
