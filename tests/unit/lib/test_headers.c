/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

/* The public headers are for other people's compilers: each by itself, in C and in C++, without a warning. */

static const char *const headers[] = { "tier", "types", "events", "records", "journal", "wire" };

static void compiles(const char *compiler, const char *header)
{
	char command[256];

	snprintf(command, sizeof(command), "echo '#include <tier/%s.h>' | %s -Iinclude -Wall -Wextra -Werror -fsyntax-only -", header,
		 compiler);
	if (system(command))
		fail_msg("%s", command);
}

static void each_header_compiles_as_c(void **state)
{
	for (size_t i = 0; i < sizeof(headers) / sizeof(headers[0]); i++)
		compiles("clang -x c -std=c11", headers[i]);
}

static void each_header_compiles_as_cpp(void **state)
{
	for (size_t i = 0; i < sizeof(headers) / sizeof(headers[0]); i++)
		compiles("clang -x c++ -std=c++11", headers[i]);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_header_compiles_as_c),
		cmocka_unit_test(each_header_compiles_as_cpp),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
