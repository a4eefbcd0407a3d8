/* SPDX-License-Identifier: Apache-2.0 */
#include "connection.h"
#include "error.h"
#include "object.h"
#include "sync.h"
#include "sys.h"

/* The daemon sends one descriptor along with OBJECT. */
static int precompile_send(struct tier_conn *conn, int fd, uint64_t timeout_ns)
{
	const struct wire_empty body = {0};
	int fds[LANE_FDS_MAX], r;
	uint32_t n_fds = 0;

	r = conn_request(conn, &(struct request){ .type = WIRE_PRECOMPILE, .body = &body, .fd = fd, .reply_type = WIRE_OBJECT,
						  .fds = fds, .n_fds = &n_fds, .deadline_ns = deadline_after(timeout_ns) });
	if (r < 0)
		return r;
	while (n_fds > 1)
		sys_close(fds[--n_fds]);
	return n_fds ? fds[0] : error_set(-EPROTO, "the daemon sent no descriptor of the object");
}

int tier_precompile(struct tier_conn *conn, const char *path, uint64_t timeout_ns)
{
	int fd, r;

	fd = object_of_file(path);
	if (fd < 0)
		return fd;
	r = precompile_send(conn, fd, timeout_ns);
	sys_close(fd);
	return r;
}
