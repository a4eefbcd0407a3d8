/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The daemon's log
 *
 * A message has a level and, if it is one of many of its kind, a facility; which levels of which facilities are on is chosen
 * when the daemon starts. What is off costs the test of one word: its arguments are not even evaluated.
 *
 *	log_line(LOG_ERROR, "cannot listen on %s", path);			of no facility: --log-level
 *	log_event(LOG_LOADER, LOG_INFO100, "module '%s' loaded", name);		--log=loader:info100
 *	log_tiering(INFO10000, label, module, method, "E %#lx -> %#lx", a, b);	about a method: --log=tiering:info10000
 *
 * A message is one line: on standard error, in a file of this process, or in the system's journal. */

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* CoreCLR's levels and their numbers (reference §11.4), by rising detail; the last column is syslog's priority. */
#define LOG_LEVEL_LIST(_)                                                                                              \
	_(FATAL, 1, "fatal", 2)                                                                                        \
	_(ERROR, 2, "error", 3)                                                                                        \
	_(WARNING, 3, "warning", 4)                                                                                    \
	_(INFO10, 4, "info10", 6)                                                                                      \
	_(INFO100, 5, "info100", 7)                                                                                    \
	_(INFO1000, 6, "info1000", 7)                                                                                  \
	_(INFO10000, 7, "info10000", 7)                                                                                \
	_(INFO100000, 8, "info100000", 7)                                                                              \
	_(INFO1000000, 9, "info1000000", 7)                                                                            \
	_(EVERYTHING, 10, "everything", 7)

/* Each is a bit; tiering's is CoreCLR's LF_TIEREDCOMPILATION. */
#define LOG_FACILITY_LIST(_)                                                                                           \
	_(TIERING, 0x00400000, "tiering") /* entry points, counting, promotions */                                     \
	_(LOADER, 0x00000002, "loader")   /* modules coming and going */                                               \
	_(WORKER, 0x00000004, "worker")   /* processes that load and compile, and their jobs */                        \
	_(SERVER, 0x00000008, "server")   /* connections and sessions */                                               \
	_(TRACE, 0x00000010, "trace")     /* the kernel's probes */                                                    \
	_(JOURNAL, 0x00000020, "journal") /* the history of events */

#define LOG_LEVEL_ENUM(name, number, ...) LOG_##name = number,
#define LOG_FACILITY_ENUM(name, bit, ...) LOG_##name = bit,
enum log_level {
	LOG_LEVEL_LIST(LOG_LEVEL_ENUM)
	_LOG_LEVEL_N,
	LOG_INFO = LOG_INFO10,
	LOG_DEBUG = LOG_EVERYTHING,
};
enum log_facility { LOG_GENERAL = 0x00000001, LOG_FACILITY_LIST(LOG_FACILITY_ENUM) };

/* -- Messages: thread-safe, a line is one write(2), control characters in it are replaced. errno is kept; %m is not
 * supported. A log that cannot be written (a full disk) stops nobody. --- */

/* Of no facility */
#define log_line(level, ...) log_event(LOG_GENERAL, level, __VA_ARGS__)

#define log_event(facility, level, ...)                                                                                \
	do {                                                                                                           \
		if (log_is_on(facility, level))                                                                        \
			log_write(facility, level, NULL, __VA_ARGS__);                                                 \
	} while (0)

/* The same about a method: the line begins with "LABEL MODULE:METHOD: ", and the system's journal gets each as a field of its
 * own. @path: what happened to it in a word, such as an entry point's path (TIER_PATH_LIST); @name: its module's;
 * @index: its number there. */
#define log_method(facility, level, path, name, index, ...)                                                            \
	do {                                                                                                           \
		if (log_is_on(facility, level))                                                                        \
			log_write(facility, level,                                                                     \
				  &(struct log_subject){ .label = (path), .module = (name), .method = (index) },       \
				  __VA_ARGS__);                                                                        \
	} while (0)
#define log_tiering(level, ...) log_method(LOG_TIERING, LOG_##level, __VA_ARGS__)

struct log_subject {
	const char *label, *module;
	uint32_t method;
};
void log_write(enum log_facility facility, enum log_level level, const struct log_subject *subject, const char *format, ...)
	__attribute__((format(printf, 4, 5)));

/* -- What is on. Before threads start. --- */
void log_set_level(enum log_level level);	/* of all facilities and of what has none; default LOG_INFO */

/* What --log chose: facilities on at each level; those that are off at all levels were not named. */
struct log_choice {
	uint32_t on[_LOG_LEVEL_N];
};
/* Adds "FACILITY:LEVEL"; the last word on a facility holds. NULL, or what is wrong: words that follow "'TEXT' is ". */
const char *log_choose(struct log_choice *choice, const char *text);
void log_set_choice(const struct log_choice *choice);	/* others keep their level */

/* -- Where lines go. Before threads start. What ends in failure is told on standard error as well. --- */
int log_set_fd(int fd);		/* instead of standard error; returns the one before */

/* Opens a file to append to, which may not be a link: the descriptor or -errno. */
int log_file_open(const char *path);
void log_set_file(int fd);	/* takes it; -1: no longer to a file */
/* The name that no other process chooses: tierd.log → tierd.PID.log, tierd → tierd.PID. 0, -EISDIR (the path names no
 * file), -ENAMETOOLONG. */
int log_file_name(const char *path, pid_t pid, char *ret, size_t n);

struct log_record {
	const char *facility;			/* NULL: none */
	const char *level;
	const struct log_subject *subject;	/* NULL: about no method */
	const char *text;			/* with facility and subject, without the end of the line */
	int priority;				/* syslog's */
};
void log_to(void (*sink)(const struct log_record *record));	/* NULL: no longer */

/* inline helpers */
extern uint32_t log_on[_LOG_LEVEL_N];	/* by level: the facilities for which it is on */
static inline bool log_is_on(enum log_facility facility, enum log_level level)
{
	return log_on[level] & facility;
}
