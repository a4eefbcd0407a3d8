/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
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
#include "keep.h"
#include "listen.h"
#include "options.h"
#include "store/names.h"
#include "util/base.h"
#include "util/dispatch.h"
#include "util/error.h"
#include "util/log.h"

#define PASSED_FIRST 3	    /* sd_listen_fds(3) */
#define KEPT_MAX 65536u	    /* more than names fit into LISTEN_FDNAMES */
#define FDS_PER_MESSAGE 253 /* SCM_MAX_FD */
#define OWN_FDS 32	    /* that the keeper needs itself, generously */
#define UNREADY_MAX 5u
#define PAUSE_MS 100			   /* doubled at each death of a daemon that never was ready */
#define SHORT_LIFE_NS UINT64_C(1000000000) /* from when it was ready */
#define SHORT_FREE 5u			   /* so many short lives in a row cost no pause */
#define SHORT_PAUSE_MAX 1000u		   /* in ms, one more at each short life */

enum { EXIT_SERVED = 0, EXIT_FAILED = 2 };

struct kept {
	int fd;
	dev_t device; /* with the inode: which ones can be the same open file */
	ino_t inode;
	char name[STORE_NAME_MAX];
};

struct keep {
	char **args;
	char self[PATH_MAX];
	int notify_fd, notify_path_fd, signal_fd, relay_fd;
	struct kept *kept; /* KEPT_MAX of which the first n are in use; the oldest first */
	uint32_t n, n_max;
	size_t n_bytes;		  /* what LISTEN_FDNAMES will need */
	bool is_full;		  /* and the log has said so */
	pid_t pid;		  /* of the daemon; 0: none */
	bool is_ready, was_ready; /* this one; any one before */
	bool is_ending, is_restarting;
	unsigned int n_unready; /* deaths in a row of daemons that never were ready */
	unsigned int n_short;	/* lives in a row that were short */
	uint64_t ready_ns;	/* when it was ready */
	sigset_t old_mask;
	void (*ready)(void *context);
	void *context;
	char names[sizeof("LISTEN_FDNAMES=") + NAMES_BYTES_MAX];
};

/* -- What is kept --- */
static bool is_same(const struct kept *kept, int fd, const struct stat *status)
{
	return kept->device == status->st_dev && kept->inode == status->st_ino
	       && syscall(SYS_kcmp, getpid(), getpid(), KCMP_FILE, kept->fd, fd) == 0;
}

/* Takes @fd. */
static void kept_add(struct keep *keep, const char *name, int fd)
{
	const size_t n_bytes = strlen(name) + 1;
	struct stat status;

	if (fstat(fd, &status) < 0 || keep->n >= keep->n_max || keep->n_bytes + n_bytes > NAMES_BYTES_MAX) {
		if (!keep->is_full)
			log_line(LOG_ERROR, "cannot keep '%s': %u descriptors are kept, and that is all there is room for", name,
				 keep->n);
		keep->is_full = true;
		close(fd);
		return;
	}
	for (uint32_t i = 0; i < keep->n; i++)
		if (is_same(&keep->kept[i], fd, &status)) {
			close(fd);
			return;
		}
	keep->kept[keep->n] = (struct kept){ .fd = fd, .device = status.st_dev, .inode = status.st_ino };
	memcpy(keep->kept[keep->n++].name, name, n_bytes);
	keep->n_bytes += n_bytes;
}

static void kept_remove(struct keep *keep, const char *name)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < keep->n; i++) {
		if (strcmp(keep->kept[i].name, name)) {
			keep->kept[n++] = keep->kept[i];
			continue;
		}
		close(keep->kept[i].fd);
		keep->n_bytes -= strlen(name) + 1;
		keep->is_full = false;
	}
	keep->n = n;
}

static int kept_find(const struct keep *keep, const char *name)
{
	for (uint32_t i = keep->n; i-- > 0;)
		if (!strcmp(keep->kept[i].name, name))
			return keep->kept[i].fd;
	return -1;
}

/* -- The daemon's messages --- */
struct message {
	char text[4096];
	int fds[FDS_PER_MESSAGE];
	unsigned int n_fds;
};

static void message_close(struct message *message)
{
	while (message->n_fds)
		close(message->fds[--message->n_fds]);
}

/* What a message came with: its sender, and descriptors, which are ours whoever sent them. */
static pid_t message_control(struct message *message, struct msghdr *header)
{
	struct ucred sender = { .pid = 0 };

	for (struct cmsghdr *c = CMSG_FIRSTHDR(header); c; c = CMSG_NXTHDR(header, c)) {
		if (c->cmsg_level != SOL_SOCKET)
			continue;
		if (c->cmsg_type == SCM_CREDENTIALS && c->cmsg_len == CMSG_LEN(sizeof(sender)))
			memcpy(&sender, CMSG_DATA(c), sizeof(sender));
		if (c->cmsg_type == SCM_RIGHTS) {
			message->n_fds = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
			memcpy(message->fds, CMSG_DATA(c), message->n_fds * sizeof(int));
		}
	}
	return sender.pid;
}

/* True: a message of the daemon's, whose descriptors the caller closes. False and 0: one of somebody else's; -EAGAIN:
 * none. */
static bool message_receive(struct keep *keep, struct message *message, int *ret)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(struct ucred)) + CMSG_SPACE(FDS_PER_MESSAGE * sizeof(int))];
	} control;
	struct iovec iov = { message->text, sizeof(message->text) - 1 };
	struct msghdr header = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control) };
	const ssize_t n = recvmsg(keep->notify_fd, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	pid_t sender;

	*ret = n < 0 ? -errno : 0;
	if (n < 0)
		return false;
	message->text[n] = '\0';
	message->n_fds = 0;
	sender = message_control(message, &header);
	if (sender == keep->pid && !(header.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) && strlen(message->text) == (size_t)n)
		return true;
	log_line(LOG_WARNING, "a message of process %d is ignored", (int)sender);
	message_close(message);
	return false;
}

/* The value of a line NAME=VALUE; NULL: there is none. As long as the next call's. */
static const char *message_value(const struct message *message, const char *name)
{
	static char value[STORE_NAME_MAX];
	const size_t n = strlen(name);

	for (const char *line = message->text; *line; line += strcspn(line, "\n"), line += *line == '\n')
		if (!strncmp(line, name, n) && line[n] == '=') {
			snprintf(value, sizeof(value), "%.*s", (int)strcspn(line + n + 1, "\n"), line + n + 1);
			return value;
		}
	return NULL;
}

static bool message_says(const struct message *message, const char *name)
{
	const char *value = message_value(message, name);

	return value && !strcmp(value, "1");
}

/* A name with a colon would be two names. */
static const char *message_name(const struct message *message)
{
	const char *name = message_value(message, "FDNAME");

	return name && *name && !strchr(name, ':') ? name : "stored";
}

static void message_obey(struct keep *keep, struct message *message)
{
	if (message_says(message, "FDSTOREREMOVE"))
		kept_remove(keep, message_name(message));
	else if (message_says(message, "FDSTORE"))
		for (const char *name = message_name(message); message->n_fds;)
			kept_add(keep, name, message->fds[--message->n_fds]);
	if (!message_says(message, "READY") || keep->is_ready)
		return;
	keep->is_ready = true;
	keep->ready_ns = clock_now_ns();
	keep->n_unready = 0;
	if (!keep->was_ready)
		keep->ready(keep->context);
	keep->was_ready = true;
	keep->relay_fd = close_fd(keep->relay_fd);
}

/* All that there are: the last words of a daemon that is dead count. */
static void messages_read(struct keep *keep)
{
	struct message message;
	int r = 0;

	while (keep->notify_fd >= 0 && r != -EAGAIN) {
		if (!message_receive(keep, &message, &r))
			continue;
		message_obey(keep, &message);
		message_close(&message);
	}
}

/* -- Starting the daemon --- */
/* The newest of a name comes first, as systemd does it. */
static void make_names(struct keep *keep)
{
	char *end = stpcpy(keep->names, "LISTEN_FDNAMES=");

	for (uint32_t i = keep->n; i-- > 0;) {
		end = stpcpy(end, keep->kept[i].name);
		*end++ = ':';
	}
	end[keep->n ? -1 : 0] = '\0';
}

/* In the child: what is kept gets the numbers from 3 on, whatever stands there. */
static bool place_descriptors(struct keep *keep, int *ret_notify)
{
	const int end = PASSED_FIRST + (int)keep->n;

	*ret_notify = fcntl(keep->notify_path_fd, F_DUPFD, end);
	if (*ret_notify < 0)
		return false;
	for (uint32_t i = 0; i < keep->n; i++)
		if (keep->kept[i].fd < end && (keep->kept[i].fd = fcntl(keep->kept[i].fd, F_DUPFD_CLOEXEC, end)) < 0)
			return false;
	for (uint32_t i = 0; i < keep->n; i++)
		if (dup2(keep->kept[keep->n - 1 - i].fd, PASSED_FIRST + i) < 0)
			return false;
	return true;
}

static void set_environment(struct keep *keep, int notify)
{
	char text[64];

	snprintf(text, sizeof(text), "/proc/self/fd/%d", notify);
	setenv("NOTIFY_SOCKET", text, 1);
	snprintf(text, sizeof(text), "%u", keep->n_max);
	setenv("FDSTORE", text, 1);
	unsetenv("WATCHDOG_USEC");
	unsetenv("WATCHDOG_PID");
	if (!keep->n)
		return;
	snprintf(text, sizeof(text), "%d", (int)getpid());
	setenv("LISTEN_PID", text, 1);
	snprintf(text, sizeof(text), "%u", keep->n);
	setenv("LISTEN_FDS", text, 1);
	make_names(keep);
	putenv(keep->names);
}

/* By the path that the keeper was started by, so that a program that was replaced is the new one. Its own process
 * group: what a terminal sends is for the keeper. */
static void __attribute__((noreturn)) become_daemon(struct keep *keep, int stderr_fd)
{
	int notify;

	setpgid(0, 0);
	if (stderr_fd >= 0)
		dup2(stderr_fd, STDERR_FILENO);
	log_set_fd(STDERR_FILENO); /* any other number will be a kept descriptor's */
	log_set_file(-1);
	log_to(NULL);
	if (place_descriptors(keep, &notify)) {
		set_environment(keep, notify);
		sigprocmask(SIG_SETMASK, &keep->old_mask, NULL);
		execvp(keep->args[0], keep->args);
		execv(keep->self, keep->args);
	}
	log_line(LOG_ERROR, "cannot start %s: %s", keep->args[0], strerrordesc_np(errno));
	_exit(EXIT_FAILED);
}

/* Until it serves, the caller sees what a daemon says that goes to the background; its standard error must not stay
 * open longer. Returns the daemon's end, or -1: it has our standard error. */
static int relay_open(struct keep *keep)
{
	const int caller = log_set_fd(STDERR_FILENO);
	int ends[2];

	log_set_fd(caller);
	keep->relay_fd = close_fd(keep->relay_fd);
	if (caller == STDERR_FILENO || pipe2(ends, O_CLOEXEC) < 0)
		return -1;
	fcntl(ends[0], F_SETFL, O_NONBLOCK); /* a worker may have the other end, too */
	keep->relay_fd = ends[0];
	return ends[1];
}

static void relay_read(struct keep *keep)
{
	const int caller = log_set_fd(STDERR_FILENO);
	char text[4096];
	ssize_t n;

	log_set_fd(caller);
	while ((n = read(keep->relay_fd, text, sizeof(text))) > 0)
		(void)!write(caller, text, n);
	if (!n)
		keep->relay_fd = close_fd(keep->relay_fd);
}

static int daemon_start(struct keep *keep)
{
	_cleanup_(closep) int stderr_fd = relay_open(keep);
	const pid_t pid = fork();

	if (pid < 0)
		return error_origin(-errno);
	if (!pid)
		become_daemon(keep, stderr_fd);
	keep->pid = pid;
	keep->is_ready = keep->is_restarting = false;
	if (keep->was_ready || keep->n_unready)
		log_line(LOG_INFO, "tierd is started again, as process %d with %u descriptors", (int)pid, keep->n);
	return 0;
}

/* -- Its end --- */
enum next { NEXT_NONE, NEXT_START, NEXT_WAIT, NEXT_SERVED, NEXT_FAILED };

static void say_end(const struct keep *keep, int status)
{
	if (WIFSIGNALED(status))
		log_line(LOG_WARNING, "tierd, process %d, died of signal %d (%s)%s", (int)keep->pid, WTERMSIG(status),
			 sigdescr_np(WTERMSIG(status)), keep->is_ready ? "" : " before it served");
	else
		log_line(LOG_INFO, "tierd, process %d, ended with exit status %d", (int)keep->pid, WEXITSTATUS(status));
}

static enum next after_refusal(const struct keep *keep)
{
	if (!keep->was_ready)
		return NEXT_FAILED;
	log_line(LOG_ERROR,
		 "tierd does not start any more; %u descriptors of the last one are kept. SIGHUP starts it again, "
		 "SIGTERM gives "
		 "them up",
		 keep->n);
	return NEXT_WAIT;
}

/* One that dies of the first thing that it is asked would else be started for ever, as fast as it goes. */
static enum next after_life(struct keep *keep)
{
	if (clock_now_ns() - keep->ready_ns >= SHORT_LIFE_NS)
		keep->n_short = 0;
	else if (keep->n_short < SHORT_FREE + SHORT_PAUSE_MAX && ++keep->n_short == SHORT_FREE + 1)
		log_line(LOG_WARNING,
			 "tierd served for less than a second %u times in a row; now there is a growing pause before it "
			 "is started again",
			 keep->n_short);
	return NEXT_START;
}

/* Before the daemon is started again, in ms; -1: none */
static int pause_due(const struct keep *keep)
{
	if (keep->n_unready)
		return PAUSE_MS << keep->n_unready;
	return keep->n_short > SHORT_FREE ? (int)(keep->n_short - SHORT_FREE) : -1;
}

static enum next after_end(struct keep *keep, int status)
{
	const bool ended_well = WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SERVED;

	if (keep->is_ending)
		return ended_well ? NEXT_SERVED : NEXT_FAILED;
	if (keep->is_restarting)
		return NEXT_START;
	if (ended_well)
		return NEXT_SERVED;
	if (keep->is_ready)
		return after_life(keep);
	keep->n_unready++;
	if (WIFEXITED(status) && WEXITSTATUS(status) == EXIT_FAILED)
		return after_refusal(keep);
	return keep->n_unready < UNREADY_MAX ? NEXT_START : after_refusal(keep);
}

static bool is_dead(const struct keep *keep)
{
	siginfo_t info = { .si_pid = 0 };

	return keep->pid && !waitid(P_PID, keep->pid, &info, WEXITED | WNOHANG | WNOWAIT) && info.si_pid;
}

/* Its last words are read once it can say no more, and while its number is still its own. */
static enum next daemon_ended(struct keep *keep)
{
	int status;
	enum next next;

	if (!is_dead(keep))
		return NEXT_NONE;
	messages_read(keep);
	waitpid(keep->pid, &status, 0);
	if (keep->relay_fd >= 0)
		relay_read(keep);
	say_end(keep, status);
	next = after_end(keep, status);
	keep->pid = 0;
	return next;
}

/* -- Signals --- */
/* Without a store the daemon ends for good: modules are unloaded, the socket is removed. */
static enum next give_up(struct keep *keep)
{
	keep->is_ending = true;
	keep->notify_fd = close_fd(keep->notify_fd);
	if (!keep->pid)
		return NEXT_SERVED;
	kill(keep->pid, SIGTERM);
	return NEXT_NONE;
}

static enum next start_anew(struct keep *keep)
{
	keep->n_unready = keep->n_short = 0;
	if (!keep->pid)
		return NEXT_START;
	keep->is_restarting = true;
	kill(keep->pid, SIGTERM);
	return NEXT_NONE;
}

static enum next signal_read(struct keep *keep)
{
	struct signalfd_siginfo info;

	if (read(keep->signal_fd, &info, sizeof(info)) != sizeof(info))
		return NEXT_NONE;
	switch (info.ssi_signo) {
	case SIGCHLD:
		return daemon_ended(keep);
	case SIGHUP:
		return keep->is_ending ? NEXT_NONE : start_anew(keep);
	default:
		return give_up(keep);
	}
}

/* -- Building --- */
static int open_signals(struct keep *keep)
{
	sigset_t mask;

	sigemptyset(&mask);
	sigaddset(&mask, SIGCHLD);
	sigaddset(&mask, SIGTERM);
	sigaddset(&mask, SIGINT);
	sigaddset(&mask, SIGHUP);
	sigprocmask(SIG_BLOCK, &mask, &keep->old_mask);
	keep->signal_fd = signalfd(-1, &mask, SFD_CLOEXEC);
	return keep->signal_fd < 0 ? error_origin(-errno) : 0;
}

/* A socket that has no name any more when anybody else could see it: only who has a descriptor of its file can send, by
 * way of its own /proc/self/fd. So no other user can fill its short queue. */
static int open_notify_in(struct keep *keep, const char *folder)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	char path[sizeof(address.sun_path) - 8];
	const int on = 1;
	int r;

	if ((size_t)snprintf(path, sizeof(path), "%s/tierd-keep-XXXXXX", folder) >= sizeof(path) || !mkdtemp(path))
		return -errno;
	snprintf(address.sun_path, sizeof(address.sun_path), "%s/notify", path);
	keep->notify_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	r = keep->notify_fd < 0 || setsockopt(keep->notify_fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)) < 0
			    || bind(keep->notify_fd, (struct sockaddr *)&address, sizeof(address)) < 0
			    || (keep->notify_path_fd = open(address.sun_path, O_PATH | O_CLOEXEC)) < 0
		    ? -errno
		    : 0;
	unlink(address.sun_path);
	rmdir(path);
	return r;
}

static int open_notify(struct keep *keep)
{
	const char *const folders[] = { getenv("XDG_RUNTIME_DIR"), "/run", "/tmp" };
	int r = -ENOENT;

	for (size_t i = 0; i < ARRAY_SIZE(folders) && r; i++)
		if (folders[i] && *folders[i] == '/')
			r = open_notify_in(keep, folders[i]);
	if (r)
		log_line(LOG_ERROR, "--keep needs a folder for a socket, in $XDG_RUNTIME_DIR, /run or /tmp: %s",
			 strerrordesc_np(-r));
	return r;
}

/* Each descriptor needs a second number while a daemon is started, and the daemon needs some of its own. */
static void raise_files(struct keep *keep)
{
	struct rlimit files = { .rlim_cur = 1024, .rlim_max = 1024 };

	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &files) < 0)
		getrlimit(RLIMIT_NOFILE, &files);
	keep->n_max = files.rlim_cur <= OWN_FDS ? 0 : MIN((files.rlim_cur - OWN_FDS) / 2, (rlim_t)KEPT_MAX);
}

/* What a manager above the keeper passed to it is for the daemon. */
static void adopt(struct keep *keep, struct store *store)
{
	char sent[STORE_NAME_MAX];
	const char *name;
	uint32_t at = 0;
	int fd = store_take_listener(store);

	if (fd >= 0)
		kept_add(keep, "socket", fd);
	while ((name = store_next(store, &at))) {
		fd = store_take(store, name);
		name_shorten(name, sent);
		kept_add(keep, sent, fd);
	}
}

static int keep_open(struct keep *keep, struct store *store, int argc, char **argv)
{
	int r;

	if (!store_can_be_kept()) {
		log_line(LOG_ERROR, "--keep: this tierd was built without libsystemd; install libsystemd-dev and build it again");
		return -EOPNOTSUPP;
	}
	raise_files(keep);
	keep->args = options_of_kept(argc, argv);
	keep->kept = calloc(KEPT_MAX, sizeof(*keep->kept));
	if (!keep->args || !keep->kept)
		return error_origin(-ENOMEM);
	if (readlink("/proc/self/exe", keep->self, sizeof(keep->self) - 1) < 0)
		return error_origin(-errno);
	adopt(keep, store);
	r = open_signals(keep);
	return r ? r : open_notify(keep);
}

/* A daemon that ended as one that is kept has left its socket there. */
static void keep_close(struct keep *keep)
{
	listen_remove(kept_find(keep, "socket"), kept_find(keep, "lock"));
	for (uint32_t i = 0; i < keep->n; i++)
		close(keep->kept[i].fd);
	close_fd(keep->notify_fd);
	close_fd(keep->notify_path_fd);
	close_fd(keep->signal_fd);
	close_fd(keep->relay_fd);
	free(keep->kept);
	free(keep->args);
}

/* -- The loop --- */
/* One wait and what it brings; @pause_ms: at most this long, then NEXT_START; -1: for as long as it takes */
static enum next keep_turn(struct keep *keep, int pause_ms)
{
	struct pollfd files[] = {
		{ .fd = keep->signal_fd, .events = POLLIN },
		{ .fd = keep->notify_fd, .events = POLLIN },
		{ .fd = keep->relay_fd, .events = POLLIN },
	};
	const int n = poll(files, ARRAY_SIZE(files), pause_ms);

	if (!n)
		return NEXT_START;
	if (n < 0)
		return NEXT_NONE;
	if (files[2].revents)
		relay_read(keep);
	if (files[1].revents)
		messages_read(keep);
	return files[0].revents ? signal_read(keep) : NEXT_NONE;
}

static int keep_loop(struct keep *keep)
{
	enum next next = daemon_start(keep) ? NEXT_FAILED : NEXT_NONE;
	int pause_ms = -1;

	while (next != NEXT_SERVED && next != NEXT_FAILED) {
		next = keep_turn(keep, pause_ms);
		if (next == NEXT_WAIT)
			pause_ms = -1;
		if (next != NEXT_START)
			continue;
		if (pause_ms < 0) {
			pause_ms = pause_due(keep);
			if (pause_ms >= 0)
				continue;
		}
		pause_ms = -1;
		if (daemon_start(keep)) /* no process to be had: the next pause may bring one */
			pause_ms = PAUSE_MS << UNREADY_MAX;
	}
	return next == NEXT_SERVED ? EXIT_SERVED : EXIT_FAILED;
}

int keep_run(struct store *store, int argc, char **argv, void (*ready)(void *context), void *context)
{
	static struct keep keep = { .notify_fd = -1, .notify_path_fd = -1, .signal_fd = -1, .relay_fd = -1 };
	int r;

	keep.ready = ready;
	keep.context = context;
	r = keep_open(&keep, store, argc, argv) ? EXIT_FAILED : keep_loop(&keep);
	keep_close(&keep);
	store_free(store);
	return r;
}
