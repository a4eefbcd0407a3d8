/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A hosted module: its checked image, its arena and its symbols
 *
 * host_build() turns what the load worker sent into a module that is ready to run: checked, verified, laid out, placed at
 * addresses that no other module has had, relocated. It works on private data only and may take long, so it runs off the
 * loop; everything else here is the loop's. */

#include <stddef.h>
#include <stdint.h>
#include "arena/arena.h"
#include "arena/place.h"
#include "arena/symtab.h"
#include "bytecode/calls.h"
#include "bytecode/image.h"
#include "tier/types.h"
#include "tiering/core.h"
#include "util/charge.h"
#include "util/task.h"
#include "worker/job.h"

struct host {
	uint64_t id;		/* of the module */
	void *bytes;		/* the image; owned */
	struct image image;
	struct arena *arena;
	struct symtab *symtab;
	struct calls *calls;
	struct host_ahead *ahead;	/* tier-0 code of huge methods, by method; owned */
	uint32_t n_ahead;
	struct charge methods, memory;	/* of the uid; taken by loading.c, given back in the loop */
	struct task end;	/* host_release() */
};

struct host_plan {
	uint64_t id;
	struct window *window;	/* only one host_build() at a time may use it */
	uint64_t n_code;	/* code segment's size; 0: by the module's size */
};

/* Takes @bytes (malloc()ed, @n) in any case. On success TIER_ERROR_NONE and *ret; else the error, @refusal its sentence. */
enum tier_error host_build(struct host **ret, const struct host_plan *plan, void *bytes, size_t n, struct refusal *refusal);
struct host *host_free(struct host *host);
/* The same in @thread: unmapping a module of a million instructions takes milliseconds. Nobody may use it any more. */
void host_release(struct host *host, struct task_thread *thread);

/* Tier 0 (of a huge method it is there already: compiling it would hold the loop), and a call-counting stub: 0, CORE_E_FULL or
 * -ENOMEM (see struct core_ops). */
int host_tier0(struct host *host, uint32_t method, uint32_t body, struct core_code *ret);
int host_stub(struct host *host, uint32_t method, uint32_t cell, uint64_t version, uint64_t code, struct core_code *ret);

/* The methods whose bodies a compile job carries, first the one to compile. The compiler decides what of the others it
 * inlines; these bounds only keep jobs small. */
#define HOST_BODIES_MAX 64u
struct host_bodies {
	uint32_t n;
	uint32_t methods[HOST_BODIES_MAX];
};

/* The input of a compile job in a new memfd: the method with what may be inlined into it. 0 and *bodies, *ret_fd, *ret_n;
 * CORE_E_TOO_LARGE (too much to copy in a turn of the loop), or -errno. */
int host_compile_job(struct host *host, uint32_t method, uint32_t body, enum tier_level level, struct host_bodies *bodies, int *ret_fd,
		     size_t *ret_n);

/* The output of the compile worker that was given @bodies becomes code of the module. NONE and *ret, *ret_code (borrows from
 * @bytes); else the reason with a sentence. */
enum tier_reason host_place(struct host *host, const struct host_bodies *bodies, const void *bytes, size_t n,
			    struct core_code *ret, struct code_result *ret_code, struct refusal *refusal);
