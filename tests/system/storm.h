/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A storm: many processes drive many methods up all ladders, in waves
 *
 * In each wave they first make the first calls of a few modules, together; then each calls its methods (every method has a
 * caller, most have some) until it has seen their thresholds crossed, by whomever. What must be in the journal is computed
 * from the program text and from what the crossing calls themselves wrote down (witness.h): per method in order, nothing missing,
 * nothing twice, no hole in the numbers. Three followers must have been told exactly that, too; the second is slow, and the
 * third is there to be killed. */

#include "system/follower.h"
#include "system/harness.h"
#include "system/witness.h"
#include "util/base.h"

#define STORM_CLIENTS_MAX 16u
#define STORM_DEADLINE_NS 300000000000u

struct storm_scale {
	unsigned int n_clients, n_modules, n_methods, n_first;	/* methods of a module; modules of the first wave */
	unsigned int n_more;					/* of all others */
	bool has_loops;		/* some run until their frames go on in optimized code */
	bool has_delay;		/* calls are not counted at once */
};

/* Shared by all processes */
struct storm_shared {
	uint32_t n_waves;	/* loaded */
	uint32_t n_crossing;	/* waves that may cross their thresholds */
	uint32_t n_begun, n_done;	/* clients that have made the first calls, and all calls, of their waves; summed up */
	uint32_t progress;	/* methods that were called by their first client, and crossings */
	uint64_t n_calls;
	struct sight sights[];	/* n_methods of each module */
};

struct storm {
	struct daemon daemon;
	struct tier_conn *conn;
	const struct storm_scale *scale;
	struct storm_shared *shared;
	struct tier_module *modules[WITNESS_MODULES_MAX];
	char objects[2][256];	/* bytecode; and precompiled, what the last module is made of */
	pid_t clients[STORM_CLIENTS_MAX];
	struct follower followers[3];
	uint64_t seed;
};

/* The daemon runs, and @storm->daemon, ->seed are set. Then the waves, in order: load, first calls, crossings. */
void storm_begin(struct storm *storm, const struct storm_scale *scale);
unsigned int storm_n_waves(const struct storm_scale *scale);
uint32_t storm_progress_max(const struct storm_scale *scale);	/* about */
void storm_load(struct storm *storm, unsigned int wave);
void storm_await_begun(const struct storm *storm, unsigned int wave);	/* all have made the wave's first calls */
void storm_cross(struct storm *storm, unsigned int wave);
void storm_await_done(const struct storm *storm, unsigned int wave);
void storm_end(struct storm *storm);	/* all clients have; and what the journal and the followers have is checked */

/* -- Between its files --- */
void storm_client_run(void *start);	/* struct storm_start */
struct storm_start {
	struct storm *storm;
	unsigned int number;
};
/* With patience: a storm may have more to do than the machine is good for */
struct tier_conn *storm_connect(const struct storm *storm);
/* Reads the journal, prints what there is, and fails the test unless it is what must be. */
void storm_check(struct storm *storm);

static inline size_t storm_events_max(const struct storm_scale *scale)
{
	return (size_t)scale->n_modules * scale->n_methods * STEPS_MAX;
}

static inline unsigned int storm_wave_end(const struct storm_scale *scale, unsigned int wave)
{
	return MIN(scale->n_first + wave * scale->n_more, scale->n_modules);
}

static inline unsigned int storm_wave_begin(const struct storm_scale *scale, unsigned int wave)
{
	return wave ? storm_wave_end(scale, wave - 1) : 0;
}

static inline bool storm_is_precompiled(const struct storm_scale *scale, unsigned int module)
{
	return module + 1 == scale->n_modules;
}

static inline const char *storm_module_name(char name[16], unsigned int module)
{
	snprintf(name, 16, "part%u", module);
	return name;
}

static inline uint32_t storm_read(const uint32_t *word)
{
	return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

static inline uint64_t storm_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

#define storm_await(what, condition)                                                                                   \
	do {                                                                                                           \
		uint64_t deadline_ = test_now_ns() + STORM_DEADLINE_NS;                                                \
		while (!(condition))                                                                                   \
			wait_until_pause(what, deadline_);                                                             \
	} while (0)
