/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include "tiering/internal.h"
#include "util/error.h"

/* The core's own life: birth (from nothing or from a predecessor's ledger), the timer, the bells.
 *
 * One timer serves everything that waits: the ticks of each uid's delay, the sweep, jobs that could not start, and work that
 * was cut into slices (which asks for a deadline that is already over). */

#define DEADLINE_NOW 1u		/* long past: the timer fires in the next turn of the loop */

DEFINE_CLEANUP(struct core *, core_free)

static void core_configure(struct core *core, const struct core_config *config)
{
	static const struct entry_policy *const policies[_TIER_BACKPATCH_N] = {
		[TIER_BACKPATCH_LAZY] = &entry_lazy,
		[TIER_BACKPATCH_EAGER] = &entry_eager,
		[TIER_BACKPATCH_FORWARDER] = &entry_forwarder,
	};

	core->config = *config;
	core->config.threshold = MAX(config->threshold, 1u);
	core->config.threshold = MIN(core->config.threshold, 65535u);
	core->config.jobs_per_uid = MAX(config->jobs_per_uid, 1u);
	core->config.jobs_total = MAX(config->jobs_total, 1u);
	core->policy = policies[config->backpatch];
	core->config.sweep_ns = config->sweep_ns ? config->sweep_ns : 1000000000u;
	core->share[ROWS_VERSIONS] = core->share[ROWS_PROMISED] = SHARE_VERSIONS;
	core->share[ROWS_EDGES] = SHARE_EDGES;
	core->share[ROWS_SLOTS] = SHARE_SLOTS;
	core->n_method_slots_max = SHARE_METHOD_SLOTS;
}

/* Events before the first one were told long ago: should a daemon die here, its successor finds a ledger without a past. Each
 * module and each version had an event at least, so that number is above all of theirs, too. */
static void core_number(struct core *core)
{
	struct ledger *ledger = &core->ledger;

	if (ledger->global->sequence || core->config.first_sequence <= 1)
		return;
	ledger_set_delivered(ledger, core->config.first_sequence - 1);
	ledger_begin(ledger);
	ledger->edited->sequence = core->config.first_sequence - 1;
	ledger->edited->next_module = MAX(ledger->edited->next_module, core->config.first_sequence);
	ledger->edited->next_version = MAX(ledger->edited->next_version, core->config.first_sequence);
	ledger_commit(ledger);
}

static struct core_policy core_configured(const struct core *core)
{
	return (struct core_policy){ core->config.backpatch, core->config.counting_in_prestub };
}

/* Once more should a daemon die here: its successor is one, too. */
static void core_take_over(struct core *core)
{
	struct ledger *ledger = &core->ledger;
	const struct core_policy policy = core_configured(core);

	core->predecessor = policy;
	if (ledger->is_inherited && ledger->global->has_policy)
		core->predecessor = (struct core_policy){
			MIN(ledger->global->backpatch, _TIER_BACKPATCH_N - 1u), ledger->global->counting_in_prestub,
		};
	ledger_begin(ledger);
	ledger->edited->n_takeovers += ledger->is_inherited;
	ledger->edited->has_policy = true;
	ledger->edited->backpatch = policy.backpatch;
	ledger->edited->counting_in_prestub = policy.counting_in_prestub;
	ledger_commit(ledger);
}

int core_new(struct core **ret, const struct core_config *config, const struct core_ops *ops, void *context, void *memory,
	     size_t n_memory)
{
	_cleanup_(core_freep) struct core *core = NULL;
	int r;

	core = calloc(1, sizeof(*core));
	if (!core)
		return error_origin(-ENOMEM);
	core_configure(core, config);
	core->ops = ops;
	core->context = context;
	for (unsigned int i = 0; i < CORE_NAME_BUCKETS; i++)
		list_init(&core->names[i]);
	list_init(&core->gone);
	list_init(&core->users);
	list_init(&core->delaying);
	list_init(&core->installing);
	list_init(&core->sweeping);
	list_init(&core->freezing);
	list_init(&core->jobs);
	list_init(&core->lost);
	list_init(&core->batches);
	core->held = calloc(LEDGER_VERSIONS_MAX, sizeof(*core->held));
	core->recorded = calloc(LEDGER_SLOTS_MAX, sizeof(*core->recorded));
	if (!core->held || !core->recorded)
		return error_origin(-ENOMEM);
	r = ledger_open(&core->ledger, memory, n_memory);
	if (r)
		return error_fold(r);
	core_number(core);
	core_take_over(core);
	r = core_recover(core);
	if (r)
		return error_fold(r);
	*ret = TAKE_PTR(core);
	return 0;
}

struct core *core_free(struct core *core)
{
	struct list *link;

	if (!core)
		return NULL;
	queue_forget_jobs(core, NULL);
	slot_forget_sites(core, NULL);
	for (uint32_t i = 0; i < core->n_modules; i++)
		module_free(core->modules[i]);
	while ((link = list_first(&core->gone)))
		module_free(list_entry(link, struct module, gone_link));
	while ((link = list_first(&core->users)))
		user_free(list_entry(link, struct user, link));
	free(core->held);
	free(core->recorded);
	free(core);
	return NULL;
}

/* -- Bells --- */
struct tier_event *core_event(struct core *core, enum tier_event_kind kind, uid_t uid)
{
	struct tier_event *event = ledger_event(&core->ledger);

	event->time_ns = core->ops->wall(core->context);
	event->method = UINT32_MAX;
	event->uid = uid;
	event->kind = kind;
	event->from = event->to = TIER_LEVEL_NONE;
	return event;
}

/* ops->changed() may ask core_answer(), which may find a threshold and come back here: so each event is told once by
 * the heap's count, and the ledger's mark follows when all that depends on it is done. */
void core_ring(struct core *core, struct module *module, uint32_t method)
{
	while (core->n_told < core->ledger.global->sequence)
		core->ops->event(core->context, ledger_event_at(&core->ledger, ++core->n_told));
	if (module)
		core->ops->changed(core->context, module, method);
	ledger_set_delivered(&core->ledger, core->n_told);
}

/* -- Time --- */
static uint64_t core_deadline(const struct core *core)
{
	const uint64_t deadlines[] = { delay_deadline(core), core->sweep_deadline_ns, core->retry_ns };
	uint64_t first = 0;

	if (core->is_busy)
		return DEADLINE_NOW;
	for (unsigned int i = 0; i < ARRAY_SIZE(deadlines); i++)
		if (deadlines[i] && (!first || deadlines[i] < first))
			first = deadlines[i];
	return first;
}

void core_arm(struct core *core)
{
	uint64_t deadline = core_deadline(core);

	if (deadline == core->armed_ns)
		return;
	core->armed_ns = deadline;
	core->ops->arm(core->context, deadline);
}

void core_proceed(struct core *core)
{
	/* from a bell of a job that is just being started: that loop goes on, and keeps the order of jobs */
	if (core->is_proceeding)
		return;
	core->is_proceeding = true;
	queue_run(core);
	core->is_proceeding = false;
	core_arm(core);
}

void core_tick(struct core *core)
{
	uint64_t now = core->ops->now(core->context);
	int budget = SLICE_BUDGET;

	core->armed_ns = 0;
	core->is_busy = false;
	delay_tick(core, now);
	delay_install(core, &budget);
	count_tick(core, now);
	queue_tick(core, now);
	freeze_tick(core, &budget);
	count_sweep(core, &budget);
	slot_install(core, &budget);
	budget = MAX(budget, SLICE_BUDGET / 4);
	module_forget(core, &budget);
	core_proceed(core);
}

/* -- Questions --- */
void core_stats(const struct core *core, struct core_stats *ret)
{
	*ret = core->stats;
	ret->n_modules = core->n_modules;
	ret->n_methods = core->n_methods;
	ret->n_versions = core->rows[ROWS_VERSIONS];
	ret->n_takeovers = core->ledger.global->n_takeovers;
	ret->sequence = core->ledger.global->sequence;
}

bool core_policy(const struct core *core, struct core_policy *ret, struct core_policy *ret_before)
{
	*ret = core_configured(core);
	*ret_before = core->predecessor;
	return ret->backpatch != ret_before->backpatch || ret->counting_in_prestub != ret_before->counting_in_prestub;
}

const struct core_counters *core_counters(const struct core *core)
{
	return &core->counters;
}
