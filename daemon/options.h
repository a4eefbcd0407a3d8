/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* tierd's options: one table from which parsing, ranges and --help grow. */

#include <stdbool.h>
#include <stdint.h>
#include "tier/types.h"
#include "util/log.h"

enum options_sync { OPTIONS_SYNC_RECORD, OPTIONS_SYNC_INTERVAL, OPTIONS_SYNC_NEVER };	/* as enum journal_sync */
enum options_events { OPTIONS_EVENTS_AUTO, OPTIONS_EVENTS_KERNEL, OPTIONS_EVENTS_SOCKET };

struct options {
	const char *socket;		/* NULL: the default of the mode */
	const char *worker;		/* NULL: beside the daemon, else ../libexec/tierd */
	bool user, foreground, keep;
	int ready_fd;			/* gets one line when the daemon serves; -1: none */
	uint64_t threshold;
	uint64_t delay_ns, worker_timeout_ns, compile_limit_ns, load_limit_ns, sweep_ns;
	uint64_t delay_multiplier;	/* applied when the process sees one processor */
	uint64_t background_workers;	/* of one user */
	uint64_t worker_memory;		/* bytes */
	uint64_t code_size;		/* bytes of a module's code segment; 0: by its size */
	uint64_t journal_events, ring_bytes;
	const char *journal;		/* a folder, "memory" or "off"; NULL: as is usual for such a daemon */
	enum options_sync journal_sync;
	uint64_t journal_sync_interval_ns;
	uint64_t journal_size, journal_age_ns;	/* 0: any */
	const char *code_cache;		/* a folder or "off"; NULL: as is usual for such a daemon */
	uint64_t code_cache_size;	/* bytes */
	uint64_t grace_ns;		/* after a takeover */
	uint64_t window;		/* base address; 0: random */
	bool call_counting, call_counting_stubs;
	bool tiered_compilation, quick_jit, quick_jit_for_loops, ready_to_run;
	bool tiered_pgo, instrument_only_hot_code;
	bool osr;
	uint64_t osr_hit_limit, osr_counter_bump, osr_initial_counter;	/* at most INT32_MAX each */
	bool aggressive_tiering;	/* threshold and delay_ns are what it and the multiplier make of them */
	enum tier_backpatch backpatch;
	enum options_events events;
	uint64_t log_level;
	struct log_choice log;
	const char *log_to;		/* "stderr", "journal" or a path */
};

enum options_end { OPTIONS_RUN, OPTIONS_DONE, OPTIONS_ERROR };

/* Fills @ret with defaults, then from the arguments. OPTIONS_DONE: --help or --version was printed. OPTIONS_ERROR: the
 * sentence is on standard error. */
enum options_end options_parse(struct options *ret, int argc, char **argv);

/* The arguments of a daemon in the keeper's care: the keeper's own, that is those for which @argv was parsed, without what is about
 * the keeper, and with --foreground. The words are borrowed; NULL: no memory. */
char **options_of_kept(int argc, char **argv);

/* Whether this is the system's daemon. Private ones come and go: what they did is of no interest to anybody who did not ask for
 * it. */
bool options_is_the_systems(const struct options *options);

/* A knob as people are told of it: any option that has a default */
struct options_knob {
	char name[40], value[64], standard[64];	/* as on the command line; in force, and by default */
	char range[64];		/* "1 to 65535", or the words that there are; "": any text */
	char mirrors[48];	/* CoreCLR's knob of that meaning; "": none */
};
/* The @i-th one. False: there are no more. */
bool options_knob(const struct options *options, uint32_t i, struct options_knob *ret);

/* A duration: a number with ns, us, ms, s, min or h; without a unit milliseconds. False: not one. */
bool options_duration(const char *text, uint64_t *ret_ns);
