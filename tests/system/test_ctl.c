/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "system/harness.h"
#include "system/json.h"
#include "util/base.h"

/* tierctl: what each verb prints, for people and as JSON, and how it ends: 0 done, 1 the asked-for condition was not met,
 * 2 usage or failure, with one sentence. */

#define HELD "--call-counting-delay=1h"

static struct daemon daemon_;
static char out[RUN_TEXT_MAX], err[RUN_TEXT_MAX];

/* Runs it, and it must succeed without a word on standard error. */
#define done(...)                                                                                                      \
	do {                                                                                                           \
		int done_ = tierctl(&daemon_, out, err, __VA_ARGS__, NULL);                                            \
		if (done_ || *err)                                                                                     \
			fail_msg("status %d; out: %s; err: %s", done_, out, err);                                      \
	} while (0)
/* Runs it, and it must end with @status and a sentence that contains @words. */
#define fails(status, words, ...)                                                                                      \
	do {                                                                                                           \
		int status_ = tierctl(&daemon_, out, err, __VA_ARGS__, NULL);                                          \
		expect_sentence(status_, status, words);                                                               \
	} while (0)

static void expect_sentence(int status, int expected, const char *words)
{
	if (status != expected || strncmp(err, "tierctl: ", 9) || !strstr(err, words))
		fail_msg("status %d instead of %d; err: %s, without '%s'", status, expected, err, words);
	assert_ptr_equal(strchr(err, '\n'), err + strlen(err) - 1);
}

static int start_held(void **state)
{
	daemon_start(&daemon_, ARGS(HELD));
	return 0;
}

static int start_prompt(void **state)
{
	daemon_start(&daemon_, ARGS("--call-counting-delay=0"));
	return 0;
}

static int stop(void **state)
{
	daemon_stop(&daemon_);
	return 0;
}

static const char *file_make(const char *name, const char *text)
{
	static char path[256];
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", daemon_.folder, name);
	file = fopen(path, "w");
	assert_non_null(file);
	fputs(text, file);
	fclose(file);
	return path;
}

static bool has_line_with(const char *text, const char *a, const char *b)
{
	const char *at = strstr(text, a);

	return at && strstr(at, b) && strstr(at, b) < strchrnul(at, '\n');
}

/* -- Modules --- */
static void load_says_what_came(void **state)
{
	done("load", workload_object("fib"));
	assert_string_equal(out, "fib: 2 methods\n");
	done("load", workload_object("fib"), "--name", "fib.2", "--json");
	assert_int_equal(json_length(out, "modules"), 1);
	json_expect(out, "modules.0.module", "fib.2");
	assert_int_equal(json_number(out, "modules.0.methods"), 2);
	assert_int_equal(json_number(out, "modules.0.id"), 2);
}

static void load_refuses_with_a_sentence(void **state)
{
	done("load", workload_object("fib"));
	fails(2, "already loaded", "load", workload_object("fib"));
	fails(2, "/nowhere.o", "load", "/nowhere.o");
	fails(2, "ELF", "load", file_make("text.o", "This is not an object file.\n"));
	fails(2, "a\"b", "load", workload_object("fib"), "--name", "a\"b");
	done("list", "--json");
	assert_int_equal(json_length(out, "modules"), 1);
}

static void list_shows_modules_and_their_methods_by_status(void **state)
{
	done("list", "--json");
	assert_int_equal(json_length(out, "modules"), 0);
	done("load", workload_object("fib"));
	done("load", workload_object("crc32"), "--shared");
	done("drive", "fib:fib_of", "1");
	done("call", "fib:fib", "1");
	done("list", "--json");
	assert_int_equal(json_length(out, "modules"), 2);
	json_expect(out, "modules.0.module", "fib");
	assert_int_equal(json_number(out, "modules.0.id"), 1);
	assert_int_equal(json_number(out, "modules.0.uid"), geteuid());
	assert_int_equal(json_number(out, "modules.0.methods"), 2);
	assert_int_equal(json_number(out, "modules.0.cold"), 0);
	assert_int_equal(json_number(out, "modules.0.optimizing"), 1);
	assert_int_equal(json_number(out, "modules.0.final"), 1);
	assert_int_equal(json_number(out, "modules.0.pending"), 0);
	assert_memory_equal(json_at(out, "modules.0.shared").begin, "false", 5);
	assert_memory_equal(json_at(out, "modules.1.shared").begin, "true", 4);
	done("list");
	assert_true(has_line_with(out, "MODULE", "OPTIMIZING"));
	assert_true(has_line_with(out, "fib", "no"));
	assert_true(has_line_with(out, "crc32", "yes"));
}

static void unload_frees_the_name_and_spares_those_who_have_it_open(void **state)
{
	struct tier_conn *conn = daemon_connect(&daemon_);
	struct tier_module *module;
	struct tier_method *method = workload_load(conn, "fib", &module);

	done("unload", "fib");
	assert_string_equal(out, "");
	fails(2, "fib", "unload", "fib");
	fails(2, "fib", "status", "fib:fib");
	done("list", "--json");
	assert_memory_equal(json_at(out, "modules.0.unloaded").begin, "true", 4);
	assert_int_equal(tier_entry(method)(10, 0, 0, 0, 0), 55);	/* cold until now */
	done("load", workload_object("fib"));
	done("status", "fib:fib", "--json");
	json_expect(out, "methods.0.status", "cold");
	tier_close(module);
	tier_disconnect(conn);
	done("list", "--json");
	assert_int_equal(json_length(out, "modules"), 1);
}

/* -- Methods --- */
static void status_tells_where_a_method_is(void **state)
{
	done("load", workload_object("fib"));
	done("status", "fib:fib", "--json");
	json_expect(out, "methods.0.method", "fib:fib");
	json_expect(out, "methods.0.status", "cold");
	json_expect(out, "methods.0.stage", "cold");
	json_expect(out, "methods.0.tier", "none");
	assert_int_equal(json_number(out, "methods.0.remaining"), 1);
	assert_int_equal(json_number(out, "methods.0.generation"), 0);
	done("call", "fib:fib", "10", "--count", "11");
	done("status", "fib:fib", "--json");
	json_expect(out, "methods.0.status", "optimizing");
	json_expect(out, "methods.0.stage", "counting");
	json_expect(out, "methods.0.tier", "Tier0");
	json_expect(out, "methods.0.reason", "none");
	assert_int_equal(json_number(out, "methods.0.remaining"), 20);
	done("drive", "fib:fib", "10");
	done("status", "fib:fib", "--json");
	json_expect(out, "methods.0.status", "final");
	json_expect(out, "methods.0.tier", "Tier1");
	json_expect(out, "methods.0.reason", "reached its final tier");
	assert_int_equal(json_number(out, "methods.0.remaining"), 0);
	done("status", "fib:fib");
	assert_true(has_line_with(out, "STATUS", "GENERATION"));
	assert_true(has_line_with(out, "final", "Tier1"));
}

static void status_of_a_module_names_all_its_methods(void **state)
{
	done("load", workload_object("fib"));
	done("status", "fib");
	assert_true(has_line_with(out, "fib:fib ", "cold"));
	assert_true(has_line_with(out, "fib:fib_of", "cold"));
	done("status", "fib", "--json");
	json_expect(out, "methods.1.status", "cold");
}

static void status_refuses_what_is_no_method(void **state)
{
	done("load", workload_object("fib"));
	fails(2, "fob", "status", "fob");
	fails(2, "MODULE:METHOD", "status", ":fib");
	fails(2, "MODULE:METHOD", "status", "fib:");
	fails(2, "fob", "status", "fob:fib");
	fails(2, "fob", "status", "fib:fob");
	fails(2, "usage: tierctl status", "status");
	fails(2, "usage: tierctl status", "status", "fib:fib", "fib:fib_of");
}

static void remaining_is_one_number(void **state)
{
	done("load", workload_object("fib"));
	done("remaining", "fib:fib");
	assert_string_equal(out, "1\n");
	done("call", "fib:fib", "3", "--count=8");
	done("remaining", "fib:fib");
	assert_string_equal(out, "23\n");
	done("remaining", "fib:fib", "--json");
	assert_int_equal(json_number(out, "remaining"), 23);
}

static void wait_ends_with_1_when_the_time_is_over(void **state)
{
	done("load", workload_object("fib"));
	done("wait", "fib:fib", "--json");	/* cold is quiet */
	json_expect(out, "methods.0.status", "cold");
	done("call", "fib:fib", "3");
	assert_int_equal(tierctl(&daemon_, out, err, "wait", "fib:fib", "--timeout", "20ms", "--json", NULL), 1);
	json_expect(out, "methods.0.stage", "uncounted");
	assert_int_equal(json_number(out, "methods.0.remaining"), 30);
	assert_int_equal(tierctl(&daemon_, out, err, "wait", "fib:fib", "--timeout=0", NULL), 1);
	assert_true(has_line_with(out, "fib:fib", "uncounted"));
	fails(2, "soon", "wait", "fib:fib", "--timeout", "soon");
	fails(2, "--timeout", "wait", "fib:fib", "--timeout");
}

static void wait_ends_with_0_when_it_is_final(void **state)
{
	done("load", workload_object("fib"));
	done("call", "fib:fib", "3", "--count", "31");
	done("wait", "fib:fib", "--timeout", "20s", "--json");
	json_expect(out, "methods.0.status", "final");
}

/* -- Calls --- */
static void expect_result(const char *decimal)
{
	char expected[64];

	snprintf(expected, sizeof(expected), "\"result\":%s,", decimal);
	if (!strstr(out, expected))
		fail_msg("%s instead of %s", out, expected);
	json_at(out, "result");
}

static void call_prints_the_last_result_in_decimal(void **state)
{
	char path[300];

	done("load", workload_object("fib"));
	done("call", "fib:fib", "10");
	assert_string_equal(out, "55 (0x37)\n");
	done("call", "fib:fib", "0xa", "--count", "5", "--json");
	expect_result("55");
	assert_int_equal(json_number(out, "calls"), 5);
	done("load", workload_object("fnv1a"));
	done("call", "fnv1a:fnv1a", "0", "0", "--json");
	expect_result("14695981039346656037");
	snprintf(path, sizeof(path), "@%s", file_make("foobar", "foobar"));
	done("call", "fnv1a:fnv1a", path, "--json");
	expect_result("9625390261332436968");
	snprintf(path, sizeof(path), "@%s", file_make("empty", ""));
	done("call", "fnv1a:fnv1a", path, "--json");
	expect_result("14695981039346656037");
}

/* A file that a method writes to stays as it is: it got a private copy. */
static void call_passes_files_as_private_copies(void **state)
{
	static const char source[] = "unsigned long long up(unsigned char *p, unsigned long long n) {\n"
				     "	unsigned long long sum = 0;\n"
				     "	for (unsigned long long i = 0; i < n; i++) { p[i] += 1; sum += p[i]; }\n"
				     "	return sum;\n}\n";
	char path[300], text[16] = "";
	int fd;

	done("load", bpf_compile(daemon_.folder, "up", source, ""));
	snprintf(path, sizeof(path), "@%s", file_make("bytes", "\1\2\3"));
	done("call", "up:up", path, "--json");
	expect_result("9");
	done("call", "up:up", path, "--count", "3", "--json");	/* one copy for all calls */
	expect_result("15");
	fd = open(path + 1, O_RDONLY);
	assert_int_equal(read(fd, text, sizeof(text)), 3);
	close(fd);
	assert_string_equal(text, "\1\2\3");
}

static void call_refuses_bad_arguments(void **state)
{
	done("load", workload_object("fib"));
	fails(2, "ten", "call", "fib:fib", "ten");
	fails(2, "10x", "call", "fib:fib", "10x");
	fails(2, "18446744073709551616", "call", "fib:fib", "18446744073709551616");
	fails(2, "/nowhere", "call", "fib:fib", "@/nowhere");
	fails(2, "at most 5", "call", "fib:fib", "1", "2", "3", "4", "5", "6");
	fails(2, "--count", "call", "fib:fib", "1", "--count", "0");
	fails(2, "many", "call", "fib:fib", "1", "--count", "many");
	fails(2, "fob", "call", "fib:fob", "1");
}

static void call_binds_imports_from_a_library(void **state)
{
	char library[128], command[512];

	done("load", workload_object("imports"));
	fails(2, "import", "call", "imports:imports", "7", "1");
	snprintf(library, sizeof(library), "%s/host.so", daemon_.folder);
	snprintf(command, sizeof(command), "clang -shared -fPIC -x c %s -o %s",
		 file_make("host.c", "unsigned long host_mix(unsigned long a, unsigned long b) { return a * 10 + b; }\n"), library);
	assert_int_equal(system(command), 0);
	done("call", "imports:imports", "7", "2", "--library", library, "--json");
	expect_result("70011");		/* 7, 70, 700, 7001, 70011 */
	fails(2, "/nowhere.so", "call", "imports:imports", "7", "1", "--library", "/nowhere.so");
}

static void drive_prints_each_step(void **state)
{
	done("load", workload_object("fib"));
	done("drive", "fib:fib", "10");
	assert_true(has_line_with(out, "STEP", "CALLS"));
	assert_true(has_line_with(out, "cold", "none"));
	assert_true(has_line_with(out, "counting", "30"));
	assert_true(has_line_with(out, "final", "Tier1"));
}

static void drive_ends_with_1_when_it_does_not_get_there(void **state)
{
	done("load", workload_object("fib"));
	fails(1, "uncounted", "drive", "fib:fib", "10", "--timeout", "100ms");
}

static void bench_measures_each_tier(void **state)
{
	bool has_tier0 = false, has_tier1 = false;
	char path[64];

	done("load", workload_object("fib"));
	done("bench", "fib:fib", "10", "--rounds", "3", "--json");
	for (unsigned int i = 0; i < json_length(out, "tiers"); i++) {
		snprintf(path, sizeof(path), "tiers.%u.tier", i);
		has_tier0 |= !strncmp(json_at(out, path).begin, "\"Tier0\"", 7);
		has_tier1 |= !strncmp(json_at(out, path).begin, "\"Tier1\"", 7);
		snprintf(path, sizeof(path), "tiers.%u.median_ns", i);
		assert_true(strtod(json_at(out, path).begin, NULL) > 0);
		snprintf(path, sizeof(path), "tiers.%u.calls", i);
		assert_true(json_number(out, path) > 0);
	}
	assert_true(has_tier0 && has_tier1);
	done("load", workload_object("crc32"));
	done("bench", "crc32:crc32", "0", "0", "--rounds", "2");
	assert_true(has_line_with(out, "TIER", "MEDIAN"));
	assert_non_null(strstr(out, "Tier0"));
	assert_non_null(strstr(out, "Tier1"));
	fails(2, "--rounds", "bench", "crc32:crc32", "0", "0", "--rounds", "0");
}

/* -- The daemon --- */
static void pending_counts_what_is_queued_or_compiling(void **state)
{
	done("load", workload_object("fib"));
	done("pending");
	assert_string_equal(out, "0\n");
	workers_stop(&daemon_);
	done("call", "fib:fib", "1", "--count", "31");	/* and as many of fib_of */
	done("pending", "--json");
	assert_int_equal(json_number(out, "pending"), 2);
	done("pending", "--module", "fib");
	assert_string_equal(out, "2\n");
	done("pending", "--all");
	assert_string_equal(out, "2\n");
	fails(2, "--module", "pending", "--all", "--module", "fib");
	fails(2, "fob", "pending", "--module", "fob");
	workers_continue(&daemon_);
	done("wait", "fib:fib");
	done("wait", "fib:fib_of");
	done("pending");
	assert_string_equal(out, "0\n");
}

/* Every line of @text must be an object with the next number; returns how many lines there are. */
static unsigned int check_event_lines(char *text, uint64_t first)
{
	unsigned int n = 0;

	for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"))
		assert_int_equal(json_number(line, "sequence"), first + n++);
	return n;
}

static void events_are_printed_from_any_number_on(void **state)
{
	unsigned int n;

	done("load", workload_object("fib"));
	done("drive", "fib:fib", "1");
	done("wait", "fib:fib_of");	/* which climbs at its side: nothing happens any more afterwards */
	done("events", "--json");
	assert_non_null(strstr(out, "\"module-loaded\""));
	assert_non_null(strstr(out, "\"threshold\""));
	assert_non_null(strstr(out, events_by_kernel() ? "\"kernel\"" : "\"socket\""));
	n = check_event_lines(out, 1);
	assert_true(n >= 8);
	done("events", "--from", "5", "--json");
	assert_int_equal(check_event_lines(out, 5), n - 4);
	done("events");
	assert_true(!strncmp(out, "1\t", 2) && strstr(out, "\tthreshold\t"));
	done("events", "--from", "1000000");
	assert_string_equal(out, "");
}

static void the_whole_journal_is_printed(void **state)
{
	static const int n_modules = 40;	/* more events than an answer of the daemon holds */
	char name[16];

	for (int i = 0; i < n_modules; i++) {
		snprintf(name, sizeof(name), "m%d", i);
		done("load", workload_object("fib"), "--name", name);
		snprintf(name, sizeof(name), "m%d:fib", i);
		done("call", name, "3");
		snprintf(name, sizeof(name), "m%d", i);
		done("unload", name);
	}
	done("events", "--json");
	assert_true(check_event_lines(out, 1) > 128);
}

static void read_line(int fd, char *line, size_t n)
{
	struct pollfd ready = { .fd = fd, .events = POLLIN };
	size_t i = 0;

	do {
		if (poll(&ready, 1, TEST_DEADLINE_NS / 1000000) != 1)
			fail_msg("no line in time, only '%.*s'", (int)i, line);
		assert_int_equal(read(fd, line + i, 1), 1);
	} while (line[i++] != '\n' && i < n);
	line[i - 1] = '\0';
}

static void events_are_followed_as_they_come(void **state)
{
	char line[1024];
	uint64_t next;
	pid_t pid;
	int fd;

	done("load", workload_object("fib"));
	pid = tierctl_start(&daemon_, &fd, "events", "--follow", "--json", NULL);
	/* it is subscribed when the daemon has three connections of it: an event before would not be new */
	do
		done("stats", "--json");
	while (!strstr(out, "\"connections\": 3"));
	done("load", workload_object("crc32"));
	read_line(fd, line, sizeof(line));
	json_expect(line, "kind", "module-loaded");
	next = json_number(line, "sequence") + 1;
	done("drive", "crc32:crc32", "0", "0");
	do {
		read_line(fd, line, sizeof(line));
		assert_int_equal(json_number(line, "sequence"), next++);
	} while (!strstr(line, "\"final\""));
	kill(pid, SIGTERM);
	assert_int_equal(child_reap(pid), SIGTERM);
	close(fd);
}

static void stats_say_which_path_events_take_and_why(void **state)
{
	struct tier_conn_opts opts = { .size = sizeof(opts), .socket = daemon_.socket, .program = "we\"ird\\\n" };
	const char *path = events_by_kernel() ? "kernel" : "socket";
	struct tier_conn *conn;
	bool is_listed = false;
	char at[64];

	assert_done(tier_connect(&conn, &opts));
	done("load", workload_object("fib"));
	done("drive", "fib:fib", "1");
	done("stats", "--json");
	json_expect(out, "stats.events_path", path);
	assert_true(json_at(out, "stats.events_path_why").end - json_at(out, "stats.events_path_why").begin > 2);
	assert_int_equal(json_number(out, "stats.pid"), daemon_.pid);
	assert_int_equal(json_number(out, "stats.modules"), 1);
	assert_int_equal(json_number(out, "stats.sessions"), 2);
	snprintf(at, sizeof(at), "stats.thresholds_%s", path);
	assert_true(json_number(out, at) >= 1);
	assert_int_equal(json_number(out, "stats.call_count_threshold"), 30);
	json_number(out, "stats.longest_turn_us");
	assert_int_equal(json_length(out, "clients"), 2);
	for (unsigned int i = 0; i < 2; i++) {
		snprintf(at, sizeof(at), "clients.%u.path", i);
		json_expect(out, at, path);
		snprintf(at, sizeof(at), "clients.%u.why", i);
		assert_true(json_at(out, at).end - json_at(out, at).begin > 2);
		snprintf(at, sizeof(at), "clients.%u.pid", i);
		is_listed |= json_number(out, at) == (uint64_t)getpid();
	}
	assert_true(is_listed);
	done("stats");
	assert_true(has_line_with(out, "events_path", path));
	assert_non_null(strstr(out, "longest_turn"));
	assert_non_null(strstr(out, "tierctl"));
	tier_disconnect(conn);
}

/* -- Usage --- */
static const char *const verbs[] = { "load", "unload", "list", "status", "remaining", "wait", "call", "drive", "bench",
				     "settled", "freeze", "mark", "compile", "pending", "events", "stats" };

static void help_is_there_for_every_verb(void **state)
{
	char usage[64];

	done("--version");
	assert_string_equal(out, "tierctl " TIER_VERSION "\n");
	done("--help");
	for (size_t i = 0; i < ARRAY_SIZE(verbs); i++)
		assert_non_null(strstr(out, verbs[i]));
	for (size_t i = 0; i < ARRAY_SIZE(verbs); i++) {
		done(verbs[i], "--help");
		snprintf(usage, sizeof(usage), "Usage: tierctl %s", verbs[i]);
		assert_ptr_equal(strstr(out, usage), out);
		done("help", verbs[i]);
		assert_ptr_equal(strstr(out, usage), out);
	}
}

static void wrong_usage_ends_with_2_and_a_sentence(void **state)
{
	assert_int_equal(tierctl(&daemon_, out, err, NULL), 2);
	fails(2, "jump", "jump");
	fails(2, "did you mean 'status'?", "staus");
	fails(2, "did you mean 'load'?", "help", "laod");
	fails(2, "--high", "list", "--high");
	fails(2, "--follow", "list", "--follow");	/* another verb's */
	fails(2, "usage: tierctl load", "load");
	fails(2, "usage: tierctl load", "load", "a", "b");
	fails(2, "usage: tierctl list", "list", "a");
	fails(2, "--name", "load", "a", "--name");
	fails(2, "--json", "list", "--json=yes");
	fails(2, "first", "events", "--from", "first");
}

static void without_a_daemon_it_says_where_it_looked(void **state)
{
	struct daemon nobody = daemon_;

	snprintf(nobody.socket, sizeof(nobody.socket), "%s/nobody", daemon_.folder);
	assert_int_equal(tierctl(&nobody, out, err, "list", NULL), 2);
	assert_non_null(strstr(err, nobody.socket));
	assert_int_equal(tierctl(&nobody, out, err, "list", "--socket", daemon_.socket, NULL), 0);
	assert_string_equal(err, "");
}

#define PROMPT(name) cmocka_unit_test_setup_teardown(name, start_prompt, stop)
#define HOLDING(name) cmocka_unit_test_setup_teardown(name, start_held, stop)
int main(void)
{
	const struct CMUnitTest tests[] = {
		PROMPT(load_says_what_came),
		PROMPT(load_refuses_with_a_sentence),
		PROMPT(list_shows_modules_and_their_methods_by_status),
		PROMPT(unload_frees_the_name_and_spares_those_who_have_it_open),
		PROMPT(status_tells_where_a_method_is),
		PROMPT(status_of_a_module_names_all_its_methods),
		PROMPT(status_refuses_what_is_no_method),
		PROMPT(remaining_is_one_number),
		HOLDING(wait_ends_with_1_when_the_time_is_over),
		PROMPT(wait_ends_with_0_when_it_is_final),
		PROMPT(call_prints_the_last_result_in_decimal),
		PROMPT(call_passes_files_as_private_copies),
		PROMPT(call_refuses_bad_arguments),
		PROMPT(call_binds_imports_from_a_library),
		PROMPT(drive_prints_each_step),
		HOLDING(drive_ends_with_1_when_it_does_not_get_there),
		PROMPT(bench_measures_each_tier),
		PROMPT(pending_counts_what_is_queued_or_compiling),
		PROMPT(events_are_printed_from_any_number_on),
		PROMPT(the_whole_journal_is_printed),
		PROMPT(events_are_followed_as_they_come),
		PROMPT(stats_say_which_path_events_take_and_why),
		PROMPT(help_is_there_for_every_verb),
		PROMPT(wrong_usage_ends_with_2_and_a_sentence),
		PROMPT(without_a_daemon_it_says_where_it_looked),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
