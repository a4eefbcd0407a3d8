/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <tier/wire.h>
#include "system/harness.h"
#include "system/kept.h"

/* -- The end of all that belongs together --- */
static bool session_end(pid_t session)
{
	struct dirent *entry;
	DIR *folder = opendir("/proc");
	pid_t parent, its;
	bool is_left = false;
	char state;

	while (folder && (entry = readdir(folder))) {
		pid_t pid = atoi(entry->d_name);

		if (pid > 0 && process_stat(pid, &parent, &its, &state) && its == session && state != 'Z') {
			is_left = true;
			kill(pid, SIGKILL);
		}
	}
	closedir(folder);
	return !is_left;
}

void kept_guard(struct daemon *daemon)
{
	const pid_t session = daemon->pid;
	int ends[2];
	char byte;

	pipe_open(ends);
	daemon->guard_fd = ends[1];
	daemon->guard = fork();
	if (daemon->guard < 0)
		fail_msg("fork: %s", strerror(errno));
	if (daemon->guard) {
		close(ends[0]);
		return;
	}
	close(ends[1]);
	signal(SIGINT, SIG_IGN);
	signal(SIGTERM, SIG_IGN);
	while (read(ends[0], &byte, 1) < 0 && errno == EINTR)
		;
	while (!session_end(session))
		;
	_exit(0);
}

void kept_end(struct daemon *daemon)
{
	close(daemon->guard_fd);
	child_reap(daemon->guard);
	daemon->is_kept = false;
}

/* -- Successors --- */
static void link_program(const struct daemon *daemon, const char *program)
{
	char real[4096], path[128], link[128];

	snprintf(path, sizeof(path), "%s/tierd.new", daemon->folder);
	snprintf(link, sizeof(link), "%s/tierd", daemon->folder);
	if (!realpath(program, real) || symlink(real, path) || rename(path, link))
		fail_msg("cannot link %s to %s: %s", link, program, strerror(errno));
}

void daemon_replace_program(const struct daemon *daemon, const char *program)
{
	char path[4096];

	snprintf(path, sizeof(path), "%s/tierd", build_folder());
	link_program(daemon, program ? program : path);
}

/* The only child of who keeps it; 0: there is none at the moment */
static pid_t child_of(pid_t keeper)
{
	struct dirent *entry;
	DIR *folder = opendir("/proc");
	pid_t parent, session, found = 0;
	char state;

	assert_non_null(folder);
	while (!found && (entry = readdir(folder))) {
		pid_t pid = atoi(entry->d_name);

		if (pid > 0 && process_stat(pid, &parent, &session, &state) && parent == keeper && state != 'Z')
			found = pid;
	}
	closedir(folder);
	return found;
}

pid_t daemon_main_pid(const struct daemon *daemon)
{
	pid_t pid;

	assert_true(daemon->is_kept);
	wait_until("a daemon that is kept", (pid = child_of(daemon->pid)));
	return pid;
}

/* A client that asks waits in the socket's queue; a daemon may die while it does. */
static pid_t serving_pid(const struct daemon *daemon)
{
	struct tier_conn_opts opts = { .size = sizeof(opts), .socket = daemon->socket, .timeout_ns = TEST_DEADLINE_NS };
	struct tier_conn *conn;
	struct wire_stats stats;
	pid_t pid = 0;

	if (tier_connect(&conn, &opts))
		return 0;
	if (!tier_stats(conn, &stats))
		pid = stats.pid;
	tier_disconnect(conn);
	return pid;
}

void daemon_await_successor(const struct daemon *daemon, pid_t before)
{
	pid_t pid;

	wait_until("a successor that serves", (pid = serving_pid(daemon)) && pid != before);
}

void daemon_kill_main(struct daemon *daemon)
{
	const pid_t pid = daemon_main_pid(daemon);

	if (kill(pid, SIGKILL))
		fail_msg("kill %d: %s", (int)pid, strerror(errno));
	daemon_await_successor(daemon, pid);
}

void daemon_restart_main(struct daemon *daemon)
{
	const pid_t pid = daemon_main_pid(daemon);

	if (kill(daemon->pid, SIGHUP))
		fail_msg("kill %d: %s", (int)daemon->pid, strerror(errno));
	daemon_await_successor(daemon, pid);
}
