/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "util/log.h"

static enum log_level log_threshold = LOG_INFO;
static int log_fd = STDERR_FILENO;

void log_set_level(enum log_level level)
{
	log_threshold = level;
}

int log_set_fd(int fd)
{
	int old = log_fd;

	log_fd = fd;
	return old;
}

void log_line(enum log_level level, const char *format, ...)
{
	/* <3>, <4>, <6>, <7>: the prefixes by which journald knows syslog's levels */
	static const char *const prefix[_LOG_LEVEL_N] = { "<3>", "<4>", "<6>", "<7>" };
	char line[1024];
	int saved = errno, begin, n, m;
	va_list args;

	if (level > log_threshold)
		return;
	begin = n = snprintf(line, sizeof(line), "%stierd: ", isatty(log_fd) ? "" : prefix[level]);
	va_start(args, format);
	m = vsnprintf(line + n, sizeof(line) - n - 1, format, args);
	va_end(args);
	n += m < 0 ? 0 : m;
	if (n > (int)sizeof(line) - 2)
		n = sizeof(line) - 2;
	/* Names come from clients: one call stays one line, and no terminal obeys it. */
	for (int i = begin; i < n; i++)
		if ((unsigned char)line[i] < ' ' || line[i] == 0x7f)
			line[i] = '?';
	line[n++] = '\n';
	(void)!write(log_fd, line, n);
	errno = saved;
}
