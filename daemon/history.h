/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Where this daemon keeps its journal, as its options say. */

#include "journal/journal.h"
#include "options.h"

/* @readable: as journal_config has it. 0, or -errno after the sentence went to the log. */
int history_open(struct journal **ret, struct dispatch *dispatch, const struct options *options, void (*readable)(void *context),
		 void *context);
