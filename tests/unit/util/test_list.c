/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>
#include "util/base.h"
#include "util/list.h"

struct item {
	int value;
	struct list link;
};

static int sum(struct list *head)
{
	struct list *pos;
	int n = 0;

	list_for_each(pos, head)
		n = n * 10 + list_entry(pos, struct item, link)->value;
	return n;
}

static void a_list_keeps_order_at_both_ends(void **state)
{
	struct list head = LIST_INIT(head);
	struct item items[3] = { { .value = 1 }, { .value = 2 }, { .value = 3 } };

	assert_true(list_is_empty(&head));
	assert_null(list_first(&head));
	list_append(&head, &items[1].link);
	list_append(&head, &items[2].link);
	list_prepend(&head, &items[0].link);
	assert_int_equal(sum(&head), 123);
	assert_ptr_equal(list_first(&head), &items[0].link);
}

static void a_removed_node_points_to_itself(void **state)
{
	struct list head = LIST_INIT(head);
	struct item item = { .value = 1 };

	list_append(&head, &item.link);
	assert_true(list_is_linked(&item.link));
	list_remove(&item.link);
	assert_false(list_is_linked(&item.link));
	assert_true(list_is_empty(&head));
	list_remove(&item.link);
	assert_true(list_is_empty(&head));
}

static void the_current_node_may_leave_a_safe_walk(void **state)
{
	struct list head = LIST_INIT(head), *pos, *after;
	struct item items[4] = { { .value = 1 }, { .value = 2 }, { .value = 3 }, { .value = 4 } };

	for (int i = 0; i < 4; i++)
		list_append(&head, &items[i].link);
	list_for_each_safe(pos, after, &head)
		if (list_entry(pos, struct item, link)->value % 2)
			list_remove(pos);
	assert_int_equal(sum(&head), 24);
}

/* -- Order --- */
#define MANY 100000u
#define MANY_LOG2 17u

static uint64_t n_comparisons;

static bool is_before(const struct list *a, const struct list *b)
{
	n_comparisons++;
	return list_entry(a, struct item, link)->value / 2 < list_entry(b, struct item, link)->value / 2;
}

/* @step: 1 and MANY - 1 give ascending and descending values, others mix them. Pairs of values are equal to is_before(). */
static void sort_many(struct item *items, uint32_t step)
{
	struct list head = LIST_INIT(head), *pos;
	uint32_t n = 0;
	uint8_t *is_there = calloc(MANY, 1);
	int last = -1;

	for (uint32_t i = 0; i < MANY; i++) {
		items[i].value = (uint64_t)i * step % MANY;
		list_append(&head, &items[i].link);
	}
	n_comparisons = 0;
	list_sort(&head, is_before);
	assert_true(n_comparisons <= (uint64_t)MANY * MANY_LOG2);
	list_for_each(pos, &head) {
		const struct item *item = list_entry(pos, struct item, link);

		assert_ptr_equal(pos->next->previous, pos);
		assert_true(item->value / 2 >= last / 2);
		if (last >= 0 && item->value / 2 == last / 2)
			assert_true(list_entry(pos->previous, struct item, link) < item);
		assert_false(is_there[item->value]++);
		last = item->value;
		n++;
	}
	assert_int_equal(n, MANY);
	free(is_there);
}

static void many_are_sorted_in_few_steps_and_equal_ones_keep_their_order(void **state)
{
	static const uint32_t steps[] = { 1, MANY - 1, 7919, MANY / 2 + 1 };
	struct item *items = calloc(MANY, sizeof(*items));

	assert_non_null(items);
	for (size_t i = 0; i < ARRAY_SIZE(steps); i++)
		sort_many(items, steps[i]);
	free(items);
}

static void short_lists_are_sorted(void **state)
{
	struct list head = LIST_INIT(head);
	struct item items[3] = { { .value = 6 }, { .value = 4 }, { .value = 2 } };
	static const int sums[] = { 6, 46, 246 };

	list_sort(&head, is_before);
	assert_true(list_is_empty(&head));
	for (int i = 0; i < 3; i++) {
		list_append(&head, &items[i].link);
		list_sort(&head, is_before);
		assert_int_equal(sum(&head), sums[i]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_list_keeps_order_at_both_ends),
		cmocka_unit_test(a_removed_node_points_to_itself),
		cmocka_unit_test(the_current_node_may_leave_a_safe_walk),
		cmocka_unit_test(many_are_sorted_in_few_steps_and_equal_ones_keep_their_order),
		cmocka_unit_test(short_lists_are_sorted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
