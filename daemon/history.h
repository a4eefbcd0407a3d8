/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Where this daemon keeps its journal, as its options say, and what its predecessor left of it.
 *
 * The journal's memory is stored as "journal.N". A successor with room for another number of events stores a copy as N + 1 before it
 * removes the old one, so of two the higher one is whole. */

#include "journal/journal.h"
#include "options.h"
#include "store/store.h"

/* @store: NULL is none. @readable: as journal_config has it. 0, or -errno after the sentence went to the log. */
int history_open(struct journal **ret, struct dispatch *dispatch, const struct options *options, struct store *store,
		 void (*readable)(void *context), void *context);
