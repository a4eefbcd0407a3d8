/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <tier/records.h>
#include "system/witness.h"
#include "util/base.h"

/* -- The program --- */
/* In a hundred methods; the rest is LADDER_STEP. */
static const struct share {
	enum ladder ladder;
	uint32_t n;
} shares[] = {
	{ LADDER_UNCALLED, 5 }, { LADDER_UNOPTIMIZED, 10 }, { LADDER_FEW, 10 },
	{ LADDER_WHOLE, 5 },    { LADDER_LOOP, 1 },         { LADDER_AT_ONCE, 1 },
};

enum ladder ladder_of(uint32_t index)
{
	uint32_t place = index % 100;

	for (size_t i = 0; i < ARRAY_SIZE(shares); i++) {
		if (place < shares[i].n)
			return shares[i].ladder;
		place -= shares[i].n;
	}
	return LADDER_STEP;
}

unsigned int ladder_n_thresholds(enum ladder ladder)
{
#define LADDER_N_THRESHOLDS(name, n, text) n,
	static const uint8_t n[] = { LADDER_LIST(LADDER_N_THRESHOLDS) };

	return n[ladder];
}

uint64_t ladder_result(uint32_t index, uint64_t x)
{
	uint64_t sum = index;

	if (ladder_of(index) != LADDER_LOOP)
		return x & 1 ? x * 3 + index : x / 2 + index;
	for (uint64_t i = 0; i < x; i++)
		sum = sum * 31 + i;
	return sum;
}

static int method_print(char *to, size_t n_max, uint32_t index)
{
	static const char *const tags[_LADDER_N] = {
	        [LADDER_UNOPTIMIZED] = "TAG(\"tier:no_optimization\") ",
	        [LADDER_AT_ONCE] = "TAG(\"tier:aggressive_optimization\") ",
	};
	const enum ladder ladder = ladder_of(index);

	if (ladder == LADDER_LOOP)
		return snprintf(to, n_max,
		                "u64 m%u(u64 x) { u64 sum = %u; for (u64 i = 0; i < x; i++) { sum = sum * 31 + i; "
		                "STAY(sum); } return sum; }\n",
		                index, index);
	return snprintf(to, n_max, "%su64 m%u(u64 x) { return x & 1 ? x * 3 + %u : x / 2 + %u; }\n",
	                tags[ladder] ? tags[ladder] : "", index, index, index);
}

const char *ladder_object(const struct daemon *daemon, const char *name, unsigned int n_methods)
{
	const size_t n_max = 200 + n_methods * 140ul;
	char *source = malloc(n_max);
	const char *path;
	size_t n;

	assert_non_null(source);
	n = snprintf(source, n_max,
	             "typedef unsigned long long u64;\n#define TAG(text) __attribute__((btf_decl_tag(text)))\n"
	             "#define STAY(x) asm volatile(\"\" : \"+r\"(x))\n"); /* one loop, as it is written */
	for (uint32_t i = 0; i < n_methods; i++)
		n += method_print(source + n, n_max - n, i);
	assert_true(n < n_max);
	path = bpf_compile(daemon->folder, name, source, "-g");
	free(source);
	return path;
}

/* -- The witness --- */
static struct {
	const struct tier_layout *layout;
	struct sight *sights;
	uint32_t *progress;
} watched[WITNESS_MODULES_MAX];
static unsigned int n_watched;

void witness_threshold(void); /* what stands in the private table */
uint64_t witness_next;        /* libtier's entry, which it goes on to */
void witness_write(const struct tier_record *record, const struct tier_stub_data *data);

/* As libtier's own entry: r11 is the record, r10 the stub's data, and every argument register is live. */
__asm__("	.text\n"
	"	.globl witness_threshold\n"
	"	.type witness_threshold, @function\n"
	"witness_threshold:\n"
	"	push %rbp\n"
	"	mov %rsp, %rbp\n"
	"	sub $80, %rsp\n"
	"	and $-16, %rsp\n"
	"	mov %rdi, 0(%rsp)\n"
	"	mov %rsi, 8(%rsp)\n"
	"	mov %rdx, 16(%rsp)\n"
	"	mov %rcx, 24(%rsp)\n"
	"	mov %r8, 32(%rsp)\n"
	"	mov %r9, 40(%rsp)\n"
	"	mov %rax, 48(%rsp)\n"
	"	mov %r10, 56(%rsp)\n"
	"	mov %r11, 64(%rsp)\n"
	"	mov %r11, %rdi\n"
	"	mov %r10, %rsi\n"
	"	call witness_write\n"
	"	mov 0(%rsp), %rdi\n"
	"	mov 8(%rsp), %rsi\n"
	"	mov 16(%rsp), %rdx\n"
	"	mov 24(%rsp), %rcx\n"
	"	mov 32(%rsp), %r8\n"
	"	mov 40(%rsp), %r9\n"
	"	mov 48(%rsp), %rax\n"
	"	mov 56(%rsp), %r10\n"
	"	mov 64(%rsp), %r11\n"
	"	leave\n"
	"	jmp *witness_next(%rip)\n"
	"	.size witness_threshold, . - witness_threshold\n");

static uint64_t wall_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + ts.tv_nsec;
}

void witness_write(const struct tier_record *record, const struct tier_stub_data *data)
{
	const struct crossing crossing = {
	        .version = data->version, .time_ns = wall_ns(), .pid = getpid(), .tid = gettid()};

	for (unsigned int i = 0; i < n_watched; i++) {
		const struct tier_layout *layout = watched[i].layout;
		struct sight *sight;
		uint32_t n;

		if ((uintptr_t)record - layout->base >= layout->size)
			continue;
		sight = &watched[i].sights[record->index];
		n = __atomic_fetch_add(&sight->n_crossed, 1, __ATOMIC_ACQ_REL);
		if (n < CROSSINGS_MAX)
			sight->crossings[n] = crossing;
		__atomic_fetch_add(watched[i].progress, 1, __ATOMIC_RELAXED);
	}
}

static struct tier_private *private_table(const struct tier_module *module)
{
	return (struct tier_private *)(uintptr_t)tier_layout_segment(tier_module_layout(module), TIER_SEGMENT_PRIVATE);
}

void witness_stand(struct tier_module *module, struct sight *sights, uint32_t *progress)
{
	struct tier_private *table = private_table(module);

	child_assert(n_watched < WITNESS_MODULES_MAX);
	watched[n_watched].layout = tier_module_layout(module);
	watched[n_watched].sights = sights;
	watched[n_watched++].progress = progress;
	witness_next = table->threshold;
	__atomic_store_n(&table->threshold, (uintptr_t)witness_threshold, __ATOMIC_RELEASE);
}

bool witness_stands(struct tier_module *module)
{
	return private_table(module)->threshold == (uintptr_t)witness_threshold;
}

/* -- What must be --- */
static const uint8_t *ladder_rungs(const struct climber *climber)
{
	static const uint8_t quick[] = { TIER_LEVEL_TIER0, TIER_LEVEL_TIER0_INSTRUMENTED, TIER_LEVEL_TIER1 };
	static const uint8_t ready[] = { TIER_LEVEL_READY_TO_RUN, TIER_LEVEL_TIER1_INSTRUMENTED, TIER_LEVEL_TIER1 };
	static const uint8_t unoptimized[] = { TIER_LEVEL_MIN_OPT_JITTED }, at_once[] = { TIER_LEVEL_OPTIMIZED };

	switch (climber->ladder) {
	case LADDER_UNOPTIMIZED:
		return unoptimized;
	case LADDER_AT_ONCE:
		return at_once;
	default:
		return climber->is_precompiled ? ready : quick;
	}
}

static bool rung_is_final(uint8_t level)
{
	return level == TIER_LEVEL_TIER1 || level == TIER_LEVEL_MIN_OPT_JITTED || level == TIER_LEVEL_OPTIMIZED;
}

struct steps {
	struct step *step;
	size_t n;
};

static void add(struct steps *steps, enum tier_event_kind kind, uint8_t from, uint8_t to, enum tier_reason reason,
                uint8_t version)
{
	assert_true(steps->n < STEPS_MAX);
	steps->step[steps->n++] = (struct step){ kind, from, to, reason, version };
}

/* Frames go on elsewhere, the method stays what it is. */
static void add_osr(struct steps *steps, uint8_t level)
{
	add(steps, TIER_EVENT_OSR_REQUESTED, level, TIER_LEVEL_OSR, TIER_REASON_LOOP, 1);
	add(steps, TIER_EVENT_COMPILE_STARTED, level, TIER_LEVEL_OSR, TIER_REASON_NONE, 1);
	add(steps, TIER_EVENT_COMPILE_ENDED, level, TIER_LEVEL_OSR, TIER_REASON_NONE, 1);
	add(steps, TIER_EVENT_OSR_READY, level, TIER_LEVEL_OSR, TIER_REASON_LOOP, 1);
}

/* From the queue to the publication */
static void add_compile(struct steps *steps, uint8_t from, uint8_t to, enum tier_reason reason, uint8_t version)
{
	add(steps, TIER_EVENT_QUEUED, from, to, reason, version);
	add(steps, TIER_EVENT_COMPILE_STARTED, from, to, TIER_REASON_NONE, version);
	add(steps, TIER_EVENT_COMPILE_ENDED, from, to, TIER_REASON_NONE, version);
}

static void add_publication(struct steps *steps, uint8_t from, uint8_t to, enum tier_reason reason,
                            enum tier_reason final, uint8_t version)
{
	add(steps, TIER_EVENT_PUBLISHED, from, to, reason, version);
	if (rung_is_final(to))
		add(steps, TIER_EVENT_FINAL, to, to, final, version);
	else
		add(steps, TIER_EVENT_COUNTING_BEGUN, to, to, reason, version);
}

size_t steps_expected(const struct climber *climber, const struct sight *sight, struct step ret[STEPS_MAX])
{
	const uint8_t *rungs = ladder_rungs(climber);
	struct steps steps = { .step = ret };

	if (!sight->n_calls)
		return 0;
	if (climber->ladder == LADDER_AT_ONCE)
		add_compile(&steps, TIER_LEVEL_NONE, rungs[0], TIER_REASON_FIRST_CALL, 0);
	add_publication(&steps, TIER_LEVEL_NONE, rungs[0], TIER_REASON_FIRST_CALL,
	                climber->ladder == LADDER_AT_ONCE ? TIER_REASON_AGGRESSIVE_OPTIMIZATION
	                                                  : TIER_REASON_NO_OPTIMIZATION,
	                0);
	if (sight->is_osr)
		add_osr(&steps, rungs[0]);
	for (uint8_t i = 0; i < sight->n_crossed && !rung_is_final(rungs[i]); i++) {
		const uint8_t from = rungs[i], to = rungs[i + 1];

		add(&steps, TIER_EVENT_THRESHOLD, from, from, TIER_REASON_CALLS, i);
		add_compile(&steps, from, to, TIER_REASON_CALLS, i + 1);
		add_publication(&steps, from, to, rung_is_final(to) ? TIER_REASON_PROMOTED : TIER_REASON_CALLS,
		                TIER_REASON_PROMOTED, i + 1);
	}
	return steps.n;
}

/* They may have been written down in another order than they were made in: a thread may rest between the two. */
const struct crossing *sight_crossing(const struct sight *sight, unsigned int nth)
{
	for (uint32_t i = 0; i < MIN(sight->n_crossed, CROSSINGS_MAX); i++) {
		unsigned int n_before = 0;

		for (uint32_t k = 0; k < MIN(sight->n_crossed, CROSSINGS_MAX); k++)
			n_before += sight->crossings[k].version < sight->crossings[i].version;
		if (n_before == nth)
			return &sight->crossings[i];
	}
	return NULL;
}
