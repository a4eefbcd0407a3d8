/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>
#include "error.h"
#include "module.h"

/* Questions about the daemon. Lists come in pages: each asks for what lies behind the last row. */

/* @module NULL: of all, or of all that are the caller's */
static int pending_ask(struct tier_conn *conn, enum wire_scope scope, const struct tier_module *module, uint32_t *ret)
{
	const struct wire_pending pending = { .module = module ? module->mapping->module : 0, .scope = scope };
	struct wire_count count;
	int r;

	r = conn_request(conn, &(struct request){ .type = WIRE_PENDING, .body = &pending, .fd = -1, .reply_type = WIRE_COUNT,
						  .reply = &count, .module = module });
	if (!r)
		*ret = count.count < UINT32_MAX ? count.count : UINT32_MAX;
	return r;
}

int tier_pending_module(struct tier_module *module, uint32_t *ret)
{
	return pending_ask(module->conn, WIRE_SCOPE_MODULE, module, ret);
}

int tier_pending_mine(struct tier_conn *conn, uint32_t *ret)
{
	return pending_ask(conn, WIRE_SCOPE_MINE, NULL, ret);
}

int tier_pending_all(struct tier_conn *conn, uint32_t *ret)
{
	return pending_ask(conn, WIRE_SCOPE_ALL, NULL, ret);
}

int tier_stats(struct tier_conn *conn, struct wire_stats *ret)
{
	const struct wire_empty nothing = { 0 };

	return conn_ask(conn, WIRE_STATS, &nothing, WIRE_STATISTICS, ret);
}

int tier_knobs(struct tier_conn *conn, int (*fn)(const struct wire_knob_row *row, void *context), void *context)
{
	struct wire_cursor cursor = { 0 };
	struct wire_knobs page;
	int r;

	do {
		r = conn_ask(conn, WIRE_KNOBS, &cursor, WIRE_SETTINGS, &page);
		if (!r && (page.n > WIRE_KNOBS_MAX || (page.more && !page.n)))
			r = error_set(-EPROTO, "the daemon sent a list that does not go on");
		if (r < 0)
			return r;
		for (uint32_t i = 0; i < page.n; i++) {
			struct wire_knob_row row = page.rows[i];

			row.name[sizeof(row.name) - 1] = row.value[sizeof(row.value) - 1] = row.standard[sizeof(row.standard) - 1] = 0;
			row.range[sizeof(row.range) - 1] = row.mirrors[sizeof(row.mirrors) - 1] = 0;
			r = fn(&row, context);
			if (r)
				return r;
		}
		cursor.cursor += page.n;
	} while (page.more);
	return 0;
}

/* A page that claims more rows than fit, or that would have us ask for it again, is not a page. */
static int page_check(uint32_t n, uint32_t n_max, bool more, uint64_t last, uint64_t cursor)
{
	if (n > n_max || (more && (!n || last <= cursor)))
		return error_set(-EPROTO, "the daemon sent a list that does not go on");
	return 0;
}

static struct tier_module_row module_row(const struct wire_module_row *from)
{
	struct tier_module_row row = {
		.id = from->module, .uid = from->uid, .n_methods = from->n_methods, .n_pending = from->n_pending,
		.shared = from->flags & WIRE_MODULE_SHARED, .unloaded = from->flags & WIRE_MODULE_UNNAMED,
		.frozen = from->flags & WIRE_MODULE_FROZEN,
	};

	memcpy(row.n_status, from->n_status, sizeof(row.n_status));
	text_copy(row.name, sizeof(row.name), from->name);
	return row;
}

int tier_list(struct tier_conn *conn, int (*fn)(const struct tier_module_row *row, void *context), void *context)
{
	struct wire_cursor cursor = { 0 };
	struct wire_modules page;
	int r;

	do {
		r = conn_ask(conn, WIRE_LIST, &cursor, WIRE_MODULES, &page);
		if (!r)
			r = page_check(page.n, WIRE_MODULES_MAX, page.more, page.n ? page.rows[(page.n - 1) % WIRE_MODULES_MAX].module : 0,
				       cursor.cursor);
		if (r < 0)
			return r;
		for (uint32_t i = 0; i < page.n; i++) {
			const struct tier_module_row row = module_row(&page.rows[i]);

			r = fn(&row, context);
			if (r)
				return r;
			cursor.cursor = row.id;
		}
	} while (page.more);
	return 0;
}

int tier_clients(struct tier_conn *conn, int (*fn)(const struct wire_session_row *row, void *context), void *context)
{
	struct wire_cursor cursor = { 0 };
	struct wire_sessions page;
	int r;

	do {
		r = conn_ask(conn, WIRE_CLIENTS, &cursor, WIRE_SESSIONS, &page);
		if (!r)
			r = page_check(page.n, WIRE_SESSIONS_MAX, page.more,
				       page.n ? page.rows[(page.n - 1) % WIRE_SESSIONS_MAX].number : 0, cursor.cursor);
		if (r < 0)
			return r;
		for (uint32_t i = 0; i < page.n; i++) {
			struct wire_session_row row = page.rows[i];

			row.program[sizeof(row.program) - 1] = row.why[sizeof(row.why) - 1] = 0;
			r = fn(&row, context);
			if (r)
				return r;
			cursor.cursor = row.number;
		}
	} while (page.more);
	return 0;
}
