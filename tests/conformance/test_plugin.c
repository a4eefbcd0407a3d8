/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include "conformance/datafile.h"
#include "tiers/tiers.h"
#include "util/base.h"

/* The plug-in as the public suite drives it: a process per test, standard input, standard output, exit status. */

struct outcome {
	int status;		/* exit status; -1: it did not exit */
	char out[4096], err[4096];
};

static const char *plugin_path(void)
{
	static char path[4096];

	snprintf(path, sizeof(path), "%s/tests/conformance-plugin", getenv("TIER_BUILD") ?: "build");
	return path;
}

static int text_fd(const void *bytes, size_t n)
{
	int fd = memfd_create("plugin", MFD_CLOEXEC);

	assert_true(fd >= 0 && write(fd, bytes, n) == (ssize_t)n && !lseek(fd, 0, SEEK_SET));
	return fd;
}

static void take_text(int fd, char *ret, size_t n)
{
	const ssize_t got = pread(fd, ret, n - 1, 0);

	assert_true(got >= 0);
	ret[got] = 0;
	close(fd);
}

static struct outcome plug(const char *tier, const void *input, size_t n, const char *arg1, const char *arg2)
{
	const int in = text_fd(input, n), out = text_fd("", 0), err = text_fd("", 0);
	struct outcome outcome;
	int status;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (!pid) {
		dup2(in, 0);
		dup2(out, 1);
		dup2(err, 2);
		if (tier)
			setenv("TIER", tier, 1);
		execl(plugin_path(), plugin_path(), arg1, arg1 ? arg2 : NULL, NULL);
		_exit(127);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	outcome.status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
	close(in);
	take_text(out, outcome.out, sizeof(outcome.out));
	take_text(err, outcome.err, sizeof(outcome.err));
	return outcome;
}

static struct outcome plug_text(const char *tier, const char *program, const char *memory)
{
	return plug(tier, program, strlen(program), memory, NULL);
}

#define expect_result(o, text)                                                                                         \
	do {                                                                                                           \
		const struct outcome _o = (o);                                                                         \
		assert_string_equal(_o.err, "");                                                                       \
		assert_string_equal(_o.out, text "\n");                                                                \
		assert_int_equal(_o.status, 0);                                                                        \
	} while (0)

#define expect_failure(o, part)                                                                                        \
	do {                                                                                                           \
		const struct outcome _o = (o);                                                                         \
		assert_string_equal(_o.out, "");                                                                       \
		if (!strstr(_o.err, part))                                                                             \
			fail_msg("'%s' does not say '%s'", _o.err, part);                                              \
		assert_int_equal(_o.status, 1);                                                                        \
	} while (0)

/* r0 = -1; exit */
#define MINUS_ONE "b7 00 00 00 ff ff ff ff 95 00 00 00 00 00 00 00"
/* r0 = *(u8 *)(r1 + 1); r0 <<= 8; r0 |= r2; exit */
#define SECOND_BYTE "71 10 01 00 00 00 00 00 67 00 00 00 08 00 00 00 4f 20 00 00 00 00 00 00 95 00 00 00 00 00 00 00"
/* call 5; exit */
#define HELPER_5 "85 00 00 00 05 00 00 00 95 00 00 00 00 00 00 00"
/* r0 = 64; r0 = *(u8 *)(r0 + 0); exit */
#define CRASH "b7 00 00 00 40 00 00 00 71 00 00 00 00 00 00 00 95 00 00 00 00 00 00 00"

static void r0_is_printed_in_hex_by_every_tier(void **state)
{
	expect_result(plug_text(NULL, MINUS_ONE "\n", NULL), "ffffffffffffffff");
	for (int i = 0; i < _TIERS_N; i++) {
		expect_result(plug_text(tiers_names[i], MINUS_ONE, NULL), "ffffffffffffffff");
		expect_result(plug_text(tiers_names[i], MINUS_ONE, ""), "ffffffffffffffff");
		expect_result(plug(tiers_names[i], MINUS_ONE, strlen(MINUS_ONE), "", ""), "ffffffffffffffff");
	}
}

static void memory_arrives_in_r1_and_its_length_in_r2(void **state)
{
	for (int i = 0; i < _TIERS_N; i++) {
		expect_result(plug_text(tiers_names[i], SECOND_BYTE, "aa bb cc"), "bb03");
		expect_result(plug_text(tiers_names[i], SECOND_BYTE, "aabb"), "bb02");
	}
}

static void without_memory_both_are_zero(void **state)
{
	/* r0 = r1; r0 |= r2; exit */
	expect_result(plug_text("0", "bf 10 00 00 00 00 00 00 4f 20 00 00 00 00 00 00 95 00 00 00 00 00 00 00", NULL), "0");
}

static void helper_5_returns_its_first_argument(void **state)
{
	for (int i = 0; i < _TIERS_N; i++)	/* r1 = 42 before */
		expect_result(plug_text(tiers_names[i], "b7 01 00 00 2a 00 00 00 " HELPER_5, NULL), "2a");
	for (int i = 0; i < _TIERS_N; i++)	/* r1 = 42; r2 = 5; callx r2; exit */
		expect_result(plug_text(tiers_names[i], "b7 01 00 00 2a 00 00 00 b7 02 00 00 05 00 00 00 8d 02 00 00 00 00 00 00 "
					"95 00 00 00 00 00 00 00", ""), "2a");
	expect_failure(plug_text("0", "85 00 00 00 06 00 00 00 95 00 00 00 00 00 00 00", NULL), "calls kernel helper 6");
}

static void what_goes_wrong_is_said_on_standard_error(void **state)
{
	expect_failure(plug_text("0", "", NULL), "no instructions");
	expect_failure(plug_text("0", "95 00", NULL), "not hex bytes of whole instructions");
	expect_failure(plug_text("0", "hello", NULL), "not hex bytes of whole instructions");
	expect_failure(plug_text("0", "00 00 00 00 00 00 00 00", NULL), "unknown opcode");
	expect_failure(plug_text("0", MINUS_ONE, "xy"), "the memory is not hex bytes: xy");
	expect_failure(plug_text("2", MINUS_ONE, NULL), "TIER is not 0, 1 or reference: 2");
	expect_failure(plug("0", MINUS_ONE, strlen(MINUS_ONE), "00", "--jit"), "unknown argument: --jit");
	expect_failure(plug("0", "no ELF", 6, "--elf", NULL), "refused");
	for (int i = 0; i < _TIERS_N; i++)
		expect_failure(plug_text(tiers_names[i], CRASH, NULL), "the program crashed");
}

static void help_is_a_page(void **state)
{
	const struct outcome outcome = plug_text(NULL, "", "--help");

	assert_int_equal(outcome.status, 0);
	assert_non_null(strstr(outcome.out, "TIER"));
	assert_non_null(strstr(outcome.out, "--elf"));
	assert_string_equal(outcome.err, "");
}

/* A workload, on arguments that are 0: the whole way from a file to its methods. */
static void an_elf_object_runs(void **state)
{
	static char file[1 << 20];
	char path[4096];
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "%s/workloads/fib.bpf.o", getenv("TIER_BUILD") ?: "build");
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		skip();
	n = read(fd, file, sizeof(file));
	close(fd);
	assert_true(n > 0 && (size_t)n < sizeof(file));
	for (int i = 0; i < _TIERS_N; i++) {
		expect_result(plug(tiers_names[i], file, n, "--elf", NULL), "0");
		expect_result(plug(tiers_names[i], file, n, "", "--elf"), "0");
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(r0_is_printed_in_hex_by_every_tier),
		cmocka_unit_test(memory_arrives_in_r1_and_its_length_in_r2),
		cmocka_unit_test(without_memory_both_are_zero),
		cmocka_unit_test(helper_5_returns_its_first_argument),
		cmocka_unit_test(what_goes_wrong_is_said_on_standard_error),
		cmocka_unit_test(help_is_a_page),
		cmocka_unit_test(an_elf_object_runs),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
