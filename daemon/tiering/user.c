/* SPDX-License-Identifier: Apache-2.0 */
#include "tiering/internal.h"

/* A uid, from its first module to its last: it owns a delay, a queue and a place in the line for jobs. */

struct user *user_new(struct core *core, struct ledger_user *durable, uid_t uid)
{
	struct user *user = calloc(1, sizeof(*user));

	if (!user)
		return NULL;
	user->core = core;
	user->durable = durable;
	user->uid = uid;
	list_init(&user->link);
	list_init(&user->delay_link);
	list_init(&user->install_link);
	list_init(&user->uncounted);
	list_init(&user->queue);
	list_init(&user->first);
	return user;
}

struct user *user_free(struct user *user)
{
	if (!user)
		return NULL;
	list_remove(&user->link);
	list_remove(&user->delay_link);
	list_remove(&user->install_link);
	free(user);
	return NULL;
}

struct user *user_find(struct core *core, uid_t uid)
{
	struct list *pos;

	list_for_each(pos, &core->users)
		if (list_entry(pos, struct user, link)->uid == uid)
			return list_entry(pos, struct user, link);
	return NULL;
}

/* Turns are tickets, so a new one belongs at the end and only recovery ever walks further. */
void user_link(struct user *user)
{
	struct list *pos = user->core->users.previous;

	while (pos != &user->core->users && list_entry(pos, struct user, link)->durable->turn > user->durable->turn)
		pos = pos->previous;
	list_insert_before(pos->next, &user->link);
}

void user_take_turn(struct user *user)
{
	struct ledger *ledger = &user->core->ledger;

	ledger_edit(ledger, user->durable)->turn = ledger_ticket(ledger);
	list_remove(&user->link);
	list_append(&user->core->users, &user->link);
}
