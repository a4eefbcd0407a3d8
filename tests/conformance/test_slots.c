/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include "bytecode/builder.h"
#include "tiers/tiers.h"
#include "util/base.h"
#include "worker/child/codegen.h"

/* Calls through vtable slots at both tiers: through which cell, told what, and when by value. Method 0 is the caller, 1 and 2 are
 * called through words 1 and 2 of .rodata; word 0 is a number, so that the table begins before its first slot. */

#define INSN(c, d, s, o, i) ((struct insn){ .code = (c), .dst = (d), .src = (s), .off = (o), .imm = (i) })
#define MOV(d, s) INSN(BPF_ALU64 | BPF_MOV | BPF_X, d, s, 0, 0)
#define ADD(d, s) INSN(BPF_ALU64 | BPF_ADD | BPF_X, d, s, 0, 0)
#define ADD_K(d, i) INSN(BPF_ALU64 | BPF_ADD | BPF_K, d, 0, 0, i)
#define LOAD(d, s, o) INSN(BPF_LDX | BPF_MEM | BPF_DW, d, s, o, 0)
#define STORE(d, o, s) INSN(BPF_STX | BPF_MEM | BPF_DW, d, s, o, 0)
#define LDDW(d, ref, low) INSN(BPF_LDDW, d, ref, 0, low), INSN(0, 0, 0, 0, 0)
#define CALLX(d) INSN(BPF_JMP | BPF_CALL | BPF_X, d, 0, 0, 0)
#define EXIT INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0)
#define LOAD_MODULE(t, ...)                                                                                            \
	load_module(t, (const struct insn[]){ __VA_ARGS__ }, sizeof((const struct insn[]){ __VA_ARGS__ }) / sizeof(struct insn))

enum { N_WORDS = 3 };

/* What stands in a cell instead of a method: returns r10 */
uint64_t tell_cell(void);
__asm__(".pushsection .text\n"
	"tell_cell:\n"
	"	mov %r10, %rax\n"
	"	ret\n"
	".popsection\n");

static void *image_bytes;

static void load_module(struct tiers *t, const struct insn *insns, uint32_t n)
{
	const struct insn one[] = { MOV(0, 1), ADD_K(0, 100), EXIT }, two[] = { MOV(0, 1), ADD_K(0, 200), EXIT };
	struct builder builder = BUILDER_NULL;
	const uint32_t text = builder_string(&builder, ".text");
	struct refusal refusal = { "" };
	struct image image;
	size_t n_image;

	free(TAKE_PTR(image_bytes));
	builder_method(&builder, "caller", text, 0, 0, insns, n);
	builder_method(&builder, "one", text, 1000, 0, one, ARRAY_SIZE(one));
	builder_method(&builder, "two", text, 2000, 0, two, ARRAY_SIZE(two));
	builder_segment(&builder, IMAGE_RODATA, (uint64_t[N_WORDS]){ 12345 }, N_WORDS * 8, 8);
	for (uint32_t i = 1; i < N_WORDS; i++)
		builder_reloc(&builder, &(struct image_reloc){ .segment = IMAGE_RODATA, .ref = INSN_REF_METHOD, .width = 8, .offset = 8 * i,
							       .index = i });
	assert_int_equal(builder_finish(&builder, &image_bytes, &n_image), 0);
	builder_deinit(&builder);
	if (!image_check(image_bytes, n_image, &image, &refusal) || !tiers_load(t, &image, NULL, &refusal)
	    || !tiers_compile_all(t, TIERS_0, true, &refusal) || !tiers_compile_all(t, TIERS_1, true, &refusal))
		fail_msg("%s", refusal.text);
	for (uint32_t i = 0; i < image.n_methods; i++)
		tiers_select(t, TIERS_0, i);
}

static uint64_t *word(struct tiers *t, uint32_t i)
{
	return (uint64_t *)(t->layout.base + t->layout.rodata) + i;
}

static uint64_t *cell(struct tiers *t, uint32_t i)
{
	return (uint64_t *)tier_layout_call_cell(&t->layout, (uintptr_t)word(t, i));
}

/* By the reference, which knows of no cells, if @check; and by the caller's code at @kind */
static uint64_t run(struct tiers *t, enum tiers_kind kind, uint64_t a, uint64_t b, bool check)
{
	const uint64_t args[5] = { a, b };
	uint64_t expected, result;
	const char *fault;

	tiers_select(t, kind, 0);
	fault = tiers_call(t, 0, args, &result);
	if (fault)
		fail_msg("%s", fault);
	if (check) {
		assert_null(tiers_interpret(t, 0, args, &expected));
		assert_int_equal(result, expected);
	}
	return result;
}

/* As compilers write a virtual call: r1 is the object, its first word the table */
static void load_virtual(struct tiers *t, int16_t offset)
{
	LOAD_MODULE(t, LOAD(3, 1, 0), LOAD(3, 3, offset), MOV(1, 2), CALLX(3), EXIT);
}

static void a_virtual_call_goes_through_the_cell_and_tells_it(void **state)
{
	struct tiers *t = *state;
	const uint64_t object = (uintptr_t)word(t, 0);

	for (enum tiers_kind kind = TIERS_0; kind <= TIERS_1; kind++)
		for (uint32_t i = 1; i < N_WORDS; i++) {
			load_virtual(t, 8 * i);
			assert_int_equal(run(t, kind, (uintptr_t)&object, 7, true), 100 * i + 7);
			*cell(t, i) = (uintptr_t)tell_cell;
			assert_int_equal(run(t, kind, (uintptr_t)&object, 7, false), (uintptr_t)cell(t, i));
		}
}

static void a_copied_table_is_called_by_value(void **state)
{
	struct tiers *t = *state;
	uint64_t copy[N_WORDS + 1], object;

	for (enum tiers_kind kind = TIERS_0; kind <= TIERS_1; kind++)
		for (size_t shift = 0; shift < 8; shift++) {
			load_virtual(t, 8);
			for (uint32_t i = 1; i < N_WORDS; i++)
				*cell(t, i) = (uintptr_t)tell_cell;
			object = (uintptr_t)copy + shift;	/* at any alignment */
			memcpy((uint8_t *)copy + shift, word(t, 0), N_WORDS * 8);
			assert_int_equal(run(t, kind, (uintptr_t)&object, 7, true), 107);
		}
}

/* Tier 1 was told that the callx of load_virtual() calls method 1: that one is inlined, without its cell; any other goes through
 * its cell, and tells it. */
static void a_virtual_call_asks_for_its_usual_target_first(void **state)
{
	static const struct profile_count counts[] = {
		{ .kind = PROFILE_ENTRY, .n = 30, .method = PROFILE_NO_METHOD },
		{ .pc = 3, .kind = PROFILE_CALLX, .n = 30, .m = 30, .method = 1 },
	};
	struct tiers *t = *state;
	const uint64_t usual = (uintptr_t)word(t, 0), other = (uintptr_t)word(t, 1);
	struct refusal refusal = { "" };

	load_virtual(t, 8);
	t->profiles[0].counts = malloc(sizeof(counts));
	assert_non_null(t->profiles[0].counts);
	memcpy(t->profiles[0].counts, counts, sizeof(counts));
	t->profiles[0].n = ARRAY_SIZE(counts);
	if (!tiers_compile(t, TIERS_1, 0, true, &refusal))
		fail_msg("%s", refusal.text);
	assert_int_equal(run(t, TIERS_1, (uintptr_t)&usual, 7, true), 107);
	assert_int_equal(run(t, TIERS_1, (uintptr_t)&other, 7, true), 207);
	*cell(t, 1) = *cell(t, 2) = (uintptr_t)tell_cell;
	assert_int_equal(run(t, TIERS_1, (uintptr_t)&usual, 7, true), 107);
	assert_int_equal(run(t, TIERS_1, (uintptr_t)&other, 7, false), (uintptr_t)cell(t, 2));
}

/* Many slots of one table, some tables of which are slots in part only: the test for all of them is never the answer for one. */
static void each_of_several_slots_is_judged_by_itself(void **state)
{
	static const uint64_t results[] = { [1] = 107, [2] = 207 };
	struct tiers *t = *state;

	for (enum tiers_kind kind = TIERS_0; kind <= TIERS_1; kind++)
		for (int32_t first = -8; first <= N_WORDS; first++) {
			uint64_t table, sum = 0;

			/* calls what it finds 8, 16, ... behind the table, unless that is 0 */
			LOAD_MODULE(t, MOV(6, 1), MOV(7, 2), MOV(9, 1), INSN(BPF_ALU64 | BPF_MOV | BPF_K, 8, 0, 0, 0),
				    LOAD(3, 6, 0), INSN(BPF_JMP | BPF_JEQ | BPF_K, 3, 0, 3, 0), MOV(1, 7), CALLX(3), ADD(8, 0),
				    LOAD(3, 6, 8), INSN(BPF_JMP | BPF_JEQ | BPF_K, 3, 0, 3, 0), MOV(1, 7), CALLX(3), ADD(8, 0),
				    LOAD(3, 6, 32), INSN(BPF_JMP | BPF_JEQ | BPF_K, 3, 0, 3, 0), MOV(1, 7), CALLX(3), ADD(8, 0),
				    MOV(0, 8), EXIT);
			*word(t, 0) = 0;
			table = (uintptr_t)word(t, 0) + 8 * (int64_t)first;
			for (uint32_t i = 1; i < N_WORDS; i++)
				if ((int32_t)i == first || (int32_t)i == first + 1 || (int32_t)i == first + 4)
					sum += results[i];
			assert_int_equal(run(t, kind, table, 7, false), sum);
			for (uint32_t i = 1; i < N_WORDS; i++)
				*cell(t, i) = tier_layout_precode(&t->layout, 3 - i);	/* as if they were patched otherwise */
			sum = 0;
			for (uint32_t i = 1; i < N_WORDS; i++)
				if ((int32_t)i == first || (int32_t)i == first + 1 || (int32_t)i == first + 4)
					sum += results[3 - i];
			assert_int_equal(run(t, kind, table, 7, false), sum);
		}
}

/* Calls what stands @near behind r1 and what stands @far behind r2, each with 7, and returns both results. */
static void load_two_bases(struct tiers *t, int16_t near, int16_t far)
{
	LOAD_MODULE(t, MOV(6, 1), MOV(7, 2), LOAD(3, 6, near), INSN(BPF_ALU64 | BPF_MOV | BPF_K, 1, 0, 0, 7), CALLX(3), MOV(8, 0),
		    LOAD(3, 7, far), INSN(BPF_ALU64 | BPF_MOV | BPF_K, 1, 0, 0, 7), CALLX(3),
		    INSN(BPF_ALU64 | BPF_LSH | BPF_K, 0, 0, 0, 16), ADD(0, 8), EXIT);
}

/* Offsets up to the whole reach of an instruction, of which only one base is .rodata, or both, or neither */
static void a_table_and_a_larger_struct_are_called_in_one_method(void **state)
{
	static const int16_t fars[] = { 0, 8, 16, 24, 32, 72, 792, 13, 1001, -8, -24, -800, -13, 32760, INT16_MAX, INT16_MIN };
	struct tiers *t = *state;
	uint64_t copy[N_WORDS], two;

	for (enum tiers_kind kind = TIERS_0; kind <= TIERS_1; kind++)
		for (size_t i = 0; i < ARRAY_SIZE(fars); i++) {
			load_two_bases(t, 8, fars[i]);
			memcpy(copy, word(t, 0), sizeof(copy));
			two = copy[2];
			assert_int_equal(run(t, kind, (uintptr_t)word(t, 0), (uintptr_t)&two - fars[i], true), 207 << 16 | 107);
			assert_int_equal(run(t, kind, (uintptr_t)copy, (uintptr_t)word(t, 2) - fars[i], true), 207 << 16 | 107);
			assert_int_equal(run(t, kind, (uintptr_t)copy, (uintptr_t)&two - fars[i], true), 207 << 16 | 107);
			assert_int_equal(run(t, kind, (uintptr_t)word(t, 0), (uintptr_t)word(t, 2) - fars[i], true), 207 << 16 | 107);
			*cell(t, 2) = (uintptr_t)tell_cell;
			assert_int_equal(run(t, kind, (uintptr_t)copy, (uintptr_t)word(t, 2) - fars[i], false),
					 ((uint64_t)(uintptr_t)cell(t, 2) << 16) + 107);
		}
}

/* As an interpreter has it whose operations lie on the stack, beside a table */
static void a_frame_and_a_table_are_called_in_one_method(void **state)
{
	struct tiers *t = *state;

	for (enum tiers_kind kind = TIERS_0; kind <= TIERS_1; kind++)
		for (int16_t at = -8; at >= -512; at -= 56) {
			LOAD_MODULE(t, MOV(6, 1), LOAD(3, 6, 16), STORE(10, at, 3), LOAD(3, 6, 8),
				    INSN(BPF_ALU64 | BPF_MOV | BPF_K, 1, 0, 0, 7), CALLX(3), MOV(8, 0), LOAD(3, 10, at),
				    INSN(BPF_ALU64 | BPF_MOV | BPF_K, 1, 0, 0, 9), CALLX(3),
				    INSN(BPF_ALU64 | BPF_LSH | BPF_K, 0, 0, 0, 16), ADD(0, 8), EXIT);
			assert_int_equal(run(t, kind, (uintptr_t)word(t, 0), 0, true), 209 << 16 | 107);
		}
}

/* The base of the far call is the table or the struct, by the second argument. */
static void a_base_is_the_table_only_sometimes(void **state)
{
	struct tiers *t = *state;
	uint64_t copy[N_WORDS];

	for (enum tiers_kind kind = TIERS_0; kind <= TIERS_1; kind++) {
		LOAD_MODULE(t, MOV(6, 1), LDDW(7, INSN_REF_RODATA, 16), INSN(BPF_JMP | BPF_JEQ | BPF_K, 2, 0, 1, 0), MOV(7, 2),
			    ADD_K(7, -800), LDDW(3, INSN_REF_RODATA, 8), LOAD(3, 3, 0), CALLX(3), MOV(8, 0), LOAD(3, 7, 800),
			    INSN(BPF_ALU64 | BPF_MOV | BPF_K, 1, 0, 0, 9), CALLX(3), INSN(BPF_ALU64 | BPF_LSH | BPF_K, 0, 0, 0, 16),
			    ADD(0, 8), EXIT);
		memcpy(copy, word(t, 0), sizeof(copy));
		assert_int_equal(run(t, kind, 7, 0, true), 209 << 16 | 107);
		assert_int_equal(run(t, kind, 7, (uintptr_t)&copy[1], true), 109 << 16 | 107);
		*cell(t, 2) = (uintptr_t)tell_cell;
		assert_int_equal(run(t, kind, 7, 0, false), ((uint64_t)(uintptr_t)cell(t, 2) << 16) + 107);
		assert_int_equal(run(t, kind, 7, (uintptr_t)&copy[2], false), 209 << 16 | 107);
	}
}

/* LLVM sees which slot it is; the cell is read at each call all the same. */
static void a_slot_that_is_known_is_read_anew_by_every_call(void **state)
{
	struct tiers *t = *state;

	for (enum tiers_kind kind = TIERS_0; kind <= TIERS_1; kind++) {
		LOAD_MODULE(t, MOV(6, 1), MOV(7, 2), INSN(BPF_ALU64 | BPF_MOV | BPF_K, 8, 0, 0, 0),
			    LDDW(3, INSN_REF_RODATA, 8), LOAD(3, 3, 0), MOV(1, 6), MOV(2, 7), CALLX(3), ADD(8, 0),
			    LDDW(3, INSN_REF_RODATA, 8), LOAD(3, 3, 0), MOV(1, 6), CALLX(3), ADD(8, 0), MOV(0, 8), EXIT);
		assert_int_equal(run(t, kind, 5, 0, true), 210);
		*cell(t, 1) = (uintptr_t)tell_cell;
		assert_int_equal(run(t, kind, 5, 0, false), 2 * (uintptr_t)cell(t, 1));
	}
}

/* A constant that leads out of the module's span makes LLVM compile again without seeing through addresses. */
static void slots_are_slots_when_addresses_are_opaque(void **state)
{
	struct tiers *t = *state;

	for (enum tiers_kind kind = TIERS_0; kind <= TIERS_1; kind++) {
		LOAD_MODULE(t, INSN(BPF_JMP | BPF_JEQ | BPF_K, 2, 0, 4, 0), LDDW(4, INSN_REF_RODATA, 8), ADD_K(4, 0x7ffffff0),
			    LOAD(0, 4, 0), LDDW(3, INSN_REF_RODATA, 8), LOAD(3, 3, 8), CALLX(3), EXIT);
		assert_int_equal(run(t, kind, 5, 0, true), 205);
		*cell(t, 2) = (uintptr_t)tell_cell;
		assert_int_equal(run(t, kind, 5, 0, false), (uintptr_t)cell(t, 2));
	}
}

static uint64_t *patched;

static uint64_t patch(uint64_t to)
{
	*patched = to;
	return 1;
}

/* A loop through a known slot, whose callee changes the cell: the next turn sees it. */
static void a_loop_sees_the_cell_change(void **state)
{
	struct tiers *t = *state;

	for (enum tiers_kind kind = TIERS_0; kind <= TIERS_1; kind++) {
		LOAD_MODULE(t, MOV(6, 1), INSN(BPF_ALU64 | BPF_MOV | BPF_K, 8, 0, 0, 0), INSN(BPF_ALU64 | BPF_MOV | BPF_K, 7, 0, 0, 5),
			    LDDW(3, INSN_REF_RODATA, 8), LOAD(3, 3, 0), MOV(1, 6), CALLX(3), ADD(8, 0), ADD_K(7, -1),
			    INSN(BPF_JMP | BPF_JNE | BPF_K, 7, 0, -8, 0), MOV(0, 8), EXIT);
		patched = cell(t, 1);
		*patched = (uintptr_t)patch;
		assert_int_equal(run(t, kind, t->code[TIERS_0][2], 0, false), 1 + 4 * (t->code[TIERS_0][2] + 200));
	}
}

static void the_loaded_value_is_the_methods_address_at_every_tier(void **state)
{
	struct tiers *t = *state;
	const uint64_t object = (uintptr_t)word(t, 0);

	for (enum tiers_kind kind = TIERS_0; kind <= TIERS_1; kind++) {
		LOAD_MODULE(t, LOAD(6, 1, 0), LOAD(6, 6, 8), MOV(1, 2), CALLX(6), LDDW(0, INSN_REF_METHOD, 0), MOV(0, 6), EXIT);
		assert_int_equal(run(t, kind, (uintptr_t)&object, 7, true), tier_layout_funcptr(&t->layout, 1));
		LOAD_MODULE(t, INSN(BPF_LDDW, 0, INSN_REF_METHOD, 0, 0), INSN(0, 0, 0, 0, 2), EXIT);
		assert_int_equal(run(t, kind, 0, 0, true), tier_layout_funcptr(&t->layout, 2));
		LOAD_MODULE(t, INSN(BPF_LDDW, 0, INSN_REF_METHOD, 0, 0), INSN(0, 0, 0, 0, 0), EXIT);
		assert_int_equal(run(t, kind, 0, 0, true), tier_layout_precode(&t->layout, 0));
	}
}

static int setup(void **state)
{
	*state = tiers_new();
	return *state ? codegen_init() : -1;
}

static int teardown(void **state)
{
	*state = tiers_free(*state);
	free(TAKE_PTR(image_bytes));
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_virtual_call_goes_through_the_cell_and_tells_it),
		cmocka_unit_test(a_copied_table_is_called_by_value),
		cmocka_unit_test(a_virtual_call_asks_for_its_usual_target_first),
		cmocka_unit_test(each_of_several_slots_is_judged_by_itself),
		cmocka_unit_test(a_table_and_a_larger_struct_are_called_in_one_method),
		cmocka_unit_test(a_frame_and_a_table_are_called_in_one_method),
		cmocka_unit_test(a_base_is_the_table_only_sometimes),
		cmocka_unit_test(a_slot_that_is_known_is_read_anew_by_every_call),
		cmocka_unit_test(slots_are_slots_when_addresses_are_opaque),
		cmocka_unit_test(a_loop_sees_the_cell_change),
		cmocka_unit_test(the_loaded_value_is_the_methods_address_at_every_tier),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
