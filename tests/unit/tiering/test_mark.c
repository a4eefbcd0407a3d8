/* SPDX-License-Identifier: Apache-2.0 */
#include <signal.h>
#include <ucontext.h>
#include "unit/tiering/crash.h"
#include "unit/tiering/ladder.h"

/* The mark: whether a client that marks, measures and marks again can miss anything, or is told of what was not
 *
 * Each transition runs in the real core one machine instruction at a time (the processor's trap flag). After each store
 * that clients can see it is noted where calls would go now, by every way that there is, and what a mark would be. A
 * client may mark at any two of these moments: if it finds that nothing happened, calls went to the same code at all
 * moments between. Stores become visible in the order in which they are executed, so these are all moments that there
 * are. */

#define MOMENTS_MAX 4096u
#define WATCHED     2u /* methods: LADDER_METHOD, LADDER_CALLER */
#define WAYS        (WATCHED * FAKE_WAY_SITE + 2)

/* Where calls go: by method and way; then what the call site leads to and the patchpoint's code */
#define NO_WAY 1u
struct moment {
	struct tier_records_mark mark;
	uint64_t goes_to[WAYS];
};

static struct {
	volatile bool is_on;
	struct fake_module *fm;
	uint64_t site; /* of the caller's optimized code; 0: none yet */
	struct moment *moments;
	uint32_t n;
} tracer;

/* -- Where calls go --- */
static uint64_t prestub(const struct fake_module *fm, uint32_t method)
{
	const struct tier_record *record = &fm->records[method];

	if (tier_state_stage(record->state) == TIER_STAGE_COLD)
		return 0;
	if (record->entry != tier_layout_precode(&fm->layout, method))
		return record->entry;
	if (record->precode != tier_layout_thunk(&fm->layout, TIER_THUNK_PRESTUB))
		return record->precode;
	return record->code;
}

/* Code, or 0: the daemon is asked */
static uint64_t resolve(const struct fake_module *fm, uint32_t method, uint64_t address)
{
	const struct tier_layout *layout = &fm->layout;

	for (int i = 0; address && i < 12; i++) {
		const struct fake_code *code;

		if (address == tier_layout_thunk(layout, TIER_THUNK_PRESTUB)) {
			address = prestub(fm, method);
		} else if (address == tier_layout_precode(layout, method)) {
			address = fake_jump_target(fm, method, *fake_jump(fm, method));
		} else if (fake_is_backpatchable(fm, method) && address == tier_layout_funcptr(layout, method)) {
			address = fm->records[method].funcptr;
		} else {
			code = fake_code_at(fm, address);
			if (code->kind == FAKE_BODY)
				return address;
			address = code->kind == FAKE_STUB ? code->leads_to : fake_word(fm, address + FORWARDER_TARGET);
		}
	}
	return address;
}

static struct moment look(struct fake_module *fm)
{
	struct moment moment = {.mark = tier_records_mark(fm->header)};
	uint64_t *p = moment.goes_to;

	for (uint32_t i = 0; i < WATCHED; i++)
		for (enum fake_way way = 0; way < FAKE_WAY_SITE; way++) {
			uint64_t address, r10;

			*p++ = fake_way_address(fm, i, way, &address, &r10) ? resolve(fm, i, address) : NO_WAY;
		}
	*p = NO_WAY;
	if (tracer.site)
		*p = resolve(fm, LADDER_METHOD, tracer.site + 4 + *(int32_t *)fake_memory_at(fm, tracer.site));
	*++p = fake_patchpoint(fm, 0)->code;
	return moment;
}

static bool is_same(const struct moment *a, const struct moment *b)
{
	return a->mark.changes == b->mark.changes && a->mark.n_compiling == b->mark.n_compiling &&
	       !memcmp(a->goes_to, b->goes_to, sizeof(a->goes_to));
}

static bool goes_elsewhere(const struct moment *a, const struct moment *b)
{
	for (uint32_t i = 0; i < WAYS; i++)
		if (a->goes_to[i] != b->goes_to[i] && a->goes_to[i] != NO_WAY && b->goes_to[i] != NO_WAY)
			return true;
	return false;
}

/* What tier_changed_since() says */
static bool has_changed(const struct tier_records_mark *a, const struct tier_records_mark *b)
{
	return a->changes != b->changes || a->changes % 2 || a->n_compiling || b->n_compiling;
}

/* -- One instruction at a time --- */
static void note(void)
{
	struct moment moment = look(tracer.fm);

	if (tracer.n && is_same(&moment, &tracer.moments[tracer.n - 1]))
		return;
	if (tracer.n < MOMENTS_MAX)
		tracer.moments[tracer.n++] = moment;
}

static void on_trap(int signal, siginfo_t *info, void *context)
{
	ucontext_t *u = context;

	if (!tracer.is_on) {
		u->uc_mcontext.gregs[REG_EFL] &= ~0x100ll;
		return;
	}
	u->uc_mcontext.gregs[REG_EFL] |= 0x100;
	note();
}

static void assert_nothing_missed(void)
{
	assert_in_range(tracer.n, 1, MOMENTS_MAX - 1);
	for (uint32_t i = 0; i < tracer.n; i++)
		for (uint32_t k = i + 1; k < tracer.n; k++) {
			if (has_changed(&tracer.moments[i].mark, &tracer.moments[k].mark))
				continue;
			for (uint32_t j = i; j <= k; j++)
				if (goes_elsewhere(&tracer.moments[i], &tracer.moments[j]))
					fail_msg("calls went elsewhere at moment %u, and the marks of %u and %u say "
					         "nothing of it",
					         j, i, k);
		}
}

/* -- The story --- */
enum act {
	ACT_FIRST_CALLS,
	ACT_COUNT,
	ACT_THRESHOLD,
	ACT_PUBLISH,
	ACT_NOTE,
	ACT_CALLER,
	ACT_CALLER_PUBLISHED,
	ACT_FREEZE,
	ACT_OSR,
	ACT_THAW,
	ACT_OSR_READY,
	ACT_LOOK,
	ACT_REJIT,
	ACT_CALL,
	ACT_REVERT,
	ACT_WITHDRAWN_AGAIN,
	ACT_OSR_AGAIN,
	ACT_OSR_FAILS,
	_ACTS
};

/* By how much each makes the number grow: 2 for each publication, reset, compilation's beginning and end */
static const uint32_t grows_by[_ACTS] = {
	[ACT_FIRST_CALLS] = 2 * 2,
	[ACT_THRESHOLD] = 2,
	[ACT_PUBLISH] = 2 * 2,
	[ACT_CALLER] = 2,
	[ACT_CALLER_PUBLISHED] = 2 * 2,
	[ACT_THAW] = 2,
	[ACT_OSR_READY] = 2 * 2,
	[ACT_REJIT] = 2 * 4, /* the OSR code goes; the caller is withdrawn, its job begins; the body is replaced */
	[ACT_CALL] = 2,
	[ACT_REVERT] = 2,
	[ACT_WITHDRAWN_AGAIN] = 2 * 2, /* its job used the body that is gone: once more, after the delay */
	[ACT_OSR_AGAIN] = 2 * 3,       /* that ends well, and the next begins */
	[ACT_OSR_FAILS] = 2,
};

static void pass_delay(struct fake *fake)
{
	for (int i = 0; i < 2; i++) {
		fake->now_ns += 200 * (uint64_t)FAKE_MS;
		core_tick(fake->core);
	}
}

static void act(struct fake_module *fm, enum act act)
{
	struct fake *fake = fm->fake;

	switch (act) {
	case ACT_FIRST_CALLS:
		core_prepare(fm->module, LADDER_METHOD);
		core_prepare(fm->module, LADDER_CALLER);
		break;
	case ACT_COUNT:
		pass_delay(fake);
		break;
	case ACT_THRESHOLD:
		fm->cells[fm->records[LADDER_METHOD].cell] = 0;
		core_look(fm->module, LADDER_METHOD);
		break;
	case ACT_PUBLISH:
		fake_end(fake, fm, LADDER_METHOD, TIER_REASON_NONE);
		break;
	case ACT_NOTE:
		if (fm->n_slots)
			core_slot_used(fm->module, LADDER_METHOD, fake_call_cell(fm, 0));
		break;
	case ACT_CALLER:
		fm->cells[fm->records[LADDER_CALLER].cell] = 0;
		core_look(fm->module, LADDER_CALLER);
		break;
	case ACT_CALLER_PUBLISHED:
		fake_end(fake, fm, LADDER_CALLER, TIER_REASON_NONE);
		break;
	case ACT_WITHDRAWN_AGAIN:
		fake_end(fake, fm, LADDER_CALLER, TIER_REASON_NONE);
		pass_delay(fake);
		break;
	case ACT_FREEZE:
		core_freeze(fm->module);
		break;
	case ACT_OSR:
		core_osr_request(fake->core, fm->id, 0);
		break;
	case ACT_THAW:
		core_thaw(fm->module);
		break;
	case ACT_OSR_READY:
		fake_end_job(fake, fake_osr_job(fake, fm, 0), TIER_REASON_NONE);
		break;
	case ACT_LOOK:
		core_answer(fm->module, LADDER_METHOD);
		core_sweep(fake->core, NULL);
		break;
	case ACT_REJIT:
		core_rejit(fm->module, LADDER_METHOD, 1);
		break;
	case ACT_CALL:
		core_prepare(fm->module, LADDER_METHOD);
		break;
	case ACT_REVERT:
		core_revert(fm->module, LADDER_METHOD);
		break;
	case ACT_OSR_AGAIN:
		core_osr_request(fake->core, fm->id, 1);
		fake_end(fake, fm, LADDER_CALLER, TIER_REASON_NONE);
		break;
	default:
		fake_end_job(fake, fake_osr_job(fake, fm, 1), TIER_REASON_COMPILE_FAILED);
		break;
	}
}

static struct fake_module *load(struct fake *fake, bool is_backpatchable)
{
	struct fake_module *fm = ladder_load(fake, is_backpatchable);

	fm->inlines[LADDER_CALLER] = 1u << LADDER_METHOD;
	return fm;
}

/* The caller's call site, once it has one */
static void find_site(struct fake_module *fm)
{
	const struct fake_code *code = fake_code_at(fm, fm->records[LADDER_CALLER].code);

	if (!tracer.site && code->n_sites)
		tracer.site = code->sites[0].address;
}

static void trace(struct fake_module *fm, enum act next)
{
	tracer.is_on = true;
	raise(SIGTRAP);
	act(fm, next);
	tracer.is_on = false;
	raise(SIGTRAP);
}

static void no_two_marks_miss_anything_or_tell_of_what_was_not(void **state)
{
	const bool is_long = getenv("TIER_TEST_LONG");

	for (uint32_t i = 0; i < 4 * _TIER_BACKPATCH_N; i++) {
		struct fake *fake;
		struct fake_module *fm;

		if (!is_long && i != 1 && (i & 3) != 2)
			continue; /* backpatchable methods under each policy, and one that is not, counted by the prestub */
		fake = ladder_fake(i / 4, i & 1);
		fm = load(fake, i & 2);
		tracer.fm = fm;
		tracer.n = tracer.site = 0;
		note();
		for (enum act next = 0; next < _ACTS; next++) {
			const uint64_t before = fm->header->changes;

			trace(fm, next);
			if (fm->header->changes - before != grows_by[next])
				fail_msg("act %d: %lu more, not %u", next,
				         (unsigned long)(fm->header->changes - before), grows_by[next]);
			assert_int_equal(fm->header->n_compiling, core_n_compiling(fm->module));
			find_site(fm);
			note();
		}
		assert_nothing_missed();
		if (i == 1)
			print_message("%u moments\n", tracer.n);
		fake_check(fake);
		fake_free(fake);
	}
}

static void core_and_clients_see_the_same_mark(void **state)
{
	struct fake *fake = ladder_fake(TIER_BACKPATCH_LAZY, false);
	struct fake_module *fm = load(fake, true);

	for (enum act next = 0; next < _ACTS; next++) {
		struct tier_records_mark mine = core_mark(fm->module), theirs = tier_records_mark(fm->header);

		assert_true(mine.changes == theirs.changes && mine.n_compiling == theirs.n_compiling);
		assert_int_equal(mine.is_frozen, core_is_frozen(fm->module));
		act(fm, next);
	}
	fake_free(fake);
}

/* -- Dying at any instruction --- */
/* Of the daemon that dies: all moments before each of its deaths, and the successor's at the end of its takeover */
static void check_heir(struct fake *successor)
{
	struct fake_module *fm = &successor->modules[0];
	struct moment now;

	fake_check(successor);
	tracer.fm = &dying->modules[0];
	note();
	now = look(fm);
	assert_int_equal(now.mark.changes % 2, 0);
	assert_int_equal(now.mark.n_compiling, core_n_compiling(fm->module));
	for (uint32_t i = 0; i < tracer.n; i++)
		if (!has_changed(&tracer.moments[i].mark, &now.mark))
			assert_false(goes_elsewhere(&tracer.moments[i], &now));
}

static void story(struct fake *fake)
{
	for (enum act next = 0; next < _ACTS; next++)
		act(&fake->modules[0], next);
}

static void a_daemon_that_dies_anywhere_leaves_a_mark(void **state)
{
	for (enum tier_backpatch policy = 0; policy < _TIER_BACKPATCH_N; policy++) {
		struct fake *fake = ladder_fake(policy, false);

		load(fake, true);
		tracer.n = tracer.site = 0;
		print_message("%u crashes\n", crash_run(fake, story, check_heir));
		assert_true(tracer.n < MOMENTS_MAX);
		fake_free(fake);
	}
}

static int begin(void **state)
{
	struct sigaction action = {.sa_sigaction = on_trap, .sa_flags = SA_SIGINFO};

	tracer.moments = calloc(MOMENTS_MAX, sizeof(*tracer.moments));
	assert_non_null(tracer.moments);
	return sigaction(SIGTRAP, &action, NULL);
}

static int end(void **state)
{
	free(tracer.moments);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	        cmocka_unit_test(no_two_marks_miss_anything_or_tell_of_what_was_not),
	        cmocka_unit_test(core_and_clients_see_the_same_mark),
	        cmocka_unit_test(a_daemon_that_dies_anywhere_leaves_a_mark),
	};

	return cmocka_run_group_tests(tests, begin, end);
}
