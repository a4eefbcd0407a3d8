/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* BPF bytecode → LLVM IR (lower.c) → machine code and relocations (codegen.c). The only users of LLVM. */

#include <stdbool.h>
#include "bytecode/code.h"
#include "worker/job.h"

/* Once per process, in the zygote, before any input: targets, a target machine for the host CPU by its real name and
 * features, and one compile of a tiny built-in method so that lazy initialization is over. 0 or -errno. */
int codegen_init(void);

/* @fn is told the reason when LLVM gives up on its own state (a fatal error) and must not return. Without it: abort(). */
void codegen_set_fatal(void (*fn)(const char *reason));

/* Compiles bodies[0] of @job at its level. On success *ret is filled; its arrays are malloc()ed in one block, *ret_block,
 * which the caller frees. On refusal the sentence says why. */
bool codegen_compile(const struct job_compile *job, struct code_result *ret, void **ret_block, struct refusal *refusal);
