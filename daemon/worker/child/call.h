/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Calls as LLVM IR: an inlined body, the callee's entry cell, the import's cell, the slot's call cell, or a register's value */

#include "worker/child/body.h"

/* The call at @pc. Afterwards r0 is its result and r1..r5 are 0. */
void call_lower(struct body *body, const struct insn *insn, uint32_t pc);
