/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The ledger's inside: what its header says, and where everything lies. For ledger.c, ledger_shape.c and their tests.
 */

#include <stdbool.h>
#include "tiering/ledger.h"

#define LEDGER_TABLES_MAX 16u /* that a header has room for */

struct ledger_shape {
	uint32_t n_tables, n_events;
	uint32_t redo_size, global_size;
	struct {
		uint32_t record_size, n_max;
	} table[LEDGER_TABLES_MAX];
};
extern const struct ledger_shape ledger_shape; /* this program's */

/* The first page */
struct ledger_header {
	uint64_t magic; /* written last */
	uint32_t format, event_size;
	struct ledger_shape shape;
	uint32_t used[LEDGER_TABLES_MAX];
	uint64_t delivered;
	struct ledger_global global; /* may grow */
};
_Static_assert(sizeof(struct ledger_header) <= LEDGER_PAGE, "the header is a page");

/* Committed entries follow each other in bytes[0..n); n == 0: nothing to do. */
struct ledger_redo {
	uint64_t n;
	uint64_t reserved;
	uint8_t bytes[LEDGER_REDO_SIZE - 16]; /* as many as the shape says */
};

struct ledger_redo_entry {
	uint64_t offset, size; /* of the record in the ledger */
	uint8_t image[];
};

/* Where everything lies: offsets */
struct ledger_place {
	uint64_t redo, events, tables[LEDGER_TABLES_MAX], size;
};
void ledger_place(const struct ledger_shape *shape, struct ledger_place *ret);

/* ledger_examine() and ledger_convert() for a program of that shape */
int ledger_examine_for(const struct ledger_shape *shape, const void *memory, size_t n_memory, struct refusal *why);
int ledger_convert_for(const struct ledger_shape *shape, void *to, size_t n_to, const void *from, size_t n_from,
                       struct refusal *why);
