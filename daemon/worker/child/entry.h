/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* How a body begins, as LLVM IR: places for its registers, its frame, its arguments
 *
 * A body that is entered at the head of a loop (OSR) finds its registers in memory and its frame where it is; it does neither
 * make nor clear one. */

#include "worker/child/body.h"

/* Makes the entry block, and leaves the builder at its end. */
void entry_lower(struct body *body);
