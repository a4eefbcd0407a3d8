/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Two profiles of one body: do they say the same, and what do they say together?
 *
 * The second one comes out of a file: any counts at all, as long as they are of the same sites. */

#include <stdbool.h>
#include <stdint.h>
#include "bytecode/profile.h"

/* Whether both are of the same sites, in the same order, and keep what bytecode/profile.h promises */
bool agree_sites(const struct profile_count *a, const struct profile_count *b, uint32_t n);

/* Whether code made with @old is what @own asks for: at each site that @own has seen AGREE_SEEN times or more, the ratios are
 * within a quarter of each other (taken to executed; calls to entries) and the callx goes to the same target, or to none. What
 * @own has hardly seen does not speak against it. */
#define AGREE_SEEN 16u
bool agree(const struct profile_count *own, const struct profile_count *old, uint32_t n);

/* Adds @old to @own, saturating; a callx keeps the target with more votes, less the other's. */
void agree_add(struct profile_count *own, const struct profile_count *old, uint32_t n);
