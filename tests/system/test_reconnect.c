/* SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/wait.h>
#include <cmocka.h>
#include "system/harness.h"
#include "system/json.h"
#include "tier/wire.h"
#include "util/base.h"

/* Clients whose daemon dies: with a successor that has taken everything over, with one that knows nothing, and with none. What
 * is exact about requests that are cut off is tested with a fake daemon (tests/unit/lib/test_reconnect.c). */

#define MS 1000000ull
#define FIB_N 10u
#define FIB_RESULT 55u

struct world {
	struct daemon daemon;
	struct tier_conn *conn;
	struct tier_module *module;
	struct tier_method *method;
};

static void world_start_kept(struct world *world, const char *const *args)
{
	daemon_start_kept(&world->daemon, args);
	world->conn = daemon_connect(&world->daemon);
	world->method = workload_load(world->conn, "fib", &world->module);
}

static void world_end(struct world *world)
{
	tier_close(world->module);
	tier_disconnect(world->conn);
	daemon_stop(&world->daemon);
}

static bool call_is_right(const struct tier_method *method)
{
	return tier_entry(method)(FIB_N, 0, 0, 0, 0) == FIB_RESULT;
}

static struct tier_conn *connect_for(const char *socket, uint64_t timeout_ns)
{
	struct tier_conn_opts opts = { .size = sizeof(opts), .socket = socket, .timeout_ns = timeout_ns };
	struct tier_conn *conn;

	if (tier_connect(&conn, &opts))
		fail_msg("%s", tier_error_text());
	return conn;
}

/* -- A successor that knows everything --- */
/* At each stage of the climb the daemon dies once; the schedule is what it would have been. */
static void a_climb_goes_on_with_the_successor(void **state)
{
	struct tier_climb climb;
	uint32_t calls, plan[8], n_steps = 0;
	struct world world;
	int r;

	world_start_kept(&world, ARGS("--call-counting-delay=0"));
	climb = TIER_CLIMB(world.method);
	while ((r = tier_climb_next(&climb, TIER_FOREVER, NULL, &calls)) > 0) {
		assert_true(n_steps < ARRAY_SIZE(plan));
		plan[n_steps++] = calls;
		daemon_kill_main(&world.daemon);
		while (calls--)
			assert_true(call_is_right(world.method));
	}
	assert_done(r);
	assert_int_equal(n_steps, 2);
	assert_int_equal(plan[0], 1);
	assert_int_equal(plan[1], 30);
	assert_int_equal(tier_status(world.method).status, TIER_STATUS_FINAL);
	assert_int_equal(events_count(world.conn, world.module, world.method, TIER_EVENT_THRESHOLD), 1);
	assert_int_equal(events_count(world.conn, world.module, world.method, TIER_EVENT_FINAL), 1);
	world_end(&world);
}

static void a_wait_lasts_until_the_successor_has_compiled(void **state)
{
	struct tier_answer answer;
	struct world world;

	world_start_kept(&world, ARGS("--call-counting-delay=0"));
	workers_stop(&world.daemon);
	for (int i = 0; i < 31; i++)
		assert_true(call_is_right(world.method));
	assert_int_equal(tier_wait(world.method, 50 * MS, NULL, NULL), -ETIMEDOUT);
	daemon_kill_main(&world.daemon);	/* the workers that stand still go with it */
	assert_done(tier_wait(world.method, TEST_DEADLINE_NS, NULL, &answer));
	assert_int_equal(answer.status, TIER_STATUS_FINAL);
	world_end(&world);
}

static void modules_keep_their_numbers_and_holds(void **state)
{
	struct tier_module *same;
	struct tier_method *method;
	struct world world;
	uint64_t id;

	world_start_kept(&world, NULL);
	id = tier_module_id(world.module);
	assert_done(tier_unload(world.conn, "fib"));	/* now it lives by this client's hold only */
	daemon_kill_main(&world.daemon);
	assert_true(call_is_right(world.method));	/* cold: asks the successor */
	assert_int_equal(tier_module_id(world.module), id);
	assert_done(tier_find(world.module, "fib", &method));
	assert_ptr_equal(method, world.method);
	assert_int_equal(tier_open(world.conn, "fib", &same), -ENOENT);
	assert_done(tier_load(world.conn, workload_object("fib"), NULL, 0, &same));
	assert_true(tier_module_id(same) > id);
	tier_close(same);
	world_end(&world);
}

/* Registered again by libtier's thread, and told of a body that the successor replaces */
static void slots_are_kept_by_the_successor(void **state)
{
	struct world world;
	tier_fn slot = NULL;

	world_start_kept(&world, ARGS("--call-counting-delay=0"));
	climb(world.method, (const uint64_t[5]){ FIB_N });
	assert_done(tier_slot_register(world.method, &slot));
	assert_ptr_not_equal(slot, tier_entry(world.method));
	daemon_kill_main(&world.daemon);
	wait_until("the slot to hold the code again", __atomic_load_n(&slot, __ATOMIC_ACQUIRE) != tier_entry(world.method));
	assert_int_equal(slot(FIB_N, 0, 0, 0, 0), FIB_RESULT);
	assert_done(tier_rejit(world.method, bpf_compile(world.daemon.folder, "fresh", "unsigned long fresh(unsigned long n) { return 7; }", ""),
			       "fresh", TIER_REJIT_FORCE));
	assert_int_equal(slot(FIB_N, 0, 0, 0, 0), 7);
	world_end(&world);
}

static void a_freeze_ends_with_the_daemon(void **state)
{
	struct world world;

	world_start_kept(&world, NULL);
	assert_done(tier_freeze(world.module));
	daemon_kill_main(&world.daemon);
	assert_int_equal(tier_thaw(world.module), -ECONNRESET);
	assert_non_null(strstr(tier_error_text(), "module 'fib' is not frozen any more"));
	assert_int_equal(tier_thaw(world.module), -EINVAL);
	assert_done(tier_freeze(world.module));
	assert_done(tier_thaw(world.module));
	world_end(&world);
}

static void the_path_is_the_successors(void **state)
{
	const char *why;
	struct world world;
	bool is_kernel;

	world_start_kept(&world, ARGS("--call-counting-delay=0"));
	is_kernel = tier_conn_uses_kernel(world.conn, NULL);
	assert_true(is_kernel == events_by_kernel());
	daemon_kill_main(&world.daemon);
	assert_true(tier_conn_uses_kernel(world.conn, &why) == is_kernel);
	climb(world.method, (const uint64_t[5]){ FIB_N });
	world_end(&world);
}

/* -- Threads of all kinds, and many deaths --- */
static bool storm_is_over;
static uint64_t storm_end;	/* the number that the subscriber reads up to; 0: not known yet */

enum { SUBSCRIBER = 6 };	/* among its threads */

struct storm {
	struct world *world;
	unsigned int number;
	uint64_t n;		/* what it has done */
	const char *wrong;	/* or what went wrong */
	char text[512];
};

static bool storm_goes_on(const struct storm *storm)
{
	return !storm->wrong && !__atomic_load_n(&storm_is_over, __ATOMIC_ACQUIRE);
}

static void storm_fails(struct storm *storm, const char *wrong)
{
	storm->wrong = wrong;
	snprintf(storm->text, sizeof(storm->text), "%s", tier_error_text());
}

static void *storm_calls(void *context)
{
	struct storm *storm = context;

	for (; storm_goes_on(storm); storm->n++)
		if (!call_is_right(storm->world->method))
			storm_fails(storm, "a call is wrong");
	return NULL;
}

static void *storm_asks(void *context)
{
	struct storm *storm = context;
	struct tier_answer answer;
	struct wire_stats stats;

	for (; storm_goes_on(storm); storm->n++)
		if (tier_status_ask(storm->world->method, &answer) || tier_stats(storm->world->conn, &stats))
			storm_fails(storm, "a question fails");
	return NULL;
}

/* A module of its own each time. What was asked for when the daemon died may be loaded, or not. */
static void *storm_loads(void *context)
{
	struct storm *storm = context;
	struct tier_climb climb;
	uint32_t calls;
	int r;

	for (; storm_goes_on(storm); storm->n++) {
		struct tier_module *module = NULL;
		struct tier_method *method = NULL;
		char name[64];

		snprintf(name, sizeof(name), "m%u.%llu", storm->number, (unsigned long long)storm->n);
		r = tier_load(storm->world->conn, workload_object("fib"), name, 0, &module);
		if (r == -ECONNRESET && strstr(tier_error_text(), "it may be loaded")) {
			r = tier_open(storm->world->conn, name, &module);
			if (r == -ENOENT)
				continue;
		}
		if (!r)
			r = tier_find(module, "fib", &method);
		climb = TIER_CLIMB(method);
		while (!r && storm_goes_on(storm) && (r = tier_climb_next(&climb, TEST_DEADLINE_NS, NULL, &calls)) > 0)
			for (r = 0; calls; calls--)
				if (!call_is_right(method))
					r = -ERANGE;
		if (r < 0)
			storm_fails(storm, "a module of its own fails");
		tier_close(module);
		r = tier_unload(storm->world->conn, name);
		if (r && r != -ECONNRESET)
			storm_fails(storm, "unloading fails");
	}
	return NULL;
}

static void *storm_subscribes(void *context)
{
	struct storm *storm = context;
	struct tier_events *events;
	struct tier_event event;
	uint64_t end;
	int r;

	if (tier_events_open(storm->world->conn, 1, &events)) {
		storm_fails(storm, "a cursor does not open");
		return NULL;
	}
	while (!storm->wrong) {
		end = __atomic_load_n(&storm_end, __ATOMIC_ACQUIRE);
		if (end && storm->n >= end)
			break;
		r = tier_events_next(events, end ? TEST_DEADLINE_NS : 100 * MS, &event, NULL, NULL);
		if (r == -ETIMEDOUT && !end)
			continue;
		if (r)
			storm_fails(storm, "a cursor fails");
		else if (event.sequence != ++storm->n)
			storm_fails(storm, "an event is missing, or comes twice");
	}
	tier_events_close(events);
	return NULL;
}

static void storm_forked(void *context)
{
	struct storm *storm = context;
	struct tier_answer answer;

	child_assert(call_is_right(storm->world->method));
	child_assert(tier_status_ask(storm->world->method, &answer) == 0);
}

static void *storm_forks(void *context)
{
	struct storm *storm = context;

	for (; storm_goes_on(storm); storm->n++) {
		int status = child_reap(child_start(storm_forked, storm));

		if (status)
			storm_fails(storm, "a fork fails");
	}
	return NULL;
}

static void nobody_minds_a_daemon_that_dies_again_and_again(void **state)
{
	void *(*const mains[])(void *) = { storm_calls, storm_calls, storm_asks, storm_asks, storm_loads, storm_loads,
					   storm_subscribes, storm_forks };
	struct storm storms[ARRAY_SIZE(mains)];
	pthread_t threads[ARRAY_SIZE(mains)];
	struct wire_stats stats;
	struct world world;

	world_start_kept(&world, ARGS("--call-counting-delay=0"));
	__atomic_store_n(&storm_is_over, false, __ATOMIC_RELEASE);
	__atomic_store_n(&storm_end, 0, __ATOMIC_RELEASE);
	for (unsigned int i = 0; i < ARRAY_SIZE(mains); i++) {
		storms[i] = (struct storm){ .world = &world, .number = i };
		assert_int_equal(pthread_create(&threads[i], NULL, mains[i], &storms[i]), 0);
	}
	for (int i = 0; i < (test_is_long() ? 50 : 10); i++) {
		usleep(1000 * (20 + 37 * i % 100));	/* at another point of what they do */
		daemon_kill_main(&world.daemon);
	}
	usleep(100000);
	__atomic_store_n(&storm_is_over, true, __ATOMIC_RELEASE);
	for (unsigned int i = 0; i < ARRAY_SIZE(mains); i++)
		if (i != SUBSCRIBER)
			pthread_join(threads[i], NULL);
	assert_done(tier_stats(world.conn, &stats));
	__atomic_store_n(&storm_end, stats.sequence, __ATOMIC_RELEASE);
	pthread_join(threads[SUBSCRIBER], NULL);
	for (unsigned int i = 0; i < ARRAY_SIZE(mains); i++) {
		if (storms[i].wrong)
			fail_msg("thread %u: %s after %llu: %s", i, storms[i].wrong, (unsigned long long)storms[i].n, storms[i].text);
		assert_true(storms[i].n > 0);
	}
	assert_true(storms[SUBSCRIBER].n >= stats.sequence);
	print_message("calls %llu, questions %llu, loads %llu, events %llu, forks %llu\n", (unsigned long long)storms[0].n,
		      (unsigned long long)storms[2].n, (unsigned long long)storms[4].n, (unsigned long long)storms[SUBSCRIBER].n,
		      (unsigned long long)storms[7].n);
	world_end(&world);
}

/* -- tierctl --- */
static void read_until(int fd, const char *what, char *to, size_t n_max)
{
	size_t n = strlen(to);

	while (!strstr(to, what)) {
		ssize_t got = read(fd, to + n, n_max - 1 - n);

		assert_true(got > 0);
		n += got;
		to[n] = 0;
	}
}

static void tierctl_follows_over_a_restart(void **state)
{
	static char text[65536];
	struct tier_module *other;
	struct world world;
	unsigned int last = 0, number;
	char *line;
	int out;
	pid_t pid;

	world_start_kept(&world, ARGS("--call-counting-delay=0"));
	pid = tierctl_start(&world.daemon, &out, "events", "--follow", "--from", "1", "--format", "csv", NULL);
	text[0] = 0;
	read_until(out, "module-loaded", text, sizeof(text));
	daemon_kill_main(&world.daemon);
	assert_done(tier_load(world.conn, workload_object("fib"), "more", 0, &other));
	assert_done(tier_unload(world.conn, "more"));
	tier_close(other);
	read_until(out, "module-unloaded", text, sizeof(text));
	for (line = strchr(text, '\n') + 1; sscanf(line, "%u,", &number) == 1 && strchr(line, '\n'); line = strchr(line, '\n') + 1) {
		assert_int_equal(number, last + 1);
		last = number;
	}
	kill(pid, SIGTERM);
	close(out);
	child_reap(pid);
	world_end(&world);
}

static void tierctl_waits_over_a_restart(void **state)
{
	static char text[4096];
	struct world world;
	int out, status;
	pid_t pid;

	world_start_kept(&world, ARGS("--call-counting-delay=0"));
	workers_stop(&world.daemon);
	for (int i = 0; i < 31; i++)
		assert_true(call_is_right(world.method));
	pid = tierctl_start(&world.daemon, &out, "wait", "fib:fib", NULL);
	wait_until("tierctl to be a session", tier_status(world.method).stage == TIER_STAGE_COMPILING
					       || tier_status(world.method).stage == TIER_STAGE_QUEUED);
	usleep(100000);		/* it waits, most likely; if not, it asks the successor */
	daemon_kill_main(&world.daemon);
	text[0] = 0;
	read_until(out, "final", text, sizeof(text));
	status = child_reap(pid);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	close(out);
	world_end(&world);
}

/* It has made all its calls when the daemon dies, and the successor makes the code that they have earned: no call more, no event
 * twice. */
static void tierctl_drives_over_a_restart(void **state)
{
	static char text[4096];
	struct world world;
	int out, status;
	pid_t pid;

	world_start_kept(&world, ARGS("--call-counting-delay=0"));
	workers_stop(&world.daemon);
	pid = tierctl_start(&world.daemon, &out, "drive", "fib:fib", "10", "--json", NULL);
	wait_until("the method to be over its threshold", tier_status(world.method).stage == TIER_STAGE_COMPILING
							   || tier_status(world.method).stage == TIER_STAGE_QUEUED);
	daemon_kill_main(&world.daemon);
	text[0] = 0;
	read_until(out, "]\n}", text, sizeof(text));
	status = child_reap(pid);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	close(out);
	assert_int_equal(json_length(text, "steps"), 3);
	assert_int_equal(json_number(text, "steps.0.calls"), 1);
	assert_int_equal(json_number(text, "steps.1.calls"), 30);
	assert_int_equal(json_number(text, "steps.2.calls"), 0);
	json_expect(text, "steps.2.status", "final");
	assert_int_equal(tier_status(world.method).status, TIER_STATUS_FINAL);
	assert_int_equal(events_count(world.conn, world.module, world.method, TIER_EVENT_THRESHOLD), 1);
	assert_int_equal(events_count(world.conn, world.module, world.method, TIER_EVENT_FINAL), 1);
	assert_true(call_is_right(world.method));
	world_end(&world);
}

/* -- Successors that know nothing, and none --- */
static void daemon_start_at(struct daemon *daemon, const char *socket)
{
	daemon_start(daemon, ARGS("--call-counting-delay=0", "--socket", socket));
}

static sigjmp_buf escape;
static char escape_text[512];

static void escape_by_jump(const char *module, const char *method, const char *text)
{
	(void)module;
	(void)method;
	snprintf(escape_text, sizeof(escape_text), "%s", text);
	siglongjmp(escape, 1);
}

static bool call_escapes(const struct tier_method *method)
{
	volatile bool is_caught = true;

	tier_set_failure_handler(escape_by_jump);
	if (!sigsetjmp(escape, 1)) {
		tier_entry(method)(FIB_N, 0, 0, 0, 0);
		is_caught = false;
	}
	tier_set_failure_handler(NULL);
	return is_caught;
}

static void a_module_that_nobody_kept_is_a_clear_error(void **state)
{
	static const char text[] = "the daemon that knew module 'fib' is gone, and its successor does not know it";
	struct tier_module *cold_module, *again;
	struct tier_method *cold, *method;
	struct daemon first, second;
	struct tier_module *module;
	struct tier_answer answer;
	struct tier_conn *conn;

	daemon_start(&first, ARGS("--call-counting-delay=0"));
	conn = daemon_connect(&first);
	method = workload_load(conn, "fib", &module);
	assert_done(tier_load(conn, workload_object("fib"), "cold", 0, &cold_module));
	assert_done(tier_find(cold_module, "fib", &cold));
	assert_true(call_is_right(method));
	daemon_kill(&first);
	daemon_start_at(&second, first.socket);
	assert_int_equal(tier_status_ask(method, &answer), -ESTALE);
	assert_string_equal(tier_error_text(), text);
	assert_int_equal(tier_revert(method), -ESTALE);
	for (int i = 0; i < 100; i++)			/* over its threshold, which nobody hears */
		assert_true(call_is_right(method));
	assert_int_equal(tier_wait(method, TEST_DEADLINE_NS, NULL, NULL), -ESTALE);
	for (int i = 0; i < 3; i++) {
		assert_true(call_escapes(cold));
		assert_non_null(strstr(escape_text, "module 'cold' is gone"));
	}
	/* under the same name, and most likely the same number */
	assert_done(tier_load(conn, workload_object("fib"), "fib", 0, &again));
	assert_ptr_not_equal(again, module);
	assert_int_equal(tier_status_ask(method, &answer), -ESTALE);
	tier_close(module);
	assert_done(tier_find(again, "fib", &method));
	assert_true(call_is_right(method));
	climb(method, (const uint64_t[5]){ FIB_N });
	assert_done(tier_status_ask(method, &answer));
	assert_int_equal(answer.status, TIER_STATUS_FINAL);
	tier_close(again);
	tier_close(cold_module);
	tier_disconnect(conn);
	daemon_stop(&second);
	daemon_stop(&first);
}

static void without_a_daemon_all_ends_in_bounded_time(void **state)
{
	struct tier_module *module;
	struct tier_method *method;
	struct tier_answer answer;
	struct daemon daemon;
	struct tier_conn *conn;
	uint64_t begin;

	daemon_start(&daemon, ARGS("--call-counting-delay=0"));
	conn = connect_for(daemon.socket, 200 * MS);
	method = workload_load(conn, "fib", &module);
	daemon_kill(&daemon);
	begin = test_now_ns();
	assert_true(call_escapes(method));
	assert_non_null(strstr(escape_text, daemon.socket));
	assert_true(test_now_ns() - begin >= 200 * MS);
	assert_int_equal(tier_status_ask(method, &answer), -ECONNRESET);
	assert_int_equal(tier_load(conn, workload_object("fib"), "more", 0, NULL), -ECONNRESET);
	tier_close(module);
	tier_disconnect(conn);
	assert_true(test_now_ns() - begin < 5000 * MS);
	daemon_stop(&daemon);
}

struct late {
	const struct tier_method *method;
	bool is_right;
};

static void *late_call(void *context)
{
	struct late *late = context;

	late->is_right = call_is_right(late->method);
	return NULL;
}

/* The keeper stands still, so the gap lasts as long as the test wants; its socket takes connections meanwhile. */
static void cold_calls_and_forks_of_the_gap_wait_for_the_successor(void **state)
{
	struct tier_answer answer;
	struct storm storm;
	struct world world;
	struct late late;
	pthread_t thread;
	pid_t child, main_pid;

	world_start_kept(&world, ARGS("--call-counting-delay=0"));
	storm = (struct storm){ .world = &world };
	late = (struct late){ .method = world.method };
	main_pid = daemon_main_pid(&world.daemon);
	kill(world.daemon.pid, SIGSTOP);
	kill(main_pid, SIGKILL);
	assert_int_equal(pthread_create(&thread, NULL, late_call, &late), 0);
	child = child_start(storm_forked, &storm);
	usleep(50000);
	assert_int_equal(tier_wait(world.method, 0, NULL, &answer), 0);		/* cold: quiet */
	assert_int_equal(answer.stage, TIER_STAGE_COLD);
	kill(world.daemon.pid, SIGCONT);
	pthread_join(thread, NULL);
	assert_true(late.is_right);
	child_end(child);
	world_end(&world);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_climb_goes_on_with_the_successor),
		cmocka_unit_test(a_wait_lasts_until_the_successor_has_compiled),
		cmocka_unit_test(modules_keep_their_numbers_and_holds),
		cmocka_unit_test(slots_are_kept_by_the_successor),
		cmocka_unit_test(a_freeze_ends_with_the_daemon),
		cmocka_unit_test(the_path_is_the_successors),
		cmocka_unit_test(nobody_minds_a_daemon_that_dies_again_and_again),
		cmocka_unit_test(tierctl_follows_over_a_restart),
		cmocka_unit_test(tierctl_waits_over_a_restart),
		cmocka_unit_test(tierctl_drives_over_a_restart),
		cmocka_unit_test(a_module_that_nobody_kept_is_a_clear_error),
		cmocka_unit_test(without_a_daemon_all_ends_in_bounded_time),
		cmocka_unit_test(cold_calls_and_forks_of_the_gap_wait_for_the_successor),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
