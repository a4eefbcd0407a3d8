/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>
#include "server/hold.h"
#include "server/session.h"
#include "server/state.h"
#include "util/base.h"
#include "util/error.h"
#include "util/log.h"

/* The kernel tells of every call of the hello probe, with whatever nonce the caller put there: a look-up is a bucket, and
 * which one cannot be known outside. */
static struct list *nonce_bucket(struct server *server, uint64_t nonce)
{
	return &server->nonces[((nonce ^ server->seed) * 0x9e3779b97f4a7c15u) >> 32 & (SERVER_NONCE_BUCKETS - 1)];
}

/* -- Life --- */
static int session_new(struct session **ret, struct lane *lane, const struct wire_hello *hello)
{
	struct server *server = lane->server;
	struct session *session = calloc(1, sizeof(*session));
	uint64_t random[3];
	int r;

	if (!session)
		return error_origin(-ENOMEM);
	r = charge_take(&server->charges, &session->charge, lane->uid, SERVER_SLOT_SESSIONS, 1);
	if (r) {
		free(session);
		return r;
	}
	if (getrandom(random, sizeof(random), 0) != sizeof(random)) {
		charge_deinit(&session->charge);
		free(session);
		return error_origin(-EIO);
	}
	session->server = server;
	session->number = ++server->last_session;
	memcpy(session->token, random, sizeof(session->token));
	session->token[0] |= 1;		/* zeros mean a new session */
	session->nonce = random[2];
	session->uid = lane->uid;
	session->pid = lane->pid;
	session->path = WIRE_PATH_SOCKET;
	strcpy(session->why, "the client has not called the hello probe yet");
	memcpy(session->program, hello->program, sizeof(session->program));
	list_init(&session->lanes);
	list_init(&session->holds);
	list_append(&server->sessions, &session->link);
	list_append(nonce_bucket(server, session->nonce), &session->nonce_link);
	server->n_sessions++;
	log_event(LOG_SERVER, LOG_INFO100, "session %llu begins: '%s', pid %d, uid %u", (unsigned long long)session->number,
		  session->program, (int)session->pid, session->uid);
	*ret = session;
	return 0;
}

static void session_free(struct session *session)
{
	log_event(LOG_SERVER, LOG_INFO100, "session %llu ends", (unsigned long long)session->number);
	hold_release_all(session);
	list_remove(&session->link);
	list_remove(&session->nonce_link);
	session->server->n_sessions--;
	charge_deinit(&session->charge);
	free(session);
}

void session_leave(struct lane *lane)
{
	struct session *session = lane->session;

	if (!session)
		return;
	lane->session = NULL;
	list_remove(&lane->link);
	if (--session->n_lanes == 0)
		session_free(session);
}

/* Who joins mostly joins a session that was made just before: newest first. */
static struct session *session_by_token(struct lane *lane, const uint64_t token[2])
{
	struct list *head = &lane->server->sessions;

	for (struct list *pos = head->previous; pos != head; pos = pos->previous) {
		struct session *session = list_entry(pos, struct session, link);

		if (session->uid == lane->uid && session->token[0] == token[0] && session->token[1] == token[1])
			return session;
	}
	return NULL;
}

static bool session_has_slots(const struct session *session)
{
	struct list *pos;

	list_for_each(pos, &session->lanes)
		if (list_entry(pos, struct lane, link)->kind == WIRE_LANE_SLOTS)
			return true;
	return false;
}

/* Makes or joins: *ret, or NULL after an error was sent. */
static struct session *hello_session(struct lane *lane, uint64_t serial, const struct wire_hello *hello)
{
	struct session *session;
	int r;

	if (hello->session[0] || hello->session[1]) {
		session = session_by_token(lane, hello->session);
		if (!session)
			lane_error(lane, serial, TIER_ERROR_DENIED, "no session of this user has that token");
		else if (session->n_lanes >= lane->server->config.lanes_per_session)
			lane_error(lane, serial, TIER_ERROR_QUOTA, "the session has %u connections already", session->n_lanes);
		else if (hello->lane == WIRE_LANE_SLOTS && session_has_slots(session))
			lane_error(lane, serial, TIER_ERROR_QUOTA, "the session has a connection for slots already");
		else
			return session;
		return NULL;
	}
	r = session_new(&session, lane, hello);
	if (!r)
		return session;
	if (r == CHARGE_E_QUOTA)
		lane_error(lane, serial, TIER_ERROR_QUOTA, "this user has too many sessions");
	else
		lane_error(lane, serial, TIER_ERROR_NO_MEMORY, NULL);
	return NULL;
}

int session_hello(struct lane *lane, const struct request *request)
{
	struct server *server = lane->server;
	const struct wire_hello *hello = request->body;
	struct wire_welcome welcome = { .daemon = TIER_VERSION };
	struct session *session;
	int fd;

	if (lane->session)
		return lane_break(lane, request->serial, "HELLO was said already on this connection");
	session = hello_session(lane, request->serial, hello);
	if (!session)
		return 0;
	list_append(&session->lanes, &lane->link);
	session->n_lanes++;
	lane->session = session;
	lane->kind = hello->lane;
	memcpy(welcome.session, session->token, sizeof(welcome.session));
	welcome.number = session->number;
	welcome.nonce = session->nonce;
	fd = server->ops->probe_page_fd(server->context);
	lane_reply_fds(lane, request->serial, WIRE_WELCOME, &welcome, &fd, fd >= 0);
	return 0;
}

/* -- How the client rings --- */
void session_hello_seen(struct server *server, uint64_t nonce)
{
	struct list *head = nonce_bucket(server, nonce), *pos;

	list_for_each(pos, head) {
		struct session *session = list_entry(pos, struct session, nonce_link);

		if (session->nonce == nonce) {
			session->hello_seen = true;
			return;
		}
	}
}

static void session_set_path(struct session *session, enum wire_path_kind path, const char *why)
{
	session->path = path;
	strncpy(session->why, why, sizeof(session->why) - 1);
}

int session_probed(struct lane *lane, const struct request *request)
{
	struct server *server = lane->server;
	struct session *session = lane->session;
	const struct wire_probed *probed = request->body;
	struct wire_path path = {};
	const char *why = "";
	uint32_t sites;

	if (probed->nonce != session->nonce)
		return lane_error(lane, request->serial, TIER_ERROR_ARGUMENT, "not the nonce of this session");
	server->ops->drain(server->context);
	sites = server->ops->kernel_sites(server->context, &why);
	if (!sites)
		session_set_path(session, WIRE_PATH_SOCKET, why);
	else if (!probed->mapped)
		session_set_path(session, WIRE_PATH_SOCKET, "the client could not map the probe page");
	else if (!session->hello_seen)
		session_set_path(session, WIRE_PATH_SOCKET, "the kernel did not see the client's hello probe");
	else
		session_set_path(session, WIRE_PATH_KERNEL, "kernel probes");
	path.path = session->path;
	path.sites = session->path == WIRE_PATH_KERNEL ? sites : 0;
	memcpy(path.why, session->why, sizeof(path.why));
	log_event(LOG_SERVER, LOG_INFO1000, "session %llu rings over %s: %s", (unsigned long long)session->number,
		  session->path == WIRE_PATH_KERNEL ? "the kernel" : "the socket", session->why);
	lane_reply(lane, request->serial, WIRE_PATH, &path);
	return 0;
}

/* -- What it may see --- */
bool session_sees(const struct session *session, const struct core_module_info *info)
{
	return info->shared || info->uid == session->uid || session->uid == 0;
}

struct module *session_module(const struct lane *lane, uint64_t id, struct core_module_info *ret_info)
{
	struct module *module = core_module_by_id(lane->server->core, id);
	struct core_module_info info;

	if (!module)
		return NULL;
	core_module_info(module, &info);
	if (!session_sees(lane->session, &info))
		return NULL;
	if (ret_info)
		*ret_info = info;
	return module;
}

/* UID/NAME: that user's. False: it is not of that form. */
static bool name_has_owner(const char *name, uid_t *ret_uid, const char **ret_name)
{
	size_t n = strspn(name, "0123456789");
	unsigned long long uid;

	if (!n || n > 10 || name[n] != '/')
		return false;
	uid = strtoull(name, NULL, 10);
	if (uid >= (uid_t)-1)
		return false;
	*ret_uid = uid;
	*ret_name = name + n + 1;
	return true;
}

/* A bare name is the caller's own module, or one that those share who may do anything to the caller anyway. Whom else it
 * trusts, only the caller knows: otherwise the first to take a name would have others run his code. */
static struct module *session_module_named(const struct lane *lane, const char *name, struct core_module_info *info)
{
	const uid_t trusted[] = { 0, getuid() };
	struct core *core = lane->server->core;
	struct module *module;
	uid_t uid;

	if (name_has_owner(name, &uid, &name)) {
		module = core_module_by_name(core, uid, name);
		if (module)
			core_module_info(module, info);
		return module && session_sees(lane->session, info) ? module : NULL;
	}
	module = core_module_by_name(core, lane->session->uid, name);
	if (module) {
		core_module_info(module, info);
		return module;
	}
	for (size_t i = 0; i < ARRAY_SIZE(trusted); i++) {
		module = core_module_by_name(core, trusted[i], name);
		if (!module)
			continue;
		core_module_info(module, info);
		if (info->shared)
			return module;
	}
	return NULL;
}

struct module *session_resolve(struct lane *lane, uint64_t serial, const struct wire_module_ref *ref,
			       struct core_module_info *ret_info)
{
	struct module *module;

	if (!ref->module && !ref->name[0]) {
		lane_error(lane, serial, TIER_ERROR_ARGUMENT, "neither a module's id nor a name");
		return NULL;
	}
	if (ref->module)
		module = session_module(lane, ref->module, ret_info);
	else
		module = session_module_named(lane, ref->name, ret_info);
	if (!module && ref->module)
		lane_error(lane, serial, TIER_ERROR_NO_MODULE, "no module %llu", (unsigned long long)ref->module);
	else if (!module)
		lane_error(lane, serial, TIER_ERROR_NO_MODULE, "no module named '%s'", ref->name);
	return module;
}

struct module *session_method(struct lane *lane, uint64_t serial, uint64_t id, uint32_t method)
{
	struct core_module_info info;
	struct module *module = session_module(lane, id, &info);

	if (!module) {
		lane_error(lane, serial, TIER_ERROR_NO_MODULE, "no module %llu", (unsigned long long)id);
		return NULL;
	}
	if (method < info.layout.n_methods)
		return module;
	lane_error(lane, serial, TIER_ERROR_NO_METHOD, "module '%s' has %u methods, none with index %u", info.name,
		   info.layout.n_methods, method);
	return NULL;
}
