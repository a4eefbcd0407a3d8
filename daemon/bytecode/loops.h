/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The heads of a body's loops: where a backward jump leads. Patchpoints lie there, and are numbered in this order. */

#include <stdint.h>
#include "bytecode/insn.h"

/* How many there are among @n_insns slots of a verified body; @heads, if not NULL, gets their slots in ascending order (it
 * has room for as many as a call without it returned). Linear, or -ENOMEM. */
int64_t loops_find(const struct insn *insns, uint32_t n_insns, uint32_t *heads);
