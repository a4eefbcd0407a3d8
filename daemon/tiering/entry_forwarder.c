/* SPDX-License-Identifier: Apache-2.0 */
#include "jit/stubs.h"
#include "tiering/internal.h"

/* --backpatch=forwarder (reference §6.2): slots are patched at every transition; a stub of its own, which is never deleted,
 * stands before the counting stub
 *
 *                P          E and slots and F
 *   cold         prestub    T
 *   uncounted    prestub    the code
 *   counting     prestub    the forwarder, which leads to the counting stub
 *   promotion    prestub    the code
 *   final        prestub    the code
 *
 * Without a forwarder (stubs are off, or a predecessor had another policy) E and the slots are T, and the prestub counts. So P
 * never changes, and every slot that is not recorded yet comes to the prestub. Who has read the forwarder's address before
 * it went out of use still comes through it: it leads to T then. */

static struct entry_values forwarder_values(const struct method *method)
{
	const uint64_t own = entry_own(method), prestub = entry_prestub(method);
	const struct ledger_version *version;
	uint64_t value;

	if (method_stage(method) == TIER_STAGE_COLD)
		return (struct entry_values){ prestub, own, own, false };
	version = version_active(method);
	value = version->code;
	if (method_stage(method) == TIER_STAGE_COUNTING)
		value = version->stub && method->durable->forwarder ? method->durable->forwarder : own;
	return (struct entry_values){ prestub, value, value, false };
}

/* Its target, which follows from the stage too. Were it T while E is still the forwarder, calls would go round. */
static void forwarder_aim(struct method *method)
{
	const struct module *module = method->module;
	const struct core *core = module->core;
	uint64_t target = entry_own(method);

	if (!method->durable->forwarder)
		return;
	if (method_stage(method) == TIER_STAGE_COUNTING && version_active(method)->stub)
		target = version_active(method)->stub;
	__atomic_store_n((uint64_t *)core->ops->alias(core->context, module->context,
						      method->durable->forwarder + FORWARDER_TARGET), target, __ATOMIC_RELEASE);
}

static void forwarder_set(struct method *method, uint64_t code, bool is_final)
{
	entry_backpatch(method, forwarder_values(method).slots);
	entry_store_precode(method, entry_prestub(method));
}

const struct entry_policy entry_forwarder = { .values = forwarder_values, .set = forwarder_set, .aim = forwarder_aim };
