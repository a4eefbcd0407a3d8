/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <errno.h>
#include "tiering/internal.h"
#include "util/error.h"

/* A method: its stages, the transaction that every transition is, and its first call.
 *
 *   cold ─► uncounted ─► counting ─► queued ─► compiling ─► final
 *      └────────┴──(delay off)─┘ └──────(no counting possible, from the first three)──────┘
 *
 * The stage is durable; which list the method is in follows from it, and so does all that clients see (entry.c). */

#define BIT(stage) (1u << TIER_STAGE_##stage)
static const uint8_t stage_next[_TIER_STAGE_N] = {
	[TIER_STAGE_COLD] = BIT(UNCOUNTED) | BIT(COUNTING) | BIT(FINAL),
	[TIER_STAGE_UNCOUNTED] = BIT(COUNTING) | BIT(FINAL),
	[TIER_STAGE_COUNTING] = BIT(QUEUED),
	[TIER_STAGE_QUEUED] = BIT(COMPILING),
	[TIER_STAGE_COMPILING] = BIT(FINAL),
};

static const enum method_place stage_place[_TIER_STAGE_N] = {
	[TIER_STAGE_UNCOUNTED] = PLACE_UNCOUNTED,
	[TIER_STAGE_COUNTING] = PLACE_ARMED,
	[TIER_STAGE_QUEUED] = PLACE_QUEUE,
	[TIER_STAGE_COMPILING] = PLACE_RUNNING,
};

void method_set_stage(struct method *method, struct ledger_method *image, enum tier_stage stage)
{
	assert(stage_next[image->stage] & 1u << stage);
	image->stage = stage;
	/* A job that is taken up again after a takeover stands before those that came later: it keeps its ticket. */
	if (stage != TIER_STAGE_COMPILING)
		image->ticket = ledger_ticket(&method_core(method)->ledger);
}

void method_set_final(struct method *method, struct ledger_method *image, const struct ledger_version *active,
		      enum tier_reason reason)
{
	method_set_stage(method, image, TIER_STAGE_FINAL);
	image->reason = reason;
	method_event(method, TIER_EVENT_FINAL, active->id, active->level, active->level, reason);
}

/* -- Lists --- */
static void method_leave(struct method *method)
{
	struct module *module = method->module;
	struct core *core = module->core;

	list_remove(&method->link);
	if (method->place == PLACE_ARMED && !--core->n_armed)
		core->sweep_deadline_ns = 0;
	if (method->place == PLACE_RUNNING) {
		module->user->n_running--;
		core->n_running--;
	}
	if (method->place == PLACE_INTERRUPTED)
		core->n_interrupted--;
	if (method->place >= PLACE_QUEUE) {
		module->n_pending--;
		module->user->n_pending--;
		core->n_pending--;
	}
}

static void method_enter(struct method *method)
{
	struct module *module = method->module;
	struct user *user = module->user;
	struct core *core = module->core;

	switch (method->place) {
	case PLACE_NONE:
		break;
	case PLACE_UNCOUNTED:
		list_append(&user->uncounted, &method->link);
		break;
	case PLACE_ARMED:
		list_append(&module->armed, &method->link);
		if (!core->n_armed++)
			core->sweep_deadline_ns = core->ops->now(core->context) + core->config.sweep_ns;
		break;
	case PLACE_INTERRUPTED:
		core->n_interrupted++;
		list_append(&user->queue, &method->link);
		break;
	case PLACE_QUEUE:
		list_append(&user->queue, &method->link);
		break;
	case PLACE_RUNNING:
		user->n_running++;
		core->n_running++;
		break;
	}
	if (method->place >= PLACE_QUEUE) {
		module->n_pending++;
		user->n_pending++;
		core->n_pending++;
	}
}

void method_move(struct method *method, enum method_place place)
{
	method_leave(method);
	method->place = place;
	method_enter(method);
}

/* -- Transactions --- */
struct ledger_method *method_begin(struct method *method)
{
	struct ledger *ledger = &method_core(method)->ledger;

	ledger_begin(ledger);
	return ledger_edit(ledger, method->durable);
}

struct tier_event *method_event(struct method *method, enum tier_event_kind kind, uint64_t version, enum tier_level from,
				enum tier_level to, enum tier_reason reason)
{
	struct tier_event *event = core_event(method_core(method), kind, method->module->user->uid);

	event->module = method->module->id;
	event->method = method_index(method);
	event->version = version;
	event->from = from;
	event->to = to;
	event->reason = reason;
	return event;
}

void method_commit(struct method *method)
{
	struct core *core = method_core(method);

	ledger_commit(&core->ledger);
	method_move(method, stage_place[method_stage(method)]);
	entry_refresh(method);
	core_ring(core, method->module, method_index(method));
}

/* -- The first call --- */
static struct ledger_method *method_begin_record(struct method *method)
{
	struct ledger *ledger = &method_core(method)->ledger;
	uint32_t slot = ledger_take(ledger, LEDGER_METHODS);
	struct ledger_method *image;

	assert(slot != LEDGER_NONE);	/* core_module_add() saw to it */
	method->durable = ledger_method(ledger, slot);
	image = method_begin(method);
	*image = (struct ledger_method){
		.module = method->module->id,
		.index = method_index(method),
		.active = LEDGER_NONE,
		.newest = LEDGER_NONE,
	};
	return image;
}

static void method_publish_first(struct method *method, const struct core_code *code)
{
	struct core *core = method_core(method);
	bool is_delayed = delay_is_used(core);
	struct count_plan plan = { .stage = TIER_STAGE_UNCOUNTED };
	struct ledger_method *image;
	struct ledger_version *version;

	if (!is_delayed)
		plan = count_plan(method, core->ledger.global->next_version, code->address, core->config.threshold);
	image = method_begin_record(method);
	version = version_new(method, image, TIER_LEVEL_TIER0);
	version_set_live(core, version, code);
	module_note_code(method->module, code);
	image->active = image->newest;
	image->generation++;
	method_event(method, TIER_EVENT_PUBLISHED, version->id, TIER_LEVEL_NONE, version->level, TIER_REASON_FIRST_CALL);
	if (is_delayed) {
		method_set_stage(method, image, TIER_STAGE_UNCOUNTED);
		delay_note_first_call(method->module->user);
	} else {
		count_apply(method, image, version, &plan, TIER_REASON_FIRST_CALL);
	}
	core->stats.n_published++;
	method_commit(method);
	delay_link(method->module->user);
}

int core_prepare(struct module *module, uint32_t method)
{
	struct core *core = module->core;
	struct core_code code;
	int r;

	if (method >= module->n_methods)
		return error_origin(-EINVAL);
	if (module->methods[method].durable)
		return 0;
	assert(module->records);
	r = core->ops->tier0(core->context, module->context, method, 0, &code);
	if (r == CORE_E_FULL)
		return CORE_E_FULL;
	if (r)
		return error_fold(r);
	method_publish_first(&module->methods[method], &code);
	core_proceed(core);
	return 0;
}

/* -- Questions --- */
struct tier_answer core_answer(struct module *module, uint32_t method)
{
	assert(module->records && method < module->n_methods);
	core_look(module, method);
	return tier_record_answer(&module->records[method], module->cells, module->durable->layout.n_cells);
}
