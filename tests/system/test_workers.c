/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <tier/wire.h>
#include <unistd.h>
#include "bench/inputs.h"
#include "system/harness.h"
#include "system/solo.h"

/* Workers and zygote that die, hang, or run out of memory, in the middle of a job
 *
 * A worker is mid-job for as long as a test wants when it is stopped before the job comes. TIERD_WORKER_FAULT of the
 * daemon makes the compiler itself misbehave, for one method by name. Either way the method keeps the code it has, becomes
 * final and says why; everything else goes on. */

#define NOBODY 65534
#define FAULT "TIERD_WORKER_FAULT"

/* -- Processes --- */
struct find {
	const char *name;
	pid_t pid;
};

static void find_process(pid_t pid, void *context)
{
	struct find *find = context;
	char path[64], name[32] = "";
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/comm", (int)pid);
	file = fopen(path, "r");
	if (!file)
		return;
	if (fgets(name, sizeof(name), file))
		name[strcspn(name, "\n")] = '\0';
	fclose(file);
	if (!strcmp(name, find->name))
		find->pid = pid;
}

/* Of the daemon's processes the one called @name; 0 when there is none */
static pid_t process_named(const struct daemon *daemon, const char *name)
{
	struct find find = { .name = name };

	each_descendant(daemon->pid, find_process, &find);
	return find.pid;
}

static pid_t worker_of(const struct daemon *daemon, uid_t uid)
{
	char name[16];

	snprintf(name, sizeof(name), "tierd-w %u", uid);
	return process_named(daemon, name);
}

static pid_t zygote_of(const struct daemon *daemon)
{
	return process_named(daemon, "tierd-worker");
}

/* -- A daemon and a module on it --- */
struct world {
	struct daemon daemon;
	struct tier_conn *conn;
	struct tier_module *module;
	struct tier_method *method;
};

static void world_open(struct world *world, const char *fault, const char *const *args)
{
	if (fault)
		setenv(FAULT, fault, 1);
	daemon_start(&world->daemon, args);
	unsetenv(FAULT);
	world->conn = daemon_connect(&world->daemon);
	assert_done(tier_load(world->conn, bpf_compile(world->daemon.folder, "solo", SOLO_SOURCE, ""), NULL, 0, &world->module));
	assert_done(tier_find(world->module, "solo", &world->method));
}

static void world_close(struct world *world)
{
	tier_close(world->module);
	tier_disconnect(world->conn);
	daemon_stop(&world->daemon);
}

static void world_call(const struct world *world)
{
	assert_int_equal(tier_entry(world->method)(SOLO_N, 0, 0, 0, 0), solo(SOLO_N));
}

/* Calls the method until its threshold is reached; what comes then is the worker's. */
static void world_call_over_threshold(const struct world *world)
{
	do
		world_call(world);
	while (tier_remaining(world->method));
}

/* The method is final on tier 0 for @reason, and works. */
static void world_check_kept(const struct world *world, enum tier_reason reason)
{
	struct tier_answer answer;

	assert_done(tier_wait(world->method, TEST_DEADLINE_NS, NULL, &answer));
	assert_int_equal(answer.status, TIER_STATUS_FINAL);
	if (answer.reason != reason)
		fail_msg("final for '%s', not for '%s'", tier_reason_name(answer.reason), tier_reason_name(reason));
	assert_int_equal(answer.tier, TIER_LEVEL_TIER0);
	for (int i = 0; i < 100; i++)
		world_call(world);
	assert_int_equal(tier_status(world->method).generation, answer.generation);
}

/* Another module climbs to its final tier with right results: loading, compiling and counting work. */
static void world_check_serves(const struct world *world, const char *name)
{
	struct workload_input *input = input_make(name);
	struct tier_module *module;
	struct tier_method *method = workload_load(world->conn, name, &module);

	assert_non_null(input);
	climb(method, input->args);
	assert_int_equal(input_call(input, tier_entry(method)), input_call(input, workload_find(name)->native));
	input_free(input);
	tier_close(module);
	assert_done(tier_unload(world->conn, name));
}

/* tierctl says the same: exit status 1 for a climb that ends below its final tier, with the reason. */
static void world_check_told(struct world *world, enum tier_reason reason)
{
	char out[RUN_TEXT_MAX], err[RUN_TEXT_MAX];

	assert_int_equal(tierctl(&world->daemon, out, err, "status", "solo:solo", NULL), 0);
	assert_non_null(strstr(out, tier_reason_name(reason)));
	assert_int_equal(tierctl(&world->daemon, out, err, "drive", "solo:solo", "100", NULL), 1);
	assert_non_null(strstr(err, tier_reason_name(reason)));
}

/* -- Dying and hanging workers --- */
static void a_worker_killed_in_the_middle_of_a_compilation_leaves_the_method_on_its_code(void **state)
{
	struct world world;
	pid_t worker;

	world_open(&world, NULL, ARGS("--call-counting-delay=0", "--background-worker-timeout=1h"));
	worker = worker_of(&world.daemon, 0);
	assert_true(worker > 0);
	workers_stop(&world.daemon);
	world_call_over_threshold(&world);
	wait_until("the job to reach the worker", tier_status(world.method).stage == TIER_STAGE_COMPILING);
	kill(worker, SIGKILL);
	workers_continue(&world.daemon);
	world_check_kept(&world, TIER_REASON_WORKER_DIED);
	world_check_told(&world, TIER_REASON_WORKER_DIED);
	world_check_serves(&world, "crc32");
	assert_int_not_equal(worker_of(&world.daemon, 0), worker);
	world_close(&world);
}

static void a_compiler_that_dies_on_one_method_compiles_the_others(void **state)
{
	struct world world;
	struct wire_stats stats;

	world_open(&world, "die:solo", ARGS("--call-counting-delay=0"));
	world_call_over_threshold(&world);
	world_check_kept(&world, TIER_REASON_WORKER_DIED);
	world_check_serves(&world, "crc32");
	assert_done(tier_stats(world.conn, &stats));
	assert_int_equal(stats.n_workers_died, 1);
	assert_int_equal(stats.n_promotions_failed, 1);
	world_close(&world);
}

static void a_compiler_that_hangs_is_ended_at_its_limit(void **state)
{
	struct world world;

	world_open(&world, "hang:solo", ARGS("--call-counting-delay=0", "--compile-limit=200ms"));
	world_call_over_threshold(&world);
	world_check_kept(&world, TIER_REASON_WORKER_TIMEOUT);
	world_check_told(&world, TIER_REASON_WORKER_TIMEOUT);
	world_check_serves(&world, "crc32");
	world_close(&world);
}

static void a_compiler_that_takes_all_memory_is_told_from_one_that_dies(void **state)
{
	struct world world;

#ifdef __SANITIZE_ADDRESS__
	skip();		/* its shadow alone is larger than any limit, so a sanitized worker has none */
#endif
	world_open(&world, "memory:solo", ARGS("--call-counting-delay=0", "--worker-memory=512M"));
	world_call_over_threshold(&world);
	world_check_kept(&world, TIER_REASON_WORKER_MEMORY);
	world_check_told(&world, TIER_REASON_WORKER_MEMORY);
	world_check_serves(&world, "crc32");
	world_close(&world);
}

static void a_stopped_worker_holds_up_its_own_user_only_and_not_for_ever(void **state)
{
	struct world world;

	world_open(&world, NULL, ARGS("--call-counting-delay=0", "--compile-limit=300ms", "--background-worker-timeout=1h"));
	kill(worker_of(&world.daemon, 0), SIGSTOP);
	world_call_over_threshold(&world);
	world_check_kept(&world, TIER_REASON_WORKER_TIMEOUT);
	world_check_serves(&world, "crc32");
	world_close(&world);
}

/* -- Another user beside it --- */
struct guest {
	const char *socket;
	void *object;
	size_t n_object;
};

static void guest_read(struct guest *guest, const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;

	assert_true(fd >= 0 && !fstat(fd, &st));
	guest->n_object = st.st_size;
	guest->object = mmap(NULL, st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	assert_true(guest->object != MAP_FAILED);
	close(fd);
}

/* As another user: loads crc32, which may lie where that user reads no files, and climbs to its final tier. */
static void guest_climbs(void *context)
{
	const struct guest *guest = context;
	struct tier_conn_opts opts = { .size = sizeof(opts), .socket = guest->socket, .timeout_ns = TEST_DEADLINE_NS };
	struct workload_input *input = input_make("crc32");
	struct tier_climb steps;
	struct tier_conn *conn;
	struct tier_module *module;
	struct tier_method *method;
	uint64_t expected;
	uint32_t n;
	int r;

	child_assert(!setresgid(NOBODY, NOBODY, NOBODY) && !setresuid(NOBODY, NOBODY, NOBODY));
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	expected = input_call(input, workload_find("crc32")->native);
	child_assert(!tier_connect(&conn, &opts));
	child_assert(!tier_load_bytes(conn, guest->object, guest->n_object, "crc32", 0, &module));
	child_assert(!tier_find(module, "crc32", &method));
	steps = TIER_CLIMB(method);
	while ((r = tier_climb_next(&steps, TEST_DEADLINE_NS, NULL, &n)) > 0)
		for (; n; n--)
			child_assert(input_call(input, tier_entry(method)) == expected);
	child_assert(!r && steps.answer.reason == TIER_REASON_PROMOTED);
	child_assert(input_call(input, tier_entry(method)) == expected);
	tier_disconnect(conn);
}

static void a_hanging_compilation_does_not_hold_up_another_user(void **state)
{
	struct world world;
	struct guest guest;

	world_open(&world, "hang:solo", ARGS("--call-counting-delay=0", "--compile-limit=1h"));
	guest = (struct guest){ .socket = world.daemon.socket };
	guest_read(&guest, workload_object("crc32"));
	world_call_over_threshold(&world);
	wait_until("the job to hang", tier_status(world.method).stage == TIER_STAGE_COMPILING);
	child_end(child_start(guest_climbs, &guest));
	assert_int_equal(tier_status(world.method).stage, TIER_STAGE_COMPILING);
	kill(worker_of(&world.daemon, 0), SIGKILL);
	world_check_kept(&world, TIER_REASON_WORKER_DIED);
	munmap(guest.object, guest.n_object);
	world_close(&world);
}

static void each_user_has_a_worker_of_its_own(void **state)
{
	struct world world;
	struct guest guest;

	world_open(&world, NULL, ARGS("--call-counting-delay=0", "--background-worker-timeout=1h"));
	guest = (struct guest){ .socket = world.daemon.socket };
	guest_read(&guest, workload_object("crc32"));
	child_end(child_start(guest_climbs, &guest));
	assert_true(worker_of(&world.daemon, 0) > 0);
	assert_true(worker_of(&world.daemon, NOBODY) > 0);
	assert_int_not_equal(worker_of(&world.daemon, 0), worker_of(&world.daemon, NOBODY));
	munmap(guest.object, guest.n_object);
	world_close(&world);
}

/* The module may be anything; this one calls nothing. */
static void a_worker_that_lies_about_what_it_inlined_is_not_believed(void **state)
{
	struct world world;

	world_open(&world, "lie:solo", ARGS("--call-counting-delay=0"));
	world_call_over_threshold(&world);
	world_check_kept(&world, TIER_REASON_RESULT_REFUSED);
	world_check_serves(&world, "crc32");
	world_close(&world);
}

/* -- Nobody waits any more --- */
static void the_job_of_a_module_that_goes_is_ended(void **state)
{
	struct tier_module *module;
	struct tier_conn *conn;
	struct world world;

	world_open(&world, "hang:solo", ARGS("--call-counting-delay=0", "--compile-limit=1h"));
	conn = daemon_connect(&world.daemon);
	world_call_over_threshold(&world);
	wait_until("the job to reach the worker", tier_status(world.method).stage == TIER_STAGE_COMPILING);
	assert_done(tier_unload(world.conn, "solo"));
	tier_disconnect(world.conn);
	assert_done(tier_load(conn, workload_object("crc32"), NULL, 0, &module));
	tier_close(module);
	tier_disconnect(conn);
	daemon_stop(&world.daemon);
}

static uint32_t n_workers(struct tier_conn *conn)
{
	struct wire_stats stats;

	assert_done(tier_stats(conn, &stats));
	return stats.n_workers;
}

static void the_load_of_a_client_that_is_gone_is_ended(void **state)
{
	struct daemon daemon;
	struct tier_conn *conn;
	pid_t pid;
	int out;

	setenv(FAULT, "hang:(load)", 1);
	daemon_start(&daemon, ARGS("--load-limit=1h"));
	unsetenv(FAULT);
	conn = daemon_connect(&daemon);
	pid = tierctl_start(&daemon, &out, "load", workload_object("fnv1a"), NULL);
	wait_until("the load to reach a worker", n_workers(conn) == 1);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	close(out);
	wait_until("the worker's end", n_workers(conn) == 0);
	tier_disconnect(conn);
	daemon_stop(&daemon);
}

/* -- Loads --- */
static void a_load_that_hangs_is_refused_in_a_sentence(void **state)
{
	char out[RUN_TEXT_MAX], err[RUN_TEXT_MAX];
	struct daemon daemon;
	struct wire_stats stats;
	struct tier_conn *conn;

	setenv(FAULT, "hang:(load)", 1);
	daemon_start(&daemon, ARGS("--load-limit=200ms"));
	unsetenv(FAULT);
	assert_int_equal(tierctl(&daemon, out, err, "load", workload_object("fnv1a"), NULL), 2);
	assert_non_null(strstr(err, "fnv1a"));
	assert_non_null(strstr(err, "time limit"));
	conn = daemon_connect(&daemon);
	assert_done(tier_stats(conn, &stats));
	assert_int_equal(stats.n_modules, 0);
	tier_disconnect(conn);
	daemon_stop(&daemon);
}

static void a_load_whose_worker_is_killed_is_refused_and_the_next_one_is_not(void **state)
{
	char out[RUN_TEXT_MAX], err[RUN_TEXT_MAX];
	struct daemon daemon;

	setenv(FAULT, "die:(load)", 1);
	daemon_start(&daemon, NULL);
	unsetenv(FAULT);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(tierctl(&daemon, out, err, "load", workload_object("fnv1a"), NULL), 2);
		assert_non_null(strstr(err, "fnv1a"));
		assert_non_null(strstr(err, "worker"));
		assert_int_equal(tierctl(&daemon, out, err, "stats", NULL), 0);
	}
	daemon_stop(&daemon);
}

static void an_idle_worker_that_is_killed_is_replaced(void **state)
{
	struct world world;

	world_open(&world, NULL, ARGS("--call-counting-delay=0", "--background-worker-timeout=1h"));
	for (int i = 0; i < 3; i++) {
		pid_t worker = worker_of(&world.daemon, 0);

		assert_true(worker > 0);
		kill(worker, SIGKILL);
		wait_until("the worker's end", worker_of(&world.daemon, 0) != worker);
		world_check_serves(&world, "crc32");
	}
	world_close(&world);
}

/* -- The zygote --- */
static void a_killed_zygote_is_started_again(void **state)
{
	struct world world;
	pid_t zygote, worker;

	world_open(&world, NULL, ARGS("--call-counting-delay=0"));
	zygote = zygote_of(&world.daemon);
	worker = worker_of(&world.daemon, 0);
	assert_true(zygote > 0 && worker > 0);
	kill(zygote, SIGKILL);
	kill(worker, SIGKILL);
	wait_until("the worker's end", worker_of(&world.daemon, 0) != worker);	/* idle: no job dies with it */
	world_check_serves(&world, "crc32");
	assert_int_not_equal(zygote_of(&world.daemon), zygote);
	climb(world.method, (uint64_t[5]){ SOLO_N });
	world_close(&world);
}

static void a_worker_outlives_a_killed_zygote(void **state)
{
	struct world world;
	pid_t worker;

	world_open(&world, NULL, ARGS("--call-counting-delay=0", "--background-worker-timeout=1h"));
	worker = worker_of(&world.daemon, 0);
	kill(zygote_of(&world.daemon), SIGKILL);
	climb(world.method, (uint64_t[5]){ SOLO_N });
	assert_int_equal(worker_of(&world.daemon, 0), worker);
	world_close(&world);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_worker_killed_in_the_middle_of_a_compilation_leaves_the_method_on_its_code),
		cmocka_unit_test(a_compiler_that_dies_on_one_method_compiles_the_others),
		cmocka_unit_test(a_compiler_that_hangs_is_ended_at_its_limit),
		cmocka_unit_test(a_compiler_that_takes_all_memory_is_told_from_one_that_dies),
		cmocka_unit_test(a_stopped_worker_holds_up_its_own_user_only_and_not_for_ever),
		cmocka_unit_test(a_hanging_compilation_does_not_hold_up_another_user),
		cmocka_unit_test(each_user_has_a_worker_of_its_own),
		cmocka_unit_test(a_worker_that_lies_about_what_it_inlined_is_not_believed),
		cmocka_unit_test(the_job_of_a_module_that_goes_is_ended),
		cmocka_unit_test(the_load_of_a_client_that_is_gone_is_ended),
		cmocka_unit_test(a_load_that_hangs_is_refused_in_a_sentence),
		cmocka_unit_test(a_load_whose_worker_is_killed_is_refused_and_the_next_one_is_not),
		cmocka_unit_test(an_idle_worker_that_is_killed_is_replaced),
		cmocka_unit_test(a_killed_zygote_is_started_again),
		cmocka_unit_test(a_worker_outlives_a_killed_zygote),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
