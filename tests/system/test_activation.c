/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <tier/wire.h>
#include "system/harness.h"
#include "system/manager.h"
#include "util/base.h"

/* tierd as a service: systemd-socket-activate(1) waits for the first client and starts it, this test is the manager
 * that it tells of its life and gives its descriptors.
 *
 * systemd-socket-activate cannot pass what cannot be waited for, so the stored ones go past it: at numbers from
 * STORED_FIRST on, and this very program, started in its place with "pass", puts them behind the listener as systemd
 * does. */

#define STORED_FIRST 300
#define WATCHDOG_US 300000
#define FILES_OWN 64 /* that a service may have open besides what is passed, unless it raises its limit */

static struct manager manager;
static struct daemon service; /* its folder, socket and log; pid: systemd-socket-activate, then tierd */

/* -- Between systemd-socket-activate and tierd --- */
static int pass_stored(char **argv)
{
	const char *names = getenv("STORED_NAMES");
	const int n = atoi(getenv("STORED"));
	struct rlimit files;
	char text[32];

	for (int i = 0; i < n; i++)
		if (dup2(STORED_FIRST + i, 4 + i) < 0 || close(STORED_FIRST + i))
			return 127;
	snprintf(text, sizeof(text), "%d", n + 1);
	setenv("LISTEN_FDS", text, 1);
	setenv("LISTEN_FDNAMES", names, 1);
	unsetenv("STORED");
	unsetenv("STORED_NAMES");
	if (getrlimit(RLIMIT_NOFILE, &files) < 0)
		return 127;
	files.rlim_cur = n + FILES_OWN;
	if (setrlimit(RLIMIT_NOFILE, &files) < 0)
		return 127;
	execv(argv[0], argv);
	return 127;
}

/* -- The manager listens all the time: the queue is short, and a daemon waits for room in it --- */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* for the manager */
static pthread_t listening;
static atomic_bool is_over;

static void read_messages(void)
{
	pthread_mutex_lock(&lock);
	manager_read(&manager);
	pthread_mutex_unlock(&lock);
}

static void *listen_on(void *context)
{
	struct pollfd wait = { .fd = manager.notify_fd, .events = POLLIN };

	while (!atomic_load(&is_over)) {
		poll(&wait, 1, 20);
		read_messages();
	}
	return NULL;
}

/* -- The service --- */
static void set_variables(char names[static 65536])
{
	char text[32];

	strcpy(names, "socket");
	for (int i = 0; i < manager.n_fds; i++) /* the newest first */
		strcat(strcat(names, ":"), manager.fds[manager.n_fds - 1 - i].name);
	setenv("STORED_NAMES", names, 1);
	snprintf(text, sizeof(text), "%d", manager.n_fds);
	setenv("STORED", text, 1);
	snprintf(text, sizeof(text), "%d", (int)getpid());
	setenv("LISTEN_PID", text, 1);
	setenv("WATCHDOG_PID", text, 1);
	setenv("LISTEN_FDS", "1", 1);
	snprintf(text, sizeof(text), "%d", WATCHDOG_US);
	setenv("WATCHDOG_USEC", text, 1);
	setenv("NOTIFY_SOCKET", manager.notify_path, 1);
}

static void exec_service(void)
{
	static char names[65536];
	char self[4096], program[4200], events[32];
	const int log = open(service.log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	self[n < 0 ? 0 : n] = '\0';
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	snprintf(program, sizeof(program), "%s/tierd", build_folder());
	snprintf(events, sizeof(events), "--events=%s", events_by_kernel() ? "kernel" : "socket");
	dup2(log, STDERR_FILENO);
	dup2(manager.listener, 3);
	for (int i = 0; i < manager.n_fds; i++)
		if (dup2(manager.fds[manager.n_fds - 1 - i].fd, STORED_FIRST + i) < 0)
			_exit(127);
	set_variables(names);
	execlp("systemd-socket-activate", "systemd-socket-activate", "--fdname=socket", "-E", "NOTIFY_SOCKET", "-E",
	       "WATCHDOG_USEC", "-E", "WATCHDOG_PID", "-E", "STORED", "-E", "STORED_NAMES", self, "pass", program, "--foreground",
	       events, "--code-cache=off", "--journal=memory", NULL);
	_exit(127);
}

/* Up to where systemd-socket-activate waits for somebody */
static void service_start(void)
{
	pid_t pid;

	pthread_mutex_lock(&lock);
	pid = fork();
	if (!pid)
		exec_service();
	service.pid = manager.main_pid = pid;
	manager.n_ready = manager.n_stopping = manager.n_watchdogs = 0;
	pthread_mutex_unlock(&lock);
	assert_true(pid >= 0);
}

static bool is_ready(void)
{
	read_messages();
	return manager.n_ready;
}

static struct tier_conn *service_connect(void)
{
	struct tier_conn *conn = daemon_connect(&service);

	wait_until("the service to be ready", is_ready());
	return conn;
}

static int service_end(int signal)
{
	int status;

	assert_int_equal(kill(service.pid, signal), 0);
	status = child_reap(service.pid);
	service.pid = 0;
	read_messages();
	return status;
}

static bool is_installed(void) { return !system("command -v systemd-socket-activate >/dev/null"); }

static int setup(void **state)
{
	snprintf(service.folder, sizeof(service.folder), "%.32s/tierd-test-XXXXXX", temporary_folder());
	assert_non_null(mkdtemp(service.folder));
	snprintf(service.socket, sizeof(service.socket), "%s/sock", service.folder);
	snprintf(service.log, sizeof(service.log), "%s/log", service.folder);
	assert_true(manager_open(&manager, service.folder, service.socket));
	/* room for the numbers from 3 on */
	manager.listener = fcntl(manager.listener, F_DUPFD_CLOEXEC, 2 * STORED_FIRST);
	atomic_store(&is_over, false);
	assert_int_equal(pthread_create(&listening, NULL, listen_on, NULL), 0);
	return 0;
}

static int teardown(void **state)
{
	if (service.pid)
		service_end(SIGKILL);
	atomic_store(&is_over, true);
	pthread_join(listening, NULL);
	manager_close(&manager);
	daemon_stop(&service); /* only its folder */
	return 0;
}

/* Stored descriptors come with low numbers, where a child will have those that it passes. */
static void store_moves_up(void)
{
	pthread_mutex_lock(&lock);
	for (int i = 0; i < manager.n_fds; i++)
		if (manager.fds[i].fd < 2 * STORED_FIRST) {
			int fd = fcntl(manager.fds[i].fd, F_DUPFD_CLOEXEC, 2 * STORED_FIRST);

			assert_true(fd >= 0);
			close(manager.fds[i].fd);
			manager.fds[i].fd = fd;
		}
	pthread_mutex_unlock(&lock);
}

static bool stands(void)
{
	pid_t parent, session;
	char state;

	return process_stat(service.pid, &parent, &session, &state) && state == 'T';
}

static pid_t serving(struct tier_conn *conn)
{
	struct wire_stats stats;

	assert_done(tier_stats(conn, &stats));
	return stats.pid;
}

/* -- Cases --- */
static void the_first_client_starts_the_service(void **state)
{
	struct tier_conn *conn;

	if (!is_installed())
		skip();
	service_start();
	conn = service_connect();
	assert_int_equal(serving(conn), service.pid);
	assert_int_equal(manager.n_ready, 1);
	assert_non_null(strstr(manager.status, service.socket));
	tier_disconnect(conn);
}

static void the_watchdog_is_fed_at_twice_its_pace(void **state)
{
	struct tier_conn *conn;
	uint64_t before;

	if (!is_installed())
		skip();
	service_start();
	conn = service_connect();
	before = test_now_ns();
	wait_until("the watchdog to be fed", (read_messages(), manager.n_watchdogs >= 6));
	assert_true(test_now_ns() - before > 5 * WATCHDOG_US / 2 * 1000ull - 50000000);
	tier_disconnect(conn);
	/* a loop that stands still does not feed it */
	assert_int_equal(kill(service.pid, SIGSTOP), 0);
	wait_until("the service to stand still", stands());
	read_messages();
	unsigned int n = manager.n_watchdogs;
	usleep(WATCHDOG_US);
	read_messages();
	assert_int_equal(manager.n_watchdogs, n);
	assert_int_equal(kill(service.pid, SIGCONT), 0);
	wait_until("the watchdog to be fed again", (read_messages(), manager.n_watchdogs > n));
}

/* The manager decides whether a stop is a restart. */
static void a_stopped_service_leaves_all_to_the_manager(void **state)
{
	struct stat before, after;
	struct tier_conn *conn;

	if (!is_installed())
		skip();
	assert_int_equal(stat(service.socket, &before), 0);
	service_start();
	conn = service_connect();
	tier_disconnect(conn);
	assert_int_equal(service_end(SIGTERM), 0);
	assert_int_equal(manager.n_stopping, 1);
	assert_int_equal(manager_find(&manager, "socket"), -1);
	assert_int_equal(manager_find(&manager, "lock"), -1);
	assert_int_equal(stat(service.socket, &after), 0);
	assert_int_equal(before.st_ino, after.st_ino);
	store_moves_up();
	service_start();
	conn = service_connect();
	assert_int_equal(serving(conn), service.pid);
	tier_disconnect(conn);
}

static bool names_are_single(void)
{
	bool are = true;

	pthread_mutex_lock(&lock);
	manager_read(&manager);
	for (int i = 0; i < manager.n_fds; i++)
		for (int j = 0; j < i; j++)
			are = are && strcmp(manager.fds[i].name, manager.fds[j].name);
	pthread_mutex_unlock(&lock);
	return are;
}

static void what_is_stored_is_passed_to_each_successor(void **state)
{
	const int n = test_is_long() ? 20 : 3;
	struct tier_module *module;
	struct tier_conn *conn;

	if (!is_installed())
		skip();
	service_start();
	conn = service_connect();
	assert_done(tier_load(conn, workload_object("fib"), NULL, 0, &module));
	tier_disconnect(conn);
	for (int i = 0; i < n; i++) {
		assert_int_equal(WTERMSIG(service_end(SIGKILL)), SIGKILL);
		store_moves_up();
		service_start();
		conn = service_connect();
		assert_int_equal(serving(conn), service.pid);
		tier_disconnect(conn);
		assert_true(names_are_single());
	}
}

/* Each module takes four descriptors more than it is passed with. */
static void a_successor_with_a_low_limit_of_files_loses_nothing(void **state)
{
	const unsigned int n = FILES_OWN / 2;
	struct tier_module *module;
	struct wire_stats stats;
	struct tier_conn *conn;
	char name[16];

	if (!is_installed())
		skip();
	service_start();
	conn = service_connect();
	for (unsigned int i = 0; i < n; i++) {
		snprintf(name, sizeof(name), "m%u", i);
		assert_done(tier_load(conn, workload_object("fib"), name, 0, &module));
	}
	tier_disconnect(conn);
	assert_int_equal(WTERMSIG(service_end(SIGKILL)), SIGKILL);
	store_moves_up();
	service_start();
	conn = service_connect();
	assert_done(tier_stats(conn, &stats));
	assert_int_equal(stats.n_modules, n);
	tier_disconnect(conn);
}

static void leftovers_are_removed_from_the_store(void **state)
{
	static const char *const names[] = { "C99", "B1.2", "nonsense", "link.nowhere" };
	struct tier_conn *conn;

	if (!is_installed())
		skip();
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) { /* before there is a service */
		manager.fds[i].fd = memfd_create(names[i], MFD_CLOEXEC);
		strcpy(manager.fds[i].name, names[i]);
		manager.n_fds++;
	}
	store_moves_up();
	service_start();
	conn = service_connect();
	tier_disconnect(conn);
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		wait_until("a leftover to be removed", (read_messages(), manager_find(&manager, names[i]) < 0));
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(the_first_client_starts_the_service, setup, teardown),
		cmocka_unit_test_setup_teardown(the_watchdog_is_fed_at_twice_its_pace, setup, teardown),
		cmocka_unit_test_setup_teardown(a_stopped_service_leaves_all_to_the_manager, setup, teardown),
		cmocka_unit_test_setup_teardown(what_is_stored_is_passed_to_each_successor, setup, teardown),
		cmocka_unit_test_setup_teardown(a_successor_with_a_low_limit_of_files_loses_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(leftovers_are_removed_from_the_store, setup, teardown),
	};

	if (argc > 2 && !strcmp(argv[1], "pass"))
		return pass_stored(argv + 2);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
