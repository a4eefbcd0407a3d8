/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "server/report.h"
#include "server/state.h"

static void stats_add_core(struct wire_stats *body, const struct core *core)
{
	struct core_stats stats;

	core_stats(core, &stats);
	body->n_modules = stats.n_modules;
	body->n_methods = stats.n_methods;
	body->n_versions = stats.n_versions;
	body->n_takeovers = stats.n_takeovers;
	memcpy(body->n_thresholds, stats.n_thresholds, sizeof(body->n_thresholds));
	body->n_unconfirmed = stats.n_unconfirmed;
	body->n_published = stats.n_published;
	body->n_promotions_failed = stats.n_promotions_failed;
	body->n_delays = stats.n_delays;
	body->sequence = stats.sequence;
}

static void stats_add_loop(struct wire_stats *body, const struct dispatch *dispatch)
{
	body->n_turns = dispatch->n_turns;
	body->longest_turn_ns = dispatch->longest_turn_ns;
	if (dispatch->longest_turn_name)
		strncpy(body->longest_turn_name, dispatch->longest_turn_name, sizeof(body->longest_turn_name) - 1);
}

int report_stats(struct lane *lane, const struct request *request)
{
	struct server *server = lane->server;
	struct wire_stats body = { .daemon = TIER_VERSION, .pid = getpid() };

	server->ops->drain(server->context);
	stats_add_core(&body, server->core);
	stats_add_loop(&body, server->dispatch);
	body.n_sessions = server->n_sessions;
	body.n_requests = server->n_requests;
	body.n_disconnected = server->n_disconnected;
	server->ops->stats(server->context, &body);
	lane_reply(lane, request->serial, WIRE_STATISTICS, &body);
	return 0;
}

int report_counters(struct lane *lane, const struct request *request)
{
	struct server *server = lane->server;
	const struct core_counters *core = core_counters(server->core);
	struct wire_counters body = {
		.n_backpatch_calls = core->n_backpatch_calls,
		.n_slots_examined = core->n_slots_examined,
		.n_slot_writes = core->n_slot_writes,
		.n_slots_recorded = core->n_slots_recorded,
		.n_funcptr_writes = core->n_funcptr_writes,
		.n_entry_transitions = core->n_entry_transitions,
		.n_oscillations = core->n_oscillations,
		.n_precode_stores = core->n_precode_stores,
		.backpatch_ns = core->backpatch_ns,
		.n_uncounted_entries = core->n_uncounted_entries,
		.n_stale_completions = core->n_stale_completions,
		.n_unsafe_inactive = core->n_unsafe_inactive,
		.n_rejits = core->n_rejits,
		.n_reverts = core->n_reverts,
		.n_withdrawn = core->n_withdrawn,
	};

	memcpy(body.n_paths, core->n_paths, sizeof(body.n_paths));
	server->ops->counters(server->context, &body);
	lane_reply(lane, request->serial, WIRE_COUNTED, &body);
	return 0;
}

int report_knobs(struct lane *lane, const struct request *request)
{
	const struct wire_cursor *cursor = request->body;
	struct wire_knobs body = {};

	lane->server->ops->knobs(lane->server->context, cursor->cursor, &body);
	lane_reply(lane, request->serial, WIRE_SETTINGS, &body);
	return 0;
}

static void session_row(struct wire_session_row *row, const struct session *session)
{
	*row = (struct wire_session_row){
		.number = session->number,
		.pid = session->pid,
		.uid = session->uid,
		.n_lanes = session->n_lanes,
		.n_modules = session->n_holds,
		.n_waits = session->n_waits,
		.path = session->path,
	};
	memcpy(row->program, session->program, sizeof(row->program));
	snprintf(row->why, sizeof(row->why), "%.*s", (int)sizeof(row->why) - 1, session->why);
}

int report_clients(struct lane *lane, const struct request *request)
{
	const struct wire_cursor *cursor = request->body;
	struct wire_sessions body = {};
	struct list *pos;

	list_for_each(pos, &lane->server->sessions) {
		const struct session *session = list_entry(pos, struct session, link);

		if (session->number <= cursor->cursor || (lane->uid != 0 && session->uid != lane->uid))
			continue;
		if (body.n == WIRE_SESSIONS_MAX) {
			body.more = 1;
			break;
		}
		session_row(&body.rows[body.n++], session);
	}
	lane_reply(lane, request->serial, WIRE_SESSIONS, &body);
	return 0;
}
