/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* systemd as far as a daemon sees it: the listening socket of a socket unit, a notify socket, and a descriptor store
 * that keeps what it is sent while no daemon lives. Written from systemd's documentation, not from the keeper, which is
 * held to the same tests. */

#include <stdbool.h>
#include <sys/types.h>

#define MANAGER_FDS_MAX 16384

struct manager {
	char notify_path[128];
	int notify_fd;
	int listener; /* the socket unit's; -1: none */
	struct manager_fd {
		int fd;
		char name[64];
	} fds[MANAGER_FDS_MAX]; /* the oldest first */
	int n_fds;
	pid_t main_pid; /* whose messages count; 0: none */
	unsigned int n_ready, n_stopping, n_watchdogs, n_put, n_removed;
	char status[256];
};

/* Makes the notify socket @folder/notify and, unless @socket is NULL, the listening one. False: errno says why. */
bool manager_open(struct manager *manager, const char *folder, const char *socket);
void manager_close(struct manager *manager);
void manager_read(struct manager *manager);                        /* and does what all messages that there are say */
int manager_find(const struct manager *manager, const char *name); /* the newest of that name; -1 */

/* In a forked child: puts listener and store where a daemon expects them, and says so in the environment. @watchdog_us:
 * 0: none. False: errno says why. */
bool manager_pass(struct manager *manager, unsigned long watchdog_us);

/* Runs @argv as a service: started again when it dies, SIGHUP restarts it, SIGTERM stops it and drops the store. Writes
 * to @ready_fd when it is ready first. */
_Noreturn void manager_run(const char *folder, const char *socket, const char *const *argv, int ready_fd);
