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

/* @only_in as in struct request, of which *session is the same */
static int freeze_ask(struct tier_module *module, enum wire_type type, uint32_t only_in, uint32_t *session)
{
	const struct wire_module_ref ref = { .module = module->mapping->module };
	struct request request = { .type = type, .body = &ref, .fd = -1, .reply_type = WIRE_DONE, .module = module,
				   .only_in = only_in };
	int r;

	r = conn_request(module->conn, &request);
	if (session)
		*session = request.session;
	return r;
}

int tier_freeze(struct tier_module *module)
{
	char text[WIRE_TEXT_MAX];
	uint32_t session;
	int r;

	r = freeze_ask(module, WIRE_FREEZE, 0, &session);
	if (!r) {
		module->freeze_session = session;
		module->freeze_epoch = module->conn->epoch;
	}
	if (r == -ETIMEDOUT && session) {
		text_copy(text, sizeof(text), tier_error_text());
		freeze_ask(module, WIRE_THAW, session, NULL);
		error_set(r, "%s", text);
	}
	return r;
}

/* The daemon knows freezes of sessions that are there; of another one that we had, we know ourselves. A fork never froze. */
int tier_thaw(struct tier_module *module)
{
	struct tier_conn *const conn = module->conn;
	const bool is_ours = __atomic_load_n(&conn->page->mine, __ATOMIC_ACQUIRE) && module->freeze_epoch == conn->epoch;
	const uint32_t session = is_ours ? module->freeze_session : 0;
	int r;

	module->freeze_session = 0;
	r = freeze_ask(module, WIRE_THAW, session, NULL);
	if (r == -ECONNRESET && session)
		return error_set(r, "module '%s' is not frozen any more: its freeze ended with the connection to the daemon at %s",
				 module->mapping->name, conn->address.sun_path);
	return r;
}
