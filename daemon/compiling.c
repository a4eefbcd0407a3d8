/* SPDX-License-Identifier: Apache-2.0 */
/* A promotion's way through the outside
 *
 *   core ──► compiling_start()  bodies into a memfd ──► pool ──► worker
 *   core ◄── compile_ended()    bytes into the arena ◄── pool ◄──┘
 *
 * A job outlives nobody: with its module it is cancelled, with the daemon it is forgotten. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "compiling.h"
#include "util/base.h"
#include "util/error.h"
#include "util/log.h"

#define COMPLAINT_NS 1000000000u

struct compile {
	struct compiling *compiling;
	struct list link;	/* compiling.compiles */
	struct pool_job *job;
	uint64_t module, version;
	uint32_t method;
	struct host_bodies bodies;
};

static struct compile *compile_free(struct compile *compile)
{
	list_remove(&compile->link);
	free(compile);
	return NULL;
}
DEFINE_CLEANUP(struct compile *, compile_free)

static void compile_ended(void *context, enum tier_reason reason, void *bytes, size_t n, const struct refusal *why)
{
	_cleanup_(compile_freep) struct compile *compile = context;
	_cleanup_(freep) void *owned = bytes;
	struct module *module = core_module_by_id(compile->compiling->core, compile->module);
	struct refusal refusal = { "" };
	struct core_result result = { .sites = NULL };

	if (reason)
		refusal = *why;
	else
		reason = host_place(core_module_context(module), &compile->bodies, bytes, n, &result, &refusal);
	if (reason)
		log_line(LOG_WARNING, "module %lu method %u stays on its code: %s: %s", (unsigned long)compile->module,
			 compile->method, tier_reason_name(reason), refusal.text);
	core_compile_done(compile->compiling->core, compile->module, compile->method, compile->version, reason, &result);
	free((void *)result.sites);
}

static uid_t compile_uid(const struct host *host)
{
	struct core_module_info info;

	core_module_info(host->module, &info);
	return info.uid;
}

/* A shortage is tried again, many times a second. */
static void compile_complain(struct compiling *compiling, int r)
{
	uint64_t now = clock_now_ns();

	if (compiling->complained_ns && now - compiling->complained_ns < COMPLAINT_NS)
		return;
	compiling->complained_ns = now;
	log_line(LOG_WARNING, "cannot start a compile job: %s", strerrordesc_np(-r));
}

int compiling_start(struct compiling *compiling, struct host *host, const struct core_compile *wanted)
{
	_cleanup_(compile_freep) struct compile *compile = calloc(1, sizeof(*compile));
	_cleanup_(closep) int fd = -1;
	size_t n;
	int r;

	if (!compile)
		return error_origin(-ENOMEM);
	*compile = (struct compile){ .compiling = compiling, .module = host->id, .version = wanted->version,
				     .method = wanted->method };
	list_init(&compile->link);
	list_append(&compiling->compiles, &compile->link);
	r = host_compile_job(host, wanted->method, wanted->body, wanted->level, &compile->bodies, &fd, &n);
	if (r == CORE_E_TOO_LARGE)
		return CORE_E_TOO_LARGE;
	if (!r)
		r = pool_submit(compiling->pool, compile_uid(host), JOB_COMPILE, fd, n, compile_ended, compile, &compile->job);
	if (r) {
		compile_complain(compiling, r);
		return error_fold(r);
	}
	TAKE_PTR(compile);
	return 0;
}

/* As many as there are jobs at a time at the most. */
void compiling_cancel(struct compiling *compiling, uint64_t module)
{
	struct list *pos, *after;

	list_for_each_safe(pos, after, &compiling->compiles) {
		struct compile *compile = list_entry(pos, struct compile, link);

		if (compile->module != module)
			continue;
		pool_cancel(compile->job);
		compile_free(compile);
	}
}

void compiling_init(struct compiling *compiling)
{
	*compiling = (struct compiling){ .compiles = LIST_INIT(compiling->compiles) };
}

void compiling_stop(struct compiling *compiling)
{
	struct list *first;

	while ((first = list_first(&compiling->compiles)))
		compile_free(list_entry(first, struct compile, link));
}
