/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <limits.h>
#include "tiering/internal.h"

/* Code versions: a chain per method, from the newest to the first, of all its bodies. The active one is what calls reach; the
 * next one is on its way. All of them live as long as their module, because running activations may be in any. */

struct ledger_version *version_active(const struct method *method)
{
	return ledger_version(&method_core(method)->ledger, method->durable->active);
}

struct ledger_version *version_next(const struct method *method)
{
	return ledger_version(&method_core(method)->ledger, method->durable->next);
}

uint32_t version_first(const struct method *method, uint32_t body)
{
	const struct ledger *ledger = &method_core(method)->ledger;
	uint32_t first = LEDGER_NONE;

	for (uint32_t slot = method->durable->chain; slot != LEDGER_NONE; slot = ledger_version(ledger, slot)->older)
		if (ledger_version(ledger, slot)->body == body && ledger_version(ledger, slot)->state == LEDGER_LIVE)
			first = slot;
	return first;
}

uint32_t version_kept(const struct method *method, uint32_t body)
{
	const struct ledger *ledger = &method_core(method)->ledger;
	uint32_t kept = LEDGER_NONE;

	for (uint32_t slot = method->durable->chain; slot != LEDGER_NONE; slot = ledger_version(ledger, slot)->older) {
		const struct ledger_version *version = ledger_version(ledger, slot);

		if (version->body == body && version->state == LEDGER_LIVE && version->edges == LEDGER_NONE
		    && version->level != TIER_LEVEL_OSR)
			kept = slot;
	}
	return kept;
}

/* The newest version with an id below @before (0: of all); LEDGER_NONE */
static uint32_t version_below(const struct method *method, uint64_t before)
{
	const struct ledger *ledger = &method_core(method)->ledger;
	uint32_t slot = method->durable ? method->durable->chain : LEDGER_NONE;

	while (before && slot != LEDGER_NONE && ledger_version(ledger, slot)->id >= before)
		slot = ledger_version(ledger, slot)->older;
	return slot;
}

uint32_t version_find(const struct method *method, uint64_t id)
{
	uint32_t slot = id && id < UINT64_MAX ? version_below(method, id + 1) : LEDGER_NONE;

	return slot != LEDGER_NONE && ledger_version(&method_core(method)->ledger, slot)->id == id ? slot : LEDGER_NONE;
}

static uint32_t version_left(uint32_t n_max, const uint32_t rows[_ROWS_N])
{
	const uint32_t n = rows[ROWS_VERSIONS] + rows[ROWS_PROMISED];

	return n < n_max ? n_max - n : 0;	/* a predecessor may have admitted more */
}

uint32_t version_room(const struct core *core, const struct user *user_or_null)
{
	const uint32_t n = version_left(LEDGER_VERSIONS_MAX, core->rows), share = core->share[ROWS_VERSIONS];

	return MIN(n, user_or_null ? version_left(share, user_or_null->rows) : share);
}

struct ledger_version *version_new(struct method *method, struct ledger_method *image, const struct ladder_step *step)
{
	struct core *core = method_core(method);
	uint32_t slot = ledger_take(&core->ledger, LEDGER_VERSIONS);
	struct ledger_version *version;

	assert(slot != LEDGER_NONE);	/* it was promised */
	version = ledger_edit(&core->ledger, ledger_version(&core->ledger, slot));
	*version = (struct ledger_version){
		.module = method->module->id,
		.id = core->ledger.edited->next_version++,
		.body = image->body,
		.cell = LEDGER_NONE,
		.threshold = core->config.threshold,
		.older = image->chain,
		.edges = LEDGER_NONE,
		.profile = step->profile,
		.patchpoint = LEDGER_NONE,
		.level = step->level,
		.state = LEDGER_MAKING,
	};
	if (step->profile != LEDGER_NONE)
		ledger_edit(&core->ledger, method->module->durable)->n_cells_used = step->n_cells_used;
	image->next = image->chain = slot;
	core->held[slot] = (struct entry_held){ 0 };
	module_count_rows(method->module, ROWS_VERSIONS, 1);
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

void version_drop(struct method *method, uint32_t row_or_none)
{
	struct ledger *ledger = &method_core(method)->ledger;

	if (row_or_none != LEDGER_NONE && !ledger_version(ledger, row_or_none)->is_begun)
		ledger_edit(ledger, ledger_version(ledger, row_or_none))->state = LEDGER_FAILED;
}

/* -- Questions --- */
_Static_assert((int)LEDGER_MAKING == TIER_VERSION_MAKING && (int)LEDGER_LIVE == TIER_VERSION_LIVE
	       && (int)LEDGER_FAILED == TIER_VERSION_FAILED, "the ledger's states are the public ones");

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
		.stub = version->level == TIER_LEVEL_OSR ? 0 : version->stub,
		.published_ns = (uint64_t)version->published_ms * 1000000u,	/* a product of 48 bits otherwise */
		.level = version->level,
		.state = version->state,
		.is_active = method->durable->active == slot,
		.threshold = version->threshold,
		.body = version->body,
	};
	for (slot = version->edges; slot != LEDGER_NONE; slot = ledger_edge(ledger, slot)->next)
		ret->n_inlined += ledger_edge(ledger, slot)->n_methods;
	return true;
}

/* The @i-th method that the version in @slot inlined */
static bool inlined_at(const struct ledger *ledger, uint32_t slot, uint32_t i, uint32_t *ret)
{
	if (slot == LEDGER_NONE)
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

bool core_version_inlined(const struct module *module, uint32_t index, uint64_t version, uint32_t i, uint32_t *ret)
{
	return inlined_at(&module->core->ledger, version_find(&module->methods[index], version), i, ret);
}

bool core_active_inlined(const struct module *module, uint32_t index, uint32_t i, uint32_t *ret)
{
	const struct ledger_method *durable = module->methods[index].durable;

	return durable && inlined_at(&module->core->ledger, durable->active, i, ret);
}

bool core_version_has_inlined(const struct module *module, uint32_t index, uint64_t version, uint32_t inlined)
{
	const struct ledger *ledger = &module->core->ledger;
	uint32_t slot = version_find(&module->methods[index], version);

	if (slot == LEDGER_NONE)
		return false;
	for (slot = ledger_version(ledger, slot)->edges; slot != LEDGER_NONE; slot = ledger_edge(ledger, slot)->next)
		for (uint32_t i = 0; i < ledger_edge(ledger, slot)->n_methods; i++)
			if (ledger_edge(ledger, slot)->methods[i] == inlined)
				return true;
	return false;
}

/* -- Whom a version inlined --- */
/* A slice of the chain that begins with *@first, which follows; false: there is more. */
static bool version_release_edges(struct method *method, uint32_t *first, int *budget)
{
	struct ledger *ledger = &method_core(method)->ledger;
	uint32_t edge;

	while ((edge = *first) != LEDGER_NONE) {
		if (*budget <= 0)
			return false;
		*budget -= SLICE_ROW;
		*first = ledger_edge(ledger, edge)->next;
		ledger_release(ledger, LEDGER_EDGES, edge);
		module_count_rows(method->module, ROWS_EDGES, -1);
	}
	return true;
}

/* A new first edge of the chain that begins with @next; LEDGER_NONE: no room. */
static uint32_t version_add_edge(const struct method *method, uint32_t version, uint64_t id, uint32_t next)
{
	struct ledger *ledger = &method_core(method)->ledger;
	uint32_t slot = module_has_share(method->module, ROWS_EDGES) ? ledger_take(ledger, LEDGER_EDGES) : LEDGER_NONE;

	if (slot == LEDGER_NONE)
		return slot;
	*ledger_edge(ledger, slot) = (struct ledger_edge){
		.module = method->module->id,
		.version_id = id,
		.version = version,
		.next = next,
	};
	module_count_rows(method->module, ROWS_EDGES, 1);
	return slot;
}

bool version_has_edges(const struct method *method, uint32_t n_inlined)
{
	const struct module *module = method->module;
	const uint32_t n = n_inlined / LEDGER_EDGE_METHODS + !!(n_inlined % LEDGER_EDGE_METHODS);
	const uint32_t n_mine = module->user->rows[ROWS_EDGES], n_all = module->core->rows[ROWS_EDGES];

	return n_mine + n <= module->core->share[ROWS_EDGES] && n_all + n <= LEDGER_EDGES_MAX;
}

/* Edges need no redo: a successor drops those whose version is not live. */
bool version_note_inlined(struct method *method, uint32_t version, uint64_t id, const uint32_t *inlined, uint32_t n_inlined,
			  uint32_t *ret)
{
	struct ledger *ledger = &method_core(method)->ledger;
	uint32_t first = LEDGER_NONE;

	for (uint32_t i = 0; i < n_inlined; i++) {
		struct ledger_edge *edge;

		if (i % LEDGER_EDGE_METHODS == 0) {
			uint32_t slot = version_add_edge(method, version, id, first);

			if (slot == LEDGER_NONE) {
				version_release_edges(method, &first, &(int){ INT_MAX });
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

bool version_release(struct method *method, int *budget)
{
	struct ledger *ledger = &method_core(method)->ledger;
	uint32_t row;

	while ((row = method->durable->chain) != LEDGER_NONE) {
		struct ledger_version *version = ledger_version(ledger, row);

		if (*budget <= 0 || !version_release_edges(method, &version->edges, budget))
			return false;
		*budget -= SLICE_ROW;
		method->durable->chain = version->older;
		ledger_release(ledger, LEDGER_VERSIONS, row);
		module_count_rows(method->module, ROWS_VERSIONS, -1);
	}
	return true;
}
