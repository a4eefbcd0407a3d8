/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>
#include <unistd.h>
#include "system/bodies.h"
#include "system/harness.h"

/* Slots of processes that the daemon cannot reach any more. It replaces bodies without them, so what their slots hold must
 * be right whatever the method becomes: the method's address, never code. */

#define FDS_MAX 256

struct reach {
	struct daemon daemon;
	struct tier_conn *conn;
	struct tier_module *module;
	struct tier_method *victim;
	int lost[2], replaced[2];	/* pipes: the child has closed all descriptors; the parent has replaced the body */
};

static void reach_start(struct reach *reach)
{
	daemon_start(&reach->daemon, ARGS("--call-counting-delay=0"));
	reach->conn = daemon_connect(&reach->daemon);
	assert_done(tier_load(reach->conn, bpf_compile(reach->daemon.folder, "program", BODIES_PROGRAM, "-g"), NULL, 0, &reach->module));
	assert_done(tier_find(reach->module, "victim", &reach->victim));
	climb(reach->victim, NULL);
}

static void reach_end(struct reach *reach)
{
	tier_disconnect(reach->conn);
	daemon_stop(&reach->daemon);
}

static void slot_fill(struct tier_method *method, tier_fn *slot)
{
	assert_done(tier_slot_register(method, slot));
	assert_true(*slot != tier_entry(method));
	assert_int_equal((*slot)(3, 0, 0, 0, 0), BODY_RESULT(0, 3));
}

static void slot_expect_address(const struct tier_method *method, tier_fn *slot)
{
	wait_until("the slot holds the method's address", __atomic_load_n(slot, __ATOMIC_ACQUIRE) == tier_entry(method));
}

/* As programs do that become daemons of their own, libtier's descriptors included. */
static void descriptors_close(const struct reach *reach)
{
	for (int fd = 3; fd < FDS_MAX; fd++)
		if (fd != reach->lost[1] && fd != reach->replaced[0])
			close(fd);
}

static void child_closes_its_descriptors(void *context)
{
	const struct reach *reach = context;
	struct tier_conn *conn = daemon_connect(&reach->daemon);
	struct tier_method *victim;
	struct tier_module *module;
	tier_fn slot = NULL;
	char byte;

	child_assert(!tier_open(conn, "program", &module) && !tier_find(module, "victim", &victim));
	slot_fill(victim, &slot);
	descriptors_close(reach);
	child_assert(write(reach->lost[1], "x", 1) == 1);
	child_assert(read(reach->replaced[0], &byte, 1) == 1);
	slot_expect_address(victim, &slot);
	child_assert(slot(4, 0, 0, 0, 0) == BODY_RESULT(7, 4));
	child_assert(tier_entry(victim)(4, 0, 0, 0, 0) == BODY_RESULT(7, 4));
	child_assert(!tier_slot_unregister(victim, &slot));
}

static void a_process_that_closed_its_descriptors_runs_the_new_body(void **state)
{
	struct reach reach;
	pid_t child;
	char byte;

	reach_start(&reach);
	pipe_open(reach.lost);
	pipe_open(reach.replaced);
	child = child_start(child_closes_its_descriptors, &reach);
	assert_int_equal(read(reach.lost[0], &byte, 1), 1);
	assert_done(tier_rejit(reach.victim, body_compile(reach.daemon.folder, "fresh", 7), "fresh", 0));
	assert_int_equal(tier_entry(reach.victim)(4, 0, 0, 0, 0), BODY_RESULT(7, 4));	/* the child could not ask for code */
	assert_int_equal(write(reach.replaced[1], "x", 1), 1);
	child_end(child);
	for (int i = 0; i < 2; i++) {
		close(reach.lost[i]);
		close(reach.replaced[i]);
	}
	reach_end(&reach);
}

/* Its successor would take the method over. */
static void the_daemon_is_killed_and_slots_lead_to_their_methods(void **state)
{
	struct reach reach;
	tier_fn slot = NULL;

	reach_start(&reach);
	slot_fill(reach.victim, &slot);
	daemon_kill(&reach.daemon);
	slot_expect_address(reach.victim, &slot);
	assert_int_equal(slot(5, 0, 0, 0, 0), BODY_RESULT(0, 5));
	assert_done(tier_slot_unregister(reach.victim, &slot));
	reach_end(&reach);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_process_that_closed_its_descriptors_runs_the_new_body),
		cmocka_unit_test(the_daemon_is_killed_and_slots_lead_to_their_methods),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
