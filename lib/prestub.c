/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>
#include "connection.h"
#include "error.h"
#include "mapping.h"
#include "prestub.h"
#include "sync.h"
#include "sys.h"

/* The first call, the calls that come to the prestub although there is code, and the call that crosses the threshold
 *
 * Prestub:    the record first: whoever comes while there is code just goes on to it (struct way). Otherwise one bounded
 *             round trip on a lane of its own, after which there is code; a call that cannot be served never returns a
 *             wrong result, it goes to the failure handler. The first call runs the code, not its counting stub: it does
 *             not count.
 * Slots:      a call through a call cell that is not patched yet is told to the daemon, once per cell and process. A note
 *             that cannot be sent is sent by a later such call; when nobody could be reached, one some seconds later, for
 *             what runs without the daemon runs at speed.
 * Threshold:  rings the bell, which may get lost (the counter is the truth), and goes on. Never waits.
 *
 * All signals are blocked from the check for a fork until the last use of what it checked: a handler that forks in
 * between would leave the fork with its parent's lanes and a probe page that is not there. That includes the signal by
 * which the C library cancels threads. errno is never touched, because no wrapper of the C library's runs. */

static void failure_abort(const char *module, const char *method, const char *text)
{
	char line[1024];

	text_format(line, sizeof(line), "libtier: %s:%s cannot be called: %s\n", module, method, text);
	sys_write(2, line, strlen(line));
	abort();
}

static tier_failure_fn failure_handler = failure_abort;

void tier_set_failure_handler(tier_failure_fn fn)
{
	__atomic_store_n(&failure_handler, fn ? fn : failure_abort, __ATOMIC_RELEASE);
}

/* Signals are blocked, no lock is held: a handler may leave by longjmp. */
static _Noreturn void failure(const char *module, const char *method, const char *text)
{
	__atomic_load_n(&failure_handler, __ATOMIC_ACQUIRE)(module, method, text);
	abort();
}

static _Noreturn void failure_of_method(const struct mapping *mapping, uint32_t method, const char *text)
{
	const struct mapping_name *name = &mapping->names[method];
	char number[16];

	text_format(number, sizeof(number), "#%u", method);
	failure(mapping->name, __atomic_load_n(&name->is_known, __ATOMIC_ACQUIRE) ? name->text : number, text);
}

/* -- Where a call goes on --- */
struct way {
	uint64_t target;	/* 0: nowhere */
	enum tier_visit visit;
	uint64_t state;		/* the word that the rest was read under */
	uint64_t version;	/* COUNTED: what is counted, and where */
	uint32_t cell;
};

/* Synchronizes with the release stores in entry.c. There P is stored before E when a body is replaced and after it when
 * code becomes final, and the state word first and last, respectively: so P is read before E here. */
static uint64_t record_word(const uint64_t *word)
{
	return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

static bool record_is_cold(uint64_t state)
{
	return tier_state_stage(state) == TIER_STAGE_COLD;
}

/* E is T: P tells, unless it leads back here. Then no stub counts the calls, but the prestub does. */
static void way_read_unfinished(const struct mapping *mapping, const struct tier_record *record, uint64_t precode,
				struct way *way)
{
	if (precode != tier_layout_thunk(&mapping->layout, TIER_THUNK_PRESTUB)) {
		way->target = precode;
		way->visit = TIER_VISIT_RACE;
		return;
	}
	way->target = record_word(&record->code);
	way->visit = tier_state_stage(way->state) == TIER_STAGE_COUNTING ? TIER_VISIT_COUNTED : TIER_VISIT_RACE;
	way->version = record_word(&record->version);
	way->cell = __atomic_load_n(&record->cell, __ATOMIC_ACQUIRE);
}

/* False: there is no code, or what is to be counted changed meanwhile. Code alone is right to run even if it is replaced by
 * now: it was current during this call. */
static bool way_read(const struct mapping *mapping, const struct tier_record *record, struct way *way)
{
	uint64_t precode, entry;

	way->state = record_word(&record->state);
	if (record_is_cold(way->state))
		return false;
	precode = record_word(&record->precode);
	entry = record_word(&record->entry);
	if (entry != tier_layout_precode(&mapping->layout, record->index)) {
		way->target = entry;
		way->visit = TIER_VISIT_POINTER;
		return true;
	}
	way_read_unfinished(mapping, record, precode, way);
	return way->target && (way->visit != TIER_VISIT_COUNTED || record_word(&record->state) == way->state);
}

/* True: this was the N-th call. */
static bool way_count(const struct mapping *mapping, const struct way *way)
{
	return way->cell < mapping->layout.n_cells && __atomic_sub_fetch(&mapping->cells[way->cell], 1, __ATOMIC_ACQ_REL) == 0;
}

static void prestub_ring(struct mapping *mapping, const struct tier_record *record, uint64_t version)
{
	const uint64_t mask = signals_block();
	struct tier_conn *conn = mapping_conn_for_note(mapping);

	if (conn) {
		conn_threshold(conn, mapping->module, record->index, version);
		conn_unref(conn);
	}
	signals_restore(mask);
}

/* -- Vtable slots --- */
#define SLOT_DEAF_NS 10000000000ull	/* finding out that nobody listens takes system calls, and in a fork CONN_NOTE_FORK_NS */

/* The number of the call cell; -1: what lies there is none of the module's. Machine code may have left anything in r10. */
static int64_t cell_number(const struct mapping *mapping, uint64_t cell)
{
	const uint64_t at = cell - (mapping->layout.base + mapping->layout.call_cells);

	return at < mapping->layout.n_slots && at % sizeof(uint64_t) == 0 ? (int64_t)(at / sizeof(uint64_t)) : -1;
}

/* 0: told; a negative errno: perhaps later. */
static int slot_tell(struct mapping *mapping, const struct tier_record *record, uint64_t cell)
{
	const struct wire_slot slot = { .module = mapping->module, .cell = cell, .method = record->index };
	const uint64_t mask = signals_block();
	struct tier_conn *conn = mapping_conn_for_note(mapping);
	const uint32_t session = conn ? session_number(conn) : 0;
	bool is_other = false;
	int r = -ENOTCONN;

	if (conn) {
		r = conn_slot_used(conn, &slot);
		is_other = session_number(conn) != session;	/* which may be able to hear, though it did not hear this */
		conn_unref(conn);
	}
	if (r && r != -EAGAIN && !is_other)
		__atomic_store_n(&mapping->notes->deaf_until_ns, deadline_after(SLOT_DEAF_NS), __ATOMIC_RELAXED);
	signals_restore(mask);
	return r;
}

static enum tier_visit slot_visit(struct mapping *mapping, const struct tier_record *record, uint64_t cell, int64_t number,
				  uint64_t now_ns)
{
	uint64_t *const posted = &mapping->notes->posted[number / 64];
	const uint64_t bit = UINT64_C(1) << number % 64;

	if (__atomic_load_n((uint64_t *)(uintptr_t)cell, __ATOMIC_ACQUIRE) != tier_layout_precode(&mapping->layout, record->index))
		return TIER_VISIT_SLOT_AGAIN;	/* patched since it was read, or not a slot of this method */
	if (now_ns < __atomic_load_n(&mapping->notes->deaf_until_ns, __ATOMIC_RELAXED)
	    || __atomic_load_n(posted, __ATOMIC_RELAXED) & bit || __atomic_fetch_or(posted, bit, __ATOMIC_ACQ_REL) & bit)
		return TIER_VISIT_SLOT_AGAIN;
	if (!slot_tell(mapping, record, cell))
		return TIER_VISIT_SLOT;
	__atomic_fetch_and(posted, ~bit, __ATOMIC_RELEASE);
	return TIER_VISIT_SLOT_AGAIN;
}

/* -- No code --- */
static int prestub_ask(struct mapping *mapping, const struct tier_record *record)
{
	struct tier_conn *conn;
	int r;

	conn = mapping_conn(mapping);
	if (!conn)
		return error_set(-ENOTCONN, "it has no code yet, and every connection that opened it was closed");
	r = conn_prepare(conn, mapping, record);
	conn_unref(conn);
	return r;
}

/* Asks until there is code: it may be gone again when the answer comes, with the body that it was made from, and others may
 * have made the next one between the two loads. An answer after which nothing has changed is no answer. */
static struct way prestub_prepare(struct mapping *mapping, const struct tier_record *record)
{
	const uint64_t mask = signals_block();
	struct way way = { 0 };
	uint64_t seen;
	int r;

	do {
		seen = record_word(&record->state);
		r = record_is_cold(seen) ? prestub_ask(mapping, record) : 0;
		way.target = r ? 0 : record_word(&record->code);
		way.state = record_word(&record->state);
	} while (!r && way.state != seen && (record_is_cold(way.state) || !way.target));
	if (r || record_is_cold(way.state) || !way.target)
		failure_of_method(mapping, record->index,
				  r < 0 ? tier_error_text() : "the daemon says that there is code, but there is none");
	signals_restore(mask);
	way.visit = TIER_VISIT_COLD;
	return way;
}

/* -- The entries --- */
static struct way prestub_way(struct mapping *mapping, const struct tier_record *record)
{
	struct way way = { 0 };

	while (!way_read(mapping, record, &way)) {
		if (record_is_cold(way.state) || record_word(&record->state) == way.state)
			return prestub_prepare(mapping, record);
	}
	return way;
}

static void visit_add(struct mapping *mapping, enum tier_visit visit, uint64_t begin_ns)
{
	__atomic_fetch_add(&mapping->visits->n[visit], 1, __ATOMIC_RELAXED);
	__atomic_fetch_add(&mapping->visits->ns[visit], time_now() - begin_ns, __ATOMIC_RELAXED);
}

uint64_t prestub_enter(const struct tier_record *record, uint64_t cell)
{
	struct mapping *const mapping = mapping_of_record(record);
	const uint64_t begin_ns = time_now();
	const int64_t number = cell_number(mapping, cell);
	const struct way way = prestub_way(mapping, record);
	enum tier_visit visit = way.visit;

	if (visit == TIER_VISIT_POINTER && number >= 0)
		visit = slot_visit(mapping, record, cell, number, begin_ns);
	else if (visit == TIER_VISIT_COUNTED && way_count(mapping, &way))
		prestub_ring(mapping, record, way.version);
	visit_add(mapping, visit, begin_ns);
	return way.target;
}

uint64_t threshold_enter(const struct tier_record *record, const struct tier_stub_data *data)
{
	prestub_ring(mapping_of_record(record), record, data->version);
	return data->code;
}

void unbound_enter(uint32_t import, uint64_t return_address)
{
	const struct mapping *mapping;
	const char *name = "#?";
	char text[WIRE_TEXT_MAX];

	signals_block();
	mapping = mapping_of_code(return_address);
	if (mapping && import < UNBOUND_ENTRIES - 1 && import < mapping->layout.n_imports)
		name = mapping->imports[import].name;
	text_format(text, sizeof(text), "the import '%s' is not bound in this process; bind it with tier_bind()", name);
	failure(mapping ? mapping->name : "?", name, text);
}
