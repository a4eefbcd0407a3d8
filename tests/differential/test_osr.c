/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "bench/inputs.h"
#include "differential/osr.h"
#include "util/base.h"
#include "worker/child/codegen.h"
#include "worker/child/elf.h"

/* Every loop of every workload: on the vectors, the run leaves the interpreter at the head of one loop, at its first arrival
 * there, at its second, and in between; the result and all that was written must be what the vector says. */

static const uint64_t arrivals[] = { 1, 2, 5, 100 };

struct choice {
	const struct osr_entry *entry;
	uint64_t n_arrivals;
};

static struct tiers *tiers;
static struct osr osr;
static void *image_bytes;

static uint64_t call_mix(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e)
{
	return host_mix(a, b);
}

static void read_file(const char *name, void **ret_bytes, size_t *ret_n)
{
	char path[512];
	long size;
	FILE *file;

	snprintf(path, sizeof(path), "%s/workloads/%s.bpf.o", getenv("TIER_BUILD") ?: "build", name);
	file = fopen(path, "r");
	if (!file)
		fail_msg("%s: cannot be read", path);
	fseek(file, 0, SEEK_END);
	size = ftell(file);
	rewind(file);
	*ret_n = size;
	*ret_bytes = malloc(*ret_n);
	assert_non_null(*ret_bytes);
	assert_int_equal(fread(*ret_bytes, 1, *ret_n, file), *ret_n);
	fclose(file);
}

/* All tiers call each other through cells that lead to tier 0. */
static void load(const struct workload *workload, bool inlines)
{
	const reference_function imports[] = { call_mix, NULL };
	_cleanup_(freep) void *object = NULL;
	struct refusal refusal = { "" };
	struct image image;
	size_t n_object, n;

	free(TAKE_PTR(image_bytes));
	osr_deinit(&osr);
	read_file(workload->file, &object, &n_object);
	if (!elf_to_image(object, n_object, &image_bytes, &n, &refusal) || !image_check(image_bytes, n, &image, &refusal)
	    || !tiers_load(tiers, &image, imports, &refusal) || !tiers_compile_all(tiers, TIERS_0, false, &refusal)
	    || !osr_init(&osr, tiers, inlines, &refusal))
		fail_msg("%s: %s", workload->name, refusal.text);
}

static bool enters(struct osr *loops, const struct osr_entry *entry)
{
	const struct choice *choice = loops->userdata;

	return entry == choice->entry && entry->n_arrivals == choice->n_arrivals;
}

static void check_outcome(const struct workload_vector *vector, const struct workload_input *input, const struct choice *choice,
			  uint64_t result)
{
	if (result == vector->result && (!vector->n_out || !memcmp(input->out, vector->out, vector->n_out)))
		return;
	fail_msg("%s, %s: another result, entered at arrival %lu at slot %u of method %u", vector->workload, vector->text,
		 (unsigned long)choice->n_arrivals, choice->entry->pc, choice->entry->method);
}

/* Whether the code was entered. What takes the interpreter too long to the end is no test of an entry. */
static bool run(const struct workload *workload, const struct workload_vector *vector, struct choice *choice)
{
	struct workload_input *input = input_make_vector(vector);
	const int64_t method = image_find_method(&tiers->image, workload->entry);
	const char *fault;
	uint64_t result;

	assert_non_null(input);
	assert_true(method >= 0);
	tiers_reset(tiers);
	osr.enters = enters;
	osr.userdata = choice;
	fault = osr_run(&osr, method, input->args, &result);
	if (osr.fault)
		fail_msg("%s, %s: %s", workload->name, vector->text, osr.fault);
	if (!fault)
		check_outcome(vector, input, choice, result);
	input_free(input);
	return !fault && osr.n_entered;
}

/* Returns whether any arrival was one at @entry. */
static bool check_entry(const struct workload *workload, const struct osr_entry *entry)
{
	bool was_entered = false;

	for (size_t v = 0; v < n_workload_vectors; v++) {
		if (strcmp(workload_vectors[v].workload, workload->name))
			continue;
		for (size_t i = 0; i < ARRAY_SIZE(arrivals); i++)
			was_entered |= run(workload, &workload_vectors[v], &(struct choice){ entry, arrivals[i] });
	}
	return was_entered;
}

static void check_workloads(bool inlines, bool folds)
{
	uint32_t n_loops = 0, n_entered = 0;

	tiers->folds = folds;
	for (size_t i = 0; i < n_workloads; i++) {
		load(&workloads[i], inlines);
		for (uint32_t k = 0; k < osr.n_entries; k++)
			n_entered += check_entry(&workloads[i], &osr.entries[k]);
		n_loops += osr.n_entries;
	}
	print_message("%u loops, %u of them on the way of a vector\n", n_loops, n_entered);
	assert_true(n_entered * 10 >= n_loops * 8);
}

static void loops_of_workloads_go_on_in_optimized_code(void **state)
{
	check_workloads(false, false);
}

static void so_they_do_with_others_inlined_and_constants_known(void **state)
{
	check_workloads(true, true);
}

static int setup(void **state)
{
	tiers = tiers_new();
	if (!tiers)
		return -1;
	tiers->n_steps = 500000;
	return codegen_init();
}

static int teardown(void **state)
{
	osr_deinit(&osr);
	free(image_bytes);
	tiers = tiers_free(tiers);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(loops_of_workloads_go_on_in_optimized_code),
		cmocka_unit_test(so_they_do_with_others_inlined_and_constants_known),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
