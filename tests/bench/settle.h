/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A method that is final may still call methods that are not: what is measured must be settled as a whole. */

#include <stdint.h>
#include "bench/inputs.h"
#include "tier/tier.h"

/* Calls @fn until no method of @module is on its way any more (each is final, or was never called). Returns the number of
 * calls, or -errno of a wait. */
int64_t settle(struct tier_module *module, const struct workload_input *input, workload_function *fn);
