/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include "listen.h"
#include "tier/wire.h"
#include "util/base.h"
#include "util/error.h"
#include "util/log.h"

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
		log_line(LOG_ERROR, "--user needs XDG_RUNTIME_DIR or --socket");
		return -EINVAL;
	}
	if (n >= (int)sizeof(place->path)) {
		log_line(LOG_ERROR, "the socket's path is longer than %zu bytes", sizeof(place->path) - 1);
		return -ENAMETOOLONG;
	}
	return 0;
}

static int listen_make_folder(const char *path)
{
	char folder[sizeof(((struct listen_place *)0)->path)];
	char *slash;

	strcpy(folder, path);
	slash = strrchr(folder, '/');
	if (!slash || slash == folder)
		return 0;
	*slash = '\0';
	if (mkdir(folder, 0755) < 0 && errno != EEXIST) {
		log_line(LOG_ERROR, "cannot make the folder %s: %s", folder, strerrordesc_np(errno));
		return -errno;
	}
	return 0;
}

/* The lock file, not the socket, says whether a daemon lives: it goes with its process however that ends. */
static int listen_lock(struct listen_place *place)
{
	char path[sizeof(place->path) + 8];

	snprintf(path, sizeof(path), "%s.lock", place->path);
	place->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (place->lock_fd < 0) {
		log_line(LOG_ERROR, "cannot open %s: %s", path, strerrordesc_np(errno));
		return -errno;
	}
	if (flock(place->lock_fd, LOCK_EX | LOCK_NB) < 0) {
		log_line(LOG_ERROR, "another tierd serves %s; stop it, or choose another --socket", place->path);
		place->lock_fd = close_fd(place->lock_fd);	/* whoever has the lock owns the path */
		return -EADDRINUSE;
	}
	return 0;
}

int listen_open(struct listen_place *place, const char *path, bool user)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int r;

	*place = (struct listen_place)LISTEN_PLACE_NULL;
	r = listen_choose(place, path, user);
	if (!r)
		r = listen_make_folder(place->path);
	if (!r)
		r = listen_lock(place);
	if (r)
		return r;
	strcpy(address.sun_path, place->path);
	unlink(place->path);
	place->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (place->fd < 0)
		return error_origin(-errno);
	/* Who may do what is decided per request by the peer's uid, so everybody may connect to the system's daemon. */
	if (bind(place->fd, (struct sockaddr *)&address, sizeof(address)) < 0 || chmod(place->path, user ? 0600 : 0666) < 0
	    || listen(place->fd, SOMAXCONN) < 0) {
		r = -errno;
		log_line(LOG_ERROR, "cannot listen on %s: %s", place->path, strerrordesc_np(-r));
		return r;
	}
	return 0;
}

void listen_close(struct listen_place *place)
{
	if (place->lock_fd >= 0)
		unlink(place->path);
	place->fd = close_fd(place->fd);
	place->lock_fd = close_fd(place->lock_fd);
}
