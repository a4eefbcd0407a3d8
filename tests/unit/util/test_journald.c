/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include "util/base.h"
#include "util/journald.h"
#include "util/log.h"

/* The system's journal is a socket at a path that is the same everywhere: this process puts one of its own there, in a /run
 * that nobody else sees. */

static int listener = -1;
static char entry[8192];

static int setup(void **state)
{
	if (unshare(CLONE_NEWNS))
		return 0;	/* the cases are skipped */
	assert_int_equal(mount("", "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
	assert_int_equal(mount("tmpfs", "/run", "tmpfs", 0, NULL), 0);
	assert_int_equal(mkdir("/run/systemd", 0755), 0);
	assert_int_equal(mkdir("/run/systemd/journal", 0755), 0);
	listener = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	assert_true(listener >= 0);
	return 0;
}

static int teardown(void **state)
{
	listener = close_fd(listener);
	return 0;
}

static void bind_listener(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = "/run/systemd/journal/socket" };

	assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof(address)), 0);
}

static const char *next_entry(void)
{
	ssize_t n = recv(listener, entry, sizeof(entry) - 1, 0);

	entry[n < 0 ? 0 : n] = '\0';
	return entry;
}

/* False: the journal cannot be had in this build or by this user, and the case is skipped. */
static bool is_possible(void)
{
	const char *why = "";
	int r = journald_open(&why);

	if (r == -EOPNOTSUPP)
		assert_non_null(strstr(why, "libsystemd-dev"));
	return r != -EOPNOTSUPP && listener >= 0;
}

static void a_system_without_a_journal_is_refused(void **state)
{
	const char *why = "";

	if (!is_possible())
		skip();
	assert_int_equal(journald_open(&why), -ENOENT);
	assert_non_null(strstr(why, "/run/systemd/journal/socket"));
}

static void an_entry_has_its_parts_as_fields(void **state)
{
	static const char *const fields[] = {
		"MESSAGE=tiering: CallCountingStub fib:3: P 0x1 -> 0x2\n", "PRIORITY=7\n", "SYSLOG_IDENTIFIER=tierd\n",
		"TIERD_LEVEL=info10000\n", "TIERD_FACILITY=tiering\n", "TIERD_LABEL=CallCountingStub\n", "TIERD_MODULE=fib\n",
		"TIERD_METHOD=3\n",
	};
	struct log_choice choice = { 0 };
	const char *why;

	if (!is_possible())
		skip();
	bind_listener();
	assert_int_equal(journald_open(&why), 0);
	log_to(journald_send);
	log_choose(&choice, "tiering:info10000");
	log_set_choice(&choice);
	log_tiering(INFO10000, "CallCountingStub", "fib", 3, "P %#x -> %#x", 1, 2);
	next_entry();
	for (size_t i = 0; i < ARRAY_SIZE(fields); i++)
		assert_non_null(strstr(entry, fields[i]));
	assert_null(strstr(entry, "CODE_"));
	log_line(LOG_WARNING, "slow\n");
	assert_non_null(strstr(next_entry(), "MESSAGE=slow?\n"));
	assert_non_null(strstr(entry, "PRIORITY=4\n"));
	assert_null(strstr(entry, "TIERD_FACILITY"));
	assert_null(strstr(entry, "TIERD_METHOD"));
	log_to(NULL);
}

static void a_journal_that_went_away_stops_nobody(void **state)
{
	if (!is_possible())
		skip();
	assert_int_equal(unlink("/run/systemd/journal/socket"), 0);
	log_to(journald_send);
	errno = EXDEV;
	log_line(LOG_WARNING, "unheard");
	assert_int_equal(errno, EXDEV);
	assert_string_equal(next_entry(), "");
	log_to(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_system_without_a_journal_is_refused),
		cmocka_unit_test(an_entry_has_its_parts_as_fields),
		cmocka_unit_test(a_journal_that_went_away_stops_nobody),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
