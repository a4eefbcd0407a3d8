/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "util/base.h"
#include "util/log.h"

#define LOG_LINE_MAX 1024	/* with its end */

uint32_t log_on[_LOG_LEVEL_N] = { [LOG_FATAL ... LOG_INFO] = UINT32_MAX };

static int log_fd = STDERR_FILENO, log_file = -1;
static void (*log_sink)(const struct log_record *record);

#define LEVEL_NAME(name, number, text, ...) [number] = text,
#define LEVEL_PRIORITY(name, number, text, priority) [number] = priority,
static const char *const level_names[_LOG_LEVEL_N] = { LOG_LEVEL_LIST(LEVEL_NAME) };
static const int priorities[_LOG_LEVEL_N] = { LOG_LEVEL_LIST(LEVEL_PRIORITY) };

#define FACILITY_ROW(name, number, text) { number, text },
static const struct {
	uint32_t bit;
	const char *name;
} facilities[] = { LOG_FACILITY_LIST(FACILITY_ROW) };

#define FACILITY_OR(name, number, text) number |
#define LOG_ALL (LOG_FACILITY_LIST(FACILITY_OR) 0)
_Static_assert(!(LOG_ALL & LOG_GENERAL), "what has no facility is told from what has one");

static const char *facility_name(uint32_t bit)
{
	for (size_t i = 0; i < ARRAY_SIZE(facilities); i++)
		if (facilities[i].bit == bit)
			return facilities[i].name;
	return NULL;
}

/* -- What is on --- */
static void levels_set(uint32_t on[_LOG_LEVEL_N], uint32_t bits, enum log_level level)
{
	for (unsigned int i = LOG_FATAL; i < _LOG_LEVEL_N; i++)
		on[i] = i <= level ? on[i] | bits : on[i] & ~bits;
}

void log_set_level(enum log_level level)
{
	levels_set(log_on, UINT32_MAX, level);
}

void log_set_choice(const struct log_choice *choice)
{
	uint32_t named = choice->on[LOG_FATAL];

	for (unsigned int i = LOG_FATAL; i < _LOG_LEVEL_N; i++)
		log_on[i] = (log_on[i] & ~named) | choice->on[i];
}

/* 0: there is none of that name */
static uint32_t facilities_named(const char *name, size_t n)
{
	if (n == 3 && !strncmp(name, "all", n))
		return LOG_ALL;
	for (size_t i = 0; i < ARRAY_SIZE(facilities); i++)
		if (strlen(facilities[i].name) == n && !strncmp(facilities[i].name, name, n))
			return facilities[i].bit;
	return 0;
}

/* A name or its number; 0: neither */
static unsigned int level_named(const char *text)
{
	size_t n = strspn(text, "0123456789");
	unsigned long number = strtoul(text, NULL, 10);

	if (n)
		return n <= 2 && !text[n] && number < _LOG_LEVEL_N ? number : 0;
	for (unsigned int i = LOG_FATAL; i < _LOG_LEVEL_N; i++)
		if (!strcmp(level_names[i], text))
			return i;
	return 0;
}

#define FACILITY_WORD(name, number, text) text ", "
#define LEVEL_WORD(name, number, text, ...) text ", "
const char *log_choose(struct log_choice *choice, const char *text)
{
	const char *colon = strchr(text, ':');
	unsigned int level;
	uint32_t bits;

	if (!colon)
		return "not of the form FACILITY:LEVEL";
	bits = facilities_named(text, colon - text);
	if (!bits)
		return "of an unknown facility; known are " LOG_FACILITY_LIST(FACILITY_WORD) "and all";
	level = level_named(colon + 1);
	if (!level)
		return "of an unknown level; known are " LOG_LEVEL_LIST(LEVEL_WORD) "and their numbers, 1 to 10";
	levels_set(choice->on, bits, level);
	return NULL;
}

/* -- Where lines go --- */
int log_set_fd(int fd)
{
	int old = log_fd;

	log_fd = fd;
	return old;
}

void log_to(void (*sink)(const struct log_record *record))
{
	log_sink = sink;
}

int log_file_name(const char *path, pid_t pid, char *ret, size_t n)
{
	const char *slash = strrchr(path, '/');
	const char *base = slash ? slash + 1 : path;
	const char *dot = strrchr(base, '.');
	int before;

	if (!*base || !strcmp(base, ".") || !strcmp(base, ".."))
		return -EISDIR;
	if (!dot || dot == base)	/* .tierd has no extension */
		dot = base + strlen(base);
	before = dot - path;
	return (size_t)snprintf(ret, n, "%.*s.%d%s", before, path, (int)pid, dot) < n ? 0 : -ENAMETOOLONG;
}

int log_file_open(const char *path)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_NOCTTY | O_CLOEXEC, 0640);

	return fd < 0 ? -errno : fd;
}

void log_set_file(int fd)
{
	close_fd(log_file);
	log_file = fd;
}

/* -- Lines --- */
static void line_write(int fd, const char *before, const char *text)
{
	char line[LOG_LINE_MAX];
	int n = snprintf(line, sizeof(line) - 1, "%s%s", before, text);

	n = MIN(n, (int)sizeof(line) - 2);
	line[n++] = '\n';
	(void)!write(fd, line, n);
}

/* Nobody else says when it was. */
static void file_write(const struct log_record *record)
{
	struct timespec now;
	struct tm tm;
	char before[64];
	int n;

	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &tm);
	n = strftime(before, sizeof(before), "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(before + n, sizeof(before) - n, ".%06ldZ %s ", now.tv_nsec / 1000, record->level);
	line_write(log_file, before, record->text);
}

/* <3>, <4>, <6>, <7>: the prefixes by which journald knows syslog's levels */
static void stderr_write(const struct log_record *record)
{
	char before[16];

	snprintf(before, sizeof(before), "<%d>tierd: ", record->priority);
	line_write(log_fd, isatty(log_fd) ? before + 3 : before, record->text);
}

static void record_write(const struct log_record *record, bool is_failure)
{
	bool is_elsewhere = log_sink || log_file >= 0;

	if (log_sink)
		log_sink(record);
	if (log_file >= 0)
		file_write(record);
	if (!is_elsewhere || is_failure)
		stderr_write(record);
}

/* "tiering: CallCountingStub fib:0: " */
static size_t text_begin(char *text, size_t n_max, const char *facility, const struct log_subject *subject)
{
	int n = facility ? snprintf(text, n_max, "%s: ", facility) : 0;

	if (subject)
		n += snprintf(text + n, n_max - n, "%s %s:%u: ", subject->label, subject->module, subject->method);
	return MIN((size_t)n, n_max - 1);
}

void log_write(enum log_facility facility, enum log_level level, const struct log_subject *subject, const char *format, ...)
{
	struct log_record record = { .facility = facility_name(facility), .level = level_names[level],
				     .subject = subject, .priority = priorities[level] };
	char text[LOG_LINE_MAX] = "";
	int saved = errno;
	va_list args;
	size_t n;

	n = text_begin(text, sizeof(text), record.facility, subject);
	va_start(args, format);
	vsnprintf(text + n, sizeof(text) - n, format, args);
	va_end(args);
	/* Names come from clients: one call stays one line, and no terminal obeys it. */
	for (char *c = text; *c; c++)
		if ((unsigned char)*c < ' ' || *c == 0x7f)
			*c = '?';
	record.text = text;
	record_write(&record, level <= LOG_ERROR);
	errno = saved;
}
