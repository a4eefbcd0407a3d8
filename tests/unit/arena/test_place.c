/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <cmocka.h>
#include "arena/place.h"
#include "util/base.h"

/* Every way in which a result can be wrong is refused with its own sentence and leaves the code segment as it was. */

#define N_BYTES 64u
#define N_METHODS 5u
#define N_IMPORTS 2u

struct fixture {
	struct arena *arena;
	uint8_t bytes[N_BYTES];
	struct code_reloc relocs[20];
	uint32_t inlined[2];
	struct code_result code;
	struct refusal refusal;
	struct placed placed;
};

static void fixture_layout(struct fixture *fixture, const struct arena_needs *needs)
{
	struct tier_layout layout;

	assert_int_equal(arena_plan(&layout, needs), 0);
	layout.base = TIER_WINDOW_LOW;
	assert_int_equal(arena_new(&fixture->arena, &layout, 1), 0);
}

static int setup(void **state)
{
	static struct fixture fixture;
	const struct arena_needs needs = {
		.n_methods = N_METHODS, .n_imports = N_IMPORTS, .n_rodata = 100, .n_data = 8, .n_bss = 1, .n_code = 16384,
	};

	fixture = (struct fixture){ 0 };
	fixture_layout(&fixture, &needs);
	for (uint32_t i = 0; i < N_BYTES; i++)
		fixture.bytes[i] = i + 1;
	fixture.code = (struct code_result){
		.bytes = fixture.bytes, .n_bytes = N_BYTES, .align = 16, .entry = 3,
		.relocs = fixture.relocs, .inlined = fixture.inlined,
	};
	*state = &fixture;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *fixture = *state;

	free(TAKE_PTR(fixture->placed.sites));
	fixture->arena = arena_free(fixture->arena);
	return 0;
}

static void add_reloc(struct fixture *fixture, uint32_t offset, uint32_t target, uint32_t index, int32_t addend)
{
	assert_true(fixture->code.n_relocs < ARRAY_SIZE(fixture->relocs));
	fixture->relocs[fixture->code.n_relocs++] =
		(struct code_reloc){ .offset = offset, .target = target, .index = index, .addend = addend };
}

static void expect_refusal(struct fixture *fixture, const char *text)
{
	uint64_t used = arena_code_used(fixture->arena);
	static const uint8_t zero[4096];

	assert_int_equal(place_code(&fixture->placed, fixture->arena, &fixture->code, &fixture->refusal), PLACE_E_REFUSED);
	if (!strstr(fixture->refusal.text, text))
		fail_msg("\"%s\" does not say \"%s\"", fixture->refusal.text, text);
	assert_int_equal(arena_code_used(fixture->arena), used);
	assert_memory_equal(arena_head(fixture->arena) + used, zero, sizeof(zero));
	assert_int_equal(fixture->placed.address, 0);
}

static const uint8_t *expect_placed(struct fixture *fixture)
{
	uint64_t base = tier_layout_segment(arena_layout(fixture->arena), TIER_SEGMENT_CODE);

	free(TAKE_PTR(fixture->placed.sites));
	assert_int_equal(place_code(&fixture->placed, fixture->arena, &fixture->code, &fixture->refusal), 0);
	assert_int_equal(fixture->placed.size, fixture->code.n_bytes);
	return arena_head(fixture->arena) + (fixture->placed.address - fixture->code.entry - base);
}

/* What the processor would compute: the field's address plus its content */
static uint64_t field_target(struct fixture *fixture, const uint8_t *bytes, uint32_t offset)
{
	int32_t field;

	memcpy(&field, bytes + offset, sizeof(field));
	return fixture->placed.address - fixture->code.entry + offset + field;
}

static void bytes_without_relocations_are_placed_as_they_are(void **state)
{
	struct fixture *fixture = *state;
	const uint8_t *bytes = expect_placed(fixture);

	assert_memory_equal(bytes, fixture->bytes, N_BYTES);
	assert_int_equal((fixture->placed.address - 3) % 16, 0);
	assert_true(arena_code_used(fixture->arena) == (uint64_t)(bytes - arena_head(fixture->arena)) + N_BYTES);
}

static void every_target_is_where_the_layout_says(void **state)
{
	struct fixture *fixture = *state;
	const struct tier_layout *layout = arena_layout(fixture->arena);
	const uint8_t *bytes;

	add_reloc(fixture, 60, CODE_TARGET_ENTRY, 4, -4);	/* in no order, up to the last byte */
	add_reloc(fixture, 0, CODE_TARGET_METHOD, 2, -4);
	add_reloc(fixture, 10, CODE_TARGET_IMPORT, 1, -5);
	add_reloc(fixture, 4, CODE_TARGET_RODATA, 0, 99 - 4);
	add_reloc(fixture, 30, CODE_TARGET_DATA, 0, -8);
	add_reloc(fixture, 20, CODE_TARGET_BSS, 0, 0);
	add_reloc(fixture, 40, CODE_TARGET_CELLS, 0, 70 * 4 - 4);
	bytes = expect_placed(fixture);
	assert_true(field_target(fixture, bytes, 60) + 4 == tier_layout_entry(layout, 4));
	assert_true(field_target(fixture, bytes, 0) + 4 == tier_layout_precode(layout, 2));
	assert_true(field_target(fixture, bytes, 10) + 5 == tier_layout_import(layout, 1));
	assert_true(field_target(fixture, bytes, 4) + 4 == layout->base + layout->rodata + 99);
	assert_true(field_target(fixture, bytes, 30) + 8 == layout->base + layout->data);
	assert_true(field_target(fixture, bytes, 20) == layout->base + layout->bss);
	assert_true(field_target(fixture, bytes, 40) + 4 == tier_layout_cell(layout, 70));
	assert_memory_equal(bytes + 44, fixture->bytes + 44, 16);	/* nothing beside the fields */
	assert_int_equal(bytes[8], 9);
}

static void a_backpatchable_methods_address_is_its_funcptr_precode(void **state)
{
	struct fixture *fixture = *state;
	const struct tier_layout *layout = arena_layout(fixture->arena);
	const uint8_t *bytes;

	arena_record(fixture->arena, 2)->flags = TIER_RECORD_BACKPATCHABLE;
	add_reloc(fixture, 0, CODE_TARGET_METHOD, 2, -4);
	add_reloc(fixture, 8, CODE_TARGET_METHOD, 1, -4);
	bytes = expect_placed(fixture);
	assert_true(field_target(fixture, bytes, 0) + 4 == tier_layout_funcptr(layout, 2));
	assert_true(field_target(fixture, bytes, 8) + 4 == tier_layout_precode(layout, 1));
}

static void an_absolute_field_holds_the_address_in_eight_bytes(void **state)
{
	struct fixture *fixture = *state;
	const struct tier_layout *layout = arena_layout(fixture->arena);
	const uint8_t *bytes;
	uint64_t field;

	add_reloc(fixture, N_BYTES - 8, CODE_TARGET_RODATA, 0, 7);
	fixture->relocs[0].kind = CODE_RELOC_ABSOLUTE;
	bytes = expect_placed(fixture);
	memcpy(&field, bytes + N_BYTES - 8, sizeof(field));
	assert_true(field == layout->base + layout->rodata + 7);
	assert_memory_equal(bytes, fixture->bytes, N_BYTES - 8);
}

static void an_absolute_field_is_checked_as_others_are(void **state)
{
	struct fixture *fixture = *state;

	add_reloc(fixture, N_BYTES - 7, CODE_TARGET_RODATA, 0, 7);
	fixture->relocs[0].kind = CODE_RELOC_ABSOLUTE;
	expect_refusal(fixture, "field at 57 lies outside");
	fixture->relocs[0].offset = 20;
	add_reloc(fixture, 24, CODE_TARGET_METHOD, 0, -4);
	expect_refusal(fixture, "relocation 1 at 24 overlaps");
	fixture->relocs[0].kind = _CODE_RELOC_N;
	expect_refusal(fixture, "unknown target 3 or kind 2");
}

static void the_alignment_asked_for_is_given(void **state)
{
	struct fixture *fixture = *state;

	expect_placed(fixture);
	fixture->code.align = 4096;
	expect_placed(fixture);
	assert_int_equal((fixture->placed.address - 3) % 4096, 0);
}

static void code_of_no_size_or_of_too_many_bytes_is_refused(void **state)
{
	struct fixture *fixture = *state;

	fixture->code.n_bytes = 0;
	expect_refusal(fixture, "has 0 bytes");
	fixture->code.n_bytes = CODE_BYTES_MAX + 1;
	expect_refusal(fixture, "has 524289 bytes");
}

static void an_alignment_that_is_none_is_refused(void **state)
{
	static const uint32_t wrong[] = { 0, 1, 8, 24, 8192, UINT32_MAX };
	struct fixture *fixture = *state;

	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		fixture->code.align = wrong[i];
		expect_refusal(fixture, "alignment");
	}
}

static void an_entry_outside_the_bytes_is_refused(void **state)
{
	struct fixture *fixture = *state;

	fixture->code.entry = N_BYTES;
	expect_refusal(fixture, "entry 64 lies outside");
	fixture->code.entry = N_BYTES - 1;
	expect_placed(fixture);
}

static void a_field_outside_the_bytes_is_refused(void **state)
{
	struct fixture *fixture = *state;

	add_reloc(fixture, N_BYTES - 3, CODE_TARGET_METHOD, 0, -4);
	expect_refusal(fixture, "relocation 0: field at 61 lies outside");
	fixture->relocs[0].offset = UINT32_MAX;
	expect_refusal(fixture, "field at 4294967295 lies outside");
	fixture->code.n_bytes = 4;
	fixture->relocs[0].offset = 1;
	expect_refusal(fixture, "field at 1 lies outside");
}

static void fields_that_overlap_are_refused(void **state)
{
	struct fixture *fixture = *state;

	add_reloc(fixture, 20, CODE_TARGET_METHOD, 0, -4);
	add_reloc(fixture, 8, CODE_TARGET_METHOD, 0, -4);
	add_reloc(fixture, 17, CODE_TARGET_METHOD, 0, -4);
	expect_refusal(fixture, "relocation 2 at 17 overlaps");
	fixture->relocs[2].offset = 20;
	expect_refusal(fixture, "relocation 2 at 20 overlaps");
	fixture->relocs[2].offset = 16;
	expect_placed(fixture);
}

static void more_relocations_than_bytes_can_hold_are_refused(void **state)
{
	struct fixture *fixture = *state;

	for (uint32_t i = 0; i < 17; i++)
		add_reloc(fixture, 0, CODE_TARGET_METHOD, 0, -4);
	expect_refusal(fixture, "17 relocations overlap in 64 bytes");
	fixture->code.n_bytes = CODE_BYTES_MAX;
	fixture->code.n_relocs = CODE_RELOCS_MAX + 1;
	expect_refusal(fixture, "has 16385 relocations");
}

static void a_target_that_nobody_knows_is_refused(void **state)
{
	struct fixture *fixture = *state;

	add_reloc(fixture, 0, _CODE_TARGET_N, 0, -4);
	expect_refusal(fixture, "unknown target 7");
	fixture->relocs[0].target = UINT16_MAX;
	expect_refusal(fixture, "unknown target 65535");
}

static void an_index_out_of_range_is_refused(void **state)
{
	static const struct { uint32_t target, index; const char *text; } rows[] = {
		{ CODE_TARGET_ENTRY, N_METHODS, "entry cell 5 does not exist, the module has 5" },
		{ CODE_TARGET_METHOD, UINT32_MAX, "method 4294967295 does not exist" },
		{ CODE_TARGET_IMPORT, N_IMPORTS, "import 2 does not exist, the module has 2" },
		{ CODE_TARGET_RODATA, 1, ".rodata 1 does not exist" },
		{ CODE_TARGET_DATA, 1, ".data 1 does not exist" },
		{ CODE_TARGET_BSS, 1, ".bss 1 does not exist" },
		{ CODE_TARGET_CELLS, 1, "cells 1 does not exist" },
	};
	struct fixture *fixture = *state;

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		fixture->code.n_relocs = 0;
		add_reloc(fixture, 0, rows[i].target, rows[i].index, -4);
		expect_refusal(fixture, rows[i].text);
	}
}

/* The program may have an empty array there; bytecode/verify.c accepts its address as well. */
static void an_empty_segment_has_an_address_and_nothing_else(void **state)
{
	const struct arena_needs needs = { .n_methods = 1, .n_code = 16384 };
	struct fixture *fixture = *state;
	const struct tier_layout *layout;
	const uint8_t *bytes;

	arena_free(fixture->arena);
	fixture_layout(fixture, &needs);
	layout = arena_layout(fixture->arena);
	for (uint32_t target = CODE_TARGET_RODATA; target <= CODE_TARGET_BSS; target++) {
		fixture->code.n_relocs = 0;
		add_reloc(fixture, 0, target, 1, 0);
		expect_refusal(fixture, "1 does not exist, the module has 1");
	}
	fixture->code.n_relocs = 0;
	add_reloc(fixture, 0, CODE_TARGET_RODATA, 0, 0);
	add_reloc(fixture, 4, CODE_TARGET_DATA, 0, 0);
	add_reloc(fixture, 8, CODE_TARGET_BSS, 0, 0);
	bytes = expect_placed(fixture);
	assert_true(field_target(fixture, bytes, 0) == layout->base + layout->rodata);
	assert_true(field_target(fixture, bytes, 4) == layout->base + layout->data);
	assert_true(field_target(fixture, bytes, 8) == layout->base + layout->bss);
}

static void an_addend_that_leaves_the_span_is_refused(void **state)
{
	struct fixture *fixture = *state;
	const struct tier_layout *layout = arena_layout(fixture->arena);

	add_reloc(fixture, 0, CODE_TARGET_RODATA, 0, INT32_MAX);
	expect_refusal(fixture, "leads out of the module's span");
	fixture->relocs[0].addend = INT32_MIN;
	expect_refusal(fixture, "leads out of the module's span");
	fixture->relocs[0].addend = -(int32_t)layout->rodata - 1;
	expect_refusal(fixture, "leads out of the module's span");
	fixture->relocs[0].addend = layout->size - layout->rodata;
	expect_refusal(fixture, "leads out of the module's span");
	fixture->relocs[0].addend = layout->size - layout->rodata - 1;
	expect_placed(fixture);
}

static void an_inlined_method_that_does_not_exist_is_refused(void **state)
{
	struct fixture *fixture = *state;

	fixture->inlined[0] = 1;
	fixture->inlined[1] = N_METHODS;
	fixture->code.n_inlined = 2;
	expect_refusal(fixture, "inlined method 5 does not exist");
	fixture->code.n_inlined = N_METHODS + 1;
	expect_refusal(fixture, "6 inlined methods");
	fixture->code.n_inlined = 1;
	expect_placed(fixture);
}

/* -- Call sites --- */
/* "call [rip -> E of @method]" at @at */
static void add_call(struct fixture *fixture, uint32_t at, uint32_t method)
{
	fixture->bytes[at] = 0xff;
	fixture->bytes[at + 1] = 0x15;
	add_reloc(fixture, at + 2, CODE_TARGET_ENTRY, method, -4);
}

static void a_call_whose_field_can_be_aligned_becomes_a_site(void **state)
{
	struct fixture *fixture = *state;
	const struct tier_layout *layout = arena_layout(fixture->arena);
	uint64_t start;
	const uint8_t *bytes;

	add_call(fixture, 2, 4);	/* 2 modulo 4: 67 e8, the field stays */
	add_call(fixture, 15, 3);	/* 3: e8, the field moves down, a nop behind */
	bytes = expect_placed(fixture);
	start = fixture->placed.address - fixture->code.entry;
	assert_int_equal(fixture->placed.n_sites, 2);
	assert_true(fixture->placed.sites[0].address == start + 4 && fixture->placed.sites[1].address == start + 16);
	assert_int_equal(fixture->placed.sites[0].method, 4);
	assert_int_equal(fixture->placed.sites[1].method, 3);
	assert_memory_equal(bytes + 2, ((uint8_t[]){ 0x67, 0xe8 }), 2);
	assert_true(field_target(fixture, bytes, 4) + 4 == tier_layout_precode(layout, 4));
	assert_int_equal(bytes[15], 0xe8);
	assert_int_equal(bytes[20], 0x90);
	assert_true(field_target(fixture, bytes, 16) + 4 == tier_layout_precode(layout, 3));
	assert_memory_equal(bytes, fixture->bytes, 2);
	assert_memory_equal(bytes + 8, fixture->bytes + 8, 7);
	assert_memory_equal(bytes + 21, fixture->bytes + 21, N_BYTES - 21);
}

static void a_call_whose_field_cannot_be_aligned_stays(void **state)
{
	struct fixture *fixture = *state;
	const struct tier_layout *layout = arena_layout(fixture->arena);
	const uint8_t *bytes;

	add_call(fixture, 0, 4);
	add_call(fixture, 9, 3);
	bytes = expect_placed(fixture);
	assert_int_equal(fixture->placed.n_sites, 0);
	assert_memory_equal(bytes, fixture->bytes, 2);
	assert_memory_equal(bytes + 9, fixture->bytes + 9, 2);
	assert_true(field_target(fixture, bytes, 2) + 4 == tier_layout_entry(layout, 4));
	assert_true(field_target(fixture, bytes, 11) + 4 == tier_layout_entry(layout, 3));
}

/* A call at the very end and one at the very beginning */
static void sites_reach_the_ends_of_the_code(void **state)
{
	struct fixture *fixture = *state;

	fixture->code.n_bytes = 8;
	add_call(fixture, 2, 0);
	expect_placed(fixture);
	assert_int_equal(fixture->placed.n_sites, 1);
	fixture->code.n_relocs = 0;
	add_reloc(fixture, 0, CODE_TARGET_ENTRY, 0, -4);	/* nothing before the field */
	add_reloc(fixture, 4, CODE_TARGET_ENTRY, 0, -4);
	expect_placed(fixture);
	assert_int_equal(fixture->placed.n_sites, 0);
}

/* Each differs from a call of 2 modulo 4 in one point; it is relocated as it is, and no other byte changes. */
static void what_is_not_exactly_such_a_call_is_not_touched(void **state)
{
	static const struct { uint8_t bytes[2]; uint32_t target; int32_t addend; uint32_t kind; } rows[] = {
		{ { 0xff, 0x25 }, CODE_TARGET_ENTRY, -4, CODE_RELOC_RELATIVE },		/* jmp */
		{ { 0x8b, 0x05 }, CODE_TARGET_ENTRY, -4, CODE_RELOC_RELATIVE },		/* mov eax */
		{ { 0xff, 0x14 }, CODE_TARGET_ENTRY, -4, CODE_RELOC_RELATIVE },
		{ { 0xfe, 0x15 }, CODE_TARGET_ENTRY, -4, CODE_RELOC_RELATIVE },
		{ { 0xff, 0x15 }, CODE_TARGET_ENTRY, 0, CODE_RELOC_RELATIVE },
		{ { 0xff, 0x15 }, CODE_TARGET_ENTRY, -5, CODE_RELOC_RELATIVE },
		{ { 0xff, 0x15 }, CODE_TARGET_ENTRY, -8, CODE_RELOC_RELATIVE },
		{ { 0xff, 0x15 }, CODE_TARGET_IMPORT, -4, CODE_RELOC_RELATIVE },
		{ { 0xff, 0x15 }, CODE_TARGET_METHOD, -4, CODE_RELOC_RELATIVE },
		{ { 0xff, 0x15 }, CODE_TARGET_RODATA, -4, CODE_RELOC_RELATIVE },
		{ { 0xff, 0x15 }, CODE_TARGET_ENTRY, -4, CODE_RELOC_ABSOLUTE },
	};
	struct fixture *fixture = *state;

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		const uint8_t *bytes;

		fixture->code.n_relocs = 0;
		memcpy(fixture->bytes + 2, rows[i].bytes, 2);
		add_reloc(fixture, 4, rows[i].target, 0, rows[i].addend);
		fixture->relocs[0].kind = rows[i].kind;
		bytes = expect_placed(fixture);
		assert_int_equal(fixture->placed.n_sites, 0);
		assert_memory_equal(bytes, fixture->bytes, 4);
		assert_memory_equal(bytes + 12, fixture->bytes + 12, N_BYTES - 12);
	}
}

/* Bytes that look like a call but are another relocation's field: that field must hold what it should. */
static void a_field_is_never_taken_for_an_instruction(void **state)
{
	struct fixture *fixture = *state;
	const struct tier_layout *layout = arena_layout(fixture->arena);

	for (uint32_t offset = 8; offset <= 9; offset++) {
		const uint8_t *bytes;

		fixture->code.n_relocs = 0;
		add_call(fixture, 10, 1);				/* 2 modulo 4; its field at 12 */
		add_reloc(fixture, offset - 1, CODE_TARGET_METHOD, 2, -4);	/* ends with one byte of it, or with both */
		bytes = expect_placed(fixture);
		assert_int_equal(fixture->placed.n_sites, 0);
		assert_true(field_target(fixture, bytes, offset - 1) + 4 == tier_layout_precode(layout, 2));
		assert_true(field_target(fixture, bytes, 12) + 4 == tier_layout_entry(layout, 1));
	}
}

/* The fields of two calls side by side: neither reaches into the other. */
static void calls_side_by_side_keep_apart(void **state)
{
	struct fixture *fixture = *state;
	const struct tier_layout *layout = arena_layout(fixture->arena);
	const uint8_t *bytes;

	add_call(fixture, 0, 0);
	add_call(fixture, 6, 1);
	add_call(fixture, 12, 2);
	add_call(fixture, 18, 3);
	add_call(fixture, 24, 4);
	bytes = expect_placed(fixture);
	assert_int_equal(fixture->placed.n_sites, 2);
	for (uint32_t i = 0; i < 5; i++) {
		const bool is_site = 6 * i % 4 == 2;

		assert_int_equal(bytes[6 * i], is_site ? 0x67 : 0xff);
		assert_true(field_target(fixture, bytes, 6 * i + 2) + 4
			    == (is_site ? tier_layout_precode(layout, i) : tier_layout_entry(layout, i)));
	}
}

/* Both forms run, return to behind the instruction, and follow one store into their field. T and E of each method are given code that
 * returns other numbers. */
static void a_site_runs_and_is_redirected_by_one_store(void **state)
{
	static const uint8_t sum[] = { 0x01, 0xc3 }, end[] = { 0x89, 0xd8, 0x5b, 0xc3 };	/* add ebx, eax; mov eax, ebx; pop rbx; ret */
	struct fixture *fixture = *state;
	const struct tier_layout *layout = arena_layout(fixture->arena);
	const uint64_t code = tier_layout_segment(layout, TIER_SEGMENT_CODE), size = layout->segment[TIER_SEGMENT_CODE].size;
	uint32_t (*run)(void);
	void *p;

	for (uint32_t i = 0; i < N_METHODS; i++)
		memcpy(arena_head(fixture->arena) + (tier_layout_precode(layout, i) - code), (uint8_t[]){ 0xb8, 1 << i, 0, 0, 0, 0xc3 }, 6);
	p = mmap((void *)code, size, PROT_READ | PROT_EXEC, MAP_SHARED | MAP_FIXED_NOREPLACE,
		 arena_client_fd(fixture->arena, TIER_SEGMENT_CODE), 0);
	assert_true(p == (void *)code);
	memset(fixture->bytes, 0x90, N_BYTES);
	memcpy(fixture->bytes, (uint8_t[]){ 0x53, 0x31, 0xdb }, 3);	/* push rbx; xor ebx, ebx */
	add_call(fixture, 6, 0);
	memcpy(fixture->bytes + 12, sum, sizeof(sum));
	add_call(fixture, 15, 1);
	memcpy(fixture->bytes + 21, sum, sizeof(sum));
	memcpy(fixture->bytes + 23, end, sizeof(end));
	fixture->code.entry = 0;
	expect_placed(fixture);
	assert_int_equal(fixture->placed.n_sites, 2);
	run = (uint32_t (*)(void))fixture->placed.address;
	assert_int_equal(run(), 1 + 2);
	for (uint32_t i = 0; i < 2; i++) {
		const uint64_t site = fixture->placed.sites[i].address;

		*(int32_t *)arena_alias(fixture->arena, site, 4) = tier_layout_precode(layout, 3 + i) - (site + 4);
	}
	assert_int_equal(run(), 8 + 16);
	munmap(p, size);
}

static void a_full_segment_is_told_apart_from_a_refusal(void **state)
{
	struct fixture *fixture = *state;
	uint64_t used;
	int r;

	while (!(r = place_code(&fixture->placed, fixture->arena, &fixture->code, &fixture->refusal)))
		continue;
	assert_int_equal(r, PLACE_E_FULL);
	used = arena_code_used(fixture->arena);
	assert_int_equal(place_code(&fixture->placed, fixture->arena, &fixture->code, &fixture->refusal), PLACE_E_FULL);
	assert_int_equal(arena_code_used(fixture->arena), used);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(bytes_without_relocations_are_placed_as_they_are),
		TEST(every_target_is_where_the_layout_says),
		TEST(an_absolute_field_holds_the_address_in_eight_bytes),
		TEST(an_absolute_field_is_checked_as_others_are),
		TEST(the_alignment_asked_for_is_given),
		TEST(code_of_no_size_or_of_too_many_bytes_is_refused),
		TEST(an_alignment_that_is_none_is_refused),
		TEST(an_entry_outside_the_bytes_is_refused),
		TEST(a_field_outside_the_bytes_is_refused),
		TEST(fields_that_overlap_are_refused),
		TEST(more_relocations_than_bytes_can_hold_are_refused),
		TEST(a_target_that_nobody_knows_is_refused),
		TEST(an_index_out_of_range_is_refused),
		TEST(an_empty_segment_has_an_address_and_nothing_else),
		TEST(an_addend_that_leaves_the_span_is_refused),
		TEST(an_inlined_method_that_does_not_exist_is_refused),
		TEST(a_full_segment_is_told_apart_from_a_refusal),
		TEST(a_backpatchable_methods_address_is_its_funcptr_precode),
		TEST(a_call_whose_field_can_be_aligned_becomes_a_site),
		TEST(a_call_whose_field_cannot_be_aligned_stays),
		TEST(sites_reach_the_ends_of_the_code),
		TEST(what_is_not_exactly_such_a_call_is_not_touched),
		TEST(a_field_is_never_taken_for_an_instruction),
		TEST(calls_side_by_side_keep_apart),
		TEST(a_site_runs_and_is_redirected_by_one_store),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
