/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A code buffer that remembers that it overflowed: templates stay free of checks, and the running count is the size
 * that a retry needs. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct emit {
	uint8_t *p;		/* where to write; borrowed */
	size_t n_max, n;	/* n counts on past n_max, nothing is written there */
	uint64_t address;	/* where p[0] will execute */
};

static inline bool emit_fits(const struct emit *e) { return e->n <= e->n_max; }
static inline uint64_t emit_here(const struct emit *e) { return e->address + e->n; }

static inline void emit_bytes(struct emit *e, const void *p, size_t n)
{
	if (e->n + n <= e->n_max)
		memcpy(e->p + e->n, p, n);
	e->n += n;
}

/* The low @n <= 8 bytes of @word. One 8-byte store where the buffer has room for it: what it writes beyond n is
 * overwritten by what follows, or lies behind the code. */
static inline void emit_word(struct emit *e, uint64_t word, unsigned int n)
{
	if (e->n + sizeof(word) <= e->n_max)
		memcpy(e->p + e->n, &word, sizeof(word));
	else if (e->n + n <= e->n_max)
		memcpy(e->p + e->n, &word, n);
	e->n += n;
}

/* EMIT(e, 0x48, 0x89, 0xe5); and for a field inside a template: EMIT(e, 0x68, IMM32(value)); */
#define EMIT(e, ...) emit_bytes((e), (const uint8_t[]){ __VA_ARGS__ }, sizeof((const uint8_t[]){ __VA_ARGS__ }))
#define IMM32(value)                                                                                                   \
	(uint8_t)(value), (uint8_t)((uint32_t)(value) >> 8), (uint8_t)((uint32_t)(value) >> 16),                       \
		(uint8_t)((uint32_t)(value) >> 24)

/* -- Fields that are filled in later; @at is an offset in the buffer --- */

/* What stands in the field; 0 when it lies beyond the end, where nothing was written. */
static inline uint32_t emit_field(const struct emit *e, size_t at)
{
	uint32_t value = 0;

	if (at + sizeof(value) <= e->n_max)
		memcpy(&value, e->p + at, sizeof(value));
	return value;
}

static inline void emit_patch(struct emit *e, size_t at, const void *p, size_t n)
{
	if (at + n <= e->n_max)
		memcpy(e->p + at, p, n);
}
