/* SPDX-License-Identifier: Apache-2.0 */
/* A promotion's way through the outside
 *
 *   core ──► compiling_start()  bodies into a memfd ──► pool ──► worker
 *   core ◄── compile_ended()    bytes into the arena ◄── pool ◄──┘
 *
 * Final code may lie in the cache: then its thread comes before the pool, and instead of it when it finds some (caching.h).
 *
 *   core ──► compiling_start()  Tier0Instrumented ──► the loop's next turn
 *   core ◄── compiling_turn()   tier 0 that counts ◄──────────┘
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
#define AGAIN_NS 100000000u	/* after a shortage */

struct compile {
	struct compiling *compiling;
	struct list link;	/* compiling.compiles, .own or .waiting: in these there is no */
	struct pool_job *job;
	uint64_t module;
	struct core_compile wanted;
	struct host_bodies bodies;
	struct lookup *lookup;	/* NULL: the cache is not asked */
	bool is_found;		/* what comes is the cache's */
};

static struct compile *compile_free(struct compile *compile)
{
	list_remove(&compile->link);
	caching_forget(compile->lookup);
	free(compile);
	return NULL;
}
DEFINE_CLEANUP(struct compile *, compile_free)

static uid_t compile_uid(const struct host *host)
{
	struct core_module_info info;

	core_module_info(host->module, &info);
	return info.uid;
}

static void compile_end(struct compile *compile, enum tier_reason reason, const struct core_result *result,
			const struct refusal *why)
{
	const struct core_compile *wanted = &compile->wanted;

	if (reason)
		log_line(LOG_WARNING, "module %lu method %u stays on its code: %s: %s", (unsigned long)compile->module, wanted->method,
			 tier_reason_name(reason), why->text);
	core_compile_done(compile->compiling->core, compile->module, wanted->method, wanted->version, reason, result);
}

static void compile_ended(void *context, enum tier_reason reason, void *bytes, size_t n, const struct refusal *why);

static int compile_submit_job(struct compile *compile, const struct host *host, int fd, size_t n)
{
	struct compiling *compiling = compile->compiling;
	int r;

	r = pool_submit(compiling->pool, compile_uid(host), JOB_COMPILE, fd, n, compile_ended, compile, &compile->job);
	if (r)
		return error_fold(r);
	if (compile->wanted.is_urgent)
		pool_hurry(compile->job);
	return 0;
}

/* -- What was compiled before --- */
/* A shortage is tried again, many times a second. */
static void compile_complain(struct compiling *compiling, int r)
{
	uint64_t now = clock_now_ns();

	if (compiling->complained_ns && now - compiling->complained_ns < COMPLAINT_NS)
		return;
	compiling->complained_ns = now;
	log_line(LOG_WARNING, "cannot start a compile job: %s", strerrordesc_np(-r));
}

/* To the pool with what the cache did not have. For the core the job has begun, so a shortage, which is the whole daemon's and
 * passes, is sat out here: true. */
static bool compile_go_on(struct compile *compile)
{
	struct compiling *compiling = compile->compiling;
	const struct host *host = core_module_context(core_module_by_id(compiling->core, compile->module));
	struct refusal refusal;
	size_t n;
	int fd = lookup_job(compile->lookup, &n);
	int r;

	r = compile_submit_job(compile, host, fd, n);
	if (!r)
		return false;
	compile_complain(compiling, r);
	if (r == -EMFILE || r == -ENFILE || r == -ENOMEM) {
		list_remove(&compile->link);
		list_append(&compiling->waiting, &compile->link);
		dispatch_timer_arm(&compiling->again, clock_now_ns() + AGAIN_NS);
		return true;
	}
	refuse(&refusal, "%s", strerrordesc_np(-r));
	compile_ended(compile, TIER_REASON_NO_WORKER, NULL, 0, &refusal);
	return false;
}

static int compiling_again(struct dispatch_timer *timer, uint64_t now_ns)
{
	struct compiling *compiling = container_of(timer, struct compiling, again);
	struct list *first;

	while ((first = list_first(&compiling->waiting))) {
		list_remove(first);
		list_append(&compiling->compiles, first);
		if (compile_go_on(list_entry(first, struct compile, link)))
			break;
	}
	return 0;
}

static void compile_looked_up(void *context, struct lookup *lookup)
{
	struct compile *compile = context;
	void *code;
	size_t n;

	code = lookup_take_code(lookup, &n);
	if (!code) {
		compile_go_on(compile);
		return;
	}
	compile->is_found = true;
	compile_ended(compile, TIER_REASON_NONE, code, n, NULL);
}

/* What the cache had is not what it should be. */
static void compile_afresh(struct compile *compile, const struct refusal *why)
{
	log_line(LOG_WARNING, "code in the cache is refused, and compiled afresh: %s", why->text);
	compile->is_found = false;
	caching_refuse(compile->lookup);
	compile_go_on(compile);
}

/* Only code that stays: what counts has cells of its own, and a loop's entry is of one patchpoint. */
static bool compile_is_cached(const struct compile *compile)
{
	const struct caching *caching = compile->compiling->caching;
	const enum tier_level level = compile->wanted.level;

	return caching && caching->thread && pool_compiler(compile->compiling->pool)
	    && (level == TIER_LEVEL_TIER1 || level == TIER_LEVEL_OPTIMIZED);
}

static int compile_look_up(struct compile *compile, const struct host *host, int fd, size_t n)
{
	struct compiling *compiling = compile->compiling;

	return error_fold(caching_look(compiling->caching, compile_uid(host), pool_compiler(compiling->pool), fd, n,
				       compile_looked_up, compile, &compile->lookup));
}

static enum tier_reason compile_place(const struct compile *compile, const void *bytes, size_t n, struct core_result *ret,
				      struct refusal *refusal)
{
	struct host *host = core_module_context(core_module_by_id(compile->compiling->core, compile->module));

	if (compile->wanted.level != TIER_LEVEL_OSR || host_has_room_beside(host))
		return host_place(host, &compile->bodies, bytes, n, ret, refusal);
	refuse(refusal, "what is left of the module's code segment is for promotions");
	return TIER_REASON_ARENA_FULL;
}

static void compile_ended(void *context, enum tier_reason reason, void *bytes, size_t n, const struct refusal *why)
{
	_cleanup_(compile_freep) struct compile *compile = context;
	_cleanup_(freep) void *owned = bytes;
	struct refusal refusal = { "" };
	struct core_result result = { .sites = NULL };

	if (reason)
		refusal = *why;
	else
		reason = compile_place(compile, bytes, n, &result, &refusal);
	if (reason == TIER_REASON_RESULT_REFUSED && compile->is_found) {
		compile_afresh(TAKE_PTR(compile), &refusal);
		return;
	}
	compile_end(compile, reason, &result, &refusal);
	free((void *)result.sites);
	if (!reason && compile->lookup && !compile->is_found)
		caching_keep(TAKE_PTR(compile->lookup), TAKE_PTR(owned), n);
}

/* -- Tier 0 that counts --- */
/* What it was to be made of may have been replaced since it was asked for; only the method's own body is kept then. */
static enum tier_reason compile_instrument(struct compile *compile, struct core_result *ret, struct refusal *refusal)
{
	struct host *host = core_module_context(core_module_by_id(compile->compiling->core, compile->module));
	int r;

	if (!host_has_body(host, compile->wanted.method, compile->wanted.body)) {
		refuse(refusal, "it was replaced meanwhile");
		return TIER_REASON_REJIT;
	}
	r = host_instrument(host, &compile->wanted, &ret->code);
	if (r == CORE_E_FULL) {
		refuse(refusal, "the module's code segment is full");
		return TIER_REASON_ARENA_FULL;
	}
	if (r)
		refuse(refusal, "%s", strerrordesc_np(-r));
	return r ? TIER_REASON_COMPILE_FAILED : TIER_REASON_NONE;
}

/* One at a time: each takes up to most of a millisecond, and its end may start another. */
static int compiling_turn(struct dispatch_timer *timer, uint64_t now_ns)
{
	struct compiling *compiling = container_of(timer, struct compiling, turn);
	_cleanup_(compile_freep) struct compile *compile = list_entry(list_first(&compiling->own), struct compile, link);
	struct core_result result = { .n_inlined = 0 };
	struct refusal refusal = { "" };
	enum tier_reason reason;

	list_remove(&compile->link);
	if (!list_is_empty(&compiling->own))
		dispatch_timer_arm(timer, now_ns);
	reason = compile_instrument(compile, &result, &refusal);
	compile_end(compile, reason, &result, &refusal);
	return 0;
}

/* -- Beginning and end --- */
static int compile_submit(struct compile *compile, struct host *host)
{
	_cleanup_(closep) int fd = -1;
	size_t n;
	int r;

	r = host_compile_job(host, &compile->wanted, &compile->bodies, &fd, &n);
	if (r)
		return r < 0 ? error_fold(r) : r;
	if (compile_is_cached(compile))
		return compile_look_up(compile, host, fd, n);
	return compile_submit_job(compile, host, fd, n);
}

int compiling_start(struct compiling *compiling, struct host *host, const struct core_compile *wanted)
{
	_cleanup_(compile_freep) struct compile *compile = calloc(1, sizeof(*compile));
	int r = 0;

	if (!compile)
		return error_origin(-ENOMEM);
	*compile = (struct compile){ .compiling = compiling, .module = host->id, .wanted = *wanted };
	list_init(&compile->link);
	if (wanted->level == TIER_LEVEL_TIER0_INSTRUMENTED) {
		list_append(&compiling->own, &compile->link);
		dispatch_timer_arm(&compiling->turn, clock_now_ns());
	} else {
		list_append(&compiling->compiles, &compile->link);
		r = compile_submit(compile, host);
	}
	if (r == CORE_E_TOO_LARGE)
		return CORE_E_TOO_LARGE;
	if (r) {
		compile_complain(compiling, r);
		return error_fold(r);
	}
	TAKE_PTR(compile);
	return 0;
}

static void cancel_all(struct list *compiles, uint64_t module)
{
	struct list *pos, *after;

	list_for_each_safe(pos, after, compiles) {
		struct compile *compile = list_entry(pos, struct compile, link);

		if (compile->module != module)
			continue;
		if (compile->job)
			pool_cancel(compile->job);
		compile_free(compile);
	}
}

void compiling_cancel(struct compiling *compiling, uint64_t module)
{
	cancel_all(&compiling->compiles, module);
	cancel_all(&compiling->own, module);
	cancel_all(&compiling->waiting, module);
	if (list_is_empty(&compiling->own))
		dispatch_timer_disarm(&compiling->turn);
}

void compiling_init(struct compiling *compiling, struct dispatch *dispatch)
{
	*compiling = (struct compiling){
		.compiles = LIST_INIT(compiling->compiles), .own = LIST_INIT(compiling->own), .waiting = LIST_INIT(compiling->waiting),
	};
	dispatch_timer_init(&compiling->turn, dispatch, compiling_turn, "instrument");
	dispatch_timer_init(&compiling->again, dispatch, compiling_again, "compile again");
}

void compiling_stop(struct compiling *compiling)
{
	struct list *first;

	dispatch_timer_disarm(&compiling->turn);
	dispatch_timer_disarm(&compiling->again);
	while ((first = list_first(&compiling->compiles)) || (first = list_first(&compiling->own))
	       || (first = list_first(&compiling->waiting)))
		compile_free(list_entry(first, struct compile, link));
}
