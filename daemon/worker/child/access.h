/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Loads, stores and atomics as LLVM IR. Alignment 1, except for read-modify-write: the bytecode promises none. */

#include "worker/child/body.h"

/* @is_slot: the value is what the next call calls; where it came from is kept for that. */
void access_load(struct body *body, const struct insn *insn, bool is_slot);
void access_store(struct body *body, const struct insn *insn);
void access_atomic(struct body *body, const struct insn *insn);
