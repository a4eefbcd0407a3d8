/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The ledger: all durable state of the core (DESIGN §6.3)
 *
 * Fixed-size records in one block of memory that outlives the daemon (a memfd; here just memory). Changes go through
 * transactions: new images of records are collected in a redo area, one store commits them, then they are applied. A
 * daemon that dies at any instruction leaves either the old state or a committed redo area, which the successor
 * applies again; every record is copied whole, so applying twice is harmless.
 *
 *   header (its shape, the global record) | redo area | events | modules | users | methods | versions | edges | slots
 *
 * Two things need no redo, because nobody looks at them before a transaction makes them reachable: the events that a
 * transaction causes (their numbers lie beyond global.sequence until it commits), and free rows of the tables.
 *
 * A record's first word is its owner: the module's id (for users the uid plus one). 0, or a module that is gone, means a
 * free slot; so removing a module is one small transaction however large the module is.
 *
 * A ledger says what shape it has: how many tables, of how many records, of how many bytes. Within a format, shapes only grow,
 * new fields come last, and zero in them means "as before". So a later program converts what an earlier one left
 * (ledger_convert()), into memory of its own; an earlier one refuses what a later one left. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "tier/events.h"
#include "tier/records.h"

struct refusal;

#define LEDGER_MAGIC 0x3152474444454954ull /* "TIEDDGR1" */
#ifndef LEDGER_TEST_FORMAT	/* `make tests`: a daemon that is not compatible */
#define LEDGER_FORMAT 5u
#else
#define LEDGER_FORMAT LEDGER_TEST_FORMAT
#endif
#define LEDGER_NAME_MAX 63u
#define LEDGER_NONE UINT32_MAX	/* no row, no cell */
#define LEDGER_EVENTS 4096u	/* the newest events, by number modulo this */
#define LEDGER_REDO_SIZE 4096u
#define LEDGER_PAGE 4096u

/* `make tests`: a daemon of the next version, which has one more field at the end of three records (ledger_next.h) */
#ifdef LEDGER_TEST_NEXT
#define LEDGER_NEXT_FIELD uint64_t next_mark;
#else
#define LEDGER_NEXT_FIELD
#endif

/* Table, record, rows. Every method has room for LEDGER_LADDER versions of each body that may run, so what core_module_add() and
 * core_rejit() admit always finds some: three is the longest ladder, and a version that fails ends it where it stands. What is
 * beyond (versions made again after a withdrawal, on-stack replacement) takes what nobody was promised, or is not made. */
#define LEDGER_LADDER 3u
#define LEDGER_TABLE_LIST(_)                                                                                           \
	_(MODULES, module, 1u << 12)                                                                                   \
	_(USERS, user, 1u << 12)                                                                                       \
	_(METHODS, method, 1u << 18)                                                                                   \
	_(VERSIONS, version, 1u << 20)                                                                                 \
	_(EDGES, edge, 1u << 20)                                                                                               \
	_(SLOTS, slot, 1u << 20)

#define LEDGER_TABLE_ENUM(NAME, record, n) LEDGER_##NAME,
enum ledger_table { LEDGER_TABLE_LIST(LEDGER_TABLE_ENUM) _LEDGER_TABLE_N };
#define LEDGER_TABLE_MAX(NAME, record, n) LEDGER_##NAME##_MAX = (n),
enum { LEDGER_TABLE_LIST(LEDGER_TABLE_MAX) };

struct ledger_global {
	uint64_t next_module, next_version;	/* ids to give out */
	uint64_t next_ticket;			/* places in lists: whoever came first has the lower one */
	uint64_t sequence;			/* of the newest event */
	uint64_t window_base, window_next;	/* where spans begin; end of the highest one that a module got. 0: not chosen yet */
	uint64_t n_takeovers;			/* how many successors it has had */
	uint8_t has_policy;			/* the next two are known */
	uint8_t backpatch;			/* enum tier_backpatch: by which the entry points were written */
	uint8_t counting_in_prestub;
	uint8_t reserved[5];
	LEDGER_NEXT_FIELD
};

struct ledger_module {
	uint64_t id;
	uint64_t code_used;		/* bytes of the code segment */
	uint32_t uid, n_cells_used;
	uint8_t is_shared, is_named;
	uint8_t is_frozen;		/* as the history has it: a successor tells that it no longer is */
	uint8_t reserved[5];
	char name[LEDGER_NAME_MAX + 1];
	struct tier_layout layout;
};

/* A uid that owns modules */
struct ledger_user {
	uint64_t owner;			/* uid + 1 */
	uint64_t deadline_ns;		/* CLOCK_MONOTONIC of the next tick of the call-counting delay; 0: no delay now */
	uint64_t batch_end;		/* uncounted methods with lower tickets have sat out their delay */
	uint64_t turn;			/* ticket of the last start of a job: round robin */
	uint32_t is_extended;		/* a first call came since the last tick */
	uint32_t reserved;
};

/* A method that was ever called, rejitted or led to by a recorded slot; others are cold and have no record. */
struct ledger_method {
	uint64_t module;
	uint64_t generation;
	uint64_t ticket;		/* when it came to its stage */
	uint64_t forwarder;		/* address of its forwarder stub; 0: none */
	uint32_t index;
	uint32_t body;			/* the current one; 0: its own */
	uint32_t active;		/* version that calls reach; LEDGER_NONE: cold */
	uint32_t next;			/* version that is being made for the current body; LEDGER_NONE: none */
	uint32_t chain;			/* newest of all its versions, whichever body's */
	uint32_t slots;			/* newest of its recorded slots */
	uint32_t original_active, original_next;	/* of its own body, while another is in its place */
	uint8_t stage, reason;		/* enum tier_stage, tier_reason (why final) */
	uint8_t original_stage, original_reason;
	uint8_t was_final;		/* so slots may have led elsewhere than to T */
	uint8_t reserved[27];
	LEDGER_NEXT_FIELD
};

/* What a version may be: on its way (then the method's stage tells how far), in use, or given up. */
enum ledger_state { LEDGER_MAKING, LEDGER_LIVE, LEDGER_FAILED };

struct ledger_version {
	uint64_t module;
	uint64_t id;
	uint64_t code;
	uint32_t size, body;
	union {
		uint64_t stub;		/* its call-counting stub, or 0 */
		uint64_t ticket;	/* OSR that is being made: by which it waits */
	};
	uint32_t cell, threshold;
	uint32_t older;			/* the method's version before this one */
	uint32_t edges;			/* whom it inlined: first of a chain */
	uint32_t profile;		/* first of the cells that it counts in; LEDGER_NONE: it is not instrumented */
	uint32_t patchpoint;		/* OSR: its number in the module; else LEDGER_NONE */
	uint64_t level : 8, state : 7;
	uint64_t is_begun : 1;		/* while it is on its way: its compilation has begun */
	uint64_t published_ms : 48;	/* CLOCK_REALTIME; 0 unless LIVE */
	LEDGER_NEXT_FIELD
};

/* A place that leads to a method and that the core rewrites. Written before its method's transaction that makes it reachable. */
struct ledger_slot {
	uint64_t module;
	uint64_t address;		/* as clients see it */
	uint32_t method;		/* whom it leads to: index in the module */
	uint32_t next;			/* the method's slot before this one */
	uint32_t kind;			/* enum tier_slot_kind */
	uint32_t reserved;
};

#define LEDGER_EDGE_METHODS 9u
struct ledger_edge {
	uint64_t module;
	uint64_t version_id;
	uint32_t version, next;
	uint32_t n_methods;
	uint32_t methods[LEDGER_EDGE_METHODS];	/* indices in the module */
};

#ifndef LEDGER_TEST_NEXT
_Static_assert(sizeof(struct ledger_global) == 64 && sizeof(struct ledger_method) == 96 && sizeof(struct ledger_version) == 72
	       && sizeof(struct ledger_edge) == 64 && sizeof(struct ledger_slot) == 32, "ledger format 5");
#endif

struct ledger_header;
struct ledger_redo;

struct ledger {
	struct ledger_header *header;
	struct ledger_redo *redo;
	struct tier_event *events;
	uint8_t *tables[_LEDGER_TABLE_N];
	uint32_t free[_LEDGER_TABLE_N];		/* first free slot below the high-water mark; chained through the slots */
	const struct ledger_global *global;	/* as committed */
	bool is_inherited;			/* a predecessor's */
	struct ledger_global *edited;		/* as the open transaction will leave it; NULL: none is open */
	size_t n_redo;				/* bytes of the open transaction */
};

size_t ledger_size(void);	/* bytes; sparse, mostly never touched */

/* -- What a successor finds --- */
enum {
	_LEDGER_E_SUCCESS,
	LEDGER_E_EMPTY,		/* nothing: whoever made it died before it was a ledger */
	LEDGER_E_OLDER,		/* a ledger of an earlier program, to be converted */
};
/* What lies in memory of @n_memory bytes, 4096-byte aligned; nothing is written, whatever it is. 0: a ledger that ledger_open()
 * takes; EMPTY, OLDER; or -EBADMSG, with the sentence that says why it is none of these. */
int ledger_examine(const void *memory, size_t n_memory, struct refusal *why);
/* Makes of an earlier program's ledger, which stays untouched, the same for this one, its last transaction finished. @to: zeroed
 * memory of ledger_size() bytes; it becomes a ledger with the last store. 0, or -EBADMSG as above. */
int ledger_convert(void *to, size_t n_to, const void *from, size_t n_from, struct refusal *why);

/* Makes a ledger of zeroed memory, or takes over a predecessor's of the same shape and finishes its last transaction. Free slots
 * are known only after ledger_release() of each. 0, or -EBADMSG: something else lies there; it stays untouched. */
int ledger_open(struct ledger *ledger, void *memory, size_t n_memory);

/* -- Slots --- */
uint32_t ledger_used(const struct ledger *ledger, enum ledger_table table);	/* no slot from here on was ever used */
/* A slot, or LEDGER_NONE. It stays free for a successor until a transaction gives its record an owner. */
uint32_t ledger_take(struct ledger *ledger, enum ledger_table table);
/* Gives back a slot whose owner is gone, as of a committed transaction. */
void ledger_release(struct ledger *ledger, enum ledger_table table, uint32_t slot);

/* -- Transactions --- */
void ledger_begin(struct ledger *ledger);
/* The record's image in the transaction, to be changed in place. Asserts that the transaction stays small. */
void *ledger_edit_record(struct ledger *ledger, const void *record, size_t n);
#define ledger_edit(ledger, record) ((__typeof__(record))ledger_edit_record((ledger), (record), sizeof(*(record))))
uint64_t ledger_ticket(struct ledger *ledger);			/* the next one, taken in the transaction */
struct tier_event *ledger_event(struct ledger *ledger);		/* zero but for its number */
void ledger_commit(struct ledger *ledger);

/* -- Events that were committed but perhaps not told to anybody yet --- */
uint64_t ledger_delivered(const struct ledger *ledger);		/* number of the newest that was told */
void ledger_set_delivered(struct ledger *ledger, uint64_t sequence);
const struct tier_event *ledger_event_at(const struct ledger *ledger, uint64_t sequence);

/* Unit tests: called at every point between two stores where dying makes a difference; normally NULL. */
extern void (*ledger_crash_point)(void);

/* inline helpers: a slot's record, ledger_module(ledger, slot) and so on */
#define LEDGER_ACCESSOR(NAME, record, n)                                                                               \
	static inline struct ledger_##record *ledger_##record(const struct ledger *ledger, uint32_t slot)              \
	{                                                                                                              \
		return (struct ledger_##record *)ledger->tables[LEDGER_##NAME] + slot;                                 \
	}
LEDGER_TABLE_LIST(LEDGER_ACCESSOR)
