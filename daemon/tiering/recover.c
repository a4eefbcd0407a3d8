/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include "tiering/internal.h"
#include "util/base.h"
#include "util/error.h"

/* From the ledger to the heap: the same walk for an empty ledger and for a predecessor's.
 *
 * Records whose module is gone are free slots. The others are put in the lists that follow from their stages, in the order
 * of their tickets. Nothing durable changes here: jobs that were outside are started again before others, without a second
 * beginning in the history. */

static int recover_users(struct core *core)
{
	struct ledger *ledger = &core->ledger;

	for (uint32_t slot = 0; slot < ledger_used(ledger, LEDGER_USERS); slot++) {
		struct ledger_user *durable = ledger_user(ledger, slot);
		struct user *user;

		if (!durable->owner) {
			ledger_release(ledger, LEDGER_USERS, slot);
			continue;
		}
		user = user_new(core, durable, durable->owner - 1);
		if (!user)
			return error_origin(-ENOMEM);
		user_link(user);
	}
	return 0;
}

static int recover_modules(struct core *core)
{
	struct ledger *ledger = &core->ledger;

	for (uint32_t slot = 0; slot < ledger_used(ledger, LEDGER_MODULES); slot++) {
		struct ledger_module *durable = ledger_module(ledger, slot);
		struct module *module;

		if (!durable->id) {
			ledger_release(ledger, LEDGER_MODULES, slot);
			continue;
		}
		module = module_new(core, durable, durable->id, &durable->layout);
		if (!module)
			return error_origin(-ENOMEM);
		module_link(module, user_find(core, durable->uid));
	}
	return 0;
}

/* Returns how many methods have code. */
static uint32_t recover_methods(struct core *core)
{
	struct ledger *ledger = &core->ledger;
	uint32_t n = 0;

	for (uint32_t slot = 0; slot < ledger_used(ledger, LEDGER_METHODS); slot++) {
		struct ledger_method *durable = ledger_method(ledger, slot);
		struct module *module = core_module_by_id(core, durable->module);

		if (!module) {
			ledger_release(ledger, LEDGER_METHODS, slot);
			continue;
		}
		module->methods[durable->index].durable = durable;
		n++;
	}
	return n;
}

static void recover_versions(struct core *core)
{
	struct ledger *ledger = &core->ledger;

	for (uint32_t slot = 0; slot < ledger_used(ledger, LEDGER_VERSIONS); slot++) {
		struct module *module = core_module_by_id(core, ledger_version(ledger, slot)->module);

		if (!module) {
			ledger_release(ledger, LEDGER_VERSIONS, slot);
			continue;
		}
		module_count_rows(module, ROWS_VERSIONS, 1);
	}
}

/* An edge counts from the moment its version is live. */
static void recover_edges(struct core *core)
{
	struct ledger *ledger = &core->ledger;

	for (uint32_t slot = 0; slot < ledger_used(ledger, LEDGER_EDGES); slot++) {
		const struct ledger_edge *edge = ledger_edge(ledger, slot);
		const struct ledger_version *version = ledger_version(ledger, edge->version);

		struct module *module = core_module_by_id(core, edge->module);

		if (module && version->id == edge->version_id && version->state == LEDGER_LIVE)
			module_count_rows(module, ROWS_EDGES, 1);
		else
			ledger_release(ledger, LEDGER_EDGES, slot);
	}
}

/* A slot counts from the moment its method's chain reaches it: marks those that are reached. */
static void recover_chain(struct method *method, uint8_t *reached)
{
	const struct ledger *ledger = &method_core(method)->ledger;

	for (uint32_t row = method->durable->slots; row != LEDGER_NONE; row = ledger_slot(ledger, row)->next)
		reached[row / 8] |= 1u << row % 8;
	slot_recover(method);
}

static int recover_slots(struct core *core)
{
	struct ledger *ledger = &core->ledger;
	const uint32_t n = ledger_used(ledger, LEDGER_SLOTS);
	_cleanup_(freep) uint8_t *reached = calloc(n / 8 + 1, 1);

	if (!reached)
		return error_origin(-ENOMEM);
	for (uint32_t i = 0; i < core->n_modules; i++)
		for (uint32_t k = 0; k < core->modules[i]->n_methods; k++)
			if (core->modules[i]->methods[k].durable)
				recover_chain(&core->modules[i]->methods[k], reached);
	for (uint32_t row = 0; row < n; row++)
		if (!(reached[row / 8] >> row % 8 & 1))
			ledger_release(ledger, LEDGER_SLOTS, row);
	return 0;
}

/* Whether the predecessor had a job for that version, perhaps of a body that never returns */
static bool recover_is_begun(const struct ledger_version *version)
{
	return version->state == LEDGER_MAKING && version->is_begun;
}

static bool recover_version(struct method *method, uint32_t row)
{
	const struct ledger_version *version = ledger_version(&method_core(method)->ledger, row);

	if (recover_is_begun(version))
		return queue_recover(method, row);
	return version->level != TIER_LEVEL_OSR || osr_recover(method, row);
}

/* What follows from a method's versions: what it may still need, whom it inlined, its jobs, its OSR code */
static bool recover_method(struct method *method)
{
	const struct ledger *ledger = &method_core(method)->ledger;
	const struct ledger_method *durable = method->durable;
	bool is_whole = true;

	method_count_promise(method);
	if (durable->active != LEDGER_NONE)
		is_whole = inline_recover(method, durable->active);
	if (durable->original_active != LEDGER_NONE)
		is_whole &= inline_recover(method, durable->original_active);
	for (uint32_t row = durable->chain; row != LEDGER_NONE; row = ledger_version(ledger, row)->older)
		is_whole &= recover_version(method, row);
	return is_whole;
}

static int recover_each(struct core *core)
{
	for (uint32_t i = 0; i < core->n_modules; i++) {
		for (uint32_t k = 0; k < core->modules[i]->n_methods; k++)
			if (core->modules[i]->methods[k].durable && !recover_method(&core->modules[i]->methods[k]))
				return error_origin(-ENOMEM);
		osr_recover_order(core->modules[i]);
	}
	return 0;
}

static int by_ticket(const void *a, const void *b)
{
	uint64_t first = (*(struct method *const *)a)->durable->ticket;
	uint64_t second = (*(struct method *const *)b)->durable->ticket;

	return first < second ? -1 : first > second;
}

static int recover_lists(struct core *core, uint32_t n_warm)
{
	_cleanup_(freep) struct method **methods = malloc(MAX(n_warm, 1u) * sizeof(*methods));
	struct list *pos;
	uint32_t n = 0;

	if (!methods)
		return error_origin(-ENOMEM);
	for (uint32_t i = 0; i < core->n_modules; i++)
		for (uint32_t k = 0; k < core->modules[i]->n_methods; k++)
			if (method_place_of(&core->modules[i]->methods[k]) != PLACE_NONE)
				methods[n++] = &core->modules[i]->methods[k];
	qsort(methods, n, sizeof(*methods), by_ticket);
	for (uint32_t i = 0; i < n; i++)
		method_move(methods[i], method_place_of(methods[i]));
	list_for_each(pos, &core->users)
		delay_recover(list_entry(pos, struct user, link));
	return 0;
}

/* A predecessor may have died between its last commit and the end of its bells: they ring again. Who listens knows the
 * events by their numbers; the waiters' turn comes when the module is attached. */
static void recover_bells(struct core *core)
{
	uint64_t sequence = core->ledger.global->sequence;

	core->n_told = ledger_delivered(&core->ledger);
	if (core->n_told == sequence)
		return;
	core->unsettled_module = ledger_event_at(&core->ledger, sequence)->module;
	core->unsettled_method = ledger_event_at(&core->ledger, sequence)->method;
	if (core->unsettled_method == UINT32_MAX)
		core->unsettled_module = 0;
	core_ring(core, NULL, 0);
}

int core_recover(struct core *core)
{
	uint32_t n_warm;
	int r;

	r = recover_users(core);
	if (r)
		return error_fold(r);
	r = recover_modules(core);
	if (r)
		return error_fold(r);
	n_warm = recover_methods(core);
	recover_versions(core);
	recover_edges(core);
	r = recover_slots(core);
	if (!r)
		r = recover_each(core);
	if (!r)
		r = recover_lists(core, n_warm);
	if (r)
		return error_fold(r);
	recover_bells(core);
	return 0;
}
