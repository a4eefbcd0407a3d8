/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include "util/base.h"
#include "util/error.h"
#include "util/log.h"

/* Standard error is a pipe for the time of one case; what was written comes back here. */
static int saved_stderr = -1, pipe_fds[2];
static char text[8192];

static int setup(void **state)
{
	assert_int_equal(pipe2(pipe_fds, O_CLOEXEC | O_NONBLOCK), 0);
	saved_stderr = dup(STDERR_FILENO);
	dup2(pipe_fds[1], STDERR_FILENO);
	return 0;
}

static const char *written(void)
{
	ssize_t n = read(pipe_fds[0], text, sizeof(text) - 1);

	text[n < 0 ? 0 : n] = 0;
	return text;
}

static int teardown(void **state)
{
	dup2(saved_stderr, STDERR_FILENO);
	close(saved_stderr);
	close(pipe_fds[0]);
	close(pipe_fds[1]);
	log_set_level(LOG_INFO);
	return 0;
}

static void a_line_has_its_level_for_the_service_manager(void **state)
{
	log_line(LOG_WARNING, "module '%s' %d", "m", 7);
	assert_string_equal(written(), "<4>tierd: module 'm' 7\n");
}

static void a_level_that_is_off_writes_nothing_and_errno_stays(void **state)
{
	log_line(LOG_DEBUG, "quiet");
	assert_string_equal(written(), "");
	errno = EXDEV;
	log_line(LOG_ERROR, "loud");
	assert_int_equal(errno, EXDEV);
	assert_string_equal(written(), "<3>tierd: loud\n");
}

static void text_from_clients_cannot_make_lines_of_its_own(void **state)
{
	log_line(LOG_INFO, "program %s", "a\n<3>tierd: b\x1b[2J\x7f");
	assert_string_equal(written(), "<6>tierd: program a?<3>tierd: b?[2J?\n");
}

static void a_long_line_is_cut_and_still_ends(void **state)
{
	char longer[4000];
	const char *line;

	memset(longer, 'x', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = 0;
	log_line(LOG_INFO, "%s", longer);
	line = written();
	assert_int_equal(strlen(line), 1023);
	assert_int_equal(line[1022], '\n');
}

static void an_unhandled_condition_becomes_a_fatal_error(void **state)
{
	assert_int_equal(error_fold(3), -ENOTRECOVERABLE);
	assert_non_null(strstr(written(), "error 3 forwarded without being handled"));
	log_set_level(LOG_DEBUG);
	assert_int_equal(error_origin(-ENOMEM), -ENOMEM);
	assert_non_null(strstr(written(), "error origin: Cannot allocate memory, at "));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_line_has_its_level_for_the_service_manager, setup, teardown),
		cmocka_unit_test_setup_teardown(a_level_that_is_off_writes_nothing_and_errno_stays, setup, teardown),
		cmocka_unit_test_setup_teardown(text_from_clients_cannot_make_lines_of_its_own, setup, teardown),
		cmocka_unit_test_setup_teardown(a_long_line_is_cut_and_still_ends, setup, teardown),
		cmocka_unit_test_setup_teardown(an_unhandled_condition_becomes_a_fatal_error, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
