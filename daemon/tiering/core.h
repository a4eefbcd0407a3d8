/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The core: methods on their way through the tiers
 *
 * A single-threaded state machine without I/O. Time, jobs, machine code, the arena's memory and the way news travel come
 * in through struct core_ops, so that unit tests run it with a fake clock and fake jobs. Everything that must survive
 * the daemon lives in the ledger (tiering/ledger.h); the heap only indexes it.
 *
 *   cold ── core_prepare ──► Tier0, uncounted ── delay over ──► counting ── N-th call ──► queued ──► compiling ──► final
 *                                   ▲                                                                    │
 *                                   └─────────────── an instrumented tier: the same once more ───────────┘
 *
 * A transition is always the same steps: change the ledger in one transaction (with the numbers of the events it
 * causes), then store what clients see (P, E, the record), then ring the bells (event, changed). */

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include "tier/events.h"
#include "tier/records.h"
#include "tier/types.h"

struct core;
struct module;		/* of the core; core_module_*() */

enum {
	_CORE_E_SUCCESS,
	CORE_E_FULL,		/* no room for code in the module */
	CORE_E_EXISTS,		/* a module of that name exists for that uid */
	CORE_E_AGAIN,		/* the first part is done; go on with the same call in the next turn of the loop */
	CORE_E_TOO_LARGE,	/* no compiler takes a method of that size */
	CORE_E_QUOTA,		/* the ledger, or the uid's share of it, has no room for that many methods or versions */
	CORE_E_LATER,		/* the method's first code is being compiled: ask again when it has changed */
};

struct core_config {
	uint32_t threshold;		/* N, 1..65535 (reference §10: 0 → 1) */
	uint64_t delay_ns;		/* call-counting delay; 0: counting starts with tier 0 */
	bool call_counting;		/* off: methods stay at their initial tier, final at once */
	bool no_tiers;			/* --tiered-compilation=off: the optimizer makes every first code, which is final */
	bool no_quick_jit;		/* --quick-jit=off: likewise what has no precompiled code */
	bool no_quick_jit_loops;	/* --quick-jit-for-loops=off: likewise what has loops */
	bool pgo;			/* there are instrumented tiers */
	bool instrument_all;		/* --instrument-only-hot-code=off: bytecode starts at Tier0Instrumented; no other is instrumented */
	uint32_t jobs_per_uid;		/* background jobs of one uid at a time, default 1 */
	uint32_t jobs_total;		/* background jobs at a time, at least 1 */
	uint64_t sweep_ns;		/* period of the sweep over armed cells, default 1 s */
	uint64_t first_sequence;	/* of a ledger without a past: number of its first event, default 1 */
	enum tier_backpatch backpatch;	/* how entry points are kept */
	bool counting_in_prestub;	/* no call-counting stubs: P stays at the prestub while calls are counted, which counts them */
};

/* Code as the outside made it */
struct core_code {
	uint64_t address, size;
	uint64_t code_used;		/* of the module's code segment, after it: goes into the ledger */
};

/* What of a method's body decides its ladder (reference §2, §7) */
enum core_trait {
	CORE_TRAIT_NO_OPTIMIZATION = 1u << 0,		/* MinOptJitted, final */
	CORE_TRAIT_AGGRESSIVE_OPTIMIZATION = 1u << 1,	/* Optimized before its first call returns, final */
	CORE_TRAIT_PINNED = 1u << 2,			/* stays at its precompiled code */
	CORE_TRAIT_PRECOMPILED = 1u << 3,		/* has precompiled code: starts there, as ReadyToRun */
	CORE_TRAIT_LOOPS = 1u << 4,
};

/* A compilation that the core asks for */
struct core_compile {
	uint64_t version;	/* id that the code will have */
	uint32_t method, body;
	enum tier_level level;
	uint32_t profile;	/* instrumented levels: index of the first of the cells that it counts in; even */
	uint32_t patchpoint;	/* OSR: number of the patchpoint in the module */
	bool is_urgent;		/* a caller waits for it */
};

/* A place in new code that leads to another method directly: the address of an aligned displacement that leads to the
 * method's one address as long as nobody knows better. */
struct core_call_site {
	uint64_t address;
	uint32_t method;	/* whom it calls */
};

/* What became of a compilation: code that is placed, and what the core has to know about it */
struct core_result {
	struct core_code code;
	const uint32_t *inlined;		/* method indices, whose current bodies were used */
	uint32_t n_inlined, n_sites;
	const struct core_call_site *sites;
};

/* What the core needs from outside. @module_context is what core_module_add() or core_module_attach() was given. None may
 * call back into the core, except where it says so. */
struct core_ops {
	uint64_t (*now)(void *context);			/* CLOCK_MONOTONIC ns */
	uint64_t (*wall)(void *context);		/* CLOCK_REALTIME ns */
	void (*arm)(void *context, uint64_t deadline_ns);	/* call core_tick() then; 0: nothing to wait for */

	/* @body: 0 is the method's own, others are as core_rejit() named them. It need not be the current one when a job is started again
	 * after a takeover; what it inlines of itself is that body, of others the current ones. */
	uint32_t (*traits)(void *context, void *module_context, uint32_t method, uint32_t body);	/* enum core_trait. NULL: none */
	/* How many cells instrumented code of the body counts in, an even number; 0: it cannot be instrumented. NULL: none can. */
	uint32_t (*n_profile)(void *context, void *module_context, uint32_t method, uint32_t body);
	/* Make a method's first code now, at level TIER0, TIER0_INSTRUMENTED, MIN_OPT_JITTED or READY_TO_RUN. 0, CORE_E_FULL or -errno;
	 * where it fails at a level that the method can do without, one with less is asked for at once. *ret is zero before. Only
	 * READY_TO_RUN has call sites, or inlined anybody: always the methods' own bodies, and where one of these is replaced the code
	 * is given up. The arrays are the outside's and valid until the next call of it. */
	int (*first)(void *context, void *module_context, const struct core_compile *compile, struct core_result *ret);
	/* Make a call-counting stub for a version: 0, CORE_E_FULL or -errno, which leave the method final with ARENA_FULL. */
	int (*stub)(void *context, void *module_context, uint32_t method, uint32_t cell, uint64_t version, uint64_t code,
		    struct core_code *ret);
	/* Make a forwarder stub that leads to @target, for --backpatch=forwarder: 0 and its address in *ret, CORE_E_FULL, -errno.
	 * Once for a method; the core changes its target (jit/stubs.h says where that lies) through alias. */
	int (*forwarder)(void *context, void *module_context, uint32_t method, uint64_t target, struct core_code *ret);
	/* Where the daemon may write what clients see at @address; NULL: it is in neither code nor records segment of the module. */
	void *(*alias)(void *context, void *module_context, uint64_t address);

	/* Start a compilation at level TIER0_INSTRUMENTED, TIER1_INSTRUMENTED, TIER1, OPTIMIZED or OSR; it ends with one
	 * core_compile_done(), from the loop, never from inside. 0, CORE_E_TOO_LARGE (the method becomes final with TOO_LARGE) or
	 * -errno: after -EMFILE, -ENFILE and -ENOMEM the method stays queued and is tried again a moment later; after any other the
	 * method becomes final with NO_WORKER. Where OSR fails it is the patchpoint that is given up. Nobody waits for jobs of a
	 * module that was removed: they may end or be cancelled. After a takeover a job is started again if its end had not come, and
	 * its body is there or may return: a body that was replaced by a third one is never asked for again. */
	int (*compile)(void *context, void *module_context, const struct core_compile *compile);
	/* The last compilation of a module that is frozen has ended: nothing of it is being compiled. */
	void (*quiet)(void *context, struct module *module);

	/* A transition is committed and visible. @event has its number; the order of calls is the order of numbers. Time,
	 * version and tiers are as tier/events.h has them; for QUEUED, COMPILE_STARTED and COMPILE_ENDED @to is the tier of the
	 * version that is being made. Valid during the call. */
	void (*event)(void *context, const struct tier_event *event);
	/* The method's state word changed: wake its futex and answer waits. May call core_answer() and core_pending(). */
	void (*changed)(void *context, struct module *module, uint32_t method);
};

/* How entry points are kept: as the configuration says, also when a predecessor did otherwise. What a method has follows from its
 * stage and from what there is for it: core_module_attach() writes its entry points, and slots, as this policy has them, and who is
 * being counted through a stub goes on through it, with the calls that it has left. */
struct core_policy {
	enum tier_backpatch backpatch;
	bool counting_in_prestub;
};
/* What is in force. True: a predecessor had another one, *ret_before. */
bool core_policy(const struct core *core, struct core_policy *ret, struct core_policy *ret_before);

/* @memory: the ledger's, of ledger_size() bytes, 4096-byte aligned, zero or a predecessor's; borrowed for the core's life.
 * A predecessor's content is recovered: modules must then be attached again with core_module_attach() before use (only
 * core_module_info() and core_module_remove() work without). The events of the predecessor's last transition are told again
 * from here, with their old numbers, if it may have died before it told them.
 * Returns 0, -ENOMEM, or -EBADMSG when the memory holds an incompatible ledger; that stays untouched. */
int core_new(struct core **ret, const struct core_config *config, const struct core_ops *ops, void *context, void *memory,
	     size_t n_memory);
struct core *core_free(struct core *core);	/* forgets the heap; the ledger stays as it is */

/* -- The window --- */
/* Addresses that modules get, each once, also over takeovers. What is durable of it: */
struct core_window {
	uint64_t base;		/* as core_window_choose() recorded it; 0: not yet */
	uint64_t next;		/* all spans of modules that core_module_add() has seen end here or below */
};
struct core_window core_window(const struct core *core);
void core_window_choose(struct core *core, uint64_t base);	/* once */

/* -- Modules --- */
struct core_module_info {
	uint64_t id;
	uid_t uid;
	bool shared;			/* visible to other uids */
	bool named;			/* false after unload: lives until the last session that holds it ends */
	const char *name;		/* valid until the module is removed */
	struct tier_layout layout;
	uint64_t code_used;
};

/* Adds a module whose records, their header and counters (the daemon's aliases, all cold) are given. @name: 1..63 bytes. The
 * core writes through @header and @records from now on. The id was taken with core_take_module_id(). Event: MODULE_LOADED.
 * 0, CORE_E_EXISTS, CORE_E_QUOTA, -EINVAL (the name), -ENOMEM. */
int core_module_add(struct module **ret, struct core *core, uint64_t id, uid_t uid, const char *name, bool shared,
		    const struct tier_layout *layout, uint64_t code_used, struct tier_records_header *header,
		    struct tier_record *records, uint32_t *cells, void *module_context);
uint64_t core_take_module_id(struct core *core);	/* 1, 2, … never reused, also over takeovers */
/* After a takeover: writes what clients see of each method (nothing changes unless the predecessor died in the middle of
 * it). Its batches, jobs and the takeover's sweep begin with the next core_tick(), so attach all modules first. */
int core_module_attach(struct module *module, struct tier_records_header *header, struct tier_record *records, uint32_t *cells,
		       void *module_context);
void core_module_unname(struct module *module);		/* unload: event MODULE_UNLOADED; idempotent */
/* Withdraws its queued versions and forgets its jobs; unnames it if need be. The pointer is dead afterwards. */
void core_module_remove(struct module *module);
void core_module_info(const struct module *module, struct core_module_info *ret);
void *core_module_context(const struct module *module);
struct module *core_module_by_id(struct core *core, uint64_t id);
struct module *core_module_by_name(struct core *core, uid_t uid, const char *name);	/* @uid's own only */
struct module *core_module_next(struct core *core, struct module *after);		/* in order of ids; NULL starts and ends */

/* -- What happens to methods --- */
/* The prestub's question: makes sure that the method has code. 0, CORE_E_FULL, -errno (-EINVAL: no such method), or
 * CORE_E_LATER: the optimizer has been asked, before the uid's other jobs and whatever delay or freeze says; ops->changed() tells when
 * there is code, or none could be made, which the next call says. Idempotent. */
int core_prepare(struct module *module, uint32_t method);

/* -- On-stack replacement (reference §8; osr.c) --- */
/* A frame of the method's own body has hit the patchpoint so often that it wants optimized code. Queues a version of tier
 * OSR, unless there is one or one failed, another body is in place, or the uid has few versions left;
 * its code goes into the patchpoint's record. No entry point, no count, no status changes. Garbage is harmless. Events:
 * OSR_REQUESTED (LOOP), later COMPILE_STARTED, COMPILE_ENDED and OSR_READY, all with the version.
 *
 * When core_rejit() or core_revert() returns 0, no patchpoint of the module leads to OSR code any more, which may have
 * inlined what was replaced. What is being made then ends with COMPILE_ENDED (INLINEE_REPLACED); what waits is made of the
 * bodies of then, unless its own is no longer there: it is given up without an event. A takeover changes nothing of that. What
 * was taken away or given up may be asked for again. */
void core_osr_request(struct core *core, uint64_t module, uint32_t patchpoint);
/* Whether OSR code of the method waits or is being made; @method is in range. */
bool core_osr_is_pending(const struct module *module, uint32_t method);

/* -- Freezing (freeze.c): not durable, it ends with who asked for it --- */
/* No compilation of the module starts any more (but for first calls, whose callers wait), until as many thaws have come as
 * freezes. Thresholds are journalled, and their methods queued. Compilations that have begun go on to their end and are
 * published: the module is quiet when core_n_compiling() is 0, now or at ops->quiet(). Methods that wait or are being
 * compiled say in their state words that they are frozen; where thousands wait, in slices. Events: FROZEN and THAWED
 * (CLIENT), of the first and the last; a takeover thaws, too. */
void core_freeze(struct module *module);
void core_thaw(struct module *module);
bool core_is_frozen(const struct module *module);
/* Compilations that have begun and not ended: those of first calls too, and a predecessor's that are to be started again */
uint32_t core_n_compiling(const struct module *module);
struct tier_records_mark core_mark(const struct module *module);	/* what its clients see */

/* The cells in which the newest instrumented version of the method's current body counts. False: it has none. */
bool core_profile(const struct module *module, uint32_t method, uint32_t *ret_cell);

/* A bell: somebody says that @version of the method crossed its threshold. The counter decides: returns true when it
 * confirms (and the threshold had not been handled yet). @time_ns: CLOCK_MONOTONIC of the crossing call; 0 or implausible
 * (not yet) counts as now. Garbage in any argument is harmless. */
bool core_threshold(struct core *core, uint64_t module, uint32_t method, uint64_t version, uint32_t pid, uint32_t tid,
		    uint64_t time_ns, enum tier_source source);
void core_note_unconfirmed(struct core *core);	/* a report of another kind that turned out to be wrong: counted with the bells */
/* Looks at armed cells: of one method / all of one module / everything. Thresholds found are journalled with source
 * SWEEP. Returns how many were found; when there are thousands of cells, in the first slice: core_tick() goes on. */
uint32_t core_look(struct module *module, uint32_t method);
uint32_t core_sweep(struct core *core, struct module *module_or_null);

/* The end of a compile that ops->compile started. @reason NONE: @code is placed and will be published. Else the method
 * becomes final with @reason, on the code that it has. A version that is no longer wanted is ignored; one whose body was
 * replaced meanwhile is kept for that body's return; one that inlined a body replaced meanwhile is compiled again. */
void core_compile_done(struct core *core, uint64_t module, uint32_t method, uint64_t version, enum tier_reason reason,
		       const struct core_result *result);

/* -- Bodies (reference §9) --- */
/* The method gets @body, an id that it never had before and not 0: its code and counts are gone, its next call compiles. What
 * had inlined it falls back to its first code and is queued. When this returns, calls that begin run the new body, except
 * through slots in clients' own memory. What the replaced body was doing is kept, for the method's own body only: revert
 * restores it. 0, CORE_E_QUOTA (the ledger, or the uid's share of it, is full: nothing changed),
 * CORE_E_AGAIN (so many have inlined it that they are withdrawn in several turns: the old body is in its place until 0 comes).
 * Events: for each inliner WITHDRAWN (its version, from and to; INLINEE_REPLACED) and QUEUED (INLINEE_REPLACED; without room for
 * another version FINAL, INLINEE_REPLACED), each a transition of its own; an inliner that has no code without an inlined body,
 * because it was precompiled or made by the optimizer for its first call, becomes cold: WITHDRAWN alone (to NONE). At last REJITTED
 * (the replaced version, or 0; its tier to NONE). So a daemon that dies on the way leaves the old body, and inliners that are
 * compiled again, and so does a caller that doesn't go on after CORE_E_AGAIN.
 *
 * A promotion of the replaced body that is outside goes on, and ends with COMPILE_ENDED alone; one that only waits is dropped, of
 * the own body kept. A promotion, of whatever method, that inlined a body replaced since it began: COMPILE_ENDED and QUEUED, both
 * with INLINEE_REPLACED, and the same version is made again. */
int core_rejit(struct module *module, uint32_t method, uint32_t body);
/* The method's own body comes back as it was left, with its best code, without compiling or counting anew. 0, also when it
 * is there. What had inlined the body that goes is withdrawn as above. Events: REVERTED (the version that is active now, or 0;
 * from the tier of the one before), with it what tells the stage: COUNTING_BEGUN (REVERT, or DELAY_ENDED when it begins only
 * now), QUEUED (REVERT) or FINAL (its reason); nothing else when uncounted or compiling, or cold without a job that waits.
 * 0, CORE_E_QUOTA (somebody who inlined the body that goes would become cold, and there is no room for his next code: nothing
 * changed), CORE_E_AGAIN. */
int core_revert(struct module *module, uint32_t method);
uint32_t core_method_body(const struct module *module, uint32_t method);
/* Where calls go that need not come through the precode: E's value, and whose code that is (0: no version's). */
struct core_entry {
	uint64_t address, version;
};
struct core_entry core_method_entry(const struct module *module, uint32_t method);

/* -- Slots --- */
/* A call came to the prestub through the vtable slot whose call cell lies at @address, which is the @method's (the caller has
 * looked): DoBackpatch. Records it and writes what slots hold now. Idempotent. Nothing happens while there never was anything
 * to patch it to (E was always T); a note that comes after E went back to T counts, since its sender tells it only once. A
 * method has 8192 slots at most, and a uid an eighth of the ledger's: what is beyond leads to the method's address for good. */
void core_slot_used(struct module *module, uint32_t method, uint64_t address);

void core_tick(struct core *core);	/* the armed deadline has come (early and spurious calls are fine) */

/* -- Questions: none starts a compilation or changes a counter --- */
struct tier_answer core_answer(struct module *module, uint32_t method);	/* looks at the cell first; @method is in range */
enum core_scope { CORE_SCOPE_MODULE, CORE_SCOPE_UID, CORE_SCOPE_ALL };
/* Methods queued or compiling, and those that a sweep under way has still to queue: after core_sweep() it is exact. */
uint32_t core_pending(struct core *core, enum core_scope scope, struct module *module, uid_t uid);

/* A code version, as the ledger has it */
struct core_version_info {
	uint64_t id;
	uint64_t code, size, stub;	/* addresses, bytes; 0 where there is none */
	uint64_t published_ns;		/* CLOCK_REALTIME, whole milliseconds; 0: not live */
	enum tier_level level;
	enum tier_version_state state;
	bool is_active;			/* what calls reach */
	uint32_t threshold, n_inlined;
	uint32_t body;
};
/* The method's newest version with an id below @before (0: of all). False: there is none. @method is in range, here and below. */
bool core_version_below(const struct module *module, uint32_t method, uint64_t before, struct core_version_info *ret);
/* The @i-th method that @version of the method inlined. False: there is none, or no such version. */
bool core_version_inlined(const struct module *module, uint32_t method, uint64_t version, uint32_t i, uint32_t *ret);
/* The same of the version that calls reach, however many others there are */
bool core_active_inlined(const struct module *module, uint32_t method, uint32_t i, uint32_t *ret);
bool core_version_has_inlined(const struct module *module, uint32_t method, uint64_t version, uint32_t inlined);

struct core_stats {
	uint64_t n_modules, n_methods, n_versions;
	uint64_t n_thresholds[_TIER_SOURCE_N];	/* confirmed, by how they were learnt of */
	uint64_t n_unconfirmed;			/* bells that no counter confirmed, late ones included */
	uint64_t n_published, n_promotions_failed;
	uint64_t n_delays;			/* how often a delay began */
	uint64_t n_takeovers;			/* how many daemons have taken the ledger over, this one included */
	uint64_t sequence;			/* number of the newest event */
};
void core_stats(const struct core *core, struct core_stats *ret);

/* What keeping entry points took since the core began (not over takeovers); wire.h's struct wire_counters says what each is. */
struct core_counters {
	uint64_t n_backpatch_calls, n_slots_examined, n_slot_writes, n_slots_recorded, n_funcptr_writes;
	uint64_t n_entry_transitions, n_oscillations, n_precode_stores;
	uint64_t n_paths[_TIER_PATH_N];
	uint64_t backpatch_ns;
	uint64_t n_uncounted_entries, n_stale_completions, n_unsafe_inactive;
	uint64_t n_rejits, n_reverts, n_withdrawn;
};
const struct core_counters *core_counters(const struct core *core);

/* Debug and unit tests: every invariant that can be checked from outside (reference §6.5); NULL or a sentence. */
const char *core_check(const struct core *core);
