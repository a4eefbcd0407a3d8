/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include "tiering/internal.h"
#include "util/error.h"

/* The background queue
 *
 * FIFO within a uid, round robin between uids, so many jobs of a uid and in total at a time. Each module has its own line
 * of those that wait, and stands in its user's by the first of them; a module that is frozen does not (freeze.c). While a
 * uid's delay is active its jobs wait: the processor belongs to those who are starting up. A job that a predecessor had
 * outside is taken up again before all others and whatever the delay says, even if its body was replaced; the history has
 * its start already. Only of a body that never returns it is not: nobody has that any more, and the history gets the end.
 *
 * When it is a uid's turn, first calls that wait for the optimizer come before all else of that uid, in order, whatever the delay
 * says. OSR code (osr.c) waits in its module's line like any promotion.
 *
 * What comes out may have a next tier (ladder.c): it is counted at once, or recorded for the end of the delay when one is
 * active. A promotion that fails is final: the method keeps its code and says why. A job that cannot start because the
 * daemon is short of memory or descriptors has not failed: it stays where it is, and all starts wait a moment.
 *
 * Thresholds that are reached together (reference §4.6): completing one is a transaction of a few microseconds on the
 * thread that also starts jobs, so there is no lock to be spared, and no second pass. A sweep completes all that it finds
 * before it starts a job. Bells come one at a time; as a uid has a job or two outside, the first of them starts and the
 * others are completed meanwhile. */

#define QUEUE_RETRY_NS 100000000u
#define QUEUE_STARTS_MAX 64u	/* in one turn of the loop; more only when each start fails at once */
#define QUEUE_SLOTS_MAX SHARE_METHOD_SLOTS	/* to walk in one turn, for methods that are final because their start failed */

void queue_promote(struct method *method, struct ledger_method *image, const struct ledger_version *active,
		   enum tier_reason reason)
{
	const struct ladder_step step = ladder_next(method, active);
	const struct ledger_version *next = version_new(method, image, &step);

	method_set_stage(method, image, TIER_STAGE_QUEUED);
	method_event(method, TIER_EVENT_QUEUED, next->id, active->level, next->level, reason);
}

/* -- Lines --- */
uint64_t queue_first_ticket(const struct module *module)
{
	uint64_t ticket = osr_ticket(module);

	if (module->n_freezes)
		return UINT64_MAX;
	if (!list_is_empty(&module->queue))
		ticket = MIN(ticket, list_entry(module->queue.next, struct method, link)->ticket);
	return ticket;
}

static bool queue_is_before(const struct user *user, const struct list *link, uint64_t ticket)
{
	return link != &user->queue && list_entry(link, struct module, queue_link)->queue_ticket < ticket;
}

/* Whoever comes anew belongs at the end, and who had the lowest ticket often has the next one, too. */
void queue_link(struct module *module)
{
	struct user *user = module->user;
	const uint64_t ticket = queue_first_ticket(module);
	struct list *pos;

	if (list_is_linked(&module->queue_link) && ticket == module->queue_ticket)
		return;
	list_remove(&module->queue_link);
	module->queue_ticket = ticket;
	if (ticket == UINT64_MAX)
		return;
	if (!queue_is_before(user, user->queue.next, ticket)) {
		list_prepend(&user->queue, &module->queue_link);
		return;
	}
	pos = user->queue.previous;
	while (!queue_is_before(user, pos, ticket))
		pos = pos->previous;
	list_insert_before(pos->next, &module->queue_link);
}

/* -- Jobs --- */
static struct job *job_find(const struct list *jobs, uint64_t version)
{
	const struct list *pos;

	list_for_each(pos, jobs)
		if (list_entry(pos, struct job, link)->version == version)
			return list_entry(pos, struct job, link);
	return NULL;
}

bool queue_has_job(const struct core *core, uint64_t version)
{
	return job_find(&core->jobs, version) || job_find(&core->lost, version);
}

static struct job *job_new(struct method *method, uint32_t row)
{
	struct core *core = method_core(method);
	struct job *job = malloc(sizeof(*job));

	if (!job)
		return NULL;
	*job = (struct job){
		.link = LIST_INIT(job->link),
		.module = method->module,
		.version = ledger_version(&core->ledger, row)->id,
		.method = method_index(method),
		.row = row,
	};
	return job;
}

void queue_count(struct module *module, int n)
{
	module->n_pending += n;
	module->user->n_pending += n;
	module->core->n_pending += n;
}

static void job_go_out(struct job *job)
{
	struct core *core = job->module->core;

	job->n_replacements = core->n_replacements;
	list_append(&core->jobs, &job->link);
	job->module->user->n_running++;
	core->n_running++;
	queue_count(job->module, 1);
}

static void job_end(struct job *job)
{
	struct core *core = job->module->core;

	list_remove(&job->link);
	job->module->user->n_running--;
	core->n_running--;
	queue_count(job->module, -1);
	osr_free(job->osr);
	free(job);
}

static void job_find_again(struct job *job)
{
	list_remove(&job->link);
	job->module->user->n_lost--;
	queue_count(job->module, -1);
}

bool queue_recover(struct method *method, uint32_t row)
{
	struct core *core = method_core(method);
	struct list *pos = core->lost.next;
	struct job *job = job_new(method, row);

	if (!job)
		return false;
	if (ledger_version(&core->ledger, row)->level == TIER_LEVEL_OSR) {
		job->osr = osr_recover_job(method, row);
		if (!job->osr) {
			free(job);
			return false;
		}
	}
	while (pos != &core->lost && list_entry(pos, struct job, link)->version < job->version)
		pos = pos->next;
	list_insert_before(pos, &job->link);
	method->module->user->n_lost++;
	mark_compiling(method->module, 1);
	queue_count(job->module, 1);
	return true;
}

void queue_forget_jobs(struct core *core, const struct module *module_or_null)
{
	struct list *pos, *after;

	list_for_each_safe(pos, after, &core->jobs)
		if (!module_or_null || list_entry(pos, struct job, link)->module == module_or_null)
			job_end(list_entry(pos, struct job, link));
	list_for_each_safe(pos, after, &core->lost) {
		struct job *job = list_entry(pos, struct job, link);

		if (module_or_null && job->module != module_or_null)
			continue;
		job_find_again(job);
		osr_free(job->osr);
		free(job);
	}
}

/* -- Ends --- */
/* An end as the worker's side had it, and what it means here */
struct queue_end {
	enum tier_reason reason;	/* INLINEE_REPLACED: what it inlined is no more */
	uint32_t version;		/* row */
	uint32_t edges;
	const struct core_result *result;
	struct osr *osr;		/* NULL: it is a rung of the ladder */
};

/* In a transaction */
static struct ledger_version *queue_end_version(struct method *method, const struct queue_end *end)
{
	struct core *core = method_core(method);
	struct ledger_version *version = ledger_edit(&core->ledger, ledger_version(&core->ledger, end->version));

	if (end->reason == TIER_REASON_NONE) {
		version_set_live(core, version, &end->result->code);
		version->edges = end->edges;
		module_note_code(method->module, &end->result->code);
	} else if (end->reason != TIER_REASON_INLINEE_REPLACED) {
		version->state = LEDGER_FAILED;
		core->stats.n_promotions_failed++;
	}
	version->is_begun = false;
	method_event(method, TIER_EVENT_COMPILE_ENDED, version->id, method_level(method), version->level, end->reason);
	return version;
}

/* Of a first call: its method stays cold, with the reason, until it has unoptimized code. */
static void queue_fail_first(struct method *method, const struct queue_end *end)
{
	struct ledger_method *image = method_begin(method);

	queue_end_version(method, end);
	image->next = LEDGER_NONE;
	image->reason = end->reason;
	method_commit(method, PATH_KEPT);
	first_make(method);	/* without room for that the next call says so */
}

static void queue_fail(struct method *method, const struct queue_end *end)
{
	const struct ledger_version *active = version_active(method);
	struct ledger_method *image = method_begin(method);

	queue_end_version(method, end);
	image->next = LEDGER_NONE;
	method_set_final(method, image, active, end->reason);
	method_commit(method, method_final_path(method, image));
}

/* The same version once more: with the bodies of now. */
static void queue_again(struct method *method, const struct queue_end *end)
{
	struct ledger_method *image = method_begin(method);
	const struct ledger_version *version = queue_end_version(method, end);
	const bool is_first = image->stage == TIER_STAGE_COLD;

	if (is_first)
		image->ticket = ledger_ticket(&method_core(method)->ledger);
	else
		method_set_stage(method, image, TIER_STAGE_QUEUED);
	method_event(method, TIER_EVENT_QUEUED, version->id, method_level(method), version->level, end->reason);
	method_commit(method, is_first ? PATH_KEPT : TIER_PATH_NON_FINAL);
}

/* What becomes of the new version; before the transaction */
static struct count_plan queue_plan(struct method *method, const struct queue_end *end)
{
	const struct module *module = method->module;
	const struct ledger_version *version = ledger_version(&module->core->ledger, end->version);
	const bool is_first = method_stage(method) == TIER_STAGE_COLD;

	if (ladder_is_final(version->level))
		return (struct count_plan){
			.stage = TIER_STAGE_FINAL, .reason = is_first ? method->durable->reason : TIER_REASON_PROMOTED,
		};
	if (module->user->durable->deadline_ns)
		return (struct count_plan){ .stage = TIER_STAGE_UNCOUNTED };
	return count_plan(method, version->id, end->result->code.address, version->threshold, module->durable->n_cells_used);
}

/* Why it is published */
static enum tier_reason queue_cause(const struct method *method, enum tier_level level)
{
	if (method_stage(method) == TIER_STAGE_COLD)
		return TIER_REASON_FIRST_CALL;
	return ladder_is_final(level) ? TIER_REASON_PROMOTED : TIER_REASON_CALLS;
}

static void queue_publish(struct method *method, const struct queue_end *end)
{
	const struct count_plan plan = queue_plan(method, end);
	const enum tier_level from = method_level(method);
	struct ledger_method *image = method_begin(method);
	struct ledger_version *version = queue_end_version(method, end);
	const enum tier_reason cause = queue_cause(method, version->level);
	enum tier_path path;

	image->active = end->version;
	image->next = LEDGER_NONE;
	image->generation++;
	method_event(method, TIER_EVENT_PUBLISHED, version->id, from, version->level, cause);
	path = count_apply(method, image, version, &plan, cause);
	method_core(method)->stats.n_published++;
	method_commit(method, path);
	delay_link(method->module->user);
}

/* Of the own body, which another has replaced: what a revert will find */
static void queue_end_original(struct ledger_method *image, const struct ledger_version *version, const struct queue_end *end)
{
	const bool is_first = image->original_stage == TIER_STAGE_COLD;

	if (end->reason == TIER_REASON_INLINEE_REPLACED) {
		image->original_stage = is_first ? TIER_STAGE_COLD : TIER_STAGE_QUEUED;
		return;
	}
	image->original_next = LEDGER_NONE;
	if (end->reason) {
		image->original_stage = is_first ? TIER_STAGE_COLD : TIER_STAGE_FINAL;
		image->original_reason = end->reason;
		return;
	}
	image->original_active = end->version;
	image->original_stage = ladder_is_final(version->level) ? TIER_STAGE_FINAL : TIER_STAGE_UNCOUNTED;
	if (!is_first && ladder_is_final(version->level))
		image->original_reason = TIER_REASON_PROMOTED;
}

/* Its body is not the current one: the end changes nothing that clients see. */
static void queue_end_apart(struct method *method, const struct queue_end *end)
{
	struct core *core = method_core(method);
	struct ledger_method *image = method_begin(method);
	const struct ledger_version *version;

	version = queue_end_version(method, end);
	if (end->version == image->original_next)
		queue_end_original(image, version, end);
	ledger_commit(&core->ledger);
	method_count_promise(method);
	core_ring(core, NULL, 0);
}

static bool queue_is_stale(const struct module *module, const struct core_result *result, uint64_t n_replacements)
{
	for (uint32_t i = 0; i < result->n_inlined; i++)
		if (module->methods[result->inlined[i]].replaced > n_replacements)
			return true;
	return false;
}

/* Whether what is good so far can be taken */
static enum tier_reason queue_take(struct method *method, struct queue_end *end, uint64_t n_replacements)
{
	const struct ledger_version *version = ledger_version(&method_core(method)->ledger, end->version);
	const struct core_result *result = end->result;

	for (uint32_t i = 0; i < result->n_inlined; i++)
		if (result->inlined[i] >= method->module->n_methods)
			return TIER_REASON_RESULT_REFUSED;
	/* of a body that never returns, it does not matter */
	if (queue_is_stale(method->module, result, n_replacements)
	    && (end->version == method->durable->next || end->version == method->durable->original_next))
		return TIER_REASON_INLINEE_REPLACED;
	if (!inline_reserve(method->module, result->inlined, result->n_inlined)
	    || !version_note_inlined(method, end->version, version->id, result->inlined, result->n_inlined, &end->edges))
		return TIER_REASON_RESULT_REFUSED;
	return TIER_REASON_NONE;
}

static void queue_settle(struct method *method, const struct queue_end *end)
{
	if (end->osr) {
		osr_end(end->osr, end->reason, end->result);
		return;
	}
	if (end->version != method->durable->next)
		queue_end_apart(method, end);
	else if (end->reason == TIER_REASON_NONE)
		queue_publish(method, end);
	else if (end->reason == TIER_REASON_INLINEE_REPLACED)
		queue_again(method, end);
	else if (method_stage(method) == TIER_STAGE_COLD)
		queue_fail_first(method, end);
	else
		queue_fail(method, end);
	if (end->reason == TIER_REASON_NONE) {
		inline_note(method, end->version);
		slot_take_sites(method->module, end->result);
	}
}

/* What it did is there for all to see. */
static void queue_close(struct module *module)
{
	mark_compiling(module, -1);
	if (module->n_freezes && !module->n_compiling)
		module->core->ops->quiet(module->core->context, module);
}

void core_compile_done(struct core *core, uint64_t module, uint32_t index, uint64_t version, enum tier_reason reason,
		       const struct core_result *result)
{
	struct job *job = job_find(&core->jobs, version);
	struct queue_end end = { .reason = reason, .edges = LEDGER_NONE, .result = result };
	struct method *method;

	if (!job || job->module->id != module || job->method != index)
		return;
	method = &job->module->methods[index];
	end.version = job->row;
	end.osr = TAKE_PTR(job->osr);
	if (reason == TIER_REASON_NONE && !end.osr)
		end.reason = queue_take(method, &end, job->n_replacements);
	job_end(job);
	queue_settle(method, &end);
	queue_close(method->module);
	core_proceed(core);
}

/* -- Starts --- */
static void queue_announce(struct method *method)
{
	const struct ledger_version *version = version_next(method);
	struct ledger_method *image = method_begin(method);

	if (image->stage != TIER_STAGE_COLD)
		method_set_stage(method, image, TIER_STAGE_COMPILING);
	ledger_edit(&method_core(method)->ledger, version_next(method))->is_begun = true;
	user_take_turn(method->module->user);
	method_event(method, TIER_EVENT_COMPILE_STARTED, version->id, method_level(method), version->level, TIER_REASON_NONE);
	method_commit(method, PATH_KEPT);
}

/* The whole daemon's, and it passes: no reason to give a method up. */
static bool queue_is_shortage(int r)
{
	return r == -EMFILE || r == -ENFILE || r == -ENOMEM;
}

static void queue_wait(struct core *core)
{
	core->retry_ns = core->ops->now(core->context) + QUEUE_RETRY_NS;
}

static int queue_submit(const struct job *job)
{
	const struct module *module = job->module;
	struct core *core = module->core;
	const struct ledger_version *version = ledger_version(&core->ledger, job->row);
	const struct core_compile compile = {
		.version = version->id,
		.method = job->method,
		.body = version->body,
		.level = version->level,
		.profile = version->profile,
		.patchpoint = version->patchpoint,
		.is_urgent = version->level == TIER_LEVEL_OPTIMIZED,
	};

	return core->ops->compile(core->context, module->context, &compile);
}

/* @r: what became of the start */
static void queue_started(struct job *job, int r)
{
	struct queue_end end = { .version = job->row, .edges = LEDGER_NONE };
	struct method *method = &job->module->methods[job->method];

	if (!r)
		return;
	end.reason = r == CORE_E_TOO_LARGE ? TIER_REASON_TOO_LARGE : TIER_REASON_NO_WORKER;
	if (r < 0)
		error_fold(r);
	end.osr = TAKE_PTR(job->osr);
	job_end(job);
	queue_settle(method, &end);
	queue_close(method->module);
}

/* The history says that a job began once it has: until then its method is queued. */
static void queue_start(struct method *method, uint32_t row, struct osr *osr_or_null)
{
	struct job *job = job_new(method, row);
	int r = job ? queue_submit(job) : -ENOMEM;

	if (queue_is_shortage(r)) {
		queue_wait(method_core(method));
		free(job);
		return;
	}
	job->osr = osr_or_null;
	mark_compiling(method->module, 1);
	job_go_out(job);
	if (osr_or_null)
		osr_start(osr_or_null);
	else
		queue_announce(method);
	queue_started(job, r);
}

static void queue_start_head(struct module *module)
{
	struct method *method = list_entry(module->queue.next, struct method, link);
	struct osr *osr;

	if (osr_ticket(module) != module->queue_ticket) {
		queue_start(method, method->durable->next, NULL);
		return;
	}
	osr = osr_first(module);
	if (osr)
		queue_start(osr_method(osr), osr->row, osr);
}

/* Why a job that a predecessor had outside is not taken up again; NONE: it is */
static enum tier_reason queue_obsolete(const struct job *job)
{
	const uint32_t body = ledger_version(&job->module->core->ledger, job->row)->body;

	if (job->osr && job->osr->is_void)
		return TIER_REASON_INLINEE_REPLACED;
	return body && body != method_body(&job->module->methods[job->method]) ? TIER_REASON_REJIT : TIER_REASON_NONE;
}

static void queue_end_lost(struct job *job, enum tier_reason reason)
{
	const struct queue_end end = {
		.reason = reason, .version = job->row, .edges = LEDGER_NONE, .osr = TAKE_PTR(job->osr),
	};
	struct method *method = &job->module->methods[job->method];

	job_find_again(job);
	free(job);
	queue_settle(method, &end);
	queue_close(method->module);
}

static void queue_start_again(struct job *job)
{
	const enum tier_reason obsolete = queue_obsolete(job);
	int r;

	if (obsolete) {
		queue_end_lost(job, obsolete);
		return;
	}
	r = queue_submit(job);
	if (queue_is_shortage(r)) {
		queue_wait(job->module->core);
		return;
	}
	job_find_again(job);
	job_go_out(job);
	queue_started(job, r);
}

static bool queue_has_place(const struct module *module)
{
	return module->records && module->user->n_running < module->core->config.jobs_per_uid;
}

/* The first of those that a predecessor had outside, if it may start now */
static struct job *queue_lost(const struct core *core)
{
	const struct list *pos;

	list_for_each(pos, &core->lost)
		if (queue_has_place(list_entry(pos, struct job, link)->module))
			return list_entry(pos, struct job, link);
	return NULL;
}

/* The module that has the user's next job, if that may start now */
static struct module *queue_head(struct user *user)
{
	struct list *link = list_first(&user->queue);
	struct module *module = link ? list_entry(link, struct module, queue_link) : NULL;

	return module && queue_has_place(module) && !user->n_lost && !user->durable->deadline_ns ? module : NULL;
}

/* The user's first call that comes next, if that may start now */
static struct method *queue_head_first(struct user *user)
{
	struct list *link = list_first(&user->first);
	struct method *method = link ? list_entry(link, struct method, link) : NULL;

	return method && queue_has_place(method->module) ? method : NULL;
}

/* The job of the user whose turn it is. A first call comes before all else of that user, and of nobody else: else a user who
 * always calls something new would leave the others at their tiers. */
static bool queue_start_next(struct core *core)
{
	struct list *pos;

	list_for_each(pos, &core->users) {
		struct user *user = list_entry(pos, struct user, link);
		struct method *first = queue_head_first(user);
		struct module *module = first ? NULL : queue_head(user);

		if (first)
			queue_start(first, first->durable->next, NULL);
		else if (module)
			queue_start_head(module);
		if (first || module)
			return true;
	}
	return false;
}

void queue_run(struct core *core)
{
	const uint64_t n_before = core->counters.n_slots_examined;
	uint32_t n_starts = 0;

	while (!core->retry_ns && core->n_running < core->config.jobs_total) {
		struct job *lost = queue_lost(core);

		if (n_starts++ == QUEUE_STARTS_MAX || core->counters.n_slots_examined - n_before > QUEUE_SLOTS_MAX) {
			core->is_busy = true;
			return;
		}
		if (lost)
			queue_start_again(lost);
		else if (!queue_start_next(core))
			return;
	}
}

void queue_tick(struct core *core, uint64_t now)
{
	if (now >= core->retry_ns)
		core->retry_ns = 0;
}

/* -- Questions --- */
static bool scope_has(enum core_scope scope, const struct module *in, uid_t uid, const struct module *module)
{
	return scope == CORE_SCOPE_ALL || (scope == CORE_SCOPE_UID ? module->user->uid == uid : module == in);
}

uint32_t core_pending(struct core *core, enum core_scope scope, struct module *module, uid_t uid)
{
	const struct list *pos;
	uint32_t n = 0;

	for (uint32_t i = 0; i < core->n_modules; i++)
		if (scope_has(scope, module, uid, core->modules[i]))
			n += core->modules[i]->n_pending;
	list_for_each(pos, &core->sweeping) {
		const struct module *swept = list_entry(pos, struct module, sweep_link);

		if (scope_has(scope, module, uid, swept))
			n += count_ahead(swept);
	}
	return n;
}
