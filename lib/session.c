/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>
#include "connection.h"
#include "error.h"
#include "sys.h"

/* Starting a session
 *
 *   API lane      HELLO ──► WELCOME + probe page    map it, call its hello site with the nonce
 *                 PROBED ─► PATH                    the daemon says whether the kernel saw that call
 *   prestub lane  HELLO with the session's token    so that a cold call never queues behind an API call
 *
 * Runs in tier_connect() and, in a fork, wherever the fork first notices. */

static int session_hello(struct lane *lane, struct wire_hello *hello, struct wire_welcome *welcome, int *ret_fd,
			 uint64_t deadline_ns, const uint64_t *mask)
{
	int fds[LANE_FDS_MAX], r;
	uint32_t n_fds = 0;

	r = lane_open(lane, deadline_ns);
	if (r < 0)
		return r;
	r = lane_request(lane, &(struct request){ .type = WIRE_HELLO, .body = hello, .fd = -1, .reply_type = WIRE_WELCOME,
						  .reply = welcome, .fds = fds, .n_fds = &n_fds,
						  .deadline_ns = deadline_ns, .mask = mask });
	if (r < 0)
		return r;
	*ret_fd = n_fds ? fds[0] : -1;
	while (n_fds > 1)
		sys_close(fds[--n_fds]);
	return 0;
}

static void session_probe(struct tier_conn *conn, int fd, uint64_t nonce)
{
	conn->probes = fd >= 0 ? probe_map(fd) : NULL;
	if (conn->probes)
		probe_fire(conn->probes, TIER_PROBE_HELLO, nonce, 0, 0);
	if (fd >= 0)
		sys_close(fd);
}

/* Tells the daemon that the hello site was called, and learns the path. */
static int session_settle(struct tier_conn *conn, uint64_t nonce, uint64_t deadline_ns, const uint64_t *mask)
{
	const struct wire_probed probed = { .nonce = nonce, .mapped = conn->probes != NULL };
	struct wire_path path;
	int r;

	r = lane_request(&conn->api, &(struct request){ .type = WIRE_PROBED, .body = &probed, .fd = -1,
							.reply_type = WIRE_PATH, .reply = &path,
							.deadline_ns = deadline_ns, .mask = mask });
	if (r < 0)
		return r;
	path.why[sizeof(path.why) - 1] = 0;
	conn->path = conn->probes && path.path == WIRE_PATH_KERNEL ? WIRE_PATH_KERNEL : WIRE_PATH_SOCKET;
	conn->sites = conn->path == WIRE_PATH_KERNEL ? path.sites : 0;
	text_copy(conn->why, sizeof(conn->why), path.why);
	return 0;
}

int session_join(struct tier_conn *conn, struct lane *lane, enum wire_lane kind, uint64_t deadline_ns, const uint64_t *mask)
{
	struct wire_hello hello = { .session = { conn->session[0], conn->session[1] }, .lane = kind };
	struct wire_welcome welcome;
	int fd, r;

	text_copy(hello.program, sizeof(hello.program), conn->program);
	r = session_hello(lane, &hello, &welcome, &fd, deadline_ns, mask);
	if (r < 0)
		return r;
	if (fd >= 0)
		sys_close(fd);
	return 0;
}

int session_start(struct tier_conn *conn, uint64_t deadline_ns, const uint64_t *mask)
{
	struct wire_hello hello = { .lane = WIRE_LANE_API };
	struct wire_welcome welcome;
	int fd, r;

	text_copy(hello.program, sizeof(hello.program), conn->program);
	r = session_hello(&conn->api, &hello, &welcome, &fd, deadline_ns, mask);
	if (r < 0)
		return r;
	memcpy(conn->session, welcome.session, sizeof(conn->session));
	session_probe(conn, fd, welcome.nonce);
	r = session_settle(conn, welcome.nonce, deadline_ns, mask);
	if (r < 0)
		return r;
	return session_join(conn, &conn->prestub, WIRE_LANE_PRESTUB, deadline_ns, mask);
}

void session_end(struct tier_conn *conn)
{
	probe_unmap(conn->probes);
	conn->probes = NULL;
	lane_close(&conn->prestub);
	lane_close(&conn->api);
}
