/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The census: how a module's methods stand, counted from what clients see */

#include "tiering/core.h"

/* Methods by status, and how many are queued or being compiled. Reads one word per method and looks at no counter: it is
 * for overviews, and 10,000 methods take well below a millisecond. */
void core_module_census(const struct module *module, uint32_t n_status[_TIER_STATUS_N], uint32_t *n_pending);
