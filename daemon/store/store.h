/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The descriptor store: what outlives the daemon (DESIGN §6.3)
 *
 * A manager (systemd, or `tierd --keep`) keeps descriptors under names while no daemon lives, and passes them to the
 * next one. Both speak sd_notify(3)'s protocol: FDSTORE=1 on the notify socket, LISTEN_FDS and LISTEN_FDNAMES at the
 * start. A message that was sent is in the manager's queue, so it arrives even if the daemon dies at the next
 * instruction.
 *
 * Put a descriptor before anybody can come to rely on it, remove it after nobody can any more: what is stored and in no
 * ledger is the remainder of a step that was not finished, and a successor drops it.
 *
 * A manager keeps one descriptor per open file description: a second name for the same one would not be kept. */

#include <stdbool.h>
#include <stdint.h>
#include "util/base.h"

struct store;

#define STORE_NAME_MAX 64u /* with its zero; a lower-case letter, then letters, digits, '.', '-' */

/* Takes what a predecessor left from the environment, which is cleared; of a manager's variables only NOTIFY_SOCKET
 * stays, which libsystemd reads for each message. Whatever else is wrong there is logged and ignored. Before the
 * process opens or forks anything: the numbers of the passed descriptors are the environment's word. Without a manager,
 * or built without libsystemd, there is a store that keeps nothing (a listener is taken all the same). 0 or -errno. */
int store_open(struct store **ret);
struct store *store_free(struct store *store); /* closes what nobody took; all stays stored. Takes NULL; returns NULL */
DEFINE_CLEANUP(struct store *, store_free)
bool store_can_be_kept(void);	/* not where this tierd was built without libsystemd */
/* There is a manager; false from when it is found to be gone. Any thread. */
bool store_is_kept(const struct store *store);

/* -- What a predecessor left; the loop's --- */
/* The descriptor of that name, close-on-exec, the caller's now; it stays stored. -1: there is none (any more). Of
 * several that were stored under one name it is the newest. */
int store_take(struct store *store, const char *name);
/* The listening SOCK_SEQPACKET socket that the manager passed under whatever name, by activation or because it was
 * stored: likewise. */
int store_take_listener(struct store *store);
/* Walks the names that nobody took, the listener's left out: *at is 0 at first. NULL: no more. The text is valid until
 * the next call of store_next(). */
const char *store_next(struct store *store, uint32_t *at);
/* What nobody took is removed from the store and closed. */
void store_drop_rest(struct store *store);

/* -- What a successor will get; from any thread. They may wait while the manager is slow: not in the loop --- */
/* The store keeps a duplicate; of one name, all that are put until it is removed. 0; without a manager likewise.
 * -EINVAL: no such name; -E2BIG: so many names that a successor could not be started with them; another -errno: the
 * manager did not get it. The log says so once. */
int store_put(struct store *store, const char *name, int fd);
void store_remove(struct store *store, const char *name); /* also one that never was there */

/* -- What the manager is told of the daemon's life; nothing without one --- */
void store_tell_ready(struct store *store, const char *status); /* @status: one line about what is served */
void store_tell_stopping(struct store *store); /* a manager that keeps nothing for a successor is found to be gone */
uint64_t store_watchdog_ns(const struct store *store); /* how often the manager wants to hear; 0: never */
/* Also finds out that the manager is gone; never waits. */
void store_feed_watchdog(struct store *store);
