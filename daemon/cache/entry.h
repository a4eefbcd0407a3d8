/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* An entry of the code cache, as one file holds it
 *
 *   header | key | profiles | code, each at a multiple of 8
 *
 * The key is all that the code depends on; a name made of its hashes only finds the file, the bytes decide. Files are taken to be
 * anybody's: an entry is torn, another key's, or whole. What its parts say the reader checks again. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct entry_part {
	const void *bytes;
	size_t n;
};

struct entry {
	struct entry_part key, profiles, code;
};

#define ENTRY_MAX (64u << 20)	/* bytes of a file; what is larger is not kept */

/* Two hashes that have nothing in common */
struct entry_name {
	uint64_t hash[2];
};
struct entry_name entry_name(const void *key, size_t n);

/* A malloc()ed file in *ret of *ret_n bytes. 0, -ENOMEM, -EFBIG. */
int entry_put(const struct entry *entry, void **ret, size_t *ret_n);
enum entry_state { ENTRY_DAMAGED, ENTRY_OF_ANOTHER, ENTRY_FOUND };
/* @bytes: a file's, 8-byte aligned; *ret borrows from it when it is FOUND. Linear. */
enum entry_state entry_get(struct entry *ret, const void *bytes, size_t n, const struct entry_part *key);
