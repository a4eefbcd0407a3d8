/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What tierctl's commands share: the parsed command line, the connection, ways to fail and to print.
 *
 * Exit status: 0 done; 1 the asked-for condition was not met (a wait timed out, a method ended on another tier than
 * its final one); 2 usage or failure, with one sentence on standard error; freeze and mark with a command: the command's. */

#include <stdbool.h>
#include <stdint.h>
#include <tier/tier.h>

enum { CTL_DONE = 0, CTL_UNMET = 1, CTL_FAILED = 2 };

struct ctl {
	const char *verb;
	char **args;		/* what is left behind the options */
	int n_args;
	/* options; which of them a verb takes stands in its row */
	const char *socket, *name, *library;
	bool json, shared, follow, all, bytecode, native, force, callees, changing, knobs;
	uint64_t timeout_ns, count, from, rounds;
	uint64_t since_ns;
	const char *module, *method, *kind, *format, *output;
	struct tier_conn *conn;	/* open when a command runs */
};

/* Every command: one of these. */
typedef int (*ctl_fn)(struct ctl *ctl);
int cmd_load(struct ctl *ctl);
int cmd_unload(struct ctl *ctl);
int cmd_compile(struct ctl *ctl);
int cmd_list(struct ctl *ctl);
int cmd_status(struct ctl *ctl);
int cmd_remaining(struct ctl *ctl);
int cmd_wait(struct ctl *ctl);
int cmd_call(struct ctl *ctl);
int cmd_drive(struct ctl *ctl);
int cmd_bench(struct ctl *ctl);
int cmd_pending(struct ctl *ctl);
int cmd_events(struct ctl *ctl);
int cmd_journal(struct ctl *ctl);
int cmd_stats(struct ctl *ctl);
int cmd_show(struct ctl *ctl);
int cmd_rejit(struct ctl *ctl);
int cmd_revert(struct ctl *ctl);
int cmd_settled(struct ctl *ctl);
int cmd_freeze(struct ctl *ctl);
int cmd_mark(struct ctl *ctl);

/* Prints "tierctl: " and the sentence; returns CTL_FAILED. */
int fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
int fail_tier(const char *what);	/* the sentence is tier_error_text(), behind @what if it does not name that itself */

/* -- Arguments (args.c) --- */
#define CALL_ARGS_MAX 5
struct call_args {
	uint64_t values[CALL_ARGS_MAX];
	int n;
	struct call_file { void *bytes; uint64_t n; } files[CALL_ARGS_MAX];
	int n_files;
};
/* Integers (decimal, negative, 0x) and @FILE: the address and length of a private copy of the file's bytes. False: the
 * sentence was printed. */
bool call_args_parse(struct call_args *ret, char **args, int n_args);
void call_args_free(struct call_args *args);

bool parse_duration(const char *text, uint64_t *ret_ns);
bool parse_number(const char *text, uint64_t *ret);	/* decimal or 0x, not negative */
bool parse_integer(const char *text, uint64_t *ret);	/* negative, too */

/* -- Targets (target.c) --- */
/* Opens MODULE, or the instantiation MODULE<knob=value,...>; @is_made: which is made if there is none. False: the sentence was
 * printed. */
bool target_open_module(struct ctl *ctl, const char *text, bool is_made, struct tier_module **ret);

/* Opens the module and finds the method of "MODULE:METHOD". False: the sentence was printed. */
struct target {
	struct tier_module *module;
	struct tier_method *method;
};
bool target_open(struct ctl *ctl, const char *text, struct target *ret);
/* The same, ready to be called: an instantiation is made if there is none, imports are bound from --library and from this program. */
bool target_open_callable(struct ctl *ctl, const char *text, struct target *ret);

static inline uint64_t call_method(const struct target *target, const struct call_args *args)
{
	const uint64_t *v = args->values;

	return tier_entry(target->method)(v[0], v[1], v[2], v[3], v[4]);
}

/* The names of what is unsettled, for a sentence; valid until the next call. */
const char *unsettled_names(struct tier_module *module, const struct tier_settlement *settlement);

uint64_t now_ns(void);	/* CLOCK_MONOTONIC */
