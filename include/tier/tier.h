/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* libtier: run tiered methods and ask where they are on their way
 *
 *	struct tier_conn *conn;
 *	struct tier_module *module;
 *	struct tier_method *method;
 *
 *	tier_connect(&conn, NULL);
 *	tier_load(conn, "filter.bpf.o", NULL, 0, &module);		(loads and opens it)
 *	tier_find(module, "filter", &method);
 *	verdict = tier_entry(method)((uintptr_t)packet, n, 0, 0, 0);
 *
 * Every function that can fail returns 0 or a negative errno, and keeps one sentence about the last failure of the
 * calling thread: tier_error_text(). libtier never prints. All functions are thread-safe unless they say otherwise.
 *
 * A method's entry is a plain C function pointer: callable from any thread, from a signal handler, in a forked child,
 * at any time between tier_find() and tier_close().
 *
 * A connection outlives its daemon. Code that exists runs on; whoever needs the daemon finds the next one, and has it hold what
 * is open:
 *
 *	questions, tier_open(), first calls	wait for it and are asked again, in all no longer than the connection's timeout;
 *						then -ECONNRESET, or the failure handler
 *	tier_wait(), tier_climb_next(),		go on; -ECONNRESET when there was no daemon for that long. Their own deadline and
 *	tier_drive(), tier_events_next()	cancellation hold meanwhile.
 *	tier_load(), tier_unload(),		are asked again only if they were not sent yet. Else -ECONNRESET, and the sentence
 *	tier_rejit(), tier_revert(),		says what may have been done
 *	tier_module_instantiate(),
 *	tier_precompile(), tier_freeze()
 *	tier_thaw()				-ECONNRESET: the freeze has ended with the session
 *	tier_close(), tier_disconnect()		do not wait for it; tier_close() waits for other threads that open or close a
 *						module, which may wait for it
 *	thresholds, slots, loops		are told when somebody listens; a call waits for that rarely, and for moments
 *
 * A daemon that does not know an open module, because nobody kept it: -ESTALE from everything that asks about it, and first
 * calls of its methods fail. What has code goes on. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <tier/events.h>
#include <tier/records.h>
#include <tier/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TIER_API __attribute__((visibility("default")))

struct tier_conn;
struct tier_module;
struct tier_method;
struct tier_cancel;
struct tier_events;

typedef uint64_t (*tier_fn)(uint64_t, uint64_t, uint64_t, uint64_t, uint64_t);

#define TIER_FOREVER UINT64_MAX

/* The calling thread's last failure in one sentence; "" when there was none. Valid until the thread's next call. */
TIER_API const char *tier_error_text(void);

/* -- Connection --- */
struct tier_conn_opts {
	size_t size;		/* sizeof(struct tier_conn_opts) */
	const char *socket;	/* NULL: $TIERD_SOCKET, else $XDG_RUNTIME_DIR/tierd.sock if there, else the system's */
	const char *program;	/* how `tierctl stats` names this client; NULL: the program's short name */
	uint64_t timeout_ns;	/* for a request, and for a cold call, daemons that come and go included; 0: 30 s */
};

/* What a cold call does that cannot be served (the daemon is gone, or has no room): called in the calling thread, with
 * all signals blocked, with the method's name and a sentence. The default prints one line to standard error and aborts: a
 * wrong result is never returned. A handler must not return either (longjmp out of it is allowed, _exit too). Process-wide;
 * NULL restores the default. */
typedef void (*tier_failure_fn)(const char *module, const char *method, const char *text);
TIER_API void tier_set_failure_handler(tier_failure_fn fn);

TIER_API int tier_connect(struct tier_conn **ret, const struct tier_conn_opts *opts);	/* opts may be NULL */
/* Ends the session. Modules that are still open stay mapped and callable as far as they have code; close them first. */
TIER_API void tier_disconnect(struct tier_conn *conn);

/* true: thresholds travel through the kernel's probes; false: over the socket, or there is no daemon. @why (may be NULL) is a
 * sentence, which holds for the daemon that is there now, and lives until two more have come. */
TIER_API bool tier_conn_uses_kernel(struct tier_conn *conn, const char **why);

/* -- Modules --- */
enum tier_load_flags {
	TIER_LOAD_SHARED = 1u << 0,	/* other users may open it */
};
/* Loads an object file, and opens it. @name: NULL: the file's name without .bpf.o, .tier.o or .o. @ret may be NULL (load only). */
TIER_API int tier_load(struct tier_conn *conn, const char *path, const char *name, unsigned int flags, struct tier_module **ret);
TIER_API int tier_load_bytes(struct tier_conn *conn, const void *bytes, size_t n, const char *name, unsigned int flags,
			     struct tier_module **ret);
/* Has the object file @path compiled, all methods of it, and returns a descriptor of a sealed memory file: the same object
 * with optimized code inside, which is the caller's to close. Whoever loads it starts at that code if the daemon is of the
 * same build and the processor the same, else at bytecode. May take minutes; other requests on this connection wait. */
TIER_API int tier_precompile(struct tier_conn *conn, const char *path, uint64_t timeout_ns);
/* Removes the name. The module lives on for those that have it open. */
TIER_API int tier_unload(struct tier_conn *conn, const char *name);
/* Opens (maps) a loaded module: @name is the caller's own, else one that root or the daemon's user shares; "UID/NAME" is
 * that user's, if shared or the caller is root. Opening twice in one process gives the same mapping and private data
 * (reference-counted). -EADDRINUSE: the span of addresses is taken in this process. */
TIER_API int tier_open(struct tier_conn *conn, const char *name, struct tier_module **ret);
/* Unmaps when it was the last. No method of it may be running or be called afterwards. */
TIER_API void tier_close(struct tier_module *module);
TIER_API const char *tier_module_name(const struct tier_module *module);
TIER_API uint64_t tier_module_id(const struct tier_module *module);

/* Binds an import in this process: calls to it go to @fn, a C function of up to five integer arguments. Any time;
 * -ENOENT: the module has no such import. An unbound import that is called fails like a cold call that cannot be served. */
TIER_API int tier_bind(struct tier_module *module, const char *import, const void *fn);
/* Binds what @lookup finds for every import that is still unbound; returns how many strong ones stay unbound
 * (tier_error_text() names the first), or a negative errno. */
TIER_API int tier_bind_all(struct tier_module *module, void *(*lookup)(const char *name, void *context), void *context);

/* Instantiations: the module with other constants. A value is a variable of its .rodata (`const volatile`) of 1, 2, 4 or 8
 * bytes by name, and the number that it holds; negative ones are given with all 64 bits. */
#define TIER_VALUES_MAX 16u
struct tier_value {
	const char *name;
	uint64_t value;
};
/* Opens the module's instantiation with these values (1 to TIER_VALUES_MAX, in any order), which is made if the user has none
 * yet. It is a module of its own, which belongs to the user who asked: records, tiers, counts and code are its own, .rodata with
 * the values too; what it calls, and functions whose addresses stand in its code and .rodata, are its own. .data and .bss are
 * the module's, which stays mapped as long as the instantiation is; pointers in .data are the module's, too. Close it with
 * tier_close(). -EINVAL: the sentence says which value is wrong. Its name is M<a=1,b=7>, or M<HASH> where that were too long;
 * unloading M unloads it, too. */
TIER_API int tier_module_instantiate(struct tier_module *module, const struct tier_value *values, uint32_t n,
				     struct tier_module **ret);
/* The same, if there is one: else -ENOENT, and none is made. */
TIER_API int tier_module_instance(struct tier_module *module, const struct tier_value *values, uint32_t n,
				  struct tier_module **ret);

struct tier_module_row {
	char name[64];
	uint64_t id;
	uint32_t uid, n_methods, n_pending;
	uint32_t n_status[_TIER_STATUS_N];	/* methods by status */
	bool shared, unloaded, frozen;
};
/* Calls @fn for each module that the caller may see, in order of ids, until it returns non-zero, which is returned. */
TIER_API int tier_list(struct tier_conn *conn, int (*fn)(const struct tier_module_row *row, void *context), void *context);

/* -- Methods --- */
TIER_API int tier_find(struct tier_module *module, const char *name, struct tier_method **ret);	/* lives as long as the module */
TIER_API uint32_t tier_module_n_methods(const struct tier_module *module);
TIER_API int tier_method_at(struct tier_module *module, uint32_t index, struct tier_method **ret);
TIER_API const char *tier_method_name(const struct tier_method *method);
/* The method's one address for its life. */
TIER_API tier_fn tier_entry(const struct tier_method *method);

/* Status, calls to the next tier and generation, from shared memory in nanoseconds. Never compiles, never counts. */
TIER_API struct tier_answer tier_status(const struct tier_method *method);
/* The same asked over the socket: the daemon looks at its events and at the counter first. */
TIER_API int tier_status_ask(const struct tier_method *method, struct tier_answer *ret);
TIER_API uint32_t tier_remaining(const struct tier_method *method);

/* Waits until the method is in a quiet state: final, cold, frozen (is_frozen: its module is, so nothing new of it starts), or
 * counting with calls left; never for a promotion, so a caller that calls too little is never stuck. 0 and *ret; -ETIMEDOUT;
 * -ECANCELED; -ENOTCONN when the connection was closed, -ECONNRESET when it is lost and no daemon has come for the connection's
 * timeout, -ESTALE when the one that came does not know the module: then nobody would say when the state changes. @cancel and
 * @ret may be NULL. */
TIER_API int tier_wait(const struct tier_method *method, uint64_t timeout_ns, struct tier_cancel *cancel, struct tier_answer *ret);

/* A token that ends waits: all that wait with it now or later return -ECANCELED. tier_cancel() is async-signal-safe. */
TIER_API int tier_cancel_new(struct tier_cancel **ret);
TIER_API void tier_cancel(struct tier_cancel *cancel);
TIER_API void tier_cancel_free(struct tier_cancel *cancel);	/* nobody may wait with it any more */

/* The schedule of calls to the final tier: waits for a quiet state, then says how many calls to make next, never 0.
 *
 *	struct tier_climb climb = TIER_CLIMB(method);
 *	while (tier_climb_next(&climb, TIER_FOREVER, NULL, &n) > 0)
 *		while (n--) call();
 *
 * 1: *calls is set; 0: final; -EBUSY: frozen, so no calls bring it on; else negative as tier_wait(). Exactly tier_wait(), status
 * and remaining composed. */
struct tier_climb {
	const struct tier_method *method;
	struct tier_answer answer;	/* of the last step */
	uint32_t n_steps;
};
#define TIER_CLIMB(m) ((struct tier_climb){ .method = (m) })
TIER_API int tier_climb_next(struct tier_climb *climb, uint64_t timeout_ns, struct tier_cancel *cancel, uint32_t *calls);

/* -- Measuring --- */
/* Whether the method, and all that it has called, is settled: none of them optimizing, and no OSR code of theirs on its way.
 * Asks the daemon, which follows direct calls, addresses that the code takes, and where it calls through pointers the methods
 * whose addresses stand in the module's data; of those only what was called at all counts, and not what runs inlined in its callers. */
#define TIER_UNSETTLED_MAX 64
struct tier_settlement {
	bool is_settled;
	uint32_t n_methods;	/* that count */
	uint32_t n_unsettled;	/* of them, that are not */
	uint32_t n_pending;	/* of these, that are queued, being compiled, or about to be, or OSR code of which is */
	uint32_t calls;		/* the largest number of calls that one of them is still to count; 0: none counts calls now */
	uint32_t n;		/* of unsettled[] */
	uint64_t progress;	/* another one whenever any of the methods has moved */
	uint32_t unsettled[TIER_UNSETTLED_MAX];	/* indices (tier_method_at()) of the first of them */
};
TIER_API int tier_settled(const struct tier_method *method, struct tier_settlement *ret);

/* Calls the method along its schedule to its final tier, and then on until all that it has called is settled. 0: settled; 1:
 * it is final, but none of what *ret names has counted a call for long: this workload does not call them any more;
 * -ETIMEDOUT; -ECANCELED; -EBUSY: frozen; else as tier_wait(). @opts and @ret may be NULL. */
struct tier_drive_opts {
	size_t size;			/* sizeof(struct tier_drive_opts) */
	void (*call)(const struct tier_method *method, void *context);	/* makes one call; NULL: with args */
	/* Told before each batch of calls that is made for the sake of what it has called; may be NULL. */
	void (*step)(const struct tier_settlement *settlement, uint32_t calls, void *context);
	void *context;
	uint64_t args[5];
	uint64_t timeout_ns;		/* of all together; 0: none */
	struct tier_cancel *cancel;	/* may be NULL */
};
TIER_API int tier_drive(const struct tier_method *method, const struct tier_drive_opts *opts, struct tier_settlement *ret);

/* A mark of the module's, and whether anything of it was compiled, published or reset since, or is being compiled: exactly,
 * from shared memory in nanoseconds. Any thread, signal handlers too. */
TIER_API struct tier_records_mark tier_mark(const struct tier_module *module);
TIER_API bool tier_changed_since(const struct tier_module *module, const struct tier_records_mark *mark);

/* Holds the module's promotions, for all processes: returns when nothing of it is compiled any more, and nothing starts until
 * tier_thaw(), the last tier_close(), tier_disconnect() or the end of the process or the daemon. First calls get their code all the same. Calls are
 * counted on; who reaches its threshold is frozen, and queued when it thaws. Freezing twice is freezing once; a fork has frozen
 * nothing. -EACCES: not the module's owner; -EINVAL of tier_thaw(): this connection has not frozen it; -ECONNRESET of it: it did, but
 * the daemon has gone since, and the freeze with it; -ETIMEDOUT: the compiler is still at it, nothing is frozen. */
TIER_API int tier_freeze(struct tier_module *module);
TIER_API int tier_thaw(struct tier_module *module);

/* -- Slots and bodies --- */
/* Gives the method another body, for all processes: the function @symbol (NULL: the method's own name) of the object file at
 * @path, which must have the same signature, or with TIER_REJIT_FORCE any. It may bring its own .rodata; whatever else it
 * names (methods, variables, imports) is the module's of that name. Calls that begin anywhere after this has returned run the
 * new body; those under way finish as they are. 0; -EACCES: not the module's owner; -EPROTOTYPE: the signatures differ or are
 * unknown; -ENOLINK: the module lacks a name; -ENOEXEC; -ETIMEDOUT: replaced, but a process with slots of its own does not
 * answer. tier_error_text() says which. */
enum tier_rejit_flags { TIER_REJIT_FORCE = 1u << 0 };
TIER_API int tier_rejit(const struct tier_method *method, const char *path, const char *symbol, unsigned int flags);
TIER_API int tier_rejit_bytes(const struct tier_method *method, const void *bytes, size_t n, const char *symbol, unsigned int flags);
/* Brings the method's own body back, at once, with the best code that it had. Errors as above; 0 also when it is there. */
TIER_API int tier_revert(const struct tier_method *method);

/* A pointer in the program's own memory through which it calls the method: from now on libtier keeps in it what is fastest,
 * the method's address or its final code. The slot gets its first value before this returns, is written with one aligned
 * store by a thread of libtier's (which blocks all signals and starts with the first slot), and must stay valid until it is
 * unregistered; then it holds tier_entry() again, as it does while there is no daemon. A fork has its own slots, reset to
 * tier_entry(). -EINVAL: not aligned, or
 * registered; -ENOENT: not registered. Closing the module unregisters its slots. */
TIER_API int tier_slot_register(const struct tier_method *method, tier_fn *slot);
TIER_API int tier_slot_unregister(const struct tier_method *method, tier_fn *slot);

struct wire_counters;		/* tier/wire.h: what each counts */
TIER_API int tier_counters(struct tier_conn *conn, struct wire_counters *ret);

/* -- Looking into a method --- */
struct wire_description;	/* tier/wire.h */
struct wire_version_row;
/* What it is: size, attributes, and its signature as far as the object told. */
TIER_API int tier_describe(const struct tier_method *method, struct wire_description *ret);
/* Calls @fn for each of its code versions, newest first, until it returns non-zero, which is returned. */
TIER_API int tier_versions(const struct tier_method *method, int (*fn)(const struct wire_version_row *row, void *context),
			   void *context);
/* Calls @fn in the same way for what has to do with it: @relation is an enum wire_relation of tier/wire.h, @version the
 * version whose inlined methods are meant, for WIRE_RELATION_INLINED. */
TIER_API int tier_related(const struct tier_method *method, unsigned int relation, uint64_t version,
			  int (*fn)(uint32_t index, const char *name, void *context), void *context);
/* Its instructions as struct wire_insns has them: stores at most @n_max, returns how many there are in *ret_n. */
TIER_API int tier_bytecode(const struct tier_method *method, uint64_t *insns, uint32_t n_max, uint32_t *ret_n);
/* Calls @fn in the same way for each change of source line. */
struct tier_line {
	uint32_t insn;		/* from this slot on */
	uint32_t line, column;	/* 0: not known */
	const char *file;	/* valid during the call */
};
TIER_API int tier_lines(const struct tier_method *method, int (*fn)(const struct tier_line *line, void *context), void *context);
/* The machine code of a version, mapped while the module is open; NULL: those bytes are not code of this module. */
TIER_API const void *tier_code(const struct tier_module *module, uint64_t address, uint64_t n);
/* Where everything of the module lies (tier/records.h). */
TIER_API const struct tier_layout *tier_module_layout(const struct tier_module *module);
TIER_API const char *tier_import_name(const struct tier_module *module, uint32_t index);	/* NULL: no such import */

/* -- The daemon --- */
/* Methods queued or being compiled: of one module, of the caller's uid, of all. 0 is idle. */
TIER_API int tier_pending_module(struct tier_module *module, uint32_t *ret);
TIER_API int tier_pending_mine(struct tier_conn *conn, uint32_t *ret);
TIER_API int tier_pending_all(struct tier_conn *conn, uint32_t *ret);

struct wire_stats;		/* tier/wire.h */
struct wire_session_row;
struct wire_knob_row;
TIER_API int tier_stats(struct tier_conn *conn, struct wire_stats *ret);
/* Calls @fn for each of the daemon's knobs, as they are in force, until it returns non-zero, which is returned. */
TIER_API int tier_knobs(struct tier_conn *conn, int (*fn)(const struct wire_knob_row *row, void *context), void *context);
TIER_API int tier_clients(struct tier_conn *conn, int (*fn)(const struct wire_session_row *row, void *context), void *context);

/* -- Events --- */
/* A cursor in the journal, on a connection of its own. @from: first number wanted, 0: only new ones, WIRE_EVENTS_SINCE of tier/wire.h
 * with a time: from then on. Not thread-safe: one user at a time. */
TIER_API int tier_events_open(struct tier_conn *conn, uint64_t from, struct tier_events **ret);
TIER_API void tier_events_close(struct tier_events *events);
/* Readable when tier_events_next() will not block for long, or should look for a daemon: always the same descriptor, but in a
 * fork, which gets its own at the first tier_events_next(). */
TIER_API int tier_events_fd(const struct tier_events *events);
/* 0 and one event; -ETIMEDOUT (with a timeout of 0: there is none now); -ENODATA: numbers *gap_first..*gap_last are no
 * longer kept, the next call goes on behind; -ECONNRESET: no daemon has come for the connection's timeout, the next call looks
 * again; -ESTALE: the daemon that came has another journal, which ends before, the next call begins at its first event. Over
 * daemons of one journal nothing is missing and nothing comes twice. */
TIER_API int tier_events_next(struct tier_events *events, uint64_t timeout_ns, struct tier_event *ret, uint64_t *gap_first,
			      uint64_t *gap_last);

#ifdef __cplusplus
}
#endif
