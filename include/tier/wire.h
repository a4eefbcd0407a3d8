/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The socket protocol, version 1
 *
 * A SOCK_SEQPACKET Unix socket; every datagram is one message: a header, then a body whose size the type fixes. Little
 * endian, natural alignment, strings NUL-terminated and padded with zeros inside fixed fields. Descriptors travel as
 * SCM_RIGHTS with the message that names them. A request carries a serial of the client's choice; its reply carries the
 * same. Replies may come in another order than requests (waits, loads). A message that breaks the format is answered
 * with ERROR PROTOCOL and the connection is closed.
 *
 * A session may have several connections ("lanes"), so that a cold call never queues behind an API call: the first says
 * HELLO with session 0, further ones with the token that WELCOME gave. What a session holds (modules, waits) ends with
 * its last lane. */

#include <stdint.h>
#include "tier/events.h"
#include "tier/records.h"
#include "tier/types.h"

#define WIRE_MAGIC 0x52454954u	/* "TIER" */
#define WIRE_VERSION 1u
#define WIRE_NAME_MAX 64u	/* bytes of a module's name with its NUL */
#define WIRE_METHOD_NAME_MAX 256u
#define WIRE_TEXT_MAX 400u
#define WIRE_SOCKET_DEFAULT "/run/tierd/tierd.sock"

/* name, number, body of the request */
#define WIRE_REQUEST_LIST(_)                                                                                           \
	_(HELLO, 1, struct wire_hello)		/* → WELCOME + probe page fd */                                        \
	_(PROBED, 2, struct wire_probed)	/* the hello probe was called → PATH */                                \
	_(LOAD, 3, struct wire_load)		/* + fd of a sealed memfd with the object → LOADED */                  \
	_(UNLOAD, 4, struct wire_module_ref)	/* → DONE */                                                           \
	_(ATTACH, 5, struct wire_attach)	/* the session holds the module → MODULE + 4 segment fds */            \
	_(DETACH, 6, struct wire_module_ref)	/* → DONE */                                                           \
	_(LIST, 7, struct wire_cursor)		/* modules with ids above cursor → MODULES */                          \
	_(METHODS, 8, struct wire_cursor)	/* of module, indices from cursor on → NAMES */                        \
	_(IMPORTS, 9, struct wire_cursor)	/* of module, indices from cursor on → NAMES */                        \
	_(FIND, 10, struct wire_find)		/* → FOUND */                                                          \
	_(PREPARE, 11, struct wire_method_ref)	/* the prestub's: make sure there is code → DONE */                    \
	_(STATUS, 12, struct wire_method_ref)	/* → ANSWER */                                                         \
	_(REMAINING, 13, struct wire_method_ref) /* → ANSWER */                                                        \
	_(WAIT, 14, struct wire_wait)		/* → ANSWER, or ERROR TIMEOUT or CANCELED */                           \
	_(CANCEL, 15, struct wire_cancel)	/* ends this connection's wait or events request of that serial → DONE */ \
	_(PENDING, 16, struct wire_pending)	/* → COUNT */                                                          \
	_(STATS, 17, struct wire_empty)		/* → STATISTICS */                                                     \
	_(CLIENTS, 18, struct wire_cursor)	/* own sessions (root: all), numbers above cursor → SESSIONS */        \
	_(EVENTS, 19, struct wire_events_from)	/* → BATCH, ERROR GAP, TIMEOUT or CANCELED (first: where to go on) */  \
	_(THRESHOLD, 20, struct wire_bell)	/* one-way: the socket path's bell; no reply */                         \
	_(DESCRIBE, 21, struct wire_method_ref)	/* what a method is → DESCRIPTION */                                   \
	_(HISTORY, 22, struct wire_look)	/* its versions, newest first, ids below cursor (0: all) → VERSIONS */ \
	_(RELATED, 23, struct wire_look)	/* names that have to do with it, from the cursor-th on → NAMES */     \
	_(BYTECODE, 24, struct wire_look)	/* its instructions, slots from cursor on → INSNS */                   \
	_(LINES, 25, struct wire_look)		/* its source lines, for slots from cursor on → SOURCE */             \
	_(REJIT, 26, struct wire_rejit)		/* + fd of a sealed memfd with an object: the method gets a new body → DONE */ \
	_(REVERT, 27, struct wire_method_ref)	/* its own body comes back → DONE */                                   \
	_(SLOT_USED, 28, struct wire_slot)	/* one-way: a call came to the prestub through this call cell; no reply */ \
	_(SLOT_WATCH, 29, struct wire_method_ref) /* on a SLOTS lane: this process has slots of its own for it → DONE */ \
	_(SLOT_DONE, 30, struct wire_slot_change) /* one-way: they hold what the record says */                       \
	_(COUNTERS, 31, struct wire_empty)	/* what keeping entry points took → COUNTED */                         \
	_(OSR, 32, struct wire_osr)		/* one-way: frames hit this patchpoint so often that they want code; no reply */ \
	_(FREEZE, 33, struct wire_module_ref)	/* its promotions are held → DONE when none is being compiled any more */ \
	_(THAW, 34, struct wire_module_ref)	/* they go on → DONE */                                                \
	_(MARK, 35, struct wire_module_ref)	/* what tells whether anything of the module has changed → MARKED */   \
	_(SETTLED, 36, struct wire_method_ref)	/* the method and all that it has called → SETTLEMENT */               \
	_(KNOBS, 37, struct wire_cursor)	/* the daemon's knobs, from the cursor-th on → SETTINGS */                     \
	_(PRECOMPILE, 38, struct wire_empty)	/* + fd of a sealed memfd with an object: optimized code goes into it → OBJECT + fd */ \
	_(INSTANTIATE, 39, struct wire_instantiate) /* the module with other constants → LOADED */

/* name, number, body of the reply */
#define WIRE_REPLY_LIST(_)                                                                                             \
	_(ERROR, 100, struct wire_error)                                                                               \
	_(DONE, 101, struct wire_empty)                                                                                \
	_(WELCOME, 102, struct wire_welcome)                                                                           \
	_(PATH, 103, struct wire_path)                                                                                 \
	_(LOADED, 104, struct wire_module_ref)                                                                         \
	_(MODULE, 105, struct wire_module)                                                                             \
	_(MODULES, 106, struct wire_modules)                                                                           \
	_(NAMES, 107, struct wire_names)                                                                               \
	_(FOUND, 108, struct wire_method_ref)                                                                          \
	_(ANSWER, 109, struct wire_answer)                                                                             \
	_(COUNT, 110, struct wire_count)                                                                               \
	_(STATISTICS, 111, struct wire_stats)                                                                          \
	_(SESSIONS, 112, struct wire_sessions)                                                                         \
	_(BATCH, 113, struct wire_batch)                                                                               \
	_(DESCRIPTION, 114, struct wire_description)                                                                   \
	_(VERSIONS, 115, struct wire_versions)                                                                         \
	_(INSNS, 116, struct wire_insns)                                                                               \
	_(SOURCE, 117, struct wire_source)                                                                             \
	_(SLOT_CHANGED, 118, struct wire_slot_change) /* serial 0, unasked, on a SLOTS lane: read the record, set the slots */ \
	_(COUNTED, 119, struct wire_counters)                                                                          \
	_(MARKED, 120, struct wire_mark)                                                                               \
	_(SETTLEMENT, 121, struct wire_settlement)                                                                     \
	_(SETTINGS, 122, struct wire_knobs)                                                                            \
	_(OBJECT, 123, struct wire_object)

struct wire_header {
	uint32_t magic;
	uint16_t version;
	uint16_t type;		/* enum wire_type */
	uint32_t size;		/* of the whole message, header included */
	uint32_t n_fds;		/* descriptors that travel along */
	uint64_t serial;
};
TIER_STATIC_ASSERT(sizeof(struct wire_header) == 24, "wire format 1");

struct wire_empty {
	uint64_t reserved;	/* 0 */
};
struct wire_error {
	uint32_t error;		/* enum tier_error */
	uint32_t reserved;
	uint64_t first, last;	/* GAP: the event numbers that are gone; end of an events request: first is its cursor */
	char text[WIRE_TEXT_MAX]; /* one sentence: what, where, why */
};

enum wire_lane { WIRE_LANE_API, WIRE_LANE_PRESTUB, WIRE_LANE_EVENTS, WIRE_LANE_SLOTS, _WIRE_LANE_N };
struct wire_hello {
	uint64_t session[2];	/* the token of the session to join; zeros: a new one */
	uint32_t lane;		/* enum wire_lane */
	uint32_t flags;		/* 0 */
	char program[32];	/* for `tierctl stats` */
};
struct wire_welcome {
	uint64_t session[2];	/* token, random, known to this client only */
	uint64_t number;	/* of the session, as stats show it */
	uint64_t nonce;		/* to be passed to the hello probe */
	char daemon[32];	/* the daemon's version */
};
struct wire_probed {
	uint64_t nonce;
	uint32_t mapped;	/* 1: the page is mapped and the probe was called; 0: this process could not map it */
	uint32_t reserved;
};
enum wire_path_kind { WIRE_PATH_SOCKET, WIRE_PATH_KERNEL };
struct wire_path {
	uint32_t path;		/* enum wire_path_kind: how this client rings */
	uint32_t sites;		/* KERNEL: bit i: hits of site i reach the daemon; what has no such site goes over the socket */
	char why[WIRE_TEXT_MAX];
};
enum wire_load_flags { WIRE_LOAD_SHARED = 1u << 0 };
struct wire_load {
	char name[WIRE_NAME_MAX];
	uint32_t flags;		/* enum wire_load_flags */
	uint32_t reserved;
};
/* A module: by id, or when id is 0 by name: NAME is the caller's own, else one that root or the daemon's
 * own uid shares; UID/NAME is that uid's. A client sees its own uid's modules and shared ones, root sees all; only the owner
 * and root may unload. */
struct wire_module_ref {
	uint64_t module;
	char name[WIRE_NAME_MAX];
};
/* The object that PRECOMPILE was given, with code inside, in a sealed memfd: what LOAD takes */
struct wire_object {
	uint64_t size;		/* bytes */
};
enum wire_attach_flags { WIRE_ATTACH_HOLD_ONLY = 1u << 0 };	/* no descriptors: for who has the mappings already */
struct wire_attach {
	struct wire_module_ref ref;
	uint32_t flags;
	uint32_t reserved;
};
enum wire_module_flags { WIRE_MODULE_SHARED = 1u << 0, WIRE_MODULE_UNNAMED = 1u << 1, WIRE_MODULE_FROZEN = 1u << 2 };
struct wire_module {
	uint64_t module;
	uint32_t uid, flags;
	char name[WIRE_NAME_MAX];
	struct tier_layout layout;
	uint64_t base;		/* of an instantiation: the module it was made of, in whose span .data and .bss lie; 0: it is none */
};
/* The module's instantiation with these values, which is the same one for the same user, module and values as long as it has
 * its name; else a new one. Each knob is a variable of .rodata of 1, 2, 4 or 8 bytes; its value is an unsigned number, or a
 * negative one with all its bits. LOADED has its name: M<a=1,b=7>, in order of knobs, or M<hash> where that were too long or is
 * taken. It belongs to who asked. UNLOAD of the module unloads its instantiations. */
#define WIRE_VALUES_MAX 16u
#define WIRE_KNOB_NAME_MAX 64u
enum wire_instantiate_flags { WIRE_INSTANTIATE_FIND = 1u << 0 };	/* none is made: else ERROR NO_MODULE */
struct wire_instantiate {
	uint64_t module;
	uint32_t flags;		/* enum wire_instantiate_flags */
	uint32_t n;		/* of values[], at least 1; the others are zeroes */
	struct wire_value {
		char name[WIRE_KNOB_NAME_MAX];
		uint64_t value;
	} values[WIRE_VALUES_MAX];
};
struct wire_cursor {
	uint64_t module;	/* METHODS, IMPORTS */
	uint64_t cursor;
};
#define WIRE_MODULES_MAX 32u
struct wire_modules {
	uint32_t n, more;	/* more: ask again with the last id */
	struct wire_module_row {
		uint64_t module;
		uint32_t uid, flags, n_methods, n_pending;
		uint32_t n_status[_TIER_STATUS_N];
		uint32_t reserved;
		char name[WIRE_NAME_MAX];
	} rows[WIRE_MODULES_MAX];
};
#define WIRE_NAMES_MAX 32u
struct wire_names {
	uint32_t n, more;
	struct wire_name_row {
		uint32_t index, flags;	/* IMPORTS: 1 = weak; METHODS: 1 = global */
		char name[WIRE_METHOD_NAME_MAX];
	} rows[WIRE_NAMES_MAX];
};
struct wire_find {
	uint64_t module;
	char method[WIRE_METHOD_NAME_MAX];
};
struct wire_method_ref {
	uint64_t module;
	uint32_t method;
	uint32_t reserved;
};
struct wire_answer {
	uint64_t generation;
	uint32_t status, stage, tier, reason;	/* the enums of tier/types.h */
	uint32_t remaining;
	uint32_t is_frozen;	/* 1: it will not go on, because its module is frozen */
};
struct wire_wait {
	uint64_t module;
	uint32_t method;
	uint32_t reserved;
	uint64_t timeout_ns;	/* UINT64_MAX: none; 0: just ask */
};
struct wire_cancel {
	uint64_t serial;
};
enum wire_scope { WIRE_SCOPE_MODULE, WIRE_SCOPE_MINE, WIRE_SCOPE_ALL };
struct wire_pending {
	uint64_t module;	/* SCOPE_MODULE */
	uint32_t scope;
	uint32_t reserved;
};
struct wire_count {
	uint64_t count;
};
struct wire_bell {
	uint64_t module, version;
	uint32_t method;
	uint32_t tid;
};
#define WIRE_EVENTS_SINCE (UINT64_C(1) << 63)
struct wire_events_from {
	uint64_t from;		/* first number wanted; 0: only new ones; WIRE_EVENTS_SINCE | CLOCK_REALTIME ns: from that time on */
	uint64_t timeout_ns;	/* how long to wait for the first event; 0: answer at once, perhaps with an empty batch */
};
/* A client sees the events of what it may see: of its own uid's modules and of shared ones that are loaded; root sees all.
 * Others' are skipped: within a batch and before `next` numbers may be missing that are no gap. */
#define WIRE_BATCH_MAX 128u
struct wire_batch {
	uint32_t n, reserved;
	uint64_t next;		/* where to go on */
	struct tier_event events[WIRE_BATCH_MAX];
};
struct wire_stats {
	char daemon[32];		/* version */
	char path[WIRE_TEXT_MAX];	/* "kernel probes", or why not */
	uint32_t kernel, pid;		/* 1: the kernel programs are attached */
	uint64_t uptime_ns;
	uint64_t n_sessions, n_modules, n_methods, n_versions;
	uint64_t n_thresholds[_TIER_SOURCE_N];
	uint64_t n_unconfirmed, n_published, n_promotions_failed, n_delays, sequence, oldest;
	uint64_t n_kernel_events[_TIER_PROBE_N], n_kernel_dropped;
	uint64_t n_kernel_limited, n_kernel_refused;	/* hits: of processes that had too many; of the daemon's sites by others */
	char probe_page[32];		/* where other tracers find the page, as the daemon sees it */
	uint64_t n_jobs, n_jobs_failed, n_workers_started, n_workers_died, n_workers, n_jobs_queued;
	uint64_t n_turns, longest_turn_ns;
	char longest_turn_name[32];
	uint64_t n_requests, n_disconnected;	/* n_disconnected: clients thrown out for breaking the protocol */
	/* the knobs in force */
	uint64_t threshold, delay_ns, worker_timeout_ns;
	/* the code cache; zeroes: there is none */
	uint64_t n_cache_hits, n_cache_misses;
	uint64_t n_cache_dropped;	/* damaged entries that went */
	uint64_t n_cache_entries, n_cache_bytes;
	/* daemons that took over from one before, this one included; how long the last one took from its start until it served */
	uint64_t n_takeovers, takeover_ns;
};
#define WIRE_SESSIONS_MAX 16u
struct wire_sessions {
	uint32_t n, more;
	struct wire_session_row {
		uint64_t number;
		uint32_t pid, uid, n_lanes, n_modules, n_waits;
		uint32_t path;		/* enum wire_path_kind */
		char program[32];
		char why[128];
	} rows[WIRE_SESSIONS_MAX];
};

/* -- Entry points --- */
/* The owner of the module and root may. Answered when every call that begins anywhere from then on runs the new body: a
 * process that watches slots of an affected method must have answered SLOT_DONE, or be gone; one that doesn't in time makes
 * the answer ERROR TIMEOUT, which names it (the new body stays), and loses its SLOTS lane. ERROR SIGNATURE, UNBOUND, BAD_MODULE:
 * nothing changed. */
enum wire_rejit_flags { WIRE_REJIT_FORCE = 1u << 0 };	/* whatever the signatures say */
struct wire_rejit {
	uint64_t module;
	uint32_t method;
	uint32_t flags;				/* enum wire_rejit_flags */
	char symbol[WIRE_METHOD_NAME_MAX];	/* of the object's function; "": the method's name */
};
struct wire_slot {
	uint64_t module;
	uint64_t cell;		/* address of the call cell */
	uint32_t method;
	uint32_t reserved;
};
struct wire_slot_change {
	uint64_t module;
	uint64_t ticket;	/* of the change; a SLOT_DONE answers it and all before */
	uint32_t method;
	uint32_t reserved;
};
/* All of the daemon's modules since it started; those that are gone included. */
struct wire_counters {
	uint64_t policy;			/* enum tier_backpatch */
	uint64_t n_backpatch_calls;		/* invocations of the function that walks slots, also when it returns early */
	uint64_t n_slots_examined;		/* recorded slots that such a walk looked at */
	uint64_t n_slot_writes;			/* writes of vtable slots and call sites that changed them; a slot's discovery is one, the
						 * registration of a call site in new code is not */
	uint64_t n_slots_recorded;		/* vtable slots discovered, call sites registered */
	uint64_t n_funcptr_writes;		/* the same of funcptr precodes' targets */
	uint64_t n_entry_transitions;		/* changes of E */
	uint64_t n_oscillations;		/* E or a slot got a value that it had held before */
	uint64_t n_precode_stores;		/* changes of P */
	uint64_t n_paths[_TIER_PATH_N];		/* by the path that set an entry point */
	uint64_t backpatch_ns;			/* CLOCK_MONOTONIC spent in walks of slots */
	uint64_t n_uncounted_entries;		/* eager: E set to code past a counting stub, so direct calls are not counted */
	uint64_t n_stale_completions;		/* eager: counting completed, slots left at the prestub since E did not change */
	uint64_t n_unsafe_inactive;		/* eager: a stub said to be inactive while P still leads to it */
	uint64_t n_rejits, n_reverts, n_withdrawn;
	uint64_t n_visits[_TIER_VISIT_N];	/* the prestub's, as the clients say */
	uint64_t visit_ns[_TIER_VISIT_N];
	uint64_t n_client_slot_writes;		/* of slots in clients' own memory, as they say */
};

/* -- Measuring --- */
struct wire_osr {
	uint64_t module;
	uint32_t patchpoint;	/* number in the module */
	uint32_t reserved;
};
/* FREEZE: the owner of the module and root may, once per session. It holds the module, and ends with THAW, with the session's
 * last DETACH of the module, or with the session; then what was held goes on. A THAW meanwhile makes the FREEZE's answer
 * ERROR CANCELED. */
struct wire_mark {
	uint64_t changes;	/* as the header of the module's records has them, in one moment */
	uint32_t n_compiling;
	uint32_t is_frozen;
};
#define WIRE_UNSETTLED_MAX 64u
struct wire_settlement {
	uint32_t is_settled;	/* 1: none of them is optimizing, and no OSR code of theirs is on its way */
	uint32_t n_methods;	/* that were looked at: this one, and those that it can have called, of which only called ones count */
	uint32_t n_unsettled;	/* of which that cannot be said */
	uint32_t n_pending;	/* of those: queued, being compiled, or about to be; or OSR code is */
	uint32_t calls;		/* the largest number of calls that one of them is still to count; 0: none counts calls now */
	uint32_t n;		/* of unsettled[] */
	uint64_t progress;	/* another one whenever any of them has moved */
	uint32_t unsettled[WIRE_UNSETTLED_MAX];	/* indices of the first of them */
};
#define WIRE_KNOBS_MAX 24u
struct wire_knobs {
	uint32_t n, more;	/* more: ask again with the cursor + n */
	struct wire_knob_row {
		char name[40];		/* of tierd's option */
		char value[64];		/* in force */
		char standard[64];	/* its default; "": none */
		char range[64];		/* and unit; "": any */
		char mirrors[48];	/* CoreCLR's name; "": it has none */
	} rows[WIRE_KNOBS_MAX];
};

/* -- Looking into a method --- */
enum wire_method_flags {
	WIRE_METHOD_GLOBAL = 1u << 0,
	WIRE_METHOD_WEAK = 1u << 1,
	WIRE_METHOD_NO_OPTIMIZATION = 1u << 2,
	WIRE_METHOD_AGGRESSIVE_OPTIMIZATION = 1u << 3,
	WIRE_METHOD_PINNED = 1u << 4,
};
#define WIRE_SIGNATURE_MAX 512u
struct wire_description {
	uint64_t module;
	uint32_t method;
	uint32_t flags;			/* enum wire_method_flags */
	uint32_t n_insns;		/* slots of 8 bytes: a 64-bit immediate is two */
	uint32_t n_params;
	uint32_t section_offset;	/* bytes */
	uint32_t body;			/* 0: its own; else a number that this one has alone in the module: it was replaced, and what
					 * is told of instructions, signature, section and relations is the new body's */
	uint64_t signature_hash;	/* equal when the values have the same kinds and sizes; 0 when there is no signature */
	char signature[WIRE_SIGNATURE_MAX];	/* in C; "": unknown */
	char section[WIRE_METHOD_NAME_MAX];
	char note[WIRE_METHOD_NAME_MAX];	/* what of the object's debug information was left out, and why; "": nothing */
};
enum wire_relation {
	WIRE_RELATION_CALLERS,		/* methods that call it; row indices are methods' */
	WIRE_RELATION_CALLEES,		/* methods that it calls */
	WIRE_RELATION_ADDRESSES,	/* methods whose address it takes */
	WIRE_RELATION_IMPORTS,		/* imports that it calls or whose address it takes; indices are imports' */
	WIRE_RELATION_INLINED,		/* methods that @version inlined */
	WIRE_RELATION_TAGS,		/* its decl_tags; indices count them */
	WIRE_RELATION_FILES,		/* the module's source files; indices are files' */
	_WIRE_RELATION_N,
};
struct wire_look {
	uint64_t module;
	uint32_t method;
	uint32_t relation;		/* RELATED: enum wire_relation; else 0 */
	uint64_t version;		/* RELATED to INLINED: whose; else 0 */
	uint64_t cursor;
};
enum wire_version_flags { WIRE_VERSION_ACTIVE = 1u << 0 };	/* it is what calls reach */
#define WIRE_VERSIONS_MAX 64u
struct wire_versions {
	uint32_t n, more;		/* more: ask again with the last id */
	struct wire_version_row {
		uint64_t version;
		uint64_t code, size;	/* 0 unless live */
		uint64_t stub;		/* address of its call-counting stub, or 0 */
		uint64_t published_ns;	/* CLOCK_REALTIME, whole milliseconds; 0 unless live */
		uint32_t tier, state;	/* enum tier_level, enum tier_version_state */
		uint32_t flags, n_inlined;
		uint32_t threshold;
		uint32_t body;		/* whose it is, as in struct wire_description */
	} rows[WIRE_VERSIONS_MAX];
};
#define WIRE_INSNS_MAX 1024u
struct wire_insns {
	uint32_t n, more;		/* more: ask again with cursor + n */
	uint64_t insns[WIRE_INSNS_MAX];	/* RFC 9669's encoding, but for what a loader resolves: src_reg of a 64-bit immediate says
					 * 1 = method, 2 = import (the number in the second half), 3 = .rodata, 4 = .data, 5 = .bss
					 * (an offset); of a call 1 = method, 2 = import (the number is the immediate) */
};
#define WIRE_LINES_MAX 512u
struct wire_source {
	uint32_t n, more;		/* more: ask again with the last slot + 1 */
	struct wire_line_row {
		uint32_t insn;		/* slot in the method: from there on, up to the next row */
		uint32_t file;
		uint32_t line, column;	/* 0: unknown */
	} rows[WIRE_LINES_MAX];
};

#define WIRE_ENUM(name, number, type) WIRE_##name = number,
enum wire_type { WIRE_REQUEST_LIST(WIRE_ENUM) WIRE_REPLY_LIST(WIRE_ENUM) };

/* Size of the body that a type fixes, or 0 for a type that version 1 does not know. */
#define WIRE_SIZE_CASE(name, number, type) case number: return sizeof(type);
static inline uint32_t wire_body_size(unsigned int type)
{
	switch (type) {
	WIRE_REQUEST_LIST(WIRE_SIZE_CASE)
	WIRE_REPLY_LIST(WIRE_SIZE_CASE)
	default: return 0;
	}
}
