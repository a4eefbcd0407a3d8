/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <tier/wire.h>
#include "ctl.h"
#include "export.h"
#include "table.h"

/* The journal's events: which of them, and how they are written
 *
 * Each format is a pair of functions that share what they need; an event that passes the filter goes to one of them. */

static const struct column event_columns[] = {
	{ "sequence", COLUMN_NUMBER }, { "time", COLUMN_TEXT }, { "kind", COLUMN_TEXT }, { "module_id", COLUMN_NUMBER },
	{ "method_index", COLUMN_NUMBER }, { "version", COLUMN_NUMBER }, { "from", COLUMN_TEXT }, { "to", COLUMN_TEXT },
	{ "reason", COLUMN_TEXT }, { "source", COLUMN_TEXT }, { "pid", COLUMN_NUMBER }, { "tid", COLUMN_NUMBER },
};
#define N_COLUMNS (sizeof(event_columns) / sizeof(event_columns[0]))

enum format { FORMAT_TABLE, FORMAT_JSON, FORMAT_CSV, FORMAT_PERFETTO, _FORMAT_N };
static const char *const format_names[_FORMAT_N] = { "table", "json", "csv", "perfetto" };

struct filter {
	uint64_t module;	/* 0: any */
	uint32_t method;	/* UINT32_MAX: any */
	uint64_t kinds;		/* a bit each; 0: any */
};
_Static_assert(_TIER_EVENT_N <= 64, "a bit for each kind");

struct output {
	enum format format;
	struct table *table;	/* TABLE, JSON */
	struct export *export;	/* PERFETTO */
};

/* -- Filter --- */
struct wanted_module {
	const char *name;
	uint64_t id;
};

static int wanted_module_row(const struct tier_module_row *row, void *context)
{
	struct wanted_module *wanted = context;

	if (!strcmp(row->name, wanted->name))
		wanted->id = row->id;	/* of several the newest: it is the one that is loaded */
	return 0;
}

/* A name, also of a module that is unloaded and still held, or the number of any. */
static int filter_module(struct ctl *ctl, struct filter *filter)
{
	struct wanted_module wanted = { .name = ctl->module };

	if (parse_number(ctl->module, &filter->module))
		return CTL_DONE;
	if (tier_list(ctl->conn, wanted_module_row, &wanted))
		return fail_tier("events");
	if (!wanted.id && strchr(ctl->module, '<')) {	/* written in another way */
		struct tier_module *module;

		if (!target_open_module(ctl, ctl->module, false, &module))
			return CTL_FAILED;
		wanted.id = tier_module_id(module);
		tier_close(module);
	}
	filter->module = wanted.id;
	return wanted.id ? CTL_DONE : fail("events: there is no module '%s'; of one that is gone give the number", ctl->module);
}

static int filter_method(struct ctl *ctl, struct filter *filter)
{
	struct target target;

	if (!target_open(ctl, ctl->method, &target))
		return CTL_FAILED;
	filter->module = tier_module_id(target.module);
	for (uint32_t i = 0; i < tier_module_n_methods(target.module); i++) {
		struct tier_method *method;

		if (!tier_method_at(target.module, i, &method) && method == target.method)
			filter->method = i;
	}
	tier_close(target.module);
	return CTL_DONE;
}

static int kind_unknown(const char *kind, int n)
{
#define KIND_NAME(name, number, text) text ", "
	static const char names[] = TIER_EVENT_LIST(KIND_NAME);

	return fail("--kind: '%.*s' is none of %.*s", n, kind, (int)sizeof(names) - 3, names);
}

/* One or several, with commas between them */
static int filter_kind(struct ctl *ctl, struct filter *filter)
{
#define KIND_NUMBER(name, number, text) number,
	static const uint8_t kinds[] = { TIER_EVENT_LIST(KIND_NUMBER) };
	const char *kind = ctl->kind;

	for (size_t n, i; kind; kind = kind[n] ? kind + n + 1 : NULL) {
		n = strcspn(kind, ",");
		for (i = 0; i < sizeof(kinds); i++)
			if (!strncmp(kind, tier_event_name(kinds[i]), n) && !tier_event_name(kinds[i])[n])
				break;
		if (i == sizeof(kinds))
			return kind_unknown(kind, n);
		filter->kinds |= UINT64_C(1) << kinds[i];
	}
	return CTL_DONE;
}

static int filter_init(struct ctl *ctl, struct filter *filter)
{
	int r = CTL_DONE;

	*filter = (struct filter){ .method = UINT32_MAX };
	if (ctl->module && ctl->method)
		return fail("events: either --module or --method");
	if (ctl->module)
		r = filter_module(ctl, filter);
	if (!r && ctl->method)
		r = filter_method(ctl, filter);
	if (!r && ctl->kind)
		r = filter_kind(ctl, filter);
	return r;
}

static bool filter_passes(const struct filter *filter, const struct tier_event *event)
{
	return (!filter->module || event->module == filter->module) && (filter->method == UINT32_MAX || event->method == filter->method)
	       && (!filter->kinds || (event->kind < 64 && filter->kinds >> event->kind & 1));
}

/* -- Formats --- */
static void table_event(struct table *table, const struct tier_event *event)
{
	char time[64];

	format_time(time, sizeof(time), event->time_ns);
	table_row(table);
	table_number(table, event->sequence);
	table_text(table, time);
	table_text(table, tier_event_name(event->kind));
	table_number(table, event->module);
	if (event->method == UINT32_MAX)
		table_text(table, NULL);
	else
		table_number(table, event->method);
	table_number(table, event->version);
	table_text(table, tier_level_name(event->from));
	table_text(table, tier_level_name(event->to));
	table_text(table, tier_reason_name(event->reason));
	table_text(table, tier_source_name(event->source));
	table_number(table, event->pid);
	table_number(table, event->tid);
}

static void csv_head(void)
{
	for (size_t i = 0; i < N_COLUMNS; i++)
		printf("%s%s", i ? "," : "", event_columns[i].name);
	printf("\r\n");
}

/* RFC 4180: quotes around what has a comma or a quote, quotes doubled */
static void csv_text(const char *text)
{
	putchar(',');
	if (!strpbrk(text, ",\"\r\n")) {
		fputs(text, stdout);
		return;
	}
	putchar('"');
	for (; *text; text++)
		printf(*text == '"' ? "\"\"" : "%c", *text);
	putchar('"');
}

static void csv_event(const struct tier_event *event)
{
	char time[64], method[16] = "";

	format_time(time, sizeof(time), event->time_ns);
	if (event->method != UINT32_MAX)
		snprintf(method, sizeof(method), "%u", event->method);
	printf("%" PRIu64 ",%s", event->sequence, time);
	csv_text(tier_event_name(event->kind));
	printf(",%" PRIu64 ",%s,%" PRIu64, event->module, method, event->version);
	csv_text(tier_level_name(event->from));
	csv_text(tier_level_name(event->to));
	csv_text(tier_reason_name(event->reason));
	csv_text(tier_source_name(event->source));
	printf(",%u,%u\r\n", event->pid, event->tid);
	fflush(stdout);
}

static int output_choose(struct ctl *ctl, struct output *output)
{
	output->format = ctl->json ? FORMAT_JSON : FORMAT_TABLE;
	if (!ctl->format)
		return CTL_DONE;
	if (ctl->json && strcmp(ctl->format, "json"))
		return fail("events: either --json or --format");
	for (output->format = 0; output->format < _FORMAT_N; output->format++)
		if (!strcmp(ctl->format, format_names[output->format]))
			return CTL_DONE;
	return fail("--format: '%s' is none of table, json, csv, perfetto", ctl->format);
}

static int output_open(struct ctl *ctl, struct output *output)
{
	int r;

	*output = (struct output){ 0 };
	r = output_choose(ctl, output);
	if (r)
		return r;
	if (output->format == FORMAT_PERFETTO && !ctl->output && isatty(STDOUT_FILENO))
		return fail("events: a trace is nothing for a terminal; say -o FILE");
	if (ctl->output && !freopen(ctl->output, "w", stdout))
		return fail("%s: %s", ctl->output, strerror(errno));
	if (output->format == FORMAT_CSV)
		csv_head();
	else if (output->format == FORMAT_PERFETTO)
		output->export = export_new(ctl->conn, stdout);
	else
		output->table = table_new("events", event_columns, N_COLUMNS, output->format == FORMAT_JSON, true);
	return CTL_DONE;
}

static void output_event(const struct output *output, const struct tier_event *event)
{
	if (output->export)
		export_event(output->export, event);
	else if (output->table)
		table_event(output->table, event);
	else
		csv_event(event);
}

/* What is no longer kept is said in any format, and in those that have a place for it also in the output. */
static void output_gap(const struct output *output, uint64_t first, uint64_t last)
{
	fail("events %" PRIu64 " to %" PRIu64 " are no longer kept", first, last);
	if (output->export)
		export_missing(output->export, first, last);
	if (output->format == FORMAT_JSON) {
		printf("{\"gap_first\":%" PRIu64 ",\"gap_last\":%" PRIu64 "}\n", first, last);
		fflush(stdout);
	}
}

static void output_close(const struct output *output)
{
	if (output->export)
		export_free(output->export);
	if (output->table)
		table_end(output->table);
}

/* -- The verb --- */
static uint64_t first_wanted(const struct ctl *ctl)
{
	struct timespec ts;
	uint64_t now;

	if (ctl->from || !ctl->since_ns)
		return ctl->from || ctl->follow ? ctl->from : 1;
	clock_gettime(CLOCK_REALTIME, &ts);
	now = (uint64_t)ts.tv_sec * 1000000000u + ts.tv_nsec;
	return WIRE_EVENTS_SINCE | (now > ctl->since_ns ? now - ctl->since_ns : 0);
}

static int events_pass(struct ctl *ctl, struct tier_events *events, const struct filter *filter, const struct output *output)
{
	struct tier_event event;
	uint64_t first, last;
	bool is_sure = ctl->follow;
	uint32_t pending;
	int r;

	for (;;) {
		r = tier_events_next(events, ctl->follow ? TIER_FOREVER : 0, &event, &first, &last);
		if (r == -ETIMEDOUT && !is_sure) {	/* or there is no daemon just now: this waits for one */
			is_sure = true;
			r = tier_pending_all(ctl->conn, &pending);
			if (!r)
				continue;
		}
		if (r == -ENODATA) {
			output_gap(output, first, last);
			continue;
		}
		if (r == -ESTALE) {	/* a daemon of another history: it begins at its first event */
			fail_tier("events");
			continue;
		}
		if (r)
			return r;
		is_sure = ctl->follow;
		if (filter_passes(filter, &event))
			output_event(output, &event);
		if (ferror(stdout))	/* a full disk, or nobody who reads */
			return -EIO;
	}
}

int cmd_events(struct ctl *ctl)
{
	struct tier_events *events;
	struct filter filter;
	struct output output;
	int r;

	if (ctl->from && ctl->since_ns)
		return fail("events: either --from or --since");
	if (filter_init(ctl, &filter))
		return CTL_FAILED;
	if (tier_events_open(ctl->conn, first_wanted(ctl), &events))
		return fail_tier("events");
	r = output_open(ctl, &output);
	if (!r) {
		r = events_pass(ctl, events, &filter, &output);
		output_close(&output);
		r = r == -ETIMEDOUT || r == -EIO ? CTL_DONE : fail_tier("events");	/* main() says that output was lost */
	}
	tier_events_close(events);
	return r;
}
