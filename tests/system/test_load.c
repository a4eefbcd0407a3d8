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
#include <sys/wait.h>
#include <unistd.h>
#include "bench/inputs.h"
#include "system/harness.h"
#include "system/results.h"
#include "util/base.h"

/* A module is loaded and its methods are called: at every tier the result is the native build's, and so is every byte
 * written. State belongs to the process, imports are the host's. */

/* -- Results --- */
static void check_all(const struct workload *workload, const struct tier_method *method, enum tier_level tier, enum tier_stage stage)
{
	struct tier_answer answer;

	assert_true(results_check_vectors(workload, method) > 0);
	results_check_native(workload, method);
	answer = tier_status(method);
	if (answer.tier != tier || answer.stage != stage)
		fail_msg("%s: %s, %s", workload->name, tier_level_name(answer.tier), tier_stage_name(answer.stage));
}

static void load_all(struct tier_conn *conn, struct tier_module **modules, struct tier_method **methods)
{
	for (size_t i = 0; i < n_workloads; i++) {
		assert_done(tier_load(conn, workload_object(workloads[i].file), NULL, 0, &modules[i]));
		assert_done(tier_find(modules[i], workloads[i].entry, &methods[i]));
		assert_int_equal(tier_status(methods[i]).status, TIER_STATUS_COLD);
	}
}

static void results_are_right_before_calls_are_counted(void **state)
{
	struct tier_module *modules[32];
	struct tier_method *methods[32];
	struct daemon daemon;
	struct tier_conn *conn;

	daemon_start(&daemon, ARGS("--call-counting-delay=1h"));
	conn = daemon_connect(&daemon);
	assert_true(n_workloads <= ARRAY_SIZE(methods));
	load_all(conn, modules, methods);
	for (size_t i = 0; i < n_workloads; i++)
		check_all(&workloads[i], methods[i], TIER_LEVEL_TIER0, TIER_STAGE_UNCOUNTED);
	tier_disconnect(conn);
	daemon_stop(&daemon);
}

static void results_are_right_while_counting_and_at_the_final_tier(void **state)
{
	struct tier_module *modules[32];
	struct tier_method *methods[32];
	struct daemon daemon;
	struct tier_conn *conn;

	daemon_start(&daemon, ARGS("--call-counting-delay=0", "--call-count-threshold=100"));
	conn = daemon_connect(&daemon);
	load_all(conn, modules, methods);
	for (size_t i = 0; i < n_workloads; i++) {
		check_all(&workloads[i], methods[i], TIER_LEVEL_TIER0, TIER_STAGE_COUNTING);
		struct workload_input *input = input_make(workloads[i].name);

		climb(methods[i], input->args);
		input_free(input);
		check_all(&workloads[i], methods[i], TIER_LEVEL_TIER1, TIER_STAGE_FINAL);
		tier_close(modules[i]);
	}
	tier_disconnect(conn);
	daemon_stop(&daemon);
}

/* -- Modules and their methods --- */
static void a_module_has_a_name_and_its_methods_have_one_address(void **state)
{
	struct tier_module *module, *again;
	struct tier_method *method, *other;
	struct daemon daemon;
	struct tier_conn *conn;

	daemon_start(&daemon, NULL);
	conn = daemon_connect(&daemon);
	method = workload_load(conn, "fib", &module);
	assert_string_equal(tier_module_name(module), "fib");
	assert_string_equal(tier_method_name(method), "fib");
	assert_int_equal(tier_module_n_methods(module), 2);
	assert_true(tier_find(module, "fob", &other) == -ENOENT);
	assert_non_null(strstr(tier_error_text(), "fob"));
	assert_true(tier_load(conn, workload_object("fib"), NULL, 0, NULL) == -EEXIST);
	assert_done(tier_open(conn, "fib", &again));
	assert_done(tier_find(again, "fib", &other));
	assert_ptr_equal(tier_entry(method), tier_entry(other));
	assert_int_equal(tier_entry(method)(10, 0, 0, 0, 0), 55);
	tier_close(again);
	assert_int_equal(tier_entry(method)(11, 0, 0, 0, 0), 89);
	tier_close(module);
	tier_disconnect(conn);
	daemon_stop(&daemon);
}

static void an_unloaded_module_lives_on_for_those_who_have_it_open(void **state)
{
	struct tier_module *module, *again;
	struct tier_method *method;
	struct daemon daemon;
	struct tier_conn *conn;
	uint64_t id;

	daemon_start(&daemon, ARGS("--call-counting-delay=0"));
	conn = daemon_connect(&daemon);
	method = workload_load(conn, "fib", &module);
	id = tier_module_id(module);
	assert_done(tier_unload(conn, "fib"));
	assert_int_equal(tier_unload(conn, "fib"), -ENOENT);
	assert_int_equal(tier_open(conn, "fib", &again), -ENOENT);
	climb(method, NULL);
	assert_int_equal(tier_entry(method)(12, 0, 0, 0, 0), 144);

	workload_load(conn, "fib", &again);	/* the name is free, the id is not */
	assert_true(tier_module_id(again) > id);
	tier_close(module);
	tier_close(again);
	tier_disconnect(conn);
	daemon_stop(&daemon);
}

/* -- State of a process --- */
struct counting {
	const struct daemon *daemon;
	struct tier_method *method;	/* the parent's */
};

static void count_in_a_process_of_its_own(void *context)
{
	const struct counting *counting = context;
	struct tier_conn_opts opts = { .size = sizeof(opts), .socket = counting->daemon->socket };
	struct tier_method *method;
	struct tier_module *module;
	struct tier_conn *conn;

	child_assert(!tier_connect(&conn, &opts));
	child_assert(!tier_open(conn, "counter", &module));
	child_assert(!tier_find(module, "counter", &method));
	child_assert(tier_entry(method)(1, 0, 0, 0, 0) == 1003);
	child_assert(tier_entry(method)(1, 0, 0, 0, 0) == 1006);
}

static void count_on(void *context)
{
	const struct counting *counting = context;

	child_assert(tier_entry(counting->method)(1, 0, 0, 0, 0) == 1009);
	child_assert(tier_entry(counting->method)(1, 0, 0, 0, 0) == 1012);
}

static void data_and_bss_belong_to_each_process(void **state)
{
	struct counting counting;
	struct tier_method *past;
	struct tier_module *module;
	struct daemon daemon;
	struct tier_conn *conn;
	pid_t before;
	int ends[2];
	char byte;

	daemon_start(&daemon, ARGS("--call-counting-delay=0"));
	counting.daemon = &daemon;
	pipe_open(ends);
	before = fork();	/* knows nothing of libtier yet */
	if (!before) {
		close(ends[1]);
		child_assert(read(ends[0], &byte, 1) == 0);
		count_in_a_process_of_its_own(&counting);
		_exit(0);
	}
	conn = daemon_connect(&daemon);
	counting.method = workload_load(conn, "counter", &module);
	assert_done(tier_find(module, "counter_past", &past));
	assert_int_equal(tier_entry(counting.method)(1, 0, 0, 0, 0), 1003);
	assert_int_equal(tier_entry(counting.method)(1, 0, 0, 0, 0), 1006);
	assert_int_equal(tier_entry(past)(1, 0, 0, 0, 0), 1003);
	close(ends[1]);
	child_end(before);
	child_end(child_start(count_on, &counting));	/* a fork goes on from a copy */
	assert_int_equal(tier_entry(counting.method)(1, 0, 0, 0, 0), 1009);
	close(ends[0]);
	tier_disconnect(conn);
	daemon_stop(&daemon);
}

static void a_function_pointer_in_data_is_followed_at_every_tier(void **state)
{
	struct tier_method *method, *use;
	struct tier_module *module;
	struct daemon daemon;
	struct tier_conn *conn;
	uint64_t total;

	daemon_start(&daemon, ARGS("--call-counting-delay=0"));
	conn = daemon_connect(&daemon);
	method = workload_load(conn, "counter", &module);
	assert_done(tier_find(module, "counter_use", &use));
	for (int is_final = 0; is_final < 2; is_final++) {
		total = tier_entry(method)(1, 0, 0, 0, 0);
		tier_entry(use)(1, 0, 0, 0, 0);
		total ^= 3;
		assert_int_equal(tier_entry(method)(1, 0, 0, 0, 0), total);
		tier_entry(use)(0, 0, 0, 0, 0);
		assert_int_equal(tier_entry(method)(1, 0, 0, 0, 0), total + 3);
		climb(method, NULL);
	}
	tier_disconnect(conn);
	daemon_stop(&daemon);
}

/* -- Imports --- */
static uint64_t host_bonus(uint64_t value)
{
	return value + 1;
}

static void *lookup_nothing(const char *name, void *context)
{
	return NULL;
}

static void *lookup_mix(const char *name, void *context)
{
	return strcmp(name, "host_mix") ? NULL : (void *)host_mix;
}

static void imports_are_bound_by_name_and_weak_ones_may_be_absent(void **state)
{
	const struct workload *workload = workload_find("imports");
	struct tier_module *module;
	struct tier_method *method;
	struct daemon daemon;
	struct tier_conn *conn;

	daemon_start(&daemon, ARGS("--call-counting-delay=0"));
	conn = daemon_connect(&daemon);
	method = workload_load(conn, "imports", &module);
	assert_int_equal(tier_bind(module, "host_nothing", (void *)host_mix), -ENOENT);
	assert_non_null(strstr(tier_error_text(), "host_nothing"));
	assert_int_equal(tier_bind_all(module, lookup_nothing, NULL), 1);	/* the strong one */
	assert_int_equal(tier_bind_all(module, lookup_mix, NULL), 0);
	for (int is_final = 0; is_final < 2; is_final++) {
		uint64_t without = tier_entry(method)(7, 5, 0, 0, 0);

		results_check_native(workload, method);
		assert_int_equal(without, workload->native(7, 5, 0, 0, 0));
		assert_done(tier_bind(module, "host_bonus", (void *)host_bonus));
		assert_int_equal(tier_entry(method)(7, 5, 0, 0, 0), without + 1);
		assert_done(tier_bind(module, "host_bonus", NULL));
		climb(method, (const uint64_t[5]){ 7, 5 });
	}
	tier_disconnect(conn);
	daemon_stop(&daemon);
}

static sigjmp_buf failed;
static char failure_module[64], failure_method[64], failure_text[512];

static void keep_failure(const char *module, const char *method, const char *text)
{
	snprintf(failure_module, sizeof(failure_module), "%s", module);
	snprintf(failure_method, sizeof(failure_method), "%s", method);
	snprintf(failure_text, sizeof(failure_text), "%s", text);
	siglongjmp(failed, 1);
}

static void an_unbound_import_that_is_called_ends_in_the_failure_handler(void **state)
{
	struct tier_module *module;
	struct tier_method *method;
	struct daemon daemon;
	struct tier_conn *conn;

	daemon_start(&daemon, ARGS("--call-counting-delay=0"));
	conn = daemon_connect(&daemon);
	method = workload_load(conn, "imports", &module);
	tier_set_failure_handler(keep_failure);
	if (!sigsetjmp(failed, 1)) {
		tier_entry(method)(7, 5, 0, 0, 0);
		fail_msg("a call that cannot be served returned");
	}
	tier_set_failure_handler(NULL);
	assert_string_equal(failure_module, "imports");
	assert_non_null(strstr(failure_text, "host_mix"));
	assert_done(tier_bind(module, "host_mix", (void *)host_mix));	/* and all goes on */
	assert_int_equal(tier_entry(method)(7, 5, 0, 0, 0), workload_find("imports")->native(7, 5, 0, 0, 0));
	tier_disconnect(conn);
	daemon_stop(&daemon);
}

static void without_a_handler_the_program_says_so_and_aborts(void **state)
{
	struct tier_method *method;
	char text[1024] = "";
	struct daemon daemon;
	struct tier_conn *conn;
	int ends[2], status;
	pid_t pid;

	daemon_start(&daemon, NULL);
	conn = daemon_connect(&daemon);
	method = workload_load(conn, "imports", NULL);
	pipe_open(ends);
	pid = fork();
	if (!pid) {
		dup2(ends[1], STDERR_FILENO);
		signal(SIGABRT, SIG_DFL);
		tier_entry(method)(7, 5, 0, 0, 0);
		_exit(0);
	}
	close(ends[1]);
	status = child_reap(pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
	assert_true(read(ends[0], text, sizeof(text) - 1) > 0);
	assert_non_null(strstr(text, "imports"));
	assert_non_null(strstr(text, "host_mix"));
	assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1);	/* one line */
	close(ends[0]);
	tier_disconnect(conn);
	daemon_stop(&daemon);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(results_are_right_before_calls_are_counted),
		cmocka_unit_test(results_are_right_while_counting_and_at_the_final_tier),
		cmocka_unit_test(a_module_has_a_name_and_its_methods_have_one_address),
		cmocka_unit_test(an_unloaded_module_lives_on_for_those_who_have_it_open),
		cmocka_unit_test(data_and_bss_belong_to_each_process),
		cmocka_unit_test(a_function_pointer_in_data_is_followed_at_every_tier),
		cmocka_unit_test(imports_are_bound_by_name_and_weak_ones_may_be_absent),
		cmocka_unit_test(an_unbound_import_that_is_called_ends_in_the_failure_handler),
		cmocka_unit_test(without_a_handler_the_program_says_so_and_aborts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
