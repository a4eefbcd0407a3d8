/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <tier/wire.h>
#include <time.h>
#include "system/harness.h"

/* The daemon's thread never works long at a stretch, whatever it is given
 *
 * The largest module of the tests is loaded while another client makes one cold call after the other; then all its
 * methods are called for the first time, begin to be counted together, cross their thresholds while the daemon stands, and
 * the module is unloaded. The figure is the daemon's own (`tierctl stats`): nothing here looks at a clock. */

#define N_METHODS 5000u
#define N_INSNS 64u			/* per method */
#define N_COLD 6000u			/* small methods that the other client calls */
#define N_HELD 800u			/* modules of one session, at the most */
#define TURN_MAX_NS 5000000u

/* @n methods m0, m1...: f(a) = a * 31^(@n_insns - 2), every 16th calls the next one as well, for a relocation */
static const char *generate(const struct daemon *daemon, const char *name, unsigned int n, unsigned int n_insns)
{
	size_t n_max = 256 * (size_t)n;
	char *text = malloc(n_max), *p = text;
	const char *path;

	assert_non_null(text);
	p += sprintf(p, "\t.text\n");
	for (unsigned int i = 0; i < n; i++) {
		p += sprintf(p, "\t.globl m%u\n\t.type m%u,@function\nm%u:\n\tr0 = r1\n", i, i, i);
		if (i % 16 == 0 && i + 1 < n)
			p += sprintf(p, "\tcall m%u\n", i + 1);
		p += sprintf(p, "\t.rept %u\n\tr0 *= 31\n\t.endr\n\texit\n.Lend%u:\n\t.size m%u, .Lend%u-m%u\n", n_insns - 2, i, i, i, i);
	}
	assert_true((size_t)(p - text) < n_max);
	path = bpf_compile(daemon->folder, name, text, "-x assembler");
	free(text);
	return path;
}

static uint64_t power_of_31(unsigned int n)
{
	uint64_t value = 1;

	while (n--)
		value *= 31;
	return value;
}

static uint64_t expected(unsigned int i, unsigned int n, unsigned int n_insns)
{
	uint64_t once = power_of_31(n_insns - 2);

	return i % 16 == 0 && i + 1 < n ? once * once : once;
}

/* -- The other client --- */
struct caller {
	struct daemon daemon;
	volatile uint32_t *board;	/* [0] begin, [1] end, [2] cold calls made meanwhile */
};

/* Calls each method of the module "small" for the first time, from when the board says so until it says otherwise. */
static void caller(void *context)
{
	struct caller *c = context;
	struct tier_conn_opts opts = { .size = sizeof(opts), .socket = c->daemon.socket, .timeout_ns = TEST_DEADLINE_NS };
	struct tier_conn *conn;
	struct tier_module *module;
	struct tier_method *method;

	child_assert(!tier_connect(&conn, &opts) && !tier_open(conn, "small", &module));
	c->board[3] = true;
	while (!c->board[0])
		;
	for (uint32_t i = 0; i < N_COLD && !c->board[1]; i++) {
		child_assert(!tier_method_at(module, i, &method));
		tier_entry(method)(1, 0, 0, 0, 0);
		c->board[2]++;
	}
	tier_disconnect(conn);
}

static void report_turn(struct tier_conn *conn, const char *when)
{
	struct wire_stats stats;

	assert_done(tier_stats(conn, &stats));
	print_message("%-40s longest turn so far %5lu µs, in %s\n", when, (unsigned long)(stats.longest_turn_ns / 1000),
		      stats.longest_turn_name);
	if (stats.longest_turn_ns >= TURN_MAX_NS)
		fail_msg("a turn of %lu µs in %s", (unsigned long)(stats.longest_turn_ns / 1000), stats.longest_turn_name);
}

static void call_each(struct tier_module *module, unsigned int n_rounds)
{
	struct tier_method *method;

	for (unsigned int round = 0; round < n_rounds; round++)
		for (uint32_t i = 0; i < N_METHODS; i++) {
			assert_done(tier_method_at(module, i, &method));
			assert_int_equal(tier_entry(method)(1, 0, 0, 0, 0), expected(i, N_METHODS, N_INSNS));
		}
}

static bool all_count(struct tier_module *module)
{
	struct tier_method *method;

	for (uint32_t i = 0; i < N_METHODS; i++) {
		assert_done(tier_method_at(module, i, &method));
		if (tier_status(method).stage < TIER_STAGE_COUNTING)
			return false;
	}
	return true;
}

/* Nothing is under way, and no timer that follows work is about to fire: only the questions themselves take turns. Who is
 * stopped in the middle of a turn has a long one. */
static bool is_quiet(struct tier_conn *conn)
{
	struct wire_stats before, after;
	uint32_t n_pending;

	assert_done(tier_pending_all(conn, &n_pending));
	assert_done(tier_stats(conn, &before));
	nanosleep(&(struct timespec){ .tv_nsec = 30000000 }, NULL);
	assert_done(tier_stats(conn, &after));
	return !n_pending && after.n_turns - before.n_turns <= 1;
}

/* As /proc has it: R, S, D, T... */
static char state_of(pid_t pid)
{
	char path[64], state = 0;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	file = fopen(path, "r");
	assert_non_null(file);
	assert_int_equal(fscanf(file, "%*d (%*[^)]) %c", &state), 1);
	fclose(file);
	return state;
}

static void check_turns(const char *ring_bytes)
{
	const char *large, *small;
	struct tier_conn *conn;
	struct tier_module *module;
	struct caller other;
	uint32_t n_before;
	char path[256];
	pid_t pid;

	other.board = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_true(other.board != MAP_FAILED);
	daemon_start(&other.daemon, ARGS("--ring-bytes", ring_bytes));
	small = generate(&other.daemon, "small", N_COLD, 8);
	assert_int_equal(tierctl(&other.daemon, NULL, NULL, "load", small, NULL), 0);
	large = strcpy(path, generate(&other.daemon, "large", N_METHODS, N_INSNS));
	pid = child_start(caller, &other);
	conn = daemon_connect(&other.daemon);
	wait_until("the other client", other.board[3]);
	report_turn(conn, "a module of 6000 small methods loaded:");

	other.board[0] = true;
	wait_until("the first cold call", other.board[2] > 0);
	n_before = other.board[2];
	assert_done(tier_load(conn, large, NULL, 0, &module));
	assert_int_equal(tier_module_n_methods(module), N_METHODS);
	print_message("%u cold calls beside the load\n", other.board[2] - n_before);
	assert_true(other.board[2] > n_before);
	report_turn(conn, "5000 methods, 320000 instructions loaded:");
	call_each(module, 1);
	other.board[1] = true;
	child_end(pid);
	report_turn(conn, "each called once:");
	wait_until("counting to begin", all_count(module));
	report_turn(conn, "all counted:");
	call_each(module, 29);
	wait_until("the daemon to be idle", is_quiet(conn));
	wait_until("the daemon to sleep", state_of(other.daemon.pid) == 'S');	/* the turn that answered is over */
	kill(other.daemon.pid, SIGSTOP);	/* so that all bells come at once */
	call_each(module, 2);
	kill(other.daemon.pid, SIGCONT);
	report_turn(conn, "all over their thresholds:");
	assert_done(tier_unload(conn, "large"));
	tier_close(module);
	report_turn(conn, "unloaded:");
	tier_disconnect(conn);
	munmap((void *)other.board, 4096);
	daemon_stop(&other.daemon);
}

static void no_turn_takes_five_milliseconds(void **state)
{
	check_turns("256K");
}

static void no_turn_takes_five_milliseconds_when_bells_are_lost(void **state)
{
	check_turns("4096");
}

/* 300,000 instructions in one method: its tier-0 code is made while it is loaded. */
static void the_first_call_of_a_huge_method_does_not_hold_the_loop(void **state)
{
	const unsigned int n_insns = 300000;
	struct tier_conn *conn;
	struct tier_module *module;
	struct tier_method *method;
	struct daemon daemon;

	daemon_start(&daemon, NULL);
	conn = daemon_connect(&daemon);
	assert_done(tier_load(conn, generate(&daemon, "huge", 1, n_insns), NULL, 0, &module));
	assert_done(tier_method_at(module, 0, &method));
	assert_int_equal(tier_status(method).status, TIER_STATUS_COLD);
	assert_int_equal(tier_entry(method)(1, 0, 0, 0, 0), power_of_31(n_insns - 2));
	report_turn(conn, "a method of 300000 instructions called:");
	tier_close(module);
	tier_disconnect(conn);
	daemon_stop(&daemon);
}

/* "m" ends as @reason says; its result stays the same. */
static void check_end(struct daemon *daemon, struct tier_conn *conn, const char *name, const char *source, enum tier_reason reason)
{
	struct tier_answer answer;
	struct tier_module *module;
	struct tier_method *method;
	uint64_t result;

	assert_done(tier_load(conn, bpf_compile(daemon->folder, name, source, "-x assembler"), NULL, 0, &module));
	assert_done(tier_find(module, "m", &method));
	result = tier_entry(method)(7, 0, 0, 0, 0);
	while (tier_remaining(method))
		assert_true(tier_entry(method)(7, 0, 0, 0, 0) == result);
	assert_done(tier_wait(method, 10 * TEST_DEADLINE_NS, NULL, &answer));
	assert_string_equal(tier_reason_name(answer.reason), tier_reason_name(reason));
	assert_true(tier_entry(method)(7, 0, 0, 0, 0) == result);
	report_turn(conn, name);
	tier_close(module);
}

#define BEGIN "\t.globl m\n\t.type m,@function\nm:\n\tr0 = r1\n"
#define END "\texit\n.Lend:\n\t.size m, .Lend-m\n"
#define CALLEE "\t.type n,@function\nn:\n\tr0 = 1\n\t.rept 300\n\tr0 *= 31\n\t.endr\n\texit\n.Ln:\n\t.size n, .Ln-n\n"

static void what_the_optimizer_takes_and_gives_fits_in_a_turn(void **state)
{
	struct daemon daemon;
	struct tier_conn *conn;

	/* a limit that they keep beside anything else that the machine does; how long they take alone is test_codegen's */
	daemon_start(&daemon, ARGS("--call-counting-delay=0", "--call-count-threshold=2", "--compile-limit=5min"));
	conn = daemon_connect(&daemon);
	check_end(&daemon, conn, "long", BEGIN "\t.rept 3332\n\tr0 *= 31\n\tr0 += r1\n\tr0 ^= 77\n\t.endr\n" END,
			  TIER_REASON_PROMOTED);
	check_end(&daemon, conn, "too-long", BEGIN "\t.rept 32767\n\tr0 *= 31\n\t.endr\n" END,
			  TIER_REASON_TOO_LARGE);
	check_end(&daemon, conn, "calls", BEGIN "\t.rept 16000\n\tcall n\n\t.endr\n" END CALLEE,
			  TIER_REASON_PROMOTED);
	check_end(&daemon, conn, "more-calls", BEGIN "\t.rept 17000\n\tcall n\n\t.endr\n" END CALLEE,
		  TIER_REASON_TOO_LARGE);
	tier_disconnect(conn);
	daemon_stop(&daemon);
}

/* Modules without a name that only this session holds: its end releases all of them. */
static void the_end_of_a_session_with_hundreds_of_modules_does_not_hold_the_loop(void **state)
{
	struct wire_stats stats = { .n_modules = 1 };
	struct tier_conn *conn, *other;
	struct tier_module *module;
	struct tier_method *method;
	struct daemon daemon;
	const char *object;
	unsigned int n;
	int r;

	daemon_start(&daemon, NULL);
	conn = daemon_connect(&daemon);
	other = daemon_connect(&daemon);
	object = generate(&daemon, "small", 16, 8);
	for (n = 0; n < N_HELD; n++) {
		r = tier_load(conn, object, NULL, 0, &module);
		if (r == -EDQUOT)	/* fewer open files allow fewer modules */
			break;
		assert_done(r);
		assert_done(tier_method_at(module, 0, &method));
		assert_int_equal(tier_entry(method)(1, 0, 0, 0, 0), expected(0, 16, 8));
		assert_done(tier_unload(conn, "small"));
	}
	assert_done(tier_stats(other, &stats));
	assert_true(n >= 100);
	assert_int_equal(stats.n_modules, n);
	tier_disconnect(conn);
	while (stats.n_modules)
		assert_done(tier_stats(other, &stats));
	report_turn(other, "a session with hundreds of modules ended:");
	tier_disconnect(other);
	daemon_stop(&daemon);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_first_call_of_a_huge_method_does_not_hold_the_loop),
		cmocka_unit_test(what_the_optimizer_takes_and_gives_fits_in_a_turn),
		cmocka_unit_test(the_end_of_a_session_with_hundreds_of_modules_does_not_hold_the_loop),
		cmocka_unit_test(no_turn_takes_five_milliseconds),
		cmocka_unit_test(no_turn_takes_five_milliseconds_when_bells_are_lost),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
