/* SPDX-License-Identifier: Apache-2.0 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "util/base.h"
#include "worker/job.h"

/* What crosses the pipe, from either end. The first byte chooses the reader. Whatever a reader accepts, its writer must
 * write again byte by byte: then there is nothing in it that nobody looked at. */

static void expect_same(const void *written, size_t n_written, const void *read, size_t n)
{
	if (n_written != n || memcmp(written, read, n))
		abort();
}

static void fuzz_compile(const void *bytes, size_t n)
{
	_cleanup_(freep) void *again = NULL;
	struct job_compile job;
	struct refusal refusal;
	size_t n_again;

	if (!job_get_compile(&job, bytes, n, &refusal))
		return;
	if (!job_put_compile(&job, &again, &n_again))
		expect_same(again, n_again, bytes, n);
	free(job.bodies);
}

static void fuzz_code(const void *bytes, size_t n)
{
	_cleanup_(freep) void *again = NULL;
	struct code_result code;
	struct refusal refusal;
	size_t n_again;

	if (job_get_code(&code, bytes, n, &refusal) && !job_put_code(&code, &again, &n_again))
		expect_same(again, n_again, bytes, n);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	_cleanup_(freep) void *aligned = NULL;

	if (!size)
		return 0;
	aligned = malloc(MAX(size - 1, (size_t)1));
	if (!aligned)
		return 0;
	memcpy(aligned, data + 1, size - 1);
	if (data[0] & 1)
		fuzz_code(aligned, size - 1);
	else
		fuzz_compile(aligned, size - 1);
	return 0;
}
