/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <sys/wait.h>
#include "system/bodies.h"
#include "system/harness.h"

/* A process that stands still and has slots of its own: one rejit of a method that they hold waits for it in vain and names
 * it, no other rejit waits, and when it runs again its slots follow. */

struct watcher {
	const struct daemon *daemon;
	int ready[2], replaced[2];	/* pipes: the watcher has its slots; the bodies are what they will be */
};

static void slot_register(struct tier_module *module, const char *name, tier_fn *slot)
{
	struct tier_method *method;

	child_assert(!tier_find(module, name, &method) && !tier_slot_register(method, slot));
}

static void watcher_run(void *context)
{
	static tier_fn victim, by_data;
	struct watcher *watcher = context;
	struct tier_conn *conn = daemon_connect(watcher->daemon);
	struct tier_module *module;
	struct tier_method *method;
	char byte;

	child_assert(!tier_open(conn, "program", &module) && !tier_find(module, "victim", &method));
	slot_register(module, "victim", &victim);
	slot_register(module, "by_data", &by_data);
	child_assert(victim != tier_entry(method));
	child_assert(write(watcher->ready[1], "x", 1) == 1);
	child_assert(read(watcher->replaced[0], &byte, 1) == 1);
	wait_until("the slot has left the code", __atomic_load_n(&victim, __ATOMIC_ACQUIRE) == tier_entry(method));
	child_assert(victim(4, 0, 0, 0, 0) == BODY_RESULT(2, 4));
	child_assert(by_data(5, 0, 0, 0, 0) == BODY_RESULT(2, 5));
	tier_disconnect(conn);
}

static pid_t watcher_start(struct watcher *watcher, const struct daemon *daemon)
{
	pid_t pid;
	int status;
	char byte;

	watcher->daemon = daemon;
	pipe_open(watcher->ready);
	pipe_open(watcher->replaced);
	pid = child_start(watcher_run, watcher);
	assert_int_equal(read(watcher->ready[0], &byte, 1), 1);
	assert_int_equal(kill(pid, SIGSTOP), 0);
	assert_int_equal(waitpid(pid, &status, WUNTRACED), pid);
	assert_true(WIFSTOPPED(status));
	return pid;
}

static void watcher_end(struct watcher *watcher, pid_t pid)
{
	assert_int_equal(kill(pid, SIGCONT), 0);
	assert_int_equal(write(watcher->replaced[1], "x", 1), 1);
	child_end(pid);
	for (int i = 0; i < 2; i++) {
		close(watcher->ready[i]);
		close(watcher->replaced[i]);
	}
}

static int rejit(const struct bodies *bodies, struct tier_method *method, unsigned int number)
{
	return tier_rejit(method, body_compile(bodies->daemon.folder, "fresh", number), "fresh", 0);
}

static void a_stopped_process_delays_one_rejit_of_its_method_and_none_of_others(void **state)
{
	static struct bodies bodies;
	struct tier_method *other;
	struct watcher watcher;
	char named[32];
	pid_t pid;

	bodies_start(&bodies, ARGS("--call-counting-delay=0"));
	assert_done(tier_find(bodies.module, "other", &other));
	climb(bodies.victim, NULL);
	pid = watcher_start(&watcher, &bodies.daemon);
	climb(bodies.methods[5], NULL);		/* by_data, which it is told of and does not answer */
	assert_done(rejit(&bodies, other, 3));
	assert_int_equal(rejit(&bodies, bodies.victim, 1), -ETIMEDOUT);
	snprintf(named, sizeof(named), "pid %d", pid);
	assert_non_null(strstr(tier_error_text(), named));
	assert_int_equal(tier_entry(bodies.victim)(4, 0, 0, 0, 0), BODY_RESULT(1, 4));
	assert_done(rejit(&bodies, bodies.victim, 2));
	assert_done(rejit(&bodies, other, 4));
	watcher_end(&watcher, pid);
	bodies_end(&bodies);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_stopped_process_delays_one_rejit_of_its_method_and_none_of_others),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
