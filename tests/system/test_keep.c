/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <tier/wire.h>
#include "system/harness.h"

/* Who keeps a daemon, and how long: `tierd --keep`, and the same stories under a manager as systemd is one
 * (TIER_STORE=manager). */

static struct daemon daemon_;

static int stop(void **state)
{
	daemon_stop(&daemon_);
	return 0;
}

static bool log_has(const char *text)
{
	static char content[65536];
	int fd = open(daemon_.log, O_RDONLY);
	ssize_t n = fd < 0 ? -1 : read(fd, content, sizeof(content) - 1);

	close(fd);
	content[n < 0 ? 0 : n] = '\0';
	return strstr(content, text) != NULL;
}

static unsigned int log_count(const char *text)
{
	static char content[65536];
	int fd = open(daemon_.log, O_RDONLY);
	ssize_t n = fd < 0 ? -1 : read(fd, content, sizeof(content) - 1);
	unsigned int count = 0;

	close(fd);
	content[n < 0 ? 0 : n] = '\0';
	for (const char *at = content; (at = strstr(at, text)); at++)
		count++;
	return count;
}

static void assert_serves(void)
{
	struct tier_conn *conn = daemon_connect(&daemon_);
	struct wire_stats stats;

	assert_done(tier_stats(conn, &stats));
	assert_int_equal(stats.pid, daemon_main_pid(&daemon_));
	tier_disconnect(conn);
}

static void a_killed_daemon_has_a_successor(void **state)
{
	const int n = test_is_long() ? 50 : 5;

	daemon_start_kept(&daemon_, NULL);
	assert_serves();
	for (int i = 0; i < n; i++) {
		daemon_kill_main(&daemon_);
		assert_serves();
	}
}

static void whoever_connects_in_the_gap_waits(void **state)
{
	struct tier_conn *conn;
	struct wire_stats stats;
	pid_t before;

	daemon_start_kept(&daemon_, NULL);
	before = daemon_main_pid(&daemon_);
	assert_int_equal(kill(daemon_.pid, SIGSTOP), 0); /* no successor for now */
	assert_int_equal(kill(before, SIGKILL), 0);
	pid_t client = fork();
	if (!client) {
		child_begin();
		conn = daemon_connect(&daemon_);
		child_assert(!tier_stats(conn, &stats) && (pid_t)stats.pid != before);
		_exit(0);
	}
	nanosleep(&(struct timespec){ .tv_nsec = 50000000 }, NULL); /* long enough to connect, if it were refused */
	assert_int_equal(waitpid(client, NULL, WNOHANG), 0);
	assert_int_equal(kill(daemon_.pid, SIGCONT), 0);
	child_end(client);
}

static void a_restart_starts_the_program_that_is_there_by_then(void **state)
{
	char path[128], command[512], exe[64], target[256];
	ssize_t n;

	daemon_start_kept(&daemon_, NULL);
	snprintf(path, sizeof(path), "%s/tierd-2", daemon_.folder);
	snprintf(command, sizeof(command), "cp %s/tierd %s && cp %s/tierd-worker %s", build_folder(), path, build_folder(),
		 daemon_.folder);
	assert_int_equal(system(command), 0);
	daemon_replace_program(&daemon_, path);
	daemon_restart_main(&daemon_);
	assert_serves();
	snprintf(exe, sizeof(exe), "/proc/%d/exe", (int)daemon_main_pid(&daemon_));
	n = readlink(exe, target, sizeof(target) - 1);
	assert_true(n > 0);
	target[n] = '\0';
	assert_string_equal(target, path);
}

static void sigterm_ends_both_and_the_socket(void **state)
{
	pid_t pid;

	daemon_start_kept(&daemon_, NULL);
	daemon_kill_main(&daemon_);
	pid = daemon_main_pid(&daemon_);
	assert_int_equal(kill(daemon_.pid, SIGTERM), 0);
	assert_int_equal(child_reap(daemon_.pid), 0);
	assert_int_equal(kill(pid, 0), -1);
	assert_int_not_equal(access(daemon_.socket, F_OK), 0);
	daemon_.pid = 0;
}

static void a_daemon_that_is_told_to_end_ends_its_keeper(void **state)
{
	daemon_start_kept(&daemon_, NULL);
	assert_int_equal(kill(daemon_main_pid(&daemon_), SIGTERM), 0);
	assert_int_equal(child_reap(daemon_.pid), 0);
	assert_int_not_equal(access(daemon_.socket, F_OK), 0);
	daemon_.pid = 0;
}

static void nobody_else_takes_the_path_in_the_gap(void **state)
{
	struct daemon other;
	char option[160];

	if (!store_is_keepers())
		skip(); /* a socket unit's path belongs to systemd */
	daemon_start_kept(&daemon_, NULL);
	snprintf(option, sizeof(option), "--socket=%s", daemon_.socket);
	assert_int_equal(kill(daemon_.pid, SIGSTOP), 0);
	assert_int_equal(kill(daemon_main_pid(&daemon_), SIGKILL), 0);
	assert_int_equal(daemon_try(&other, ARGS(option)), 2);
	daemon_stop(&other);
	assert_int_equal(kill(daemon_.pid, SIGCONT), 0);
	assert_serves();
}

/* -- What goes wrong --- */
static void a_daemon_that_cannot_start_ends_its_keeper(void **state)
{
	assert_int_equal(daemon_try(&daemon_, ARGS("--keep", "--worker=/nowhere/tierd-worker")), 2);
	assert_true(log_has("cannot find tierd-worker"));
	assert_true(log_has("ended with exit status 2"));
	assert_false(log_has("is started again"));
	assert_int_not_equal(access(daemon_.socket, F_OK), 0);
}

static void an_option_that_is_wrong_is_told_once(void **state)
{
	assert_int_equal(daemon_try(&daemon_, ARGS("--keep", "--sweep=never")), 2);
	assert_int_equal(log_count("--sweep"), 1);
}

static void a_successor_that_cannot_start_is_waited_for(void **state)
{
	struct tier_conn *conn;
	pid_t before;

	if (!store_is_keepers())
		skip(); /* what systemd does then is systemd's */
	daemon_start_kept(&daemon_, NULL);
	before = daemon_main_pid(&daemon_);
	daemon_replace_program(&daemon_, "/bin/false");
	assert_int_equal(kill(before, SIGKILL), 0);
	wait_until("the keeper to give up", log_has("tierd does not start any more"));
	assert_int_equal(log_count("is started again"), 5);
	daemon_replace_program(&daemon_, NULL);
	assert_int_equal(kill(daemon_.pid, SIGHUP), 0);
	daemon_await_successor(&daemon_, before);
	conn = daemon_connect(&daemon_);
	tier_disconnect(conn);
}

#define LIVES 45u /* short ones: 40 pauses, of 1 to 40 ms */

/* What this program is instead of a test when a keeper starts it: a daemon that serves, and dies of it */
static void serve_and_die(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	const int fd = socket(AF_UNIX, SOCK_DGRAM, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", getenv("NOTIFY_SOCKET"));
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) || send(fd, "READY=1", 7, 0) < 0)
		_exit(2);
	raise(SIGKILL);
}

static void one_that_dies_whenever_it_serves_is_started_ever_more_slowly(void **state)
{
	uint64_t begin_ns, pauses_ns = 0;
	pid_t before;

	if (!store_is_keepers())
		skip(); /* what systemd does then is systemd's */
	daemon_start_kept(&daemon_, NULL);
	for (int i = 0; i < 4; i++) {
		daemon_kill_main(&daemon_); /* no pauses for those who test it */
		assert_serves();
	}
	assert_false(log_has("a growing pause"));
	daemon_restart_main(&daemon_);
	before = daemon_main_pid(&daemon_);
	daemon_replace_program(&daemon_, "/proc/self/exe");
	begin_ns = test_now_ns();
	assert_int_equal(kill(before, SIGKILL), 0);
	wait_until("many lives", log_count("is started again") >= 5 + LIVES);
	for (unsigned int i = 6; i <= LIVES; i++)
		pauses_ns += (i - 5) * UINT64_C(1000000);
	assert_true(test_now_ns() - begin_ns >= pauses_ns); /* it is never less, however busy the machine is */
	assert_int_equal(log_count("a growing pause"), 1);
	daemon_replace_program(&daemon_, NULL);
	daemon_await_successor(&daemon_, before);
	assert_serves();
}

static void a_daemon_whose_keeper_is_killed_goes_on(void **state)
{
	pid_t pid;

	daemon_start_kept(&daemon_, NULL);
	assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
	pid = daemon_main_pid(&daemon_);
	assert_int_equal(kill(daemon_.pid, SIGKILL), 0);
	child_reap(daemon_.pid);
	daemon_.pid = 0;
	wait_until("the daemon to notice", log_has("nothing is kept for a successor any more"));
	tier_disconnect(daemon_connect(&daemon_));
	assert_int_equal(kill(pid, SIGTERM), 0);
	assert_int_equal(child_reap(pid), 0);
	assert_int_equal(log_count("nothing is kept for a successor any more"), 1);
	if (store_is_keepers()) /* a socket unit's is not the daemon's to remove */
		assert_int_not_equal(access(daemon_.socket, F_OK), 0);
}

/* -- In the background --- */
/* `tierd --keep` as people start it: it returns when it serves. Its output, through pipes that must not stay open */
static int run_in_background(const char *extra, char *said, size_t n_max)
{
	char program[4200], socket[128];
	size_t n = 0;
	ssize_t got;
	int ends[2], status;
	pid_t pid;

	snprintf(program, sizeof(program), "%s/tierd", build_folder());
	snprintf(socket, sizeof(socket), "--socket=%s", daemon_.socket);
	pipe_open(ends);
	pid = fork();
	if (!pid) {
		dup2(ends[1], STDOUT_FILENO);
		dup2(ends[1], STDERR_FILENO);
		execl(program, program, "--keep", socket, "--events=socket", "--code-cache=off", extra, NULL);
		_exit(127);
	}
	close(ends[1]);
	while (n < n_max - 1 && (got = read(ends[0], said + n, n_max - 1 - n)) > 0)
		n += got;
	said[n] = '\0';
	close(ends[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void in_the_background_it_returns_when_the_daemon_serves(void **state)
{
	char said[4096];
	struct wire_stats stats;
	struct tier_conn *conn;
	pid_t pid;

	assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
	daemon_start(&daemon_, NULL); /* for its folder */
	daemon_kill(&daemon_);
	assert_int_equal(run_in_background("--sweep=1s", said, sizeof(said)), 0);
	assert_non_null(strstr(said, "serving"));
	conn = daemon_connect(&daemon_);
	assert_done(tier_stats(conn, &stats));
	tier_disconnect(conn);
	pid = stats.pid;
	assert_int_equal(kill(pid, SIGKILL), 0);
	daemon_await_successor(&daemon_, pid);
	conn = daemon_connect(&daemon_);
	assert_done(tier_stats(conn, &stats));
	tier_disconnect(conn);
	assert_int_equal(kill(stats.pid, SIGTERM), 0);
	pid = waitpid(-1, NULL, 0);
	assert_true(pid > 0);
}

static void in_the_background_it_says_why_it_cannot(void **state)
{
	char said[4096];

	daemon_start(&daemon_, NULL); /* for its folder */
	daemon_kill(&daemon_);
	assert_int_equal(run_in_background("--worker=/nowhere/tierd-worker", said, sizeof(said)), 2);
	assert_non_null(strstr(said, "cannot find tierd-worker"));
	assert_int_not_equal(access(daemon_.socket, F_OK), 0);
}

int main(void)
{
	if (getenv("NOTIFY_SOCKET") && getenv("FDSTORE"))
		serve_and_die();
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(a_killed_daemon_has_a_successor, stop),
		cmocka_unit_test_teardown(whoever_connects_in_the_gap_waits, stop),
		cmocka_unit_test_teardown(a_restart_starts_the_program_that_is_there_by_then, stop),
		cmocka_unit_test_teardown(sigterm_ends_both_and_the_socket, stop),
		cmocka_unit_test_teardown(a_daemon_that_is_told_to_end_ends_its_keeper, stop),
		cmocka_unit_test_teardown(nobody_else_takes_the_path_in_the_gap, stop),
		cmocka_unit_test_teardown(a_daemon_that_cannot_start_ends_its_keeper, stop),
		cmocka_unit_test_teardown(an_option_that_is_wrong_is_told_once, stop),
		cmocka_unit_test_teardown(a_successor_that_cannot_start_is_waited_for, stop),
		cmocka_unit_test_teardown(one_that_dies_whenever_it_serves_is_started_ever_more_slowly, stop),
		cmocka_unit_test_teardown(a_daemon_whose_keeper_is_killed_goes_on, stop),
		cmocka_unit_test_teardown(in_the_background_it_returns_when_the_daemon_serves, stop),
		cmocka_unit_test_teardown(in_the_background_it_says_why_it_cannot, stop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
