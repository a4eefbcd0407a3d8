/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>
#include "error.h"
#include "module.h"

/* Measuring between changes: marks, which are read where the daemon writes them, and freezes, which the session holds */

static const struct tier_records_header *header_of(const struct tier_module *module)
{
	return (const void *)(uintptr_t)tier_layout_segment(&module->mapping->layout, TIER_SEGMENT_RECORDS);
}

struct tier_records_mark tier_mark(const struct tier_module *module)
{
	return tier_records_mark(header_of(module));
}

bool tier_changed_since(const struct tier_module *module, const struct tier_records_mark *mark)
{
	const struct tier_records_mark now = tier_mark(module);

	return now.changes != mark->changes || now.changes % 2 || now.n_compiling || mark->n_compiling;
}

static int freeze_ask(struct tier_module *module, enum wire_type type)
{
	const struct wire_module_ref ref = { .module = module->mapping->module };

	return conn_ask(module->conn, type, &ref, WIRE_DONE, NULL);
}

int tier_freeze(struct tier_module *module)
{
	char text[WIRE_TEXT_MAX];
	int r;

	r = freeze_ask(module, WIRE_FREEZE);
	if (r == -ETIMEDOUT) {
		text_copy(text, sizeof(text), tier_error_text());
		freeze_ask(module, WIRE_THAW);
		error_set(r, "%s", text);
	}
	return r;
}

int tier_thaw(struct tier_module *module)
{
	return freeze_ask(module, WIRE_THAW);
}
