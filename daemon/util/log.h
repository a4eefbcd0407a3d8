/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The daemon's log: one line per call on standard error (the service manager adds time and name). */

enum log_level { LOG_ERROR, LOG_WARNING, LOG_INFO, LOG_DEBUG, _LOG_LEVEL_N };

/* Before threads start: */
void log_set_level(enum log_level level);	/* default LOG_INFO */
int log_set_fd(int fd);				/* default standard error; returns the one before */

/* Thread-safe: a line is one write(2). Nothing is formatted when @level is off. errno is kept; %m is not supported. */
void log_line(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));
