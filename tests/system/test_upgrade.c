/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <tier/wire.h>
#include "order.h"
#include "system/harness.h"
#include "util/base.h"

/* Another program in the daemon's place: one of the next version, whose ledger has grown (build/next/tierd), takes
 * everything over and goes on; one that is not compatible (build/other/tierd), and an earlier one, refuse with a
 * sentence, and the program that the ledger belongs to goes on with it. */

#define EVENTS_MAX 2000

/* Each adds its number, counted from 1, to its argument. */
enum { COLD, COUNTING, FINAL, REPLACED, COMPILING, QUEUED, METHODS };
static const char *const names[METHODS] = {"cold", "counting", "final", "replaced", "compiling", "queued"};
static const char source[] = "#define METHOD(name, n) __attribute__((noinline)) long name(long x) { return x + n; }\n"
                             "METHOD(cold, 1) METHOD(counting, 2) METHOD(final, 3)\n"
                             "METHOD(replaced, 4) METHOD(compiling, 5) METHOD(queued, 6)\n";
static const char replacement[] = "long replaced(long x) { return x + 100; }\n";

struct world {
	struct daemon daemon;
	struct tier_conn *conn;
	struct tier_module *module;
	struct tier_method *methods[METHODS];
	struct tier_answer before[METHODS];
};

static void find_methods(struct world *world)
{
	for (int i = 0; i < METHODS; i++)
		assert_done(tier_find(world->module, names[i], &world->methods[i]));
}

static void world_start(struct world *world)
{
	*world = (struct world){.conn = NULL};
	daemon_start_kept(&world->daemon, ARGS("--call-counting-delay=0", "--background-workers=1"));
	world->conn = daemon_connect(&world->daemon);
	assert_done(
	        tier_load(world->conn, bpf_compile(world->daemon.folder, "up", source, "-g"), "up", 0, &world->module));
	find_methods(world);
}

static void world_end(struct world *world)
{
	tier_disconnect(world->conn);
	daemon_stop(&world->daemon);
}

static void call(const struct world *world, int method, uint32_t n)
{
	const long number = method == REPLACED && world->before[REPLACED].generation ? 100 : method + 1;

	while (n--)
		assert_int_equal(tier_entry(world->methods[method])(n, 0, 0, 0, 0), n + number);
}

static void await_stage(const struct world *world, int method, enum tier_stage stage)
{
	struct tier_answer answer;

	wait_until(tier_stage_name(stage),
	           (assert_int_equal(tier_status_ask(world->methods[method], &answer), 0), answer.stage == stage));
}

/* Each method to where its name says; who compiles stands still. */
static void reach_all(struct world *world)
{
	call(world, COUNTING, 11);
	climb(world->methods[FINAL], NULL);
	climb(world->methods[REPLACED], NULL);
	assert_done(tier_rejit(world->methods[REPLACED], bpf_compile(world->daemon.folder, "new", replacement, "-g"),
	                       NULL, 0));
	world->before[REPLACED].generation = 1;
	call(world, REPLACED, 5);
	workers_stop(&world->daemon);
	call(world, COMPILING, 31);
	await_stage(world, COMPILING, TIER_STAGE_COMPILING);
	call(world, QUEUED, 31);
	await_stage(world, QUEUED, TIER_STAGE_QUEUED);
	for (int i = 0; i < METHODS; i++)
		world->before[i] = tier_status(world->methods[i]);
	assert_int_equal(world->before[COUNTING].remaining, 20);
	assert_int_equal(world->before[REPLACED].remaining, 26);
}

/* -- After a takeover --- */
static void connect_again(struct world *world)
{
	tier_disconnect(world->conn);
	world->conn = daemon_connect(&world->daemon);
	assert_done(tier_open(world->conn, "up", &world->module));
	find_methods(world);
}

static void assert_same(const struct tier_answer *one, const struct tier_answer *two)
{
	assert_int_equal(one->status, two->status);
	assert_string_equal(tier_stage_name(one->stage), tier_stage_name(two->stage));
	assert_string_equal(tier_level_name(one->tier), tier_level_name(two->tier));
	assert_int_equal(one->reason, two->reason);
	assert_int_equal(one->remaining, two->remaining);
	assert_int_equal(one->generation, two->generation);
}

/* Nobody fell back; what was being compiled and what waited comes to its end. */
static void assert_nothing_lost(struct world *world)
{
	struct tier_answer answer;

	for (int i = 0; i < METHODS; i++) {
		if (i == COMPILING || i == QUEUED) {
			assert_done(tier_wait(world->methods[i], TEST_DEADLINE_NS, NULL, &answer));
			assert_int_equal(answer.tier, TIER_LEVEL_TIER1);
			world->before[i] = answer;
		}
		assert_done(tier_status_ask(world->methods[i], &answer));
		assert_same(&answer, &world->before[i]);
	}
}

/* The whole journal: each number once, each method's events in order */
static void assert_journal(struct world *world)
{
	static struct tier_event events[EVENTS_MAX];
	const size_t n = events_read(world->conn, 0, UINT32_MAX, events, EVENTS_MAX);
	struct order *order = order_new(1);
	const char *broken = NULL;

	assert_true(n < EVENTS_MAX);
	for (size_t i = 0; !broken && i < n; i++)
		broken = order_hear(order, &events[i]);
	if (broken)
		fail_msg("%s", broken);
	for (int i = COMPILING; i <= QUEUED; i++)
		assert_int_equal(
		        order_find(order, tier_module_id(world->module), method_index(world->module, world->methods[i]))
		                ->now.stage,
		        TIER_STAGE_FINAL);
	assert_int_equal(order->n_kinds[TIER_EVENT_MODULE_LOADED], 1);
	assert_true(order_is_quiet(order));
	order_free(order);
}

static void assert_n_takeovers(struct world *world, uint64_t n)
{
	struct wire_stats stats;

	assert_done(tier_stats(world->conn, &stats));
	assert_int_equal(stats.n_takeovers, n);
}

static bool log_has(const struct world *world, const char *text)
{
	static char log[1 << 20];
	int fd = open(world->daemon.log, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	assert_true(fd >= 0);
	n = read(fd, log, sizeof(log) - 1);
	close(fd);
	assert_true(n >= 0);
	log[n] = '\0';
	return strstr(log, text);
}

static void replace_program(const struct world *world, const char *variant)
{
	char path[4096];

	snprintf(path, sizeof(path), "%s/%s/tierd", build_folder(), variant);
	daemon_replace_program(&world->daemon, path);
}

/* -- The next version --- */
/* The counters go on where they stood; the next daemon, of the same version, finds what this one made. */
static void go_on(struct world *world)
{
	struct tier_answer answer;

	call(world, COUNTING, 19);
	assert_int_equal(tier_remaining(world->methods[COUNTING]), 1);
	call(world, COUNTING, 1);
	assert_done(tier_wait(world->methods[COUNTING], TEST_DEADLINE_NS, NULL, &world->before[COUNTING]));
	assert_int_equal(world->before[COUNTING].tier, TIER_LEVEL_TIER1);
	call(world, COLD, 4);
	assert_done(tier_status_ask(world->methods[COLD], &world->before[COLD]));
	assert_int_equal(world->before[COLD].remaining, 27);
	assert_done(tier_revert(world->methods[REPLACED]));
	assert_done(tier_status_ask(world->methods[REPLACED], &answer));
	assert_int_equal(answer.tier, TIER_LEVEL_TIER1);
	world->before[REPLACED] = answer;
	assert_int_equal(tier_entry(world->methods[REPLACED])(1, 0, 0, 0, 0), 5);
}

static void the_next_version_takes_over_from_a_killed_daemon_and_from_itself(void **state)
{
	struct world world;

	world_start(&world);
	reach_all(&world);
	replace_program(&world, "next");
	daemon_kill_main(&world.daemon);
	connect_again(&world);
	assert_true(log_has(&world, "the ledger of an earlier tierd is converted"));
	assert_true(log_has(&world, "as an earlier one left them, 0 of its own"));
	assert_nothing_lost(&world);
	assert_n_takeovers(&world, 1);
	assert_journal(&world);
	go_on(&world);
	daemon_kill_main(&world.daemon);
	connect_again(&world);
	assert_nothing_lost(&world);
	assert_n_takeovers(&world, 2);
	assert_journal(&world);
	assert_false(log_has(&world, "is lost"));
	world_end(&world);
}

static void the_next_version_takes_over_when_the_daemon_is_restarted(void **state)
{
	struct world world;

	world_start(&world);
	reach_all(&world);
	workers_continue(&world.daemon);
	replace_program(&world, "next");
	daemon_restart_main(&world.daemon);
	connect_again(&world);
	assert_nothing_lost(&world);
	assert_journal(&world);
	go_on(&world);
	daemon_restart_main(&world.daemon);
	connect_again(&world);
	assert_nothing_lost(&world);
	assert_journal(&world);
	world_end(&world);
}

/* -- The same version with other options --- */
/* A program that is @options more than tierd */
static void replace_options(const struct world *world, const char *options)
{
	char path[128], program[4096];
	FILE *script;

	assert_non_null(realpath(build_folder(), program));
	snprintf(path, sizeof(path), "%s/tierd.sh", world->daemon.folder);
	script = fopen(path, "we");
	assert_non_null(script);
	fprintf(script, "#!/bin/sh\nexec '%s/tierd' \"$@\" %s\n", program, options);
	assert_int_equal(fchmod(fileno(script), 0700), 0);
	assert_int_equal(fclose(script), 0);
	daemon_replace_program(&world->daemon, path);
}

/* Entry points are written anew, whoever is counted keeps what is left, and what comes new has the new threshold. */
static void other_options_are_taken_over_and_told(void **state)
{
	struct tier_answer answer;
	struct world world;

	world_start(&world);
	reach_all(&world);
	workers_continue(&world.daemon);
	replace_options(&world, "--backpatch=forwarder --call-counting-stubs=off --call-count-threshold=50 --tiered-pgo=on");
	daemon_restart_main(&world.daemon);
	connect_again(&world);
	assert_true(log_has(&world, "--backpatch=lazy --call-counting-stubs=on; from now on it is forwarder and off"));
	assert_nothing_lost(&world);
	call(&world, COUNTING, 20);
	assert_done(tier_wait(world.methods[COUNTING], TEST_DEADLINE_NS, NULL, &answer));
	assert_int_equal(answer.tier, TIER_LEVEL_TIER1); /* the module was loaded without instrumented tiers */
	call(&world, COLD, 1);
	assert_int_equal(tier_remaining(world.methods[COLD]), 50);
	call(&world, COLD, 49);
	assert_int_equal(tier_remaining(world.methods[COLD]), 1);
	climb(world.methods[COLD], NULL);
	assert_journal(&world);
	world_end(&world);
}

/* -- Those that refuse --- */
/* @program refuses; then @owner goes on as if nothing had happened. */
static void refuse_and_go_on(struct world *world, const char *program, const char *sentence, const char *owner)
{
	const pid_t before = daemon_main_pid(&world->daemon);

	replace_program(world, program);
	assert_int_equal(kill(world->daemon.pid, SIGHUP), 0);
	wait_until("the keeper to give up", log_has(world, "tierd does not start any more"));
	assert_true(log_has(world, sentence));
	assert_true(log_has(world, "ended with exit status 2"));
	replace_program(world, owner);
	assert_int_equal(kill(world->daemon.pid, SIGHUP), 0);
	daemon_await_successor(&world->daemon, before);
	connect_again(world);
	assert_nothing_lost(world);
	assert_n_takeovers(world, strcmp(owner, ".") ? 2 : 1);
	assert_journal(world);
}

static void an_incompatible_program_refuses_and_leaves_everything_as_it_was(void **state)
{
	struct world world;

	if (!store_is_keepers())
		skip(); /* what systemd does with a service that does not start is systemd's */
	world_start(&world);
	reach_all(&world);
	workers_continue(&world.daemon);
	refuse_and_go_on(&world, "other", "it has format 5, and this tierd takes over format 99 alone", ".");
	go_on(&world);
	world_end(&world);
}

static void an_earlier_program_refuses_what_a_later_one_left(void **state)
{
	struct world world;

	if (!store_is_keepers())
		skip();
	world_start(&world);
	reach_all(&world);
	replace_program(&world, "next");
	daemon_kill_main(&world.daemon);
	connect_again(&world);
	assert_nothing_lost(&world);
	refuse_and_go_on(&world, ".", "it is of a newer tierd: bytes of the global record: 72, here 64", "next");
	go_on(&world);
	world_end(&world);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(the_next_version_takes_over_from_a_killed_daemon_and_from_itself),
	        cmocka_unit_test(the_next_version_takes_over_when_the_daemon_is_restarted),
	        cmocka_unit_test(other_options_are_taken_over_and_told),
	        cmocka_unit_test(an_incompatible_program_refuses_and_leaves_everything_as_it_was),
	        cmocka_unit_test(an_earlier_program_refuses_what_a_later_one_left),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
