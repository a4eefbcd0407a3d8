/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include "bytecode/builder.h"
#include "differential/check.h"
#include "differential/generate.h"
#include "tiers/tiers.h"
#include "util/base.h"
#include "worker/child/codegen.h"

#define RUNS 3		/* of each module, with other contents of the context */
#define CONTEXT_ADDRESS ((void *)0x310000000000)	/* wanted, so that a seed means the same everywhere */

struct state {
	uint64_t context[GENERATE_CONTEXT];
	uint8_t data[64], bss[64];
};

uint32_t check_skipped;
uint64_t check_seed;

static struct tiers *tiers;
static uint64_t *context = MAP_FAILED;

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

int check_setup(void)
{
	tiers = tiers_new();
	context = mmap(CONTEXT_ADDRESS, GENERATE_CONTEXT * sizeof(*context), PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	return tiers && context != MAP_FAILED ? codegen_init() : -ENOMEM;
}

void check_teardown(void)
{
	tiers = tiers_free(tiers);
	if (context != MAP_FAILED)
		munmap(context, GENERATE_CONTEXT * sizeof(*context));
	context = MAP_FAILED;
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
static bool report(const struct state *expected, const struct state *got, const char *what, struct refusal *why)
{
	uint32_t i = 0;

	while (i < GENERATE_CONTEXT && expected->context[i] == got->context[i])
		i++;
	if (i == GENERATE_CONTEXT)
		refuse(why, "TIER_TEST_SEED=%" PRIu64 ": %s: %s differs", check_seed, what,
		       memcmp(expected->data, got->data, sizeof(got->data)) ? ".data" : ".bss");
	else
		refuse(why, "TIER_TEST_SEED=%" PRIu64 ": %s: %s %" PRIu32 " is 0x%" PRIx64 ", by the reference 0x%" PRIx64,
		       check_seed, what, i < GENERATE_RESULTS ? "word" : "the result of program",
		       i < GENERATE_RESULTS ? i : i - GENERATE_RESULTS, got->context[i], expected->context[i]);
	return false;
}

static bool compare(const struct state *expected, const uint64_t *inputs, const char *what, struct refusal *why)
{
	const uint64_t args[5] = { (uintptr_t)context };
	struct state got;
	const char *fault;
	uint64_t result;

	state_prepare(inputs);
	fault = tiers_call(tiers, 0, args, &result);
	if (fault) {
		refuse(why, "TIER_TEST_SEED=%" PRIu64 ": %s: %s", check_seed, what, fault);
		return false;
	}
	state_save(&got);
	return !memcmp(expected, &got, sizeof(got)) || report(expected, &got, what, why);
}

static void select_all(enum tiers_kind kind)
{
	for (uint32_t i = 0; i < tiers->image.n_methods; i++)
		tiers_select(tiers, tiers->code[kind][i] ? kind : TIERS_0, i);
}

static void select_any(void)
{
	for (uint32_t i = 0; i < tiers->image.n_methods; i++)
		tiers_select(tiers, random_below(2) ? TIERS_1 : TIERS_0, i);
}

static bool run_module(bool mixes, struct refusal *why)
{
	const uint64_t args[5] = { (uintptr_t)context };
	uint64_t inputs[GENERATE_RESULTS], result;
	struct state expected;

	for (size_t i = 0; i < ARRAY_SIZE(inputs); i++)
		inputs[i] = random_value();
	state_prepare(inputs);
	if (tiers_interpret(tiers, 0, args, &result)) {
		check_skipped++;
		return true;
	}
	state_save(&expected);
	select_all(TIERS_0);
	if (!compare(&expected, inputs, "tier 0", why))
		return false;
	select_all(TIERS_1);
	if (!compare(&expected, inputs, "tier 1", why))
		return false;
	if (!mixes)
		return true;
	select_any();
	return compare(&expected, inputs, "a mixture of tiers", why);
}

static bool compile(const struct image *image, bool all, struct refusal *why)
{
	const reference_function imports[GENERATE_IMPORTS] = { mix, store_sum };

	if (!tiers_load(tiers, image, imports, why) || !tiers_compile_all(tiers, TIERS_0, false, why))
		return false;
	for (uint32_t i = 0; i < (all ? image->n_methods : 1); i++)
		if (!tiers_compile(tiers, TIERS_1, i, !all, why))
			return false;
	return true;
}

bool check_module(uint32_t n_programs, bool all, struct refusal *why)
{
	_cleanup_(freep) void *bytes = NULL;
	struct builder builder = BUILDER_NULL;
	struct refusal refusal = { "" };
	struct image image;
	size_t n;
	int r;

	check_seed = random_seed;
	generate_module(&builder, n_programs);
	r = builder_finish(&builder, &bytes, &n);
	builder_deinit(&builder);
	if (r || !image_check(bytes, n, &image, &refusal) || !compile(&image, all, &refusal)) {
		refuse(why, "TIER_TEST_SEED=%" PRIu64 ": %.300s", check_seed, r ? strerror(-r) : refusal.text);
		return false;
	}
	for (int run = 0; run < RUNS; run++)
		if (!run_module(all, why))
			return false;
	return true;
}
