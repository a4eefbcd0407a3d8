/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What .rodata says is known when a method is compiled: a knob is a number, a table's entry a method. */

#include <llvm-c/Core.h>
#include <stdbool.h>
#include "worker/job.h"

/* Whether there can be anything to fold: the job came with .rodata, and the lowered @module refers to it. Code that is made
 * before its module is loaded (READY_TO_RUN) may run with another .rodata, an instantiation's: there nothing is known. */
bool fold_applies(LLVMModuleRef module, const struct job_compile *job);

/* Replaces each load of .rodata at a known offset by what lies there, and each call of a method that has become known, by its
 * address or through its slot, by a call through its entry cell. Returns whether there was any: then passes that simplify may
 * bring about more. Addresses must not have been hidden from LLVM. */
bool fold(LLVMModuleRef module, const struct job_compile *job);
