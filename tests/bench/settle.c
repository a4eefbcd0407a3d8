/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/settle.h"
#include "system/harness.h"

/* The method number *index of the module, or the next behind it, that is still on its way; NULL when none is. */
static struct tier_method *next_optimizing(struct tier_module *module, uint32_t *index)
{
	struct tier_method *method;

	for (; !tier_method_at(module, *index, &method); ++*index)
		if (tier_status(method).status == TIER_STATUS_OPTIMIZING)
			return method;
	return NULL;
}

int64_t settle(struct tier_module *module, const struct workload_input *input, workload_function *fn)
{
	struct tier_method *method;
	struct tier_answer answer;
	int64_t n_calls = 0;
	int r;

	for (uint32_t index = 0; (method = next_optimizing(module, &index)); index++) {
		do {
			r = tier_wait(method, TEST_DEADLINE_NS, NULL, &answer);
			if (r)
				return r;
			input_call(input, fn);
			n_calls++;
			/* A callee that was inlined everywhere is not called any more: its count stands still. */
		} while (answer.status == TIER_STATUS_OPTIMIZING && tier_remaining(method) < answer.remaining);
	}
	return n_calls;
}
