/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "bytecode/verify.h"
#include "host_kept.h"
#include "loading.h"
#include "rejitting.h"
#include "tier/wire.h"
#include "util/base.h"
#include "util/error.h"
#include "util/log.h"

struct rejit {
	struct rejitting *rejitting;
	struct list link;	/* rejitting.rejits */
	struct server_load *answer_to;
	struct pool_job *job;
	struct task task;
	uint64_t module;
	uint32_t method;
	uid_t uid;		/* the module's */
	bool force, is_canceled;
	bool is_replacing;	/* all is there; inliners may take it some turns */
	char symbol[WIRE_METHOD_NAME_MAX];	/* "": the method's name */
	const struct host *host;	/* the task thread's, while it runs; perhaps gone afterwards */
	void *bytes;			/* the object's image */
	size_t n_bytes;
	struct image source;
	uint32_t source_method;
	struct host_body *body;
	enum tier_error error;
	struct refusal refusal;
};

_Static_assert(WIRE_METHOD_NAME_MAX > IMAGE_NAME_MAX, "every name fits");

static void rejit_log(const struct rejit *rejit, const struct module *module)
{
	if (module)
		log_event(LOG_LOADER, LOG_INFO100, "module %llu method %u has a new body: %u instructions", (unsigned long long)rejit->module,
			  rejit->method, rejit->source.methods[rejit->source_method].n_insns);
	else
		log_event(LOG_LOADER, LOG_INFO100, "module %llu method %u keeps its body: %s: %s", (unsigned long long)rejit->module,
			  rejit->method, tier_error_name(rejit->error), rejit->refusal.text);
}

static void rejit_end(struct rejit *rejit, struct module *module)
{
	rejit_log(rejit, module);
	list_remove(&rejit->link);
	server_loaded(rejit->answer_to, module, rejit->error, rejit->refusal.text);
	if (rejit->body && rejit->body->is_kept)	/* the one before, or one that did not come to be the method's */
		host_unkeep_body(rejit->rejitting->store, rejit->rejitting->checker, rejit->module, rejit->body->id);
	host_body_free(rejit->body);
	free(rejit->bytes);
	free(rejit);
}

static void rejit_fail(struct rejit *rejit, enum tier_error error, const char *text)
{
	rejit->error = error;
	refuse(&rejit->refusal, "%s", text);
	rejit_end(rejit, NULL);
}

/* -- In the checker thread: nobody else touches the rejit meanwhile, and of the host only what never changes is read --- */
static void rejit_fill(struct task *task)
{
	struct rejit *rejit = container_of(task, struct rejit, task);

	host_body_fill(rejit->body, &rejit->source, rejit->source_method);
}

/* The core knows nothing of the body yet; the host's own are not looked at. */
static void rejit_keep(struct task *task)
{
	struct rejit *rejit = container_of(task, struct rejit, task);

	host_keep_body(rejit->host, rejit->method, rejit->body, rejit->bytes, rejit->n_bytes, rejit->source_method);
}

static void rejit_pause(struct task *task) { }

static enum tier_error rejit_find(struct rejit *rejit)
{
	const char *symbol = *rejit->symbol ? rejit->symbol : image_method_name(&rejit->host->image, rejit->method);
	int64_t found = image_find_method(&rejit->source, symbol);

	rejit->source_method = found;
	if (found >= 0)
		return TIER_ERROR_NONE;
	refuse(&rejit->refusal, "the object has no function '%s'", symbol);
	return TIER_ERROR_NO_METHOD;
}

static void rejit_bind(struct task *task)
{
	struct rejit *rejit = container_of(task, struct rejit, task);

	rejit->error = TIER_ERROR_BAD_MODULE;
	if (!image_check(rejit->bytes, rejit->n_bytes, &rejit->source, &rejit->refusal)
	    || !verify_image(&rejit->source, &rejit->refusal))
		return;
	rejit->error = rejit_find(rejit);
	if (!rejit->error)
		rejit->error = host_bind(&rejit->body, rejit->host, rejit->method, &rejit->source, rejit->source_method, rejit->force,
					 &rejit->refusal);
}

/* -- Back in the loop --- */
_Static_assert(LOADING_MEMORY_PER_UID == 1ull << 30, "as the sentence below says");

static enum tier_error rejit_refuse_full(struct rejit *rejit)
{
	const struct bound_body *bound = &rejit->body->bound;

	refuse(&rejit->refusal, "the module's code segment has no room for a body of %u instructions and %u bytes of .rodata",
	       bound->n_insns, bound->n_rodata);
	return TIER_ERROR_CODE_FULL;
}

/* What it takes is there before anything changes: NONE, or the error with its sentence. */
static enum tier_error rejit_prepare(struct rejit *rejit, struct host *host)
{
	struct host_body *body = rejit->body;
	int r;

	r = loading_charge_body(rejit->rejitting->charges, body, rejit->uid);
	if (r == CHARGE_E_QUOTA) {
		refuse(&rejit->refusal, "with this body the user's modules would take more than 1 GiB of memory");
		return TIER_ERROR_QUOTA;
	}
	if (!r)
		r = host_bodies_reserve(host);
	if (r) {
		refuse(&rejit->refusal, "out of memory");
		return TIER_ERROR_NO_MEMORY;
	}
	return host_body_reserve(host, body, &rejit->source) ? rejit_refuse_full(rejit) : TIER_ERROR_NONE;
}

static enum tier_error rejit_compile(struct rejit *rejit, struct host *host)
{
	switch (host_body_compile(host, rejit->body)) {
	case 0:
		return TIER_ERROR_NONE;
	case CORE_E_FULL:
		return rejit_refuse_full(rejit);
	default:
		refuse(&rejit->refusal, "out of memory");
		return TIER_ERROR_NO_MEMORY;
	}
}

static enum tier_error rejit_refuse(struct rejit *rejit, int r)
{
	if (r == CORE_E_QUOTA) {
		refuse(&rejit->refusal, "the ledger has no room for another body's versions, or this user's share of it is used up");
		return TIER_ERROR_QUOTA;
	}
	refuse(&rejit->refusal, "%s", r == -ENOMEM ? "out of memory" : "internal error");
	return r == -ENOMEM ? TIER_ERROR_NO_MEMORY : TIER_ERROR_INTERNAL;
}

/* One that was asked for earlier is still on its way: replacements of a method end in order. */
static bool rejit_is_behind(const struct rejit *rejit)
{
	struct list *pos;

	for (pos = rejit->link.previous; pos != &rejit->rejitting->rejits; pos = pos->previous) {
		const struct rejit *earlier = list_entry(pos, struct rejit, link);

		if (earlier->is_replacing && earlier->module == rejit->module && earlier->method == rejit->method)
			return true;
	}
	return false;
}

/* As core_rejit(). The core asks for the new body as soon as it knows of it; while the core declines, the old one is in its place. */
static int rejit_replace(struct rejit *rejit, struct module *module, struct host *host)
{
	const uint32_t id = rejit->body->id;
	int r;

	rejit->body = host_body_exchange(host, rejit->method, rejit->body);
	r = core_rejit(module, rejit->method, id);
	if (r)
		rejit->body = host_body_exchange(host, rejit->method, rejit->body);
	return r;
}

/* Whether it goes on, with *ret; else it has ended. */
static bool rejit_resume(struct rejit *rejit, struct module **ret)
{
	*ret = NULL;
	if (!rejit->task.ran)
		rejit_fail(rejit, TIER_ERROR_CANCELED, "the daemon ends");
	else if (rejit->is_canceled)
		rejit_fail(rejit, TIER_ERROR_CANCELED, "nobody waits for it");
	else if (rejit->error)
		rejit_end(rejit, NULL);
	else if (!(*ret = core_module_by_id(rejit->rejitting->core, rejit->module)))
		rejit_fail(rejit, TIER_ERROR_NO_MODULE, "the module was unloaded meanwhile");
	return *ret;
}

static void rejit_compiled(struct task *task)
{
	struct rejit *rejit = container_of(task, struct rejit, task);
	struct module *module;
	int r;

	if (!rejit_resume(rejit, &module))
		return;
	rejit->is_replacing = true;
	r = rejit_is_behind(rejit) ? CORE_E_AGAIN : rejit_replace(rejit, module, core_module_context(module));
	if (r == CORE_E_AGAIN)
		return task_submit(rejit->rejitting->checker, &rejit->task, rejit_pause, rejit_compiled);
	rejit->error = r ? rejit_refuse(rejit, r) : TIER_ERROR_NONE;
	rejit_end(rejit, r ? NULL : module);
}

/* The code of a long body takes most of a millisecond: what comes behind it has another turn of the loop. */
static void rejit_filled(struct task *task)
{
	struct rejit *rejit = container_of(task, struct rejit, task);
	struct module *module;

	if (!rejit_resume(rejit, &module))
		return;
	rejit->error = rejit_compile(rejit, core_module_context(module));
	if (rejit->error)
		return rejit_end(rejit, NULL);
	task_submit(rejit->rejitting->checker, &rejit->task, rejit_keep, rejit_compiled);
}

static void rejit_bound(struct task *task)
{
	struct rejit *rejit = container_of(task, struct rejit, task);
	struct module *module;

	if (!rejit_resume(rejit, &module))
		return;
	rejit->error = rejit_prepare(rejit, core_module_context(module));
	if (rejit->error)
		return rejit_end(rejit, NULL);
	task_submit(rejit->rejitting->checker, &rejit->task, rejit_fill, rejit_filled);
}

static void rejit_read(void *context, enum tier_reason reason, void *bytes, size_t n, const struct refusal *refusal)
{
	struct rejit *rejit = context;
	struct module *module = core_module_by_id(rejit->rejitting->core, rejit->module);

	rejit->job = NULL;
	if (reason == TIER_REASON_COMPILE_FAILED)	/* the worker's own word about the object */
		return rejit_fail(rejit, TIER_ERROR_BAD_MODULE, refusal->text);
	if (reason)
		return rejit_fail(rejit, TIER_ERROR_WORKER, *refusal->text ? refusal->text : tier_reason_name(reason));
	rejit->bytes = bytes;
	rejit->n_bytes = n;
	if (!module)
		return rejit_fail(rejit, TIER_ERROR_NO_MODULE, "the module was unloaded meanwhile");
	rejit->host = core_module_context(module);
	task_submit(rejit->rejitting->checker, &rejit->task, rejit_bind, rejit_bound);
}

int rejitting_start(struct rejitting *rejitting, struct module *module, uint32_t method, const char *symbol, bool force, int object_fd,
		    uint64_t n, struct server_load *answer_to)
{
	struct core_module_info info;
	struct rejit *rejit;
	int r;

	core_module_info(module, &info);
	if (method >= info.layout.n_methods)
		return TIER_ERROR_NO_METHOD;
	rejit = calloc(1, sizeof(*rejit));
	if (!rejit)
		return TIER_ERROR_NO_MEMORY;
	*rejit = (struct rejit){
		.rejitting = rejitting, .answer_to = answer_to, .module = info.id, .method = method, .uid = info.uid, .force = force,
	};
	rejit->task = (struct task)TASK_NULL(rejit->task);
	list_init(&rejit->link);
	strncpy(rejit->symbol, symbol ? symbol : "", sizeof(rejit->symbol) - 1);
	r = pool_submit(rejitting->pool, info.uid, JOB_LOAD, object_fd, n, rejit_read, rejit, &rejit->job);
	if (r) {
		free(rejit);
		log_line(LOG_WARNING, "cannot hand an object file to a worker: %s", strerrordesc_np(-r));
		return TIER_ERROR_WORKER;
	}
	list_append(&rejitting->rejits, &rejit->link);
	return TIER_ERROR_NONE;
}

/* The worker is stopped; the checker thread is not, it ends soon by itself. */
void rejitting_cancel(struct rejitting *rejitting, const struct server_load *answer_to)
{
	struct list *pos, *after;

	list_for_each_safe(pos, after, &rejitting->rejits) {
		struct rejit *rejit = list_entry(pos, struct rejit, link);

		if (rejit->answer_to != answer_to)
			continue;
		rejit->is_canceled = true;
		if (rejit->task.under_way)
			return;
		pool_cancel(rejit->job);
		rejit_fail(rejit, TIER_ERROR_CANCELED, "nobody waits for it");
		return;
	}
}

void rejitting_init(struct rejitting *rejitting)
{
	*rejitting = (struct rejitting){ .rejits = LIST_INIT(rejitting->rejits) };
}

void rejitting_stop(struct rejitting *rejitting)
{
	struct list *first;

	while ((first = list_first(&rejitting->rejits)))
		rejit_fail(list_entry(first, struct rejit, link), TIER_ERROR_CANCELED, "the daemon ends");
}
