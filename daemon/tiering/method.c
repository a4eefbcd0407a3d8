/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <errno.h>
#include "tiering/internal.h"
#include "util/error.h"

/* A method: its stages, and the transaction that every transition is.
 *
 *   cold ─► uncounted ─► counting ─► queued ─► compiling ─► final
 *      │       ▲  └─────────▲──(no counting possible)───────────▲
 *      │       └────────────┴──────(another tier)───┘           │
 *      └──────────(delay off)──────(nothing comes after it)─────┘
 *
 * An inlined method that is replaced leads from final back to queued, or from compiling when the job was too early; from anywhere
 * to cold where all code that there is inlined somebody (inline.c). Another body begins cold (rejit.c).
 *
 * The stage is durable; which list the method is in follows from it, and so does all that clients see (entry.c). */

#define BIT(stage) (1u << TIER_STAGE_##stage)
static const uint8_t stage_next[_TIER_STAGE_N] = {
	[TIER_STAGE_COLD] = BIT(UNCOUNTED) | BIT(COUNTING) | BIT(FINAL),
	[TIER_STAGE_UNCOUNTED] = BIT(COUNTING) | BIT(FINAL),
	[TIER_STAGE_COUNTING] = BIT(QUEUED),
	[TIER_STAGE_REACHED] = BIT(QUEUED),
	[TIER_STAGE_QUEUED] = BIT(COMPILING),
	[TIER_STAGE_COMPILING] = BIT(FINAL) | BIT(QUEUED) | BIT(UNCOUNTED) | BIT(COUNTING),
	[TIER_STAGE_FINAL] = BIT(QUEUED) | BIT(FINAL),
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
	image->was_final = true;
	method_event(method, TIER_EVENT_FINAL, active->id, active->level, active->level, reason);
}

enum tier_path method_final_path(const struct method *method, const struct ledger_method *image)
{
	uint32_t first = version_first(method, 0);

	if (image->body || image->reason == TIER_REASON_COUNTING_OFF || (first != LEDGER_NONE && first != image->active))
		return TIER_PATH_FINAL_TIER_NON_DEFAULT;
	return TIER_PATH_FINAL_TIER;
}

enum tier_level method_level(const struct method *method)
{
	return method_stage(method) == TIER_STAGE_COLD ? TIER_LEVEL_NONE : version_active(method)->level;
}

/* -- Versions that it may still need --- */
static uint32_t method_promise(const struct method *method)
{
	const struct ledger_method *durable = method->durable;

	return ladder_promise(method_core(method), &(struct ladder_place){
		.stage = durable->stage, .reason = durable->reason, .active = durable->active, .next = durable->next,
	});
}

static uint32_t method_original_promise(const struct method *method)
{
	const struct ledger_method *durable = method->durable;

	return ladder_promise(method_core(method), &(struct ladder_place){
		.stage = durable->original_stage, .reason = durable->original_reason,
		.active = durable->original_active, .next = durable->original_next,
	});
}

void method_count_promise(struct method *method)
{
	const uint8_t before = method->promised;

	method->promised = method_promise(method);
	if (method_body(method))
		method->promised += method_original_promise(method);
	module_count_rows(method->module, ROWS_PROMISED, method->promised - before);
}

/* -- Lists --- */
enum method_place method_place_of(const struct method *method)
{
	switch (method_stage(method)) {
	case TIER_STAGE_COLD:
		if (!method->durable || method->durable->next == LEDGER_NONE)
			return PLACE_NONE;
		return version_next(method)->is_begun ? PLACE_RUNNING : PLACE_FIRST;
	case TIER_STAGE_UNCOUNTED:
		return PLACE_UNCOUNTED;
	case TIER_STAGE_COUNTING:
		return PLACE_ARMED;
	case TIER_STAGE_QUEUED:
		return PLACE_QUEUE;
	case TIER_STAGE_COMPILING:
		return PLACE_RUNNING;
	default:
		return PLACE_NONE;
	}
}

static void method_count_pending(struct method *method, int n)
{
	if (method->place != PLACE_QUEUE && method->place != PLACE_FIRST)
		return;
	method->module->n_pending += n;
	method->module->user->n_pending += n;
	method_core(method)->n_pending += n;
}

static void method_leave(struct method *method)
{
	struct module *module = method->module;
	struct core *core = module->core;

	if (method->place == PLACE_QUEUE)
		freeze_pass(module, method);
	list_remove(&method->link);
	if (method->place == PLACE_ARMED && !--core->n_armed)
		core->sweep_deadline_ns = 0;
	if (method->place == PLACE_QUEUE)
		queue_link(module);
	method_count_pending(method, -1);
}

static void method_enter(struct method *method)
{
	struct module *module = method->module;
	struct user *user = module->user;
	struct core *core = module->core;

	switch (method->place) {
	case PLACE_UNCOUNTED:
		list_append(&user->uncounted, &method->link);
		break;
	case PLACE_ARMED:
		list_append(&module->armed, &method->link);
		if (!core->n_armed++)
			core->sweep_deadline_ns = core->ops->now(core->context) + core->config.sweep_ns;
		break;
	case PLACE_QUEUE:
		list_append(&module->queue, &method->link);
		queue_link(module);
		break;
	case PLACE_FIRST:
		list_append(&user->first, &method->link);
		break;
	default:
		break;
	}
	method_count_pending(method, 1);
}

void method_move(struct method *method, enum method_place place)
{
	method_leave(method);
	method->place = place;
	method->ticket = method->durable ? method->durable->ticket : 0;
	method_enter(method);
}

/* -- Transactions --- */
/* A row that says nothing yet, and belongs to nobody until the transaction gives it its module */
static void method_take_row(struct method *method)
{
	struct ledger *ledger = &method_core(method)->ledger;
	uint32_t slot = ledger_take(ledger, LEDGER_METHODS);

	assert(slot != LEDGER_NONE);	/* core_module_add() saw to it */
	method->durable = ledger_method(ledger, slot);
	*method->durable = (struct ledger_method){
		.index = method_index(method),
		.active = LEDGER_NONE,
		.next = LEDGER_NONE,
		.chain = LEDGER_NONE,
		.slots = LEDGER_NONE,
		.original_active = LEDGER_NONE,
		.original_next = LEDGER_NONE,
	};
}

struct ledger_method *method_begin(struct method *method)
{
	struct ledger *ledger = &method_core(method)->ledger;
	struct ledger_method *image;

	if (!method->durable)
		method_take_row(method);
	ledger_begin(ledger);
	image = ledger_edit(ledger, method->durable);
	image->module = method->module->id;
	return image;
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

void method_commit(struct method *method, enum tier_path path)
{
	struct core *core = method_core(method);

	ledger_commit(&core->ledger);
	if (method->place != method_place_of(method) || method->ticket != method->durable->ticket)
		method_move(method, method_place_of(method));
	method_count_promise(method);
	entry_refresh(method, path);
	core_ring(core, method->module, method_index(method));
}

/* Without its module the record is a free row to any successor: nothing here needs a transaction. */
bool method_forget(struct method *method, int *budget)
{
	struct core *core = method_core(method);

	if (method->durable && (!version_release(method, budget) || !slot_release(method, budget)))
		return false;
	*budget -= SLICE_ROW;
	if (method->durable)
		ledger_release(&core->ledger, LEDGER_METHODS, method->durable - ledger_method(&core->ledger, 0));
	method->durable = NULL;
	module_count_rows(method->module, ROWS_PROMISED, -method->promised);
	core->n_methods--;
	free(method->inliners);
	method->inliners = NULL;
	return true;
}

/* -- Questions --- */
uint32_t core_method_body(const struct module *module, uint32_t method)
{
	return method_body(&module->methods[method]);
}

struct core_entry core_method_entry(const struct module *module, uint32_t method)
{
	const struct tier_record *record = &module->records[method];

	return (struct core_entry){ record->entry, record->entry == record->code ? record->version : 0 };
}

struct tier_answer core_answer(struct module *module, uint32_t method)
{
	assert(module->records && method < module->n_methods);
	core_look(module, method);
	return tier_record_answer(&module->records[method], module->cells, module->durable->layout.n_cells);
}
