/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <tier/wire.h>
#include <unistd.h>
#include "bench/inputs.h"
#include "system/harness.h"

/* A user's own daemon, without any privilege
 *
 * The kernel refuses probes, so bells travel over the socket, and the daemon says so and why. Everything else is the
 * same. This whole program gives up root first; the programs are copied to where anybody may run them. */

#define NOBODY 65534

static char home[64];	/* the copy */

/* -- Results --- */
static void climb_workload(struct tier_conn *conn, const struct workload *workload)
{
	struct workload_input *input = input_make(workload->name);
	struct tier_module *module;
	struct tier_method *method;
	uint64_t expected;

	assert_non_null(input);
	expected = input_call(input, workload->native);
	input_reset(input);
	assert_done(tier_load(conn, workload_object(workload->file), NULL, 0, &module));
	assert_done(tier_find(module, workload->entry, &method));
	climb(method, input->args);
	input_reset(input);
	assert_int_equal(input_call(input, tier_entry(method)), expected);
	assert_int_equal(events_count(conn, module, method, TIER_EVENT_THRESHOLD), 1);
	tier_close(module);
	assert_done(tier_unload(conn, workload->file));
	input_free(input);
}

static void a_daemon_without_privilege_serves_over_the_socket_and_says_why(void **state)
{
	char out[RUN_TEXT_MAX], err[RUN_TEXT_MAX];
	struct tier_conn *conn;
	struct wire_stats stats;
	struct daemon daemon;
	const char *why;

	daemon_start(&daemon, ARGS("--user", "--events=auto", "--call-counting-delay=1ms"));
	conn = daemon_connect(&daemon);
	assert_false(tier_conn_uses_kernel(conn, &why));
	assert_int_not_equal(why[0], 0);
	for (size_t i = 0; i < n_workloads; i++)
		climb_workload(conn, &workloads[i]);
	assert_done(tier_stats(conn, &stats));
	assert_int_equal(stats.kernel, 0);
	assert_string_not_equal(stats.path, "");
	assert_true(stats.n_thresholds[TIER_SOURCE_SOCKET] >= n_workloads);
	assert_int_equal(stats.n_thresholds[TIER_SOURCE_KERNEL], 0);
	assert_int_equal(tierctl(&daemon, out, err, "stats", NULL), 0);
	assert_non_null(strstr(out, "socket"));
	assert_non_null(strstr(out, stats.path));
	print_message("why: %s\n", stats.path);
	tier_disconnect(conn);
	daemon_stop(&daemon);
}

static bool log_has(const struct daemon *daemon, const char *words)
{
	char text[8192];
	int fd = open(daemon->log, O_RDONLY | O_CLOEXEC);
	ssize_t n = read(fd, text, sizeof(text) - 1);

	close(fd);
	text[n > 0 ? n : 0] = '\0';
	return strstr(text, words);
}

static void a_daemon_that_must_have_the_kernels_events_refuses_to_start(void **state)
{
	struct daemon daemon;

	assert_int_not_equal(daemon_try(&daemon, ARGS("--user", "--events=kernel")), 0);
	assert_true(log_has(&daemon, "--events=kernel"));
	assert_true(log_has(&daemon, "the kernel refuses"));
	daemon_stop(&daemon);
}

static void tierctl_drives_a_method_without_privilege(void **state)
{
	char out[RUN_TEXT_MAX], err[RUN_TEXT_MAX];
	struct daemon daemon;

	daemon_start(&daemon, ARGS("--user", "--events=auto", "--call-counting-delay=0"));
	assert_int_equal(tierctl(&daemon, out, err, "load", workload_object("fib"), NULL), 0);
	assert_int_equal(tierctl(&daemon, out, err, "drive", "fib:fib", "12", NULL), 0);
	assert_non_null(strstr(out, "Tier1"));
	assert_int_equal(tierctl(&daemon, out, err, "call", "fib:fib", "12", "--json", NULL), 0);
	assert_non_null(strstr(out, "\"result\":144"));
	daemon_stop(&daemon);
}

/* -- $XDG_RUNTIME_DIR --- */
static pid_t start_with_runtime_folder(const char *folder)
{
	char program[128];
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid)
		return pid;
	snprintf(program, sizeof(program), "%s/tierd", home);
	setenv("XDG_RUNTIME_DIR", folder, 1);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	execl(program, program, "--user", "--foreground", "--log-level=0", NULL);
	_exit(127);
}

static void a_users_daemon_and_clients_meet_in_the_runtime_folder(void **state)
{
	char folder[128], socket[160], command[512];
	pid_t pid;
	int status;

	snprintf(folder, sizeof(folder), "%s/runtime", home);
	snprintf(socket, sizeof(socket), "%s/tierd.sock", folder);
	snprintf(command, sizeof(command), "mkdir -m 700 %s", folder);
	assert_int_equal(system(command), 0);
	unsetenv("TIERD_SOCKET");
	pid = start_with_runtime_folder(folder);
	snprintf(command, sizeof(command), "XDG_RUNTIME_DIR=%s %s/tierctl stats >/dev/null 2>&1", folder, home);
	wait_until("the daemon to serve", !system(command));
	assert_int_equal(access(socket, F_OK), 0);
	snprintf(command, sizeof(command),
		 "export XDG_RUNTIME_DIR=%s; %s/tierctl load %s >/dev/null && %s/tierctl drive fib:fib 10 >/dev/null",
		 folder, home, workload_object("fib"), home);
	assert_int_equal(system(command), 0);
	kill(pid, SIGTERM);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_int_not_equal(access(socket, F_OK), 0);
}

/* -- Giving up root --- */
static bool become_nobody(void)
{
	const char *build = getenv("TIER_BUILD");
	char command[1024];

	snprintf(home, sizeof(home), "%.32s/tierd-nobody-XXXXXX", temporary_folder());
	if (!mkdtemp(home))
		return false;
	snprintf(command, sizeof(command), "cp -r %1$s/tierd %1$s/tierd-worker %1$s/tierctl %1$s/workloads %2$s && chmod -R a+rX %2$s",
		 build ? build : "build", home);
	if (system(command) || setenv("TIER_BUILD", home, 1))
		return false;
	if (getuid())
		return true;
	snprintf(command, sizeof(command), "chown -R %d:%d %s", NOBODY, NOBODY, home);
	return !system(command) && !setgroups(0, NULL) && !setresgid(NOBODY, NOBODY, NOBODY) && !setresuid(NOBODY, NOBODY, NOBODY);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_daemon_without_privilege_serves_over_the_socket_and_says_why),
		cmocka_unit_test(a_daemon_that_must_have_the_kernels_events_refuses_to_start),
		cmocka_unit_test(tierctl_drives_a_method_without_privilege),
		cmocka_unit_test(a_users_daemon_and_clients_meet_in_the_runtime_folder),
	};
	char command[128];
	int n_failed;

	if (!become_nobody()) {
		perror("cannot go on without privilege");
		return 1;
	}
	n_failed = cmocka_run_group_tests(tests, NULL, NULL);
	snprintf(command, sizeof(command), "rm -rf %s", home);
	return system(command) ? 1 : n_failed;
}
