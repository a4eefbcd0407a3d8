/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A workload's method against its vectors and against the native build: the result, and every byte written */

#include <stdlib.h>
#include <string.h>
#include "bench/inputs.h"
#include "system/harness.h"

static inline uint64_t results_call(const struct tier_method *method, const struct workload_input *input)
{
	return input_call(input, tier_entry(method));
}

static inline void results_fail(const struct workload *workload, const struct tier_method *method, const char *what,
				uint64_t result, uint64_t expected)
{
	fail_msg("%s at %s, %s: %#lx instead of %#lx, or other bytes", workload->name,
		 tier_level_name(tier_status(method).tier), what, result, expected);
}

static inline void results_check_native(const struct workload *workload, const struct tier_method *method)
{
	struct workload_input *input = input_make(workload->name);
	uint64_t result, expected;
	uint8_t *buffer;

	assert_non_null(input);
	buffer = malloc(input->n_buffer);
	assert_non_null(buffer);
	expected = input_call(input, workload->native);
	memcpy(buffer, input->buffer, input->n_buffer);
	input_reset(input);
	result = results_call(method, input);
	if (result != expected || memcmp(input->buffer, buffer, input->n_buffer))
		results_fail(workload, method, "against the native build", result, expected);
	free(buffer);
	input_free(input);
}

/* Calls the method with each of its vectors; returns how many there are. */
static inline unsigned int results_check_vectors(const struct workload *workload, const struct tier_method *method)
{
	unsigned int n = 0;

	for (const struct workload_vector *v = workload_vectors; v < workload_vectors + n_workload_vectors; v++) {
		struct workload_input *input;
		uint64_t result;

		if (strcmp(v->workload, workload->name))
			continue;
		input = input_make_vector(v);
		assert_non_null(input);
		result = results_call(method, input);
		if (result != v->result || (v->n_out && memcmp(input->out, v->out, v->n_out)))
			results_fail(workload, method, v->text, result, v->result);
		input_free(input);
		n++;
	}
	return n;
}
