/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <errno.h>
#include <string.h>
#include "tiering/internal.h"
#include "util/error.h"

/* Modules: who is there, by id and by name; how one comes, is found again by a successor, and goes.
 *
 * A cold method has no record in the ledger, so that a module of any size arrives in one small transaction. It goes in
 * one too: without their module, the records of its methods are free slots, to a successor at once. Here they are given back
 * in slices. */

/* -- Heap --- */
struct module *module_new(struct core *core, struct ledger_module *durable, uint64_t id, const struct tier_layout *layout)
{
	const uint32_t n_methods = layout->n_methods;
	struct module *module = calloc(1, sizeof(*module));

	if (!module)
		return NULL;
	module->core = core;
	module->durable = durable;
	module->id = id;
	module->n_methods = n_methods;
	list_init(&module->name_link);
	list_init(&module->sweep_link);
	list_init(&module->gone_link);
	list_init(&module->queue_link);
	list_init(&module->queue);
	list_init(&module->osr_queue);
	list_init(&module->osr_live);
	list_init(&module->freeze_link);
	list_init(&module->armed);
	list_init(&module->looked);
	module->methods = calloc(MAX(n_methods, 1u), sizeof(*module->methods));
	module->known = calloc(layout->n_slots / sizeof(uint64_t) / 64 + 1, sizeof(*module->known));
	if (!module->methods || !module->known)
		return module_free(module);
	for (uint32_t i = 0; i < n_methods; i++) {
		module->methods[i].module = module;
		module->methods[i].promised = LEDGER_LADDER;
		list_init(&module->methods[i].link);
	}
	return module;
}

struct module *module_free(struct module *module)
{
	if (!module)
		return NULL;
	list_remove(&module->name_link);
	list_remove(&module->sweep_link);
	list_remove(&module->queue_link);
	list_remove(&module->freeze_link);
	list_remove(&module->gone_link);
	for (uint32_t i = 0; module->methods && i < module->n_methods; i++)
		free(module->methods[i].inliners);
	osr_free_all(module);
	free(module->known);
	free(module->methods);
	free(module);
	return NULL;
}

/* Place of the first module whose id is not below @id */
static uint32_t module_position(const struct core *core, uint64_t id)
{
	uint32_t low = 0, high = core->n_modules;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (core->modules[middle]->id < id)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static struct list *module_bucket(struct core *core, uid_t uid, const char *name)
{
	uint32_t hash = 2166136261u ^ uid;

	for (const char *p = name; *p; p++)
		hash = (hash ^ (uint8_t)*p) * 16777619u;
	return &core->names[(hash ^ hash >> 16) % CORE_NAME_BUCKETS];
}

void module_link(struct module *module, struct user *user)
{
	struct core *core = module->core;
	uint32_t at = module_position(core, module->id);

	memmove(&core->modules[at + 1], &core->modules[at], (core->n_modules - at) * sizeof(core->modules[0]));
	core->modules[at] = module;
	core->n_modules++;
	core->n_methods += module->n_methods;
	module->user = user;
	user->n_modules++;
	module_count_rows(module, ROWS_PROMISED, module->n_methods * LEDGER_LADDER);
	if (module->durable->is_named)
		list_append(module_bucket(core, user->uid, module->durable->name), &module->name_link);
}

static void module_unlink(struct module *module)
{
	struct core *core = module->core;
	uint32_t at = module_position(core, module->id);

	core->n_modules--;
	memmove(&core->modules[at], &core->modules[at + 1], (core->n_modules - at) * sizeof(core->modules[0]));
	module->user->n_modules--;
}

void module_count_rows(struct module *module, enum rows kind, int n)
{
	module->rows[kind] += n;
	if (module->user)
		module->user->rows[kind] += n;
	module->core->rows[kind] += n;
}

bool module_has_share(const struct module *module, enum rows kind)
{
	return module->user->rows[kind] < module->core->share[kind];
}

void module_note_code(struct module *module, const struct core_code *code)
{
	struct ledger_module *image = ledger_edit(&module->core->ledger, module->durable);

	image->code_used = MAX(image->code_used, code->code_used);
}

/* -- Coming --- */
uint64_t core_take_module_id(struct core *core)
{
	uint64_t id;

	ledger_begin(&core->ledger);
	id = core->ledger.edited->next_module++;
	ledger_commit(&core->ledger);
	return id;
}

struct core_window core_window(const struct core *core)
{
	return (struct core_window){ core->ledger.global->window_base, core->ledger.global->window_next };
}

void core_window_choose(struct core *core, uint64_t base)
{
	assert(!core->ledger.global->window_base);
	ledger_begin(&core->ledger);
	core->ledger.edited->window_base = core->ledger.edited->window_next = base;
	ledger_commit(&core->ledger);
}

/* The uid's user, or a new one whose record the caller's transaction will write; NULL: no memory. */
static struct user *module_user(struct core *core, uid_t uid)
{
	struct user *user = user_find(core, uid);
	uint32_t slot;

	if (user)
		return user;
	slot = ledger_take(&core->ledger, LEDGER_USERS);
	assert(slot != LEDGER_NONE);	/* as many as modules, and each user has one */
	user = user_new(core, ledger_user(&core->ledger, slot), uid);
	if (!user)
		ledger_release(&core->ledger, LEDGER_USERS, slot);
	return user;
}

static void module_commit_new(struct module *module, struct user *user, const struct ledger_module *record)
{
	struct core *core = module->core;
	struct ledger *ledger = &core->ledger;
	bool is_first = !list_is_linked(&user->link);

	ledger_begin(ledger);
	*ledger_edit(ledger, module->durable) = *record;
	ledger->edited->window_next = MAX(ledger->edited->window_next, record->layout.base + record->layout.size);
	if (is_first)
		*ledger_edit(ledger, user->durable) =
			(struct ledger_user){ .owner = (uint64_t)user->uid + 1, .turn = ledger_ticket(ledger) };
	core_event(core, TIER_EVENT_MODULE_LOADED, user->uid)->module = module->id;
	ledger_commit(ledger);
	if (is_first)
		user_link(user);
	module_link(module, user);
	core_ring(core, NULL, 0);
}

int core_module_add(struct module **ret, struct core *core, uint64_t id, uid_t uid, const char *name, bool shared,
		    const struct tier_layout *layout, uint64_t code_used, struct tier_records_header *header,
		    struct tier_record *records, uint32_t *cells, void *module_context)
{
	struct ledger_module record = { .id = id, .uid = uid, .is_shared = shared, .is_named = true, .code_used = code_used };
	struct module *module;
	struct user *user;
	uint32_t slot;

	assert(id && id < core->ledger.global->next_module && !core_module_by_id(core, id));
	if (!name[0] || strlen(name) > LEDGER_NAME_MAX)
		return error_origin(-EINVAL);
	if (core_module_by_name(core, uid, name))
		return CORE_E_EXISTS;
	if (core->n_modules == LEDGER_MODULES_MAX || layout->n_methods > LEDGER_METHODS_MAX - core->n_methods
	    || layout->n_methods > version_room(core, user_find(core, uid)) / LEDGER_LADDER)
		return CORE_E_QUOTA;
	user = module_user(core, uid);
	if (!user)
		return error_origin(-ENOMEM);
	slot = ledger_take(&core->ledger, LEDGER_MODULES);
	assert(slot != LEDGER_NONE);
	module = module_new(core, ledger_module(&core->ledger, slot), id, layout);
	if (!module) {
		ledger_release(&core->ledger, LEDGER_MODULES, slot);
		if (!user->n_modules) {
			ledger_release(&core->ledger, LEDGER_USERS, user->durable - ledger_user(&core->ledger, 0));
			user_free(user);
		}
		return error_origin(-ENOMEM);
	}
	module->header = header;
	module->records = records;
	module->cells = cells;
	module->context = module_context;
	strcpy(record.name, name);
	record.layout = *layout;
	module_commit_new(module, user, &record);
	*ret = module;
	return 0;
}

int core_module_attach(struct module *module, struct tier_records_header *header, struct tier_record *records, uint32_t *cells,
		       void *module_context)
{
	struct core *core = module->core;

	assert(!module->records);
	module->header = header;
	module->records = records;
	module->cells = cells;
	module->context = module_context;
	for (uint32_t i = 0; i < module->n_methods; i++)
		entry_refresh(&module->methods[i], TIER_PATH_RECOVERED);
	osr_attach(module);
	mark_recover(module);
	freeze_recover(module);
	if (core->unsettled_module == module->id) {
		core->unsettled_module = 0;
		core->ops->changed(core->context, module, core->unsettled_method);
	}
	/* Jobs, batches and the takeover's sweep wait for core_tick(): by then the other modules are attached too. */
	delay_link(module->user);
	count_sweep_start(module);
	core->is_busy = true;
	core_arm(core);
	return 0;
}

/* -- Going --- */
void core_module_unname(struct module *module)
{
	struct core *core = module->core;
	struct ledger *ledger = &core->ledger;

	if (!module->durable->is_named)
		return;
	ledger_begin(ledger);
	ledger_edit(ledger, module->durable)->is_named = false;
	core_event(core, TIER_EVENT_MODULE_UNLOADED, module->user->uid)->module = module->id;
	ledger_commit(ledger);
	list_remove(&module->name_link);
	core_ring(core, NULL, 0);
}

/* Whoever froze it is gone before it, or with a predecessor. */
static void module_event_thawed(struct module *module)
{
	struct tier_event *event = core_event(module->core, TIER_EVENT_THAWED, module->user->uid);

	event->module = module->id;
	event->reason = TIER_REASON_CLIENT;
}

static void module_commit_gone(struct module *module)
{
	struct core *core = module->core;
	struct ledger *ledger = &core->ledger;
	struct user *user = module->user;

	ledger_begin(ledger);
	ledger_edit(ledger, module->durable)->id = 0;
	if (module->durable->is_frozen)
		module_event_thawed(module);
	if (module->durable->is_named)
		core_event(core, TIER_EVENT_MODULE_UNLOADED, user->uid)->module = module->id;
	if (!user->n_modules) {
		ledger_edit(ledger, user->durable)->owner = 0;
		if (user->durable->deadline_ns)
			core_event(core, TIER_EVENT_DELAY_RESUMED, user->uid);
	}
	ledger_commit(ledger);
}

/* Nobody finds it any more; its user may come again, and has its share back. */
static void module_go(struct module *module)
{
	struct core *core = module->core;
	struct ledger *ledger = &core->ledger;
	struct user *user = module->user;

	ledger_release(ledger, LEDGER_MODULES, module->durable - ledger_module(ledger, 0));
	list_remove(&module->name_link);
	list_remove(&module->sweep_link);
	list_remove(&module->queue_link);
	list_remove(&module->freeze_link);
	list_append(&core->gone, &module->gone_link);
	for (int i = 0; i < _ROWS_N; i++)
		user->rows[i] -= module->rows[i];
	module->user = NULL;
	if (user->n_modules)
		return;
	ledger_release(ledger, LEDGER_USERS, user->durable - ledger_user(ledger, 0));
	user_free(user);
}

static bool module_forget_methods(struct module *module, int *budget)
{
	for (; module->n_forgotten < module->n_methods; module->n_forgotten++)
		if (*budget <= 0 || !method_forget(&module->methods[module->n_forgotten], budget))
			return false;
	return osr_forget_live(module, budget);
}

void module_forget(struct core *core, int *budget)
{
	struct list *link;

	while ((link = list_first(&core->gone))) {
		struct module *module = list_entry(link, struct module, gone_link);
		const bool is_empty = module->n_forgotten == module->n_methods;

		/* the memory of many methods takes a turn of its own */
		if (!module_forget_methods(module, budget) || (!is_empty && *budget < SLICE_BUDGET / 2)) {
			core->is_busy = true;
			return;
		}
		module_free(module);
	}
}

void core_module_remove(struct module *module)
{
	struct core *core = module->core;
	int budget = SLICE_BUDGET;

	/* from its end: whoever leaves the front of the line moves the module among all that its user has */
	while (!list_is_empty(&module->queue))
		method_move(list_entry(module->queue.previous, struct method, link), PLACE_NONE);
	for (uint32_t i = 0; i < module->n_methods; i++)
		method_move(&module->methods[i], PLACE_NONE);
	osr_forget_queue(module);
	queue_forget_jobs(core, module);
	slot_forget_sites(core, module);
	module_unlink(module);
	module_commit_gone(module);
	module_go(module);
	core_ring(core, NULL, 0);
	module_forget(core, &budget);
	core_proceed(core);
}

/* -- Questions --- */
void core_module_info(const struct module *module, struct core_module_info *ret)
{
	const struct ledger_module *durable = module->durable;

	*ret = (struct core_module_info){
		.id = module->id,
		.uid = module->user->uid,
		.shared = durable->is_shared,
		.named = durable->is_named,
		.name = durable->name,
		.layout = durable->layout,
		.code_used = durable->code_used,
	};
}

void *core_module_context(const struct module *module)
{
	return module->context;
}

struct module *core_module_by_id(struct core *core, uint64_t id)
{
	uint32_t at = module_position(core, id);

	return at < core->n_modules && core->modules[at]->id == id ? core->modules[at] : NULL;
}

struct module *core_module_by_name(struct core *core, uid_t uid, const char *name)
{
	struct list *bucket = module_bucket(core, uid, name), *pos;

	list_for_each(pos, bucket) {
		struct module *module = list_entry(pos, struct module, name_link);

		if (module->user->uid == uid && !strcmp(module->durable->name, name))
			return module;
	}
	return NULL;
}

struct module *core_module_next(struct core *core, struct module *after)
{
	uint32_t at = after ? module_position(core, after->id) + 1 : 0;

	return at < core->n_modules ? core->modules[at] : NULL;
}
