/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "host_kept.h"
#include "instances.h"
#include "tier/wire.h"
#include "util/base.h"
#include "util/error.h"
#include "util/log.h"

/* Who asked for what is being made: equal values at the same time give one module. */
struct asker {
	struct list link;
	struct server_load *load;
	bool is_gone;
};

struct instance {
	struct instances *instances;
	struct list link; /* instances.under_way */
	struct list askers;
	struct task task;
	struct host_plan plan;
	struct host *base;
	struct host_knobs knobs;
	uid_t uid;
	struct host *host;
	enum tier_error error;
	struct refusal refusal;
};

_Static_assert(HOST_KNOBS_MAX == WIRE_VALUES_MAX, "a request may fill them");

/* -- Names --- */
/* M<a=1,b=7> */
#define TEXT_MAX (WIRE_NAME_MAX + HOST_KNOBS_MAX * (WIRE_KNOB_NAME_MAX + 24u))
static size_t full_name(char text[TEXT_MAX], const char *module, const struct host *base,
			const struct host_knobs *knobs)
{
	size_t n = snprintf(text, TEXT_MAX, "%s", module);

	for (uint32_t i = 0; i < knobs->n; i++)
		n += snprintf(text + n, TEXT_MAX - n, "%s%s=%llu", i ? "," : "<",
			      image_object_name(&base->image, knobs->knobs[i].object),
			      (unsigned long long)knobs->knobs[i].value);
	n += snprintf(text + n, TEXT_MAX - n, ">");
	assert(n < TEXT_MAX);
	return n;
}

/* FNV-1a of the full name, each try another */
static uint64_t name_hash(const char *text, uint32_t attempt)
{
	uint64_t hash = 0xcbf29ce484222325ull ^ attempt;

	for (; *text; text++)
		hash = (hash ^ (unsigned char)*text) * 0x100000001b3ull;
	return hash;
}

/* The names that it may have, in the order in which they are tried: the first one that nobody else has is its. False:
 * there is no such, since M is too long. */
static bool name_attempt(char name[WIRE_NAME_MAX], const char *module, const char *text, uint32_t attempt)
{
	if (!attempt && strlen(text) < WIRE_NAME_MAX) {
		strcpy(name, text);
		return true;
	}
	return snprintf(name, WIRE_NAME_MAX, "%s<%016llx>", module, (unsigned long long)name_hash(text, attempt)) <
	       (int)WIRE_NAME_MAX;
}

/* What @uid has of @base with those values, or NULL; in any case @name. */
static bool look_up(struct instances *instances, const struct host *base, uid_t uid, const struct host_knobs *knobs,
		    struct module **ret, char name[WIRE_NAME_MAX])
{
	char text[TEXT_MAX];
	struct core_module_info info;

	core_module_info(base->module, &info);
	full_name(text, info.name, base, knobs);
	for (uint32_t attempt = 0; name_attempt(name, info.name, text, attempt); attempt++) {
		struct module *module = core_module_by_name(instances->loading->core, uid, name);
		const struct host *host = module ? core_module_context(module) : NULL;

		if (!module || (host->base == base && host_knobs_are_equal(&host->knobs, knobs))) {
			*ret = module;
			return true;
		}
	}
	return false;
}

/* -- Finding --- */
static bool read_values(struct host_knobs *ret, const struct host *base, const struct wire_instantiate *values,
			struct refusal *refusal)
{
	*ret = (struct host_knobs){.n = 0};
	if (!values->n) {
		refuse(refusal, "an instantiation gives at least one knob a value");
		return false;
	}
	for (uint32_t i = 0; i < values->n; i++) {
		struct host_knob knob;

		if (!host_find_knob(&knob, base, values->values[i].name, values->values[i].value, refusal) ||
		    !host_add_knob(ret, base, &knob, refusal))
			return false;
	}
	return true;
}

enum tier_error instances_find(struct instances *instances, struct module *base, uid_t uid,
			       const struct wire_instantiate *values, struct module **ret, char name[WIRE_NAME_MAX],
			       char text[WIRE_TEXT_MAX])
{
	const struct host *host = core_module_context(base);
	struct refusal refusal = {""};
	struct host_knobs knobs;

	if (read_values(&knobs, host, values, &refusal) && !look_up(instances, host, uid, &knobs, ret, name))
		refuse(&refusal,
		       "its name is too long for those of its instantiations: at most 45 bytes leave room for a hash");
	snprintf(text, WIRE_TEXT_MAX, "%s", refusal.text);
	return *refusal.text ? TIER_ERROR_ARGUMENT : TIER_ERROR_NONE;
}

/* -- Making --- */
static void instance_log(const struct instance *instance, struct module *module)
{
	struct core_module_info info;

	if (!module) {
		log_event(LOG_LOADER, LOG_INFO100, "an instantiation of module %llu for uid %u is refused: %s: %s",
			  (unsigned long long)instance->base->id, instance->uid, tier_error_name(instance->error),
			  instance->refusal.text);
		return;
	}
	core_module_info(module, &info);
	log_event(LOG_LOADER, LOG_INFO100, "module %llu '%s' of uid %u is an instantiation of module %llu",
		  (unsigned long long)info.id, info.name, info.uid, (unsigned long long)instance->base->id);
}

/* The base may go with the last answer. */
static void instance_end(struct instance *instance, struct module *module)
{
	struct list *first;

	instance_log(instance, module);
	list_remove(&instance->link);
	if (instance->host)
		host_release(instance->host, instance->instances->loading->checker);
	while ((first = list_first(&instance->askers))) {
		struct asker *asker = list_entry(first, struct asker, link);

		list_remove(first);
		server_loaded(asker->load, module, instance->error, instance->refusal.text);
		free(asker);
	}
	free(instance);
}

static void instance_fail(struct instance *instance, enum tier_error error, const char *text)
{
	instance->error = error;
	refuse(&instance->refusal, "%s", text);
	instance_end(instance, NULL);
}

static bool is_awaited(const struct instance *instance)
{
	struct list *pos;

	list_for_each(pos, &instance->askers) if (!list_entry(pos, struct asker, link)->is_gone) return true;
	return false;
}

/* It gets its name only now: one of another base may have come first. */
static enum tier_error instance_add(struct instance *instance, struct module **ret)
{
	struct loading *loading = instance->instances->loading;
	struct module *other = NULL;
	char name[WIRE_NAME_MAX];
	enum tier_error error;

	if (!look_up(instance->instances, instance->base, instance->uid, &instance->knobs, &other, name) || other) {
		refuse(&instance->refusal, "'%s' is loaded already", name);
		return TIER_ERROR_EXISTS;
	}
	error = loading_add(loading, ret, instance->host, instance->uid, name, false, &instance->refusal);
	if (error)
		return error;
	instance->host = NULL;
	instance->base->n_instances++;
	return TIER_ERROR_NONE;
}

/* Back in the loop */
static void instance_built(struct task *task)
{
	struct instance *instance = container_of(task, struct instance, task);
	struct core_module_info info;
	struct module *module = NULL;

	if (!task->ran)
		return instance_fail(instance, TIER_ERROR_CANCELED, "the daemon ends");
	if (!is_awaited(instance))
		return instance_fail(instance, TIER_ERROR_CANCELED, "nobody waits for it");
	core_module_info(instance->base->module, &info);
	if (!info.named)
		return instance_fail(instance, TIER_ERROR_NO_MODULE, "the module was unloaded meanwhile");
	if (!instance->error)
		instance->error = instance_add(instance, &module);
	instance_end(instance, module);
}

/* In the checker thread: of the base only what never changes is read. */
static void instance_build(struct task *task)
{
	struct instance *instance = container_of(task, struct instance, task);

	instance->error = host_instantiate(&instance->host, &instance->plan, instance->base, &instance->knobs,
					   &instance->refusal);
	if (!instance->error)
		host_keep(instance->host, instance->instances->loading->store);
}

static struct instance *find_under_way(struct instances *instances, const struct host *base, uid_t uid,
				       const struct host_knobs *knobs)
{
	struct list *pos;

	list_for_each(pos, &instances->under_way)
	{
		struct instance *instance = list_entry(pos, struct instance, link);

		if (instance->base == base && instance->uid == uid && host_knobs_are_equal(&instance->knobs, knobs))
			return instance;
	}
	return NULL;
}

static struct instance *instance_new(struct instances *instances, struct host *base, uid_t uid,
				     const struct host_knobs *knobs)
{
	struct instance *instance = calloc(1, sizeof(*instance));

	if (!instance)
		return NULL;
	*instance = (struct instance){.instances = instances, .base = base, .uid = uid, .knobs = *knobs};
	instance->plan = loading_plan(instances->loading);
	instance->task = (struct task)TASK_NULL(instance->task);
	list_init(&instance->askers);
	list_init(&instance->link);
	list_append(&instances->under_way, &instance->link);
	task_submit(instances->loading->checker, &instance->task, instance_build, instance_built);
	return instance;
}

int instances_start(struct instances *instances, struct module *base, uid_t uid, const struct wire_instantiate *values,
		    struct server_load *load)
{
	struct host *host = core_module_context(base);
	struct refusal refusal = {""};
	struct instance *instance;
	struct host_knobs knobs;
	struct asker *asker;

	if (!read_values(&knobs, host, values, &refusal))
		return TIER_ERROR_ARGUMENT;
	asker = calloc(1, sizeof(*asker));
	if (!asker)
		return TIER_ERROR_NO_MEMORY;
	instance = find_under_way(instances, host, uid, &knobs);
	if (!instance)
		instance = instance_new(instances, host, uid, &knobs);
	if (!instance) {
		free(asker);
		return TIER_ERROR_NO_MEMORY;
	}
	asker->load = load;
	list_init(&asker->link);
	list_append(&instance->askers, &asker->link);
	return TIER_ERROR_NONE;
}

/* The thread goes on: its base must stay until it has ended, and so must the load, which holds it. */
void instances_cancel(struct instances *instances, const struct server_load *load)
{
	struct list *pos, *at;

	list_for_each(pos, &instances->under_way) list_for_each(at, &list_entry(pos, struct instance, link)->askers)
	{
		struct asker *asker = list_entry(at, struct asker, link);

		if (asker->load == load)
			asker->is_gone = true;
	}
}

void instances_init(struct instances *instances, struct loading *loading)
{
	*instances = (struct instances){.loading = loading, .under_way = LIST_INIT(instances->under_way)};
}

void instances_stop(struct instances *instances)
{
	struct list *first;

	while ((first = list_first(&instances->under_way)))
		instance_fail(list_entry(first, struct instance, link), TIER_ERROR_CANCELED, "the daemon ends");
}
