/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "options.h"
#include "util/base.h"
#include "util/fault.h"

enum option_kind {
	OPTION_FLAG, OPTION_TEXT, OPTION_NUMBER, OPTION_SIZE, OPTION_DURATION, OPTION_SWITCH, OPTION_EVENTS, OPTION_SYNC, OPTION_BACKPATCH,
	OPTION_LOG,
#ifdef TIER_FAULTS
	OPTION_FAULT, OPTION_FAULT_FILE,
#endif
};

#define MS UINT64_C(1000000)
#define SECOND (1000 * MS)
#define HOUR (3600 * SECOND)

/* name, kind, field, lowest, highest, default as text, help, the CoreCLR knob that it mirrors */
struct option_row {
	const char *name;
	enum option_kind kind;
	size_t field;
	uint64_t low, high;
	const char *value, *help, *knob;
};
#define ROW(name, kind, field, low, high, value, help, knob)                                                           \
	{ name, OPTION_##kind, offsetof(struct options, field), low, high, value, help, knob }

#define LOG_WORD(name, number, text, ...) text ", "
#define LOG_HELP                                                                                                       \
	"what is logged of a facility, as FACILITY:LEVEL; may be given several times; facilities are "                 \
	LOG_FACILITY_LIST(LOG_WORD) "and all; levels are " LOG_LEVEL_LIST(LOG_WORD) "and their numbers, 1 to 10"

#define FAULT_HELP                                                                                                     \
	"what goes wrong on purpose, and when: KIND:N[,KIND:N], the N-th point of a kind, with N+ all later ones, too, behind the word after counted from the first death on; or count, " \
	"to learn how many there are; kinds are " FAULT_KIND_LIST(FAULT_WORD)
#define FAULT_WORD(name, word, text) word " (" text "), "

static const struct option_row rows[] = {
#ifdef TIER_FAULTS
	{ "fault", OPTION_FAULT, 0, 0, 0, NULL, FAULT_HELP "no others", NULL },
	{ "fault-file", OPTION_FAULT_FILE, 0, 0, 0, NULL, "a file in which points are counted, over several processes", NULL },
#endif
	ROW("socket", TEXT, socket, 0, 0, NULL, "path of the socket; default $TIERD_SOCKET, else /run/tierd/tierd.sock, with --user $XDG_RUNTIME_DIR/tierd.sock", NULL),
	ROW("user", FLAG, user, 0, 0, NULL, "serve only the user who starts it", NULL),
	ROW("foreground", FLAG, foreground, 0, 0, NULL, "do not go to the background", NULL),
	ROW("keep", FLAG, keep, 0, 0, NULL, "start the daemon again when it dies, and keep what it serves meanwhile", NULL),
	ROW("worker", TEXT, worker, 0, 0, NULL, "path of tierd-worker; default beside tierd, else in ../libexec/tierd", NULL),
	ROW("call-count-threshold", NUMBER, threshold, 1, 65535, "30", "counted calls until a method is promoted", "TC_CallCountThreshold"),
	ROW("call-counting-delay", DURATION, delay_ns, 0, HOUR, "100ms", "quiet time before calls are counted; 0 turns the delay off", "TC_CallCountingDelayMs"),
	ROW("delay-single-proc-multiplier", NUMBER, delay_multiplier, 1, 1000, "10", "factor on the delay where there is one processor", "TC_DelaySingleProcMultiplier"),
	ROW("aggressive-tiering", SWITCH, aggressive_tiering, 0, 0, "off", "on: a threshold of 1 and no delay, whatever the options above say", "TC_AggressiveTiering"),
	ROW("call-counting", SWITCH, call_counting, 0, 0, "on", "off: methods stay at their initial tier", "TC_CallCounting"),
	ROW("call-counting-stubs", SWITCH, call_counting_stubs, 0, 0, "on", "off: calls are counted by libtier, on a longer way", "TC_UseCallCountingStubs"),
	ROW("tiered-compilation", SWITCH, tiered_compilation, 0, 0, "on", "off: every method is optimized at its first call", "TieredCompilation"),
	ROW("quick-jit", SWITCH, quick_jit, 0, 0, "on", "off: methods without precompiled code are optimized at their first call", "TC_QuickJit"),
	ROW("quick-jit-for-loops", SWITCH, quick_jit_for_loops, 0, 0, "on", "off: of those, the ones that have loops are", "TC_QuickJitForLoops"),
	ROW("ready-to-run", SWITCH, ready_to_run, 0, 0, "on", "off: precompiled code in objects is ignored", "ReadyToRun"),
	ROW("tiered-pgo", SWITCH, tiered_pgo, 0, 0, "on", "on: there are instrumented tiers, whose profiles the optimizer goes by", "TieredPGO"),
	ROW("instrument-only-hot-code", SWITCH, instrument_only_hot_code, 0, 0, "on", "off: methods start at Tier0Instrumented, precompiled ones are not instrumented", "TieredPGO_InstrumentOnlyHotCode"),
	ROW("osr", SWITCH, osr, 0, 0, "on", "on: a frame whose loop runs for long goes on in optimized code", "TC_OnStackReplacement"),
	ROW("osr-hit-limit", NUMBER, osr_hit_limit, 1, INT32_MAX, "10", "hits of a loop, over all frames, that ask for optimized code", "OSR_HitLimit"),
	ROW("osr-counter-bump", NUMBER, osr_counter_bump, 1, INT32_MAX, "1000", "iterations from one hit of a frame to its next", "OSR_CounterBump"),
	ROW("osr-initial-counter", NUMBER, osr_initial_counter, 1, INT32_MAX, "1000", "iterations before a frame's first hit", "TC_OnStackReplacement_InitialCounter"),
	ROW("backpatch", BACKPATCH, backpatch, 0, 0, "lazy", "how entry points are kept: lazy, eager or forwarder", NULL),
	ROW("background-worker-timeout", DURATION, worker_timeout_ns, MS, HOUR, "4s", "idle time after which a compile worker ends", "TC_BackgroundWorkerTimeoutMs"),
	ROW("background-workers", NUMBER, background_workers, 1, 64, "1", "compilations of one user at a time; over all users twice as many", NULL),
	ROW("compile-limit", DURATION, compile_limit_ns, MS, HOUR, "30s", "time that one compilation may take", NULL),
	ROW("load-limit", DURATION, load_limit_ns, MS, HOUR, "10s", "time that reading one object file may take", NULL),
	ROW("worker-memory", SIZE, worker_memory, 64ull << 20, 1ull << 40, "2G", "address space of a compile worker", NULL),
	ROW("code-size", SIZE, code_size, 0, 1ull << 30, "0", "bytes of code segment per module; 0: by the module's size", NULL),
	ROW("sweep", DURATION, sweep_ns, MS, HOUR, "1s", "how often counters are looked at while any is armed", NULL),
	ROW("events", EVENTS, events, 0, 0, "auto", "auto, kernel (fail where the kernel refuses probes) or socket", NULL),
	ROW("ring-bytes", SIZE, ring_bytes, 4096, 1ull << 30, "256K", "size of the kernel's ring buffer, a power of two", NULL),
	ROW("journal", TEXT, journal, 0, 0, NULL, "where events are kept: a folder, memory or off; default /var/lib/tierd/journal for the system's daemon, else memory", NULL),
	ROW("journal-sync", SYNC, journal_sync, 0, 0, "interval", "when the folder's events are synced to the disk: record, interval or never", NULL),
	ROW("journal-sync-interval", DURATION, journal_sync_interval_ns, MS, HOUR, "1s", "time that events may wait for their sync", NULL),
	ROW("journal-size", SIZE, journal_size, 0, 1ull << 40, "256M", "size of the folder at which the oldest events go; 0: none", NULL),
	ROW("journal-age", DURATION, journal_age_ns, 0, 87600 * HOUR, "720h", "age at which events go; 0: none", NULL),
	ROW("journal-events", NUMBER, journal_events, 1, 1ull << 26, "262144", "events kept in memory", NULL),
	ROW("code-cache", TEXT, code_cache, 0, 0, NULL, "where final code and profiles are kept for the next daemon: a folder or off; default /var/lib/tierd/cache for the system's daemon, with --user $XDG_STATE_HOME/tierd/cache, else off", NULL),
	ROW("code-cache-size", SIZE, code_cache_size, 1ull << 20, 1ull << 40, "256M", "size of that folder at which what was not used for long goes", NULL),
	ROW("grace", DURATION, grace_ns, 0, 24 * HOUR, "10min", "after a takeover: how long modules without a name wait for those who hold them", NULL),
	ROW("window", NUMBER, window, 0, 0x500000000000ull, "0", "first address for modules' spans; 0: random", NULL),
	ROW("ready-fd", NUMBER, ready_fd, 0, 1ull << 20, NULL, "descriptor that gets the line \"ready\" when the daemon serves", NULL),
	ROW("log-level", NUMBER, log_level, 0, 3, "2", "0 errors, 1 warnings, 2 information, 3 debugging", NULL),
	ROW("log", LOG, log, 0, 0, NULL, LOG_HELP, NULL),
	ROW("log-to", TEXT, log_to, 0, 0, "stderr", "stderr, journal (the system's), or a path, to whose name the daemon's pid is added", NULL),
};

/* -- Values --- */
static bool number_of(const char *text, uint64_t *ret, const char **ret_end)
{
	const bool is_hex = text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
	char *end;

	if (*text < '0' || *text > '9')
		return false;
	errno = 0;
	*ret = strtoull(text, &end, is_hex ? 16 : 10);
	*ret_end = end;
	return !errno && end != text;
}

static bool scaled(const char *text, const char *const *units, const uint64_t *factors, size_t n_units, uint64_t *ret)
{
	const char *unit;
	uint64_t number;

	if (!number_of(text, &number, &unit))
		return false;
	for (size_t i = 0; i < n_units; i++)
		if (!strcmp(unit, units[i]))
			return !__builtin_mul_overflow(number, factors[i], ret);
	return false;
}

bool options_duration(const char *text, uint64_t *ret_ns)
{
	static const char *const units[] = { "", "ns", "us", "ms", "s", "min", "h" };
	static const uint64_t factors[] = { MS, 1, 1000, MS, SECOND, 60 * SECOND, HOUR };

	return scaled(text, units, factors, ARRAY_SIZE(units), ret_ns);
}

static bool size_of(const char *text, uint64_t *ret)
{
	static const char *const units[] = { "", "K", "M", "G" };
	static const uint64_t factors[] = { 1, 1 << 10, 1 << 20, 1 << 30 };

	return scaled(text, units, factors, ARRAY_SIZE(units), ret);
}

static bool word_of(const char *text, const char *const *names, unsigned int n, unsigned int *ret)
{
	for (*ret = 0; *ret < n; ++*ret)
		if (!strcmp(text, names[*ret]))
			return true;
	return false;
}

static const char *const events_names[] = { "auto", "kernel", "socket" };
static const char *const sync_names[] = { "record", "interval", "never" };

static bool events_of(const char *text, enum options_events *ret)
{
	return word_of(text, events_names, ARRAY_SIZE(events_names), ret);
}

static bool sync_of(const char *text, enum options_sync *ret)
{
	return word_of(text, sync_names, ARRAY_SIZE(sync_names), ret);
}

static bool backpatch_of(const char *text, enum tier_backpatch *ret)
{
	for (int i = 0; i < _TIER_BACKPATCH_N; i++)
		if (!strcmp(text, tier_backpatch_name(i))) {
			*ret = i;
			return true;
		}
	return false;
}

/* "not a duration" or "outside 1 .. 65535": why the text is no value for this row; NULL when it was stored. */
static const char *option_store(struct options *options, const struct option_row *row, const char *text)
{
	void *field = (char *)options + row->field;
	const char *end = "";
	uint64_t value = 0;

	switch (row->kind) {
	case OPTION_FLAG:
		*(bool *)field = true;
		return NULL;
	case OPTION_TEXT:
		*(const char **)field = text;
		return *text ? NULL : "empty";
	case OPTION_SWITCH:
		*(bool *)field = !strcmp(text, "on");
		return *(bool *)field || !strcmp(text, "off") ? NULL : "neither on nor off";
	case OPTION_EVENTS:
		return events_of(text, field) ? NULL : "none of auto, kernel, socket";
	case OPTION_SYNC:
		return sync_of(text, field) ? NULL : "none of record, interval, never";
	case OPTION_BACKPATCH:
		return backpatch_of(text, field) ? NULL : "none of lazy, eager, forwarder";
	case OPTION_LOG:
		return log_choose(field, text);
#ifdef TIER_FAULTS
	case OPTION_FAULT:
		return fault_choose(text);
	case OPTION_FAULT_FILE:
		return fault_choose_file(text);
#endif
	case OPTION_NUMBER:
		if (!number_of(text, &value, &end) || *end)
			return "not a number";
		break;
	case OPTION_SIZE:
		if (!size_of(text, &value))
			return "not a size (a number, with K, M or G)";
		break;
	case OPTION_DURATION:
		if (!options_duration(text, &value))
			return "not a duration (a number with ns, us, ms, s, min or h; without a unit milliseconds)";
		break;
	}
	if (value < row->low || value > row->high)
		return "out of range";
	if (row->field == offsetof(struct options, ready_fd))
		*(int *)field = value;
	else
		*(uint64_t *)field = value;
	return NULL;
}

/* -- Words --- */
/* 64M rather than 67108864 */
static const char *size_text(uint64_t size, char *text, size_t n)
{
	static const char *const units[] = { "", "K", "M", "G" };
	unsigned int unit = 0;

	while (unit + 1 < ARRAY_SIZE(units) && size && !(size % 1024)) {
		size /= 1024;
		unit++;
	}
	snprintf(text, n, "%" PRIu64 "%s", size, units[unit]);
	return text;
}

static void range_text(const struct option_row *row, char *text, size_t n)
{
	char low[24], high[24];

	if (row->kind == OPTION_DURATION)
		snprintf(text, n, "%" PRIu64 "ms to %" PRIu64 "s", row->low / MS, row->high / SECOND);
	else if (row->kind == OPTION_SIZE)
		snprintf(text, n, "%s to %s", size_text(row->low, low, sizeof(low)), size_text(row->high, high, sizeof(high)));
	else if (row->kind == OPTION_NUMBER && row->high > UINT32_MAX)
		snprintf(text, n, "%" PRIu64 " to %#" PRIx64, row->low, row->high);
	else if (row->kind == OPTION_NUMBER)
		snprintf(text, n, "%" PRIu64 " to %" PRIu64, row->low, row->high);
	else
		*text = '\0';
}

/* 100ms rather than 100000000ns */
static void duration_text(uint64_t ns, char *text, size_t n)
{
	static const char *const units[] = { "ns", "us", "ms", "s", "min", "h" };
	static const uint64_t factors[] = { 1000, 1000, 1000, 60, 60 };
	unsigned int unit = ns ? 0 : 2;

	while (unit < ARRAY_SIZE(factors) && ns && !(ns % factors[unit]))
		ns /= factors[unit++];
	snprintf(text, n, "%" PRIu64 "%s", ns, units[unit]);
}

/* -- Knobs --- */
static void value_text(const struct options *options, const struct option_row *row, char *text, size_t n)
{
	const void *field = (const char *)options + row->field;
	const char *word = "";

	switch (row->kind) {
	case OPTION_NUMBER:
		snprintf(text, n, "%" PRIu64, *(const uint64_t *)field);
		return;
	case OPTION_SIZE:
		size_text(*(const uint64_t *)field, text, n);
		return;
	case OPTION_DURATION:
		duration_text(*(const uint64_t *)field, text, n);
		return;
	case OPTION_TEXT:
		word = *(const char *const *)field;
		break;
	case OPTION_SWITCH:
		word = *(const bool *)field ? "on" : "off";
		break;
	case OPTION_EVENTS:
		word = events_names[*(const enum options_events *)field];
		break;
	case OPTION_SYNC:
		word = sync_names[*(const enum options_sync *)field];
		break;
	case OPTION_BACKPATCH:
		word = tier_backpatch_name(*(const enum tier_backpatch *)field);
		break;
	default:	/* neither has a default */
		break;
	}
	snprintf(text, n, "%s", word);
}

static const char *words_of(enum option_kind kind)
{
	switch (kind) {
	case OPTION_SWITCH:
		return "on, off";
	case OPTION_EVENTS:
		return "auto, kernel, socket";
	case OPTION_SYNC:
		return "record, interval, never";
	case OPTION_BACKPATCH:
		return "lazy, eager, forwarder";
	default:
		return "";
	}
}

bool options_knob(const struct options *options, uint32_t i, struct options_knob *ret)
{
	const struct option_row *row = NULL;

	for (size_t k = 0; k < ARRAY_SIZE(rows) && !row; k++)
		if (rows[k].value && !i--)
			row = &rows[k];
	if (!row)
		return false;
	*ret = (struct options_knob){ .name = "" };
	snprintf(ret->name, sizeof(ret->name), "%s", row->name);
	value_text(options, row, ret->value, sizeof(ret->value));
	snprintf(ret->standard, sizeof(ret->standard), "%s", row->value);
	range_text(row, ret->range, sizeof(ret->range));
	if (!*ret->range)
		snprintf(ret->range, sizeof(ret->range), "%s", words_of(row->kind));
	snprintf(ret->mirrors, sizeof(ret->mirrors), "%s", row->knob ? row->knob : "");
	return true;
}

/* -- The command line --- */
static void options_help(void)
{
	char range[64];

	printf("Usage: tierd [OPTION]...\n"
	       "Runs tiered methods for other programs, and tells them where each is on its way to its final tier.\n\n");
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		range_text(&rows[i], range, sizeof(range));
		printf("  --%s%s\n      %s", rows[i].name, rows[i].kind == OPTION_FLAG ? "" : " VALUE", rows[i].help);
		if (rows[i].value)
			printf("; default %s", rows[i].value);
		if (*range)
			printf(" (%s)", range);
		if (rows[i].knob)
			printf(" [%s]", rows[i].knob);
		putchar('\n');
	}
	printf("  --help\n  --version\n\n"
	       "What mirrors a knob named TC_... is also understood with that prefix, as in --tc-call-counting=off.\n");
}

static enum options_end refuse_option(const char *before, const char *name, const char *after)
{
	fprintf(stderr, "tierd: %s%s%s\nTry 'tierd --help'.\n", before, name, after);
	return OPTIONS_ERROR;
}

/* Also with the prefix of the knob that it mirrors */
bool options_is_the_systems(const struct options *options)
{
	return !options->user && !geteuid() && !options->socket && !getenv("TIERD_SOCKET");
}

static const struct option_row *row_find(const char *name, size_t n)
{
	const bool has_prefix = n > 3 && !strncmp(name, "tc-", 3);

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		const struct option_row *row = &rows[i];

		if (strlen(row->name) == n && !strncmp(row->name, name, n))
			return row;
		if (has_prefix && row->knob && !strncmp(row->knob, "TC_", 3) && strlen(row->name) == n - 3
		    && !strncmp(row->name, name + 3, n - 3))
			return row;
	}
	return NULL;
}

static enum options_end option_take(struct options *options, const struct option_row *row, const char *text)
{
	const char *why = option_store(options, row, text);
	char range[64];

	if (!why)
		return OPTIONS_RUN;
	range_text(row, range, sizeof(range));
	fprintf(stderr, "tierd: --%s: '%s' is %s%s%s\n", row->name, text, why, !strcmp(why, "out of range") ? "; the range is " : "",
		!strcmp(why, "out of range") ? range : "");
	return OPTIONS_ERROR;
}

/* Where one processor runs it all, quiet takes longer to come. */
static void multiply_delay(struct options *options)
{
	cpu_set_t cpus;
	uint64_t delay;

	if (sched_getaffinity(0, sizeof(cpus), &cpus) == 0 && CPU_COUNT(&cpus) == 1
	    && !__builtin_mul_overflow(options->delay_ns, options->delay_multiplier, &delay))
		options->delay_ns = delay;
}

enum options_end options_parse(struct options *ret, int argc, char **argv)
{
	*ret = (struct options){ .ready_fd = -1 };
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		if (rows[i].value && option_take(ret, &rows[i], rows[i].value))
			return OPTIONS_ERROR;
	for (int i = 1; i < argc; i++) {
		const char *name = argv[i] + 2, *value = strchrnul(name, '=');
		const struct option_row *row;

		if (!strcmp(argv[i], "-h"))
			return options_help(), OPTIONS_DONE;
		if (strncmp(argv[i], "--", 2))
			return refuse_option("unexpected argument '", argv[i], "'");
		if (!strcmp(name, "help"))
			return options_help(), OPTIONS_DONE;
		if (!strcmp(name, "version"))
			return printf("tierd %s\n", TIER_VERSION), OPTIONS_DONE;
		row = row_find(name, value - name);
		if (!row)
			return refuse_option("unknown option '", argv[i], "'");
		if (row->kind == OPTION_FLAG && *value)
			return refuse_option("option '--", row->name, "' takes no value");
		if (row->kind != OPTION_FLAG && !*value && ++i == argc)
			return refuse_option("option '--", row->name, "' needs a value");
		if (option_take(ret, row, row->kind == OPTION_FLAG ? "" : *value ? value + 1 : argv[i]))
			return OPTIONS_ERROR;
	}
	/* a word without a slash is a slip rather than a folder */
	if (ret->journal && strcmp(ret->journal, "memory") && strcmp(ret->journal, "off") && !strchr(ret->journal, '/'))
		return refuse_option("--journal: '", ret->journal, "' is neither memory, off nor a folder's path with a /");
	if (ret->code_cache && strcmp(ret->code_cache, "off") && !strchr(ret->code_cache, '/'))
		return refuse_option("--code-cache: '", ret->code_cache, "' is neither off nor a folder's path with a /");
	if (ret->ring_bytes & (ret->ring_bytes - 1))
		return refuse_option("--", "ring-bytes", ": not a power of two");
	multiply_delay(ret);
	if (ret->aggressive_tiering) {
		ret->threshold = 1;
		ret->delay_ns = 0;
	}
	return OPTIONS_RUN;
}

char **options_of_kept(int argc, char **argv)
{
	char **args = calloc(argc + 2, sizeof(*args));
	int n = 0;

	if (!args)
		return NULL;
	args[n++] = argv[0];
	args[n++] = "--foreground";
	for (int i = 1; i < argc; i++) {
		const char *name = argv[i] + 2, *value = strchrnul(name, '=');
		const struct option_row *row = row_find(name, value - name);
		const int n_words = row->kind != OPTION_FLAG && !*value ? 2 : 1;

		if (row->field != offsetof(struct options, keep) && row->field != offsetof(struct options, foreground)
		    && row->field != offsetof(struct options, ready_fd)) {
			memcpy(&args[n], &argv[i], n_words * sizeof(*args));
			n += n_words;
		}
		i += n_words - 1;
	}
	return args;
}
