/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include "server/catalog.h"
#include "server/feed.h"
#include "server/freeze.h"
#include "server/hold.h"
#include "server/instantiate.h"
#include "server/load.h"
#include "server/look.h"
#include "server/query.h"
#include "server/rejit.h"
#include "server/report.h"
#include "server/request.h"
#include "server/session.h"
#include "server/settle.h"
#include "server/slots.h"
#include "server/wait.h"
#include "util/base.h"

/* -- The table of requests --- */
struct request_row {
	const char *name;
	unsigned int n_fds;		/* that must come along */
	int (*handle)(struct lane *lane, const struct request *request);
};
static const struct request_row request_rows[] = {
	[WIRE_HELLO] = { "HELLO", 0, session_hello },
	[WIRE_PROBED] = { "PROBED", 0, session_probed },
	[WIRE_LOAD] = { "LOAD", 1, load_request },
	[WIRE_UNLOAD] = { "UNLOAD", 0, hold_unload },
	[WIRE_ATTACH] = { "ATTACH", 0, hold_attach },
	[WIRE_DETACH] = { "DETACH", 0, hold_detach },
	[WIRE_LIST] = { "LIST", 0, catalog_list },
	[WIRE_METHODS] = { "METHODS", 0, catalog_methods },
	[WIRE_IMPORTS] = { "IMPORTS", 0, catalog_imports },
	[WIRE_FIND] = { "FIND", 0, catalog_find },
	[WIRE_PREPARE] = { "PREPARE", 0, query_prepare },
	[WIRE_STATUS] = { "STATUS", 0, query_answer },
	[WIRE_REMAINING] = { "REMAINING", 0, query_answer },
	[WIRE_WAIT] = { "WAIT", 0, wait_request },
	[WIRE_CANCEL] = { "CANCEL", 0, wait_cancel },
	[WIRE_PENDING] = { "PENDING", 0, query_pending },
	[WIRE_STATS] = { "STATS", 0, report_stats },
	[WIRE_CLIENTS] = { "CLIENTS", 0, report_clients },
	[WIRE_EVENTS] = { "EVENTS", 0, feed_request },
	[WIRE_THRESHOLD] = { "THRESHOLD", 0, query_threshold },
	[WIRE_DESCRIBE] = { "DESCRIBE", 0, look_describe },
	[WIRE_HISTORY] = { "HISTORY", 0, look_history },
	[WIRE_RELATED] = { "RELATED", 0, look_related },
	[WIRE_BYTECODE] = { "BYTECODE", 0, look_bytecode },
	[WIRE_LINES] = { "LINES", 0, look_lines },
	[WIRE_REJIT] = { "REJIT", 1, rejit_request },
	[WIRE_REVERT] = { "REVERT", 0, rejit_revert },
	[WIRE_SLOT_USED] = { "SLOT_USED", 0, slots_used },
	[WIRE_SLOT_WATCH] = { "SLOT_WATCH", 0, slots_watch },
	[WIRE_SLOT_DONE] = { "SLOT_DONE", 0, slots_done },
	[WIRE_COUNTERS] = { "COUNTERS", 0, report_counters },
	[WIRE_OSR] = { "OSR", 0, query_osr },
	[WIRE_FREEZE] = { "FREEZE", 0, freeze_request },
	[WIRE_THAW] = { "THAW", 0, freeze_thaw },
	[WIRE_MARK] = { "MARK", 0, freeze_mark },
	[WIRE_SETTLED] = { "SETTLED", 0, settle_request },
	[WIRE_KNOBS] = { "KNOBS", 0, report_knobs },
	[WIRE_PRECOMPILE] = { "PRECOMPILE", 1, load_precompile },
	[WIRE_INSTANTIATE] = { "INSTANTIATE", 0, instantiate_request },
};
#define REQUEST_COUNT(name, number, type) +1
_Static_assert(ARRAY_SIZE(request_rows) == 1 WIRE_REQUEST_LIST(REQUEST_COUNT), "a row for each request");
#define REQUEST_FITS(name, number, type)                                                                               \
	_Static_assert(sizeof(struct wire_header) + sizeof(type) < LANE_DATAGRAM_MAX, "room for each request");
WIRE_REQUEST_LIST(REQUEST_FITS)

/* -- The table of fields that have a form of their own --- */
enum rule_kind {
	RULE_TEXT,			/* terminated, and zeros up to its end */
	RULE_BITS,			/* no other bits than these */
	RULE_BELOW,			/* a number below this one */
	RULE_VALUES,			/* struct wire_value[]: their names are like TEXT */
};
struct rule {
	uint16_t type;			/* of the request */
	uint16_t offset, size;
	enum rule_kind kind;
	uint64_t limit;
	const char *field;
};
#define RULE(request, body, member, kind, limit)                                                                       \
	{ WIRE_##request, offsetof(body, member), sizeof(((body *)0)->member), RULE_##kind, (limit), #member }
static const struct rule rules[] = {
	RULE(HELLO, struct wire_hello, lane, BELOW, _WIRE_LANE_N),
	RULE(HELLO, struct wire_hello, flags, BITS, 0),
	RULE(HELLO, struct wire_hello, program, TEXT, 0),
	RULE(PROBED, struct wire_probed, mapped, BELOW, 2),
	RULE(PROBED, struct wire_probed, reserved, BITS, 0),
	RULE(LOAD, struct wire_load, name, TEXT, 0),
	RULE(LOAD, struct wire_load, flags, BITS, WIRE_LOAD_SHARED),
	RULE(LOAD, struct wire_load, reserved, BITS, 0),
	RULE(UNLOAD, struct wire_module_ref, name, TEXT, 0),
	RULE(ATTACH, struct wire_attach, ref.name, TEXT, 0),
	RULE(ATTACH, struct wire_attach, flags, BITS, WIRE_ATTACH_HOLD_ONLY),
	RULE(ATTACH, struct wire_attach, reserved, BITS, 0),
	RULE(DETACH, struct wire_module_ref, name, TEXT, 0),
	RULE(FIND, struct wire_find, method, TEXT, 0),
	RULE(PREPARE, struct wire_method_ref, reserved, BITS, 0),
	RULE(STATUS, struct wire_method_ref, reserved, BITS, 0),
	RULE(REMAINING, struct wire_method_ref, reserved, BITS, 0),
	RULE(WAIT, struct wire_wait, reserved, BITS, 0),
	RULE(PENDING, struct wire_pending, scope, BELOW, WIRE_SCOPE_ALL + 1),
	RULE(PENDING, struct wire_pending, reserved, BITS, 0),
	RULE(STATS, struct wire_empty, reserved, BITS, 0),
	RULE(DESCRIBE, struct wire_method_ref, reserved, BITS, 0),
	RULE(HISTORY, struct wire_look, relation, BITS, 0),
	RULE(HISTORY, struct wire_look, version, BITS, 0),
	RULE(RELATED, struct wire_look, relation, BELOW, _WIRE_RELATION_N),
	RULE(BYTECODE, struct wire_look, relation, BITS, 0),
	RULE(BYTECODE, struct wire_look, version, BITS, 0),
	RULE(LINES, struct wire_look, relation, BITS, 0),
	RULE(LINES, struct wire_look, version, BITS, 0),
	RULE(REJIT, struct wire_rejit, flags, BITS, WIRE_REJIT_FORCE),
	RULE(REJIT, struct wire_rejit, symbol, TEXT, 0),
	RULE(REVERT, struct wire_method_ref, reserved, BITS, 0),
	RULE(SLOT_USED, struct wire_slot, reserved, BITS, 0),
	RULE(SLOT_WATCH, struct wire_method_ref, reserved, BITS, 0),
	RULE(SLOT_DONE, struct wire_slot_change, reserved, BITS, 0),
	RULE(COUNTERS, struct wire_empty, reserved, BITS, 0),
	RULE(OSR, struct wire_osr, reserved, BITS, 0),
	RULE(FREEZE, struct wire_module_ref, name, TEXT, 0),
	RULE(THAW, struct wire_module_ref, name, TEXT, 0),
	RULE(MARK, struct wire_module_ref, name, TEXT, 0),
	RULE(SETTLED, struct wire_method_ref, reserved, BITS, 0),
	RULE(KNOBS, struct wire_cursor, module, BITS, 0),
	RULE(INSTANTIATE, struct wire_instantiate, flags, BITS, WIRE_INSTANTIATE_FIND),
	RULE(INSTANTIATE, struct wire_instantiate, n, BELOW, WIRE_VALUES_MAX + 1),
	RULE(INSTANTIATE, struct wire_instantiate, values, VALUES, 0),
};

static bool text_is_sound(const unsigned char *p, size_t n)
{
	size_t i = strnlen((const char *)p, n);

	if (i == n)
		return false;
	while (i < n)
		if (p[i++])
			return false;
	return true;
}

static bool values_are_sound(const struct wire_value *values, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (!text_is_sound((const unsigned char *)values[i].name, sizeof(values[i].name)))
			return false;
	return true;
}

static uint64_t rule_number(const struct rule *rule, const unsigned char *p)
{
	uint64_t wide;
	uint32_t narrow;

	if (rule->size == sizeof(wide)) {
		memcpy(&wide, p, sizeof(wide));
		return wide;
	}
	memcpy(&narrow, p, sizeof(narrow));
	return narrow;
}

/* NULL, or what is wrong with the field */
static const char *rule_check(const struct rule *rule, const unsigned char *body)
{
	const unsigned char *p = body + rule->offset;

	switch (rule->kind) {
	case RULE_TEXT:
		return text_is_sound(p, rule->size) ? NULL : "is not a text that ends in zeros";
	case RULE_BITS:
		return rule_number(rule, p) & ~rule->limit ? "has bits that version 1 does not know" : NULL;
	case RULE_BELOW:
		return rule_number(rule, p) >= rule->limit ? "has a value that version 1 does not know" : NULL;
	case RULE_VALUES:
		return values_are_sound((const void *)p, rule->size / sizeof(struct wire_value))
			       ? NULL : "have a name that is not a text that ends in zeros";
	}
	return NULL;
}

/* -- Decoding --- */
__attribute__((format(printf, 3, 4)))
static bool refuse(struct refused *refused, enum tier_error error, const char *format, ...)
{
	va_list args;

	refused->error = error;
	va_start(args, format);
	vsnprintf(refused->text, sizeof(refused->text), format, args);
	va_end(args);
	return false;
}

static bool header_check(const struct datagram *datagram, const struct wire_header *header, struct refused *refused)
{
	if (header->magic != WIRE_MAGIC)
		return refuse(refused, TIER_ERROR_PROTOCOL, "not a message for tierd: magic %#x", header->magic);
	refused->serial = header->serial;
	if (header->version != WIRE_VERSION)
		return refuse(refused, TIER_ERROR_VERSION, "this daemon speaks protocol version %u, the message %u", WIRE_VERSION,
			      header->version);
	if (header->type >= ARRAY_SIZE(request_rows) || !request_rows[header->type].handle)
		return refuse(refused, TIER_ERROR_PROTOCOL, "message type %u is not a request", header->type);
	if (datagram->is_truncated || header->size != datagram->n
	    || header->size != sizeof(*header) + wire_body_size(header->type))
		return refuse(refused, TIER_ERROR_PROTOCOL, "%s: size %u, %zu%s bytes came, the format says %zu",
			      request_rows[header->type].name, header->size, datagram->n, datagram->is_truncated ? "+" : "",
			      sizeof(*header) + wire_body_size(header->type));
	return true;
}

static bool fds_check(const struct datagram *datagram, const struct wire_header *header, struct refused *refused)
{
	const struct request_row *row = &request_rows[header->type];

	if (header->n_fds != row->n_fds)
		return refuse(refused, TIER_ERROR_PROTOCOL, "%s: says that %u descriptors come along, the format says %u",
			      row->name, header->n_fds, row->n_fds);
	/* none at all, though control data was lost: the daemon's own shortage, see lane.c */
	if (datagram->is_control_truncated && !datagram->n_fds)
		return true;
	if (datagram->n_fds != row->n_fds || datagram->is_control_truncated)
		return refuse(refused, TIER_ERROR_PROTOCOL, "%s: %u%s descriptors came, the format says %u", row->name,
			      datagram->n_fds, datagram->is_control_truncated ? "+" : "", row->n_fds);
	return true;
}

bool request_decode(const struct datagram *datagram, struct request *ret, struct refused *refused)
{
	const unsigned char *body = datagram->bytes + sizeof(struct wire_header);
	struct wire_header header;

	*refused = (struct refused){};
	if (datagram->n < sizeof(header))
		return refuse(refused, TIER_ERROR_PROTOCOL, "%zu bytes are no message: a header has %zu", datagram->n, sizeof(header));
	memcpy(&header, datagram->bytes, sizeof(header));
	if (!header_check(datagram, &header, refused) || !fds_check(datagram, &header, refused))
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(rules); i++) {
		const char *wrong = rules[i].type == header.type ? rule_check(&rules[i], body) : NULL;

		if (wrong)
			return refuse(refused, TIER_ERROR_PROTOCOL, "%s: %s %s", request_rows[header.type].name, rules[i].field,
				      wrong);
	}
	*ret = (struct request){ .type = header.type, .serial = header.serial, .body = body,
				 .fd = datagram->n_fds ? datagram->fds[0] : -1 };
	return true;
}

int request_handle(struct lane *lane, const struct request *request)
{
	return request_rows[request->type].handle(lane, request);
}
