/* SPDX-License-Identifier: Apache-2.0 */
#include "server/load.h"
#include "server/rejit.h"
#include "server/session.h"
#include "server/slots.h"
#include "server/state.h"
#include "server/wait.h"

/* The wait for slots is made first: what has been replaced cannot be refused any more. It ends with its lane, like the
 * load, so of the two either both are there or none. */

/* NULL: an error was sent. */
static struct module *rejit_target(struct lane *lane, uint64_t serial, uint64_t id, uint32_t method)
{
	struct module *module = session_method(lane, serial, id, method);
	struct core_module_info info;

	if (!module)
		return NULL;
	core_module_info(module, &info);
	if (info.uid == lane->session->uid || lane->session->uid == 0)
		return module;
	lane_error(lane, serial, TIER_ERROR_DENIED, "module '%s' belongs to user %u", info.name, info.uid);
	return NULL;
}

int rejit_request(struct lane *lane, const struct request *request)
{
	const struct wire_rejit *body = request->body;
	struct server *server = lane->server;
	struct module *module = rejit_target(lane, request->serial, body->module, body->method);
	struct server_load *load;
	uint64_t n;
	int r;

	if (!module || load_check_object(lane, request->serial, request->fd, &n))
		return 0;
	load = load_new(lane, request, "", n);
	if (!load)
		return 0;
	load->settling = wait_new(lane, request->serial, WAIT_SLOTS, UINT64_MAX);
	if (!load->settling) {
		load_free(load);
		return 0;
	}
	load->settling->method = body->method;
	r = server->ops->rejit(server->context, module, body->method, body->symbol, body->flags & WIRE_REJIT_FORCE, load->object_fd,
			       n, load);
	if (r)
		wait_free(load->settling);
	return load_begun(load, r);
}

void rejit_loaded(struct server_load *load, struct module *module, enum tier_error error, const char *text)
{
	struct core_module_info info;

	if (module) {
		core_module_info(module, &info);
		slots_settle(load->settling, info.id);
	} else {
		lane_error(load->lane, load->serial, error, "%s", text ? text : tier_error_name(error));
		wait_free(load->settling);
	}
}

/* Inliners by the thousand are withdrawn in several turns: the wait stands among the news meanwhile. */
static void revert_go_on(struct server *server, struct wait *wait, struct module *module, uint64_t id)
{
	int r = core_revert(module, wait->method);

	if (r == CORE_E_QUOTA) {
		lane_error(wait->lane, wait->serial, TIER_ERROR_QUOTA, "there is no room for the versions of what had inlined it");
		wait_free(wait);
		return;
	}
	wait->kind = r == CORE_E_AGAIN ? WAIT_REVERT : WAIT_SLOTS;
	wait->next = id;
	if (r == CORE_E_AGAIN)
		wait_look_again(server, wait);
	else
		slots_settle(wait, id);
}

void rejit_revert_look(struct server *server, struct wait *wait)
{
	struct module *module = core_module_by_id(server->core, wait->next);

	if (module) {
		revert_go_on(server, wait, module, wait->next);
		return;
	}
	lane_error(wait->lane, wait->serial, TIER_ERROR_NO_MODULE, "the module was unloaded meanwhile");
	wait_free(wait);
}

int rejit_revert(struct lane *lane, const struct request *request)
{
	const struct wire_method_ref *ref = request->body;
	struct module *module = rejit_target(lane, request->serial, ref->module, ref->method);
	struct wait *wait = module ? wait_new(lane, request->serial, WAIT_SLOTS, UINT64_MAX) : NULL;

	if (!wait)
		return 0;
	wait->method = ref->method;
	revert_go_on(lane->server, wait, module, ref->module);
	return 0;
}
