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
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "system/harness.h"

#define ARGS_MAX 48

static const char *build_folder(void)
{
	const char *folder = getenv("TIER_BUILD");

	return folder ? folder : "build";
}

bool events_by_kernel(void)
{
	const char *mode = getenv("TIER_EVENTS");

	return !mode || !strcmp(mode, "kernel");
}

bool test_is_long(void)
{
	return getenv("TIER_TEST_LONG") != NULL;
}

uint64_t test_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + ts.tv_nsec;
}

void wait_until_pause(const char *what, uint64_t deadline_ns)
{
	if (test_now_ns() > deadline_ns)
		fail_msg("waited in vain: %s", what);
	nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
}

/* -- The daemon --- */
static void daemon_make_folder(struct daemon *daemon)
{
	strcpy(daemon->folder, "/tmp/tierd-test-XXXXXX");
	if (!mkdtemp(daemon->folder) || chmod(daemon->folder, 0755))
		fail_msg("cannot make %s: %s", daemon->folder, strerror(errno));
	snprintf(daemon->socket, sizeof(daemon->socket), "%s/sock", daemon->folder);
	snprintf(daemon->log, sizeof(daemon->log), "%s/log", daemon->folder);
}

static void daemon_exec(const struct daemon *daemon, const char *const *args, int ready_fd)
{
	char program[4096], events[32], ready[32];
	const char *argv[ARGS_MAX] = { program, "--foreground", "--socket", daemon->socket, events, ready };
	int n = 6, log = open(daemon->log, O_WRONLY | O_CREAT | O_APPEND, 0644);

	snprintf(program, sizeof(program), "%s/tierd", build_folder());
	snprintf(events, sizeof(events), "--events=%s", events_by_kernel() ? "kernel" : "socket");
	snprintf(ready, sizeof(ready), "--ready-fd=%d", ready_fd);
	while (args && *args && n < ARGS_MAX - 1)
		argv[n++] = *args++;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	dup2(log, STDERR_FILENO);
	dup2(log, STDOUT_FILENO);
	execv(program, (char **)argv);
	dprintf(STDERR_FILENO, "cannot run %s: %s\n", program, strerror(errno));
	_exit(127);
}

/* Starts it; true when it said "ready", false when it ended instead. */
static bool daemon_launch(struct daemon *daemon, const char *const *args)
{
	char line[16];
	struct pollfd ready;
	int ends[2];

	daemon_make_folder(daemon);
	if (pipe(ends))
		fail_msg("pipe: %s", strerror(errno));
	daemon->pid = fork();
	if (daemon->pid < 0)
		fail_msg("fork: %s", strerror(errno));
	if (!daemon->pid) {
		close(ends[0]);
		daemon_exec(daemon, args, ends[1]);
	}
	close(ends[1]);
	ready = (struct pollfd){ .fd = ends[0], .events = POLLIN };
	if (poll(&ready, 1, TEST_DEADLINE_NS / 1000000) != 1)
		fail_msg("the daemon is not ready in time; see %s", daemon->log);
	bool is_ready = read(ends[0], line, sizeof(line)) > 0;
	close(ends[0]);
	return is_ready;
}

static void print_file(const char *path)
{
	char text[4096];
	int fd = open(path, O_RDONLY);
	ssize_t n;

	while (fd >= 0 && (n = read(fd, text, sizeof(text))) > 0)
		print_error("%.*s", (int)n, text);
	close(fd);
}

void daemon_start(struct daemon *daemon, const char *const *args)
{
	if (daemon_launch(daemon, args))
		return;
	print_file(daemon->log);
	fail_msg("the daemon ended instead of serving");
}

static int reap(pid_t pid, const char *what)
{
	uint64_t deadline = test_now_ns() + TEST_DEADLINE_NS;
	int status;

	while (waitpid(pid, &status, WNOHANG) == 0)
		wait_until_pause(what, deadline);
	return status;
}

static void remove_folder(const char *folder)
{
	pid_t pid = fork();

	if (!pid) {
		execlp("rm", "rm", "-rf", folder, NULL);
		_exit(127);
	}
	waitpid(pid, NULL, 0);
}

int daemon_try(struct daemon *daemon, const char *const *args)
{
	int status;

	if (daemon_launch(daemon, args)) {
		daemon_kill(daemon);
		fail_msg("the daemon serves, and was expected to refuse");
	}
	status = reap(daemon->pid, "the end of a daemon that refuses to serve");
	daemon->pid = 0;
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

void daemon_kill(struct daemon *daemon)
{
	kill(daemon->pid, SIGKILL);
	reap(daemon->pid, "the killed daemon's end");
	daemon->pid = 0;
}

void daemon_stop(struct daemon *daemon)
{
	int status = 0;

	if (daemon->pid) {
		kill(daemon->pid, SIGTERM);
		status = reap(daemon->pid, "the daemon's end after SIGTERM");
		daemon->pid = 0;
		if (status)
			print_file(daemon->log);
		else
			assert_int_not_equal(access(daemon->socket, F_OK), 0);
	}
	remove_folder(daemon->folder);
	assert_int_equal(status, 0);
}

struct tier_conn *daemon_connect(const struct daemon *daemon)
{
	struct tier_conn_opts opts = { .size = sizeof(opts), .socket = daemon->socket, .timeout_ns = TEST_DEADLINE_NS };
	struct tier_conn *conn;

	if (tier_connect(&conn, &opts))
		fail_msg("connect: %s", tier_error_text());
	return conn;
}

/* -- Modules --- */
const char *workload_object(const char *name)
{
	static char path[4096];

	snprintf(path, sizeof(path), "%s/workloads/%s.bpf.o", build_folder(), name);
	return path;
}

struct tier_method *workload_load(struct tier_conn *conn, const char *name, struct tier_module **ret_module)
{
	struct tier_module *module;
	struct tier_method *method;

	if (tier_load(conn, workload_object(name), NULL, 0, &module) || tier_find(module, name, &method))
		fail_msg("%s: %s", name, tier_error_text());
	if (ret_module)
		*ret_module = module;
	return method;
}

const char *bpf_compile(const char *folder, const char *name, const char *source, const char *flags)
{
	static char object[256];
	char path[256], command[1024];
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s.c", folder, name);
	snprintf(object, sizeof(object), "%s/%s.o", folder, name);
	file = fopen(path, "w");
	assert_non_null(file);
	fputs(source, file);
	fclose(file);
	snprintf(command, sizeof(command), "clang -target bpf -O2 -mcpu=v3 %s -c %s -o %s", flags, path, object);
	if (system(command))
		fail_msg("failed: %s", command);
	return object;
}

/* -- tierctl --- */
static void read_back(int fd, char *text)
{
	ssize_t n = text ? pread(fd, text, RUN_TEXT_MAX - 1, 0) : 0;

	if (text)
		text[n > 0 ? n : 0] = '\0';
	close(fd);
}

static int output_file(const struct daemon *daemon)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "%s/out-XXXXXX", daemon->folder);
	fd = mkstemp(path);
	if (fd < 0)
		fail_msg("%s: %s", path, strerror(errno));
	unlink(path);
	return fd;
}

int tierctl(const struct daemon *daemon, char *out, char *err, ...)
{
	char program[4096];
	const char *argv[ARGS_MAX] = { program };
	int n = 1, out_fd = output_file(daemon), err_fd = output_file(daemon), status;
	va_list args;
	pid_t pid;

	snprintf(program, sizeof(program), "%s/tierctl", build_folder());
	va_start(args, err);
	while (n < ARGS_MAX - 1 && (argv[n] = va_arg(args, const char *)))
		n++;
	va_end(args);
	pid = fork();
	if (!pid) {
		setenv("TIERD_SOCKET", daemon->socket, 1);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		dup2(out_fd, STDOUT_FILENO);
		dup2(err_fd, STDERR_FILENO);
		execv(program, (char **)argv);
		_exit(127);
	}
	status = reap(pid, "the end of tierctl");
	read_back(out_fd, out);
	read_back(err_fd, err);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
