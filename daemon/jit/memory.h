/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Tier 0's templates for loads, stores and atomics: classes LDX, ST and STX */

#include "bytecode/insn.h"
#include "jit/emit.h"

#define MEMORY_BOUND 48u	/* bytes of the longest template: an atomic operation that returns the old value by a loop */

/* @insn is verified and of class LDX, ST or STX. @live: registers that are read after it. */
void memory_emit(struct emit *e, const struct insn *insn, uint16_t live);
