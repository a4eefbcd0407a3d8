/* SPDX-License-Identifier: Apache-2.0 */
#include <sys/random.h>
#include "server/conn.h"
#include "server/hold.h"
#include "server/load.h"
#include "server/session.h"
#include "server/slots.h"
#include "server/state.h"
#include "server/wait.h"
#include "util/base.h"
#include "util/error.h"

#define SERVER_FILES_OWN 64u		/* the daemon's own, workers' included */
#define SERVER_FILES_PER_MODULE 8u	/* its segments, twice each */
#define SERVER_FILES_PER_LOAD 2u

DEFINE_CLEANUP(struct server *, server_free)

static void limit_fit(uint32_t *limit, uint64_t n)
{
	if (*limit > n)
		*limit = MAX(n, 1u);
}

/* Of a uid's half modules may take a half, sessions a quarter, loads and closes an eighth each. */
void server_config_fit(struct server_config *config, uint64_t n_files)
{
	uint64_t n = n_files > SERVER_FILES_OWN ? (n_files - SERVER_FILES_OWN) / 2 : 0;

	limit_fit(&config->modules_per_uid, n / 2 / SERVER_FILES_PER_MODULE);
	limit_fit(&config->sessions_per_uid, n / 4 / _WIRE_LANE_N);
	limit_fit(&config->loads_per_uid, n / 8 / SERVER_FILES_PER_LOAD);
	limit_fit(&config->closings_per_uid, n / 8);
}

static void server_init(struct server *server, struct dispatch *dispatch, struct core *core,
			const struct server_config *config, const struct server_ops *ops, void *context)
{
	*server = (struct server){ .dispatch = dispatch, .core = core, .config = *config, .ops = ops, .context = context };
	server->listener = (struct listener)LISTENER_NULL(server->listener);
	charge_table_init(&server->charges);
	server->charges.limits[SERVER_SLOT_CONNS] = (uint64_t)config->sessions_per_uid * _WIRE_LANE_N;
	server->charges.limits[SERVER_SLOT_SESSIONS] = config->sessions_per_uid;
	server->charges.limits[SERVER_SLOT_LOADS] = config->loads_per_uid;
	server->charges.limits[SERVER_SLOT_OBJECTS] = config->objects_per_uid;
	server->charges.limits[SERVER_SLOT_CLOSINGS] = config->closings_per_uid;
	server->charges.limits[SERVER_SLOT_WATCHES] = config->watches_per_uid;
	list_init(&server->conns);
	list_init(&server->closings.list);
	list_init(&server->sessions);
	list_init(&server->loads);
	list_init(&server->orphans);
	list_init(&server->feeds);
	list_init(&server->news);
	list_init(&server->slot_news);
	for (size_t i = 0; i < SERVER_RESIDENT_BUCKETS; i++)
		list_init(&server->residents[i]);
	for (size_t i = 0; i < SERVER_NONCE_BUCKETS; i++)
		list_init(&server->nonces[i]);
	for (size_t i = 0; i < SERVER_WAIT_BUCKETS; i++)
		list_init(&server->waits[i]);
	for (size_t i = 0; i < SERVER_WATCH_BUCKETS; i++)
		list_init(&server->watches[i]);
	dispatch_timer_init(&server->news_timer, dispatch, wait_news_timer, "waits");
	dispatch_timer_init(&server->deadline_timer, dispatch, wait_deadline_timer, "deadlines");
	dispatch_timer_init(&server->slot_timer, dispatch, slots_timer, "slots");
	dispatch_timer_init(&server->orphan_timer, dispatch, hold_orphan_timer, "releases");
	dispatch_timer_init(&server->grace_timer, dispatch, hold_grace_timer, "grace");
}

int server_new(struct server **ret, struct dispatch *dispatch, struct core *core, const struct server_config *config,
	       const struct server_ops *ops, void *context, int listen_fd)
{
	_cleanup_(server_freep) struct server *server = malloc(sizeof(*server));
	int r;

	if (!server)
		return error_origin(-ENOMEM);
	server_init(server, dispatch, core, config, ops, context);
	if (getrandom(&server->seed, sizeof(server->seed), 0) != sizeof(server->seed))
		return error_origin(-EIO);
	r = closing_init(server);
	if (r)
		return error_fold(r);
	if (listen_fd >= 0) {
		r = listener_init(&server->listener, server, listen_fd);
		if (r)
			return error_fold(r);
	}
	*ret = TAKE_PTR(server);
	return 0;
}

void server_grant_grace(struct server *server, uint64_t ns)
{
	hold_grant_grace(server, ns);
}

struct server *server_free(struct server *server)
{
	if (!server)
		return NULL;
	server->is_closing = true;
	listener_deinit(&server->listener);
	conn_free_all(server);
	hold_release_orphans(server);
	load_free_all(server);
	dispatch_timer_disarm(&server->news_timer);
	dispatch_timer_disarm(&server->deadline_timer);
	dispatch_timer_disarm(&server->slot_timer);
	dispatch_timer_disarm(&server->grace_timer);
	deadline_heap_deinit(&server->deadlines);
	closing_deinit(server);
	charge_table_deinit(&server->charges);
	free(server);
	return NULL;
}

void server_method_changed(struct server *server, struct module *module, uint32_t method)
{
	struct core_module_info info;

	core_module_info(module, &info);
	wait_method_changed(server, info.id, method);
	slots_method_changed(server, module, info.id, method);
}

void server_module_quiet(struct server *server, struct module *module)
{
	struct core_module_info info;

	core_module_info(module, &info);
	wait_module_quiet(server, info.id);
}

void server_event_added(struct server *server)
{
	wait_event_added(server);
}

void server_hello_seen(struct server *server, uint64_t nonce)
{
	session_hello_seen(server, nonce);
}
