/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>
#include "bench/inputs.h"
#include "bench/settle.h"
#include "system/harness.h"
#include "system/results.h"
#include "util/base.h"

/* Whole programs on the whole ladder: every workload gives the native results, whatever tier its methods are at and however its
 * loops go on, while their callees climb and frames leave tier 0 at their first or second turn of each loop. */

#define ROUNDS_MAX 64

static struct tier_method *load(struct tier_conn *conn, const struct workload *workload, struct tier_module **ret_module)
{
	struct tier_method *method;

	assert_done(tier_load(conn, workload_object(workload->file), workload->name, 0, ret_module));
	assert_done(tier_find(*ret_module, workload->entry, &method));
	if (!strcmp(workload->name, "imports"))
		assert_done(tier_bind(*ret_module, "host_mix", (void *)host_mix));
	return method;
}

static void check(const struct workload *workload, const struct tier_method *method)
{
	results_check_vectors(workload, method);
	results_check_native(workload, method);
}

/* Returns how many loops have optimized code to go on in. */
static unsigned int check_program(struct tier_conn *conn, const struct workload *workload)
{
	struct workload_input *input = input_make(workload->name);
	struct tier_module *module;
	struct tier_method *method = load(conn, workload, &module);
	struct tier_answer answer = tier_status(method);
	unsigned int n_osr = 0;

	for (unsigned int round = 0; answer.status != TIER_STATUS_FINAL; round++) {
		assert_true(round < ROUNDS_MAX);
		check(workload, method);
		assert_done(tier_wait(method, TEST_DEADLINE_NS, NULL, &answer));
	}
	assert_int_equal(answer.reason, TIER_REASON_PROMOTED);
	assert_true(settle(module, input, tier_entry(method)) >= 0);
	check(workload, method);
	for (uint32_t i = 0; i < tier_module_n_methods(module); i++) {
		assert_done(tier_method_at(module, i, &method));
		answer = tier_status(method);
		if (answer.status == TIER_STATUS_FINAL && answer.reason != TIER_REASON_PROMOTED)
			fail_msg("%s: %s is final, for: %s", workload->name, tier_method_name(method),
				 tier_reason_name(answer.reason));
		n_osr += events_count(conn, module, method, TIER_EVENT_OSR_READY);
	}
	tier_close(module);
	input_free(input);
	return n_osr;
}

static void check_programs(const char *const *args)
{
	struct daemon daemon;
	struct tier_conn *conn;
	unsigned int n_osr = 0;

	if (!events_by_kernel())
		skip();		/* how events travel makes no difference to code */
	daemon_start(&daemon, args);
	conn = daemon_connect(&daemon);
	for (size_t i = 0; i < n_workloads; i++)
		n_osr += check_program(conn, &workloads[i]);
	n_osr += check_program(conn, workload_find("imports"));
	print_message("%u loops went on in optimized code\n", n_osr);
	tier_disconnect(conn);
	daemon_stop(&daemon);
}

static void programs_give_the_native_results_on_the_whole_ladder(void **state)
{
	check_programs(ARGS("--tiered-pgo=on", "--call-counting-delay=0", "--call-count-threshold=3", "--osr=on", "--osr-hit-limit=1",
			    "--osr-initial-counter=1", "--osr-counter-bump=1"));
}

static void so_they_do_when_all_code_counts_and_frames_move_late(void **state)
{
	check_programs(ARGS("--tiered-pgo=on", "--call-counting-delay=0", "--instrument-only-hot-code=off", "--osr=on",
			    "--osr-hit-limit=2", "--osr-initial-counter=7", "--osr-counter-bump=3", "--background-workers=4"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(programs_give_the_native_results_on_the_whole_ladder),
		cmocka_unit_test(so_they_do_when_all_code_counts_and_frames_move_late),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
