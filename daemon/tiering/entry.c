/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include "tiering/internal.h"

/* What clients see of a method, and the one place where entry points change (DESIGN §4):
 *
 *              P                                    E
 *   cold       prestub                              T
 *   non-final  the code, or its counting stub       T
 *   final      the code                             the code
 *
 * Vtable slots and funcptr precodes belong to this function too, once methods have them: a final tier will patch the
 * recorded ones and put P back to the prestub.
 *
 * Everything is derived from the ledger, so writing it again, after a takeover too, changes nothing. */

static struct tier_record *entry_record(const struct method *method)
{
	return &method->module->records[method_index(method)];
}

static void store(uint64_t *field, uint64_t value)
{
	__atomic_store_n(field, value, __ATOMIC_RELEASE);
}

static uint64_t entry_prestub(const struct method *method)
{
	return tier_layout_thunk(&method->module->durable->layout, TIER_THUNK_PRESTUB);
}

void entry_point_set(struct method *method, uint64_t code, bool is_final, bool only_from_prestub)
{
	struct tier_record *record = entry_record(method);

	assert(!(is_final && only_from_prestub));
	if (only_from_prestub && record->precode != entry_prestub(method))
		return;
	if (is_final)
		store(&record->entry, code);
	store(&record->precode, code);
}

/* Where calls of a method that has code go */
static uint64_t entry_target(const struct method *method)
{
	const struct ledger_version *version = version_active(method);

	return method_stage(method) == TIER_STAGE_COUNTING ? version->stub : version->code;
}

static uint64_t entry_state(const struct method *method)
{
	const struct ledger_method *durable = method->durable;

	return tier_state_make(durable->generation, durable->reason, version_active(method)->level, durable->stage);
}

void entry_refresh(struct method *method)
{
	struct tier_record *record = entry_record(method);
	enum tier_stage stage = method_stage(method);
	const struct ledger_version *version;

	if (stage == TIER_STAGE_COLD)
		return;		/* a record is made cold, and never becomes so again */
	version = version_active(method);
	store(&record->code, version->code);
	store(&record->version, version->id);
	__atomic_store_n(&record->cell, version->cell, __ATOMIC_RELEASE);
	__atomic_store_n(&record->threshold, version->threshold, __ATOMIC_RELEASE);
	entry_point_set(method, entry_target(method), stage == TIER_STAGE_FINAL, stage == TIER_STAGE_UNCOUNTED);
	/* Synchronizes with the acquire load in tier_record_answer(): first the fields, then the word that announces them. */
	store(&record->state, entry_state(method));
}

const char *entry_check(const struct method *method)
{
	const struct tier_layout *layout = &method->module->durable->layout;
	const struct tier_record *record = entry_record(method);
	enum tier_stage stage = method_stage(method);
	uint64_t own = tier_layout_precode(layout, method_index(method));

	if (stage == TIER_STAGE_COLD) {
		if (record->precode != entry_prestub(method) || record->entry != own)
			return "a cold method's precode leads to the prestub, its entry point to its precode";
		if (tier_state_stage(record->state) != TIER_STAGE_COLD || record->code || record->version)
			return "a cold method's record is cold";
		return NULL;
	}
	if (record->precode != entry_target(method))
		return "a precode leads to its version's code, or while counting to its stub";
	if (record->entry != (stage == TIER_STAGE_FINAL ? version_active(method)->code : own))
		return "an entry point is the precode until the final tier, then the code";
	if (record->state != entry_state(method))
		return "a state word tells the ledger's state";
	if (record->version != version_active(method)->id || record->code != version_active(method)->code)
		return "a record names the active version and its code";
	if (stage == TIER_STAGE_COUNTING && record->cell >= layout->n_cells)
		return "a counting method has a cell of its module";
	return NULL;
}
