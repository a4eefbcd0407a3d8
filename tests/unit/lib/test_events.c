/* SPDX-License-Identifier: Apache-2.0 */
#include "client.h"

/* Cursors in the journal: nothing is lost, nothing comes twice */

static struct tier_conn *conn;

static int events_setup(void **state)
{
	fake_setup(state);
	conn = client_connect(fake_of(state));
	return 0;
}

static int events_teardown(void **state)
{
	tier_disconnect(conn);
	return fake_teardown(state);
}

static struct tier_events *cursor_open(uint64_t from)
{
	struct tier_events *events;

	if (tier_events_open(conn, from, &events) != 0)
		fail_msg("%s", tier_error_text());
	return events;
}

static bool is_readable(struct tier_events *events, int timeout_ms)
{
	struct pollfd fd = { .fd = tier_events_fd(events), .events = POLLIN };

	return poll(&fd, 1, timeout_ms) == 1;
}

static void expect_event(struct tier_events *events, uint64_t sequence)
{
	struct tier_event event;

	if (tier_events_next(events, 10 * FAKE_SECOND, &event, NULL, NULL) != 0)
		fail_msg("%s", tier_error_text());
	assert_int_equal(event.sequence, sequence);
}

static void a_cursor_yields_every_event_in_order(void **state)
{
	struct fake *fake = fake_of(state);
	struct tier_events *events;
	struct tier_event event;

	for (int i = 0; i < 300; i++)
		fake_add_event(fake);
	events = cursor_open(5);
	for (uint64_t i = 5; i <= 300; i++) {
		assert_true(is_readable(events, 10000));
		expect_event(events, i);
	}
	assert_int_equal(tier_events_next(events, 0, &event, NULL, NULL), -ETIMEDOUT);
	assert_false(is_readable(events, 0));
	fake_add_event(fake);
	assert_true(is_readable(events, 10000));
	expect_event(events, 301);
	tier_events_close(events);
}

static void a_cursor_at_the_end_sees_only_what_is_new(void **state)
{
	struct fake *fake = fake_of(state);
	struct tier_events *events;
	struct tier_event event;

	fake_add_event(fake);
	fake_add_event(fake);
	events = cursor_open(0);
	fake_add_event(fake);
	expect_event(events, 3);
	assert_int_equal(tier_events_next(events, FAKE_SECOND / 50, &event, NULL, NULL), -ETIMEDOUT);
	fake_add_event(fake);
	expect_event(events, 4);
	tier_events_close(events);
}

static void a_gap_is_told_with_its_numbers(void **state)
{
	struct fake *fake = fake_of(state);
	uint64_t first = 0, last = 0;
	struct tier_events *events;
	struct tier_event event;

	for (int i = 0; i < 20; i++)
		fake_add_event(fake);
	fake->n_forgotten = 10;
	events = cursor_open(3);
	assert_true(is_readable(events, 10000));
	assert_int_equal(tier_events_next(events, FAKE_SECOND, &event, &first, &last), -ENODATA);
	assert_int_equal(first, 3);
	assert_int_equal(last, 10);
	for (uint64_t i = 11; i <= 20; i++)
		expect_event(events, i);
	tier_events_close(events);
}

static void what_belongs_to_others_is_passed_over_without_waiting(void **state)
{
	struct fake *fake = fake_of(state);
	struct tier_events *events;
	struct tier_event event;

	for (int i = 0; i < 10; i++)
		fake_add_event(fake);
	fake->n_hidden = 9;
	events = cursor_open(1);
	assert_int_equal(tier_events_next(events, 0, &event, NULL, NULL), 0);
	assert_int_equal(event.sequence, 10);
	assert_int_equal(tier_events_next(events, 0, &event, NULL, NULL), -ETIMEDOUT);
	tier_events_close(events);
}

static int child_reads_on(void *context)
{
	struct tier_event event;

	for (uint64_t i = 2; i <= 3; i++)
		if (tier_events_next(context, 10 * FAKE_SECOND, &event, NULL, NULL) != 0 || event.sequence != i)
			return 1;
	return is_readable(context, 0) ? 2 : 0;
}

static void a_fork_reads_on_from_where_it_was(void **state)
{
	struct fake *fake = fake_of(state);
	struct tier_events *events = cursor_open(1);

	fake_add_event(fake);
	fake_add_event(fake);
	expect_event(events, 1);
	fake_add_event(fake);
	assert_int_equal(child_run(BY_FORK, child_reads_on, events), 0);
	expect_event(events, 2);
	expect_event(events, 3);
	tier_events_close(events);
}

/* Each call waits for another daemon as long as a request may take. */
static void a_cursor_ends_when_no_daemon_comes_back(void **state)
{
	struct fake *fake = fake_of(state);
	struct tier_conn *hasty = client_connect_for(fake, FAKE_SECOND / 10);
	struct tier_events *events;
	struct tier_event event;

	assert_int_equal(tier_events_open(hasty, 0, &events), 0);
	fake_stop(fake);
	assert_true(is_readable(events, 10000));
	assert_int_equal(tier_events_next(events, TIER_FOREVER, &event, NULL, NULL), -ECONNRESET);
	assert_non_null(strstr(tier_error_text(), "is lost"));
	assert_int_equal(tier_events_next(events, TIER_FOREVER, &event, NULL, NULL), -ECONNRESET);
	tier_events_close(events);
	tier_disconnect(hasty);
}

/* What a poll() loop does: it never sleeps while there is something to do, and is not kept busy while there is not. */
static uint32_t poll_for_event(struct tier_events *events, uint64_t sequence)
{
	const int fd = tier_events_fd(events);
	struct tier_event event;
	uint32_t n = 0;
	int r;

	do {
		assert_true(is_readable(events, 10000));
		r = tier_events_next(events, 0, &event, NULL, NULL);
		assert_int_equal(tier_events_fd(events), fd);
		n++;
	} while (r == -ETIMEDOUT);
	if (r)
		fail_msg("%s", tier_error_text());
	assert_int_equal(event.sequence, sequence);
	return n;
}

static void a_poll_loop_goes_on_with_the_next_daemon(void **state)
{
	struct fake *fake = fake_of(state);
	struct tier_events *events;
	struct tier_event event;

	for (int i = 0; i < 3; i++)
		fake_add_event(fake);
	events = cursor_open(1);
	expect_event(events, 1);
	fake_stop(fake);
	expect_event(events, 2);		/* they came together */
	expect_event(events, 3);
	for (int i = 0; i < 3; i++) {		/* found out, tried again, tried again */
		assert_true(is_readable(events, 10000));
		assert_int_equal(tier_events_next(events, 0, &event, NULL, NULL), -ETIMEDOUT);
		assert_non_null(strstr(tier_error_text(), "is lost"));
	}
	fake_start(fake);
	fake_add_event(fake);
	assert_in_range(poll_for_event(events, 4), 1, 50);
	assert_int_equal(tier_events_next(events, 0, &event, NULL, NULL), -ETIMEDOUT);
	assert_false(is_readable(events, 0));
	fake_add_event(fake);
	assert_in_range(poll_for_event(events, 5), 1, 3);
	tier_events_close(events);
}

struct reader {
	struct tier_events *events;
	uint64_t n;
	int r;
};

static void *read_on(void *context)
{
	struct reader *reader = context;
	struct tier_event event;

	for (uint64_t i = 1; i <= reader->n && !reader->r; i++) {
		reader->r = tier_events_next(reader->events, 20 * FAKE_SECOND, &event, NULL, NULL);
		if (!reader->r && event.sequence != i)
			reader->r = -ERANGE;
	}
	return NULL;
}

/* Killed between any two events, and while a batch is on its way. */
static void nothing_is_lost_or_doubled_over_many_daemons(void **state)
{
	struct fake *fake = fake_of(state);
	struct reader reader = { cursor_open(1), 500, 0 };
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, read_on, &reader), 0);
	for (int i = 0; i < 500; i++) {
		fake_add_event(fake);
		if (i % 10 == 0) {
			pthread_mutex_lock(&fake->lock);
			fake_die(fake);
			pthread_mutex_unlock(&fake->lock);
			fake_wake(fake);
		}
	}
	pthread_join(thread, NULL);
	assert_int_equal(reader.r, 0);
	tier_events_close(reader.events);
}

static void a_gap_that_came_with_the_next_daemon_is_told(void **state)
{
	struct fake *fake = fake_of(state);
	struct tier_events *events = cursor_open(1);
	uint64_t first = 0, last = 0;
	struct tier_event event;

	fake_add_event(fake);
	expect_event(events, 1);
	fake_stop(fake);
	for (int i = 0; i < 9; i++)
		fake_add_event(fake);
	fake->n_forgotten = 7;
	fake_start(fake);
	assert_int_equal(tier_events_next(events, 10 * FAKE_SECOND, &event, &first, &last), -ENODATA);
	assert_int_equal(first, 2);
	assert_int_equal(last, 7);
	for (uint64_t i = 8; i <= 10; i++)
		expect_event(events, i);
	tier_events_close(events);
}

static void another_journal_is_said_once_and_read_from_its_beginning(void **state)
{
	struct fake *fake = fake_of(state);
	struct tier_events *events = cursor_open(1);
	struct tier_event event;

	for (int i = 0; i < 5; i++)
		fake_add_event(fake);
	for (uint64_t i = 1; i <= 5; i++)
		expect_event(events, i);
	fake_stop(fake);
	fake->n_events = 2;
	fake_start(fake);
	assert_int_equal(tier_events_next(events, 10 * FAKE_SECOND, &event, NULL, NULL), -ESTALE);
	assert_non_null(strstr(tier_error_text(), "before event 6"));
	assert_true(is_readable(events, 10000));	/* a poll() loop goes on */
	expect_event(events, 1);
	expect_event(events, 2);
	tier_events_close(events);
}

static void a_cursor_opens_while_the_daemon_comes_back(void **state)
{
	struct fake *fake = fake_of(state);
	struct tier_events *events;

	fake_add_event(fake);
	pthread_mutex_lock(&fake->lock);
	fake_die(fake);
	pthread_mutex_unlock(&fake->lock);
	events = cursor_open(1);
	expect_event(events, 1);
	tier_events_close(events);
}

static void a_wrong_batch_is_refused(void **state)
{
	struct fake *fake = fake_of(state);
	struct tier_events *events;

	fake_set_twist(fake, WIRE_EVENTS, TWIST_GARBAGE);
	assert_int_equal(tier_events_open(conn, 1, &events), -EPROTO);
	fake_set_twist(fake, WIRE_EVENTS, TWIST_TYPE);
	assert_int_equal(tier_events_open(conn, 1, &events), -EPROTO);
	fake_set_twist(fake, WIRE_EVENTS, TWIST_NONE);
	tier_events_close(cursor_open(1));
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, events_setup, events_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(a_cursor_yields_every_event_in_order),
		CASE(a_cursor_at_the_end_sees_only_what_is_new),
		CASE(a_gap_is_told_with_its_numbers),
		CASE(what_belongs_to_others_is_passed_over_without_waiting),
		CASE(a_fork_reads_on_from_where_it_was),
		CASE(a_cursor_ends_when_no_daemon_comes_back),
		CASE(a_poll_loop_goes_on_with_the_next_daemon),
		CASE(nothing_is_lost_or_doubled_over_many_daemons),
		CASE(a_gap_that_came_with_the_next_daemon_is_told),
		CASE(another_journal_is_said_once_and_read_from_its_beginning),
		CASE(a_cursor_opens_while_the_daemon_comes_back),
		CASE(a_wrong_batch_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
