/* SPDX-License-Identifier: Apache-2.0 */
#include "tiering/internal.h"

/* --backpatch=eager (reference §6.3): slots are patched at each publication, and reset while calls are counted, through P
 *
 *                P          E                   slots and F
 *   cold         prestub    T                   T
 *   uncounted    prestub    the code            the code
 *   counting     the stub   the code            T
 *   promotion    prestub    the code            as counting left them, until a call through one repairs it
 *   final        prestub    the code            the code
 *
 * P is the prestub or a stub, and never native code, which would hide slots from discovery. Counting in the prestub leaves E
 * and the slots at T. The known defects are kept, and counted:
 *
 *   n_uncounted_entries   E is the code while calls are counted, so direct calls pass the stub by
 *   n_stale_completions   E is the code already when counting is over, so the walk of the slots returns at once and leaves them
 *                         at T: calls come to the prestub, those through F and displacements until the next walk
 *   n_unsafe_inactive     a version is published uncounted while P leads to a stub (of the body that it replaces). There the
 *                         original leaves P; we do not, or calls would run the wrong body */

static struct entry_values eager_values(const struct method *method)
{
	const uint64_t own = entry_own(method), prestub = entry_prestub(method);
	const struct ledger_version *version;

	if (method_stage(method) == TIER_STAGE_COLD)
		return (struct entry_values){ prestub, own, own, false };
	version = version_active(method);
	if (method_stage(method) != TIER_STAGE_COUNTING)
		return (struct entry_values){ prestub, version->code, version->code, method_stage(method) >= TIER_STAGE_REACHED };
	return version->stub ? (struct entry_values){ version->stub, version->code, own, false }
			     : (struct entry_values){ prestub, own, own, false };
}

static void eager_count(struct method *method, uint64_t stub)
{
	entry_store_precode(method, stub);
	entry_backpatch(method, entry_own(method));
	entry_store_entry(method, version_active(method)->code);
	method_core(method)->counters.n_uncounted_entries++;
}

static void eager_publish(struct method *method, uint64_t code)
{
	struct core_counters *counters = &method_core(method)->counters;
	const struct tier_record *record = method_record(method);
	const bool was_counted = record->precode != entry_prestub(method);

	counters->n_stale_completions += was_counted && record->entry == code;
	counters->n_unsafe_inactive += was_counted && method_stage(method) == TIER_STAGE_UNCOUNTED;
	entry_backpatch(method, code);
	entry_store_precode(method, entry_prestub(method));
}

static void eager_set(struct method *method, uint64_t code, bool is_final)
{
	if (code && method_stage(method) == TIER_STAGE_COUNTING) {
		eager_count(method, code);
	} else if (code) {
		eager_publish(method, code);
	} else {
		entry_backpatch(method, entry_own(method));
		entry_store_precode(method, entry_prestub(method));
	}
}

const struct entry_policy entry_eager = { .values = eager_values, .set = eager_set };
