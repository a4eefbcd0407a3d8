/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* BPF's integer operations as LLVM IR, with RFC 9669's answers where C has none: x / 0 = 0, x % 0 = x, INT_MIN / -1 = INT_MIN,
 * INT_MIN % -1 = 0, shift counts masked. */

#include <llvm-c/Core.h>
#include "bytecode/insn.h"

/* The operation of an ALU or ALU64 instruction on @a (dst) and @b (src or immediate), all of the operation's width (i32 or
 * i64). MOV with a sign extension and END are included. */
LLVMValueRef arith_alu(LLVMBuilderRef builder, const struct insn *insn, LLVMValueRef a, LLVMValueRef b);

/* The i1 of a conditional jump on @a and @b, of the comparison's width */
LLVMValueRef arith_condition(LLVMBuilderRef builder, const struct insn *insn, LLVMValueRef a, LLVMValueRef b);
