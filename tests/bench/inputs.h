/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What to call the workloads with, and what must come out
 *
 * An input is the arguments of one call and the memory they point to, the same on every machine and in every run. The
 * usual input of a workload takes about 1 to 20 µs natively. Workloads read their input and write their output
 * elsewhere, so calls may follow each other without a reset and do the same work; input_reset() is for whoever
 * compares the bytes that were written.
 *
 * A vector is a small input with its known result, from a standard, from a paper, or from an independent program. */

#include <stddef.h>
#include <stdint.h>
#include "workloads/list.h"

struct workload_input {
	uint64_t args[5];		/* unused ones are 0 */
	unsigned int n_args;
	uint8_t *buffer;		/* all memory that the arguments point to; NULL if none does */
	size_t n_buffer;
	uint8_t *pristine;		/* what the buffer held at first */
	uint8_t *out;			/* inside the buffer: what the workload writes; NULL if nothing */
	size_t n_out;
};

struct workload {
	const char *name;
	const char *file;		/* build/workloads/FILE.bpf.o */
	const char *entry;
	workload_function *native;
	struct workload_input *(*make)(void);	/* its usual input */
};
extern const struct workload workloads[], workload_tests[];	/* WORKLOAD_LIST, WORKLOAD_TEST_LIST */
extern const size_t n_workloads, n_workload_tests;

/* How an input is put together. One letter an argument: d pointer to data, n its length in bytes, m pointer to more, l
 * its length, o pointer to n_out bytes of output (zeros at first), i the next of the numbers. */
struct input_shape {
	const char *args;
	const void *data, *more;
	size_t n_data, n_more, n_out;
	uint64_t numbers[4];
};

struct workload_vector {
	const char *workload;		/* a name in one of the lists */
	const char *text;		/* what it shows; unique among the workload's vectors */
	struct input_shape shape;
	uint64_t result;
	const void *out;		/* what the first n_out bytes of output must be, if n_out is not 0 */
	size_t n_out;
};
extern const struct workload_vector workload_vectors[];
extern const size_t n_workload_vectors;

/* The workload or test method of that name; NULL if there is none. */
const struct workload *workload_find(const char *name);

/* The usual input of the workload called @name / the input of a vector; NULL for an unknown name or without memory.
 * Free with input_free(), which takes NULL and returns NULL. */
struct workload_input *input_make(const char *name);
struct workload_input *input_make_vector(const struct workload_vector *vector);
struct workload_input *input_free(struct workload_input *input);

/* Makes the buffer what it was at first. */
void input_reset(struct workload_input *input);

static inline uint64_t input_call(const struct workload_input *input, workload_function *function)
{
	return function(input->args[0], input->args[1], input->args[2], input->args[3], input->args[4]);
}

/* What the workload called imports imports: mixes two numbers. The native build calls it, and tests and benchmarks
 * bind it to the module's import of the same name. The weak import, host_bonus, is absent natively. */
uint64_t host_mix(uint64_t a, uint64_t b);
