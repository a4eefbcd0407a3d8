/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include "connection.h"
#include "error.h"
#include "sync.h"
#include "sys.h"

/* A cursor in the journal
 *
 * One request is always under way, so the daemon's answer makes the socket readable when there is news; what an answer
 * brought and the program has not taken yet keeps a second descriptor readable. Programs poll both as one. */

struct tier_events {
	struct tier_conn *conn;
	uint32_t epoch;		/* the session that the lane belongs to */
	int poll_fd;		/* epoll of the next two */
	int left_fd;		/* eventfd: there are events left in the batch */
	struct lane lane;
	uint64_t next;		/* the first number that no batch has brought yet */
	bool is_posted;
	uint32_t at;		/* in the batch */
	struct wire_batch batch;
};

/* -- The pollable descriptor --- */
static void events_mark_left(struct tier_events *events, bool is_left)
{
	uint64_t count = 1;

	if (is_left)
		sys_write(events->left_fd, &count, sizeof(count));
	else
		sys_read(events->left_fd, &count, sizeof(count));
}

static int events_watch(struct tier_events *events, int fd)
{
	struct epoll_event event = { .events = EPOLLIN };

	if (epoll_ctl(events->poll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
		return error_set(-errno, "cannot watch for events: %s", error_word(-errno));
	return 0;
}

static int events_make_pollable(struct tier_events *events)
{
	int r;

	events->poll_fd = epoll_create1(EPOLL_CLOEXEC);
	events->left_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (events->poll_fd < 0 || events->left_fd < 0)
		return error_set(-errno, "cannot watch for events: %s", error_word(-errno));
	r = events_watch(events, events->left_fd);
	return r < 0 ? r : events_watch(events, events->lane.fd);
}

/* -- The lane; signals are blocked --- */
static void events_release(struct tier_events *events)
{
	lane_close(&events->lane);
	if (events->poll_fd >= 0)
		sys_close(events->poll_fd);
	if (events->left_fd >= 0)
		sys_close(events->left_fd);
	events->poll_fd = events->left_fd = -1;
}

static bool events_is_foreign(const struct tier_events *events)
{
	return events->epoch != events->conn->epoch || !events->conn->page->mine;
}

/* Lets go of the lane: in a fork of what it inherited, as far as that is safe. */
static void events_leave(struct tier_events *events)
{
	if (!events_is_foreign(events) || lane_is_copy(&events->lane))
		events_release(events);
	events->poll_fd = events->left_fd = -1;
	events->is_posted = false;
}

static int events_join(struct tier_events *events, const uint64_t *mask)
{
	struct tier_conn *const conn = events->conn;
	const uint64_t deadline_ns = deadline_after(conn->timeout_ns);
	int r;

	events->epoch = conn->epoch;
	events->lane = conn_lane(conn);
	r = session_join(conn, &events->lane, WIRE_LANE_EVENTS, deadline_ns, mask);
	return r < 0 ? r : events_make_pollable(events);
}

/* In a fork the lane is the parent's: leaves it, and goes on where the cursor stands. */
static int events_ready(struct tier_events *events, const uint64_t *mask)
{
	struct tier_conn *const conn = events->conn;
	int r;

	r = conn_ready(conn, deadline_after(conn->timeout_ns));
	if (r < 0 || (events->epoch == conn->epoch && events->poll_fd >= 0))
		return r;
	events_leave(events);
	r = events_join(events, mask);
	if (r < 0)
		events_leave(events);
	else if (events->at < events->batch.n)
		events_mark_left(events, true);
	return r;
}

static struct request events_request(const struct wire_events_from *body, struct tier_events *events, uint64_t deadline_ns,
				     const uint64_t *mask)
{
	return (struct request){ .type = WIRE_EVENTS, .body = body, .fd = -1, .reply_type = WIRE_BATCH,
				 .reply = &events->batch, .deadline_ns = deadline_ns, .mask = mask };
}

static int events_post(struct tier_events *events, uint64_t deadline_ns, const uint64_t *mask)
{
	const struct wire_events_from from = { .from = events->next, .timeout_ns = UINT64_MAX };
	const struct request request = events_request(&from, events, deadline_ns, mask);
	int r;

	if (events->is_posted)
		return 0;
	r = lane_post(&events->lane, &request);
	events->is_posted = r == 0;
	return r;
}

static int events_take(struct tier_events *events)
{
	const bool is_time = events->next & WIRE_EVENTS_SINCE;

	if (events->batch.n > WIRE_BATCH_MAX || (!is_time && events->next && events->batch.next < events->next)) {
		events->batch.n = 0;
		return error_set(-EPROTO, "the daemon sent an impossible batch of events");
	}
	events->at = 0;
	events->next = events->batch.next;
	if (events->batch.n)
		events_mark_left(events, true);
	return 0;
}

static int events_gap(struct tier_events *events, uint64_t *gap_first, uint64_t *gap_last)
{
	const struct wire_error *error = &events->lane.body.as_ERROR;

	if (gap_first)
		*gap_first = error->first;
	if (gap_last)
		*gap_last = error->last;
	if (!(events->next & WIRE_EVENTS_SINCE) && error->last < events->next)
		return error_set(-EPROTO, "the daemon reported an impossible gap");
	events->next = error->last + 1;
	return error_set(-ENODATA, "the events %lu to %lu are no longer kept", (unsigned long)error->first,
			 (unsigned long)error->last);
}

/* What an answer brought; then one request is under way again, so that the descriptor tells of news. */
static int events_accept(struct tier_events *events, int r, uint64_t deadline_ns, const uint64_t *mask, uint64_t *gap_first,
			 uint64_t *gap_last)
{
	int posted;

	events->is_posted = false;
	if (r == 0)
		r = events_take(events);
	else if (r == -ENODATA)
		r = events_gap(events, gap_first, gap_last);
	posted = events_post(events, deadline_ns, mask);
	return r < 0 ? r : posted;
}

/* Nothing has come so far, but the answer may be on its way: whoever does not want to wait asks the daemon what there is.
 * Should the answer come before the cancellation it is dropped, and the same events are read again. */
static int events_look(struct tier_events *events, const uint64_t *mask, uint64_t *gap_first, uint64_t *gap_last)
{
	const uint64_t deadline_ns = deadline_after(events->conn->timeout_ns);
	const struct wire_cancel cancel = { .serial = events->lane.serial };
	const struct wire_events_from from = { .from = events->next };
	struct request request = { .type = WIRE_CANCEL, .body = &cancel, .fd = -1, .reply_type = WIRE_DONE,
				   .deadline_ns = deadline_ns, .mask = mask };
	int r;

	events->is_posted = false;
	r = lane_request(&events->lane, &request);
	if (r < 0)
		return r;
	request = events_request(&from, events, deadline_ns, mask);
	r = lane_request(&events->lane, &request);
	r = events_accept(events, r, deadline_ns, mask, gap_first, gap_last);
	return r == 0 && !events->batch.n ? error_set(-ETIMEDOUT, "there is no newer event") : r;
}

/* The next batch */
static int events_fetch(struct tier_events *events, uint64_t timeout_ns, uint64_t deadline_ns, const uint64_t *mask,
			uint64_t *gap_first, uint64_t *gap_last)
{
	const struct request request = events_request(NULL, events, deadline_ns, mask);
	int r;

	r = events_post(events, deadline_ns, mask);
	if (r < 0)
		return r;
	r = lane_await(&events->lane, &request);
	if (r == -ETIMEDOUT && !timeout_ns)
		return events_look(events, mask, gap_first, gap_last);
	if (events->lane.header.serial != events->lane.serial)
		return r;
	return events_accept(events, r, deadline_ns, mask, gap_first, gap_last);
}

/* -- API --- */
/* Asks once without waiting: what comes after tier_events_open() is new, whatever the daemon hears first. */
static int events_start(struct tier_events *events, const uint64_t *mask)
{
	const struct wire_events_from from = { .from = events->next };
	const uint64_t deadline_ns = deadline_after(events->conn->timeout_ns);
	const struct request request = events_request(&from, events, deadline_ns, mask);
	int r;

	r = events_ready(events, mask);
	if (!r)
		r = lane_request(&events->lane, &request);
	if (r == -ENODATA)	/* told by the first tier_events_next() */
		r = 0;
	else if (!r)
		r = events_take(events);
	return r < 0 ? r : events_post(events, deadline_ns, mask);
}

int tier_events_open(struct tier_conn *conn, uint64_t from, struct tier_events **ret)
{
	struct tier_events *events;
	uint64_t mask;
	int r;

	events = sys_mmap(NULL, sizeof(*events), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (sys_is_error(events))
		return error_set(-ENOMEM, "out of memory");
	conn_ref(conn);
	events->conn = conn;
	events->epoch = conn->epoch;
	events->lane = conn_lane(conn);
	events->poll_fd = events->left_fd = -1;
	events->next = from;
	mask = signals_block();
	r = events_start(events, &mask);
	signals_restore(mask);
	if (r < 0)
		tier_events_close(events);
	else
		*ret = events;
	return r;
}

void tier_events_close(struct tier_events *events)
{
	if (!events)
		return;
	events_leave(events);
	conn_unref(events->conn);
	sys_munmap(events, sizeof(*events));
}

int tier_events_fd(const struct tier_events *events)
{
	return events->poll_fd;
}

int tier_events_next(struct tier_events *events, uint64_t timeout_ns, struct tier_event *ret, uint64_t *gap_first,
		     uint64_t *gap_last)
{
	const uint64_t deadline_ns = deadline_after(timeout_ns);
	uint64_t mask = signals_block();
	int r;

	r = events_ready(events, &mask);
	while (!r && events->at == events->batch.n)
		r = events_fetch(events, timeout_ns, deadline_ns, &mask, gap_first, gap_last);
	if (!r) {
		*ret = events->batch.events[events->at++];
		if (events->at == events->batch.n)
			events_mark_left(events, false);
	}
	signals_restore(mask);
	return r;
}
