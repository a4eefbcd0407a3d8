/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Replacing a body: object file → worker → image → checker thread → bound body in the core
 *
 *   server's rejit request ──► load worker ──► task thread ──► loop ──► task thread ──► loop ──► task thread ──► loop
 *                                              check, verify,  charge,  copy .rodata    tier 0   nothing         core_rejit()
 *                                              bind            reserve
 *
 * As in loading.h each arrow is an event of the loop. The task thread reads names of the target module and writes where
 * nobody looks yet: the module may go meanwhile, but its memory is given back in that same thread, in its turn. All objects for
 * one module go through the worker of the module's uid, which takes them in order, and then through the one task thread, all
 * equally often: replacements of a method end in the order in which they were asked for. The last arrow is gone along again while
 * the core withdraws inliners, turn by turn; whoever comes behind for the same method waits until it is done. */

#include <stdbool.h>
#include <stdint.h>
#include "server/server.h"
#include "store/store.h"
#include "tiering/core.h"
#include "util/charge.h"
#include "util/task.h"
#include "worker/pool.h"

struct rejitting {
	struct core *core;
	struct pool *pool;
	struct task_thread *checker;
	struct store *store;		/* as loading.h's */
	struct charge_table *charges;	/* loading.h's: bodies are charged as modules' memory */
	struct list rejits;		/* under way */
};

/* The fields above the list are the owner's to fill before the first. */
void rejitting_init(struct rejitting *rejitting);
/* Ends what is under way with CANCELED; the checker and the pool are gone already. */
void rejitting_stop(struct rejitting *rejitting);

/* As struct server_ops.rejit: 0, or a positive enum tier_error. Ends with one server_loaded(). */
int rejitting_start(struct rejitting *rejitting, struct module *module, uint32_t method, const char *symbol, bool force, int object_fd,
		    uint64_t n, struct server_load *load);
/* As struct server_ops.cancel_load; what is no rejit is not known here. */
void rejitting_cancel(struct rejitting *rejitting, const struct server_load *load);
