/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Precompiling objects for clients: object file → worker → the same object with code inside, in a memfd of the client's
 *
 * Nothing of it becomes known to the core. The worker's answer is only handed on: whoever loads it has it checked then.
 */

#include <stdint.h>
#include <sys/types.h>
#include "server/server.h"
#include "util/list.h"
#include "util/task.h"
#include "worker/pool.h"

struct precompiling {
	struct pool *pool;
	struct task_thread *checker;
	struct list objects; /* under way */
};

/* The fields above the list are the owner's to fill before the first. */
void precompiling_init(struct precompiling *precompiling);
/* Ends what is under way with CANCELED; the checker and the pool are gone already. */
void precompiling_stop(struct precompiling *precompiling);

/* As struct server_ops.precompile: 0, or a positive enum tier_error. Ends with one server_precompiled(). */
int precompiling_start(struct precompiling *precompiling, uid_t uid, int object_fd, uint64_t n,
		       struct server_load *load);
/* As struct server_ops.cancel_load; what is no precompilation is not known here. */
void precompiling_cancel(struct precompiling *precompiling, const struct server_load *load);
