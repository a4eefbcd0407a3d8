/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
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
	bytes = expect_placed(fixture);
	assert_true(field_target(fixture, bytes, 60) + 4 == tier_layout_entry(layout, 4));
	assert_true(field_target(fixture, bytes, 0) + 4 == tier_layout_precode(layout, 2));
	assert_true(field_target(fixture, bytes, 10) + 5 == tier_layout_import(layout, 1));
	assert_true(field_target(fixture, bytes, 4) + 4 == layout->base + layout->rodata + 99);
	assert_true(field_target(fixture, bytes, 30) + 8 == layout->base + layout->data);
	assert_true(field_target(fixture, bytes, 20) == layout->base + layout->bss);
	assert_memory_equal(bytes + 34, fixture->bytes + 34, 26);	/* nothing beside the fields */
	assert_int_equal(bytes[8], 9);
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
	expect_refusal(fixture, "unknown target 6");
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
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
