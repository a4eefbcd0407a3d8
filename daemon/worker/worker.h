/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* One compile worker, as the daemon sees it: a socket, a pidfd, at most one job
 *
 * The worker parses hostile input, so it is taken to be hostile: whatever it sends is checked, its output is copied out
 * of its reach in slices that never hold up the loop, and every trouble ends with its death and a reason. */

#include <stdbool.h>
#include "util/dispatch.h"
#include "worker/grave.h"
#include "worker/job.h"

struct worker;

/* How the running job ended: bytes and n on success (reason NONE), which the callee takes. @usable: the worker takes the next job;
 * otherwise it is good for worker_free() only, which the callee may call at once. */
typedef void (*worker_done_fn)(struct worker *worker, enum tier_reason reason, void *bytes, size_t n,
			       const struct refusal *refusal, bool usable);
/* It ended without a job. */
typedef void (*worker_gone_fn)(struct worker *worker);

struct worker {
	struct dispatch *dispatch;
	struct graveyard *graveyard;
	worker_done_fn done;
	worker_gone_fn gone;
	void *context;			/* of whoever made it */
	pid_t pid;
	int fd, pidfd;
	struct dispatch_file socket, end;	/* its words; its death */
	struct dispatch_timer deadline, copy;
	uint64_t job;			/* id of the running job, 0: none */
	uint64_t limit_ns, n_bytes_max;	/* of the running job */
	bool last;			/* it announced its end */
	int output;			/* being copied, -1: none */
	uint8_t *bytes;
	size_t n_bytes, n_copied;
};

/* Takes @fd and @pidfd in any case. 0 or -errno. */
int worker_new(struct worker **ret, struct dispatch *dispatch, struct graveyard *graveyard, pid_t pid, int fd, int pidfd,
	       worker_done_fn done, worker_gone_fn gone, void *context);
struct worker *worker_free(struct worker *worker);	/* kills it; a running job gets no callback */

/* Hands it a job; it must have none. Trouble comes back through done. @input stays the caller's. False: it is dead, has not
 * got the job, and is good for worker_free() only. */
bool worker_assign(struct worker *worker, enum job_kind kind, uint64_t id, int input, uint64_t n_input, uint64_t limit_ns);

/* Nobody wants the running job any more: it may take @grace_ns from now on, if its limit is not reached earlier. */
void worker_hurry(struct worker *worker, uint64_t grace_ns);
