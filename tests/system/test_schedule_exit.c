/* SPDX-License-Identifier: Apache-2.0 */
#include "system/schedule_walk.h"

/* A daemon dies at each place in turn; and when one has died, its successor dies once in each place of its taking over,
 * or is refused something there. */

static bool is_death(enum side side, enum fault_kind kind)
{
	return side == SIDE_SUCCESSOR || (side == SIDE_DAEMON && kind == FAULT_EXIT);
}

static void a_daemon_may_die_anywhere(void **state) { walk_schedule(is_death); }

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(a_daemon_may_die_anywhere),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
