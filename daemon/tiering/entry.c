/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include "tiering/internal.h"
#include "util/log.h"

/* What clients see of a method, and the one place where entry points change (DESIGN §4):
 *
 *   P   target of its precode, whose address is T: what every call reaches that knows nothing better
 *   E   its entry-point cell: what direct calls reach
 *   F   target of its funcptr precode, if it is backpatchable
 *   and the slots that were recorded: call cells, and displacements in code
 *
 * Who holds what in which stage is the policy's: entry_lazy.c is ours, and also that of methods that are not backpatchable;
 * entry_eager.c and entry_forwarder.c are there to be measured against. Common to all: E says whether slots are patched (it
 * is T while they are not), no slot ever holds a counting stub, and what clients see is a function of the ledger, so that a
 * successor can write it again.
 *
 * Order of stores: the mark, if the generation grows (mark.c); fields, then entry points, then the state word that
 * announces them. Where a call could find nothing but the prestub on its way, the state word says so first (cold), or P
 * leads to code before the slots lead to T.
 *
 * For the count of oscillations it is remembered when a value was an entry point: a slot held a value before if it was
 * recorded before the epoch up to which slots held that. Every slot begins with T. */

#define CHECK_SLOTS_MAX 64u	/* that many are looked at after a transition */

static void store(uint64_t *field, uint64_t value)
{
	__atomic_store_n(field, value, __ATOMIC_RELEASE);
}

bool entry_is_backpatchable(const struct method *method)
{
	return method_record(method)->flags & TIER_RECORD_BACKPATCHABLE;
}

uint64_t entry_own(const struct method *method)
{
	return tier_layout_precode(&method->module->durable->layout, method_index(method));
}

uint64_t entry_prestub(const struct method *method)
{
	return tier_layout_thunk(&method->module->durable->layout, TIER_THUNK_PRESTUB);
}

/* -- Stores --- */
/* Where the precode leads: a direct jump costs a call next to nothing, one through the record would cost it a prediction. */
static void entry_store_jump(struct method *method, uint64_t value)
{
	const struct tier_layout *layout = &method->module->durable->layout;
	const struct core *core = method_core(method);
	int32_t *jump = core->ops->alias(core->context, method->module->context, entry_own(method) + TIER_PRECODE_JUMP);

	__atomic_store_n(jump, tier_layout_precode_jump(layout, method_index(method), value), __ATOMIC_RELEASE);
}

/* The jump is what calls follow, the record what visitors of the prestub read: whoever comes there between the two stores must
 * find a target in the record. */
void entry_store_precode(struct method *method, uint64_t value)
{
	const bool is_closing = value == entry_prestub(method);
	struct tier_record *record = method_record(method);

	method_core(method)->counters.n_precode_stores += record->precode != value;
	if (is_closing)
		entry_store_jump(method, value);
	if (record->precode != value)
		store(&record->precode, value);
	if (!is_closing)
		entry_store_jump(method, value);
}

struct entry_held *entry_held(struct method *method, uint64_t value)
{
	if (value == entry_own(method))
		return NULL;
	if (value == method->durable->forwarder)
		return &method->forwarder;
	return &method_core(method)->held[method->durable->active];
}

void entry_store_entry(struct method *method, uint64_t value)
{
	struct core_counters *counters = &method_core(method)->counters;
	struct tier_record *record = method_record(method);
	struct entry_held *held = entry_held(method, value);

	if (record->entry == value)
		return;
	counters->n_entry_transitions++;
	counters->n_oscillations += !held || held->entry;
	if (held)
		held->entry = true;
	method->holder = held;
	store(&record->entry, value);
}

static void entry_store_funcptr(struct method *method, uint64_t value, const struct entry_held *held)
{
	struct core_counters *counters = &method_core(method)->counters;
	struct tier_record *record = method_record(method);

	if (!entry_is_backpatchable(method) || record->funcptr == value)
		return;
	counters->n_funcptr_writes++;
	counters->n_oscillations += !held || held->slots;
	store(&record->funcptr, value);
}

/* E last on the way to T and first on the way from it: a visitor of the prestub that finds T there looks at P. */
void entry_backpatch(struct method *method, uint64_t value)
{
	struct core *core = method_core(method);
	const struct entry_held *held = entry_held(method, value);
	uint64_t begin;

	core->counters.n_backpatch_calls++;
	if (method_record(method)->entry == value)
		return;
	begin = core->ops->now(core->context);
	core->epoch++;
	if (method->holder)
		method->holder->slots = core->epoch;
	if (held)
		entry_store_entry(method, value);
	slot_write_all(method, value, held);
	entry_store_funcptr(method, value, held);
	entry_store_entry(method, value);
	core->counters.backpatch_ns += core->ops->now(core->context) - begin;
}

/* -- Setting --- */
static const struct entry_policy *entry_policy(const struct method *method)
{
	return entry_is_backpatchable(method) ? method_core(method)->policy : &entry_lazy;
}

/* Under lazy E leaves T at the final tier, under the others as soon as there is code. */
bool entry_may_have_led(const struct method *method)
{
	return method->durable->was_final || entry_policy(method) != &entry_lazy;
}

void entry_point_set(struct method *method, uint64_t code, bool is_final, bool only_from_prestub)
{
	const struct tier_record *record = method_record(method);

	assert(!(is_final && only_from_prestub));
	if (only_from_prestub && (record->precode != entry_prestub(method) || record->entry != entry_own(method)))
		return;
	entry_policy(method)->set(method, code, is_final);
}

static const char *entry_check_slots(const struct method *method, const struct entry_values *values, uint32_t n_max)
{
	const uint64_t funcptr = method_record(method)->funcptr;

	if (entry_is_backpatchable(method) && funcptr != values->slots && !(values->may_lag && funcptr == entry_own(method)))
		return "F is a slot like all others";
	return slot_check(method, values, n_max);
}

/* Whatever a predecessor left half done: P first where it leads to code, last where it leads to the prestub. Slots may only lag
 * if it was not in the middle of something: @is_whole. */
static void entry_repair(struct method *method, bool is_whole)
{
	const struct entry_values values = entry_policy(method)->values(method);
	const bool is_open = values.precode != entry_prestub(method);
	const struct entry_held *held = entry_held(method, values.slots);

	if (is_open)
		entry_store_precode(method, values.precode);
	if (!is_whole || entry_check_slots(method, &values, UINT32_MAX)) {
		slot_write_all(method, values.slots, held);
		entry_store_funcptr(method, values.slots, held);
	}
	entry_store_entry(method, values.entry);
	method->holder = entry_held(method, values.entry);
	entry_store_precode(method, values.precode);
}

uint64_t entry_slot_value(const struct method *method)
{
	return entry_policy(method)->values(method).slots;
}

/* -- The record --- */
static uint64_t entry_code(const struct method *method)
{
	const enum tier_stage stage = method_stage(method);

	if (stage == TIER_STAGE_COLD)
		return 0;
	return stage == TIER_STAGE_COUNTING ? version_active(method)->stub : version_active(method)->code;
}

static uint64_t entry_state(const struct method *method)
{
	const struct ledger_method *durable = method->durable;
	const bool is_final = durable->stage == TIER_STAGE_FINAL;

	return tier_state_make(durable->generation, is_final ? durable->reason : TIER_REASON_NONE, method_level(method),
			       durable->stage)
	     | (method->is_frozen ? TIER_STATE_FROZEN : 0);
}

/* Nobody may take one version's fields for another's: see tier_record_answer(). */
static void entry_announce(struct method *method)
{
	const struct ledger_version *version = version_active(method);
	struct tier_record *record = method_record(method);
	const unsigned int stage = tier_state_stage(record->state);

	if (record->version == version->id || (stage != TIER_STAGE_COUNTING && stage != TIER_STAGE_UNCOUNTED))
		return;
	store(&record->state, tier_state_make(method->durable->generation, TIER_REASON_NONE, version->level,
					      TIER_STAGE_REACHED));
}

static void entry_fill_cold(struct method *method)
{
	struct tier_record *record = method_record(method);

	store(&record->state, entry_state(method));
	store(&record->version, 0);
	store(&record->code, 0);
}

static void entry_fill(struct method *method)
{
	const struct ledger_version *version;
	struct tier_record *record = method_record(method);

	if (method_stage(method) == TIER_STAGE_COLD) {
		entry_fill_cold(method);
		return;
	}
	entry_announce(method);
	version = version_active(method);
	store(&record->code, version->code);
	store(&record->version, version->id);
	__atomic_store_n(&record->cell, version->cell, __ATOMIC_RELEASE);
	__atomic_store_n(&record->threshold, version->threshold, __ATOMIC_RELEASE);
}

static void entry_take(struct method *method, enum tier_path path, struct tier_record before)
{
	const struct tier_record *record = method_record(method);
	struct core_counters *counters = &method_core(method)->counters;
	const uint64_t n_writes = counters->n_slot_writes;
	const bool is_whole = before.state == entry_state(method), is_counting = method_stage(method) == TIER_STAGE_COUNTING;

	counters->n_paths[path]++;
	if (is_counting && entry_policy(method)->aim)
		entry_policy(method)->aim(method);
	if (path == TIER_PATH_RECOVERED)
		entry_repair(method, is_whole);
	else
		entry_point_set(method, entry_code(method), method_stage(method) == TIER_STAGE_FINAL,
				path == TIER_PATH_INITIAL_PUBLISH_NON_FINAL);
	if (!is_counting && entry_policy(method)->aim)
		entry_policy(method)->aim(method);
	log_tiering(INFO10000, tier_path_name(path), method->module->durable->name, method_index(method),
		    "body %u version %lu P %#lx -> %#lx E %#lx -> %#lx F %#lx -> %#lx, %lu slots written", method_body(method),
		    (unsigned long)record->version, (unsigned long)before.precode, (unsigned long)record->precode,
		    (unsigned long)before.entry, (unsigned long)record->entry, (unsigned long)before.funcptr,
		    (unsigned long)record->funcptr, (unsigned long)(counters->n_slot_writes - n_writes));
}

void entry_refresh(struct method *method, enum tier_path path)
{
	struct tier_record before;
	bool is_change;

	if (!method->durable)
		return;		/* a record is made cold */
	before = *method_record(method);
	method->is_frozen = freeze_holds(method);
	is_change = tier_state_generation(before.state) != method->durable->generation;
	if (is_change)
		mark_begin(method->module);
	entry_fill(method);
	if (path != PATH_KEPT)
		entry_take(method, path, before);
	/* Synchronizes with the acquire load in tier_record_answer(): first the fields, then the word that announces them. */
	store(&method_record(method)->state, entry_state(method));
	if (is_change)
		mark_end(method->module);
	assert(!entry_check(method, CHECK_SLOTS_MAX));
}

/* -- Invariants (reference §6.5) --- */
static const char *entry_check_never_called(const struct method *method)
{
	const struct tier_record *record = method_record(method);

	if (record->precode != entry_prestub(method) || record->entry != entry_own(method)
	    || (entry_is_backpatchable(method) && record->funcptr != entry_own(method)))
		return "a method that was never called leads to the prestub";
	if (tier_state_stage(record->state) != TIER_STAGE_COLD || record->code || record->version)
		return "a cold method's record is cold";
	return NULL;
}

static const char *entry_check_fields(const struct method *method)
{
	const struct tier_record *record = method_record(method);
	const struct ledger_version *version;

	if (record->state != entry_state(method))
		return "a state word tells the ledger's state";
	if (method_stage(method) == TIER_STAGE_COLD)
		return record->code || record->version ? "a cold method's record names no code" : NULL;
	version = version_active(method);
	if (record->version != version->id || record->code != version->code)
		return "a record names the active version and its code";
	if (method_stage(method) == TIER_STAGE_COUNTING && (record->cell != version->cell
	    || record->cell >= method->module->durable->layout.n_cells || record->threshold != version->threshold))
		return "a counting method has its version's cell and threshold";
	if (version->body != method->durable->body)
		return "the active version is one of the current body";
	return NULL;
}

const char *entry_check(const struct method *method, uint32_t n_slots_max)
{
	const struct tier_record *record = method_record(method);
	struct entry_values values;
	const char *broken;

	if (!method->durable)
		return entry_check_never_called(method);
	broken = entry_check_fields(method);
	if (broken)
		return broken;
	values = entry_policy(method)->values(method);
	if (record->precode != values.precode)
		return "P leads where the policy has it in that stage";
	if (record->entry != values.entry)
		return "E is what the policy has in that stage: T while slots are not patched";
	if (method_stage(method) != TIER_STAGE_COLD && version_active(method)->stub
	    && (record->entry == version_active(method)->stub || record->funcptr == version_active(method)->stub))
		return "nothing but P ever holds a counting stub";
	return entry_check_slots(method, &values, n_slots_max);
}
