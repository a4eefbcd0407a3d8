/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cmocka.h>
#include "util/base.h"
#include "worker/pool.h"

/* A pool with real workers. Faults are ordered through TIERD_WORKER_FAULT (worker/child/serve.h). */

#define PATIENCE_NS 30000000000u	/* for anything: a slow machine, a sanitizer */

static char worker_path[4096];

struct fixture {
	struct dispatch dispatch;
	struct pool *pool;
};

struct result {
	struct pool_job *job;
	bool done;
	unsigned int order;	/* of completion, from 1 */
	enum tier_reason reason;
	void *bytes;
	size_t n;
	struct refusal refusal;
};

static unsigned int n_done;

static void on_done(void *context, enum tier_reason reason, void *bytes, size_t n, const struct refusal *refusal)
{
	struct result *result = context;

	assert_false(result->done);
	result->done = true;
	result->order = ++n_done;
	result->reason = reason;
	result->bytes = bytes;
	result->n = n;
	if (refusal)
		result->refusal = *refusal;
}

static void begin(struct fixture *fixture, const struct pool_config *config, const char *fault)
{
	n_done = 0;
	assert_int_equal(dispatch_init(&fixture->dispatch), 0);
	if (fault)
		setenv("TIERD_WORKER_FAULT", fault, 1);
	assert_int_equal(pool_new(&fixture->pool, &fixture->dispatch, config), 0);
	unsetenv("TIERD_WORKER_FAULT");
}

static struct pool_config default_config(void)
{
	struct pool_config config = POOL_CONFIG_DEFAULT;

	config.worker_path = worker_path;
	return config;
}

static void end(struct fixture *fixture)
{
	fixture->pool = pool_free(fixture->pool);
	dispatch_deinit(&fixture->dispatch);
}

static int memfd_of(const void *bytes, size_t n)
{
	int fd = memfd_create("input", MFD_CLOEXEC);

	assert_int_equal(pwrite(fd, bytes, n, 0), n);
	return fd;
}

static void submit_bytes(struct fixture *fixture, uid_t uid, enum job_kind kind, const void *bytes, size_t n,
			 size_t n_announced, struct result *result)
{
	int fd = memfd_of(bytes, n);

	*result = (struct result){ .done = false };
	assert_int_equal(pool_submit(fixture->pool, uid, kind, fd, n_announced, on_done, result, &result->job), 0);
	assert_false(result->done);
	close(fd);
}

/* A method of @n_insns instructions that adds and multiplies */
static void submit_compile(struct fixture *fixture, uid_t uid, const char *name, uint32_t n_insns, struct result *result)
{
	struct insn insns[64];
	struct job_body body = { .n_insns = n_insns, .insns = insns, .name = name };
	struct job_compile job = { .level = TIER_LEVEL_TIER1, .n_methods = 1, .bodies = &body, .n_bodies = 1 };
	void *bytes;
	size_t n;

	assert_true(n_insns >= 2 && n_insns <= 64);
	for (uint32_t i = 0; i < n_insns - 1; i++)
		insns[i] = (struct insn){ .code = BPF_ALU64 | (i & 1 ? BPF_MUL : BPF_ADD) | BPF_X, .dst = i % 3, .src = 1 + i % 4 };
	insns[n_insns - 1] = (struct insn){ .code = BPF_JMP | BPF_EXIT };
	assert_int_equal(job_put_compile(&job, &bytes, &n), 0);
	submit_bytes(fixture, uid, JOB_COMPILE, bytes, n, n, result);
	free(bytes);
}

static void submit_garbage_load(struct fixture *fixture, uid_t uid, struct result *result)
{
	submit_bytes(fixture, uid, JOB_LOAD, "not an object", 13, 13, result);
}

static void turn(struct fixture *fixture, uint64_t deadline_ns)
{
	assert_true(clock_now_ns() < deadline_ns);
	assert_int_equal(dispatch_turn(&fixture->dispatch, 100), 0);
}

static void wait_for(struct fixture *fixture, const struct result *result)
{
	uint64_t deadline = clock_now_ns() + PATIENCE_NS;

	while (!result->done)
		turn(fixture, deadline);
}

static void wait_for_worker(struct fixture *fixture, uid_t uid)
{
	uint64_t deadline = clock_now_ns() + PATIENCE_NS;

	while (!pool_worker_pid(fixture->pool, uid))
		turn(fixture, deadline);
}

static void assert_compiled(struct result *result)
{
	struct code_result code;
	struct refusal refusal;

	if (result->reason != TIER_REASON_NONE)
		fail_msg("%s", result->refusal.text);
	assert_true(job_get_code(&code, result->bytes, result->n, &refusal));
	free(TAKE_PTR(result->bytes));
}

static void assert_failed(const struct result *result, enum tier_reason reason, const char *text)
{
	assert_int_equal(result->reason, reason);
	assert_null(result->bytes);
	if (!strstr(result->refusal.text, text))
		fail_msg("'%s' does not say '%s'", result->refusal.text, text);
}

/* -- Work ---------------------------------------------------------------------------------------------------------- */
static void a_method_is_compiled(void **state)
{
	struct pool_config config = default_config();
	struct fixture fixture;
	struct result first, again;
	uint64_t begun;

	begin(&fixture, &config, NULL);
	submit_compile(&fixture, 1000, "m", 50, &first);
	wait_for(&fixture, &first);
	assert_compiled(&first);
	begun = clock_now_ns();
	submit_compile(&fixture, 1000, "m", 50, &again);
	wait_for(&fixture, &again);
	assert_compiled(&again);
	printf("           50 instructions in a warm worker, round trip included: %.2f ms\n", (clock_now_ns() - begun) / 1e6);
	end(&fixture);
}

static void two_users_get_two_workers_and_one_keeps_its_own(void **state)
{
	struct pool_config config = default_config();
	struct fixture fixture;
	struct result results[3];
	pid_t first;

	begin(&fixture, &config, NULL);
	submit_compile(&fixture, 1000, "a", 4, &results[0]);
	submit_compile(&fixture, 1001, "b", 4, &results[1]);
	wait_for(&fixture, &results[0]);
	wait_for(&fixture, &results[1]);
	first = pool_worker_pid(fixture.pool, 1000);
	assert_true(first > 0);
	assert_true(pool_worker_pid(fixture.pool, 1001) > 0);
	assert_int_not_equal(first, pool_worker_pid(fixture.pool, 1001));
	submit_compile(&fixture, 1000, "c", 4, &results[2]);
	wait_for(&fixture, &results[2]);
	assert_int_equal(pool_worker_pid(fixture.pool, 1000), first);
	for (unsigned int i = 0; i < ARRAY_SIZE(results); i++)
		assert_compiled(&results[i]);
	end(&fixture);
}

/* The first worker stands still with its job. */
static void a_user_with_two_workers_compiles_two_methods_at_a_time(void **state)
{
	struct pool_config config = default_config();
	struct result warm, stuck, other, third;
	struct pool_stats stats;
	struct fixture fixture;
	pid_t first;

	config.workers_per_uid = 2;
	begin(&fixture, &config, NULL);
	submit_compile(&fixture, 1000, "warm", 4, &warm);
	wait_for(&fixture, &warm);
	assert_compiled(&warm);
	first = pool_worker_pid(fixture.pool, 1000);
	assert_int_equal(kill(first, SIGSTOP), 0);
	submit_compile(&fixture, 1000, "stuck", 4, &stuck);
	submit_compile(&fixture, 1000, "other", 4, &other);
	wait_for(&fixture, &other);
	assert_compiled(&other);
	assert_false(stuck.done);
	submit_compile(&fixture, 1000, "third", 4, &third);
	wait_for(&fixture, &third);
	assert_compiled(&third);
	assert_false(stuck.done);
	assert_int_equal(kill(first, SIGCONT), 0);
	wait_for(&fixture, &stuck);
	assert_compiled(&stuck);
	pool_stats(fixture.pool, &stats);
	assert_int_equal(stats.n_workers_started, 2);
	assert_int_equal(stats.n_workers, 2);
	end(&fixture);
}

static void jobs_run_in_order_and_loads_before_compiles(void **state)
{
	struct pool_config config = default_config();
	struct pool_stats stats;
	struct fixture fixture;
	struct result results[4];

	begin(&fixture, &config, NULL);
	submit_compile(&fixture, 1000, "first", 4, &results[0]);
	submit_compile(&fixture, 1000, "second", 4, &results[1]);
	submit_garbage_load(&fixture, 1000, &results[2]);
	submit_garbage_load(&fixture, 1000, &results[3]);
	pool_stats(fixture.pool, &stats);
	assert_int_equal(stats.n_queued, 4);
	wait_for(&fixture, &results[1]);
	assert_int_equal(results[2].order, 1);
	assert_int_equal(results[3].order, 2);
	assert_int_equal(results[0].order, 3);
	assert_int_equal(results[1].order, 4);
	assert_compiled(&results[0]);
	assert_compiled(&results[1]);
	pool_stats(fixture.pool, &stats);
	assert_int_equal(stats.n_jobs, 4);
	assert_int_equal(stats.n_failed, 2);
	assert_int_equal(stats.n_workers_started, 1);
	end(&fixture);
}

static void what_is_urgent_gets_before_all_others_in_order(void **state)
{
	struct pool_config config = default_config();
	struct pool_stats stats;
	struct fixture fixture;
	struct result results[4];

	begin(&fixture, &config, NULL);
	submit_compile(&fixture, 1000, "background", 4, &results[0]);
	submit_garbage_load(&fixture, 1000, &results[1]);
	submit_compile(&fixture, 1000, "a caller waits", 4, &results[2]);
	pool_hurry(results[2].job);
	submit_compile(&fixture, 1000, "another caller", 4, &results[3]);
	pool_hurry(results[3].job);
	pool_stats(fixture.pool, &stats);
	assert_int_equal(stats.n_queued, 4);
	wait_for(&fixture, &results[0]);
	assert_int_equal(results[2].order, 1);
	assert_int_equal(results[3].order, 2);
	assert_int_equal(results[1].order, 3);
	for (unsigned int i = 0; i < ARRAY_SIZE(results); i++)
		if (i != 1)
			assert_compiled(&results[i]);
	end(&fixture);
}

static void what_runs_already_cannot_be_hurried(void **state)
{
	struct pool_config config = default_config();
	struct fixture fixture;
	struct result warm, result;

	begin(&fixture, &config, NULL);
	submit_compile(&fixture, 1000, "warm", 4, &warm);
	wait_for(&fixture, &warm);
	submit_compile(&fixture, 1000, "m", 50, &result);	/* begins at once */
	pool_hurry(result.job);
	wait_for(&fixture, &result);
	assert_compiled(&warm);
	assert_compiled(&result);
	end(&fixture);
}

static void what_is_no_job_is_refused_and_the_worker_goes_on(void **state)
{
	struct pool_config config = default_config();
	struct fixture fixture;
	struct result garbage, shorter, good;

	begin(&fixture, &config, NULL);
	submit_bytes(&fixture, 1000, JOB_COMPILE, "garbage!", 8, 8, &garbage);
	submit_bytes(&fixture, 1000, JOB_LOAD, "truncated", 9, 10000, &shorter);
	submit_compile(&fixture, 1000, "m", 4, &good);
	wait_for(&fixture, &good);
	assert_failed(&garbage, TIER_REASON_COMPILE_FAILED, "malformed job");
	assert_failed(&shorter, TIER_REASON_COMPILE_FAILED, "ends after 9 of 10000 bytes");
	assert_compiled(&good);
	end(&fixture);
}

static void a_canceled_job_is_not_heard_of_again(void **state)
{
	struct pool_config config = default_config();
	struct fixture fixture;
	struct result running, queued, last;

	begin(&fixture, &config, NULL);
	submit_compile(&fixture, 1000, "running", 40, &running);
	submit_compile(&fixture, 1000, "queued", 4, &queued);
	submit_compile(&fixture, 1000, "last", 4, &last);
	pool_cancel(queued.job);
	wait_for_worker(&fixture, 1000);
	pool_cancel(running.job);
	wait_for(&fixture, &last);
	assert_compiled(&last);
	assert_false(running.done);
	assert_false(queued.done);
	end(&fixture);
}

static void a_canceled_job_that_hangs_holds_nobody_up(void **state)
{
	struct pool_config config = default_config();
	struct result hanging, next;
	struct fixture fixture;
	struct pool_stats stats;

	config.compile_limit_ns = 3600000000000u;
	begin(&fixture, &config, "hang:hanging");
	submit_compile(&fixture, 1000, "hanging", 4, &hanging);
	submit_compile(&fixture, 1000, "next", 4, &next);
	wait_for_worker(&fixture, 1000);
	pool_cancel(hanging.job);
	wait_for(&fixture, &next);
	assert_compiled(&next);
	assert_false(hanging.done);
	pool_stats(fixture.pool, &stats);
	assert_int_equal(stats.n_workers_started, 2);
	assert_int_equal(stats.n_workers_died, 0);
	end(&fixture);
}

static void an_idle_worker_ends(void **state)
{
	struct pool_config config = default_config();
	uint64_t deadline = clock_now_ns() + PATIENCE_NS;
	struct fixture fixture;
	struct result result;

	config.idle_timeout_ns = 10000000;
	begin(&fixture, &config, NULL);
	submit_compile(&fixture, 1000, "m", 4, &result);
	wait_for(&fixture, &result);
	assert_compiled(&result);
	assert_true(pool_worker_pid(fixture.pool, 1000) > 0);
	while (pool_worker_pid(fixture.pool, 1000))
		turn(&fixture, deadline);
	submit_compile(&fixture, 1000, "m", 4, &result);
	wait_for(&fixture, &result);
	assert_compiled(&result);
	end(&fixture);
}

/* -- Trouble ------------------------------------------------------------------------------------------------------- */
static void a_worker_killed_in_mid_job_fails_only_that_job(void **state)
{
	struct pool_config config = default_config();
	struct pool_stats stats;
	struct fixture fixture;
	struct result victim, next;

	begin(&fixture, &config, "hang:victim");
	submit_compile(&fixture, 1000, "victim", 4, &victim);
	submit_compile(&fixture, 1000, "next", 4, &next);
	wait_for_worker(&fixture, 1000);
	kill(pool_worker_pid(fixture.pool, 1000), SIGKILL);
	wait_for(&fixture, &next);
	assert_failed(&victim, TIER_REASON_WORKER_DIED, "signal 9");
	assert_compiled(&next);
	pool_stats(fixture.pool, &stats);
	assert_int_equal(stats.n_workers_died, 1);
	assert_int_equal(stats.n_workers_started, 2);
	end(&fixture);
}

static void a_worker_killed_while_idle_costs_no_job(void **state)
{
	struct pool_config config = default_config();
	struct fixture fixture;
	struct result first, next;

	begin(&fixture, &config, NULL);
	submit_compile(&fixture, 1000, "first", 4, &first);
	wait_for(&fixture, &first);
	assert_compiled(&first);
	kill(pool_worker_pid(fixture.pool, 1000), SIGKILL);
	assert_int_equal(dispatch_turn(&fixture.dispatch, 10000), 0);
	submit_compile(&fixture, 1000, "next", 4, &next);
	wait_for(&fixture, &next);
	assert_compiled(&next);
	end(&fixture);
}

static void a_worker_that_dies_by_itself_is_reported(void **state)
{
	struct pool_config config = default_config();
	struct fixture fixture;
	struct result victim, next;

	begin(&fixture, &config, "die:victim");
	submit_compile(&fixture, 1000, "victim", 4, &victim);
	submit_compile(&fixture, 1000, "next", 4, &next);
	wait_for(&fixture, &next);
	assert_failed(&victim, TIER_REASON_WORKER_DIED, "signal 4");
	assert_compiled(&next);
	end(&fixture);
}

static void a_worker_that_hangs_is_ended_at_its_limit(void **state)
{
	struct pool_config config = default_config();
	struct fixture fixture;
	struct result victim, load;

	config.compile_limit_ns = 50000000;
	config.load_limit_ns = PATIENCE_NS;
	begin(&fixture, &config, "hang:victim");
	submit_compile(&fixture, 1000, "victim", 4, &victim);
	wait_for(&fixture, &victim);
	assert_failed(&victim, TIER_REASON_WORKER_TIMEOUT, "0.05 s");
	submit_garbage_load(&fixture, 1000, &load);
	wait_for(&fixture, &load);
	assert_int_equal(load.reason, TIER_REASON_COMPILE_FAILED);
	end(&fixture);
}

static void a_load_that_hangs_is_ended_as_well(void **state)
{
	struct pool_config config = default_config();
	struct fixture fixture;
	struct result victim;

	config.load_limit_ns = 50000000;
	begin(&fixture, &config, "hang:(load)");
	submit_garbage_load(&fixture, 1000, &victim);
	wait_for(&fixture, &victim);
	assert_failed(&victim, TIER_REASON_WORKER_TIMEOUT, "time limit");
	end(&fixture);
}

static void a_worker_without_memory_says_so(void **state)
{
	struct pool_config config = default_config();
	struct fixture fixture;
	struct result victim, next;

#ifdef __SANITIZE_ADDRESS__	/* no address space limit under it */
	skip();
#endif
	config.memory_limit = 512 << 20;
	begin(&fixture, &config, "memory:victim");
	submit_compile(&fixture, 1000, "victim", 4, &victim);
	submit_compile(&fixture, 1000, "next", 4, &next);
	wait_for(&fixture, &next);
	assert_failed(&victim, TIER_REASON_WORKER_MEMORY, "allocation failed");
	assert_compiled(&next);
	end(&fixture);
}

static void a_killed_zygote_is_started_again_and_its_workers_live_on(void **state)
{
	struct pool_config config = default_config();
	uint64_t deadline = clock_now_ns() + PATIENCE_NS;
	struct fixture fixture;
	struct result first, other, again;
	pid_t zygote, worker;

	begin(&fixture, &config, NULL);
	submit_compile(&fixture, 1000, "first", 4, &first);
	wait_for(&fixture, &first);
	assert_compiled(&first);
	zygote = pool_zygote_pid(fixture.pool);
	worker = pool_worker_pid(fixture.pool, 1000);
	kill(zygote, SIGKILL);
	while (pool_zygote_pid(fixture.pool) == zygote)
		turn(&fixture, deadline);
	submit_compile(&fixture, 1000, "again", 4, &again);
	submit_compile(&fixture, 1001, "other", 4, &other);
	wait_for(&fixture, &again);
	wait_for(&fixture, &other);
	assert_compiled(&again);
	assert_compiled(&other);
	assert_int_equal(pool_worker_pid(fixture.pool, 1000), worker);
	assert_int_not_equal(pool_zygote_pid(fixture.pool), 0);
	end(&fixture);
}

static void without_a_worker_program_jobs_fail_with_the_reason(void **state)
{
	struct pool_config config = default_config();
	struct fixture fixture;
	struct result result;

	config.worker_path = "/nonexistent/tierd-worker";
	begin(&fixture, &config, NULL);
	submit_compile(&fixture, 1000, "m", 4, &result);
	wait_for(&fixture, &result);
	assert_failed(&result, TIER_REASON_NO_WORKER, "does not start");
	end(&fixture);
}

static void a_program_that_is_no_worker_is_not_started_for_ever(void **state)
{
	struct pool_config config = default_config();
	struct fixture fixture;
	struct result result;

	config.worker_path = "/bin/true";
	begin(&fixture, &config, NULL);
	submit_compile(&fixture, 1000, "m", 4, &result);
	wait_for(&fixture, &result);
	assert_failed(&result, TIER_REASON_NO_WORKER, "does not start");
	end(&fixture);
}

static void a_pool_that_is_freed_leaves_no_process(void **state)
{
	struct pool_config config = default_config();
	struct fixture fixture;
	struct result running, queued;
	pid_t zygote, worker;

	begin(&fixture, &config, "hang");
	submit_compile(&fixture, 1000, "running", 4, &running);
	submit_compile(&fixture, 1000, "queued", 4, &queued);
	wait_for_worker(&fixture, 1000);
	zygote = pool_zygote_pid(fixture.pool);
	worker = pool_worker_pid(fixture.pool, 1000);
	end(&fixture);
	assert_false(running.done || queued.done);
	assert_true(kill(zygote, 0) < 0 && errno == ESRCH);
	assert_true(kill(worker, 0) < 0 && errno == ESRCH);
}

/* An object is precompiled in another worker than methods, so that a promotion does not wait for it. */
static void a_precompilation_holds_up_no_promotion(void **state)
{
	struct pool_config config = default_config();
	struct fixture fixture;
	struct result precompile, compile;

	begin(&fixture, &config, "hang:(precompile)");
	submit_bytes(&fixture, 1000, JOB_PRECOMPILE, "not an object", 13, 13, &precompile);
	submit_compile(&fixture, 1000, "m", 4, &compile);
	wait_for(&fixture, &compile);
	assert_compiled(&compile);
	assert_false(precompile.done);
	end(&fixture);
}

/* 80 bytes are ten instructions, of a millisecond each. */
static void a_precompilation_may_take_longer_by_the_size_of_the_object(void **state)
{
	struct pool_config config = default_config();
	struct fixture fixture;
	struct result result;
	uint8_t object[80] = { 0 };

	config.load_limit_ns = 200000000;
	begin(&fixture, &config, "hang:(precompile)");
	submit_bytes(&fixture, 1000, JOB_PRECOMPILE, object, sizeof(object), sizeof(object), &result);
	wait_for(&fixture, &result);
	assert_failed(&result, TIER_REASON_WORKER_TIMEOUT, "of 0.21 s");
	end(&fixture);
}

static void what_is_no_object_is_not_precompiled(void **state)
{
	struct pool_config config = default_config();
	struct fixture fixture;
	struct result result;

	begin(&fixture, &config, NULL);
	assert_null(pool_compiler(fixture.pool));
	submit_bytes(&fixture, 1000, JOB_PRECOMPILE, "not an object", 13, 13, &result);
	wait_for(&fixture, &result);
	assert_failed(&result, TIER_REASON_COMPILE_FAILED, "not an ELF object");
	assert_string_equal(pool_compiler(fixture.pool)->version, TIER_VERSION);
	assert_true(strlen(pool_compiler(fixture.pool)->cpu) > 0);
	end(&fixture);
}

/* build/tests/unit/worker/test_pool → build/tierd-worker */
static int find_worker(void **state)
{
	ssize_t n = readlink("/proc/self/exe", worker_path, sizeof(worker_path) - 16);

	if (n < 0)
		return -1;
	worker_path[n] = '\0';
	for (int i = 0; i < 4; i++)
		*strrchr(worker_path, '/') = '\0';
	strcat(worker_path, "/tierd-worker");
	return access(worker_path, X_OK);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_method_is_compiled),
		cmocka_unit_test(two_users_get_two_workers_and_one_keeps_its_own),
		cmocka_unit_test(a_user_with_two_workers_compiles_two_methods_at_a_time),
		cmocka_unit_test(jobs_run_in_order_and_loads_before_compiles),
		cmocka_unit_test(what_is_urgent_gets_before_all_others_in_order),
		cmocka_unit_test(what_runs_already_cannot_be_hurried),
		cmocka_unit_test(what_is_no_job_is_refused_and_the_worker_goes_on),
		cmocka_unit_test(a_canceled_job_is_not_heard_of_again),
		cmocka_unit_test(a_canceled_job_that_hangs_holds_nobody_up),
		cmocka_unit_test(an_idle_worker_ends),
		cmocka_unit_test(a_worker_killed_in_mid_job_fails_only_that_job),
		cmocka_unit_test(a_worker_killed_while_idle_costs_no_job),
		cmocka_unit_test(a_worker_that_dies_by_itself_is_reported),
		cmocka_unit_test(a_worker_that_hangs_is_ended_at_its_limit),
		cmocka_unit_test(a_load_that_hangs_is_ended_as_well),
		cmocka_unit_test(a_worker_without_memory_says_so),
		cmocka_unit_test(a_killed_zygote_is_started_again_and_its_workers_live_on),
		cmocka_unit_test(without_a_worker_program_jobs_fail_with_the_reason),
		cmocka_unit_test(a_program_that_is_no_worker_is_not_started_for_ever),
		cmocka_unit_test(a_pool_that_is_freed_leaves_no_process),
		cmocka_unit_test(a_precompilation_holds_up_no_promotion),
		cmocka_unit_test(a_precompilation_may_take_longer_by_the_size_of_the_object),
		cmocka_unit_test(what_is_no_object_is_not_precompiled),
	};

	return cmocka_run_group_tests(tests, find_worker, NULL);
}
