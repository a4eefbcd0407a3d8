/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The server: sessions, their requests, waits and event cursors (tier/wire.h)
 *
 * Everything that a client can starve is charged to its uid. Nothing here blocks: a wait is an entry in a list that the
 * core's news walks, an events request is a cursor, a load is a job elsewhere. What the server cannot know (where
 * modules come from, descriptors, the journal, statistics of others) comes in as struct server_ops. */

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include "tier/wire.h"
#include "tiering/core.h"
#include "util/dispatch.h"

struct server;
struct server_load;	/* a load that is under way; answered by exactly one server_loaded() */

#define SERVER_CALLED_END UINT64_MAX

enum server_events {
	SERVER_EVENTS_GAP = -1,		/* up to *gap_last there are none */
	SERVER_EVENTS_LATER = -2,	/* server_event_added() will be called when they are at hand */
};

struct server_ops {
	/* Starts loading: @object_fd is a sealed memfd of @n bytes (checked: F_SEAL_WRITE|SHRINK|GROW, size within bounds),
	 * borrowed until the load ends. It ends with server_loaded(), from the loop, never from inside. 0 or a positive enum
	 * tier_error. */
	int (*load)(void *context, uid_t uid, const char *name, bool shared, int object_fd, uint64_t n, struct server_load *load);
	/* Whoever asked for that load is gone. It still ends with one server_loaded(), which may come from inside; as a rule
	 * with CANCELED. */
	void (*cancel_load)(void *context, struct server_load *load);
	/* Gives @method (hostile) another body: function @symbol ("": the method's name) of the object, as for load. It ends with one
	 * server_loaded() like a load, and may be cancelled like one. */
	int (*rejit)(void *context, struct module *module, uint32_t method, const char *symbol, bool force, int object_fd, uint64_t n,
		     struct server_load *load);
	/* Compiles all of an object, as for load. It ends with one server_precompiled(), and may be cancelled like a load. */
	int (*precompile)(void *context, uid_t uid, int object_fd, uint64_t n, struct server_load *load);
	/* The instantiation of @base with those values (hostile) that @uid has: NONE and *ret, NULL when there is none, and
	 * @name, the one that it has, or would be given; else the error with a sentence in @text. */
	enum tier_error (*find_instance)(void *context, struct module *base, uid_t uid, const struct wire_instantiate *values,
					 struct module **ret, char name[WIRE_NAME_MAX], char text[WIRE_TEXT_MAX]);
	/* Makes it, as find_instance found that it can. @base stays until the end, which is as a load's; the module may be
	 * one that others have asked for, too. */
	int (*instantiate)(void *context, struct module *base, uid_t uid, const struct wire_instantiate *values,
			   struct server_load *load);
	/* No name and no holder is left: the module may go. */
	void (*release)(void *context, struct module *module);

	/* of a module's context (core_module_context()) */
	uint64_t (*base)(void *module_context);		/* id of the module that it is an instantiation of; 0: it is none */
	bool (*has_instances)(void *module_context);	/* then it must not be released */
	int64_t (*find)(void *module_context, const char *method);	/* index or -1 */
	int64_t (*slot_method)(void *module_context, uint64_t cell);	/* whose call cell lies at that address; -1: nobody's */
	/* false: no such index; @flags as in wire_name_row */
	bool (*method_name)(void *module_context, uint32_t index, const char **name, uint32_t *flags);
	bool (*import_name)(void *module_context, uint32_t index, const char **name, uint32_t *flags);
	/* One page each about a method that exists; *ret is zeroes and gets what there is from @from on (wire.h says what counts).
	 * @relation is any but INLINED. */
	void (*describe)(void *module_context, uint32_t method, struct wire_description *ret);
	void (*related)(void *module_context, uint32_t method, enum wire_relation relation, uint64_t from, struct wire_names *ret);
	void (*insns)(void *module_context, uint32_t method, uint64_t from, struct wire_insns *ret);
	void (*lines)(void *module_context, uint32_t method, uint64_t from, struct wire_source *ret);
	/* Some of the methods that @method can have called, as far as its code tells, and where it calls through pointers what else
	 * tells; also several times. *from is 0 for the first ones, and SERVER_CALLED_END when there are no more. Returns how many were
	 * stored, at most @n_max, perhaps none: a call looks at a bounded amount. */
	uint32_t (*called)(void *module_context, uint32_t method, uint64_t *from, uint32_t *ret, uint32_t n_max);
	int (*segment_fd)(void *module_context, enum tier_segment segment);	/* borrowed */

	int (*probe_page_fd)(void *context);				/* borrowed */
	void (*drain)(void *context);					/* the ring buffer, before any question is answered */
	uint32_t (*kernel_sites)(void *context, const char **why);	/* bit i: the kernel reports hits of site i; 0: of none */
	/* As journal_read(): number of events copied, or one of enum server_events. */
	int (*events)(void *context, uint64_t from, struct tier_event *events, uint32_t n_max, uint64_t *gap_last);
	/* The number of the first event at or after that time; false: as SERVER_EVENTS_LATER. */
	bool (*events_since)(void *context, uint64_t time_ns, uint64_t *ret);
	uint64_t (*newest_event)(void *context);
	/* Fills what the server does not know itself: it has filled daemon, pid, n_sessions, the loop's and the requests'
	 * numbers, and everything of core_stats(). */
	void (*stats)(void *context, struct wire_stats *stats);
	/* Fills what the clients counted, of all modules that there were. */
	void (*counters)(void *context, struct wire_counters *ret);
	/* One page of the knobs in force, from the @from-th on; *ret is zeroes. */
	void (*knobs)(void *context, uint64_t from, struct wire_knobs *ret);
};

struct server_config {
	uint32_t sessions_per_uid, lanes_per_session, modules_per_uid, waits_per_session, loads_per_uid;
	uint32_t closings_per_uid;	/* descriptors it sent that are not closed yet */
	uint32_t watches_per_uid;	/* methods for which processes have slots of their own, summed up */
	uint32_t watches_per_session;	/* the same of one process: they end in one turn of the loop */
	uint64_t settle_ns;		/* how long those have to set them when a body is replaced */
	uint64_t object_max;		/* bytes of an object file */
	uint64_t objects_per_uid;	/* bytes of the object files that are being loaded */
	uid_t owner;			/* for --user: only this uid may connect; (uid_t)-1: everybody */
};
#define SERVER_CONFIG_DEFAULT                                                                                          \
	{ .sessions_per_uid = 4096, .lanes_per_session = 8, .modules_per_uid = 1024, .waits_per_session = 1024,        \
	  .loads_per_uid = 64, .closings_per_uid = 512, .watches_per_uid = 65536, .watches_per_session = 4096,       \
	  .settle_ns = 5000000000, .object_max = 32u << 20, .objects_per_uid = 256u << 20, .owner = (uid_t)-1 }

/* Cuts what a uid may have so that it fits into half of @n_files open files, less a reserve for the daemon's own. */
void server_config_fit(struct server_config *config, uint64_t n_files);

/* @listen_fd: a listening SOCK_SEQPACKET socket, taken on success; -1: none (lanes come from elsewhere: tests). */
int server_new(struct server **ret, struct dispatch *dispatch, struct core *core, const struct server_config *config,
	       const struct server_ops *ops, void *context, int listen_fd);
/* The modules that there are now came from a predecessor, and their clients may need a moment to find this daemon: none of them goes
 * for want of a name and a holder before @ns are over. Once. */
void server_grant_grace(struct server *server, uint64_t ns);
/* Ends all connections. That is the daemon's end, not the sessions': nothing is swept or released. Loads that are under
 * way are dropped: no server_loaded() may come afterwards. NULL is fine. */
struct server *server_free(struct server *server);

/* News from the core: the method's state word, and with it perhaps its entry point, changed / a new event is in the journal.
 * Waits and cursors are answered from here or from the same turn of the loop. */
void server_method_changed(struct server *server, struct module *module, uint32_t method);
void server_event_added(struct server *server);
/* Nothing of a frozen module is being compiled any more. */
void server_module_quiet(struct server *server, struct module *module);
/* A hello probe was seen by the kernel */
void server_hello_seen(struct server *server, uint64_t nonce);

/* The end of a load: @module (added to the core) or, when NULL, @error (enum tier_error) with a sentence. The session may
 * be gone meanwhile: the module stays if its name was asked for. */
void server_loaded(struct server_load *load, struct module *module, enum tier_error error, const char *text);
/* The end of a precompilation: a sealed memfd of @n bytes, borrowed; or @object_fd -1 and an error like a load's. */
void server_precompiled(struct server_load *load, int object_fd, uint64_t n, enum tier_error error, const char *text);
