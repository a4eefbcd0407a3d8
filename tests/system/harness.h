/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What system tests share: a private daemon in a folder of its own, tierctl runs, and deadlines.
 *
 * TIER_BUILD names the build folder (default "build"); TIER_EVENTS is "kernel" (default) or "socket": how this run's daemons
 * learn of thresholds. Every function fails the running cmocka test when it cannot do its work. */

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <tier/tier.h>

#define TEST_DEADLINE_NS 20000000000u	/* nothing that a test waits for takes this long */

struct daemon {
	pid_t pid;
	char folder[64];	/* private, removed by daemon_stop() */
	char socket[96];
	char log[96];		/* what the daemon said */
};

/* Starts tierd with --foreground, a private socket and --events as TIER_EVENTS says, then @args (NULL-terminated, may be
 * NULL); returns when it serves. */
void daemon_start(struct daemon *daemon, const char *const *args);
/* The same without waiting for service: returns the exit status of a daemon that refuses to start, text in @log. */
int daemon_try(struct daemon *daemon, const char *const *args);
/* SIGTERM; asserts that it ends with 0 and that it left nothing behind; removes the folder. */
void daemon_stop(struct daemon *daemon);
void daemon_kill(struct daemon *daemon);	/* SIGKILL and reaped; then daemon_stop() only removes the folder */

struct tier_conn *daemon_connect(const struct daemon *daemon);
/* build/workloads/NAME.bpf.o; static buffer */
const char *workload_object(const char *name);
/* Loads a workload and finds its entry method. */
struct tier_method *workload_load(struct tier_conn *conn, const char *name, struct tier_module **ret_module);

/* Compiles @source (BPF C) into @folder/@name.o with clang -target bpf -O2 -mcpu=v3 and @flags ("" for none); returns the
 * path in a static buffer. */
const char *bpf_compile(const char *folder, const char *name, const char *source, const char *flags);

/* Runs build/tierctl against the daemon. Returns its exit status; @out gets standard output and @err standard error (each of
 * RUN_TEXT_MAX bytes, may be NULL). Arguments end with NULL. */
#define RUN_TEXT_MAX 65536
int tierctl(const struct daemon *daemon, char *out, char *err, ...) __attribute__((sentinel));

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
