/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Counts, as LLVM is told of them: which way a branch goes how often, and how often a function is called. */

#include <llvm-c/Core.h>
#include <stdint.h>

/* @branch is a conditional one, and was seen to go to its first and to its second target so many times. */
void weights_branch(LLVMValueRef branch, uint64_t first, uint64_t second);
/* Calls of @function */
void weights_entry(LLVMValueRef function, uint64_t n);
