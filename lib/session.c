/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>
#include "connection.h"
#include "error.h"
#include "module.h"
#include "sync.h"
#include "sys.h"

/* Sessions, and getting another one when the daemon is gone
 *
 *   a lane that is broken   HELLO with the session's token   the session is there: only this lane was lost
 *   else                    HELLO ──► WELCOME + probe page   map it, call its hello site with the nonce
 *                           PROBED ─► PATH                   the daemon says whether the kernel saw that call
 *                           ATTACH ─► MODULE + segments      each module that is open: is it the one that we have mapped?
 *
 * The first lane that needs the daemon makes the session, whichever it is: an API request's, a cold call's, a cursor's; the others
 * join when somebody needs them. Nobody ever waits for a lock of another lane: who makes a session only shuts the other lanes of
 * the old one down, so that those who sleep there wake, and find by themselves that theirs is broken. So a signal handler may
 * have a cold call while the thread under it sleeps on an answer, with the API lane's lock.
 *
 * All of it happens under page->recovery, with signals blocked but in tier_connect(), on a connection of its own
 * (tier_conn.fresh), which becomes the lane's only when it is a whole one (lane_adopt()). A fork in the middle finds the lock
 * free, no session, and closes its copy.
 *
 * The daemon that answers may be another one, which knows nothing of ours, or gives our modules' numbers to others. So a
 * module is recognized by the file behind its records; one that is not there is nobody's from then on (tier_module.is_orphan),
 * and nothing is asked about it. */

#define SESSION_REST_NS 200000000u	/* so long all after WELCOME may take at least: then there is a daemon, and it answers */

static bool session_is_made(const struct tier_conn *conn)
{
	return conn->session[0] || conn->session[1];
}

static int session_hello(struct tier_conn *conn, enum wire_lane kind, const uint64_t session[2], struct wire_welcome *welcome,
			 int *ret_fd, uint64_t deadline_ns, const uint64_t *mask)
{
	struct wire_hello hello = { .session = { session[0], session[1] }, .lane = kind };
	int fds[LANE_FDS_MAX], r;
	uint32_t n_fds = 0;

	text_copy(hello.program, sizeof(hello.program), conn->program);
	r = lane_request(&conn->fresh, &(struct request){ .type = WIRE_HELLO, .body = &hello, .fd = -1, .reply_type = WIRE_WELCOME,
							  .reply = welcome, .fds = fds, .n_fds = &n_fds,
							  .deadline_ns = deadline_ns, .mask = mask });
	if (r < 0)
		return r;
	*ret_fd = n_fds ? fds[0] : -1;
	while (n_fds > 1)
		sys_close(fds[--n_fds]);
	return 0;
}

/* -- The next session --- */
static struct probe_page *session_probe(struct tier_conn *conn, int fd, uint64_t nonce)
{
	struct probe_page *const page = fd >= 0 ? probe_map(&conn->pages, fd) : NULL;

	if (page)
		probe_fire(page, TIER_PROBE_HELLO, nonce, 0, 0);
	if (fd >= 0)
		sys_close(fd);
	return page;
}

/* Tells the daemon that the hello site was called, and learns the path. */
static int session_settle(struct tier_conn *conn, struct probe_page *page, uint64_t nonce, uint64_t deadline_ns,
			  const uint64_t *mask)
{
	const struct wire_probed probed = { .nonce = nonce, .mapped = page != NULL };
	struct wire_path path;
	int r;

	r = lane_request(&conn->fresh, &(struct request){ .type = WIRE_PROBED, .body = &probed, .fd = -1,
							  .reply_type = WIRE_PATH, .reply = &path,
							  .deadline_ns = deadline_ns, .mask = mask });
	if (r < 0)
		return r;
	path.why[sizeof(path.why) - 1] = 0;
	text_copy(conn->why[conn->n_sessions % 2], WIRE_TEXT_MAX, path.why);
	conn->path = page && path.path == WIRE_PATH_KERNEL ? WIRE_PATH_KERNEL : WIRE_PATH_SOCKET;
	/* Synchronizes with the acquire loads of who rings: a page before the word that it is of use. */
	__atomic_store_n(&conn->probes, page, __ATOMIC_RELEASE);
	__atomic_store_n(&conn->sites, conn->path == WIRE_PATH_KERNEL ? path.sites : 0, __ATOMIC_RELEASE);
	return 0;
}

/* A daemon gives one number to one module only, so what we did not mean by it we need not hold. */
static int session_detach(struct lane *lane, uint64_t module, uint64_t deadline_ns, const uint64_t *mask)
{
	const struct wire_module_ref ref = { .module = module };
	int r;

	r = lane_request(lane, &(struct request){ .type = WIRE_DETACH, .body = &ref, .fd = -1, .reply_type = WIRE_DONE,
						  .deadline_ns = deadline_ns, .mask = mask });
	return r == -ETIMEDOUT || lane_is_broken(lane) ? r : 0;
}

/* The session holds again what the program has open. Others may open and close meanwhile, so look anew each time. What the
 * daemon refuses concerns that module only. */
static int session_attach(struct tier_conn *conn, struct lane *lane, uint64_t deadline_ns, const uint64_t *mask)
{
	struct wire_attach attach = { 0 };
	int fds[LANE_FDS_MAX], r;
	uint32_t n_fds;
	bool is_known;

	while ((attach.ref.module = module_next_unattached(conn))) {
		n_fds = 0;
		r = lane_request(lane, &(struct request){ .type = WIRE_ATTACH, .body = &attach, .fd = -1, .reply_type = WIRE_MODULE,
							  .fds = fds, .n_fds = &n_fds, .deadline_ns = deadline_ns, .mask = mask });
		if (r == -ETIMEDOUT || lane_is_broken(lane))
			return r;
		is_known = module_attached(conn, attach.ref.module, r, n_fds == _TIER_SEGMENT_N ? fds[TIER_SEGMENT_RECORDS] : -1);
		while (n_fds)
			sys_close(fds[--n_fds]);
		if (!r && !is_known)
			r = session_detach(lane, attach.ref.module, deadline_ns, mask);
		else
			r = 0;
		if (r < 0)
			return r;
	}
	return 0;
}

/* Whoever sleeps on a lane of a session that is over wakes. Descriptors change under page->recovery only. */
static void session_abandon(struct tier_conn *conn)
{
	lane_shut(&conn->api);
	lane_shut(&conn->prestub);
	lane_shut(&conn->slots.lane);
}

static int session_make(struct tier_conn *conn, enum wire_lane kind, uint64_t deadline_ns, const uint64_t *mask)
{
	static const uint64_t none[2];
	struct wire_welcome welcome;
	struct probe_page *page;
	int fd, r;

	conn->session[0] = conn->session[1] = 0;
	session_abandon(conn);
	r = session_hello(conn, kind, none, &welcome, &fd, deadline_ns, mask);
	if (r < 0)
		return r;
	if (deadline_ns < deadline_after(SESSION_REST_NS))
		deadline_ns = deadline_after(SESSION_REST_NS);
	__atomic_fetch_add(&conn->n_sessions, 1, __ATOMIC_RELEASE);
	page = session_probe(conn, fd, welcome.nonce);
	r = session_settle(conn, page, welcome.nonce, deadline_ns, mask);
	if (!r)
		r = session_attach(conn, &conn->fresh, deadline_ns, mask);
	if (!r)
		memcpy(conn->session, welcome.session, sizeof(conn->session));
	return r;
}

/* -- Its lanes --- */
static int session_join(struct tier_conn *conn, enum wire_lane kind, uint64_t deadline_ns, const uint64_t *mask)
{
	struct wire_welcome welcome;
	int fd, r;

	r = session_hello(conn, kind, conn->session, &welcome, &fd, deadline_ns, mask);
	if (!r && fd >= 0)
		sys_close(fd);
	return r;
}

/* -EACCES is what the daemon says of a token that it does not know: it listens on. */
static int session_greet(struct tier_conn *conn, enum wire_lane kind, unsigned int flags, uint64_t deadline_ns, const uint64_t *mask)
{
	int r = -EACCES;

	if (session_is_made(conn))
		r = session_join(conn, kind, deadline_ns, mask);
	if (r != -EACCES)
		return r;
	if (flags & SESSION_JOIN_ONLY)
		return error_set(-ECONNRESET, "the session with the daemon at %s is over", conn->address.sun_path);
	return session_make(conn, kind, deadline_ns, mask);
}

int session_connect(struct tier_conn *conn, struct lane *lane, enum wire_lane kind, unsigned int flags, uint64_t deadline_ns,
		    const uint64_t *mask)
{
	int r;

	conn->fresh = conn_lane(conn);
	r = lane_open(&conn->fresh, deadline_ns);
	if (!r)
		r = session_greet(conn, kind, flags, deadline_ns, mask);
	if (r < 0) {
		if (__atomic_load_n(&conn->page->mine, __ATOMIC_ACQUIRE))	/* else it is a fork's copy: see fork_forget() */
			lane_close(&conn->fresh);
		return r;
	}
	lane_adopt(lane, &conn->fresh);
	/* In this order here, and in the other one in tier_disconnect(): one of the two shuts the lane. */
	if (__atomic_load_n(&conn->is_closed, __ATOMIC_SEQ_CST))
		lane_shut(lane);
	return 0;
}

/* What a daemon that is about to come, or one that was about to go, makes of an attempt */
static bool session_is_unreachable(int r)
{
	return r == -ENOENT || r == -ECONNREFUSED || r == -ECONNRESET || r == -EPIPE || r == -ETIMEDOUT || r == -EAGAIN;
}

int session_renew(struct tier_conn *conn, struct lane *lane, enum wire_lane kind, unsigned int flags, uint64_t deadline_ns)
{
	int r;

	r = lock_take(&conn->page->recovery, deadline_ns);
	if (!r) {
		r = session_connect(conn, lane, kind, flags, deadline_ns, NULL);
		lock_give(&conn->page->recovery);
	}
	if (session_is_unreachable(r))
		return error_set(-ECONNRESET, "the connection to the daemon at %s is lost, cannot connect to another: %s",
				 conn->address.sun_path, error_word(r));
	return r;
}

int session_hold(struct tier_conn *conn, uint64_t deadline_ns)
{
	int r;

	r = lock_take(&conn->page->recovery, deadline_ns);
	if (r < 0)
		return error_set(r, "another thread is still connecting to the daemon at %s", conn->address.sun_path);
	r = session_attach(conn, &conn->api, deadline_ns, NULL);
	lock_give(&conn->page->recovery);
	return r;
}

void session_end(struct tier_conn *conn)
{
	probe_unmap_all(&conn->pages);
	conn->probes = NULL;
	lane_close(&conn->fresh);
	lane_close(&conn->prestub);
	lane_close(&conn->api);
}
