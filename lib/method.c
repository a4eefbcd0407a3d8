/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>
#include "error.h"
#include "module.h"

/* Questions about one method. What shared memory answers needs no daemon, no lock and no system call. */

int tier_find(struct tier_module *module, const char *name, struct tier_method **ret)
{
	struct mapping *const mapping = module->mapping;
	struct wire_find find = { .module = mapping->module };
	struct wire_method_ref found;
	int r;

	if (!*name || strlen(name) >= sizeof(find.method))
		return error_set(-ENOENT, "module '%s' has no method '%s'", mapping->name, name);
	text_copy(find.method, sizeof(find.method), name);
	r = conn_ask_about(module, WIRE_FIND, &find, WIRE_FOUND, &found);
	if (r < 0)
		return r;
	if (found.method >= mapping->layout.n_methods)
		return error_set(-EPROTO, "module '%s': the daemon says that method '%s' has the impossible number %u",
				 mapping->name, name, found.method);
	return tier_method_at(module, found.method, ret);
}

int tier_method_at(struct tier_module *module, uint32_t index, struct tier_method **ret)
{
	struct mapping *const mapping = module->mapping;
	int r;

	if (index >= mapping->layout.n_methods)
		return error_set(-ENOENT, "module '%s' has %u methods, none of number %u", mapping->name,
				 mapping->layout.n_methods, index);
	if (!__atomic_load_n(&mapping->names[index].is_known, __ATOMIC_ACQUIRE)) {
		r = method_fetch_names(module, index);
		if (r < 0)
			return r;
	}
	*ret = &module->methods[index];
	return 0;
}

const char *tier_method_name(const struct tier_method *method)
{
	const struct mapping_name *name = &method->module->mapping->names[method->index];

	return __atomic_load_n(&name->is_known, __ATOMIC_ACQUIRE) ? name->text : "";
}

tier_fn tier_entry(const struct tier_method *method)
{
	return (tier_fn)(uintptr_t)method_address(method);
}

struct tier_answer tier_status(const struct tier_method *method)
{
	const struct mapping *mapping = method->module->mapping;

	return tier_record_answer(method_record(method), mapping->cells, mapping->layout.n_cells);
}

uint32_t tier_remaining(const struct tier_method *method)
{
	return tier_status(method).remaining;
}

int tier_status_ask(const struct tier_method *method, struct tier_answer *ret)
{
	const struct wire_method_ref ref = { .module = method->module->mapping->module, .method = method->index };
	struct wire_answer answer;
	int r;

	r = conn_ask_about(method->module, WIRE_STATUS, &ref, WIRE_ANSWER, &answer);
	if (r < 0)
		return r;
	*ret = (struct tier_answer){ .status = answer.status, .stage = answer.stage, .tier = answer.tier,
				     .reason = answer.reason, .generation = answer.generation, .remaining = answer.remaining,
				     .is_frozen = answer.is_frozen };
	return 0;
}
