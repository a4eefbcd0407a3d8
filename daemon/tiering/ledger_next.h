/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* `make tests`: what a daemon of the next version does with its field (LEDGER_TEST_NEXT): each version, each method and
 * the global record carry a mark from their next transaction on. Found in a ledger, a mark is right, or 0: as an
 * earlier program left it. Any other daemon has no such field, and nothing here. */

#ifdef LEDGER_TEST_NEXT
#include "tiering/ledger_shape.h"
#include "util/log.h"

#define NEXT_MARK UINT64_C(0x6e65787420766572)

static inline uint64_t next_version(const struct ledger_version *version) { return version->id ^ NEXT_MARK; }
static inline uint64_t next_method(const struct ledger_method *method)
{
	return (method->module << 32 | method->index) ^ NEXT_MARK;
}
static inline uint64_t next_global(const struct ledger_global *global) { return global->sequence ^ NEXT_MARK; }

static inline bool next_is_in(const struct ledger *ledger, enum ledger_table table,
                              const struct ledger_redo_entry *entry)
{
	const uint64_t first = ledger->tables[table] - (const uint8_t *)ledger->header;

	return entry->offset >= first && entry->offset - first < (uint64_t)ledger_shape.table[table].record_size *
	                                                                 ledger_shape.table[table].n_max;
}

static inline void ledger_next_commit(struct ledger *ledger)
{
	struct ledger_redo_entry *entry;

	for (size_t at = 0; at < ledger->n_redo; at += sizeof(*entry) + entry->size) {
		entry = (struct ledger_redo_entry *)(ledger->redo->bytes + at);
		if (next_is_in(ledger, LEDGER_VERSIONS, entry))
			((struct ledger_version *)entry->image)->next_mark =
			        next_version((struct ledger_version *)entry->image);
		else if (next_is_in(ledger, LEDGER_METHODS, entry))
			((struct ledger_method *)entry->image)->next_mark =
			        next_method((struct ledger_method *)entry->image);
		else if (entry->offset == offsetof(struct ledger_header, global))
			((struct ledger_global *)entry->image)->next_mark =
			        next_global((struct ledger_global *)entry->image);
	}
}

/* Free rows may hold anything but an owner. */
static inline void ledger_next_opened(const struct ledger *ledger)
{
	uint32_t n_marked = 0, n_before = 0;

	assert(!ledger->global->next_mark || ledger->global->next_mark == next_global(ledger->global));
	for (uint32_t row = 0; row < ledger_used(ledger, LEDGER_VERSIONS); row++) {
		const struct ledger_version *version = ledger_version(ledger, row);

		assert(!version->module || !version->next_mark || version->next_mark == next_version(version));
		n_before += version->module && !version->next_mark;
		n_marked += version->module && version->next_mark;
	}
	for (uint32_t row = 0; row < ledger_used(ledger, LEDGER_METHODS); row++) {
		const struct ledger_method *method = ledger_method(ledger, row);

		assert(!method->module || !method->next_mark || method->next_mark == next_method(method));
		n_before += method->module && !method->next_mark;
		n_marked += method->module && method->next_mark;
	}
	log_line(LOG_INFO, "the next version's ledger: %u records as an earlier one left them, %u of its own", n_before,
	         n_marked);
}
#else
static inline void ledger_next_commit(struct ledger *ledger) {}
static inline void ledger_next_opened(const struct ledger *ledger) {}
#endif
