/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "bench/measure.h"
#include "bench/report.h"
#include "system/harness.h"
#include "tier/wire.h"
#include "workloads/figures.h"

/* make bench-backpatch: what keeping entry points takes, under each policy
 *
 *   counters   the whole ladder of one program, called by threads and processes, with the compile workers held until every
 *              method has reached its threshold: what was counted until then is "before the first final publication"
 *   start-up   calls per second while everything is still tiering: rounds that load a fresh copy of the module under each
 *              policy in turn, ratios of rounds that stand side by side
 *   steady     ns per virtual call of final code beside the same source built natively, in turn
 *
 * Each policy has a daemon of its own; this process is a client of all of them. Everything is printed and written to
 * build/bench/backpatch.json; the exit status is 1 when a promise of the lazy policy was not kept. */

#define ROUNDS 21
#define STEADY_ROUNDS 31
#define STEADY_ROUND_NS 3000000u
#define POOL 64				/* figures */
#define CALLS_PER_RUN (POOL * FIGURE_SLOTS)
#define THREADS 2
#define PROCESSES 2
#define SETTLE_ROUNDS 50
#define START_UP_RATIO_MIN 0.97
#define STEADY_RATIO_MAX 1.10

uint64_t native_figures_make(uint64_t, uint64_t, uint64_t, uint64_t, uint64_t);
uint64_t native_figures_run(uint64_t, uint64_t, uint64_t, uint64_t, uint64_t);

struct pool {
	_Alignas(64) uint8_t figures[POOL * FIGURE_SIZE];
};

struct figures {
	struct tier_module *module;
	struct tier_method *make, *run;
};

struct policy {
	enum tier_backpatch policy;
	struct daemon daemon;
	struct tier_conn *conn;
	struct wire_counters before, total;
	struct series start_up, steady;
	struct figures figures;		/* at its final tier */
	struct pool pool;
	double ratios[ROUNDS];		/* of lazy's start-up throughput to this one's, round by round */
};

static _Noreturn void give_up(const char *what)
{
	fprintf(stderr, "bench-backpatch: %s: %s\n", what, tier_error_text());
	exit(2);
}

static void figures_open(struct tier_conn *conn, const char *name, bool loads, struct figures *ret)
{
	int r = loads ? tier_load(conn, workload_object("figures"), name, 0, &ret->module) : tier_open(conn, name, &ret->module);

	if (r || tier_find(ret->module, "figures_make", &ret->make) || tier_find(ret->module, "figures_run", &ret->run))
		give_up(name);
}

static uint64_t figures_run(const struct figures *figures, struct pool *pool, uint64_t x)
{
	return tier_entry(figures->run)((uintptr_t)pool->figures, POOL, x, 0, 0);
}

static void figures_make(const struct figures *figures, struct pool *pool)
{
	tier_entry(figures->make)((uintptr_t)pool->figures, POOL, 1, 0, 0);
}

/* Whether every method that was called has come to @stage at least; the factory is called once. */
static bool figures_are_at(const struct figures *figures, enum tier_stage stage)
{
	for (uint32_t i = 0; i < tier_module_n_methods(figures->module); i++) {
		struct tier_method *method;
		struct tier_answer answer;

		if (tier_method_at(figures->module, i, &method))
			give_up("a method");
		answer = tier_status(method);
		if (method == figures->make || answer.status == TIER_STATUS_COLD)
			continue;
		if (answer.stage < stage)
			return false;
	}
	return true;
}

/* -- Counters: threads and processes ------------------------------------------------------------------------------- */

/* Runs until everybody has been told that all is final, and then some more, so that every slot was called through. */
struct crowd {
	struct figures figures;
	const char *name;
	const struct daemon *daemon;
};

static void crowd_run(const struct figures *figures)
{
	struct pool pool;

	figures_make(figures, &pool);
	while (!figures_are_at(figures, TIER_STAGE_FINAL))
		figures_run(figures, &pool, 1);
	for (unsigned int i = 0; i < SETTLE_ROUNDS; i++)
		figures_run(figures, &pool, 1);
}

static void *crowd_thread(void *context)
{
	crowd_run(context);
	return NULL;
}

static void crowd_process(void *context)
{
	const struct crowd *crowd = context;
	struct tier_conn *conn = daemon_connect(crowd->daemon);
	struct figures figures;

	figures_open(conn, crowd->name, false, &figures);
	crowd_run(&figures);
	tier_close(figures.module);
	tier_disconnect(conn);
}

static uint64_t n_sessions(struct tier_conn *conn)
{
	struct wire_stats stats;

	if (tier_stats(conn, &stats))
		give_up("statistics");
	return stats.n_sessions;
}

static void counters_take(struct policy *policy, struct wire_counters *ret)
{
	if (tier_counters(policy->conn, ret))
		give_up("counters");
}

static void count_policy(struct policy *policy)
{
	struct crowd crowd = { .name = "counted", .daemon = &policy->daemon };
	pthread_t threads[THREADS];
	pid_t processes[PROCESSES];
	struct pool pool;

	figures_open(policy->conn, crowd.name, true, &crowd.figures);
	workers_stop(&policy->daemon);
	for (unsigned int i = 0; i < PROCESSES; i++)
		processes[i] = child_start(crowd_process, &crowd);
	for (unsigned int i = 0; i < THREADS; i++)
		if (pthread_create(&threads[i], NULL, crowd_thread, &crowd.figures))
			give_up("a thread");
	figures_make(&crowd.figures, &pool);
	wait_until("every method has reached its threshold", (figures_run(&crowd.figures, &pool, 1), figures_are_at(&crowd.figures, TIER_STAGE_QUEUED)));
	counters_take(policy, &policy->before);
	workers_continue(&policy->daemon);
	for (unsigned int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	for (unsigned int i = 0; i < PROCESSES; i++)
		child_end(processes[i]);
	/* what they still had to say has arrived when their sessions are over */
	wait_until("the processes' sessions end", n_sessions(policy->conn) == 1);
	counters_take(policy, &policy->total);
	tier_close(crowd.figures.module);
	if (tier_unload(policy->conn, crowd.name))
		give_up("unload");
}

/* -- Start-up ------------------------------------------------------------------------------------------------------ */

/* Virtual calls per second from the first call until every method is final */
static double start_up(struct policy *policy, unsigned int round)
{
	struct figures figures;
	uint64_t begin, n = 0;
	struct pool pool;
	char name[32];
	double seconds;

	snprintf(name, sizeof(name), "round%u", round);
	figures_open(policy->conn, name, true, &figures);
	begin = measure_now_ns();
	figures_make(&figures, &pool);
	do {
		figures_run(&figures, &pool, n);
		n++;
	} while (!figures_are_at(&figures, TIER_STAGE_FINAL));
	seconds = (measure_now_ns() - begin) / 1e9;
	tier_close(figures.module);
	if (tier_unload(policy->conn, name))
		give_up("unload");
	return n * CALLS_PER_RUN / seconds;
}

static void measure_start_up(struct policy *policies)
{
	double figures[_TIER_BACKPATCH_N];

	for (unsigned int round = 0; round < ROUNDS; round++) {
		for (unsigned int i = 0; i < _TIER_BACKPATCH_N; i++) {
			unsigned int turn = (round + i) % _TIER_BACKPATCH_N;

			figures[turn] = start_up(&policies[turn], round);
			series_add(&policies[turn].start_up, figures[turn]);
		}
		for (unsigned int i = 0; i < _TIER_BACKPATCH_N; i++)
			policies[i].ratios[round] = figures[TIER_BACKPATCH_LAZY] / figures[i];
	}
}

static double median(const double *values, unsigned int n)
{
	struct series series = { .n = 0 };

	for (unsigned int i = 0; i < n; i++)
		series_add(&series, values[i]);
	return series_median(&series);
}

/* -- Steady state -------------------------------------------------------------------------------------------------- */
static void steady_prepare(struct policy *policy)
{
	figures_open(policy->conn, "steady", true, &policy->figures);
	figures_make(&policy->figures, &policy->pool);
	while (!figures_are_at(&policy->figures, TIER_STAGE_FINAL))
		figures_run(&policy->figures, &policy->pool, 1);
	for (unsigned int i = 0; i < SETTLE_ROUNDS; i++)
		figures_run(&policy->figures, &policy->pool, 1);
}

static double steady_round(workload_function *run, struct pool *pool, uint64_t batch)
{
	uint64_t begin = measure_now_ns();

	for (uint64_t i = 0; i < batch; i++)
		run((uintptr_t)pool->figures, POOL, i, 0, 0);
	return (double)(measure_now_ns() - begin) / (batch * CALLS_PER_RUN);
}

static void measure_steady(struct policy *policies, struct series *native, struct series *lazy_to_native)
{
	static struct pool pool;
	uint64_t batch = 1;

	native_figures_make((uintptr_t)pool.figures, POOL, 1, 0, 0);
	for (unsigned int i = 0; i < _TIER_BACKPATCH_N; i++) {
		steady_prepare(&policies[i]);
		if (figures_run(&policies[i].figures, &policies[i].pool, 7) != native_figures_run((uintptr_t)pool.figures, POOL, 7, 0, 0)) {
			fprintf(stderr, "bench-backpatch: another result than native\n");
			exit(2);
		}
	}
	while (steady_round(native_figures_run, &pool, batch) * batch * CALLS_PER_RUN < STEADY_ROUND_NS)
		batch *= 2;
	for (unsigned int round = 0; round < STEADY_ROUNDS; round++) {
		double beside = steady_round(native_figures_run, &pool, batch), lazy = 0;

		series_add(native, beside);
		for (unsigned int i = 0; i < _TIER_BACKPATCH_N; i++) {
			double ns = steady_round(tier_entry(policies[i].figures.run), &policies[i].pool, batch);

			series_add(&policies[i].steady, ns);
			lazy = i == TIER_BACKPATCH_LAZY ? ns : lazy;
		}
		series_add(lazy_to_native, lazy / beside);
	}
}

/* -- Results ------------------------------------------------------------------------------------------------------- */
static uint64_t sum(const uint64_t *values, unsigned int n)
{
	uint64_t total = 0;

	while (n--)
		total += *values++;
	return total;
}

#define COUNTER_LIST(_)                                                                                                \
	_("backpatch_calls", n_backpatch_calls)                                                                        \
	_("slots_examined", n_slots_examined)                                                                          \
	_("slot_writes", n_slot_writes)                                                                                \
	_("slots_recorded", n_slots_recorded)                                                                          \
	_("funcptr_writes", n_funcptr_writes)                                                                          \
	_("oscillations", n_oscillations)                                                                              \
	_("entry_point_transitions", n_entry_transitions)                                                              \
	_("precode_stores", n_precode_stores)                                                                          \
	_("uncounted_entries", n_uncounted_entries)                                                                    \
	_("stale_completions", n_stale_completions)                                                                    \
	_("unsafe_inactive", n_unsafe_inactive)                                                                        \
	_("backpatch_ns", backpatch_ns)

static void print_counter(const struct policy *policies, const char *name, const uint64_t before[], const uint64_t total[])
{
	printf("  %-24s", name);
	for (unsigned int i = 0; i < _TIER_BACKPATCH_N; i++)
		printf(" %10" PRIu64 " %10" PRIu64, before[i], total[i]);
	putchar('\n');
}

static void print_counters(const struct policy *policies)
{
	uint64_t before[_TIER_BACKPATCH_N], total[_TIER_BACKPATCH_N];

	printf("the whole ladder, %d threads and %d processes; before the first final publication, and in total\n  %-24s", THREADS + 1,
	       PROCESSES, "");
	for (unsigned int i = 0; i < _TIER_BACKPATCH_N; i++)
		printf(" %10s %10s", tier_backpatch_name(i), "total");
	putchar('\n');
#define PRINT(name, field)                                                                                             \
	for (unsigned int i = 0; i < _TIER_BACKPATCH_N; i++) {                                                         \
		before[i] = policies[i].before.field;                                                                  \
		total[i] = policies[i].total.field;                                                                    \
	}                                                                                                              \
	print_counter(policies, name, before, total);
	COUNTER_LIST(PRINT)
	for (unsigned int visit = 0; visit < _TIER_VISIT_N; visit++) {
		char name[40];

		snprintf(name, sizeof(name), "prestub visits: %s", tier_visit_name(visit));
		PRINT(name, n_visits[visit])
	}
}

static void json_counters(FILE *file, const char *name, const struct wire_counters *counters)
{
	fprintf(file, "    \"%s\": {\n", name);
#define JSON(key, field) fprintf(file, "      \"" key "\": %" PRIu64 ",\n", counters->field);
	COUNTER_LIST(JSON)
	fprintf(file, "      \"prestub_visits\": %" PRIu64 "\n    },\n", sum(counters->n_visits, _TIER_VISIT_N));
}

static void json_write(const struct policy *policies, const struct series *native)
{
	FILE *file = report_open("backpatch");

	fprintf(file, "{\n");
	for (unsigned int i = 0; i < _TIER_BACKPATCH_N; i++) {
		fprintf(file, "  \"%s\": {\n    \"slots_called_through\": %d,\n", tier_backpatch_name(i), FIGURE_KINDS * FIGURE_SLOTS);
		json_counters(file, "before_first_final", &policies[i].before);
		json_counters(file, "total", &policies[i].total);
		fprintf(file, "    \"startup_calls_per_s\": %.0f,\n    \"steady_ns_per_call\": %.4f,\n    \"native_ns_per_call\": %.4f,\n"
			      "    \"lazy_startup_ratio\": %.4f\n  }%s\n",
			series_median(&policies[i].start_up), series_median(&policies[i].steady), series_median(native),
			median(policies[i].ratios, ROUNDS), i + 1 < _TIER_BACKPATCH_N ? "," : "");
	}
	fprintf(file, "}\n");
	report_close(file, "backpatch");
}

static bool promise(bool kept, const char *what)
{
	printf("  %-4s %s\n", kept ? "kept" : "NOT", what);
	return kept;
}

static bool check_promises(const struct policy *policies, const struct series *lazy_to_native)
{
	const struct policy *lazy = &policies[TIER_BACKPATCH_LAZY];
	bool kept = true;

	printf("\nwhat the lazy policy promises\n");
	kept &= promise(!lazy->before.n_backpatch_calls && !lazy->before.n_slot_writes && !lazy->before.n_oscillations,
			"no backpatch call, slot write or oscillation before the first final publication");
	kept &= promise(lazy->total.n_slot_writes == FIGURE_KINDS * FIGURE_SLOTS,
			"one write per slot that was called through");
	for (unsigned int i = 0; i < _TIER_BACKPATCH_N; i++)
		if (i != TIER_BACKPATCH_LAZY)
			kept &= promise(median(policies[i].ratios, ROUNDS) >= START_UP_RATIO_MIN,
					i == TIER_BACKPATCH_EAGER ? "start-up throughput at least 0.97 of eager's"
								  : "start-up throughput at least 0.97 of forwarder's");
	kept &= promise(series_median(lazy_to_native) <= STEADY_RATIO_MAX, "a steady call costs at most 1.1 of a native one");
	return kept;
}

int main(void)
{
	static struct policy policies[_TIER_BACKPATCH_N];
	struct series native = { .n = 0 }, lazy_to_native = { .n = 0 };
	char option[64];
	bool kept;

	for (unsigned int i = 0; i < _TIER_BACKPATCH_N; i++) {
		policies[i].policy = i;
		snprintf(option, sizeof(option), "--backpatch=%s", tier_backpatch_name(i));
		daemon_start(&policies[i].daemon, ARGS(option));
		policies[i].conn = daemon_connect(&policies[i].daemon);
		count_policy(&policies[i]);
	}
	print_counters(policies);
	measure_start_up(policies);
	printf("\nstart-up: virtual calls per second while everything is still tiering, medians of %d interleaved rounds\n", ROUNDS);
	for (unsigned int i = 0; i < _TIER_BACKPATCH_N; i++)
		printf("  %-10s %12.0f   lazy / %-9s %.3f\n", tier_backpatch_name(i), series_median(&policies[i].start_up),
		       tier_backpatch_name(i), median(policies[i].ratios, ROUNDS));
	measure_steady(policies, &native, &lazy_to_native);
	printf("\nsteady: ns per virtual call, medians of %d interleaved rounds of %u ms\n  %-10s %8.3f\n", STEADY_ROUNDS,
	       STEADY_ROUND_NS / 1000000, "native", series_median(&native));
	for (unsigned int i = 0; i < _TIER_BACKPATCH_N; i++)
		printf("  %-10s %8.3f   / native %.3f\n", tier_backpatch_name(i), series_median(&policies[i].steady),
		       series_median(&policies[i].steady) / series_median(&native));
	kept = check_promises(policies, &lazy_to_native);
	json_write(policies, &native);
	for (unsigned int i = 0; i < _TIER_BACKPATCH_N; i++) {
		tier_close(policies[i].figures.module);
		tier_disconnect(policies[i].conn);
		daemon_stop(&policies[i].daemon);
	}
	return kept ? 0 : 1;
}
