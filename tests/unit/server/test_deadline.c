/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>
#include "server/deadline.h"
#include "util/base.h"

#define N 2000

static void deadlines_come_out_in_order(void **state)
{
	struct deadline_heap heap = {};
	struct deadline deadlines[N] = {}, *first;
	uint64_t last = 0;
	size_t n = 0;

	srand(1);
	for (int i = 0; i < N; i++)
		assert_int_equal(deadline_add(&heap, &deadlines[i], rand() % 500), 0);
	while ((first = deadline_first(&heap))) {
		assert_true(first->at_ns >= last);
		last = first->at_ns;
		deadline_remove(&heap, first);
		assert_int_equal(first->place, 0);
		n++;
	}
	assert_int_equal(n, N);
	deadline_heap_deinit(&heap);
}

static void any_deadline_may_leave_at_any_time(void **state)
{
	struct deadline_heap heap = {};
	struct deadline deadlines[N] = {};

	srand(2);
	for (int i = 0; i < 20 * N; i++) {
		struct deadline *d = &deadlines[rand() % N];
		uint64_t least = UINT64_MAX;

		if (d->place)
			deadline_remove(&heap, d);
		else
			assert_int_equal(deadline_add(&heap, d, rand()), 0);
		if (i % 100)
			continue;
		for (int k = 0; k < N; k++)
			if (deadlines[k].place)
				least = MIN(least, deadlines[k].at_ns);
		assert_true(heap.n ? deadline_first(&heap)->at_ns == least : least == UINT64_MAX);
		for (size_t k = 2; k <= heap.n; k++)
			assert_true(heap.entries[k / 2]->at_ns <= heap.entries[k]->at_ns && heap.entries[k]->place == k);
	}
	deadline_heap_deinit(&heap);
}

static void removing_twice_is_harmless(void **state)
{
	struct deadline_heap heap = {};
	struct deadline a = {}, b = {};

	assert_null(deadline_first(&heap));
	assert_int_equal(deadline_add(&heap, &a, 1), 0);
	assert_int_equal(deadline_add(&heap, &b, 2), 0);
	deadline_remove(&heap, &a);
	deadline_remove(&heap, &a);
	assert_ptr_equal(deadline_first(&heap), &b);
	deadline_heap_deinit(&heap);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(deadlines_come_out_in_order),
		cmocka_unit_test(any_deadline_may_leave_at_any_time),
		cmocka_unit_test(removing_twice_is_harmless),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
