/* SPDX-License-Identifier: Apache-2.0 */
#include <linux/futex.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include "util/base.h"
#include "util/error.h"
#include "util/fault.h"
#include "worker/channel.h"
#include "worker/child/codegen.h"
#include "worker/child/elf.h"
#include "worker/child/precompile.h"
#include "worker/child/sandbox.h"
#include "worker/child/serve.h"
#include "worker/job.h"

/* Whatever goes wrong has one of three ends, none of them silent:
 *
 *   the job is at fault        a reply with the reason; the worker goes on
 *   LLVM gives up              a reply with LLVM's words, then the worker ends
 *   memory is exhausted        exit status WORKER_EXIT_MEMORY, whoever noticed (LLVM and the C++ library abort()) */

static struct {
	uint64_t memory_limit;
	uint64_t job;		/* the one being worked on */
	const char *fault;	/* TIERD_WORKER_FAULT */
} serve;

/* -- Ends ---------------------------------------------------------------------------------------------------------- */
static void on_abort(int signal)
{
	if (sandbox_is_out_of_memory(serve.memory_limit))
		_exit(WORKER_EXIT_MEMORY);
	/* Returning lets abort() go on with the default action. */
}

static void on_fatal(const char *reason)
{
	struct job_reply reply = { .id = serve.job, .flags = JOB_REPLY_LAST };

	if (sandbox_is_out_of_memory(serve.memory_limit))
		_exit(WORKER_EXIT_MEMORY);
	refuse(&reply.refusal, "LLVM: %s", reason);
	channel_send(SANDBOX_FD, &reply, sizeof(reply), NULL, 0);
	_exit(0);
}

/* -- Faults on purpose, for tests ---------------------------------------------------------------------------------- */
static bool fault_is(const char *kind, const char *name)
{
	size_t n = strlen(kind);

	if (!serve.fault || strncmp(serve.fault, kind, n))
		return false;
	if (serve.fault[n] == ':')
		return !strcmp(serve.fault + n + 1, name);
	return !serve.fault[n] && *name != '(';
}

static void fault_hang(void)
{
	uint32_t word = 0;

	for (;;)
		syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0);
}

static void fault_memory(void)
{
	for (uint64_t n = 0; n < serve.memory_limit; n += 1 << 20) {
		volatile char *leaked = malloc(1 << 20);

		if (!leaked)
			abort();
		leaked[0] = 1;
	}
}

static void fault_on_purpose(const char *name)
{
	if (fault_is("hang", name))
		fault_hang();
	if (fault_is("memory", name))
		fault_memory();
	if (fault_is("die", name))
		__builtin_trap();
}

static void fault_lie(const struct job_compile *job, struct code_result *code)
{
	static uint32_t last;

	if (!fault_is("lie", job->bodies[0].name))
		return;
	last = job->n_methods - 1;
	code->inlined = &last;
	code->n_inlined = 1;
}

/* -- Jobs ---------------------------------------------------------------------------------------------------------- */

/* A private copy: the client that made the memfd may change or truncate it at any moment, this copy not. */
static void *read_input(int fd, uint64_t n, struct refusal *refusal)
{
	uint8_t *input = malloc(n + 8);

	if (!input)
		abort();
	for (uint64_t done = 0; done < n;) {
		ssize_t got = pread(fd, input + done, n - done, done);

		if (got <= 0) {
			refuse(refusal, "the input ends after %llu of %llu bytes", (unsigned long long)done, (unsigned long long)n);
			free(input);
			return NULL;
		}
		done += got;
	}
	return input;
}

static bool run_compile(void *input, size_t n, void **ret, size_t *ret_n, struct refusal *refusal)
{
	struct job_compile job;
	struct code_result code;
	void *block;
	bool ok;

	if (!job_get_compile(&job, input, n, refusal))
		return false;
	fault_on_purpose(job.bodies[0].name);
	ok = codegen_compile(&job, &code, &block, refusal);
	if (ok)
		fault_lie(&job, &code);
	free(job.bodies);
	if (!ok)
		return false;
	if (job_put_code(&code, ret, ret_n))
		abort();
	free(block);
	return true;
}

static bool run_job(const struct job_request *request, int fd, void **ret, size_t *ret_n, struct refusal *refusal)
{
	_cleanup_(freep) void *input = NULL;

	input = read_input(fd, request->n_input, refusal);
	if (!input)
		return false;
	if (request->kind == JOB_COMPILE)
		return run_compile(input, request->n_input, ret, ret_n, refusal);
	if (request->kind == JOB_LOAD) {
		fault_on_purpose("(load)");
		return elf_to_image(input, request->n_input, ret, ret_n, refusal);
	}
	if (request->kind == JOB_PRECOMPILE) {
		fault_on_purpose("(precompile)");
		return precompile(input, request->n_input, ret, ret_n, refusal);
	}
	refuse(refusal, "unknown kind of job %u", request->kind);
	return false;
}

static int write_output(const uint8_t *bytes, size_t n)
{
	int fd = memfd_create("tierd-output", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	for (size_t done = 0; fd >= 0 && done < n;) {
		ssize_t put = pwrite(fd, bytes + done, n - done, done);

		if (put <= 0)
			return close_fd(fd);
		done += put;
	}
	return fd;
}

static bool has_grown(void)
{
	struct rusage usage;

	return !getrusage(RUSAGE_SELF, &usage) && (uint64_t)usage.ru_maxrss * 1024 > serve.memory_limit / 2;
}

static void answer(const struct job_request *request, int input)
{
	uint64_t n_max = job_output_max(request->kind, request->n_input);
	struct job_reply reply = { .id = request->id };
	void *output = NULL;
	size_t n = 0;
	int fd = -1;

	fault_step();
	reply.ok = run_job(request, input, &output, &n, &reply.refusal);
	fault_step();
	if (reply.ok && n > n_max) {
		reply.ok = false;
		refuse(&reply.refusal, "the result has %zu bytes, more than %llu", n, (unsigned long long)n_max);
	}
	if (!reply.ok && sandbox_is_out_of_memory(serve.memory_limit))
		_exit(WORKER_EXIT_MEMORY);
	if (reply.ok) {
		reply.n_output = n;
		fault_scramble(output, n);
		fd = write_output(output, n);
		if (fd < 0)
			_exit(WORKER_EXIT_MEMORY);
	}
	if (has_grown())
		reply.flags |= JOB_REPLY_LAST;
	fault_step();
	if (channel_send(SANDBOX_FD, &reply, sizeof(reply), &fd, fd >= 0))
		_exit(0);
	fault_step();
	close_fd(fd);
	free(output);
	if (reply.flags & JOB_REPLY_LAST)
		_exit(0);
}

static void serve_next(void)
{
	struct job_request request;
	int input;

	if (channel_receive(SANDBOX_FD, &request, sizeof(request), &input, 1, 0) || input < 0)
		_exit(0);
	serve.job = request.id;
	answer(&request, input);
	close(input);
}

void serve_run(int fd, uint64_t memory_limit, int parent)
{
	struct sigaction action = { .sa_handler = on_abort };

	serve.memory_limit = memory_limit;
	serve.fault = getenv("TIERD_WORKER_FAULT");
	sigaction(SIGABRT, &action, NULL);
	codegen_set_fatal(on_fatal);
	if (sandbox_enter(fd, memory_limit, parent))
		_exit(WORKER_EXIT_SANDBOX);
	for (;;)
		serve_next();
}
