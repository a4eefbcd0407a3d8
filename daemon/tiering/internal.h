/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The core's heap: an index of the ledger, and nothing else
 *
 * Each object points to its durable record and sits in the lists that follow from it; recover.c builds all of it anew.
 * A transition looks the same everywhere:
 *
 *   method_begin()                       opens the transaction
 *   ledger_edit(), method_event()        the new state, and what the history will say
 *   method_commit()                      commits; re-derives the method's list and what clients see; rings the bells
 *
 * so the lists and the shared records are functions of the ledger, and recovery calls the functions that derive them. */

#include "tiering/core.h"
#include "tiering/ledger.h"
#include "util/list.h"

#define CORE_NAME_BUCKETS 1024u

/* What one turn of the loop may do before it lets others go on; the rest follows in the next core_tick(). In units of
 * looking at a counter; a transition takes a few microseconds. */
#define SLICE_BUDGET 4096
#define SLICE_LOOK 1
#define SLICE_ROW 2		/* given back */
#define SLICE_SITE 4
#define SLICE_TRANSITION 32	/* and as many units as there are SLICE_SLOTS in what it walked */
#define SLICE_SLOTS 4

/* Rows of tables that all uids share, and what is promised of them. A uid gets no more than its share, so that what one has used
 * up is there for the others. */
enum rows {
	ROWS_VERSIONS,
	ROWS_PROMISED,		/* versions that methods may still need to climb their ladders */
	ROWS_EDGES,
	ROWS_SLOTS,
	_ROWS_N
};

#define SHARE_VERSIONS (LEDGER_VERSIONS_MAX / 8)	/* with those promised: as many as the methods that a uid may load */
#define SHARE_EDGES (LEDGER_EDGES_MAX / 8)
#define SHARE_SLOTS (LEDGER_SLOTS_MAX / 8)
#define SHARE_METHOD_SLOTS 8192u			/* of one method: they are walked at once, in a third of a millisecond */

struct core {
	struct core_config config;
	const struct core_ops *ops;
	void *context;
	struct ledger ledger;

	struct module *modules[LEDGER_MODULES_MAX];	/* by id */
	uint32_t n_modules;
	uint32_t n_methods;		/* of all modules, those that are going too */
	struct list names[CORE_NAME_BUCKETS];
	struct list gone;		/* modules that were removed, whose rows are still to be given back */

	struct list users;		/* by turn: who had none for the longest time comes first */
	struct list delaying;		/* users whose delay is active, by deadline */
	struct list installing;		/* users with methods that have sat out their delay */
	struct list sweeping;		/* modules with armed cells that are still to be looked at */
	struct list freezing;		/* modules whose queued methods do not all say yet whether they are frozen */
	struct list jobs;		/* struct job: those that are outside, in order of their starts */
	struct list lost;		/* struct job: those that a predecessor had outside, by version */
	struct list batches;		/* struct slot_batch: call sites that are still to be recorded */

	uint32_t n_armed;		/* methods that are counting */
	uint32_t n_pending;		/* methods queued, and jobs */
	uint32_t n_running;		/* jobs outside */
	uint32_t rows[_ROWS_N];		/* of all modules, those that are going too */
	uint32_t share[_ROWS_N];	/* what a uid may have; PROMISED: together with VERSIONS */
	uint32_t n_method_slots_max;
	uint64_t n_replacements;	/* how often a body came in another's place */

	const struct entry_policy *policy;
	struct core_policy predecessor;	/* what it kept entry points by */
	struct core_counters counters;
	uint32_t epoch;			/* grows with each walk of slots: the clock of what follows */
	struct entry_held *held;	/* by version: when its code was an entry point; see entry.c */
	uint32_t *recorded;		/* by slot: the epoch in which it was recorded */

	uint64_t retry_ns;		/* no job starts before: memory or descriptors were short; 0: any time */
	uint64_t sweep_deadline_ns;	/* 0 while nothing is armed */
	uint64_t armed_ns;		/* what ops->arm() was told last */
	bool is_busy;			/* a slice ended before its work did */
	bool is_proceeding;

	uint64_t n_told;		/* number of the newest event that ops->event() got */
	uint64_t unsettled_module;	/* after recovery: whose waiters may have missed their wake-up; 0: nobody's */
	uint32_t unsettled_method;
	struct core_stats stats;	/* the part that is counted; core_stats() adds what follows from the state */
};

/* A uid that owns modules */
struct user {
	struct core *core;
	struct ledger_user *durable;
	struct list link;		/* core->users */
	struct list delay_link, install_link;
	struct list uncounted;		/* methods by ticket: those below durable->batch_end have sat out their delay */
	struct list queue;		/* modules of which something waits that may start, by the ticket of their first */
	struct list first;		/* cold methods by ticket, whose callers wait for the optimizer */
	uid_t uid;
	uint32_t n_modules, n_pending, n_running, n_lost;
	uint32_t rows[_ROWS_N];
};

struct module {
	struct core *core;
	struct user *user;		/* NULL: it is gone */
	struct ledger_module *durable;
	struct tier_records_header *header;	/* NULL until it is attached, like the next */
	struct tier_record *records;
	uint32_t *cells;
	void *context;
	struct list name_link, sweep_link, gone_link;
	struct list queue_link;		/* user->queue */
	uint64_t queue_ticket;		/* by which it stands there */
	struct list queue;		/* methods by ticket */
	struct list osr_queue;		/* struct osr: those that wait, by ticket */
	struct list osr_live;		/* struct osr: those that patchpoints lead to */
	uint64_t *osr_known;		/* a bit per patchpoint: its code is on its way, or failed; NULL: of none */
	struct list freeze_link;	/* core->freezing */
	struct method *unmarked;	/* the first in the queue whose state word may not say yet whether it is frozen */
	struct list armed;		/* counting methods that a sweep has still to look at */
	struct list looked;		/* those that it has looked at */
	uint64_t id;
	uint32_t n_methods, n_pending;
	uint32_t n_compiling;		/* compilations that have begun, a predecessor's too */
	uint32_t n_freezes;		/* that no thaw has undone */
	uint32_t n_forgotten;		/* of its methods, once it is gone */
	uint32_t rows[_ROWS_N];
	struct method *methods;
	uint64_t *known;		/* a bit per call cell: it is recorded */
};

/* Which list a method is in */
enum method_place {
	PLACE_NONE,
	PLACE_UNCOUNTED,	/* user->uncounted */
	PLACE_ARMED,		/* module->armed or ->looked */
	PLACE_QUEUE,		/* module->queue: pending */
	PLACE_FIRST,		/* user->first: likewise */
	PLACE_RUNNING,		/* none: it has a job */
};

/* Whether a value was an entry point before: the epoch up to which slots held it (0: never), and whether E did */
struct entry_held {
	uint32_t slots, entry;
};

struct method {
	struct module *module;
	struct ledger_method *durable;	/* NULL: cold, and always was */
	struct list link;
	struct inliners *inliners;	/* versions that inlined it and are active, or will be after a revert; NULL: none */
	uint64_t replaced;		/* core->n_replacements when it got its body; 0: at its birth */
	uint64_t ticket;		/* by which it stands in its list */
	struct entry_held *holder;	/* of what E holds; NULL: T */
	struct entry_held forwarder;	/* of its forwarder stub */
	uint8_t place;			/* enum method_place */
	uint8_t promised;		/* versions that it may still need */
	bool is_frozen;			/* its state word says so */
	uint32_t n_slots;		/* recorded */
	uint32_t n_osr;			/* patchpoints of its body for which code waits or is being made */
};

/* What a transition took of a slice that had examined @n_before slots before it */
static inline int slice_transition(const struct core *core, uint64_t n_before)
{
	return SLICE_TRANSITION + (core->counters.n_slots_examined - n_before) / SLICE_SLOTS;
}

static inline uint32_t module_n_methods(const struct module *module) { return module->n_methods; }
static inline struct core *method_core(const struct method *method) { return method->module->core; }
static inline uint32_t method_index(const struct method *method) { return method - method->module->methods; }
static inline enum tier_stage method_stage(const struct method *method)
{
	return method->durable ? method->durable->stage : TIER_STAGE_COLD;
}
static inline uint32_t method_body(const struct method *method) { return method->durable ? method->durable->body : 0; }
static inline struct tier_record *method_record(const struct method *method)
{
	return &method->module->records[method_index(method)];
}

/* -- core.c --- */
struct tier_event *core_event(struct core *core, enum tier_event_kind kind, uid_t uid);	/* in a transaction */
/* Tells what the last transaction did: its events, and (@module not NULL) that the method's state word changed. */
void core_ring(struct core *core, struct module *module, uint32_t method);
void core_arm(struct core *core);	/* the timer, for whatever comes next */
void core_proceed(struct core *core);	/* ends every change: starts the jobs that may start, arms the timer */

/* -- recover.c --- */
int core_recover(struct core *core);	/* fills the empty heap from the ledger; 0 or -ENOMEM */

/* -- user.c --- */
struct user *user_new(struct core *core, struct ledger_user *durable, uid_t uid);	/* NULL: no memory. In no list yet */
struct user *user_free(struct user *user);
struct user *user_find(struct core *core, uid_t uid);
void user_link(struct user *user);	/* among the core's users, by its turn */
void user_take_turn(struct user *user);	/* in a transaction: goes to the end of the line */

/* -- module.c --- */
struct module *module_new(struct core *core, struct ledger_module *durable, uint64_t id, const struct tier_layout *layout);
void module_link(struct module *module, struct user *user);	/* once its record is committed */
struct module *module_free(struct module *module);
void module_forget(struct core *core, int *budget);	/* a slice of what the gone ones had */
void module_count_rows(struct module *module, enum rows kind, int n);	/* its, its user's and the core's */
bool module_has_share(const struct module *module, enum rows kind);	/* its user may have one more */
void module_note_code(struct module *module, const struct core_code *code);	/* in a transaction */

/* -- ladder.c --- */
/* A rung: what is to be made */
struct ladder_step {
	enum tier_level level;
	enum tier_reason reason;	/* final there, because; NONE: another one comes */
	uint32_t profile;		/* first of the cells that it counts in; LEDGER_NONE */
	uint32_t n_cells_used;		/* of the module's, with these */
};
/* What could not be had */
enum ladder_lack { LADDER_PRECOMPILED = 1u << 0, LADDER_PROFILE = 1u << 1 };
uint32_t ladder_traits(const struct method *method);	/* enum core_trait, of its current body */
struct ladder_step ladder_first(const struct method *method, uint32_t without);	/* of a cold method; enum ladder_lack */
struct ladder_step ladder_unoptimized(const struct method *method, enum tier_reason reason);	/* the optimizer failed */
/* After @active, of whichever body that is */
struct ladder_step ladder_next(const struct method *method, const struct ledger_version *active);
bool ladder_is_final(enum tier_level level);	/* nothing ever comes after it; a method may be final on others for want of a next */
bool ladder_is_instrumented(enum tier_level level);
/* Versions that a body may still need that stands there, beside the one that is being made */
struct ladder_place {
	enum tier_stage stage;
	enum tier_reason reason;
	uint32_t active, next;		/* rows */
};
uint32_t ladder_promise(const struct core *core, const struct ladder_place *place);

/* -- first.c --- */
int first_make(struct method *method);	/* of a cold one; 0, CORE_E_LATER, CORE_E_FULL, -errno */

/* -- method.c --- */
/* The image of its record in a new transaction; made if it has none. */
struct ledger_method *method_begin(struct method *method);
struct tier_event *method_event(struct method *method, enum tier_event_kind kind, uint64_t version, enum tier_level from,
				enum tier_level to, enum tier_reason reason);
/* @path: by which its entry points are set anew; PATH_KEPT: they stay. */
#define PATH_KEPT _TIER_PATH_N
void method_commit(struct method *method, enum tier_path path);
void method_set_stage(struct method *method, struct ledger_method *image, enum tier_stage stage);
/* FINAL on @active, the version that will be the active one. */
void method_set_final(struct method *method, struct ledger_method *image, const struct ledger_version *active,
		      enum tier_reason reason);
/* The path by which it becomes final on its active version, as the image has it */
enum tier_path method_final_path(const struct method *method, const struct ledger_method *image);
void method_move(struct method *method, enum method_place place);
enum method_place method_place_of(const struct method *method);	/* where it belongs */
void method_count_promise(struct method *method);
enum tier_level method_level(const struct method *method);	/* of the active version; NONE when cold */
/* Once its module is gone: a slice of what it has in heap and ledger. False: there is more. */
bool method_forget(struct method *method, int *budget);

/* -- version.c --- */
struct ledger_version *version_active(const struct method *method);
struct ledger_version *version_next(const struct method *method);
/* Row of the oldest live version of the body: its first code; LEDGER_NONE */
uint32_t version_first(const struct method *method, uint32_t body);
/* The same of those that inlined nobody: nothing ever takes it away. */
uint32_t version_kept(const struct method *method, uint32_t body);
uint32_t version_find(const struct method *method, uint64_t id);	/* LEDGER_NONE: none of it has that id */
/* Versions that nobody was promised and that the user may have. NULL: one without modules */
uint32_t version_room(const struct core *core, const struct user *user_or_null);
/* In a transaction: the method's current body gets a next version, and that the cells that it counts in. Returns its image. */
struct ledger_version *version_new(struct method *method, struct ledger_method *image, const struct ladder_step *step);
/* In a transaction: nobody wants @row any more, which was being made for the method: a job that has begun ends by itself. */
void version_drop(struct method *method, uint32_t row_or_none);
void version_set_live(struct core *core, struct ledger_version *image, const struct core_code *code);
/* Writes down whom the version in @row inlined, before the transaction that makes it live is committed. False: no room, which within
 * a transaction must have been looked for before. *ret is the first edge. */
bool version_note_inlined(struct method *method, uint32_t row, uint64_t id, const uint32_t *inlined, uint32_t n_inlined,
			  uint32_t *ret);
bool version_has_edges(const struct method *method, uint32_t n_inlined);	/* whether there is room for so many */
bool version_release(struct method *method, int *budget);	/* a slice of the rows of a method whose module is gone; false: more */

/* -- inline.c --- */
struct inliner {
	uint32_t method, version;	/* index in the module; row */
};
/* Room for one more inliner of each. False: no memory. */
bool inline_reserve(struct module *module, const uint32_t *inlined, uint32_t n_inlined);
void inline_note(struct method *inliner, uint32_t version);	/* from its edges, once it is live; there is room */
bool inline_recover(struct method *inliner, uint32_t version);	/* the same, making room; false: no memory */
/* Of those that a replacement would withdraw: no more than that, but exact where it matters, beyond @n_enough */
uint32_t inline_count(struct method *method, uint32_t n_enough);
bool inline_has(const struct method *method, const struct method *inliner, uint32_t version);	/* for checks */
bool inline_withdraw(struct method *method);			/* a slice of all that inlined the current body; false: more */
bool inline_makes_cold(struct method *method);			/* whether any of them has no code left then */

/* -- entry.c --- */
struct entry_values {
	uint64_t precode, entry, slots;
	bool may_lag;		/* a slot may hold T as well */
};
struct entry_policy {
	/* What a method of that stage has, for checks and takeovers */
	struct entry_values (*values)(const struct method *method);
	/* @code: where calls go, a counting stub too; 0: the prestub, for want of code. What the method was before does not matter. */
	void (*set)(struct method *method, uint64_t code, bool is_final);
	/* What the values lead on to, if that changes as well: before they are stored where calls are counted, else after. NULL: no */
	void (*aim)(struct method *method);
};
extern const struct entry_policy entry_lazy, entry_eager, entry_forwarder;

/* The one place where entry points change: @code is where calls go (0: reset). Final together with only-from-prestub, which lets
 * a version be published only where nobody was before, is a programming error. */
void entry_point_set(struct method *method, uint64_t code, bool is_final, bool only_from_prestub);
void entry_refresh(struct method *method, enum tier_path path);	/* what clients see, from the ledger */
const char *entry_check(const struct method *method, uint32_t n_slots_max);
uint64_t entry_slot_value(const struct method *method);		/* what a slot gets that is recorded now */

/* What is known of that value of the method; NULL: it is T, with which every slot began. */
struct entry_held *entry_held(struct method *method, uint64_t value);

/* for the policies */
bool entry_is_backpatchable(const struct method *method);
bool entry_may_have_led(const struct method *method);		/* E may have been something else than T */
uint64_t entry_own(const struct method *method);		/* T */
uint64_t entry_prestub(const struct method *method);
void entry_store_precode(struct method *method, uint64_t value);
void entry_store_entry(struct method *method, uint64_t value);
/* Slots, F and E get @value; returns early when E holds it already. */
void entry_backpatch(struct method *method, uint64_t value);

/* -- osr.c --- */
/* A version of tier OSR until it fails or is given up */
struct osr {
	struct list link;		/* module->osr_queue or ->osr_live; none: its job has it */
	struct module *module;
	uint64_t ticket;		/* by which it waits */
	uint32_t method, row, patchpoint;
	bool is_void;			/* what it may have inlined was replaced since it began */
};
struct osr *osr_free(struct osr *osr);
struct method *osr_method(const struct osr *osr);
uint64_t osr_ticket(const struct module *module);	/* of the first that waits; UINT64_MAX: none does */
struct osr *osr_first(struct module *module);		/* one waits; NULL: it was given up, because its body was replaced */
void osr_start(struct osr *osr);			/* its job has begun */
void osr_end(struct osr *osr, enum tier_reason reason, const struct core_result *result);	/* takes @osr */
bool osr_withdraw(struct module *module);		/* a slice of all OSR code of the module; false: more */
void osr_forget_queue(struct module *module);
bool osr_forget_live(struct module *module, int *budget);	/* a slice, once its module is gone; false: more */
void osr_free_all(struct module *module);
bool osr_recover(struct method *method, uint32_t row);	/* false: no memory */
void osr_recover_order(struct module *module);		/* once all its methods' are there */
struct osr *osr_recover_job(struct method *method, uint32_t row);	/* of one that had begun; NULL: no memory */
void osr_attach(struct module *module);			/* what its patchpoints lead to */
const char *osr_check(const struct module *module, uint32_t *n_waiting);

/* -- freeze.c --- */
bool freeze_holds(const struct method *method);			/* it will not go on while its module is frozen, which it is */
void freeze_pass(struct module *module, const struct method *method);	/* it leaves the queue */
void freeze_tick(struct core *core, int *budget);		/* a slice of the state words that are still to say it */
void freeze_recover(struct module *module);			/* who froze it is gone */

/* -- mark.c --- */
/* Around the stores of a publication or reset. What a predecessor began and did not live to end is ended by mark_recover(). */
void mark_begin(struct module *module);
void mark_end(struct module *module);
void mark_compiling(struct module *module, int n);	/* one compilation more or less */
void mark_recover(struct module *module);		/* once all that clients see was written again */

/* -- slot.c --- */
/* All recorded slots of the method get @value. @held: what is known of it; NULL: every slot began with it. */
void slot_write_all(struct method *method, uint64_t value, const struct entry_held *held);
void slot_take_sites(struct module *module, const struct core_result *result);
void slot_install(struct core *core, int *budget);		/* a slice of what was taken */
void slot_forget_sites(struct core *core, const struct module *module_or_null);
void slot_recover(struct method *method);			/* which call cells are recorded */
bool slot_release(struct method *method, int *budget);		/* a slice of the rows of a method whose module is gone; false: more */
const char *slot_check(const struct method *method, const struct entry_values *values, uint32_t n_max);

/* -- count.c --- */
struct count_plan {
	enum tier_stage stage;		/* COUNTING; UNCOUNTED, while the delay lasts; FINAL, and @reason says why */
	enum tier_reason reason;
	uint32_t cell;
	struct core_code stub;		/* address 0: the prestub counts */
	struct core_code forwarder;	/* address 0: none was made now */
};
/* Makes the stub and sets the first of the module's free cells, @cell, neither of which anybody reaches yet; then, in a transaction,
 * counting begins, or what else the plan says. Returns the path by which its entry points are to be set. */
struct count_plan count_plan(struct method *method, uint64_t version, uint64_t code, uint32_t threshold, uint32_t cell);
enum tier_path count_apply(struct method *method, struct ledger_method *image, struct ledger_version *version,
			   const struct count_plan *plan, enum tier_reason reason);
enum tier_path count_path(const struct ledger_version *version);	/* by which it is counted */
void count_begin(struct method *method);	/* for a method that has sat out its delay */
void count_sweep_start(struct module *module);
uint32_t count_sweep(struct core *core, int *budget);	/* a slice of what was started; returns the thresholds found */
uint32_t count_ahead(const struct module *module);	/* thresholds that its sweep has still to find */
void count_tick(struct core *core, uint64_t now);

/* -- delay.c --- */
bool delay_is_used(const struct core *core);
void delay_note_first_call(struct user *user);	/* in a transaction */
void delay_link(struct user *user);		/* into the lists that follow from its record */
void delay_recover(struct user *user);		/* the same; a predecessor's delay ends when one that begins now would, if not before */
void delay_tick(struct core *core, uint64_t now);
void delay_install(struct core *core, int *budget);
uint64_t delay_deadline(const struct core *core);	/* 0: none */

/* -- queue.c --- */
/* A job that has begun. It outlives its method's interest in it, so it is no part of the method. */
struct job {
	struct list link;		/* core->jobs, or ->lost */
	struct module *module;
	uint64_t version;
	uint64_t n_replacements;	/* core's, when it began */
	uint32_t method, row;		/* index; the version's row */
	struct osr *osr;		/* owned; NULL: a rung of the ladder */
};
void queue_count(struct module *module, int n);	/* as many more are pending */
uint64_t queue_first_ticket(const struct module *module);	/* UINT64_MAX: nothing of it waits, or it may not start */
void queue_link(struct module *module);		/* to its place in its user's queue, by what waits */
void queue_promote(struct method *method, struct ledger_method *image, const struct ledger_version *active,
		   enum tier_reason reason);
bool queue_has_job(const struct core *core, uint64_t version);
bool queue_recover(struct method *method, uint32_t row);	/* a predecessor's job; false: no memory */
void queue_forget_jobs(struct core *core, const struct module *module_or_null);
void queue_run(struct core *core);
void queue_tick(struct core *core, uint64_t now);
