/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>
#include "server/feed.h"
#include "server/session.h"
#include "server/state.h"
#include "server/wait.h"

/* Batches that a look may read before it lets others go on: what is invisible costs time too. */
#define FEED_READS_PER_LOOK 8

enum feed_state {
	FEED_ANSWERED,
	FEED_EMPTY,			/* nothing newer */
	FEED_MORE,			/* nothing visible so far, but there is more to read */
	FEED_LATER,			/* there is, but it has to be fetched */
};

static bool feed_sees(const struct lane *lane, const struct tier_event *event)
{
	struct core_module_info info;
	struct module *module;

	if (lane->uid == 0 || event->uid == lane->uid)
		return true;
	module = event->module ? core_module_by_id(lane->server->core, event->module) : NULL;
	if (!module)
		return false;
	core_module_info(module, &info);
	return info.shared;
}

/* Moves the visible ones to the front; their number. */
static uint32_t feed_filter(const struct lane *lane, struct tier_event *events, uint32_t n)
{
	uint32_t n_seen = 0;

	for (uint32_t i = 0; i < n; i++)
		if (feed_sees(lane, &events[i]))
			events[n_seen++] = events[i];
	memset(&events[n_seen], 0, (n - n_seen) * sizeof(events[0]));
	return n_seen;
}

/* Answers with what is visible from *next on, and moves *next behind what was read. */
static enum feed_state feed_read(struct lane *lane, uint64_t serial, uint64_t *next)
{
	struct server *server = lane->server;
	struct wire_batch batch = {};
	uint64_t gap_last = 0;

	if (*next & WIRE_EVENTS_SINCE && !server->ops->events_since(server->context, *next & ~WIRE_EVENTS_SINCE, next))
		return FEED_LATER;
	for (int i = 0; i < FEED_READS_PER_LOOK; i++) {
		int n = server->ops->events(server->context, *next, batch.events, WIRE_BATCH_MAX, &gap_last);

		if (n == SERVER_EVENTS_LATER)
			return FEED_LATER;
		if (n == SERVER_EVENTS_GAP) {
			lane_error_numbers(lane, serial, TIER_ERROR_GAP, *next, gap_last);
			return FEED_ANSWERED;
		}
		if (!n)
			return FEED_EMPTY;
		*next += n;
		batch.n = feed_filter(lane, batch.events, n);
		if (batch.n) {
			batch.next = *next;
			lane_reply(lane, serial, WIRE_BATCH, &batch);
			return FEED_ANSWERED;
		}
	}
	return FEED_MORE;
}

static void feed_answer_nothing(struct lane *lane, uint64_t serial, uint64_t next)
{
	struct wire_batch batch = { .next = next };

	lane_reply(lane, serial, WIRE_BATCH, &batch);
}

static void feed_park(struct server *server, struct wait *wait, enum feed_state state)
{
	if (state == FEED_MORE)
		wait_look_again(server, wait);
	else
		list_append(&server->feeds, &wait->link);
}

void feed_look(struct server *server, struct wait *wait)
{
	enum feed_state state = feed_read(wait->lane, wait->serial, &wait->next);

	if (wait->is_prompt && (state == FEED_EMPTY || state == FEED_MORE)) {
		feed_answer_nothing(wait->lane, wait->serial, wait->next);
		state = FEED_ANSWERED;
	}
	if (state == FEED_ANSWERED)
		wait_free(wait);
	else
		feed_park(server, wait, state);
}

int feed_request(struct lane *lane, const struct request *request)
{
	const struct wire_events_from *body = request->body;
	struct server *server = lane->server;
	uint64_t next = body->from;
	enum feed_state state;
	struct wait *wait;

	server->ops->drain(server->context);
	if (!next)
		next = server->ops->newest_event(server->context) + 1;
	state = feed_read(lane, request->serial, &next);
	if (state == FEED_ANSWERED)
		return 0;
	if (!body->timeout_ns && state != FEED_LATER) {
		feed_answer_nothing(lane, request->serial, next);
		return 0;
	}
	wait = wait_new(lane, request->serial, WAIT_FEED, body->timeout_ns ? body->timeout_ns : UINT64_MAX);
	if (!wait)
		return 0;
	wait->next = next;
	wait->is_prompt = !body->timeout_ns;
	feed_park(server, wait, state);
	return 0;
}
