/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "bench/measure.h"

static uint64_t clock_ns(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + ts.tv_nsec;
}

uint64_t measure_now_ns(void)
{
	return clock_ns(CLOCK_MONOTONIC);
}

uint64_t measure_cpu_ns(void)
{
	return clock_ns(CLOCK_THREAD_CPUTIME_ID);
}

void series_add(struct series *series, double value)
{
	if (series->n < MEASURE_ROUNDS_MAX)
		series->values[series->n++] = value;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

double values_percentile(double *values, size_t n, double share)
{
	if (!n)
		return NAN;
	qsort(values, n, sizeof(*values), compare);
	return values[lround(share * (n - 1))];
}

double series_percentile(const struct series *series, double share)
{
	double sorted[MEASURE_ROUNDS_MAX];

	memcpy(sorted, series->values, series->n * sizeof(*sorted));
	return values_percentile(sorted, series->n, share);
}

double series_median(const struct series *series)
{
	return series_percentile(series, 0.5);
}

double series_ratio(const struct series *a, const struct series *b)
{
	struct series ratios = { .n = 0 };

	for (unsigned int i = 0; i < a->n && i < b->n; i++)
		series_add(&ratios, a->values[i] / b->values[i]);
	return series_median(&ratios);
}

double measure_round(const struct workload_input *input, workload_function *fn, uint64_t batch)
{
	uint64_t begin = measure_cpu_ns();

	for (uint64_t i = 0; i < batch; i++)
		input_call(input, fn);
	return (double)(measure_cpu_ns() - begin) / batch;
}

uint64_t measure_batch(const struct workload_input *input, workload_function *fn, uint64_t round_ns)
{
	uint64_t batch = 1;

	while (batch < UINT32_MAX && measure_round(input, fn, batch) * batch < round_ns)
		batch *= 2;
	return batch;
}

void measure_in_turn(const struct workload_input *input, workload_function *const *fns, unsigned int n_fns, unsigned int n_rounds,
		     uint64_t round_ns, struct series *ret)
{
	uint64_t batches[MEASURE_FUNCTIONS_MAX];

	for (unsigned int k = 0; k < n_fns; k++) {
		ret[k] = (struct series){ .n = 0 };
		batches[k] = fns[k] ? measure_batch(input, fns[k], round_ns) : 0;
	}
	for (unsigned int i = 0; i < n_rounds; i++)
		for (unsigned int k = 0; k < n_fns; k++)
			if (fns[k])
				series_add(&ret[k], measure_round(input, fns[k], batches[k]));
}

void measure_pair(const struct workload_input *input, workload_function *a, workload_function *b, unsigned int n_rounds,
		  uint64_t round_ns, struct series *ret_a, struct series *ret_b)
{
	workload_function *const fns[2] = { a, b };
	struct series series[2];

	measure_in_turn(input, fns, 2, n_rounds, round_ns, series);
	*ret_a = series[0];
	*ret_b = series[1];
}

double geometric_mean(const double *values, size_t n)
{
	double sum = 0;

	for (size_t i = 0; i < n; i++)
		sum += log(values[i]);
	return n ? exp(sum / n) : NAN;
}
