/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <linux/kcmp.h>
#include <unistd.h>
#include "system/manager.h"

#define FIRST 3
#define UNREADY_MAX 10

static int bind_at(const char *path, int type, mode_t mask)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	const mode_t old = umask(mask);
	int r;

	strncpy(address.sun_path, path, sizeof(address.sun_path) - 1);
	r = fd < 0 ? -1 : bind(fd, (struct sockaddr *)&address, sizeof(address));
	umask(old);
	return r ? -1 : fd;
}

bool manager_open(struct manager *manager, const char *folder, const char *socket)
{
	const int on = 1;

	*manager = (struct manager){ .notify_fd = -1, .listener = -1 };
	snprintf(manager->notify_path, sizeof(manager->notify_path), "%s/notify", folder);
	manager->notify_fd = bind_at(manager->notify_path, SOCK_DGRAM, 0);
	if (manager->notify_fd < 0 || setsockopt(manager->notify_fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)))
		return false;
	if (!socket)
		return true;
	manager->listener = bind_at(socket, SOCK_SEQPACKET, 0111);
	return manager->listener >= 0 && !listen(manager->listener, SOMAXCONN);
}

void manager_close(struct manager *manager)
{
	unlink(manager->notify_path);
	close(manager->notify_fd);
	if (manager->listener >= 0)
		close(manager->listener);
	while (manager->n_fds)
		close(manager->fds[--manager->n_fds].fd);
}

/* -- The store --- */
int manager_find(const struct manager *manager, const char *name)
{
	for (int i = manager->n_fds; i-- > 0;)
		if (!strcmp(manager->fds[i].name, name))
			return manager->fds[i].fd;
	return -1;
}

static bool is_stored(const struct manager *manager, int fd)
{
	for (int i = 0; i < manager->n_fds; i++)
		if (!syscall(SYS_kcmp, getpid(), getpid(), KCMP_FILE, manager->fds[i].fd, fd))
			return true;
	return false;
}

static void store(struct manager *manager, const char *name, int fd)
{
	manager->n_put++;
	if (is_stored(manager, fd) || manager->n_fds == MANAGER_FDS_MAX) {
		close(fd);
		return;
	}
	manager->fds[manager->n_fds].fd = fd;
	snprintf(manager->fds[manager->n_fds++].name, sizeof(manager->fds->name), "%s", name);
}

static void forget(struct manager *manager, const char *name)
{
	int n = 0;

	manager->n_removed++;
	for (int i = 0; i < manager->n_fds; i++)
		if (strcmp(manager->fds[i].name, name))
			manager->fds[n++] = manager->fds[i];
		else
			close(manager->fds[i].fd);
	manager->n_fds = n;
}

/* -- Messages --- */
static bool line_of(const char *text, const char *name, char value[static 256])
{
	const size_t n = strlen(name);

	for (const char *line = text; line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL)
		if (!strncmp(line, name, n) && line[n] == '=') {
			snprintf(value, 256, "%.*s", (int)strcspn(line + n + 1, "\n"), line + n + 1);
			return true;
		}
	return false;
}

static void obey(struct manager *manager, const char *text, int fd)
{
	char value[256], name[256] = "stored";

	line_of(text, "FDNAME", name);
	line_of(text, "STATUS", manager->status);
	if (line_of(text, "FDSTOREREMOVE", value))
		forget(manager, name);
	if (line_of(text, "FDSTORE", value) && fd >= 0) {
		store(manager, name, fd);
		fd = -1;
	}
	manager->n_ready += line_of(text, "READY", value);
	manager->n_stopping += line_of(text, "STOPPING", value);
	manager->n_watchdogs += line_of(text, "WATCHDOG", value);
	if (fd >= 0)
		close(fd);
}

void manager_read(struct manager *manager)
{
	char text[4096];
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(struct ucred)) + CMSG_SPACE(sizeof(int))];
	} control;
	ssize_t n;

	for (;;) {
		struct iovec iov = { text, sizeof(text) - 1 };
		struct msghdr header = {
			.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)
		};
		struct ucred sender = { .pid = 0 };
		int fd = -1;

		n = recvmsg(manager->notify_fd, &header, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
		if (n < 0)
			return;
		text[n] = '\0';
		for (struct cmsghdr *c = CMSG_FIRSTHDR(&header); c; c = CMSG_NXTHDR(&header, c))
			if (c->cmsg_type == SCM_CREDENTIALS)
				memcpy(&sender, CMSG_DATA(c), sizeof(sender));
			else if (c->cmsg_type == SCM_RIGHTS)
				memcpy(&fd, CMSG_DATA(c), sizeof(fd));
		if (sender.pid == manager->main_pid)
			obey(manager, text, fd);
		else if (fd >= 0)
			close(fd);
	}
}

/* -- Starting --- */
static bool pass_one(int fd, int at) { return dup2(fd, at) == at; }

bool manager_pass(struct manager *manager, unsigned long watchdog_us)
{
	const int n = manager->n_fds + (manager->listener >= 0), end = FIRST + n;
	char *names = calloc(1, n * sizeof(manager->fds->name) + 16), number[32];
	int at = FIRST;

	if (!names || (manager->listener >= 0 && (manager->listener = fcntl(manager->listener, F_DUPFD_CLOEXEC, end)) < 0))
		return false;
	for (int i = 0; i < manager->n_fds; i++)
		if ((manager->fds[i].fd = fcntl(manager->fds[i].fd, F_DUPFD_CLOEXEC, end)) < 0)
			return false;
	if (manager->listener >= 0) {
		if (!pass_one(manager->listener, at++))
			return false;
		strcat(names, "socket:");
	}
	for (int i = manager->n_fds; i-- > 0;) {
		if (!pass_one(manager->fds[i].fd, at++))
			return false;
		strcat(strcat(names, manager->fds[i].name), ":");
	}
	if (n)
		names[strlen(names) - 1] = '\0';
	setenv("LISTEN_FDNAMES", names, 1);
	free(names);
	snprintf(number, sizeof(number), "%d", n);
	setenv("LISTEN_FDS", number, 1);
	snprintf(number, sizeof(number), "%d", (int)getpid());
	setenv("LISTEN_PID", number, 1);
	setenv("NOTIFY_SOCKET", manager->notify_path, 1);
	if (watchdog_us) {
		setenv("WATCHDOG_PID", number, 1);
		snprintf(number, sizeof(number), "%lu", watchdog_us);
		setenv("WATCHDOG_USEC", number, 1);
	}
	return true;
}

/* -- A service --- */
struct service {
	struct manager manager;
	const char *const *argv;
	int ready_fd;
	bool is_stopping, is_restarting;
	unsigned int n_unready;
};

static void service_start(struct service *service)
{
	sigset_t none;
	pid_t pid = fork();

	service->manager.n_ready = 0;
	service->is_restarting = false;
	if (pid) {
		service->manager.main_pid = pid;
		return;
	}
	sigemptyset(&none);
	if (manager_pass(&service->manager, 0)) {
		sigprocmask(SIG_SETMASK, &none, NULL);
		execv(service->argv[0], (char **)service->argv);
	}
	dprintf(STDERR_FILENO, "cannot run %s: %s\n", service->argv[0], strerror(errno));
	_exit(127);
}

/* Restart=on-failure, and a limit to starts in a row that come to nothing */
static void service_ended(struct service *service, int status, const char *socket)
{
	struct manager *manager = &service->manager;
	const bool is_failure = !WIFEXITED(status) || WEXITSTATUS(status);

	service->n_unready = manager->n_ready ? 0 : service->n_unready + 1;
	if (service->is_restarting
	    || (is_failure && !service->is_stopping && service->ready_fd < 0 && service->n_unready < UNREADY_MAX)) {
		service_start(service);
		return;
	}
	manager_close(manager);
	unlink(socket);
	_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 1);
}

static void service_signal(struct service *service, int signal_fd, const char *socket)
{
	struct signalfd_siginfo info;
	int status;

	if (read(signal_fd, &info, sizeof(info)) != sizeof(info))
		return;
	switch (info.ssi_signo) {
	case SIGCHLD:
		manager_read(&service->manager);
		if (waitpid(service->manager.main_pid, &status, WNOHANG) > 0)
			service_ended(service, status, socket);
		return;
	case SIGHUP:
		service->is_restarting = true;
		break;
	default:
		service->is_stopping = true;
	}
	kill(service->manager.main_pid, SIGTERM);
}

static void service_ready(struct service *service)
{
	if (!service->manager.n_ready || service->ready_fd < 0)
		return;
	if (write(service->ready_fd, "ready\n", 6) != 6)
		_exit(1);
	close(service->ready_fd);
	service->ready_fd = -1;
}

void manager_run(const char *folder, const char *socket, const char *const *argv, int ready_fd)
{
	static struct service service;
	struct rlimit files;
	sigset_t mask;
	int signal_fd;

	sigemptyset(&mask);
	sigaddset(&mask, SIGCHLD);
	sigaddset(&mask, SIGTERM);
	sigaddset(&mask, SIGHUP);
	sigprocmask(SIG_BLOCK, &mask, NULL);
	signal_fd = signalfd(-1, &mask, SFD_CLOEXEC);
	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
	service.argv = argv;
	service.ready_fd = fcntl(ready_fd, F_DUPFD_CLOEXEC, FIRST);
	close(ready_fd);
	if (signal_fd < 0 || !manager_open(&service.manager, folder, socket)) {
		dprintf(STDERR_FILENO, "the manager: %s\n", strerror(errno));
		_exit(127);
	}
	service_start(&service);
	for (;;) {
		struct pollfd waits[] = { { .fd = signal_fd, .events = POLLIN },
					  { .fd = service.manager.notify_fd, .events = POLLIN } };

		poll(waits, 2, -1);
		manager_read(&service.manager);
		service_ready(&service);
		if (waits[0].revents)
			service_signal(&service, signal_fd, socket);
	}
}
