/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What system tests share: a private daemon in a folder of its own, tierctl runs, and deadlines.
 *
 * TIER_BUILD names the build folder (default "build"); TIER_EVENTS is "kernel" (default) or "socket": how this run's daemons
 * learn of thresholds. TIER_STORE is "keeper" (default) or "manager": who keeps kept daemons' descriptors. Every function fails the running cmocka test when it cannot do its work. */

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <tier/tier.h>

#define TEST_DEADLINE_NS 20000000000u	/* nothing that a test waits for takes this long */

struct daemon {
	pid_t pid;		/* of a kept one: who keeps it */
	char folder[64];	/* private, removed by daemon_stop() */
	char socket[96];
	char log[96];		/* what the daemon said */
	bool is_kept;
	pid_t guard;		/* ends what is left of a kept one */
	int guard_fd;
};

/* A NULL-terminated array of words, for @args below */
#define ARGS(...) ((const char *const[]){ __VA_ARGS__, NULL })

/* Starts tierd with --foreground, a private socket, --code-cache=off, --tiered-pgo=off (most stories count the steps of the short
 * ladder) and --events as TIER_EVENTS says, then @args (NULL-terminated, may be NULL); returns when it serves. */
void daemon_start(struct daemon *daemon, const char *const *args);
/* The same without waiting for service: returns the exit status of a daemon that refuses to start, text in @log. */
int daemon_try(struct daemon *daemon, const char *const *args);
/* The same as user @uid, who runs it from a copy of the programs; 0: as the test itself. */
void daemon_start_as(struct daemon *daemon, uid_t uid, const char *const *args);
int daemon_try_as(struct daemon *daemon, uid_t uid, const char *const *args);
/* SIGTERM; asserts that it ends with 0 and that it left nothing behind; removes the folder. */
void daemon_stop(struct daemon *daemon);
void daemon_kill(struct daemon *daemon);	/* SIGKILL and reaped; then daemon_stop() only removes the folder */

/* -- Daemons that have successors: kept by `tierd --keep`, or by a manager that is the test's idea of systemd, as TIER_STORE says --- */
/* As daemon_start(). daemon_stop() ends keeper and daemon, daemon_kill() kills both. */
void daemon_start_kept(struct daemon *daemon, const char *const *args);
pid_t daemon_main_pid(const struct daemon *daemon);	/* the daemon itself; waits until there is one */
/* SIGKILL to the daemon itself; returns when a successor serves. */
void daemon_kill_main(struct daemon *daemon);
/* SIGHUP to who keeps it, which is SIGTERM to the daemon itself: likewise. */
void daemon_restart_main(struct daemon *daemon);
/* Returns when another process than @before serves. */
void daemon_await_successor(const struct daemon *daemon, pid_t before);
/* From now on successors are started from this program. */
void daemon_replace_program(const struct daemon *daemon, const char *program);
bool store_is_keepers(void);	/* this run's mode */

struct tier_conn *daemon_connect(const struct daemon *daemon);
/* build/workloads/NAME.bpf.o; static buffer */
const char *workload_object(const char *name);
/* Loads a workload and finds its entry method. */
struct tier_method *workload_load(struct tier_conn *conn, const char *name, struct tier_module **ret_module);

/* Calls @method along its schedule until it is promoted to its final tier; returns how many calls that took. @args: five,
 * or NULL for zeros. */
uint64_t climb(struct tier_method *method, const uint64_t *args);
uint32_t method_index(struct tier_module *module, const struct tier_method *method);
/* Fails the test with libtier's sentence unless @call returns 0. */
#define assert_done(call)                                                                                              \
	do {                                                                                                           \
		int done_ = (call);                                                                                    \
		if (done_)                                                                                             \
			fail_msg("%s: %d: %s", #call, done_, tier_error_text());                                       \
	} while (0)

/* The journal so far, oldest first, of @module (0: all) and its method @index (UINT32_MAX: all). Returns how many events
 * there are; at most @n_max are stored. Fails on a gap or a hole in the numbers. */
size_t events_read(struct tier_conn *conn, uint64_t module, uint32_t index, struct tier_event *ret, size_t n_max);
/* How many of one kind */
unsigned int events_count(struct tier_conn *conn, struct tier_module *module, const struct tier_method *method,
			  enum tier_event_kind kind);
enum tier_source events_source(void);	/* of thresholds in this run's mode, when nothing was lost */

/* Compiles @source (BPF C) into @folder/@name.o with clang -target bpf -O2 -mcpu=v3 and @flags ("" for none); returns the
 * path in a static buffer. */
const char *bpf_compile(const char *folder, const char *name, const char *source, const char *flags);

/* Runs build/tierctl against the daemon. Returns its exit status; @out gets standard output and @err standard error (each of
 * RUN_TEXT_MAX bytes, may be NULL). Arguments end with NULL. */
#define RUN_TEXT_MAX 65536
int tierctl(const struct daemon *daemon, char *out, char *err, ...) __attribute__((sentinel));
/* Starts it; *ret_out reads what it prints. */
pid_t tierctl_start(const struct daemon *daemon, int *ret_out, ...) __attribute__((sentinel));

/* -- Children: what fails in a child says so and ends it with 1, never the parent's way, into the next test. --- */
#define child_assert(condition)                                                                                        \
	do {                                                                                                           \
		if (!(condition))                                                                                      \
			child_fail(__FILE__, __LINE__, #condition);                                                    \
	} while (0)
void pipe_open(int ends[2]);	/* that no daemon inherits */
_Noreturn void child_fail(const char *file, int line, const char *condition);
/* In a forked child: it dies with the test, and cmocka's own assertions end it with SIGABRT. */
void child_begin(void);
/* Runs @fn in a forked child, which then ends with 0. */
pid_t child_start(void (*fn)(void *context), void *context);
int child_reap(pid_t pid);	/* its status as waitpid() has it; fails the test when it does not end in time */
void child_end(pid_t pid);	/* reaped, and it must have ended with 0 */

/* The parent, the session and the state letter of a process; false when it is gone */
bool process_stat(pid_t pid, pid_t *ret_parent, pid_t *ret_session, char *ret_state);
/* Calls @fn for each process below @pid (the daemon's zygote and workers). */
void each_descendant(pid_t pid, void (*fn)(pid_t pid, void *context), void *context);
/* SIGSTOP to all workers and the zygote, and returns when they stand; SIGCONT. So a compilation takes as long as a test
 * wants. */
void workers_stop(const struct daemon *daemon);
void workers_continue(const struct daemon *daemon);

const char *build_folder(void);
const char *temporary_folder(void);	/* $TMPDIR, if that leaves room for a socket's path; else /tmp */
bool events_by_kernel(void);	/* this run's mode */
bool test_is_long(void);	/* TIER_TEST_LONG=1: full counts */
uint64_t test_now_ns(void);
/* Repeats until @condition is true, with short pauses; fails the test with @what after TEST_DEADLINE_NS. For things that
 * bring no event of their own (/proc, counters of another process). */
#define wait_until(what, condition)                                                                                    \
	do {                                                                                                           \
		uint64_t deadline_ = test_now_ns() + TEST_DEADLINE_NS;                                                 \
		while (!(condition))                                                                                   \
			wait_until_pause(what, deadline_);                                                             \
	} while (0)
void wait_until_pause(const char *what, uint64_t deadline_ns);
