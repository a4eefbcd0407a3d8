/* SPDX-License-Identifier: Apache-2.0 */
#include "unit/tiering/ladder.h"

/* The acceptor of event streams (tests/order.h): what the core tells it takes, and what it would never tell it refuses
 */

#define UID LADDER_UID

/* A bit of everything */
static void live(struct fake *fake)
{
	struct fake_module *fm = ladder_load(fake, true), *other = fake_load(fake, UID + 1, "other", 2);

	fm->inlines[LADDER_CALLER] = 1u << LADDER_METHOD;
	fm->traits[LADDER_OTHER] = CORE_TRAIT_AGGRESSIVE_OPTIMIZATION;
	for (uint32_t i = 0; i < 2; i++)
		fake_call(other, i);
	ladder_to(fm, LADDER_METHOD, AT_COUNTING);
	assert_int_equal(core_rejit(fm->module, LADDER_METHOD, 1), 0);
	ladder_climb(fm, LADDER_METHOD, FAKE_WAY_PRECODE);
	ladder_to_final(fm, LADDER_CALLER);
	fake_restart(fake);
	assert_int_equal(core_revert(fm->module, LADDER_METHOD), 0); /* its caller is withdrawn */
	fake_calls(fm, LADDER_METHOD, 1);
	ladder_climb(fm, LADDER_CALLER, FAKE_WAY_PRECODE);
	fake_call(fm, LADDER_OTHER); /* the optimizer's */
	fake_restart(fake);
	assert_true(fake_end(fake, fm, LADDER_OTHER, TIER_REASON_COMPILE_FAILED));
	ladder_to_counting(fm, LADDER_BLOCKER);
	core_osr_request(fake->core, fm->id, FAKE_PATCHPOINTS * LADDER_BLOCKER);
	fake_restart(fake);
	fake_end(fake, fm, LADDER_BLOCKER, TIER_REASON_NONE);
	core_freeze(fm->module);
	fake_calls(fm, LADDER_BLOCKER, FAKE_N);
	core_thaw(fm->module);
	fake_end(fake, fm, LADDER_BLOCKER, TIER_REASON_WORKER_DIED);
	fake_calls(other, 0, FAKE_N);
	fake_remove(fake, other);
	core_module_unname(fm->module);
}

/* Number of the first event that is refused; 0: none is */
static uint64_t refused(const struct tier_event *events, uint32_t n)
{
	struct order *order = order_new(1);
	uint64_t sequence = 0;

	for (uint32_t i = 0; i < n && !sequence; i++) {
		struct tier_event event = events[i];

		event.sequence = i + 1;
		if (order_hear(order, &event))
			sequence = i + 1;
	}
	order_free(order);
	return sequence;
}

static struct tier_event *copy_of(const struct fake *fake)
{
	return fake_copy_of(fake->events, fake->n_events * sizeof(*fake->events));
}

static void what_the_core_tells_is_taken(void **state)
{
	struct fake *fake = *state;

	live(fake);
	for (unsigned int kind = 1; kind < _TIER_EVENT_N; kind++)
		if (!fake_n_events(fake, kind))
			fail_msg("the story tells nothing of %s", tier_event_name(kind));
	assert_int_equal(refused(fake->events, fake->n_events), 0);
}

static void numbers_have_no_holes_and_come_once(void **state)
{
	struct fake *fake = *state;
	struct order *order = order_new(1);

	live(fake);
	assert_null(order_hear(order, &fake->events[0]));
	assert_non_null(strstr(order_hear(order, &fake->events[0]), "told before"));
	assert_non_null(strstr(order_hear(order, &fake->events[2]), "missing"));
	assert_null(order_hear(order, &fake->events[1]));
	order_free(order);
}

/* The next one of the same method; NULL */
static const struct tier_event *successor(const struct fake *fake, uint32_t i)
{
	const struct tier_event *event = &fake->events[i];

	for (uint32_t k = i + 1; k < fake->n_events; k++)
		if (fake->events[k].module == event->module && fake->events[k].method == event->method &&
		    event->method != UINT32_MAX)
			return &fake->events[k];
	return NULL;
}

/* But for what no later event tells of: the last ones of each method, and of modules and uids; and whether calls were
 * counted when a body was replaced */
static bool has_a_successor(const struct fake *fake, uint32_t i)
{
	const struct tier_event *next = successor(fake, i);

	return next && !(fake->events[i].kind == TIER_EVENT_COUNTING_BEGUN && next->kind == TIER_EVENT_REJITTED);
}

static void an_event_that_is_missing_is_noticed(void **state)
{
	struct fake *fake = *state;
	uint32_t n = 0;

	live(fake);
	for (uint32_t i = 0; i < fake->n_events; i++) {
		struct tier_event *events = copy_of(fake);

		memmove(&events[i], &events[i + 1], (fake->n_events - i - 1) * sizeof(*events));
		if (!refused(events, fake->n_events - 1) && has_a_successor(fake, i))
			fail_msg("event %u, %s, is not missed", i + 1, tier_event_name(fake->events[i].kind));
		n += has_a_successor(fake, i);
		free(events);
	}
	assert_true(n > 40);
}

static void an_event_that_comes_twice_is_noticed(void **state)
{
	struct fake *fake = *state;

	live(fake);
	for (uint32_t i = 0; i < fake->n_events; i++) {
		struct tier_event *events = malloc((fake->n_events + 1) * sizeof(*events));

		assert_non_null(events);
		memcpy(events, fake->events, (i + 1) * sizeof(*events));
		memcpy(&events[i + 1], &fake->events[i], (fake->n_events - i) * sizeof(*events));
		if (!refused(events, fake->n_events + 1))
			fail_msg("event %u, %s, may come twice", i + 1, tier_event_name(fake->events[i].kind));
		free(events);
	}
}

/* Two events of one method the other way round */
static void events_that_change_places_are_noticed(void **state)
{
	struct fake *fake = *state;
	uint32_t n = 0;

	live(fake);
	for (uint32_t i = 0; i + 1 < fake->n_events; i++) {
		struct tier_event *events, one = fake->events[i];
		uint32_t k = i + 1;

		while (k < fake->n_events &&
		       (fake->events[k].module != one.module || fake->events[k].method != one.method))
			k++;
		if (k == fake->n_events || one.method == UINT32_MAX || fake->events[k].kind == one.kind)
			continue;
		if (one.to == TIER_LEVEL_OSR || fake->events[k].to == TIER_LEVEL_OSR)
			continue; /* beside the ladder */
		events = copy_of(fake);
		events[i] = events[k];
		events[k] = one;
		if (!refused(events, fake->n_events))
			fail_msg("events %u and %u, %s and %s, may change places", i + 1, k + 1,
			         tier_event_name(one.kind), tier_event_name(fake->events[k].kind));
		n++;
		free(events);
	}
	assert_true(n > 20);
}

/* Another version, tier or kind: it is no longer what happened. */
static void an_event_that_says_something_else_is_noticed(void **state)
{
	struct fake *fake = *state;

	live(fake);
	for (uint32_t i = 0; i < fake->n_events; i++) {
		struct tier_event *events = copy_of(fake);

		if (events[i].method == UINT32_MAX || !has_a_successor(fake, i) ||
		    events[i].kind == TIER_EVENT_OSR_READY) {
			free(events);
			continue;
		}
		if (events[i].kind != TIER_EVENT_COMPILE_STARTED) {
			events[i].from =
			        events[i].from == TIER_LEVEL_TIER1_INSTRUMENTED ? 0 : TIER_LEVEL_TIER1_INSTRUMENTED;
			if (events[i].kind == TIER_EVENT_PUBLISHED || events[i].kind == TIER_EVENT_QUEUED)
				assert_int_equal(refused(events, fake->n_events), i + 1);
			events[i].from = fake->events[i].from;
		}
		events[i].version += 1000;
		if (!refused(events, fake->n_events))
			fail_msg("event %u, %s, may be of another version", i + 1, tier_event_name(events[i].kind));
		free(events);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        FAKE_TEST(what_the_core_tells_is_taken),
	        FAKE_TEST(numbers_have_no_holes_and_come_once),
	        FAKE_TEST(an_event_that_is_missing_is_noticed),
	        FAKE_TEST(an_event_that_comes_twice_is_noticed),
	        FAKE_TEST(events_that_change_places_are_noticed),
	        FAKE_TEST(an_event_that_says_something_else_is_noticed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
