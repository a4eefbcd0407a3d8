/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include "bytecode/image.h"
#include "tiering/ledger_shape.h"
#include "util/base.h"

/* A predecessor's ledger: whose it is, and how it becomes ours
 *
 * Within a format a later program's tables have as many records or more, of as many bytes or more, and there may be
 * more tables. So a conversion copies each record to the same row of a larger one, and the rest of it is zero: "as
 * before". Rows keep their numbers, by which records name each other. The last transaction is finished on the way: each
 * entry of the redo area is a whole record, whose row is found by its offset in the old shape.
 *
 * Nothing is written to what is converted. A daemon that dies in the middle leaves it as it was, and beside it
 * something that has no magic yet.
 *
 * The memory comes from a descriptor store: before a size or an offset in it is used, all of them are looked at. */

#define RECORD_SIZE_MIN 16u /* a free row's */
#define RECORD_SIZE_MAX 4096u
#define RECORDS_MAX (1u << 28)
#define EVENTS_MAX (1u << 24)
#define REDO_SIZE_MAX (1u << 20)
#define REDO_HEAD offsetof(struct ledger_redo, bytes)
#define GLOBAL_SIZE_MIN (offsetof(struct ledger_global, sequence) + sizeof(uint64_t))
#define GLOBAL_SIZE_MAX (LEDGER_PAGE - offsetof(struct ledger_header, global))

#define SHAPE_ROW(NAME, record, n) [LEDGER_##NAME] = { sizeof(struct ledger_##record), (n) },
const struct ledger_shape ledger_shape = {
	.n_tables = _LEDGER_TABLE_N,
	.n_events = LEDGER_EVENTS,
	.redo_size = LEDGER_REDO_SIZE,
	.global_size = sizeof(struct ledger_global),
	.table = { LEDGER_TABLE_LIST(SHAPE_ROW) },
};
_Static_assert(_LEDGER_TABLE_N <= LEDGER_TABLES_MAX, "the header has room for all");

#define SHAPE_NAME(NAME, record, n) [LEDGER_##NAME] = #record "s",
static const char *const table_names[] = { LEDGER_TABLE_LIST(SHAPE_NAME) };

static const char *table_name(uint32_t table) { return table < ARRAY_SIZE(table_names) ? table_names[table] : "unknown records"; }

/* -- Where everything lies --- */
void ledger_place(const struct ledger_shape *shape, struct ledger_place *ret)
{
	uint64_t at = LEDGER_PAGE;

	*ret = (struct ledger_place){ .redo = at };
	at = ret->events = at + shape->redo_size;
	at = align_up(at + (uint64_t)shape->n_events * sizeof(struct tier_event), LEDGER_PAGE);
	for (uint32_t i = 0; i < shape->n_tables; i++) {
		ret->tables[i] = at;
		at += align_up((uint64_t)shape->table[i].record_size * shape->table[i].n_max, LEDGER_PAGE);
	}
	ret->size = at;
}

/* -- A header --- */
static bool is_size(uint32_t n, uint32_t n_min, uint32_t n_max) { return n >= n_min && n <= n_max && n % sizeof(uint64_t) == 0; }

static int refuse_header(struct refusal *why, const char *what, uint32_t n)
{
	refuse(why, "its header makes no sense: %s %u", what, n);
	return -EBADMSG;
}

static int shape_check_table(const struct ledger_header *header, uint32_t i, struct refusal *why)
{
	const uint32_t size = header->shape.table[i].record_size, n_max = header->shape.table[i].n_max;

	if (!is_size(size, RECORD_SIZE_MIN, RECORD_SIZE_MAX) || !n_max || n_max > RECORDS_MAX || header->used[i] > n_max) {
		refuse(why, "its header makes no sense: %u of %u %s in use, of %u bytes each", header->used[i], n_max,
		       table_name(i), size);
		return -EBADMSG;
	}
	return 0;
}

/* That all sizes are such that one can compute with them, and that the memory has that much */
static int shape_check(const struct ledger_header *header, size_t n_memory, struct refusal *why)
{
	const struct ledger_shape *shape = &header->shape;
	struct ledger_place place;
	int r = 0;

	if (header->event_size != sizeof(struct tier_event))
		return refuse_header(why, "bytes of an event:", header->event_size);
	if (!shape->n_tables || shape->n_tables > LEDGER_TABLES_MAX)
		return refuse_header(why, "number of tables:", shape->n_tables);
	if (!shape->n_events || shape->n_events > EVENTS_MAX)
		return refuse_header(why, "number of events:", shape->n_events);
	if (!shape->redo_size || shape->redo_size % LEDGER_PAGE || shape->redo_size > REDO_SIZE_MAX)
		return refuse_header(why, "bytes of the redo area:", shape->redo_size);
	if (!is_size(shape->global_size, GLOBAL_SIZE_MIN, GLOBAL_SIZE_MAX))
		return refuse_header(why, "bytes of the global record:", shape->global_size);
	for (uint32_t i = 0; !r && i < shape->n_tables; i++)
		r = shape_check_table(header, i, why);
	if (r)
		return r;
	ledger_place(shape, &place);
	if (place.size <= n_memory)
		return 0;
	refuse(why, "it is cut short: %zu bytes of %llu", n_memory, (unsigned long long)place.size);
	return -EBADMSG;
}

/* -- Its redo area --- */
/* Table and row of an entry's record; the table's number is n_tables: it is the global record. False: it is no record.
 */
static bool redo_locate(const struct ledger_header *header, const struct ledger_place *place,
			const struct ledger_redo_entry *entry, uint32_t *table, uint32_t *row)
{
	const struct ledger_shape *shape = &header->shape;

	*table = shape->n_tables;
	*row = 0;
	if (entry->offset == offsetof(struct ledger_header, global))
		return entry->size == shape->global_size;
	for (uint32_t i = 0; i < shape->n_tables; i++) {
		const uint64_t at = entry->offset - place->tables[i], size = shape->table[i].record_size;

		if (entry->offset < place->tables[i] || at >= size * header->used[i])
			continue;
		*table = i;
		*row = at / size;
		return at % size == 0 && entry->size == size;
	}
	return false;
}

static const struct ledger_redo *redo_of(const void *memory, const struct ledger_place *place)
{
	return (const struct ledger_redo *)((const uint8_t *)memory + place->redo);
}

/* The entry at @at, if all of it is there; NULL */
static const struct ledger_redo_entry *redo_entry(const struct ledger_redo *redo, uint64_t at)
{
	const struct ledger_redo_entry *entry = (const struct ledger_redo_entry *)(redo->bytes + at);

	if (redo->n - at < sizeof(*entry) || entry->size % sizeof(uint64_t) || entry->size > redo->n - at - sizeof(*entry))
		return NULL;
	return entry;
}

/* Fills *sequence, which is the newest event's once all is applied. */
static int redo_check(const struct ledger_header *header, const struct ledger_place *place, uint64_t *sequence,
		      struct refusal *why)
{
	const struct ledger_redo *redo = redo_of(header, place);
	const struct ledger_redo_entry *entry;
	uint32_t table, row;

	*sequence = header->global.sequence;
	if (redo->n > header->shape.redo_size - REDO_HEAD) {
		refuse(why, "its redo area makes no sense: %llu bytes in use", (unsigned long long)redo->n);
		return -EBADMSG;
	}
	for (uint64_t at = 0; at < redo->n; at += sizeof(*entry) + entry->size) {
		entry = redo_entry(redo, at);
		if (!entry || !redo_locate(header, place, entry, &table, &row)) {
			refuse(why, "its redo area makes no sense: no record at byte %llu", (unsigned long long)at);
			return -EBADMSG;
		}
		if (table == header->shape.n_tables)
			memcpy(sequence, entry->image + offsetof(struct ledger_global, sequence), sizeof(*sequence));
	}
	return 0;
}

/* -- Whose it is --- */
static int refuse_newer(struct refusal *why, const char *what, uint32_t theirs, uint32_t ours)
{
	refuse(why, "it is of a newer tierd: %s %u, here %u", what, theirs, ours);
	return -EBADMSG;
}

static int shape_refuse_table(const struct ledger_shape *theirs, const struct ledger_shape *ours, uint32_t i, struct refusal *why)
{
	char what[48];

	snprintf(what, sizeof(what), "bytes of the record of %s:", table_name(i));
	if (theirs->table[i].record_size > ours->table[i].record_size)
		return refuse_newer(why, what, theirs->table[i].record_size, ours->table[i].record_size);
	snprintf(what, sizeof(what), "number of %s:", table_name(i));
	if (theirs->table[i].n_max > ours->table[i].n_max)
		return refuse_newer(why, what, theirs->table[i].n_max, ours->table[i].n_max);
	return 0;
}

/* 0: theirs is ours, LEDGER_E_OLDER, or -EBADMSG: in something it is larger */
static int shape_compare(const struct ledger_shape *theirs, const struct ledger_shape *ours, struct refusal *why)
{
	int r = 0;

	if (theirs->n_tables > ours->n_tables)
		return refuse_newer(why, "number of tables:", theirs->n_tables, ours->n_tables);
	if (theirs->n_events > ours->n_events)
		return refuse_newer(why, "number of events:", theirs->n_events, ours->n_events);
	if (theirs->redo_size > ours->redo_size)
		return refuse_newer(why, "bytes of the redo area:", theirs->redo_size, ours->redo_size);
	if (theirs->global_size > ours->global_size)
		return refuse_newer(why, "bytes of the global record:", theirs->global_size, ours->global_size);
	for (uint32_t i = 0; !r && i < theirs->n_tables; i++)
		r = shape_refuse_table(theirs, ours, i, why);
	if (r)
		return r;
	return memcmp(theirs, ours, sizeof(*theirs)) ? LEDGER_E_OLDER : 0;
}

int ledger_examine_for(const struct ledger_shape *shape, const void *memory, size_t n_memory, struct refusal *why)
{
	const struct ledger_header *header = memory;
	struct ledger_place place;
	uint64_t sequence;
	int r;

	*why = (struct refusal){ "" };
	if (n_memory < sizeof(*header) || (header->magic && header->magic != LEDGER_MAGIC)) {
		refuse(why, "it is no ledger");
		return -EBADMSG;
	}
	if (!header->magic)
		return LEDGER_E_EMPTY;
	if (header->format != LEDGER_FORMAT) {
		refuse(why, "it has format %u, and this tierd takes over format %u alone", header->format, LEDGER_FORMAT);
		return -EBADMSG;
	}
	r = shape_check(header, n_memory, why);
	if (r)
		return r;
	ledger_place(&header->shape, &place);
	r = redo_check(header, &place, &sequence, why);
	if (r)
		return r;
	/* before the first event there is no history: its number may have been set */
	if (sequence && (sequence < header->delivered || sequence - header->delivered > header->shape.n_events)) {
		refuse(why, "its header makes no sense: event %llu was told of %llu", (unsigned long long)header->delivered,
		       (unsigned long long)sequence);
		return -EBADMSG;
	}
	return shape_compare(&header->shape, shape, why);
}

int ledger_examine(const void *memory, size_t n_memory, struct refusal *why)
{
	return ledger_examine_for(&ledger_shape, memory, n_memory, why);
}

/* -- Conversion --- */
struct conversion {
	const struct ledger_header *from;
	struct ledger_header *to;
	struct ledger_place from_place, to_place;
};

static const uint8_t *from_row(const struct conversion *c, uint32_t table, uint32_t row)
{
	return (const uint8_t *)c->from + c->from_place.tables[table] + (uint64_t)row * c->from->shape.table[table].record_size;
}

static uint8_t *to_row(const struct conversion *c, uint32_t table, uint32_t row)
{
	return (uint8_t *)c->to + c->to_place.tables[table] + (uint64_t)row * c->to->shape.table[table].record_size;
}

static void convert_rows(const struct conversion *c)
{
	for (uint32_t table = 0; table < c->from->shape.n_tables; table++) {
		const uint32_t n = c->from->used[table], size = c->from->shape.table[table].record_size;

		c->to->used[table] = n;
		if (size == c->to->shape.table[table].record_size)
			memcpy(to_row(c, table, 0), from_row(c, table, 0), (size_t)size * n);
		else
			for (uint32_t row = 0; row < n; row++)
				memcpy(to_row(c, table, row), from_row(c, table, row), size);
	}
}

/* What of the old shape's redo area was committed, on the copy */
static void convert_redo(const struct conversion *c)
{
	const struct ledger_redo *redo = redo_of(c->from, &c->from_place);
	const struct ledger_redo_entry *entry;
	uint32_t table, row;

	for (uint64_t at = 0; at < redo->n; at += sizeof(*entry) + entry->size) {
		entry = redo_entry(redo, at);
		redo_locate(c->from, &c->from_place, entry, &table, &row);
		memcpy(table == c->from->shape.n_tables ? (uint8_t *)&c->to->global : to_row(c, table, row), entry->image,
		       entry->size);
	}
}

/* The newest ones, each at its number's place */
static void convert_events(const struct conversion *c)
{
	const struct tier_event *from = (const struct tier_event *)((const uint8_t *)c->from + c->from_place.events);
	struct tier_event *to = (struct tier_event *)((uint8_t *)c->to + c->to_place.events);
	const uint32_t n_from = c->from->shape.n_events, n_to = c->to->shape.n_events;
	const uint64_t newest = c->to->global.sequence;

	for (uint64_t i = 0; i < MIN(newest, n_from); i++)
		to[(newest - i) % n_to] = from[(newest - i) % n_from];
}

int ledger_convert_for(const struct ledger_shape *shape, void *to, size_t n_to, const void *from, size_t n_from,
		       struct refusal *why)
{
	struct conversion c = { .from = from, .to = to };
	int r = ledger_examine_for(shape, from, n_from, why);

	if (r == LEDGER_E_EMPTY) {
		refuse(why, "it is empty");
		return -EBADMSG;
	}
	if (r < 0)
		return r;
	ledger_place(shape, &c.to_place);
	ledger_place(&c.from->shape, &c.from_place);
	assert(n_to >= c.to_place.size && !c.to->magic);
	c.to->format = LEDGER_FORMAT;
	c.to->event_size = sizeof(struct tier_event);
	c.to->shape = *shape;
	c.to->delivered = c.from->delivered;
	memcpy(&c.to->global, &c.from->global, c.from->shape.global_size);
	convert_rows(&c);
	convert_redo(&c);
	convert_events(&c);
	/* a ledger from here on */
	__atomic_store_n(&c.to->magic, LEDGER_MAGIC, __ATOMIC_RELEASE);
	return 0;
}

int ledger_convert(void *to, size_t n_to, const void *from, size_t n_from, struct refusal *why)
{
	return ledger_convert_for(&ledger_shape, to, n_to, from, n_from, why);
}
