/* SPDX-License-Identifier: Apache-2.0 */
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include "counters.h"
#include "ctl.h"

/* Verbs and options are tables: dispatch, arity, which verb takes which option, and --help read the same rows. */

enum option {
	OPT_JSON = 1u << 0,
	OPT_NAME = 1u << 1,
	OPT_SHARED = 1u << 2,
	OPT_TIMEOUT = 1u << 3,
	OPT_COUNT = 1u << 4,
	OPT_FOLLOW = 1u << 5,
	OPT_FROM = 1u << 6,
	OPT_ALL = 1u << 7,
	OPT_MODULE = 1u << 8,
	OPT_LIBRARY = 1u << 9,
	OPT_ROUNDS = 1u << 10,
	OPT_BYTECODE = 1u << 11,
	OPT_NATIVE = 1u << 12,
	OPT_FORCE = 1u << 13,
	OPT_METHOD = 1u << 14,
	OPT_KIND = 1u << 15,
	OPT_FORMAT = 1u << 16,
	OPT_OUTPUT = 1u << 17,
	OPT_SINCE = 1u << 18,
	OPT_CALLEES = 1u << 19,
	OPT_CHANGING = 1u << 20,
	OPT_KNOBS = 1u << 21,
	ALONE = 1u << 31,	/* no option: the verb needs no daemon */
};

struct verb {
	const char *name;
	int n_min, n_max;	/* arguments; -1: any number */
	unsigned int options;
	ctl_fn fn;
	const char *args, *help;
};

static const struct verb verbs[] = {
	{ "load", 1, 1, OPT_NAME | OPT_SHARED | OPT_JSON, cmd_load, "FILE", "load an object file as a module" },
	{ "compile", 1, 1, OPT_OUTPUT | OPT_TIMEOUT, cmd_compile, "FILE", "make an object file with optimized code inside, FILE.tier.o" },
	{ "unload", 1, 1, 0, cmd_unload, "MODULE", "remove a module's name; it lives on for those who have it open" },
	{ "list", 0, 0, OPT_JSON, cmd_list, "", "the modules that you may see" },
	{ "status", 1, 1, OPT_JSON, cmd_status, "MODULE[:METHOD]", "where a method, or each of a module, is on its way to its final tier" },
	{ "show", 1, 1, OPT_BYTECODE | OPT_NATIVE | OPT_JSON, cmd_show, "MODULE:METHOD", "what a method is: signature, versions, callers, instructions" },
	{ "remaining", 1, 1, OPT_JSON, cmd_remaining, "MODULE:METHOD", "calls to the next tier" },
	{ "wait", 1, 1, OPT_TIMEOUT | OPT_JSON, cmd_wait, "MODULE:METHOD", "wait until it is final, cold, frozen, or counting with calls left" },
	{ "call", 1, -1, OPT_COUNT | OPT_LIBRARY | OPT_JSON, cmd_call, "MODULE:METHOD [ARG...]", "call a method here, print what it returns" },
	{ "drive", 1, -1, OPT_TIMEOUT | OPT_CALLEES | OPT_LIBRARY | OPT_JSON, cmd_drive, "MODULE:METHOD [ARG...]", "call it along its schedule up to its final tier" },
	{ "bench", 1, -1, OPT_TIMEOUT | OPT_ROUNDS | OPT_CHANGING | OPT_LIBRARY | OPT_JSON, cmd_bench, "MODULE:METHOD [ARG...]", "ns per call at each tier on the way, frozen" },
	{ "settled", 1, 1, OPT_JSON, cmd_settled, "MODULE:METHOD", "whether it and all that it has called are settled" },
	{ "freeze", 1, -1, OPT_JSON, cmd_freeze, "MODULE [-- COMMAND...]", "hold its promotions while the command runs, else until interrupted" },
	{ "mark", 1, -1, OPT_JSON, cmd_mark, "MODULE [-- COMMAND...]", "whether code of it changes while the command runs; else its mark" },
	{ "rejit", 2, 2, OPT_FORCE, cmd_rejit, "MODULE:METHOD FILE[:SYMBOL]", "replace its body, for all processes, by an object's function; without SYMBOL the one of its name" },
	{ "revert", 1, 1, 0, cmd_revert, "MODULE:METHOD", "bring its own body back, with the code that it had" },
	{ "pending", 0, 0, OPT_MODULE | OPT_ALL | OPT_JSON, cmd_pending, "", "methods queued or being compiled: yours, all, or of a module" },
	{ "events", 0, 0, OPT_FOLLOW | OPT_FROM | OPT_SINCE | OPT_MODULE | OPT_METHOD | OPT_KIND | OPT_FORMAT | OPT_OUTPUT | OPT_JSON, cmd_events, "", "the journal's transitions, one per line; --format=csv names the columns" },
	{ "journal", 1, 2, ALONE | OPT_JSON, cmd_journal, "verify [DIR]", "check a journal's folder; no daemon is asked" },
	{ "stats", 0, 0, OPT_KNOBS | OPT_JSON, cmd_stats, "", "the daemon's figures, and which path each client's events take" },
};

enum value_kind { VALUE_NONE, VALUE_TEXT, VALUE_NUMBER, VALUE_DURATION };
struct option_row {
	const char *name;
	unsigned int option;	/* 0: every verb takes it */
	enum value_kind kind;
	const char *value;	/* what --help calls it */
	size_t field;
	const char *help;
};
#define FIELD(f) offsetof(struct ctl, f)

static const struct option_row options[] = {
	{ "socket", 0, VALUE_TEXT, "PATH", FIELD(socket), "the daemon's socket; default $TIERD_SOCKET, then the user's, then the system's" },
	{ "json", OPT_JSON, VALUE_NONE, "", FIELD(json), "print JSON (events: one object per line)" },
	{ "name", OPT_NAME, VALUE_TEXT, "NAME", FIELD(name), "the module's name; default the file's without .bpf.o, .tier.o or .o" },
	{ "shared", OPT_SHARED, VALUE_NONE, "", FIELD(shared), "other users may open it" },
	{ "timeout", OPT_TIMEOUT, VALUE_DURATION, "DURATION", FIELD(timeout_ns), "give up after this time (a number with ns, us, ms, s, min, h; without unit ms)" },
	{ "bytecode", OPT_BYTECODE, VALUE_NONE, "", FIELD(bytecode), "its instructions too, with their source lines" },
	{ "native", OPT_NATIVE, VALUE_NONE, "", FIELD(native), "the machine code of its active version too" },
	{ "force", OPT_FORCE, VALUE_NONE, "", FIELD(force), "replace it whatever the signatures say" },
	{ "callees", OPT_CALLEES, VALUE_NONE, "", FIELD(callees), "go on until all that it calls is settled" },
	{ "changing", OPT_CHANGING, VALUE_NONE, "", FIELD(changing), "status 0 although code changed inside a measurement" },
	{ "knobs", OPT_KNOBS, VALUE_NONE, "", FIELD(knobs), "the daemon's knobs in force instead, with their defaults and ranges" },
	{ "count", OPT_COUNT, VALUE_NUMBER, "NUMBER", FIELD(count), "how many calls; default 1" },
	{ "rounds", OPT_ROUNDS, VALUE_NUMBER, "NUMBER", FIELD(rounds), "rounds whose median is printed; default 15" },
	{ "library", OPT_LIBRARY, VALUE_TEXT, "FILE", FIELD(library), "a shared library that has the module's imports" },
	{ "module", OPT_MODULE, VALUE_TEXT, "MODULE", FIELD(module), "only of this module" },
	{ "all", OPT_ALL, VALUE_NONE, "", FIELD(all), "count those of all users" },
	{ "follow", OPT_FOLLOW, VALUE_NONE, "", FIELD(follow), "go on with what comes, until a signal ends it" },
	{ "method", OPT_METHOD, VALUE_TEXT, "METHOD", FIELD(method), "only of this MODULE:METHOD" },
	{ "kind", OPT_KIND, VALUE_TEXT, "KIND", FIELD(kind), "only of this kind, such as published, or of several with commas" },
	{ "format", OPT_FORMAT, VALUE_TEXT, "FORMAT", FIELD(format), "table, json, csv or perfetto (a trace for its viewer)" },
	{ "output", OPT_OUTPUT, VALUE_TEXT, "FILE", FIELD(output), "write to this file; -o FILE is the same" },
	{ "since", OPT_SINCE, VALUE_DURATION, "DURATION", FIELD(since_ns), "begin with what happened at most so long ago" },
	{ "from", OPT_FROM, VALUE_NUMBER, "NUMBER", FIELD(from), "first event number; default 1, with --follow the next one to come" },
};
#define N(a) (sizeof(a) / sizeof((a)[0]))

/* -- Help --- */
static bool option_is_of(const struct option_row *row, const struct verb *verb)
{
	return row->option ? row->option & verb->options : !(verb->options & ALONE);
}

static void help_option(const struct option_row *row)
{
	printf("  --%-10s %-8s %s\n", row->name, row->value, row->help);
}

static void help_args(void)
{
	printf("An ARG is an integer (decimal or 0x), or @FILE: the address and the length of a private copy of its bytes.\n");
}

static int help(void)
{
	printf("Usage: tierctl VERB [ARGUMENT]... [OPTION]...\n"
	       "Loads modules into tierd, calls their methods, and asks where they are on their way to their final tier.\n\n");
	for (size_t i = 0; i < N(verbs); i++) {
		char head[64];

		snprintf(head, sizeof(head), "%s %s", verbs[i].name, verbs[i].args);
		printf("  %-34s %s\n", head, verbs[i].help);
	}
	printf("\nOptions (after any verb: --help tells which it takes)\n");
	for (size_t i = 0; i < N(options); i++)
		help_option(&options[i]);
	printf("  --help\n  --version\n\n");
	help_args();
	printf("Exit status: 0 done, 1 the asked-for condition was not met, 2 usage or failure.\n");
	return CTL_DONE;
}

static int help_verb(const struct verb *verb)
{
	printf("Usage: tierctl %s%s%s [OPTION]...\n%s\n", verb->name, *verb->args ? " " : "", verb->args, verb->help);
	if (strstr(verb->args, "ARG"))
		help_args();
	for (size_t i = 0; i < N(options); i++)
		if (option_is_of(&options[i], verb))
			help_option(&options[i]);
	if (verb->fn == cmd_stats)
		counters_help();
	return CTL_DONE;
}

/* -- Parsing --- */
static const struct verb *verb_find(const char *name)
{
	for (size_t i = 0; i < N(verbs); i++)
		if (!strcmp(verbs[i].name, name))
			return &verbs[i];
	return NULL;
}

/* Whether one letter too many, missing, changed, or swapped with its neighbour makes the one of the other */
static bool is_slip(const char *typed, const char *name)
{
	while (*typed && *typed == *name)
		typed++, name++;
	return (*typed && !strcmp(typed + 1, name)) || (*name && !strcmp(typed, name + 1))
	       || (*typed && *name && !strcmp(typed + 1, name + 1))
	       || (*typed && *name && typed[0] == name[1] && typed[1] == name[0] && !strcmp(typed + 2, name + 2));
}

static int verb_unknown(const char *name)
{
	for (size_t i = 0; i < N(verbs); i++)
		if (is_slip(name, verbs[i].name))
			return fail("unknown verb '%s'; did you mean '%s'?", name, verbs[i].name);
	return fail("unknown verb '%s'; try 'tierctl --help'", name);
}

/* "tierctl help VERB" and "tierctl --help VERB" are "tierctl VERB --help". */
static int help_asked(const char *name)
{
	const struct verb *verb = name ? verb_find(name) : NULL;

	if (verb)
		return help_verb(verb);
	return name ? verb_unknown(name) : help();
}

static const struct option_row *option_find(const struct verb *verb, const char *name, size_t n)
{
	for (size_t i = 0; i < N(options); i++)
		if (strlen(options[i].name) == n && !strncmp(options[i].name, name, n) && option_is_of(&options[i], verb))
			return &options[i];
	return NULL;
}

static int option_store(struct ctl *ctl, const struct option_row *row, const char *text)
{
	void *field = (char *)ctl + row->field;

	switch (row->kind) {
	case VALUE_NONE:
		*(bool *)field = true;
		return CTL_DONE;
	case VALUE_TEXT:
		*(const char **)field = text;
		return CTL_DONE;
	case VALUE_NUMBER:
		return parse_number(text, field) ? CTL_DONE : fail("--%s: '%s' is not a number", row->name, text);
	case VALUE_DURATION:
		return parse_duration(text, field) ? CTL_DONE : fail("--%s: '%s' is not a duration: a number with ns, us, ms, s, min or h", row->name, text);
	}
	return CTL_FAILED;
}

/* Takes argv[*i], and the value behind it where the option has one. */
static int option_take(struct ctl *ctl, const struct verb *verb, char **argv, int argc, int *i)
{
	const char *name = argv[*i] + 2, *value = strchrnul(name, '=');
	const struct option_row *row = option_find(verb, name, value - name);

	if (!row)
		return fail("%s: unknown option '%s'; try 'tierctl %s --help'", verb->name, argv[*i], verb->name);
	if (row->kind == VALUE_NONE)
		return *value ? fail("--%s takes no value", row->name) : option_store(ctl, row, "");
	if (*value)
		return option_store(ctl, row, value + 1);
	if (++*i == argc)
		return fail("--%s needs a value", row->name);
	return option_store(ctl, row, argv[*i]);
}

/* The one short option there is */
static bool is_output(const struct verb *verb, const char *arg)
{
	return verb->options & OPT_OUTPUT && !strcmp(arg, "-o");
}

/* Anything else with one hyphen is a number or a mistake. */
static bool is_short(const char *arg)
{
	return arg[0] == '-' && arg[1] && arg[1] != '-' && !(arg[1] >= '0' && arg[1] <= '9');
}

static int parse(struct ctl *ctl, const struct verb *verb, int argc, char **argv)
{
	bool only_args = false;
	int r;

	for (int i = 0; i < argc; i++) {
		if (!only_args && is_output(verb, argv[i])) {
			if (++i == argc)
				return fail("-o needs a value");
			ctl->output = argv[i];
		} else if (!only_args && is_short(argv[i])) {
			return fail("%s: unknown option '%s'; try 'tierctl %s --help'", verb->name, argv[i], verb->name);
		} else if (only_args || strncmp(argv[i], "--", 2)) {
			ctl->args[ctl->n_args++] = argv[i];	/* in place: never ahead of i */
		} else if (!argv[i][2]) {
			only_args = true;
		} else {
			r = option_take(ctl, verb, argv, argc, &i);
			if (r)
				return r;
		}
	}
	if (verb->n_max >= 0 && ctl->n_args > verb->n_max)
		return fail("%s: '%s' is one argument too many; usage: tierctl %s%s%s", verb->name, ctl->args[verb->n_max], verb->name,
			    *verb->args ? " " : "", verb->args);
	if (ctl->n_args < verb->n_min)
		return fail("usage: tierctl %s%s%s", verb->name, *verb->args ? " " : "", verb->args);
	return CTL_DONE;
}

static int run(struct ctl *ctl, const struct verb *verb)
{
	struct tier_conn_opts opts = { .size = sizeof(opts), .socket = ctl->socket, .program = "tierctl" };
	int r;

	if (!(verb->options & ALONE) && tier_connect(&ctl->conn, &opts))
		return fail("%s", tier_error_text());
	r = verb->fn(ctl);
	if (ctl->conn)
		tier_disconnect(ctl->conn);
	if (fflush(stdout) || ferror(stdout))
		return fail("cannot write the output");
	return r;
}

int main(int argc, char **argv)
{
	const struct verb *verb;
	struct ctl ctl = { .timeout_ns = TIER_FOREVER, .count = 1, .from = 0, .rounds = 15 };
	int r;

	if (argc < 2)
		return help(), fail("a verb is missing");
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help"))
		return help_asked(argc > 2 ? argv[2] : NULL);
	if (!strcmp(argv[1], "--version"))
		return printf("tierctl %s\n", TIER_VERSION), CTL_DONE;
	verb = verb_find(argv[1]);
	if (!verb && argv[1][0] == '-')
		return fail("'%s' comes before a verb; options come behind it, see 'tierctl --help'", argv[1]);
	if (!verb)
		return verb_unknown(argv[1]);
	for (int i = 2; i < argc && strcmp(argv[i], "--"); i++)
		if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h"))
			return help_verb(verb);
	ctl.verb = verb->name;
	ctl.args = argv + 2;
	r = parse(&ctl, verb, argc - 2, argv + 2);
	return r ? r : run(&ctl, verb);
}
