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

/* The compiler knows: non-zero in, negative out. */
static inline int error_pass(int r, const char *file, int line, const char *function, const char *word)
{
	if (__builtin_expect(!r, 1))
		return 0;
	r = error_trace(r, file, line, function, word);
	if (r >= 0)
		__builtin_unreachable();
	return r;
}

#define error_origin(r) error_pass((r), __FILE__, __LINE__, __func__, "origin")
#define error_fold(r) error_pass((r), __FILE__, __LINE__, __func__, "fold")
