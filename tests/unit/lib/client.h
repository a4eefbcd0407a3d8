/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What tests do with libtier: connect, open, call; catch failures; run children of every kind */

#include "fake.h"

/* -- Clients --- */
static inline struct tier_conn *client_connect_for(struct fake *fake, uint64_t timeout_ns)
{
	struct tier_conn_opts opts = { .size = sizeof(opts), .socket = fake->address.sun_path, .timeout_ns = timeout_ns };
	struct tier_conn *conn;

	if (tier_connect(&conn, &opts) != 0)
		fail_msg("%s", tier_error_text());
	return conn;
}

static inline struct tier_conn *client_connect(struct fake *fake)
{
	return client_connect_for(fake, 10 * FAKE_SECOND);
}

static inline struct tier_module *client_open(struct tier_conn *conn, const char *name)
{
	struct tier_module *module;

	if (tier_open(conn, name, &module) != 0)
		fail_msg("%s", tier_error_text());
	return module;
}

static inline struct tier_method *client_method(struct tier_module *module, uint32_t index)
{
	struct tier_method *method;

	if (tier_method_at(module, index, &method) != 0)
		fail_msg("%s", tier_error_text());
	return method;
}

static inline void client_call(struct tier_method *method, uint32_t n)
{
	while (n--)
		assert_int_equal(tier_entry(method)(1, 2, 3, 4, 5), fake_mix(1, 2, 3, 4, 5));
}

/* -- Failures: caught by a handler that leaves by siglongjmp --- */
static _Thread_local sigjmp_buf failure_escape;
static char failure_module[64], failure_method[256], failure_text[512];
static bool failure_saw_signals_blocked;

static inline void failure_catch(const char *module, const char *method, const char *text)
{
	uint64_t mask = 0;

	snprintf(failure_module, sizeof(failure_module), "%s", module);
	snprintf(failure_method, sizeof(failure_method), "%s", method);
	snprintf(failure_text, sizeof(failure_text), "%s", text);
	syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &mask, sizeof(mask));
	failure_saw_signals_blocked = (mask | 1ull << (SIGKILL - 1) | 1ull << (SIGSTOP - 1)) == UINT64_MAX;
	siglongjmp(failure_escape, 1);
}

/* Whether the call fails; what the handler was told is in failure_*. */
static inline bool call_fails(tier_fn fn)
{
	volatile bool is_caught = false;

	tier_set_failure_handler(failure_catch);
	if (sigsetjmp(failure_escape, 1) == 0)
		fn(1, 2, 3, 4, 5);
	else
		is_caught = true;
	tier_set_failure_handler(NULL);
	return is_caught;
}

/* -- Children: @flags of a raw clone, or -1 for fork(). Returns the exit status, 128 + n when a signal ended it. --- */
#define BY_FORK (-1L)

static inline pid_t child_start(long flags, int (*fn)(void *), void *context)
{
	pid_t pid = flags == BY_FORK ? fork() : (pid_t)syscall(SYS_clone, flags | SIGCHLD, 0, 0, 0, 0);

	assert_true(pid >= 0);
	if (pid == 0) {
		alarm(20);
		_exit(fn(context));
	}
	return pid;
}

static inline int child_end(pid_t pid)
{
	int status;

	while (waitpid(pid, &status, 0) < 0)
		assert_int_equal(errno, EINTR);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static inline int child_run(long flags, int (*fn)(void *), void *context)
{
	return child_end(child_start(flags, fn, context));
}
