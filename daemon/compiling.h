/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Compiles: the core asks for one, a worker makes it, its bytes become code of the module. Unoptimized code that counts takes
 * microseconds: it is made here, in a turn of the loop of its own. */

#include <stdint.h>
#include "caching.h"
#include "host.h"
#include "tiering/core.h"
#include "util/base.h"
#include "util/dispatch.h"
#include "worker/pool.h"

struct compiling {
	struct core *core;
	struct pool *pool;
	struct caching *caching;	/* NULL, or without a store: none */
	struct list compiles;		/* jobs that the pool has, or the cache's thread */
	struct list own;		/* those that are made here */
	struct dispatch_timer turn;	/* armed while there are any */
	struct list waiting;		/* not in the cache, and there was no room for a job */
	struct dispatch_timer again;	/* armed while there are any */
	uint64_t complained_ns;		/* when the log last heard of a job that could not start */
};

/* The fields above the list are the owner's to fill before the first. */
void compiling_init(struct compiling *compiling, struct dispatch *dispatch);
/* Forgets what is under way; the pool is gone already. */
void compiling_stop(struct compiling *compiling);

/* As struct core_ops.compile */
int compiling_start(struct compiling *compiling, struct host *host, const struct core_compile *wanted);
/* The module goes: its jobs end, and nobody hears of them. They are at most as many as there are jobs at a
 * time, and first calls that wait for the optimizer. */
void compiling_cancel(struct compiling *compiling, uint64_t module);
