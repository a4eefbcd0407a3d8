/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>
#include "error.h"
#include "module.h"

/* Instantiations: the daemon knows whether there is one with these values, and under which name */

static int values_fill(struct wire_instantiate *to, const struct tier_module *module, const struct tier_value *values,
		       uint32_t n)
{
	const char *const name = module->mapping->name;

	if (!n || n > TIER_VALUES_MAX)
		return error_set(-EINVAL, "module '%s': an instantiation gives 1 to %u knobs values, not %u", name,
				 TIER_VALUES_MAX, n);
	for (uint32_t i = 0; i < n; i++) {
		if (strlen(values[i].name) >= sizeof(to->values[i].name))
			return error_set(-EINVAL, "module '%s': the knob's name '%s' has more than %u characters", name,
					 values[i].name, WIRE_KNOB_NAME_MAX - 1);
		text_copy(to->values[i].name, sizeof(to->values[i].name), values[i].name);
		to->values[i].value = values[i].value;
	}
	to->n = n;
	return 0;
}

static int instance_open(struct tier_module *module, const struct tier_value *values, uint32_t n, uint32_t flags,
			 struct tier_module **ret)
{
	struct wire_instantiate instantiate = {.module = module->mapping->module, .flags = flags};
	struct wire_module_ref ref;
	int r;

	r = values_fill(&instantiate, module, values, n);
	if (r < 0)
		return r;
	r = conn_ask_about(module, WIRE_INSTANTIATE, &instantiate, WIRE_LOADED, &ref);
	if (r < 0)
		return r;
	ref.name[sizeof(ref.name) - 1] = 0;
	return module_open(module->conn, &ref, ret);
}

int tier_module_instantiate(struct tier_module *module, const struct tier_value *values, uint32_t n,
			    struct tier_module **ret)
{
	return instance_open(module, values, n, 0, ret);
}

int tier_module_instance(struct tier_module *module, const struct tier_value *values, uint32_t n,
			 struct tier_module **ret)
{
	return instance_open(module, values, n, WIRE_INSTANTIATE_FIND, ret);
}
