/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The entry points' part of `tierctl stats`: what keeping them took, and what each figure counts */

#include <stdbool.h>
#include <tier/wire.h>

/* JSON: a member of an object that others follow. */
void counters_print(const struct wire_counters *counters, bool json);
void counters_help(void);
