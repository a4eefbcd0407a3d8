/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <tier/wire.h>
#include "system/harness.h"
#include "system/solo.h"
#include "util/base.h"

/* The log: what a facility says at a level that --log chose, where --log-to sends it, and that nothing of it can stop the
 * daemon. */

#define TEXT_MAX (1 << 20)

static char folder[64], option[128];

static int setup(void **state)
{
	snprintf(folder, sizeof(folder), "%.40s/tierd-log-XXXXXX", temporary_folder());
	assert_non_null(mkdtemp(folder));
	snprintf(option, sizeof(option), "--log-to=%s/tierd.log", folder);
	return 0;
}

static void each_file(void (*fn)(const char *path))
{
	DIR *dir = opendir(folder);
	struct dirent *entry;
	char path[512];

	while ((entry = readdir(dir)))
		if (*entry->d_name != '.') {
			snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name);
			fn(path);
		}
	closedir(dir);
}

static void remove_file(const char *path)
{
	unlink(path);
}

static int teardown(void **state)
{
	each_file(remove_file);
	return rmdir(folder);
}

static const char *text_of(const char *path)
{
	static char text[TEXT_MAX];
	size_t n = 0;
	ssize_t r;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		fail_msg("%s: %s", path, strerror(errno));
	while ((r = read(fd, text + n, sizeof(text) - 1 - n)) > 0)
		n += r;
	close(fd);
	text[n] = '\0';
	return text;
}

/* The log of a daemon with --log-to=FOLDER/tierd.log */
static const char *log_of(pid_t pid)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/tierd.%d.log", folder, (int)pid);
	return text_of(path);
}

static const char *log_at_the_end(struct daemon *daemon)
{
	pid_t pid = daemon->pid;

	daemon_stop(daemon);
	return log_of(pid);
}

/* Each of the words after the one before */
static void expect_in_order(const char *text, const char *const *words)
{
	const char *from = text;

	for (; *words; words++) {
		from = strstr(from, *words);
		if (!from)
			fail_msg("'%s' is not in the log, or not in its place:\n%s", *words, text);
		from += strlen(*words);
	}
}

/* -- What is logged --- */
/* A method whose address stands in a table: at its final tier it is reached by slots, too. */
static const char climber_source[] = SOLO_SOURCE "unsigned long (*const climber_table[1])(unsigned long) = { solo };";

static void the_transitions_of_a_climb_are_logged_in_order(void **state)
{
	struct daemon daemon;
	struct tier_method *method;
	struct tier_module *module;
	struct tier_conn *conn;

	daemon_start(&daemon, ARGS("--log=tiering:info10000", option));
	conn = daemon_connect(&daemon);
	assert_done(tier_load(conn, bpf_compile(folder, "climber", climber_source, ""), NULL, 0, &module));
	assert_done(tier_find(module, "solo", &method));
	climb(method, (const uint64_t[]){ SOLO_N, 0, 0, 0, 0 });
	tier_disconnect(conn);
	expect_in_order(log_at_the_end(&daemon),
			ARGS("info10000 tiering: InitialPublish-NonFinal climber:0: ",
			     "info10000 tiering: CallCountingStub climber:0: ",
			     "info10000 tiering: SameVersion-NonFinal climber:0: ",
			     "info10000 tiering: FinalTier-NonDefault climber:0: "));
}

static void each_facility_tells_what_it_does(void **state)
{
	struct daemon daemon;
	struct tier_conn *conn;
	const char *text;

	daemon_start(&daemon, ARGS("--log=all:info1000", "--log-level", "1", option));
	conn = daemon_connect(&daemon);
	climb(workload_load(conn, "fib", NULL), NULL);
	tier_disconnect(conn);
	text = log_at_the_end(&daemon);
	expect_in_order(text, ARGS("info1000 server: a connection", "info100 server: session 1 begins",
				   "info1000 loader: module 'fib'", "info100 loader: module 1 'fib' of uid",
				   "info100 server: session 1 ends"));
	expect_in_order(text, ARGS("info100 worker: zygote", "info100 worker: worker", "info1000 worker: job 1 of uid",
				   " begins in worker", "job 1 of uid", " ends: done"));
	expect_in_order(text, ARGS("info1000 journal: event 1: ", "info1000 journal: event 2: "));
	if (events_by_kernel())
		expect_in_order(text, ARGS("trace: attached to the site threshold", "attached to the site publish"));
	assert_null(strstr(text, "serving"));	/* of no facility: --log-level */
	assert_null(strstr(text, "info10000"));
}

static void what_is_not_chosen_is_not_logged(void **state)
{
	struct daemon daemon;
	struct tier_conn *conn;
	const char *text;

	daemon_start(&daemon, ARGS("--log=tiering:error", option));
	conn = daemon_connect(&daemon);
	climb(workload_load(conn, "fib", NULL), NULL);
	tier_disconnect(conn);
	text = log_at_the_end(&daemon);
	assert_null(strstr(text, "tiering:"));
	assert_null(strstr(text, "loader:"));
	assert_non_null(strstr(text, "info10 serving "));
}

/* -- Where it goes --- */
static void two_daemons_never_share_a_file(void **state)
{
	struct daemon first, second;

	daemon_start(&first, ARGS(option));
	daemon_start(&second, ARGS(option));
	assert_non_null(strstr(log_of(first.pid), first.socket));
	assert_null(strstr(log_of(first.pid), second.socket));
	assert_non_null(strstr(log_of(second.pid), second.socket));
	daemon_stop(&first);
	daemon_stop(&second);
}

static void exec_in_folder(void *context)
{
	const struct daemon *daemon = context;
	char *program = realpath(getenv("TIER_BUILD") ?: "build", NULL);
	char path[4200];

	snprintf(path, sizeof(path), "%s/tierd", program);
	child_assert(!chdir(folder));
	execl(path, path, "--socket", daemon->socket, "--events=socket", "--log-to=tierd.log", NULL);
	_exit(127);
}

/* The pid is the serving process's, and a path is meant from where the command was given. */
static void in_the_background_the_file_is_the_daemons(void **state)
{
	struct daemon outer, inner;
	struct wire_stats stats;
	struct tier_conn *conn;

	daemon_start(&outer, NULL);
	inner = outer;
	snprintf(inner.socket, sizeof(inner.socket), "%.80s/inner", outer.folder);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	child_end(child_start(exec_in_folder, &inner));
	conn = daemon_connect(&inner);
	assert_done(tier_stats(conn, &stats));
	tier_disconnect(conn);
	assert_non_null(strstr(log_of(stats.pid), inner.socket));
	kill(stats.pid, SIGTERM);
	child_end(stats.pid);
	daemon_stop(&outer);
}

static void a_log_that_cannot_grow_stops_nobody(void **state)
{
	const struct rlimit nothing = { 0, 0 };
	struct daemon daemon;
	struct tier_conn *conn;
	struct wire_stats stats;
	size_t n;

	daemon_start(&daemon, ARGS("--log=all:everything", option));
	assert_int_equal(prlimit(daemon.pid, RLIMIT_FSIZE, &nothing, NULL), 0);
	n = strlen(log_of(daemon.pid));
	assert_true(n > 0);
	for (int i = 0; i < 10; i++) {
		conn = daemon_connect(&daemon);
		assert_done(tier_stats(conn, &stats));
		tier_disconnect(conn);
	}
	assert_int_equal(strlen(log_of(daemon.pid)), n);
	daemon_stop(&daemon);
}

/* -- Refusals --- */
static void is_refused(const char *words, const char *const *args)
{
	struct daemon daemon;
	int status = daemon_try(&daemon, args);

	if (status != 2 || !strstr(text_of(daemon.log), words))
		fail_msg("%s: status %d, without '%s': %s", *args, status, words, text_of(daemon.log));
	daemon_stop(&daemon);
}

static void what_cannot_be_is_refused_with_what_can(void **state)
{
	is_refused("known are tiering, loader, worker, server, trace, journal, and all", ARGS("--log=jit:info10"));
	is_refused("known are fatal, error, warning, info10, info100, info1000, info10000, ", ARGS("--log=tiering:verbose"));
	is_refused("1 to 10", ARGS("--log=tiering:11"));
	is_refused("FACILITY:LEVEL", ARGS("--log=tiering"));
	is_refused("--log-to: '' is empty", ARGS("--log-to="));
	is_refused("/: Is a directory", ARGS("--log-to=/tmp/"));
	is_refused("cannot open /nowhere/tierd.", ARGS("--log-to=/nowhere/tierd.log"));
}

/* Who waits for the daemon reads why it does not come, wherever the log goes. */
static void a_failure_to_start_is_told_to_who_waits(void **state)
{
	is_refused("cannot make the folder /proc/nowhere", ARGS("--socket=/proc/nowhere/sock", option));
}

/* -- The system's journal --- */
/* A socket in its place, in a /run that only this process and its children see from here on. -1: not allowed. */
static int journal_listen(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = "/run/systemd/journal/socket" };
	int fd;

	if (unshare(CLONE_NEWNS) || mount("", "/", NULL, MS_REC | MS_PRIVATE, NULL) || mount("tmpfs", "/run", "tmpfs", 0, NULL))
		return -1;
	assert_int_equal(mkdir("/run/systemd", 0755), 0);
	assert_int_equal(mkdir("/run/systemd/journal", 0755), 0);
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	return fd;
}

/* Reads entries until one has all the words. */
static void expect_entry(int fd, const char *const *words)
{
	const struct timeval patience = { .tv_sec = TEST_DEADLINE_NS / 1000000000u };
	char entry[8192];
	ssize_t n;

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	while ((n = recv(fd, entry, sizeof(entry) - 1, 0)) >= 0) {
		const char *const *word = words;

		entry[n] = '\0';
		while (*word && strstr(entry, *word))
			word++;
		if (!*word)
			return;
	}
	fail_msg("no entry with '%s'", *words);
}

/* The last case: there is no way back to the real /run. */
static void the_systems_journal_gets_fields(void **state)
{
	struct daemon daemon;
	struct tier_conn *conn;
	bool is_built;
	int fd;

	daemon_try(&daemon, ARGS("--log-to=journal", "--socket=/proc/nowhere/sock"));
	is_built = !strstr(text_of(daemon.log), "built without libsystemd; install libsystemd-dev");
	daemon_stop(&daemon);
	fd = is_built ? journal_listen() : -1;
	if (fd < 0)
		skip();
	daemon_start(&daemon, ARGS("--log=server:info100", "--log-to=journal"));
	conn = daemon_connect(&daemon);
	expect_entry(fd, ARGS("MESSAGE=serving ", "PRIORITY=6\n", "TIERD_LEVEL=info10\n", "SYSLOG_IDENTIFIER=tierd\n"));
	expect_entry(fd, ARGS("MESSAGE=server: session 1 begins", "TIERD_FACILITY=server\n", "TIERD_LEVEL=info100\n", "PRIORITY=7\n"));
	assert_null(strstr(text_of(daemon.log), "serving"));
	tier_disconnect(conn);
	daemon_stop(&daemon);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(the_transitions_of_a_climb_are_logged_in_order, setup, teardown),
		cmocka_unit_test_setup_teardown(each_facility_tells_what_it_does, setup, teardown),
		cmocka_unit_test_setup_teardown(what_is_not_chosen_is_not_logged, setup, teardown),
		cmocka_unit_test_setup_teardown(two_daemons_never_share_a_file, setup, teardown),
		cmocka_unit_test_setup_teardown(in_the_background_the_file_is_the_daemons, setup, teardown),
		cmocka_unit_test_setup_teardown(a_log_that_cannot_grow_stops_nobody, setup, teardown),
		cmocka_unit_test(what_cannot_be_is_refused_with_what_can),
		cmocka_unit_test_setup_teardown(a_failure_to_start_is_told_to_who_waits, setup, teardown),
		cmocka_unit_test(the_systems_journal_gets_fields),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
