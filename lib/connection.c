/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "connection.h"
#include "error.h"
#include "module.h"
#include "sync.h"
#include "sys.h"

/* A connection is memory of its own, from mmap: malloc may be unusable where a fork recovers. It lives until the program
 * has disconnected, its modules are closed, and no cold call is under way; the numbers of its descriptors stay taken
 * until then, so that a thread on its way to using one never hits a stranger's. */

#define CONN_TIMEOUT_NS 30000000000ull
#define CONN_NOTE_FORK_NS 200000000ull	/* so long a note may connect a fork, */
#define CONN_NOTE_RENEWAL_NS 20000000ull	/* and so long find the next daemon: what is not told it finds, or is told later */
#define CONN_NOTE_PAUSE_NS 1000000000ull	/* between two times that a note looks for it; twice as long each time, */
#define CONN_NOTE_PAUSE_MAX_NS 16000000000ull	/* and at most so long */
#define CONN_REPEATS_MAX 16u	/* a request that comes to nothing so often may be what ends the daemons */

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
	return (struct lane){ .fd = -1, .is_broken = true, .mine = &conn->page->mine, .epoch = &conn->epoch, .address = &conn->address };
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
	conn->api = conn->prestub = conn->slots.lane = conn->fresh = conn_lane(conn);
	*ret = conn;
	return 0;
}

int tier_connect(struct tier_conn **ret, const struct tier_conn_opts *opts)
{
	struct tier_conn *conn;
	uint64_t deadline_ns, mask;
	int r;

	r = conn_new(&conn);
	if (r < 0)
		return r;
	r = conn_configure(conn, opts);
	if (!r) {
		mask = signals_block();
		deadline_ns = deadline_after(conn->timeout_ns);
		r = session_connect(conn, &conn->api, WIRE_LANE_API, 0, deadline_ns, &mask);
		if (!r)		/* at once, so that the first cold call does not have to */
			r = session_connect(conn, &conn->prestub, WIRE_LANE_PRESTUB, 0, deadline_ns, &mask);
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
	__atomic_store_n(&conn->is_closed, 1, __ATOMIC_SEQ_CST);
	slots_end(conn);
	if (conn_mine(conn)) {	/* in a fork, shutting the sockets down would end the parent's session */
		lane_shut(&conn->prestub);
		lane_shut(&conn->api);
	}
	conn_unref(conn);
	signals_restore(mask);
}

int conn_ready(struct tier_conn *conn, uint64_t deadline_ns)
{
	if (__atomic_load_n(&conn->is_closed, __ATOMIC_ACQUIRE))
		return error_set(-ENOTCONN, "the connection to the daemon at %s was closed by tier_disconnect()",
				 conn->address.sun_path);
	return fork_recover(conn, deadline_ns);
}

/* -- The API lane --- */
/* Takes the lane with all signals blocked. While this thread waited, a handler of its own may have forked: in that fork
 * the lock is free again, and not ours. */
static int conn_take_api(struct tier_conn *conn, uint64_t deadline_ns, uint64_t *ret_mask)
{
	int r;

	for (;;) {
		r = lock_take(&conn->page->api, deadline_ns);
		if (r < 0)
			return error_set(r, "another thread's request to the daemon at %s took too long",
					 conn->address.sun_path);
		*ret_mask = signals_block();
		if (__atomic_load_n(&conn->page->api, __ATOMIC_RELAXED))
			return 0;
		signals_restore(*ret_mask);
	}
}

static void conn_give_api(struct tier_conn *conn, uint64_t mask)
{
	lock_give(&conn->page->api);
	signals_restore(mask);
}

/* With what guards the lane, signals blocked: makes sure that it has a connection. */
static int conn_renew(struct tier_conn *conn, struct lane *lane, enum wire_lane kind, unsigned int flags, uint64_t deadline_ns)
{
	int r;

	r = conn_ready(conn, deadline_ns);
	return r < 0 || !lane_is_broken(lane) ? r : session_renew(conn, lane, kind, flags, deadline_ns);
}

/* The same for one that nobody may have asked for long, so that nobody knows. */
static int conn_revive(struct tier_conn *conn, struct lane *lane, enum wire_lane kind, uint64_t deadline_ns)
{
	int r;

	r = conn_ready(conn, deadline_ns);
	if (r < 0 || lane_is_alive(lane))
		return r;
	lane_shut(lane);
	return session_renew(conn, lane, kind, 0, deadline_ns);
}

/* Whether the request still means something to the daemon that is there now. */
static int conn_check(struct tier_conn *conn, const struct request *request)
{
	if (request->only_in && request->only_in != session_number(conn))
		return error_set(-ECONNRESET, "the session with the daemon at %s is over", conn->address.sun_path);
	return request->module ? module_check(request->module) : 0;
}

static int conn_enter(struct tier_conn *conn, const struct request *request, struct retry *retry, uint64_t *ret_mask)
{
	const unsigned int flags = request->only_in ? SESSION_JOIN_ONLY : 0;
	uint64_t attempt_ns;
	int r;

	do {
		r = conn_take_api(conn, request->deadline_ns, ret_mask);
		if (r < 0)
			return r;
		attempt_ns = request->only_in ? deadline_after(CONN_NOTE_FORK_NS) : retry_attempt(retry);
		r = conn_renew(conn, &conn->api, WIRE_LANE_API, flags, attempt_ns);
		if (!r)
			r = conn_check(conn, request);
		if (r == -ESTALE && !conn_revive(conn, &conn->api, WIRE_LANE_API, attempt_ns))
			r = conn_check(conn, request);	/* that daemon may be gone, too, and the next one know it */
		if (!r)
			return 0;
		conn_give_api(conn, *ret_mask);
	} while (r == -ECONNRESET && !request->only_in && retry_sleep(retry));
	return r;
}

/* What a request that got lost after it was sent may have done, and must not do twice, or takes too long to be begun again
 * unasked; NULL: it is asked again. */
static const char *request_deed(const struct request *request)
{
	switch (request->type) {
	case WIRE_LOAD: return "load a module: it may be loaded";
	case WIRE_UNLOAD: return "unload a module: it may be unloaded";
	case WIRE_REJIT: return "replace a method's body: it may be replaced";
	case WIRE_REVERT: return "bring a method's own body back: it may be back";
	case WIRE_INSTANTIATE: return "instantiate a module: the instantiation may be there";
	case WIRE_PRECOMPILE: return "compile an object: nothing came of it";
	case WIRE_FREEZE: return "freeze a module: it is not frozen";
	default: return NULL;
	}
}

/* The lane broke over it. True: it is to be asked again; else *r is what the caller is told. */
static bool request_repeats(struct tier_conn *conn, const struct request *request, int *r)
{
	const char *const deed = request_deed(request);

	if (request->only_in)
		return false;
	if (!deed || !conn->api.is_sent)
		return true;
	*r = error_set(-ECONNRESET, "the connection to the daemon at %s was lost before it answered the request to %s",
		       conn->address.sun_path, deed);
	return false;
}

/* In a fork that a handler made while this thread slept, nothing of the lane is ours any more. */
static bool conn_is_of(const struct tier_conn *conn, uint32_t epoch)
{
	return __atomic_load_n(&conn->page->mine, __ATOMIC_ACQUIRE) && conn->epoch == epoch;
}

int conn_request(struct tier_conn *conn, struct request *request)
{
	struct retry retry;
	uint32_t epoch, n = 0;
	bool repeats;
	uint64_t mask;
	int r;

	if (!request->deadline_ns)
		request->deadline_ns = deadline_after(conn->timeout_ns);
	retry = retry_until(request->deadline_ns);
	request->mask = &mask;
	do {
		r = conn_enter(conn, request, &retry, &mask);
		if (r < 0)
			return r;
		epoch = conn->epoch;
		request->session = session_number(conn);
		r = lane_request(&conn->api, request);
		repeats = r == -ECONNRESET && conn_is_of(conn, epoch) && lane_is_broken(&conn->api)
		       && request_repeats(conn, request, &r);
		if (conn->epoch == epoch)
			lock_give(&conn->page->api);
		signals_restore(mask);
	} while (repeats && ++n < CONN_REPEATS_MAX && retry_sleep(&retry));
	return r;
}

int conn_ask(struct tier_conn *conn, enum wire_type type, const void *body, enum wire_type reply_type, void *reply)
{
	return conn_request(conn, &(struct request){ .type = type, .body = body, .fd = -1, .reply_type = reply_type,
						     .reply = reply });
}

int conn_ask_about(const struct tier_module *module, enum wire_type type, const void *body, enum wire_type reply_type, void *reply)
{
	return conn_request(module->conn, &(struct request){ .type = type, .body = body, .fd = -1, .reply_type = reply_type,
							     .reply = reply, .module = module });
}

/* Whoever makes a session has it hold the modules under page->recovery: with that, it is done or somebody else's. */
int conn_hold(struct tier_conn *conn)
{
	const struct request request = { .deadline_ns = deadline_after(conn->timeout_ns) };
	struct retry retry = retry_until(request.deadline_ns);
	uint64_t mask;
	int r;

	do {
		r = conn_enter(conn, &request, &retry, &mask);
		if (r < 0)
			return r;
		r = session_hold(conn, request.deadline_ns);
		conn_give_api(conn, mask);
	} while (r == -ECONNRESET && retry_sleep(&retry));
	return r;
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

/* A lane that lives needs no lock, and whoever has it while it is dead is about to find out. */
static int conn_look(struct tier_conn *conn, uint64_t deadline_ns)
{
	int r;

	r = conn_ready(conn, deadline_ns);
	if (r < 0 || lane_is_alive(&conn->api))
		return r;
	if (lock_take(&conn->page->api, deadline_ns) < 0)
		return error_set(-ECONNRESET, "the connection to the daemon at %s is lost", conn->address.sun_path);
	r = conn_revive(conn, &conn->api, WIRE_LANE_API, deadline_ns);
	lock_give(&conn->page->api);
	return r;
}

int conn_nudge(const struct tier_module *module, const struct wire_method_ref *ref, uint64_t deadline_ns)
{
	const uint64_t mask = signals_block();
	int r;

	r = conn_look(module->conn, deadline_ns);
	if (!r)
		r = module_check(module);
	if (!r && ref)
		conn_poke(module->conn, ref);
	signals_restore(mask);
	return r;
}

bool tier_conn_uses_kernel(struct tier_conn *conn, const char **why)
{
	struct retry retry = retry_until(deadline_after(conn->timeout_ns));
	uint64_t mask;
	int r;

	do {
		mask = signals_block();
		r = conn_look(conn, retry_attempt(&retry));
		signals_restore(mask);
	} while (r == -ECONNRESET && retry_sleep(&retry));
	if (why)
		*why = r < 0 ? "there is no daemon" : conn->why[session_number(conn) % 2];
	return !r && conn->path == WIRE_PATH_KERNEL;
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

/* The lane is taken, and no longer than one answer of the daemon's takes, or one attempt to find it. */
static int prepare_ask_locked(struct tier_conn *conn, const struct mapping *mapping, const struct wire_method_ref *ref,
			      uint64_t attempt_ns, uint64_t deadline_ns)
{
	int r;

	r = conn_renew(conn, &conn->prestub, WIRE_LANE_PRESTUB, 0, attempt_ns);
	if (!r)
		r = mapping_check(mapping, conn);
	if (r == -ESTALE && !conn_revive(conn, &conn->prestub, WIRE_LANE_PRESTUB, attempt_ns))
		r = mapping_check(mapping, conn);	/* that daemon may be gone, too, and the next one know it */
	if (r < 0)
		return r;
	return lane_request(&conn->prestub, &(struct request){ .type = WIRE_PREPARE, .body = ref, .fd = -1, .reply_type = WIRE_DONE,
							       .deadline_ns = earlier(deadline_after(PREPARE_ANSWER_NS), deadline_ns) });
}

static int prepare_ask(struct tier_conn *conn, const struct mapping *mapping, const struct tier_record *record, struct retry *retry,
		       bool *ret_is_sent)
{
	const struct wire_method_ref ref = { .module = mapping->module, .method = record->index };
	int r;

	r = lock_take(&conn->page->prestub, retry->deadline_ns);
	if (r < 0)
		return error_set(r, "the daemon at %s did not answer other threads' first calls in time", conn->address.sun_path);
	/* Threads that start together all come here; the first one's answer serves them all. */
	if (record_is_cold(record)) {
		conn->prestub.is_sent = false;
		r = prepare_ask_locked(conn, mapping, &ref, retry_attempt(retry), retry->deadline_ns);
		*ret_is_sent = conn->prestub.is_sent;
	}
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
 * learned by asking again; so is, sooner, that there is a daemon again. */
int conn_prepare(struct tier_conn *conn, const struct mapping *mapping, const struct tier_record *record)
{
	struct retry retry = retry_until(deadline_after(conn->timeout_ns));
	uint64_t sleep_ns = PREPARE_SLEEP_NS, due_ns, seen;
	uint32_t n_lost = 0;
	int r;

	r = conn_ready(conn, retry.deadline_ns);
	if (r < 0)
		return r;
	for (;;) {
		bool is_sent = false;

		seen = __atomic_load_n(&record->state, __ATOMIC_ACQUIRE);
		r = prepare_ask(conn, mapping, record, &retry, &is_sent);
		n_lost += r == -ECONNRESET && is_sent;
		if ((r != -ECONNRESET && !prepare_is_under_way(r)) || n_lost == CONN_REPEATS_MAX)
			return r;
		due_ns = r == -ECONNRESET ? retry_pause(&retry) : earlier(deadline_after(sleep_ns), retry.deadline_ns);
		if (!due_ns || time_now() >= retry.deadline_ns)
			return r;
		futex_wait((const uint32_t *)&record->state, (uint32_t)seen, due_ns, true);
		if (r != -ECONNRESET && sleep_ns < PREPARE_SLEEP_MAX_NS)
			sleep_ns *= 2;
	}
}

/* -- Notes --- */
/* What nobody waits for must not wait itself: it looks for the daemon rarely, not for long, and not while others do. */
static void note_renew(struct tier_conn *conn)
{
	const bool is_fork = !__atomic_load_n(&conn->note_ns, __ATOMIC_RELAXED) && conn->epoch;
	const uint64_t patience_ns = is_fork ? CONN_NOTE_FORK_NS : CONN_NOTE_RENEWAL_NS;
	uint64_t pause_ns;

	/* a session that others have made since then is there to join */
	if (time_now() < __atomic_load_n(&conn->note_ns, __ATOMIC_RELAXED)
	    && __atomic_load_n(&conn->note_session, __ATOMIC_RELAXED) == session_number(conn))
		return;
	if (!lock_try(&conn->page->prestub))
		return;
	pause_ns = conn->note_pause_ns ? conn->note_pause_ns : CONN_NOTE_PAUSE_NS;
	if (!conn_revive(conn, &conn->prestub, WIRE_LANE_PRESTUB, deadline_after(earlier(patience_ns, conn->timeout_ns))))
		pause_ns = CONN_NOTE_PAUSE_NS / 2;
	__atomic_store_n(&conn->note_session, session_number(conn), __ATOMIC_RELAXED);
	conn->note_pause_ns = earlier(2 * pause_ns, CONN_NOTE_PAUSE_MAX_NS);
	__atomic_store_n(&conn->note_ns, deadline_after(pause_ns), __ATOMIC_RELAXED);
	lock_give(&conn->page->prestub);
}

/* The one gate of notes. A lane that is known to be broken is renewed here, so that the path is the new session's. */
static int note_ready(struct tier_conn *conn)
{
	int r;

	r = conn_ready(conn, deadline_after(earlier(CONN_NOTE_FORK_NS, conn->timeout_ns)));
	if (!r && lane_is_broken(&conn->prestub))
		note_renew(conn);
	return r;
}

/* One that cannot be sent may be the first to find that the daemon is another one. */
static int note_ring(struct tier_conn *conn, enum wire_type type, const void *body)
{
	int r;

	r = lane_ring(&conn->prestub, type, body, 0);
	if (!r || r == -EAGAIN)
		return r;
	note_renew(conn);
	return lane_ring(&conn->prestub, type, body, 0);
}

/* The page to call the site on; NULL: over the socket. Of two sessions it may get the page of one and the sites of the other:
 * then the note is lost, as it may be. */
static const struct probe_page *note_page(const struct tier_conn *conn, enum tier_probe probe)
{
	const struct probe_page *const page = __atomic_load_n(&conn->probes, __ATOMIC_ACQUIRE);

	return __atomic_load_n(&conn->sites, __ATOMIC_ACQUIRE) >> probe & 1 ? page : NULL;
}

void conn_threshold(struct tier_conn *conn, uint64_t module, uint32_t method, uint64_t version)
{
	const struct wire_bell bell = { .module = module, .version = version, .method = method, .tid = sys_gettid() };
	const struct probe_page *page;

	if (note_ready(conn) < 0)
		return;
	page = note_page(conn, TIER_PROBE_THRESHOLD);
	if (page)
		probe_fire(page, TIER_PROBE_THRESHOLD, module, method, version);
	else
		note_ring(conn, WIRE_THRESHOLD, &bell);
}

int conn_slot_used(struct tier_conn *conn, const struct wire_slot *slot)
{
	int r;

	r = note_ready(conn);
	return r < 0 ? r : note_ring(conn, WIRE_SLOT_USED, slot);
}

int conn_osr(struct tier_conn *conn, const struct wire_osr *osr, uint32_t method)
{
	const struct probe_page *page;
	int r;

	r = note_ready(conn);
	if (r < 0)
		return r;
	page = note_page(conn, TIER_PROBE_OSR_REQUESTED);
	if (!page)
		return note_ring(conn, WIRE_OSR, osr);
	probe_fire(page, TIER_PROBE_OSR_REQUESTED, osr->module, method, osr->patchpoint);
	return 0;
}
