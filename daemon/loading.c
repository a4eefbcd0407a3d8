/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>
#include "host_kept.h"
#include "loading.h"
#include "tier/wire.h"
#include "util/base.h"
#include "util/error.h"
#include "util/log.h"

struct load_under_way {
	struct loading *loading;
	struct list link;	/* loading.loads */
	struct server_load *answer_to;
	struct pool_job *job;
	struct task task;
	struct host_plan plan;
	uid_t uid;
	bool shared, is_canceled;
	char name[WIRE_NAME_MAX];
	void *bytes;		/* the image, until host_build() takes it */
	size_t n_bytes;
	struct host *host;
	enum tier_error error;
	struct refusal refusal;
};

static void load_log(const struct load_under_way *load, struct module *module)
{
	struct core_module_info info;
	const struct refusal *unfit;

	if (!module) {
		log_event(LOG_LOADER, LOG_INFO100, "module '%s' of uid %u is refused: %s: %s", load->name, load->uid,
			  tier_error_name(load->error), load->refusal.text);
		return;
	}
	core_module_info(module, &info);
	log_event(LOG_LOADER, LOG_INFO100, "module %llu '%s' of uid %u is loaded: %u methods", (unsigned long long)info.id,
		  info.name, info.uid, info.layout.n_methods);
	unfit = &((const struct host *)core_module_context(module))->unfit;
	if (*unfit->text)
		log_line(LOG_WARNING, "module %llu '%s' of uid %u: %s", (unsigned long long)info.id, info.name, info.uid, unfit->text);
}

static void load_end(struct load_under_way *load, struct module *module)
{
	load_log(load, module);
	list_remove(&load->link);
	server_loaded(load->answer_to, module, load->error, load->refusal.text);
	if (load->host)
		host_release(load->host, load->loading->checker);
	free(load->bytes);
	free(load);
}

static void load_fail(struct load_under_way *load, enum tier_error error, const char *text)
{
	load->error = error;
	refuse(&load->refusal, "%s", text);
	load_end(load, NULL);
}

/* -- For whoever builds modules --- */
struct host_plan loading_plan(struct loading *loading)
{
	struct host_plan plan = {
		.id = core_take_module_id(loading->core),
		.window = &loading->window,
		.n_code = loading->n_code,
		.config = loading->config,
		.ready_to_run = loading->ready_to_run,
	};

	if (pool_compiler(loading->pool))		/* there is a zygote once a worker has answered */
		plan.compiler = *pool_compiler(loading->pool);
	return plan;
}

/* What a module may take besides code: nobody writes its .bss here, but its clients may write to all of the counters, however
 * sparse those are. */
static uint64_t host_memory(const struct host *host, uint64_t n_bytes)
{
	const struct tier_layout *layout = arena_layout(host->arena);

	return n_bytes + layout->segment[TIER_SEGMENT_RECORDS].size + layout->segment[TIER_SEGMENT_COUNTERS].size + layout->n_data;
}

_Static_assert(LOADING_METHODS_PER_UID == 32768 && LOADING_MEMORY_PER_UID == 1ull << 30, "as the sentences below say");

static enum tier_error host_charge(struct loading *loading, struct host *host, uid_t uid, uint64_t n_bytes,
				   struct refusal *refusal)
{
	int r;

	r = charge_take(&loading->charges, &host->methods, uid, LOADING_SLOT_METHODS, host->image.n_methods);
	if (r == CHARGE_E_QUOTA) {
		refuse(refusal, "with this module the user would have more than 32768 methods");
		return TIER_ERROR_QUOTA;
	}
	if (!r)
		r = charge_take(&loading->charges, &host->memory, uid, LOADING_SLOT_MEMORY, host_memory(host, n_bytes));
	if (r == CHARGE_E_QUOTA) {
		refuse(refusal, "with this module the user's modules would take more than 1 GiB of memory");
		return TIER_ERROR_QUOTA;
	}
	if (!r)
		return TIER_ERROR_NONE;
	refuse(refusal, "out of memory");
	return TIER_ERROR_NO_MEMORY;
}

/* Of the image, or of the values that stand in its place */
static uint64_t host_bytes(const struct host *host)
{
	return host->base ? host->image.n_rodata : host->image.header->size;
}

void loading_charge_again(struct loading *loading, struct host *host, uid_t uid)
{
	struct refusal refusal;

	if (host_charge(loading, host, uid, host_bytes(host), &refusal))
		log_line(LOG_WARNING, "module %llu of uid %u goes on: %s", (unsigned long long)host->id, uid, refusal.text);
	for (uint32_t i = 0; host->bodies && i < host->image.n_methods; i++)
		if (host->bodies[i] && loading_charge_body(&loading->charges, host->bodies[i], uid))
			log_line(LOG_WARNING, "module %llu of uid %u goes on with a body that its user has no room for",
				 (unsigned long long)host->id, uid);
}

int loading_charge_body(struct charge_table *charges, struct host_body *body, uid_t uid)
{
	const uint64_t n = sizeof(*body) + body->bound.n_insns * sizeof(struct insn) + body->bound.n_rodata;

	return charge_take(charges, &body->memory, uid, LOADING_SLOT_MEMORY, n);
}

enum tier_error loading_add(struct loading *loading, struct module **ret, struct host *host, uid_t uid, const char *name,
			    bool shared, struct refusal *refusal)
{
	enum tier_error error = host_charge(loading, host, uid, host_bytes(host), refusal);
	struct arena *arena = host->arena;
	int r;

	if (error)
		return error;
	r = core_module_add(ret, loading->core, host->id, uid, name, shared, arena_layout(arena), arena_code_used(arena),
			    arena_header(arena), arena_record(arena, 0), arena_counters(arena), host);
	switch (r) {
	case 0:
		host->module = *ret;	/* the core's module owns it now; released through server_ops.release */
		return TIER_ERROR_NONE;
	case CORE_E_EXISTS:
		refuse(refusal, "a module of that name is already loaded");
		return TIER_ERROR_EXISTS;
	case CORE_E_QUOTA:
		refuse(refusal, "the daemon's ledger has no room for that many methods");
		return TIER_ERROR_QUOTA;
	default:
		refuse(refusal, "out of memory");
		return TIER_ERROR_NO_MEMORY;
	}
}

/* -- Loads --- */
/* Back in the loop: the module is built; from here on the core knows it. */
static void load_built(struct task *task)
{
	struct load_under_way *load = container_of(task, struct load_under_way, task);
	struct module *module = NULL;

	if (!task->ran)
		return load_fail(load, TIER_ERROR_CANCELED, "the daemon ends");
	if (load->error)
		return load_end(load, NULL);
	if (load->is_canceled)
		return load_fail(load, TIER_ERROR_CANCELED, "nobody waits for it");
	load->error = loading_add(load->loading, &module, load->host, load->uid, load->name, load->shared, &load->refusal);
	if (!load->error)
		load->host = NULL;
	load_end(load, module);
}

/* In the checker thread: nobody else touches the load, the window or the new host meanwhile. */
static void load_build(struct task *task)
{
	struct load_under_way *load = container_of(task, struct load_under_way, task);

	load->error = host_build(&load->host, &load->plan, TAKE_PTR(load->bytes), load->n_bytes, &load->refusal);
	if (!load->error)
		host_keep(load->host, load->loading->store);
}

static void load_read(void *context, enum tier_reason reason, void *bytes, size_t n, const struct refusal *refusal)
{
	struct load_under_way *load = context;

	if (reason == TIER_REASON_COMPILE_FAILED)	/* the worker's own word: the object is no module */
		return load_fail(load, TIER_ERROR_BAD_MODULE, refusal->text);
	if (reason)
		return load_fail(load, TIER_ERROR_WORKER, *refusal->text ? refusal->text : tier_reason_name(reason));
	load->bytes = bytes;
	load->n_bytes = n;
	load->plan = loading_plan(load->loading);
	log_event(LOG_LOADER, LOG_INFO1000, "module '%s' of uid %u: an image of %zu bytes is checked", load->name, load->uid, n);
	task_submit(load->loading->checker, &load->task, load_build, load_built);
}

int loading_start(struct loading *loading, uid_t uid, const char *name, bool shared, int object_fd, uint64_t n,
		  struct server_load *answer_to)
{
	struct load_under_way *load = calloc(1, sizeof(*load));
	int r;

	if (!load)
		return TIER_ERROR_NO_MEMORY;
	*load = (struct load_under_way){ .loading = loading, .answer_to = answer_to, .uid = uid, .shared = shared };
	load->task = (struct task)TASK_NULL(load->task);
	list_init(&load->link);
	strncpy(load->name, name, sizeof(load->name) - 1);
	r = pool_submit(loading->pool, uid, JOB_LOAD, object_fd, n, load_read, load, &load->job);
	if (r) {
		free(load);
		log_line(LOG_WARNING, "cannot hand an object file to a worker: %s", strerrordesc_np(-r));
		return TIER_ERROR_WORKER;
	}
	list_append(&loading->loads, &load->link);
	log_event(LOG_LOADER, LOG_INFO1000, "module '%s' of uid %u: an object of %llu bytes is read", name, uid,
		  (unsigned long long)n);
	return TIER_ERROR_NONE;
}

/* The worker is stopped; the checker thread is not, it ends soon by itself. */
void loading_cancel(struct loading *loading, const struct server_load *answer_to)
{
	struct list *pos, *after;

	list_for_each_safe(pos, after, &loading->loads) {
		struct load_under_way *load = list_entry(pos, struct load_under_way, link);

		if (load->answer_to != answer_to)
			continue;
		load->is_canceled = true;
		if (load->task.under_way)
			return;
		pool_cancel(load->job);
		load_fail(load, TIER_ERROR_CANCELED, "nobody waits for it");
		return;
	}
}

void loading_init(struct loading *loading)
{
	*loading = (struct loading){ .loads = LIST_INIT(loading->loads) };
	charge_table_init(&loading->charges);
	loading->charges.limits[LOADING_SLOT_METHODS] = LOADING_METHODS_PER_UID;
	loading->charges.limits[LOADING_SLOT_MEMORY] = LOADING_MEMORY_PER_UID;
}

void loading_stop(struct loading *loading)
{
	struct list *first;

	while ((first = list_first(&loading->loads)))
		load_fail(list_entry(first, struct load_under_way, link), TIER_ERROR_CANCELED, "the daemon ends");
}
