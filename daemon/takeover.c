/* SPDX-License-Identifier: Apache-2.0 */
#include "host_kept.h"
#include "parts.h"
#include "takeover.h"
#include "util/base.h"
#include "util/log.h"

/* A daemon that dies in the middle of this leaves what the next one can take over: descriptors stay stored when they are taken, the
 * core's transactions are its own, and a module that is given up is first gone from the ledger, then from the store. */

static int take_body(void *context, uint64_t module, uint32_t body)
{
	struct tierd *tierd = context;
	char name[STORE_NAME_MAX];

	host_kept_body_name(name, module, body);
	return store_take(tierd->store, name);
}

static void remains_take(struct host_remains *remains, struct tierd *tierd, struct module *module, uint64_t id)
{
	char name[STORE_NAME_MAX];

	*remains = (struct host_remains){ .core = tierd->core, .module = module, .take_body = take_body, .context = tierd };
	for (int i = 0; i < _TIER_SEGMENT_N; i++) {
		host_kept_name(name, id, host_kept_segment(i));
		remains->fds[i] = store_take(tierd->store, name);
	}
	host_kept_name(name, id, "host");
	remains->host_fd = store_take(tierd->store, name);
}

/* -- What cannot be taken over --- */
/* Names of bodies that were taken: what was not goes with the rest. */
static void forget_bodies(struct tierd *tierd, const struct module *module, const struct core_module_info *info)
{
	for (uint32_t method = 0; method < info->layout.n_methods; method++) {
		struct core_version_info version = { .id = 0 };
		const uint32_t body = core_method_body(module, method);

		if (body)
			host_unkeep_body(tierd->store, NULL, info->id, body);
		while (core_version_below(module, method, version.id, &version))
			if (version.body && version.body != body)
				host_unkeep_body(tierd->store, NULL, info->id, version.body);
	}
}

static void module_lose(struct tierd *tierd, struct module *module, const struct core_module_info *info, const char *why)
{
	struct host lost = { .id = info->id, .store = tierd->store };

	log_line(LOG_ERROR, "module %llu '%s' of uid %u is lost: it cannot be taken over: %s", (unsigned long long)info->id, info->name,
		 info->uid, why);
	forget_bodies(tierd, module, info);
	core_module_remove(module);
	host_unkeep(&lost);
}

/* -- What can --- */
static void module_take(struct tierd *tierd, struct module *module, const struct core_module_info *info, struct host *host)
{
	struct arena *arena = host->arena;

	host->store = tierd->store;
	loading_charge_again(&tierd->loading, host, info->uid);
	if (host->base)
		host->base->n_instances++;
	core_module_attach(module, arena_header(arena), arena_record(arena, 0), arena_counters(arena), host);
	tierd->takeover.n_modules++;
	tierd->takeover.n_methods += info->layout.n_methods;
}

/* -errno: nothing is lost, but nothing can be taken over now. A module is not given up for what may be there the next time; to try
 * in vain costs a start. */
static int takeover_module(struct tierd *tierd, struct module *module)
{
	struct host_remains remains;
	struct core_module_info info;
	struct refusal refusal;
	struct host *host;
	int r;

	core_module_info(module, &info);
	remains_take(&remains, tierd, module, info.id);
	r = host_restore(&host, &remains, &refusal);
	if (!r) {
		module_take(tierd, module, &info, host);
		return 0;
	}
	if (r < 0) {
		log_line(LOG_ERROR, "module %llu '%s' of uid %u cannot be taken over now: %s", (unsigned long long)info.id, info.name,
			 info.uid, refusal.text);
		return r;
	}
	tierd->takeover.n_lost++;
	module_lose(tierd, module, &info, refusal.text);
	return 0;
}

int takeover_modules(struct tierd *tierd)
{
	const uint64_t begin = clock_now_ns();
	struct takeover *takeover = &tierd->takeover;
	struct module *module, *next;
	int r;

	for (module = core_module_next(tierd->core, NULL); module; module = next) {
		next = core_module_next(tierd->core, module);
		r = takeover_module(tierd, module);
		if (r)
			return r;
	}
	log_line(LOG_INFO, "taken over from a predecessor: %u modules with %llu methods in %.1f ms; %u were lost", takeover->n_modules,
		 (unsigned long long)takeover->n_methods, (clock_now_ns() - begin) / 1e6, takeover->n_lost);
	return 0;
}
