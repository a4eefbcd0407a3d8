/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include "tiering/internal.h"

/* Freezing: nothing of a module is optimized while somebody measures it
 *
 * A frozen module does not stand in its user's queue, so none of its jobs starts, and what others have waiting goes on. All else
 * goes on too: first calls get their code, calls are counted, thresholds are told and queue their methods. A job that has begun
 * goes on to its end and is published; then all is quiet. Jobs of first calls are not held, whose callers wait.
 *
 * Methods that wait, and those that are being compiled, say that they are frozen, so that nobody goes on waiting for them. A
 * transition says what is right at its end; those that were in the queue when the module was frozen or thawed say it in slices.
 * The cursor module->unmarked moves on when its method leaves the queue.
 *
 * A freeze belongs to somebody's session, and ends with the daemon that had the session. What the ledger knows of it is for
 * the history alone, in which every FROZEN has its THAWED. */

#define SLICE_SAY (SLICE_TRANSITION / 4)

bool freeze_holds(const struct method *method)
{
	const enum tier_stage stage = method_stage(method);

	return method->module->n_freezes && (stage == TIER_STAGE_QUEUED || stage == TIER_STAGE_COMPILING);
}

/* -- What methods say --- */
static void freeze_say(struct method *method)
{
	if (method->is_frozen == freeze_holds(method))
		return;
	entry_refresh(method, PATH_KEPT);
	core_ring(method_core(method), method->module, method_index(method));
}

static void freeze_say_jobs(struct module *module, const struct list *jobs)
{
	const struct list *pos;

	list_for_each(pos, jobs)
		if (list_entry(pos, struct job, link)->module == module)
			freeze_say(&module->methods[list_entry(pos, struct job, link)->method]);
}

static void freeze_say_all(struct module *module)
{
	struct core *core = module->core;
	int budget = SLICE_BUDGET;

	freeze_say_jobs(module, &core->jobs);
	freeze_say_jobs(module, &core->lost);
	if (!list_is_empty(&module->queue))
		module->unmarked = list_entry(module->queue.next, struct method, link);
	if (!list_is_linked(&module->freeze_link))
		list_append(&core->freezing, &module->freeze_link);
	freeze_tick(core, &budget);
}

void freeze_pass(struct module *module, const struct method *method)
{
	if (module->unmarked != method)
		return;
	module->unmarked = NULL;
	if (method->link.next != &module->queue)
		module->unmarked = list_entry(method->link.next, struct method, link);
}

void freeze_tick(struct core *core, int *budget)
{
	struct list *link;

	while ((link = list_first(&core->freezing))) {
		struct module *module = list_entry(link, struct module, freeze_link);

		for (struct method *method; (method = module->unmarked); *budget -= SLICE_SAY) {
			if (*budget <= 0) {
				core->is_busy = true;
				return;
			}
			freeze_pass(module, method);
			freeze_say(method);
		}
		list_remove(link);
	}
}

/* -- Beginning and end --- */
static void freeze_commit(struct module *module)
{
	const bool is_frozen = module->n_freezes;
	struct core *core = module->core;
	struct tier_event *event;

	ledger_begin(&core->ledger);
	ledger_edit(&core->ledger, module->durable)->is_frozen = is_frozen;
	event = core_event(core, is_frozen ? TIER_EVENT_FROZEN : TIER_EVENT_THAWED, module->user->uid);
	event->module = module->id;
	event->reason = TIER_REASON_CLIENT;
	ledger_commit(&core->ledger);
	__atomic_store_n(&module->header->is_frozen, is_frozen, __ATOMIC_RELEASE);
	core_ring(core, NULL, 0);
}

/* No job begins in the middle of it: the bells that ring may find thresholds. */
static void freeze_change(struct module *module)
{
	struct core *core = module->core;

	assert(module->records && !core->is_proceeding);
	core->is_proceeding = true;
	queue_link(module);
	freeze_commit(module);
	freeze_say_all(module);
	core->is_proceeding = false;
	core_proceed(core);
}

void core_freeze(struct module *module)
{
	if (!module->n_freezes++)
		freeze_change(module);
}

void core_thaw(struct module *module)
{
	assert(module->n_freezes);
	if (!--module->n_freezes)
		freeze_change(module);
}

void freeze_recover(struct module *module)
{
	if (module->durable->is_frozen)
		freeze_commit(module);
	module->header->is_frozen = 0;
}

/* -- Questions --- */
bool core_is_frozen(const struct module *module)
{
	return module->n_freezes;
}
