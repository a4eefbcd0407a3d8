/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <string.h>
#include "tiering/ledger.h"
#include "util/base.h"
#include "util/error.h"

/* What "a daemon that dies at any instruction" asks of the order of stores: the memory is shared, so every store that
 * was executed stays, and only the compiler could reorder them. fence() holds it back; the one store that commits is
 * a release besides. Each place where an order matters is followed by crash_point(), where a unit test takes a copy of
 * the memory and sees whether a successor can live with it. */

struct ledger_header {
	uint64_t magic;		/* written last */
	uint32_t format, n_tables;
	struct { uint32_t record_size, n_max; } table[_LEDGER_TABLE_N];
	uint32_t used[_LEDGER_TABLE_N];
	uint64_t delivered;
	struct ledger_global global;
};
_Static_assert(sizeof(struct ledger_header) <= LEDGER_PAGE, "the header is a page");

/* Committed entries follow each other in bytes[0..n); n == 0: nothing to do. */
struct ledger_redo {
	uint64_t n;
	uint64_t reserved;
	uint8_t bytes[LEDGER_REDO_SIZE - 16];
};

struct redo_entry {
	uint64_t offset, size;	/* of the record in the ledger */
	uint8_t image[];
};

/* What a free slot holds; its owner word is 0 */
struct free_slot {
	uint64_t owner;
	uint32_t next;
};

#define LEDGER_RECORD_SIZE(NAME, record, n) [LEDGER_##NAME] = sizeof(struct ledger_##record),
#define LEDGER_RECORD_MAX(NAME, record, n) [LEDGER_##NAME] = (n),
static const uint32_t record_size[_LEDGER_TABLE_N] = { LEDGER_TABLE_LIST(LEDGER_RECORD_SIZE) };
static const uint32_t record_max[_LEDGER_TABLE_N] = { LEDGER_TABLE_LIST(LEDGER_RECORD_MAX) };

void (*ledger_crash_point)(void);

static void crash_point(void)
{
	if (__builtin_expect(!!ledger_crash_point, 0))
		ledger_crash_point();
}

static void fence(void)
{
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
}

/* -- Where everything lies --- */
#define EVENTS_OFFSET ((size_t)LEDGER_PAGE + LEDGER_REDO_SIZE)
#define TABLES_OFFSET (EVENTS_OFFSET + LEDGER_EVENTS * sizeof(struct tier_event))
_Static_assert(TABLES_OFFSET % LEDGER_PAGE == 0, "tables begin at a page");

static size_t table_size(unsigned int table)
{
	return align_up((uint64_t)record_size[table] * record_max[table], LEDGER_PAGE);
}

size_t ledger_size(void)
{
	size_t n = TABLES_OFFSET;

	for (unsigned int i = 0; i < _LEDGER_TABLE_N; i++)
		n += table_size(i);
	return n;
}

static void ledger_map(struct ledger *ledger, uint8_t *memory)
{
	uint8_t *p = memory + TABLES_OFFSET;

	*ledger = (struct ledger){
		.header = (struct ledger_header *)memory,
		.redo = (struct ledger_redo *)(memory + LEDGER_PAGE),
		.events = (struct tier_event *)(memory + EVENTS_OFFSET),
	};
	ledger->global = &ledger->header->global;
	for (unsigned int i = 0; i < _LEDGER_TABLE_N; i++) {
		ledger->tables[i] = p;
		ledger->free[i] = LEDGER_NONE;
		p += table_size(i);
	}
}

/* -- Opening --- */
static void ledger_format(struct ledger *ledger)
{
	struct ledger_header *header = ledger->header;

	header->format = LEDGER_FORMAT;
	header->n_tables = _LEDGER_TABLE_N;
	for (unsigned int i = 0; i < _LEDGER_TABLE_N; i++) {
		header->table[i].record_size = record_size[i];
		header->table[i].n_max = record_max[i];
	}
	header->global = (struct ledger_global){ .next_module = 1, .next_version = 1, .next_ticket = 1 };
	fence();
	crash_point();
	header->magic = LEDGER_MAGIC;
}

static bool ledger_is_ours(const struct ledger_header *header)
{
	if (header->magic != LEDGER_MAGIC || header->format != LEDGER_FORMAT || header->n_tables != _LEDGER_TABLE_N)
		return false;
	for (unsigned int i = 0; i < _LEDGER_TABLE_N; i++)
		if (header->table[i].record_size != record_size[i] || header->table[i].n_max != record_max[i]
		    || header->used[i] > record_max[i])
			return false;
	return true;
}

static bool redo_is_sound(const struct ledger_redo *redo, size_t n_memory)
{
	const struct redo_entry *entry;

	if (redo->n > sizeof(redo->bytes))
		return false;
	for (uint64_t at = 0; at < redo->n; at += sizeof(*entry) + entry->size) {
		if (redo->n - at < sizeof(*entry))
			return false;
		entry = (const struct redo_entry *)(redo->bytes + at);
		if (entry->size % 8 || entry->size > redo->n - at - sizeof(*entry) || entry->offset > n_memory
		    || entry->size > n_memory - entry->offset)
			return false;
	}
	return true;
}

static void redo_apply(struct ledger *ledger)
{
	uint8_t *memory = (uint8_t *)ledger->header;
	const struct redo_entry *entry;

	for (uint64_t at = 0; at < ledger->redo->n; at += sizeof(*entry) + entry->size) {
		entry = (const struct redo_entry *)(ledger->redo->bytes + at);
		memcpy(memory + entry->offset, entry->image, entry->size);
		fence();
		crash_point();
	}
	__atomic_store_n(&ledger->redo->n, 0, __ATOMIC_RELEASE);
	crash_point();
}

int ledger_open(struct ledger *ledger, void *memory, size_t n_memory)
{
	assert(n_memory >= ledger_size() && !((uintptr_t)memory % LEDGER_PAGE));
	ledger_map(ledger, memory);
	if (!ledger->header->magic) {
		/* a predecessor may have died while it formatted: nothing else can have been written yet */
		ledger_format(ledger);
		return 0;
	}
	if (!ledger_is_ours(ledger->header) || !redo_is_sound(ledger->redo, n_memory))
		return error_origin(-EBADMSG);
	redo_apply(ledger);
	return 0;
}

/* -- Slots --- */
uint32_t ledger_used(const struct ledger *ledger, enum ledger_table table)
{
	return ledger->header->used[table];
}

static struct free_slot *slot_of(const struct ledger *ledger, enum ledger_table table, uint32_t slot)
{
	return (struct free_slot *)(ledger->tables[table] + (size_t)slot * record_size[table]);
}

uint32_t ledger_take(struct ledger *ledger, enum ledger_table table)
{
	uint32_t slot = ledger->free[table];

	if (slot != LEDGER_NONE) {
		ledger->free[table] = slot_of(ledger, table, slot)->next;
		return slot;
	}
	slot = ledger->header->used[table];
	if (slot == record_max[table])
		return LEDGER_NONE;
	/* The mark first: a slot beyond it may never have an owner. */
	ledger->header->used[table] = slot + 1;
	fence();
	crash_point();
	return slot;
}

void ledger_release(struct ledger *ledger, enum ledger_table table, uint32_t slot)
{
	struct free_slot *free_slot = slot_of(ledger, table, slot);

	assert(!ledger->edited);
	free_slot->owner = 0;
	fence();
	crash_point();
	free_slot->next = ledger->free[table];
	ledger->free[table] = slot;
}

/* -- Transactions --- */
void ledger_begin(struct ledger *ledger)
{
	assert(!ledger->edited && !ledger->redo->n);
	ledger->n_redo = 0;
	ledger->edited = ledger_edit(ledger, &ledger->header->global);
}

void *ledger_edit_record(struct ledger *ledger, const void *record, size_t n)
{
	uint64_t offset = (const uint8_t *)record - (const uint8_t *)ledger->header;
	struct redo_entry *entry;

	for (size_t at = 0; at < ledger->n_redo; at += sizeof(*entry) + entry->size) {
		entry = (struct redo_entry *)(ledger->redo->bytes + at);
		if (entry->offset == offset)
			return entry->image;
	}
	assert(n % 8 == 0 && ledger->n_redo + sizeof(*entry) + n <= sizeof(ledger->redo->bytes));
	entry = (struct redo_entry *)(ledger->redo->bytes + ledger->n_redo);
	entry->offset = offset;
	entry->size = n;
	memcpy(entry->image, record, n);
	ledger->n_redo += sizeof(*entry) + n;
	crash_point();
	return entry->image;
}

uint64_t ledger_ticket(struct ledger *ledger)
{
	return ledger->edited->next_ticket++;
}

static struct tier_event *event_slot(const struct ledger *ledger, uint64_t sequence)
{
	return &ledger->events[sequence % LEDGER_EVENTS];
}

struct tier_event *ledger_event(struct ledger *ledger)
{
	struct tier_event *event = event_slot(ledger, ++ledger->edited->sequence);

	assert(ledger->edited->sequence - ledger->header->delivered < LEDGER_EVENTS);
	*event = (struct tier_event){ .sequence = ledger->edited->sequence };
	return event;
}

void ledger_commit(struct ledger *ledger)
{
	assert(ledger->edited);
	ledger->edited = NULL;
	crash_point();
	__atomic_store_n(&ledger->redo->n, ledger->n_redo, __ATOMIC_RELEASE);
	fence();
	crash_point();
	redo_apply(ledger);
}

/* -- Events --- */
uint64_t ledger_delivered(const struct ledger *ledger)
{
	return ledger->header->delivered;
}

void ledger_set_delivered(struct ledger *ledger, uint64_t sequence)
{
	ledger->header->delivered = sequence;
	crash_point();
}

const struct tier_event *ledger_event_at(const struct ledger *ledger, uint64_t sequence)
{
	return event_slot(ledger, sequence);
}
