/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>
#include "tiering/census.h"
#include "tiering/internal.h"

static enum tier_status census_status(enum tier_stage stage)
{
	switch (stage) {
	case TIER_STAGE_COLD:
		return TIER_STATUS_COLD;
	case TIER_STAGE_FINAL:
		return TIER_STATUS_FINAL;
	default:
		return TIER_STATUS_OPTIMIZING;
	}
}

void core_module_census(const struct module *module, uint32_t n_status[_TIER_STATUS_N], uint32_t *n_pending)
{
	memset(n_status, 0, _TIER_STATUS_N * sizeof(n_status[0]));
	for (uint32_t i = 0; i < module_n_methods(module); i++)
		n_status[census_status(tier_state_stage(module->records[i].state))]++;
	*n_pending = module->n_pending;
}
