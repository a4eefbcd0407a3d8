/* SPDX-License-Identifier: Apache-2.0 */
#include "reconnect.h"
#include <sys/ioctl.h>

/* When the daemon goes: what is asked again by itself, what is not, and what becomes of what the successor does not know.
 * Cursors, waits and slots have theirs in their own files, and so have threads, handlers and forks. */

/* -- Requests --- */
static void a_question_whose_answer_was_cut_off_is_asked_again(void **state)
{
	struct world w = world_new(state);
	struct tier_answer answer;

	fake_set_twist(w.fake, WIRE_STATUS, TWIST_DIE);
	assert_int_equal(tier_status_ask(w.warm, &answer), 0);
	assert_int_equal(w.fake->n_requests[WIRE_STATUS], 2);
	assert_int_equal(w.fake->n_sessions, 2);
	assert_int_equal(w.fake->sessions[1].n_held[0], 1);
	client_call(w.cold, 1);		/* by the other lane, which joins */
	assert_int_equal(w.fake->n_sessions, 2);
	assert_int_equal(w.fake->sessions[1].n_lanes, 2);
	world_end(&w);
}

static void *asker_main(void *context)
{
	struct tier_answer answer;

	return (void *)(intptr_t)tier_status_ask(context, &answer);
}

/* Bytes that the daemon has not read yet */
static int n_unread(struct fake *fake)
{
	int n = 0, more;

	for (uint32_t i = 0; i < fake->n_conns; i++)
		if (fake->conns[i].fd >= 0 && ioctl(fake->conns[i].fd, FIONREAD, &more) == 0)
			n += more;
	return n;
}

static void a_question_that_was_never_read_is_asked_again(void **state)
{
	struct world w = world_new(state);
	pthread_t thread;
	void *r;

	pthread_mutex_lock(&w.fake->lock);
	assert_int_equal(pthread_create(&thread, NULL, asker_main, w.warm), 0);
	for (int i = 0; i < 100000 && !n_unread(w.fake); i++)
		usleep(100);
	assert_true(n_unread(w.fake) > 0);
	fake_die(w.fake);
	pthread_mutex_unlock(&w.fake->lock);
	pthread_join(thread, &r);
	assert_null(r);
	assert_int_equal(w.fake->n_requests[WIRE_STATUS], 1);
	world_end(&w);
}

/* -- Deeds --- */
static int do_load(struct world *w) { return tier_load_bytes(w->conn, "object", 6, "other", 0, NULL); }
static int do_unload(struct world *w) { return tier_unload(w->conn, "other"); }
static int do_rejit(struct world *w) { return tier_rejit_bytes(w->warm, "object", 6, "f", 0); }
static int do_revert(struct world *w) { return tier_revert(w->warm); }
static int do_freeze(struct world *w) { return tier_freeze(w->module); }
static int do_instantiate(struct world *w)
{
	struct tier_module *instance;

	return tier_module_instantiate(w->module, &(struct tier_value){ "a", 1 }, 1, &instance);
}

static const struct { enum wire_type type; int (*fn)(struct world *w); const char *text; } deeds[] = {
	{ WIRE_LOAD, do_load, "it may be loaded" },	 { WIRE_UNLOAD, do_unload, "it may be unloaded" },
	{ WIRE_REJIT, do_rejit, "it may be replaced" },	 { WIRE_REVERT, do_revert, "it may be back" },
	{ WIRE_FREEZE, do_freeze, "it is not frozen" },	 { WIRE_INSTANTIATE, do_instantiate, "the instantiation may be there" },
};
#define DEEDS (sizeof(deeds) / sizeof(deeds[0]))

static void what_may_have_been_done_is_not_done_twice(void **state)
{
	struct world w = world_new(state);

	for (size_t i = 0; i < DEEDS; i++) {
		fake_set_twist(w.fake, deeds[i].type, TWIST_DIE);
		assert_int_equal(deeds[i].fn(&w), -ECONNRESET);
		if (!strstr(tier_error_text(), deeds[i].text) || !strstr(tier_error_text(), w.fake->address.sun_path))
			fail_msg("'%s' does not say '%s'", tier_error_text(), deeds[i].text);
		assert_int_equal(w.fake->n_requests[deeds[i].type], 1);
	}
	world_end(&w);
}

static void what_was_not_sent_is_done_by_the_next_daemon(void **state)
{
	struct world w = world_new(state);

	for (size_t i = 0; i < DEEDS; i++)
		if (deeds[i].type != WIRE_INSTANTIATE && deeds[i].type != WIRE_UNLOAD) {
			daemon_dies(w.fake);
			if (deeds[i].fn(&w) != 0)
				fail_msg("%s", tier_error_text());
			assert_int_equal(w.fake->n_requests[deeds[i].type], 1);
		}
	world_end(&w);
}

static void a_freeze_ends_with_the_daemon_and_thawing_says_so(void **state)
{
	struct world w = world_new(state);

	assert_int_equal(tier_freeze(w.module), 0);
	daemon_dies(w.fake);
	assert_int_equal(tier_thaw(w.module), -ECONNRESET);
	assert_non_null(strstr(tier_error_text(), "module 'demo' is not frozen any more"));
	assert_int_equal(w.fake->n_requests[WIRE_THAW], 0);
	assert_int_equal(tier_freeze(w.module), 0);
	assert_int_equal(tier_thaw(w.module), 0);
	world_end(&w);
}

static void a_question_that_kills_every_daemon_is_given_up(void **state)
{
	struct world w = world_new(state);
	struct tier_answer answer;

	fake_set_twist(w.fake, WIRE_STATUS, TWIST_HANGUP);
	assert_int_equal(tier_status_ask(w.warm, &answer), -ECONNRESET);
	assert_in_range(w.fake->n_requests[WIRE_STATUS], 2, 20);
	fake_set_twist(w.fake, WIRE_STATUS, TWIST_NONE);
	assert_int_equal(tier_status_ask(w.warm, &answer), 0);
	world_end(&w);
}

/* -- What a successor can do wrong --- */
static void a_refused_hello_is_told_at_once(void **state)
{
	struct world w = world_new(state);
	struct tier_answer answer;

	daemon_dies(w.fake);
	fake_set_twist(w.fake, WIRE_HELLO, TWIST_REFUSE);
	assert_int_equal(tier_status_ask(w.warm, &answer), -ENOSPC);
	assert_string_equal(tier_error_text(), "no room for you");
	assert_true(call_fails(tier_entry(w.cold)));
	assert_string_equal(failure_text, "no room for you");
	client_call(w.warm, 1);
	fake_set_twist(w.fake, WIRE_HELLO, TWIST_NONE);
	assert_int_equal(tier_status_ask(w.warm, &answer), 0);
	client_call(w.cold, 1);
	world_end(&w);
}

/* It dies in every step of the new session. */
static void a_successor_that_dies_while_it_is_met_is_succeeded(void **state)
{
	static const enum wire_type steps[] = { WIRE_HELLO, WIRE_PROBED, WIRE_ATTACH };
	static const enum twist nonsense[] = { TWIST_GARBAGE, TWIST_SHORT, TWIST_TYPE, TWIST_FUTURE, TWIST_LAST_WORD };
	struct world w = world_new(state);
	struct tier_answer answer;

	for (size_t i = 0; i < 3; i++) {
		daemon_dies(w.fake);
		fake_set_twist(w.fake, steps[i], TWIST_DIE);
		assert_int_equal(tier_status_ask(w.warm, &answer), 0);
		assert_int_equal(w.fake->sessions[w.fake->n_sessions - 1].n_held[0], 1);
	}
	for (size_t i = 0; i < 3; i++)
		for (size_t j = 0; j < sizeof(nonsense) / sizeof(nonsense[0]); j++) {
			daemon_dies(w.fake);
			fake_set_twist(w.fake, steps[i], nonsense[j]);
			assert_int_equal(tier_status_ask(w.warm, &answer), -EPROTO);
			fake_set_twist(w.fake, steps[i], TWIST_NONE);
			assert_int_equal(tier_status_ask(w.warm, &answer), 0);
		}
	world_end(&w);
}

/* The token of a session that the daemon knows but this lane's socket does not */
static void a_lane_that_is_lost_alone_joins_its_session(void **state)
{
	struct world w = world_new(state);
	struct tier_answer answer;

	assert_int_equal(tier_freeze(w.module), 0);
	fake_set_twist(w.fake, WIRE_STATUS, TWIST_GARBAGE);
	assert_int_equal(tier_status_ask(w.warm, &answer), -EPROTO);
	fake_set_twist(w.fake, WIRE_STATUS, TWIST_NONE);
	assert_int_equal(tier_status_ask(w.warm, &answer), 0);
	assert_int_equal(w.fake->n_sessions, 1);
	assert_int_equal(w.fake->sessions[0].n_held[0], 1);
	assert_int_equal(tier_thaw(w.module), 0);	/* still its own */
	world_end(&w);
}

/* -- Modules that the successor does not know --- */
static void expect_orphan(struct world *w)
{
	static const char text[] = "the daemon that knew module 'demo' is gone, and its successor does not know it";
	struct tier_answer answer;
	struct tier_method *found;

	assert_int_equal(tier_status_ask(w->warm, &answer), -ESTALE);
	assert_string_equal(tier_error_text(), text);
	assert_int_equal(tier_find(w->module, "method1", &found), -ESTALE);
	assert_int_equal(tier_rejit_bytes(w->warm, "object", 6, "f", 0), -ESTALE);
	assert_int_equal(w->fake->n_requests[WIRE_REJIT], 0);
	assert_true(call_fails(tier_entry(w->cold)));
	assert_string_equal(failure_text, text);
	assert_string_equal(failure_module, "demo");
	client_call(w->warm, 3 * FAKE_THRESHOLD);	/* what has code goes on */
	assert_int_equal(tier_status(w->warm).stage, TIER_STAGE_REACHED);
}

static void a_module_that_the_successor_does_not_know_is_nobodys(void **state)
{
	struct world w = world_new(state);
	struct tier_module *other = client_open(w.conn, "other"), *again;
	uint32_t n;

	daemon_dies(w.fake);
	w.fake->is_gone[0] = true;
	expect_orphan(&w);
	client_call(client_method(other, 0), 1);
	assert_int_equal(tier_open(w.conn, "demo", &again), -ENOENT);
	n = w.fake->n_requests[WIRE_DETACH];
	tier_close(w.module);
	assert_int_equal(w.fake->n_requests[WIRE_DETACH], n);
	tier_close(other);
	tier_disconnect(w.conn);
}

/* By its number they would be another module's. */
static void names_are_not_asked_of_whom_does_not_know_the_module(void **state)
{
	struct world w = world_new(state);
	struct tier_module *other = client_open(w.conn, "other");
	struct tier_method *method;
	uint32_t n;

	daemon_dies(w.fake);
	w.fake->is_gone[1] = true;
	n = w.fake->n_requests[WIRE_METHODS];
	assert_int_equal(tier_method_at(other, 39, &method), -ESTALE);
	assert_int_equal(w.fake->n_requests[WIRE_METHODS], n);
	tier_close(other);
	world_end(&w);
}

/* Another module has its number: nothing is asked about it, and it is let go of. */
static void a_number_that_is_anothers_by_now_is_not_used(void **state)
{
	struct world w = world_new(state);

	daemon_dies(w.fake);
	fake_set_twist(w.fake, WIRE_ATTACH, TWIST_OTHER_RECORDS);
	expect_orphan(&w);
	assert_int_equal(w.fake->n_bells, 0);
	assert_int_equal(w.fake->sessions[1].n_held[0], 0);
	fake_set_twist(w.fake, WIRE_ATTACH, TWIST_NONE);
	daemon_dies(w.fake);		/* and then comes one that knows it */
	client_call(w.cold, 1);
	world_end(&w);
}

/* Which daemon answers to which part of an open is left to chance. */
static void an_open_that_loses_its_daemon_is_held_by_the_next(void **state)
{
	static const enum wire_type steps[] = { WIRE_ATTACH, WIRE_METHODS, WIRE_IMPORTS };
	struct world w = world_new(state);

	for (size_t i = 0; i < 3; i++) {
		struct tier_module *other;

		fake_set_twist(w.fake, steps[i], TWIST_DIE);
		other = client_open(w.conn, "other");
		assert_int_equal(w.fake->n_sessions, i + 2);
		assert_int_equal(w.fake->sessions[i + 1].n_held[0], 1);
		assert_int_equal(w.fake->sessions[i + 1].n_held[1], 1);
		tier_close(other);
		assert_int_equal(w.fake->sessions[i + 1].n_held[1], 0);
	}
	world_end(&w);
}

static void what_is_opened_twice_is_held_once_by_the_next(void **state)
{
	struct world w = world_new(state);
	struct tier_module *same;
	struct tier_answer answer;

	daemon_dies(w.fake);
	same = client_open(w.conn, "demo");	/* held already when it is attached */
	assert_ptr_equal(same, w.module);
	assert_int_equal(w.fake->sessions[1].n_held[0], 1);
	fake_set_twist(w.fake, WIRE_DETACH, TWIST_DIE);
	assert_int_equal(tier_open(w.conn, "demo", &same), 0);
	assert_int_equal(tier_status_ask(w.warm, &answer), 0);
	assert_int_equal(w.fake->sessions[2].n_held[0], 1);
	tier_close(same);
	tier_close(same);
	world_end(&w);
}

/* -- Without a daemon --- */
static void everything_ends_in_bounded_time(void **state)
{
	struct world w = world_new_for(state, FAKE_SECOND / 5);
	struct tier_answer answer;
	struct tier_module *other;
	uint64_t begin = now_ns();
	const char *why;

	for (int is_silent = 0; is_silent < 2; is_silent++) {
		fake_stop(w.fake);
		if (is_silent) {
			fake_set_twist(w.fake, WIRE_HELLO, TWIST_SILENT);
			fake_start(w.fake);
		}
		assert_int_equal(tier_status_ask(w.warm, &answer), -ECONNRESET);
		assert_non_null(strstr(tier_error_text(), w.fake->address.sun_path));
		assert_true(now_ns() - begin >= FAKE_SECOND / 5);
		assert_int_equal(tier_open(w.conn, "other", &other), -ECONNRESET);
		assert_true(call_fails(tier_entry(w.cold)));
		assert_non_null(strstr(failure_text, "is lost"));
		assert_true(failure_saw_signals_blocked);
		assert_false(tier_conn_uses_kernel(w.conn, &why));
		assert_string_equal(why, "there is no daemon");
		assert_int_equal(tier_freeze(w.module), -ECONNRESET);
		client_call(w.warm, 1);
		assert_true(now_ns() - begin < 10 * FAKE_SECOND);
		begin = now_ns();
	}
	world_end(&w);
	assert_true(now_ns() - begin < 5 * FAKE_SECOND);
}

struct gap {
	struct world *w;
	tier_fn fn;
	int r;
};

static void *gap_calls(void *context)
{
	struct gap *gap = context;

	gap->r = gap->fn(1, 2, 3, 4, 5) == fake_mix(1, 2, 3, 4, 5) ? 0 : 1;
	return NULL;
}

static void cold_calls_of_the_gap_are_served_by_the_successor(void **state)
{
	struct world w = world_new(state);
	struct gap gaps[4];
	pthread_t threads[4];

	fake_stop(w.fake);
	for (int i = 0; i < 4; i++) {
		gaps[i] = (struct gap){ &w, tier_entry(client_method(w.module, 4 + i % 2)), -1 };
		assert_int_equal(pthread_create(&threads[i], NULL, gap_calls, &gaps[i]), 0);
	}
	usleep(20000);
	fake_start(w.fake);
	for (int i = 0; i < 4; i++) {
		pthread_join(threads[i], NULL);
		assert_int_equal(gaps[i].r, 0);
	}
	assert_int_equal(w.fake->n_sessions, 2);
	world_end(&w);
}

/* -- Notes --- */
static void a_bell_of_the_gap_costs_nothing_and_a_later_one_finds_the_daemon(void **state)
{
	struct world w = world_new(state);
	uint64_t begin;

	fake_stop(w.fake);
	begin = now_ns();
	client_call(w.warm, FAKE_THRESHOLD);
	assert_true(now_ns() - begin < FAKE_SECOND / 2);
	fake_start(w.fake);
	for (int i = 0; i < 400 && !fake_load(&w.fake->n_bells); i++) {
		*fake_cell(&w.fake->modules[0], 2) = 1;
		client_call(w.warm, 1);
		usleep(10000);
	}
	fake_expect(&w.fake->n_bells, 1);
	assert_int_equal(w.fake->n_sessions, 2);
	assert_int_equal(w.fake->sessions[1].n_held[0], 1);
	world_end(&w);
}

static void a_silent_successor_holds_no_bell_up(void **state)
{
	struct world w = world_new(state);
	uint64_t begin;

	daemon_dies(w.fake);
	fake_set_twist(w.fake, WIRE_HELLO, TWIST_SILENT);
	begin = now_ns();
	for (int i = 0; i < 1000; i++) {
		*fake_cell(&w.fake->modules[0], 2) = 1;
		client_call(w.warm, 1);
	}
	assert_true(now_ns() - begin < 2 * FAKE_SECOND);
	fake_set_twist(w.fake, WIRE_HELLO, TWIST_NONE);
	world_end(&w);
}

/* -- The probe page --- */
static int n_pages_mapped(void)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	char line[512];
	int n = 0;

	assert_non_null(maps);
	while (fgets(line, sizeof(line), maps))
		n += strstr(line, "r-xp") && strstr(line, "memfd:fake");
	fclose(maps);
	return n;
}

static void the_path_is_that_of_the_daemon_that_is_there(void **state)
{
	struct fake *fake = fake_of(state);
	const char *why;
	struct world w;
	int n;

	fake->is_kernel = true;
	w = world_new(state);
	n = n_pages_mapped();
	assert_true(tier_conn_uses_kernel(w.conn, NULL));
	daemon_dies(fake);			/* the next one has the page of its predecessor */
	assert_true(tier_conn_uses_kernel(w.conn, &why));
	assert_string_equal(why, "seen");
	assert_int_equal(fake->hits[TIER_PROBE_HELLO].n, 2);
	assert_int_equal(n_pages_mapped(), n);
	client_call(w.warm, FAKE_THRESHOLD);
	assert_int_equal(fake->hits[TIER_PROBE_THRESHOLD].n, 1);
	fake->has_no_page = true;		/* and that one none */
	daemon_dies(fake);
	assert_false(tier_conn_uses_kernel(w.conn, &why));
	assert_string_equal(why, "not mapped");
	*fake_cell(&fake->modules[0], 2) = 1;
	client_call(w.warm, 1);
	fake_expect(&fake->n_bells, 1);
	world_end(&w);
	assert_int_equal(n_pages_mapped(), n - 1);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, fake_setup, fake_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(a_question_whose_answer_was_cut_off_is_asked_again),
		CASE(a_question_that_was_never_read_is_asked_again),
		CASE(what_may_have_been_done_is_not_done_twice),
		CASE(what_was_not_sent_is_done_by_the_next_daemon),
		CASE(a_freeze_ends_with_the_daemon_and_thawing_says_so),
		CASE(a_question_that_kills_every_daemon_is_given_up),
		CASE(a_refused_hello_is_told_at_once),
		CASE(a_successor_that_dies_while_it_is_met_is_succeeded),
		CASE(a_lane_that_is_lost_alone_joins_its_session),
		CASE(a_module_that_the_successor_does_not_know_is_nobodys),
		CASE(a_number_that_is_anothers_by_now_is_not_used),
		CASE(names_are_not_asked_of_whom_does_not_know_the_module),
		CASE(an_open_that_loses_its_daemon_is_held_by_the_next),
		CASE(what_is_opened_twice_is_held_once_by_the_next),
		CASE(everything_ends_in_bounded_time),
		CASE(cold_calls_of_the_gap_are_served_by_the_successor),
		CASE(a_bell_of_the_gap_costs_nothing_and_a_later_one_finds_the_daemon),
		CASE(a_silent_successor_holds_no_bell_up),
		CASE(the_path_is_that_of_the_daemon_that_is_there),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
