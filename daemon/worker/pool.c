/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <string.h>
#include "util/base.h"
#include "util/error.h"
#include "util/list.h"
#include "util/log.h"
#include "worker/grave.h"
#include "worker/nursery.h"
#include "worker/pool.h"
#include "worker/worker.h"

/* Lanes of each uid that has jobs or a worker: as many as it may have compilations at a time, which is one unless configured, and
 * one more for its objects that are precompiled. Loads take the first, in order; a compile takes the one with the least to do.
 *
 *   no worker ──job, zygote ready──► asked ──born──► idle ◄──done── busy
 *       ▲                              │              │ ──job────►   │
 *       └──────── lost, error ─────────┴─ idle timeout ┴─ trouble ───┘
 *
 * Jobs wait in their lane, urgent ones first, then loads, then compiles. A job fails with its worker only if it was running; the others wait for
 * the next worker. They fail together when no worker can be had: the zygote cannot fork, or fails again and again. */

struct pool_job {
	struct list link;	/* in its lane's queue; unlinked while running */
	struct lane *lane;
	uint64_t id;
	enum job_kind kind;
	int input;
	uint64_t n_input;
	pool_done_fn fn;
	void *context;
};

#define CANCEL_GRACE_NS 200000000u	/* what a running job may still take once nobody wants it */

#define LANE_PRECOMPILES UINT32_MAX

struct lane {
	struct list link;
	struct pool *pool;
	uid_t uid;
	uint32_t number;	/* of the uid's; or LANE_PRECOMPILES */
	struct list urgent, loads, compiles;
	struct pool_job *running;
	uint32_t n_jobs;	/* that wait or run */
	struct worker *worker;
	uint64_t asked;		/* id of the question for a worker, 0: none is open */
	struct dispatch_timer idle;
};

struct pool {
	struct dispatch *dispatch;
	struct pool_config config;
	struct nursery nursery;
	struct graveyard graveyard;
	struct list lanes;
	uint64_t n_ids;		/* ids given to jobs and questions so far */
	struct pool_stats stats;
};

static void lane_kick(struct lane *lane);

/* -- Jobs ---------------------------------------------------------------------------------------------------------- */
static void job_free(struct pool_job *job)
{
	list_remove(&job->link);
	job->lane->n_jobs--;
	close(job->input);
	free(job);
}

/* Tells and forgets. The callback may change anything but the existence of lane and pool. */
static void job_end(struct pool_job *job, enum tier_reason reason, void *bytes, size_t n, const struct refusal *refusal)
{
	pool_done_fn fn = job->fn;
	void *context = job->context;

	log_event(LOG_WORKER, LOG_INFO1000, "job %llu of uid %u ends: %s%s", (unsigned long long)job->id, job->lane->uid,
		  reason ? tier_reason_name(reason) : "done", fn ? "" : ", and nobody waits for it");
	if (fn && reason != TIER_REASON_NONE)
		job->lane->pool->stats.n_failed++;
	job_free(job);
	if (fn)
		fn(context, reason, bytes, n, refusal);
	else
		free(bytes);	/* canceled meanwhile */
}

static struct pool_job *lane_next(struct lane *lane)
{
	struct list *first = list_first(&lane->urgent);

	if (!first)
		first = list_first(&lane->loads);
	if (!first)
		first = list_first(&lane->compiles);
	return first ? list_entry(first, struct pool_job, link) : NULL;
}

/* Only what waits now: a job that a callback submits gets its own chance. */
static void lane_fail(struct lane *lane, const char *why)
{
	uint64_t n_ids = lane->pool->n_ids;
	struct pool_job *job;
	struct refusal refusal;

	refuse(&refusal, "%s: %s", tier_reason_name(TIER_REASON_NO_WORKER), why);
	while ((job = lane_next(lane)) && job->id <= n_ids)
		job_end(job, TIER_REASON_NO_WORKER, NULL, 0, &refusal);
}

/* -- Lanes --------------------------------------------------------------------------------------------------------- */
static void lane_free(struct lane *lane)
{
	struct pool_job *job;

	if (lane->running)
		job_free(lane->running);
	while ((job = lane_next(lane)))
		job_free(job);
	worker_free(lane->worker);
	dispatch_timer_disarm(&lane->idle);
	list_remove(&lane->link);
	free(lane);
}

static void lane_drop_worker(struct lane *lane)
{
	dispatch_timer_disarm(&lane->idle);
	lane->worker = worker_free(lane->worker);
}

static int lane_on_idle(struct dispatch_timer *timer, uint64_t now_ns)
{
	struct lane *lane = container_of(timer, struct lane, idle);

	log_event(LOG_WORKER, LOG_INFO100, "worker %d of uid %u ends: nothing to do", (int)lane->worker->pid, lane->uid);
	lane_drop_worker(lane);
	lane_kick(lane);
	return 0;
}

static void lane_on_done(struct worker *worker, enum tier_reason reason, void *bytes, size_t n,
			 const struct refusal *refusal, bool usable)
{
	struct lane *lane = worker->context;
	struct pool_job *job = TAKE_PTR(lane->running);

	if (reason == TIER_REASON_WORKER_DIED || reason == TIER_REASON_WORKER_MEMORY)
		lane->pool->stats.n_workers_died++;
	if (!usable) {
		log_event(LOG_WORKER, LOG_INFO100, "worker %d of uid %u is given up after job %llu: %s", (int)worker->pid,
			  lane->uid, (unsigned long long)job->id, refusal && *refusal->text ? refusal->text : tier_reason_name(reason));
		lane_drop_worker(lane);
	}
	job_end(job, reason, bytes, n, refusal);
	lane_kick(lane);
}

static void lane_on_gone(struct worker *worker)
{
	struct lane *lane = worker->context;

	lane->pool->stats.n_workers_died++;
	log_event(LOG_WORKER, LOG_INFO100, "worker %d of uid %u died idle", (int)worker->pid, lane->uid);
	lane_drop_worker(lane);
	lane_kick(lane);
}

static void lane_ask(struct lane *lane)
{
	struct pool *pool = lane->pool;

	if (lane->asked || !pool->nursery.ready)
		return;
	lane->asked = ++pool->n_ids;
	nursery_ask(&pool->nursery, lane->asked, lane->uid, pool->config.memory_limit);
}

static uint64_t job_limit(const struct pool_config *config, const struct pool_job *job)
{
	switch (job->kind) {
	case JOB_LOAD:
		return config->load_limit_ns;
	case JOB_PRECOMPILE:
		return config->load_limit_ns + job->n_input / 8 * JOB_PRECOMPILE_NS;
	default:
		return config->compile_limit_ns;
	}
}

static void lane_run(struct lane *lane, struct pool_job *job)
{
	static const char *const kinds[] = { [JOB_LOAD] = "load", [JOB_COMPILE] = "compile", [JOB_PRECOMPILE] = "precompile" };
	uint64_t limit_ns = job_limit(&lane->pool->config, job);

	dispatch_timer_disarm(&lane->idle);
	if (!worker_assign(lane->worker, job->kind, job->id, job->input, job->n_input, limit_ns)) {
		lane_drop_worker(lane);		/* it died idle; the job is not to blame and waits for the next */
		lane_ask(lane);
		return;
	}
	log_event(LOG_WORKER, LOG_INFO1000, "job %llu of uid %u begins in worker %d: %s, %llu bytes", (unsigned long long)job->id,
		  lane->uid, (int)lane->worker->pid, kinds[job->kind], (unsigned long long)job->n_input);
	list_remove(&job->link);
	lane->running = job;
}

/* Does what the lane's state asks for. Frees a lane that has nothing left to do. */
static void lane_kick(struct lane *lane)
{
	struct pool_job *job = lane_next(lane);

	if (lane->running)
		return;
	if (job && lane->worker)
		lane_run(lane, job);
	else if (job)
		lane_ask(lane);
	else if (lane->worker)
		dispatch_timer_arm(&lane->idle, clock_now_ns() + lane->pool->config.idle_timeout_ns);
	else if (!lane->asked)
		lane_free(lane);
}

static struct lane *lane_find(const struct pool *pool, uid_t uid, uint32_t number)
{
	struct list *pos;

	list_for_each(pos, &pool->lanes) {
		struct lane *lane = list_entry(pos, struct lane, link);

		if (lane->uid == uid && lane->number == number)
			return lane;
	}
	return NULL;
}

static struct lane *lane_get(struct pool *pool, uid_t uid, uint32_t number)
{
	struct lane *lane = lane_find(pool, uid, number);

	if (lane)
		return lane;
	lane = calloc(1, sizeof(*lane));
	if (!lane)
		return NULL;
	lane->pool = pool;
	lane->uid = uid;
	lane->number = number;
	list_init(&lane->urgent);
	list_init(&lane->loads);
	list_init(&lane->compiles);
	dispatch_timer_init(&lane->idle, pool->dispatch, lane_on_idle, "worker idle");
	list_append(&pool->lanes, &lane->link);
	return lane;
}

/* One that has nothing to do, else a new one, else the one with the least: a worker that is there need not be forked. */
static struct lane *lane_for_compile(struct pool *pool, uid_t uid)
{
	uint32_t missing = pool->config.workers_per_uid;
	struct lane *best = NULL;

	for (uint32_t number = 0; number < pool->config.workers_per_uid; number++) {
		struct lane *lane = lane_find(pool, uid, number);

		if (!lane)
			missing = MIN(missing, number);
		else if (!best || lane->n_jobs < best->n_jobs)
			best = lane;
	}
	if (best && (!best->n_jobs || missing == pool->config.workers_per_uid))
		return best;
	return lane_get(pool, uid, missing);
}

static struct lane *lane_for(struct pool *pool, uid_t uid, enum job_kind kind)
{
	switch (kind) {
	case JOB_PRECOMPILE:
		return lane_get(pool, uid, LANE_PRECOMPILES);
	case JOB_LOAD:
		return lane_get(pool, uid, 0);
	default:
		return lane_for_compile(pool, uid);
	}
}

/* -- The zygote's news --------------------------------------------------------------------------------------------- */
static void pool_on_ready(struct nursery *nursery)
{
	struct pool *pool = container_of(nursery, struct pool, nursery);
	struct list *pos, *after;

	list_for_each_safe(pos, after, &pool->lanes)
		lane_kick(list_entry(pos, struct lane, link));
}

static void lane_adopt(struct lane *lane, pid_t pid, int fd, int pidfd)
{
	struct pool *pool = lane->pool;
	int r;

	r = worker_new(&lane->worker, pool->dispatch, &pool->graveyard, pid, fd, pidfd, lane_on_done, lane_on_gone, lane);
	if (r) {
		lane_fail(lane, strerror(-r));
		return;
	}
	pool->stats.n_workers_started++;
	log_event(LOG_WORKER, LOG_INFO100, "worker %d of uid %u begins", (int)pid, lane->uid);
}

static void pool_on_born(struct nursery *nursery, const struct zygote_reply *reply, int fd, int pidfd)
{
	struct pool *pool = container_of(nursery, struct pool, nursery);
	struct list *pos;

	list_for_each(pos, &pool->lanes) {
		struct lane *lane = list_entry(pos, struct lane, link);

		if (lane->asked != reply->id)
			continue;
		lane->asked = 0;
		if (reply->error)
			lane_fail(lane, strerror(reply->error));
		else
			lane_adopt(lane, reply->pid, fd, pidfd);
		lane_kick(lane);
		return;
	}
	close_fd(fd);
	graveyard_bury(&pool->graveyard, pidfd);
}

static void pool_on_lost(struct nursery *nursery, bool hopeless)
{
	struct pool *pool = container_of(nursery, struct pool, nursery);
	struct list *pos;

	list_for_each(pos, &pool->lanes) {
		struct lane *lane = list_entry(pos, struct lane, link);

		lane->asked = 0;
		if (hopeless && !lane->worker)
			lane_fail(lane, "tierd-worker does not start");
	}
}

static const struct nursery_events nursery_events = {
	.ready = pool_on_ready,
	.born = pool_on_born,
	.lost = pool_on_lost,
};

/* -- The pool ------------------------------------------------------------------------------------------------------ */
int pool_new(struct pool **ret, struct dispatch *dispatch, const struct pool_config *config)
{
	struct pool *pool = calloc(1, sizeof(*pool));

	if (!pool)
		return error_origin(-ENOMEM);
	pool->dispatch = dispatch;
	pool->config = *config;
	list_init(&pool->lanes);
	graveyard_init(&pool->graveyard, dispatch);
	nursery_init(&pool->nursery, dispatch, &pool->graveyard, &nursery_events, config->worker_path);
	*ret = pool;
	return 0;
}

struct pool *pool_free(struct pool *pool)
{
	struct list *first;

	if (!pool)
		return NULL;
	while ((first = list_first(&pool->lanes)))
		lane_free(list_entry(first, struct lane, link));
	nursery_deinit(&pool->nursery);
	graveyard_deinit(&pool->graveyard);
	free(pool);
	return NULL;
}

int pool_submit(struct pool *pool, uid_t uid, enum job_kind kind, int input_fd, uint64_t n_input, pool_done_fn fn,
		void *context, struct pool_job **ret)
{
	_cleanup_(closep) int input = fcntl(input_fd, F_DUPFD_CLOEXEC, 0);
	struct pool_job *job;
	struct lane *lane;

	if (input < 0)
		return error_origin(-errno);
	job = calloc(1, sizeof(*job));
	if (!job)
		return error_origin(-ENOMEM);
	lane = lane_for(pool, uid, kind);
	if (!lane) {
		free(job);
		return error_origin(-ENOMEM);
	}
	*job = (struct pool_job){ .lane = lane, .id = ++pool->n_ids, .kind = kind, .input = TAKE_FD(input),
				  .n_input = n_input, .fn = fn, .context = context };
	lane->n_jobs++;
	list_init(&job->link);
	list_append(kind == JOB_LOAD ? &lane->loads : &lane->compiles, &job->link);
	pool->stats.n_jobs++;
	*ret = job;
	lane_kick(lane);
	return 0;
}

void pool_hurry(struct pool_job *job)
{
	if (!list_is_linked(&job->link))
		return;		/* it runs */
	list_remove(&job->link);
	list_append(&job->lane->urgent, &job->link);
}

/* The lane goes on in the next turn: whoever cancels may stand in the middle of anything. Most jobs are over in milliseconds, and
 * a warm worker is worth them; one that goes on loses its worker. */
void pool_cancel(struct pool_job *job)
{
	struct lane *lane = job->lane;

	if (lane->running != job) {
		job_free(job);
		return;
	}
	job->fn = NULL;
	worker_hurry(lane->worker, CANCEL_GRACE_NS);
}

void pool_stats(const struct pool *pool, struct pool_stats *ret)
{
	struct list *pos, *queued;

	*ret = pool->stats;
	list_for_each(pos, &pool->lanes) {
		struct lane *lane = list_entry(pos, struct lane, link);

		ret->n_workers += lane->worker != NULL;
		list_for_each(queued, &lane->urgent)
			ret->n_queued++;
		list_for_each(queued, &lane->loads)
			ret->n_queued++;
		list_for_each(queued, &lane->compiles)
			ret->n_queued++;
	}
}

const struct compiler *pool_compiler(const struct pool *pool)
{
	const struct compiler *compiler = &pool->nursery.compiler;

	return *compiler->version ? compiler : NULL;
}

pid_t pool_zygote_pid(const struct pool *pool)
{
	return pool->nursery.pid;
}

pid_t pool_worker_pid(const struct pool *pool, uid_t uid)
{
	const struct lane *lane = lane_find(pool, uid, 0);

	return lane && lane->worker ? lane->worker->pid : 0;
}
