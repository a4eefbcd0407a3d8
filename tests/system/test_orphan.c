/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "system/harness.h"
#include "tier/wire.h"

/* Forks that outlive their parents, as of a program that connects before it goes to the background: they go on, and the
 * daemon sees their parents' sessions end */

static struct daemon host;

/* How many sessions a process has */
struct census {
	pid_t pid;
	unsigned int n;
};

static int count_session(const struct wire_session_row *row, void *context)
{
	struct census *census = context;

	census->n += row->pid == (uint32_t)census->pid;
	return 0;
}

static unsigned int n_sessions(struct tier_conn *conn, pid_t pid)
{
	struct census census = { .pid = pid };

	child_assert(!tier_clients(conn, count_session, &census));
	return census.n;
}

static void await_end_of_parent(pid_t parent)
{
	struct pollfd end = { .fd = syscall(SYS_pidfd_open, parent, 0), .events = POLLIN };

	if (getppid() == parent)	/* else it ended before, and the number may be another's by now */
		child_assert(poll(&end, 1, TEST_DEADLINE_NS / 1000000) == 1);
	close(end.fd);
}

/* Connects, forks, and ends before the fork has done anything; returns in the fork. */
static void connect_fork_and_end(pid_t (*fork_it)(void), struct tier_conn **ret_conn, struct tier_method **ret_method)
{
	const pid_t self = getpid();

	*ret_conn = daemon_connect(&host);
	*ret_method = workload_load(*ret_conn, "fib", NULL);
	child_assert(n_sessions(*ret_conn, self) == 1);
	if (fork_it())
		_exit(0);
	alarm(TEST_DEADLINE_NS / 1000000000u);
	await_end_of_parent(self);
}

static void orphan_goes_on(pid_t (*fork_it)(void), int said)
{
	const uint64_t args[5] = { 10 };
	const pid_t parent = getpid();
	struct tier_method *method;
	struct tier_conn *conn;

	connect_fork_and_end(fork_it, &conn, &method);
	child_assert(tier_entry(method)(10, 0, 0, 0, 0) == 55);
	wait_until("the parent's session to end", !n_sessions(conn, parent));
	child_assert(n_sessions(conn, getpid()) == 1);
	climb(method, args);
	_exit(write(said, "+", 1) != 1);
}

static void session_ends_with_its_process(pid_t (*fork_it)(void))
{
	char said = 0;
	int ends[2];
	pid_t pid;

	pipe_open(ends);
	daemon_start(&host, ARGS("--call-counting-delay=0"));
	pid = fork();
	if (!pid) {
		child_begin();
		orphan_goes_on(fork_it, ends[1]);
	}
	close(ends[1]);
	child_end(pid);
	assert_int_equal(read(ends[0], &said, 1), 1);
	close(ends[0]);
	daemon_stop(&host);
}

static void a_fork_that_outlives_its_parent_lets_the_session_end(void **state)
{
	session_ends_with_its_process(fork);
}

static pid_t fork_by_clone(void)
{
	return syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
}

static void a_raw_clone_that_outlives_its_parent_lets_the_session_end(void **state)
{
	session_ends_with_its_process(fork_by_clone);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_fork_that_outlives_its_parent_lets_the_session_end),
		cmocka_unit_test(a_raw_clone_that_outlives_its_parent_lets_the_session_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
