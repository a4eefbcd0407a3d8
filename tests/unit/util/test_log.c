/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
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
	log_set_file(-1);
	log_to(NULL);
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

/* -- What is on --- */
static void choose(const char *words)
{
	struct log_choice choice = { 0 };

	assert_null(log_choose(&choice, words));
	log_set_choice(&choice);
}

static void levels_have_coreclrs_names_and_numbers(void **state)
{
	static const char *const names[] = { "fatal", "error", "warning", "info10", "info100", "info1000", "info10000",
					     "info100000", "info1000000", "everything" };

	assert_int_equal(_LOG_LEVEL_N, ARRAY_SIZE(names) + 1);
	for (unsigned int level = 1; level < _LOG_LEVEL_N; level++) {
		char by_name[64], by_number[64];

		snprintf(by_name, sizeof(by_name), "worker:%s", names[level - 1]);
		snprintf(by_number, sizeof(by_number), "server:%u", level);
		choose(by_name);
		choose(by_number);
		for (unsigned int i = 1; i < _LOG_LEVEL_N; i++) {
			assert_int_equal(log_is_on(LOG_WORKER, i), i <= level);
			assert_int_equal(log_is_on(LOG_SERVER, i), i <= level);
		}
	}
}

static void a_facility_is_chosen_by_itself(void **state)
{
	choose("tiering:info10000");
	assert_true(log_is_on(LOG_TIERING, LOG_INFO10000) && !log_is_on(LOG_TIERING, LOG_INFO100000));
	assert_true(log_is_on(LOG_LOADER, LOG_INFO10) && !log_is_on(LOG_LOADER, LOG_INFO100));
	assert_true(log_is_on(LOG_GENERAL, LOG_INFO) && !log_is_on(LOG_GENERAL, LOG_DEBUG));
	assert_int_equal(LOG_TIERING, 0x00400000);	/* LF_TIEREDCOMPILATION */
}

static void a_facility_can_be_quieter_than_the_rest(void **state)
{
	log_set_level(LOG_DEBUG);
	choose("trace:error");
	assert_true(log_is_on(LOG_TRACE, LOG_ERROR) && !log_is_on(LOG_TRACE, LOG_WARNING));
	assert_true(log_is_on(LOG_JOURNAL, LOG_EVERYTHING) && log_is_on(LOG_GENERAL, LOG_DEBUG));
}

static void all_are_the_facilities_and_the_last_word_holds(void **state)
{
	struct log_choice choice = { 0 };

	assert_null(log_choose(&choice, "tiering:everything"));
	assert_null(log_choose(&choice, "all:info1000"));
	assert_null(log_choose(&choice, "loader:warning"));
	log_set_choice(&choice);
#define IS_ON(name, ...) assert_true(LOG_##name == LOG_LOADER || log_is_on(LOG_##name, LOG_INFO1000));
	LOG_FACILITY_LIST(IS_ON)
	assert_false(log_is_on(LOG_TIERING, LOG_INFO10000));
	assert_true(log_is_on(LOG_LOADER, LOG_WARNING) && !log_is_on(LOG_LOADER, LOG_INFO10));
	assert_false(log_is_on(LOG_GENERAL, LOG_INFO100));	/* --log-level's */
}

static void what_is_unknown_is_refused_with_what_is_known(void **state)
{
	static const struct {
		const char *text, *words;
	} rows[] = {
		{ "", "FACILITY:LEVEL" }, { "tiering", "FACILITY:LEVEL" }, { "info10", "FACILITY:LEVEL" },
		{ ":info10", "tiering, loader, worker, server, trace, journal, and all" }, { "tier:info10", "tiering, " },
		{ "tierings:info10", "tiering, " }, { "Tiering:info10", "tiering, " }, { "general:info10", "tiering, " },
		{ "al:info10", "tiering, " }, { "tiering:", "fatal, error, warning, info10, " }, { "tiering:info", "info10, " },
		{ "tiering:0", "1 to 10" }, { "tiering:11", "1 to 10" }, { "tiering:-1", "1 to 10" }, { "tiering:7x", "1 to 10" },
		{ "tiering:4294967297", "1 to 10" }, { "tiering:loader:7", "1 to 10" }, { "tiering:7 ", "1 to 10" },
	};
	struct log_choice choice = { 0 };

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		const char *why = log_choose(&choice, rows[i].text);

		assert_non_null(why);
		assert_non_null(strstr(why, rows[i].words));
	}
	for (unsigned int i = 0; i < _LOG_LEVEL_N; i++)
		assert_int_equal(choice.on[i], 0);
}

static void what_is_off_is_not_even_evaluated(void **state)
{
	int n = 0;

	log_event(LOG_LOADER, LOG_INFO100, "%d", ++n);
	log_tiering(INFO10000, "NonFinal", "m", 1, "%d", ++n);
	log_line(LOG_DEBUG, "%d", ++n);
	assert_int_equal(n, 0);
	assert_string_equal(written(), "");
	choose("all:everything");
	log_event(LOG_LOADER, LOG_INFO100, "%d", ++n);
	log_tiering(INFO10000, "NonFinal", "m", 1, "%d", ++n);
	log_line(LOG_DEBUG, "%d", ++n);
	assert_int_equal(n, 2);
	assert_string_equal(written(), "<7>tierd: loader: 1\n<7>tierd: tiering: NonFinal m:1: 2\n");
}

/* -- Where lines go --- */
static void a_files_name_has_the_pid_before_its_extension(void **state)
{
	static const struct {
		const char *path, *name;
	} rows[] = {
		{ "tierd.log", "tierd.1234.log" }, { "/var/log/tierd", "/var/log/tierd.1234" }, { "a.tar.gz", "a.tar.1234.gz" },
		{ "../logs.d/tierd", "../logs.d/tierd.1234" }, { ".tierd", ".tierd.1234" }, { "x/.t.log", "x/.t.1234.log" },
		{ "tierd.", "tierd.1234." }, { "./journal", "./journal.1234" },
	};
	static const char *const folders[] = { "", "/", "logs/", ".", "..", "logs/.", "logs/.." };
	char name[PATH_MAX];

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		assert_int_equal(log_file_name(rows[i].path, 1234, name, sizeof(name)), 0);
		assert_string_equal(name, rows[i].name);
	}
	for (size_t i = 0; i < ARRAY_SIZE(folders); i++)
		assert_int_equal(log_file_name(folders[i], 1234, name, sizeof(name)), -EISDIR);
	assert_int_equal(log_file_name("tierd.log", 1234, name, sizeof("tierd.1234.log")), 0);
	assert_int_equal(log_file_name("tierd.log", 1234, name, sizeof("tierd.1234.log") - 1), -ENAMETOOLONG);
}

static char folder[64], path[128];

static int setup_folder(void **state)
{
	snprintf(folder, sizeof(folder), "/tmp/tierd-log-XXXXXX");
	assert_non_null(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/log", folder);
	return setup(state);
}

static int teardown_folder(void **state)
{
	unlink(path);
	rmdir(folder);
	return teardown(state);
}

static const char *file_text(void)
{
	static char bytes[4096];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = read(fd, bytes, sizeof(bytes) - 1);

	close_fd(fd);
	bytes[n < 0 ? 0 : n] = '\0';
	return bytes;
}

/* The pattern's digits stand for any. */
static bool begins_like(const char *line, const char *pattern)
{
	for (; *pattern; line++, pattern++)
		if (*pattern == '0' ? *line < '0' || *line > '9' : *line != *pattern)
			return false;
	return true;
}

static void a_line_in_a_file_has_its_time_and_level(void **state)
{
	int fd = log_file_open(path);

	assert_true(fd >= 0);
	log_set_file(fd);
	choose("all:info10000");
	log_tiering(INFO10000, "CallCountingStub", "fib", 3, "P %#x -> %#x", 1, 2);
	log_line(LOG_INFO, "serving\n%s", "a");
	assert_true(begins_like(file_text(), "0000-00-00T00:00:00.000000Z info"));
	assert_non_null(strstr(file_text(), "Z info10000 tiering: CallCountingStub fib:3: P 0x1 -> 0x2\n"));
	assert_non_null(strstr(file_text(), "Z info10 serving?a\n"));
	assert_string_equal(written(), "");
}

static void what_ends_in_failure_is_told_on_standard_error_too(void **state)
{
	log_set_file(log_file_open(path));
	log_line(LOG_WARNING, "slow");
	log_line(LOG_ERROR, "over");
	assert_non_null(strstr(file_text(), "warning slow\n"));
	assert_non_null(strstr(file_text(), "error over\n"));
	assert_string_equal(written(), "<3>tierd: over\n");
}

static void a_file_goes_on_where_it_ended(void **state)
{
	log_set_file(log_file_open(path));
	log_line(LOG_INFO, "one");
	log_set_file(log_file_open(path));
	log_line(LOG_INFO, "two");
	assert_non_null(strstr(file_text(), "one\n"));
	assert_non_null(strstr(file_text(), "two\n"));
}

static void a_link_in_the_files_place_is_refused(void **state)
{
	assert_int_equal(symlink("/dev/null", path), 0);
	assert_int_equal(log_file_open(path), -ELOOP);
	assert_int_equal(log_file_open(folder), -EISDIR);
	assert_int_equal(log_file_open("/nowhere/log"), -ENOENT);
}

static void a_full_disk_is_survived_in_silence(void **state)
{
	log_set_file(open("/dev/full", O_WRONLY | O_CLOEXEC));
	errno = EXDEV;
	for (int i = 0; i < 100; i++)
		log_line(LOG_INFO, "line %d", i);
	assert_int_equal(errno, EXDEV);
	assert_string_equal(written(), "");
	log_set_file(-1);
	log_line(LOG_INFO, "after");
	assert_string_equal(written(), "<6>tierd: after\n");
}

static struct log_record received;
static struct log_subject received_subject;
static char received_text[64];

static void receive(const struct log_record *record)
{
	received = *record;
	received_subject = record->subject ? *record->subject : (struct log_subject){ 0 };
	snprintf(received_text, sizeof(received_text), "%s", record->text);
}

static void a_sink_gets_the_parts_of_a_message(void **state)
{
	log_to(receive);
	choose("tiering:7");
	log_tiering(INFO10000, "FinalTier", "m", 9, "E %d", 5);
	assert_string_equal(received.facility, "tiering");
	assert_string_equal(received.level, "info10000");
	assert_int_equal(received.priority, 7);
	assert_string_equal(received_subject.label, "FinalTier");
	assert_string_equal(received_subject.module, "m");
	assert_int_equal(received_subject.method, 9);
	assert_string_equal(received_text, "tiering: FinalTier m:9: E 5");
	log_line(LOG_WARNING, "w");
	assert_null(received.facility);
	assert_null(received.subject);
	assert_int_equal(received.priority, 4);
	assert_string_equal(written(), "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_line_has_its_level_for_the_service_manager, setup, teardown),
		cmocka_unit_test_setup_teardown(a_level_that_is_off_writes_nothing_and_errno_stays, setup, teardown),
		cmocka_unit_test_setup_teardown(text_from_clients_cannot_make_lines_of_its_own, setup, teardown),
		cmocka_unit_test_setup_teardown(a_long_line_is_cut_and_still_ends, setup, teardown),
		cmocka_unit_test_setup_teardown(an_unhandled_condition_becomes_a_fatal_error, setup, teardown),
		cmocka_unit_test_setup_teardown(levels_have_coreclrs_names_and_numbers, setup, teardown),
		cmocka_unit_test_setup_teardown(a_facility_is_chosen_by_itself, setup, teardown),
		cmocka_unit_test_setup_teardown(a_facility_can_be_quieter_than_the_rest, setup, teardown),
		cmocka_unit_test_setup_teardown(all_are_the_facilities_and_the_last_word_holds, setup, teardown),
		cmocka_unit_test_setup_teardown(what_is_unknown_is_refused_with_what_is_known, setup, teardown),
		cmocka_unit_test_setup_teardown(what_is_off_is_not_even_evaluated, setup, teardown),
		cmocka_unit_test_setup_teardown(a_files_name_has_the_pid_before_its_extension, setup, teardown),
		cmocka_unit_test_setup_teardown(a_line_in_a_file_has_its_time_and_level, setup_folder, teardown_folder),
		cmocka_unit_test_setup_teardown(what_ends_in_failure_is_told_on_standard_error_too, setup_folder, teardown_folder),
		cmocka_unit_test_setup_teardown(a_file_goes_on_where_it_ended, setup_folder, teardown_folder),
		cmocka_unit_test_setup_teardown(a_link_in_the_files_place_is_refused, setup_folder, teardown_folder),
		cmocka_unit_test_setup_teardown(a_full_disk_is_survived_in_silence, setup, teardown),
		cmocka_unit_test_setup_teardown(a_sink_gets_the_parts_of_a_message, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
