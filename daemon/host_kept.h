/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Hosted modules over a takeover (DESIGN §6.3)
 *
 * What a host consists of that its arena and the ledger do not tell is in files of its own, sealed memfds:
 *
 *   mID.host      the image, or of an instantiation its values; options that were in force; where code of huge methods lies
 *   mID.bBODY     of a body that replaced one: the object it came from, and where its .rodata, tier 0 and stub's room lie
 *
 * and with the segments of the arena (mID.code, .records, .counters, .private) they lie in the descriptor store. A successor makes
 * the same host of them: it reads, and writes nothing that clients can see, since code, cells and data have been at work since.
 *
 * ORDER: what is put is put before the ledger can name it, and removed after it no longer does. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "host.h"
#include "store/store.h"

/* -- Files (host_kept.c, host_restore.c) --- */
/* The host as it was built, before anything happened to it; any thread. The descriptor or -errno. */
int host_save(const struct host *host);
/* A body once host_body_compile() returned 0; @bytes: the image (@n bytes) whose @source_method it is. Likewise. */
int host_body_save(const struct host *host, uint32_t method, const struct host_body *body, const void *bytes, size_t n,
		   uint32_t source_method);

/* What a predecessor left of a module */
struct host_remains {
	struct core *core;
	struct module *module;		/* the core's, not attached yet */
	int fds[_TIER_SEGMENT_N];	/* taken in any case; -1: missing */
	int host_fd;			/* likewise */
	/* The file of a body, the caller's; -1: missing */
	int (*take_body)(void *context, uint64_t module, uint32_t body);
	void *context;
};
enum {
	_HOST_E_SUCCESS,
	HOST_E_LOST,	/* what is left makes no host, and never will */
};
/* The host again; its module is still to be attached, and nothing is charged. An instantiation's base must be attached already.
 * 0, or with a sentence HOST_E_LOST or -errno: the system had no memory or descriptors for it, and may have them the next time. */
int host_restore(struct host **ret, struct host_remains *remains, struct refusal *refusal);

/* -- The store --- */
void host_kept_name(char name[STORE_NAME_MAX], uint64_t id, const char *part);		/* "code", "host" */
void host_kept_body_name(char name[STORE_NAME_MAX], uint64_t id, uint32_t body);
const char *host_kept_segment(enum tier_segment segment);

/* Off the loop, before the core knows of it. What cannot be kept dies with the daemon: the log says so. */
void host_keep(struct host *host, struct store *store);
void host_keep_body(const struct host *host, uint32_t method, struct host_body *body, const void *bytes, size_t n,
		    uint32_t source_method);
/* Off the loop, after the core has forgotten it; bodies included. Idempotent. */
void host_unkeep(struct host *host);
/* The name of a body that is no longer the method's is removed in @thread; NULL: at once. */
void host_unkeep_body(struct store *store, struct task_thread *thread, uint64_t id, uint32_t body);
