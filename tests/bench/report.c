/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "bench/report.h"

static void path_of(const char *name, char *ret, size_t n)
{
	const char *build = getenv("TIER_BUILD");

	snprintf(ret, n, "%s/bench", build ? build : "build");
	mkdir(ret, 0755);	/* if it cannot be made, opening the file says so */
	snprintf(ret, n, "%s/bench/%s.json", build ? build : "build", name);
}

static _Noreturn void give_up(const char *path)
{
	fprintf(stderr, "%s: %s\n", path, strerror(errno));
	exit(2);
}

FILE *report_open(const char *name)
{
	char path[512];
	FILE *file;

	path_of(name, path, sizeof(path));
	file = fopen(path, "w");
	if (!file)
		give_up(path);
	return file;
}

void report_close(FILE *file, const char *name)
{
	char path[512];

	path_of(name, path, sizeof(path));
	if (fclose(file))
		give_up(path);
	printf("\nwritten to %s\n", path);
}

void report_number(FILE *file, double value)
{
	if (isnan(value))
		fputs("null", file);
	else
		fprintf(file, "%.4f", value);
}
