/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>
#include "tiering/internal.h"

/* Who inlined whom
 *
 * The ledger has it by inliner (edges); here is the index by inlined method. A row is of interest while its version is what
 * calls reach, or will be after a revert; others are dropped when the rows are gone through.
 *
 * A withdrawal comes before the replacement that causes it, each inliner in a transaction of its own: should the daemon
 * die on the way, some were compiled again without need, and nobody runs what is no more. For the same reason thousands may be
 * withdrawn in slices. Between them a job may end that inlined the old body once more; it is withdrawn with the rest, of which
 * each slice takes more than jobs can add. */

struct inliners {
	uint32_t n, n_max;
	struct inliner rows[];
};

#define INLINE_VERSIONS LEDGER_LADDER	/* what a withdrawn method may need, if it is cold again */

static struct method *inline_method(const struct module *module, const struct inliner *row)
{
	return &module->methods[row->method];
}

static bool inline_is_active(const struct module *module, const struct inliner *row)
{
	return inline_method(module, row)->durable->active == row->version;
}

/* The version of its own body, which another has replaced */
static bool inline_is_saved(const struct module *module, const struct inliner *row)
{
	const struct ledger_method *durable = inline_method(module, row)->durable;

	return durable->body && durable->original_active == row->version;
}

/* -- The index --- */
static void inline_drop_dead(const struct module *module, struct inliners *inliners)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < inliners->n; i++)
		if (inline_is_active(module, &inliners->rows[i]) || inline_is_saved(module, &inliners->rows[i]))
			inliners->rows[n++] = inliners->rows[i];
	inliners->n = n;
}

/* Doubles what is still of interest, so that the work per row stays bounded. */
static bool inline_grow(struct method *method)
{
	struct inliners *inliners = method->inliners;
	uint32_t n_max;

	if (inliners && inliners->n < inliners->n_max)
		return true;
	if (inliners)
		inline_drop_dead(method->module, inliners);
	n_max = MAX(inliners ? 2 * inliners->n : 0, 4u);
	inliners = realloc(inliners, sizeof(*inliners) + n_max * sizeof(inliners->rows[0]));
	if (!inliners)
		return false;
	if (!method->inliners)
		inliners->n = 0;
	inliners->n_max = n_max;
	method->inliners = inliners;
	return true;
}

bool inline_reserve(struct module *module, const uint32_t *inlined, uint32_t n_inlined)
{
	for (uint32_t i = 0; i < n_inlined; i++)
		if (!inline_grow(&module->methods[inlined[i]]))
			return false;
	return true;
}

static bool inline_add(struct method *method, struct inliner row)
{
	/* one that is named twice had room for once */
	if (!inline_grow(method))
		return false;
	method->inliners->rows[method->inliners->n++] = row;
	return true;
}

bool inline_recover(struct method *inliner, uint32_t version)
{
	const struct ledger *ledger = &method_core(inliner)->ledger;
	const struct inliner row = { .method = method_index(inliner), .version = version };
	bool is_whole = true;

	for (uint32_t slot = ledger_version(ledger, version)->edges; slot != LEDGER_NONE; slot = ledger_edge(ledger, slot)->next)
		for (uint32_t i = 0; i < ledger_edge(ledger, slot)->n_methods; i++)
			is_whole &= inline_add(&inliner->module->methods[ledger_edge(ledger, slot)->methods[i]], row);
	return is_whole;
}

void inline_note(struct method *inliner, uint32_t version)
{
	inline_recover(inliner, version);
}

uint32_t inline_count(struct method *method, uint32_t n_enough)
{
	if (!method->inliners)
		return 0;
	if (method->inliners->n > n_enough)
		inline_drop_dead(method->module, method->inliners);
	return method->inliners->n;
}

bool inline_has(const struct method *method, const struct method *inliner, uint32_t version)
{
	for (uint32_t i = 0; method->inliners && i < method->inliners->n; i++)
		if (inline_method(method->module, &method->inliners->rows[i]) == inliner
		    && method->inliners->rows[i].version == version)
			return true;
	return method == inliner;	/* goes with its own body */
}

/* -- Withdrawal --- */
static void inline_queue(struct method *method, struct ledger_method *image, const struct ledger_version *first)
{
	if (version_room(method_core(method), method->module->user) >= INLINE_VERSIONS)
		queue_promote(method, image, first, TIER_REASON_INLINEE_REPLACED);
	else
		method_set_final(method, image, first, TIER_REASON_INLINEE_REPLACED);
}

/* Row of the code that it falls back to: the oldest that inlined nobody. Precompiled code has none before it, nor has what the
 * optimizer made for a first call; and who is not final has nothing that a job could be queued for. */
static uint32_t inline_kept(const struct method *method, const struct inliner *row)
{
	const struct ledger_method *durable = method->durable;
	const bool is_saved = durable->active != row->version;

	if ((is_saved ? durable->original_stage : durable->stage) != TIER_STAGE_FINAL)
		return LEDGER_NONE;
	return version_kept(method, is_saved ? 0 : durable->body);
}

static void inline_make_cold(struct method *method, const struct ledger_version *version)
{
	struct ledger_method *image = method_begin(method);

	version_drop(method, image->next);
	method_event(method, TIER_EVENT_WITHDRAWN, version->id, version->level, TIER_LEVEL_NONE, TIER_REASON_INLINEE_REPLACED);
	image->active = image->next = LEDGER_NONE;
	image->stage = TIER_STAGE_COLD;
	image->reason = TIER_REASON_NONE;
	image->generation++;
	method_commit(method, TIER_PATH_RESET);
}

static void inline_fall_back(struct method *method, const struct ledger_version *version, uint32_t kept)
{
	struct core *core = method_core(method);
	const struct ledger_version *first = ledger_version(&core->ledger, kept);
	struct ledger_method *image = method_begin(method);

	image->active = kept;
	image->generation++;
	image->reason = TIER_REASON_NONE;
	method_event(method, TIER_EVENT_WITHDRAWN, version->id, version->level, first->level, TIER_REASON_INLINEE_REPLACED);
	inline_queue(method, image, first);
	method_commit(method, TIER_PATH_WITHDRAWN);
}

static void inline_withdraw_active(struct method *method, const struct inliner *row)
{
	struct core *core = method_core(method);
	const struct ledger_version *version = ledger_version(&core->ledger, row->version);
	const uint32_t kept = inline_kept(method, row);

	core->counters.n_withdrawn++;
	if (kept == LEDGER_NONE)
		inline_make_cold(method, version);
	else
		inline_fall_back(method, version, kept);
}

static void inline_make_saved_cold(struct method *method, struct ledger_method *image)
{
	version_drop(method, image->original_next);
	image->original_active = image->original_next = LEDGER_NONE;
	image->original_stage = TIER_STAGE_COLD;
	image->original_reason = TIER_REASON_NONE;
}

/* Nobody runs it now: a revert will find its method cold, in the queue, or without room on its first code. */
static void inline_withdraw_saved(struct method *method, const struct inliner *row)
{
	struct core *core = method_core(method);
	const bool is_room = version_room(core, method->module->user) >= INLINE_VERSIONS;
	const uint32_t kept = inline_kept(method, row);
	struct ledger_method *image = method_begin(method);

	if (kept == LEDGER_NONE) {
		inline_make_saved_cold(method, image);
	} else {
		image->original_active = kept;
		image->original_stage = is_room ? TIER_STAGE_REACHED : TIER_STAGE_FINAL;
		image->original_reason = is_room ? TIER_REASON_NONE : TIER_REASON_INLINEE_REPLACED;
	}
	ledger_commit(&core->ledger);
	method_count_promise(method);
}

/* What it took of the slice */
static int inline_withdraw_row(struct method *method, const struct inliner *row)
{
	const uint64_t n_before = method_core(method)->counters.n_slots_examined;
	struct module *module = method->module;

	if (inline_method(module, row) == method)
		return SLICE_LOOK;	/* goes with its body, and comes back with it */
	if (inline_is_active(module, row))
		inline_withdraw_active(inline_method(module, row), row);
	else if (inline_is_saved(module, row))
		inline_withdraw_saved(inline_method(module, row), row);
	else
		return SLICE_LOOK;
	return slice_transition(module->core, n_before);
}

bool inline_makes_cold(struct method *method)
{
	const struct module *module = method->module;

	for (uint32_t i = 0; method->inliners && i < method->inliners->n; i++) {
		const struct inliner *row = &method->inliners->rows[i];

		if (inline_method(module, row) != method && (inline_is_active(module, row) || inline_is_saved(module, row))
		    && inline_kept(inline_method(module, row), row) == LEDGER_NONE)
			return true;
	}
	return false;
}

bool inline_withdraw(struct method *method)
{
	struct inliners *inliners = method->inliners;
	int budget = SLICE_BUDGET / 2;	/* each with its events and bells */
	uint32_t n = 0;

	if (!inliners)
		return true;
	/* nothing is added meanwhile: no job ends in here */
	for (; n < inliners->n && budget > 0; n++)
		budget -= inline_withdraw_row(method, &inliners->rows[n]);
	inliners->n -= n;
	memmove(inliners->rows, inliners->rows + n, inliners->n * sizeof(inliners->rows[0]));
	return !inliners->n;
}
