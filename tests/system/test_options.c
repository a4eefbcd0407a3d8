/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include <tier/wire.h>
#include "system/harness.h"
#include "util/base.h"

/* How tierd may be started, and how it refuses: with a sentence that names the option or the path, and what would do. */

#define SOMEBODY 12345

static const char *daemon_log(const struct daemon *daemon)
{
	static char text[16384];
	int fd = open(daemon->log, O_RDONLY | O_CLOEXEC);
	ssize_t n = read(fd, text, sizeof(text) - 1);

	close(fd);
	text[n > 0 ? n : 0] = '\0';
	return text;
}

static void is_refused(const char *words, const char *more_words, const char *const *args)
{
	struct daemon daemon;
	int status = daemon_try(&daemon, args);
	const char *text = daemon_log(&daemon);

	if (status < 1 || status > 2 || !strstr(text, words) || !strstr(text, more_words))
		fail_msg("%s: status %d, without '%s' and '%s': %s", *args, status, words, more_words, text);
	assert_int_not_equal(access(daemon.socket, F_OK), 0);
	daemon_stop(&daemon);
}

/* -- Values --- */
static void values_out_of_range_are_refused_with_the_range(void **state)
{
	static const struct {
		const char *option, *range;
	} rows[] = {
		{ "--call-count-threshold=0", "1 to 65535" },
		{ "--call-count-threshold=65536", "1 to 65535" },
		{ "--call-counting-delay=3601s", "0ms to 3600s" },
		{ "--delay-single-proc-multiplier=0", "1 to 1000" },
		{ "--delay-single-proc-multiplier=1001", "1 to 1000" },
		{ "--background-worker-timeout=0", "1ms to 3600s" },
		{ "--background-worker-timeout=2h", "1ms to 3600s" },
		{ "--background-workers=0", "1 to 64" },
		{ "--background-workers=65", "1 to 64" },
		{ "--compile-limit=999us", "1ms to 3600s" },
		{ "--load-limit=61min", "1ms to 3600s" },
		{ "--worker-memory=63M", "64M to 1024G" },
		{ "--code-size=2G", "0 to 1G" },
		{ "--sweep=0", "1ms to 3600s" },
		{ "--ring-bytes=2K", "4K to 1G" },
		{ "--journal-events=0", "1 to 67108864" },
		{ "--log-level=4", "0 to 3" },
		{ "--osr-hit-limit=0", "1 to 2147483647" },
		{ "--osr-counter-bump=0", "1 to 2147483647" },
		{ "--osr-initial-counter=2147483648", "1 to 2147483647" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		char name[64];

		snprintf(name, sizeof(name), "%.*s", (int)strcspn(rows[i].option, "="), rows[i].option);
		is_refused(name, rows[i].range, ARGS(rows[i].option));
	}
	is_refused("--ring-bytes", "power of two", ARGS("--ring-bytes=5000"));
}

static void values_of_another_kind_are_refused(void **state)
{
	static const char *const options[] = {
		"--call-count-threshold=many", "--call-count-threshold=-1", "--call-count-threshold=30x", "--call-count-threshold=",
		"--call-count-threshold=18446744073709551616", "--call-counting-delay=5 s", "--call-counting-delay=1d",
		"--call-counting-delay=99999999999999999999h", "--worker-memory=2T", "--call-counting=maybe", "--events=loud",
		"--osr=1", "--tiered-pgo=yes", "--quick-jit=", "--tiered-compilation=0", "--aggressive-tiering=very",
		"--socket=",
	};

	for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
		char name[64];

		snprintf(name, sizeof(name), "%.*s", (int)strcspn(options[i], "="), options[i]);
		is_refused(name, strchr(options[i], '=') + 1, ARGS(options[i]));
	}
}

static void what_is_no_option_is_refused(void **state)
{
	is_refused("--threshold", "--help", ARGS("--threshold=30"));
	is_refused("here", "--help", ARGS("here"));
	is_refused("--sweep", "value", ARGS("--sweep"));
	is_refused("--user", "no value", ARGS("--user=me"));
	is_refused("--tc-sweep", "--help", ARGS("--tc-sweep=1s"));	/* mirrors nothing */
}

static void help_and_version_are_printed(void **state)
{
	static const char *const names[] = { "--socket", "--user", "--foreground", "--call-count-threshold", "--call-counting-delay",
					     "--background-worker-timeout", "--events", "--help", "--version" };
	struct daemon daemon;
	const char *text;

	assert_int_equal(daemon_try(&daemon, ARGS("--help")), 0);
	text = daemon_log(&daemon);
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		assert_non_null(strstr(text, names[i]));
	daemon_stop(&daemon);
	assert_int_equal(daemon_try(&daemon, ARGS("--version")), 0);
	assert_string_equal(daemon_log(&daemon), "tierd " TIER_VERSION "\n");
	daemon_stop(&daemon);
}

static void knobs_are_in_force_and_units_are_understood(void **state)
{
	struct wire_stats stats;
	struct daemon daemon;
	struct tier_method *method;
	struct tier_conn *conn;

	daemon_start(&daemon, ARGS("--call-count-threshold", "0x4d", "--call-counting-delay=5", "--background-worker-timeout=2min",
				   "--window=0x300000000000"));
	conn = daemon_connect(&daemon);
	assert_done(tier_stats(conn, &stats));
	assert_int_equal(stats.threshold, 77);
	assert_int_equal(stats.delay_ns, 5000000);	/* without a unit milliseconds */
	assert_int_equal(stats.worker_timeout_ns, 120000000000);
	method = workload_load(conn, "fib", NULL);
	assert_in_range((uintptr_t)tier_entry(method), 0x300000000000, 0x300000000000 + (1ull << 32));
	assert_int_equal(tier_entry(method)(10, 0, 0, 0, 0), 55);
	tier_disconnect(conn);
	daemon_stop(&daemon);
}

/* -- One processor --- */
static uint64_t time_of(struct tier_conn *conn, enum tier_event_kind kind)
{
	static struct tier_event events[256];
	const size_t n = events_read(conn, 0, UINT32_MAX, events, ARRAY_SIZE(events));

	for (size_t i = 0; i < n; i++)
		if (events[i].kind == kind)
			return events[i].time_ns;
	return 0;
}

/* The daemon inherits it. */
static void run_on(const cpu_set_t *cpus)
{
	assert_int_equal(sched_setaffinity(0, sizeof(*cpus), cpus), 0);
}

static void on_one_processor_the_delay_is_multiplied(void **state)
{
	cpu_set_t all, one;
	struct wire_stats stats;
	struct daemon daemon;
	struct tier_conn *conn;

	assert_int_equal(sched_getaffinity(0, sizeof(all), &all), 0);
	CPU_ZERO(&one);
	CPU_SET(sched_getcpu(), &one);
	run_on(&one);
	daemon_start(&daemon, ARGS("--call-counting-delay=20ms", "--delay-single-proc-multiplier=7"));
	run_on(&all);
	conn = daemon_connect(&daemon);
	assert_done(tier_stats(conn, &stats));
	assert_int_equal(stats.delay_ns, 7 * 20000000u);
	assert_int_equal(tier_entry(workload_load(conn, "fib", NULL))(10, 0, 0, 0, 0), 55);
	wait_until("the end of the delay", time_of(conn, TIER_EVENT_DELAY_RESUMED));
	assert_true(time_of(conn, TIER_EVENT_DELAY_RESUMED) - time_of(conn, TIER_EVENT_DELAY_PAUSED) >= 7 * 20000000u);
	tier_disconnect(conn);
	daemon_stop(&daemon);
}

/* -- The socket --- */
static void a_second_daemon_on_a_socket_is_refused(void **state)
{
	struct daemon first;
	struct tier_conn *conn;
	struct wire_stats stats;

	daemon_start(&first, NULL);
	is_refused("another tierd", first.socket, ARGS("--socket", first.socket));
	conn = daemon_connect(&first);		/* the first goes on */
	assert_done(tier_stats(conn, &stats));
	assert_int_equal(stats.pid, first.pid);
	tier_disconnect(conn);
	daemon_stop(&first);
}

static void a_dead_daemons_socket_is_replaced(void **state)
{
	struct daemon dead, next;
	struct tier_conn *conn;
	struct wire_stats stats;

	daemon_start(&dead, NULL);
	daemon_kill(&dead);
	assert_int_equal(access(dead.socket, F_OK), 0);
	daemon_start(&next, ARGS("--socket", dead.socket));
	conn = daemon_connect(&dead);
	assert_done(tier_stats(conn, &stats));
	assert_int_equal(stats.pid, next.pid);
	tier_disconnect(conn);
	daemon_stop(&next);
	assert_int_not_equal(access(dead.socket, F_OK), 0);
	daemon_stop(&dead);
}

/* Whether somebody takes connections */
static bool is_served(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	int r;

	strcpy(address.sun_path, path);
	r = connect(fd, (struct sockaddr *)&address, sizeof(address));
	close(fd);
	return !r;
}

/* Stopped and started at once: the one that ends has the lock for some time after it has closed its socket. */
static void a_daemon_that_is_about_to_end_is_waited_for(void **state)
{
	const uint64_t deadline = test_now_ns() + TEST_DEADLINE_NS;
	struct daemon ending, next;

	daemon_start(&ending, NULL);
	assert_int_equal(kill(ending.pid, SIGTERM), 0);
	while (is_served(ending.socket))
		assert_true(test_now_ns() < deadline);
	daemon_start(&next, ARGS("--socket", ending.socket));
	assert_true(is_served(ending.socket));
	daemon_stop(&next);
	daemon_stop(&ending);
}

static void a_socket_that_cannot_be_is_refused(void **state)
{
	char path[200];

	is_refused("/proc/nowhere", "cannot", ARGS("--socket=/proc/nowhere/sock"));
	memset(path, 'x', sizeof(path));
	memcpy(path, "--socket=/tmp/", 14);
	path[sizeof(path) - 1] = '\0';
	is_refused("socket", "longer than", ARGS(path));
}

static mode_t mode_of(const char *path)
{
	struct stat status;

	assert_int_equal(lstat(path, &status), 0);
	return status.st_mode;
}

static void a_folder_in_which_anybody_could_replace_the_socket_is_refused(void **state)
{
	char option[128], folder[96];
	struct daemon outer, inner;

	daemon_start(&outer, NULL);
	snprintf(folder, sizeof(folder), "%s/all", outer.folder);
	snprintf(option, sizeof(option), "--socket=%s/sock", folder);
	assert_int_equal(mkdir(folder, 0700), 0);
	assert_int_equal(chmod(folder, 0777), 0);
	is_refused("everybody can write", folder, ARGS(option));
	assert_int_equal(chmod(folder, 01777), 0);
	daemon_start(&inner, ARGS(option));
	daemon_stop(&inner);
	daemon_stop(&outer);
}

/* What lies in the socket's place is removed, never followed; and the mode is the socket's from its first moment. */
static void a_link_in_the_sockets_place_is_replaced(void **state)
{
	char option[128], link[96], target[96];
	struct daemon outer, inner;

	daemon_start(&outer, NULL);
	assert_int_equal(mode_of(outer.socket), S_IFSOCK | 0666);
	snprintf(link, sizeof(link), "%s/link", outer.folder);
	snprintf(target, sizeof(target), "%s/target", outer.folder);
	snprintf(option, sizeof(option), "--socket=%s", link);
	assert_int_equal(close(open(target, O_CREAT | O_WRONLY, 0600)), 0);
	assert_int_equal(symlink(target, link), 0);
	daemon_start(&inner, ARGS(option));
	assert_int_equal(mode_of(link), S_IFSOCK | 0666);
	assert_int_equal(mode_of(target), S_IFREG | 0600);
	daemon_stop(&inner);
	daemon_start(&inner, ARGS(option, "--user"));
	assert_int_equal(mode_of(link), S_IFSOCK | 0600);
	daemon_stop(&inner);
	daemon_stop(&outer);
}

static void a_file_in_the_sockets_place_stays(void **state)
{
	char option[128], file[96];
	struct daemon outer, inner;

	daemon_start(&outer, NULL);
	snprintf(file, sizeof(file), "%s/notes", outer.folder);
	snprintf(option, sizeof(option), "--socket=%s", file);
	assert_int_equal(close(open(file, O_CREAT | O_WRONLY, 0600)), 0);
	is_refused(file, "is no socket", ARGS(option));
	assert_int_equal(mode_of(file), S_IFREG | 0600);
	is_refused(outer.folder, "is no socket", ARGS("--socket", outer.folder));

	/* nor does a daemon's end take one that came to its place meanwhile */
	assert_int_equal(unlink(file), 0);
	daemon_start(&inner, ARGS(option));
	assert_int_equal(unlink(file), 0);
	assert_int_equal(close(open(file, O_CREAT | O_WRONLY, 0600)), 0);
	daemon_stop(&inner);
	assert_int_equal(mode_of(file), S_IFREG | 0600);
	daemon_stop(&outer);
}

/* -- The background --- */
#define STRAY_FD 77

/* Runs `tierd ARGS` with both outputs in one pipe, an open descriptor that nobody told it about, and the ready pipe. */
static void background_exec(const struct daemon *daemon, int out, int ready)
{
	char program[4096], option[32];

	snprintf(option, sizeof(option), "--ready-fd=%d", dup(ready));
	snprintf(program, sizeof(program), "%s/tierd", getenv("TIER_BUILD") ?: "build");
	dup2(out, STDOUT_FILENO);
	dup2(out, STDERR_FILENO);
	dup2(open("/dev/zero", O_RDONLY | O_CLOEXEC), STRAY_FD);
	execl(program, program, "--socket", daemon->socket, option, "--events=socket", NULL);
	_exit(127);
}

/* Everything up to the end of the file, which comes only when nobody has the other end open. */
static const char *read_to_the_end(int fd)
{
	static char text[4096];
	size_t n = 0;
	ssize_t r;

	alarm(TEST_DEADLINE_NS / 1000000000u);
	while ((r = read(fd, text + n, sizeof(text) - 1 - n)) > 0)
		n += r;
	alarm(0);
	text[n] = '\0';
	close(fd);
	return text;
}

static const char *link_of(pid_t pid, const char *what)
{
	static char target[4096];
	char path[64];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, what);
	n = readlink(path, target, sizeof(target) - 1);
	target[n > 0 ? n : 0] = '\0';
	return target;
}

static void expect_no_stray(pid_t pid, void *context)
{
	char what[16];

	snprintf(what, sizeof(what), "fd/%d", STRAY_FD);
	assert_string_equal(link_of(pid, what), "");
	assert_string_equal(link_of(pid, "fd/0"), "/dev/null");
	assert_string_equal(link_of(pid, "fd/1"), "/dev/null");
	++*(int *)context;
}

static void expect_in_the_background(const struct daemon *daemon)
{
	int n_workers = 0;

	assert_string_equal(link_of(daemon->pid, "cwd"), "/");
	for (int i = 0; i < 3; i++)
		assert_string_equal(link_of(daemon->pid, (char[]){ 'f', 'd', '/', '0' + i, '\0' }), "/dev/null");
	wait_until("the workers' parent", (each_descendant(daemon->pid, expect_no_stray, &n_workers), n_workers));
}

static void in_the_background_nothing_of_the_callers_stays_open(void **state)
{
	int out[2], ready[2];
	struct daemon outer, inner;
	struct wire_stats stats;
	struct tier_conn *conn;

	daemon_start(&outer, NULL);
	inner = outer;
	snprintf(inner.socket, sizeof(inner.socket), "%.80s/inner", outer.folder);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	pipe_open(out);
	pipe_open(ready);
	inner.pid = fork();
	if (!inner.pid)
		background_exec(&inner, out[1], ready[1]);
	close(out[1]);
	close(ready[1]);
	child_end(inner.pid);
	assert_string_equal(read_to_the_end(ready[0]), "ready\n");
	assert_non_null(strstr(read_to_the_end(out[0]), "serving"));
	conn = daemon_connect(&inner);
	assert_done(tier_stats(conn, &stats));
	inner.pid = stats.pid;
	tier_disconnect(conn);
	expect_in_the_background(&inner);
	kill(inner.pid, SIGTERM);
	child_end(inner.pid);
	assert_int_not_equal(access(inner.socket, F_OK), 0);
	daemon_stop(&outer);
}

/* -- Users --- */
static void the_kernels_probes_are_not_for_everybody(void **state)
{
	struct daemon daemon;
	const char *text;

	if (geteuid())
		skip();		/* cannot become somebody else */
	assert_in_range(daemon_try_as(&daemon, SOMEBODY, ARGS("--events=kernel")), 1, 2);
	text = daemon_log(&daemon);
	assert_non_null(strstr(text, "kernel"));
	assert_non_null(strstr(text, "ermi"));	/* not permitted, or: permission */
	daemon_stop(&daemon);
}

static void climb_as_somebody(void *context)
{
	const struct daemon *daemon = context;
	struct tier_conn_opts opts = { .size = sizeof(opts), .socket = daemon->socket };
	struct wire_stats stats;
	struct tier_method *method;
	struct tier_module *module;
	struct tier_conn *conn;
	const char *why;
	char path[128];

	snprintf(path, sizeof(path), "%s/fib.bpf.o", daemon->folder);
	child_assert(!setresuid(SOMEBODY, SOMEBODY, SOMEBODY));
	child_assert(!tier_connect(&conn, &opts));
	child_assert(!tier_conn_uses_kernel(conn, &why) && *why);
	child_assert(!tier_stats(conn, &stats) && !stats.kernel && stats.path[0]);
	child_assert(!tier_load(conn, path, NULL, 0, &module));
	child_assert(!tier_find(module, "fib", &method));
	climb(method, NULL);
}

static void a_users_own_daemon_serves_that_user_only(void **state)
{
	struct tier_conn_opts opts = { .size = sizeof(opts) };
	struct daemon daemon;
	struct tier_conn *conn;
	char command[8400];

	if (geteuid())
		skip();
	daemon_start_as(&daemon, SOMEBODY, ARGS("--user", "--events=auto", "--call-counting-delay=0"));
	snprintf(command, sizeof(command), "cp %s %s", workload_object("fib"), daemon.folder);
	assert_int_equal(system(command), 0);
	child_end(child_start(climb_as_somebody, &daemon));
	opts.socket = daemon.socket;
	assert_true(tier_connect(&conn, &opts) < 0);
	assert_non_null(strstr(tier_error_text(), "another user"));
	daemon_stop(&daemon);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(values_out_of_range_are_refused_with_the_range),
		cmocka_unit_test(values_of_another_kind_are_refused),
		cmocka_unit_test(what_is_no_option_is_refused),
		cmocka_unit_test(help_and_version_are_printed),
		cmocka_unit_test(knobs_are_in_force_and_units_are_understood),
		cmocka_unit_test(on_one_processor_the_delay_is_multiplied),
		cmocka_unit_test(a_second_daemon_on_a_socket_is_refused),
		cmocka_unit_test(a_dead_daemons_socket_is_replaced),
		cmocka_unit_test(a_daemon_that_is_about_to_end_is_waited_for),
		cmocka_unit_test(a_socket_that_cannot_be_is_refused),
		cmocka_unit_test(a_folder_in_which_anybody_could_replace_the_socket_is_refused),
		cmocka_unit_test(a_link_in_the_sockets_place_is_replaced),
		cmocka_unit_test(a_file_in_the_sockets_place_stays),
		cmocka_unit_test(in_the_background_nothing_of_the_callers_stays_open),
		cmocka_unit_test(the_kernels_probes_are_not_for_everybody),
		cmocka_unit_test(a_users_own_daemon_serves_that_user_only),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
