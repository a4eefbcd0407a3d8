/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include "util/base.h"
#include "util/error.h"
#include "util/log.h"
#include "worker/nursery.h"

/* down ──pause over──► starting ──"ready"──► ready
 *   ▲                      │                   │
 *   └── channel closed, no answer in time ─────┘
 *
 * A zygote that lived for a while is replaced at once, one that died early after a pause that doubles. */

#define NURSERY_PATIENCE_NS 10000000000u	/* for a start or an answer */
#define NURSERY_LIVED_NS 1000000000u		/* alive this long: its end was not its start's fault */
#define NURSERY_PAUSE_NS 100000000u
#define NURSERY_PAUSE_SHIFT_MAX 7		/* up to 12.8 s */
#define NURSERY_HOPELESS 3

static int nursery_dispatch(struct dispatch_file *file, uint32_t events);

/* The program gets the channel, the log, and no other descriptor, whatever the daemon itself inherited.
 * posix_spawn() shares memory with the daemon until exec: no page table of a large daemon is copied in the loop's turn. */
static int spawn_program(pid_t *ret, const char *path, int fd)
{
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	sigset_t none, all;
	char *argv[] = { (char *)path, NULL };
	int r;

	sigemptyset(&none);
	sigfillset(&all);
	posix_spawn_file_actions_init(&actions);
	posix_spawnattr_init(&attributes);
	posix_spawnattr_setsigmask(&attributes, &none);
	posix_spawnattr_setsigdefault(&attributes, &all);
	posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
	r = posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
	if (!r)
		r = posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
	if (!r)
		r = posix_spawn_file_actions_adddup2(&actions, fd, ZYGOTE_FD);
	if (!r)
		r = posix_spawn_file_actions_addclosefrom_np(&actions, ZYGOTE_FD + 1);
	if (!r)
		r = posix_spawn(ret, path, &actions, &attributes, argv, environ);
	posix_spawnattr_destroy(&attributes);
	posix_spawn_file_actions_destroy(&actions);
	return -r;
}

static int nursery_spawn(struct nursery *nursery)
{
	int sockets[2];
	int r;

	/* Not O_NONBLOCK: the zygote waits for requests, and the daemon says MSG_DONTWAIT each time. */
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets) < 0)
		return error_origin(-errno);
	nursery->fd = sockets[0];
	r = spawn_program(&nursery->pid, nursery->path, sockets[1]);
	close(sockets[1]);
	if (r) {
		nursery->pid = 0;
		return r;
	}
	nursery->pidfd = syscall(SYS_pidfd_open, nursery->pid, 0);
	if (nursery->pidfd < 0)
		return error_origin(-errno);
	return error_fold(dispatch_file_init(&nursery->file, nursery->dispatch, nursery_dispatch, "zygote", nursery->fd, EPOLLIN));
}

static void nursery_close(struct nursery *nursery)
{
	dispatch_timer_disarm(&nursery->timer);
	dispatch_file_deinit(&nursery->file);
	nursery->fd = close_fd(nursery->fd);
	graveyard_bury(nursery->graveyard, TAKE_FD(nursery->pidfd));
	nursery->pid = 0;
	nursery->ready = false;
	nursery->n_asked = 0;
}

static void nursery_lose(struct nursery *nursery, const char *why)
{
	uint64_t now = clock_now_ns(), pause = 0;

	if (nursery->ready && now - nursery->started_ns > NURSERY_LIVED_NS)
		nursery->n_failed = 0;
	else
		pause = NURSERY_PAUSE_NS << MIN(nursery->n_failed++, (uint32_t)NURSERY_PAUSE_SHIFT_MAX);
	log_line(LOG_WARNING, "compile workers: %s: %s; next start in %u ms", nursery->path, why, (unsigned int)(pause / 1000000));
	nursery_close(nursery);
	dispatch_timer_arm(&nursery->timer, now + pause);
	nursery->events->lost(nursery, nursery->n_failed >= NURSERY_HOPELESS);
}

static void nursery_start(struct nursery *nursery)
{
	int r;

	nursery->started_ns = clock_now_ns();
	dispatch_timer_arm(&nursery->timer, nursery->started_ns + NURSERY_PATIENCE_NS);
	r = nursery_spawn(nursery);
	if (r)
		nursery_lose(nursery, strerror(-r));
}

static void nursery_answer(struct nursery *nursery, const struct zygote_reply *reply, int fds[2])
{
	if (!reply->id) {
		dispatch_timer_disarm(&nursery->timer);
		nursery->ready = true;
		nursery->compiler = reply->compiler;
		log_event(LOG_WORKER, LOG_INFO100, "zygote %d is ready", (int)nursery->pid);
		nursery->events->ready(nursery);
		return;
	}
	if (!--nursery->n_asked)
		dispatch_timer_disarm(&nursery->timer);
	nursery->events->born(nursery, reply, TAKE_FD(fds[0]), TAKE_FD(fds[1]));
}

/* What the zygote may say now: ready, once; then an answer per question, with both descriptors or an error. */
static bool nursery_expects(const struct nursery *nursery, const struct zygote_reply *reply, const int fds[2])
{
	if (!reply->id)
		return !nursery->ready;
	return nursery->n_asked && (reply->error ? fds[0] < 0 && fds[1] < 0 : fds[0] >= 0 && fds[1] >= 0);
}

static int nursery_dispatch(struct dispatch_file *file, uint32_t events)
{
	struct nursery *nursery = container_of(file, struct nursery, file);
	struct zygote_reply reply;
	int fds[2] = { -1, -1 };
	int r;

	r = channel_receive(nursery->fd, &reply, sizeof(reply), fds, 2, MSG_DONTWAIT);
	if (r == -EAGAIN)
		return 0;
	if (!r && nursery_expects(nursery, &reply, fds))
		nursery_answer(nursery, &reply, fds);
	else
		nursery_lose(nursery, r == CHANNEL_E_CLOSED ? "it ended" : "it said what makes no sense");
	close_fd(fds[0]);
	close_fd(fds[1]);
	return 0;
}

static int nursery_on_timer(struct dispatch_timer *timer, uint64_t now_ns)
{
	struct nursery *nursery = container_of(timer, struct nursery, timer);

	if (nursery->pid)
		nursery_lose(nursery, "it did not answer in time");
	else
		nursery_start(nursery);
	return 0;
}

void nursery_init(struct nursery *nursery, struct dispatch *dispatch, struct graveyard *graveyard,
		  const struct nursery_events *events, const char *path)
{
	*nursery = (struct nursery)NURSERY_NULL;
	nursery->dispatch = dispatch;
	nursery->graveyard = graveyard;
	nursery->events = events;
	nursery->path = path;
	nursery->file = (struct dispatch_file)DISPATCH_FILE_NULL(nursery->file);
	dispatch_timer_init(&nursery->timer, dispatch, nursery_on_timer, "zygote");
	nursery_start(nursery);
}

void nursery_deinit(struct nursery *nursery)
{
	nursery_close(nursery);
}

void nursery_ask(struct nursery *nursery, uint64_t id, uid_t uid, uint64_t memory_limit)
{
	struct zygote_request request = { .id = id, .memory_limit = memory_limit, .uid = uid };

	/* Its patience begins with the first question; for one that cannot even be sent nobody waits. */
	if (!nursery->n_asked++)
		dispatch_timer_arm(&nursery->timer, clock_now_ns() + NURSERY_PATIENCE_NS);
	if (channel_send(nursery->fd, &request, sizeof(request), NULL, 0))
		dispatch_timer_arm(&nursery->timer, clock_now_ns());
}
