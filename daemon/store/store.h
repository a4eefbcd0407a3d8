/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The descriptor store: what outlives the daemon (DESIGN §6.3)
 *
 * A manager (systemd, or `tierd --keep`) keeps descriptors under names while no daemon lives, and passes them to the next one. Both
 * speak sd_notify(3)'s protocol: FDSTORE=1 on the notify socket, LISTEN_FDS and LISTEN_FDNAMES at the start. A message that was
 * sent is in the manager's queue, so it arrives even if the daemon dies at the next instruction.
 *
 * Put a descriptor before anybody can come to rely on it, remove it after nobody can any more: what is stored and in no ledger is the
 * remainder of a step that was not finished, and a successor drops it. */

#include <stdbool.h>
#include <stdint.h>

struct store;

#define STORE_NAME_MAX 64u	/* with its zero; letters, digits, '.', '-' */

/* Takes what a predecessor left from the environment, which is cleared. Without a manager, or built without libsystemd, there is a
 * store that keeps nothing. 0 or -errno. */
int store_open(struct store **ret);
struct store *store_free(struct store *store);	/* closes what nobody took; all stays stored. Takes NULL; returns NULL */
bool store_is_kept(const struct store *store);	/* there is a manager */

/* -- What a predecessor left; the loop's --- */
/* The descriptor of that name, close-on-exec, the caller's now; it stays stored. -1: there is none (any more). */
int store_take(struct store *store, const char *name);
/* The listening SOCK_SEQPACKET socket that the manager passed, by activation or because it was stored: likewise. */
int store_take_listener(struct store *store);
/* Walks the names that nobody took: *at is 0 at first. NULL: no more. The text is valid until the next call of anything here. */
const char *store_next(struct store *store, uint32_t *at);
/* What nobody took is removed from the store and closed. */
void store_drop_rest(struct store *store);

/* -- What a successor will get; from any thread. They may wait while the manager is slow: not in the loop --- */
/* The store keeps a duplicate. 0; without a manager likewise. -errno: it is not kept, and the log has said so once. */
int store_put(struct store *store, const char *name, int fd);
void store_remove(struct store *store, const char *name);	/* also one that never was there */

/* -- What the manager is told of the daemon's life --- */
void store_tell_ready(struct store *store, const char *status);	/* @status: one line about what is served */
void store_tell_stopping(struct store *store);
uint64_t store_watchdog_ns(const struct store *store);	/* how often the manager wants to hear; 0: never */
void store_feed_watchdog(struct store *store);
