/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Quotas: what one uid may have of something, as an object that gives itself back
 *
 * A table has a few slots (the owner's enum: connections, sessions, loads…), each with a limit that holds for every uid
 * alone. Whoever takes something embeds a struct charge beside it: charge_take() on the way in, charge_deinit() on
 * any way out. A uid costs memory only while it is charged for something. One thread. */

#include <stdint.h>
#include <sys/types.h>
#include "util/list.h"

#define CHARGE_SLOTS_MAX 8
#define CHARGE_BUCKETS 64

enum {
	_CHARGE_E_SUCCESS,
	CHARGE_E_QUOTA,		/* the uid has that many already */
};

struct charge_user;	/* a uid and what it has */

struct charge_table {
	struct list buckets[CHARGE_BUCKETS];
	uint64_t limits[CHARGE_SLOTS_MAX];
};

struct charge {
	struct charge_user *user;	/* NULL: nothing is charged */
	unsigned int slot;
	uint64_t n;
};
#define CHARGE_NULL { .user = NULL }

void charge_table_init(struct charge_table *table);	/* all limits 0: set them afterwards */
void charge_table_deinit(struct charge_table *table);	/* asserts that every charge was given back */

/* Takes @n of @slot for @uid. @charge must be null. 0, CHARGE_E_QUOTA or -ENOMEM; nothing is charged on failure. */
int charge_take(struct charge_table *table, struct charge *charge, uid_t uid, unsigned int slot, uint64_t n);
void charge_deinit(struct charge *charge);		/* gives back; null again; idempotent */
uint64_t charge_used(const struct charge_table *table, uid_t uid, unsigned int slot);
