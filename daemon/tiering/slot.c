/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>
#include "tiering/internal.h"

/* Recorded slots: places that hold a method's entry point besides P and E, and are rewritten with it
 *
 *   vtable   a call cell; discovered when a call through it comes to the prestub
 *   rel32    the displacement of a direct call in optimized code; registered when that code becomes a version
 *
 * A slot is never forgotten while its module lives: activations of withdrawn code go on calling through it. A method's form a
 * chain in the ledger. A row is written first and becomes part of the chain by one small transaction; what a successor does
 * not reach from a method is free. Whatever is not recorded (there are too many, the daemon died before it was) leads to T or
 * the method's own address, which is right, only slower.
 *
 * Code may come with thousands of call sites: they are registered in slices. */

struct slot_batch {
	struct list link;		/* core->batches */
	struct module *module;
	uint32_t n, at;
	struct core_call_site sites[];
};

static void *slot_alias(const struct module *module, uint64_t address)
{
	return module->core->ops->alias(module->core->context, module->context, address);
}

/* -- One slot --- */
static uint64_t slot_read(const struct ledger_slot *slot, const void *alias)
{
	if (slot->kind != TIER_SLOT_REL32)
		return *(const uint64_t *)alias;
	return slot->address + sizeof(int32_t) + *(const int32_t *)alias;
}

/* One aligned store: who calls meanwhile goes to the one or the other. */
static void slot_write(const struct ledger_slot *slot, void *alias, uint64_t value)
{
	if (slot->kind != TIER_SLOT_REL32)
		__atomic_store_n((uint64_t *)alias, value, __ATOMIC_RELEASE);
	else
		__atomic_store_n((int32_t *)alias, (int32_t)(value - (slot->address + sizeof(int32_t))), __ATOMIC_RELEASE);
}

void slot_write_all(struct method *method, uint64_t value, const struct entry_held *held)
{
	struct core *core = method_core(method);
	struct core_counters *counters = &core->counters;

	for (uint32_t row = method->durable->slots; row != LEDGER_NONE; row = ledger_slot(&core->ledger, row)->next) {
		const struct ledger_slot *slot = ledger_slot(&core->ledger, row);
		void *alias = slot_alias(method->module, slot->address);

		counters->n_slots_examined++;
		if (slot_read(slot, alias) == value)
			continue;
		counters->n_slot_writes++;
		counters->n_oscillations += !held || core->recorded[row] < held->slots;
		slot_write(slot, alias, value);
	}
}

/* A row for one more slot; LEDGER_NONE: the method, its uid or the table has as many as may be. */
static uint32_t slot_take_row(struct method *method)
{
	struct core *core = method_core(method);

	if (method->n_slots >= core->n_method_slots_max || !module_has_share(method->module, ROWS_SLOTS))
		return LEDGER_NONE;
	return ledger_take(&core->ledger, LEDGER_SLOTS);
}

static void slot_count(struct method *method, int n)
{
	method->n_slots += n;
	module_count_rows(method->module, ROWS_SLOTS, n);
}

/* Returns the new slot, or NULL: there is no room. */
static const struct ledger_slot *slot_record(struct method *method, enum tier_slot_kind kind, uint64_t address)
{
	struct core *core = method_core(method);
	uint32_t row = slot_take_row(method);
	struct ledger_method *image;

	if (row == LEDGER_NONE)
		return NULL;
	slot_count(method, 1);
	*ledger_slot(&core->ledger, row) = (struct ledger_slot){
		.module = method->module->id,
		.address = address,
		.method = method_index(method),
		.next = method->durable ? method->durable->slots : LEDGER_NONE,
		.kind = kind,
	};
	image = method_begin(method);
	image->slots = row;
	ledger_commit(&core->ledger);
	core->recorded[row] = core->epoch;
	core->counters.n_slots_recorded++;
	return ledger_slot(&core->ledger, row);
}

/* -- Vtable slots --- */
static bool slot_is_cell(const struct tier_layout *layout, uint64_t address)
{
	const uint64_t at = address - (layout->base + layout->call_cells);

	return layout->n_slots >= sizeof(uint64_t) && at <= layout->n_slots - sizeof(uint64_t) && at % sizeof(uint64_t) == 0;
}

/* The word of module->known that has the cell's bit */
static uint64_t *slot_known(struct module *module, uint64_t address, uint64_t *bit)
{
	const struct tier_layout *layout = &module->durable->layout;
	const uint64_t i = (address - (layout->base + layout->call_cells)) / sizeof(uint64_t);

	*bit = UINT64_C(1) << i % 64;
	return &module->known[i / 64];
}

void core_slot_used(struct module *module, uint32_t index, uint64_t address)
{
	struct method *method = index < module->n_methods ? &module->methods[index] : NULL;
	const struct ledger_slot *slot = &(struct ledger_slot){ .address = address, .kind = TIER_SLOT_VTABLE };
	static const struct entry_held never;
	uint64_t *known, bit, value, *alias;
	const struct entry_held *held;

	if (!method || !method->durable || !slot_is_cell(&module->durable->layout, address))
		return;
	value = entry_slot_value(method);
	if (value == entry_own(method) && !entry_may_have_led(method))
		return;
	alias = slot_alias(module, address);
	known = slot_known(module, address, &bit);
	held = *known & bit ? entry_held(method, value) : &never;
	if (!(*known & bit) && !slot_record(method, TIER_SLOT_VTABLE, address)) {
		/* nobody would ever redirect it: the method's own address, which is right at every stage */
		slot_write(slot, alias, tier_layout_method(&module->durable->layout, index, method_record(method)->flags));
		return;
	}
	*known |= bit;
	if (*alias == value)
		return;
	module->core->counters.n_slot_writes++;
	module->core->counters.n_oscillations += !held || held->slots;
	slot_write(slot, alias, value);
}

/* -- Call sites --- */
static void slot_register(struct module *module, const struct core_call_site *site)
{
	struct method *method = &module->methods[site->method];
	const struct ledger_slot *slot;
	void *alias;

	if (site->method >= module->n_methods || site->address % sizeof(int32_t))
		return;
	alias = slot_alias(module, site->address);
	slot = alias ? slot_record(method, TIER_SLOT_REL32, site->address) : NULL;
	if (slot)
		slot_write(slot, alias, entry_slot_value(method));
}

void slot_take_sites(struct module *module, const struct core_result *result)
{
	const size_t n_sites = result->n_sites * sizeof(result->sites[0]);
	struct core *core = module->core;
	struct slot_batch *batch;
	int budget = SLICE_BUDGET;

	if (!result->n_sites)
		return;
	batch = malloc(sizeof(*batch) + n_sites);
	if (!batch)
		return;
	*batch = (struct slot_batch){ .module = module, .n = result->n_sites };
	memcpy(batch->sites, result->sites, n_sites);
	list_append(&core->batches, &batch->link);
	slot_install(core, &budget);
}

static void slot_batch_free(struct slot_batch *batch)
{
	list_remove(&batch->link);
	free(batch);
}

void slot_install(struct core *core, int *budget)
{
	struct list *link;

	while ((link = list_first(&core->batches))) {
		struct slot_batch *batch = list_entry(link, struct slot_batch, link);

		for (; batch->at < batch->n && *budget > 0; *budget -= SLICE_SITE)
			slot_register(batch->module, &batch->sites[batch->at++]);
		if (batch->at < batch->n) {
			core->is_busy = true;
			return;
		}
		slot_batch_free(batch);
	}
}

void slot_forget_sites(struct core *core, const struct module *module_or_null)
{
	struct list *pos, *after;

	list_for_each_safe(pos, after, &core->batches) {
		struct slot_batch *batch = list_entry(pos, struct slot_batch, link);

		if (!module_or_null || batch->module == module_or_null)
			slot_batch_free(batch);
	}
}

/* -- A module's life --- */
void slot_recover(struct method *method)
{
	const struct ledger *ledger = &method_core(method)->ledger;
	uint32_t row = method->durable->slots;

	for (; row != LEDGER_NONE; row = ledger_slot(ledger, row)->next) {
		uint64_t bit, *known;

		slot_count(method, 1);
		if (ledger_slot(ledger, row)->kind != TIER_SLOT_VTABLE)
			continue;
		known = slot_known(method->module, ledger_slot(ledger, row)->address, &bit);
		*known |= bit;
	}
}

bool slot_release(struct method *method, int *budget)
{
	struct ledger *ledger = &method_core(method)->ledger;
	uint32_t row;

	while ((row = method->durable->slots) != LEDGER_NONE) {
		if (*budget <= 0)
			return false;
		*budget -= SLICE_ROW;
		method->durable->slots = ledger_slot(ledger, row)->next;
		ledger_release(ledger, LEDGER_SLOTS, row);
		slot_count(method, -1);
	}
	return true;
}

const char *slot_check(const struct method *method, const struct entry_values *values, uint32_t n_max)
{
	const struct ledger *ledger = &method_core(method)->ledger;
	uint32_t row = method->durable ? method->durable->slots : LEDGER_NONE;

	for (uint32_t i = 0; row != LEDGER_NONE && i < n_max; i++, row = ledger_slot(ledger, row)->next) {
		const struct ledger_slot *slot = ledger_slot(ledger, row);
		const void *alias = slot_alias(method->module, slot->address);
		uint64_t value;

		if (slot->module != method->module->id || slot->method != method_index(method) || !alias)
			return "a recorded slot is its method's, and lies in the module";
		value = slot_read(slot, alias);
		if (value != values->slots && !(values->may_lag && value == entry_own(method)))
			return "recorded slots hold what the policy has in that stage";
	}
	return NULL;
}
