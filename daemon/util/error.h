/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Errors: negative is fatal and passes through, positive is a named condition of that one call
 *
 * error_origin(r) marks where a negative errno was born, error_fold(r) every place it passes: together a backtrace in
 * the log for each surprise, at no cost on success. A positive code is an enum of the called object (ARENA_E_FULL) and
 * must be handled by the direct caller: error_fold() of a positive code is a programming error and becomes
 * -ENOTRECOVERABLE. */

#include <errno.h>
#include <stdbool.h>

int error_trace(int r, const char *file, int line, const char *function, const char *word);

#define error_origin(r) (__builtin_expect((r) != 0, 0) ? error_trace((r), __FILE__, __LINE__, __func__, "origin") : 0)
#define error_fold(r) (__builtin_expect((r) != 0, 0) ? error_trace((r), __FILE__, __LINE__, __func__, "fold") : 0)
