/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <tier/wire.h>
#include "order.h"
#include "system/storm.h"

#define CLOCKS_NS 50000000u	/* how far two clocks may be apart, when the time of a crossing is compared */
#define WRONG_MAX 20u		/* that are printed */

/* -- What must be --- */
static struct climber climber_of(const struct storm *storm, size_t which)
{
	const struct storm_scale *scale = storm->scale;
	const uint32_t module = which / scale->n_methods, index = which % scale->n_methods;

	return (struct climber){
		.module = tier_module_id(storm->modules[module]), .index = index, .ladder = ladder_of(index),
		.is_precompiled = storm_is_precompiled(scale, module),
	};
}

static size_t n_sights(const struct storm *storm)
{
	return (size_t)storm->scale->n_modules * storm->scale->n_methods;
}

static size_t steps_of(const struct storm *storm, size_t which, struct step ret[STEPS_MAX])
{
	const struct climber climber = climber_of(storm, which);

	return steps_expected(&climber, &storm->shared->sights[which], ret);
}

static size_t n_expected(const struct storm *storm)
{
	size_t n = storm->scale->n_modules;	/* they were loaded */
	struct step steps[STEPS_MAX];

	for (size_t i = 0; i < n_sights(storm); i++) {
		const uint32_t n_crossed = storm->shared->sights[i].n_crossed;

		assert_in_range(n_crossed, 0, CROSSINGS_MAX - 1);
		n += steps_of(storm, i, steps);
	}
	return n;
}

/* -- What is --- */
/* What was found of one method so far */
struct tally {
	uint32_t n;				/* steps */
	uint64_t versions[CROSSINGS_MAX + 1];	/* as the journal has them */
};

struct check {
	const struct storm *storm;
	struct tally *tallies;
	uint8_t n_loaded[WITNESS_MODULES_MAX];
	size_t n_wrong;
};

static bool threshold_is(const struct tier_event *event, const struct crossing *crossing)
{
	const bool is_told = event->source != TIER_SOURCE_SWEEP;

	return crossing && event->version == crossing->version && event->pid == (is_told ? crossing->pid : 0)
	    && event->tid == (is_told ? crossing->tid : 0) && event->time_ns + CLOCKS_NS >= crossing->time_ns;
}

/* Versions are numbered as they are made. */
static bool version_is(struct tally *tally, const struct step *step, uint64_t version)
{
	uint64_t *known = &tally->versions[step->version];

	if (!*known && version && (!step->version || version > known[-1]))
		*known = version;
	return *known == version;
}

static bool reason_is(const struct storm *storm, const struct tier_event *event, const struct step *step)
{
	return event->reason == step->reason
	    || (storm->scale->has_delay && step->kind == TIER_EVENT_COUNTING_BEGUN && event->reason == TIER_REASON_DELAY_ENDED);
}

static bool event_is(const struct check *check, size_t which, const struct tier_event *event, const struct step *step)
{
	return event->kind == step->kind && event->from == step->from && event->to == step->to && reason_is(check->storm, event, step)
	    && version_is(&check->tallies[which], step, event->version)
	    && (event->kind != TIER_EVENT_THRESHOLD
		|| threshold_is(event, sight_crossing(&check->storm->shared->sights[which], step->version)));
}

static void wrong(struct check *check, const struct tier_event *event, const char *expected)
{
	if (check->n_wrong++ >= WRONG_MAX)
		return;
	print_error("event %lu: module %lu method %u: %s %s to %s for: %s; version %lu, %s, pid %u; expected: %s\n",
		    (unsigned long)event->sequence, (unsigned long)event->module, event->method, tier_event_name(event->kind),
		    tier_level_name(event->from), tier_level_name(event->to), tier_reason_name(event->reason),
		    (unsigned long)event->version, tier_source_name(event->source), event->pid, expected);
}

static void check_method(struct check *check, unsigned int module, const struct tier_event *event)
{
	const size_t which = (size_t)module * check->storm->scale->n_methods + event->method;
	struct tally *tally = &check->tallies[which];
	struct step steps[STEPS_MAX];
	const size_t n = steps_of(check->storm, which, steps);

	if (tally->n < n && event_is(check, which, event, &steps[tally->n]))
		tally->n++;
	else
		wrong(check, event, tally->n < n ? tier_event_name(steps[tally->n].kind) : "nothing more");
}

static unsigned int module_of(const struct storm *storm, uint64_t id)
{
	unsigned int i = 0;

	while (i < storm->scale->n_modules && tier_module_id(storm->modules[i]) != id)
		i++;
	return i;
}

static bool is_of_delay(const struct tier_event *event)
{
	return event->kind == TIER_EVENT_DELAY_PAUSED || event->kind == TIER_EVENT_DELAY_RESUMED;
}

static void check_event(struct check *check, const struct tier_event *event)
{
	const unsigned int module = module_of(check->storm, event->module);

	if (check->storm->scale->has_delay && is_of_delay(event))
		return;		/* how often is the clock's business, and their order that of order.h */
	if (module == check->storm->scale->n_modules)
		wrong(check, event, "no such module");
	else if (event->kind == TIER_EVENT_MODULE_LOADED && !check->n_loaded[module])
		check->n_loaded[module] = 1;
	else if (event->method < check->storm->scale->n_methods && check->n_loaded[module])
		check_method(check, module, event);
	else
		wrong(check, event, "that it is loaded, once");
}

static void check_missing(struct check *check)
{
	struct step steps[STEPS_MAX];

	for (unsigned int i = 0; i < check->storm->scale->n_modules; i++)
		check->n_wrong += !check->n_loaded[i];
	for (size_t i = 0; i < n_sights(check->storm); i++) {
		const struct climber climber = climber_of(check->storm, i);
		const size_t n = steps_of(check->storm, i, steps);

		if (check->tallies[i].n < n && check->n_wrong++ < WRONG_MAX)
			print_error("module %lu method %u: only %u of %zu events are there, missing is: %s\n", (unsigned long)climber.module,
				    climber.index, check->tallies[i].n, n, tier_event_name(steps[check->tallies[i].n].kind));
	}
}

/* And as a stream of events of which nothing is known but that it obeys the rules */
static void check_order(const struct tier_event *events, size_t n)
{
	struct order *order = order_new(1);
	const char *broken = NULL;

	for (size_t i = 0; i < n && !broken; i++)
		broken = order_hear(order, &events[i]);
	if (broken)
		fail_msg("%s", broken);
	order_free(order);
}

static void check_journal(const struct storm *storm, const struct tier_event *events, size_t n)
{
	struct check check = { .storm = storm, .tallies = calloc(n_sights(storm), sizeof(struct tally)) };

	assert_non_null(check.tallies);
	for (size_t i = 0; i < n; i++)
		check_event(&check, &events[i]);
	check_missing(&check);
	free(check.tallies);
	if (check.n_wrong)
		fail_msg("%zu events (at least) are wrong or missing; %zu are expected, there are %zu", check.n_wrong, n_expected(storm), n);
	check_order(events, n);
}

/* -- Reading --- */
/* Nothing more will come; if something that must come does not, the check says what. */
static bool is_complete(const struct storm *storm, const struct tier_event *events, size_t n)
{
	size_t n_paused = 0, n_resumed = 0;

	for (size_t i = 0; i < n; i++) {
		n_paused += events[i].kind == TIER_EVENT_DELAY_PAUSED;
		n_resumed += events[i].kind == TIER_EVENT_DELAY_RESUMED;
	}
	return n - n_paused - n_resumed >= n_expected(storm) && n_paused == n_resumed;
}

static size_t read_events(const struct storm *storm, struct tier_event *events)
{
	uint64_t deadline = 0;
	size_t n = 0, n_before;

	do {
		n_before = n;
		n = events_read(storm->conn, 0, UINT32_MAX, events, storm_events_max(storm->scale));
		assert_true(n <= storm_events_max(storm->scale));
		if (n > n_before)
			deadline = test_now_ns() + TEST_DEADLINE_NS;
	} while (!is_complete(storm, events, n) && test_now_ns() < deadline);
	return n;
}

static void print_counts(const struct storm *storm, const struct tier_event *events, size_t n)
{
	uint64_t n_kinds[_TIER_EVENT_N] = { 0 }, n_sources[_TIER_SOURCE_N] = { 0 };
	struct wire_stats stats;

	for (size_t i = 0; i < n; i++) {
		n_kinds[events[i].kind]++;
		n_sources[events[i].source] += events[i].kind == TIER_EVENT_THRESHOLD;
	}
	assert_done(tier_stats(storm->conn, &stats));
	print_message("%u clients, %zu methods, %lu calls; %zu events:", storm->scale->n_clients, n_sights(storm),
		      (unsigned long)storm->shared->n_calls, n);
	for (unsigned int i = 0; i < _TIER_EVENT_N; i++)
		if (n_kinds[i])
			print_message(" %lu %s,", (unsigned long)n_kinds[i], tier_event_name(i));
	print_message("\nthresholds: %lu from the kernel, %lu over sockets, %lu recovered; the ring had no room %lu times\n",
		      (unsigned long)n_sources[TIER_SOURCE_KERNEL], (unsigned long)n_sources[TIER_SOURCE_SOCKET],
		      (unsigned long)n_sources[TIER_SOURCE_SWEEP], (unsigned long)stats.n_kernel_dropped);
}

void storm_check(struct storm *storm)
{
	struct tier_event *events = malloc(storm_events_max(storm->scale) * sizeof(*events));
	size_t n;

	assert_non_null(events);
	n = read_events(storm, events);
	print_counts(storm, events, n);
	check_journal(storm, events, n);
	for (unsigned int i = 0; i < ARRAY_SIZE(storm->followers); i++)
		follower_end(&storm->followers[i], events, n);
	free(events);
}
