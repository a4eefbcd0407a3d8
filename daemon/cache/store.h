/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The code cache's folder: files of entries, the least recently used go when there are too many bytes
 *
 *   UID-HASH          an entry; its time of modification is that of its last use
 *   new-UID-HASH      one that is being written; of a daemon that died, if it is older than this one
 *
 * The folder is the daemon's alone, 0700, and one daemon's at a time (a lock). Files of any other name or owner are nobody's
 * business, and a symbolic link is never followed. There is nothing to sync: a file that a crash tears is noticed by its sum,
 * and dropped.
 *
 * When it is full, the user whose entries take most gives up the oldest of them, so nobody can push others out.
 *
 * Thread safety: one thread at a time; cache_figures() any. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "cache/entry.h"

struct cache;

/* Makes the folder if need be (and those above it, for the user alone), and reads what is there. 0; -EBUSY: another daemon has
 * it; -ELOOP, -ENOTDIR: it is a link or no folder; -EPERM: it is another user's, or others may write there; -errno. */
int cache_open(struct cache **ret, const char *path, uint64_t n_bytes_max);
struct cache *cache_close(struct cache *cache);

/* The entry of that key, which *ret_block holds (for free()); it counts as used now. False: there is none. What is damaged
 * goes. */
bool cache_find(struct cache *cache, uint32_t uid, const struct entry_part *key, struct entry *ret, void **ret_block);
/* Keeps it in place of the one with its key. 0; -EFBIG: larger than all may be; -errno: nothing was kept. */
int cache_keep(struct cache *cache, uint32_t uid, const struct entry *entry);
void cache_drop(struct cache *cache, uint32_t uid, const struct entry_part *key);

struct cache_figures { uint64_t n_entries, n_bytes, n_dropped; };	/* dropped: damaged, not old */
void cache_figures(const struct cache *cache, struct cache_figures *ret);
