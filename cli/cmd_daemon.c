/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <time.h>
#include <tier/wire.h>
#include "counters.h"
#include "ctl.h"
#include "table.h"

/* The daemon as a whole: pending compilations, statistics */

int cmd_pending(struct ctl *ctl)
{
	struct tier_module *module;
	uint32_t n;
	int r;

	if (ctl->module && ctl->all)
		return fail("pending: either --module or --all");
	if (ctl->module) {
		if (!target_open_module(ctl, ctl->module, false, &module))
			return CTL_FAILED;
		r = tier_pending_module(module, &n);
	} else {
		r = ctl->all ? tier_pending_all(ctl->conn, &n) : tier_pending_mine(ctl->conn, &n);
	}
	if (r)
		return fail_tier("pending");
	printf(ctl->json ? "{\"pending\":%u}\n" : "%u\n", n);
	return CTL_DONE;
}

/* -- Statistics --- */
struct figure {
	const char *name;
	uint64_t value;
	const char *text;	/* instead of a value */
};

static void figures_print(struct ctl *ctl, const struct figure *figures, unsigned int n)
{
	for (unsigned int i = 0; i < n; i++) {
		const char *comma = i + 1 < n ? "," : "";

		printf(ctl->json ? "\t\t\"%s\": " : "%-28s ", figures[i].name);
		if (ctl->json && figures[i].text)
			print_json_string(figures[i].text);
		else if (figures[i].text)
			printf("%s", figures[i].text);
		else
			printf("%" PRIu64, figures[i].value);
		printf("%s\n", ctl->json ? comma : "");
	}
}

static void stats_print(struct ctl *ctl, const struct wire_stats *s)
{
	const struct figure figures[] = {
		{ "daemon", 0, s->daemon },
		{ "pid", s->pid, NULL },
		{ "uptime_ms", s->uptime_ns / 1000000, NULL },
		{ "events_path", 0, s->kernel ? "kernel" : "socket" },
		{ "events_path_why", 0, s->path },
		{ "takeovers", s->n_takeovers, NULL },
		{ "last_takeover_us", s->takeover_ns / 1000, NULL },
		{ "sessions", s->n_sessions, NULL },
		{ "modules", s->n_modules, NULL },
		{ "methods", s->n_methods, NULL },
		{ "versions", s->n_versions, NULL },
		{ "thresholds_kernel", s->n_thresholds[TIER_SOURCE_KERNEL], NULL },
		{ "thresholds_socket", s->n_thresholds[TIER_SOURCE_SOCKET], NULL },
		{ "thresholds_recovered", s->n_thresholds[TIER_SOURCE_SWEEP], NULL },
		{ "bells_unconfirmed", s->n_unconfirmed, NULL },
		{ "published", s->n_published, NULL },
		{ "promotions_failed", s->n_promotions_failed, NULL },
		{ "delays", s->n_delays, NULL },
		{ "newest_event", s->sequence, NULL },
		{ "oldest_event", s->oldest, NULL },
		{ "kernel_threshold_events", s->n_kernel_events[TIER_PROBE_THRESHOLD], NULL },
		{ "kernel_publish_events", s->n_kernel_events[TIER_PROBE_PUBLISH], NULL },
		{ "kernel_hello_events", s->n_kernel_events[TIER_PROBE_HELLO], NULL },
		{ "kernel_osr_events", s->n_kernel_events[TIER_PROBE_OSR_REQUESTED], NULL },
		{ "kernel_events_dropped", s->n_kernel_dropped, NULL },
		{ "kernel_events_limited", s->n_kernel_limited, NULL },
		{ "kernel_events_refused", s->n_kernel_refused, NULL },
		{ "probe_page", 0, s->probe_page },
		{ "jobs", s->n_jobs, NULL },
		{ "jobs_failed", s->n_jobs_failed, NULL },
		{ "jobs_queued", s->n_jobs_queued, NULL },
		{ "workers", s->n_workers, NULL },
		{ "workers_started", s->n_workers_started, NULL },
		{ "workers_died", s->n_workers_died, NULL },
		{ "cache_hits", s->n_cache_hits, NULL },
		{ "cache_misses", s->n_cache_misses, NULL },
		{ "cache_dropped", s->n_cache_dropped, NULL },
		{ "cache_entries", s->n_cache_entries, NULL },
		{ "cache_bytes", s->n_cache_bytes, NULL },
		{ "requests", s->n_requests, NULL },
		{ "clients_disconnected", s->n_disconnected, NULL },
		{ "loop_turns", s->n_turns, NULL },
		{ "longest_turn_us", s->longest_turn_ns / 1000, NULL },
		{ "longest_turn_in", 0, s->longest_turn_name },
		{ "call_count_threshold", s->threshold, NULL },
		{ "call_counting_delay_ms", s->delay_ns / 1000000, NULL },
		{ "background_worker_timeout_ms", s->worker_timeout_ns / 1000000, NULL },
	};

	if (ctl->json)
		printf("{\n\t\"stats\": {\n");
	figures_print(ctl, figures, sizeof(figures) / sizeof(figures[0]));
	if (ctl->json)
		printf("\t},\n");
}

struct clients {
	struct ctl *ctl;
	bool any;
};

static void client_json(const struct wire_session_row *row, const char *program, const char *path)
{
	printf("\t\t{\"session\": %" PRIu64 ", \"pid\": %u, \"uid\": %u, \"program\": ", row->number, row->pid, row->uid);
	print_json_string(program);
	printf(", \"connections\": %u, \"modules\": %u, \"waits\": %u, \"path\": \"%s\", \"why\": ", row->n_lanes, row->n_modules,
	       row->n_waits, path);
	print_json_string(row->why);
	putchar('}');
}

static int client_row(const struct wire_session_row *row, void *context)
{
	struct clients *clients = context;
	const char *path = row->path == WIRE_PATH_KERNEL ? "kernel" : "socket";
	char program[sizeof(row->program)];
	size_t i;

	/* the client's own word for itself: printable or not shown */
	for (i = 0; i + 1 < sizeof(program) && row->program[i]; i++)
		program[i] = row->program[i] < ' ' || row->program[i] > '~' ? '?' : row->program[i];
	program[i] = '\0';
	if (clients->ctl->json) {
		printf("%s", clients->any ? ",\n" : "");
		client_json(row, program, path);
	} else {
		printf("  session %" PRIu64 "  pid %u  uid %u  %s  connections %u  modules %u  waits %u  events by %s (%s)\n",
		       row->number, row->pid, row->uid, program, row->n_lanes, row->n_modules, row->n_waits, path, row->why);
	}
	clients->any = true;
	return 0;
}

/* -- Knobs --- */
static int knob_row(const struct wire_knob_row *row, void *table)
{
	table_row(table);
	table_text(table, row->name);
	table_text(table, row->value);
	table_text(table, row->standard);
	table_text(table, *row->range ? row->range : NULL);
	table_text(table, *row->mirrors ? row->mirrors : NULL);
	return 0;
}

static int stats_knobs(struct ctl *ctl)
{
	static const struct column columns[] = {
		{ "knob", COLUMN_TEXT }, { "value", COLUMN_TEXT }, { "default", COLUMN_TEXT }, { "range", COLUMN_TEXT },
		{ "mirrors", COLUMN_TEXT },
	};
	struct table *table = table_new("knobs", columns, sizeof(columns) / sizeof(columns[0]), ctl->json, false);
	int r = tier_knobs(ctl->conn, knob_row, table);

	table_end(table);
	return r ? fail_tier("stats") : CTL_DONE;
}

int cmd_stats(struct ctl *ctl)
{
	struct clients clients = { .ctl = ctl };
	struct wire_counters counters;
	struct wire_stats stats;
	int r;

	if (ctl->knobs)
		return stats_knobs(ctl);
	if (tier_stats(ctl->conn, &stats) || tier_counters(ctl->conn, &counters))
		return fail_tier("stats");
	stats_print(ctl, &stats);
	counters_print(&counters, ctl->json);
	printf(ctl->json ? "\t\"clients\": [\n" : "\nclients\n");
	r = tier_clients(ctl->conn, client_row, &clients);
	if (ctl->json)
		printf("\n\t]\n}\n");
	return r ? fail_tier("stats") : CTL_DONE;
}
