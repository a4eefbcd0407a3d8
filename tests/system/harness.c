/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
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
#include "system/kept.h"
#include "system/manager.h"

#define ARGS_MAX 48
#define EVENTS_MAX 4096

const char *build_folder(void)
{
	const char *folder = getenv("TIER_BUILD");

	return folder ? folder : "build";
}

bool events_by_kernel(void)
{
	const char *mode = getenv("TIER_EVENTS");

	return !mode || !strcmp(mode, "kernel");
}

bool store_is_keepers(void)
{
	const char *mode = getenv("TIER_STORE");

	return !mode || !strcmp(mode, "keeper");
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

const char *temporary_folder(void)
{
	const char *folder = getenv("TMPDIR");

	/* a socket's path has 107 bytes, and names are added to this one twice */
	return folder && *folder == '/' && strlen(folder) <= 32 ? folder : "/tmp";
}

/* -- The daemon --- */
static void daemon_make_folder(struct daemon *daemon)
{
	snprintf(daemon->folder, sizeof(daemon->folder), "%.32s/tierd-test-XXXXXX", temporary_folder());
	if (!mkdtemp(daemon->folder) || chmod(daemon->folder, 0755))
		fail_msg("cannot make %s: %s", daemon->folder, strerror(errno));
	snprintf(daemon->socket, sizeof(daemon->socket), "%s/sock", daemon->folder);
	snprintf(daemon->log, sizeof(daemon->log), "%s/log", daemon->folder);
}

/* Another user may not reach the build folder, so its daemon runs from a copy. */
static void daemon_copy_programs(const struct daemon *daemon, uid_t uid)
{
	char command[8400];

	snprintf(command, sizeof(command), "cp %s/tierd %s/tierd-worker %s", build_folder(), build_folder(), daemon->folder);
	if (system(command) || chown(daemon->folder, uid, uid))
		fail_msg("failed: %s", command);
}

static void become(uid_t uid)
{
	if (setgroups(0, NULL) || setresgid(uid, uid, uid) || setresuid(uid, uid, uid))
		_exit(127);
}

static void daemon_exec(const struct daemon *daemon, const char *const *args, uid_t uid, int ready_fd)
{
	char program[4096], events[32], ready[32];
	const char *argv[ARGS_MAX] = { program, "--foreground", "--socket", daemon->socket, events, ready, "--code-cache=off",
				       "--tiered-pgo=off" };
	int n = 8, log = open(daemon->log, O_WRONLY | O_CREAT | O_APPEND, 0644);

	snprintf(program, sizeof(program), "%s/tierd", uid || daemon->is_kept ? daemon->folder : build_folder());
	snprintf(events, sizeof(events), "--events=%s", events_by_kernel() ? "kernel" : "socket");
	snprintf(ready, sizeof(ready), "--ready-fd=%d", ready_fd);
	while (args && *args && n < ARGS_MAX - 1)
		argv[n++] = *args++;
	if (uid)
		become(uid);
	dup2(log, STDERR_FILENO);
	dup2(log, STDOUT_FILENO);
	close(log);
	if (!daemon->is_kept)
		prctl(PR_SET_PDEATHSIG, SIGKILL);
	else
		setsid();	/* by which the guard knows what belongs together */
	if (daemon->is_kept && store_is_keepers()) {
		argv[n] = "--keep";
	} else if (daemon->is_kept) {
		argv[5] = "--foreground";	/* not ready-fd: the manager is told, and tells us */
		manager_run(daemon->folder, daemon->socket, argv, ready_fd);
	}
	execv(program, (char **)argv);
	dprintf(STDERR_FILENO, "cannot run %s: %s\n", program, strerror(errno));
	_exit(127);
}

/* Starts it; true when it said "ready", false when it ended instead. */
static bool daemon_launch(struct daemon *daemon, const char *const *args, uid_t uid)
{
	char line[16];
	struct pollfd ready;
	int ends[2];

	daemon_make_folder(daemon);
	if (uid)
		daemon_copy_programs(daemon, uid);
	if (daemon->is_kept)
		daemon_replace_program(daemon, NULL);
	if (pipe(ends))
		fail_msg("pipe: %s", strerror(errno));
	daemon->pid = fork();
	if (daemon->pid < 0)
		fail_msg("fork: %s", strerror(errno));
	if (!daemon->pid) {
		close(ends[0]);
		daemon_exec(daemon, args, uid, ends[1]);
	}
	close(ends[1]);
	if (daemon->is_kept)
		kept_guard(daemon);
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

static void daemon_serve(struct daemon *daemon, uid_t uid, const char *const *args)
{
	if (daemon_launch(daemon, args, uid))
		return;
	print_file(daemon->log);
	fail_msg("the daemon ended instead of serving");
}

void daemon_start_as(struct daemon *daemon, uid_t uid, const char *const *args)
{
	*daemon = (struct daemon){ .guard_fd = -1 };
	daemon_serve(daemon, uid, args);
}

void daemon_start(struct daemon *daemon, const char *const *args)
{
	daemon_start_as(daemon, 0, args);
}

void daemon_start_kept(struct daemon *daemon, const char *const *args)
{
	*daemon = (struct daemon){ .is_kept = true, .guard_fd = -1 };
	daemon_serve(daemon, 0, args);
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

int daemon_try_as(struct daemon *daemon, uid_t uid, const char *const *args)
{
	int status;

	*daemon = (struct daemon){ .guard_fd = -1 };
	if (daemon_launch(daemon, args, uid)) {
		daemon_kill(daemon);
		fail_msg("the daemon serves, and was expected to refuse");
	}
	status = reap(daemon->pid, "the end of a daemon that refuses to serve");
	daemon->pid = 0;
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

int daemon_try(struct daemon *daemon, const char *const *args)
{
	return daemon_try_as(daemon, 0, args);
}

void daemon_kill(struct daemon *daemon)
{
	kill(daemon->pid, SIGKILL);
	reap(daemon->pid, "the killed daemon's end");
	daemon->pid = 0;
	if (daemon->is_kept)
		kept_end(daemon);
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
	if (daemon->is_kept)
		kept_end(daemon);
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
	struct tier_method *method = NULL;

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

/* -- Climbing --- */
uint64_t climb(struct tier_method *method, const uint64_t *args)
{
	static const uint64_t zeros[5];
	const uint64_t *a = args ? args : zeros;
	struct tier_climb steps = TIER_CLIMB(method);
	uint64_t n_calls = 0;
	uint32_t n;
	int r;

	while ((r = tier_climb_next(&steps, TEST_DEADLINE_NS, NULL, &n)) > 0)
		for (n_calls += n; n; n--)
			tier_entry(method)(a[0], a[1], a[2], a[3], a[4]);
	if (r)
		fail_msg("%s: the climb ends with %d: %s", tier_method_name(method), r, tier_error_text());
	if (steps.answer.reason != TIER_REASON_PROMOTED)
		fail_msg("%s: final, for: %s", tier_method_name(method), tier_reason_name(steps.answer.reason));
	return n_calls;
}

uint32_t method_index(struct tier_module *module, const struct tier_method *method)
{
	struct tier_method *other;

	for (uint32_t i = 0; i < tier_module_n_methods(module); i++) {
		assert_done(tier_method_at(module, i, &other));
		if (tier_entry(other) == tier_entry(method))
			return i;
	}
	fail_msg("%s is no method of %s", tier_method_name(method), tier_module_name(module));
	return UINT32_MAX;
}

/* -- Events --- */
size_t events_read(struct tier_conn *conn, uint64_t module, uint32_t index, struct tier_event *ret, size_t n_max)
{
	struct tier_events *events;
	struct tier_event event;
	uint64_t first, last, expected = 1;
	size_t n = 0;
	int r;

	assert_done(tier_events_open(conn, 1, &events));
	while (!(r = tier_events_next(events, 0, &event, &first, &last))) {
		assert_int_equal(event.sequence, expected++);
		if ((module && event.module != module) || (index != UINT32_MAX && event.method != index))
			continue;
		if (n < n_max)
			ret[n] = event;
		n++;
	}
	assert_int_equal(r, -ETIMEDOUT);
	tier_events_close(events);
	return n;
}

unsigned int events_count(struct tier_conn *conn, struct tier_module *module, const struct tier_method *method,
			  enum tier_event_kind kind)
{
	static struct tier_event events[EVENTS_MAX];
	size_t n = events_read(conn, tier_module_id(module), method_index(module, method), events, EVENTS_MAX);
	unsigned int n_kind = 0;

	assert_true(n <= EVENTS_MAX);
	for (size_t i = 0; i < n; i++)
		n_kind += events[i].kind == kind;
	return n_kind;
}

enum tier_source events_source(void)
{
	return events_by_kernel() ? TIER_SOURCE_KERNEL : TIER_SOURCE_SOCKET;
}

/* -- Children --- */
void pipe_open(int ends[2])
{
	if (pipe2(ends, O_CLOEXEC))
		fail_msg("pipe: %s", strerror(errno));
}

_Noreturn void child_fail(const char *file, int line, const char *condition)
{
	dprintf(STDERR_FILENO, "%s:%d: in child %d: %s; libtier says: %s\n", file, line, (int)getpid(), condition,
		tier_error_text());
	_exit(1);
}

void child_begin(void)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	setenv("CMOCKA_TEST_ABORT", "1", 1);
}

pid_t child_start(void (*fn)(void *context), void *context)
{
	pid_t pid = fork();

	if (pid < 0)
		fail_msg("fork: %s", strerror(errno));
	if (pid)
		return pid;
	child_begin();
	fn(context);
	_exit(0);
}

int child_reap(pid_t pid)
{
	return reap(pid, "a child's end");
}

void child_end(pid_t pid)
{
	int status = child_reap(pid);

	if (status)
		fail_msg("child %d ended with %s %d", (int)pid, WIFSIGNALED(status) ? "signal" : "status",
			 WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
}

bool process_stat(pid_t pid, pid_t *ret_parent, pid_t *ret_session, char *ret_state)
{
	char path[64], text[512], *end;
	int fd, parent, group, session;
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (n <= 0)
		return false;
	text[n] = '\0';
	end = strrchr(text, ')');	/* the name may hold anything */
	if (!end || sscanf(end + 1, " %c %d %d %d", ret_state, &parent, &group, &session) != 4)
		return false;
	*ret_parent = parent;
	*ret_session = session;
	return true;
}

void each_descendant(pid_t pid, void (*fn)(pid_t pid, void *context), void *context)
{
	struct dirent *entry;
	DIR *folder = opendir("/proc");
	pid_t parent, session;
	char state;

	assert_non_null(folder);
	while ((entry = readdir(folder))) {
		pid_t child = atoi(entry->d_name);

		if (child > 0 && process_stat(child, &parent, &session, &state) && parent == pid && state != 'Z') {
			fn(child, context);
			each_descendant(child, fn, context);
		}
	}
	closedir(folder);
}

static bool process_stands(pid_t pid)
{
	pid_t parent, session;
	char state;

	return !process_stat(pid, &parent, &session, &state) || state == 'T' || state == 'Z';
}

static void worker_stop(pid_t pid, void *context)
{
	kill(pid, SIGSTOP);
	wait_until("a worker to stand still", process_stands(pid));
}

static void worker_continue(pid_t pid, void *context)
{
	kill(pid, SIGCONT);
}

void workers_stop(const struct daemon *daemon)
{
	each_descendant(daemon->is_kept ? daemon_main_pid(daemon) : daemon->pid, worker_stop, NULL);
}

void workers_continue(const struct daemon *daemon)
{
	each_descendant(daemon->is_kept ? daemon_main_pid(daemon) : daemon->pid, worker_continue, NULL);
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

#define TIERCTL_ARGS(argv, last)                                                                                       \
	do {                                                                                                           \
		va_list args_;                                                                                         \
		int n_ = 1;                                                                                            \
		va_start(args_, last);                                                                                 \
		while (n_ < ARGS_MAX - 1 && ((argv)[n_] = va_arg(args_, const char *)))                                \
			n_++;                                                                                          \
		va_end(args_);                                                                                         \
	} while (0)

static pid_t tierctl_launch(const struct daemon *daemon, const char **argv, int out_fd, int err_fd)
{
	char program[4096];
	pid_t pid = fork();

	if (pid < 0)
		fail_msg("fork: %s", strerror(errno));
	if (pid)
		return pid;
	snprintf(program, sizeof(program), "%s/tierctl", build_folder());
	argv[0] = program;
	setenv("TIERD_SOCKET", daemon->socket, 1);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	dup2(out_fd, STDOUT_FILENO);
	dup2(err_fd, STDERR_FILENO);
	execv(program, (char **)argv);
	_exit(127);
}

int tierctl(const struct daemon *daemon, char *out, char *err, ...)
{
	const char *argv[ARGS_MAX] = { NULL };
	int out_fd = output_file(daemon), err_fd = output_file(daemon), status;

	TIERCTL_ARGS(argv, err);
	status = reap(tierctl_launch(daemon, argv, out_fd, err_fd), "the end of tierctl");
	read_back(out_fd, out);
	read_back(err_fd, err);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

pid_t tierctl_start(const struct daemon *daemon, int *ret_out, ...)
{
	const char *argv[ARGS_MAX] = { NULL };
	int ends[2];
	pid_t pid;

	TIERCTL_ARGS(argv, ret_out);
	pipe_open(ends);
	pid = tierctl_launch(daemon, argv, ends[1], STDERR_FILENO);
	close(ends[1]);
	*ret_out = ends[0];
	return pid;
}
