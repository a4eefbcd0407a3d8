/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include "bytecode/calls.h"
#include "code.h"

/* "m" has the given instructions, "other" calls nobody, imports 0 and 1 exist. */
static struct calls *calls_for(void **bytes, const struct insn *insns, uint32_t n)
{
	struct image image = code_image(bytes, insns, n);
	struct calls *calls;

	assert_int_equal(calls_new(&calls, &image), 0);
	return calls;
}

static void assert_related(const struct calls *calls, enum calls_relation relation, uint32_t method, const uint32_t *expected,
			   uint32_t n_expected)
{
	uint32_t n;
	const uint32_t *targets = calls_of(calls, relation, method, &n);

	assert_int_equal(n, n_expected);
	for (uint32_t i = 0; i < n; i++)
		assert_int_equal(targets[i], expected[i]);
}
#define RELATED(calls, relation, method, ...)                                                                          \
	assert_related(calls, CALLS_##relation, method, (const uint32_t[]){ 99, ##__VA_ARGS__ } + 1,                   \
		       sizeof((const uint32_t[]){ 99, ##__VA_ARGS__ }) / sizeof(uint32_t) - 1)

static void calls_are_known_from_both_ends(void **state)
{
	const struct insn insns[] = { CALL(INSN_CALL_METHOD, 1), CALL(INSN_CALL_METHOD, 0), CALL(INSN_CALL_METHOD, 1), EXIT };
	void *bytes;
	struct calls *calls = calls_for(&bytes, insns, 4);

	RELATED(calls, CALLEES, 0, 1, 0);
	RELATED(calls, CALLEES, 1);
	RELATED(calls, CALLERS, 0, 0);
	RELATED(calls, CALLERS, 1, 0);
	RELATED(calls, ADDRESSES, 0);
	RELATED(calls, IMPORTS, 0);
	calls_free(calls);
	free(bytes);
}

static void addresses_and_imports_are_noted_once(void **state)
{
	const struct insn insns[] = {
		LDDW(1, INSN_REF_METHOD, 0, 1), LDDW(2, INSN_REF_METHOD, 0, 1), LDDW(3, INSN_REF_IMPORT, 0, 1),
		CALL(INSN_CALL_IMPORT, 1), CALL(INSN_CALL_IMPORT, 0), LDDW(4, INSN_REF_NONE, 0, 1), EXIT,
	};
	void *bytes;
	struct calls *calls = calls_for(&bytes, insns, sizeof(insns) / sizeof(*insns));

	RELATED(calls, ADDRESSES, 0, 1);
	RELATED(calls, IMPORTS, 0, 1, 0);
	RELATED(calls, CALLEES, 0);
	RELATED(calls, CALLERS, 1);
	calls_free(calls);
	free(bytes);
}

/* the second half of a 64-bit immediate is no instruction, whatever it looks like */
static void the_second_half_of_an_immediate_calls_nobody(void **state)
{
	struct insn insns[] = { LDDW(1, INSN_REF_NONE, 0, 1), EXIT };
	void *bytes;
	struct calls *calls;

	insns[1] = CALL(INSN_CALL_METHOD, 1);
	calls = calls_for(&bytes, insns, 3);
	RELATED(calls, CALLEES, 0);
	calls_free(calls);
	free(bytes);
}

static void many_methods_that_call_each_other_take_linear_room(void **state)
{
	const uint32_t n = 1000;
	struct builder builder = BUILDER_NULL;
	uint32_t section = builder_string(&builder, ".text"), count;
	struct refusal refusal;
	struct calls *calls;
	struct image image;
	void *bytes;
	size_t size;

	for (uint32_t i = 0; i < n; i++) {
		const struct insn insns[] = { CALL(INSN_CALL_METHOD, (i * 7 + 1) % n), CALL(INSN_CALL_METHOD, 5), EXIT };

		builder_method(&builder, "f", section, i * 24, 0, insns, 3);
	}
	assert_int_equal(builder_finish(&builder, &bytes, &size), 0);
	assert_true(image_check(bytes, size, &image, &refusal));
	assert_int_equal(calls_new(&calls, &image), 0);
	calls_of(calls, CALLS_CALLERS, 5, &count);
	assert_int_equal(count, n);
	for (uint32_t i = 0; i < n; i++) {
		const uint32_t *callers = calls_of(calls, CALLS_CALLERS, i, &count);
		uint32_t callees;

		for (uint32_t k = 0; k < count; k++)
			assert_true((callers[k] * 7 + 1) % n == i || i == 5);
		calls_of(calls, CALLS_CALLEES, i, &callees);
		assert_true(callees == 2 || (i * 7 + 1) % n == 5);
	}
	calls_free(calls);
	builder_deinit(&builder);
	free(bytes);
}

static void a_body_from_elsewhere_calls_and_is_not_called(void **state)
{
	const struct insn insns[] = { EXIT }, body[] = { CALL(INSN_CALL_METHOD, 1), LDDW(2, INSN_REF_METHOD, 0, 0),
							 CALL(INSN_CALL_METHOD, 1), CALL(INSN_CALL_IMPORT, 1), EXIT };
	struct calls *calls;
	struct image image;
	uint32_t n;
	void *bytes;

	image = code_image(&bytes, insns, 1);
	assert_int_equal(calls_new_body(&calls, &image, body, 6), 0);
	assert_int_equal(calls_of(calls, CALLS_CALLEES, 0, &n)[0], 1);
	assert_int_equal(n, 1);
	assert_int_equal(calls_of(calls, CALLS_ADDRESSES, 0, &n)[0], 0);
	assert_int_equal(n, 1);
	assert_int_equal(calls_of(calls, CALLS_IMPORTS, 0, &n)[0], 1);
	assert_int_equal(n, 1);
	calls_of(calls, CALLS_CALLERS, 0, &n);
	assert_int_equal(n, 0);
	calls_free(calls);
	free(bytes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(calls_are_known_from_both_ends),
		cmocka_unit_test(addresses_and_imports_are_noted_once),
		cmocka_unit_test(the_second_half_of_an_immediate_calls_nobody),
		cmocka_unit_test(a_body_from_elsewhere_calls_and_is_not_called),
		cmocka_unit_test(many_methods_that_call_each_other_take_linear_room),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
