/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Two daemons: one whose methods stay at tier 0, and one whose methods climb at once. What is loaded into both is seen at
 * each tier and at no other. */

#include "bench/settle.h"
#include "system/harness.h"

struct both {
	struct daemon staying, climbing;
	struct tier_conn *at_tier0, *on_the_way;
};

static inline void both_start(struct both *both)
{
	daemon_start(&both->staying, ARGS("--call-counting=off"));
	daemon_start(&both->climbing, ARGS("--call-counting-delay=0", "--call-count-threshold=2"));
	both->at_tier0 = daemon_connect(&both->staying);
	both->on_the_way = daemon_connect(&both->climbing);
}

static inline void both_stop(struct both *both)
{
	tier_disconnect(both->at_tier0);
	tier_disconnect(both->on_the_way);
	daemon_stop(&both->staying);
	daemon_stop(&both->climbing);
}

/* Drives @method and all that it calls to the final tier; no method of the module may be final for another reason than
 * its promotion. */
static inline void both_climb(struct tier_module *module, struct tier_method *method, const struct workload_input *input)
{
	climb(method, input->args);
	assert_true(settle(module, input, tier_entry(method)) >= 0);
	assert_int_equal(tier_status(method).tier, TIER_LEVEL_TIER1);
	for (uint32_t i = 0; i < tier_module_n_methods(module); i++) {
		struct tier_answer answer;

		assert_done(tier_method_at(module, i, &method));
		answer = tier_status(method);
		if (answer.status == TIER_STATUS_FINAL && answer.reason != TIER_REASON_PROMOTED)
			fail_msg("%s is final, for: %s", tier_method_name(method), tier_reason_name(answer.reason));
	}
}
