/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Methods of known ladders, and a witness in each process that calls them
 *
 * What the journal must hold of a method follows from two things that the daemon has no part in: the ladder that the
 * program text gives it, and the calls that crossed its thresholds. Those are seen where they happen: the witness
 * stands in the process's private table before libtier's threshold entry, so the crossing call itself writes down who
 * it is, before anybody is told. That memory is shared by the processes of a test and outlives each of them. */

#include <stdbool.h>
#include <stdint.h>
#include "system/harness.h"

/* What the text of a method and its caller make of it; how often it may cross a threshold, and what is promised of it
 */
#define LADDER_LIST(_)                                                                                                 \
	_(UNCALLED, 0, "never called")                                                                                 \
	_(UNOPTIMIZED, 0, "MinOptJitted by attribute")                                                                 \
	_(FEW, 0, "as many calls as the threshold, of which the first is not counted")                                 \
	_(AT_ONCE, 0, "Optimized by attribute")                                                                        \
	_(STEP, 1, "to the instrumented tier, and counting there")                                                     \
	_(LOOP, 0, "few calls, and one of them loops until its frame goes on in optimized code")                       \
	_(WHOLE, 2, "to the instrumented tier and to Tier1")

#define LADDER_ENUM(name, ...) LADDER_##name,
enum ladder { LADDER_LIST(LADDER_ENUM) _LADDER_N };

#define CROSSINGS_MAX       3u /* one more than any ladder has thresholds: what does not belong there is seen, too */
#define WITNESS_MODULES_MAX 64u
#define LADDER_THRESHOLD    30u /* the daemon's default */

struct crossing {
	uint64_t version, time_ns; /* CLOCK_REALTIME */
	uint32_t pid, tid;
};

/* One method, seen by all */
struct sight {
	uint32_t n_calls; /* that were begun */
	uint32_t n_crossed;
	uint32_t is_osr; /* a frame found its loop's optimized code */
	struct crossing crossings[CROSSINGS_MAX];
};

struct climber {
	uint64_t module; /* id */
	uint32_t index;
	enum ladder ladder;
	bool is_precompiled;
};

enum ladder ladder_of(uint32_t index); /* of the methods of the object below */
unsigned int ladder_n_thresholds(enum ladder ladder);
uint64_t ladder_result(uint32_t index, uint64_t x); /* LADDER_LOOP: x iterations */
/* An object with methods m0 … of all ladders; static buffer. */
const char *ladder_object(const struct daemon *daemon, const char *name, unsigned int n_methods);

/* From now on every call of this process that crosses a threshold of a method of @module is written down in @sights,
 * which has one for each. @progress counts them, too. */
void witness_stand(struct tier_module *module, struct sight *sights, uint32_t *progress);
bool witness_stands(struct tier_module *module); /* nobody has put libtier's entry back */

/* What the journal must hold of a method, in this order. @version: ordinal of the method's versions, 0 the first. */
struct step {
	uint8_t kind, from, to, reason;
	uint8_t version;
};
#define STEPS_MAX 24u
size_t steps_expected(const struct climber *climber, const struct sight *sight, struct step ret[STEPS_MAX]);
/* The sight's crossing of the version that was counted @nth: versions are made one after the other. */
const struct crossing *sight_crossing(const struct sight *sight, unsigned int nth);
