/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include "tiering/internal.h"

/* Code versions: a chain per method, from the newest to the first. The active one is what calls reach; a newer one is
 * on its way, or was given up. All of them live as long as their module, because running activations may be in any. */

struct ledger_version *version_active(const struct method *method)
{
	return ledger_version(&method_core(method)->ledger, method->durable->active);
}

struct ledger_version *version_newest(const struct method *method)
{
	return ledger_version(&method_core(method)->ledger, method->durable->newest);
}

struct ledger_version *version_new(struct method *method, struct ledger_method *image, enum tier_level level)
{
	struct core *core = method_core(method);
	uint32_t slot = ledger_take(&core->ledger, LEDGER_VERSIONS);
	struct ledger_version *version;

	assert(slot != LEDGER_NONE);	/* four for each method, and a method has at most one of each level */
	version = ledger_edit(&core->ledger, ledger_version(&core->ledger, slot));
	*version = (struct ledger_version){
		.module = method->module->id,
		.id = core->ledger.edited->next_version++,
		.cell = LEDGER_NONE,
		.threshold = core->config.threshold,
		.older = image->newest,
		.edges = LEDGER_NONE,
		.level = level,
		.state = LEDGER_MAKING,
	};
	image->newest = slot;
	core->n_versions++;
	return version;
}

void version_set_live(struct core *core, struct ledger_version *image, const struct core_code *code)
{
	assert(image->state == LEDGER_MAKING);
	image->state = LEDGER_LIVE;
	image->code = code->address;
	image->size = code->size;
	image->published_ms = core->ops->wall(core->context) / 1000000u;
}

/* -- Questions --- */
_Static_assert((int)LEDGER_MAKING == TIER_VERSION_MAKING && (int)LEDGER_LIVE == TIER_VERSION_LIVE
	       && (int)LEDGER_FAILED == TIER_VERSION_FAILED, "the ledger's states are the public ones");

/* The newest version with an id below @before (0: of all); LEDGER_NONE */
static uint32_t version_below(const struct method *method, uint64_t before)
{
	const struct ledger *ledger = &method_core(method)->ledger;
	uint32_t slot = method->durable ? method->durable->newest : LEDGER_NONE;

	while (before && slot != LEDGER_NONE && ledger_version(ledger, slot)->id >= before)
		slot = ledger_version(ledger, slot)->older;
	return slot;
}

bool core_version_below(const struct module *module, uint32_t index, uint64_t before, struct core_version_info *ret)
{
	const struct method *method = &module->methods[index];
	const struct ledger *ledger = &module->core->ledger;
	uint32_t slot = version_below(method, before);
	const struct ledger_version *version;

	if (slot == LEDGER_NONE)
		return false;
	version = ledger_version(ledger, slot);
	*ret = (struct core_version_info){
		.id = version->id,
		.code = version->code,
		.size = version->size,
		.stub = version->stub,
		.published_ns = (uint64_t)version->published_ms * 1000000u,	/* a product of 48 bits otherwise */
		.level = version->level,
		.state = version->state,
		.is_active = method->durable->active == slot,
		.threshold = version->threshold,
	};
	for (slot = version->edges; slot != LEDGER_NONE; slot = ledger_edge(ledger, slot)->next)
		ret->n_inlined += ledger_edge(ledger, slot)->n_methods;
	return true;
}

bool core_version_inlined(const struct module *module, uint32_t index, uint64_t version, uint32_t i, uint32_t *ret)
{
	const struct ledger *ledger = &module->core->ledger;
	uint32_t slot = version < UINT64_MAX ? version_below(&module->methods[index], version + 1) : LEDGER_NONE;

	if (slot == LEDGER_NONE || ledger_version(ledger, slot)->id != version)
		return false;
	for (slot = ledger_version(ledger, slot)->edges; slot != LEDGER_NONE; slot = ledger_edge(ledger, slot)->next) {
		const struct ledger_edge *edge = ledger_edge(ledger, slot);

		if (i < edge->n_methods) {
			*ret = edge->methods[i];
			return true;
		}
		i -= edge->n_methods;
	}
	return false;
}

/* -- Whom a version inlined --- */
static void version_release_edges(struct ledger *ledger, uint32_t slot)
{
	while (slot != LEDGER_NONE) {
		uint32_t next = ledger_edge(ledger, slot)->next;

		ledger_release(ledger, LEDGER_EDGES, slot);
		slot = next;
	}
}

/* A new first edge of the chain that begins with @next; LEDGER_NONE: no room. */
static uint32_t version_add_edge(const struct method *method, uint32_t next)
{
	struct ledger *ledger = &method_core(method)->ledger;
	uint32_t slot = ledger_take(ledger, LEDGER_EDGES);

	if (slot != LEDGER_NONE)
		*ledger_edge(ledger, slot) = (struct ledger_edge){
			.module = method->module->id,
			.version_id = version_newest(method)->id,
			.version = method->durable->newest,
			.next = next,
		};
	return slot;
}

/* Edges need no redo: a successor drops those whose version is not live. */
bool version_note_inlined(struct method *method, const uint32_t *inlined, uint32_t n_inlined, uint32_t *ret)
{
	struct ledger *ledger = &method_core(method)->ledger;
	uint32_t first = LEDGER_NONE;

	for (uint32_t i = 0; i < n_inlined; i++)
		if (inlined[i] >= method->module->n_methods)
			return false;
	for (uint32_t i = 0; i < n_inlined; i++) {
		struct ledger_edge *edge;

		if (i % LEDGER_EDGE_METHODS == 0) {
			uint32_t slot = version_add_edge(method, first);

			if (slot == LEDGER_NONE) {
				version_release_edges(ledger, first);
				return false;
			}
			first = slot;
		}
		edge = ledger_edge(ledger, first);
		edge->methods[edge->n_methods++] = inlined[i];
	}
	*ret = first;
	return true;
}

void version_release_all(struct method *method)
{
	struct core *core = method_core(method);
	struct ledger *ledger = &core->ledger;
	uint32_t slot, older;

	if (!method->durable)
		return;
	for (slot = method->durable->newest; slot != LEDGER_NONE; slot = older) {
		older = ledger_version(ledger, slot)->older;
		version_release_edges(ledger, ledger_version(ledger, slot)->edges);
		ledger_release(ledger, LEDGER_VERSIONS, slot);
		core->n_versions--;
	}
	ledger_release(ledger, LEDGER_METHODS, method->durable - ledger_method(ledger, 0));
	method->durable = NULL;
}
