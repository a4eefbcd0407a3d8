/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What the daemon consists of: for those who wire its parts together (tierd.c) and ask them (answers.c) */

#include <limits.h>
#include "caching.h"
#include "compiling.h"
#include "instances.h"
#include "journal/journal.h"
#include "ledger_file.h"
#include "listen.h"
#include "loading.h"
#include "options.h"
#include "precompiling.h"
#include "rejitting.h"
#include "server/server.h"
#include "store/store.h"
#include "takeover.h"
#include "tier/records.h"
#include "tiering/core.h"
#include "trace/tracer.h"
#include "util/dispatch.h"
#include "util/task.h"
#include "worker/pool.h"

struct tierd {
	const struct options *options;
	struct dispatch dispatch;
	struct store *store;
	struct listen_place place;
	struct dispatch_file signal_file;
	struct dispatch_timer core_timer, recover_timer, manager_timer;
	struct ledger_file ledger;
	struct core *core;
	struct pool *pool;
	struct task_thread *checker;
	struct tracer *tracer;
	struct journal *journal;
	struct server *server;
	struct loading loading;
	struct instances instances;
	struct rejitting rejitting;
	struct caching caching;
	struct compiling compiling;
	struct precompiling precompiling;
	struct takeover takeover;	/* the last one */
	struct tier_visits visits;	/* what clients counted in modules that are gone */
	uint64_t start_ns;
	int signal_fd;
	char worker_path[PATH_MAX + 64];	/* the pool's: a zygote may have to be started again */
};
