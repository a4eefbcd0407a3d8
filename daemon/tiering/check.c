/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>
#include "tiering/internal.h"

/* Every invariant that can be checked from outside: the heap against the ledger, the shared records against both. Slow;
 * for unit tests and debugging. */

static const char *check_place(const struct method *method)
{
	bool is_linked = method->place != PLACE_NONE && method->place != PLACE_RUNNING;

	if (method->place != method_place_of(method))
		return "a method is in the list of its stage";
	return list_is_linked(&method->link) != is_linked ? "a method is linked where its place says" : NULL;
}

static const char *check_active(const struct method *method, uint32_t slot, uint32_t body)
{
	const struct ledger *ledger = &method_core(method)->ledger;
	const struct ledger_version *version = ledger_version(ledger, slot);

	if (version->module != method->module->id || version->body != body)
		return "the active version is one of its method's and its body's";
	if (version->state != LEDGER_LIVE || !version->code || version->level == TIER_LEVEL_OSR)
		return "the active version is live and has code, and is a rung of the ladder";
	for (uint32_t edge = version->edges; edge != LEDGER_NONE; edge = ledger_edge(ledger, edge)->next)
		if (ledger_edge(ledger, edge)->version != slot)
			return "an edge belongs to the version that names it";
	return NULL;
}

/* A body's part of the record: the current one's, or what is kept of the own */
static const char *check_body(const struct method *method, uint32_t body, uint32_t active, uint32_t next, enum tier_stage stage)
{
	const struct ledger *ledger = &method_core(method)->ledger;
	const struct ledger_version *version = ledger_version(ledger, next);
	const bool is_made = next != LEDGER_NONE;

	if ((active == LEDGER_NONE) != (stage == TIER_STAGE_COLD))
		return "who is not cold has an active version";
	if (stage != TIER_STAGE_COLD && is_made != (stage == TIER_STAGE_QUEUED || stage == TIER_STAGE_COMPILING))
		return "a version is being made while its method is pending";
	if (stage == TIER_STAGE_COLD && is_made && version->level != TIER_LEVEL_OPTIMIZED)
		return "first code that is being made is the optimizer's";
	if (is_made && stage != TIER_STAGE_COLD && version->is_begun != (stage == TIER_STAGE_COMPILING))
		return "who is compiled has begun";
	if (is_made && version->is_begun != queue_has_job(method_core(method), version->id))
		return "what has begun has a job";
	if (is_made && (version->state != LEDGER_MAKING || version->body != body))
		return "the next version is being made, for its body";
	return active == LEDGER_NONE ? NULL : check_active(method, active, body);
}

/* Whoever inlined it and may be called is in the index. */
static bool check_is_indexed(const struct method *inliner, uint32_t slot)
{
	const struct ledger *ledger = &method_core(inliner)->ledger;

	if (slot == LEDGER_NONE)
		return true;
	for (uint32_t edge = ledger_version(ledger, slot)->edges; edge != LEDGER_NONE; edge = ledger_edge(ledger, edge)->next)
		for (uint32_t i = 0; i < ledger_edge(ledger, edge)->n_methods; i++)
			if (!inline_has(&inliner->module->methods[ledger_edge(ledger, edge)->methods[i]], inliner, slot))
				return false;
	return true;
}

static const char *check_method(const struct method *method)
{
	const struct ledger_method *durable = method->durable;
	const char *broken;

	if (durable->index != method_index(method) || durable->module != method->module->id)
		return "a method's record knows whose it is";
	broken = check_body(method, durable->body, durable->active, durable->next, durable->stage);
	if (!broken && durable->body)
		broken = check_body(method, 0, durable->original_active, durable->original_next, durable->original_stage);
	if (broken)
		return broken;
	if (!durable->body && (durable->original_active != LEDGER_NONE || durable->original_next != LEDGER_NONE))
		return "nothing is kept of the own body while it is the current one";
	if (!check_is_indexed(method, durable->active) || !check_is_indexed(method, durable->original_active))
		return "inliners are found by whom they inlined";
	return NULL;
}

/* What the lists hold, counted anew */
struct check_count {
	uint32_t n_armed, n_running, n_uncounted, n_queued, n_first;
	uint32_t n_lost;	/* and OSR code that waits */
};

static void check_count_method(struct check_count *count, const struct method *method)
{
	count->n_armed += method->place == PLACE_ARMED;
	count->n_uncounted += method->place == PLACE_UNCOUNTED;
	count->n_queued += method->place == PLACE_QUEUE;
	count->n_first += method->place == PLACE_FIRST;
}

/* Its rows of the shared tables; the promise is the stage's. */
static void check_count_rows(uint32_t rows[_ROWS_N], const struct method *method)
{
	const struct ledger *ledger = &method_core(method)->ledger;
	const struct ledger_method *durable = method->durable;

	rows[ROWS_PROMISED] += method->promised;
	for (uint32_t slot = durable ? durable->slots : LEDGER_NONE; slot != LEDGER_NONE; slot = ledger_slot(ledger, slot)->next)
		rows[ROWS_SLOTS]++;
	for (uint32_t row = durable ? durable->chain : LEDGER_NONE; row != LEDGER_NONE; row = ledger_version(ledger, row)->older) {
		rows[ROWS_VERSIONS]++;
		for (uint32_t edge = ledger_version(ledger, row)->edges; edge != LEDGER_NONE; edge = ledger_edge(ledger, edge)->next)
			rows[ROWS_EDGES]++;
	}
}

static void check_add_rows(uint32_t rows[_ROWS_N], const struct module *module)
{
	for (int kind = 0; kind < _ROWS_N; kind++)
		rows[kind] += module->rows[kind];
}

static const char *check_rows(const struct core *core)
{
	uint32_t rows[_ROWS_N], all[_ROWS_N] = { 0 };
	const struct list *pos;

	for (uint32_t i = 0; i < core->n_modules; i++) {
		const struct module *module = core->modules[i];

		memset(rows, 0, sizeof(rows));
		for (uint32_t k = 0; k < module->n_methods; k++)
			check_count_rows(rows, &module->methods[k]);
		if (memcmp(rows, module->rows, sizeof(rows)))
			return "a module counts its rows";
		check_add_rows(all, module);
	}
	list_for_each(pos, &core->gone)
		check_add_rows(all, list_entry(pos, struct module, gone_link));
	if (memcmp(all, core->rows, sizeof(all)))
		return "the core counts all modules' rows";
	list_for_each(pos, &core->users) {
		const struct user *user = list_entry(pos, struct user, link);

		memset(rows, 0, sizeof(rows));
		for (uint32_t i = 0; i < core->n_modules; i++)
			if (core->modules[i]->user == user)
				check_add_rows(rows, core->modules[i]);
		if (memcmp(rows, user->rows, sizeof(rows)))
			return "a user has the rows of its modules";
	}
	return NULL;
}

static uint32_t check_count_jobs(const struct list *jobs, const struct module *module, uint32_t *n_osr)
{
	const struct list *pos;
	uint32_t n = 0;

	list_for_each(pos, jobs) {
		const struct job *job = list_entry(pos, struct job, link);

		n += job->module == module;
		*n_osr += job->module == module && job->osr;
	}
	return n;
}

static const char *check_module(struct check_count *count, const struct module *module)
{
	uint32_t n_osr, n_osr_jobs = 0, n_osr_of_methods = 0;
	const uint32_t n_before = count->n_queued + count->n_first;
	const uint32_t n_jobs = check_count_jobs(&module->core->jobs, module, &n_osr_jobs);
	const uint32_t n_lost = check_count_jobs(&module->core->lost, module, &n_osr_jobs);
	const char *broken = osr_check(module, &n_osr);

	if (broken)
		return broken;

	for (uint32_t i = 0; i < module->n_methods; i++) {
		const struct method *method = &module->methods[i];

		broken = check_place(method);
		if (!broken && method->durable)
			broken = check_method(method);
		if (!broken && module->records)
			broken = entry_check(method, UINT32_MAX);
		if (!broken && !list_is_linked(&module->freeze_link) && method->is_frozen != freeze_holds(method))
			broken = "a method that waits says whether its module is frozen";
		if (broken)
			return broken;
		check_count_method(count, method);
		n_osr_of_methods += method->n_osr;
	}
	if (n_osr_of_methods != n_osr + n_osr_jobs)
		return "methods count the OSR code that is on its way";
	count->n_running += n_jobs;
	count->n_lost += n_lost + n_osr;
	if (n_jobs + n_lost != module->n_compiling)
		return "a module counts what is compiled of it";
	if (count->n_queued + count->n_first - n_before + n_jobs + n_lost + n_osr != module->n_pending)
		return "a module counts its pending methods and jobs";
	return NULL;
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

/* A module stands in its user's queue by the first that waits, while it is not frozen. */
static bool check_queue(const struct user *user, uint32_t *n)
{
	const struct core *core = user->core;
	const struct list *pos;
	uint32_t n_linked = 0, n_waiting = 0;
	uint64_t last = 0;

	list_for_each(pos, &user->queue) {
		const struct module *module = list_entry(pos, struct module, queue_link);

		if (module->user != user || module->queue_ticket <= last || queue_first_ticket(module) != module->queue_ticket)
			return false;
		last = module->queue_ticket;
		n_linked++;
	}
	for (uint32_t i = 0; i < core->n_modules; i++) {
		const struct module *module = core->modules[i];

		if (module->user != user)
			continue;
		n_waiting += queue_first_ticket(module) != UINT64_MAX;
		if (!check_order(&module->queue, n))
			return false;
	}
	return n_linked == n_waiting;
}

static const char *check_users(const struct core *core, const struct check_count *count)
{
	uint32_t n_uncounted = 0, n_queued = 0, n_first = 0, n_pending = 0, n_running = 0;
	const struct list *pos;
	uint64_t turn = 0;

	list_for_each(pos, &core->users) {
		const struct user *user = list_entry(pos, struct user, link);

		if (!check_order(&user->uncounted, &n_uncounted) || !check_queue(user, &n_queued)
		    || !check_order(&user->first, &n_first))
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
	if (n_uncounted != count->n_uncounted || n_queued != count->n_queued || n_first != count->n_first)
		return "a user's lists hold what its methods' places say";
	if (n_pending != count->n_queued + count->n_first + count->n_running + count->n_lost || n_running != count->n_running)
		return "users count their methods";
	return NULL;
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
	if (count.n_armed != core->n_armed
	    || count.n_queued + count.n_first + count.n_running + count.n_lost != core->n_pending
	    || count.n_running != core->n_running)
		return "the core counts its methods";
	if (!core->n_armed != !core->sweep_deadline_ns)
		return "the sweep's timer runs while anything is armed";
	if (core->n_running > core->config.jobs_total)
		return "so many jobs at a time";
	broken = check_rows(core);
	if (broken)
		return broken;
	if (core->ledger.edited || core->n_told != core->ledger.global->sequence
	    || ledger_delivered(&core->ledger) != core->n_told)
		return "between transitions everything is committed and told";
	return check_users(core, &count);
}
