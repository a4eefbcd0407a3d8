/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A caller who does as he is told: wait, ask, make that many calls. The schedule that comes of it, the tiers that were passed, and
 * that the method is final and stays so. */

#include "tiering/internal.h"
#include "unit/tiering/fake.h"

#define DRIVE_UID 1000
#define N		FAKE_N
#define CELLS		8u	/* of a profile */
#define STEPS_MAX	 16u

struct drive {
	struct fake *fake;
	struct fake_module *fm;
	uint32_t method;
	uint32_t schedule[STEPS_MAX], n_schedule;
	enum tier_level levels[STEPS_MAX];	/* that were published */
	uint32_t n_levels;
	enum tier_level fails;			/* the promotion that fails; NONE: none */
};

static inline struct tier_answer ask(struct drive *drive) { return fake_answer(drive->fm, drive->method); }

/* What a wait waits for: time passes, jobs end. Nobody calls. */
static inline void settle(struct drive *drive)
{
	struct fake *fake = drive->fake;
	struct tier_answer answer = ask(drive);

	for (uint32_t i = 0; !tier_answer_is_quiet(&answer); i++) {
		struct fake_job *job = fake_job(fake, drive->fm, drive->method);

		assert_true(i < 100);
		assert_int_equal(answer.status, TIER_STATUS_OPTIMIZING);
		if (job)
			fake_end_job(fake, job, job->level == drive->fails ? TIER_REASON_COMPILE_FAILED : TIER_REASON_NONE);
		else
			fake_pass(fake, 50);
		answer = ask(drive);
	}
}

/* A first call that the optimizer makes code for returns when that is there. */
static inline void first_call(struct drive *drive)
{
	enum fake_path path = fake_call(drive->fm, drive->method);
	struct fake_job *job = fake_job(drive->fake, drive->fm, drive->method);

	if (path != FAKE_LATE)
		return;
	assert_non_null(job);
	assert_true(job->is_urgent);
	assert_int_equal(ask(drive).status, TIER_STATUS_COLD);
	assert_int_equal(ask(drive).remaining, 1);
	assert_int_equal(core_pending(drive->fake->core, CORE_SCOPE_MODULE, drive->fm->module, 0), 1);
	assert_int_equal(fake_call(drive->fm, drive->method), FAKE_LATE);	/* another caller */
	fake_end_job(drive->fake, job, job->level == drive->fails ? TIER_REASON_COMPILE_FAILED : TIER_REASON_NONE);
	assert_true(fake_call(drive->fm, drive->method) == FAKE_CODE);
}

static inline void make_calls(struct drive *drive, uint32_t n)
{
	const struct tier_answer before = ask(drive);

	if (before.status == TIER_STATUS_COLD) {
		assert_int_equal(n, 1);
		first_call(drive);
		return;
	}
	for (uint32_t left = n; left; left--) {
		assert_int_equal(ask(drive).remaining, left);
		assert_int_equal(fake_call_and_ring(drive->fm, drive->method), left > 1 ? FAKE_COUNTED : FAKE_CROSSED);
	}
}

/* The schedule, to its end */
static inline void drive_all(struct drive *drive)
{
	for (;;) {
		struct tier_answer answer;

		settle(drive);
		answer = ask(drive);
		if (answer.status == TIER_STATUS_FINAL)
			break;
		assert_true(drive->n_schedule < STEPS_MAX && answer.remaining > 0);
		drive->schedule[drive->n_schedule++] = answer.remaining;
		make_calls(drive, answer.remaining);
	}
	for (uint32_t i = 0; i < drive->fake->n_events; i++)
		if (drive->fake->events[i].kind == TIER_EVENT_PUBLISHED && drive->fake->events[i].method == drive->method)
			drive->levels[drive->n_levels++] = drive->fake->events[i].to;
	fake_check(drive->fake);
}

#define assert_list(list, n, ...)                                                                                      \
	do {                                                                                                           \
		const uint32_t _expected[] = { __VA_ARGS__ };                                                          \
		assert_int_equal(n, ARRAY_SIZE(_expected));                                                            \
		for (uint32_t _i = 0; _i < ARRAY_SIZE(_expected); _i++)                                                \
			assert_int_equal((list)[_i], _expected[_i]);                                                   \
	} while (0)
#define assert_schedule(drive, ...) assert_list((drive)->schedule, (drive)->n_schedule, __VA_ARGS__)
#define assert_levels(drive, ...) assert_list((drive)->levels, (drive)->n_levels, __VA_ARGS__)

static inline void assert_final(struct drive *drive, enum tier_level level, enum tier_reason reason)
{
	struct tier_answer answer = ask(drive);
	const uint32_t n_events = drive->fake->n_events;

	assert_int_equal(answer.status, TIER_STATUS_FINAL);
	assert_string_equal(tier_level_name(answer.tier), tier_level_name(level));
	assert_string_equal(tier_reason_name(answer.reason), tier_reason_name(reason));
	assert_int_equal(answer.remaining, 0);
	assert_true(tier_answer_is_quiet(&answer));
	assert_int_equal(core_pending(drive->fake->core, CORE_SCOPE_ALL, NULL, 0), 0);
	/* nothing retries, and nothing else comes */
	for (uint32_t i = 0; i < 3 * N; i++)
		assert_int_equal(fake_call(drive->fm, drive->method), FAKE_CODE);
	fake_pass(drive->fake, 5000);
	assert_int_equal(drive->fake->n_events, n_events);
}

/* -- Worlds --- */
static inline struct core_config pgo_config(void)
{
	struct core_config config = fake_config;

	config.pgo = true;
	return config;
}

static inline struct drive world(const struct core_config *config, uint32_t traits)
{
	struct drive drive = { .fake = fake_new(config), .fails = TIER_LEVEL_NONE };

	assert_int_equal(fake_try_load(drive.fake, DRIVE_UID, "m", 4, 100, &drive.fm), 0);
	for (uint32_t i = 0; i < 4; i++) {
		drive.fm->traits[i] = traits;
		drive.fm->n_profile[i] = CELLS;
	}
	return drive;
}

static inline void world_end(struct drive *drive)
{
	fake_check(drive->fake);
	fake_free(drive->fake);
}
