/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The pool: the daemon's side of the compile workers
 *
 * One zygote (tierd-worker, started once, LLVM loaded and initialized before it has seen any input) forks a uid's
 * workers on demand: as many as it may have compilations at a time, and another one while it precompiles objects, which may take
 * minutes and must not hold up anybody's promotions. A worker does one job at a time, in the order of submission: what a caller
 * waits for in the middle of a call, then loads, then compiles; loads all go to the first one. Workers that were idle for
 * the idle timeout, or have grown too large, end; a dead zygote is started again (with a growing pause
 * when it dies at once). The daemon never waits: everything comes back as a callback from the loop. */

#include <stdint.h>
#include <sys/types.h>
#include "tier/types.h"
#include "util/dispatch.h"
#include "worker/compiler.h"
#include "worker/job.h"

struct pool;
struct pool_job;

struct pool_config {
	const char *worker_path;	/* the tierd-worker program; stays the caller's while the pool lives */
	uint32_t workers_per_uid;	/* that compile and load, at least 1: --background-workers */
	uint64_t idle_timeout_ns;	/* --background-worker-timeout */
	uint64_t load_limit_ns;		/* per job, wall time; exceeded: the worker is killed. JOB_PRECOMPILE: see JOB_PRECOMPILE_NS */
	uint64_t compile_limit_ns;
	uint64_t memory_limit;		/* RLIMIT_AS of a worker, bytes */
};
#define POOL_CONFIG_DEFAULT                                                                                            \
	{ .workers_per_uid = 1, .idle_timeout_ns = 4000000000u, .load_limit_ns = 10000000000u, .compile_limit_ns = 30000000000u,             \
	  .memory_limit = 2ull << 30 }

/* How a job ended. On success (reason NONE) @bytes is the daemon's own copy of the output, malloc()ed; the callee takes
 * it. Otherwise bytes is NULL, @reason says what happened (COMPILE_FAILED, also of a load that was refused; WORKER_DIED, WORKER_TIMEOUT,
 * WORKER_MEMORY; RESULT_REFUSED: the worker misbehaved; NO_WORKER) and @refusal the sentence. Called from the loop,
 * never from inside pool_submit(). It may submit and cancel, but not free the pool. */
typedef void (*pool_done_fn)(void *context, enum tier_reason reason, void *bytes, size_t n, const struct refusal *refusal);

int pool_new(struct pool **ret, struct dispatch *dispatch, const struct pool_config *config);
struct pool *pool_free(struct pool *pool);	/* kills and reaps workers and zygote; drops jobs without callbacks */

/* @input_fd: a memfd with the job's input, n_input bytes; the pool takes a duplicate. For JOB_LOAD and JOB_PRECOMPILE its content is what a
 * client sent: the pool and the worker only pread() it. Returns 0 and the job, or -errno. */
int pool_submit(struct pool *pool, uid_t uid, enum job_kind kind, int input_fd, uint64_t n_input, pool_done_fn fn,
		void *context, struct pool_job **ret);
/* The job gets before all others of its uid that wait, but for those of which this was said earlier. */
void pool_hurry(struct pool_job *job);
/* Withdraws: the callback will not come. A running job's worker is ended; the next job gets another one. */
void pool_cancel(struct pool_job *job);

struct pool_stats {
	uint64_t n_jobs, n_failed, n_workers_started, n_workers_died;
	uint32_t n_workers, n_queued;
};
void pool_stats(const struct pool *pool, struct pool_stats *ret);

/* Who compiles; NULL: no zygote has been ready yet. Valid until the pool is freed; a new zygote may bring another. */
const struct compiler *pool_compiler(const struct pool *pool);

/* For tests: pids of the zygote and of a uid's first worker; 0 when there is none now */
pid_t pool_zygote_pid(const struct pool *pool);
pid_t pool_worker_pid(const struct pool *pool, uid_t uid);
