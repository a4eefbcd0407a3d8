/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A mapping: one module's span in this process (tier/records.h), whichever connections have it open
 *
 * The span exists once per process, so mappings are the process's; two connections that open the same module (the
 * same file behind its records) share one, and its private data. */

#include <stdint.h>
#include "tier/wire.h"
#include "tier/tier.h"

struct tier_conn;
struct tier_module;

struct mapping_import {
	uint32_t flags;		/* 1: weak */
	char name[WIRE_METHOD_NAME_MAX];
};
struct mapping_name {		/* of a method, once somebody asked for it */
	uint32_t is_known;
	char text[WIRE_METHOD_NAME_MAX];
};

/* Which call cells the session's daemon was told of. In memory that a fork finds wiped: its session is another one. */
struct mapping_notes {
	uint64_t deaf_until_ns;		/* there was nobody to tell; a new session, or a new holder, is somebody */
	uint64_t has_session;		/* 1: this process has had one that holds the module */
	uint64_t posted[];		/* a bit per call cell */
};

struct mapping {
	struct mapping *next;		/* process_page()->links guards both lists */
	struct tier_module *holders;	/* one per connection that has the module open */
	uint64_t device, inode;		/* of the records' file: the identity */
	uint64_t module;
	char name[WIRE_NAME_MAX];
	struct tier_layout layout;
	const struct tier_record *records;
	uint32_t *cells;
	struct tier_visits *visits;
	uint32_t *hits;			/* of patchpoints */
	struct tier_private *table;
	struct mapping_notes *notes;	/* NULL: the module has no vtable slots */
	struct mapping_import *imports;
	struct mapping_name *names;
	size_t n_bytes;			/* of this struct and the tables behind it */
};

/* Checks the daemon's reply against itself and the descriptors. 0, or a negative errno with a sentence. */
int layout_check(const struct wire_module *reply, const int fds[_TIER_SEGMENT_N]);

/* A mapping without its span: to be filled with names. NULL with a sentence: no memory, or a kernel that is too old. */
struct mapping *mapping_new(const struct wire_module *reply);
/* Maps the span, checks the records header, fills the private table, and makes the mapping known to the process. All or
 * nothing: on failure the mapping is as before. Signals are blocked. */
int mapping_map(struct mapping *mapping, const int fds[_TIER_SEGMENT_N]);
/* Unmaps the span, if there is one, and frees the mapping. Signals are blocked, nobody holds it any more. */
void mapping_free(struct mapping *mapping);

/* Identity; the caller holds the registry lock. NULL: not mapped. */
struct mapping *mapping_find(int records_fd);
bool mapping_is_of(const struct mapping *mapping, int records_fd);
/* What a fork finds half mapped, because the thread that did it is the parent's, goes. Holding the registry lock. */
void mapping_tidy(void);

/* There is a connection that was not there before: notes are worth trying. */
static inline void mapping_hear(struct mapping *mapping)
{
	if (!mapping->notes)
		return;
	__atomic_store_n(&mapping->notes->deaf_until_ns, 0, __ATOMIC_RELAXED);
	__atomic_store_n(&mapping->notes->has_session, 1, __ATOMIC_RELAXED);
}

/* The same when there was one before: what its daemon was told may have died with it, and is told again. A note that makes the
 * session itself may come twice. Holding the links lock. */
void mapping_tell_again(struct mapping *mapping);

/* From what machine code has in its registers */
struct mapping *mapping_of_record(const struct tier_record *record);
struct mapping *mapping_of_patchpoint(const struct tier_patchpoint *patchpoint);
struct mapping *mapping_of_code(uint64_t address);	/* NULL: not inside any module; signals are blocked */

/* A connection that can answer about the module, with a reference; NULL: all are closed. Signals are blocked. */
struct tier_conn *mapping_conn(struct mapping *mapping);
/* The same, for what concerns only a daemon that knows the module. */
struct tier_conn *mapping_conn_for_note(struct mapping *mapping);
/* Whether the daemon that @conn leads to now knows the module: as module_check(). */
int mapping_check(const struct mapping *mapping, const struct tier_conn *conn);
