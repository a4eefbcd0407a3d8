/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Tier 0's templates for arithmetic: classes ALU and ALU64 */

#include "bytecode/insn.h"
#include "jit/emit.h"

#define ALU_BOUND 48u	/* bytes of the longest template: a signed modulo that keeps rax and rdx */

/* @insn is verified and of class ALU or ALU64. @live: registers that are read after it; others may be left clobbered
 * if they share a machine register that the template needs. */
void alu_emit(struct emit *e, const struct insn *insn, uint16_t live);
