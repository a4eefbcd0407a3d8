/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* An answer about a method as columns of a table: status, stage, tier, remaining, generation, reason, frozen. */

#include <tier/tier.h>
#include "table.h"

#define ANSWER_COLUMNS                                                                                                 \
	{ "status", COLUMN_TEXT }, { "stage", COLUMN_TEXT }, { "tier", COLUMN_TEXT }, { "remaining", COLUMN_NUMBER },  \
		{ "generation", COLUMN_NUMBER }, { "reason", COLUMN_TEXT }, { "frozen", COLUMN_BOOL }

static inline void answer_cells(struct table *table, const struct tier_answer *answer)
{
	table_text(table, tier_status_name(answer->status));
	table_text(table, tier_stage_name(answer->stage));
	table_text(table, answer->stage == TIER_STAGE_COLD ? "none" : tier_level_name(answer->tier));
	table_number(table, answer->remaining);
	table_number(table, answer->generation);
	table_text(table, tier_reason_name(answer->reason));
	table_bool(table, answer->is_frozen);
}
