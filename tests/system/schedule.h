/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The standard scenario: what a program does with a daemon in a fraction of a second, so that most of the daemon's code
 * has its say
 *
 * A client ends with CLIENT_DONE, or with the first thing that failed, whose sentence it prints. What it never does is
 * to go on with a wrong result: that is CLIENT_WRONG, whatever went wrong on the other side. */

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <tier/tier.h>
#include <tier/wire.h>
#include <unistd.h>
#include "system/harness.h"
#include "util/fault.h"

enum { CLIENT_DONE = 0, CLIENT_FAILED = 10, CLIENT_WRONG = 11, CLIENT_SILENT = 12 };

#define SCENARIO_SOURCE                                                                                                          \
	"typedef unsigned long long u64;\n"                                                                                      \
	"#define noinline __attribute__((noinline))\n"                                                                           \
	"struct ops { u64 (*f)(u64); u64 (*g)(u64); };\n"                                                                        \
	"const volatile u64 knob = 5;\n"                                                                                         \
	"u64 counted = 100;\n"                                                                                                   \
	"noinline u64 leaf(u64 x) { return x * knob + 1; }\n"                                                                    \
	"noinline u64 other(u64 x) { return x ^ 1; }\n"                                                                          \
	"const struct ops table[2] = { { leaf, other }, { other, leaf } };\n"                                                    \
	"u64 by_slot(u64 x, u64 row) { return table[row & 1].f(x) + table[row & 1].g(x); }\n"                                    \
	"u64 by_call(u64 x) { return leaf(x) + 3; }\n"                                                                           \
	"u64 looped(u64 n) { u64 s = 0; for (u64 i = 0; i < n; i++) s = (s ^ leaf(i)) + i; return s; }\n"                        \
	"u64 count(u64 n) { counted += n; return counted; }\n"
#define SCENARIO_BODY "typedef unsigned long long u64;\nu64 leaf(u64 x) { return x * 11 + 2; }\n"
#define LOOPED_N 3000u

struct scenario {
	const char *socket, *module, *body; /* paths */
	uint64_t patience_ns;		    /* for one thing at a time */
	const char *schedule, *points;	    /* of faults in the client itself; NULL: none */
	struct tier_conn *conn;
	struct tier_events *events;
	struct tier_module *m, *instance;
	uint64_t sequence; /* of the last event that was seen */
	uint64_t knob, counted;
	bool has_body; /* leaf() is the other body's */
};

/* -- Ends --- */
static _Noreturn void client_end(const char *step, const char *text)
{
	printf("client: %s: %s\n", step, text);
	fflush(stdout);
	_exit(*text ? CLIENT_FAILED : CLIENT_SILENT);
}

static void client_call_failed(const char *module, const char *method, const char *text)
{
	char step[128];

	snprintf(step, sizeof(step), "a call of %s:%s", module, method);
	client_end(step, text);
}

#define MUST(call)                                                                                                               \
	do {                                                                                                                     \
		if (call)                                                                                                        \
			client_end(#call, tier_error_text());                                                                    \
	} while (0)

/* What libtier does not send again when a daemon died before it answered */
#define MUST_AT_LAST(call)                                                                                                       \
	do {                                                                                                                     \
		int r_ = (call);                                                                                                 \
		if (r_ == -ECONNRESET) {                                                                                         \
			printf("client: once more: %s\n", tier_error_text());                                                    \
			r_ = (call);                                                                                             \
		}                                                                                                                \
		if (r_)                                                                                                          \
			client_end(#call, tier_error_text());                                                                    \
	} while (0)

/* -- Results --- */
static uint64_t leaf(const struct scenario *s, uint64_t x) { return s->has_body ? x * 11 + 2 : x * s->knob + 1; }

static uint64_t looped(const struct scenario *s, uint64_t n)
{
	uint64_t sum = 0;

	for (uint64_t i = 0; i < n; i++)
		sum = (sum ^ leaf(s, i)) + i;
	return sum;
}

static uint64_t expected(struct scenario *s, const char *name, uint64_t x)
{
	if (!strcmp(name, "leaf"))
		return leaf(s, x);
	if (!strcmp(name, "by_call"))
		return leaf(s, x) + 3;
	if (!strcmp(name, "by_slot"))
		return leaf(s, x) + (x ^ 1);
	if (!strcmp(name, "looped"))
		return looped(s, x);
	return !strcmp(name, "other") ? x ^ 1 : (s->counted += x);
}

static void check_call(struct scenario *s, const struct tier_method *method, uint64_t x)
{
	const char *name = tier_method_name(method);
	uint64_t result = tier_entry(method)(x, x & 1, 0, 0, 0);

	if (result == expected(s, name, x))
		return;
	printf("client: %s(%lu) is %lu\n", name, x, result);
	fflush(stdout);
	_exit(CLIENT_WRONG);
}

static struct tier_method *method_named(struct tier_module *module, const char *name)
{
	struct tier_method *method;

	MUST(tier_find(module, name, &method));
	return method;
}

/* To its final tier, for which a promotion that failed is a reason, too: that is told then. */
static void climb_checked(struct scenario *s, struct tier_module *module, const char *name, uint64_t x)
{
	struct tier_method *method = method_named(module, name);
	struct tier_climb steps = TIER_CLIMB(method);
	uint32_t n;
	int r;

	while ((r = tier_climb_next(&steps, s->patience_ns, NULL, &n)) > 0)
		for (; n; n--)
			check_call(s, method, x++);
	MUST(r);
	check_call(s, method, x);
	if (steps.answer.reason != TIER_REASON_PROMOTED)
		client_end(name, tier_reason_name(steps.answer.reason));
}

static void until_idle(struct scenario *s)
{
	uint64_t deadline = test_now_ns() + s->patience_ns;
	uint32_t n;

	for (;;) {
		MUST(tier_pending_module(s->m, &n));
		if (!n)
			return;
		if (test_now_ns() > deadline)
			client_end("pending methods", "they stay pending");
		usleep(500);
	}
}

/* -- Steps --- */
static void step_load(struct scenario *s)
{
	struct tier_conn_opts opts = { .size = sizeof(opts), .socket = s->socket, .timeout_ns = s->patience_ns };

	MUST(tier_connect(&s->conn, &opts));
	MUST(tier_events_open(s->conn, 1, &s->events));
	tier_unload(s->conn, "m"); /* of a client before this one, which was less lucky */
	MUST(tier_load(s->conn, s->module, "m", 0, &s->m));
	s->knob = 5;
	s->counted = 100;
}

static void step_first_calls(struct scenario *s)
{
	static const char *const names[] = { "by_slot", "by_call", "count" };

	for (unsigned int i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		for (uint64_t x = 1; x < 4; x++)
			check_call(s, method_named(s->m, names[i]), 2 * x);
}

static void step_climb(struct scenario *s)
{
	climb_checked(s, s->m, "by_slot", 0);
	climb_checked(s, s->m, "by_call", 7);
}

static void step_osr(struct scenario *s)
{
	struct tier_method *method = method_named(s->m, "looped");

	for (int i = 0; i < 2; i++) {
		check_call(s, method, LOOPED_N);
		until_idle(s);
	}
	check_call(s, method, LOOPED_N);
}

static void step_rejit(struct scenario *s)
{
	MUST_AT_LAST(tier_rejit(method_named(s->m, "leaf"), s->body, NULL, TIER_REJIT_FORCE));
	s->has_body = true;
	for (uint64_t x = 0; x < 3; x++)
		check_call(s, method_named(s->m, "by_call"), x);
	until_idle(s);
	check_call(s, method_named(s->m, "by_slot"), 2);
	MUST_AT_LAST(tier_revert(method_named(s->m, "leaf")));
	s->has_body = false;
	check_call(s, method_named(s->m, "by_call"), 5);
}

static void step_instance(struct scenario *s)
{
	const struct tier_value value = { "knob", 7 };

	MUST_AT_LAST(tier_module_instantiate(s->m, &value, 1, &s->instance));
	s->knob = 7;
	climb_checked(s, s->instance, "by_call", 2);
	check_call(s, method_named(s->instance, "by_slot"), 6);
	tier_close(s->instance);
	s->knob = 5;
}

static void step_freeze(struct scenario *s)
{
	MUST(tier_freeze(s->m));
	for (uint64_t x = 0; x < 8; x++)
		check_call(s, method_named(s->m, "other"), x);
	MUST(tier_thaw(s->m));
	climb_checked(s, s->m, "count", 1);
	until_idle(s);
}

static void step_second_client(struct scenario *s)
{
	int status;
	pid_t pid = fork();

	if (!pid) {
		MUST(tier_connect(&s->conn, &(struct tier_conn_opts){ .size = sizeof(struct tier_conn_opts),
								      .socket = s->socket,
								      .timeout_ns = s->patience_ns }));
		MUST(tier_open(s->conn, "m", &s->m));
		check_call(s, method_named(s->m, "by_slot"), 9);
		check_call(s, method_named(s->m, "count"), 1);
		tier_close(s->m);
		tier_disconnect(s->conn);
		_exit(CLIENT_DONE);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		client_end("fork", strerror(errno));
	if (status)
		_exit(WIFEXITED(status) ? WEXITSTATUS(status) : CLIENT_WRONG);
}

/* Every number once; what is missing must be told. */
static void step_events(struct scenario *s)
{
	struct wire_stats stats;
	struct tier_event event;
	uint64_t first, last;
	int r;

	MUST(tier_unload(s->conn, "m"));
	tier_close(s->m);
	MUST(tier_stats(s->conn, &stats));
	while (s->sequence < stats.sequence
	       && (r = tier_events_next(s->events, s->patience_ns, &event, &first, &last)) != -ETIMEDOUT) {
		if (r == -ENODATA && first == s->sequence + 1 && last >= first)
			s->sequence = last;
		else if (!r && event.sequence == s->sequence + 1)
			s->sequence++;
		else if (r)
			client_end("events", tier_error_text());
		else
			_exit(CLIENT_WRONG);
	}
	if (s->sequence < stats.sequence)
		client_end("events", "fewer than there are");
}

static const struct {
	const char *name;
	void (*run)(struct scenario *s);
} steps[] = {
	{ "load", step_load },	   { "first calls", step_first_calls },
	{ "climb", step_climb },   { "OSR", step_osr },
	{ "rejit", step_rejit },   { "instance", step_instance },
	{ "freeze", step_freeze }, { "second client", step_second_client },
	{ "events", step_events },
};

static _Noreturn void scenario_run(struct scenario *s)
{
	const uint64_t begin_ns = test_now_ns();

	tier_set_failure_handler(client_call_failed);
	if (s->schedule) {
		fault_choose(s->schedule);
		fault_choose_file(s->points);
		fault_begin();
	}
	for (unsigned int i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
		printf("client: %s, %lu ms\n", steps[i].name, (unsigned long)((test_now_ns() - begin_ns) / 1000000));
		fflush(stdout);
		steps[i].run(s);
	}
	tier_events_close(s->events);
	tier_disconnect(s->conn);
	printf("client: done\n");
	fflush(stdout);
	_exit(CLIENT_DONE);
}
