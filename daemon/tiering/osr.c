/* SPDX-License-Identifier: Apache-2.0 */
#include "tiering/internal.h"

/* On-stack replacement (reference §8)
 *
 * A frame that loops for long in unoptimized code asks for code that goes on at the head of its loop. That is a version of
 * its method's own body, in the chain with the others, but beside the ladder: never the active one, never counted, and
 * nothing that the method answers tells of it. It waits in the same queue as promotions do, and its code goes into the
 * patchpoint's record, where this frame and all others find it.
 *
 *   asked for ──► waits ──► is made ──► live: the patchpoint leads to it
 *       ▲            │         └──► failed: never asked for again
 *       └────────────┴── given up: the body is no longer the method's, or what it may have inlined was replaced
 *
 * Nobody writes down in the index of inliners what such code inlined: any replacement in the module takes all of it away.
 * What is running then ends unused; what waits is made of the bodies of then, unless its own was replaced.
 *
 * A version names its patchpoint as long as that is to lead to it, or is not to be asked for again because it failed; so a
 * successor finds what was live, what waited, in order, and what was being made. What is given up or taken away names none: that
 * is one store without a transaction, before the one that replaces the body, and after the patchpoint leads nowhere. A version
 * that is live and names none is kept for the frames in it. */

#define OSR_RESERVE 16u /* that part of a uid's versions is left to bodies that are still to come */

struct osr *osr_free(struct osr *osr)
{
	if (osr)
		list_remove(&osr->link);
	free(osr);
	return NULL;
}

static struct osr *osr_new(struct method *method, uint32_t row, uint32_t patchpoint)
{
	struct osr *osr = malloc(sizeof(*osr));

	if (osr)
		*osr = (struct osr){
			.link = LIST_INIT(osr->link), .module = method->module, .method = method_index(method),
			.row = row, .patchpoint = patchpoint,
		};
	return osr;
}

/* -- Patchpoints --- */
static struct tier_patchpoint *osr_patchpoint(const struct module *module, uint32_t number)
{
	const struct core *core = module->core;

	return core->ops->alias(core->context, module->context, tier_layout_patchpoint(&module->durable->layout, number));
}

struct method *osr_method(const struct osr *osr)
{
	return &osr->module->methods[osr->method];
}

static struct ledger_version *osr_version(const struct osr *osr)
{
	return ledger_version(&osr->module->core->ledger, osr->row);
}

/* Where its frames go on from now on; 0: nowhere else */
static void osr_lead(const struct osr *osr, uint64_t code)
{
	mark_begin(osr->module);
	/* Synchronizes with the acquire load in libtier's osr_enter(): first the code's bytes, then its address. */
	__atomic_store_n(&osr_patchpoint(osr->module, osr->patchpoint)->code, code, __ATOMIC_RELEASE);
	mark_end(osr->module);
}

/* -- For which patchpoints code is on its way, or cannot be made --- */
static bool osr_is_known(const struct module *module, uint32_t patchpoint)
{
	return module->osr_known && module->osr_known[patchpoint / 64] >> patchpoint % 64 & 1;
}

static bool osr_note(struct module *module, uint32_t patchpoint)
{
	if (!module->osr_known)
		module->osr_known = calloc(module->durable->layout.n_patchpoints / 64 + 1, sizeof(*module->osr_known));
	if (!module->osr_known)
		return false;
	module->osr_known[patchpoint / 64] |= UINT64_C(1) << patchpoint % 64;
	return true;
}

static void osr_forget(struct module *module, uint32_t patchpoint)
{
	module->osr_known[patchpoint / 64] &= ~(UINT64_C(1) << patchpoint % 64);
}

/* -- Asking --- */
static bool osr_is_wanted(const struct method *method)
{
	const struct core *core = method_core(method);

	return method_stage(method) != TIER_STAGE_COLD && !method_body(method)
	    && version_room(core, method->module->user) > core->share[ROWS_VERSIONS] / OSR_RESERVE
	    && !(ladder_traits(method) & CORE_TRAIT_NO_OPTIMIZATION);
}

/* Its ticket is the highest. */
static void osr_enter_queue(struct osr *osr)
{
	list_append(&osr->module->osr_queue, &osr->link);
	queue_count(osr->module, 1);
	queue_link(osr->module);
}

static void osr_leave_queue(struct osr *osr)
{
	list_remove(&osr->link);
	queue_count(osr->module, -1);
	queue_link(osr->module);
}

/* A version that is no rung of the ladder: nothing of the method's changes but its chain. */
static void osr_commit_request(struct osr *osr, struct method *method)
{
	struct core *core = method_core(method);
	struct ledger_method *image = method_begin(method);
	const uint32_t next = image->next;
	const struct ladder_step step = { .level = TIER_LEVEL_OSR, .profile = LEDGER_NONE };
	struct ledger_version *version = version_new(method, image, &step);

	osr->row = image->chain;
	osr->ticket = version->ticket = ledger_ticket(&core->ledger);
	version->patchpoint = osr->patchpoint;
	image->next = next;
	method_event(method, TIER_EVENT_OSR_REQUESTED, version->id, method_level(method), TIER_LEVEL_OSR, TIER_REASON_LOOP);
	ledger_commit(&core->ledger);
}

void core_osr_request(struct core *core, uint64_t module_id, uint32_t patchpoint)
{
	struct module *module = core_module_by_id(core, module_id);
	const struct tier_patchpoint *record;
	struct method *method;
	struct osr *osr;

	if (!module || !module->records || patchpoint >= module->durable->layout.n_patchpoints)
		return;
	record = osr_patchpoint(module, patchpoint);
	method = &module->methods[record->method];
	if (record->code || osr_is_known(module, patchpoint) || !osr_is_wanted(method))
		return;
	osr = osr_new(method, LEDGER_NONE, patchpoint);
	if (!osr || !osr_note(module, patchpoint)) {
		osr_free(osr);	/* a later hit asks again */
		return;
	}
	osr_commit_request(osr, method);
	method->n_osr++;
	osr_enter_queue(osr);
	core_ring(core, NULL, 0);
	core_proceed(core);
}

bool core_osr_is_pending(const struct module *module, uint32_t method)
{
	return module->methods[method].n_osr;
}

/* -- Its job --- */
uint64_t osr_ticket(const struct module *module)
{
	return list_is_empty(&module->osr_queue) ? UINT64_MAX : list_entry(module->osr_queue.next, struct osr, link)->ticket;
}

static void osr_give_up(struct osr *osr)
{
	struct core *core = osr->module->core;
	struct ledger_version *image;

	ledger_begin(&core->ledger);
	image = ledger_edit(&core->ledger, osr_version(osr));
	image->state = LEDGER_FAILED;
	image->patchpoint = LEDGER_NONE;
	ledger_commit(&core->ledger);
	osr_forget(osr->module, osr->patchpoint);
	osr_method(osr)->n_osr--;
}

struct osr *osr_first(struct module *module)
{
	struct osr *osr = list_entry(module->osr_queue.next, struct osr, link);

	if (!method_body(osr_method(osr)))
		return osr;
	osr_leave_queue(osr);
	osr_give_up(osr);
	return osr_free(osr);
}

void osr_start(struct osr *osr)
{
	const struct ledger_version *version = osr_version(osr);
	struct method *method = osr_method(osr);
	struct core *core = method_core(method);

	osr_leave_queue(osr);
	method_begin(method);
	ledger_edit(&core->ledger, osr_version(osr))->is_begun = true;
	user_take_turn(method->module->user);
	method_event(method, TIER_EVENT_COMPILE_STARTED, version->id, method_level(method), TIER_LEVEL_OSR, TIER_REASON_NONE);
	ledger_commit(&core->ledger);
	core_ring(core, NULL, 0);
}

static enum tier_reason osr_take(const struct osr *osr, const struct core_result *result, uint32_t *edges)
{
	struct method *method = osr_method(osr);

	if (osr->is_void)
		return TIER_REASON_INLINEE_REPLACED;
	for (uint32_t i = 0; i < result->n_inlined; i++)
		if (result->inlined[i] >= method->module->n_methods)
			return TIER_REASON_RESULT_REFUSED;
	/* for people to read */
	if (!version_note_inlined(method, osr->row, osr_version(osr)->id, result->inlined, result->n_inlined, edges))
		return TIER_REASON_RESULT_REFUSED;
	return TIER_REASON_NONE;
}

/* @result: if @reason is NONE */
static void osr_commit_end(const struct osr *osr, enum tier_reason reason, const struct core_result *result, uint32_t edges)
{
	struct method *method = osr_method(osr);
	struct core *core = method_core(method);
	struct ledger_version *image;

	method_begin(method);
	image = ledger_edit(&core->ledger, osr_version(osr));
	image->is_begun = false;
	method_event(method, TIER_EVENT_COMPILE_ENDED, image->id, method_level(method), TIER_LEVEL_OSR, reason);
	if (reason == TIER_REASON_NONE) {
		version_set_live(core, image, &result->code);
		image->edges = edges;
		module_note_code(method->module, &result->code);
		method_event(method, TIER_EVENT_OSR_READY, image->id, method_level(method), TIER_LEVEL_OSR, TIER_REASON_LOOP);
	} else {
		image->state = LEDGER_FAILED;
		if (osr->is_void)
			image->patchpoint = LEDGER_NONE;
	}
	ledger_commit(&core->ledger);
}

void osr_end(struct osr *osr, enum tier_reason reason, const struct core_result *result)
{
	struct module *module = osr->module;
	uint32_t edges = LEDGER_NONE;

	if (reason == TIER_REASON_NONE)
		reason = osr_take(osr, result, &edges);
	osr_commit_end(osr, reason, result, edges);
	osr_method(osr)->n_osr--;
	if (reason == TIER_REASON_NONE) {
		osr_lead(osr, result->code.address);
		osr_forget(module, osr->patchpoint);
		list_append(&module->osr_live, &osr->link);
	}
	core_ring(module->core, NULL, 0);
	if (reason == TIER_REASON_NONE)
		slot_take_sites(module, result);
	else
		osr_free(osr);
}

/* -- A body is replaced --- */
/* No patchpoint is to lead to it, now or for a successor. */
static void osr_forsake(const struct osr *osr)
{
	__atomic_store_n(&osr_version(osr)->patchpoint, LEDGER_NONE, __ATOMIC_RELEASE);
}

static void osr_void_jobs(struct module *module, const struct list *jobs)
{
	const struct list *pos;

	list_for_each(pos, jobs) {
		struct osr *osr = list_entry(pos, struct job, link)->osr;

		if (!osr || osr->module != module || osr->is_void)
			continue;
		osr->is_void = true;
		osr_forsake(osr);
		osr_forget(module, osr->patchpoint);
	}
}

bool osr_withdraw(struct module *module)
{
	int budget = SLICE_BUDGET / 2;
	struct list *link;

	for (; (link = list_first(&module->osr_live)); budget -= SLICE_ROW) {
		struct osr *osr = list_entry(link, struct osr, link);

		if (budget <= 0)
			return false;
		osr_lead(osr, 0);
		osr_forsake(osr);
		osr_free(osr);
	}
	osr_void_jobs(module, &module->core->jobs);
	osr_void_jobs(module, &module->core->lost);
	return true;
}

/* -- A module's life --- */
/* From the end, as core_module_remove() does with methods. */
void osr_forget_queue(struct module *module)
{
	while (!list_is_empty(&module->osr_queue)) {
		struct osr *osr = list_entry(module->osr_queue.previous, struct osr, link);

		osr_leave_queue(osr);
		osr_free(osr);
	}
}

bool osr_forget_live(struct module *module, int *budget)
{
	struct list *link;

	for (; (link = list_first(&module->osr_live)); *budget -= SLICE_ROW) {
		if (*budget <= 0)
			return false;
		osr_free(list_entry(link, struct osr, link));
	}
	return true;
}

void osr_free_all(struct module *module)
{
	struct list *link;

	while ((link = list_first(&module->osr_queue)) || (link = list_first(&module->osr_live)))
		osr_free(list_entry(link, struct osr, link));
	free(module->osr_known);
	module->osr_known = NULL;
}

struct osr *osr_recover_job(struct method *method, uint32_t row)
{
	struct module *module = method->module;
	const uint32_t patchpoint = ledger_version(&module->core->ledger, row)->patchpoint;
	struct osr *osr = osr_new(method, row, patchpoint);

	if (!osr)
		return NULL;
	osr->is_void = patchpoint >= module->durable->layout.n_patchpoints;
	if (!osr->is_void && !osr_note(module, patchpoint))
		return osr_free(osr);
	method->n_osr++;
	return osr;
}

static bool osr_recover_waiting(struct method *method, uint32_t row)
{
	const struct ledger_version *version = ledger_version(&method_core(method)->ledger, row);
	struct osr *osr = osr_new(method, row, version->patchpoint);

	if (!osr || !osr_note(method->module, version->patchpoint)) {
		osr_free(osr);
		return false;
	}
	osr->ticket = version->ticket;
	method->n_osr++;
	list_append(&osr->module->osr_queue, &osr->link);	/* osr_recover_order() is still to come */
	queue_count(osr->module, 1);
	return true;
}

static bool osr_is_before(const struct list *a, const struct list *b)
{
	return list_entry(a, struct osr, link)->ticket < list_entry(b, struct osr, link)->ticket;
}

/* Chains tell of the newest first, and any number of frames may wait. */
void osr_recover_order(struct module *module)
{
	list_sort(&module->osr_queue, osr_is_before);
	queue_link(module);
}

/* What has begun is queue.c's to find again. */
bool osr_recover(struct method *method, uint32_t row)
{
	const struct ledger_version *version = ledger_version(&method_core(method)->ledger, row);
	struct module *module = method->module;
	struct osr *osr;

	if (version->patchpoint >= module->durable->layout.n_patchpoints || version->is_begun)
		return true;
	if (version->state == LEDGER_FAILED)
		return osr_note(module, version->patchpoint);
	if (version->state == LEDGER_MAKING)
		return osr_recover_waiting(method, row);
	osr = osr_new(method, row, version->patchpoint);
	if (osr)
		list_append(&module->osr_live, &osr->link);
	return osr;
}

/* The predecessor may have died between the commit and the store. */
void osr_attach(struct module *module)
{
	struct list *pos;

	list_for_each(pos, &module->osr_live) {
		const struct osr *osr = list_entry(pos, struct osr, link);

		if (osr_patchpoint(module, osr->patchpoint)->code != osr_version(osr)->code)
			osr_lead(osr, osr_version(osr)->code);
	}
}

/* -- Invariants --- */
static const char *osr_check_queue(const struct module *module, uint32_t *n)
{
	const struct list *pos;
	uint64_t last = 0;

	list_for_each(pos, &module->osr_queue) {
		const struct osr *osr = list_entry(pos, struct osr, link);
		const struct ledger_version *version = osr_version(osr);

		if (osr->ticket <= last)
			return "who asked first for OSR code comes first";
		if (version->state != LEDGER_MAKING || version->level != TIER_LEVEL_OSR || version->patchpoint != osr->patchpoint
		    || version->module != module->id || !osr_is_known(module, osr->patchpoint))
			return "OSR code that waits has a version, and is not asked for again";
		last = osr->ticket;
		++*n;
	}
	return NULL;
}

const char *osr_check(const struct module *module, uint32_t *n_waiting)
{
	uint32_t n_live = 0, n_led = 0;
	const struct list *pos;

	*n_waiting = 0;
	list_for_each(pos, &module->osr_live) {
		const struct osr *osr = list_entry(pos, struct osr, link);
		const struct ledger_version *version = osr_version(osr);

		if (version->state != LEDGER_LIVE || version->level != TIER_LEVEL_OSR || version->module != module->id)
			return "OSR code is a live version's";
		if (module->records && osr_patchpoint(module, osr->patchpoint)->code != version->code)
			return "a patchpoint leads to its version's code";
		n_live++;
	}
	for (uint32_t i = 0; module->records && i < module->durable->layout.n_patchpoints; i++)
		n_led += osr_patchpoint(module, i)->code != 0;
	if (module->records && n_led != n_live)
		return "a patchpoint leads to live code or nowhere";
	return osr_check_queue(module, n_waiting);
}
