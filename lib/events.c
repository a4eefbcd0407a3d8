/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include "connection.h"
#include "error.h"
#include "sync.h"
#include "sys.h"

/* A cursor in the journal
 *
 * One request is always under way, so the daemon's answer makes the socket readable when there is news; what an answer
 * brought and the program has not taken yet keeps a second descriptor readable. Programs poll both as one.
 *
 * When the daemon goes, the socket is readable, too, and whoever asks then looks for the next daemon. While there is none, a
 * timer makes the descriptor readable each time that it is worth looking again. The cursor stands behind the last event that an
 * answer brought, so the next daemon is asked for exactly what is missing. One whose journal ends before that has another
 * journal: that is said once, and the cursor goes to its beginning. */

struct tier_events {
	struct tier_conn *conn;
	uint32_t epoch;		/* the connection's, when the descriptors were made */
	uint32_t session;	/* that the lane belongs to */
	int poll_fd;		/* epoll of the next two and the lane */
	int left_fd;		/* eventfd: there are events left in the batch */
	int again_fd;		/* timerfd: there is no lane, and it is time to look for a daemon again */
	struct lane lane;	/* none: broken */
	uint64_t lost_ns;	/* since when there is none; 0: there is one */
	struct retry retry;	/* to get one */
	uint64_t next;		/* the first number that no batch has brought yet */
	bool is_posted;
	bool is_strange;	/* this daemon was not asked yet which journal it keeps */
	uint32_t at;		/* in the batch */
	struct wire_batch batch, news;
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
	events->again_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (events->poll_fd < 0 || events->left_fd < 0 || events->again_fd < 0)
		return error_set(-errno, "cannot watch for events: %s", error_word(-errno));
	r = events_watch(events, events->left_fd);
	return r < 0 ? r : events_watch(events, events->again_fd);
}

/* 0: never */
static void events_wake_at(struct tier_events *events, uint64_t time_ns)
{
	const struct itimerspec when = { .it_value = { time_ns / 1000000000u, time_ns % 1000000000u } };

	timerfd_settime(events->again_fd, TFD_TIMER_ABSTIME, &when, NULL);
}

/* -- The lane; signals are blocked --- */
static void events_close_fd(int *fd)
{
	if (*fd >= 0)
		sys_close(*fd);
	*fd = -1;
}

static void events_release(struct tier_events *events)
{
	lane_close(&events->lane);
	events_close_fd(&events->poll_fd);
	events_close_fd(&events->left_fd);
	events_close_fd(&events->again_fd);
}

static bool events_is_foreign(const struct tier_events *events)
{
	return events->epoch != events->conn->epoch || !events->conn->page->mine;
}

/* Lets go of all descriptors: in a fork of what it inherited, as far as that is safe. */
static void events_leave(struct tier_events *events)
{
	if (!events_is_foreign(events) || lane_is_copy(&events->lane))
		events_release(events);
	events->poll_fd = events->left_fd = events->again_fd = -1;
	events->lane = conn_lane(events->conn);
	events->is_posted = false;
}

/* The lane goes; the descriptor that programs poll stays, and what is left of the batch. */
static void events_lose(struct tier_events *events)
{
	if (lane_is_intact(&events->lane))
		epoll_ctl(events->poll_fd, EPOLL_CTL_DEL, events->lane.fd, NULL);
	lane_close(&events->lane);
	events->lane = conn_lane(events->conn);
	events->is_posted = false;
	if (!events->lost_ns)
		events->lost_ns = time_now();
}

/* -- Asking --- */
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

/* Whether the journal that this daemon keeps is the one that the cursor is in, as far as one can see. */
static int events_compare(struct tier_events *events, uint64_t deadline_ns, const uint64_t *mask)
{
	const struct wire_events_from newest = { .from = 0 };
	const uint64_t next = events->next;
	int r = 0;

	if (next && !(next & WIRE_EVENTS_SINCE))
		r = lane_request(&events->lane, &(struct request){ .type = WIRE_EVENTS, .body = &newest, .fd = -1,
								   .reply_type = WIRE_BATCH, .reply = &events->news,
								   .deadline_ns = deadline_ns, .mask = mask });
	if (r < 0)
		return r;
	events->is_strange = false;
	if (!next || next & WIRE_EVENTS_SINCE || events->news.next >= next)
		return 0;
	events->next = 1;
	events_post(events, deadline_ns, mask);		/* so that the descriptor tells of it, too */
	return error_set(-ESTALE, "the journal of the daemon that is now at %s is another one, which ends before event %lu",
			 events->conn->address.sun_path, (unsigned long)next);
}

static int events_join(struct tier_events *events, uint64_t deadline_ns)
{
	struct tier_conn *const conn = events->conn;
	int r;

	r = session_renew(conn, &events->lane, WIRE_LANE_EVENTS, 0, deadline_ns);
	if (r < 0)
		return r;
	events->is_strange |= events->session && events->session != session_number(conn);
	events->session = session_number(conn);
	events->lost_ns = 0;
	events->retry = retry_until(UINT64_MAX);
	events_wake_at(events, 0);
	return events_watch(events, events->lane.fd);
}

/* In a fork all descriptors are the parent's: it makes its own. */
static int events_own(struct tier_events *events)
{
	int r;

	if (events->epoch == events->conn->epoch && events->poll_fd >= 0)
		return 0;
	events_leave(events);
	events->epoch = events->conn->epoch;
	r = events_make_pollable(events);
	if (r < 0)
		events_leave(events);
	else if (events->at < events->batch.n)
		events_mark_left(events, true);
	return r;
}

/* A lane, so that the cursor goes on where it stands. */
static int events_ready(struct tier_events *events, uint64_t deadline_ns, const uint64_t *mask)
{
	int r;

	r = conn_ready(events->conn, deadline_ns);
	if (!r)
		r = events_own(events);
	if (!r && (lane_is_broken(&events->lane) || events->session != session_number(events->conn))) {
		events_lose(events);
		r = events_join(events, deadline_ns);
	}
	if (!r && events->is_strange)
		r = events_compare(events, deadline_ns, mask);
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

/* What an answer brought */
static int events_learn(struct tier_events *events, int r, uint64_t *gap_first, uint64_t *gap_last)
{
	events->is_posted = false;
	if (r == 0)
		return events_take(events);
	return r == -ENODATA ? events_gap(events, gap_first, gap_last) : r;
}

/* The same; then one request is under way again, so that the descriptor tells of news. */
static int events_accept(struct tier_events *events, int r, uint64_t deadline_ns, const uint64_t *mask, uint64_t *gap_first,
			 uint64_t *gap_last)
{
	int posted;

	r = events_learn(events, r, gap_first, gap_last);
	posted = events_post(events, deadline_ns, mask);
	return r < 0 ? r : posted;
}

/* What there is from the cursor on. The daemon passes over what this user may not see, and only so much at a time. */
static int events_ask(struct tier_events *events, uint64_t deadline_ns, const uint64_t *mask, uint64_t *gap_first, uint64_t *gap_last)
{
	struct wire_events_from from;
	const struct request request = events_request(&from, events, deadline_ns, mask);
	int r;

	do {
		from = (struct wire_events_from){ .from = events->next };
		r = lane_request(&events->lane, &request);
		r = events_learn(events, r, gap_first, gap_last);
	} while (!r && !events->batch.n && events->next != from.from && time_now() < deadline_ns);
	return r;
}

/* Nothing has come so far, but the answer may be on its way: whoever does not want to wait asks the daemon what there is.
 * Should the answer come before the cancellation it is dropped, and the same events are read again. */
static int events_look(struct tier_events *events, const uint64_t *mask, uint64_t *gap_first, uint64_t *gap_last)
{
	const uint64_t deadline_ns = deadline_after(events->conn->timeout_ns);
	const struct wire_cancel cancel = { .serial = events->lane.serial };
	const struct request request = { .type = WIRE_CANCEL, .body = &cancel, .fd = -1, .reply_type = WIRE_DONE,
					 .deadline_ns = deadline_ns, .mask = mask };
	int posted, r;

	events->is_posted = false;
	r = lane_request(&events->lane, &request);
	if (r < 0)
		return r;
	r = events_ask(events, deadline_ns, mask, gap_first, gap_last);
	posted = events_post(events, deadline_ns, mask);
	if (r || posted)
		return r ? r : posted;
	return events->batch.n ? 0 : error_set(-ETIMEDOUT, "there is no newer event");
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

/* -- Without a daemon --- */
#define EVENTS_ATTEMPT_NS 100000000ull	/* so long looking for one may take who does not want to wait, */
#define EVENTS_ATTEMPT_MAX_NS 1000000000ull	/* and so long who does */

static uint64_t events_attempt(uint64_t deadline_ns)
{
	const uint64_t least_ns = deadline_after(EVENTS_ATTEMPT_NS), most_ns = deadline_after(EVENTS_ATTEMPT_MAX_NS);

	return deadline_ns < least_ns ? least_ns : deadline_ns > most_ns ? most_ns : deadline_ns;
}

/* 0: it is time to look again. Else what the caller is told: @r once no daemon has come for as long as a request may take. */
static int events_without_daemon(struct tier_events *events, int r, uint64_t deadline_ns, const uint64_t *mask)
{
	uint64_t due_ns;
	struct timespec left;

	if (events_is_foreign(events) || !lane_is_broken(&events->lane))
		return r;
	events_lose(events);
	due_ns = retry_pause(&events->retry);
	events_wake_at(events, due_ns);
	if (time_now() - events->lost_ns >= events->conn->timeout_ns) {
		events->lost_ns = 0;
		return r;
	}
	if (due_ns >= deadline_ns)
		return error_set(-ETIMEDOUT, "there is no newer event; the connection to the daemon at %s is lost",
				 events->conn->address.sun_path);
	sys_ppoll(NULL, 0, deadline_left(due_ns, &left), mask);
	return 0;
}

/* -- API --- */
/* Asks once without waiting: what comes after tier_events_open() is new, whatever the daemon hears first. */
static int events_start(struct tier_events *events, uint64_t deadline_ns, const uint64_t *mask)
{
	const struct wire_events_from from = { .from = events->next };
	const struct request request = events_request(&from, events, deadline_ns, mask);
	int r;

	r = events_ready(events, events_attempt(deadline_ns), mask);
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
	const uint64_t deadline_ns = deadline_after(conn->timeout_ns);
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
	events->poll_fd = events->left_fd = events->again_fd = -1;
	events->next = from;
	events->retry = retry_until(UINT64_MAX);
	mask = signals_block();
	do {
		r = events_start(events, deadline_ns, &mask);
		if (r == -ECONNRESET && !events_without_daemon(events, r, deadline_ns, &mask))
			r = -EAGAIN;
	} while (r == -EAGAIN);
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

/* What is left of the batch needs no daemon. */
static bool events_has_left(const struct tier_events *events)
{
	return events->at < events->batch.n && events->poll_fd >= 0 && !events_is_foreign(events);
}

int tier_events_next(struct tier_events *events, uint64_t timeout_ns, struct tier_event *ret, uint64_t *gap_first,
		     uint64_t *gap_last)
{
	const uint64_t deadline_ns = deadline_after(timeout_ns);
	uint64_t mask = signals_block();
	int r = 0;

	while (!r && !events_has_left(events)) {
		r = events_ready(events, events_attempt(deadline_ns), &mask);
		if (!r && !events_has_left(events))
			r = events_fetch(events, timeout_ns, deadline_ns, &mask, gap_first, gap_last);
		if (r == -ECONNRESET)
			r = events_without_daemon(events, r, deadline_ns, &mask);
	}
	if (!r) {
		*ret = events->batch.events[events->at++];
		if (events->at == events->batch.n)
			events_mark_left(events, false);
	}
	signals_restore(mask);
	return r;
}
