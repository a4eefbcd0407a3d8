/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>
#include "bytecode/builder.h"
#include "differential/generate.h"
#include "tiers/tiers.h"
#include "util/base.h"
#include "worker/child/codegen.h"

/* Random programs by tier 0, by tier 1 and by the reference: results and all memory must be the same
 *
 * The seed is printed; TIER_TEST_SEED=N repeats from there, and a difference names the seed of its own module. A difference
 * that was found becomes a file of tests/conformance. */

#define RUNS 3		/* of each module, with other contents of the context */
#define CONTEXT_ADDRESS ((void *)0x310000000000)	/* wanted, so that a seed means the same everywhere */

struct state {
	uint64_t context[GENERATE_CONTEXT];
	uint8_t data[64], bss[64];
};

static struct tiers *tiers;
static uint64_t *context;
static uint64_t module_seed;
static uint32_t n_skipped;

/* -- The world of a program --- */
static uint64_t mix(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e)
{
	return ((a * 31 + b) * 31 + c) * 31 + (d ^ e);
}

static uint64_t store_sum(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e)
{
	context[GENERATE_RESULTS - 1] += a;
	return context[GENERATE_RESULTS - 1] ^ b;
}

static void state_save(struct state *state)
{
	memcpy(state->context, context, sizeof(state->context));
	memcpy(state->data, (uint8_t *)tiers->span + tiers->layout.data, sizeof(state->data));
	memcpy(state->bss, (uint8_t *)tiers->span + tiers->layout.bss, sizeof(state->bss));
}

static void state_prepare(const uint64_t *inputs)
{
	tiers_reset(tiers);
	memset(context, 0, GENERATE_CONTEXT * sizeof(*context));
	memcpy(context, inputs, GENERATE_RESULTS * sizeof(*context));
}

/* -- Comparing --- */
static void on_fault(int number)
{
	char text[96];
	const int n = snprintf(text, sizeof(text), "TIER_TEST_SEED=%" PRIu64 ": signal %d\n", module_seed, number);

	if (write(STDERR_FILENO, text, n) < 0)
		_exit(2);
	signal(number, SIG_DFL);
	raise(number);
}

static void report(const struct state *expected, const struct state *got, const char *what)
{
	for (uint32_t i = 0; i < GENERATE_CONTEXT; i++)
		if (expected->context[i] != got->context[i])
			print_error("%s %" PRIu32 ": 0x%" PRIx64 ", reference 0x%" PRIx64 "\n",
				    i < GENERATE_RESULTS ? "word" : "result of program",
				    i < GENERATE_RESULTS ? i : i - GENERATE_RESULTS, got->context[i], expected->context[i]);
	fail_msg("TIER_TEST_SEED=%" PRIu64 ": %s differs%s%s", module_seed, what,
		 memcmp(expected->data, got->data, sizeof(got->data)) ? ", .data too" : "",
		 memcmp(expected->bss, got->bss, sizeof(got->bss)) ? ", .bss too" : "");
}

static void compare(const struct state *expected, const uint64_t *inputs, const char *what)
{
	const uint64_t args[5] = { (uintptr_t)context };
	struct state got;
	const char *fault;
	uint64_t result;

	state_prepare(inputs);
	fault = tiers_call(tiers, 0, args, &result);
	if (fault)
		fail_msg("TIER_TEST_SEED=%" PRIu64 ": %s: %s", module_seed, what, fault);
	state_save(&got);
	if (memcmp(expected, &got, sizeof(got)))
		report(expected, &got, what);
}

static void select_all(enum tiers_kind kind)
{
	for (uint32_t i = 0; i < tiers->image.n_methods; i++)
		tiers_select(tiers, tiers->code[kind][i] ? kind : TIERS_0, i);
}

static void run_module(bool has_all)
{
	const uint64_t args[5] = { (uintptr_t)context };
	uint64_t inputs[GENERATE_RESULTS], result;
	struct state expected;

	for (size_t i = 0; i < ARRAY_SIZE(inputs); i++)
		inputs[i] = random_value();
	state_prepare(inputs);
	if (tiers_interpret(tiers, 0, args, &result)) {	/* loops that multiply: legal, but not worth waiting for */
		n_skipped++;
		return;
	}
	state_save(&expected);
	select_all(TIERS_0);
	compare(&expected, inputs, "tier 0");
	select_all(TIERS_1);
	compare(&expected, inputs, "tier 1");
	if (!has_all)
		return;
	for (uint32_t i = 0; i < tiers->image.n_methods; i++)
		tiers_select(tiers, random_below(2) ? TIERS_1 : TIERS_0, i);
	compare(&expected, inputs, "a mixture of tiers");
}

/* With @all every method is compiled by itself at tier 1; else only method 0 is, with most others inlined. */
static void check_module(uint32_t n_programs, bool all)
{
	const reference_function imports[GENERATE_IMPORTS] = { mix, store_sum };
	_cleanup_(freep) void *bytes = NULL;
	struct builder builder = BUILDER_NULL;
	struct refusal refusal = { "" };
	struct image image;
	size_t n;
	bool ok;

	module_seed = random_seed;
	generate_module(&builder, n_programs);
	assert_int_equal(builder_finish(&builder, &bytes, &n), 0);
	builder_deinit(&builder);
	ok = image_check(bytes, n, &image, &refusal) && tiers_load(tiers, &image, imports, &refusal)
	  && tiers_compile_all(tiers, TIERS_0, false, &refusal);
	for (uint32_t i = 0; ok && i < (all ? image.n_methods : 1); i++)
		ok = tiers_compile(tiers, TIERS_1, i, !all, &refusal);
	if (!ok)
		fail_msg("TIER_TEST_SEED=%" PRIu64 ": %s", module_seed, refusal.text);
	for (int run = 0; run < RUNS; run++)
		run_module(all);
}

/* -- Cases --- */
static uint32_t count_from(const char *name, uint32_t short_count, uint32_t long_count)
{
	const char *count = getenv(name);

	return count ? strtoul(count, NULL, 0) : getenv("TIER_TEST_LONG") ? long_count : short_count;
}

static void run_programs(const char *what, uint32_t n_programs, uint32_t n_batch, bool all)
{
	const uint64_t seed = random_seed;
	const time_t begin = time(NULL);

	n_skipped = 0;
	for (uint32_t i = 0; i < n_programs; i += n_batch)
		check_module(n_batch, all);
	print_message("%" PRIu32 " programs %s from TIER_TEST_SEED=%" PRIu64 " in %ld s, no difference; %" PRIu32
		      " runs were too long for the reference\n", n_programs, what, seed, (long)(time(NULL) - begin), n_skipped);
}

static void programs_inlined_into_one_method_agree(void **state)
{
	run_programs("in batches", count_from("TIER_TEST_PROGRAMS", 1600, 100000), 16, false);
}

static void programs_compiled_method_by_method_agree(void **state)
{
	run_programs("one by one", count_from("TIER_TEST_PROGRAMS", 300, 10000), 1, true);
}

static int setup(void **state)
{
	const char *seed = getenv("TIER_TEST_SEED");

	random_seed = seed ? strtoull(seed, NULL, 0) : (uint64_t)time(NULL);
	print_message("seed: TIER_TEST_SEED=%" PRIu64 "\n", random_seed);
	signal(SIGSEGV, on_fault);
	signal(SIGILL, on_fault);
	signal(SIGFPE, on_fault);
	tiers = tiers_new();
	context = mmap(CONTEXT_ADDRESS, GENERATE_CONTEXT * sizeof(*context), PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	return tiers && context != MAP_FAILED ? codegen_init() : -1;
}

static int teardown(void **state)
{
	tiers = tiers_free(tiers);
	return munmap(context, GENERATE_CONTEXT * sizeof(*context));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(programs_inlined_into_one_method_agree),
		cmocka_unit_test(programs_compiled_method_by_method_agree),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
