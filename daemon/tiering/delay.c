/* SPDX-License-Identifier: Apache-2.0 */
#include "tiering/internal.h"

/* The call-counting delay, one per uid (reference §3.5)
 *
 * While new code keeps appearing, nothing is counted: methods that got their first code wait in user->uncounted. The
 * delay ticks; a tick after which no first call came ends it, any other begins the next period. Only genuine first calls
 * extend it, so the quiet time before counting is one to two periods.
 *
 * The end is one transaction: it raises batch_end above all tickets given out so far. Methods below it begin to count,
 * in order and in slices; methods above it belong to a delay that began since. So a new delay need not wait for the
 * old one's batch, and does not hold it up. */

bool delay_is_used(const struct core *core)
{
	return core->config.call_counting && core->config.delay_ns;
}

void delay_note_first_call(struct user *user)
{
	struct core *core = user->core;
	struct ledger_user *image = ledger_edit(&core->ledger, user->durable);

	if (image->deadline_ns) {
		image->is_extended = true;
		return;
	}
	image->deadline_ns = core->ops->now(core->context) + core->config.delay_ns;
	image->is_extended = false;
	core_event(core, TIER_EVENT_DELAY_PAUSED, user->uid)->reason = TIER_REASON_FIRST_CALL;
	core->stats.n_delays++;
}

/* -- Lists --- */
/* The next method of the batch, or NULL: none, or its module must be attached first. */
static struct method *delay_next(struct user *user)
{
	struct list *link = list_first(&user->uncounted);
	struct method *method = link ? list_entry(link, struct method, link) : NULL;

	return method && method->durable->ticket < user->durable->batch_end && method->module->records ? method : NULL;
}

/* Deadlines grow as delays begin; only recovery with another period walks further than one step. */
static void delay_link_deadline(struct user *user)
{
	struct list *pos = user->core->delaying.previous;

	while (pos != &user->core->delaying
	       && list_entry(pos, struct user, delay_link)->durable->deadline_ns > user->durable->deadline_ns)
		pos = pos->previous;
	list_insert_before(pos->next, &user->delay_link);
}

void delay_link(struct user *user)
{
	list_remove(&user->delay_link);
	if (user->durable->deadline_ns)
		delay_link_deadline(user);
	if (delay_next(user) && !list_is_linked(&user->install_link))
		list_append(&user->core->installing, &user->install_link);
}

/* No transaction: whoever finds it shortens it, if need be, once more. */
void delay_recover(struct user *user)
{
	const struct core *core = user->core;
	const uint64_t latest = core->ops->now(core->context) + MAX(core->config.delay_ns, 1u);

	if (user->durable->deadline_ns > latest)
		user->durable->deadline_ns = latest;
	delay_link(user);
}

uint64_t delay_deadline(const struct core *core)
{
	return list_is_empty(&core->delaying) ? 0 : list_entry(core->delaying.next, struct user, delay_link)->durable->deadline_ns;
}

/* -- Ticks --- */
static void delay_tick_user(struct user *user, uint64_t now)
{
	struct core *core = user->core;
	struct ledger *ledger = &core->ledger;
	struct ledger_user *image;

	ledger_begin(ledger);
	image = ledger_edit(ledger, user->durable);
	if (image->is_extended) {
		image->is_extended = false;
		image->deadline_ns = now + MAX(core->config.delay_ns, 1u);
	} else {
		image->deadline_ns = 0;
		image->batch_end = ledger->edited->next_ticket;
		core_event(core, TIER_EVENT_DELAY_RESUMED, user->uid)->reason = TIER_REASON_DELAY_ENDED;
	}
	ledger_commit(ledger);
	delay_link(user);
	core_ring(core, NULL, 0);
}

void delay_tick(struct core *core, uint64_t now)
{
	uint64_t deadline;

	while ((deadline = delay_deadline(core)) && deadline <= now)
		delay_tick_user(list_entry(core->delaying.next, struct user, delay_link), now);
}

/* The batches: a method of each user in turn, so that one user's thousands do not hold up another's ten. */
void delay_install(struct core *core, int *budget)
{
	uint64_t n_before;
	struct list *link;

	while ((link = list_first(&core->installing))) {
		struct user *user = list_entry(link, struct user, install_link);
		struct method *method = delay_next(user);

		if (method && *budget <= 0) {
			core->is_busy = true;
			return;
		}
		list_remove(link);
		if (!method)
			continue;
		n_before = core->counters.n_slots_examined;
		count_begin(method);
		*budget -= slice_transition(core, n_before);
		delay_link(user);
	}
}
