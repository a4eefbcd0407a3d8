/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include "util/base.h"
#include "util/error.h"
#include "worker/channel.h"
#include "worker/worker.h"

/* A job ends in worker_finish() and nowhere else:
 *
 *   reply with output  ──► copied in slices ──► NONE
 *   reply without      ──────────────────────► COMPILE_FAILED, with the worker's sentence
 *   nonsense           ──────────────────────► RESULT_REFUSED
 *   time limit         ──────────────────────► WORKER_TIMEOUT
 *   death              ──────────────────────► WORKER_DIED, or WORKER_MEMORY by its exit status
 *
 * The socket closes before the process can be reaped; the reason is in its exit status, so a closed socket only makes sure
 * that the process ends. */

#define WORKER_SLICE (256u << 10)	/* bytes copied in one turn of the loop: some 100 µs */

static void worker_finish(struct worker *worker, enum tier_reason reason, const struct refusal *refusal)
{
	bool usable = (reason == TIER_REASON_NONE || reason == TIER_REASON_COMPILE_FAILED) && !worker->last;
	void *bytes = reason == TIER_REASON_NONE ? TAKE_PTR(worker->bytes) : NULL;

	dispatch_timer_disarm(&worker->deadline);
	dispatch_timer_disarm(&worker->copy);
	worker->output = close_fd(worker->output);
	free(TAKE_PTR(worker->bytes));
	worker->job = 0;
	worker->done(worker, reason, bytes, worker->n_bytes, refusal, usable);
}

static void worker_fail(struct worker *worker, enum tier_reason reason, const char *what)
{
	struct refusal refusal;

	refuse(&refusal, "%s: %s", tier_reason_name(reason), what);
	worker_finish(worker, reason, &refusal);
}

/* -- The output ---------------------------------------------------------------------------------------------------- */

/* Only a memfd is read: on anything else a read may wait for as long as the worker likes. */
static bool output_is_memory(int fd)
{
	struct stat status;

	return fcntl(fd, F_GET_SEALS) >= 0 && !fstat(fd, &status) && S_ISREG(status.st_mode);
}

static int worker_copy(struct dispatch_timer *timer, uint64_t now_ns)
{
	struct worker *worker = container_of(timer, struct worker, copy);
	size_t n = MIN(worker->n_bytes - worker->n_copied, (size_t)WORKER_SLICE);
	ssize_t got = pread(worker->output, worker->bytes + worker->n_copied, n, worker->n_copied);

	if (got <= 0) {
		worker_fail(worker, TIER_REASON_RESULT_REFUSED, "the output is shorter than announced");
		return 0;
	}
	/* Slice by slice: freeing a large file at once takes milliseconds. Whoever sealed it has it freed at its end. */
	fallocate(worker->output, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, worker->n_copied, got);
	worker->n_copied += got;
	if (worker->n_copied < worker->n_bytes)
		dispatch_timer_arm(&worker->copy, now_ns);
	else
		worker_finish(worker, TIER_REASON_NONE, NULL);
	return 0;
}

static void worker_take_output(struct worker *worker, const struct job_reply *reply, int fd)
{
	if (fd < 0 || !reply->n_output || reply->n_output > worker->n_bytes_max || !output_is_memory(fd)) {
		close_fd(fd);
		worker_fail(worker, TIER_REASON_RESULT_REFUSED, "the output is no memfd of an acceptable size");
		return;
	}
	worker->output = fd;
	worker->n_bytes = reply->n_output;
	worker->n_copied = 0;
	worker->bytes = malloc(worker->n_bytes);
	if (!worker->bytes) {
		worker_fail(worker, TIER_REASON_RESULT_REFUSED, "no memory for the output");
		return;
	}
	dispatch_timer_disarm(&worker->deadline);
	worker_copy(&worker->copy, clock_now_ns());
}

/* -- Its words ----------------------------------------------------------------------------------------------------- */
static void worker_hear(struct worker *worker, struct job_reply *reply, int fd)
{
	if (!worker->job || worker->output >= 0 || reply->id != worker->job) {
		close_fd(fd);
		if (worker->job)
			worker_fail(worker, TIER_REASON_RESULT_REFUSED, "an answer to a question that was not asked");
		else
			syscall(SYS_pidfd_send_signal, worker->pidfd, SIGKILL, NULL, 0);
		return;
	}
	worker->last = reply->flags & JOB_REPLY_LAST;
	if (reply->ok) {
		worker_take_output(worker, reply, fd);
		return;
	}
	close_fd(fd);
	reply->refusal.text[sizeof(reply->refusal.text) - 1] = '\0';
	worker_finish(worker, TIER_REASON_COMPILE_FAILED, &reply->refusal);
}

/* Its socket is of no more use, and so is the worker: what comes next is its end. */
static void worker_deafen(struct worker *worker)
{
	dispatch_file_deinit(&worker->socket);
	syscall(SYS_pidfd_send_signal, worker->pidfd, SIGKILL, NULL, 0);
}

/* Returns whether something was said; the worker may be gone afterwards. */
static bool worker_listen(struct worker *worker)
{
	struct job_reply reply;
	int fd = -1;
	int r;

	r = channel_receive(worker->fd, &reply, sizeof(reply), &fd, 1, MSG_DONTWAIT);
	if (!r) {
		worker_hear(worker, &reply, fd);
		return true;
	}
	if (r == CHANNEL_E_MALFORMED && worker->job && worker->output < 0) {
		worker_fail(worker, TIER_REASON_RESULT_REFUSED, "an answer of the wrong size or with too many descriptors");
		return true;
	}
	/* A worker that exits closes its socket before its status can be had: no signal that would replace the status. */
	if (r == CHANNEL_E_CLOSED)
		dispatch_file_deinit(&worker->socket);
	else if (r != -EAGAIN)
		worker_deafen(worker);
	return false;
}

static int worker_on_socket(struct dispatch_file *file, uint32_t events)
{
	worker_listen(container_of(file, struct worker, socket));
	return 0;
}

/* -- Its end ------------------------------------------------------------------------------------------------------- */
static void worker_bury_job(struct worker *worker, int code, int status)
{
	struct refusal refusal;

	if (code == CLD_EXITED && status == WORKER_EXIT_MEMORY) {
		worker_fail(worker, TIER_REASON_WORKER_MEMORY, "an allocation failed");
		return;
	}
	if (code == CLD_EXITED && status == WORKER_EXIT_SANDBOX)
		refuse(&refusal, "%s: it could not confine itself", tier_reason_name(TIER_REASON_WORKER_DIED));
	else if (code == CLD_EXITED)
		refuse(&refusal, "%s: exit status %d", tier_reason_name(TIER_REASON_WORKER_DIED), status);
	else
		refuse(&refusal, "%s: signal %d (%s)", tier_reason_name(TIER_REASON_WORKER_DIED), status,
		       status ? strsignal(status) : "unknown");
	worker_finish(worker, TIER_REASON_WORKER_DIED, &refusal);
}

static int worker_on_end(struct dispatch_file *file, uint32_t events)
{
	struct worker *worker = container_of(file, struct worker, end);
	int code, status;

	/* Its last words count: they may be the answer, and the end only what it had announced. */
	if (worker->job && worker->output < 0 && worker->socket.dispatch && worker_listen(worker))
		return 0;
	if (worker->output >= 0)
		return 0;
	if (!child_has_ended(worker->pidfd, &code, &status))
		return 0;
	dispatch_file_deinit(&worker->end);
	worker->pidfd = close_fd(worker->pidfd);
	if (worker->job)
		worker_bury_job(worker, code, status);
	else
		worker->gone(worker);
	return 0;
}

static int worker_on_deadline(struct dispatch_timer *timer, uint64_t now_ns)
{
	struct worker *worker = container_of(timer, struct worker, deadline);
	struct refusal refusal;

	refuse(&refusal, "%s of %.3g s", tier_reason_name(TIER_REASON_WORKER_TIMEOUT), worker->limit_ns / 1e9);
	worker_finish(worker, TIER_REASON_WORKER_TIMEOUT, &refusal);
	return 0;
}

/* -- Life ---------------------------------------------------------------------------------------------------------- */
DEFINE_CLEANUP(struct worker *, worker_free)

int worker_new(struct worker **ret, struct dispatch *dispatch, struct graveyard *graveyard, pid_t pid, int fd, int pidfd,
	       worker_done_fn done, worker_gone_fn gone, void *context)
{
	_cleanup_(worker_freep) struct worker *worker = calloc(1, sizeof(*worker));
	int r;

	if (!worker) {
		close_fd(fd);
		graveyard_bury(graveyard, pidfd);
		return error_origin(-ENOMEM);
	}
	*worker = (struct worker){ .dispatch = dispatch, .graveyard = graveyard, .done = done, .gone = gone,
				   .context = context, .pid = pid, .fd = fd, .pidfd = pidfd, .output = -1 };
	dispatch_timer_init(&worker->deadline, dispatch, worker_on_deadline, "worker deadline");
	dispatch_timer_init(&worker->copy, dispatch, worker_copy, "worker output");
	r = dispatch_file_init(&worker->socket, dispatch, worker_on_socket, "worker", fd, EPOLLIN);
	if (r)
		return error_fold(r);
	r = dispatch_file_init(&worker->end, dispatch, worker_on_end, "worker end", pidfd, EPOLLIN);
	if (r)
		return error_fold(r);
	*ret = TAKE_PTR(worker);
	return 0;
}

struct worker *worker_free(struct worker *worker)
{
	if (!worker)
		return NULL;
	dispatch_timer_disarm(&worker->deadline);
	dispatch_timer_disarm(&worker->copy);
	dispatch_file_deinit(&worker->socket);
	dispatch_file_deinit(&worker->end);
	close_fd(worker->fd);
	close_fd(worker->output);
	graveyard_bury(worker->graveyard, worker->pidfd);
	free(worker->bytes);
	free(worker);
	return NULL;
}

bool worker_assign(struct worker *worker, enum job_kind kind, uint64_t id, int input, uint64_t n_input, uint64_t limit_ns)
{
	struct job_request request = { .kind = kind, .id = id, .n_input = n_input };

	if (channel_send(worker->fd, &request, sizeof(request), &input, 1))
		return false;
	worker->job = id;
	worker->limit_ns = limit_ns;
	worker->n_bytes_max = job_output_max(kind, n_input);
	dispatch_timer_arm(&worker->deadline, clock_now_ns() + limit_ns);
	return true;
}

void worker_hurry(struct worker *worker, uint64_t grace_ns)
{
	uint64_t deadline = clock_now_ns() + grace_ns;

	if (list_is_linked(&worker->deadline.link) && deadline < worker->deadline.deadline_ns)
		dispatch_timer_arm(&worker->deadline, deadline);
}
