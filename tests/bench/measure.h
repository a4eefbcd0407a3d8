/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Measuring on a noisy machine: rounds of a fixed time, medians, and pairs that are measured in turn. */

#include <stddef.h>
#include <stdint.h>
#include "bench/inputs.h"

#define MEASURE_ROUNDS_MAX 64

struct series {
	double values[MEASURE_ROUNDS_MAX];
	unsigned int n;
};

uint64_t measure_now_ns(void);	/* CLOCK_MONOTONIC */
void series_add(struct series *series, double value);	/* beyond MEASURE_ROUNDS_MAX: dropped */
double series_median(const struct series *series);	/* NaN when empty */
double series_percentile(const struct series *series, double share);	/* share 0..1 of the sorted values */

/* How many calls take about @round_ns. */
uint64_t measure_batch(const struct workload_input *input, workload_function *fn, uint64_t round_ns);
/* ns per call of one batch. */
double measure_round(const struct workload_input *input, workload_function *fn, uint64_t batch);

/* Two functions on the same input in turn, @n_rounds each of about @round_ns: A B A B … */
void measure_pair(const struct workload_input *input, workload_function *a, workload_function *b, unsigned int n_rounds,
		  uint64_t round_ns, struct series *ret_a, struct series *ret_b);

double geometric_mean(const double *values, size_t n);	/* of positive values; NaN when n is 0 */
