/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>
#include "server/session.h"
#include "server/settle.h"
#include "server/state.h"
#include "server/wait.h"
#include "util/base.h"

/* From the method along what each can have called. A method that has no code was not called, so nothing is looked for behind
 * it. What the active version of a method inlined runs there and calls from there, whether it was ever called by itself; as
 * far as this method goes it is not called any more, so it need not come to an end of its own.
 *
 * Two bits per method: met, and still open. A module has tens of thousands of methods, so this goes in slices; what changes
 * in between is seen as it was or as it is. */

#define SETTLE_TURN_NS 500000u
#define SETTLE_CALLED 64u
#define SETTLE_PARTS 65u		/* of a method's code: itself, and what it inlined; others are taken for called */
#define SETTLINGS_PER_SESSION 1u	/* that take more than a slice */

struct settling {
	uint32_t n_words;
	uint32_t at;			/* the word of open[] to look at next */
	/* the method that is being looked at, behind it what it inlined */
	uint32_t parts[SETTLE_PARTS];
	uint32_t n_parts, part;		/* which one is; none is left when it is n_parts */
	uint64_t from;			/* of what that called */
	struct wire_settlement found;
	uint64_t *open, *met;		/* n_words each */
};

static struct settling *settling_new(uint32_t n_methods)
{
	const uint32_t n_words = (n_methods + 63) / 64;
	struct settling *settling = calloc(1, sizeof(*settling) + 2 * n_words * sizeof(uint64_t));

	if (!settling)
		return NULL;
	settling->n_words = n_words;
	settling->open = (uint64_t *)(settling + 1);
	settling->met = settling->open + n_words;
	return settling;
}

/* -- What is found --- */
static uint64_t progress_add(uint64_t progress, uint64_t value)
{
	return (progress ^ value) * 0x100000001b3u;
}

/* Code for a loop that runs for long may come although the method is at its final tier, or counts calls. */
static void settling_count(struct settling *settling, uint32_t method, const struct tier_answer *answer, bool osr_is_pending)
{
	struct wire_settlement *const found = &settling->found;

	found->n_methods++;
	found->progress = progress_add(found->progress, answer->generation << 24 ^ (uint64_t)answer->stage << 20 ^ answer->remaining
							     ^ (uint64_t)osr_is_pending << 63);
	if (answer->status != TIER_STATUS_OPTIMIZING && !osr_is_pending)
		return;
	if (found->n < WIRE_UNSETTLED_MAX)
		found->unsettled[found->n++] = method;
	found->n_unsettled++;
	if (!answer->remaining || osr_is_pending)
		found->n_pending++;
	if (answer->stage == TIER_STAGE_COUNTING)
		found->calls = MAX(found->calls, answer->remaining);
}

static void settling_meet(struct settling *settling, struct module *module, uint32_t method, bool is_asked_for)
{
	const uint64_t bit = UINT64_C(1) << method % 64;
	struct tier_answer answer;

	if (method / 64 >= settling->n_words || settling->met[method / 64] & bit)
		return;
	answer = core_answer(module, method);
	if (answer.status == TIER_STATUS_COLD && !is_asked_for)
		return;
	settling->met[method / 64] |= bit;
	settling->open[method / 64] |= bit;
	settling_count(settling, method, &answer, core_osr_is_pending(module, method));
}

static bool settling_is_part(const struct settling *settling, uint32_t method)
{
	for (uint32_t i = 0; i < settling->n_parts; i++)
		if (settling->parts[i] == method)
			return true;
	return false;
}

/* -- On --- */
static void settling_take(struct settling *settling, struct module *module, uint32_t method)
{
	settling->parts[0] = method;
	settling->n_parts = 1;
	settling->part = 0;
	settling->from = 0;
	for (uint32_t i = 0; settling->n_parts < SETTLE_PARTS
			     && core_active_inlined(module, method, i, &settling->parts[settling->n_parts]); i++)
		settling->n_parts++;
}

/* False: none is open. */
static bool settling_next(struct settling *settling, struct module *module)
{
	for (uint32_t i = 0; i < settling->n_words; i++) {
		const uint32_t word = (settling->at + i) % settling->n_words;

		if (!settling->open[word])
			continue;
		settling->at = word;
		settling_take(settling, module, word * 64 + __builtin_ctzll(settling->open[word]));
		settling->open[word] &= settling->open[word] - 1;
		return true;
	}
	return false;
}

/* True: it is complete. */
static bool settling_run(struct settling *settling, const struct server *server, struct module *module)
{
	const uint64_t begin = clock_now_ns();
	uint32_t called[SETTLE_CALLED], n;

	while (clock_now_ns() - begin < SETTLE_TURN_NS) {
		if (settling->part == settling->n_parts && !settling_next(settling, module))
			return true;
		n = server->ops->called(core_module_context(module), settling->parts[settling->part], &settling->from, called,
					SETTLE_CALLED);
		for (uint32_t i = 0; i < n; i++)
			if (!settling_is_part(settling, called[i]))
				settling_meet(settling, module, called[i], false);
		if (settling->from != SERVER_CALLED_END)
			continue;
		settling->part++;
		settling->from = 0;
	}
	return false;
}

/* -- Requests --- */
static void settling_reply(struct settling *settling, struct lane *lane, uint64_t serial)
{
	settling->found.is_settled = !settling->found.n_unsettled;
	lane_reply(lane, serial, WIRE_SETTLEMENT, &settling->found);
}

void settle_free(struct wait *wait)
{
	wait->lane->session->n_settlings--;
	free(TAKE_PTR(wait->settling));
}

void settle_look(struct server *server, struct wait *wait)
{
	struct module *module = core_module_by_id(server->core, wait->resident->id);

	if (!module) {
		wait_end(wait, TIER_ERROR_NO_MODULE);
	} else if (settling_run(wait->settling, server, module)) {
		settling_reply(wait->settling, wait->lane, wait->serial);
		wait_free(wait);
	} else {
		wait_look_again(server, wait);
	}
}

/* Takes the settling. */
static void settle_later(struct lane *lane, const struct request *request, struct settling *settling)
{
	const struct wire_method_ref *ref = request->body;
	struct wait *wait = NULL;

	if (lane->session->n_settlings >= SETTLINGS_PER_SESSION)
		lane_error(lane, request->serial, TIER_ERROR_QUOTA, "the session has another SETTLED under way");
	else
		wait = wait_new(lane, request->serial, WAIT_SETTLED, UINT64_MAX);
	if (!wait) {
		free(settling);
		return;
	}
	wait->settling = settling;
	lane->session->n_settlings++;
	if (!wait_for_module(wait, ref->module, ref->method))
		return;
	list_remove(&wait->link);
	wait_look_again(lane->server, wait);
}

int settle_request(struct lane *lane, const struct request *request)
{
	struct server *server = lane->server;
	const struct wire_method_ref *ref = request->body;
	struct module *module = session_method(lane, request->serial, ref->module, ref->method);
	struct core_module_info info;
	struct settling *settling;

	if (!module)
		return 0;
	core_module_info(module, &info);
	settling = settling_new(info.layout.n_methods);
	if (!settling)
		return lane_error(lane, request->serial, TIER_ERROR_NO_MEMORY, NULL);
	server->ops->drain(server->context);
	settling_meet(settling, module, ref->method, true);
	if (settling_run(settling, server, module)) {
		settling_reply(settling, lane, request->serial);
		free(settling);
	} else {
		settle_later(lane, request, settling);
	}
	return 0;
}
