/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A code buffer that remembers that it overflowed: templates stay free of checks, and the running count is the size
 * that a retry needs. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct emit {
	uint8_t *p;		/* where to write; borrowed */
	size_t n_max, n;	/* n counts on past n_max, nothing is written there */
	uint64_t address;	/* where p[0] will execute */
};

static inline bool emit_fits(const struct emit *e) { return e->n <= e->n_max; }
static inline uint64_t emit_here(const struct emit *e) { return e->address + e->n; }
