/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include "bytecode/builder.h"
#include "differential/check.h"
#include "differential/generate.h"
#include "differential/osr.h"
#include "tiers/tiers.h"
#include "util/base.h"
#include "worker/child/codegen.h"

#define RUNS 3		/* of each module, with other contents of the context */
#define CONTEXT_ADDRESS ((void *)0x310000000000)	/* wanted, so that a seed means the same everywhere */

struct state {
	uint64_t context[GENERATE_CONTEXT];
	uint8_t data[64], bss[64];
};

uint32_t check_skipped, check_entered;
uint64_t check_seed;

static struct tiers *tiers;
static struct osr osr;
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
	osr_deinit(&osr);
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

static const char *run_tiers(const uint64_t args[5], uint64_t *ret) { return tiers_call(tiers, 0, args, ret); }
static const char *run_loops(const uint64_t args[5], uint64_t *ret) { return osr_run(&osr, 0, args, ret); }

static bool compare_by(const char *(*run)(const uint64_t args[5], uint64_t *ret), const struct state *expected,
		       const uint64_t *inputs, const char *what, struct refusal *why)
{
	const uint64_t args[5] = { (uintptr_t)context };
	struct state got;
	const char *fault;
	uint64_t result;

	state_prepare(inputs);
	fault = run(args, &result);
	if (fault) {
		refuse(why, "TIER_TEST_SEED=%" PRIu64 ": %s: %s", check_seed, what, fault);
		return false;
	}
	state_save(&got);
	return !memcmp(expected, &got, sizeof(got)) || report(expected, &got, what, why);
}

static bool compare(const struct state *expected, const uint64_t *inputs, const char *what, struct refusal *why)
{
	return compare_by(run_tiers, expected, inputs, what, why);
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

/* -- Profiles --- */
static uint32_t random_count(void)
{
	return random_below(2) ? random_below(100) : random_next();
}

/* In form what profile_read() yields, in content anything */
static bool fill_with_rubbish(uint32_t method)
{
	_cleanup_(freep) struct profile_map *map = NULL;
	const uint32_t n_methods = tiers->image.n_methods;
	struct profile_count *counts;

	if (profile_map_new(&map, image_method_insns(&tiers->image, method), tiers->image.methods[method].n_insns))
		return false;
	counts = calloc(map->n_sites, sizeof(*counts));
	if (!counts)
		return false;
	for (uint32_t i = 0; i < map->n_sites; i++) {
		const enum profile_kind kind = map->sites[i].kind;
		const uint32_t target = random_below(n_methods + 1);

		counts[i] = (struct profile_count){ .pc = map->sites[i].pc, .kind = kind, .n = random_count(),
						    .method = PROFILE_NO_METHOD };
		if (kind == PROFILE_BRANCH || kind == PROFILE_CALLX)
			counts[i].m = random_below(2) ? counts[i].n : MIN(random_count(), counts[i].n);
		if (kind == PROFILE_CALLX && target < n_methods)
			counts[i].method = target;
	}
	tiers->profiles[method].counts = counts;
	tiers->profiles[method].n = map->n_sites;
	return true;
}

static bool make_rubbish(struct refusal *why)
{
	for (uint32_t i = 0; i < tiers->image.n_methods; i++)
		if (!fill_with_rubbish(i)) {
			refuse(why, "out of memory");
			return false;
		}
	return true;
}

/* What has been counted since the last time */
static uint32_t *take_counts(void)
{
	const uint32_t n = tiers_n_words(tiers);
	uint32_t *words = calloc(n, sizeof(*words));

	if (words)
		memcpy(words, tiers_words(tiers, 0), n * sizeof(*words));
	memset(tiers_words(tiers, 0), 0, n * sizeof(*words));
	return words;
}

static bool compare_counts(const uint32_t *expected, const uint32_t *got, struct refusal *why)
{
	for (uint32_t i = 0; i < tiers_n_words(tiers); i++) {
		if (expected[i] == got[i])
			continue;
		refuse(why, "TIER_TEST_SEED=%" PRIu64 ": word %" PRIu32 " counted %" PRIu32 " at tier 1, %" PRIu32 " at tier 0",
		       check_seed, i, got[i], expected[i]);
		return false;
	}
	return true;
}

/* -- Entries in loops --- */
static bool enters(struct osr *loops, const struct osr_entry *entry)
{
	const uint32_t *chance = loops->userdata;

	return !random_below(*chance);
}

/* At the first arrival anywhere, at some, at few */
static bool compare_entries(const struct state *expected, const uint64_t *inputs, struct refusal *why)
{
	static uint32_t chances[] = { 1, 3, 20 };

	for (size_t i = 0; i < ARRAY_SIZE(chances); i++) {
		osr.enters = enters;
		osr.userdata = &chances[i];
		if (!compare_by(run_loops, expected, inputs, "entered in a loop", why))
			return false;
		check_entered += osr.n_entered;
	}
	return true;
}

/* Once to the end at tier 0, then with optimized code from some hit on, in all frames */
static bool run_patchpoints(const struct state *expected, const uint64_t *inputs, struct refusal *why)
{
	uint32_t n_hits;

	tiers->n_stays = UINT32_MAX;
	tiers->n_hits = 0;
	if (!compare(expected, inputs, "tier 0 with patchpoints", why))
		return false;
	n_hits = tiers->n_hits;
	for (uint32_t i = 0; i < n_hits && i < 6; i++) {
		tiers->n_stays = i < 3 ? i : random_below(n_hits);
		if (!compare(expected, inputs, "optimized code from a patchpoint on", why))
			return false;
		check_entered += !tiers->n_stays;
	}
	return true;
}

static bool run_module(enum check_kind kind, struct refusal *why)
{
	_cleanup_(freep) uint32_t *counts0 = NULL;
	_cleanup_(freep) uint32_t *counts1 = NULL;
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
	if (kind == CHECK_PATCHPOINTS)
		return run_patchpoints(&expected, inputs, why);
	if (!compare(&expected, inputs, "tier 0", why))
		return false;
	if (kind == CHECK_OSR)
		return compare_entries(&expected, inputs, why);
	counts0 = take_counts();
	select_all(TIERS_1);
	if (!compare(&expected, inputs, kind == CHECK_RUBBISH ? "tier 1 with a profile of rubbish" : "tier 1", why))
		return false;
	counts1 = take_counts();
	if (!counts0 || !counts1 || !compare_counts(counts0, counts1, why))
		return false;
	if (kind != CHECK_EACH)
		return true;
	select_any();
	return compare(&expected, inputs, "a mixture of tiers", why);
}

static bool compile_patchpoints(const struct image *image, struct refusal *why)
{
	for (uint32_t i = 0; i < image->n_methods; i++)
		if (!tiers_compile_patchpoints(tiers, i, true, why))
			return false;
	return true;
}

static bool compile(const struct image *image, enum check_kind kind, struct refusal *why)
{
	const reference_function imports[GENERATE_IMPORTS] = { mix, store_sum };
	const bool all = kind == CHECK_EACH || kind == CHECK_COUNTS;

	tiers->counts = kind == CHECK_COUNTS;
	tiers->folds = random_below(4);
	tiers->far = !random_below(4);
	tiers->patchpoints = kind == CHECK_PATCHPOINTS;
	osr_deinit(&osr);
	if (!tiers_load(tiers, image, imports, why) || !tiers_compile_all(tiers, TIERS_0, false, why))
		return false;
	if ((kind == CHECK_RUBBISH || (kind == CHECK_OSR && random_below(2))) && !make_rubbish(why))
		return false;
	if (kind == CHECK_OSR)
		return osr_init(&osr, tiers, random_below(2), why);
	if (kind == CHECK_PATCHPOINTS)
		return compile_patchpoints(image, why);
	for (uint32_t i = 0; i < (all ? image->n_methods : 1); i++)
		if (!tiers_compile(tiers, TIERS_1, i, !all, why))
			return false;
	return true;
}

bool check_module(uint32_t n_programs, enum check_kind kind, struct refusal *why)
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
	if (r || !image_check(bytes, n, &image, &refusal) || !compile(&image, kind, &refusal)) {
		refuse(why, "TIER_TEST_SEED=%" PRIu64 ": %.300s", check_seed, r ? strerror(-r) : refusal.text);
		return false;
	}
	for (int run = 0; run < RUNS; run++)
		if (!run_module(kind, why))
			return false;
	return true;
}
