/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include "tiering/internal.h"

/* Call counting
 *
 * Begin:  the version gets a cell, which holds N, and a stub that decrements it; the precode leads to the stub.
 * Reach:  the N-th counted call finds 0 and rings. The cell alone decides: outside 1..N the threshold was reached, however
 *         we learn of it. One transaction takes the stub out of the path and queues the next version, so a second bell finds
 *         another stage and is late.
 * Sweep:  bells get lost with the process that rings them, so armed cells are looked at as well: from time to time, and
 *         whenever somebody asks. A sweep may be long; it goes on in slices. Each module keeps its armed methods in two
 *         lists, before and behind the sweep.
 *
 * Cells and stubs are not used again while the module lives: a call may still be on its way through an old stub. */

/* Who told us, as far as known */
struct bell {
	uint32_t pid, tid;
	uint64_t time_ns;	/* CLOCK_MONOTONIC */
	enum tier_source source;
};

/* -- Begin --- */
/* What counted calls go through: 0, CORE_E_FULL, -errno */
static int count_make_stubs(struct method *method, uint64_t version, uint64_t code, struct count_plan *plan)
{
	struct module *module = method->module;
	struct core *core = module->core;
	int r;

	if (core->config.counting_in_prestub)
		return 0;
	if (core->config.backpatch == TIER_BACKPATCH_FORWARDER && entry_is_backpatchable(method)
	    && !(method->durable && method->durable->forwarder)) {
		r = core->ops->forwarder(core->context, module->context, method_index(method), entry_own(method),
					 &plan->forwarder);
		if (r)
			return r;
	}
	return core->ops->stub(core->context, module->context, method_index(method), plan->cell, version, code, &plan->stub);
}

struct count_plan count_plan(struct method *method, uint64_t version, uint64_t code, uint32_t threshold, uint32_t cell)
{
	struct module *module = method->module;
	struct count_plan plan = { .stage = TIER_STAGE_FINAL, .cell = cell };

	if (!module->core->config.call_counting) {
		plan.reason = TIER_REASON_COUNTING_OFF;
	} else if (plan.cell >= module->durable->layout.n_cells) {
		plan.reason = TIER_REASON_COUNTERS_FULL;
	} else if (count_make_stubs(method, version, code, &plan)) {
		plan.reason = TIER_REASON_ARENA_FULL;
	} else {
		plan.stage = TIER_STAGE_COUNTING;
		/* before the transaction: a successor could not tell whether a cell of an armed version was ever set */
		__atomic_store_n(&module->cells[plan.cell], threshold, __ATOMIC_RELEASE);
	}
	return plan;
}

enum tier_path count_path(const struct ledger_version *version)
{
	return version->stub ? TIER_PATH_CALL_COUNTING_STUB : TIER_PATH_RESET;
}

enum tier_path count_apply(struct method *method, struct ledger_method *image, struct ledger_version *version,
			   const struct count_plan *plan, enum tier_reason reason)
{
	struct module *module = method->module;

	if (plan->stage == TIER_STAGE_FINAL) {
		method_set_final(method, image, version, plan->reason);
		return method_final_path(method, image);
	}
	if (plan->stage == TIER_STAGE_UNCOUNTED) {
		method_set_stage(method, image, TIER_STAGE_UNCOUNTED);
		return TIER_PATH_DELAY_ACTIVATION_NON_FINAL;
	}
	method_set_stage(method, image, TIER_STAGE_COUNTING);
	version->cell = plan->cell;
	version->stub = plan->stub.address;
	if (plan->forwarder.address)
		image->forwarder = plan->forwarder.address;
	module_note_code(module, &plan->forwarder);
	module_note_code(module, &plan->stub);
	ledger_edit(&module->core->ledger, module->durable)->n_cells_used = plan->cell + 1;
	method_event(method, TIER_EVENT_COUNTING_BEGUN, version->id, version->level, version->level, reason);
	return count_path(version);
}

void count_begin(struct method *method)
{
	struct ledger_version *version = version_active(method);
	struct count_plan plan = count_plan(method, version->id, version->code, version->threshold,
						  method->module->durable->n_cells_used);
	struct ledger_method *image = method_begin(method);
	enum tier_path path;

	path = count_apply(method, image, ledger_edit(&method_core(method)->ledger, version), &plan, TIER_REASON_DELAY_ENDED);
	method_commit(method, path);
}

/* -- Reach --- */
static bool count_is_crossed(const struct method *method, const struct ledger_version *version)
{
	const struct module *module = method->module;

	return !tier_count_remaining(__atomic_load_n(&module->cells[version->cell], __ATOMIC_RELAXED), version->threshold);
}

static bool count_is_reached(const struct method *method)
{
	return method_stage(method) == TIER_STAGE_COUNTING && method->module->records
	    && count_is_crossed(method, version_active(method));
}

/* Of the own body, which another has replaced: somebody was still on his way through its stub. */
static bool count_is_reached_late(const struct method *method)
{
	const struct ledger_method *durable = method->durable;

	return method_body(method) && durable->original_stage == TIER_STAGE_COUNTING && method->module->records
	    && count_is_crossed(method, ledger_version(&method_core(method)->ledger, durable->original_active));
}

static void count_event(struct method *method, const struct ledger_version *version, const struct bell *bell)
{
	struct core *core = method_core(method);
	uint64_t now = core->ops->now(core->context);
	struct tier_event *event;

	event = method_event(method, TIER_EVENT_THRESHOLD, version->id, version->level, version->level, TIER_REASON_CALLS);
	if (bell->time_ns && bell->time_ns <= now && now - bell->time_ns < event->time_ns)
		event->time_ns -= now - bell->time_ns;
	event->pid = bell->pid;
	event->tid = bell->tid;
	event->source = bell->source;
	core->stats.n_thresholds[bell->source]++;
}

static void count_reach(struct method *method, const struct bell *bell)
{
	const struct ledger_version *active = version_active(method);
	struct ledger_method *image = method_begin(method);

	count_event(method, active, bell);
	queue_promote(method, image, active, TIER_REASON_CALLS);
	method_commit(method, active->stub ? TIER_PATH_SAME_VERSION_NON_FINAL : TIER_PATH_THRESHOLD_REACHED);
}

/* Completion has to look at what is active now, and sets it again (reference §4.5). */
static void count_reach_late(struct method *method, const struct bell *bell)
{
	struct ledger_method *image = method_begin(method);
	enum tier_path path = TIER_PATH_DIFF_VERSION_NON_FINAL;

	if (image->stage == TIER_STAGE_COLD)
		path = TIER_PATH_RESET;
	else if (image->stage == TIER_STAGE_FINAL)
		path = TIER_PATH_DIFF_VERSION_FINAL_TIER;
	count_event(method, ledger_version(&method_core(method)->ledger, image->original_active), bell);
	image->original_stage = TIER_STAGE_REACHED;
	method_commit(method, path);
}

static bool count_is_version(const struct method *method, uint32_t slot, uint64_t version)
{
	return ledger_version(&method_core(method)->ledger, slot)->id == version;
}

/* What the bell is about, if the counter confirms it */
static bool count_hear(struct method *method, uint64_t version, const struct bell *bell)
{
	if (count_is_reached(method) && count_is_version(method, method->durable->active, version))
		count_reach(method, bell);
	else if (count_is_reached_late(method) && count_is_version(method, method->durable->original_active, version))
		count_reach_late(method, bell);
	else
		return false;
	return true;
}

bool core_threshold(struct core *core, uint64_t module_id, uint32_t index, uint64_t version, uint32_t pid, uint32_t tid,
		    uint64_t time_ns, enum tier_source source)
{
	const struct bell bell = { .pid = pid, .tid = tid, .time_ns = time_ns, .source = source };
	struct module *module = core_module_by_id(core, module_id);
	struct method *method = module && index < module->n_methods ? &module->methods[index] : NULL;

	if (!method || (unsigned int)source >= _TIER_SOURCE_N || !count_hear(method, version, &bell)) {
		core->stats.n_unconfirmed++;
		return false;
	}
	core_proceed(core);
	return true;
}

void core_note_unconfirmed(struct core *core)
{
	core->stats.n_unconfirmed++;
}

uint32_t core_look(struct module *module, uint32_t index)
{
	static const struct bell nobody = { .source = TIER_SOURCE_SWEEP };

	assert(index < module->n_methods);
	if (!count_is_reached(&module->methods[index]))
		return 0;
	count_reach(&module->methods[index], &nobody);
	core_proceed(module->core);
	return 1;
}

/* -- Sweep --- */
static void list_splice(struct list *head, struct list *from)
{
	struct list *link;

	if (list_is_empty(from))
		return;
	link = from->next;
	link->previous = head->previous;
	head->previous->next = link;
	from->previous->next = head;
	head->previous = from->previous;
	list_init(from);
}

/* Restarts one that is under way: what it has looked at comes again, behind what it has not. */
void count_sweep_start(struct module *module)
{
	list_splice(&module->armed, &module->looked);
	if (module->records && !list_is_empty(&module->armed) && !list_is_linked(&module->sweep_link))
		list_append(&module->core->sweeping, &module->sweep_link);
}

/* One module's part of a slice. True when all of it was looked at. */
static bool count_sweep_module(struct module *module, int *budget, uint32_t *n_found)
{
	static const struct bell nobody = { .source = TIER_SOURCE_SWEEP };
	const struct core *core = module->core;
	struct list *link;
	uint64_t n_before;

	while ((link = list_first(&module->armed))) {
		struct method *method = list_entry(link, struct method, link);

		if (*budget <= 0)
			return false;
		*budget -= SLICE_LOOK;
		list_remove(link);
		list_append(&module->looked, link);
		if (!count_is_reached(method))
			continue;
		n_before = core->counters.n_slots_examined;
		++*n_found;
		count_reach(method, &nobody);
		*budget -= slice_transition(core, n_before);
	}
	list_splice(&module->armed, &module->looked);
	return true;
}

uint32_t count_sweep(struct core *core, int *budget)
{
	struct list *link;
	uint32_t n_found = 0;

	while ((link = list_first(&core->sweeping))) {
		if (!count_sweep_module(list_entry(link, struct module, sweep_link), budget, &n_found)) {
			core->is_busy = true;
			break;
		}
		list_remove(link);
	}
	return n_found;
}

uint32_t count_ahead(const struct module *module)
{
	const struct list *pos;
	uint32_t n = 0;

	if (!list_is_linked(&module->sweep_link))
		return 0;
	list_for_each(pos, &module->armed)
		n += count_is_reached(list_entry(pos, struct method, link));
	return n;
}

static void count_sweep_start_all(struct core *core)
{
	for (uint32_t i = 0; i < core->n_modules; i++)
		count_sweep_start(core->modules[i]);
}

uint32_t core_sweep(struct core *core, struct module *module_or_null)
{
	int budget = SLICE_BUDGET;
	uint32_t n_found;

	if (module_or_null)
		count_sweep_start(module_or_null);
	else
		count_sweep_start_all(core);
	n_found = count_sweep(core, &budget);
	core_proceed(core);
	return n_found;
}

void count_tick(struct core *core, uint64_t now)
{
	if (!core->sweep_deadline_ns || now < core->sweep_deadline_ns)
		return;
	core->sweep_deadline_ns = now + core->config.sweep_ns;
	count_sweep_start_all(core);
}
