/* SPDX-License-Identifier: Apache-2.0 */
/* What the server asks, and who knows
 *
 *   a module comes, gets another body, goes    loading, rejitting; the core and the host
 *   an object gets code inside                 precompiling
 *   a module gets other constants              instances
 *   names, addresses, segments of a module     host (what describe.c tells included)
 *   events and where they come from            journal, tracer
 *   figures                                    each its own
 *
 * Nothing waits here: what takes long is started and answered later (server_loaded(), server_event_added()). */
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "answers.h"
#include "describe.h"
#include "parts.h"
#include "settling.h"
#include "util/base.h"
#include "util/log.h"

/* -- Modules come and go --- */
static int op_load(void *context, uid_t uid, const char *name, bool shared, int object_fd, uint64_t n, struct server_load *load)
{
	struct tierd *tierd = context;

	return loading_start(&tierd->loading, uid, name, shared, object_fd, n, load);
}

static void op_cancel_load(void *context, struct server_load *load)
{
	struct tierd *tierd = context;

	loading_cancel(&tierd->loading, load);
	rejitting_cancel(&tierd->rejitting, load);
	precompiling_cancel(&tierd->precompiling, load);
	instances_cancel(&tierd->instances, load);
}

static enum tier_error op_find_instance(void *context, struct module *base, uid_t uid, const struct wire_instantiate *values,
					struct module **ret, char name[WIRE_NAME_MAX], char text[WIRE_TEXT_MAX])
{
	struct tierd *tierd = context;

	return instances_find(&tierd->instances, base, uid, values, ret, name, text);
}

static int op_instantiate(void *context, struct module *base, uid_t uid, const struct wire_instantiate *values,
			  struct server_load *load)
{
	struct tierd *tierd = context;

	return instances_start(&tierd->instances, base, uid, values, load);
}

static int op_precompile(void *context, uid_t uid, int object_fd, uint64_t n, struct server_load *load)
{
	struct tierd *tierd = context;

	return precompiling_start(&tierd->precompiling, uid, object_fd, n, load);
}

static int op_rejit(void *context, struct module *module, uint32_t method, const char *symbol, bool force, int object_fd, uint64_t n,
		    struct server_load *load)
{
	struct tierd *tierd = context;

	return rejitting_start(&tierd->rejitting, module, method, symbol, force, object_fd, n, load);
}

/* Clients write them at any time, and whatever they like. */
static void visits_add(struct tier_visits *sum, const struct tier_visits *visits)
{
	for (unsigned int i = 0; i < _TIER_VISIT_N; i++) {
		sum->n[i] += __atomic_load_n(&visits->n[i], __ATOMIC_RELAXED);
		sum->ns[i] += __atomic_load_n(&visits->ns[i], __ATOMIC_RELAXED);
	}
	sum->n_slot_writes += __atomic_load_n(&visits->n_slot_writes, __ATOMIC_RELAXED);
}

void answers_release(struct tierd *tierd, struct module *module)
{
	struct host *host = core_module_context(module);

	log_event(LOG_LOADER, LOG_INFO100, "module %llu is removed", (unsigned long long)host->id);
	compiling_cancel(&tierd->compiling, host->id);
	visits_add(&tierd->visits, arena_visits(host->arena));
	core_module_remove(module);
	if (host->base)
		host->base->n_instances--;
	if (tierd->checker)
		host_release(host, tierd->checker);
	else
		host_free(host);	/* the daemon ends */
}

static void op_release(void *context, struct module *module)
{
	answers_release(context, module);
}

/* -- Of a module --- */
static uint64_t op_base(void *module_context)
{
	const struct host *host = module_context;

	return host->base ? host->base->id : 0;
}

static bool op_has_instances(void *module_context)
{
	return ((const struct host *)module_context)->n_instances;
}

static int64_t op_find(void *module_context, const char *method)
{
	struct host *host = module_context;

	return symtab_find(host->symtab, method);
}

static int64_t op_slot_method(void *module_context, uint64_t cell)
{
	return host_slot_method(module_context, cell);
}

static bool op_method_name(void *module_context, uint32_t index, const char **name, uint32_t *flags)
{
	struct host *host = module_context;

	if (index >= host->image.n_methods)
		return false;
	*name = image_method_name(&host->image, index);
	*flags = host->image.methods[index].flags & IMAGE_METHOD_GLOBAL ? 1 : 0;
	return true;
}

static bool op_import_name(void *module_context, uint32_t index, const char **name, uint32_t *flags)
{
	struct host *host = module_context;

	if (index >= host->image.n_imports)
		return false;
	*name = image_import_name(&host->image, index);
	*flags = host->image.imports[index].flags & IMAGE_IMPORT_WEAK ? 1 : 0;
	return true;
}

static int op_segment_fd(void *module_context, enum tier_segment segment)
{
	struct host *host = module_context;

	return arena_client_fd(host->arena, segment);
}

/* -- Events --- */
static int op_probe_page_fd(void *context)
{
	struct tierd *tierd = context;

	return tracer_page_fd(tierd->tracer);
}

static void op_drain(void *context)
{
	struct tierd *tierd = context;

	tracer_drain(tierd->tracer);
}

static uint32_t op_kernel_sites(void *context, const char **why)
{
	struct tierd *tierd = context;

	*why = tracer_status(tierd->tracer);
	return tracer_sites(tierd->tracer);
}

static int op_events(void *context, uint64_t from, struct tier_event *events, uint32_t n_max, uint64_t *gap_last)
{
	struct tierd *tierd = context;
	uint32_t n = 0;

	switch (journal_read(tierd->journal, from, events, n_max, &n, gap_last)) {
	case JOURNAL_E_GAP:
		return SERVER_EVENTS_GAP;
	case JOURNAL_E_LATER:
		return SERVER_EVENTS_LATER;
	}
	return n;
}

static bool op_events_since(void *context, uint64_t time_ns, uint64_t *ret)
{
	struct tierd *tierd = context;

	return !journal_seek(tierd->journal, time_ns, ret);
}

static uint64_t op_newest_event(void *context)
{
	struct tierd *tierd = context;

	return journal_newest(tierd->journal);
}

/* -- Figures --- */
static void stats_of_pool(struct tierd *tierd, struct wire_stats *stats)
{
	struct pool_stats pool;

	pool_stats(tierd->pool, &pool);
	stats->n_jobs = pool.n_jobs;
	stats->n_jobs_failed = pool.n_failed;
	stats->n_workers_started = pool.n_workers_started;
	stats->n_workers_died = pool.n_workers_died;
	stats->n_workers = pool.n_workers;
	stats->n_jobs_queued = pool.n_queued;
}

static void stats_of_tracer(struct tierd *tierd, struct wire_stats *stats)
{
	struct tracer_stats tracer;

	tracer_stats(tierd->tracer, &tracer);
	stats->kernel = tracer_is_attached(tierd->tracer);
	snprintf(stats->path, sizeof(stats->path), "%s", tracer_status(tierd->tracer));
	memcpy(stats->n_kernel_events, tracer.n_events, sizeof(stats->n_kernel_events));
	stats->n_kernel_dropped = tracer.n_dropped;
	stats->n_kernel_limited = tracer.n_limited;
	stats->n_kernel_refused = tracer.n_refused;
	snprintf(stats->probe_page, sizeof(stats->probe_page), "/proc/%d/fd/%d", getpid(), tracer_page_fd(tierd->tracer));
}

static void stats_of_cache(struct tierd *tierd, struct wire_stats *stats)
{
	struct caching_figures figures;

	caching_figures(&tierd->caching, &figures);
	stats->n_cache_hits = figures.n_hits;
	stats->n_cache_misses = figures.n_misses;
	stats->n_cache_dropped = figures.cache.n_dropped;
	stats->n_cache_entries = figures.cache.n_entries;
	stats->n_cache_bytes = figures.cache.n_bytes;
}

/* What the server does not know: everything but the core's figures and the loop's. */
static void op_stats(void *context, struct wire_stats *stats)
{
	struct tierd *tierd = context;

	snprintf(stats->daemon, sizeof(stats->daemon), "tierd %s", TIER_VERSION);
	stats->pid = getpid();
	stats->uptime_ns = clock_now_ns() - tierd->start_ns;
	stats->oldest = journal_oldest(tierd->journal);
	stats->threshold = tierd->options->threshold;
	stats->delay_ns = tierd->options->delay_ns;
	stats->takeover_ns = tierd->takeover.ns;
	stats->worker_timeout_ns = tierd->options->worker_timeout_ns;
	stats_of_pool(tierd, stats);
	stats_of_cache(tierd, stats);
	stats_of_tracer(tierd, stats);
}

static void op_counters(void *context, struct wire_counters *ret)
{
	struct tierd *tierd = context;
	struct tier_visits sum = tierd->visits;
	struct module *module = NULL;

	while ((module = core_module_next(tierd->core, module))) {
		const struct host *host = core_module_context(module);

		visits_add(&sum, arena_visits(host->arena));
	}
	ret->policy = tierd->options->backpatch;
	memcpy(ret->n_visits, sum.n, sizeof(ret->n_visits));
	memcpy(ret->visit_ns, sum.ns, sizeof(ret->visit_ns));
	ret->n_client_slot_writes = sum.n_slot_writes;
}

static void op_knobs(void *context, uint64_t from, struct wire_knobs *ret)
{
	struct tierd *tierd = context;
	struct options_knob knob;

	for (uint64_t i = from; i < UINT32_MAX && options_knob(tierd->options, i, &knob); i++) {
		struct wire_knob_row *row = &ret->rows[ret->n];

		if (ret->n == WIRE_KNOBS_MAX) {
			ret->more = 1;
			return;
		}
		memcpy(row->name, knob.name, sizeof(row->name));
		memcpy(row->value, knob.value, sizeof(row->value));
		memcpy(row->standard, knob.standard, sizeof(row->standard));
		memcpy(row->range, knob.range, sizeof(row->range));
		memcpy(row->mirrors, knob.mirrors, sizeof(row->mirrors));
		ret->n++;
	}
}

const struct server_ops answers = {
	.load = op_load, .cancel_load = op_cancel_load, .rejit = op_rejit, .precompile = op_precompile, .release = op_release, .find = op_find,
	.find_instance = op_find_instance, .instantiate = op_instantiate, .base = op_base, .has_instances = op_has_instances,
	.slot_method = op_slot_method, .method_name = op_method_name, .import_name = op_import_name,
	.describe = describe_method, .related = describe_related, .insns = describe_insns, .lines = describe_lines,
	.segment_fd = op_segment_fd, .probe_page_fd = op_probe_page_fd, .drain = op_drain, .kernel_sites = op_kernel_sites,
	.events = op_events, .events_since = op_events_since, .newest_event = op_newest_event, .stats = op_stats,
	.counters = op_counters, .knobs = op_knobs, .called = settling_called,
};
