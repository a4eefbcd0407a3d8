/* SPDX-License-Identifier: Apache-2.0 */
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "bench/latency.h"
#include "bench/measure.h"
#include "util/base.h"

/* What happens when is read from the journal: its times are CLOCK_REALTIME, the crossing's own for a threshold from the
 * kernel, the commit's for everything else. */

#define N_SMALL 60	/* methods per generated module; at most MEASURE_ROUNDS_MAX */
#define N_STEPS 250	/* steps of arithmetic in a large method: about a thousand instructions */

static void print_figure(const char *what, const struct series *series, double scale, const char *unit)
{
	printf("  %-62s %10.2f %s   (p10 %.2f, p90 %.2f, n %u)\n", what, series_median(series) / scale, unit,
	       series_percentile(series, 0.1) / scale, series_percentile(series, 0.9) / scale, series->n);
}

static uint64_t wall_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + ts.tv_nsec;
}

static void require(int r, const char *what)
{
	if (r < 0) {
		fprintf(stderr, "%s: %s\n", what, tier_error_text());
		exit(1);
	}
}

/* -- Loads --- */
void latency_of_loads(const struct daemon *daemon)
{
	struct tier_conn *conn = daemon_connect(daemon);
	struct series load = { .n = 0 }, called = { .n = 0 };
	struct tier_module *module;
	struct tier_method *method;
	char name[32];

	for (unsigned int i = 0; i < N_SMALL; i++) {
		uint64_t begin = measure_now_ns();

		snprintf(name, sizeof(name), "load%u", i);
		require(tier_load(conn, workload_object("fnv1a"), name, 0, &module), name);
		series_add(&load, measure_now_ns() - begin);
		require(tier_find(module, "fnv1a", &method), name);
		tier_entry(method)((uintptr_t)name, 1, 0, 0, 0);
		series_add(&called, measure_now_ns() - begin);
		tier_close(module);
		require(tier_unload(conn, name), name);
	}
	print_figure("load and open a small module (worker, checks, mapping)", &load, 1e3, "us");
	print_figure("the same, with tier-0 compile and call of its two methods", &called, 1e3, "us");
	tier_disconnect(conn);
}

/* -- Cold calls --- */
/* @n_steps of arithmetic that no compiler folds, behind an early return: a call with 0 runs a few instructions only. */
static char *source_of_methods(unsigned int n_methods, unsigned int n_steps)
{
	size_t n = 0, n_max = n_methods * (n_steps * 48 + 160ul) + 64;
	char *source = malloc(n_max);

	n += snprintf(source + n, n_max - n, "typedef unsigned long u64;\n");
	for (unsigned int i = 0; i < n_methods; i++) {
		n += snprintf(source + n, n_max - n, "u64 m%u(u64 a)\n{\n\tif (!a)\n\t\treturn %u;\n", i, i);
		for (unsigned int step = 0; step < n_steps; step++)
			n += snprintf(source + n, n_max - n, "\ta = a * %uu ^ a >> %u;\n", 2 * (step * 7919 + i) + 3, 1 + step % 31);
		n += snprintf(source + n, n_max - n, "\treturn a;\n}\n");
	}
	return source;
}

static void call_cold(struct tier_conn *conn, const struct daemon *daemon, const char *name, unsigned int n_steps,
		      struct series *ret)
{
	char *source = source_of_methods(N_SMALL, n_steps), method_name[16];
	const char *object = bpf_compile(daemon->folder, name, source, "");
	struct tier_module *module;
	struct tier_method *method;

	free(source);
	require(tier_load(conn, object, name, 0, &module), name);
	for (unsigned int i = 0; i < N_SMALL; i++) {
		uint64_t begin;

		snprintf(method_name, sizeof(method_name), "m%u", i);
		require(tier_find(module, method_name, &method), method_name);
		begin = measure_now_ns();
		tier_entry(method)(0, 0, 0, 0, 0);
		series_add(ret, measure_now_ns() - begin);
	}
	tier_close(module);
}

void latency_of_cold_calls(const struct daemon *daemon)
{
	struct tier_conn *conn = daemon_connect(daemon);
	struct series small = { .n = 0 }, large = { .n = 0 };

	call_cold(conn, daemon, "small", 1, &small);
	call_cold(conn, daemon, "large", N_STEPS, &large);
	print_figure("first call of a cold method, 6 instructions (round trip and all)", &small, 1e3, "us");
	print_figure("first call of a cold method of about 1000 instructions", &large, 1e3, "us");
	printf("  %-62s %10.2f ns\n", "tier-0 compile per bytecode instruction (from the difference)",
	       (series_median(&large) - series_median(&small)) / (4.0 * (N_STEPS - 1)));
	tier_disconnect(conn);
}

/* -- Climbs --- */
struct waiter {
	struct tier_method *method;
	uint64_t woken_ns;	/* CLOCK_REALTIME */
};

/* Waits while the promotion is under way: the caller has crossed the threshold. */
static void *wait_for_final(void *argument)
{
	struct waiter *waiter = argument;
	struct tier_answer answer;

	require(tier_wait(waiter->method, TEST_DEADLINE_NS, NULL, &answer), "wait");
	waiter->woken_ns = wall_ns();
	return NULL;
}

/* What the journal says of one method: when each kind of event was, 0 for none. */
static void read_times(struct tier_events *events, uint64_t times[_TIER_EVENT_N])
{
	struct tier_event event;
	uint64_t first, last;

	memset(times, 0, _TIER_EVENT_N * sizeof(*times));
	do {
		require(tier_events_next(events, TEST_DEADLINE_NS, &event, &first, &last), "events");
		times[event.kind] = event.time_ns;
	} while (event.kind != TIER_EVENT_FINAL);
}

static void climb_once(struct tier_method *method, struct tier_events *events, struct series *handled, struct series *compiled,
		       struct series *woken)
{
	struct tier_climb climb = TIER_CLIMB(method);
	struct waiter waiter = { .method = method };
	uint64_t times[_TIER_EVENT_N];
	pthread_t thread;
	uint32_t calls;

	for (int step = 0; step < 2; step++) {	/* cold, then the counted ones; the threshold is crossed then */
		require(tier_climb_next(&climb, TEST_DEADLINE_NS, NULL, &calls), "climb");
		while (calls--)
			tier_entry(method)(0, 0, 0, 0, 0);
	}
	pthread_create(&thread, NULL, wait_for_final, &waiter);
	pthread_join(thread, NULL);
	read_times(events, times);
	series_add(handled, times[TIER_EVENT_QUEUED] - times[TIER_EVENT_THRESHOLD]);
	series_add(compiled, times[TIER_EVENT_COMPILE_ENDED] - times[TIER_EVENT_COMPILE_STARTED]);
	series_add(woken, (double)waiter.woken_ns - times[TIER_EVENT_FINAL]);
}

void latency_of_climbs(const struct daemon *daemon)
{
	struct series handled = { .n = 0 }, compiled = { .n = 0 }, woken = { .n = 0 };
	struct tier_conn *conn = daemon_connect(daemon);
	char *source = source_of_methods(40, 10), name[16];
	const char *object = bpf_compile(daemon->folder, "climbs", source, "");
	struct tier_events *events;
	struct tier_module *module;
	struct tier_method *method;

	free(source);
	require(tier_load(conn, object, NULL, 0, &module), "climbs");
	require(tier_events_open(conn, 0, &events), "events");
	for (unsigned int i = 0; i < 40; i++) {
		snprintf(name, sizeof(name), "m%u", i);
		require(tier_find(module, name, &method), name);
		climb_once(method, events, &handled, &compiled, &woken);
	}
	print_figure("threshold crossed → handled by the daemon, next version queued", &handled, 1e3, "us");
	print_figure("tier-1 compile of 46 instructions, warm worker, placing included", &compiled, 1e6, "ms");
	print_figure("publication committed → waiter runs", &woken, 1e3, "us");
	tier_events_close(events);
	tier_close(module);
	tier_disconnect(conn);
}

/* -- The yardstick --- */
static void futex_pass(uint32_t *word, uint32_t mine)
{
	while (__atomic_load_n(word, __ATOMIC_ACQUIRE) != mine)
		syscall(SYS_futex, word, FUTEX_WAIT, 1 - mine, NULL, NULL, 0);
	__atomic_store_n(word, 1 - mine, __ATOMIC_RELEASE);
	syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
}

void latency_of_futex(void)
{
	uint32_t *word = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct series trip = { .n = 0 };
	pid_t pid = fork();

	if (!pid)
		for (;;)
			futex_pass(word, 1);
	for (unsigned int i = 0; i < MEASURE_ROUNDS_MAX; i++) {
		uint64_t begin = measure_now_ns();

		for (int k = 0; k < 100; k++)
			futex_pass(word, 0);
		series_add(&trip, (measure_now_ns() - begin) / 100.0);
	}
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	munmap(word, 4096);
	print_figure("yardstick: raw futex round trip between two processes", &trip, 1e3, "us");
}

/* -- Questions --- */
struct question {
	struct tier_module *module;
	struct tier_method *method;
	struct tier_records_mark mark;
	uint64_t sum;	/* so that every answer is used */
};

static void ask_status(struct question *q) { q->sum += tier_status(q->method).remaining; }
static void ask_remaining(struct question *q) { q->sum += tier_remaining(q->method); }
static void take_mark(struct question *q) { q->sum += tier_mark(q->module).changes; }
static void ask_changed(struct question *q) { q->sum += tier_changed_since(q->module, &q->mark); }
static void ask_clock(struct question *q) { q->sum += measure_now_ns(); }
static void ask_socket(struct question *q)
{
	struct tier_answer answer;

	require(tier_status_ask(q->method, &answer), "status");
	q->sum += answer.remaining;
}

static const struct {
	const char *text;
	void (*ask)(struct question *question);
	unsigned int n;		/* per round */
} questions[] = {
	{ "tier_status", ask_status, 100000 },
	{ "tier_remaining", ask_remaining, 100000 },
	{ "tier_mark", take_mark, 100000 },
	{ "tier_changed_since", ask_changed, 100000 },
	{ "yardstick: clock_gettime", ask_clock, 100000 },
	{ "tier_status_ask (over the socket)", ask_socket, 200 },
};

/* All in turn, of a method that counts its calls */
void latency_of_questions(const struct daemon *daemon)
{
	struct tier_conn *conn = daemon_connect(daemon);
	struct series series[ARRAY_SIZE(questions)] = { 0 };
	struct question question = { .sum = 0 };

	question.method = workload_load(conn, "fib", &question.module);
	tier_entry(question.method)(1, 0, 0, 0, 0);
	question.mark = tier_mark(question.module);
	for (unsigned int round = 0; round < 21; round++)
		for (size_t k = 0; k < ARRAY_SIZE(questions); k++) {
			uint64_t begin = measure_now_ns();

			for (unsigned int i = 0; i < questions[k].n; i++)
				questions[k].ask(&question);
			series_add(&series[k], (double)(measure_now_ns() - begin) / questions[k].n);
		}
	for (size_t k = 0; k < ARRAY_SIZE(questions); k++)
		print_figure(questions[k].text, &series[k], 1, "ns");
	tier_close(question.module);
	tier_disconnect(conn);
}
