/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include "util/charge.h"
#include "util/error.h"

struct charge_user {
	struct list link;
	uid_t uid;
	uint32_t n_charges;		/* the user goes with the last one */
	uint64_t used[CHARGE_SLOTS_MAX];
};

void charge_table_init(struct charge_table *table)
{
	*table = (struct charge_table){};
	for (size_t i = 0; i < CHARGE_BUCKETS; i++)
		list_init(&table->buckets[i]);
}

void charge_table_deinit(struct charge_table *table)
{
	for (size_t i = 0; i < CHARGE_BUCKETS; i++)
		assert(list_is_empty(&table->buckets[i]));
}

static struct charge_user *charge_find(const struct charge_table *table, uid_t uid)
{
	const struct list *head = &table->buckets[uid % CHARGE_BUCKETS];
	struct list *pos;

	list_for_each(pos, head) {
		struct charge_user *user = list_entry(pos, struct charge_user, link);

		if (user->uid == uid)
			return user;
	}
	return NULL;
}

static struct charge_user *charge_user_new(struct charge_table *table, uid_t uid)
{
	struct charge_user *user = calloc(1, sizeof(*user));

	if (!user)
		return NULL;
	user->uid = uid;
	list_append(&table->buckets[uid % CHARGE_BUCKETS], &user->link);
	return user;
}

int charge_take(struct charge_table *table, struct charge *charge, uid_t uid, unsigned int slot, uint64_t n)
{
	struct charge_user *user = charge_find(table, uid);
	uint64_t used = user ? user->used[slot] : 0;

	assert(!charge->user && slot < CHARGE_SLOTS_MAX);
	if (n > table->limits[slot] || used > table->limits[slot] - n)
		return CHARGE_E_QUOTA;
	if (!user)
		user = charge_user_new(table, uid);
	if (!user)
		return error_origin(-ENOMEM);
	user->used[slot] += n;
	user->n_charges++;
	*charge = (struct charge){ .user = user, .slot = slot, .n = n };
	return 0;
}

void charge_deinit(struct charge *charge)
{
	struct charge_user *user = charge->user;

	if (!user)
		return;
	user->used[charge->slot] -= charge->n;
	*charge = (struct charge)CHARGE_NULL;
	if (--user->n_charges)
		return;
	list_remove(&user->link);
	free(user);
}

uint64_t charge_used(const struct charge_table *table, uid_t uid, unsigned int slot)
{
	const struct charge_user *user = charge_find(table, uid);

	return user ? user->used[slot] : 0;
}
