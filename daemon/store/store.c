/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "store/names.h"
#include "store/store.h"
#include "util/base.h"
#include "util/error.h"
#include "util/hash.h"
#include "util/log.h"

#ifdef HAVE_SYSTEMD
#include <systemd/sd-daemon.h>
#endif

#define PASSED_FIRST 3	      /* sd_listen_fds(3) */
#define PASSED_MAX (1u << 16) /* more than LISTEN_FDNAMES can name */
#define N_BUCKETS 4096u
#define OWN_FD_PREFIX "/proc/self/fd/"

/* A name in the manager's store */
struct entry {
	struct entry *next;
	int fd;	     /* passed to us, and nobody took it; else -1 */
	uint32_t n;  /* descriptors stored under it */
	char sent[]; /* the short name */
};

struct store {
	bool has_manager, is_stopping;
	atomic_bool is_gone; /* the manager, that is */
	atomic_bool has_complained;
	uint64_t watchdog_ns;
	int listener;			/* passed, and nobody took it; else -1 */
	char (*passed)[STORE_NAME_MAX]; /* the short names, for walks */
	uint32_t n_passed;
	char walked[STORE_NAME_MAX];
	pthread_mutex_t lock; /* for what is below */
	struct entry *buckets[N_BUCKETS];
	size_t n_bytes;	   /* what LISTEN_FDNAMES will need */
	uint64_t n_max, n; /* descriptors */
};

/* -- The table of what is stored; locked by the caller, or nobody else is there yet --- */
static struct entry **entry_place(struct store *store, const char *sent)
{
	struct entry **place = &store->buckets[hash_fnv(HASH_FNV_BASIS, sent, strlen(sent)) % N_BUCKETS];

	while (*place && strcmp((*place)->sent, sent))
		place = &(*place)->next;
	return place;
}

/* One descriptor more of that name: 0, -E2BIG, -ENOMEM */
static int entry_add(struct store *store, const char *sent, struct entry **ret)
{
	const size_t n = strlen(sent) + 1;
	struct entry **place = entry_place(store, sent);

	if (store->n_bytes + n > NAMES_BYTES_MAX || store->n >= store->n_max)
		return -E2BIG;
	if (!*place) {
		*place = calloc(1, sizeof(**place) + n);
		if (!*place)
			return -ENOMEM;
		(*place)->fd = -1;
		memcpy((*place)->sent, sent, n);
	}
	(*place)->n++;
	store->n_bytes += n;
	store->n++;
	*ret = *place;
	return 0;
}

/* @n: how many of that name are gone */
static void entry_drop(struct store *store, const char *sent, uint32_t n)
{
	struct entry **place = entry_place(store, sent), *entry = *place;

	if (!entry)
		return;
	n = MIN(n, entry->n);
	store->n_bytes -= n * (strlen(sent) + 1);
	store->n -= n;
	entry->n -= n;
	if (entry->n)
		return;
	*place = entry->next;
	close_fd(entry->fd);
	free(entry);
}

/* -- Messages --- */
#ifdef HAVE_SYSTEMD
static void manager_gone(struct store *store)
{
	if (!atomic_exchange(&store->is_gone, true) && !store->is_stopping)
		log_line(LOG_WARNING, "the service manager is gone: nothing is kept for a successor any more");
}

/* What came of a message: 0, also when nobody is there to be told, or -errno */
static int told(struct store *store, int r)
{
	if (r != -ECONNREFUSED && r != -ENOENT && r != -EPIPE)
		return MIN(r, 0);
	manager_gone(store);
	return 0;
}

static int tell(struct store *store, const char *text, int fd)
{
	int r;

	if (!store_is_kept(store))
		return 0;
	do
		r = sd_pid_notify_with_fds(0, 0, text, &fd, fd >= 0);
	while (r == -EINTR);
	return told(store, r);
}

/* False: it is of a kind that only libsystemd knows. */
static bool manager_address(struct sockaddr_un *ret, socklen_t *ret_n)
{
	const char *path = getenv("NOTIFY_SOCKET");
	const size_t n = path ? strlen(path) : 0;

	*ret = (struct sockaddr_un){ .sun_family = AF_UNIX };
	if (!n || n >= sizeof(ret->sun_path) || !strchr("/@", *path))
		return false;
	memcpy(ret->sun_path, path, n);
	*ret_n = offsetof(struct sockaddr_un, sun_path) + n + (*path == '/');
	if (*path == '@')
		*ret->sun_path = '\0';
	return true;
}

/* Without waiting, which libsystemd cannot: a manager that stands still with a full queue must not stop the loop, and
 * has messages enough to read. */
static void tell_now(struct store *store, const char *text)
{
	_cleanup_(closep) int fd = -1;
	struct sockaddr_un address;
	socklen_t n;

	if (!store_is_kept(store))
		return;
	if (!manager_address(&address, &n)) {
		tell(store, text, -1);
		return;
	}
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd >= 0 && sendto(fd, text, strlen(text), MSG_DONTWAIT | MSG_NOSIGNAL, (struct sockaddr *)&address, n) < 0)
		told(store, -errno);
}

bool store_can_be_kept(void) { return true; }

static void open_manager(struct store *store)
{
	const char *path = getenv("NOTIFY_SOCKET");
	uint64_t us;
	int fd;

	store->has_manager = path && *path;
	if (store->has_manager && sd_watchdog_enabled(1, &us) > 0)
		__builtin_mul_overflow(us, 1000, &store->watchdog_ns);
	/* The keeper's: that path is good in this process only, and must not become a worker's. */
	if (store->has_manager && !strncmp(path, OWN_FD_PREFIX, strlen(OWN_FD_PREFIX))) {
		fd = atoi(path + strlen(OWN_FD_PREFIX));
		(void)!fcntl(fd, F_SETFD, FD_CLOEXEC);
	}
}
#else
static int tell(struct store *store, const char *text, int fd) { return 0; }
static void tell_now(struct store *store, const char *text) {}

bool store_can_be_kept(void) { return false; }

static void open_manager(struct store *store)
{
	if (getenv("NOTIFY_SOCKET"))
		log_line(LOG_WARNING, "this tierd was built without libsystemd, so nothing is kept for a successor; "
				      "install libsystemd-dev "
				      "and build it again");
}
#endif

static void complain(struct store *store, const char *name, int r)
{
	if (atomic_exchange(&store->has_complained, true))
		return;
	if (r == -E2BIG)
		log_line(LOG_ERROR, "cannot keep %s for a successor: the service manager's store is full", name);
	else
		log_line(LOG_ERROR, "cannot keep %s for a successor: %s", name, strerrordesc_np(-r));
}

/* -- What was passed --- */
static bool is_our_listener(int fd)
{
	int domain, type, listens;
	socklen_t n = sizeof(int);

	return !getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &n) && domain == AF_UNIX
	       && !getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &n) && type == SOCK_SEQPACKET
	       && !getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &n) && listens;
}

/* The manager has it from now on, whether we can use it or not. */
static void passed_add(struct store *store, const char *sent, int fd)
{
	struct entry *entry;
	int r;

	if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0) {
		log_line(LOG_WARNING, "descriptor %d, which was to be passed as '%s', is ignored: %s", fd, sent,
			 strerrordesc_np(errno));
		return;
	}
	r = entry_add(store, sent, &entry);
	if (!r && store->listener < 0 && is_our_listener(fd)) {
		store->listener = fd;
		return;
	}
	if (!r && entry->n == 1) {
		entry->fd = fd;
		snprintf(store->passed[store->n_passed++], STORE_NAME_MAX, "%s", sent);
		return;
	}
	log_line(LOG_WARNING, "descriptor %d is ignored: %s '%s'", fd, r ? "no room for" : "another one was passed as", sent);
	close(fd);
}

/* How many descriptors are passed to this very process; 0: none */
static uint32_t passed_count(void)
{
	const char *pid = getenv("LISTEN_PID"), *number = getenv("LISTEN_FDS");
	unsigned long n;
	char *end;

	if (!pid || !number)
		return 0;
	if (strtoul(pid, &end, 10) != (unsigned long)getpid() || *end) {
		log_line(LOG_WARNING, "passed descriptors are ignored: they are for process '%s'", pid);
		return 0;
	}
	errno = 0;
	n = strtoul(number, &end, 10);
	if (errno || !*number || *end || *number == '-' || n > PASSED_MAX) {
		log_line(LOG_WARNING, "passed descriptors are ignored: there cannot be '%s'", number);
		return 0;
	}
	return n;
}

static void passed_name(const char **at, char ret[static STORE_NAME_MAX])
{
	size_t n = *at ? strcspn(*at, ":") : 0;

	snprintf(ret, STORE_NAME_MAX, "%.*s", *at ? (int)MIN(n, STORE_NAME_MAX - 1) : 7, *at ? *at : "unknown");
	for (char *c = ret; *c; c++)
		if ((unsigned char)*c <= ' ') /* it may go back in a message, whose lines are assignments */
			*c = '?';
	*at = *at && (*at)[n] ? *at + n + 1 : NULL;
}

static int open_passed(struct store *store)
{
	const char *names = getenv("LISTEN_FDNAMES");
	const uint32_t n = passed_count();
	uint32_t n_unnamed = 0;
	char sent[STORE_NAME_MAX];

	if (!n)
		return 0;
	store->passed = calloc(n, sizeof(*store->passed));
	if (!store->passed)
		return error_origin(-ENOMEM);
	for (uint32_t i = 0; i < n; i++) {
		n_unnamed += !names;
		passed_name(&names, sent);
		passed_add(store, sent, PASSED_FIRST + i);
	}
	if (n_unnamed && n_unnamed < n)
		log_line(LOG_WARNING, "%u of %u passed descriptors have no name", n_unnamed, n);
	if (names)
		log_line(LOG_WARNING, "names of passed descriptors are ignored: '%s', where there is no descriptor any more",
			 names);
	return 0;
}

/* With FDSTORE, which newer managers set, they say how many descriptors they keep. */
static uint64_t open_limit(void)
{
	const char *text = getenv("FDSTORE");
	char *end;
	unsigned long n = text ? strtoul(text, &end, 10) : 0;

	return text && *text && !*end ? n : UINT64_MAX;
}

int store_open(struct store **ret)
{
	static const char *const variables[] = { "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "FDSTORE" };
	_cleanup_(store_freep) struct store *store = calloc(1, sizeof(*store));
	int r;

	if (!store)
		return error_origin(-ENOMEM);
	store->listener = -1;
	store->n_max = UINT64_MAX; /* what is passed was kept */
	pthread_mutex_init(&store->lock, NULL);
	open_manager(store);
	r = open_passed(store);
	if (r)
		return error_fold(r);
	store->n_max = open_limit();
	store->has_manager = store->has_manager && store->n_max;
	for (size_t i = 0; i < ARRAY_SIZE(variables); i++)
		unsetenv(variables[i]);
	*ret = TAKE_PTR(store);
	return 0;
}

struct store *store_free(struct store *store)
{
	struct entry *entry;

	if (!store)
		return NULL;
	for (size_t i = 0; i < N_BUCKETS; i++)
		while ((entry = store->buckets[i])) {
			store->buckets[i] = entry->next;
			close_fd(entry->fd);
			free(entry);
		}
	close_fd(store->listener);
	pthread_mutex_destroy(&store->lock);
	free(store->passed);
	free(store);
	return NULL;
}

bool store_is_kept(const struct store *store) { return store->has_manager && !atomic_load(&store->is_gone); }

static int take_sent(struct store *store, const char *sent)
{
	struct entry *entry;
	int fd = -1;

	pthread_mutex_lock(&store->lock);
	entry = *entry_place(store, sent);
	if (entry)
		fd = TAKE_FD(entry->fd);
	pthread_mutex_unlock(&store->lock);
	return fd;
}

int store_take(struct store *store, const char *name)
{
	char sent[STORE_NAME_MAX];

	name_shorten(name, sent);
	return take_sent(store, sent);
}

int store_take_listener(struct store *store) { return TAKE_FD(store->listener); }

static bool is_untaken(struct store *store, const char *sent)
{
	struct entry *entry;
	bool is;

	pthread_mutex_lock(&store->lock);
	entry = *entry_place(store, sent);
	is = entry && entry->fd >= 0;
	pthread_mutex_unlock(&store->lock);
	return is;
}

const char *store_next(struct store *store, uint32_t *at)
{
	while (*at < store->n_passed) {
		const char *sent = store->passed[(*at)++];

		if (is_untaken(store, sent)) {
			name_expand(sent, store->walked);
			return store->walked;
		}
	}
	return NULL;
}

/* -- Put and remove --- */
static void remove_sent(struct store *store, const char *sent)
{
	char text[STORE_NAME_MAX + 32];

	snprintf(text, sizeof(text), "FDSTOREREMOVE=1\nFDNAME=%s", sent);
	tell(store, text, -1);
	pthread_mutex_lock(&store->lock);
	entry_drop(store, sent, UINT32_MAX);
	pthread_mutex_unlock(&store->lock);
}

void store_drop_rest(struct store *store)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < store->n_passed; i++)
		if (is_untaken(store, store->passed[i])) {
			remove_sent(store, store->passed[i]);
			n++;
		}
	store->listener = close_fd(store->listener);
	store->n_passed = 0;
	free(TAKE_PTR(store->passed));
	if (n)
		log_line(LOG_INFO, "%u passed descriptors are of no use and dropped", n);
}

/* Accounted for before it is sent, so that two threads together do not overfill it. */
int store_put(struct store *store, const char *name, int fd)
{
	char sent[STORE_NAME_MAX], text[STORE_NAME_MAX + 48];
	struct entry *entry;
	int r;

	if (!name_is_valid(name))
		return error_origin(-EINVAL);
	if (!store_is_kept(store))
		return 0;
	name_shorten(name, sent);
	pthread_mutex_lock(&store->lock);
	r = entry_add(store, sent, &entry);
	pthread_mutex_unlock(&store->lock);
	if (!r) {
		snprintf(text, sizeof(text), "FDSTORE=1\nFDPOLL=0\nFDNAME=%s", sent);
		r = tell(store, text, fd);
		if (r) {
			pthread_mutex_lock(&store->lock);
			entry_drop(store, sent, 1);
			pthread_mutex_unlock(&store->lock);
		}
	}
	if (r)
		complain(store, name, r);
	return error_origin(r);
}

void store_remove(struct store *store, const char *name)
{
	char sent[STORE_NAME_MAX];

	if (!store_is_kept(store) || !name_is_valid(name))
		return;
	name_shorten(name, sent);
	remove_sent(store, sent);
}

/* -- The daemon's life --- */
void store_tell_ready(struct store *store, const char *status)
{
	char text[256];

	snprintf(text, sizeof(text), "READY=1\nSTATUS=%.200s", status);
	tell(store, text, -1);
}

void store_tell_stopping(struct store *store)
{
	store->is_stopping = true;
	tell(store, "STOPPING=1", -1);
}

uint64_t store_watchdog_ns(const struct store *store) { return store->watchdog_ns; }

void store_feed_watchdog(struct store *store) { tell_now(store, "WATCHDOG=1"); }
