/* SPDX-License-Identifier: Apache-2.0 */
#include "server/feed.h"
#include "server/freeze.h"
#include "server/hold.h"
#include "server/query.h"
#include "server/rejit.h"
#include "server/session.h"
#include "server/settle.h"
#include "server/slots.h"
#include "server/state.h"
#include "server/wait.h"
#include "util/base.h"
#include "util/error.h"

#define WAIT_NEWS_TURN_NS 500000u
#define WAIT_DEADLINES_PER_TURN 256

static struct list *wait_bucket(struct server *server, uint64_t module, uint32_t method)
{
	uint64_t h = (module * 0x9e3779b97f4a7c15u ^ method) + server->seed;

	h = (h ^ h >> 31) * 0xbf58476d1ce4e5b9u;
	return &server->waits[(h ^ h >> 29) % SERVER_WAIT_BUCKETS];
}

/* -- Life --- */
static void wait_arm(struct server *server)
{
	const struct deadline *first = deadline_first(&server->deadlines);

	if (first)
		dispatch_timer_arm(&server->deadline_timer, first->at_ns);
	else
		dispatch_timer_disarm(&server->deadline_timer);
}

int wait_set_deadline(struct server *server, struct wait *wait, uint64_t timeout_ns)
{
	uint64_t now = clock_now_ns();
	int r;

	if (timeout_ns > UINT64_MAX - now)
		return 0;
	r = deadline_add(&server->deadlines, &wait->deadline, now + timeout_ns);
	if (r)
		return error_fold(r);
	if (deadline_first(&server->deadlines) == &wait->deadline)
		wait_arm(server);
	return 0;
}

struct wait *wait_new(struct lane *lane, uint64_t serial, enum wait_kind kind, uint64_t timeout_ns)
{
	struct session *session = lane->session;
	struct wait *wait;

	if (session->n_waits >= lane->server->config.waits_per_session) {
		lane_error(lane, serial, TIER_ERROR_QUOTA, "the session has %u waits already", session->n_waits);
		return NULL;
	}
	wait = calloc(1, sizeof(*wait));
	if (!wait || wait_set_deadline(lane->server, wait, timeout_ns)) {
		free(wait);
		lane_error(lane, serial, TIER_ERROR_NO_MEMORY, NULL);
		return NULL;
	}
	wait->kind = kind;
	wait->lane = lane;
	wait->serial = serial;
	list_init(&wait->link);
	list_init(&wait->resident_link);
	list_append(&lane->waits, &wait->lane_link);
	session->n_waits++;
	return wait;
}

void wait_free(struct wait *wait)
{
	struct resident *resident = wait->resident;

	list_remove(&wait->link);
	list_remove(&wait->lane_link);
	list_remove(&wait->resident_link);
	deadline_remove(&wait->lane->server->deadlines, &wait->deadline);
	wait->lane->session->n_waits--;
	if (wait->settling)
		settle_free(wait);
	free(wait);
	if (resident)
		resident_put(resident);
}

void wait_end_lane(struct lane *lane)
{
	struct list *first;

	while ((first = list_first(&lane->waits)))
		wait_free(list_entry(first, struct wait, lane_link));
}

void wait_end(struct wait *wait, enum tier_error error)
{
	lane_error_numbers(wait->lane, wait->serial, error, wait->next, 0);
	wait_free(wait);
}

/* -- Requests --- */
bool wait_for_module(struct wait *wait, uint64_t module, uint32_t method)
{
	struct server *server = wait->lane->server;

	wait->resident = resident_get(server, module);
	if (!wait->resident) {
		wait_end(wait, TIER_ERROR_NO_MEMORY);
		return false;
	}
	wait->method = method;
	list_append(&wait->resident->waits, &wait->resident_link);
	list_append(wait_bucket(server, module, method), &wait->link);
	return true;
}

static void wait_for_method(struct lane *lane, const struct request *request)
{
	const struct wire_wait *body = request->body;
	struct wait *wait = wait_new(lane, request->serial, WAIT_METHOD, body->timeout_ns);

	if (wait)
		wait_for_module(wait, body->module, body->method);
}

int wait_request(struct lane *lane, const struct request *request)
{
	const struct wire_wait *body = request->body;
	struct server *server = lane->server;
	struct module *module = session_method(lane, request->serial, body->module, body->method);
	struct tier_answer answer;

	if (!module)
		return 0;
	server->ops->drain(server->context);
	answer = core_answer(module, body->method);
	if (tier_answer_is_quiet(&answer))
		query_reply(lane, request->serial, &answer);
	else if (!body->timeout_ns)
		lane_error(lane, request->serial, TIER_ERROR_TIMEOUT, NULL);
	else
		wait_for_method(lane, request);
	return 0;
}

static bool wait_is_cancelable(const struct wait *wait)
{
	return wait->kind == WAIT_METHOD || wait->kind == WAIT_PREPARE || wait->kind == WAIT_FEED;
}

/* On the lane that cancels: serials are unique per connection. */
int wait_cancel(struct lane *lane, const struct request *request)
{
	const struct wire_cancel *cancel = request->body;
	struct list *pos;

	list_for_each(pos, &lane->waits) {
		struct wait *wait = list_entry(pos, struct wait, lane_link);

		if (wait->serial == cancel->serial && wait_is_cancelable(wait)) {
			wait_end(wait, TIER_ERROR_CANCELED);
			break;
		}
	}
	lane_done(lane, request->serial);
	return 0;
}

/* -- News --- */
static void wait_ring(struct server *server)
{
	if (!list_is_empty(&server->news) && !list_is_linked(&server->news_timer.link))
		dispatch_timer_arm(&server->news_timer, clock_now_ns());
}

void wait_method_changed(struct server *server, uint64_t module, uint32_t method)
{
	struct list *head = wait_bucket(server, module, method), *pos, *after;

	list_for_each_safe(pos, after, head) {
		struct wait *wait = list_entry(pos, struct wait, link);

		if (wait->method != method || wait->resident->id != module)
			continue;
		list_remove(&wait->link);
		list_append(&server->news, &wait->link);
	}
	wait_ring(server);
}

void wait_module_quiet(struct server *server, uint64_t module)
{
	wait_method_changed(server, module, WAIT_NO_METHOD);
}

void wait_module_gone(struct server *server, struct resident *resident)
{
	struct list *pos;

	list_for_each(pos, &resident->waits) {
		struct wait *wait = list_entry(pos, struct wait, resident_link);

		list_remove(&wait->link);
		list_append(&server->news, &wait->link);
	}
	wait_ring(server);
}

void wait_event_added(struct server *server)
{
	struct list *first;

	while ((first = list_first(&server->feeds))) {
		list_remove(first);
		list_append(&server->news, first);
	}
	wait_ring(server);
}

void wait_look_again(struct server *server, struct wait *wait)
{
	list_append(&server->news, &wait->link);
	wait_ring(server);
}

/* True: the wait was answered. */
static bool wait_answer(struct wait *wait, struct module *module)
{
	const struct tier_answer answer = core_answer(module, wait->method);

	if (tier_answer_is_quiet(&answer))
		query_reply(wait->lane, wait->serial, &answer);
	return tier_answer_is_quiet(&answer);
}

/* The wait is in no list: it is answered, or goes back to where news will find it. */
static void wait_look(struct server *server, struct wait *wait)
{
	uint64_t id = wait->resident->id;
	struct module *module = core_module_by_id(server->core, id);
	bool is_over;

	if (!module) {
		wait_end(wait, TIER_ERROR_NO_MODULE);
		return;
	}
	list_append(wait_bucket(server, id, wait->method), &wait->link);
	if (wait->kind == WAIT_PREPARE)
		is_over = query_prepare_look(wait, module);
	else if (wait->kind == WAIT_FREEZE)
		is_over = freeze_look(wait, module);
	else
		is_over = wait_answer(wait, module);
	if (is_over)
		wait_free(wait);
}

int wait_news_timer(struct dispatch_timer *timer, uint64_t now_ns)
{
	struct server *server = container_of(timer, struct server, news_timer);
	uint64_t begin = clock_now_ns();
	struct list *first;

	while ((first = list_first(&server->news)) && clock_now_ns() - begin < WAIT_NEWS_TURN_NS) {
		struct wait *wait = list_entry(first, struct wait, link);

		list_remove(&wait->link);
		if (wait->kind == WAIT_REVERT || wait->kind == WAIT_SETTLED) {
			(wait->kind == WAIT_REVERT ? rejit_revert_look : settle_look)(server, wait);
			break;		/* a slice as long as all that may be looked at */
		}
		if (wait->kind == WAIT_FEED)
			feed_look(server, wait);
		else
			wait_look(server, wait);
	}
	wait_ring(server);
	return 0;
}

static void wait_late(struct wait *wait)
{
	if (wait->kind == WAIT_SLOTS)
		slots_late(wait);
	else
		wait_end(wait, TIER_ERROR_TIMEOUT);
}

int wait_deadline_timer(struct dispatch_timer *timer, uint64_t now_ns)
{
	struct server *server = container_of(timer, struct server, deadline_timer);
	struct deadline *first;

	for (int i = 0; i < WAIT_DEADLINES_PER_TURN; i++) {
		first = deadline_first(&server->deadlines);
		if (!first || first->at_ns > now_ns)
			break;
		wait_late(container_of(first, struct wait, deadline));
	}
	wait_arm(server);
	return 0;
}
