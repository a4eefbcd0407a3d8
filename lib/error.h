/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The sentence about the calling thread's last failure (tier_error_text()) */

#include <errno.h>
#include <stddef.h>

/* Keeps the sentence and returns @r, a negative errno. Knows %s %d %u %lu %lx only; neither allocates nor locks. */
int error_set(int r, const char *format, ...) __attribute__((format(printf, 2, 3), cold));

/* The kernel's word for a negative errno; never NULL. */
const char *error_word(int r);

/* The same formatting into @to, truncated to @n bytes with the NUL. */
void text_format(char *to, size_t n, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* Copies a string, truncated to @n bytes, and pads with zeros as fields on the wire are. */
void text_copy(char *to, size_t n, const char *from);
