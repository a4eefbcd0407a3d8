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
 * An inlined method that is replaced leads from final back to queued, or from compiling when the job was too early. Another body
 * begins cold (rejit.c).
 *
 * The stage is durable; which list the method is in follows from it, and so does all that clients see (entry.c). */

#define BIT(stage) (1u << TIER_STAGE_##stage)
static const uint8_t stage_next[_TIER_STAGE_N] = {
	[TIER_STAGE_COLD] = BIT(UNCOUNTED) | BIT(COUNTING) | BIT(FINAL),
	[TIER_STAGE_UNCOUNTED] = BIT(COUNTING) | BIT(FINAL),
	[TIER_STAGE_COUNTING] = BIT(QUEUED),
	[TIER_STAGE_REACHED] = BIT(QUEUED),
	[TIER_STAGE_QUEUED] = BIT(COMPILING),
	[TIER_STAGE_COMPILING] = BIT(FINAL) | BIT(QUEUED),
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
static uint32_t promise_of(enum tier_stage stage)
{
	switch (stage) {
	case TIER_STAGE_COLD:
		return LEDGER_LADDER;
	case TIER_STAGE_QUEUED:
	case TIER_STAGE_COMPILING:
		return LEDGER_LADDER / 2;
	case TIER_STAGE_FINAL:
		return 0;
	default:
		return LEDGER_LADDER - 1;
	}
}

void method_count_promise(struct method *method)
{
	const uint8_t before = method->promised;

	method->promised = promise_of(method_stage(method));
	if (method_body(method))
		method->promised += promise_of(method->durable->original_stage);
	module_count_rows(method->module, ROWS_PROMISED, method->promised - before);
}

/* -- Lists --- */
enum method_place method_place_of(const struct method *method)
{
	switch (method_stage(method)) {
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

static void method_leave(struct method *method)
{
	struct module *module = method->module;
	struct core *core = module->core;

	if (method->place == PLACE_QUEUE)
		freeze_pass(module, method);
	list_remove(&method->link);
	if (method->place == PLACE_ARMED && !--core->n_armed)
		core->sweep_deadline_ns = 0;
	if (method->place == PLACE_QUEUE) {
		queue_link(module);
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
	default:
		break;
	}
	if (method->place == PLACE_QUEUE) {
		module->n_pending++;
		user->n_pending++;
		core->n_pending++;
	}
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

/* -- The first call --- */
static void method_publish_first(struct method *method, const struct core_code *code)
{
	struct core *core = method_core(method);
	bool is_delayed = delay_is_used(core);
	struct count_plan plan = { .stage = TIER_STAGE_UNCOUNTED };
	struct ledger_method *image;
	struct ledger_version *version;
	enum tier_path path = TIER_PATH_INITIAL_PUBLISH_NON_FINAL;

	if (!is_delayed)
		plan = count_plan(method, core->ledger.global->next_version, code->address, core->config.threshold);
	image = method_begin(method);
	version = version_new(method, image, TIER_LEVEL_TIER0);
	version_set_live(core, version, code);
	module_note_code(method->module, code);
	image->active = image->next;
	image->next = LEDGER_NONE;
	image->generation++;
	method_event(method, TIER_EVENT_PUBLISHED, version->id, TIER_LEVEL_NONE, version->level, TIER_REASON_FIRST_CALL);
	if (is_delayed) {
		method_set_stage(method, image, TIER_STAGE_UNCOUNTED);
		delay_note_first_call(method->module->user);
		if (image->body)
			path = TIER_PATH_DELAY_ACTIVATION_NON_FINAL;
	} else {
		path = count_apply(method, image, version, &plan, TIER_REASON_FIRST_CALL);
	}
	core->stats.n_published++;
	method_commit(method, path);
	delay_link(method->module->user);
}

int core_prepare(struct module *module, uint32_t index)
{
	struct core *core = module->core;
	struct core_compile compile = { .method = index, .level = TIER_LEVEL_TIER0 };
	struct core_result result = { .n_inlined = 0 };
	struct method *method;
	int r;

	if (index >= module->n_methods)
		return error_origin(-EINVAL);
	method = &module->methods[index];
	if (method_stage(method) != TIER_STAGE_COLD)
		return 0;
	assert(module->records);
	compile.body = method_body(method);
	r = core->ops->first(core->context, module->context, &compile, &result);
	if (r == CORE_E_FULL)
		return CORE_E_FULL;
	if (r)
		return error_fold(r);
	method_publish_first(method, &result.code);
	core_proceed(core);
	return 0;
}

uint32_t core_method_body(const struct module *module, uint32_t method)
{
	return method_body(&module->methods[method]);
}

struct core_entry core_method_entry(const struct module *module, uint32_t method)
{
	const struct tier_record *record = &module->records[method];

	return (struct core_entry){ record->entry, record->entry == record->code ? record->version : 0 };
}

/* -- Questions --- */
struct tier_answer core_answer(struct module *module, uint32_t method)
{
	assert(module->records && method < module->n_methods);
	core_look(module, method);
	return tier_record_answer(&module->records[method], module->cells, module->durable->layout.n_cells);
}
