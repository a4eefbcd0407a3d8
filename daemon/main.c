/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>
#include "options.h"
#include "tierd.h"
#include "util/base.h"
#include "util/log.h"

/* tierd's own exit status: 0 after SIGTERM or SIGINT, 2 for anything that kept it from serving. */
enum { EXIT_SERVED = 0, EXIT_FAILED = 2 };

/* Goes to the background: the parent stays until the child serves (a byte on the pipe) or has ended. Returns the child's
 * end of the pipe, or -errno. */
static int background(void)
{
	int ends[2];
	char byte;
	pid_t pid;

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
	return ends[1];
}

static void say_ready(int fd)
{
	if (fd < 0)
		return;
	if (write(fd, "ready\n", 6) < 0)
		log_line(LOG_WARNING, "nobody reads the ready line: %s", strerrordesc_np(errno));
	close(fd);
}

int main(int argc, char **argv)
{
	struct options options;
	struct tierd *tierd;
	int parent = -1, r;

	switch (options_parse(&options, argc, argv)) {
	case OPTIONS_DONE:
		return EXIT_SERVED;
	case OPTIONS_ERROR:
		return EXIT_FAILED;
	case OPTIONS_RUN:
		break;
	}
	log_set_level(options.log_level);
	signal(SIGPIPE, SIG_IGN);
	prctl(PR_SET_DUMPABLE, 0);	/* nobody else's descriptors through /proc, no ptrace by other users */
	if (!options.foreground) {
		parent = background();
		if (parent < 0) {
			log_line(LOG_ERROR, "cannot go to the background: %s", strerrordesc_np(-parent));
			return EXIT_FAILED;
		}
	}
	r = tierd_new(&tierd, &options);
	if (r)
		return EXIT_FAILED;
	say_ready(options.ready_fd);
	say_ready(parent);
	r = tierd_run(tierd);
	tierd_free(tierd);
	return r ? EXIT_FAILED : EXIT_SERVED;
}
