/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A segment of a journal, read by what its format says (tier/journal.h) and nothing else: this shares no code with the daemon
 * that writes them. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <tier/journal.h>

struct journal_file {
	uint64_t first, last;		/* of the sound records; last is first - 1 without any */
	uint64_t gap_first, n_bytes;
	bool is_deflated;
	char problem[128];		/* "": none */
};

/* @name: a segment's. False: it cannot be read at all, errno says why. */
bool journal_file_check(struct journal_file *ret, int dir, const char *name);
