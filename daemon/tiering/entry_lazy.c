/* SPDX-License-Identifier: Apache-2.0 */
#include "tiering/internal.h"

/* --backpatch=lazy (reference §6.4): non-final tiers store P and nothing else
 *
 *                P                              E      slots and F
 *   cold         prestub                        T      T
 *   uncounted    the code                       T      T
 *   counting     the stub, or without stubs     T      T
 *                the prestub, which counts
 *   promotion    the code                       T      T
 *   final        prestub                        code   recorded ones: the code
 *
 * At the final tier P is the prestub so that a call through a slot that nobody knows yet makes it known. A method that is not
 * backpatchable has no such slots: its precode leads to the code then, under all policies. Slots are walked only on the
 * way to the final tier and back. */

static struct entry_values lazy_values(const struct method *method)
{
	const uint64_t own = entry_own(method), prestub = entry_prestub(method);
	const struct ledger_version *version;

	if (method_stage(method) == TIER_STAGE_COLD)
		return (struct entry_values){ prestub, own, own, false };
	version = version_active(method);
	switch (method_stage(method)) {
	case TIER_STAGE_COUNTING:
		return (struct entry_values){ version->stub ? version->stub : prestub, own, own, false };
	case TIER_STAGE_FINAL:
		return (struct entry_values){ entry_is_backpatchable(method) ? prestub : version->code, version->code,
					      version->code, false };
	default:
		return (struct entry_values){ version->code, own, own, false };
	}
}

/* Where E is right, so are the slots. */
static void lazy_lead_slots(struct method *method, uint64_t value)
{
	if (method_record(method)->entry != value)
		entry_backpatch(method, value);
}

static void lazy_set(struct method *method, uint64_t code, bool is_final)
{
	if (is_final) {
		lazy_lead_slots(method, code);
		entry_store_precode(method, entry_is_backpatchable(method) ? entry_prestub(method) : code);
	} else if (code) {
		entry_store_precode(method, code);
		lazy_lead_slots(method, entry_own(method));
	} else {
		lazy_lead_slots(method, entry_own(method));
		entry_store_precode(method, entry_prestub(method));
	}
}

const struct entry_policy entry_lazy = { .values = lazy_values, .set = lazy_set };
