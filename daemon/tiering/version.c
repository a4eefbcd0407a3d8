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

void version_set_live(struct ledger_version *image, const struct core_code *code)
{
	assert(image->state == LEDGER_MAKING);
	image->state = LEDGER_LIVE;
	image->code = code->address;
	image->size = code->size;
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
