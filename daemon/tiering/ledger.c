/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <errno.h>
#include <string.h>
#include "bytecode/image.h"
#include "tiering/ledger.h"
#include "tiering/ledger_next.h"
#include "tiering/ledger_shape.h"
#include "util/base.h"
#include "util/error.h"

/* What "a daemon that dies at any instruction" asks of the order of stores: the memory is shared, so every store that
 * was executed stays, and only the compiler could reorder them. fence() holds it back; the one store that commits is
 * a release besides. Each place where an order matters is followed by crash_point(), where a unit test takes a copy of
 * the memory and sees whether a successor can live with it. */

/* What a free slot holds; its owner word is 0 */
struct free_slot {
	uint64_t owner;
	uint32_t next;
};

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

/* -- Opening --- */
size_t ledger_size(void)
{
	struct ledger_place place;

	ledger_place(&ledger_shape, &place);
	return place.size;
}

static void ledger_map(struct ledger *ledger, uint8_t *memory)
{
	struct ledger_place place;

	ledger_place(&ledger_shape, &place);
	*ledger = (struct ledger){
		.header = (struct ledger_header *)memory,
		.redo = (struct ledger_redo *)(memory + place.redo),
		.events = (struct tier_event *)(memory + place.events),
	};
	ledger->global = &ledger->header->global;
	for (unsigned int i = 0; i < _LEDGER_TABLE_N; i++) {
		ledger->tables[i] = memory + place.tables[i];
		ledger->free[i] = LEDGER_NONE;
	}
}

static void ledger_format(struct ledger *ledger)
{
	struct ledger_header *header = ledger->header;

	header->format = LEDGER_FORMAT;
	header->event_size = sizeof(struct tier_event);
	header->shape = ledger_shape;
	header->global = (struct ledger_global){ .next_module = 1, .next_version = 1, .next_ticket = 1 };
	fence();
	crash_point();
	header->magic = LEDGER_MAGIC;
}

static void redo_apply(struct ledger *ledger)
{
	uint8_t *memory = (uint8_t *)ledger->header;
	const struct ledger_redo_entry *entry;

	for (uint64_t at = 0; at < ledger->redo->n; at += sizeof(*entry) + entry->size) {
		entry = (const struct ledger_redo_entry *)(ledger->redo->bytes + at);
		memcpy(memory + entry->offset, entry->image, entry->size);
		fence();
		crash_point();
	}
	__atomic_store_n(&ledger->redo->n, 0, __ATOMIC_RELEASE);
	crash_point();
}

int ledger_open(struct ledger *ledger, void *memory, size_t n_memory)
{
	struct refusal why;
	int r;

	assert(!((uintptr_t)memory % LEDGER_PAGE));
	r = ledger_examine(memory, n_memory, &why);
	if (r < 0 || r == LEDGER_E_OLDER || n_memory < ledger_size())
		return error_origin(-EBADMSG);
	ledger_map(ledger, memory);
	/* a predecessor may have died while it formatted: nothing else can have been written yet */
	if (r == LEDGER_E_EMPTY)
		ledger_format(ledger);
	ledger->is_inherited = r != LEDGER_E_EMPTY;
	redo_apply(ledger);
	ledger_next_opened(ledger);
	return 0;
}

/* -- Slots --- */
uint32_t ledger_used(const struct ledger *ledger, enum ledger_table table)
{
	return ledger->header->used[table];
}

static struct free_slot *slot_of(const struct ledger *ledger, enum ledger_table table, uint32_t slot)
{
	return (struct free_slot *)(ledger->tables[table] + (size_t)slot * ledger_shape.table[table].record_size);
}

uint32_t ledger_take(struct ledger *ledger, enum ledger_table table)
{
	uint32_t slot = ledger->free[table];

	if (slot != LEDGER_NONE) {
		ledger->free[table] = slot_of(ledger, table, slot)->next;
		return slot;
	}
	slot = ledger->header->used[table];
	if (slot == ledger_shape.table[table].n_max)
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
	struct ledger_redo_entry *entry;

	for (size_t at = 0; at < ledger->n_redo; at += sizeof(*entry) + entry->size) {
		entry = (struct ledger_redo_entry *)(ledger->redo->bytes + at);
		if (entry->offset == offset)
			return entry->image;
	}
	assert(n % 8 == 0 && ledger->n_redo + sizeof(*entry) + n <= sizeof(ledger->redo->bytes));
	entry = (struct ledger_redo_entry *)(ledger->redo->bytes + ledger->n_redo);
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
	ledger_next_commit(ledger);
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
