/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Code that was compiled before: between the core's wish and the pool
 *
 *   core ──► caching_look() ──► thread ──► found: no worker is asked
 *                                     └──► not found, or made with a profile that says something else: both profiles go into the job
 *   code ──► caching_keep() ──► thread ──► the folder, for the next daemon
 *
 * Its key is all that goes into the code but the profile: the job, the uid, the compiler. The folder may hold anything: what is
 * found is code like a worker's, and is checked like that. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include "cache/store.h"
#include "util/dispatch.h"
#include "util/task.h"
#include "worker/compiler.h"

struct caching {
	struct cache *cache;		/* NULL: there is no cache */
	struct task_thread *thread;
	uint64_t n_hits, n_misses;
	uint64_t complained_ns;		/* when the log last heard that something could not be kept */
};

/* 0; or -errno after a warning: then there is none. */
int caching_open(struct caching *caching, struct dispatch *dispatch, const char *path, uint64_t n_bytes_max);
/* Ends the thread: what is being looked for is told, and what is to be kept is kept. */
void caching_stop(struct caching *caching);
void caching_close(struct caching *caching);

/* A compile job's way through the cache */
struct lookup;
/* From the loop, never from inside caching_look(). */
typedef void (*lookup_fn)(void *context, struct lookup *lookup);

/* Looks for the code of the job in @job_fd (job_put_compile(), @n bytes), which it takes a duplicate of. 0 and the lookup, or
 * -errno. */
int caching_look(struct caching *caching, uid_t uid, const struct compiler *compiler, int job_fd, size_t n, lookup_fn fn,
		 void *context, struct lookup **ret);
/* What was found, malloc()ed, for the caller; NULL: nothing, once it was taken too */
void *lookup_take_code(struct lookup *lookup, size_t *ret_n);
/* The job as it is to be compiled: with all that is known of its profile. Borrowed. */
int lookup_job(const struct lookup *lookup, size_t *ret_n);
/* What was found is not sound: it goes. */
void caching_refuse(struct lookup *lookup);
/* The job's code, malloc()ed, as it came from a worker. Takes both. */
void caching_keep(struct lookup *lookup, void *code, size_t n);
/* Nobody is interested any more: frees it, at once or when the thread is done with it. NULL is fine. */
void caching_forget(struct lookup *lookup);

struct caching_figures {
	uint64_t n_hits, n_misses;
	struct cache_figures cache;
};
void caching_figures(const struct caching *caching, struct caching_figures *ret);
