/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <tier/wire.h>
#include "ctl.h"
#include "table.h"

/* Modules: load, unload, list */

/* What of the object was left out: it is loaded all the same. */
static void load_tell_note(struct tier_module *module)
{
	struct wire_description description;
	struct tier_method *method;

	if (!tier_method_at(module, 0, &method) && !tier_describe(method, &description) && *description.note)
		fprintf(stderr, "tierctl: %s: note: %s\n", tier_module_name(module), description.note);
}

int cmd_load(struct ctl *ctl)
{
	static const struct column columns[] = { { "module", COLUMN_TEXT }, { "id", COLUMN_NUMBER }, { "methods", COLUMN_NUMBER } };
	struct tier_module *module;
	struct table *table;
	uint32_t n;
	int r;

	r = tier_load(ctl->conn, ctl->args[0], ctl->name, ctl->shared ? TIER_LOAD_SHARED : 0, &module);
	if (r == -EEXIST)
		return fail("%s: %s; unload it, or give another --name", ctl->args[0], tier_error_text());
	if (r)
		return fail_tier(ctl->args[0]);
	n = tier_module_n_methods(module);
	if (!ctl->json) {
		printf("%s: %u method%s\n", tier_module_name(module), n, n == 1 ? "" : "s");
	} else {
		table = table_new("modules", columns, 3, true, false);
		table_row(table);
		table_text(table, tier_module_name(module));
		table_number(table, tier_module_id(module));
		table_number(table, n);
		table_end(table);
	}
	load_tell_note(module);
	tier_close(module);
	return CTL_DONE;
}

int cmd_unload(struct ctl *ctl)
{
	struct tier_module *module = NULL;
	const char *name = ctl->args[0];

	if (strchr(name, '<')) {	/* the daemon knows it under one name, however its knobs are written */
		if (!target_open_module(ctl, name, false, &module))
			return CTL_FAILED;
		if (!strchr(name, '/'))
			name = tier_module_name(module);
	}
	return tier_unload(ctl->conn, name) ? fail_tier(ctl->args[0]) : CTL_DONE;
}

static int list_row(const struct tier_module_row *row, void *context)
{
	struct table *table = context;

	table_row(table);
	table_text(table, row->name);
	table_number(table, row->id);
	table_number(table, row->uid);
	table_number(table, row->n_methods);
	for (int status = 0; status < _TIER_STATUS_N; status++)
		table_number(table, row->n_status[status]);
	table_number(table, row->n_pending);
	table_bool(table, row->shared);
	table_bool(table, row->unloaded);
	table_bool(table, row->frozen);
	return 0;
}

int cmd_list(struct ctl *ctl)
{
	static const struct column columns[] = {
		{ "module", COLUMN_TEXT }, { "id", COLUMN_NUMBER }, { "uid", COLUMN_NUMBER }, { "methods", COLUMN_NUMBER },
		{ "cold", COLUMN_NUMBER }, { "optimizing", COLUMN_NUMBER }, { "final", COLUMN_NUMBER },
		{ "pending", COLUMN_NUMBER }, { "shared", COLUMN_BOOL }, { "unloaded", COLUMN_BOOL },
		{ "frozen", COLUMN_BOOL },
	};
	struct table *table = table_new("modules", columns, sizeof(columns) / sizeof(columns[0]), ctl->json, false);
	int r = tier_list(ctl->conn, list_row, table);

	table_end(table);
	return r ? fail_tier("list") : CTL_DONE;
}
