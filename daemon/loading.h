/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Loading a module: object file → worker → image → checker thread → hosted module in the core
 *
 *   server's load request ──► load worker (libelf, sandboxed) ──► task thread (check, verify, lay out, place) ──► core
 *
 * Each arrow is an event of the loop, so a load of any size never holds it. What a module takes of the ledger and of memory
 * is charged to its uid: nobody's modules keep others from loading theirs. */

#include <stdint.h>
#include <sys/types.h>
#include "arena/arena.h"
#include "host.h"
#include "server/server.h"
#include "store/store.h"
#include "tiering/core.h"
#include "tiering/ledger.h"
#include "util/charge.h"
#include "util/task.h"
#include "worker/pool.h"

#define LOADING_METHODS_PER_UID (LEDGER_METHODS_MAX / 8)
#define LOADING_MEMORY_PER_UID (1ull << 30)	/* bytes */

enum loading_slot { LOADING_SLOT_METHODS, LOADING_SLOT_MEMORY };

struct loading {
	struct core *core;
	struct pool *pool;
	struct task_thread *checker;
	struct store *store;	/* what must outlive the daemon; NULL: nothing does */
	struct window window;	/* the checker thread's, while it runs */
	uint64_t n_code;	/* --code-size */
	struct host_config config;
	bool ready_to_run;	/* --ready-to-run */
	struct list loads;	/* under way */
	struct charge_table charges;	/* what the uids' modules take: it must outlive them */
};

/* The fields above the list are the owner's to fill before the first load. */
void loading_init(struct loading *loading);
/* Ends what is under way with CANCELED; the checker and the pool are gone already. */
void loading_stop(struct loading *loading);

/* For whoever builds modules: the plan of one with a new id; and a built one becomes known to the core, charged to its uid. NONE,
 * and the host is the module's; else the error with its sentence. */
struct host_plan loading_plan(struct loading *loading);
enum tier_error loading_add(struct loading *loading, struct module **ret, struct host *host, uid_t uid, const char *name,
			    bool shared, struct refusal *refusal);
/* What a body takes: 0, CHARGE_E_QUOTA or -ENOMEM */
int loading_charge_body(struct charge_table *charges, struct host_body *body, uid_t uid);
/* What a predecessor admitted is charged again; what today's limits have no room for stays uncharged. */
void loading_charge_again(struct loading *loading, struct host *host, uid_t uid);

/* As struct server_ops.load: 0, or a positive enum tier_error. Ends with one server_loaded(). */
int loading_start(struct loading *loading, uid_t uid, const char *name, bool shared, int object_fd, uint64_t n,
		  struct server_load *load);
/* As struct server_ops.cancel_load */
void loading_cancel(struct loading *loading, const struct server_load *load);
