/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include "tiering/internal.h"
#include "util/error.h"

/* The background queue
 *
 * FIFO within a uid, round robin between uids, so many jobs of a uid and in total at a time. While a uid's delay is active
 * its jobs wait: the processor belongs to those who are starting up. A job that a predecessor had outside is taken up
 * again before all others and whatever the delay says; the history has its start already.
 *
 * A promotion that fails is final: the method keeps its code and says why. A job that cannot start because the daemon is short of
 * memory or descriptors has not failed: it stays where it is, and all starts wait a moment. */

#define QUEUE_RETRY_NS 100000000u
#define QUEUE_STARTS_MAX 64u	/* in one turn of the loop; more only when each start fails at once */

void queue_promote(struct method *method, struct ledger_method *image, const struct ledger_version *active)
{
	const struct ledger_version *next = version_new(method, image, TIER_LEVEL_TIER1);

	method_set_stage(method, image, TIER_STAGE_QUEUED);
	method_event(method, TIER_EVENT_QUEUED, next->id, active->level, next->level, TIER_REASON_CALLS);
}

/* -- Ends --- */
static void queue_fail(struct method *method, enum tier_reason reason)
{
	struct core *core = method_core(method);
	const struct ledger_version *active = version_active(method);
	struct ledger_method *image = method_begin(method);
	struct ledger_version *version = ledger_edit(&core->ledger, version_newest(method));

	version->state = LEDGER_FAILED;
	method_event(method, TIER_EVENT_COMPILE_ENDED, version->id, active->level, version->level, reason);
	method_set_final(method, image, active, reason);
	core->stats.n_promotions_failed++;
	method_commit(method);
}

static void queue_publish(struct method *method, const struct core_code *code, uint32_t edges)
{
	struct core *core = method_core(method);
	enum tier_level from = version_active(method)->level;
	struct ledger_method *image = method_begin(method);
	struct ledger_version *version = ledger_edit(&core->ledger, version_newest(method));

	version_set_live(core, version, code);
	version->edges = edges;
	module_note_code(method->module, code);
	image->active = image->newest;
	image->generation++;
	method_event(method, TIER_EVENT_COMPILE_ENDED, version->id, from, version->level, TIER_REASON_NONE);
	method_event(method, TIER_EVENT_PUBLISHED, version->id, from, version->level, TIER_REASON_PROMOTED);
	method_set_final(method, image, version, TIER_REASON_PROMOTED);
	core->stats.n_published++;
	method_commit(method);
}

/* The method whose job that is, or NULL when nobody waits for it any more */
static struct method *queue_running(struct core *core, uint64_t module_id, uint32_t index, uint64_t version)
{
	struct module *module = core_module_by_id(core, module_id);
	struct method *method = module && index < module->n_methods ? &module->methods[index] : NULL;

	return method && method->place == PLACE_RUNNING && version_newest(method)->id == version ? method : NULL;
}

void core_compile_done(struct core *core, uint64_t module, uint32_t index, uint64_t version, enum tier_reason reason,
		       const struct core_result *result)
{
	struct method *method = queue_running(core, module, index, version);
	uint32_t edges;

	if (!method)
		return;
	if (reason == TIER_REASON_NONE && !version_note_inlined(method, result->inlined, result->n_inlined, &edges))
		reason = TIER_REASON_RESULT_REFUSED;
	if (reason == TIER_REASON_NONE)
		queue_publish(method, &result->code, edges);
	else
		queue_fail(method, reason);
	core_proceed(core);
}

/* -- Starts --- */
static void queue_announce(struct method *method)
{
	const struct ledger_version *active = version_active(method), *version = version_newest(method);
	struct ledger_method *image = method_begin(method);

	method_set_stage(method, image, TIER_STAGE_COMPILING);
	user_take_turn(method->module->user);
	method_event(method, TIER_EVENT_COMPILE_STARTED, version->id, active->level, version->level, TIER_REASON_NONE);
	method_commit(method);
}

/* The whole daemon's, and it passes: no reason to give a method up. */
static bool queue_is_shortage(int r)
{
	return r == -EMFILE || r == -ENFILE || r == -ENOMEM;
}

/* The history says that a job began once it has: until then its method is queued. */
static void queue_start(struct method *method)
{
	struct core *core = method_core(method);
	const struct ledger_version *version = version_newest(method);
	int r;

	r = core->ops->compile(core->context, method->module->context, method_index(method), 0, version->id,
			       version->level);
	if (queue_is_shortage(r)) {
		core->retry_ns = core->ops->now(core->context) + QUEUE_RETRY_NS;
		return;
	}
	if (method->place == PLACE_QUEUE)
		queue_announce(method);
	else
		method_move(method, PLACE_RUNNING);
	if (r == CORE_E_TOO_LARGE)
		queue_fail(method, TIER_REASON_TOO_LARGE);
	else if (error_fold(r))
		queue_fail(method, TIER_REASON_NO_WORKER);
}

/* The user's next job, if it may start now */
static struct method *queue_head(struct user *user)
{
	struct list *link = list_first(&user->queue);
	struct method *method = link ? list_entry(link, struct method, link) : NULL;

	if (!method || user->n_running >= user->core->config.jobs_per_uid || !method->module->records)
		return NULL;
	return method->place == PLACE_INTERRUPTED || !user->durable->deadline_ns ? method : NULL;
}

static struct method *queue_next(struct core *core)
{
	struct method *first = NULL;
	struct list *pos;

	list_for_each(pos, &core->users) {
		struct method *method = queue_head(list_entry(pos, struct user, link));

		if (method && method->place == PLACE_INTERRUPTED)
			return method;
		if (!first)
			first = method;
		if (first && !core->n_interrupted)
			break;
	}
	return first;
}

void queue_run(struct core *core)
{
	uint32_t n_starts = 0;
	struct method *method;

	while (!core->retry_ns && core->n_running < core->config.jobs_total && (method = queue_next(core))) {
		if (n_starts++ == QUEUE_STARTS_MAX) {
			core->is_busy = true;
			return;
		}
		queue_start(method);
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
