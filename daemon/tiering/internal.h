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
#define SLICE_TRANSITION 32

struct core {
	struct core_config config;
	const struct core_ops *ops;
	void *context;
	struct ledger ledger;

	struct module *modules[LEDGER_MODULES_MAX];	/* by id */
	uint32_t n_modules;
	uint32_t n_methods;		/* of all modules */
	uint32_t n_versions;
	struct list names[CORE_NAME_BUCKETS];

	struct list users;		/* by turn: who had none for the longest time comes first */
	struct list delaying;		/* users whose delay is active, by deadline */
	struct list installing;		/* users with methods that have sat out their delay */
	struct list sweeping;		/* modules with armed cells that are still to be looked at */

	uint32_t n_armed;		/* methods that are counting */
	uint32_t n_pending;		/* methods queued or compiling */
	uint32_t n_running;		/* jobs outside */
	uint32_t n_interrupted;		/* jobs that a predecessor had outside */

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
	struct list queue;		/* methods by ticket */
	uid_t uid;
	uint32_t n_modules, n_pending, n_running;
};

struct module {
	struct core *core;
	struct user *user;
	struct ledger_module *durable;
	struct tier_record *records;	/* NULL until it is attached */
	uint32_t *cells;
	void *context;
	struct list name_link, sweep_link;
	struct list armed;		/* counting methods that a sweep has still to look at */
	struct list looked;		/* those that it has looked at */
	uint64_t id;
	uint32_t n_methods, n_pending;
	struct method *methods;
};

/* Which list a method is in; from PLACE_QUEUE on it is pending. */
enum method_place {
	PLACE_NONE,
	PLACE_UNCOUNTED,	/* user->uncounted */
	PLACE_ARMED,		/* module->armed or ->looked */
	PLACE_QUEUE,		/* user->queue */
	PLACE_INTERRUPTED,	/* user->queue too: compiling, but the job was a predecessor's */
	PLACE_RUNNING,		/* none: its job is outside */
};

struct method {
	struct module *module;
	struct ledger_method *durable;	/* NULL: cold */
	struct list link;
	enum method_place place;
};

static inline uint32_t module_n_methods(const struct module *module) { return module->n_methods; }
static inline struct core *method_core(const struct method *method) { return method->module->core; }
static inline uint32_t method_index(const struct method *method) { return method - method->module->methods; }
static inline enum tier_stage method_stage(const struct method *method)
{
	return method->durable ? method->durable->stage : TIER_STAGE_COLD;
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
struct module *module_new(struct core *core, struct ledger_module *durable, uint64_t id, uint32_t n_methods);
void module_link(struct module *module, struct user *user);	/* once its record is committed */
struct module *module_free(struct module *module);
void module_note_code(struct module *module, const struct core_code *code);	/* in a transaction */

/* -- method.c --- */
struct ledger_method *method_begin(struct method *method);	/* the image of its record */
struct tier_event *method_event(struct method *method, enum tier_event_kind kind, uint64_t version, enum tier_level from,
				enum tier_level to, enum tier_reason reason);
void method_commit(struct method *method);
void method_set_stage(struct method *method, struct ledger_method *image, enum tier_stage stage);
/* FINAL on @active, the version that will be the active one. */
void method_set_final(struct method *method, struct ledger_method *image, const struct ledger_version *active,
		      enum tier_reason reason);
void method_move(struct method *method, enum method_place place);

/* -- version.c --- */
struct ledger_version *version_active(const struct method *method);
struct ledger_version *version_newest(const struct method *method);
/* In a transaction: the method gets a newest version in state MAKING. Returns its image. */
struct ledger_version *version_new(struct method *method, struct ledger_method *image, enum tier_level level);
void version_set_live(struct core *core, struct ledger_version *image, const struct core_code *code);
/* Writes down whom the newest version inlined, before the transaction that publishes it. False: an index is out of range, or
 * there is no room. *ret is the first edge. */
bool version_note_inlined(struct method *method, const uint32_t *inlined, uint32_t n_inlined, uint32_t *ret);
void version_release_all(struct method *method);	/* all slots of a method whose module is gone */

/* -- entry.c --- */
void entry_point_set(struct method *method, uint64_t code, bool is_final, bool only_from_prestub);
void entry_refresh(struct method *method);	/* what clients see, from the ledger */
const char *entry_check(const struct method *method);

/* -- count.c --- */
struct count_plan {
	enum tier_stage stage;		/* COUNTING, or FINAL because @reason */
	enum tier_reason reason;
	uint32_t cell;
	struct core_code stub;
};
/* Makes the stub and sets the cell, neither of which anybody reaches yet; then, in a transaction, counting begins. */
struct count_plan count_plan(struct method *method, uint64_t version, uint64_t code, uint32_t threshold);
void count_apply(struct method *method, struct ledger_method *image, struct ledger_version *version,
		 const struct count_plan *plan, enum tier_reason reason);
void count_begin(struct method *method);	/* for a method that has sat out its delay */
void count_sweep_start(struct module *module);
uint32_t count_sweep(struct core *core, int *budget);	/* a slice of what was started; returns the thresholds found */
uint32_t count_ahead(const struct module *module);	/* thresholds that its sweep has still to find */
void count_tick(struct core *core, uint64_t now);

/* -- delay.c --- */
bool delay_is_used(const struct core *core);
void delay_note_first_call(struct user *user);	/* in a transaction */
void delay_link(struct user *user);		/* into the lists that follow from its record */
void delay_tick(struct core *core, uint64_t now);
void delay_install(struct core *core, int *budget);
uint64_t delay_deadline(const struct core *core);	/* 0: none */

/* -- queue.c --- */
void queue_promote(struct method *method, struct ledger_method *image, const struct ledger_version *active);
void queue_run(struct core *core);
void queue_tick(struct core *core, uint64_t now);
