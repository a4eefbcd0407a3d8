/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include "tiering/internal.h"

/* Bodies (reference §9): one comes in another's place, and the method's own comes back
 *
 * A new body begins cold and climbs the whole ladder. What the method's own body was doing is kept in its record, while another
 * is in its place: active version, the one being made, stage and reason. Its job goes on outside if it has begun, and its
 * counter may still be crossed by who was on his way; queue.c and count.c write such news there. Other bodies leave their
 * versions behind, for the activations that are still in them.
 *
 * Inliners are withdrawn before (inline.c), so the one transaction here is the replacement, and there is no moment in which a
 * successor finds half of it. */

/* -- Going --- */
static void rejit_save(struct ledger_method *image)
{
	image->original_active = image->active;
	image->original_next = image->next;
	image->original_stage = image->stage;
	image->original_reason = image->reason;
}

static uint64_t rejit_active_id(const struct method *method)
{
	return method_stage(method) == TIER_STAGE_COLD ? 0 : version_active(method)->id;
}

static void rejit_replace(struct method *method, uint32_t body)
{
	struct core *core = method_core(method);
	struct ledger_method *image = method_begin(method);

	if (image->body)
		version_drop(method, image->next);
	else
		rejit_save(image);
	method_event(method, TIER_EVENT_REJITTED, rejit_active_id(method), method_level(method), TIER_LEVEL_NONE,
		     TIER_REASON_REJIT);
	image->body = body;
	image->active = image->next = LEDGER_NONE;
	image->stage = TIER_STAGE_COLD;
	image->reason = TIER_REASON_NONE;
	image->generation++;
	method->replaced = ++core->n_replacements;
	core->counters.n_rejits++;
	method_commit(method, TIER_PATH_RESET);
}

/* Nothing begins in the middle: jobs start when all is done, with the bodies of then. */
static void rejit_open(struct core *core)
{
	assert(!core->is_proceeding);
	core->is_proceeding = true;
}

static void rejit_close(struct core *core)
{
	core->is_proceeding = false;
	core_proceed(core);
}

int core_rejit(struct module *module, uint32_t index, uint32_t body)
{
	struct method *method = &module->methods[index];
	struct core *core = module->core;
	uint32_t n_room = version_room(core, module->user) / LEDGER_LADDER;
	bool is_free;

	assert(module->records && index < module->n_methods && body && body != method_body(method));
	if (!n_room || n_room - 1 < inline_count(method, n_room - 1))
		return CORE_E_QUOTA;
	rejit_open(core);
	is_free = inline_withdraw(method) && osr_withdraw(module);
	if (is_free)
		rejit_replace(method, body);
	rejit_close(core);
	return is_free ? 0 : CORE_E_AGAIN;
}

/* -- Coming back --- */
static enum tier_path revert_uncounted(struct method *method, struct ledger_method *image, const struct count_plan *plan)
{
	struct ledger *ledger = &method_core(method)->ledger;

	if (plan->stage == TIER_STAGE_UNCOUNTED)
		return TIER_PATH_DELAY_ACTIVATION_NON_FINAL;
	return count_apply(method, image, ledger_edit(ledger, ledger_version(ledger, image->active)), plan,
			   TIER_REASON_DELAY_ENDED);
}

static enum tier_path revert_final(struct method *method, struct ledger_method *image, const struct ledger_version *active)
{
	image->was_final = true;
	method_event(method, TIER_EVENT_FINAL, active->id, active->level, active->level, image->reason);
	return method_final_path(method, image);
}

static enum tier_path revert_queued(struct method *method, struct ledger_method *image, const struct ledger_version *active)
{
	const struct ledger_version *next = ledger_version(&method_core(method)->ledger, image->next);

	method_event(method, TIER_EVENT_QUEUED, next->id, active->level, next->level, TIER_REASON_REVERT);
	return TIER_PATH_NON_FINAL;
}

/* The optimizer makes its first code, or was to: then it stands in the line again. */
static void revert_cold(struct method *method, struct ledger_method *image)
{
	const struct ledger_version *next = ledger_version(&method_core(method)->ledger, image->next);

	if (image->next != LEDGER_NONE && !next->is_begun)
		method_event(method, TIER_EVENT_QUEUED, next->id, TIER_LEVEL_NONE, next->level, TIER_REASON_REVERT);
}

/* The stage that was kept, from its own point of view */
static enum tier_path revert_stage(struct method *method, struct ledger_method *image, const struct count_plan *plan)
{
	const struct ledger_version *active = ledger_version(&method_core(method)->ledger, image->active);	/* unless cold */

	switch ((enum tier_stage)image->stage) {
	case TIER_STAGE_UNCOUNTED:
		return revert_uncounted(method, image, plan);
	case TIER_STAGE_COUNTING:
		method_event(method, TIER_EVENT_COUNTING_BEGUN, active->id, active->level, active->level, TIER_REASON_REVERT);
		return count_path(active);
	case TIER_STAGE_REACHED:
		queue_promote(method, image, active, TIER_REASON_REVERT);
		return TIER_PATH_NON_FINAL;
	case TIER_STAGE_QUEUED:
		return revert_queued(method, image, active);
	case TIER_STAGE_FINAL:
		return revert_final(method, image, active);
	case TIER_STAGE_COMPILING:
		return TIER_PATH_NON_FINAL;
	default:
		revert_cold(method, image);
		return TIER_PATH_RESET;
	}
}

static void revert_restore(struct method *method, struct ledger_method *image)
{
	image->body = 0;
	image->active = image->original_active;
	image->next = image->original_next;
	image->stage = image->original_stage;
	image->reason = image->original_reason;
	image->ticket = ledger_ticket(&method_core(method)->ledger);
	image->generation++;
	image->original_active = image->original_next = LEDGER_NONE;
	image->original_stage = TIER_STAGE_COLD;
	image->original_reason = TIER_REASON_NONE;
}

/* Before the transaction: who was uncounted and finds no delay is counted at once. */
static struct count_plan revert_plan(struct method *method)
{
	const struct ledger_method *durable = method->durable;
	const struct ledger_version *version;

	if (durable->original_stage != TIER_STAGE_UNCOUNTED || method->module->user->durable->deadline_ns)
		return (struct count_plan){ .stage = TIER_STAGE_UNCOUNTED };
	version = ledger_version(&method_core(method)->ledger, durable->original_active);
	return count_plan(method, version->id, version->code, version->threshold, method->module->durable->n_cells_used);
}

static void revert_replace(struct method *method)
{
	const struct count_plan plan = revert_plan(method);
	struct core *core = method_core(method);
	struct ledger_method *image = method_begin(method);
	const struct ledger_version *active;
	struct tier_event *event;
	enum tier_path path;

	version_drop(method, image->next);
	event = method_event(method, TIER_EVENT_REVERTED, 0, method_level(method), TIER_LEVEL_NONE, TIER_REASON_REVERT);
	revert_restore(method, image);
	if (image->active != LEDGER_NONE) {
		active = ledger_version(&core->ledger, image->active);
		event->version = active->id;
		event->to = active->level;
	}
	path = revert_stage(method, image, &plan);
	method->replaced = ++core->n_replacements;
	core->counters.n_reverts++;
	method_commit(method, path);
	delay_link(method->module->user);
}

int core_revert(struct module *module, uint32_t index)
{
	struct method *method = &module->methods[index];
	const uint32_t n_room = version_room(module->core, module->user) / LEDGER_LADDER;
	bool is_free;

	assert(module->records && index < module->n_methods);
	if (!method_body(method))
		return 0;
	if (inline_count(method, n_room) > n_room && inline_makes_cold(method))
		return CORE_E_QUOTA;
	rejit_open(module->core);
	is_free = inline_withdraw(method) && osr_withdraw(module);
	if (is_free)
		revert_replace(method);
	rejit_close(module->core);
	return is_free ? 0 : CORE_E_AGAIN;
}
