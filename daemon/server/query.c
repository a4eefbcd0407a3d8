/* SPDX-License-Identifier: Apache-2.0 */
#include "server/query.h"
#include "server/session.h"
#include "server/state.h"
#include "server/wait.h"
#include "util/base.h"

static void prepare_reply(struct lane *lane, uint64_t serial, int r)
{
	if (!r)
		lane_done(lane, serial);
	else if (r == CORE_E_FULL)
		lane_error(lane, serial, TIER_ERROR_CODE_FULL, NULL);
	else
		lane_error(lane, serial, r == -ENOMEM ? TIER_ERROR_NO_MEMORY : TIER_ERROR_INTERNAL, NULL);
}

bool query_prepare_look(struct wait *wait, struct module *module)
{
	int r = core_prepare(module, wait->method);

	if (r == CORE_E_LATER)
		return false;
	prepare_reply(wait->lane, wait->serial, r);
	return true;
}

/* What the optimizer must make first waits with its caller, for as long as the compilation may take. */
int query_prepare(struct lane *lane, const struct request *request)
{
	const struct wire_method_ref *ref = request->body;
	struct module *module = session_method(lane, request->serial, ref->module, ref->method);
	struct wait *wait;
	int r;

	if (!module)
		return 0;
	r = core_prepare(module, ref->method);
	if (r != CORE_E_LATER) {
		prepare_reply(lane, request->serial, r);
		return 0;
	}
	wait = wait_new(lane, request->serial, WAIT_PREPARE, UINT64_MAX);
	if (wait)
		wait_for_module(wait, ref->module, ref->method);
	return 0;
}

void query_reply(struct lane *lane, uint64_t serial, const struct tier_answer *answer)
{
	struct wire_answer body = {
		.generation = answer->generation,
		.status = answer->status,
		.stage = answer->stage,
		.tier = answer->tier,
		.reason = answer->reason,
		.remaining = answer->remaining,
		.is_frozen = answer->is_frozen,
	};

	lane_reply(lane, serial, WIRE_ANSWER, &body);
}

int query_answer(struct lane *lane, const struct request *request)
{
	struct server *server = lane->server;
	const struct wire_method_ref *ref = request->body;
	struct module *module = session_method(lane, request->serial, ref->module, ref->method);
	struct tier_answer answer;

	if (!module)
		return 0;
	server->ops->drain(server->context);
	answer = core_answer(module, ref->method);
	query_reply(lane, request->serial, &answer);
	return 0;
}

int query_pending(struct lane *lane, const struct request *request)
{
	static const enum core_scope scopes[] = {
		[WIRE_SCOPE_MODULE] = CORE_SCOPE_MODULE,
		[WIRE_SCOPE_MINE] = CORE_SCOPE_UID,
		[WIRE_SCOPE_ALL] = CORE_SCOPE_ALL,
	};
	struct server *server = lane->server;
	const struct wire_pending *pending = request->body;
	struct module *module = NULL;
	struct wire_count body = {};

	if (pending->scope == WIRE_SCOPE_MODULE) {
		module = session_module(lane, pending->module, NULL);
		if (!module)
			return lane_error(lane, request->serial, TIER_ERROR_NO_MODULE, "no module %llu",
					  (unsigned long long)pending->module);
	}
	server->ops->drain(server->context);
	core_sweep(server->core, module);	/* a threshold whose bell was lost is pending, too */
	body.count = core_pending(server->core, scopes[pending->scope], module, lane->uid);
	lane_reply(lane, request->serial, WIRE_COUNT, &body);
	return 0;
}

/* One-way, so nothing is answered; what no counter confirms is counted by the core and does no harm. */
int query_threshold(struct lane *lane, const struct request *request)
{
	struct server *server = lane->server;
	const struct wire_bell *bell = request->body;

	if (session_module(lane, bell->module, NULL))
		core_threshold(server->core, bell->module, bell->method, bell->version, lane->pid, bell->tid,
			       clock_now_ns(), TIER_SOURCE_SOCKET);
	return 0;
}

/* Likewise: the core believes nothing of it but that there are such a module and such a patchpoint. */
int query_osr(struct lane *lane, const struct request *request)
{
	const struct wire_osr *osr = request->body;

	if (session_module(lane, osr->module, NULL))
		core_osr_request(lane->server->core, osr->module, osr->patchpoint);
	return 0;
}
