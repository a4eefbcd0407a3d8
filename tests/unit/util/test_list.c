/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_list_keeps_order_at_both_ends),
		cmocka_unit_test(a_removed_node_points_to_itself),
		cmocka_unit_test(the_current_node_may_leave_a_safe_walk),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
