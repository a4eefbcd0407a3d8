/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* How a body begins, as LLVM IR: places for its registers, its frame, its arguments */

#include "worker/child/body.h"

/* Makes the entry block, and leaves the builder at its end. */
void entry_lower(struct body *body);
