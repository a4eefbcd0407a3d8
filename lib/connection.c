/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "connection.h"
#include "error.h"
#include "sync.h"
#include "sys.h"

/* A connection is memory of its own, from mmap: malloc may be unusable where a fork recovers. It lives until the program
 * has disconnected, its modules are closed, and no cold call is under way; the numbers of its descriptors stay taken
 * until then, so that a thread on its way to using one never hits a stranger's. */

#define CONN_TIMEOUT_NS 30000000000ull
#define CONN_NOTE_RECOVERY_NS 200000000ull	/* in a fork; what is not told is found by the daemon's sweep, or told later */

static int conn_mine(struct tier_conn *conn)
{
	return __atomic_load_n(&conn->page->mine, __ATOMIC_ACQUIRE);
}

static void conn_destroy(struct tier_conn *conn)
{
	if (conn->page && conn_mine(conn))
		session_end(conn);
	else if (conn->page)
		fork_forget(conn);
	wiped_page_free((union wiped_page *)conn->page);
	sys_munmap(conn, sizeof(*conn));
}

void conn_ref(struct tier_conn *conn)
{
	__atomic_fetch_add(&conn->n_refs, 1, __ATOMIC_RELAXED);
}

void conn_unref(struct tier_conn *conn)
{
	if (__atomic_sub_fetch(&conn->n_refs, 1, __ATOMIC_ACQ_REL) == 0)
		conn_destroy(conn);
}

/* -- Options --- */
/* A process that forks may change its directory before the fork connects, so the path is made absolute. */
static int conn_set_socket(struct tier_conn *conn, const char *path)
{
	char *const to = conn->address.sun_path;
	size_t n_max = sizeof(conn->address.sun_path), n = 0;

	if (path[0] != '/' && getcwd(to, n_max - 1)) {
		n = strlen(to);
		to[n++] = '/';
	}
	if (n + strlen(path) >= n_max)
		n = 0;	/* better relative than not at all */
	if (strlen(path) >= n_max)
		return error_set(-ENAMETOOLONG, "the socket's path '%s' is longer than %u bytes", path, (unsigned int)n_max - 1);
	text_copy(to + n, n_max - n, path);
	conn->address.sun_family = AF_UNIX;
	return 0;
}

static int conn_choose_socket(struct tier_conn *conn, const char *path)
{
	const char *runtime = getenv("XDG_RUNTIME_DIR");
	char own[sizeof(conn->address.sun_path)];

	if (!path || !*path)
		path = getenv("TIERD_SOCKET");
	if (path && *path)
		return conn_set_socket(conn, path);
	if (runtime && *runtime) {
		text_format(own, sizeof(own), "%s/tierd.sock", runtime);
		if (access(own, F_OK) == 0)
			return conn_set_socket(conn, own);
	}
	return conn_set_socket(conn, WIRE_SOCKET_DEFAULT);
}

static int conn_configure(struct tier_conn *conn, const struct tier_conn_opts *opts)
{
	struct tier_conn_opts known = { 0 };

	if (opts && opts->size < sizeof(opts->size))
		return error_set(-EINVAL, "tier_conn_opts.size is %lu: set it to sizeof(struct tier_conn_opts)", opts->size);
	if (opts)
		memcpy(&known, opts, opts->size < sizeof(known) ? opts->size : sizeof(known));
	conn->timeout_ns = known.timeout_ns ? known.timeout_ns : CONN_TIMEOUT_NS;
	text_copy(conn->program, sizeof(conn->program), known.program ? known.program : program_invocation_short_name);
	return conn_choose_socket(conn, known.socket);
}

/* -- Life --- */
struct lane conn_lane(struct tier_conn *conn)
{
	return (struct lane){ .fd = -1, .mine = &conn->page->mine, .epoch = &conn->epoch, .address = &conn->address };
}

static int conn_new(struct tier_conn **ret)
{
	struct tier_conn *conn;
	int r;

	r = process_init();
	if (r < 0)
		return r;
	conn = sys_mmap(NULL, sizeof(*conn), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (sys_is_error(conn))
		return error_set(-ENOMEM, "out of memory");
	conn->page = (struct conn_page *)wiped_page_new();
	if (!conn->page) {
		conn_destroy(conn);
		return -ENOMEM;
	}
	conn->n_refs = 1;
	conn->page->mine = 1;
	conn->api = conn->prestub = conn->slots.lane = conn_lane(conn);
	*ret = conn;
	return 0;
}

int tier_connect(struct tier_conn **ret, const struct tier_conn_opts *opts)
{
	struct tier_conn *conn;
	uint64_t mask;
	int r;

	r = conn_new(&conn);
	if (r < 0)
		return r;
	r = conn_configure(conn, opts);
	if (!r) {
		mask = signals_block();
		r = session_start(conn, deadline_after(conn->timeout_ns), &mask);
		signals_restore(mask);
	}
	if (r < 0) {
		conn_unref(conn);
		return r;
	}
	*ret = conn;
	return 0;
}

void tier_disconnect(struct tier_conn *conn)
{
	uint64_t mask;

	if (!conn)
		return;
	mask = signals_block();
	__atomic_store_n(&conn->is_closed, 1, __ATOMIC_RELEASE);
	slots_end(conn);
	if (conn_mine(conn)) {	/* in a fork, shutting the sockets down would end the parent's session */
		lane_shut(&conn->prestub);
		lane_shut(&conn->api);
	}
	conn_unref(conn);
	signals_restore(mask);
}

/* This is also where a connection that lost its daemon will find the next one. */
int conn_ready(struct tier_conn *conn, uint64_t deadline_ns)
{
	if (__atomic_load_n(&conn->is_closed, __ATOMIC_ACQUIRE))
		return error_set(-ENOTCONN, "the connection to the daemon at %s was closed by tier_disconnect()",
				 conn->address.sun_path);
	return fork_recover(conn, deadline_ns);
}

bool tier_conn_uses_kernel(struct tier_conn *conn, const char **why)
{
	uint64_t mask = signals_block();
	bool is_kernel;

	is_kernel = !conn_ready(conn, deadline_after(conn->timeout_ns)) && conn->path == WIRE_PATH_KERNEL;
	signals_restore(mask);
	if (why)
		*why = conn->why;
	return is_kernel;
}

/* -- The API lane --- */
/* Takes the lane with all signals blocked. While this thread waited, a handler of its own may have forked: in that fork
 * the lock is free again, and not ours. */
static int conn_enter(struct tier_conn *conn, uint64_t deadline_ns, uint64_t *ret_mask)
{
	int r;

	for (;;) {
		r = lock_take(&conn->page->api, deadline_ns);
		if (r < 0)
			return error_set(r, "another thread's request to the daemon at %s took too long",
					 conn->address.sun_path);
		*ret_mask = signals_block();
		if (__atomic_load_n(&conn->page->api, __ATOMIC_RELAXED))
			break;
		signals_restore(*ret_mask);
	}
	r = conn_ready(conn, deadline_ns);
	if (r < 0) {
		lock_give(&conn->page->api);
		signals_restore(*ret_mask);
	}
	return r;
}

int conn_request(struct tier_conn *conn, struct request *request)
{
	uint32_t epoch;
	uint64_t mask;
	int r;

	if (!request->deadline_ns)
		request->deadline_ns = deadline_after(conn->timeout_ns);
	request->mask = &mask;
	r = conn_enter(conn, request->deadline_ns, &mask);
	if (r < 0)
		return r;
	epoch = conn->epoch;
	r = lane_request(&conn->api, request);
	if (conn->epoch == epoch)
		lock_give(&conn->page->api);
	signals_restore(mask);
	return r;
}

int conn_ask(struct tier_conn *conn, enum wire_type type, const void *body, enum wire_type reply_type, void *reply)
{
	return conn_request(conn, &(struct request){ .type = type, .body = body, .fd = -1, .reply_type = reply_type,
						     .reply = reply });
}

/* Somebody else's request in the lane is no reason to wait: the daemon looks at the counter by itself, only later. */
static void conn_poke(struct tier_conn *conn, const struct wire_method_ref *ref)
{
	if (!lock_try(&conn->page->api))
		return;
	lane_drain(&conn->api);
	lane_ring(&conn->api, WIRE_STATUS, ref, ++conn->api.serial);
	lock_give(&conn->page->api);
}

int conn_nudge(struct tier_conn *conn, const struct wire_method_ref *ref, uint64_t deadline_ns)
{
	uint64_t mask = signals_block();
	int r;

	r = conn_ready(conn, deadline_ns);
	if (!r && !lane_is_alive(&conn->api))
		r = error_set(-ECONNRESET, "the connection to the daemon at %s is lost: the daemon closed it",
			      conn->address.sun_path);
	if (!r && ref)
		conn_poke(conn, ref);
	signals_restore(mask);
	return r;
}

/* -- The prestub's lane --- */
#define PREPARE_ANSWER_NS 20000000ull	/* so long the lane is kept for an answer: many times what one takes, if nobody compiles */
#define PREPARE_SLEEP_NS 100000000ull	/* so long the answer is looked for in the record only, */
#define PREPARE_SLEEP_MAX_NS 1600000000ull	/* and each time twice as long */

static bool record_is_cold(const struct tier_record *record)
{
	return tier_state_stage(__atomic_load_n(&record->state, __ATOMIC_ACQUIRE)) == TIER_STAGE_COLD;
}

static uint64_t earlier(uint64_t a_ns, uint64_t b_ns)
{
	return a_ns < b_ns ? a_ns : b_ns;
}

static int prepare_ask(struct tier_conn *conn, const struct tier_record *record, const struct wire_method_ref *ref,
		       uint64_t deadline_ns)
{
	int r;

	r = lock_take(&conn->page->prestub, deadline_ns);
	if (r < 0)
		return error_set(r, "the daemon at %s did not answer other threads' first calls in time", conn->address.sun_path);
	/* Threads that start together all come here; the first one's answer serves them all. */
	if (record_is_cold(record))
		r = lane_request(&conn->prestub, &(struct request){ .type = WIRE_PREPARE, .body = ref, .fd = -1,
								    .reply_type = WIRE_DONE,
								    .deadline_ns = earlier(deadline_after(PREPARE_ANSWER_NS), deadline_ns) });
	lock_give(&conn->page->prestub);
	return r;
}

/* No answer yet; or more callers wait than the daemon keeps waits for, and this one goes on without. */
static bool prepare_is_under_way(int r)
{
	return r == -ETIMEDOUT || r == -EDQUOT;
}

/* The answer may take as long as the optimizer does, when that makes the first code. Nobody else's first call waits so long for
 * the lane: who gets no answer soon gives it back and sleeps until the record changes. What does not change it, a refusal, is
 * learned by asking again. */
int conn_prepare(struct tier_conn *conn, const struct tier_record *record, uint64_t module, uint32_t method)
{
	const struct wire_method_ref ref = { .module = module, .method = method };
	const uint64_t deadline_ns = deadline_after(conn->timeout_ns);
	uint64_t sleep_ns = PREPARE_SLEEP_NS;
	uint64_t seen;
	int r;

	r = conn_ready(conn, deadline_ns);
	if (r < 0)
		return r;
	for (;;) {
		seen = __atomic_load_n(&record->state, __ATOMIC_ACQUIRE);
		r = prepare_ask(conn, record, &ref, deadline_ns);
		if (!prepare_is_under_way(r) || time_now() >= deadline_ns)
			return r;
		futex_wait((const uint32_t *)&record->state, (uint32_t)seen, earlier(deadline_after(sleep_ns), deadline_ns), true);
		if (sleep_ns < PREPARE_SLEEP_MAX_NS)
			sleep_ns *= 2;
	}
}

/* What nobody waits for must not wait itself. */
static int conn_ready_for_note(struct tier_conn *conn)
{
	return conn_ready(conn, deadline_after(conn->timeout_ns < CONN_NOTE_RECOVERY_NS ? conn->timeout_ns : CONN_NOTE_RECOVERY_NS));
}

void conn_threshold(struct tier_conn *conn, uint64_t module, uint32_t method, uint64_t version)
{
	const struct wire_bell bell = { .module = module, .version = version, .method = method, .tid = sys_gettid() };

	if (conn_ready_for_note(conn) < 0)
		return;
	if (conn->path == WIRE_PATH_KERNEL)
		probe_fire(conn->probes, TIER_PROBE_THRESHOLD, module, method, version);
	else
		lane_ring(&conn->prestub, WIRE_THRESHOLD, &bell, 0);
}

int conn_slot_used(struct tier_conn *conn, const struct wire_slot *slot)
{
	int r;

	r = conn_ready_for_note(conn);
	return r < 0 ? r : lane_ring(&conn->prestub, WIRE_SLOT_USED, slot, 0);
}

int conn_osr(struct tier_conn *conn, const struct wire_osr *osr, uint32_t method)
{
	int r;

	r = conn_ready_for_note(conn);
	if (r < 0)
		return r;
	if (!(conn->sites >> TIER_PROBE_OSR_REQUESTED & 1))
		return lane_ring(&conn->prestub, WIRE_OSR, osr, 0);
	probe_fire(conn->probes, TIER_PROBE_OSR_REQUESTED, osr->module, method, osr->patchpoint);
	return 0;
}
