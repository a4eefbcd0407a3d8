/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Measuring on a noisy machine: rounds of a fixed time, medians, and pairs that are measured in turn. */

#include <stddef.h>
#include <stdint.h>
#include "bench/inputs.h"

#define MEASURE_ROUNDS_MAX 64
#define MEASURE_FUNCTIONS_MAX 8

struct series {
	double values[MEASURE_ROUNDS_MAX];
	unsigned int n;
};

uint64_t measure_now_ns(void);	/* CLOCK_MONOTONIC */
uint64_t measure_cpu_ns(void);	/* CLOCK_THREAD_CPUTIME_ID: what others take of the processor does not count */
void series_add(struct series *series, double value);	/* beyond MEASURE_ROUNDS_MAX: dropped */
double series_median(const struct series *series);	/* NaN when empty */
double series_percentile(const struct series *series, double share);	/* share 0..1 of the sorted values */
/* The same of any number of values, which are sorted for it */
double values_percentile(double *values, size_t n, double share);
/* The median of the ratios of rounds that stand side by side; NaN when one of the two has none. */
double series_ratio(const struct series *a, const struct series *b);

/* How many calls take about @round_ns. */
uint64_t measure_batch(const struct workload_input *input, workload_function *fn, uint64_t round_ns);
/* ns of processor time per call of one batch. */
double measure_round(const struct workload_input *input, workload_function *fn, uint64_t batch);

/* Up to MEASURE_FUNCTIONS_MAX functions on the same input in turn, @n_rounds each of about @round_ns: A B C A B C …; a NULL
 * among them has an empty series. */
void measure_in_turn(const struct workload_input *input, workload_function *const *fns, unsigned int n_fns, unsigned int n_rounds,
		     uint64_t round_ns, struct series *ret);
/* Two of them */
void measure_pair(const struct workload_input *input, workload_function *a, workload_function *b, unsigned int n_rounds,
		  uint64_t round_ns, struct series *ret_a, struct series *ret_b);

double geometric_mean(const double *values, size_t n);	/* of positive values; NaN when n is 0 */
