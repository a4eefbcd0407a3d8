/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* For tests of entry points and bodies: worlds of each policy, methods brought to any point of their ladder, what their
 * words say, and reference §6.5 as a client could check it. */

#include "unit/tiering/fake.h"

#define LADDER_UID 1000

/* -- Worlds --- */
struct ladder_kind {
	enum tier_backpatch policy;
	bool in_prestub; /* counting_in_prestub */
	bool is_backpatchable;
};

static inline struct fake *ladder_fake(enum tier_backpatch policy, bool in_prestub)
{
	struct core_config config = fake_config;

	config.backpatch = policy;
	config.counting_in_prestub = in_prestub;
	return fake_new(&config);
}

/* The methods of a ladder's module: the one that is looked at, one whose optimized code calls it through a rel32 site,
 * and one whose job keeps the queue busy. */
enum { LADDER_METHOD, LADDER_CALLER, LADDER_BLOCKER, LADDER_OTHER, LADDER_METHODS };
#define LADDER_SLOTS 3u /* of each backpatchable method */

static inline struct fake_module *ladder_load(struct fake *fake, bool is_backpatchable)
{
	struct fake_module *fm = fake_load_virtual(fake, LADDER_UID, "ladder", LADDER_METHODS,
						   is_backpatchable ? LADDER_METHODS : 0, LADDER_SLOTS);

	fm->calls[LADDER_CALLER] = 1u << LADDER_METHOD;
	return fm;
}

/* -- Points of the ladder --- */
enum ladder_at { AT_COLD, AT_UNCOUNTED, AT_COUNTING, AT_REACHED, AT_QUEUED, AT_COMPILING, AT_FINAL, AT_FAILED, _AT_N };

static const char *const ladder_names[] = {"cold",   "uncounted", "counting", "reached",
					   "queued", "compiling", "final",    "failed"};
_Static_assert(ARRAY_SIZE(ladder_names) == _AT_N, "name every point");

static inline enum tier_stage ladder_stage(const struct fake_module *fm, uint32_t method)
{
	return tier_state_stage(fm->records[method].state);
}

/* To where calls are counted, by calls that are not */
static inline void ladder_to_counting(struct fake_module *fm, uint32_t method)
{
	fake_call(fm, method);
	fake_pass(fm->fake, 200);
	assert_int_equal(ladder_stage(fm, method), TIER_STAGE_COUNTING);
}

static inline void ladder_to_compiling(struct fake_module *fm, uint32_t method)
{
	ladder_to_counting(fm, method);
	fake_calls(fm, method, FAKE_N);
	assert_int_equal(ladder_stage(fm, method), TIER_STAGE_COMPILING);
}

static inline void ladder_to_final(struct fake_module *fm, uint32_t method)
{
	ladder_to_compiling(fm, method);
	fake_end(fm->fake, fm, method, TIER_REASON_NONE);
	assert_int_equal(ladder_stage(fm, method), TIER_STAGE_FINAL);
}

/* From cold. AT_COUNTING has one call left over from N - 1, AT_REACHED has crossed and nobody rang, AT_QUEUED waits for
 * the blocker's job. */
static inline void ladder_to(struct fake_module *fm, uint32_t method, enum ladder_at at)
{
	if (at == AT_COLD)
		return;
	if (at == AT_QUEUED)
		ladder_to_compiling(fm, LADDER_BLOCKER);
	fake_call(fm, method);
	if (at == AT_UNCOUNTED)
		return;
	fake_pass(fm->fake, 200);
	for (uint32_t i = 0; i < FAKE_N - 1; i++)
		assert_int_equal(fake_call(fm, method), FAKE_COUNTED);
	if (at == AT_COUNTING)
		return;
	assert_int_equal(fake_call(fm, method), FAKE_CROSSED);
	if (at == AT_REACHED)
		return;
	fake_ring(fm, method, fm->records[method].version);
	if (at == AT_FINAL || at == AT_FAILED)
		fake_end(fm->fake, fm, method, at == AT_FINAL ? TIER_REASON_NONE : TIER_REASON_COMPILE_FAILED);
}

/* Whoever runs ends well, and time passes, until the method is final. It gets calls that way. */
static inline void ladder_climb(struct fake_module *fm, uint32_t method, enum fake_way way)
{
	struct fake *fake = fm->fake;
	struct fake_run run;
	uint32_t n_rounds = 0;

	while (ladder_stage(fm, method) != TIER_STAGE_FINAL) {
		assert_true(n_rounds++ < 50);
		assert_true(fake_run(fm, method, way, &run));
		for (uint32_t i = 0; i < fake->n_jobs; i++)
			if (fake->jobs[i].is_active)
				fake_end_job(fake, &fake->jobs[i], TIER_REASON_NONE);
		fake_pass(fake, 60);
	}
}

/* -- Words ---
 * What each word of a method holds, a letter each: p prestub, t T, s the active version's stub, f a forwarder to it, 0
 * and 1 the current body's tier-0 and Tier1 code. */
static inline char ladder_letter(const struct fake_module *fm, uint32_t method, uint64_t word)
{
	const struct fake_code *code;

	if (word == tier_layout_thunk(&fm->layout, TIER_THUNK_PRESTUB))
		return 'p';
	if (word == tier_layout_precode(&fm->layout, method))
		return 't';
	code = fake_code_at(fm, word);
	assert_int_equal(code->method, method);
	switch (code->kind) {
	case FAKE_STUB:
		return code->version == fm->records[method].version ? 's' : '?';
	case FAKE_FORWARDER:
		return ladder_letter(fm, method, fake_word(fm, word + FORWARDER_TARGET)) == 's' ? 'f' : '?';
	default:
		if (code->kind != FAKE_BODY || code->body != core_method_body(fm->module, method))
			return '?';
		return code->level == TIER_LEVEL_TIER1 || code->level == TIER_LEVEL_OPTIMIZED ? '1' : '0';
	}
}

/* P, E; F and the slots of a backpatchable method: "p t", "s t t ttt" */
static inline void ladder_words(const struct fake_module *fm, uint32_t method, char ret[16])
{
	const struct tier_record *record = &fm->records[method];
	char *p = ret;

	*p++ = ladder_letter(fm, method, record->precode);
	*p++ = ' ';
	*p++ = ladder_letter(fm, method, record->entry);
	if (fake_is_backpatchable(fm, method)) {
		*p++ = ' ';
		*p++ = ladder_letter(fm, method, record->funcptr);
		*p++ = ' ';
		for (uint32_t i = 0; i < fm->n_each; i++)
			*p++ = ladder_letter(fm, method, fake_slot(fm, fake_slot_first(fm, method) + i));
	}
	*p = '\0';
}

#define ladder_assert_words(fm, method, expected)                                                                      \
	do {                                                                                                           \
		char _words[16];                                                                                       \
		ladder_words(fm, method, _words);                                                                      \
		assert_string_equal(_words, expected);                                                                 \
	} while (0)

/* -- Reference §6.5, from what clients see --- */
static inline const char *ladder_check_plain(const struct fake_module *fm, uint32_t method)
{
	const struct tier_record *record = &fm->records[method];
	char words[16];

	ladder_words(fm, method, words);
	if (record->funcptr != tier_layout_precode(&fm->layout, method))
		return "F of a method that is not backpatchable is T";
	switch (ladder_stage(fm, method)) {
	case TIER_STAGE_COLD:
		return strcmp(words, "p t") ? "cold: P is the prestub, E is T" : NULL;
	case TIER_STAGE_FINAL:
		return record->precode != record->code || record->entry != record->code ? "final: P and E are the code"
											: NULL;
	case TIER_STAGE_COUNTING:
		return strcmp(words, fm->fake->config.counting_in_prestub ? "p t" : "s t") ? "counting: P is the stub"
											   : NULL;
	default:
		return record->precode != record->code || words[2] != 't' ? "not final: P is the code, E is T" : NULL;
	}
}

/* P and E of a backpatchable method with code; F is to be @*f, slots @*f or T. */
static inline const char *ladder_check_policy(const struct fake_module *fm, uint32_t method, char *f)
{
	const struct tier_record *record = &fm->records[method];
	enum tier_stage stage = ladder_stage(fm, method);
	bool is_counting = stage == TIER_STAGE_COUNTING;
	char p = ladder_letter(fm, method, record->precode), e = ladder_letter(fm, method, record->entry);

	*f = e;
	if (is_counting && fm->fake->config.counting_in_prestub)
		return p != 'p' || e != 't' ? "counting in the prestub: everything leads there" : NULL;
	if (stage == TIER_STAGE_FINAL) {
		/* a promotion that failed changes no E, so eager's walk leaves the slots where its completion did */
		if (fm->fake->config.backpatch == TIER_BACKPATCH_EAGER &&
		    tier_state_reason(record->state) != TIER_REASON_PROMOTED)
			*f = '*';
		return p != 'p' || record->entry != record->code ? "final: P is the prestub, E the code" : NULL;
	}
	switch (fm->fake->config.backpatch) {
	case TIER_BACKPATCH_LAZY:
		if (e != 't')
			return "lazy: E is T until the final tier";
		return is_counting                       ? (p != 's' ? "lazy: P is the stub" : NULL)
		       : record->precode != record->code ? "lazy: P is the code"
							 : NULL;
	case TIER_BACKPATCH_EAGER:
		*f = '*'; /* T or E: what its completion leaves behind */
		if (p != (is_counting ? 's' : 'p'))
			return "eager: P is the stub while calls are counted, else the prestub";
		return record->entry != record->code ? "eager: E is the code" : NULL;
	default:
		if (p != 'p')
			return "forwarder: P is the prestub";
		return is_counting                     ? (e != 'f' ? "forwarder: E is the forwarder" : NULL)
		       : record->entry != record->code ? "forwarder: E is the code"
						       : NULL;
	}
}

static inline const char *ladder_check_virtual(const struct fake_module *fm, uint32_t method)
{
	const struct tier_record *record = &fm->records[method];
	uint64_t own = tier_layout_precode(&fm->layout, method);
	const char *broken = NULL;
	char f = 't';

	if (ladder_stage(fm, method) != TIER_STAGE_COLD)
		broken = ladder_check_policy(fm, method, &f);
	else if (ladder_letter(fm, method, record->precode) != 'p' || record->entry != own)
		broken = "cold: P is the prestub, E is T";
	if (broken)
		return broken;
	if (record->funcptr != record->entry && !(f == '*' && record->funcptr == own))
		return "F is E";
	for (uint32_t i = 0; i < fm->n_each; i++) {
		uint64_t slot = fake_slot(fm, fake_slot_first(fm, method) + i);

		if (slot != own && slot != record->entry)
			return "a slot holds T or E";
		if (fake_word(fm, fake_call_cell(fm, fake_slot_first(fm, method) + i) + 8) !=
		    fake_constant(fake_slot_first(fm, method) + i))
			return "what is no slot is not touched";
	}
	return NULL;
}

/* All that may still run: call sites lead to T or E. */
static inline const char *ladder_check_sites(const struct fake_module *fm)
{
	for (uint32_t i = 0; i < MIN(fm->n_codes, fm->code_used / FAKE_CODE_STEP); i++)
		for (uint32_t k = 0; k < fm->codes[i].n_sites; k++) {
			const struct core_call_site *site = &fm->codes[i].sites[k];
			uint64_t target = fake_site_target(fm, site);

			if (target != tier_layout_precode(&fm->layout, site->method) &&
			    target != fm->records[site->method].entry)
				return "a call site leads to T or E";
		}
	return NULL;
}

static inline void ladder_check(const struct fake_module *fm)
{
	const char *broken = ladder_check_sites(fm);

	for (uint32_t i = 0; !broken && i < fm->layout.n_methods; i++) {
		broken = fake_is_backpatchable(fm, i) ? ladder_check_virtual(fm, i) : ladder_check_plain(fm, i);
		if (broken) {
			char words[16];

			ladder_words(fm, i, words);
			print_message("method %u, %s: %s\n", i, tier_stage_name(ladder_stage(fm, i)), words);
		}
	}
	if (broken)
		fail_msg("broken: %s", broken);
}

static inline void ladder_check_all(struct fake *fake)
{
	for (int i = 0; i < FAKE_MODULES_MAX; i++)
		if (fake->modules[i].module)
			ladder_check(&fake->modules[i]);
	fake_check(fake);
}

/* -- For test programs: a case once in a world of each policy, and with call counting in the prestub --- */
static inline void ladder_each(void (*test)(struct fake *fake, struct fake_module *fm))
{
	for (uint32_t i = 0; i < 4 * _TIER_BACKPATCH_N; i++) {
		struct fake *fake = ladder_fake(i / 4, i & 1);
		struct fake_module *fm = ladder_load(fake, i & 2);

		test(fake, fm);
		ladder_check_all(fake);
		fake_free(fake);
	}
}
