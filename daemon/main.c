/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>
#include "keep.h"
#include "options.h"
#include "store/store.h"
#include "tierd.h"
#include "util/base.h"
#include "util/journald.h"
#include "util/log.h"

/* tierd's own exit status: 0 after SIGTERM or SIGINT, 2 for anything that kept it from serving, 3 when that may be over soon. */
enum { EXIT_SERVED = 0, EXIT_FAILED = 2, EXIT_SHORT = 3 };

/* What a caller waits for the end of (a terminal, `x=$(tierd)`, ssh) must not stay open here or in the workers; a file may.
 * Until the daemon serves, or says why it cannot, the log still goes where the caller looks. */
static int let_go_of_caller(void)
{
	_cleanup_(closep) int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	struct stat status;

	if (null < 0 || dup2(null, STDIN_FILENO) < 0 || dup2(null, STDOUT_FILENO) < 0)
		return -errno;
	if (fstat(STDERR_FILENO, &status) == 0) {
		if (S_ISREG(status.st_mode))
			return 0;
		log_set_fd(fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, STDERR_FILENO + 1));
	}
	return dup2(null, STDERR_FILENO) < 0 ? -errno : 0;
}

/* The keeper stays where it is: whatever it starts finds relative paths there. */
static void leave_caller(bool leaves_folder)
{
	int fd = log_set_fd(STDERR_FILENO);

	if (fd != STDERR_FILENO)
		close_fd(fd);
	if (leaves_folder && chdir("/") < 0)		/* no file system stays busy because of the daemon */
		log_line(LOG_WARNING, "cannot change to /: %s", strerrordesc_np(errno));
}

/* -- The log --- */
static void choose_log(const struct options *options)
{
	static const enum log_level levels[] = { LOG_ERROR, LOG_WARNING, LOG_INFO, LOG_DEBUG };

	log_set_level(levels[options->log_level]);
	log_set_choice(&options->log);
}

static int log_to_journal(void)
{
	const char *why;
	int r = journald_open(&why);

	if (r) {
		log_line(LOG_ERROR, "--log-to=journal: %s", why);
		return r;
	}
	log_to(journald_send);
	return 0;
}

/* In the process that serves: its pid is in the name. */
static int log_to_file(const char *chosen)
{
	char path[PATH_MAX];
	int fd, r;

	r = log_file_name(chosen, getpid(), path, sizeof(path));
	if (r) {
		log_line(LOG_ERROR, "--log-to=%s: %s", chosen, strerrordesc_np(-r));
		return r;
	}
	fd = log_file_open(path);
	if (fd < 0) {
		log_line(LOG_ERROR, "--log-to: cannot open %s: %s", path, strerrordesc_np(-fd));
		return fd;
	}
	log_line(LOG_INFO, "the log goes to %s", path);
	log_set_file(fd);
	return 0;
}

static int open_log(const struct options *options)
{
	if (!strcmp(options->log_to, "stderr"))
		return 0;
	return !strcmp(options->log_to, "journal") ? log_to_journal() : log_to_file(options->log_to);
}

/* Workers must not keep the ready descriptor open, and going to the background must not replace it. */
static int keep_ready_fd(struct options *options)
{
	int fd = options->ready_fd;

	if (fd < 0 || (fd <= STDERR_FILENO && options->foreground))
		return 0;
	fd = fd > STDERR_FILENO ? fd : fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
	if (fd < 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0) {
		log_line(LOG_ERROR, "--ready-fd %d is not open: %s", options->ready_fd, strerrordesc_np(errno));
		return -errno;
	}
	options->ready_fd = fd;
	return 0;
}

/* Goes to the background: the parent stays until the child serves (a byte on the pipe) or has ended. Returns the child's
 * end of the pipe, or -errno. */
static int background(void)
{
	int ends[2];
	char byte;
	pid_t pid;
	int r;

	if (pipe2(ends, O_CLOEXEC) < 0)
		return -errno;
	pid = fork();
	if (pid < 0)
		return -errno;
	if (pid) {
		close(ends[1]);
		_exit(read(ends[0], &byte, 1) == 1 ? EXIT_SERVED : EXIT_FAILED);
	}
	close(ends[0]);
	setsid();
	r = let_go_of_caller();
	return r ? r : ends[1];
}

static void say_ready(int fd)
{
	if (fd < 0)
		return;
	if (write(fd, "ready\n", 6) < 0)
		log_line(LOG_WARNING, "nobody reads the ready line: %s", strerrordesc_np(errno));
	close(fd);
}

/* -- Serving --- */
struct caller {
	const struct options *options;
	int parent;		/* waits in the foreground for a byte; -1: nobody does */
};

static void serve_caller(void *context)
{
	const struct caller *caller = context;

	if (!caller->options->foreground)
		leave_caller(!caller->options->keep);
	say_ready(caller->options->ready_fd);
	say_ready(caller->parent);
}

/* Of what may be there for whoever starts it again, as a keeper does */
static bool is_short(int r)
{
	return r == -ENOMEM || r == -EMFILE || r == -ENFILE || r == -ENOBUFS || r == -EAGAIN;
}

static int serve(const struct options *options, struct store *store, struct caller *caller)
{
	struct tierd *tierd;
	int r;

	r = tierd_new(&tierd, options, store);
	if (r)
		return is_short(r) ? EXIT_SHORT : EXIT_FAILED;
	serve_caller(caller);
	r = tierd_run(tierd);
	tierd_free(tierd);
	return r ? EXIT_FAILED : EXIT_SERVED;
}

int main(int argc, char **argv)
{
	struct options options;
	struct caller caller = { .options = &options, .parent = -1 };
	struct store *store;

	switch (options_parse(&options, argc, argv)) {
	case OPTIONS_DONE:
		return EXIT_SERVED;
	case OPTIONS_ERROR:
		return EXIT_FAILED;
	case OPTIONS_RUN:
		break;
	}
	choose_log(&options);
	if (store_open(&store) || keep_ready_fd(&options))	/* the store first: descriptors are passed by number */
		return EXIT_FAILED;
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN);	/* a log that may not grow */
	prctl(PR_SET_DUMPABLE, 0);	/* nobody else's descriptors through /proc, no ptrace by other users */
	if (!options.foreground) {
		caller.parent = background();
		if (caller.parent < 0) {
			log_line(LOG_ERROR, "cannot go to the background: %s", strerrordesc_np(-caller.parent));
			return EXIT_FAILED;
		}
	}
	if (open_log(&options))
		return EXIT_FAILED;
	return options.keep ? keep_run(store, argc, argv, serve_caller, &caller) : serve(&options, store, &caller);
}
