/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What ends a wait, for others that take their time */

#include <stdbool.h>
#include <stdint.h>
#include "tier/tier.h"

bool cancel_is_due(const struct tier_cancel *cancel);	/* NULL: never */
int wait_canceled(const struct tier_method *method);	/* -ECANCELED, with its sentence */
