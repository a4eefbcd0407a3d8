/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A fuzz target without a fuzzer: feeds it its corpus, tests/fuzz/corpus/NAME/, once. So `make check` sees again whatever
 * fuzzing once found, also where libFuzzer is not installed. Linked with a target; NAME is the program's. */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerInitialize(int *argc, char ***argv) __attribute__((weak));

static char folder[4096];

static bool is_input(const char *name)
{
	return name[0] != '.';
}

/* In memory of its exact size: a sanitizer sees a read behind its end. */
static void feed(const char *path)
{
	FILE *file = fopen(path, "re");
	uint8_t *data;
	long n;

	assert_non_null(file);
	fseek(file, 0, SEEK_END);
	n = ftell(file);
	rewind(file);
	data = malloc(n ?: 1);
	assert_non_null(data);
	assert_int_equal(fread(data, 1, n, file), n);
	fclose(file);
	fprintf(stderr, "%s\n", path);	/* the last one is it, if the target ends the program */
	LLVMFuzzerTestOneInput(data, n);
	free(data);
}

static void the_corpus_does_no_harm(void **state)
{
	DIR *inputs = opendir(folder);
	unsigned int n = 0;
	struct dirent *entry;
	char path[4608];

	assert_non_null(inputs);
	while ((entry = readdir(inputs))) {
		if (!is_input(entry->d_name))
			continue;
		snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name);
		feed(path);
		n++;
	}
	closedir(inputs);
	assert_true(n > 0);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_corpus_does_no_harm),
	};

	snprintf(folder, sizeof(folder), "tests/fuzz/corpus/%s", strrchr(argv[0], '/') ? strrchr(argv[0], '/') + 1 : argv[0]);
	if (LLVMFuzzerInitialize)
		LLVMFuzzerInitialize(&argc, &argv);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
