/* SPDX-License-Identifier: Apache-2.0 */
#include "tiering/internal.h"

/* Every invariant that can be checked from outside: the heap against the ledger, the shared records against both. Slow;
 * for unit tests and debugging. */

static const char *check_place(const struct method *method)
{
	static const uint8_t places[_TIER_STAGE_N] = {
		[TIER_STAGE_COLD] = 1u << PLACE_NONE,
		[TIER_STAGE_UNCOUNTED] = 1u << PLACE_UNCOUNTED,
		[TIER_STAGE_COUNTING] = 1u << PLACE_ARMED,
		[TIER_STAGE_QUEUED] = 1u << PLACE_QUEUE,
		[TIER_STAGE_COMPILING] = 1u << PLACE_RUNNING | 1u << PLACE_INTERRUPTED,
		[TIER_STAGE_FINAL] = 1u << PLACE_NONE,
	};
	bool is_linked = method->place != PLACE_NONE && method->place != PLACE_RUNNING;

	if (!(places[method_stage(method)] & 1u << method->place))
		return "a method is in the list of its stage";
	return list_is_linked(&method->link) != is_linked ? "a method is linked where its place says" : NULL;
}

static const char *check_version(const struct method *method)
{
	const struct ledger_version *active = version_active(method), *newest = version_newest(method);
	enum tier_stage stage = method_stage(method);
	bool is_made = stage == TIER_STAGE_QUEUED || stage == TIER_STAGE_COMPILING;

	if (active->module != method->module->id || newest->module != method->module->id)
		return "a method's versions are its module's";
	if (active->state != LEDGER_LIVE || !active->code)
		return "the active version is live and has code";
	if (is_made != (newest->state == LEDGER_MAKING))
		return "a version is being made while its method is pending";
	if (method->durable->index != method_index(method))
		return "a method's record knows its index";
	for (uint32_t slot = active->edges; slot != LEDGER_NONE; slot = ledger_edge(&method_core(method)->ledger, slot)->next)
		if (ledger_edge(&method_core(method)->ledger, slot)->version != method->durable->active)
			return "an edge belongs to the version that names it";
	return NULL;
}

/* What the lists hold, counted anew */
struct check_count {
	uint32_t n_armed, n_pending, n_running, n_interrupted, n_uncounted, n_queued;
};

static void check_count_method(struct check_count *count, const struct method *method)
{
	count->n_armed += method->place == PLACE_ARMED;
	count->n_pending += method->place >= PLACE_QUEUE;
	count->n_running += method->place == PLACE_RUNNING;
	count->n_interrupted += method->place == PLACE_INTERRUPTED;
	count->n_uncounted += method->place == PLACE_UNCOUNTED;
	count->n_queued += method->place == PLACE_QUEUE || method->place == PLACE_INTERRUPTED;
}

static const char *check_module(struct check_count *count, const struct module *module)
{
	uint32_t n_before = count->n_pending;
	const char *broken;

	for (uint32_t i = 0; i < module->n_methods; i++) {
		const struct method *method = &module->methods[i];

		broken = check_place(method);
		if (!broken && method->durable)
			broken = check_version(method);
		if (!broken && module->records)
			broken = entry_check(method);
		if (broken)
			return broken;
		check_count_method(count, method);
	}
	return count->n_pending - n_before != module->n_pending ? "a module counts its pending methods" : NULL;
}

/* Adds the list's length to @n; false when its tickets do not grow. */
static bool check_order(const struct list *head, uint32_t *n)
{
	const struct list *pos;
	uint64_t last = 0;

	list_for_each(pos, head) {
		const struct method *method = list_entry(pos, struct method, link);

		if (method->durable->ticket <= last)
			return false;
		last = method->durable->ticket;
		++*n;
	}
	return true;
}

static const char *check_users(const struct core *core, const struct check_count *count)
{
	uint32_t n_uncounted = 0, n_queued = 0, n_pending = 0, n_running = 0;
	const struct list *pos;
	uint64_t turn = 0;

	list_for_each(pos, &core->users) {
		const struct user *user = list_entry(pos, struct user, link);

		if (!check_order(&user->uncounted, &n_uncounted) || !check_order(&user->queue, &n_queued))
			return "who came first comes first";
		if (user->durable->turn <= turn)
			return "users stand in line by their last turn";
		if (list_is_linked(&user->delay_link) != !!user->durable->deadline_ns)
			return "a delay has a deadline";
		if (!user->n_modules || user->n_running > core->config.jobs_per_uid)
			return "a user has modules and at most so many jobs";
		turn = user->durable->turn;
		n_pending += user->n_pending;
		n_running += user->n_running;
	}
	if (n_uncounted != count->n_uncounted || n_queued != count->n_queued)
		return "a user's lists hold what its methods' places say";
	return n_pending != count->n_pending || n_running != count->n_running ? "users count their methods" : NULL;
}

const char *core_check(const struct core *core)
{
	struct check_count count = { 0 };
	const char *broken;

	for (uint32_t i = 0; i < core->n_modules; i++) {
		if (i && core->modules[i - 1]->id >= core->modules[i]->id)
			return "modules stand in the order of their ids";
		broken = check_module(&count, core->modules[i]);
		if (broken)
			return broken;
	}
	if (count.n_armed != core->n_armed || count.n_pending != core->n_pending || count.n_running != core->n_running
	    || count.n_interrupted != core->n_interrupted)
		return "the core counts its methods";
	if (!core->n_armed != !core->sweep_deadline_ns)
		return "the sweep's timer runs while anything is armed";
	if (core->n_running > core->config.jobs_total)
		return "so many jobs at a time";
	if (core->ledger.edited || core->n_told != core->ledger.global->sequence
	    || ledger_delivered(&core->ledger) != core->n_told)
		return "between transitions everything is committed and told";
	return check_users(core, &count);
}
