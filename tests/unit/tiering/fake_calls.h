/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Callers: a call goes from wherever the program found an address to the body that runs, through what lies there at the
 * moment: precodes, stubs, forwarders, and libtier's prestub. What it met on its way is told in a struct fake_run.
 *
 * Part of fake.h. */

enum fake_way {
	FAKE_WAY_PRECODE, /* T */
	FAKE_WAY_POINTER, /* the method's one address, as programs copy it: the funcptr precode, or T */
	FAKE_WAY_SLOT,    /* a vtable slot: through its call cell, which the prestub learns */
	FAKE_WAY_DIRECT,  /* call *[E] */
	FAKE_WAY_SITE,    /* a rel32 in some optimized code */
	_FAKE_WAY_N,
};

struct fake_run {
	const struct fake_code *code; /* what ran in the end */
	uint32_t body;
	enum tier_level level;
	bool is_counted, is_crossed;
	bool is_late; /* the optimizer makes its first code, and the caller waits: nothing ran */
	uint64_t counted; /* the version, if any */
	uint32_t n_visits[_TIER_VISIT_N];
};

/* -- libtier --- */
static inline void fake_deliver(struct fake *fake, uint32_t i)
{
	struct fake_note note = fake->notes[i];
	struct module *module = core_module_by_id(fake->core, note.module);

	fake->notes[i] = fake->notes[--fake->n_notes];
	if (module)
		core_slot_used(module, note.method, note.cell);
}

static inline void fake_deliver_all(struct fake *fake)
{
	while (fake->n_notes)
		fake_deliver(fake, 0);
}

/* Once per cell; a note that cannot be sent is not marked as posted. */
static inline enum tier_visit fake_post(struct fake_module *fm, uint32_t method, uint32_t slot)
{
	struct fake *fake = fm->fake;

	if (fm->posted[slot])
		return TIER_VISIT_SLOT_AGAIN;
	if (!fake->core || fake->n_notes == FAKE_NOTES_MAX)
		return TIER_VISIT_SLOT;
	fm->posted[slot] = 1;
	if (fake->how_notes == FAKE_NOTES_LOST)
		return TIER_VISIT_SLOT;
	fake->notes[fake->n_notes++] = (struct fake_note){fm->id, fake_call_cell(fm, slot), method};
	if (fake->how_notes == FAKE_NOTES_AT_ONCE)
		fake_deliver(fake, fake->n_notes - 1);
	return TIER_VISIT_SLOT;
}

static inline void fake_count(struct fake_module *fm, uint32_t cell, uint64_t version, struct fake_run *run)
{
	run->is_counted = true;
	run->is_crossed = !--fm->cells[cell];
	run->counted = version;
}

static inline int fake_ask(struct fake_module *fm, uint32_t method)
{
	int r = core_prepare(fm->module, method);

	assert_true(r == 0 || r == CORE_E_LATER);
	return r;
}

/* @r10: what the caller left there. Returns where execution goes on. */
static inline uint64_t fake_prestub(struct fake_module *fm, uint32_t method, uint64_t r10, struct fake_run *run)
{
	const struct tier_record *record = &fm->records[method];
	uint64_t own = tier_layout_precode(&fm->layout, method);
	uint32_t slot = fake_slot_of(fm, r10);

	if (tier_state_stage(record->state) == TIER_STAGE_COLD) {
		run->n_visits[TIER_VISIT_COLD]++;
		assert_non_null(fm->fake->core);
		run->is_late = fake_ask(fm, method) == CORE_E_LATER;
		if (run->is_late)
			return 0;
		assert_true(record->code);
		return record->code; /* not its stub: the first call is not counted */
	}
	if (record->entry != own) {
		if (slot < fm->n_slots && fake_slot(fm, slot) == own)
			run->n_visits[fake_post(fm, method, slot)]++;
		else
			run->n_visits[TIER_VISIT_POINTER]++;
		return record->entry;
	}
	if (record->precode != tier_layout_thunk(&fm->layout, TIER_THUNK_PRESTUB)) {
		run->n_visits[TIER_VISIT_RACE]++;
		return record->precode;
	}
	assert_int_equal(tier_state_stage(record->state), TIER_STAGE_COUNTING);
	run->n_visits[TIER_VISIT_COUNTED]++;
	fake_count(fm, record->cell, record->version, run);
	return record->code;
}

/* -- The processor --- */
/* One jump of a call that has come to @address; 0: the body begins. */
static inline uint64_t fake_step(struct fake_module *fm, uint32_t method, uint64_t address, uint64_t r10,
				 struct fake_run *run)
{
	const struct tier_layout *layout = &fm->layout;
	struct fake_code *code;

	if (address == tier_layout_thunk(layout, TIER_THUNK_PRESTUB))
		return fake_prestub(fm, method, r10, run);
	if (address == tier_layout_precode(layout, method))
		return fake_jump_target(fm, method, *fake_jump(fm, method));
	if (fake_is_backpatchable(fm, method) && address == tier_layout_funcptr(layout, method))
		return fm->records[method].funcptr;
	code = fake_code_at(fm, address);
	assert_int_equal(code->method, method);
	switch (code->kind) {
	case FAKE_FORWARDER:
		return fake_word(fm, address + FORWARDER_TARGET);
	case FAKE_STUB:
		fake_count(fm, code->cell, code->version, run);
		return code->leads_to;
	case FAKE_BODY:
		run->code = code;
		run->body = code->body;
		run->level = code->level;
		return 0;
	default:
		fail_msg("a call of method %u came to an address where there is no code", method);
		return 0;
	}
}

/* A call that has loaded @address, perhaps long ago: what it finds may be old. */
static inline struct fake_run fake_go(struct fake_module *fm, uint32_t method, uint64_t address, uint64_t r10)
{
	struct fake_run run = {0};
	uint32_t n_jumps = 0;

	while (address) {
		assert_true(n_jumps++ < 12);
		address = fake_step(fm, method, address, r10, &run);
	}
	return run;
}

/* A call that begins now runs the current body, and so does what was inlined. */
static inline void fake_assert_current(struct fake_module *fm, uint32_t method, const struct fake_code *code)
{
	if (!fm->fake->core || !code)
		return;
	assert_int_equal(code->body, core_method_body(fm->module, method));
	for (uint32_t i = 0; i < code->n_inlined; i++)
		assert_int_equal(code->inlined[i].body, core_method_body(fm->module, code->inlined[i].method));
}

static inline struct fake_run fake_begin(struct fake_module *fm, uint32_t method, uint64_t address, uint64_t r10)
{
	struct fake_run run = fake_go(fm, method, address, r10);

	fake_assert_current(fm, method, run.code);
	return run;
}

/* -- Calls --- */
static inline struct fake_run fake_run_slot(struct fake_module *fm, uint32_t slot)
{
	return fake_begin(fm, fake_slot_method(fm, slot), fake_slot(fm, slot), fake_call_cell(fm, slot));
}

static inline struct fake_run fake_run_site(struct fake_module *fm, const struct core_call_site *site)
{
	return fake_begin(fm, site->method, fake_site_target(fm, site), 0);
}

/* Whether the method can be called that way, and where the call goes: some live code's site, the method's first slot */
static inline bool fake_way_address(struct fake_module *fm, uint32_t method, enum fake_way way, uint64_t *ret,
				    uint64_t *r10)
{
	const uint32_t slot = fake_is_backpatchable(fm, method) ? fake_slot_first(fm, method) : fm->n_slots;

	*r10 = way == FAKE_WAY_SLOT && slot < fm->n_slots ? fake_call_cell(fm, slot) : 0;
	switch (way) {
	case FAKE_WAY_PRECODE:
		*ret = tier_layout_precode(&fm->layout, method);
		return true;
	case FAKE_WAY_POINTER:
		*ret = fake_pointer(fm, method);
		return true;
	case FAKE_WAY_SLOT:
		*ret = slot < fm->n_slots ? fake_slot(fm, slot) : 0;
		return *ret;
	case FAKE_WAY_DIRECT:
		*ret = fm->records[method].entry;
		return true;
	default:
		break;
	}
	for (uint32_t i = 0; i < fm->layout.n_methods; i++) {
		const struct fake_code *code = fm->records[i].code ? fake_code_at(fm, fm->records[i].code) : NULL;

		for (uint32_t k = 0; code && k < code->n_sites; k++)
			if (code->sites[k].method == method) {
				*ret = fake_site_target(fm, &code->sites[k]);
				return true;
			}
	}
	return false;
}

/* A call that way; false: there is none. The bell rings if it crosses. */
static inline bool fake_ring(struct fake_module *fm, uint32_t method, uint64_t version)
{
	return core_threshold(fm->fake->core, fm->id, method, version, 77, 78, fm->fake->now_ns, TIER_SOURCE_KERNEL);
}

static inline bool fake_run(struct fake_module *fm, uint32_t method, enum fake_way way, struct fake_run *ret)
{
	uint64_t address, r10;

	*ret = (struct fake_run){0};
	if (!fake_way_address(fm, method, way, &address, &r10))
		return false;
	*ret = fake_begin(fm, method, address, r10);
	if (ret->is_crossed)
		fake_ring(fm, method, ret->counted);
	return true;
}

/* By each way that there is, the method runs that body's code of that level. */
static inline void fake_assert_runs(struct fake_module *fm, uint32_t method, uint32_t body, enum tier_level level)
{
	for (int way = 0; way < _FAKE_WAY_N; way++) {
		struct fake_run run;

		if (!fake_run(fm, method, way, &run))
			continue;
		assert_int_equal(run.body, body);
		assert_string_equal(tier_level_name(run.level), tier_level_name(level));
	}
	for (uint32_t i = 0; i < fm->n_slots; i++)
		if (fake_slot_method(fm, i) == method)
			assert_int_equal(fake_run_slot(fm, i).body, body);
}

/* -- Plain calls through the precode --- */
enum fake_path { FAKE_PRESTUB, FAKE_CODE, FAKE_COUNTED, FAKE_CROSSED, FAKE_LATE };

/* Without the bell */
static inline enum fake_path fake_call(struct fake_module *fm, uint32_t method)
{
	struct fake_run run = fake_begin(fm, method, tier_layout_precode(&fm->layout, method), 0);

	if (run.n_visits[TIER_VISIT_COLD])
		return run.is_late ? FAKE_LATE : FAKE_PRESTUB;
	if (run.is_counted)
		return run.is_crossed ? FAKE_CROSSED : FAKE_COUNTED;
	return FAKE_CODE;
}

/* A call, and the bell if it crosses */
static inline enum fake_path fake_call_and_ring(struct fake_module *fm, uint32_t method)
{
	uint64_t version = fm->records[method].version;
	enum fake_path path = fake_call(fm, method);

	if (path == FAKE_CROSSED)
		fake_ring(fm, method, version);
	return path;
}

static inline void fake_calls(struct fake_module *fm, uint32_t method, uint32_t n)
{
	while (n--)
		fake_call_and_ring(fm, method);
}
