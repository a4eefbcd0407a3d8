/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include "listen.h"
#include "tier/wire.h"
#include "util/base.h"
#include "util/dispatch.h"
#include "util/error.h"
#include "util/log.h"

#define LISTEN_ENDING_NS 5000000000u
#define LISTEN_SERVED_MAX 10u

static int listen_choose(struct listen_place *place, const char *path, bool user)
{
	const char *runtime = getenv("XDG_RUNTIME_DIR");
	int n;

	if (!path)
		path = getenv("TIERD_SOCKET");
	if (path && *path)
		n = snprintf(place->path, sizeof(place->path), "%s", path);
	else if (!user)
		n = snprintf(place->path, sizeof(place->path), "%s", WIRE_SOCKET_DEFAULT);
	else if (runtime && *runtime == '/')
		n = snprintf(place->path, sizeof(place->path), "%s/tierd.sock", runtime);
	else {
		log_line(LOG_ERROR, "--user needs XDG_RUNTIME_DIR, TIERD_SOCKET or --socket");
		return -EINVAL;
	}
	if (n >= (int)sizeof(place->path)) {
		log_line(LOG_ERROR, "the socket's path is longer than %zu bytes", sizeof(place->path) - 1);
		return -ENAMETOOLONG;
	}
	return 0;
}

/* The last part of the path, in its folder */
static const char *listen_name(const struct listen_place *place)
{
	const char *slash = strrchr(place->path, '/');

	return slash ? slash + 1 : place->path;
}

/* Whoever can write to the folder can put another socket there, or a link before bind(); with the sticky bit only its
 * owner. */
static int listen_check_folder(const struct listen_place *place, const char *folder)
{
	struct stat status;

	if (fstat(place->folder_fd, &status) < 0)
		return error_origin(-errno);
	if (!(status.st_mode & S_IWOTH) || status.st_mode & S_ISVTX)
		return 0;
	log_line(LOG_ERROR,
	         "everybody can write to the folder %s and replace the socket there; take that right away, or choose "
	         "another --socket",
	         folder);
	return -EPERM;
}

/* A slip of the user's must not cost a file: only what a daemon can have left, or a link, makes way for the socket. */
static bool listen_is_file(int folder, const char *name)
{
	struct stat status;

	return !fstatat(folder, name, &status, AT_SYMLINK_NOFOLLOW) && !S_ISSOCK(status.st_mode) && !S_ISLNK(status.st_mode);
}

static int listen_check_name(const struct listen_place *place)
{
	if (!listen_is_file(place->folder_fd, listen_name(place)))
		return 0;
	log_line(LOG_ERROR, "%s is there and is no socket; remove it, or choose another --socket", place->path);
	return -EEXIST;
}

static int listen_open_folder(struct listen_place *place)
{
	char folder[sizeof(place->path)];

	snprintf(folder, sizeof(folder), "%.*s", (int)(listen_name(place) - place->path), place->path);
	if (!*folder)
		strcpy(folder, ".");
	if (mkdir(folder, 0755) < 0 && errno != EEXIST) {
		log_line(LOG_ERROR, "cannot make the folder %s: %s", folder, strerrordesc_np(errno));
		return -errno;
	}
	place->folder_fd = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (place->folder_fd < 0) {
		log_line(LOG_ERROR, "cannot open the folder %s: %s", folder, strerrordesc_np(errno));
		return -errno;
	}
	return listen_check_folder(place, folder);
}

static bool is_same_file(int one, int folder, const char *name)
{
	struct stat a, b;

	return one >= 0 && !fstat(one, &a) && !fstatat(folder, name, &b, AT_SYMLINK_NOFOLLOW) && a.st_dev == b.st_dev &&
	       a.st_ino == b.st_ino;
}

/* As far as one can tell */
static bool listen_is_served(const struct listen_place *place)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	bool is_served;

	strcpy(address.sun_path, place->path);
	is_served = fd < 0 || !connect(fd, (struct sockaddr *)&address, sizeof(address)) ||
	            (errno != ECONNREFUSED && errno != ENOENT);
	close_fd(fd);
	return is_served;
}

/* A daemon that ends serves nobody any more for some tenths of a second, until the kernel has let go of its probes, and has the
 * lock all that time. Who stops one and starts the next at once need not know, nor that it serves until it has seen the signal. */
static int listen_wait_for_lock(const struct listen_place *place)
{
	const uint64_t deadline = clock_now_ns() + LISTEN_ENDING_NS;
	const struct timespec pause = {.tv_nsec = 20 * 1000 * 1000};
	unsigned int n_served = 0;

	while (flock(place->lock_fd, LOCK_EX | LOCK_NB) < 0) {
		if (errno != EWOULDBLOCK || clock_now_ns() > deadline)
			return -EADDRINUSE;
		if (listen_is_served(place) && ++n_served == LISTEN_SERVED_MAX)
			return -EADDRINUSE;
		nanosleep(&pause, NULL);
	}
	return 0;
}

/* The lock file, not the socket, says whether a daemon lives, or is to have a successor: the lock is held as long as
 * somebody has the descriptor open, however processes end. @kept: a predecessor's, or -1; taken. */
static int listen_lock(struct listen_place *place, int kept)
{
	char name[sizeof(place->path) + 8];

	snprintf(name, sizeof(name), "%s.lock", listen_name(place));
	if (is_same_file(kept, place->folder_fd, name)) {
		place->lock_fd = kept;
		return 0;
	}
	close_fd(kept);
	place->lock_fd = openat(place->folder_fd, name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (place->lock_fd < 0) {
		log_line(LOG_ERROR, "cannot open %s.lock: %s", place->path, strerrordesc_np(errno));
		return -errno;
	}
	if (listen_wait_for_lock(place) < 0) {
		log_line(LOG_ERROR, "another tierd serves %s; stop it, or choose another --socket", place->path);
		place->lock_fd = close_fd(place->lock_fd); /* whoever has the lock owns the path */
		return -EADDRINUSE;
	}
	return 0;
}

/* The socket has its mode from the start, from the umask: chmod() of the path would follow a link put there meanwhile.
 * Who may do what is decided per request by the peer's uid, so everybody may connect to the system's daemon. */
static int listen_bind(const struct listen_place *place, bool user)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	const mode_t old = umask(user ? 0177 : 0111);
	int r;

	strcpy(address.sun_path, place->path);
	r = bind(place->fd, (struct sockaddr *)&address, sizeof(address)) < 0 ? -errno : 0;
	umask(old);
	return r;
}

/* In the store before it listens: no client comes to a socket that would end with us. */
static int listen_bind_kept(struct listen_place *place, bool user, struct store *store)
{
	int r;

	unlinkat(place->folder_fd, listen_name(place), 0);
	place->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (place->fd < 0)
		return error_origin(-errno);
	r = listen_bind(place, user);
	if (!r) {
		store_remove(store, "lock"); /* one for a path that is no longer ours */
		store_put(store, "lock", place->lock_fd);
		store_put(store, "socket", place->fd);
		r = listen(place->fd, SOMAXCONN) < 0 ? -errno : 0;
	}
	if (r)
		log_line(LOG_ERROR, "cannot listen on %s: %s", place->path, strerrordesc_np(-r));
	return r;
}

static void path_of(int fd, char path[static sizeof(((struct listen_place *)0)->path) + 1])
{
	union {
		struct sockaddr_un address;
		char bytes[sizeof(struct sockaddr_un) + 1]; /* a path may come without its zero */
	} name = {.bytes = ""};
	socklen_t n = sizeof(name.address);

	if (getsockname(fd, (struct sockaddr *)&name.address, &n) < 0)
		n = 0;
	strcpy(path, n > offsetof(struct sockaddr_un, sun_path) ? name.address.sun_path : "");
}

/* Ours to remove if a predecessor bound it, which the lock says. */
static int listen_passed(struct listen_place *place, int fd, int lock, const char *chosen)
{
	char path[sizeof(place->path) + 1];

	path_of(fd, path);
	snprintf(place->path, sizeof(place->path), "%.*s", (int)sizeof(place->path) - 1,
	         *path ? path : "(a passed socket)");
	if (chosen && strcmp(chosen, place->path))
		log_line(LOG_WARNING, "--socket %s has no effect: the service manager passed %s", chosen, place->path);
	place->fd = fd;
	if (fcntl(fd, F_SETFL, O_NONBLOCK) < 0) {
		close_fd(lock);
		return error_origin(-errno);
	}
	if (lock >= 0 && listen_open_folder(place) == 0)
		return listen_lock(place, lock);
	close_fd(lock);
	return 0;
}

int listen_open(struct listen_place *place, const char *path, bool user, struct store *store)
{
	const int passed = store_take_listener(store), lock = store_take(store, "lock");
	int r;

	*place = (struct listen_place)LISTEN_PLACE_NULL;
	if (passed >= 0)
		return listen_passed(place, passed, lock, path);
	r = listen_choose(place, path, user);
	if (!r)
		r = listen_open_folder(place);
	if (!r)
		r = listen_check_name(place);
	if (r)
		close_fd(lock);
	else
		r = listen_lock(place, lock);
	return r ? r : listen_bind_kept(place, user, store);
}

void listen_close(struct listen_place *place, bool is_left)
{
	if (place->lock_fd >= 0 && !is_left && !listen_is_file(place->folder_fd, listen_name(place)))
		unlinkat(place->folder_fd, listen_name(place), 0); /* the daemon may be in another folder by now */
	place->folder_fd = close_fd(place->folder_fd);
	place->fd = close_fd(place->fd);
	place->lock_fd = close_fd(place->lock_fd);
}

void listen_remove(int listener, int lock)
{
	char path[sizeof(((struct listen_place *)0)->path) + 1], name[sizeof(path) + 8];

	path_of(listener, path);
	snprintf(name, sizeof(name), "%s.lock", path);
	if (*path && is_same_file(lock, AT_FDCWD, name) && !listen_is_file(AT_FDCWD, path))
		unlink(path);
}
